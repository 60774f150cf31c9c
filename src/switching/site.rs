//! What the configuration says about switching: hosts and their feeds, locks, pauses, policy.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::Policy;
use crate::model::id::{HostId, OutletId};
use crate::model::time::Span;

/// A host (load) and its feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name.
    pub name: String,
    /// The outlets that feed it.
    pub outlets: Vec<OutletId>,
    /// How long a cycle keeps it off.
    pub hold: Option<Span>,
}

/// What the configuration says about switching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Hosts.
    pub hosts: BTreeMap<HostId, HostSpec>,
    /// Outlets that are never switched, with the reason.
    pub locked: BTreeMap<OutletId, String>,
    /// How long a cycle keeps an outlet off.
    pub hold: Span,
    /// How old the state of an outlet may be when it is switched.
    pub fresh: Span,
    /// Whether a plan that a crash interrupted goes on with steps that had not begun.
    pub resume: bool,
    /// Who may do what.
    pub policy: Policy,
    /// Serial numbers of revoked client certificates, hexadecimal.
    pub revoked: BTreeSet<String>,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            locked: BTreeMap::new(),
            hold: Span::seconds(5),
            fresh: Span::seconds(30),
            resume: true,
            policy: Policy::default(),
            revoked: BTreeSet::new(),
        }
    }
}

impl crate::wire::pdu::Site for Site {
    fn host_of(&self, outlet: &OutletId) -> Option<String> {
        let feeds = |(_, host): &(&HostId, &HostSpec)| host.outlets.contains(outlet);
        self.hosts.iter().find(feeds).map(|(id, _)| id.to_string())
    }

    fn locked(&self, outlet: &OutletId) -> Option<String> {
        self.locked.get(outlet).cloned()
    }
}
