//! The planner: lists the steps that the wishes need, and starts each as early as every limit above it, its device, its
//! host and those it depends on allow. What a step draws only falls once it has begun, so what fits now fits for ever.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::id::OutletId;
use crate::model::switching::Relay;

use super::jobs::{Job, Until, bind, jobs, last_feeds, tails};
use super::queue::Queue;
use super::world::{Goal, Relays, World};

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
        "{limit} cannot carry it: {} W are needed for {outlet}, {} W are left of {} W",
        needs_mva / 1_000,
        headroom_mva / 1_000,
        budget_mva / 1_000
    )]
    Limit {
        /// The limit.
        limit: String,
        /// The first outlet that does not fit.
        outlet: OutletId,
        /// What the limit may carry, mVA.
        budget_mva: i64,
        /// What flows there when everything else has been done, mVA.
        load_mva: i64,
        /// What is left, mVA.
        headroom_mva: i64,
        /// What the outlet needs at its worst, mVA.
        needs_mva: i64,
        /// The outlets without which the rest would fit.
        leave_out: Vec<OutletId>,
    },
    /// It would take the last feed of a host, and nobody said that the host is to go dark.
    #[error("switching {outlet} off takes the last feed of host {host}")]
    LastFeed {
        /// The host.
        host: String,
        /// Its last outlet that is on.
        outlet: OutletId,
    },
    /// Hosts wait for each other.
    #[error("{} wait for each other: see \"after\" of these hosts", hosts.join(", "))]
    Circle {
        /// The hosts.
        hosts: Vec<String>,
    },
}

/// What happens at a moment of the simulated plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// What a step put onto its limits falls by so much, mVA.
    Falls(usize, i64),
    /// A step is done, or what it switched on is up; those that waited may begin after their pauses.
    Over(usize, Until),
    /// A device is free again, or a pause is over: look again.
    Look,
}

/// Makes a plan for wishes, or says what does not fit.
pub fn plan(world: &World, goals: &[Goal]) -> Result<Plan, Refusal> {
    last_feeds(world, goals)?;
    let mut best: Option<Result<Plan, Refusal>> = None;
    let ways = if world.by_priority { &WAYS[..1] } else { &WAYS[1..] };
    for way in ways {
        let mut jobs = jobs(world, goals);
        bind(world, goals, &mut jobs)?;
        let made = Run::new(world, jobs, *way).finish();
        best = Some(match (best, made) {
            (Some(Ok(best)), Ok(made)) if made.makespan_ms < best.makespan_ms => Ok(made),
            (Some(Ok(best)), _) => Ok(best),
            (_, made) => made,
        });
    }
    best.unwrap_or_else(|| Ok(Plan::default()))
}

/// In which order the steps that wait for one device are tried. Which of the fast ones is best depends on the rack: all
/// are tried, and the shortest plan is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the hosts' priorities, then by how long the plan goes on.
    Priority,
    /// By how long the plan goes on; then the least lasting load first.
    Tail,
    /// By how long the plan goes on, in tens of seconds; then the highest peak first.
    Peak,
    /// The largest room taken for the longest time first.
    Area,
}

const WAYS: [Way; 4] = [Way::Priority, Way::Tail, Way::Peak, Way::Area];

/// The plan in the making: a simulated run.
struct Run<'w> {
    world: &'w World,
    jobs: Vec<Job>,
    queues: Vec<Queue>,
    busy_until: Vec<u64>,
    load: Vec<i64>,
    /// By host: its outlets.
    feeds: Vec<Vec<usize>>,
    /// By outlet: whether it carries its host's load, as far as is certain.
    live: Vec<bool>,
    /// By step that has begun: the limits on which something of it falls later.
    sheds: Vec<Vec<usize>>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// By step: the limit that kept it waiting last.
    held: Vec<Option<usize>>,
    plan: Plan,
}

