//! The journal's tables, on redb. Every record carries its own checksum: a flipped bit must not come back as another
//! intent. The audit is in here as well, so that no intent is without its line.

use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    StorageBackend, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::audit::{self, Draft, Entry, Head};
use crate::model::id::PlanId;

use super::super::writer::{checked, verified};
use super::{Commit, JournalError, Kept};

/// Plans by id, as they stood when more of them than their steps changed last.
const PLANS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("plans");
/// Steps that have changed since, by plan and place.
const STEPS: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("steps");
/// Plans that have not ended.
const OPEN: TableDefinition<'_, &str, ()> = TableDefinition::new("open");
/// Plan ids by who gave an idempotency key, and the key.
const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
/// Locked outlets, with why.
const LOCKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("locks");
/// The audit, by line.
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// Single things by name: the audit's head and anchor, what outlets are wished to do.
const THINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("things");

/// The audit's last line.
const HEAD: &str = "audit.head";
/// The last line that was dropped.
const ANCHOR: &str = "audit.anchor";
/// How much of the log is in here.
const APPLIED: &str = "log.applied";

/// Plans kept; older ones that have ended are forgotten. At ten switchings a day this is three years.
const KEPT: u64 = 10_000;
/// Lines of audit kept, 60 MB; older ones are dropped, and what is left is still one chain.
const AUDIT_KEPT: u64 = 200_000;

/// How much of the log is in the tables.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Applied {
    /// The number of the last commit.
    number: u64,
    /// The audit's last line with it.
    line: u64,
}

/// The tables.
pub struct Tables {
    db: Database,
}

pub(super) fn failed(error: impl std::fmt::Display) -> JournalError {
    JournalError::Failed(error.to_string())
}

