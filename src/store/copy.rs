//! Copies of the store: a stream of blocks with checksums, made while the store is in use or from what can be read of a
//! damaged directory, and taken in by another store or the same. Also the check of all that is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::series::block::{Head, Stored, Value};
use crate::series::cells;
use crate::series::merge::{Merged, Source};
use crate::series::rollup;

use super::archive::Archive;
use super::chunk::{ChunkStore, StoreError};
use super::reader::devices;
use super::roll;
use super::seal::{Loaded, groups, rows, seal_day};
use super::shelf::{DAY_MS, HOUR_MS, Kind, Name};
use super::sled::{SledStore, Use};

/// The first bytes of a copy.
const MAGIC: &[u8] = b"pmgate-store-copy 1\n";
/// Blocks of rollups that are taken in before the disk is told to keep them.
const BLOCKS_AT_ONCE: usize = 64;
/// Bytes of one value of a copy; blocks are closed far below.
const VALUE_BYTES: usize = 64 * 1024 * 1024;

/// What was copied, taken in or checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Blocks.
    pub blocks: u64,
    /// Readings and steps in them.
    pub cells: u64,
    /// Blocks, columns and rows that are damaged.
    pub damaged: u64,
}

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file.
    #[error("the copy cannot be read or written")]
    Io(#[from] std::io::Error),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// It is none, or is cut off, or is damaged.
    #[error("this is no whole copy of a store: {0}")]
    Broken(&'static str),
}

/// Copies all of an archive. What is stored meanwhile may or may not be in it; what was stored before is.
pub fn export(archive: &Archive, out: &mut dyn Write) -> Result<Summary, CopyError> {
    let mut copy = Copy::begin(out)?;
    // Held until the end: what is sealed meanwhile is removed only then.
    for shelf in archive.shelves() {
        let copied = archive.store(&shelf).map_err(CopyError::from);
        match copied.and_then(|store| copy.shelf(&store, shelf.name)) {
            // The others can be read all the same.
            Err(CopyError::Store(StoreError::Damaged(why))) => {
                tracing::warn!(
                    "{} is damaged and not in the copy as a whole: {why}",
                    shelf.name.dir()
                );
                copy.summary.damaged += 1;
            }
            copied => copied?,
        }
    }
    copy.end()
}

struct Copy<'w> {
    out: &'w mut dyn Write,
    summary: Summary,
}

impl<'w> Copy<'w> {
    fn begin(out: &'w mut dyn Write) -> Result<Self, CopyError> {
        out.write_all(MAGIC)?;
        Ok(Self { out, summary: Summary::default() })
    }

    /// All of one directory; what cannot be read is counted and left out.
    fn shelf(&mut self, store: &Arc<dyn ChunkStore>, name: Name) -> Result<(), CopyError> {
        for pdu in devices(store.as_ref())? {
            // Rows before blocks: what is sealed in between is then there twice, and not missing.
            if matches!(name, Name::Head(..)) {
                self.rows(store, &pdu, name)?;
            }
            for (kind, at) in places(name) {
                match Loaded::find(store, kind, &pdu, at) {
                    Ok(Some(loaded)) => self.block(kind, &pdu, at, &loaded)?,
                    Ok(None) => {}
                    Err(_) => self.summary.damaged += 1,
                }
            }
        }
        Ok(())
    }

    fn rows(
        &mut self,
        store: &Arc<dyn ChunkStore>,
        pdu: &str,
        name: Name,
    ) -> Result<(), CopyError> {
        let (first, end) = name.days();
        for hour in (first * DAY_MS..end * DAY_MS).step_by(HOUR_MS as usize) {
            let Ok((rows, _, damaged)) = rows(store.as_ref(), pdu, hour, hour + HOUR_MS) else {
                self.summary.damaged += 1;
                continue;
            };
            self.summary.damaged += damaged as u64;
            if !rows.is_empty() {
                let block = Merged::new(vec![Source::Rows(&rows)]).block(|_, _, column| {
                    self.summary.cells += column.len() as u64;
                });
                self.record(Kind::Block, pdu, hour, &block)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, kind: Kind, pdu: &str, at: i64, loaded: &Loaded) -> Result<(), CopyError> {
        let Ok(head) = Head::open(loaded.head()) else {
            self.summary.damaged += 1;
            return Ok(());
        };
        let mut block = Stored { head: loaded.head().to_vec(), groups: Vec::new() };
        for number in 1..=groups(&head) {
            // A value that is gone leaves its columns damaged, not the block.
            block.groups.push(loaded.group(number as u16).unwrap_or_default());
        }
        let checked = check(kind, &block);
        self.summary.cells += checked.cells;
        self.summary.damaged += checked.damaged;
        self.record(kind, pdu, at, &block)
    }

    fn record(&mut self, kind: Kind, pdu: &str, at: i64, block: &Stored) -> Result<(), CopyError> {
        let mut bytes = vec![kind as u8];
        push(&mut bytes, pdu.as_bytes());
        bytes.extend_from_slice(&at.to_le_bytes());
        push(&mut bytes, &block.head);
        bytes.extend_from_slice(&(block.groups.len() as u32).to_le_bytes());
        block.groups.iter().for_each(|group| push(&mut bytes, group));
        self.out.write_all(&(bytes.len() as u32).to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&bytes).to_le_bytes())?;
        self.out.write_all(&bytes)?;
        self.summary.blocks += 1;
        Ok(())
    }

    fn end(self) -> Result<Summary, CopyError> {
        // A record of no bytes: without it the copy is cut off.
        self.out.write_all(&[0; 8])?;
        self.out.flush()?;
        Ok(self.summary)
    }
}

/// Where blocks may lie in a directory.
fn places(name: Name) -> Vec<(Kind, i64)> {
    let (first, end) = name.days();
    let (kind, step) = match name {
        Name::Head(..) => (Kind::Block, HOUR_MS),
        Name::Day(..) => (Kind::Block, DAY_MS),
        Name::Minutes(_) => (Kind::Minute, DAY_MS),
        Name::Hours(_) => (Kind::Hour, DAY_MS),
    };
    (first * DAY_MS..end * DAY_MS).step_by(step as usize).map(|at| (kind, at)).collect()
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
    bytes.extend_from_slice(part);
}

fn pull<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(part)
}