impl<'w> Run<'w> {
    fn new(world: &'w World, jobs: Vec<Job>, way: Way) -> Self {
        let devices = world.step_ms.len();
        let mut by_device: Vec<Vec<usize>> = vec![Vec::new(); devices];
        for (at, job) in jobs.iter().enumerate() {
            by_device[world.outlets[job.outlet].device].push(at);
        }
        let tails = tails(world, &jobs);
        for steps in &mut by_device {
            steps.sort_by_key(|at| rank(world, &jobs[*at], way, tails[*at], *at));
        }
        let load: Vec<i64> = world.limits.iter().map(|limit| limit.load).collect();
        let timelines = load.iter().map(|load| vec![(0, *load)]).collect();
        let mut feeds = vec![Vec::new(); world.hosts.len()];
        for (at, outlet) in world.outlets.iter().enumerate() {
            if let Some(host) = outlet.host {
                feeds[host].push(at);
            }
        }
        Self {
            world,
            feeds,
            live: world.outlets.iter().map(|outlet| outlet.relay == Relays::On).collect(),
            sheds: vec![Vec::new(); jobs.len()],
            queues: by_device.into_iter().map(Queue::new).collect(),
            busy_until: vec![0; devices],
            load,
            events: BinaryHeap::new(),
            held: vec![None; jobs.len()],
            plan: Plan { timelines, ..Plan::default() },
            jobs,
        }
    }

    fn finish(mut self) -> Result<Plan, Refusal> {
        let mut now = 0;
        for job in &self.jobs {
            if job.ready > 0 {
                self.events.push(Reverse((job.ready, Event::Look)));
            }
        }
        loop {
            self.begin_what_may(now);
            let Some(Reverse((at, event))) = self.events.pop() else { break };
            now = at;
            self.happen(now, event);
            while let Some(Reverse((next, _))) = self.events.peek() {
                if *next != now {
                    break;
                }
                if let Some(Reverse((_, event))) = self.events.pop() {
                    self.happen(now, event);
                }
            }
        }
        if self.queues.iter().any(|queue| !queue.is_empty()) {
            return Err(self.refusal());
        }
        self.plan.makespan_ms = now;
        Ok(self.plan)
    }

