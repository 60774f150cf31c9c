//! What a plan is made for: limits with their loads, outlets with what they will draw, hosts with their order.
//!
//! Powers are apparent powers in mVA: breakers and feeds are rated in amperes, and a watt never weighs less.

use std::collections::BTreeSet;

use crate::model::id::{HostId, OutletId};
use crate::model::switching::Relay;

/// A limit: a breaker, a phase, an inlet, a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name: `pdu-a/B1`, `feed-a`.
    pub name: String,
    /// What may flow for long, mVA: the rating less its derating.
    pub budget: i64,
    /// What may flow in the first moment of a load, inrush included, mVA: the budget, unless the site allows more.
    pub peak: i64,
    /// What flows now, mVA; the unknown counted as worst.
    pub load: i64,
    /// What may flow beside it just now, in first moments of what was switched on, mVA.
    pub surge: i64,
    /// For how long yet, ms.
    pub surge_ms: u64,
}

impl Limit {
    /// A limit without any load, whose first moments may take no more than what flows for long.
    pub fn of(name: impl Into<String>, budget: i64) -> Self {
        Self { name: name.into(), budget, peak: budget, load: 0, surge: 0, surge_ms: 0 }
    }

    /// Adds the first moment of something that was, or may be, switched on.
    pub fn surges(&mut self, by: i64, for_ms: u64) {
        if by > 0 {
            self.surge += by;
            self.surge_ms = self.surge_ms.max(for_ms);
        }
    }
}

/// A limit above an outlet, and how much of what the outlet draws flows through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// The limit, by place.
    pub limit: usize,
    /// Thousandths: 1000 of all limits, but of one line where the outlet is between two (577) or on three (333).
    pub permille: i64,
}

impl Share {
    /// All of it.
    pub fn whole(limit: usize) -> Self {
        Self { limit, permille: 1_000 }
    }

    /// The part of an apparent power that flows through the limit, rounded up.
    pub fn of(self, mva: i64) -> i64 {
        (mva.saturating_mul(self.permille) + 999).div_euclid(1_000)
    }
}

/// What an outlet draws once it is switched on, mVA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// In the first moment.
    pub inrush: i64,
    /// How long that lasts, ms.
    pub inrush_ms: u64,
    /// While its load starts up.
    pub boot: i64,
    /// How long that lasts after the inrush, ms.
    pub boot_ms: u64,
    /// From then on.
    pub steady: i64,
}

impl Draw {
    /// The same, never rising again once it has begun: a lull before a peak is not counted on.
    #[must_use]
    pub fn falling(self) -> Self {
        let boot = self.boot.max(self.steady);
        Self { boot, inrush: self.inrush.max(boot), ..self }
    }

    /// How long it takes until it draws no more than ever after, ms.
    pub fn settles_ms(&self) -> u64 {
        self.inrush_ms + self.boot_ms
    }
}

/// What an outlet's relay does, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relays {
    /// Closed.
    On,
    /// Open.
    Off,
    /// Not known: counts as on for load, as off for redundancy.
    Unknown,
}

impl Relays {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Relays::On => "on",
            Relays::Off => "off",
            Relays::Unknown => "unknown",
        }
    }
}

/// An outlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// Its name.
    pub id: OutletId,
    /// Its device, by place: a device does one step at a time.
    pub device: usize,
    /// The limits above it, each once.
    pub over: Vec<Share>,
    /// Those of them, by place, that it is perhaps not below: nobody knows which of several it is. An on counts on each,
    /// an off frees none.
    pub unsure: Vec<usize>,
    /// Its relay.
    pub relay: Relays,
    /// What it draws now, mVA; freed by an off.
    pub load: i64,
    /// What it will draw.
    pub draw: Draw,
    /// How long it has to be off before it is switched on, ms.
    pub min_off_ms: u64,
    /// How long it has been off, ms; nothing if it is on or nobody knows.
    pub off_for_ms: Option<u64>,
    /// The host that it feeds, by place.
    pub host: Option<usize>,
}

impl Outlet {
    /// Its share of a limit, if it is below it.
    pub fn share(&self, limit: usize) -> Option<Share> {
        self.over.iter().copied().find(|share| share.limit == limit)
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub id: HostId,
    /// Higher ones are switched on first and off last.
    pub priority: i32,
    /// Hosts that have to be up before it, by place.
    pub after: Vec<usize>,
    /// Pause between its feeds, ms.
    pub feed_gap_ms: u64,
    /// Pause between the last off and the first on of a cycle, ms.
    pub hold_ms: u64,
    /// How many of its feeds stay on while it is not to go dark.
    pub min_feeds: usize,
}

/// The picture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct World {
    /// Limits.
    pub limits: Vec<Limit>,
    /// Outlets.
    pub outlets: Vec<Outlet>,
    /// Hosts.
    pub hosts: Vec<Host>,
    /// Pause between the off and the on of an outlet without a host, ms.
    pub hold_ms: u64,
    /// Whether hosts go strictly by their priority, or in whatever order is fastest.
    pub by_priority: bool,
    /// Outlets, by place, that go on before all others where hosts go by their priority.
    pub first: BTreeSet<usize>,
    /// How many orders are tried at most where none of the usual ones comes near the bound.
    pub tries: usize,
    /// How long a step keeps its device, ms: command, verification, pause. By device.
    pub step_ms: Vec<u64>,
}

/// What is wished of an outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// On.
    On,
    /// Off.
    Off,
    /// Off, hold, on.
    Cycle,
}

impl Want {
    /// Whether it needs a step to this state.
    pub fn needs(self, relay: Relay) -> bool {
        match self {
            Want::On => relay == Relay::On,
            Want::Off => relay == Relay::Off,
            Want::Cycle => true,
        }
    }
}

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The outlet, by place.
    pub outlet: usize,
    /// What is wished.
    pub want: Want,
    /// Whether the host behind it is to go dark with it. If not, the host keeps a feed at every instant.
    pub drops_host: bool,
    /// Why, for the step.
    pub why: String,
}
