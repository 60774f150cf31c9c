//! A directory of the time-series store on sled 0.34. Its `flush()` does not reach the disk's platters (sync_file_range,
//! no fsync), so a flush here also syncs the files; it panics where it finds rot, so every call is caught: a panic is
//! an error like another, and polling and switching never wait for it.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::archive::bytes_in;
use super::chunk::{Change, ChunkStore, StoreError, Visitor};

/// Pages that sled keeps in memory, of each open directory: history is read now and then.
const CACHE_BYTES: u64 = 1024 * 1024;
/// Segments of a directory that rows are written to.
const LIVE_SEGMENT: usize = 512 * 1024;
/// Segments of a directory that is written once. Values of more than a quarter of it become files of their own, which
/// cost what they are long; what is inline costs twice.
const SEALED_SEGMENT: usize = 16 * 1024;

/// How long a directory that was just closed may still be locked: threads of sled's own let go of it a moment later.
const LOCKED: Duration = Duration::from_secs(2);

/// How long threads may still see what was replaced before it is left to the next flush.
const SEEN: Duration = Duration::from_secs(2);

/// How a directory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Rows come in; fsynced every so many milliseconds.
    Live(u64),
    /// Written once, then read.
    Sealed,
}

/// A directory on disk.
pub struct SledStore {
    db: sled::Db,
    dir: PathBuf,
    how: Use,
    /// Whether anything was changed since it was last flushed.
    changed: AtomicBool,
    /// Bytes of what was replaced that turning the log over did not remove: of a page that is split sled forgets the old
    /// file (`mark_replace` takes it for one that was moved).
    stuck: AtomicU64,
    /// Whether the last turning over left something: the first time threads may have been in the way.
    missed: AtomicBool,
}

