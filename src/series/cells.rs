//! The cells of a column: numbers, and gaps with their reasons. Gaps stand before the numbers as runs, so that a
//! column without any pays one byte for that.

use crate::model::reading::Gap;

use super::code::{pull, pull_count, push};
use super::column;

/// One cell.
pub type Cell = Result<i64, Gap>;

/// A column of cells as it is coded: the numbers by themselves, for most columns have nothing else, and where gaps stand
/// between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    numbers: Vec<i64>,
    gaps: Vec<Run>,
    /// How many numbers stand before the last gap.
    before: usize,
    /// How many cells are gaps.
    missing: usize,
}

/// Gaps beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// How many numbers stand between the gaps before and these.
    good: usize,
    length: usize,
    gap: Gap,
}

/// Cells of one kind beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'c> {
    /// Numbers.
    Numbers(&'c [i64]),
    /// So many gaps.
    Gaps(usize, Gap),
}

impl Piece<'_> {
    /// How many cells there are.
    pub fn len(&self) -> usize {
        match self {
            Piece::Numbers(numbers) => numbers.len(),
            Piece::Gaps(length, _) => *length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Column {
    /// With room for so many numbers.
    pub fn with_capacity(count: usize) -> Self {
        Self { numbers: Vec::with_capacity(count), ..Self::default() }
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.numbers.len() + self.missing
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all of them out, and keeps the room.
    pub fn clear(&mut self) {
        self.numbers.clear();
        self.gaps.clear();
        (self.before, self.missing) = (0, 0);
    }

    /// Adds a cell.
    #[inline]
    pub fn push(&mut self, cell: Cell) {
        match cell {
            Ok(number) => self.numbers.push(number),
            Err(gap) => self.push_gaps(1, gap),
        }
    }

    /// Adds numbers.
    pub fn push_numbers(&mut self, numbers: &[i64]) {
        self.numbers.extend_from_slice(numbers);
    }

    /// Adds so many gaps of one reason.
    pub fn push_gaps(&mut self, length: usize, gap: Gap) {
        let good = self.numbers.len() - std::mem::replace(&mut self.before, self.numbers.len());
        self.missing += length;
        match self.gaps.last_mut() {
            Some(last) if good == 0 && last.gap == gap => last.length += length,
            _ => self.gaps.push(Run { good, length, gap }),
        }
    }

    /// Adds the cells of another.
    pub fn append(&mut self, other: &Column) {
        for piece in other.pieces() {
            match piece {
                Piece::Numbers(numbers) => self.push_numbers(numbers),
                Piece::Gaps(length, gap) => self.push_gaps(length, gap),
            }
        }
    }

    /// The cells in order, those of one kind together.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let runs = self.gaps.iter().scan(0, |at, run| {
            let numbers = &self.numbers[*at..*at + run.good];
            *at += run.good;
            Some([Piece::Numbers(numbers), Piece::Gaps(run.length, run.gap)])
        });
        let rest = Piece::Numbers(&self.numbers[self.before..]);
        runs.flatten().chain([rest]).filter(|piece| !piece.is_empty())
    }

    /// The cells one by one.
    pub fn cells(&self) -> impl Iterator<Item = Cell> {
        self.pieces().flat_map(|piece| {
            let (numbers, gaps) = match piece {
                Piece::Numbers(numbers) => (numbers, None),
                Piece::Gaps(length, gap) => (&[][..], Some(std::iter::repeat_n(Err(gap), length))),
            };
            numbers.iter().map(|number| Ok(*number)).chain(gaps.into_iter().flatten())
        })
    }
}

impl FromIterator<Cell> for Column {
    fn from_iter<I: IntoIterator<Item = Cell>>(cells: I) -> Self {
        let cells = cells.into_iter();
        let mut column = Self::with_capacity(cells.size_hint().0);
        cells.for_each(|cell| column.push(cell));
        column
    }
}

/// Codes cells, for good, onto the end of bytes.
pub fn encode_onto(column: &Column, bytes: &mut Vec<u8>) {
    encode_gaps(column, bytes);
    column::encode_onto(&column.numbers, bytes);
}

/// Codes cells that will be coded again soon onto the end of bytes.
pub fn encode_quickly_onto(column: &Column, bytes: &mut Vec<u8>) {
    encode_gaps(column, bytes);
    column::encode_quickly_onto(&column.numbers, bytes);
}

/// Codes cells one by one, for good.
pub fn encode(cells: impl IntoIterator<Item = Cell>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_onto(&cells.into_iter().collect(), &mut bytes);
    bytes
}

fn encode_gaps(column: &Column, bytes: &mut Vec<u8>) {
    push(bytes, column.gaps.len() as u64);
    for run in &column.gaps {
        push(bytes, run.good as u64);
        push(bytes, run.length as u64);
        bytes.push(run.gap as u8);
    }
}

/// Reads so many cells; `None` if the bytes are not theirs.
pub fn decode(bytes: &[u8], count: usize) -> Option<Vec<Cell>> {
    let mut column = Column::default();
    decode_into(bytes, count, &mut column)?;
    let mut cells = Vec::with_capacity(count);
    cells.extend(column.cells());
    Some(cells)
}

/// Reads so many cells into a place that is used again and again: whoever asks for many columns takes memory once.
/// Where it is `None` there is nothing in it.
pub fn decode_into(bytes: &[u8], count: usize, out: &mut Column) -> Option<()> {
    out.clear();
    let read = read(bytes, count, out);
    if read.is_none() {
        out.clear();
    }
    read
}

fn read(mut bytes: &[u8], count: usize, out: &mut Column) -> Option<()> {
    if count > column::MOST {
        return None;
    }
    let runs = pull_count(&mut bytes, count)?;
    let (mut left, mut before) = (count, 0);
    for _ in 0..runs {
        let good = pull_count(&mut bytes, left)?;
        let length = pull_count(&mut bytes, left - good)?;
        left -= good + length;
        before += good;
        let code = pull(&mut bytes)?;
        let gap = u8::try_from(code).ok().and_then(Gap::from_number)?;
        out.gaps.push(Run { good, length, gap });
        out.missing += length;
    }
    out.before = before;
    column::decode_onto(bytes, count - out.missing, &mut out.numbers)
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
        fn cells_are_read_back_with_the_reasons_of_their_gaps(cells in prop::collection::vec((cell(), 1_usize..5), 0..80), at in any::<prop::sample::Index>()) {
            let cells: Vec<Cell> = cells.iter().flat_map(|(cell, count)| vec![*cell; *count]).collect();
            let (left, right) = cells.split_at(at.index(cells.len() + 1));
            prop_assert_eq!(decode(&encode(cells.iter().copied()), cells.len()), Some(cells.clone()));
            let [whole, mut joined, right] = [&cells, left, right].map(|cells| cells.iter().copied().collect::<Column>());
            prop_assert_eq!(whole.cells().collect::<Vec<_>>(), cells.clone());
            joined.append(&right);
            prop_assert_eq!((joined.len(), &joined), (cells.len(), &whole));
        }

        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0_usize..600) {
            prop_assert!(decode(&bytes, count).is_none_or(|cells| cells.len() == count));
        }
    }
}
