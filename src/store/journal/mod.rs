//! The journal of switching: what is not in here has not been written to a device. Every commit is durable before it
//! returns, by one write and one fsync of a short log; a little later it moves from there into tables on redb, where it
//! stays. To write it there at once takes a dozen pages in a dozen places of the disk, and a call waits for that twice.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use serde::{Deserialize, Serialize};

use crate::audit::{Broken, Draft, Entry, Head};
use crate::model::id::PlanId;

mod log;
mod tables;
#[cfg(test)]
mod tests;

use log::Log;
use tables::{Tables, failed};

/// Where a journal may be kept.
pub mod backend {
    pub use redb::StorageBackend;
}

/// Why the journal did not do it. Nothing may be switched then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The database failed.
    #[error("the journal failed: {0}")]
    Failed(String),
    /// A record does not match its checksum.
    #[error("the journal's record of {0} is damaged: its checksum does not match")]
    Damaged(String),
    /// The log does not go on from where the tables end.
    #[error(
        "{0}: what was committed last is not known; restore journal.redb and journal.log from the same backup, or move journal.log away to go on without what it has, after a look at what the outlets are"
    )]
    Apart(String),
}

/// A plan as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its record.
    pub record: Vec<u8>,
    /// Steps that have changed since, by place.
    pub steps: Vec<(u32, Vec<u8>)>,
}

/// What becomes durable together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Plans, whole, with whether they go on.
    pub plans: Vec<(PlanId, Vec<u8>, bool)>,
    /// Steps of a plan, by place.
    pub steps: Vec<(PlanId, u32, Vec<u8>)>,
    /// An idempotency key with what it is bound to.
    pub key: Option<(String, Vec<u8>)>,
    /// A lock, or that it is lifted, by its outlet.
    pub lock: Option<(String, Option<Vec<u8>>)>,
    /// A single thing by its name.
    pub thing: Option<(String, Vec<u8>)>,
    /// Lines of the audit.
    pub notes: Vec<Draft>,
}

/// The journal.
pub struct Journal {
    tables: Tables,
    state: Mutex<State>,
}

struct State {
    log: Log,
    /// What is in the log and may not be in the tables yet, with its numbers.
    pending: VecDeque<(u64, Arc<Commit>)>,
}

impl State {
    /// What is pending, in one piece.
    fn batch(&self) -> Vec<(u64, Arc<Commit>)> {
        self.pending.iter().cloned().collect()
    }

    /// Forgets what the tables have, and writes the log anew from its beginning once they have everything.
    fn settled(&mut self, last: u64) {
        self.pending.retain(|(number, _)| *number > last);
        if self.pending.is_empty() {
            self.log.restart();
        }
    }
}

