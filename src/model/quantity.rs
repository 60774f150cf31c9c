//! Measured numbers as integers: a power in milliwatts, a current in milliamperes. No floats.

use std::fmt;
use std::str::FromStr;

/// The unit of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Active power, W.
    Watt,
    /// Apparent power, VA.
    VoltAmpere,
    /// Current, A.
    Ampere,
    /// Voltage, V.
    Volt,
    /// A plain ratio such as a power factor.
    Ratio,
    /// Frequency, Hz.
    Hertz,
    /// Energy, Wh.
    WattHour,
    /// Temperature, degrees Celsius.
    Celsius,
    /// Percent.
    Percent,
}

impl Unit {
    /// Decimal places that are kept: 3 (mW, mA, …), 4 for ratios, since some PDUs tell a power
    /// factor in ten-thousandths.
    pub const fn decimals(self) -> u32 {
        match self {
            Unit::Ratio => 4,
            _ => 3,
        }
    }

    /// Kept steps in one unit: 1000, or 10 000 for ratios.
    pub const fn scale(self) -> i64 {
        10_i64.pow(self.decimals())
    }

    /// The symbol, empty for a ratio.
    pub const fn symbol(self) -> &'static str {
        match self {
            Unit::Watt => "W",
            Unit::VoltAmpere => "VA",
            Unit::Ampere => "A",
            Unit::Volt => "V",
            Unit::Ratio => "",
            Unit::Hertz => "Hz",
            Unit::WattHour => "Wh",
            Unit::Celsius => "C",
            Unit::Percent => "%",
        }
    }

    /// A kept number as a decimal, as JSON prints it.
    pub fn to_f64(self, kept: i64) -> f64 {
        kept as f64 / self.scale() as f64
    }

    /// A decimal as a kept number, rounded half away from zero; `None` if it does not fit.
    pub fn from_f64(self, value: f64) -> Option<i64> {
        let kept = (value * self.scale() as f64).round();
        (kept.is_finite() && kept.abs() < 9.0e18).then_some(kept as i64)
    }
}

/// What one count on the wire is worth: a ratio of kept steps, with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The unit of the product.
    pub unit: Unit,
    numerator: i64,
    denominator: i64,
}

/// Why a text is no count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" does not say what a count is worth: write a number and a unit, as in \"0.1 A\", \"1 mW\", \"0.01 kWh\" or \"1/3600 Wh\""
)]
pub struct CountError(String);

const SUFFIXES: [(&str, Unit, i64); 19] = [
    ("kWh", Unit::WattHour, 1_000_000),
    ("Wh", Unit::WattHour, 1_000),
    ("mWh", Unit::WattHour, 1),
    ("kW", Unit::Watt, 1_000_000),
    ("W", Unit::Watt, 1_000),
    ("mW", Unit::Watt, 1),
    ("kVA", Unit::VoltAmpere, 1_000_000),
    ("VA", Unit::VoltAmpere, 1_000),
    ("mVA", Unit::VoltAmpere, 1),
    ("A", Unit::Ampere, 1_000),
    ("mA", Unit::Ampere, 1),
    ("V", Unit::Volt, 1_000),
    ("mV", Unit::Volt, 1),
    ("Hz", Unit::Hertz, 1_000),
    ("mHz", Unit::Hertz, 1),
    ("C", Unit::Celsius, 1_000),
    ("mC", Unit::Celsius, 1),
    ("%", Unit::Percent, 1_000),
    ("", Unit::Ratio, 10_000),
];

impl FromStr for Count {
    type Err = CountError;

    fn from_str(text: &str) -> Result<Self, CountError> {
        let wrong = || CountError(text.to_owned());
        let (number, suffix) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let (_, unit, kept) =
            SUFFIXES.into_iter().find(|(name, _, _)| *name == suffix.trim()).ok_or_else(wrong)?;
        let (top, bottom) = number.split_once('/').unwrap_or((number, "1"));
        let (mantissa, places) = decimal(top).ok_or_else(wrong)?;
        let divisor: i64 = bottom.parse().ok().filter(|d| *d > 0).ok_or_else(wrong)?;
        let denominator =
            10_i64.checked_pow(places).and_then(|d| d.checked_mul(divisor)).ok_or_else(wrong)?;
        let numerator = mantissa.checked_mul(kept).ok_or_else(wrong)?;
        if numerator <= 0 {
            return Err(wrong());
        }
        Ok(Self::reduced(unit, numerator, denominator))
    }
}

impl Count {
    fn reduced(unit: Unit, numerator: i64, denominator: i64) -> Self {
        let common = gcd(numerator, denominator);
        Self { unit, numerator: numerator / common, denominator: denominator / common }
    }

    /// The same count divided by 10^digits (multiplied, for negative digits): a scale that the
    /// device tells at run time. `None` beyond ±9 digits, which no device means.
    pub fn with_digits(self, digits: i64) -> Option<Self> {
        let power = 10_i64.pow(u32::try_from(digits.unsigned_abs()).ok().filter(|d| *d <= 9)?);
        if digits >= 0 {
            let denominator = self.denominator.checked_mul(power)?;
            Some(Self::reduced(self.unit, self.numerator, denominator))
        } else {
            let numerator = self.numerator.checked_mul(power)?;
            Some(Self::reduced(self.unit, numerator, self.denominator))
        }
    }