impl Tables {
    /// Opens or makes them. A new one is made beside its place and moved there whole, so that a power
    /// cut during the first start leaves none rather than half a one.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if !path.exists() {
            let new = path.with_extension("new");
            if new.exists() {
                std::fs::remove_file(&new).map_err(failed)?;
            }
            drop(Self::with_tables(Database::create(&new).map_err(failed)?)?);
            std::fs::rename(&new, path).map_err(failed)?;
            let parent =
                path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)?;
        }
        Self::with_tables(Database::open(path).map_err(failed)?)
    }

    /// On another backend than a file.
    pub fn on(backend: impl StorageBackend) -> Result<Self, JournalError> {
        Self::with_tables(Database::builder().create_with_backend(backend).map_err(failed)?)
    }

    fn with_tables(db: Database) -> Result<Self, JournalError> {
        let write = db.begin_write().map_err(failed)?;
        write.open_table(PLANS).map_err(failed)?;
        write.open_table(STEPS).map_err(failed)?;
        write.open_table(OPEN).map_err(failed)?;
        write.open_table(KEYS).map_err(failed)?;
        write.open_table(LOCKS).map_err(failed)?;
        write.open_table(AUDIT).map_err(failed)?;
        write.open_table(THINGS).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(Self { db })
    }

    /// The number of the last commit of the log that is in here; and whether an earlier version, which knows no log, has
    /// written since: what the log has beyond is older than the tables then. Nothing before they know of a log.
    pub fn applied(&self) -> Result<Option<(u64, bool)>, JournalError> {
        let Some(bytes) = self.thing(APPLIED)? else { return Ok(None) };
        let applied: Applied = parsed("how much of the log is applied", &bytes)?;
        Ok(Some((applied.number, self.audit_head()?.seq != applied.line)))
    }

    /// Makes them know of a log, of which they have nothing yet.
    pub fn begin_log(&self) -> Result<(), JournalError> {
        let write = self.db.begin_write().map_err(failed)?;
        applied_to(&write, 0)?;
        write.commit().map_err(failed)
    }

    /// Takes up numbered commits in their order, all or none; those that are in here already are passed over.
    pub fn apply(&self, commits: &[(u64, Arc<Commit>)]) -> Result<(), JournalError> {
        let Some((last, _)) = commits.last() else { return Ok(()) };
        let write = self.db.begin_write().map_err(failed)?;
        {
            let before = applied_in(&write)?;
            for (_, commit) in commits.iter().filter(|(number, _)| *number > before.number) {
                put(&write, commit)?;
            }
            if before.number >= *last {
                return write.abort().map_err(failed);
            }
            applied_to(&write, *last)?;
        }
        write.commit().map_err(failed)
    }

    /// The record of a plan.
    pub fn get(&self, id: &PlanId) -> Result<Option<Kept>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let plans = read.open_table(PLANS).map_err(failed)?;
        let steps = read.open_table(STEPS).map_err(failed)?;
        let found = plans.get(id.as_str()).map_err(failed)?;
        found.map(|value| kept(id.as_str(), value.value(), &steps)).transpose()
    }

    /// What an idempotency key is bound to.
    pub fn key(&self, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let keys = read.open_table(KEYS).map_err(failed)?;
        let found = keys.get(key).map_err(failed)?;
        found.map(|value| sound("an idempotency key", value.value())).transpose()
    }

    /// A single thing by its name.
    pub fn thing(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let things = read.open_table(THINGS).map_err(failed)?;
        let found = things.get(name).map_err(failed)?;
        found.map(|value| sound(name, value.value())).transpose()
    }

    /// The records of plans that have not ended.
    pub fn open_plans(&self) -> Result<Vec<Kept>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let open = read.open_table(OPEN).map_err(failed)?;
        let plans = read.open_table(PLANS).map_err(failed)?;
        let steps = read.open_table(STEPS).map_err(failed)?;
        let mut records = Vec::new();
        for entry in open.iter().map_err(failed)? {
            let (id, ()) = entry.map(|(id, _)| (id, ())).map_err(failed)?;
            if let Some(value) = plans.get(id.value()).map_err(failed)? {
                records.push(kept(id.value(), value.value(), &steps)?);
            }
        }
        Ok(records)
    }

    /// The latest plans before one, newest first: ids grow with time.
    pub fn latest(&self, count: usize, before: Option<&PlanId>) -> Result<Vec<Kept>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let plans = read.open_table(PLANS).map_err(failed)?;
        let steps = read.open_table(STEPS).map_err(failed)?;
        let range = match before {
            Some(id) => plans.range(..id.as_str()).map_err(failed)?,
            None => plans.range::<&str>(..).map_err(failed)?,
        };
        range
            .rev()
            .take(count)
            .map(|entry| {
                let (id, value) = entry.map_err(failed)?;
                kept(id.value(), value.value(), &steps)
            })
            .collect()
    }

    /// Every lock by its outlet.
    pub fn locks(&self) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let locks = read.open_table(LOCKS).map_err(failed)?;
        let entries = locks.iter().map_err(failed)?;
        entries
            .map(|entry| {
                let (outlet, lock) = entry.map_err(failed)?;
                Ok((outlet.value().to_owned(), sound(outlet.value(), lock.value())?))
            })
            .collect()
    }

    /// Lines of the audit after one, oldest first.
    pub fn audit(&self, after: u64, count: usize) -> Result<Vec<Entry>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let audit = read.open_table(AUDIT).map_err(failed)?;
        let range = audit.range(after.saturating_add(1)..).map_err(failed)?;
        range
            .take(count)
            .map(|entry| {
                let (seq, line) = entry.map_err(failed)?;
                line_of(seq.value(), line.value())
            })
            .collect()
    }

    /// The audit's last line.
    pub fn audit_head(&self) -> Result<Head, JournalError> {
        let head = self.thing(HEAD)?;
        head.map_or_else(|| Ok(Head::default()), |bytes| parsed("the audit's head", &bytes))
    }

    /// Checks the whole chain; tells how many lines it has, or where it is broken.
    pub fn verify_audit(&self) -> Result<Result<u64, audit::Broken>, JournalError> {
        let anchor = match self.thing(ANCHOR)? {
            Some(bytes) => parsed("the audit's anchor", &bytes)?,
            None => Head::default(),
        };
        let head = self.audit_head()?;
        let mut last = anchor.clone();
        let mut count = 0;
        loop {
            let page = self.audit(last.seq, 1_000)?;
            let Some(end) = page.last().map(Entry::head) else { break };
            count += page.len() as u64;
            if let Err(broken) = audit::verify(&last, &page, &end) {
                return Ok(Err(broken));
            }
            last = end;
        }
        Ok(audit::verify(&last, [], &head).map(|()| count))
    }

    /// Forgets the oldest plans beyond those kept, the oldest lines of the audit, and idempotency keys that `is_old`
    /// says are.
    pub fn forget(&self, is_old: impl Fn(&[u8]) -> bool) -> Result<(), JournalError> {
        let write = self.db.begin_write().map_err(failed)?;
        {
            let unfinished = write.open_table(OPEN).map_err(failed)?;
            let mut plans = write.open_table(PLANS).map_err(failed)?;
            let surplus = plans.len().map_err(failed)?.saturating_sub(KEPT);
            let oldest: Result<Vec<String>, _> = plans
                .iter()
                .map_err(failed)?
                .take(surplus as usize)
                .map(|entry| entry.map(|(id, _)| id.value().to_owned()))
                .collect();
            for id in oldest.map_err(failed)? {
                if unfinished.get(id.as_str()).map_err(failed)?.is_none() {
                    plans.remove(id.as_str()).map_err(failed)?;
                }
            }
            let mut keys = write.open_table(KEYS).map_err(failed)?;
            keys.retain(|_, value| verified(value).is_some_and(|value| !is_old(value)))
                .map_err(failed)?;
            let mut audit = write.open_table(AUDIT).map_err(failed)?;
            let surplus = audit.len().map_err(failed)?.saturating_sub(AUDIT_KEPT);
            let mut anchor = None;
            for _ in 0..surplus {
                let first = audit.pop_first().map_err(failed)?;
                let Some((seq, line)) = first else { break };
                anchor = Some(line_of(seq.value(), line.value())?.head());
            }
            if let Some(anchor) = anchor {
                let mut things = write.open_table(THINGS).map_err(failed)?;
                let bytes = serde_json::to_vec(&anchor).map_err(failed)?;
                things.insert(ANCHOR, checked(&bytes).as_slice()).map_err(failed)?;
            }
        }
        write.commit().map_err(failed)
    }
}

