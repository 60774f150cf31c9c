//! Numbers of any size as bytes: the varints of our own blocks, and of Protocol Buffers.

/// The bit of each byte that says that another follows.
const MORE: u64 = 0x8080_8080_8080_8080;

/// Seven bits a byte, low ones first.
#[inline]
pub fn push(bytes: &mut Vec<u8>, mut value: u64) {
    if value < 0x80 {
        bytes.push(value as u8);
        return;
    }
    if value < 1 << 56 {
        // All bytes at once: how many there are changes from number to number, and a loop could not foretell it.
        let length = (value.ilog2() / 7 + 1) as usize;
        let more = MORE & ((1 << (8 * (length - 1))) - 1);
        bytes.extend_from_slice(&(spread(value) | more).to_le_bytes());
        bytes.truncate(bytes.len() - (8 - length));
        return;
    }
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes what [`push`] put.
#[inline]
pub fn pull(bytes: &mut &[u8]) -> Option<u64> {
    if let Some(word) = bytes.first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let ends = !word & MORE;
        if ends != 0 {
            let bits = ends.trailing_zeros() + 1;
            *bytes = &bytes[(bits / 8) as usize..];
            return Some(gather(word & (u64::MAX >> (64 - bits)) & !MORE));
        }
    }
    pull_slowly(bytes)
}

/// Byte by byte: at the end of the bytes, or of a number of more than 56 bits.
fn pull_slowly(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Eight groups of seven bits, each to a byte of its own.
#[inline]
fn spread(value: u64) -> u64 {
    let fours = (value & 0x0fff_ffff) | (value & (0x0fff_ffff << 28)) << 4;
    let twos = (fours & 0x0000_3fff_0000_3fff) | (fours & 0x0fff_c000_0fff_c000) << 2;
    (twos & 0x007f_007f_007f_007f) | (twos & 0x3f80_3f80_3f80_3f80) << 1
}

/// The other way.
#[inline]
fn gather(bytes: u64) -> u64 {
    let twos = (bytes & 0x007f_007f_007f_007f) | (bytes & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = (twos & 0x0000_3fff_0000_3fff) | (twos & 0x3fff_0000_3fff_0000) >> 2;
    (fours & 0x0fff_ffff) | (fours & (0x0fff_ffff << 32)) >> 4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is said in one line of the format.
    fn plainly(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    #[test]
    fn numbers_of_every_length_are_as_they_always_were_and_are_read_back() {
        let powers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        let mixed = (0..64).map(|shift| 0x9e37_79b9_7f4a_7c15_u64 >> shift);
        for value in powers.chain(mixed).chain([u64::MAX]) {
            let mut bytes = Vec::new();
            push(&mut bytes, value);
            assert_eq!(bytes, plainly(value), "{value}");
            // At the end of the bytes, and before others.
            for rest in [0, 3, 9] {
                let mut longer = bytes.clone();
                longer.resize(bytes.len() + rest, 0xff);
                let mut left = longer.as_slice();
                assert_eq!((pull(&mut left), left.len()), (Some(value), rest), "{value}");
            }
            assert_eq!(pull(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(pull(&mut [0xff; 12].as_slice()), None);
    }
}
