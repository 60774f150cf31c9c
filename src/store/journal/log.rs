//! The journal's log: commits that are durable and not yet in the tables, one behind the other in a file of fixed size.
//! Its blocks are written once when it is made, so that a commit changes nothing but its own: one write, one fsync, and no
//! full disk. A record begins its own block, and a torn write touches no other.
//!
//! A record: `pmj1`, the length of its payload and its number, which go up by one; a CRC-32 over all of that and the
//! payload; the payload; zeros up to the end of the block. All numbers are little-endian.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use redb::StorageBackend;

use super::JournalError;
use super::tables::failed;

/// The unit of writing, bytes: what a disk writes whole or not at all, or more.
const BLOCK: usize = 4096;
/// The size of a log, bytes: a few hundred commits.
const ROOM: u64 = 1 << 20;
const MAGIC: &[u8; 4] = b"pmj1";
/// Bytes before the payload.
const HEAD: usize = 20;

/// Commits with their numbers, in their order.
type Commits = Vec<(u64, Vec<u8>)>;

/// The log.
pub struct Log {
    medium: Box<dyn StorageBackend>,
    room: u64,
    /// Where the next record goes.
    at: u64,
    /// The number of the last commit.
    last: u64,
    /// Why nothing is written any more.
    failed: Option<String>,
}

/// The file of a log; made beside its place, and moved there whole.
pub fn file(path: &Path) -> Result<Box<dyn StorageBackend>, JournalError> {
    if !path.exists() {
        let new = path.with_extension("log.new");
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(&vec![0; ROOM as usize]).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length != ROOM {
        let why = format!("the journal's log has {length} bytes instead of {ROOM}");
        return Err(JournalError::Apart(why));
    }
    Ok(Box::new(redb::backends::FileBackend::new(file).map_err(failed)?))
}

/// Gives an empty medium the size of a log.
pub fn prepare(medium: &impl StorageBackend) -> std::io::Result<()> {
    if medium.len()? == 0 { medium.set_len(ROOM) } else { Ok(()) }
}

/// A record at the beginning of a piece of the log.
struct Found<'b> {
    number: u64,
    payload: &'b [u8],
}

fn found(bytes: &[u8]) -> Option<Found<'_>> {
    let head = bytes.get(..HEAD)?;
    let word = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let number = head[8..16].try_into().map(u64::from_le_bytes).ok()?;
    let payload = bytes.get(HEAD..HEAD.checked_add(word(4)? as usize)?)?;
    let is_sound = &head[..4] == MAGIC && word(16)? == sum(&head[..16], payload);
    is_sound.then_some(Found { number, payload })
}

fn sum(head: &[u8], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(head);
    sum.update(payload);
    sum.finalize()
}

/// What a record takes of the log, bytes.
fn size(payload: usize) -> usize {
    (HEAD + payload).next_multiple_of(BLOCK)
}

impl Log {
    /// Opens a log, of which commits up to `applied` are in the tables; with the commits behind.
    pub fn open(
        medium: Box<dyn StorageBackend>,
        applied: u64,
    ) -> Result<(Self, Commits), JournalError> {
        let room = medium.len().map_err(failed)? / BLOCK as u64 * BLOCK as u64;
        let mut bytes = vec![0; room as usize];
        medium.read(0, &mut bytes).map_err(failed)?;
        let mut last = applied;
        let mut commits = Vec::new();
        let mut before: Option<u64> = None;
        let mut at = 0;
        while let Some(Found { number, payload }) = found(&bytes[at..])
            && before.is_none_or(|before| number == before + 1)
        {
            if number > last + 1 {
                let why =
                    format!("the journal's log goes on at {number}, its tables end at {last}");
                return Err(JournalError::Apart(why));
            }
            if number > last {
                last = number;
                commits.push((number, payload.to_vec()));
            }
            before = Some(number);
            at += size(payload.len());
        }
        // Each record was durable before the next was written: one behind the end tells that the end is no torn write.
        let behind = bytes[at..].chunks(BLOCK).enumerate().find_map(|(block, _)| {
            let of = found(&bytes[at + block * BLOCK..])?;
            (of.number > last).then_some(of.number)
        });
        if let Some(behind) = behind {
            let why = format!("the journal's log is damaged between {last} and {behind}");
            return Err(JournalError::Apart(why));
        }
        Ok((Self { medium, room, at: at as u64, last, failed: None }, commits))
    }

    /// A log whose records are not wanted any more, which goes on behind a number.
    pub fn wiped(medium: Box<dyn StorageBackend>, last: u64) -> Result<Self, JournalError> {
        let room = medium.len().map_err(failed)? / BLOCK as u64 * BLOCK as u64;
        medium.write(0, &vec![0; room as usize]).map_err(failed)?;
        medium.sync_data().map_err(failed)?;
        Ok(Self { medium, room, at: 0, last, failed: None })
    }

    /// Whether it takes a payload: there is room for it, and none of its blocks looks like a record of its own, as a
    /// client's words could be made to.
    pub fn takes(&self, payload: &[u8]) -> bool {
        let later = payload.get(BLOCK - HEAD..).unwrap_or_default();
        let is_plain = later.chunks(BLOCK).all(|block| !block.starts_with(MAGIC));
        is_plain && self.at + size(payload.len()) as u64 <= self.room
    }

    /// Whether it is time to move on.
    pub fn is_half_full(&self) -> bool {
        self.at * 2 > self.room
    }

    /// The number of the next commit, where commits can be taken.
    pub fn next(&self) -> Result<u64, JournalError> {
        match &self.failed {
            None => Ok(self.last + 1),
            Some(why) => Err(JournalError::Failed(why.clone())),
        }
    }

    /// Counts a commit that went into the tables without the log.
    pub fn skip(&mut self) {
        self.last += 1;
    }

    /// Takes no more commits: whether the last is durable is not known.
    pub fn fail(&mut self, why: &str) {
        self.failed = Some(format!("an earlier commit failed ({why}); restart the gateway"));
    }

    /// Makes a commit durable; its number.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, JournalError> {
        let number = self.next()?;
        let mut record = Vec::with_capacity(size(payload.len()));
        record.extend_from_slice(MAGIC);
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(&number.to_le_bytes());
        record.extend_from_slice(&sum(&record, payload).to_le_bytes());
        record.extend_from_slice(payload);
        record.resize(size(payload.len()), 0);
        let written = self.medium.write(self.at, &record).and_then(|()| self.medium.sync_data());
        if let Err(error) = written {
            self.fail(&error.to_string());
            // Refused is refused, also after the next start, if the disk takes that much.
            let void = self.medium.write(self.at, &[0; BLOCK]);
            if let Err(error) = void.and_then(|()| self.medium.sync_data()) {
                tracing::error!(%error, "a commit that failed may come back at the next start");
            }
            return Err(failed(error));
        }
        self.at += record.len() as u64;
        self.last = number;
        Ok(number)
    }

    /// Goes on at the beginning: everything is in the tables.
    pub fn restart(&mut self) {
        self.at = 0;
    }
}
