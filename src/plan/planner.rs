//! One plan in the making: starts each step as early as every limit above it, its device, its host and those it depends
//! on allow. What a step draws only falls once it has begun, so what fits now fits for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::{Deserialize, Serialize};

use crate::model::id::OutletId;
use crate::model::switching::Relay;

use super::jobs::Job;
use super::queue::Queue;
use super::search::Key;
use super::world::{Relays, Share, World};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When it begins at the earliest, ms after the plan's start.
    pub at_ms: u64,
    /// The outlet, by place.
    pub outlet: usize,
    /// What its relay is to do.
    pub relay: Relay,
    /// Why it is there, and why not earlier.
    pub why: String,
    /// The steps that it waits for.
    pub after: Vec<After>,
}

/// That a step waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The other, by place in the plan.
    pub step: usize,
    /// How far it has to be.
    pub until: Until,
    /// Pause from then on, ms.
    pub pause_ms: u64,
}

/// How long a step waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Until it was carried out and seen.
    Done,
    /// Until what it switched on has started up.
    Up,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Steps in the order of their beginning.
    pub steps: Vec<Step>,
    /// By limit: what flows from when on, mVA; the first at 0.
    pub timelines: Vec<Vec<(u64, i64)>>,
    /// Until everything that was switched on draws no more than ever after, ms.
    pub makespan_ms: u64,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not fit, whatever the order.
    #[error(
        "{limit} cannot carry it: {} W are needed for {outlet}{}, {} W are left of {} W",
        needs_mva / 1_000,
        if *first { " in its first moment" } else { "" },
        headroom_mva / 1_000,
        budget_mva / 1_000
    )]
    Limit {
        /// The limit.
        limit: String,
        /// The first outlet that does not fit.
        outlet: OutletId,
        /// Whether there is room for what lasts, and none for the first moment.
        first: bool,
        /// What the limit may carry then, mVA.
        budget_mva: i64,
        /// What flows there when everything else has been done, mVA.
        load_mva: i64,
        /// What is left, mVA.
        headroom_mva: i64,
        /// What the outlet needs at its worst, mVA.
        needs_mva: i64,
        /// The fewest outlets found without which the rest fits.
        leave_out: Vec<OutletId>,
    },
    /// It would take a feed that a host needs, and nobody said that the host is to go dark.
    #[error(
        "switching {outlet} off takes the last feed of host {host}, or one that it is not to be without"
    )]
    LastFeed {
        /// The host.
        host: String,
        /// Its last outlet that is on.
        outlet: OutletId,
    },
    /// A host is to go on that needs another, which is off and stays so.
    #[error("host {host} comes after {needs}, which is off and not wished on")]
    Needs {
        /// The host.
        host: String,
        /// What has to be up before it.
        needs: String,
    },
    /// Hosts wait for each other.
    #[error("{} wait for each other: see \"after\" of these hosts", hosts.join(", "))]
    Circle {
        /// The hosts.
        hosts: Vec<String>,
    },
}

/// First moments that may come at any time, as those of other plans, ms.
pub const FOREVER: u64 = u64::MAX;

/// What happens at a moment of the simulated plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// What a step put onto its limits in its first moment is over.
    Calms(usize),
    /// What a step put onto its limits while starting up, or what it took off, falls to what stays.
    Falls(usize),
    /// A step is done, or what it switched on is up; those that waited may begin after their pauses.
    Over(usize, Until),
    /// A pause is over: the device is looked at again.
    Look(usize),
    /// The first moments that were under way on a limit are over.
    Ebbs(usize),
}

