//! Readings: a value, or a gap with its reason. A missing reading is never zero and never yesterday's.

use std::fmt;

use super::metric::{Kind, Metric, Word};
use super::time::Stamp;

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Gap {
    /// Not asked yet.
    NotRead = 1,
    /// The device says that it does not have this reading (its sentinel, as -1).
    Unsupported = 2,
    /// noSuchObject, noSuchInstance or end of view (RFC 3416 section 4.2), or an illegal address.
    Missing = 3,
    /// No answer in time.
    Timeout = 4,
    /// The device answered with an error.
    DeviceError = 5,
    /// The answer's type or text is not what the driver expects.
    Malformed = 6,
    /// A number outside what the part can have: poison such as 0x7fffffff.
    Implausible = 7,
    /// A state number that the driver does not know.
    UnknownState = 8,
    /// The device marks the sensor as unavailable.
    Unavailable = 9,
    /// The PDU is offline.
    Offline = 10,
    /// It was stored, and what is stored is damaged.
    Damaged = 11,
}

impl Gap {
    const ALL: [(Gap, &'static str); 11] = [
        (Gap::NotRead, "not_read"),
        (Gap::Unsupported, "unsupported"),
        (Gap::Missing, "missing"),
        (Gap::Timeout, "timeout"),
        (Gap::DeviceError, "device_error"),
        (Gap::Malformed, "malformed"),
        (Gap::Implausible, "implausible"),
        (Gap::UnknownState, "unknown_state"),
        (Gap::Unavailable, "unavailable"),
        (Gap::Offline, "offline"),
        (Gap::Damaged, "damaged"),
    ];

    /// The word in JSON.
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize - 1].1
    }

    /// From the store.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).map(|(gap, _)| *gap)
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A value or a gap. Quantities are kept steps of the metric's unit ([`super::quantity::Unit::scale`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Datum {
    /// A number.
    Value(i64),
    /// A state.
    Word(Word),
    /// Nothing, and why.
    Gap(Gap),
}

impl Datum {
    /// The number, if it is one.
    pub fn value(self) -> Option<i64> {
        match self {
            Datum::Value(value) => Some(value),
            _ => None,
        }
    }

    /// The state, if it is one.
    pub fn word(self) -> Option<Word> {
        match self {
            Datum::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether it says something.
    pub fn is_good(self) -> bool {
        !matches!(self, Datum::Gap(_))
    }

    /// The number kept in the store: a state's number, or nothing for a gap.
    pub fn stored(self) -> Result<i64, Gap> {
        match self {
            Datum::Value(value) => Ok(value),
            Datum::Word(word) => Ok(word.number()),
            Datum::Gap(gap) => Err(gap),
        }
    }

    /// From the store.
    pub fn from_stored(metric: Metric, stored: Result<i64, Gap>) -> Datum {
        match (metric.kind(), stored) {
            (_, Err(gap)) => Datum::Gap(gap),
            (Kind::Words(_), Ok(number)) => {
                Word::from_number(number).map_or(Datum::Gap(Gap::Malformed), Datum::Word)
            }
            (_, Ok(number)) => Datum::Value(number),
        }
    }
}

/// A reading with the moment it was taken (for a gap: the moment it was missed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What was read.
    pub datum: Datum,
    /// When.
    pub at: Stamp,
}

impl Reading {
    /// Before the first poll.
    pub const NONE: Reading = Reading { datum: Datum::Gap(Gap::NotRead), at: Stamp(0) };
}

/// How much of what should be there is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Every reading that the device has is there.
    Good,
    /// Some are gaps.
    Partial,
    /// None is there.
    Bad,
}

impl Quality {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Quality::Good => "good",
            Quality::Partial => "partial",
            Quality::Bad => "bad",
        }
    }

    /// Of a set of readings; what the device does not have does not count.
    pub fn of(data: impl Iterator<Item = Datum>) -> Quality {
        let counted = data.filter(|d| *d != Datum::Gap(Gap::Unsupported));
        let (good, all) =
            counted.fold((0, 0), |(good, all), d| (good + usize::from(d.is_good()), all + 1));
        match (good, all) {
            (0, _) => Quality::Bad,
            (good, all) if good == all => Quality::Good,
            _ => Quality::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_states_survive_the_store() {
        for (gap, _) in Gap::ALL {
            assert_eq!(Gap::from_number(gap as u8), Some(gap));
        }
        let on = Datum::Word(Word::On);
        assert_eq!(Datum::from_stored(Metric::State, on.stored()), on);
        assert_eq!(Datum::from_stored(Metric::State, Ok(99)), Datum::Gap(Gap::Malformed));
        assert_eq!(Gap::from_number(0), None);
    }

    #[test]
    fn what_a_device_lacks_does_not_spoil_its_quality() {
        let good = Datum::Value(1);
        let lacks = Datum::Gap(Gap::Unsupported);
        let lost = Datum::Gap(Gap::Timeout);
        assert_eq!(Quality::of([good, lacks].into_iter()), Quality::Good);
        assert_eq!(Quality::of([good, lost].into_iter()), Quality::Partial);
        assert_eq!(Quality::of([lost, lacks].into_iter()), Quality::Bad);
    }
}
