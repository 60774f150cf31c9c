//! From what came over the wire to a reading, or to a gap with its reason. Poison never becomes a number.

use crate::model::ask::Value;
use crate::model::metric::{Metric, Point, Scope, Word};
use crate::model::oid::Oid;
use crate::model::quantity::{Count, Unit, decimal};
use crate::model::reading::{Datum, Gap};

use super::format::{Check, Shape, ShapeKind, Sign, StateKey};
use super::sweep::{Answer, Raw};

/// Everything needed to decode one slot; the device's own scale is already in `count`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decode {
    /// The dictionary entry.
    pub point: Point,
    /// How Modbus words are read.
    pub shape: Option<Shape>,
    /// What the number means.
    pub sense: Sense,
    /// Raw numbers that mean "does not have it".
    pub absent: Vec<i64>,
}

/// What a number means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sense {
    /// A quantity.
    Quantity {
        /// What one count is worth.
        count: Count,
        /// The device counts in degrees Fahrenheit.
        fahrenheit: bool,
        /// What a minus before it says.
        sign: Sign,
    },
    /// A state.
    States(Vec<(StateKey, Word)>),
}

/// A number as the device told it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Whole.
    Whole(i64),
    /// mantissa × 10^-places, from a text.
    Decimal(i64, u32),
    /// From a Modbus float.
    Float(f64),
}

/// Raw numbers that no device means: the ends of 16, 32 and 64 bit types.
const POISON: [i64; 7] =
    [0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, -0x8000, -0x8000_0000, i64::MAX, i64::MIN];
/// Those of them that a wider number may well mean.
const NARROW: [i64; 2] = [0xFFFF, -0x8000];
/// Absolute zero in kept steps: what sensors of warmth send for nothing, and firmware that was made from theirs.
const ABSOLUTE_ZERO: [i64; 2] = [-273_100, -273_150];
/// What firmware sends for "nothing" where a sign would otherwise be believed: one count of fed back power is the
/// smaller loss.
const NEGATIVE: [i64; 5] = [-1, -2, -99, -999, -9999];

/// Decodes an answer.
pub fn decode(spec: &Decode, answer: &Answer) -> Datum {
    let raw = match answer {
        Ok(raw) => raw,
        Err(gap) => return Datum::Gap(*gap),
    };
    match &spec.sense {
        Sense::States(states) => state(states, raw, spec),
        Sense::Quantity { count, fahrenheit, sign } => {
            match quantity(spec, raw, *count, *fahrenheit, *sign) {
                Ok(value) => Datum::Value(value),
                Err(gap) => Datum::Gap(gap),
            }
        }
    }
}

fn state(states: &[(StateKey, Word)], raw: &Raw, spec: &Decode) -> Datum {
    let text = text_of(raw, spec.shape);
    let whole = match number(raw, spec.shape) {
        Ok(Number::Whole(whole)) => Some(whole),
        _ => None,
    };
    let hit = states.iter().find(|(key, _)| match key {
        StateKey::Number(wanted) => whole == Some(*wanted),
        StateKey::Text(wanted) => text.as_deref() == Some(wanted.as_str()),
    });
    match hit {
        Some((_, word)) => Datum::Word(*word),
        None if whole.is_some_and(|n| spec.absent.contains(&n)) => Datum::Gap(Gap::Unsupported),
        None => Datum::Gap(Gap::UnknownState),
    }
}

fn quantity(
    spec: &Decode,
    raw: &Raw,
    count: Count,
    fahrenheit: bool,
    sign: Sign,
) -> Result<i64, Gap> {
    let absolute = sign == Sign::Dropped;
    let signed = spec.point.metric == Metric::Power || sign == Sign::Polarity;
    let value = match number(raw, spec.shape)? {
        Number::Whole(whole) => {
            if spec.absent.contains(&whole) {
                return Err(Gap::Unsupported);
            }
            let counter = spec.point.metric == Metric::Energy;
            // The ends of 16 bits say nothing where the device counts in 32, or where it counts up.
            let wide = spec.shape.is_some_and(|shape| {
                shape.words > 1 && matches!(shape.kind, ShapeKind::Unsigned | ShapeKind::Signed)
            });
            let poison = POISON.contains(&whole) && !((counter || wide) && NARROW.contains(&whole));
            let nothing = signed && NEGATIVE.contains(&whole);
            if poison || (nothing && !absolute) {
                return Err(Gap::Implausible);
            }
            count.apply(whole, 0)
        }
        Number::Decimal(mantissa, places) => {
            // The driver file writes sentinels as whole numbers.
            let whole = 10_i64.checked_pow(places).map(|unit| (mantissa / unit, mantissa % unit));
            if whole.is_some_and(|(n, rest)| rest == 0 && spec.absent.contains(&n)) {
                return Err(Gap::Unsupported);
            }
            count.apply(mantissa, places)
        }
        Number::Float(float) if !float.is_finite() => return Err(Gap::Unsupported),
        // Devices send floats of 24 bits; six decimals keep all of them.
        Number::Float(float) => scaled(float).and_then(|scaled| count.apply(scaled, 6)),
    };
    let value = value.ok_or(Gap::Implausible)?;
    let value = if absolute { value.saturating_abs() } else { value };
    let value = if fahrenheit { celsius(value) } else { value };
    let cold = sign == Sign::Polarity && ABSOLUTE_ZERO.contains(&value);
    let size = if sign == Sign::Polarity { value.saturating_abs() } else { value };
    if plausible(spec.point, size) && !cold { Ok(value) } else { Err(Gap::Implausible) }
}

