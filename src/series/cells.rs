//! The cells of a column: numbers, and gaps with their reasons. Gaps stand before the numbers as runs, so that a
//! column without any pays one byte for that.

use crate::model::reading::Gap;

use super::code::{pull, pull_count, push};
use super::column;

/// One cell.
pub type Cell = Result<i64, Gap>;

/// Codes cells.
pub fn encode(cells: &[Cell]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let runs = cells.chunk_by(|a, b| a.err() == b.err());
    push(&mut bytes, runs.clone().filter(|run| run[0].is_err()).count() as u64);
    let mut good = 0;
    for run in runs {
        match run[0] {
            Ok(_) => good += run.len(),
            Err(gap) => {
                push(&mut bytes, std::mem::take(&mut good) as u64);
                push(&mut bytes, run.len() as u64);
                bytes.push(gap as u8);
            }
        }
    }
    let numbers: Vec<i64> = cells.iter().filter_map(|cell| cell.ok()).collect();
    bytes.extend_from_slice(&column::encode(&numbers));
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
            prop_assert_eq!(decode(&encode(&cells), cells.len()), Some(cells));
        }

        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0_usize..600) {
            prop_assert!(decode(&bytes, count).is_none_or(|cells| cells.len() == count));
        }
    }
}
