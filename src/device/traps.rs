//! A trap from a known PDU is a reason to look at once, and nothing else: it changes no value by itself. A storm of
//! them costs the device one poll every two seconds.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::link::trap::{Receiver, Trap, UNREADABLE};
use crate::model::event::About;
use crate::model::id::PduId;
use crate::model::time::{Span, Tick};

use super::fleet::Fleet;

/// The least time between two looks for the sake of traps.
const PAUSE: Span = Span::seconds(2);
/// How long the addresses of the PDUs are taken for what they were.
const ADDRESSES_KEPT: Span = Span::seconds(5);
/// How long a name may take to resolve.
const RESOLVE: Span = Span::seconds(2);

/// The least time between two words in the log on what arrives and is no trap.
const UNREADABLE_TOLD: Span = Span::seconds(60);

/// Traps taken and dropped since the start.
#[derive(Debug, Default)]
pub struct TrapCounts {
    /// From PDUs that are polled.
    pub known: AtomicU64,
    /// From anybody else: dropped.
    pub unknown: AtomicU64,
}

/// Whose informs are acknowledged: those of the addresses where PDUs are polled.
#[derive(Debug, Default)]
pub struct Senders {
    known: RwLock<HashSet<IpAddr>>,
    /// An address was not among them, though it may be by now: names move, and PDUs are added.
    missed: Notify,
    /// What is counted.
    pub counts: TrapCounts,
}

impl Senders {
    /// Whether a PDU is polled there. A stranger is counted; a PDU that is new sends its inform again.
    pub fn knows(&self, from: IpAddr) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).contains(&from);
        if !known {
            self.counts.dropped(from);
            self.missed.notify_one();
        }
        known
    }
}

impl TrapCounts {
    fn dropped(&self, from: IpAddr) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%from, "a trap from {from} was dropped: no PDU is polled there");
    }

    /// What was no trap, or was not proven.
    pub fn unreadable(&self) -> u64 {
        UNREADABLE.count()
    }
}

/// Takes traps until it is stopped.
pub async fn listen(
    receiver: Receiver,
    fleet: Fleet,
    senders: Arc<Senders>,
    stop: CancellationToken,
) {
    let mut listener = Listener {
        fleet,
        senders: senders.clone(),
        unreadable: (None, UNREADABLE.count()),
        addresses: HashMap::new(),
        resolved: None,
        looked: HashMap::new(),
        waiting: Vec::new(),
    };
    listener.resolve().await;
    loop {
        let wake = listener.wake();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wake.duration()) => listener.late(),
            () = senders.missed.notified() => listener.resolve().await,
            () = UNREADABLE.more() => listener.tell_unreadable(),
            trap = receiver.next() => match trap {
                Ok(trap) => listener.took(trap).await,
                Err(error) => {
                    tracing::warn!(%error, "a trap could not be received");
                    tokio::time::sleep(PAUSE.duration()).await;
                }
            },
        }
    }
}

struct Listener {
    fleet: Fleet,
    senders: Arc<Senders>,
    /// When what was no trap was told of last, and how many there had been by then.
    unreadable: (Option<Tick>, u64),
    addresses: HashMap<IpAddr, Vec<PduId>>,
    resolved: Option<Tick>,
    /// When each PDU was looked at last for the sake of a trap.
    looked: HashMap<PduId, Tick>,
    /// PDUs whose last trap came too soon after a look, and when they are due.
    waiting: Vec<(Tick, PduId)>,
}

impl Listener {
    fn now(&self) -> Tick {
        self.fleet.services().clock.tick()
    }

    fn wake(&self) -> Span {
        let told = self.unreadable.0.filter(|_| UNREADABLE.count() > self.unreadable.1);
        let told = told.map(|told| told + UNREADABLE_TOLD);
        let due = self.waiting.iter().map(|(due, _)| *due).chain(told).min();
        due.map_or(Span::seconds(3_600), |due| due - self.now())
    }

    async fn took(&mut self, trap: Trap) {
        self.resolve().await;
        let Some(pdus) = self.addresses.get(&trap.from).cloned() else {
            self.senders.counts.dropped(trap.from);
            return;
        };
        self.senders.counts.known.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        for pdu in pdus {
            let soon = self.looked.get(&pdu).map(|last| *last + PAUSE).filter(|due| *due > now);
            match soon {
                None => {
                    let text = format!("{pdu} sent trap {}; it is looked at", trap.what);
                    self.fleet.services().events.tell("pdu.trap", About::pdu(&pdu), text);
                    self.look(&pdu, now);
                }
                Some(due) if self.waiting.iter().all(|(_, waits)| *waits != pdu) => {
                    self.waiting.push((due, pdu));
                }
                Some(_) => {}
            }
        }
    }

    /// One line at once, and one a minute for as long as it goes on.
    fn tell_unreadable(&mut self) {
        let (now, count) = (self.now(), UNREADABLE.count());
        let (told, before) = self.unreadable;
        if count == before || told.is_some_and(|told| now < told + UNREADABLE_TOLD) {
            return;
        }
        let from = UNREADABLE.last().unwrap_or_else(|| "nobody known".to_owned());
        tracing::warn!(
            "{} datagrams at the port of traps were no traps or not proven; the last came from {from}",
            count - before
        );
        self.unreadable = (Some(now), count);
    }

    fn late(&mut self) {
        self.tell_unreadable();
        let now = self.now();
        let due: Vec<PduId> = self
            .waiting
            .iter()
            .filter(|(due, _)| *due <= now)
            .map(|(_, pdu)| pdu.clone())
            .collect();
        self.waiting.retain(|(due, _)| *due > now);
        due.iter().for_each(|pdu| self.look(pdu, now));
    }

    fn look(&mut self, pdu: &PduId, now: Tick) {
        self.looked.insert(pdu.clone(), now);
        if let Some(handle) = self.fleet.get(pdu) {
            handle.want(now);
        }
    }

    /// Where the PDUs are now; names may have moved.
    async fn resolve(&mut self) {
        let now = self.now();
        if self.resolved.is_some_and(|at| now - at < ADDRESSES_KEPT) {
            return;
        }
        let mut addresses: HashMap<IpAddr, Vec<PduId>> = HashMap::new();
        for (pdu, address) in self.fleet.addresses() {
            match tokio::time::timeout(RESOLVE.duration(), address.resolve()).await {
                Ok(Ok(at)) => addresses.entry(at.ip().to_canonical()).or_default().push(pdu),
                Ok(Err(error)) => {
                    tracing::debug!(%pdu, %error, "traps of {pdu} cannot be told for its own");
                }
                Err(_) => tracing::debug!(%pdu, "the name of {pdu} took too long to resolve"),
            }
        }
        self.looked.retain(|pdu, _| addresses.values().flatten().any(|known| known == pdu));
        *self.senders.known.write().unwrap_or_else(PoisonError::into_inner) =
            addresses.keys().copied().collect();
        self.addresses = addresses;
        self.resolved = Some(now);
    }
}