fn scaled(float: f64) -> Option<i64> {
    let scaled = (float * 1.0e6).round();
    (scaled.abs() < 9.0e18).then_some(scaled as i64)
}

/// Kept steps of Fahrenheit as kept steps of Celsius, to a hundredth of a degree: devices tell tenths of a degree
/// Fahrenheit, and more decimals would be made up.
fn celsius(fahrenheit: i64) -> i64 {
    let top = (i128::from(fahrenheit) - 32_000) * 5;
    let half = if top < 0 { -45 } else { 45 };
    i64::try_from((top + half) / 90 * 10).unwrap_or(i64::MAX)
}

/// Whether a kept number can be true of a rack PDU. Wide on purpose: what passes is not proven right,
/// what does not pass is proven wrong.
fn plausible(point: Point, value: i64) -> bool {
    let metric = point.metric;
    let unit = metric.unit().unwrap_or(Unit::Ratio);
    let within = |low: i64, high: i64| {
        let scale = unit.scale();
        (low * scale..=high * scale).contains(&value)
    };
    match unit {
        // What is behind a feed may feed back: a brake, a battery, the sun. Nothing does into a socket.
        Unit::Watt if metric == Metric::Power && point.scope != Scope::Outlet => {
            within(-10_000_000, 10_000_000) && !ABSOLUTE_ZERO.contains(&value)
        }
        Unit::Watt | Unit::VoltAmpere => within(0, 10_000_000),
        Unit::Ampere => within(0, 10_000),
        Unit::Volt => within(0, 2_000),
        // A few meters tell 1.001 or 1.01 at full load.
        Unit::Ratio => (-10_200..=10_200).contains(&value),
        Unit::WattHour => within(0, 1_000_000_000_000),
        Unit::Celsius => within(-60, 150),
        Unit::Percent if metric == Metric::Humidity => within(0, 100),
        Unit::Hertz | Unit::Percent => within(0, 1_000),
    }
}

/// The number in an answer.
pub fn number(raw: &Raw, shape: Option<Shape>) -> Result<Number, Gap> {
    match raw {
        _ if item_of(shape).is_some() => {
            number_in_text(&text_of(raw, shape).ok_or(Gap::Unsupported)?)
        }
        Raw::Bit(bit) => Ok(Number::Whole(i64::from(*bit))),
        Raw::Value(value) => match value.number() {
            Some(whole) => Ok(Number::Whole(whole)),
            None => number_in_text(&value.text().ok_or(Gap::Malformed)?),
        },
        Raw::Text(text) => number_in_text(text),
        Raw::Words(words) => number_in_words(words, shape.ok_or(Gap::Malformed)?),
    }
}

/// Texts that mean "does not have it".
const NO_VALUE: [&str; 10] = [
    "",
    "-",
    "--",
    "na",
    "n/a",
    "none",
    "not-supported",
    "not supported",
    "not-support",
    "not support",
];

/// The number at the start of a text such as "232.6V" or "0.45 kW".
fn number_in_text(text: &str) -> Result<Number, Gap> {
    if NO_VALUE.contains(&text.to_ascii_lowercase().as_str()) {
        return Err(Gap::Unsupported);
    }
    let text = text.trim_start();
    let ends = |c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
    let end = text.find(ends).unwrap_or(text.len());
    let (mantissa, places) = decimal(&text[..end]).ok_or(Gap::Malformed)?;
    Ok(if places == 0 { Number::Whole(mantissa) } else { Number::Decimal(mantissa, places) })
}