    /// The same count times a factor that the device tells at run time: a negative one divides, 0 says that there is
    /// none. `None` beyond ±10^9, which no device means.
    pub fn with_factor(self, factor: i64) -> Option<Self> {
        let size =
            i64::try_from(factor.unsigned_abs()).ok().filter(|size| *size <= 1_000_000_000)?;
        match factor.signum() {
            0 => Some(self),
            1 => {
                Some(Self::reduced(self.unit, self.numerator.checked_mul(size)?, self.denominator))
            }
            _ => {
                Some(Self::reduced(self.unit, self.numerator, self.denominator.checked_mul(size)?))
            }
        }
    }

    /// `mantissa` × 10^-`places` counts in kept steps, rounded half away from zero; `None` if it
    /// does not fit.
    pub fn apply(self, mantissa: i64, places: u32) -> Option<i64> {
        // Nearly every reading is a whole count worth whole steps.
        if places == 0 && self.denominator == 1 {
            return mantissa.checked_mul(self.numerator);
        }
        let top = i128::from(mantissa) * i128::from(self.numerator);
        let bottom = i128::from(self.denominator) * 10_i128.checked_pow(places.min(18))?;
        let half = bottom / 2;
        let rounded = if top < 0 { (top - half) / bottom } else { (top + half) / bottom };
        i64::try_from(rounded).ok()
    }

    /// Counts for a kept number: the other way, for a simulator or a write.
    pub fn counts(self, kept: i64) -> i64 {
        let top = i128::from(kept) * i128::from(self.denominator);
        let bottom = i128::from(self.numerator);
        let half = bottom / 2;
        let rounded = if top < 0 { (top - half) / bottom } else { (top + half) / bottom };
        i64::try_from(rounded).unwrap_or(if top < 0 { i64::MIN } else { i64::MAX })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.numerator as f64 / self.denominator as f64 / self.unit.scale() as f64;
        write!(f, "{value} {}", self.unit.symbol())
    }
}

/// A decimal text as mantissa and decimal places: `"-0.45"` is (-45, 2).
pub fn decimal(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    if digits.is_empty() && fraction.is_empty() {
        return None;
    }
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(digits) || !all_digits(fraction) || digits.len() + fraction.len() > 18 {
        return None;
    }
    let mantissa: i64 = format!("0{digits}{fraction}").parse().ok()?;
    let signed = if whole.starts_with('-') { -mantissa } else { mantissa };
    Some((signed, fraction.len() as u32))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(text: &str) -> Count {
        text.parse().unwrap()
    }

    #[test]
    fn a_count_turns_wire_numbers_into_kept_steps() {
        assert_eq!(count("0.1 A").apply(13, 0), Some(1_300)); // 1.3 A
        assert_eq!(count("0.01 kW").apply(25, 0), Some(250_000)); // 250 W
        assert_eq!(count("0.1 kWh").apply(184_467, 0), Some(18_446_700_000)); // 18 446.7 kWh
        assert_eq!(count("0.01").apply(98, 0), Some(9_800)); // PF 0.98
        assert_eq!(count("1/3600 Wh").apply(320_210, 0), Some(88_947)); // watt-seconds
        assert_eq!(count("1 kW").apply(45, 2), Some(450_000)); // the text "0.45"
    }

    #[test]
    fn the_devices_own_digits_scale_a_count() {
        // A Raritan PX3 says 633 with three decimal digits for 0.633 A.
        assert_eq!(count("1 A").with_digits(3).unwrap().apply(633, 0), Some(633));
        assert_eq!(count("1 V").with_digits(0).unwrap().apply(229, 0), Some(229_000));
        assert_eq!(count("1 W").with_digits(-1).unwrap().apply(25, 0), Some(250_000));
        assert_eq!(count("1 W").with_digits(40), None);
    }

    #[test]
    fn the_devices_own_factor_scales_a_count() {
        // A Rittal PDU says 473 with the factor -100 for 4.73 A.
        assert_eq!(count("1 A").with_factor(-100).unwrap().apply(473, 0), Some(4_730));
        assert_eq!(count("1 W").with_factor(10).unwrap().apply(25, 0), Some(250_000));
        assert_eq!(count("1 W").with_factor(0), Some(count("1 W")));
        assert_eq!(count("1 W").with_factor(i64::MIN), None);
    }

    #[test]
    fn what_is_no_count_is_told_so() {
        for text in ["", "A", "0.1 Ampere", "x A", "-1 A", "0 A", "1/0 A", "1 2 A"] {
            assert!(text.parse::<Count>().is_err(), "{text}");
        }
    }

    #[test]
    fn decimals_keep_their_sign_below_one() {
        assert_eq!(decimal("-0.45"), Some((-45, 2)));
        assert_eq!(decimal("232.6"), Some((2326, 1)));
        assert_eq!(decimal("."), None);
        assert_eq!(decimal("1e5"), None);
    }

    proptest! {
        #[test]
        fn counts_undoes_apply(raw in -1_000_000_000i64..1_000_000_000, which in 0usize..4) {
            let count = count(["0.1 A", "1 W", "0.01 kWh", "0.01"][which]);
            prop_assert_eq!(count.counts(count.apply(raw, 0).unwrap()), raw);
        }

        #[test]
        fn any_text_is_answered_without_panic(text in ".{0,24}") {
            let _either_way = text.parse::<Count>();
            let _also = decimal(&text);
        }
    }
}
