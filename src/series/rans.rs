//! An entropy coder for residuals: small numbers are symbols of their own, larger ones share a symbol and add plain
//! bits; symbols are coded by range ANS with a table of frequencies that stands before them (J. Duda, "Asymmetric
//! numeral systems", 2013). It comes within a few thousandths of the entropy, also where a symbol is worth far less
//! than a bit.

use super::code::{BitReader, BitWriter, pull, pull_bytes, pull_count, push};

/// Numbers below this are symbols of their own.
const DIRECT: u64 = 32;
/// Symbols: the direct ones, and two for each power of two above.
const SYMBOLS: usize = DIRECT as usize + 2 * 59;
/// Frequencies add up to 2^12: a table of all slots stays in the first-level cache.
const SCALE_BITS: u32 = 12;
const SCALE: u32 = 1 << SCALE_BITS;
/// The state stays at or above this; it takes in and gives out 16 bits at a time.
const LOW: u32 = 1 << 16;

/// The symbol of a number, how many plain bits it adds.
#[inline]
fn symbol(value: u64) -> (usize, u32) {
    if value < DIRECT {
        return (value as usize, 0);
    }
    let log = value.ilog2();
    let half = (value >> (log - 1)) & 1;
    (DIRECT as usize + ((log - 5) * 2) as usize + half as usize, log - 1)
}

/// The smallest number of a symbol, how many plain bits it adds.
#[inline]
fn base(symbol: usize) -> (u64, u32) {
    if symbol < DIRECT as usize {
        return (symbol as u64, 0);
    }
    let above = (symbol - DIRECT as usize) as u64;
    let log = (above / 2 + 5) as u32;
    ((2 + above % 2) << (log - 1), log - 1)
}

/// How often each symbol occurs.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [u32; SYMBOLS],
    plain_bits: u64,
    total: u32,
}

impl Histogram {
    /// Of numbers.
    pub fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut histogram = Self { counts: [0; SYMBOLS], plain_bits: 0, total: 0 };
        for value in values {
            let (symbol, extra) = symbol(value);
            histogram.counts[symbol] += 1;
            histogram.plain_bits += u64::from(extra);
            histogram.total += 1;
        }
        histogram
    }

    /// About how many bytes the numbers take, table included.
    pub fn bytes(&self) -> usize {
        let total = f64::from(self.total);
        let mut bits = self.plain_bits as f64;
        let mut table = 0.0;
        for count in self.counts.iter().filter(|count| **count > 0) {
            let count = f64::from(*count);
            bits += count * (total / count).log2();
            table += if count / total > 0.03 { 2.0 } else { 1.2 };
        }
        (bits / 8.0 + table + 8.0) as usize
    }

    /// Frequencies that add up to [`SCALE`], none of a symbol that occurs is zero.
    fn frequencies(&self) -> [u32; SYMBOLS] {
        let mut out = [0_u32; SYMBOLS];
        let total = u64::from(self.total.max(1));
        let mut sum = 0;
        for (frequency, count) in out.iter_mut().zip(self.counts) {
            if count > 0 {
                let share = (u64::from(count) * u64::from(SCALE) + total / 2) / total;
                *frequency = (share as u32).max(1);
                sum += *frequency;
            }
        }
        // What rounding gave too much or too little goes to the commonest, where it costs least.
        while sum != SCALE && self.total > 0 {
            let Some(most) = (0..SYMBOLS).max_by_key(|at| out[*at]) else { break };
            if sum < SCALE {
                out[most] += SCALE - sum;
                sum = SCALE;
            } else {
                let less = (sum - SCALE).min(out[most] / 2);
                out[most] -= less;
                sum -= less;
            }
        }
        out
    }
}

/// Codes numbers.
pub fn encode(values: &[u64], histogram: &Histogram) -> Vec<u8> {
    let frequencies = histogram.frequencies();
    let mut starts = [0_u32; SYMBOLS];
    let mut sum = 0;
    for (start, frequency) in starts.iter_mut().zip(frequencies) {
        *start = sum;
        sum += frequency;
    }
    let mut bytes = Vec::new();
    push_table(&mut bytes, &frequencies);
    let mut words: Vec<u16> = Vec::new();
    let mut state = LOW;
    for value in values.iter().rev() {
        let (symbol, _) = symbol(*value);
        let frequency = frequencies[symbol];
        if u64::from(state) >= u64::from(frequency) << (32 - SCALE_BITS) {
            words.push(state as u16);
            state >>= 16;
        }
        state = (state / frequency) * SCALE + state % frequency + starts[symbol];
    }
    bytes.extend_from_slice(&state.to_le_bytes());
    push(&mut bytes, words.len() as u64);
    words.iter().rev().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    let mut plain = BitWriter::default();
    for value in values {
        let (_, extra) = symbol(*value);
        plain.put(*value, extra);
    }
    bytes.extend_from_slice(&plain.finish());
    bytes
}

