//! Whether an outlet may be switched now: known, unlocked, switchable, seen a moment ago.

use std::collections::BTreeMap;

use crate::model::id::OutletId;
use crate::model::metric::{Scope, Word};
use crate::model::reading::Gap;
use crate::model::switching::Known;
use crate::model::view::Health;

use super::picture::Sight;

/// Why an outlet is not switched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hindrance {
    /// There is no such thing.
    #[error("there is no {0}")]
    Unknown(String),
    /// The outlet is locked.
    #[error("outlet {outlet} is locked: {reason}")]
    Locked {
        /// The outlet.
        outlet: String,
        /// Why.
        reason: String,
    },
    /// The PDU or its driver does not switch it.
    #[error("outlet {outlet} cannot be switched: {reason}")]
    NotSwitchable {
        /// The outlet.
        outlet: String,
        /// Why.
        reason: String,
    },
    /// Its state is stale or unknown.
    #[error("outlet {outlet} is not switched, since its state is not known for certain: {reason}")]
    Doubtful {
        /// The outlet.
        outlet: String,
        /// What is stale or unknown.
        reason: String,
    },
}

/// What the guard says.
#[derive(Debug, Clone)]
pub enum Guarded {
    /// It may be switched, on what is known.
    Known(Known, Word),
    /// What is known has aged: it is to be looked at.
    Aged(Known),
    /// It may not.
    Not(Hindrance),
}

/// Why an outlet is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locked<'s> {
    /// Why.
    pub reason: &'s str,
    /// Whether an admin may lift it for one plan.
    pub liftable: bool,
}

impl Sight<'_> {
    /// Why an outlet is locked, if it is: for ever by the configuration, while the gateway runs, or as critical.
    pub fn lock_of(&self, outlet: &OutletId) -> Option<Locked<'_>> {
        let never = self.site.locked.get(outlet).map(|reason| (reason, false));
        let now = || self.locks.get(outlet).map(|reason| (reason, true));
        let critical = || self.site.critical.get(outlet).map(|reason| (reason, true));
        let (reason, liftable) = never.or_else(now).or_else(critical)?;
        Some(Locked { reason, liftable })
    }

    /// Whether an outlet may be switched. `lifted` are locks that an admin lifted for this plan, with the reasons that
    /// they had: one that was locked for another reason since stays locked.
    pub fn guard(&self, outlet: &OutletId, lifted: &BTreeMap<OutletId, String>) -> Guarded {
        let Some(view) = self.view(&outlet.pdu) else {
            return Guarded::Not(Hindrance::Unknown(format!("PDU {}", outlet.pdu)));
        };
        let not = |hindrance: fn(String, String) -> Hindrance, reason: &str| {
            Guarded::Not(hindrance(outlet.to_string(), reason.to_owned()))
        };
        if let Some(lock) = self.lock_of(outlet) {
            let is_lifted = lifted.get(outlet).is_some_and(|reason| reason == lock.reason);
            if !(lock.liftable && is_lifted) {
                return not(|outlet, reason| Hindrance::Locked { outlet, reason }, lock.reason);
            }
        }
        let outlets = view.layout.parts(Scope::Outlet);
        if let (Health::Offline(reason), true) = (&view.health, outlets.is_empty()) {
            let reason = format!("PDU {} is offline: {reason}", outlet.pdu);
            return Guarded::Not(doubtful(outlet, reason));
        }
        let Some(at) = view.layout.outlet(outlet.number) else {
            return Guarded::Not(Hindrance::Unknown(format!("outlet {outlet}")));
        };
        let not_switchable = |outlet, reason| Hindrance::NotSwitchable { outlet, reason };
        if let Some(reason) = view.read_only.as_deref() {
            return not(not_switchable, reason);
        }
        if !outlets[usize::from(at)].switchable {
            return not(not_switchable, "the PDU or its driver does not switch it");
        }
        let known = Known { layout: view.layout.clone(), fresh: self.site.fresh };
        let age = view.observed.map(|observed| self.now - observed);
        let fresh = view.health == Health::Online && age.is_some_and(|age| age <= self.site.fresh);
        if !fresh {
            return Guarded::Aged(known);
        }
        match certain(outlet, view.outlet_state(at)) {
            Ok(word) => Guarded::Known(known, word),
            Err(hindrance) => Guarded::Not(hindrance),
        }
    }
}

/// A state that is on or off, or why it is not certain.
pub fn certain(outlet: &OutletId, state: Result<Word, Gap>) -> Result<Word, Hindrance> {
    match state {
        Ok(word @ (Word::On | Word::Off)) => Ok(word),
        Ok(Word::Pending) => {
            Err(doubtful(outlet, "a delayed command is pending in the PDU".into()))
        }
        Ok(_) | Err(Gap::UnknownState) => {
            Err(doubtful(outlet, "the PDU tells a state that its driver does not know".into()))
        }
        Err(gap) => Err(doubtful(outlet, format!("its state could not be read ({gap})"))),
    }
}

/// An outlet that is not known for certain.
pub fn doubtful(outlet: &OutletId, reason: String) -> Hindrance {
    Hindrance::Doubtful { outlet: outlet.to_string(), reason }
}