/// The plan in the making: a simulated run.
pub(super) struct Run<'w> {
    world: &'w World,
    jobs: Vec<Job>,
    queues: Vec<Queue>,
    busy_until: Vec<u64>,
    /// By limit: what flows for long.
    load: Vec<i64>,
    /// By limit: what flows beside it in first moments.
    extra: Vec<i64>,
    /// By limit: the devices whose steps may wait for room below it.
    below: Vec<Vec<usize>>,
    /// By device: whether anything has changed for it since its queue was looked through.
    stale: Vec<bool>,
    /// By host: its outlets.
    feeds: Vec<Vec<usize>>,
    /// By outlet: whether it carries its host's load, as far as is certain.
    live: Vec<bool>,
    /// By step that has begun: the limits on which something of it falls later.
    sheds: Vec<Vec<Share>>,
    /// By host: what offs have moved to its other feeds, by limit, mVA. It is gone when the last of them is off.
    moved: Vec<BTreeMap<usize, i64>>,
    /// By step that takes a host's last feed: what falls beside what its outlet draws.
    drops: BTreeMap<usize, BTreeMap<usize, i64>>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// By step: the limit that kept it waiting last.
    held: Vec<Option<usize>>,
    /// By step: its place in the plan, once it has begun.
    place: Vec<usize>,
    plan: Plan,
}

/// What a step puts onto the limits.
struct Adds {
    /// Where it stays, and how much of it.
    onto: Vec<Share>,
    /// For long, mVA.
    by: i64,
    /// In the first moment beside it, on every limit above, mVA.
    extra: i64,
}

impl<'w> Run<'w> {
    pub(super) fn new(world: &'w World, jobs: Vec<Job>, keys: &[Key]) -> Self {
        let devices = world.step_ms.len();
        let mut by_device: Vec<Vec<usize>> = vec![Vec::new(); devices];
        for (at, job) in jobs.iter().enumerate() {
            by_device[world.outlets[job.outlet].device].push(at);
        }
        for steps in &mut by_device {
            steps.sort_by_key(|at| (keys[*at], *at));
        }
        let load: Vec<i64> = world.limits.iter().map(|limit| limit.load).collect();
        let now = world.limits.iter().map(|limit| limit.load + limit.surge);
        let timelines = now.map(|load| vec![(0, load)]).collect();
        let mut feeds = vec![Vec::new(); world.hosts.len()];
        for (at, outlet) in world.outlets.iter().enumerate() {
            if let Some(host) = outlet.host {
                feeds[host].push(at);
            }
        }
        let mut below: Vec<Vec<usize>> = vec![Vec::new(); load.len()];
        for job in &jobs {
            let outlet = &world.outlets[job.outlet];
            // An off may wait for room where the host's other feeds are.
            let others = outlet.host.map_or(&[][..], |host| &feeds[host]);
            let over = others.iter().flat_map(|feed| &world.outlets[*feed].over);
            for share in outlet.over.iter().chain(over) {
                below[share.limit].push(outlet.device);
            }
        }
        for devices in &mut below {
            devices.sort_unstable();
            devices.dedup();
        }
        Self {
            world,
            below,
            stale: vec![true; devices],
            feeds,
            live: world.outlets.iter().map(|outlet| outlet.relay == Relays::On).collect(),
            sheds: vec![Vec::new(); jobs.len()],
            moved: vec![BTreeMap::new(); world.hosts.len()],
            drops: BTreeMap::new(),
            queues: by_device.into_iter().map(Queue::new).collect(),
            busy_until: vec![0; devices],
            extra: world.limits.iter().map(|limit| limit.surge).collect(),
            load,
            events: BinaryHeap::new(),
            held: vec![None; jobs.len()],
            place: vec![usize::MAX; jobs.len()],
            plan: Plan { timelines, ..Plan::default() },
            jobs,
        }
    }

    pub(super) fn finish(mut self) -> Result<Plan, Refusal> {
        let (mut now, mut over) = (0, 0);
        // What never ends is never over; and a plan without steps is over at once.
        for (at, limit) in self.world.limits.iter().enumerate() {
            if limit.surge > 0 && limit.surge_ms < FOREVER && !self.below[at].is_empty() {
                self.events.push(Reverse((limit.surge_ms, Event::Ebbs(at))));
            }
        }
        for job in &self.jobs {
            if job.ready > 0 {
                let device = self.world.outlets[job.outlet].device;
                self.events.push(Reverse((job.ready, Event::Look(device))));
            }
        }
        loop {
            self.begin_what_may(now);
            let Some(Reverse((at, event))) = self.events.pop() else { break };
            now = at;
            if !matches!(event, Event::Ebbs(_)) {
                over = now;
            }
            self.happen(now, event);
            while let Some(Reverse((next, _))) = self.events.peek() {
                if *next != now {
                    break;
                }
                if let Some(Reverse((_, event))) = self.events.pop() {
                    if !matches!(event, Event::Ebbs(_)) {
                        over = now;
                    }
                    self.happen(now, event);
                }
            }
        }
        if self.queues.iter().any(|queue| !queue.is_empty()) {
            return Err(self.refusal());
        }
        self.plan.makespan_ms = over;
        self.bind();
        Ok(self.plan)
    }

