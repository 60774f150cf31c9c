//! The cells of a column: numbers, and gaps with their reasons. Gaps stand before the numbers as runs, so that a
//! column without any pays one byte for that.

use crate::model::reading::Gap;

use super::code::{pull, pull_count, push};
use super::column;

/// One cell.
pub type Cell = Result<i64, Gap>;

/// Codes cells, for good.
pub fn encode(cells: impl IntoIterator<Item = Cell>) -> Vec<u8> {
    encode_by(cells, column::encode)
}

/// Codes cells that will be coded again soon.
pub fn encode_quickly(cells: impl IntoIterator<Item = Cell>) -> Vec<u8> {
    encode_by(cells, column::encode_quickly)
}

fn encode_by(
    cells: impl IntoIterator<Item = Cell>,
    numbers_as: impl Fn(&[i64]) -> Vec<u8>,
) -> Vec<u8> {
    let cells = cells.into_iter();
    let mut numbers = Vec::with_capacity(cells.size_hint().0);
    // Each: how many numbers stand before it, how long it is, and why.
    let mut gaps: Vec<(usize, usize, Gap)> = Vec::new();
    let mut good = 0;
    for cell in cells {
        match (cell, gaps.last_mut()) {
            (Ok(number), _) => {
                numbers.push(number);
                good += 1;
            }
            (Err(gap), Some((_, length, same))) if good == 0 && *same == gap => *length += 1,
            (Err(gap), _) => gaps.push((std::mem::take(&mut good), 1, gap)),
        }
    }
    let mut bytes = Vec::new();
    push(&mut bytes, gaps.len() as u64);
    for (good, length, gap) in gaps {
        push(&mut bytes, good as u64);
        push(&mut bytes, length as u64);
        bytes.push(gap as u8);
    }
    bytes.extend_from_slice(&numbers_as(&numbers));
    bytes
}

/// Reads so many cells; `None` if the bytes are not theirs.
pub fn decode(bytes: &[u8], count: usize) -> Option<Vec<Cell>> {
    let mut out = Vec::new();
    decode_into(bytes, count, &mut out)?;
    Some(out)
}

/// Reads so many cells into a place that is used again and again: whoever asks for many columns takes memory once.
pub fn decode_into(mut bytes: &[u8], count: usize, out: &mut Vec<Cell>) -> Option<()> {
    out.clear();
    if count > column::MOST {
        return None;
    }
    let runs = pull_count(&mut bytes, count)?;
    if runs == 0 {
        return column::decode_into(bytes, count, out, Ok);
    }
    let (mut gaps, mut left) = (Vec::with_capacity(runs), count);
    let mut missing = 0;
    for _ in 0..runs {
        let good = pull_count(&mut bytes, left)?;
        let length = pull_count(&mut bytes, left - good)?;
        left -= good + length;
        missing += length;
        let code = pull(&mut bytes)?;
        let gap = u8::try_from(code).ok().and_then(Gap::from_number)?;
        gaps.push((good, length, gap));
    }
    let numbers = column::decode(bytes, count - missing)?;
    let mut numbers = numbers.into_iter().map(Ok);
    out.reserve(count);
    for (good, length, gap) in gaps {
        out.extend(numbers.by_ref().take(good));
        out.resize(out.len() + length, Err(gap));
    }
    out.extend(numbers);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            4 => (0_i64..5_000).prop_map(Ok),
            1 => any::<i64>().prop_map(Ok),
            2 => (1_u8..=11).prop_map(|n| Err(Gap::from_number(n).unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn cells_are_read_back_with_the_reasons_of_their_gaps(cells in prop::collection::vec((cell(), 1_usize..5), 0..80)) {
            let cells: Vec<Cell> = cells.iter().flat_map(|(cell, count)| vec![*cell; *count]).collect();
            prop_assert_eq!(decode(&encode(cells.iter().copied()), cells.len()), Some(cells));
        }

        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0_usize..600) {
            prop_assert!(decode(&bytes, count).is_none_or(|cells| cells.len() == count));
        }
    }
}