    fn begin_what_may(&mut self, now: u64) {
        for device in 0..self.queues.len() {
            if self.busy_until[device] > now || self.queues[device].is_empty() {
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
        let (onto, by) = self.adds(job.outlet, job.relay);
        // What adds nothing fits also where too much flows already.
        let fits =
            |limit: &usize| by == 0 || self.load[*limit] + by <= self.world.limits[*limit].budget;
        let full = onto.iter().copied().find(|limit| !fits(limit));
        if let Some(limit) = full {
            self.held[at] = Some(limit);
        }
        Some(full.is_none())
    }

    fn begin(&mut self, at: usize, device: usize, now: u64) {
        let step_ms = self.world.step_ms[device];
        self.busy_until[device] = now + step_ms;
        let (outlet_at, relay) = (self.jobs[at].outlet, self.jobs[at].relay);
        let outlet = &self.world.outlets[outlet_at];
        let (onto, by) = self.adds(outlet_at, relay);
        self.live[outlet_at] = relay == Relay::On;
        self.change(now, &onto, by);
        self.sheds[at] = match relay {
            Relay::On => onto,
            Relay::Off => self.own(outlet_at),
        };
        let done = now + step_ms;
        match relay {
            Relay::On => {
                let draw = outlet.draw.falling();
                // The command may take effect as late as the step takes: it is counted that much longer.
                let inrush = done + draw.inrush_ms;
                let up = inrush + draw.boot_ms;
                self.later(inrush, Event::Falls(at, draw.inrush - draw.boot));
                self.later(up, Event::Falls(at, draw.boot - draw.steady));
                self.later(up, Event::Over(at, Until::Up));
            }
            Relay::Off => {
                // What it draws is free once it has been seen off.
                self.later(done, Event::Falls(at, outlet.load));
            }
        }
        self.later(done, Event::Over(at, Until::Done));
        let why = match self.held[at] {
            Some(limit) => format!(
                "{}; it waited for headroom on {}",
                self.jobs[at].why, self.world.limits[limit].name
            ),
            None => self.jobs[at].why.clone(),
        };
        self.plan.steps.push(Step { at_ms: now, outlet: outlet_at, relay, why });
    }

    fn later(&mut self, at: u64, event: Event) {
        self.events.push(Reverse((at, event)));
    }

    /// What a step puts onto which limits, mVA, at its worst. An on draws its own; where another feed of its host is
    /// under the same limit and carries the host already, it moves load and adds none. An off moves what the outlet
    /// draws to the host's other feeds.
    fn adds(&self, at: usize, relay: Relay) -> (Vec<usize>, i64) {
        let outlet = &self.world.outlets[at];
        match relay {
            Relay::On => (self.own(at), outlet.draw.falling().inrush),
            Relay::Off => {
                // Which of several others takes it is not known: each may.
                let theirs = self.others(at).flat_map(|feed| &self.world.outlets[feed].limits);
                let mut onto: Vec<usize> =
                    theirs.filter(|limit| !outlet.limits.contains(limit)).copied().collect();
                onto.sort_unstable();
                onto.dedup();
                (onto, outlet.load)
            }
        }
    }

    /// The other feeds of an outlet's host that carry it.
    fn others(&self, at: usize) -> impl Iterator<Item = usize> {
        let feeds = self.world.outlets[at].host.map_or(&[][..], |host| &self.feeds[host]);
        feeds.iter().copied().filter(move |feed| *feed != at && self.live[*feed])
    }

    /// The limits above an outlet that are above none of its host's other feeds.
    fn own(&self, at: usize) -> Vec<usize> {
        let shared: Vec<usize> =
            self.others(at).flat_map(|feed| &self.world.outlets[feed].limits).copied().collect();
        let limits = self.world.outlets[at].limits.iter();
        limits.filter(|limit| !shared.contains(limit)).copied().collect()
    }

    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::Falls(at, by) => {
                let sheds = self.sheds[at].clone();
                self.change(now, &sheds, -by);
            }
            Event::Over(at, until) => {
                let frees = self.jobs[at].frees.clone();
                for (then, _, pause) in frees.into_iter().filter(|(_, what, _)| *what == until) {
                    let job = &mut self.jobs[then];
                    job.waits -= 1;
                    job.ready = job.ready.max(now + pause);
                    let ready = job.ready;
                    self.later(ready, Event::Look);
                }
            }
            Event::Look => {}
        }
    }

    fn change(&mut self, now: u64, limits: &[usize], by: i64) {
        if by == 0 {
            return;
        }
        for limit in limits {
            self.load[*limit] += by;
            let line = &mut self.plan.timelines[*limit];
            match line.last_mut() {
                Some((at, load)) if *at == now => *load = self.load[*limit],
                _ => line.push((now, self.load[*limit])),
            }
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
        let mut leave_out: Vec<OutletId> =
            left.iter().map(|at| self.world.outlets[self.jobs[*at].outlet].id.clone()).collect();
        leave_out.dedup();
        Refusal::Limit {
            limit: limit_of.name.clone(),
            outlet: outlet.id.clone(),
            budget_mva: limit_of.budget,
            load_mva: self.load[limit],
            headroom_mva: (limit_of.budget - self.load[limit]).max(0),
            needs_mva: self.adds(self.jobs[at].outlet, self.jobs[at].relay).1,
            leave_out,
        }
    }
}

type Rank = (bool, Reverse<i64>, Reverse<i64>, i64, usize);

/// What goes before what. What is switched off for good goes first: it makes room.
fn rank(world: &World, job: &Job, way: Way, tail: u64, at: usize) -> Rank {
    let outlet = &world.outlets[job.outlet];
    let priority = i64::from(outlet.host.map_or(0, |host| world.hosts[host].priority));
    let makes_room = job.relay == Relay::Off && job.frees.is_empty();
    let tail = tail as i64;
    let draw = outlet.draw.falling();
    let (first, second) = match way {
        Way::Priority => (priority, tail),
        Way::Tail => (tail, priority),
        Way::Peak => (tail / 10_000, draw.inrush),
        Way::Area => (tail / 5_000, (draw.boot - draw.steady).saturating_mul(draw.boot_ms as i64)),
    };
    (!makes_room, Reverse(first), Reverse(second), draw.steady, at)
}