impl Journal {
    /// Opens or makes the journal: the tables at this path, the log beside them. What is new is made beside its place
    /// and moved there whole, so that a power cut during the first start leaves none rather than half a one.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let tables = Tables::open(path)?;
        Self::of(tables, log::file(&path.with_extension("log"))?)
    }

    /// A journal on other backends than files: for simulations, whose crashes leave what the backends have.
    pub fn on(tables: impl StorageBackend, log: impl StorageBackend) -> Result<Self, JournalError> {
        log::prepare(&log).map_err(failed)?;
        Self::of(Tables::on(tables)?, Box::new(log))
    }

    fn of(tables: Tables, medium: Box<dyn StorageBackend>) -> Result<Self, JournalError> {
        let known = tables.applied()?;
        let (log, found) = if let Some((applied, true)) = known {
            tracing::warn!(
                "an earlier version wrote the journal since; what its log had kept for the tables is older, and left out"
            );
            let log = Log::wiped(medium, applied + 1)?;
            (log, vec![(applied + 1, Arc::new(Commit::default()))])
        } else {
            let (log, found) = Log::open(medium, known.map_or(0, |(applied, _)| applied))?;
            if known.is_none() {
                if !found.is_empty() {
                    let why = "the journal's log has commits, and its tables know of no log";
                    return Err(JournalError::Apart(why.into()));
                }
                // Before the first commit: else an earlier version could write without leaving a trace.
                tables.begin_log()?;
            }
            let parsed = |(number, bytes): (u64, Vec<u8>)| {
                let damaged = |_| JournalError::Damaged(format!("commit {number}"));
                Ok((number, Arc::new(postcard::from_bytes(&bytes).map_err(damaged)?)))
            };
            (log, found.into_iter().map(parsed).collect::<Result<Vec<_>, JournalError>>()?)
        };
        tables.apply(&found)?;
        let mut state = State { log, pending: VecDeque::new() };
        state.log.restart();
        Ok(Self { tables, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes things durable together, or none of them.
    pub fn commit(&self, commit: Commit) -> Result<(), JournalError> {
        let bytes = postcard::to_stdvec(&commit).map_err(failed)?;
        let mut state = self.state();
        if state.log.takes(&bytes) {
            let number = state.log.append(&bytes)?;
            state.pending.push_back((number, Arc::new(commit)));
            return Ok(());
        }
        // What has no room in the log goes into the tables, behind all that came before it.
        let number = state.log.next()?;
        let mut batch = state.batch();
        batch.push((number, Arc::new(commit)));
        if let Err(error) = self.tables.apply(&batch) {
            // It may have become durable all the same: its number must not be given again.
            state.log.fail(&error.to_string());
            return Err(error);
        }
        state.log.skip();
        state.settled(number);
        Ok(())
    }

    /// Moves what the log has into the tables. Commits go on meanwhile.
    pub fn settle(&self) -> Result<(), JournalError> {
        let batch = self.state().batch();
        let Some((last, _)) = batch.last() else { return Ok(()) };
        self.tables.apply(&batch)?;
        let mut state = self.state();
        state.settled(*last);
        // Where they never pause, they do for the rest once in a while: the log has an end.
        if state.log.is_half_full()
            && let rest = state.batch()
            && let Some((last, _)) = rest.last()
        {
            self.tables.apply(&rest)?;
            state.settled(*last);
        }
        Ok(())
    }

    /// Whether everything is in the tables.
    pub fn is_settled(&self) -> bool {
        self.state().pending.is_empty()
    }

    /// The record of a plan.
    pub fn get(&self, id: &PlanId) -> Result<Option<Kept>, JournalError> {
        // The tables may have the first of what is pending, but nothing behind it: put over them in its order, it is
        // as if they had all of it.
        let state = self.state();
        let mut kept = self.tables.get(id)?;
        for (_, commit) in &state.pending {
            for (_, record, _) in commit.plans.iter().filter(|(of, _, _)| of == id) {
                kept = Some(Kept { record: record.clone(), steps: Vec::new() });
            }
            for (_, place, step) in commit.steps.iter().filter(|(of, _, _)| of == id) {
                let Some(kept) = &mut kept else { continue };
                match kept.steps.binary_search_by_key(place, |(place, _)| *place) {
                    Ok(at) => kept.steps[at].1.clone_from(step),
                    Err(at) => kept.steps.insert(at, (*place, step.clone())),
                }
            }
        }
        Ok(kept)
    }

    /// What an idempotency key is bound to.
    pub fn key(&self, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let state = self.state();
        let keys = state.pending.iter().rev().filter_map(|(_, commit)| commit.key.as_ref());
        match keys.into_iter().find(|(of, _)| of == key) {
            Some((_, value)) => Ok(Some(value.clone())),
            None => self.tables.key(key),
        }
    }

    /// A single thing by its name.
    pub fn thing(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        self.settle()?;
        self.tables.thing(name)
    }

    /// The records of plans that have not ended.
    pub fn open_plans(&self) -> Result<Vec<Kept>, JournalError> {
        self.settle()?;
        self.tables.open_plans()
    }

    /// The latest plans before one, newest first: ids grow with time.
    pub fn latest(&self, count: usize, before: Option<&PlanId>) -> Result<Vec<Kept>, JournalError> {
        self.settle()?;
        self.tables.latest(count, before)
    }

    /// Every lock by its outlet.
    pub fn locks(&self) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        self.settle()?;
        self.tables.locks()
    }

    /// Lines of the audit after one, oldest first.
    pub fn audit(&self, after: u64, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.settle()?;
        self.tables.audit(after, count)
    }

    /// The audit's last line.
    pub fn audit_head(&self) -> Result<Head, JournalError> {
        self.settle()?;
        self.tables.audit_head()
    }

    /// Checks the whole chain; tells how many lines it has, or where it is broken.
    pub fn verify_audit(&self) -> Result<Result<u64, Broken>, JournalError> {
        self.settle()?;
        self.tables.verify_audit()
    }

    /// Forgets the oldest plans beyond those kept, the oldest lines of the audit, and idempotency keys that `is_old`
    /// says are.
    pub fn forget(&self, is_old: impl Fn(&[u8]) -> bool) -> Result<(), JournalError> {
        self.settle()?;
        self.tables.forget(is_old)
    }
}
