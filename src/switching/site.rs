//! What the configuration says about switching: the rack as plans see it, who may do what, what needs a second one.

use std::collections::BTreeSet;
use std::ops::Deref;

use crate::access::Policy;
use crate::model::id::{HostId, OutletId};
use crate::model::switching::Action;
use crate::plan::lit::Restore;
use crate::plan::record::Record;
use crate::plan::shed::Rule;

use super::hooks::Hooks;

/// When a plan needs somebody else's approval before it is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Approvals {
    /// How many others have to agree; none, if it is 0.
    pub count: u32,
    /// It is asked for plans of at least so many outlets; nothing for no such rule.
    pub from_outlets: Option<usize>,
    /// It is asked for these actions only; for all, if there are none.
    pub actions: Vec<Action>,
    /// It is asked for whatever switches one of these hosts off.
    pub hosts: BTreeSet<HostId>,
    /// It is asked for whatever goes over locks.
    pub over_locks: bool,
}

impl Approvals {
    /// How many have to agree to a plan.
    pub fn needed(&self, record: &Record, site: &Site) -> u32 {
        let of_action = |action: &Action| self.actions.is_empty() || self.actions.contains(action);
        let asked = record.asks.iter().any(|(.., action)| of_action(action));
        let many = self.from_outlets.is_some_and(|count| record.outlets().len() >= count);
        let goes_off = |outlet: &OutletId| {
            let off = crate::model::switching::Relay::Off;
            record.steps.iter().any(|step| step.outlet == *outlet && step.relay == off)
        };
        let of_host = self.hosts.iter().filter_map(|id| site.hosts.get(id));
        let cuts = of_host.into_iter().any(|host| host.outlets.iter().any(goes_off));
        let locked = self.over_locks && !record.over_locks.is_empty();
        if asked && many || cuts || locked { self.count } else { 0 }
    }
}

/// What the configuration says about switching.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Site {
    /// The rack.
    pub rack: crate::plan::Site,
    /// Who may do what.
    pub policy: Policy,
    /// Serial numbers of revoked client certificates, hexadecimal.
    pub revoked: BTreeSet<String>,
    /// What needs approval.
    pub approvals: Approvals,
    /// Webhooks of hosts.
    pub hooks: Hooks,
    /// Rules by which load is shed.
    pub sheds: Vec<Rule>,
    /// How the rack comes back after an outage; nothing if it is left as it is.
    pub restore: Option<Restore>,
}

impl Deref for Site {
    type Target = crate::plan::Site;

    fn deref(&self) -> &Self::Target {
        &self.rack
    }
}
