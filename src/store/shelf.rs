//! The directories of the store, by name: a day's rows as they come, a day sealed, a week of minutes, a year of hours.
//! Each is one sled database, and what has had its time goes by the directory. Also the keys inside them.
//!
//! A day that was sealed and got late rows is sealed anew under the next generation; the highest generation counts, and
//! what it was made from is removed: whenever the program dies, the names alone say what holds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::time::Stamp;

use super::chunk::{ChunkStore, StoreError};
use super::sled::{SledStore, Use};

/// Milliseconds of a minute.
pub const MINUTE_MS: i64 = 60_000;
/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;
/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// Days of a directory of minutes.
const WEEK: i64 = 7;
/// Days of a directory of hours.
const YEAR: i64 = 364;

/// The name of a directory. Days count from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// Rows of a day as they come, and its sealed hours; with the generation of the sealed day that it adds to.
    Head(i64, u32),
    /// A sealed day, and its generation.
    Day(i64, u32),
    /// Minutes of seven days from this one.
    Minutes(i64),
    /// Hours of 364 days from this one.
    Hours(i64),
}

impl Name {
    /// The minutes that a day is in.
    pub fn minutes(day: i64) -> Self {
        Name::Minutes(day.div_euclid(WEEK) * WEEK)
    }

    /// The hours that a day is in.
    pub fn hours(day: i64) -> Self {
        Name::Hours(day.div_euclid(YEAR) * YEAR)
    }

    /// The first day and the day after the last.
    pub fn days(self) -> (i64, i64) {
        match self {
            Name::Head(day, _) | Name::Day(day, _) => (day, day + 1),
            Name::Minutes(day) => (day, day + WEEK),
            Name::Hours(day) => (day, day + YEAR),
        }
    }

    /// The directory's name.
    pub fn dir(self) -> String {
        match self {
            Name::Head(day, generation) => format!("head-{}.{generation}", date(day)),
            Name::Day(day, generation) => format!("day-{}.{generation}", date(day)),
            Name::Minutes(day) => format!("minutes-{}", date(day)),
            Name::Hours(day) => format!("hours-{}", date(day)),
        }
    }

    /// By a directory's name.
    pub fn parse(dir: &str) -> Option<Self> {
        let (kind, rest) = dir.split_once('-')?;
        let (at, generation) = rest.split_once('.').unwrap_or((rest, "0"));
        let at: Stamp = format!("{at}T00:00:00Z").parse().ok()?;
        let (day, generation) = (at.0.div_euclid(DAY_MS), generation.parse().ok()?);
        let name = match kind {
            "head" => Name::Head(day, generation),
            "day" => Name::Day(day, generation),
            "minutes" => Name::Minutes(day),
            "hours" => Name::Hours(day),
            _ => return None,
        };
        (name.dir() == dir).then_some(name)
    }

    fn usage(self, flush_ms: u64) -> Use {
        match self {
            Name::Head(..) => Use::Live(flush_ms),
            _ => Use::Sealed,
        }
    }
}

/// The day of a moment.
pub fn day_of(at: Stamp) -> i64 {
    at.0.div_euclid(DAY_MS)
}

/// A day as 2026-11-22.
pub fn date(day: i64) -> String {
    Stamp(day.saturating_mul(DAY_MS)).to_string().chars().take(10).collect()
}

/// A directory of the store. Opened when it is first needed.
pub struct Shelf {
    /// Its name.
    pub name: Name,
    path: PathBuf,
    flush_ms: u64,
    open: Mutex<Option<Arc<dyn ChunkStore>>>,
    doomed: AtomicBool,
}

impl Shelf {
    /// A directory under a root.
    pub fn new(root: &Path, name: Name, flush_ms: u64) -> Self {
        let path = root.join(name.dir());
        Self { name, path, flush_ms, open: Mutex::new(None), doomed: AtomicBool::new(false) }
    }

