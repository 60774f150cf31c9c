//! What really flows, and which breakers really trip: relays, loads that start and settle, heat in breakers.

use super::rack::{Breaker, Load, Rack};

/// A breaker holds up to this part of its rating for ever (IEC 60898: 1.13), permille.
const HOLDS: i64 = 1_130;
/// It trips at once from this part on (curve B: 3 to 5 times; the least that every one of them carries), permille.
const SNAPS: i64 = 4_500;
/// Heat at which it trips: (part² − 1.13²) · seconds, so 1.45 within a minute.
const TRIPS: f64 = 45.0;

/// A relay and what hangs on it, as it is.
#[derive(Clone, Debug)]
pub struct Contact {
    pub closed: bool,
    /// When it closed last, ms.
    pub since: u64,
    /// Whether its PDU has power.
    pub fed: bool,
}

pub struct Physics {
    pub contacts: Vec<Contact>,
    /// When each host came up from nothing, ms.
    born: Vec<Option<u64>>,
    heat: Vec<f64>,
    /// The most that each breaker carried, permille of its rating.
    pub most: Vec<i64>,
    /// The most that any carried for half a second and longer.
    pub lasting: i64,
    pub tripped: Vec<String>,
    now: u64,
    noise: u64,
    /// By socket: what flowed when its card brought its meters up to date last, mVA.
    shown: Vec<i64>,
}

/// Loads waver within windows of so many ms.
const WAVER: u64 = 4_000;

impl Physics {
    pub fn new(rack: &Rack, noise: u64) -> Self {
        let contact = |closed| Contact { closed, since: 0, fed: true };
        let contacts: Vec<Contact> = rack.sockets.iter().map(|s| contact(s.closed)).collect();
        let fed = |load: &Load| load.cords.iter().any(|cord| contacts[*cord].closed);
        // Who is on has been on for long.
        let born = rack.loads.iter().map(|load| fed(load).then_some(0)).collect();
        let mut physics = Self {
            contacts,
            born,
            heat: vec![0.0; rack.breakers.len()],
            most: vec![0; rack.breakers.len()],
            lasting: 0,
            tripped: Vec::new(),
            now: 0,
            noise,
            shown: vec![0; rack.sockets.len()],
        };
        physics.read_meters(rack, |_| true);
        physics
    }

    pub fn is_live(&self, socket: usize) -> bool {
        self.contacts[socket].closed && self.contacts[socket].fed
    }

    /// What flows through a socket at the present moment, mVA.
    pub fn flows(&self, rack: &Rack, socket: usize) -> i64 {
        let Some(host) = rack.sockets[socket].host else { return 0 };
        if !self.is_live(socket) {
            return 0;
        }
        let load = &rack.loads[host];
        let feeds = load.cords.iter().filter(|cord| self.is_live(**cord)).count() as i64;
        let truth = load.truth;
        let age = self.now - self.born[host].unwrap_or(self.now);
        let old = self.born[host] == Some(0);
        let power = if !old && age < truth.settles_ms() {
            truth.boot
        } else {
            truth.steady * (850 + self.waver(host) % 151) / 1_000
        };
        // Each cord's power supply has its own first moment.
        let surging = self.contacts[socket].since > 0
            && self.now - self.contacts[socket].since < truth.inrush_ms;
        power / feeds + if surging { truth.inrush - truth.boot } else { 0 }
    }