fn number_in_words(words: &[u16], shape: Shape) -> Result<Number, Gap> {
    if words.is_empty() || words.len() != usize::from(shape.words) {
        return Err(Gap::Malformed);
    }
    let bits = |acc: u64, word: &u16| acc << 16 | u64::from(*word);
    let value =
        if shape.low_first { words.iter().rev().fold(0, bits) } else { words.iter().fold(0, bits) };
    if let Some(bit) = shape.bit {
        return Ok(Number::Whole((value >> bit & 1) as i64));
    }
    let width = 16 * words.len() as u32;
    match shape.kind {
        ShapeKind::Unsigned | ShapeKind::Bit => {
            i64::try_from(value).map(Number::Whole).map_err(|_| Gap::Implausible)
        }
        ShapeKind::Signed => Ok(Number::Whole((value << (64 - width)) as i64 >> (64 - width))),
        ShapeKind::Float if width == 32 => {
            Ok(Number::Float(f64::from(f32::from_bits(value as u32))))
        }
        ShapeKind::Float => Ok(Number::Float(f64::from_bits(value))),
        ShapeKind::Text | ShapeKind::Item => Err(Gap::Malformed),
    }
}

/// Which item of a list is meant, if one is.
fn item_of(shape: Option<Shape>) -> Option<usize> {
    shape.filter(|shape| shape.kind == ShapeKind::Item).map(|shape| usize::from(shape.words))
}

/// The text in an answer.
pub fn text_of(raw: &Raw, shape: Option<Shape>) -> Option<String> {
    match raw {
        Raw::Value(value) => match item_of(shape) {
            None => value.text(),
            Some(at) => value.text()?.split(',').nth(at).map(|item| item.trim().to_owned()),
        },
        Raw::Text(text) => Some(text.clone()),
        Raw::Words(words) if shape.is_some_and(|s| s.kind == ShapeKind::Text) => {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            let text = String::from_utf8_lossy(&bytes);
            Some(text.trim_matches(['\0', ' ']).to_owned())
        }
        Raw::Words(_) | Raw::Bit(_) => None,
    }
}

/// As `driver read --points` prints it.
pub fn raw_text(raw: &Raw, shape: Option<Shape>) -> String {
    match raw {
        Raw::Value(value) if item_of(shape).is_none() => value.raw(),
        _ => match (text_of(raw, shape), number(raw, shape)) {
            (Some(text), _) => text,
            (None, Ok(Number::Whole(whole))) => whole.to_string(),
            (None, Ok(Number::Float(float))) => (float as f32).to_string(),
            (None, Ok(Number::Decimal(mantissa, places))) => format!("{mantissa}e-{places}"),
            (None, Err(_)) => match raw {
                Raw::Words(words) => words.iter().map(|w| format!("{w:04x}")).collect(),
                _ => String::new(),
            },
        },
    }
}

/// Whether a companion value vouches for another: it says so, or the device has no such companion.
pub fn vouches(check: &Check, answer: &Answer, shape: Option<Shape>) -> bool {
    *answer == Err(Gap::Missing) || holds(check, answer, shape)
}

