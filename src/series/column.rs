//! A column of integers as few bytes: constant, runs, bits packed by 60, or entropy-coded; what is coded is what a
//! simple guess from the numbers before it leaves. Each column chooses what is smallest for it.

use super::code::{BitReader, BitWriter, pull, pull_count, push, unzigzag, zigzag};
use super::rans::{self, Histogram};

/// Numbers that one column may have: a day at a reading a second is 86 400.
pub const MOST: usize = 1 << 17;

/// Numbers packed with one width.
const PACK: usize = 60;

/// How a number is guessed from those before it; each is a loop of its own, for it is not to be asked for at every number.
mod how {
    /// Always the middle one of the column.
    pub const LEVEL: u8 = 0;
    /// The one before.
    pub const SAME: u8 = 1;
    /// As far again as from the one before that.
    pub const LINE: u8 = 2;
    /// A mean of those before, that follows slowly: by a quarter.
    pub const QUARTER: u8 = 3;
    /// By a sixteenth.
    pub const SIXTEENTH: u8 = 4;
}

/// The guesses along a column. All arithmetic wraps: whatever a number is, it comes back.
#[derive(Debug, Clone, Copy, Default)]
struct Guesser<const HOW: u8> {
    last: i64,
    before: i64,
    /// Sixteen times the mean.
    mean: i64,
}

impl<const HOW: u8> Guesser<HOW> {
    /// About where it is after some numbers.
    fn after(before: &[i64]) -> Self {
        let [.., earlier, last] = before else { return Self::default() };
        Self { last: *last, before: *earlier, mean: last.wrapping_mul(16) }
    }

    #[inline]
    fn guess(&self) -> i64 {
        match HOW {
            how::SAME => self.last,
            how::LINE => self.last.wrapping_mul(2).wrapping_sub(self.before),
            how::QUARTER | how::SIXTEENTH => self.mean.wrapping_add(8) >> 4,
            _ => 0,
        }
    }

    #[inline]
    fn learn(&mut self, value: i64) {
        match HOW {
            how::SAME => self.last = value,
            how::LINE => {
                self.before = self.last;
                self.last = value;
            }
            how::QUARTER | how::SIXTEENTH => {
                let shift = if HOW == how::QUARTER { 2 } else { 4 };
                let off = value.wrapping_mul(16).wrapping_sub(self.mean);
                self.mean = self.mean.wrapping_add(off >> shift);
            }
            _ => {}
        }
    }

    /// How far a number is from what was guessed.
    #[inline]
    fn residual(&mut self, value: i64) -> u64 {
        let residual = zigzag(value.wrapping_sub(self.guess()));
        self.learn(value);
        residual
    }

    /// The number that is so far from what was guessed.
    #[inline]
    fn value(&mut self, residual: u64) -> i64 {
        let value = self.guess().wrapping_add(unzigzag(residual));
        self.learn(value);
        value
    }
}

const CONSTANT: u8 = 0;
const RUNS: u8 = 1;
const PACKED: u8 = 2;
const CODED: u8 = 3;

/// Codes a column.
pub fn encode(values: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_onto(values, &mut bytes);
    bytes
}

/// Codes a column onto the end of bytes.
pub fn encode_onto(values: &[i64], bytes: &mut Vec<u8>) {
    let runs = runs(values);
    let from = bytes.len();
    if runs < 2 {
        encode_constant(values, bytes);
        return;
    }
    // The middle of a few of them is middle enough, and cheap.
    let mut few: Vec<i64> = values.iter().step_by(values.len() / 64 + 1).copied().collect();
    few.sort_unstable();
    let middle = few[few.len() / 2];
    let (scaled, factor) = scale(values, middle);
    let how = best_guess(&scaled);
    let residuals = match how {
        how::SAME => residuals::<{ how::SAME }>(&scaled),
        how::LINE => residuals::<{ how::LINE }>(&scaled),
        how::QUARTER => residuals::<{ how::QUARTER }>(&scaled),
        how::SIXTEENTH => residuals::<{ how::SIXTEENTH }>(&scaled),
        _ => residuals::<{ how::LEVEL }>(&scaled),
    };
    let histogram = Histogram::of(&residuals);
    let packed = packed_bytes(&residuals) <= histogram.bytes();
    bytes.push(if packed { PACKED } else { CODED } | how << 4);
    push(bytes, factor);
    push(bytes, zigzag(middle));
    if packed {
        pack(&residuals, bytes);
    } else {
        rans::encode(&residuals, &histogram, bytes);
    }
    // A run takes two bytes at least.
    let length = bytes.len() - from;
    if runs * 2 < length {
        let coded = encode_runs(values, runs);
        if coded.len() < length {
            bytes.truncate(from);
            bytes.extend_from_slice(&coded);
        }
    }
}

