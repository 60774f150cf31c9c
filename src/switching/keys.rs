//! Idempotency keys: a request that comes again with its key is answered with the plan that it made, and makes no other.
//! One request with a key at a time; which plan it made is durable in the commit that makes it.

use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::access::{Identity, Role};
use crate::model::id::{HostId, PlanId};
use crate::store::journal::JournalError;

use super::plans::{Line, Preview, Wish};
use super::refusal::Refusal;
use super::submit::{Request, Switching, Target};

/// How long idempotency keys are remembered, ms: a week.
const KEYS_KEPT_MS: i64 = 7 * 86_400_000;

/// With so many turns those that are over are forgotten.
const TURNS: usize = 256;

/// What an idempotency key is bound to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bound {
    pub plan: PlanId,
    /// What was asked for with it.
    pub asked: String,
    pub at: i64,
    /// What a plan that was made and not run was answered with, beside itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreseen: Option<Foreseen>,
}

/// What a plan will do to the limits and the hosts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Foreseen {
    pub timeline: Vec<Line>,
    pub loses_redundancy: Vec<HostId>,
    pub goes_dark: Vec<HostId>,
}

impl Foreseen {
    pub fn of(preview: &Preview) -> Self {
        Self {
            timeline: preview.timeline.clone(),
            loses_redundancy: preview.loses_redundancy.clone(),
            goes_dark: preview.goes_dark.clone(),
        }
    }
}

/// Keys of different clients are different keys.
pub(super) fn scoped(who: &Identity, key: &str) -> String {
    format!("{}/{}/{}:{key}", who.domain, Role::word(who.role), who.name)
}

/// What is asked for with a key.
pub(super) fn asked(request: &Request) -> String {
    let group = if matches!(request.target, Target::Group(_)) { "group " } else { "" };
    format!("{} {group}{} {}", request.action.word(), request.target, request.reason)
}

/// The same of a plan: as a digest, since a wish may name thousands of outlets. No action is called "plan".
pub(super) fn asked_of(wish: &Wish) -> String {
    let Wish { who: _, goals, reason, on_failure, on_overload, not_before, .. } = wish;
    let Wish { calendar, over_locks, by_priority, .. } = wish;
    let mut hash = Sha256::new();
    hash.update(format!("{goals:?}\n{reason:?}\n{on_failure:?} {on_overload:?} {not_before:?}\n"));
    hash.update(format!("{calendar:?} {over_locks} {by_priority}\n"));
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("plan {digest}")
}

impl Switching {
    /// The turn of those who would use a key, or run or cancel a plan.
    pub(super) fn turn_of(&self, what: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= TURNS {
            // Nobody is at these, nor waits for them.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry(what.to_owned()).or_default().clone()
    }

    /// Does something for a key while nobody else does.
    pub(super) async fn in_turn<T>(&self, key: &str, work: impl Future<Output = T>) -> T {
        let turn = self.turn_of(key);
        let guard = turn.lock().await;
        let result = work.await;
        drop(guard);
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else waits for this turn: forget it.
        if turns.get(key).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
            turns.remove(key);
        }
        result
    }

    /// What a key was used for before, which must be what is asked for now.
    pub(super) async fn bound(&self, key: &str, asked: &str) -> Result<Option<Bound>, Refusal> {
        let key = key.to_owned();
        let Some(bytes) = self.in_journal(move |journal| journal.key(&key)).await? else {
            return Ok(None);
        };
        let damaged = || JournalError::Damaged("an idempotency key".into());
        let bound: Bound = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if bound.asked != asked {
            return Err(Refusal::KeyReused);
        }
        Ok(Some(bound))
    }

    /// Forgets old plans and keys.
    pub async fn forget(&self) -> Result<(), JournalError> {
        let old = self.clock.stamp().0 - KEYS_KEPT_MS;
        let is_old = move |bytes: &[u8]| {
            serde_json::from_slice::<Bound>(bytes).is_ok_and(|bound| bound.at < old)
        };
        self.in_journal(move |journal| journal.forget(is_old)).await
    }
}
