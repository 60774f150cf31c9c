//! Numbers as bytes and bits: varints, zigzag, bits in a row. Readers never panic: what is cut off is `None`.

pub use crate::model::varint::{pull, push};

/// Signed as unsigned, small ones first: 0, -1, 1, -2, 2, …
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The other way.
#[inline]
pub fn unzigzag(coded: u64) -> i64 {
    (coded >> 1) as i64 ^ -((coded & 1) as i64)
}

/// Takes a number that says how many: one above the limit is a fault of the bytes, found before memory is taken.
pub fn pull_count(bytes: &mut &[u8], limit: usize) -> Option<usize> {
    usize::try_from(pull(bytes)?).ok().filter(|count| *count <= limit)
}

/// Takes so many bytes.
pub fn pull_bytes<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// A text with its length before it.
pub fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// Takes a text of at most 64 bytes: names of parts and metrics are shorter.
pub fn pull_text<'b>(bytes: &mut &'b [u8]) -> Option<&'b str> {
    let count = pull_count(bytes, 64)?;
    std::str::from_utf8(pull_bytes(bytes, count)?).ok()
}

/// Writes bits, low ones first.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    held: u64,
    /// Bits that are held: fewer than 32.
    count: u32,
}

impl BitWriter {
    /// Onto the end of bytes.
    pub fn onto(bytes: Vec<u8>) -> Self {
        Self { bytes, held: 0, count: 0 }
    }

    /// The low `width` bits of a value; width 0 to 64.
    #[inline]
    pub fn put(&mut self, value: u64, width: u32) {
        if width <= 32 {
            self.put_few(value, width);
        } else {
            self.put_few(value, 32);
            self.put_few(value >> 32, width - 32);
        }
    }

    #[inline]
    fn put_few(&mut self, value: u64, width: u32) {
        self.held |= (value & ((1 << width) - 1)) << self.count;
        self.count += width;
        if self.count >= 32 {
            self.bytes.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    /// The bytes; the last one is filled with zeros.
    pub fn finish(mut self) -> Vec<u8> {
        let left = self.count.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.held.to_le_bytes()[..left]);
        self.bytes
    }
}

/// Reads bits.
#[derive(Debug)]
pub struct BitReader<'b> {
    bytes: &'b [u8],
    held: u64,
    count: u32,
}

impl<'b> BitReader<'b> {
    /// Over bytes.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, held: 0, count: 0 }
    }

    /// The next `width` bits, 0 to 64.
    #[inline]
    pub fn take(&mut self, width: u32) -> Option<u64> {
        if width <= 32 { self.take_few(width) } else { self.take_many(width) }
    }

    /// Not within [`Self::take`], which is to be short.
    #[cold]
    fn take_many(&mut self, width: u32) -> Option<u64> {
        let low = self.take_few(32)?;
        Some(low | self.take_few(width - 32)? << 32)
    }

    #[inline]
    fn take_few(&mut self, width: u32) -> Option<u64> {
        if self.count < width {
            self.fill();
            if self.count < width {
                return None;
            }
        }
        let value = self.held & ((1_u64 << width) - 1);
        self.held >>= width;
        self.count -= width;
        Some(value)
    }

    #[inline]
    fn fill(&mut self) {
        if let Some((word, rest)) = self.bytes.split_first_chunk::<4>() {
            self.held |= u64::from(u32::from_le_bytes(*word)) << self.count;
            self.count += 32;
            self.bytes = rest;
            return;
        }
        while let Some((byte, rest)) = self.bytes.split_first()
            && self.count < 32
        {
            self.held |= u64::from(*byte) << self.count;
            self.count += 8;
            self.bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_are_read_back(values in prop::collection::vec((any::<u64>(), 0_u32..=64), 0..200)) {
            let mut writer = BitWriter::default();
            values.iter().for_each(|(value, width)| writer.put(*value, *width));
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for (value, width) in values {
                let expected = if width == 0 { 0 } else { value & (u64::MAX >> (64 - width)) };
                prop_assert_eq!(reader.take(width), Some(expected));
            }
            prop_assert_eq!(reader.take(64), None);
        }

        #[test]
        fn varints_are_read_back(value in any::<u64>(), signed in any::<i64>()) {
            let mut bytes = Vec::new();
            push(&mut bytes, value);
            prop_assert_eq!(pull(&mut bytes.as_slice()), Some(value));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }
}