/// Codes a column that will be coded again soon onto the end of bytes: a few more of them, for a fraction of the work.
pub fn encode_quickly_onto(values: &[i64], bytes: &mut Vec<u8>) {
    let runs = runs(values);
    if runs < 2 || runs * 8 < values.len() {
        encode_onto(values, bytes);
        return;
    }
    let (scaled, factor) = scale(values, values[0]);
    let residuals = residuals::<{ how::SAME }>(&scaled);
    bytes.push(PACKED | how::SAME << 4);
    push(bytes, factor);
    push(bytes, zigzag(values[0]));
    pack(&residuals, bytes);
}

/// How many stretches of the same number there are.
fn runs(values: &[i64]) -> usize {
    let changes = values.windows(2).filter(|pair| pair[0] != pair[1]).count();
    changes + usize::from(!values.is_empty())
}

/// Nothing of no numbers; of others the first.
fn encode_constant(values: &[i64], bytes: &mut Vec<u8>) {
    if let Some(first) = values.first() {
        bytes.push(CONSTANT);
        push(bytes, zigzag(*first));
    }
}

fn residuals<const HOW: u8>(scaled: &[i64]) -> Vec<u64> {
    let mut guesser = Guesser::<HOW>::default();
    scaled.iter().map(|value| guesser.residual(*value)).collect()
}

/// The guess that leaves least. Of a long column pieces from all over it are looked at: half of an hour, an eighth of a day.
fn best_guess(scaled: &[i64]) -> u8 {
    let costs = [
        cost::<{ how::LEVEL }>(scaled),
        cost::<{ how::SAME }>(scaled),
        cost::<{ how::LINE }>(scaled),
        cost::<{ how::QUARTER }>(scaled),
        cost::<{ how::SIXTEENTH }>(scaled),
    ];
    (0_u8..).zip(costs).min_by_key(|(_, cost)| *cost).map_or(how::LEVEL, |(how, _)| how)
}

/// About how many bytes a guess would leave of what is looked at.
fn cost<const HOW: u8>(scaled: &[i64]) -> usize {
    const PIECE: usize = 64;
    let stride = if scaled.len() >= 8 * PIECE { (scaled.len() / 1_024).clamp(2, 8) } else { 1 };
    let mut histogram = Histogram::default();
    for (number, piece) in scaled.chunks(PIECE).enumerate().step_by(stride) {
        let mut guesser = Guesser::<HOW>::after(&scaled[..number * PIECE]);
        piece.iter().for_each(|value| histogram.add(guesser.residual(*value)));
    }
    histogram.bytes()
}

/// Reads a column of so many numbers; `None` if the bytes are not theirs.
pub fn decode(bytes: &[u8], count: usize) -> Option<Vec<i64>> {
    let mut out = Vec::new();
    decode_onto(bytes, count, &mut out)?;
    Some(out)
}

