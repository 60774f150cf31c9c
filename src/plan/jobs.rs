//! The steps that wishes need, and which of them waits for which.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::switching::Relay;

use super::planner::{Refusal, Until};
use super::world::{Goal, Relays, Want, World};

/// A step that may begin once its time has come.
#[derive(Clone)]
pub(super) struct Job {
    pub outlet: usize,
    pub relay: Relay,
    pub why: String,
    /// How many others it waits for.
    pub waits: usize,
    /// Others that wait until it is done or until what it switched on is up, each with a pause, ms.
    pub frees: Vec<(usize, Until, u64)>,
    /// Not before, ms.
    pub ready: u64,
}

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
    let cycled: BTreeSet<usize> =
        goals.iter().filter(|goal| goal.want == Want::Cycle).map(|goal| goal.outlet).collect();
    let kept: BTreeSet<usize> = goals
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
pub(super) fn last_feeds(world: &World, goals: &[Goal]) -> Result<(), Refusal> {
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
        // An outlet that is off may be cycled as it likes; of those that are on one has to stay while one is off.
        let live_cycles = wants(Want::Cycle)
            .filter(|goal| world.outlets[goal.outlet].relay != Relays::Off)
            .count();
        let steady = on + comes;
        let goes_or_cycles = goes + usize::from(live_cycles > 0);
        let least = world.hosts[host].min_feeds.max(1);
        let takes_last = goes_or_cycles > 0 && on > 0 && steady < goes_or_cycles + least;
        let first = own.iter().find(|goal| goal.want != Want::On);
        if let (true, Some(goal)) = (takes_last, first) {
            return Err(Refusal::LastFeed {
                host: world.hosts[host].id.to_string(),
                outlet: world.outlets[goal.outlet].id.clone(),
            });
        }
    }
    Ok(())
}

/// A host that goes on needs those that it comes after: on already, or wished on as well.
pub(super) fn needed(world: &World, goals: &[Goal]) -> Result<(), Refusal> {
    let comes: BTreeSet<usize> = goals
        .iter()
        .filter(|goal| goal.want != Want::Off)
        .filter_map(|goal| world.outlets[goal.outlet].host)
        .collect();
    let fed: BTreeSet<usize> = world
        .outlets
        .iter()
        .filter(|outlet| outlet.relay != Relays::Off)
        .filter_map(|outlet| outlet.host)
        .collect();
    let has_feeds: BTreeSet<usize> =
        world.outlets.iter().filter_map(|outlet| outlet.host).collect();
    for goal in goals.iter().filter(|goal| goal.want == Want::On) {
        let Some(host) = world.outlets[goal.outlet].host else { continue };
        let missing = world.hosts[host].after.iter().find(|before| {
            has_feeds.contains(before) && !fed.contains(before) && !comes.contains(before)
        });
        if let Some(before) = missing {
            return Err(Refusal::Needs {
                host: world.hosts[host].id.to_string(),
                needs: world.hosts[*before].id.to_string(),
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
    let hosts: BTreeSet<String> = stuck
        .filter_map(|(job, _)| world.outlets[job.outlet].host)
        .map(|host| world.hosts[host].id.to_string())
        .collect();
    Err(Refusal::Circle { hosts: hosts.into_iter().collect() })
}

/// How long the plan goes on at least once a step has begun: through what it switches on, and through those that wait
/// for it, ms.
pub(super) fn tails(world: &World, jobs: &[Job]) -> Vec<u64> {
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