/// The way from a slot to its symbol.
struct Table {
    /// The symbol of each slot.
    symbols: [u8; SCALE as usize],
    /// The frequency of each symbol, and where its slots begin.
    of: [(u16, u16); SYMBOLS],
}

impl Table {
    /// Of frequencies that add up to [`SCALE`].
    fn of(frequencies: &[u32; SYMBOLS]) -> Self {
        let mut table = Self { symbols: [0; SCALE as usize], of: [(0, 0); SYMBOLS] };
        let mut start = 0;
        for (symbol, frequency) in frequencies.iter().enumerate().filter(|(_, f)| **f > 0) {
            let end = start + *frequency as usize;
            table.symbols[start..end].fill(symbol as u8);
            table.of[symbol] = (*frequency as u16, start as u16);
            start = end;
        }
        table
    }
}

/// Shows so many numbers; `None` if the bytes are not theirs.
pub fn decode(mut bytes: &[u8], count: usize, mut show: impl FnMut(u64)) -> Option<()> {
    let frequencies = pull_table(&mut bytes)?;
    let table = Table::of(&frequencies);
    let mut state = u32::from_le_bytes(pull_bytes(&mut bytes, 4)?.try_into().ok()?);
    let words = pull_count(&mut bytes, count)?;
    let (words, _) = pull_bytes(&mut bytes, words * 2)?.as_chunks::<2>();
    let mut plain = BitReader::new(bytes);
    let mut next = 0;
    for _ in 0..count {
        let slot = state & (SCALE - 1);
        let symbol = usize::from(table.symbols[slot as usize]);
        let (frequency, start) = table.of[symbol];
        let within = slot.wrapping_sub(u32::from(start));
        state = u32::from(frequency).wrapping_mul(state >> SCALE_BITS).wrapping_add(within);
        // The next word is taken or not without a branch: nobody could foretell it.
        let word = u32::from(u16::from_le_bytes(words.get(next).copied().unwrap_or_default()));
        let wants = state < LOW;
        state = if wants { state << 16 | word } else { state };
        next += usize::from(wants);
        let (low, extra) = base(symbol);
        show(if extra == 0 { low } else { low + plain.take(extra)? });
    }
    (next <= words.len()).then_some(())
}

/// A frequency each, up to the last that is not zero; a zero is followed by how many more follow.
fn push_table(bytes: &mut Vec<u8>, frequencies: &[u32; SYMBOLS]) {
    let used = frequencies.iter().rposition(|f| *f > 0).map_or(0, |last| last + 1);
    push(bytes, used as u64);
    let mut at = 0;
    while at < used {
        push(bytes, u64::from(frequencies[at]));
        let zeros = frequencies[at..used].iter().take_while(|f| **f == 0).count();
        if zeros > 0 {
            push(bytes, zeros as u64 - 1);
        }
        at += zeros.max(1);
    }
}

fn pull_table(bytes: &mut &[u8]) -> Option<[u32; SYMBOLS]> {
    let mut out = [0_u32; SYMBOLS];
    let used = pull_count(bytes, SYMBOLS)?;
    let (mut at, mut sum) = (0, 0);
    while at < used {
        let frequency = u32::try_from(pull(bytes)?).ok().filter(|f| *f <= SCALE)?;
        out[at] = frequency;
        sum += frequency;
        at += 1;
        if frequency == 0 {
            at += pull_count(bytes, used - at)?;
        }
    }
    (sum == SCALE).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(values: &[u64]) -> (usize, Vec<u64>) {
        let bytes = encode(values, &Histogram::of(values.iter().copied()));
        let mut out = Vec::new();
        decode(&bytes, values.len(), |value| out.push(value)).unwrap();
        (bytes.len(), out)
    }

    #[test]
    fn symbols_and_their_bases_agree() {
        for value in (0..5_000).chain((0..64).map(|n| u64::MAX >> n)) {
            let (symbol, extra) = symbol(value);
            assert!(symbol < SYMBOLS);
            let (low, same) = base(symbol);
            assert_eq!(extra, same);
            assert!(low <= value && value - low < 1 << extra, "{value}");
        }
    }

    #[test]
    fn what_is_nearly_always_the_same_costs_far_less_than_a_bit() {
        let values: Vec<u64> = (0..8_640).map(|n| u64::from(n % 100 == 0)).collect();
        let (bytes, out) = there_and_back(&values);
        assert_eq!(out, values);
        // The entropy is 0.081 bits a number: 87 bytes.
        assert!(bytes < 105, "{bytes}");
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(values in prop::collection::vec(prop_oneof![any::<u64>(), 0..40_u64, 0..100_000_u64], 1..400)) {
            prop_assert_eq!(there_and_back(&values).1, values);
        }

        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..80), count in 0_usize..500) {
            let mut seen = 0;
            let _either_way = decode(&bytes, count, |_| seen += 1);
            prop_assert!(seen <= count);
        }
    }
}
