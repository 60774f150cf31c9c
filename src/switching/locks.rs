//! Locks that are set while the gateway runs: by an admin, or by the gateway itself when an outlet is not what it was
//! taken for. They outlive restarts, and only an admin lifts them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::Identity;
use crate::model::event::About;
use crate::model::id::OutletId;
use crate::model::metric::{Scope, Word};
use crate::plan::guard::{Guarded, Hindrance, certain, doubtful};
use crate::store::journal::{Commit, Journal, JournalError};

use super::conduct::draft;
use super::refusal::Refusal;
use super::site::Site;
use super::submit::Switching;

/// Why an outlet is locked, by whom, since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Why.
    pub reason: String,
    /// Who locked it.
    pub by: String,
    /// Since when, ms since 1970.
    pub at: i64,
}

/// Locked outlets.
pub type Locks = BTreeMap<OutletId, Lock>;

/// The locks that an earlier run left.
pub(super) fn load(journal: &Journal) -> Result<Locks, JournalError> {
    let damaged = |name: &str| JournalError::Damaged(format!("the lock of {name}"));
    let entries = journal.locks()?.into_iter().map(|(name, bytes)| {
        let outlet = name.parse().map_err(|_| damaged(&name))?;
        let lock = serde_json::from_slice(&bytes).map_err(|_| damaged(&name))?;
        Ok((outlet, lock))
    });
    entries.collect()
}

/// What the configuration and the locks say together.
pub struct Standing {
    site: Arc<Site>,
    locks: Arc<Locks>,
}

impl crate::wire::pdu::Site for Standing {
    fn host_of(&self, outlet: &OutletId) -> Option<String> {
        self.site.host_of(outlet).map(|(id, _)| id.to_string())
    }

    fn locked(&self, outlet: &OutletId) -> Option<String> {
        let lock = self.locks.get(outlet).map(|lock| lock.reason.clone());
        let never = self.site.locked.get(outlet).cloned();
        never.or(lock).or_else(|| self.site.critical.get(outlet).cloned())
    }
}

impl Switching {
    /// Whether an outlet may be switched now: known, unlocked, switchable, seen a moment ago. It is looked at if what is
    /// known has aged.
    pub(super) async fn check(&self, outlet: &OutletId) -> Result<(), Refusal> {
        self.check_with(outlet, &BTreeMap::new()).await
    }

    /// The same, with locks lifted.
    pub(super) async fn check_with(
        &self,
        outlet: &OutletId,
        lifted: &BTreeMap<OutletId, String>,
    ) -> Result<(), Refusal> {
        match self.with_runs(|_, sight| sight.guard(outlet, lifted)) {
            Guarded::Known(_, word) => {
                if word == Word::Off {
                    self.until_recalled(outlet).await;
                }
                Ok(())
            }
            Guarded::Not(hindrance) => Err(hindrance.into()),
            Guarded::Aged(_) => {
                let looked = self.look(outlet, false).await;
                let seen = looked.map_err(|error| {
                    doubtful(outlet, format!("the last reading is too old, and now {error}"))
                })?;
                certain(outlet, seen.state)?;
                Ok(())
            }
        }
    }

    /// The configuration and the locks as they are now.
    pub fn standing(&self) -> Standing {
        Standing { site: self.site.borrow().clone(), locks: self.locks.borrow().clone() }
    }

    /// Locks an outlet, at an admin's wish.
    pub async fn lock_for(
        &self,
        who: &Identity,
        outlet: &OutletId,
        reason: &str,
    ) -> Result<(), Refusal> {
        self.must_exist(outlet)?;
        let text = format!("{outlet} was locked by {who}: {reason}");
        let lock = Some(self.new_lock(reason, &who.to_string()));
        self.puts_lock("outlet.locked", who, outlet, lock, text).await
    }

    /// Lifts a lock, at an admin's wish. What the configuration locks stays locked.
    pub async fn unlock_for(&self, who: &Identity, outlet: &OutletId) -> Result<(), Refusal> {
        self.must_exist(outlet)?;
        let site = self.site.borrow().clone();
        let own = self.locks.borrow().contains_key(outlet);
        let configured = site.locked.get(outlet).or(site.critical.get(outlet).filter(|_| !own));
        if let Some(reason) = configured {
            return Err(
                Hindrance::Locked { outlet: outlet.to_string(), reason: reason.clone() }.into()
            );
        }
        let text = format!("the lock of {outlet} was lifted by {who}");
        self.puts_lock("outlet.unlocked", who, outlet, None, text).await
    }

    /// In a task of its own: a client that hangs up leaves no lock that is durable and does not hold, or the other way.
    async fn puts_lock(
        &self,
        kind: &'static str,
        who: &Identity,
        outlet: &OutletId,
        lock: Option<Lock>,
        text: String,
    ) -> Result<(), Refusal> {
        let (this, by, outlet) = (self.clone(), who.to_string(), outlet.clone());
        let task = self.tasks.spawn(async move {
            this.put_lock(&outlet, lock, (kind, &by, &text)).await?;
            this.events.tell(kind, About::outlet(&outlet), text);
            Ok(())
        });
        task.await.unwrap_or(Err(Refusal::Ending))
    }

    /// Locks an outlet at once, whether the journal takes it or not.
    pub(super) async fn lock(&self, outlet: &OutletId, reason: &str, by: &str) {
        let note = ("outlet.locked", by, reason);
        if let Err(error) = self.put_lock(outlet, Some(self.new_lock(reason, by)), note).await {
            tracing::error!(%outlet, %error, "the lock of {outlet} does not outlive a restart");
        }
    }

    fn new_lock(&self, reason: &str, by: &str) -> Lock {
        Lock { reason: reason.to_owned(), by: by.to_owned(), at: self.clock.stamp().0 }
    }

    fn must_exist(&self, outlet: &OutletId) -> Result<(), Refusal> {
        let handle = self.fleet.get(&outlet.pdu);
        let handle = handle.ok_or_else(|| Refusal::unknown(format!("PDU {}", outlet.pdu)))?;
        let view = handle.view();
        let adopted = !view.layout.parts(Scope::Outlet).is_empty();
        // Of a PDU that was never reached nobody knows which outlets it has.
        if adopted && view.layout.outlet(outlet.number).is_none() {
            return Err(Refusal::unknown(format!("outlet {outlet}")));
        }
        Ok(())
    }

    async fn put_lock(
        &self,
        outlet: &OutletId,
        lock: Option<Lock>,
        (kind, by, text): (&str, &str, &str),
    ) -> Result<(), JournalError> {
        let _turn = self.locking.lock().await;
        // Locking takes effect before it is durable, lifting only after.
        if lock.is_some() {
            self.change_locks(outlet, lock.clone());
        }
        let bytes = lock.as_ref().map(super::submit::to_json).transpose()?;
        let about = About::outlet(outlet);
        let notes = vec![draft(self.clock.stamp().0, kind, by, &about, text.to_owned())];
        let lock_of = Some((outlet.to_string(), bytes));
        let commit = Commit { lock: lock_of, notes, ..Commit::default() };
        self.in_journal(move |journal| journal.commit(commit)).await?;
        if lock.is_none() {
            self.change_locks(outlet, None);
        }
        Ok(())
    }

    fn change_locks(&self, outlet: &OutletId, lock: Option<Lock>) {
        self.locks.send_modify(|locks| {
            let locks = Arc::make_mut(locks);
            match lock {
                Some(lock) => locks.insert(outlet.clone(), lock),
                None => locks.remove(outlet),
            };
        });
    }
}
