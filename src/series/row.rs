//! One poll of one device as a row: which readings a schema says once, what they were as packed integers.
//! Every row carries a checksum: a flipped bit must not become a wrong kilowatt-hour.

use crate::model::reading::{Datum, Gap};

use super::code::{pull, push, unzigzag, zigzag};

/// Format of the rows; another one gets another number.
const VERSION: u8 = 1;
/// Bytes before the packed part: version and CRC-32.
const HEAD: usize = 5;

/// Why bytes are no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Cut off, or longer than it should be.
    #[error("a stored row has the wrong length")]
    Length,
    /// The checksum does not match.
    #[error("a stored row is damaged: its checksum does not match")]
    Checksum,
    /// Written by a program that is newer than this one.
    #[error("a stored row has format {0}; this program reads format 1")]
    Version(u8),
}

/// Packs a row.
pub fn pack(schema: u32, data: impl ExactSizeIterator<Item = Datum>) -> Vec<u8> {
    // A reading takes three bytes, mostly.
    let mut bytes = Vec::with_capacity(HEAD + 16 + data.len() * 4);
    bytes.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    push(&mut bytes, u64::from(schema));
    push(&mut bytes, data.len() as u64);
    let gaps = bytes.len();
    bytes.resize(gaps + data.len().div_ceil(8), 0);
    for (at, datum) in data.enumerate() {
        match datum.stored() {
            Ok(value) => push(&mut bytes, zigzag(value)),
            Err(gap) => {
                bytes[gaps + at / 8] |= 1 << (at % 8);
                bytes.push(gap as u8);
            }
        }
    }
    let sum = crc32fast::hash(&bytes[HEAD..]);
    bytes[1..HEAD].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A packed row that has been checked.
#[derive(Debug, Clone)]
pub struct Packed<'b> {
    /// The schema that says what its columns are.
    pub schema: u32,
    count: usize,
    gaps: &'b [u8],
    values: &'b [u8],
}

impl<'b> Packed<'b> {
    /// Checks bytes.
    pub fn open(bytes: &'b [u8]) -> Result<Self, RowError> {
        let (head, mut rest) = bytes.split_at_checked(HEAD).ok_or(RowError::Length)?;
        if head[0] != VERSION {
            return Err(RowError::Version(head[0]));
        }
        if head[1..] != crc32fast::hash(rest).to_le_bytes() {
            return Err(RowError::Checksum);
        }
        let schema = pull(&mut rest).and_then(|n| u32::try_from(n).ok()).ok_or(RowError::Length)?;
        let count =
            pull(&mut rest).and_then(|n| usize::try_from(n).ok()).ok_or(RowError::Length)?;
        // Each column takes a byte at least.
        if count > rest.len() {
            return Err(RowError::Length);
        }
        let (gaps, values) = rest.split_at_checked(count.div_ceil(8)).ok_or(RowError::Length)?;
        Ok(Self { schema, count, gaps, values })
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All columns in their order; it ends early where the bytes do.
    pub fn cells(&self) -> impl Iterator<Item = Result<i64, Gap>> + '_ {
        let mut rest = self.values;
        (0..self.count).map_while(move |at| {
            if self.gaps[at / 8] & 1 << (at % 8) == 0 {
                return Some(Ok(unzigzag(pull(&mut rest)?)));
            }
            let (code, after) = rest.split_first()?;
            rest = after;
            Some(Err(Gap::from_number(*code).unwrap_or(Gap::Malformed)))
        })
    }

    /// The value in a column, or why there is none; nothing if the row has no such column.
    pub fn column(&self, column: usize) -> Option<Result<i64, Gap>> {
        self.cells().nth(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datum() -> impl Strategy<Value = Datum> {
        prop_oneof![
            any::<i64>().prop_map(Datum::Value),
            (-5_000i64..500_000).prop_map(Datum::Value),
            (1u8..=10).prop_map(|n| Datum::Gap(Gap::from_number(n).unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn what_was_packed_is_read_back(schema in any::<u32>(), data in prop::collection::vec(datum(), 0..60)) {
            let bytes = pack(schema, data.iter().copied());
            let row = Packed::open(&bytes).unwrap();
            prop_assert_eq!(row.schema, schema);
            for (at, datum) in data.iter().enumerate() {
                prop_assert_eq!(row.column(at), Some(datum.stored()));
            }
            prop_assert_eq!(row.column(data.len()), None);
        }

        #[test]
        fn a_flipped_bit_is_seen(data in prop::collection::vec(datum(), 1..20), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = pack(7, data.iter().copied());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Packed::open(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64), honest in any::<bool>()) {
            // Half of them with a good checksum, to get past it.
            if honest && bytes.len() >= HEAD {
                let sum = crc32fast::hash(&bytes[HEAD..]).to_le_bytes();
                bytes[0] = VERSION;
                bytes[1..HEAD].copy_from_slice(&sum);
            }
            if let Ok(row) = Packed::open(&bytes) {
                for column in 0..20 {
                    let _either_way = row.column(column);
                }
            }
        }
    }
}
