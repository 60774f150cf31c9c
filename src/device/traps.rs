//! A trap from a known PDU is a reason to look at once, and nothing else: it changes no value by itself. A storm of
//! them costs the device one poll every two seconds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use crate::link::trap::{Receiver, Trap};
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

/// Traps taken and dropped since the start.
#[derive(Debug, Default)]
pub struct TrapCounts {
    /// From PDUs that are polled.
    pub known: AtomicU64,
    /// From anybody else: dropped.
    pub unknown: AtomicU64,
}

/// Takes traps until it is stopped.
pub async fn listen(
    receiver: Receiver,
    fleet: Fleet,
    counts: Arc<TrapCounts>,
    stop: CancellationToken,
) {
    let mut listener = Listener {
        fleet,
        counts,
        addresses: HashMap::new(),
        resolved: None,
        looked: HashMap::new(),
        waiting: Vec::new(),
    };
    loop {
        let wake = listener.wake();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wake.duration()) => listener.late(),
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
    counts: Arc<TrapCounts>,
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
        let due = self.waiting.iter().map(|(due, _)| *due).min();
        due.map_or(Span::seconds(3_600), |due| due - self.now())
    }

    async fn took(&mut self, trap: Trap) {
        self.resolve().await;
        let Some(pdus) = self.addresses.get(&trap.from).cloned() else {
            self.counts.unknown.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(from = %trap.from, "a trap from {} was dropped: no PDU is polled there", trap.from);
            return;
        };
        self.counts.known.fetch_add(1, Ordering::Relaxed);
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

    fn late(&mut self) {
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
        self.addresses = addresses;
        self.resolved = Some(now);
    }
}
