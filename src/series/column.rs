//! A column of integers as few bytes: constant, runs, bits packed by 60, or entropy-coded; what is coded is what a
//! simple guess from the numbers before it leaves. Each column chooses what is smallest for it.

use super::code::{BitReader, BitWriter, pull, pull_count, push, unzigzag, zigzag};
use super::rans::{self, Histogram};

/// Numbers that one column may have: a day at a reading a second is 86 400.
pub const MOST: usize = 1 << 17;

/// Numbers packed with one width.
const PACK: usize = 60;

/// How a number is guessed from those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    /// Always the middle one of the column.
    Level,
    /// The one before.
    Same,
    /// As far again as from the one before that.
    Line,
    /// A mean of those before, that follows slowly: by a quarter.
    Quarter,
    /// By a sixteenth.
    Sixteenth,
}

impl Guess {
    const ALL: [Guess; 5] =
        [Guess::Level, Guess::Same, Guess::Line, Guess::Quarter, Guess::Sixteenth];
}

/// The guesses along a column. All arithmetic wraps: whatever a number is, it comes back.
#[derive(Debug, Clone, Copy)]
struct Guesser {
    how: Guess,
    last: i64,
    before: i64,
    /// Sixteen times the mean.
    mean: i64,
}

impl Guesser {
    fn new(how: Guess) -> Self {
        Self { how, last: 0, before: 0, mean: 0 }
    }

    /// About where it is after some numbers.
    fn after(how: Guess, before: &[i64]) -> Self {
        let [.., earlier, last] = before else { return Self::new(how) };
        Self { how, last: *last, before: *earlier, mean: last.wrapping_mul(16) }
    }

    #[inline]
    fn guess(&self) -> i64 {
        match self.how {
            Guess::Level => 0,
            Guess::Same => self.last,
            Guess::Line => self.last.wrapping_mul(2).wrapping_sub(self.before),
            Guess::Quarter | Guess::Sixteenth => self.mean.wrapping_add(8) >> 4,
        }
    }

    #[inline]
    fn learn(&mut self, value: i64) {
        match self.how {
            Guess::Level => {}
            Guess::Same => self.last = value,
            Guess::Line => {
                self.before = self.last;
                self.last = value;
            }
            Guess::Quarter | Guess::Sixteenth => {
                let shift = if self.how == Guess::Quarter { 2 } else { 4 };
                let off = value.wrapping_mul(16).wrapping_sub(self.mean);
                self.mean = self.mean.wrapping_add(off >> shift);
            }
        }
    }
}

const CONSTANT: u8 = 0;
const RUNS: u8 = 1;
const PACKED: u8 = 2;
const CODED: u8 = 3;

/// Codes a column.
pub fn encode(values: &[i64]) -> Vec<u8> {
    let Some(first) = values.first() else { return Vec::new() };
    let runs = 1 + values.windows(2).filter(|pair| pair[0] != pair[1]).count();
    if runs == 1 {
        let mut bytes = vec![CONSTANT];
        push(&mut bytes, zigzag(*first));
        return bytes;
    }
    // The middle of a few of them is middle enough, and cheap.
    let mut few: Vec<i64> = values.iter().step_by(values.len() / 64 + 1).copied().collect();
    few.sort_unstable();
    let middle = few[few.len() / 2];
    let (scaled, factor) = scale(values, middle);
    let residuals = |how: Guess| {
        let mut guesser = Guesser::new(how);
        scaled.iter().map(move |value| {
            let residual = zigzag(value.wrapping_sub(guesser.guess()));
            guesser.learn(*value);
            residual
        })
    };
    let how = best_guess(&scaled);
    let residuals: Vec<u64> = residuals(how).collect();
    let histogram = Histogram::of(residuals.iter().copied());
    let head = |mode: u8| {
        let mut bytes = vec![mode | (how as u8) << 4];
        push(&mut bytes, factor);
        push(&mut bytes, zigzag(middle));
        bytes
    };
    let mut out = if packed_bytes(&residuals) <= histogram.bytes() {
        let mut bytes = head(PACKED);
        bytes.extend_from_slice(&pack(&residuals));
        bytes
    } else {
        let mut bytes = head(CODED);
        bytes.extend_from_slice(&rans::encode(&residuals, &histogram));
        bytes
    };
    // A run takes two bytes at least.
    if runs * 2 < out.len() {
        let coded = encode_runs(values, runs);
        if coded.len() < out.len() {
            out = coded;
        }
    }
    out
}

/// The guess that leaves least. Of a long column pieces from all over it are looked at: half of an hour, an eighth of a day.
fn best_guess(scaled: &[i64]) -> Guess {
    const PIECE: usize = 64;
    let stride = if scaled.len() >= 8 * PIECE { (scaled.len() / 1_024).clamp(2, 8) } else { 1 };
    let cost = |how: &Guess| {
        let pieces = scaled.chunks(PIECE).enumerate().filter(|(number, _)| number % stride == 0);
        let residuals = pieces.flat_map(|(number, piece)| {
            let before = &scaled[..number * PIECE];
            let mut guesser = Guesser::after(*how, before);
            piece.iter().map(move |value| {
                let residual = zigzag(value.wrapping_sub(guesser.guess()));
                guesser.learn(*value);
                residual
            })
        });
        Histogram::of(residuals).bytes()
    };
    Guess::ALL.into_iter().min_by_key(cost).unwrap_or(Guess::Level)
}

