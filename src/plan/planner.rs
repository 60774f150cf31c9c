//! The planner: lists the steps that the wishes need, and starts each as early as every limit above it, its device, its
//! host and those it depends on allow. What a step draws only falls once it has begun, so what fits now fits for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::model::id::OutletId;
use crate::model::switching::Relay;

use super::queue::Queue;
use super::world::{Goal, Relays, Want, World};

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

/// A step that may begin once its time has come.
pub(super) struct Job {
    pub outlet: usize,
    pub relay: Relay,
    why: String,
    /// How many others it waits for.
    pub waits: usize,
    /// Others that wait until it is done or until what it switched on is up, each with a pause, ms.
    pub frees: Vec<(usize, Until, u64)>,
    /// Not before, ms.
    pub ready: u64,
}

/// How long a step waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Until {
    /// Until it was carried out and seen.
    Done,
    /// Until what it switched on has started up.
    Up,
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

/// The steps that the wishes need. What is where it should be needs none.
pub(super) fn jobs(world: &World, goals: &[Goal]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for goal in goals {
        let outlet = &world.outlets[goal.outlet];
        let is_there = match goal.want {
            Want::On => outlet.relay == Relays::On,
            Want::Off => outlet.relay == Relays::Off,
            Want::Cycle => false,
        };
        for relay in [Relay::Off, Relay::On] {
            if is_there || !goal.want.needs(relay) {
                continue;
            }
            let rests = outlet.off_for_ms.unwrap_or(outlet.min_off_ms);
            let ready = match (relay, goal.want) {
                (Relay::On, Want::On) => outlet.min_off_ms.saturating_sub(rests),
                _ => 0,
            };
            let why = goal.why.clone();
            jobs.push(Job { outlet: goal.outlet, relay, why, waits: 0, frees: Vec::new(), ready });
        }
    }
    jobs
}

/// Who waits for whom: a host's feeds for each other, the on of a cycle for its offs, a host for those it comes after.
pub(super) fn bind(world: &World, goals: &[Goal], jobs: &mut [Job]) -> Result<(), Refusal> {
    let mut of_host: BTreeMap<usize, [Vec<usize>; 2]> = BTreeMap::new();
    for (at, job) in jobs.iter().enumerate() {
        if let Some(host) = world.outlets[job.outlet].host {
            of_host.entry(host).or_default()[usize::from(job.relay == Relay::On)].push(at);
        }
    }
    let cycled: std::collections::BTreeSet<usize> =
        goals.iter().filter(|goal| goal.want == Want::Cycle).map(|goal| goal.outlet).collect();
    let kept: std::collections::BTreeSet<usize> = goals
        .iter()
        .filter(|goal| !goal.drops_host)
        .filter_map(|goal| world.outlets[goal.outlet].host)
        .collect();
    let mut behind: Vec<(usize, usize, Until, u64)> = Vec::new();
    for (at, [offs, ons]) in &of_host {
        let host = &world.hosts[*at];
        if kept.contains(at) {
            // One feed after the other, each on again and up before the next goes off.
            let mut steps: Vec<usize> = ons.iter().chain(offs).copied().collect();
            let turn = |step: &usize| {
                let is_off = jobs[*step].relay == Relay::Off;
                let own = jobs[*step].outlet;
                let cycles = cycled.contains(&own);
                // What only goes on comes first, what only goes off comes last.
                (
                    if cycles {
                        1
                    } else if is_off {
                        2
                    } else {
                        0
                    },
                    own,
                    !is_off,
                )
            };
            steps.sort_by_key(turn);
            for pair in steps.windows(2) {
                let (first, then) = (&jobs[pair[0]], &jobs[pair[1]]);
                let rest = world.outlets[then.outlet].min_off_ms;
                let wait = if first.outlet == then.outlet {
                    (Until::Done, host.hold_ms.max(rest))
                } else if first.relay == Relay::On {
                    (Until::Up, host.feed_gap_ms)
                } else {
                    (Until::Done, host.feed_gap_ms)
                };
                behind.push((pair[0], pair[1], wait.0, wait.1));
            }
            continue;
        }
        for pair in ons.windows(2).chain(offs.windows(2)) {
            behind.push((pair[0], pair[1], Until::Done, host.feed_gap_ms));
        }
        for off in offs {
            for on in ons.iter().filter(|on| cycled.contains(&jobs[**on].outlet)) {
                let rest = world.outlets[jobs[*on].outlet].min_off_ms;
                behind.push((*off, *on, Until::Done, host.hold_ms.max(rest)));
            }
        }
        for before in host.after.iter().filter_map(|before| of_host.get(before)) {
            // Up after those it needs, down before them.
            behind.extend(before[1].last().zip(ons.first()).map(|(a, b)| (*a, *b, Until::Up, 0)));
            behind
                .extend(offs.last().zip(before[0].first()).map(|(a, b)| (*a, *b, Until::Done, 0)));
        }
    }
    // Outlets without a host: the on of a cycle after its own off.
    let mut offs: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, job) in jobs.iter().enumerate() {
        let outlet = &world.outlets[job.outlet];
        if outlet.host.is_some() {
            continue;
        }
        match job.relay {
            Relay::Off => drop(offs.insert(job.outlet, at)),
            Relay::On => {
                let own = offs.get(&job.outlet);
                let rest = outlet.min_off_ms.max(world.hold_ms);
                behind.extend(own.map(|off| (*off, at, Until::Done, rest)));
            }
        }
    }
    for (first, then, until, pause) in behind {
        jobs[first].frees.push((then, until, pause));
        jobs[then].waits += 1;
    }
    circle(world, jobs)
}

