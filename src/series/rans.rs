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
    // Both ways at once, without a branch: nobody could foretell which.
    let log = (value | (DIRECT - 1)).ilog2();
    let half = (value >> (log - 1)) & 1;
    // Two of each power of two from 2^5 on.
    let above = DIRECT as usize - 10 + 2 * log as usize + half as usize;
    if value < DIRECT { (value as usize, 0) } else { (above, log - 1) }
}

/// The smallest number of a symbol, how many plain bits it adds.
const fn base(symbol: usize) -> (u64, u32) {
    if symbol < DIRECT as usize {
        return (symbol as u64, 0);
    }
    let above = (symbol - DIRECT as usize) as u64;
    let log = (above / 2 + 5) as u32;
    ((2 + above % 2) << (log - 1), log - 1)
}

/// [`base`] of each symbol.
const BASES: [(u64, u32); SYMBOLS] = {
    let mut bases = [(0, 0); SYMBOLS];
    let mut symbol = 0;
    while symbol < SYMBOLS {
        bases[symbol] = base(symbol);
        symbol += 1;
    }
    bases
};

/// How often each symbol occurs.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [u32; SYMBOLS],
    plain_bits: u64,
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; SYMBOLS], plain_bits: 0, total: 0 }
    }
}

impl Histogram {
    /// Of numbers.
    pub fn of(values: &[u64]) -> Self {
        let mut histogram = Self::default();
        values.iter().for_each(|value| histogram.add(*value));
        histogram
    }

    /// Counts one more number.
    #[inline]
    pub fn add(&mut self, value: u64) {
        let (symbol, extra) = symbol(value);
        self.counts[symbol] += 1;
        self.plain_bits += u64::from(extra);
        self.total += 1;
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

/// What a symbol does to the state.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    /// From here on the state gives out 16 bits first.
    limit: u64,
    /// Times this and without the low 44 bits, a state is divided by the frequency: exactly, as far as states go.
    inverse: u64,
    start: u32,
    /// What is added for each whole frequency in the state.
    rest: u32,
}

impl Step {
    fn each(frequencies: &[u32; SYMBOLS]) -> [Self; SYMBOLS] {
        let mut steps = [Self::default(); SYMBOLS];
        let mut start = 0;
        for (step, frequency) in steps.iter_mut().zip(frequencies).filter(|(_, f)| **f > 0) {
            let limit = u64::from(*frequency) << (32 - SCALE_BITS);
            let inverse = (1_u64 << 44).div_ceil(u64::from(*frequency));
            *step = Self { limit, inverse, start, rest: SCALE - frequency };
            start += frequency;
        }
        steps
    }
}

/// Codes numbers onto the end of bytes.
pub fn encode(values: &[u64], histogram: &Histogram, bytes: &mut Vec<u8>) {
    let frequencies = histogram.frequencies();
    push_table(bytes, &frequencies);
    let steps = Step::each(&frequencies);
    let mut plain = BitWriter::default();
    let mut symbols = Vec::with_capacity(values.len());
    for value in values {
        let (symbol, extra) = symbol(*value);
        symbols.push(symbol as u8);
        plain.put(*value, extra);
    }
    // From the last number to the first, and from the end of the words to their beginning.
    let mut words = vec![0_u16; values.len() + 1];
    let mut at = values.len();
    let mut state = LOW;
    for symbol in symbols.iter().rev() {
        let step = &steps[usize::from(*symbol)];
        // The word is written in any case, and counts or not: nobody could foretell whether it does.
        words[at] = state as u16;
        let gives = u64::from(state) >= step.limit;
        at -= usize::from(gives);
        state = if gives { state >> 16 } else { state };
        let whole = ((u64::from(state) * step.inverse) >> 44) as u32;
        state = state + whole * step.rest + step.start;
    }
    let words = &words[at + 1..];
    bytes.extend_from_slice(&state.to_le_bytes());
    push(bytes, words.len() as u64);
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend_from_slice(&plain.finish());
}

/// What a slot of the state says, in one word, for the way from a state to the next one is as long as its look-ups: the
/// frequency of its symbol less one (12 bits), the symbol (8), and how far the slot is in those of the symbol (12).
fn slots(frequencies: &[u32; SYMBOLS]) -> Vec<u32> {
    let mut slots = Vec::with_capacity(SCALE as usize);
    for (symbol, frequency) in (0..).zip(frequencies).filter(|(_, f)| **f > 0) {
        let of = (frequency - 1) << 20 | symbol << SCALE_BITS;
        slots.extend(of..of + frequency);
    }
    slots
}

/// Reads so many numbers as there is room for, each as what is made of it: that costs nothing, for it is done while the
/// next state is waited for. `None` if the bytes are not theirs.
pub fn decode(mut bytes: &[u8], out: &mut [i64], mut made: impl FnMut(u64) -> i64) -> Option<()> {
    let slots = slots(&pull_table(&mut bytes)?);
    let slots: &[u32; SCALE as usize] = slots.as_slice().try_into().ok()?;
    let mut state = u32::from_le_bytes(pull_bytes(&mut bytes, 4)?.try_into().ok()?);
    let words = pull_count(&mut bytes, out.len())?;
    let (words, _) = pull_bytes(&mut bytes, words * 2)?.as_chunks::<2>();
    let mut plain = BitReader::new(bytes);
    let mut next = 0;
    for place in out {
        let slot = slots[(state & (SCALE - 1)) as usize];
        // The frequency less one times, and once more: what is added can be made ready meanwhile.
        let whole = state >> SCALE_BITS;
        let within = whole + (slot & (SCALE - 1));
        state = (slot >> 20).wrapping_mul(whole).wrapping_add(within);
        // The next word is taken or not without a branch: nobody could foretell it.
        let word = u32::from(u16::from_le_bytes(words.get(next).copied().unwrap_or_default()));
        let wants = state < LOW;
        state = if wants { state << 16 | word } else { state };
        next += usize::from(wants);
        let (low, extra) = *BASES.get((slot >> SCALE_BITS & 0xff) as usize)?;
        let above = if extra == 0 { 0 } else { plain.take(extra)? };
        *place = made(low + above);
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
        let mut bytes = Vec::new();
        encode(values, &Histogram::of(values), &mut bytes);
        let mut out = vec![0; values.len()];
        decode(&bytes, &mut out, |value| value as i64).unwrap();
        (bytes.len(), out.into_iter().map(|value| value as u64).collect())
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

    #[test]
    fn states_are_divided_exactly() {
        for frequency in 1..=SCALE {
            let mut frequencies = [0; SYMBOLS];
            frequencies[3] = frequency;
            let step = Step::each(&frequencies)[3];
            // The states that there can be: below the limit, the hardest beside a multiple.
            let last = u64::from(frequency) << (32 - SCALE_BITS);
            assert_eq!(step.limit, last);
            for times in [1, 2, 3, 1 << 10, (1 << 20) - 1, 1 << 20] {
                let multiple = times * u64::from(frequency);
                for state in [multiple - 1, multiple].into_iter().filter(|state| *state < last) {
                    assert_eq!((state * step.inverse) >> 44, state / u64::from(frequency));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(values in prop::collection::vec(prop_oneof![any::<u64>(), 0..40_u64, 0..100_000_u64], 1..400)) {
            prop_assert_eq!(there_and_back(&values).1, values);
        }

        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..80), count in 0_usize..500) {
            let _either_way = decode(&bytes, &mut vec![0; count], |value| value as i64);
        }
    }
}