#[cfg(test)]
impl Tables {
    /// Takes a line out of the audit, as somebody with the file could.
    pub fn remove_line(&self, seq: u64) {
        let write = self.db.begin_write().unwrap();
        write.open_table(AUDIT).unwrap().remove(seq).unwrap();
        write.commit().unwrap();
    }

    /// Adds a line to the audit as a version does that knows no log.
    pub fn add_line(&self, line: Draft) {
        let write = self.db.begin_write().unwrap();
        note(&write, &[line]).unwrap();
        write.commit().unwrap();
    }
}

/// Writes a commit down.
fn put(write: &WriteTransaction, commit: &Commit) -> Result<(), JournalError> {
    let mut plans = write.open_table(PLANS).map_err(failed)?;
    let mut steps = write.open_table(STEPS).map_err(failed)?;
    let mut unfinished = write.open_table(OPEN).map_err(failed)?;
    for (id, record, open) in &commit.plans {
        plans.insert(id.as_str(), checked(record).as_slice()).map_err(failed)?;
        let own = (id.as_str(), 0)..=(id.as_str(), u32::MAX);
        steps.retain_in(own, |_, _| false).map_err(failed)?;
        if *open {
            unfinished.insert(id.as_str(), ()).map_err(failed)?;
        } else {
            unfinished.remove(id.as_str()).map_err(failed)?;
        }
    }
    for (id, place, step) in &commit.steps {
        steps.insert((id.as_str(), *place), checked(step).as_slice()).map_err(failed)?;
    }
    if let Some((key, value)) = &commit.key {
        let mut keys = write.open_table(KEYS).map_err(failed)?;
        keys.insert(key.as_str(), checked(value).as_slice()).map_err(failed)?;
    }
    if let Some((outlet, lock)) = &commit.lock {
        let mut locks = write.open_table(LOCKS).map_err(failed)?;
        match lock {
            Some(lock) => locks.insert(outlet.as_str(), checked(lock).as_slice()),
            None => locks.remove(outlet.as_str()),
        }
        .map_err(failed)?;
    }
    if let Some((name, value)) = &commit.thing {
        let mut things = write.open_table(THINGS).map_err(failed)?;
        things.insert(name.as_str(), checked(value).as_slice()).map_err(failed)?;
    }
    if commit.notes.is_empty() { Ok(()) } else { note(write, &commit.notes) }
}

