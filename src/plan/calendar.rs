//! Calendar rules: `Mon-Fri 07:30 Europe/Berlin`, `daily 22:00`, `Sat,Sun 03:15 UTC`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::model::time::Stamp;

/// A rule: on which days, at what time, where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    text: String,
    days: [bool; 7],
    hour: i8,
    minute: i8,
    zone: TimeZone,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no calendar rule: {why}")]
pub struct CalendarError {
    text: String,
    why: String,
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

fn day(word: &str) -> Option<usize> {
    DAYS.iter().position(|(name, _)| word.eq_ignore_ascii_case(name))
}

fn days(text: &str) -> Option<[bool; 7]> {
    if text.eq_ignore_ascii_case("daily") {
        return Some([true; 7]);
    }
    let mut days = [false; 7];
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (day(from)?, day(to)?);
        // Fri-Mon goes over the end of the week.
        let mut at = from;
        loop {
            days[at] = true;
            if at == to {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Some(days)
}

impl FromStr for Calendar {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let wrong = |why: &str| CalendarError {
            text: text.chars().take(80).collect(),
            why: why.to_owned(),
        };
        let mut words = text.split_whitespace();
        let days = words.next().and_then(days);
        let days =
            days.ok_or_else(|| wrong("it begins with days: daily, Mon, Mon-Fri or Sat,Sun"))?;
        let time = words.next().and_then(|time| time.split_once(':'));
        let number = |text: &str, below: i8| {
            let plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<i8>().ok().filter(|number| plain && *number < below)
        };
        let time = time.and_then(|(hour, minute)| number(hour, 24).zip(number(minute, 60)));
        let (hour, minute) = time.ok_or_else(|| wrong("behind the days comes a time, as 07:30"))?;
        let zone = match words.next() {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name)
                .map_err(|_| wrong("the time zone is not known: write it as Europe/Berlin"))?,
        };
        if words.next().is_some() {
            return Err(wrong("there is more behind the time zone"));
        }
        Ok(Self { text: text.to_owned(), days, hour, minute, zone })
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Calendar {
    /// The first moment of the rule after another. A time that a change to summer time leaves out is taken as much later
    /// as the clock is set; one that comes twice is taken the first time.
    pub fn next(&self, after: Stamp) -> Option<Stamp> {
        let after = Timestamp::from_millisecond(after.0).ok()?;
        let mut date = after.to_zoned(self.zone.clone()).date();
        for _ in 0..9 {
            let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).ok()?;
            if self.days[weekday] {
                let at = date.at(self.hour, self.minute, 0, 0).to_zoned(self.zone.clone()).ok()?;
                if at.timestamp() > after {
                    return Some(Stamp(at.timestamp().as_millisecond()));
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(rule: &str, after: &str) -> String {
        let after = Stamp::parse_at(after, Stamp(0)).unwrap();
        rule.parse::<Calendar>().unwrap().next(after).unwrap().to_string()
    }

    #[test]
    fn the_next_moment_is_that_of_the_next_day_that_is_meant() {
        // 2026-11-25 is a Wednesday.
        assert_eq!(next("Mon-Fri 07:30", "2026-11-25T07:29:59Z"), "2026-11-25T07:30:00.000Z");
        assert_eq!(next("Mon-Fri 07:30", "2026-11-25T07:30:00Z"), "2026-11-26T07:30:00.000Z");
        assert_eq!(next("Mon-Fri 07:30", "2026-11-27T08:00:00Z"), "2026-11-30T07:30:00.000Z");
        assert_eq!(next("Sat-Mon 00:00", "2026-11-25T00:00:00Z"), "2026-11-28T00:00:00.000Z");
        assert_eq!(next("sat,wed 12:00 UTC", "2026-11-25T12:00:00Z"), "2026-11-28T12:00:00.000Z");
        let berlin = "daily 22:00 Europe/Berlin";
        assert_eq!(next(berlin, "2026-11-25T00:00:00Z"), "2026-11-25T21:00:00.000Z");
        assert_eq!(next(berlin, "2026-07-01T00:00:00Z"), "2026-07-01T20:00:00.000Z");
    }

    #[test]
    fn a_time_that_the_clock_leaves_out_is_taken_later_and_one_that_comes_twice_once() {
        let berlin = "Sun 02:30 Europe/Berlin";
        assert_eq!(next(berlin, "2027-03-28T00:00:00Z"), "2027-03-28T01:30:00.000Z");
        assert_eq!(next(berlin, "2026-10-25T00:00:00Z"), "2026-10-25T00:30:00.000Z");
        assert_eq!(next(berlin, "2026-10-25T00:30:00Z"), "2026-11-01T01:30:00.000Z");
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, why) in [
            ("", "begins with days"),
            ("Mon", "comes a time"),
            ("Mon 7:30", "comes a time"),
            ("Mon 24:00", "comes a time"),
            ("Moon 07:30", "begins with days"),
            ("Mon 07:30 Europe/Nowhere", "time zone"),
            ("Mon 07:30 UTC now", "more behind"),
        ] {
            let error = text.parse::<Calendar>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
