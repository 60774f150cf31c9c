//! The latest of one PDU, as everything that reads sees it. A new one replaces it after every poll.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::id::{DriverId, PduId};
use super::metric::{Metric, Scope, Word};
use super::reading::{Datum, Gap, Quality, Reading};
use super::switching::PowerOn;
use super::time::{Stamp, Tick};
use super::topology::{Identity, Layout, Part, Slot};

/// How a PDU is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last poll was answered.
    Online,
    /// Polls fail, the last good one is recent.
    Stale(String),
    /// Nothing has come for long, or never.
    Offline(String),
}

impl Health {
    /// The word in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Health::Online => "online",
            Health::Stale(_) => "stale",
            Health::Offline(_) => "offline",
        }
    }

    /// Why it is not online.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Health::Online => None,
            Health::Stale(reason) | Health::Offline(reason) => Some(reason),
        }
    }
}

/// The latest of one PDU.
#[derive(Debug, Clone)]
pub struct PduView {
    /// As configured.
    pub id: PduId,
    /// As configured, or as the device says.
    pub name: Arc<str>,
    /// Where it stands, as configured.
    pub location: Option<Arc<str>>,
    /// The driver in use, once it is known.
    pub driver: Option<DriverId>,
    /// Who the device says it is.
    pub identity: Arc<Identity>,
    /// Its parts and slots.
    pub layout: Arc<Layout>,
    /// A reading for every slot of the layout.
    pub readings: Arc<[Reading]>,
    /// How it is doing.
    pub health: Health,
    /// Why nothing on it may be switched, if so.
    pub read_only: Option<Arc<str>>,
    /// When the last good poll began, by the wall clock.
    pub observed_at: Option<Stamp>,
    /// The same by the monotonic clock: what freshness is judged by.
    pub observed: Option<Tick>,
    /// When the last good poll of everything began.
    pub complete: Option<Tick>,
    /// How many polls have failed so far.
    pub failed_polls: u64,
    /// The device has failed so often that only the schedule's own attempts go out.
    pub breaker_open: bool,
    /// What its outlets do when its power comes back, by their numbers; of those of which that was read.
    pub startups: Arc<BTreeMap<u16, PowerOn>>,
    /// Counts the changes of this view.
    pub version: u64,
}

impl PduView {
    /// Before anything is known.
    pub fn unknown(id: PduId, name: Arc<str>, location: Option<Arc<str>>) -> Self {
        Self {
            id,
            name,
            location,
            driver: None,
            identity: Arc::default(),
            layout: Arc::default(),
            readings: Arc::from([]),
            health: Health::Offline("not polled yet".into()),
            read_only: None,
            observed_at: None,
            observed: None,
            complete: None,
            failed_polls: 0,
            breaker_open: false,
            startups: Arc::default(),
            version: 0,
        }
    }

    /// The reading of a slot.
    pub fn reading(&self, scope: Scope, part: u16, metric: Metric) -> Option<Reading> {
        let place = self.layout.place(Slot { scope, part, metric })?;
        self.readings.get(place).copied()
    }

    /// The reading of a slot as it may be shown now: of a PDU that is offline nothing is known.
    pub fn shown(&self, scope: Scope, part: u16, metric: Metric) -> Option<Datum> {
        let datum = self.reading(scope, part, metric)?.datum;
        let is_lasting = !metric.is_series() || datum == Datum::Gap(Gap::Unsupported);
        let is_known = is_lasting || !matches!(self.health, Health::Offline(_));
        Some(if is_known { datum } else { Datum::Gap(Gap::Offline) })
    }

    /// What an outlet's relay does, as far as is known *now*: of a PDU that is not online it is
    /// unknown, and while a delayed command waits it is pending.
    pub fn outlet_state(&self, part: u16) -> Result<Word, Gap> {
        if self.health != Health::Online {
            return Err(Gap::Offline);
        }
        let pending = self.reading(Scope::Outlet, part, Metric::Pending);
        let state = self.reading(Scope::Outlet, part, Metric::State);
        match (state.map(|r| r.datum), pending.map(|r| r.datum)) {
            (Some(Datum::Word(_)), Some(Datum::Word(Word::Yes))) => Ok(Word::Pending),
            (Some(Datum::Word(word)), _) => Ok(word),
            (Some(Datum::Gap(gap)), _) => Err(gap),
            _ => Err(Gap::Unsupported),
        }
    }

    /// The outlets with their places.
    pub fn outlets(&self) -> impl Iterator<Item = (u16, &Part)> {
        (0u16..).zip(self.layout.parts(Scope::Outlet))
    }

    /// How much of what should be there is there.
    pub fn quality(&self) -> Quality {
        if matches!(self.health, Health::Offline(_)) {
            return Quality::Bad;
        }
        Quality::of(self.readings.iter().map(|reading| reading.datum))
    }
}