/// Notes how much of the log is applied.
fn applied_to(write: &WriteTransaction, number: u64) -> Result<(), JournalError> {
    let mut things = write.open_table(THINGS).map_err(failed)?;
    let line = head_in(&things)?.seq;
    let bytes = serde_json::to_vec(&Applied { number, line }).map_err(failed)?;
    things.insert(APPLIED, checked(&bytes).as_slice()).map_err(failed)?;
    Ok(())
}

/// How much of the log a transaction finds applied.
fn applied_in(write: &WriteTransaction) -> Result<Applied, JournalError> {
    let things = write.open_table(THINGS).map_err(failed)?;
    let found = things.get(APPLIED).map_err(failed)?;
    let what = "how much of the log is applied";
    found.map_or_else(|| Ok(Applied::default()), |bytes| parsed(what, &sound(what, bytes.value())?))
}

/// The audit's last line, as a transaction finds it.
fn head_in(
    things: &impl redb::ReadableTable<&'static str, &'static [u8]>,
) -> Result<Head, JournalError> {
    let found = things.get(HEAD).map_err(failed)?;
    found.map_or_else(
        || Ok(Head::default()),
        |bytes| parsed("the audit's head", &sound("the audit's head", bytes.value())?),
    )
}

/// Appends lines to the audit.
fn note(write: &WriteTransaction, notes: &[Draft]) -> Result<(), JournalError> {
    let mut audit = write.open_table(AUDIT).map_err(failed)?;
    let mut things = write.open_table(THINGS).map_err(failed)?;
    let mut head = head_in(&things)?;
    for draft in notes {
        let entry = head.next(draft.clone());
        let bytes = serde_json::to_vec(&entry).map_err(failed)?;
        audit.insert(entry.seq, checked(&bytes).as_slice()).map_err(failed)?;
        head = entry.head();
    }
    let bytes = serde_json::to_vec(&head).map_err(failed)?;
    things.insert(HEAD, checked(&bytes).as_slice()).map_err(failed)?;
    Ok(())
}

fn kept(
    id: &str,
    record: &[u8],
    steps: &impl redb::ReadableTable<(&'static str, u32), &'static [u8]>,
) -> Result<Kept, JournalError> {
    let changed = steps.range((id, 0)..=(id, u32::MAX)).map_err(failed)?;
    let changed = changed.map(|entry| {
        let (key, value) = entry.map_err(failed)?;
        Ok((key.value().1, sound(id, value.value())?))
    });
    Ok(Kept { record: sound(id, record)?, steps: changed.collect::<Result<_, JournalError>>()? })
}

fn line_of(seq: u64, line: &[u8]) -> Result<Entry, JournalError> {
    let name = format!("line {seq} of the audit");
    parsed(&name, &sound(&name, line)?)
}

fn parsed<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, JournalError> {
    serde_json::from_slice(bytes).map_err(|_| JournalError::Damaged(what.to_owned()))
}

fn sound(what: &str, value: &[u8]) -> Result<Vec<u8>, JournalError> {
    verified(value).map(<[u8]>::to_vec).ok_or_else(|| JournalError::Damaged(what.to_owned()))
}