    fn waver(&self, host: usize) -> i64 {
        let mut z = self.noise ^ (self.now / WAVER).wrapping_mul(0x9E37_79B9) ^ (host as u64) << 32;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z >> 33) as i64
    }

    pub fn carries(&self, rack: &Rack, breaker: &Breaker) -> i64 {
        breaker.below.iter().map(|socket| self.flows(rack, *socket)).sum()
    }

    /// What the meters of a card show of these sockets of it, mVA.
    pub fn metered(&self, rack: &Rack, sockets: &[usize]) -> i64 {
        let of = |socket: usize| match rack.cards[rack.sockets[socket].card].meters.every_ms {
            0 => self.flows(rack, socket),
            _ => self.shown[socket],
        };
        sockets.iter().map(|socket| of(*socket)).sum()
    }

    /// Cards bring their meters up to date.
    fn read_meters(&mut self, rack: &Rack, which: impl Fn(u64) -> bool) {
        for (at, socket) in rack.sockets.iter().enumerate() {
            let every_ms = rack.cards[socket.card].meters.every_ms;
            if every_ms > 0 && which(every_ms) {
                self.shown[at] = self.flows(rack, at);
            }
        }
    }

    /// Lets time pass; heat gathers in between.
    pub fn advance(&mut self, rack: &Rack, until: u64) {
        while self.now < until {
            let next = self.next_change(rack).min(until);
            let seconds = (next - self.now) as f64 / 1_000.0;
            for (at, breaker) in rack.breakers.iter().enumerate() {
                let part = self.carries(rack, breaker) * 1_000 / breaker.rating;
                self.most[at] = self.most[at].max(part);
                if next - self.now >= 500 {
                    self.lasting = self.lasting.max(part);
                }
                let (holds, part_of) = (HOLDS as f64 / 1_000.0, part as f64 / 1_000.0);
                let rise = part_of * part_of - holds * holds;
                // It cools as slowly as it heats at rest.
                self.heat[at] = (self.heat[at] + rise.max(-0.3) * seconds).max(0.0);
                if part >= SNAPS || self.heat[at] >= TRIPS {
                    let how = if part >= SNAPS { "at once" } else { "by heat" };
                    self.tripped.push(format!(
                        "{} tripped {how} at {} ms: it carried {part} ‰ of its rating",
                        breaker.name, self.now
                    ));
                    self.heat[at] = 0.0;
                }
            }
            self.now = next;
            self.read_meters(rack, |every_ms| next.is_multiple_of(every_ms));
        }
    }

    /// When a load changes next by itself.
    fn next_change(&self, rack: &Rack) -> u64 {
        let mut next = (self.now / WAVER + 1) * WAVER;
        for card in rack.cards.iter().filter(|card| card.meters.every_ms > 0) {
            next = next.min((self.now / card.meters.every_ms + 1) * card.meters.every_ms);
        }
        for (socket, contact) in self.contacts.iter().enumerate() {
            let Some(host) = rack.sockets[socket].host.filter(|_| contact.closed) else { continue };
            let calm = contact.since + rack.loads[host].truth.inrush_ms;
            if contact.since > 0 && calm > self.now {
                next = next.min(calm);
            }
        }
        for (load, born) in rack.loads.iter().zip(&self.born) {
            let settled = born.map_or(0, |born| born + load.truth.settles_ms());
            if settled > self.now {
                next = next.min(settled);
            }
        }
        next
    }

    /// Moves a contact, now.
    pub fn set(&mut self, rack: &Rack, socket: usize, closed: bool) {
        if self.contacts[socket].closed == closed {
            return;
        }
        self.contacts[socket].closed = closed;
        if closed {
            self.contacts[socket].since = self.now.max(1);
        }
        self.rebirth(rack);
    }

    /// A side loses its power.
    pub fn die(&mut self, rack: &Rack, side: usize) {
        for (socket, contact) in self.contacts.iter_mut().enumerate() {
            if rack.cards[rack.sockets[socket].card].side == side {
                contact.fed = false;
            }
        }
        self.rebirth(rack);
    }

    fn rebirth(&mut self, rack: &Rack) {
        for (host, load) in rack.loads.iter().enumerate() {
            let live = load.cords.iter().any(|cord| self.is_live(*cord));
            match (live, self.born[host]) {
                (true, None) => self.born[host] = Some(self.now.max(1)),
                (false, Some(_)) => self.born[host] = None,
                _ => {}
            }
        }
    }
}