/// Reads a column of so many numbers onto the end of others. Where it is `None`, what was appended means nothing.
pub fn decode_onto(mut bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Option<()> {
    if count > MOST {
        return None;
    }
    if count == 0 {
        return bytes.is_empty().then_some(());
    }
    out.reserve(count);
    let (kind, rest) = bytes.split_first()?;
    bytes = rest;
    let mode = kind & 15;
    match mode {
        CONSTANT => out.resize(out.len() + count, unzigzag(pull(&mut bytes)?)),
        RUNS => decode_runs(bytes, count, out)?,
        PACKED | CODED => {
            let factor = pull(&mut bytes)? as i64;
            let middle = unzigzag(pull(&mut bytes)?);
            let from = out.len();
            out.resize(from + count, 0);
            let coded = Coded { bytes, packed: mode == PACKED, factor, middle };
            let out = &mut out[from..];
            match kind >> 4 {
                how::LEVEL => coded.read::<{ how::LEVEL }>(out)?,
                how::SAME => coded.read::<{ how::SAME }>(out)?,
                how::LINE => coded.read::<{ how::LINE }>(out)?,
                how::QUARTER => coded.read::<{ how::QUARTER }>(out)?,
                how::SIXTEENTH => coded.read::<{ how::SIXTEENTH }>(out)?,
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

/// Numbers by how far they are from their guesses.
struct Coded<'b> {
    bytes: &'b [u8],
    packed: bool,
    factor: i64,
    middle: i64,
}

impl Coded<'_> {
    fn read<const HOW: u8>(self, out: &mut [i64]) -> Option<()> {
        let mut guesser = Guesser::<HOW>::default();
        let made = |residual: u64| {
            guesser.value(residual).wrapping_mul(self.factor).wrapping_add(self.middle)
        };
        if self.packed {
            unpack(self.bytes, out, made)
        } else {
            rans::decode(self.bytes, out, made)
        }
    }
}

/// Less the middle one, and divided by what all of them are multiples of: a watt is a thousand kept steps.
fn scale(values: &[i64], middle: i64) -> (Vec<i64>, u64) {
    let mut offs: Vec<i64> = values.iter().map(|value| value.wrapping_sub(middle)).collect();
    let wraps = |value: &i64| value.checked_sub(middle).is_none();
    if values.iter().any(wraps) {
        return (offs, 1);
    }
    let mut factor = 0_u64;
    let mut divisor = Divisor::of(1);
    for off in &offs {
        let size = off.unsigned_abs();
        if factor == 0 || !divisor.divides(size) {
            factor = common(size, factor);
            if factor == 1 {
                break;
            }
            divisor = Divisor::of(factor.max(1));
        }
    }
    // All the same, or so far away that it is no number of ours.
    if factor < 2 || i64::try_from(factor).is_err() {
        return (offs, 1);
    }
    offs.iter_mut().for_each(|off| *off = divisor.quotient(*off));
    (offs, factor)
}

/// Division of multiples, without dividing: by the odd part's inverse modulo 2^64, and a shift for the rest.
struct Divisor {
    inverse: u64,
    shift: u32,
    /// The largest quotient.
    most: u64,
}

impl Divisor {
    /// By a number above zero.
    fn of(number: u64) -> Self {
        let shift = number.trailing_zeros();
        let odd = number >> shift;
        // Right in the lowest 5 bits; each round doubles them.
        let mut inverse = odd.wrapping_mul(3) ^ 2;
        for _ in 0..4 {
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        Self { inverse, shift, most: u64::MAX / number }
    }

    /// Whether a number is a multiple.
    #[inline]
    fn divides(&self, number: u64) -> bool {
        number.wrapping_mul(self.inverse).rotate_right(self.shift) <= self.most
    }

    /// Of a multiple.
    #[inline]
    fn quotient(&self, multiple: i64) -> i64 {
        (multiple >> self.shift).wrapping_mul(self.inverse as i64)
    }
}

fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

fn width(pack: &[u64]) -> u32 {
    let all = pack.iter().fold(0, |all, value| all | value);
    u64::BITS - all.leading_zeros()
}

fn packed_bytes(residuals: &[u64]) -> usize {
    let bits = |pack: &[u64]| 7 + width(pack) as usize * pack.len();
    residuals.chunks(PACK).map(bits).sum::<usize>() / 8 + 1
}

fn pack(residuals: &[u64], bytes: &mut Vec<u8>) {
    let mut writer = BitWriter::onto(std::mem::take(bytes));
    for pack in residuals.chunks(PACK) {
        let width = width(pack);
        writer.put(u64::from(width), 7);
        pack.iter().for_each(|value| writer.put(*value, width));
    }
    *bytes = writer.finish();
}

fn unpack(bytes: &[u8], out: &mut [i64], mut made: impl FnMut(u64) -> i64) -> Option<()> {
    let mut reader = BitReader::new(bytes);
    for pack in out.chunks_mut(PACK) {
        let width = reader.take(7).filter(|width| *width <= 64)? as u32;
        for place in pack {
            *place = made(reader.take(width)?);
        }
    }
    Some(())
}

fn encode_runs(values: &[i64], runs: usize) -> Vec<u8> {
    let mut bytes = vec![RUNS];
    push(&mut bytes, runs as u64);
    let mut before = 0_i64;
    for run in values.chunk_by(|a, b| a == b) {
        push(&mut bytes, zigzag(run[0].wrapping_sub(before)));
        push(&mut bytes, run.len() as u64);
        before = run[0];
    }
    bytes
}

fn decode_runs(mut bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Option<()> {
    let runs = pull_count(&mut bytes, count)?;
    let (mut value, mut left) = (0_i64, count);
    for _ in 0..runs {
        value = value.wrapping_add(unzigzag(pull(&mut bytes)?));
        let length = pull_count(&mut bytes, left)?;
        out.resize(out.len() + length, value);
        left -= length;
    }
    (left == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column() -> impl Strategy<Value = Vec<i64>> {
        let steps = prop::collection::vec((-3_i64..=3, 1_usize..40), 1..40);
        prop_oneof![
            prop::collection::vec(any::<i64>(), 0..200),
            prop::collection::vec(-500_i64..500, 0..700)
                .prop_map(|noise| noise.iter().map(|n| 230_000 + n * 100).collect()),
            (any::<i64>(), 0_usize..500).prop_map(|(value, count)| vec![value; count]),
            steps.prop_map(|steps| {
                let mut level = 0;
                let run = |(step, count): &(i64, usize)| {
                    level += step * 1_000;
                    vec![level; *count]
                };
                steps.iter().flat_map(run).collect()
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_column_is_read_back_as_it_was(values in column()) {
            let mut quickly = Vec::new();
            encode_quickly_onto(&values, &mut quickly);
            for bytes in [encode(&values), quickly] {
                let read = decode(&bytes, values.len());
                prop_assert_eq!(read.as_ref(), Some(&values));
            }
        }

        #[test]
        fn changed_bytes_never_panic_and_never_grow(values in column(), at in any::<prop::sample::Index>(), bit in 0_u8..8, count in 0_usize..1_000) {
            let mut bytes = encode(&values);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            let read = decode(&bytes, count);
            prop_assert!(read.is_none_or(|read| read.len() == count));
        }
    }

    proptest! {
        #[test]
        fn multiples_are_told_and_divided(number in 1_u64..=i64::MAX as u64, times in any::<i32>(), off in any::<i64>()) {
            let number = number >> (off & 63);
            let number = number.max(1);
            let divisor = Divisor::of(number);
            prop_assert_eq!(divisor.divides(off.unsigned_abs()), off.unsigned_abs() % number == 0);
            if let Some(multiple) = (number as i64).checked_mul(i64::from(times)) {
                prop_assert!(divisor.divides(multiple.unsigned_abs()));
                prop_assert_eq!(divisor.quotient(multiple), i64::from(times));
            }
        }
    }

    #[test]
    fn constants_states_and_counters_cost_next_to_nothing() {
        assert!(encode(&vec![1; 8_640]).len() <= 3);
        let mut states = vec![1_i64; 8_640];
        states[4_000..4_030].fill(0);
        assert!(encode(&states).len() < 16);
        let counter: Vec<i64> = (0..8_640).map(|n| 100_000_000 + n * 2_000).collect();
        assert!(encode(&counter).len() < 64, "{}", encode(&counter).len());
    }

    #[test]
    fn numbers_that_do_not_fit_their_difference_are_read_back() {
        for values in
            [[i64::MIN, i64::MAX, 0, i64::MIN, -1, i64::MAX], [i64::MIN, 0, 0, i64::MIN, 0, 0]]
        {
            assert_eq!(decode(&encode(&values), 6).unwrap(), values);
        }
    }
}