/// Reads a column of so many numbers; `None` if the bytes are not theirs.
pub fn decode(bytes: &[u8], count: usize) -> Option<Vec<i64>> {
    let mut out = Vec::new();
    decode_into(bytes, count, &mut out, |value| value)?;
    Some(out)
}

/// Reads a column of so many numbers onto the end of others, each as something that is made of it. Where it is `None`, what
/// was appended means nothing.
pub fn decode_into<T: Clone>(
    mut bytes: &[u8],
    count: usize,
    out: &mut Vec<T>,
    made: impl Fn(i64) -> T,
) -> Option<()> {
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
        CONSTANT => out.resize(out.len() + count, made(unzigzag(pull(&mut bytes)?))),
        RUNS => decode_runs(bytes, count, out, made)?,
        PACKED | CODED => {
            let how = *Guess::ALL.get(usize::from(kind >> 4))?;
            let factor = pull(&mut bytes)? as i64;
            let middle = unzigzag(pull(&mut bytes)?);
            let coded = Coded { bytes, count, packed: mode == PACKED };
            let show = |value: i64| {
                out.push(made(value.wrapping_mul(factor).wrapping_add(middle)));
            };
            // A loop of its own for each guess: the guess is not asked for at every number.
            match how {
                Guess::Level => coded.guessed(Guesser::new(Guess::Level), show)?,
                Guess::Same => coded.guessed(Guesser::new(Guess::Same), show)?,
                Guess::Line => coded.guessed(Guesser::new(Guess::Line), show)?,
                Guess::Quarter => coded.guessed(Guesser::new(Guess::Quarter), show)?,
                Guess::Sixteenth => coded.guessed(Guesser::new(Guess::Sixteenth), show)?,
            }
        }
        _ => return None,
    }
    Some(())
}

/// Residuals, coded.
struct Coded<'b> {
    bytes: &'b [u8],
    count: usize,
    packed: bool,
}

impl Coded<'_> {
    #[inline]
    fn guessed(self, mut guesser: Guesser, mut show: impl FnMut(i64)) -> Option<()> {
        let mut take = |residual: u64| {
            let value = guesser.guess().wrapping_add(unzigzag(residual));
            guesser.learn(value);
            show(value);
        };
        if self.packed {
            unpack(self.bytes, self.count, &mut take)
        } else {
            rans::decode(self.bytes, self.count, &mut take)
        }
    }
}

/// Less the middle one, and divided by what all of them are multiples of: a watt is a thousand kept steps.
fn scale(values: &[i64], middle: i64) -> (Vec<i64>, u64) {
    let mut factor = 0_u64;
    for value in values {
        let Some(off) = value.checked_sub(middle) else {
            return (values.iter().map(|value| value.wrapping_sub(middle)).collect(), 1);
        };
        let off = off.unsigned_abs();
        if factor == 0 || (factor != 1 && off % factor != 0) {
            factor = common(off, factor);
        }
    }
    let factor = factor.clamp(1, i64::MAX as u64);
    let divide = |value: &i64| value.wrapping_sub(middle) / factor as i64;
    (values.iter().map(divide).collect(), factor)
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

fn pack(residuals: &[u64]) -> Vec<u8> {
    let mut writer = BitWriter::default();
    for pack in residuals.chunks(PACK) {
        let width = width(pack);
        writer.put(u64::from(width), 7);
        pack.iter().for_each(|value| writer.put(*value, width));
    }
    writer.finish()
}

fn unpack(bytes: &[u8], count: usize, show: &mut impl FnMut(u64)) -> Option<()> {
    let mut reader = BitReader::new(bytes);
    let mut left = count;
    while left > 0 {
        let width = reader.take(7).filter(|width| *width <= 64)? as u32;
        for _ in 0..left.min(PACK) {
            show(reader.take(width)?);
        }
        left -= left.min(PACK);
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

fn decode_runs<T: Clone>(
    mut bytes: &[u8],
    count: usize,
    out: &mut Vec<T>,
    made: impl Fn(i64) -> T,
) -> Option<()> {
    let runs = pull_count(&mut bytes, count)?;
    let (mut value, mut left) = (0_i64, count);
    for _ in 0..runs {
        value = value.wrapping_add(unzigzag(pull(&mut bytes)?));
        let length = pull_count(&mut bytes, left)?;
        out.resize(out.len() + length, made(value));
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
            let bytes = encode(&values);
            prop_assert_eq!(decode(&bytes, values.len()), Some(values));
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
        let values = [i64::MIN, i64::MAX, 0, i64::MIN, -1, i64::MAX];
        assert_eq!(decode(&encode(&values), 6).unwrap(), values);
    }
}