    /// Tells each step which others it waits for.
    fn bind(&mut self) {
        for (first, job) in self.jobs.iter().enumerate() {
            for (then, until, pause_ms) in &job.frees {
                let (step, until, pause_ms) = (self.place[first], *until, *pause_ms);
                self.plan.steps[self.place[*then]].after.push(After { step, until, pause_ms });
            }
        }
    }

    fn begin_what_may(&mut self, now: u64) {
        for device in 0..self.queues.len() {
            if self.busy_until[device] > now || !std::mem::take(&mut self.stale[device]) {
                continue;
            }
            let mut queue = std::mem::take(&mut self.queues[device]);
            let taken = queue.take(|at| self.may_begin(at, now));
            self.queues[device] = queue;
            if let Some(at) = taken {
                self.begin(at, device, now);
            }
        }
    }

    fn may_begin(&mut self, at: usize, now: u64) -> Option<bool> {
        let job = &self.jobs[at];
        if job.waits > 0 || job.ready > now {
            return None;
        }
        let full = match job.relay {
            Relay::On => self.full_for_on(job.outlet),
            Relay::Off => self.full_for_off(job.outlet),
        };
        if full.is_some() {
            self.held[at] = full;
        }
        Some(full.is_none())
    }

    /// The limit that has no room for an on.
    fn full_for_on(&self, at: usize) -> Option<usize> {
        let outlet = &self.world.outlets[at];
        let draw = outlet.draw.falling();
        let is_full = |share: &&Share| {
            let own = Share { permille: self.own_permille(at, **share), ..**share };
            self.has_no_room(share.limit, own.of(draw.boot), share.of(draw.inrush - draw.boot))
        };
        outlet.over.iter().find(is_full).map(|share| share.limit)
    }

    /// The limit that has no room for what an off moves to the host's other feeds.
    fn full_for_off(&self, at: usize) -> Option<usize> {
        let outlet = &self.world.outlets[at];
        outlet.host?;
        let moved = self.moves(at);
        let full =
            moved.iter().find(|share| self.has_no_room(share.limit, share.of(outlet.load), 0));
        full.map(|share| share.limit)
    }

    /// What adds nothing fits also where too much flows already.
    fn has_no_room(&self, limit: usize, by: i64, extra: i64) -> bool {
        let of = &self.world.limits[limit];
        let load = self.load[limit] + by;
        by > 0 && load > of.budget || by + extra > 0 && load + self.extra[limit] + extra > of.peak
    }

    fn begin(&mut self, at: usize, device: usize, now: u64) {
        let step_ms = self.world.step_ms[device];
        self.busy_until[device] = now + step_ms;
        let (outlet_at, relay) = (self.jobs[at].outlet, self.jobs[at].relay);
        let outlet = &self.world.outlets[outlet_at];
        let adds = self.adds(outlet_at, relay);
        self.live[outlet_at] = relay == Relay::On;
        self.settle(now, &adds.onto, 0, adds.by);
        self.surge(now, &outlet.over, adds.extra);
        self.sheds[at] = match relay {
            Relay::On => adds.onto,
            Relay::Off => {
                self.moves_away(at, &adds);
                let mut frees = self.own(outlet_at);
                frees.retain(|share| !outlet.unsure.contains(&share.limit));
                frees
            }
        };
        let done = now + step_ms;
        if relay == Relay::On {
            let draw = outlet.draw.falling();
            // The command may take effect as late as the step takes: it is counted that much longer.
            let inrush = done + draw.inrush_ms;
            let up = inrush + draw.boot_ms;
            self.later(inrush, Event::Calms(at));
            self.later(up, Event::Falls(at));
            self.later(up, Event::Over(at, Until::Up));
        } else {
            // What it draws is free once it has been seen off.
            self.later(done, Event::Falls(at));
        }
        self.later(done, Event::Over(at, Until::Done));
        let why = match self.held[at] {
            Some(limit) => format!(
                "{}; it waited for headroom on {}",
                self.jobs[at].why, self.world.limits[limit].name
            ),
            None => self.jobs[at].why.clone(),
        };
        self.place[at] = self.plan.steps.len();
        self.plan.steps.push(Step { at_ms: now, outlet: outlet_at, relay, why, after: Vec::new() });
    }

