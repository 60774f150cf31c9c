//! Points in time and stretches of it. Pure code is told the time; only [`SystemClock`] asks for it.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

/// A moment by the wall clock: milliseconds since 1970-01-01T00:00:00Z. May jump when the clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub i64);

/// A moment by the monotonic clock: milliseconds since the program started. Never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

/// A stretch of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

impl Span {
    /// From whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    /// As the standard library says it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms % 1_000 == 0 => write!(f, "{} s", ms / 1_000),
            ms if ms >= 10_000 => write!(f, "{:.1} s", ms as f64 / 1_000.0),
            ms => write!(f, "{ms} ms"),
        }
    }
}

impl Add<Span> for Tick {
    type Output = Tick;
    fn add(self, span: Span) -> Tick {
        Tick(self.0.saturating_add(span.0))
    }
}

impl Sub<Tick> for Tick {
    type Output = Span;
    /// How long ago `earlier` was; nothing if it lies ahead.
    fn sub(self, earlier: Tick) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Stamp {
    /// How long before this `earlier` was; nothing if the clock has been set back meanwhile.
    pub fn since(self, earlier: Stamp) -> Span {
        Span(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no time: write RFC 3339 as in 2026-11-22T18:00:00Z, or seconds since 1970, or a stretch back from now as in -15m, -2h, -7d"
)]
pub struct StampError(String);

impl fmt::Display for Stamp {
    /// RFC 3339 in UTC with milliseconds; years beyond 9999 are clamped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clamped = self.0.clamp(-62_135_596_800_000, 253_402_207_200_000);
        match jiff::Timestamp::from_millisecond(clamped) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000Z"),
        }
    }
}

impl FromStr for Stamp {
    type Err = StampError;

    /// RFC 3339, or seconds since 1970 with decimals.
    fn from_str(text: &str) -> Result<Self, StampError> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(at.as_millisecond()));
        }
        let wrong = || StampError(text.to_owned());
        let (mantissa, places) = super::quantity::decimal(text).ok_or_else(wrong)?;
        let millis = i128::from(mantissa) * 1_000 / 10_i128.pow(places);
        i64::try_from(millis)
            .ok()
            .filter(|ms| ms.abs() < 253_402_207_200_000)
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl Stamp {
    /// Like `from_str`, or a stretch back from `now` ("-15m"), or "now".
    pub fn parse_at(text: &str, now: Stamp) -> Result<Self, StampError> {
        if text == "now" {
            return Ok(now);
        }
        match text.strip_prefix('-').and_then(|back| back.parse::<Span>().ok()) {
            Some(back) => Ok(Self(now.0 - i64::try_from(back.0).unwrap_or(i64::MAX / 2))),
            None => text.parse(),
        }
    }
}

impl FromStr for Span {
    type Err = StampError;

    /// A number with ms, s, m, h or d.
    fn from_str(text: &str) -> Result<Self, StampError> {
        let wrong = || StampError(text.to_owned());
        let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(at);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit_ms).map(Self).ok_or_else(wrong)
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn stamp(&self) -> Stamp;
    /// The monotonic clock.
    fn tick(&self) -> Tick;
}

/// The machine's clocks. Under a paused runtime the monotonic one stands still with it.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// Ticks count from here.
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn stamp(&self) -> Stamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock set before 1970 is as wrong as one at 1970.
        Stamp(since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    fn tick(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// A wall clock that follows the monotonic one from a given moment: for tests and simulations, where
/// days pass in a blink and a run must repeat.
#[derive(Debug, Clone)]
pub struct SteppedClock {
    epoch: Stamp,
    ticks: SystemClock,
}

impl SteppedClock {
    /// The wall clock shows `epoch` now.
    pub fn starting(epoch: Stamp) -> Self {
        Self { epoch, ticks: SystemClock::start() }
    }
}

impl Clock for SteppedClock {
    fn stamp(&self) -> Stamp {
        Stamp(self.epoch.0 + i64::try_from(self.ticks.tick().0).unwrap_or(i64::MAX / 2))
    }

    fn tick(&self) -> Tick {
        self.ticks.tick()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_print_milliseconds_in_utc() {
        assert_eq!(Stamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Stamp(1_795_000_000_123).to_string(), "2026-11-18T11:06:40.123Z");
        let _clamped = Stamp(i64::MAX).to_string();
        let _clamped = Stamp(i64::MIN).to_string();
    }

    #[test]
    fn a_stamp_reads_rfc_3339_seconds_and_stretches() {
        let now = Stamp(1_000_000);
        assert_eq!("2026-11-18T11:06:40.123Z".parse(), Ok(Stamp(1_795_000_000_123)));
        assert_eq!("12.5".parse(), Ok(Stamp(12_500)));
        assert_eq!(Stamp::parse_at("-2m", now), Ok(Stamp(880_000)));
        assert_eq!(Stamp::parse_at("now", now), Ok(now));
        assert!("yesterday".parse::<Stamp>().is_err());
        assert!("99999999999999999".parse::<Stamp>().is_err());
    }

    #[test]
    fn spans_read_and_print_with_units() {
        assert_eq!("90s".parse(), Ok(Span(90_000)));
        assert_eq!("2h".parse(), Ok(Span(7_200_000)));
        assert!("90".parse::<Span>().is_err());
        assert_eq!(Span(1_500).to_string(), "1500 ms");
        assert_eq!(Span(60_000).to_string(), "60 s");
    }

    #[tokio::test(start_paused = true)]
    async fn the_stepped_clock_follows_paused_time() {
        let clock = SteppedClock::starting(Stamp(5_000));
        tokio::time::advance(Duration::from_hours(24)).await;
        assert_eq!(clock.stamp(), Stamp(86_405_000));
    }
}
