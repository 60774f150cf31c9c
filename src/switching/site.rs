//! What the configuration says about switching: hosts and their feeds, locks, pauses, policy.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::Policy;
use crate::model::id::{HostId, OutletId, PduId};
use crate::model::time::Span;
use crate::plan::world::Draw;

/// A host (load) and its feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name.
    pub name: String,
    /// The outlets that feed it.
    pub outlets: Vec<OutletId>,
    /// How long a cycle keeps it off.
    pub hold: Option<Span>,
    /// Higher ones are switched on first and off last.
    pub priority: i32,
    /// Hosts that have to be up before it.
    pub after: Vec<HostId>,
    /// How long its outlets have to be off before they are switched on.
    pub min_off: Span,
    /// What it draws, if the site says so: each of its feeds may have to carry it alone.
    pub draw: Option<Draw>,
}

/// What a configured limit stands above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// All of a PDU.
    Pdu(PduId),
    /// A branch or phase of a PDU, by its name.
    Part(PduId, String),
    /// An outlet.
    Outlet(OutletId),
}

/// A limit that the site configures: a feed, a busway, a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Rated, mVA.
    pub rating: i64,
    /// Of the rating, percent; nothing for the site's own.
    pub derating: Option<i64>,
    /// What it stands above.
    pub of: Vec<Member>,
    /// The other feed that it stands in for when that dies.
    pub pair: Option<String>,
}

/// What the configuration says about switching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Hosts.
    pub hosts: BTreeMap<HostId, HostSpec>,
    /// Outlets that are never switched, with the reason.
    pub locked: BTreeMap<OutletId, String>,
    /// Limits above the PDUs.
    pub feeds: BTreeMap<String, Feed>,
    /// How much of a rating may be used, percent.
    pub derating: i64,
    /// Volts where no device tells them.
    pub volts: i64,
    /// What an outlet is reckoned to draw whose host says nothing.
    pub default_draw: Draw,
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
            feeds: BTreeMap::new(),
            derating: 80,
            volts: 230,
            default_draw: Draw {
                inrush: 800_000,
                inrush_ms: 100,
                boot: 500_000,
                boot_ms: 30_000,
                steady: 400_000,
            },
            hold: Span::seconds(5),
            fresh: Span::seconds(30),
            resume: true,
            policy: Policy::default(),
            revoked: BTreeSet::new(),
        }
    }
}

impl Site {
    /// How long an outlet has to be off before it is switched on.
    pub fn min_off(&self, outlet: &OutletId) -> Span {
        let host = self.hosts.values().find(|host| host.outlets.contains(outlet));
        host.map_or(Span(0), |host| host.min_off)
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