/// Whether an answer is what a test expects.
pub fn holds(check: &Check, answer: &Answer, shape: Option<Shape>) -> bool {
    let raw = match (check, answer) {
        (Check::Exists, answer) => return answer.is_ok(),
        (Check::Lacks, answer) => return matches!(answer, Err(Gap::Missing)),
        (_, Ok(raw)) => raw,
        (_, Err(_)) => return false,
    };
    let whole = match number(raw, shape) {
        Ok(Number::Whole(whole)) => Some(whole),
        _ => None,
    };
    let text = || text_of(raw, shape).unwrap_or_else(|| raw_text(raw, shape));
    match check {
        Check::Is(wanted) => whole.is_some_and(|n| wanted.contains(&n)),
        Check::Not(unwanted) => whole.is_some_and(|n| !unwanted.contains(&n)),
        Check::Equals(wanted) => wanted.contains(&text()),
        Check::Starts(wanted) => wanted.iter().any(|start| text().starts_with(start.as_str())),
        Check::Contains(wanted) => wanted.iter().any(|part| text().contains(part.as_str())),
        Check::Without(unwanted) => !unwanted.iter().any(|part| text().contains(part.as_str())),
        Check::Under(bases) => {
            let is_under = |oid: &Oid| bases.iter().any(|base| oid.is_under(base));
            if let Raw::Value(Value::Oid(oid)) = raw {
                is_under(oid)
            } else {
                // Some agents (HPE G3) send their sysObjectID as a text.
                text().trim_start_matches('.').parse().is_ok_and(|oid| is_under(&oid))
            }
        }
        Check::Exists | Check::Lacks => unreachable!("answered above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ask::{Value, Whole};
    use crate::model::metric::Scope;
    use proptest::prelude::*;

    fn spec(metric: Metric, count: &str) -> Decode {
        let scope = if metric == Metric::Temperature { Scope::Sensor } else { Scope::Outlet };
        Decode {
            point: Point::new(scope, metric),
            shape: None,
            sense: Sense::Quantity {
                count: count.parse().unwrap(),
                fahrenheit: false,
                sign: Sign::Plausible,
            },
            absent: vec![-1],
        }
    }

    #[allow(clippy::unnecessary_wraps)] // an answer is what they stand for
    fn whole(n: i64) -> Answer {
        Ok(Raw::Value(Value::Integer(n)))
    }

    #[allow(clippy::unnecessary_wraps)]
    fn text(t: &str) -> Answer {
        Ok(Raw::Value(Value::Bytes(t.as_bytes().into())))
    }

    #[test]
    fn poison_is_no_data() {
        let current = spec(Metric::Current, "0.1 A");
        for poison in [65_535, 0x7fff_ffff, 0xffff_ffff, -2, i64::MAX, i64::MIN] {
            assert_eq!(decode(&current, &whole(poison)), Datum::Gap(Gap::Implausible), "{poison}");
        }
        assert_eq!(decode(&current, &whole(-1)), Datum::Gap(Gap::Unsupported));
        assert_eq!(decode(&current, &text("")), Datum::Gap(Gap::Unsupported));
        assert_eq!(decode(&current, &Err(Gap::Missing)), Datum::Gap(Gap::Missing));
        let temperature = spec(Metric::Temperature, "0.1 C");
        assert_eq!(decode(&temperature, &whole(-2731)), Datum::Gap(Gap::Implausible));
        assert_eq!(decode(&temperature, &whole(-55)), Datum::Value(-5_500));
    }

    #[test]
    fn what_feeds_back_is_no_poison() {
        fn at(scope: Scope, metric: Metric, count: &str) -> Decode {
            let mut spec = spec(metric, count);
            spec.point = Point::new(scope, metric);
            spec.absent.clear();
            spec
        }
        let power = |scope| at(scope, Metric::Power, "0.1 W");
        let implausible = Datum::Gap(Gap::Implausible);
        for scope in [Scope::Inlet, Scope::Phase, Scope::Branch] {
            assert_eq!(decode(&power(scope), &whole(-12_345)), Datum::Value(-1_234_500));
            for poison in [-1, -2, -999, -2731, -0x8000, -0x8000_0000, i64::MIN, -2_000_000_000] {
                assert_eq!(decode(&power(scope), &whole(poison)), implausible, "{poison}");
            }
        }
        assert_eq!(decode(&power(Scope::Outlet), &whole(-12_345)), implausible);
        // The end of 16 bits is a number like others where the register has 32.
        let mut wide = power(Scope::Inlet);
        wide.shape = Some(Shape { kind: ShapeKind::Signed, words: 2, low_first: false, bit: None });
        let words = Ok(Raw::Words(vec![0xFFFF, 0x8000]));
        assert_eq!(decode(&wide, &words), Datum::Value(-3_276_800));
        for metric in [Metric::Current, Metric::Voltage, Metric::Frequency] {
            let count = format!("0.1 {}", metric.unit().unwrap().symbol());
            assert_eq!(decode(&at(Scope::Inlet, metric, &count), &whole(-12_345)), implausible);
        }
        assert_eq!(
            decode(&at(Scope::Inlet, Metric::ApparentPower, "1 VA"), &whole(-5)),
            implausible
        );
    }

    #[test]
    fn numbers_in_texts_are_read_with_their_decimals() {
        assert_eq!(decode(&spec(Metric::Voltage, "1 V"), &text("232.6V")), Datum::Value(232_600));
        assert_eq!(decode(&spec(Metric::Power, "1 kW"), &text("0.45kW")), Datum::Value(450_000));
        assert_eq!(decode(&spec(Metric::Power, "1 kW"), &text("off")), Datum::Gap(Gap::Malformed));
    }

    #[test]
    fn a_bus_of_direct_current_may_be_below_zero() {
        let mut bus = spec(Metric::Voltage, "1 V");
        bus.absent.clear();
        assert_eq!(decode(&bus, &text("-55.2")), Datum::Gap(Gap::Implausible));
        bus.sense = Sense::Quantity {
            count: "1 V".parse().unwrap(),
            fahrenheit: false,
            sign: Sign::Polarity,
        };
        assert_eq!(decode(&bus, &text("-55.2")), Datum::Value(-55_200));
        assert_eq!(decode(&bus, &text("-1.0")), Datum::Value(-1_000));
        for nothing in ["-2001", "-9999", "-273.1"] {
            assert_eq!(decode(&bus, &text(nothing)), Datum::Gap(Gap::Implausible), "{nothing}");
        }
        assert_eq!(decode(&bus, &whole(-0x8000)), Datum::Gap(Gap::Implausible));
    }

    #[test]
    fn an_item_of_a_list_is_read_by_its_place() {
        let mut state = spec(Metric::State, "1 W");
        state.absent = vec![-1];
        state.sense =
            Sense::States(vec![(StateKey::Number(0), Word::Off), (StateKey::Number(1), Word::On)]);
        for (at, datum) in [
            (0, Datum::Word(Word::On)),
            (1, Datum::Word(Word::Off)),
            (2, Datum::Gap(Gap::Unsupported)),
            (3, Datum::Gap(Gap::UnknownState)),
            (9, Datum::Gap(Gap::UnknownState)),
        ] {
            state.shape =
                Some(Shape { kind: ShapeKind::Item, words: at, low_first: false, bit: None });
            assert_eq!(decode(&state, &text("1, 0,-1,-2")), datum, "{at}");
        }
    }

    #[test]
    fn an_unknown_state_is_unknown_and_not_off() {
        let states = vec![(StateKey::Number(1), Word::Off), (StateKey::Number(2), Word::On)];
        let mut state = spec(Metric::State, "1 W");
        state.sense = Sense::States(states);
        assert_eq!(decode(&state, &whole(2)), Datum::Word(Word::On));
        assert_eq!(decode(&state, &whole(3)), Datum::Gap(Gap::UnknownState));
    }

    #[test]
    fn modbus_words_are_read_in_either_order() {
        let shape = |kind, words, low_first| Some(Shape { kind, words, low_first, bit: None });
        let raw = Raw::Words(vec![0x0001, 0x86a0]);
        assert_eq!(number(&raw, shape(ShapeKind::Unsigned, 2, false)), Ok(Number::Whole(100_000)));
        let raw = Raw::Words(vec![0x86a0, 0x0001]);
        assert_eq!(number(&raw, shape(ShapeKind::Unsigned, 2, true)), Ok(Number::Whole(100_000)));
        let raw = Raw::Words(vec![0xffff]);
        assert_eq!(number(&raw, shape(ShapeKind::Signed, 1, false)), Ok(Number::Whole(-1)));
        let raw = Raw::Words(vec![0x4366, 0x0000]);
        assert_eq!(number(&raw, shape(ShapeKind::Float, 2, false)), Ok(Number::Float(230.0)));
    }

    #[test]
    fn fahrenheit_becomes_celsius() {
        let mut temperature = spec(Metric::Temperature, "0.1 C");
        if let Sense::Quantity { fahrenheit, .. } = &mut temperature.sense {
            *fahrenheit = true;
        }
        assert_eq!(decode(&temperature, &whole(725)), Datum::Value(22_500));
        assert_eq!(decode(&temperature, &whole(-400)), Datum::Value(-40_000));
    }

    proptest! {
        #[test]
        fn any_reply_decodes_without_panic(n in any::<i64>(), bytes in prop::collection::vec(any::<u8>(), 0..24), words in prop::collection::vec(any::<u16>(), 0..5)) {
            let shape = Some(Shape { kind: ShapeKind::Float, words: words.len() as u16, low_first: false, bit: None });
            for metric in [Metric::Power, Metric::Temperature, Metric::Energy, Metric::PowerFactor] {
                let count = format!("0.1 {}", metric.unit().unwrap().symbol());
                let mut spec = spec(metric, count.trim());
                for raw in [Raw::Value(Value::Integer(n)), Raw::Value(Value::Unsigned(n as u64, Whole::Gauge)), Raw::Value(Value::Bytes(bytes.clone().into()))] {
                    let answer = Ok(raw);
                    if let Datum::Value(value) = decode(&spec, &answer) {
                        prop_assert!(plausible(spec.point, value));
                    }
                }
                spec.shape = shape;
                decode(&spec, &Ok(Raw::Words(words.clone())));
            }
        }
    }
}
