//! The journal of switching on redb: every commit is fsynced before it returns. What is not in here has
//! not been written to a device. Every record carries its own checksum: a flipped bit must not come back
//! as another intent.

use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::model::id::PlanId;

use super::writer::{checked, verified};

/// Plans by id.
const PLANS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("plans");
/// Plans that have not ended.
const OPEN: TableDefinition<'_, &str, ()> = TableDefinition::new("open");
/// Plan ids by who gave an idempotency key, and the key.
const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");

/// Locked outlets, with why.
const LOCKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("locks");

/// Plans kept; older ones that have ended are forgotten. At ten switchings a day this is three years.
const KEPT: u64 = 10_000;

/// Why the journal did not do it. Nothing may be switched then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The database failed.
    #[error("the journal failed: {0}")]
    Failed(String),
    /// A record does not match its checksum.
    #[error("the journal's record of {0} is damaged: its checksum does not match")]
    Damaged(String),
}

/// The journal.
pub struct Journal {
    db: Database,
}

fn failed(error: impl std::fmt::Display) -> JournalError {
    JournalError::Failed(error.to_string())
}

impl Journal {
    /// Opens or makes the journal. A new one is made beside its place and moved there whole, so that a power
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

    fn with_tables(db: Database) -> Result<Self, JournalError> {
        let write = db.begin_write().map_err(failed)?;
        write.open_table(PLANS).map_err(failed)?;
        write.open_table(OPEN).map_err(failed)?;
        write.open_table(KEYS).map_err(failed)?;
        write.open_table(LOCKS).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(Self { db })
    }

    /// Makes the record of a plan durable; with `key`, the idempotency key is bound to it in the same commit.
    pub fn put(
        &self,
        id: &PlanId,
        record: &[u8],
        open: bool,
        key: Option<(&str, &[u8])>,
    ) -> Result<(), JournalError> {
        let write = self.db.begin_write().map_err(failed)?;
        {
            let mut plans = write.open_table(PLANS).map_err(failed)?;
            plans.insert(id.as_str(), checked(record).as_slice()).map_err(failed)?;
            let mut unfinished = write.open_table(OPEN).map_err(failed)?;
            if open {
                unfinished.insert(id.as_str(), ()).map_err(failed)?;
            } else {
                unfinished.remove(id.as_str()).map_err(failed)?;
            }
            if let Some((key, value)) = key {
                let mut keys = write.open_table(KEYS).map_err(failed)?;
                keys.insert(key, checked(value).as_slice()).map_err(failed)?;
            }
        }
        write.commit().map_err(failed)
    }

    /// The record of a plan.
    pub fn get(&self, id: &PlanId) -> Result<Option<Vec<u8>>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let plans = read.open_table(PLANS).map_err(failed)?;
        let found = plans.get(id.as_str()).map_err(failed)?;
        found.map(|value| sound(id.as_str(), value.value())).transpose()
    }

    /// What an idempotency key is bound to.
    pub fn key(&self, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let keys = read.open_table(KEYS).map_err(failed)?;
        let found = keys.get(key).map_err(failed)?;
        found.map(|value| sound("an idempotency key", value.value())).transpose()
    }

    /// The records of plans that have not ended.
    pub fn open_plans(&self) -> Result<Vec<Vec<u8>>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let open = read.open_table(OPEN).map_err(failed)?;
        let plans = read.open_table(PLANS).map_err(failed)?;
        let mut records = Vec::new();
        for entry in open.iter().map_err(failed)? {
            let (id, ()) = entry.map(|(id, _)| (id, ())).map_err(failed)?;
            if let Some(value) = plans.get(id.value()).map_err(failed)? {
                records.push(sound(id.value(), value.value())?);
            }
        }
        Ok(records)
    }

    /// Ids of the latest plans, newest first: ids grow with time.
    pub fn latest(&self, count: usize) -> Result<Vec<Vec<u8>>, JournalError> {
        let read = self.db.begin_read().map_err(failed)?;
        let plans = read.open_table(PLANS).map_err(failed)?;
        let entries = plans.iter().map_err(failed)?.rev().take(count);
        entries
            .map(|entry| {
                let (id, value) = entry.map_err(failed)?;
                sound(id.value(), value.value())
            })
            .collect()
    }

    /// Locks an outlet, or lifts its lock.
    pub fn put_lock(&self, outlet: &str, lock: Option<&[u8]>) -> Result<(), JournalError> {
        let write = self.db.begin_write().map_err(failed)?;
        {
            let mut locks = write.open_table(LOCKS).map_err(failed)?;
            match lock {
                Some(lock) => locks.insert(outlet, checked(lock).as_slice()).map_err(failed)?,
                None => locks.remove(outlet).map_err(failed)?,
            };
        }
        write.commit().map_err(failed)
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

    /// Forgets the oldest plans beyond those kept, and idempotency keys that `is_old` says are.
    pub fn forget(&self, is_old: impl Fn(&[u8]) -> bool) -> Result<(), JournalError> {
        use redb::ReadableTableMetadata as _;
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
        }
        write.commit().map_err(failed)
    }
}

fn sound(what: &str, value: &[u8]) -> Result<Vec<u8>, JournalError> {
    verified(value).map(<[u8]>::to_vec).ok_or_else(|| JournalError::Damaged(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let (one, two): (PlanId, PlanId) = ("p1".parse().unwrap(), "p2".parse().unwrap());
        let journal = Journal::open(&path).unwrap();
        journal.put(&one, b"first", true, Some(("alice:k", b"p1"))).unwrap();
        journal.put(&two, b"second", true, None).unwrap();
        journal.put(&one, b"first, done", false, None).unwrap();
        journal.put_lock("pdu-a/1", Some(b"why")).unwrap();
        journal.put_lock("pdu-a/2", Some(b"why not")).unwrap();
        journal.put_lock("pdu-a/2", None).unwrap();
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.locks().unwrap(), [("pdu-a/1".to_owned(), b"why".to_vec())]);
        assert_eq!(journal.get(&one).unwrap().unwrap(), b"first, done");
        assert_eq!(journal.open_plans().unwrap(), [b"second".to_vec()]);
        assert_eq!(journal.key("alice:k").unwrap().unwrap(), b"p1");
        assert_eq!(journal.key("bob:k").unwrap(), None);
        assert_eq!(journal.latest(1).unwrap(), [b"second".to_vec()]);
        journal.forget(|value| value == b"p1").unwrap();
        assert_eq!(journal.key("alice:k").unwrap(), None);
        assert!(journal.get(&two).unwrap().is_some());
    }
}