    /// One that is open already, and has no directory.
    pub fn in_memory(name: Name, store: Arc<dyn ChunkStore>) -> Self {
        let (path, doomed) = (PathBuf::new(), AtomicBool::new(false));
        Self { name, path, flush_ms: 0, open: Mutex::new(Some(store)), doomed }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its store.
    pub fn store(&self) -> Result<Arc<dyn ChunkStore>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.as_ref() {
            return Ok(store.clone());
        }
        let store: Arc<dyn ChunkStore> =
            Arc::new(SledStore::open(&self.path, self.name.usage(self.flush_ms))?);
        *open = Some(store.clone());
        Ok(store)
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Closes it, to be opened anew: sled goes on failing after one failed write. A reader may still have it, and then
    /// opening it again fails until that reader is done.
    pub fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Removes the directory when the last reader is done with it.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if !self.doomed.load(Ordering::Relaxed) || self.path.as_os_str().is_empty() {
            return;
        }
        self.close();
        // By another name first: one that is half removed must not be taken for one that is damaged.
        let gone = self.path.with_file_name(format!("{}.gone", self.name.dir()));
        let removed =
            std::fs::rename(&self.path, &gone).and_then(|()| std::fs::remove_dir_all(&gone));
        match removed {
            // Nothing was ever written to it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, "{} is not needed any more, and cannot be removed", self.path.display());
            }
            Ok(()) => {}
        }
    }
}

/// What lies under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A row.
    Row = b'R' as isize,
    /// A block of readings.
    Block = b'B' as isize,
    /// A block of minutes.
    Minute = b'M' as isize,
    /// A block of hours.
    Hour = b'H' as isize,
}

/// The beginning of all keys of a device.
pub fn prefix(kind: Kind, pdu: &str) -> Vec<u8> {
    let mut key = vec![kind as u8];
    key.extend_from_slice(pdu.as_bytes());
    key.push(0);
    key
}

/// The key of a row, or the beginning of a block's keys: big-endian, so that they lie in order of time.
pub fn key(kind: Kind, pdu: &str, at: i64) -> Vec<u8> {
    let mut key = prefix(kind, pdu);
    key.extend_from_slice(&((at as u64) ^ (1 << 63)).to_be_bytes());
    key
}

/// The key of a block's head (0) or of one of its values.
pub fn part(kind: Kind, pdu: &str, at: i64, number: u16) -> Vec<u8> {
    let mut key = key(kind, pdu, at);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Device, moment and number in a key.
pub fn unkey(key: &[u8]) -> Option<(&str, i64, u16)> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let pdu = std::str::from_utf8(key.get(1..end)?).ok()?;
    let (at, rest) = key.get(end + 1..)?.split_first_chunk::<8>()?;
    let number = rest.split_first_chunk::<2>().map_or(0, |(number, _)| u16::from_be_bytes(*number));
    Some((pdu, (u64::from_be_bytes(*at) ^ (1 << 63)) as i64, number))
}

/// The key of a schema.
pub fn schema_key(number: u32) -> Vec<u8> {
    let mut key = vec![b'S'];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in [
            Name::Head(20_000, 0),
            Name::Day(20_416, 3),
            Name::minutes(20_416),
            Name::hours(20_416),
        ] {
            assert_eq!(Name::parse(&name.dir()), Some(name));
            let (first, after) = name.days();
            assert!(first <= 20_416 && after > 20_000);
        }
        for dir in
            ["head-", "day-2026-13-01.0", "blobs", "hours-2026-01-01.x", "damaged-day-2026-01-01.0"]
        {
            assert_eq!(Name::parse(dir), None, "{dir}");
        }
    }

    #[test]
    fn keys_lie_in_order_of_time_and_are_read_back() {
        assert!(key(Kind::Row, "pdu-a", -1) < key(Kind::Row, "pdu-a", 0));
        assert!(key(Kind::Row, "pdu-a", i64::MAX) < key(Kind::Row, "pdu-a1", 0));
        assert_eq!(unkey(&part(Kind::Block, "pdu-a", 77, 3)), Some(("pdu-a", 77, 3)));
        assert_eq!(unkey(&key(Kind::Row, "pdu-a", -5)), Some(("pdu-a", -5, 0)));
        assert_eq!(unkey(b"R"), None);
    }
}