    /// Notes what an off moves to the host's other feeds; or, if it takes the last, that all of that is gone with it.
    fn moves_away(&mut self, at: usize, adds: &Adds) {
        let outlet = self.jobs[at].outlet;
        let Some(host) = self.world.outlets[outlet].host else { return };
        if self.others(outlet).next().is_none() {
            self.drops.insert(at, std::mem::take(&mut self.moved[host]));
            return;
        }
        for share in &adds.onto {
            *self.moved[host].entry(share.limit).or_default() += share.of(adds.by);
        }
    }

    fn later(&mut self, at: u64, event: Event) {
        self.events.push(Reverse((at, event)));
    }

    /// What a step puts onto which limits at its worst. An on draws its own; where another feed of its host is under the
    /// same limit and carries the host already, it moves load and adds none but its first moment. An off moves what the
    /// outlet draws to the host's other feeds.
    fn adds(&self, at: usize, relay: Relay) -> Adds {
        let outlet = &self.world.outlets[at];
        if relay == Relay::On {
            let draw = outlet.draw.falling();
            return Adds { onto: self.own(at), by: draw.boot, extra: draw.inrush - draw.boot };
        }
        Adds { onto: self.moves(at), by: outlet.load, extra: 0 }
    }

    /// Where what an outlet draws goes when it is switched off. Which of several others takes it is not known: each may.
    fn moves(&self, at: usize) -> Vec<Share> {
        let outlet = &self.world.outlets[at];
        let mut onto: Vec<Share> = Vec::new();
        for share in self.others(at).flat_map(|feed| &self.world.outlets[feed].over) {
            let mine = outlet.share(share.limit).map_or(0, |share| share.permille);
            let permille = (share.permille - mine).max(0);
            match onto.iter_mut().find(|known| known.limit == share.limit) {
                Some(known) => known.permille = known.permille.max(permille),
                None => onto.push(Share { limit: share.limit, permille }),
            }
        }
        onto
    }

    /// The other feeds of an outlet's host that carry it.
    fn others(&self, at: usize) -> impl Iterator<Item = usize> {
        let feeds = self.world.outlets[at].host.map_or(&[][..], |host| &self.feeds[host]);
        feeds.iter().copied().filter(move |feed| *feed != at && self.live[*feed])
    }

    /// The limits above an outlet, as far as they are above none of its host's other feeds.
    fn own(&self, at: usize) -> Vec<Share> {
        let shares = self.world.outlets[at].over.iter();
        let own = shares.map(|share| Share { permille: self.own_permille(at, *share), ..*share });
        own.filter(|share| share.permille > 0).collect()
    }