/// A host that is not to go dark needs a feed that is on, and stays on while another is switched.
fn last_feeds(world: &World, goals: &[Goal]) -> Result<(), Refusal> {
    let mut of_host: BTreeMap<usize, Vec<&Goal>> = BTreeMap::new();
    for goal in goals.iter().filter(|goal| !goal.drops_host) {
        if let Some(host) = world.outlets[goal.outlet].host {
            of_host.entry(host).or_default().push(goal);
        }
    }
    for (host, own) in of_host {
        let feeds = || world.outlets.iter().enumerate().filter(|(_, o)| o.host == Some(host));
        let on = feeds().filter(|(_, outlet)| outlet.relay == Relays::On).count();
        let wants = |want| own.iter().filter(move |goal| goal.want == want);
        let comes =
            wants(Want::On).filter(|goal| world.outlets[goal.outlet].relay == Relays::Off).count();
        let goes =
            wants(Want::Off).filter(|goal| world.outlets[goal.outlet].relay != Relays::Off).count();
        let cycles = wants(Want::Cycle).count();
        // An outlet that is off may be cycled as it likes; of those that are on one has to stay while one is off.
        let live_cycles = wants(Want::Cycle)
            .filter(|goal| world.outlets[goal.outlet].relay != Relays::Off)
            .count();
        let steady = on + comes;
        let needs = goes + usize::from(live_cycles > 0);
        let takes_last = (goes > 0 || live_cycles > 0) && on > 0 && steady <= needs;
        let first = own.iter().find(|goal| goal.want != Want::On);
        if let (true, Some(goal)) = (takes_last && (goes > 0 || cycles > 0), first) {
            return Err(Refusal::LastFeed {
                host: world.hosts[host].id.to_string(),
                outlet: world.outlets[goal.outlet].id.clone(),
            });
        }
    }
    Ok(())
}

/// Steps that wait for each other can never begin.
fn circle(world: &World, jobs: &[Job]) -> Result<(), Refusal> {
    let mut waits: Vec<usize> = jobs.iter().map(|job| job.waits).collect();
    let mut free: Vec<usize> = (0..jobs.len()).filter(|at| waits[*at] == 0).collect();
    let mut seen = 0;
    while let Some(at) = free.pop() {
        seen += 1;
        for (then, ..) in &jobs[at].frees {
            waits[*then] -= 1;
            if waits[*then] == 0 {
                free.push(*then);
            }
        }
    }
    if seen == jobs.len() {
        return Ok(());
    }
    let stuck = jobs.iter().zip(&waits).filter(|(_, waits)| **waits > 0);
    let hosts: std::collections::BTreeSet<String> = stuck
        .filter_map(|(job, _)| world.outlets[job.outlet].host)
        .map(|host| world.hosts[host].id.to_string())
        .collect();
    Err(Refusal::Circle { hosts: hosts.into_iter().collect() })
}

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

    fn may_begin(&mut self, at: usize, now: u64) -> bool {
        let job = &self.jobs[at];
        if job.waits > 0 || job.ready > now {
            return false;
        }
        let (onto, by) = self.adds(job.outlet, job.relay);
        // What adds nothing fits also where too much flows already.
        let fits =
            |limit: &usize| by == 0 || self.load[*limit] + by <= self.world.limits[*limit].budget;
        let full = onto.iter().copied().find(|limit| !fits(limit));
        if let Some(limit) = full {
            self.held[at] = Some(limit);
        }
        full.is_none()
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
            unreachable!("what waits for nobody and for no headroom has begun");
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

/// How long the plan goes on at least once a step has begun: through what it switches on, and through those that wait
/// for it, ms.
fn tails(world: &World, jobs: &[Job]) -> Vec<u64> {
    let mut waits: Vec<usize> = jobs.iter().map(|job| job.waits).collect();
    let mut order: Vec<usize> = (0..jobs.len()).filter(|at| waits[*at] == 0).collect();
    let mut next = 0;
    while let Some(at) = order.get(next).copied() {
        next += 1;
        for (then, ..) in &jobs[at].frees {
            waits[*then] -= 1;
            if waits[*then] == 0 {
                order.push(*then);
            }
        }
    }
    let mut tails = vec![0; jobs.len()];
    for at in order.into_iter().rev() {
        let outlet = &world.outlets[jobs[at].outlet];
        let done = world.step_ms[outlet.device];
        let is_on = jobs[at].relay == Relay::On;
        let up = done + if is_on { outlet.draw.settles_ms() } else { 0 };
        let behind = jobs[at].frees.iter().map(|(then, until, pause)| {
            let from = if *until == Until::Up { up } else { done };
            from + pause + tails[*then]
        });
        tails[at] = behind.max().unwrap_or(0).max(up);
    }
    tails
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
