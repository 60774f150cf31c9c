//! All readings: which directories there are, which of them a row goes to, what is wrong with them. A directory that is
//! damaged is set aside under a name that tells when, and a new one takes its place; nothing else waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crate::model::time::Span;

use super::chunk::{ChunkStore, StoreError};
use super::memory::MemoryStore;
use super::shelf::{Name, Shelf};

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What a power cut may cost: how often the disk is told to keep what was written.
    pub flush_every: Span,
    /// Days of readings as they came.
    pub raw_days: i64,
    /// Days of minutes.
    pub minute_days: i64,
    /// Days of hours.
    pub hour_days: i64,
    /// Most bytes on disk; the oldest readings go first.
    pub budget: Option<u64>,
    /// When less than so many percent of the disk are free, the oldest readings go.
    pub free_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flush_every: Span(500),
            raw_days: 14,
            minute_days: 90,
            hour_days: 5 * 365,
            budget: None,
            free_percent: 10,
        }
    }
}

/// How what goes wrong is told: a word for the kind, and a sentence.
pub type Alarm = Box<dyn Fn(&'static str, String) + Send + Sync>;

/// How much room there is: free and total bytes of the disk, if there is one that tells.
pub type Room = Box<dyn Fn() -> Option<(u64, u64)> + Send + Sync>;

/// Bytes that stay free: sled must not find the disk full in the middle of a write.
const RESERVE: u64 = 4 * 1024 * 1024;
/// How the names of damaged directories begin.
const ASIDE: &str = "damaged-";
/// How many of them are told by name.
const TOLD: usize = 3;

/// All readings.
pub struct Archive {
    root: Option<PathBuf>,
    /// How long what is kept.
    pub settings: Settings,
    shelves: RwLock<BTreeMap<Name, Arc<Shelf>>>,
    /// Hours of devices that have rows which are not sealed: the directory, the device, the hour's begin.
    touched: Mutex<BTreeSet<(Name, String, i64)>>,
    /// Held for reading while rows are put, for writing while a day is exchanged for its sealed form: no row may fall
    /// between the two.
    gate: RwLock<()>,
    alarm: Alarm,
    alarms: Mutex<BTreeMap<&'static str, String>>,
    /// Directories that were set aside and are still there, each with what is told of it.
    aside: Mutex<BTreeMap<PathBuf, String>>,
    room: Room,
    /// Directories that are out of use, and stay until their last reader is done.
    leaving: Mutex<Vec<Weak<Shelf>>>,
}

impl Archive {
    /// Over a directory, which is made if it is not there.
    pub fn open(root: &Path, settings: Settings, alarm: Alarm) -> Result<Self, StoreError> {
        let fail = |error: std::io::Error| {
            StoreError::Failed(format!("{} cannot be read: {error}", root.display()))
        };
        std::fs::create_dir_all(root).map_err(fail)?;
        let (mut found, mut aside) = (BTreeMap::new(), BTreeMap::new());
        let mut leftover = Vec::new();
        for entry in std::fs::read_dir(root).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let dir = entry.file_name().to_string_lossy().into_owned();
            match Name::parse(&dir) {
                Some(name) => {
                    let shelf = Shelf::new(root, name, settings.flush_every.0);
                    found.insert(name, Arc::new(shelf));
                }
                // A day that was being sealed when the program died, or a directory that was being removed.
                None if dir
                    .rsplit_once('.')
                    .is_some_and(|(_, end)| end == "new" || end == "gone") =>
                {
                    leftover.push(entry.path());
                }
                None if dir.starts_with(ASIDE) && entry.path().is_dir() => {
                    aside.insert(entry.path(), "readings were set aside earlier".to_owned());
                }
                None => {}
            }
        }
        for path in leftover {
            std::fs::remove_dir_all(&path).map_err(fail)?;
        }
        let archive = Self {
            root: Some(root.to_path_buf()),
            settings,
            shelves: RwLock::new(found),
            touched: Mutex::default(),
            gate: RwLock::default(),
            alarm,
            alarms: Mutex::default(),
            aside: Mutex::new(aside),
            room: room_of(root.to_path_buf()),
            leaving: Mutex::default(),
        };
        archive.forget_superseded();
        archive.look_aside();
        Ok(archive)
    }

    /// In memory only: the newest rows.
    pub fn in_memory(settings: Settings, alarm: Alarm) -> Self {
        Self {
            root: None,
            settings,
            shelves: RwLock::default(),
            touched: Mutex::default(),
            gate: RwLock::default(),
            alarm,
            alarms: Mutex::default(),
            aside: Mutex::default(),
            room: Box::new(|| None),
            leaving: Mutex::default(),
        }
    }

    /// With another way to tell how much room there is.
    #[must_use]
    pub fn with_room(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// `sled`, or `memory`.
    pub fn kind(&self) -> &'static str {
        if self.root.is_some() { "sled" } else { "memory" }
    }

    /// Where it is.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The directories, in the order of their names.
    pub fn shelves(&self) -> Vec<Arc<Shelf>> {
        self.shelves.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A directory, if it is there.
    pub fn shelf(&self, name: Name) -> Option<Arc<Shelf>> {
        self.shelves.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    /// The generation of a sealed day; none if it is not sealed.
    pub fn sealed(&self, day: i64) -> Option<u32> {
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        shelves.range(Name::Day(day, 0)..=Name::Day(day, u32::MAX)).next_back().map(|(name, _)| {
            match name {
                Name::Day(_, generation) => *generation,
                _ => 0,
            }
        })
    }

    /// Where rows of a day go.
    pub fn head(&self, day: i64) -> Arc<Shelf> {
        self.shelf_or_new(Name::Head(day, self.sealed(day).unwrap_or(0)))
    }

    /// A directory; a new one if it is not there.
    pub fn shelf_or_new(&self, name: Name) -> Arc<Shelf> {
        if let Some(shelf) = self.shelf(name) {
            return shelf;
        }
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        let shelf = shelves.entry(name).or_insert_with(|| {
            Arc::new(match &self.root {
                Some(root) => Shelf::new(root, name, self.settings.flush_every.0),
                None => Shelf::in_memory(name, Arc::new(MemoryStore::default())),
            })
        });
        shelf.clone()
    }

    /// The store of a directory; one that is damaged is set aside. On a full disk sled takes for damage what is none: it is
    /// tried again when there is room.
    pub fn store(&self, shelf: &Arc<Shelf>) -> Result<Arc<dyn ChunkStore>, StoreError> {
        shelf.store().map_err(|error| match &error {
            StoreError::Damaged(_) if !self.has_room() => StoreError::Full,
            StoreError::Damaged(why) => {
                self.set_aside(shelf, why);
                error
            }
            StoreError::Failed(_) | StoreError::Full => error,
        })
    }

    /// Takes a damaged directory out of use and keeps it under another name.
    pub fn set_aside(&self, shelf: &Arc<Shelf>, why: &str) {
        if !self.has_room() {
            shelf.close();
            return;
        }
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have done it since this one was taken, and a new one may be in its place.
        if !shelves.get(&shelf.name).is_some_and(|known| Arc::ptr_eq(known, shelf)) {
            shelf.close();
            return;
        }
        shelves.remove(&shelf.name);
        drop(shelves);
        self.lock_touched().retain(|(name, _, _)| *name != shelf.name);
        shelf.close();
        let Some(root) = &self.root else { return };
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seconds = seconds.map_or(0, |since| since.as_secs());
        let mut aside = root.join(format!("{ASIDE}{}-{seconds}", shelf.name.dir()));
        for number in 1.. {
            if !aside.exists() {
                break;
            }
            aside = root.join(format!("{ASIDE}{}-{seconds}-{number}", shelf.name.dir()));
        }
        match std::fs::rename(shelf.path(), &aside) {
            Ok(()) => {
                let text = format!("readings are damaged ({why}) and were set aside");
                self.lock_aside().insert(aside, text);
                self.look_aside();
            }
            Err(error) => {
                let path = shelf.path().display();
                let text = format!("{path} is damaged ({why}), and cannot be set aside: {error}");
                self.raise("store.damaged", text);
            }
        }
    }

    /// Tells of what was set aside as long as it is there.
    pub fn look_aside(&self) {
        let mut aside = self.lock_aside();
        aside.retain(|path, _| path.exists());
        // The newest first: they are named by their day, and then by when that was.
        let mut told: Vec<String> = aside
            .iter()
            .rev()
            .take(TOLD)
            .map(|(path, text)| {
                let path = path.display();
                format!("{text}: pmgate store salvage {path} FILE takes out what can be read; remove it then")
            })
            .collect();
        if aside.len() > TOLD {
            told.push(format!("so were {} more beside them", aside.len() - TOLD));
        }
        // Held until it is told, so that what is told last is how it is.
        if told.is_empty() {
            let again = "nothing is set aside any more";
            self.lower("store.set_aside", "store.set_aside_gone", again);
        } else {
            self.raise("store.set_aside", told.join("; "));
        }
    }

    /// How many directories were set aside and are still there.
    pub fn set_aside_count(&self) -> usize {
        self.lock_aside().len()
    }

    fn lock_aside(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets rows be put while the answer is held.
    pub fn putting(&self) -> std::sync::RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges directories for a new one, unless rows have come into one of them: then nothing happens.
    pub fn exchange(
        &self,
        old: &[Name],
        make: impl FnOnce() -> Result<Option<Arc<Shelf>>, StoreError>,
    ) -> Result<bool, StoreError> {
        let _nobody_puts = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if self.lock_touched().iter().any(|(name, _, _)| old.contains(name)) {
            return Ok(false);
        }
        let new = make()?;
        self.replace(new, old);
        Ok(true)
    }

    /// Puts a directory in the place of others, which go when their last reader is done.
    pub fn replace(&self, new: Option<Arc<Shelf>>, old: &[Name]) {
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(new) = new {
            shelves.insert(new.name, new);
        }
        let gone: Vec<Arc<Shelf>> = old.iter().filter_map(|name| shelves.remove(name)).collect();
        drop(shelves);
        self.lock_touched().retain(|(name, _, _)| !old.contains(name));
        gone.iter().for_each(|shelf| shelf.doom());
        self.leaving().extend(gone.iter().map(Arc::downgrade));
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Weak<Shelf>>> {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|shelf| shelf.strong_count() > 0);
        leaving
    }

    /// Whether a directory of this name is out of use and still there, as somebody reads it.
    pub fn is_leaving(&self, name: Name) -> bool {
        let shelves: Vec<Arc<Shelf>> = self.leaving().iter().filter_map(Weak::upgrade).collect();
        shelves.iter().any(|shelf| shelf.name == name)
    }

    /// Bytes that are free as soon as their last readers are done.
    pub fn leaving_bytes(&self) -> u64 {
        let shelves: Vec<Arc<Shelf>> = self.leaving().iter().filter_map(Weak::upgrade).collect();
        shelves.iter().map(|shelf| bytes_in(shelf.path())).sum()
    }

    /// Removes what a sealed day was made from, where the program died before it did.
    fn forget_superseded(&self) {
        let mut old = Vec::new();
        for shelf in self.shelves() {
            let (Name::Head(day, generation) | Name::Day(day, generation)) = shelf.name else {
                continue;
            };
            if self.sealed(day).is_some_and(|newest| generation < newest) {
                old.push(shelf.name);
            }
        }
        self.replace(None, &old);
    }

    /// Remembers that an hour has rows.
    pub fn touch(&self, name: Name, pdu: &str, hour: i64) {
        let mut touched = self.lock_touched();
        let key = (name, pdu.to_owned(), hour);
        if !touched.contains(&key) {
            touched.insert(key);
        }
    }

    /// Hours with rows.
    pub fn touched(&self) -> Vec<(Name, String, i64)> {
        self.lock_touched().iter().cloned().collect()
    }

    /// Forgets an hour whose rows were sealed.
    pub fn sealed_hour(&self, key: &(Name, String, i64)) {
        self.lock_touched().remove(key);
    }

    fn lock_touched(&self) -> MutexGuard<'_, BTreeSet<(Name, String, i64)>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that something is wrong; it stays told for status until it is lowered.
    pub fn raise(&self, kind: &'static str, text: String) {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        if alarms.insert(kind, text.clone()).is_none_or(|before| before != text) {
            tracing::error!("{text}");
            (self.alarm)(kind, text);
        }
    }

    /// Tells that it is well again, if it was not.
    pub fn lower(&self, kind: &'static str, told: &'static str, text: &str) {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        if alarms.remove(kind).is_some() {
            tracing::info!("{text}");
            (self.alarm)(told, text.to_owned());
        }
    }

    /// What is wrong now.
    pub fn alarms(&self) -> Vec<String> {
        let alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        alarms.values().cloned().collect()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.root.as_deref().map_or(0, bytes_in)
    }

    /// Free and total bytes of the disk, if there is one that tells.
    pub fn room(&self) -> Option<(u64, u64)> {
        (self.room)()
    }

    /// Whether there is room to write at all.
    pub fn has_room(&self) -> bool {
        self.has_room_for(0)
    }

    /// Whether there is room for so many bytes of values. What sled stores within its log takes twice its length.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.room().is_none_or(|(free, _)| free > RESERVE.saturating_add(bytes.saturating_mul(2)))
    }
}

fn room_of(root: PathBuf) -> Room {
    Box::new(move || {
        let stat = rustix::fs::statvfs(&root).ok()?;
        Some((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    })
}

/// Bytes in a directory and all below it; what vanishes meanwhile does not count.
pub fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}