    /// How much more flows through a limit by an outlet than by the most of its host's other feeds, thousandths.
    fn own_permille(&self, at: usize, share: Share) -> i64 {
        let theirs = self.others(at).filter_map(|feed| self.world.outlets[feed].share(share.limit));
        (share.permille - theirs.map(|share| share.permille).max().unwrap_or(0)).max(0)
    }

    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::Calms(at) => {
                let outlet = &self.world.outlets[self.jobs[at].outlet];
                let draw = outlet.draw.falling();
                self.surge(now, &outlet.over, draw.boot - draw.inrush);
            }
            Event::Falls(at) => {
                let sheds = std::mem::take(&mut self.sheds[at]);
                let outlet = &self.world.outlets[self.jobs[at].outlet];
                let draw = outlet.draw.falling();
                // Rounded as it was added: what is left is what stays.
                match self.jobs[at].relay {
                    Relay::On => self.settle(now, &sheds, draw.boot, draw.steady),
                    Relay::Off => self.settle(now, &sheds, outlet.load, 0),
                }
                for (limit, gone) in self.drops.remove(&at).unwrap_or_default() {
                    self.load[limit] -= gone;
                    self.draw_line(now, limit, -gone);
                }
            }
            Event::Over(at, until) => {
                if until == Until::Done {
                    self.stale[self.world.outlets[self.jobs[at].outlet].device] = true;
                }
                let frees = std::mem::take(&mut self.jobs[at].frees);
                for (then, what, pause) in &frees {
                    if *what != until {
                        continue;
                    }
                    let job = &mut self.jobs[*then];
                    job.waits -= 1;
                    job.ready = job.ready.max(now + pause);
                    let (ready, device) = (job.ready, self.world.outlets[job.outlet].device);
                    self.later(ready, Event::Look(device));
                }
                self.jobs[at].frees = frees;
            }
            Event::Look(device) => self.stale[device] = true,
            Event::Ebbs(limit) => {
                let by = self.world.limits[limit].surge;
                self.extra[limit] -= by;
                self.draw_line(now, limit, -by);
            }
        }
    }

    fn settle(&mut self, now: u64, shares: &[Share], from: i64, to: i64) {
        for share in shares {
            let by = share.of(to) - share.of(from);
            self.load[share.limit] += by;
            self.draw_line(now, share.limit, by);
        }
    }

    fn surge(&mut self, now: u64, shares: &[Share], by: i64) {
        for share in shares {
            let by = if by < 0 { -share.of(-by) } else { share.of(by) };
            self.extra[share.limit] += by;
            self.draw_line(now, share.limit, by);
        }
    }

    fn draw_line(&mut self, now: u64, limit: usize, by: i64) {
        if by == 0 {
            return;
        }
        if by < 0 {
            for device in &self.below[limit] {
                self.stale[*device] = true;
            }
        }
        let flows = self.load[limit] + self.extra[limit];
        let line = &mut self.plan.timelines[limit];
        match line.last_mut() {
            Some((at, load)) if *at == now => *load = flows,
            _ => line.push((now, flows)),
        }
    }

    /// Nothing moves any more, and steps are left: the first of them names the limit.
    fn refusal(&self) -> Refusal {
        let mut left: Vec<usize> = self.queues.iter().flat_map(Queue::iter).collect();
        left.sort_by_key(|at| {
            let outlet = &self.world.outlets[self.jobs[*at].outlet];
            let priority = outlet.host.map_or(0, |host| self.world.hosts[host].priority);
            (Reverse(priority), *at)
        });
        let held = left.iter().find_map(|at| Some((*at, self.held[*at]?)));
        let Some((at, limit)) = held else {
            let hosts = left.iter().filter_map(|at| self.world.outlets[self.jobs[*at].outlet].host);
            let names = hosts.map(|host| self.world.hosts[host].id.to_string());
            return Refusal::Circle { hosts: names.collect() };
        };
        let outlet = &self.world.outlets[self.jobs[at].outlet];
        let limit_of = &self.world.limits[limit];
        let adds = self.adds(self.jobs[at].outlet, self.jobs[at].relay);
        // What of it flows through this limit: a load between two lines, or on three, is not all on each.
        let long = adds.onto.iter().find(|share| share.limit == limit).copied();
        let first = outlet.share(limit);
        let long = long.map_or(0, |share| share.of(adds.by));
        let first = first.map_or(adds.extra, |share| share.of(adds.extra));
        let load_mva = self.load[limit];
        // Where there is room for long, it is the first moment that has none.
        let is_first = load_mva + long <= limit_of.budget;
        let (needs_mva, flows, budget_mva) = if is_first {
            (long + first, load_mva + self.extra[limit], limit_of.peak)
        } else {
            (long, load_mva, limit_of.budget)
        };
        let mut leave_out: Vec<OutletId> =
            left.iter().map(|at| self.world.outlets[self.jobs[*at].outlet].id.clone()).collect();
        leave_out.sort();
        leave_out.dedup();
        Refusal::Limit {
            limit: limit_of.name.clone(),
            outlet: outlet.id.clone(),
            first: is_first,
            budget_mva,
            load_mva,
            headroom_mva: (budget_mva - flows).max(0),
            needs_mva,
            leave_out,
        }
    }
}