impl SledStore {
    /// Opens or makes a directory.
    pub fn open(dir: &Path, how: Use) -> Result<Self, StoreError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES);
        let config = match how {
            Use::Live(flush_ms) => {
                config.segment_size(LIVE_SEGMENT).flush_every_ms(Some(flush_ms.max(1)))
            }
            Use::Sealed => config.segment_size(SEALED_SEGMENT).flush_every_ms(None),
        };
        let dir = dir.to_path_buf();
        let began = Instant::now();
        loop {
            match caught(|| config.open()) {
                Ok(db) => {
                    let [changed, missed] = [false; 2].map(AtomicBool::new);
                    return Ok(Self { db, dir, how, changed, stuck: AtomicU64::new(0), missed });
                }
                Err(StoreError::Failed(why)) if is_lock(&why) && began.elapsed() < LOCKED => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(StoreError::Failed(why)) if is_lock(&why) => {
                    let dir = dir.display();
                    return Err(StoreError::Failed(format!(
                        "{dir} is open in another program: stop the gateway that runs on it"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl SledStore {
    /// Most bytes that the values' files may take, a quarter more than there is, and how many they should: a sixteenth more.
    /// After ten changes to a page sled writes all of it anew, sixteen values at most: of a block of 16 KB values that is as
    /// much again as they are.
    fn most_bytes(&self) -> Result<(u64, u64), StoreError> {
        let mut live = 0;
        let mut entries = self.db.iter();
        while let Some((key, value)) = caught(|| entries.next().transpose())? {
            live += (key.len() + value.len()) as u64;
        }
        let stuck = self.stuck.load(Ordering::Relaxed);
        let least = live + SEALED_SEGMENT as u64 + stuck;
        Ok((least + live / 4, least + live / 16))
    }

    fn takes_more_than(&self, most: u64) -> bool {
        bytes_in(&self.dir.join("blobs")) > most
    }

    /// Has sled remove what it has replaced: it does so some time after the segment of its log that says so is full, which
    /// in a directory that is written once it would never be. So it is filled, with what goes again. And it does so at a
    /// write after no thread is left that could still see the old: threads of any sled database of this process count, so
    /// it is written to until they are through. Returns whether what is left takes no more than it may.
    fn turn_over(&self, wanted: u64) -> Result<bool, StoreError> {
        let filler = caught(|| self.db.open_tree("filler"))?;
        // Each other than the one before, or sled would do nothing.
        let write = |turn: u8, length: usize| {
            caught(|| filler.insert([], vec![turn; length]))?;
            caught(|| self.db.flush())
        };
        for turn in 0..16 {
            write(turn, SEALED_SEGMENT / 6)?;
        }
        let began = Instant::now();
        let mut turn = 16;
        while self.takes_more_than(wanted) && began.elapsed() < SEEN {
            std::thread::sleep(Duration::from_millis(5));
            turn = 33 - turn;
            write(turn, 1)?;
        }
        caught(|| filler.remove([]))?;
        Ok(!self.takes_more_than(wanted))
    }

    fn sync(&self) -> Result<(), StoreError> {
        caught(|| self.db.flush())?;
        let sync = |path: &Path| File::open(path)?.sync_all();
        let all = || {
            sync(&self.dir.join("db"))?;
            let blobs = self.dir.join("blobs");
            if blobs.is_dir() {
                for blob in std::fs::read_dir(&blobs)? {
                    match sync(&blob?.path()) {
                        // sled removes what it has replaced whenever it likes.
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        synced => synced?,
                    }
                }
                sync(&blobs)?;
            }
            sync(&self.dir)
        };
        all().map_err(|error| failed(sled::Error::Io(error)))
    }
}

/// Calls sled; a panic in it is damage.
fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(StoreError::Damaged("sled panicked over what it read".into())),
    }
}

fn failed(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) if is_full(&error) => StoreError::Full,
        sled::Error::Io(error) => match error.kind() {
            // Another process has it, or may not: nothing is wrong with what is stored.
            std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::WouldBlock
            | std::io::ErrorKind::ReadOnlyFilesystem => StoreError::Failed(error.to_string()),
            _ if is_lock(&error.to_string()) || passes(&error) => {
                StoreError::Failed(error.to_string())
            }
            _ => StoreError::Damaged(error.to_string()),
        },
        error => StoreError::Damaged(error.to_string()),
    }
}

/// Too many files are open, or there is no memory: it says nothing of the file.
fn passes(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}

fn is_lock(why: &str) -> bool {
    why.contains("could not acquire lock")
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
        || error.to_string().contains("No space left")
}

impl ChunkStore for SledStore {
    fn kind(&self) -> &'static str {
        "sled"
    }

    fn apply(&self, batch: &[Change]) -> Result<(), StoreError> {
        self.changed.store(true, Ordering::Relaxed);
        // A batch writes sled's buffer out before and after itself: by far the dearest part of putting one row.
        match batch {
            [Change::Put(key, value)] => {
                return caught(|| self.db.insert(key.as_slice(), value.as_slice())).map(|_| ());
            }
            [Change::Delete(key)] => return caught(|| self.db.remove(key)).map(|_| ()),
            _ => {}
        }
        let mut changes = sled::Batch::default();
        for change in batch {
            match change {
                Change::Put(key, value) => changes.insert(key.as_slice(), value.as_slice()),
                Change::Delete(key) => changes.remove(key.as_slice()),
            }
        }
        caught(|| self.db.apply_batch(changes))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(caught(|| self.db.get(key))?.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], to: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut entries = self.db.range(from..to);
        while let Some((key, value)) = caught(|| entries.next().transpose())? {
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let changed = self.changed.swap(false, Ordering::Relaxed);
        self.sync()?;
        // What takes the place of the old is on the disk before the old goes.
        if !changed || self.how != Use::Sealed {
            return Ok(());
        }
        let (most, wanted) = match self.most_bytes() {
            Ok(most) => most,
            // A value of before is damaged: who asks for it is told. What was put is on the disk all the same.
            Err(error) => {
                tracing::warn!(dir = %self.dir.display(), %error, "what was replaced stays");
                return Ok(());
            }
        };
        if self.takes_more_than(most) {
            let all_gone = self.turn_over(wanted)?;
            if !all_gone {
                let more = bytes_in(&self.dir.join("blobs")).saturating_sub(wanted);
                if self.missed.load(Ordering::Relaxed) {
                    // Not waited for again until as much again was replaced.
                    self.stuck.fetch_add(more, Ordering::Relaxed);
                }
                self.changed.store(true, Ordering::Relaxed);
                tracing::warn!(dir = %self.dir.display(), "{more} bytes of what was replaced stay");
            }
            self.missed.store(!all_gone, Ordering::Relaxed);
            self.sync()?;
        }
        Ok(())
    }
}