struct Record {
    kind: Kind,
    pdu: String,
    at: i64,
    block: Stored,
}

impl Record {
    /// The next one; none at the end of a whole copy.
    fn read(input: &mut dyn Read) -> Result<Option<Self>, CopyError> {
        let mut frame = [0; 8];
        input.read_exact(&mut frame).map_err(|_| CopyError::Broken("it is cut off"))?;
        let frame = u64::from_le_bytes(frame);
        let (length, sum) = ((frame & 0xffff_ffff) as usize, (frame >> 32) as u32);
        if length == 0 {
            return Ok(None);
        }
        if length > VALUE_BYTES {
            return Err(CopyError::Broken("a length in it is out of bounds"));
        }
        let mut bytes = vec![0; length];
        input.read_exact(&mut bytes).map_err(|_| CopyError::Broken("it is cut off"))?;
        if crc32fast::hash(&bytes) != sum {
            return Err(CopyError::Broken("a checksum in it does not match"));
        }
        Self::parse(&bytes).map(Some).ok_or(CopyError::Broken("a record in it makes no sense"))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let kinds = [Kind::Block, Kind::Minute, Kind::Hour];
        let kind = kinds.into_iter().find(|known| *known as u8 == *kind)?;
        let pdu = std::str::from_utf8(pull(&mut rest)?).ok()?;
        // An id as the configuration has it: it becomes part of keys.
        let pdu: crate::model::id::PduId = pdu.parse().ok()?;
        let (at, after) = rest.split_first_chunk::<8>()?;
        rest = after;
        let head = pull(&mut rest)?.to_vec();
        let (count, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        let groups: Option<Vec<Value>> = (0..u32::from_le_bytes(*count))
            .map(|_| pull(&mut rest).map(|group| Arc::new(group.to_vec())))
            .collect();
        let block = Stored { head, groups: groups? };
        Some(Self { kind, pdu: pdu.to_string(), at: i64::from_le_bytes(*at), block })
    }
}

/// Takes a copy in. What the archive has already counts over what the copy says of the same moment.
pub fn import(archive: &Archive, input: &mut dyn Read) -> Result<Summary, CopyError> {
    let mut magic = vec![0; MAGIC.len()];
    input.read_exact(&mut magic).map_err(|_| CopyError::Broken("it is cut off"))?;
    if magic != MAGIC {
        return Err(CopyError::Broken("it does not begin as one"));
    }
    let mut summary = Summary::default();
    let mut day: Option<(i64, Vec<(String, Stored)>)> = None;
    // Each flush syncs all files of a directory: not after every block.
    let (mut unflushed, mut put) = (BTreeSet::new(), 0);
    while let Some(record) = Record::read(input)? {
        let checked = check(record.kind, &record.block);
        summary.blocks += 1;
        summary.cells += checked.cells;
        summary.damaged += checked.damaged;
        let of = record.at.div_euclid(DAY_MS);
        if record.kind != Kind::Block {
            // What the readings tell is asked of them.
            import_day(archive, day.take())?;
            roll::import(archive, record.kind, &record.pdu, record.at, &record.block)?;
            unflushed.insert(of);
            put += 1;
            if put % BLOCKS_AT_ONCE == 0 {
                roll::flush_all(archive, &std::mem::take(&mut unflushed))?;
            }
            continue;
        }
        match &mut day {
            Some((known, blocks)) if *known == of => blocks.push((record.pdu, record.block)),
            _ => {
                import_day(archive, day.take())?;
                day = Some((of, vec![(record.pdu, record.block)]));
            }
        }
    }
    import_day(archive, day)?;
    roll::flush_all(archive, &unflushed)?;
    Ok(summary)
}

fn import_day(
    archive: &Archive,
    day: Option<(i64, Vec<(String, Stored)>)>,
) -> Result<(), CopyError> {
    let Some((day, blocks)) = day else { return Ok(()) };
    if seal_day(archive, day, &blocks)? {
        Ok(())
    } else {
        Err(StoreError::Failed("readings of that day come in at the same time".into()).into())
    }
}

/// Decodes every column of a block.
fn check(kind: Kind, block: &Stored) -> Summary {
    let Ok(head) = Head::open(&block.head) else {
        return Summary { blocks: 1, cells: 0, damaged: 1 };
    };
    let mut summary = Summary { blocks: 1, ..Summary::default() };
    for entry in &head.columns {
        let times = head.times_of(entry);
        let group = usize::from(entry.group).checked_sub(1).and_then(|n| block.groups.get(n));
        let coded = group.and_then(|group| entry.cells(group).ok());
        let good = coded.is_some_and(|coded| match kind {
            Kind::Block | Kind::Row => cells::decode(coded, times.len()).is_some(),
            Kind::Minute | Kind::Hour => rollup::decode(coded, &times).is_some(),
        });
        if good {
            summary.cells += times.len() as u64;
        } else {
            summary.damaged += 1;
        }
    }
    summary
}

/// Reads all that is stored; per directory what is in it.
pub fn verify(archive: &Archive) -> BTreeMap<String, Result<Summary, CopyError>> {
    let look = |shelf: &Arc<super::shelf::Shelf>| {
        let mut copy = Copy { out: &mut std::io::sink(), summary: Summary::default() };
        copy.shelf(&archive.store(shelf)?, shelf.name)?;
        Ok(copy.summary)
    };
    archive.shelves().iter().map(|shelf| (shelf.name.dir(), look(shelf))).collect()
}

/// Copies what can be read of a damaged directory, which itself is not touched. sled reads its log from the beginning
/// and gives up at the first rot: so the log is cut before that place, and what lies before it is read.
pub fn salvage(dir: &Path, out: &mut dyn Write) -> Result<Summary, CopyError> {
    let named =
        dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let plain = named.strip_prefix("damaged-").unwrap_or(&named);
    let name = plain.match_indices('-').map(|(at, _)| &plain[..at]).chain([plain]);
    let name = name.filter_map(Name::parse).next_back();
    let name = name.ok_or(CopyError::Broken("the directory's name does not say what is in it"))?;
    let tried = dir.with_file_name(format!("{named}.salvage"));
    let attempt = |cut: Option<u64>, with_conf: bool, with_snapshot: bool| {
        drop(std::fs::remove_dir_all(&tried));
        copy_dir(dir, &tried)?;
        for entry in std::fs::read_dir(&tried)? {
            let entry = entry?;
            // A snapshot is a short cut through the log; it may be what is damaged, or what is not. So may be what sled says
            // of its format; without that it takes ours.
            let file = entry.file_name();
            let is_snapshot = file.to_string_lossy().starts_with("snap.");
            if is_snapshot && !with_snapshot || file == "conf" && !with_conf {
                std::fs::remove_file(entry.path())?;
            }
        }
        if let Some(cut) = cut {
            let log = std::fs::OpenOptions::new().write(true).open(tried.join("db"))?;
            log.set_len(cut)?;
        }
        let usage = if matches!(name, Name::Head(..)) { Use::Live(1_000) } else { Use::Sealed };
        let store = SledStore::open(&tried, usage)?;
        // It may open and still have nothing that can be listed.
        devices(&store)?;
        let store: Arc<dyn ChunkStore> = Arc::new(store);
        Ok::<_, CopyError>(store)
    };
    let cells = |store: &Arc<dyn ChunkStore>| -> Result<u64, CopyError> {
        let mut copy = Copy { out: &mut std::io::sink(), summary: Summary::default() };
        copy.shelf(store, name)?;
        Ok(copy.summary.cells)
    };
    let whole = std::fs::metadata(dir.join("db"))?.len();
    // The way by which most can be read.
    type Way = (Option<u64>, bool, bool);
    let mut best: Option<(u64, Way)> = None;
    let mut consider = |way: Way| {
        let found = attempt(way.0, way.1, way.2).and_then(|store| cells(&store)).ok();
        if let Some(found) = found
            && best.is_none_or(|(most, _)| found > most)
        {
            best = Some((found, way));
        }
        found.is_some()
    };
    let ways = [(true, true), (true, false), (false, true), (false, false)];
    let opens = ways.map(|(conf, snapshot)| consider((None, conf, snapshot)));
    if !opens.contains(&true) {
        // Without a log it opens, unless it is not the log that is damaged.
        let with_conf = attempt(Some(0), true, false).is_ok();
        let (mut low, mut high) = (0_u64, whole / 4_096);
        while low < high {
            let middle = u64::midpoint(low, high + 1);
            if attempt(Some(middle * 4_096), with_conf, false).is_ok() {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        consider((Some(low * 4_096), with_conf, false));
    }
    let mut copy = Copy::begin(out)?;
    if let Some((_, (cut, with_conf, with_snapshot))) = best {
        copy.shelf(&attempt(cut, with_conf, with_snapshot)?, name)?;
    }
    let summary = copy.end()?;
    std::fs::remove_dir_all(&tried)?;
    Ok(summary)
}

fn copy_dir(from: &Path, to: &PathBuf) -> Result<(), CopyError> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
