//! The planner: lists the steps that wishes need, orders them in several ways, and takes the shortest plan that comes of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::OutletId;
use crate::model::switching::Relay;

use super::jobs::{Job, bind, jobs, last_feeds, needed, tails};
use super::planner::{Plan, Refusal, Run};
use super::world::{Goal, Share, Want, World};

/// How many steps are ordered in all those tries together: a large plan has fewer of them.
const WORK: usize = 60_000;
/// Steps of a plan that is large.
const MANY: usize = 3_000;
/// In how many further orders the feeds of hosts are taken where a plan does not fit.
const ORDERS: usize = 16;
/// A plan that is so near to its bound is not worth another try, permille.
const NEAR: u64 = 1_040;

/// Makes a plan for wishes, or says what does not fit.
pub fn plan(world: &World, goals: &[Goal]) -> Result<Plan, Refusal> {
    let jobs = wished(world, goals)?;
    tried(world, &jobs).or_else(|mut refusal| {
        if let Refusal::Limit { outlet, leave_out, .. } = &mut refusal {
            if let Some(made) = in_other_orders(world, goals, outlet) {
                return Ok(made);
            }
            *leave_out = super::less::leave_out(world, goals, outlet);
        }
        Err(refusal)
    })
}

/// A plan in which hosts that go dark lose their feeds in another order: those first whose load the others have most room
/// for; then, time and again, the one last of its host that was refused, as the others took its load.
fn in_other_orders(world: &World, goals: &[Goal], refused: &OutletId) -> Option<Plan> {
    let attempt = |goals: &[Goal]| wished(world, goals).and_then(|jobs| tried(world, &jobs));
    let (mut goals, mut refused) = (goals.to_vec(), refused.clone());
    if let Some(other) = roomiest_first(world, &goals) {
        match attempt(&other) {
            Ok(made) => return Some(made),
            Err(Refusal::Limit { outlet, .. }) => (goals, refused) = (other, outlet),
            Err(_) => {}
        }
    }
    let mut turns: BTreeMap<usize, usize> = BTreeMap::new();
    // Each of them is ordered in several ways.
    let tries = WORK / (16 * goals.len().max(1));
    for _ in 0..tries.min(ORDERS) {
        let (host, places) = dropped_feeds(world, &goals).into_iter().find(|(_, places)| {
            places.iter().any(|place| world.outlets[goals[*place].outlet].id == refused)
        })?;
        let turned = turns.entry(host).or_default();
        *turned += 1;
        if *turned >= places.len() {
            return None;
        }
        let at = places.iter().position(|at| world.outlets[goals[*at].outlet].id == refused)?;
        for pair in places[at..].windows(2) {
            goals.swap(pair[0], pair[1]);
        }
        match attempt(&goals) {
            Ok(made) => return Some(made),
            Err(Refusal::Limit { outlet, .. }) => refused = outlet,
            Err(_) => return None,
        }
    }
    None
}

/// Of each host that goes dark, the places of the wishes for its feeds.
fn dropped_feeds(world: &World, goals: &[Goal]) -> BTreeMap<usize, Vec<usize>> {
    let mut feeds: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, goal) in goals.iter().enumerate() {
        if let Some(host) = world.outlets[goal.outlet].host
            && goal.want != Want::On
            && goal.drops_host
        {
            feeds.entry(host).or_default().push(at);
        }
    }
    feeds
}

/// The same wishes, where hosts that go dark lose those feeds first whose load the others have most room for; nothing if that
/// is the order in which they are. A host's feeds go one after the other as they are wished.
fn roomiest_first(world: &World, goals: &[Goal]) -> Option<Vec<Goal>> {
    let mut other = goals.to_vec();
    for places in dropped_feeds(world, goals).values() {
        let left = |place: usize| {
            let outlet = &world.outlets[goals[place].outlet];
            let others = places.iter().filter(|of| **of != place);
            let shares = others.flat_map(|of| &world.outlets[goals[*of].outlet].over);
            let left = |share: &Share| {
                let limit = &world.limits[share.limit];
                limit.budget - limit.load - share.of(outlet.load)
            };
            shares.map(left).min().unwrap_or(i64::MAX)
        };
        let mut sorted = places.clone();
        sorted.sort_by_key(|place| Reverse(left(*place)));
        for (to, from) in places.iter().zip(&sorted) {
            other[*to] = goals[*from].clone();
        }
    }
    (other != goals).then_some(other)
}

/// Whether wishes fit at all, in one of the usual orders; and when the first of their steps begins, ms.
pub fn fits(world: &World, goals: &[Goal]) -> Result<u64, Refusal> {
    let jobs = wished(world, goals)?;
    let tails = tails(world, &jobs);
    let mut refused = Ok(0);
    for way in [Way::Tail, Way::Load] {
        let keys = keys(world, &jobs, way, &tails);
        match Run::new(world, jobs.clone(), &keys).finish() {
            Ok(made) => return Ok(made.steps.first().map_or(0, |step| step.at_ms)),
            Err(refusal) => refused = Err(refusal),
        }
    }
    refused
}

/// The steps that wishes need, bound to each other; or why they cannot be.
pub(super) fn wished(world: &World, goals: &[Goal]) -> Result<Vec<Job>, Refusal> {
    last_feeds(world, goals)?;
    needed(world, goals)?;
    let mut jobs = jobs(world, goals);
    bind(world, goals, &mut jobs)?;
    Ok(jobs)
}

/// The shortest of the plans that the usual orders make; where none is near the bound, of orders that are varied from
/// there, one after the other.
pub(super) fn tried(world: &World, jobs: &[Job]) -> Result<Plan, Refusal> {
    let tails = tails(world, jobs);
    let run = |keys: &[Key]| {
        let mut jobs = jobs.to_vec();
        for (job, key) in jobs.iter_mut().zip(keys) {
            job.ready = job.ready.max(key.4);
        }
        Run::new(world, jobs, keys).finish()
    };
    let keys = |way| keys(world, jobs, way, &tails);
    if world.by_priority {
        return run(&keys(Way::Priority));
    }
    let mut best: Option<(Plan, Vec<Key>)> = None;
    let mut refused = None;
    for way in [Way::Tail, Way::Load, Way::Peak, Way::Area] {
        let keys = keys(way);
        match (run(&keys), &best) {
            (Ok(made), Some((shortest, _))) if made.makespan_ms >= shortest.makespan_ms => {}
            // The first of thousands that fits will do: it is to be there at once.
            (Ok(made), _) if jobs.len() > MANY => return Ok(made),
            (Ok(made), _) => best = Some((made, keys)),
            // What finds no room in one order may find it in another.
            (Err(refusal), _) => refused = Some(refusal),
        }
    }
    let Some((mut best, mut keys)) = best else {
        return refused.map_or_else(|| Ok(Plan::default()), Err);
    };
    let least = super::bound::of_jobs(world, jobs);
    for seed in 0..world.tries.min(WORK / jobs.len().max(1)) {
        if best.makespan_ms * 1_000 <= least * NEAR {
            break;
        }
        let varied = varied(&keys, seed as u64, best.makespan_ms);
        if let Ok(made) = run(&varied)
            && made.makespan_ms <= best.makespan_ms
        {
            (best, keys) = (made, varied);
        }
    }
    Ok(best)
}

/// In which order the steps that wait for one device are tried. Which of the fast ones is best depends on the rack.
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
    /// The most taken for a time beside what is taken for ever first.
    Load,
}

/// Where a step stands in the queue of its device, the least first; and how long it is held back for others, ms.
pub(super) type Key = (bool, Reverse<i64>, Reverse<i64>, i64, u64);

/// What goes before what. What is switched off for good goes first: it makes room.
fn keys(world: &World, jobs: &[Job], way: Way, tails: &[u64]) -> Vec<Key> {
    let back = jobs.iter().filter(|job| job.relay == Relay::On).map(|job| job.outlet);
    let back: BTreeSet<usize> = back.collect();
    let key = |(job, tail): (&Job, &u64)| {
        let outlet = &world.outlets[job.outlet];
        let priority = i64::from(outlet.host.map_or(0, |host| world.hosts[host].priority));
        let makes_room = job.relay == Relay::Off && job.frees.is_empty();
        let tail = *tail as i64;
        let draw = outlet.draw.falling();
        let area = (draw.boot - draw.steady).saturating_mul(draw.boot_ms as i64);
        let (first, second) = match way {
            // Who matters more comes back sooner, and goes for good later.
            Way::Priority if world.first.contains(&job.outlet) => (i64::MAX, tail),
            Way::Priority if back.contains(&job.outlet) => (priority, tail),
            Way::Priority => (-priority, tail),
            Way::Tail => (tail, priority),
            Way::Peak => (tail / 10_000, draw.inrush),
            Way::Area => (tail / 5_000, area),
            Way::Load => (area / draw.steady.max(1), tail),
        };
        (!makes_room, Reverse(first), Reverse(second), draw.steady, 0)
    };
    jobs.iter().zip(tails).map(key).collect()
}

/// The same order with some steps, one in eight, moved up or down, and some held back or not any more; which, the seed
/// says. Who is held back leaves room to one that comes later and goes on for longer.
fn varied(keys: &[Key], seed: u64, makespan_ms: u64) -> Vec<Key> {
    let firsts = || keys.iter().map(|key| key.1.0);
    let spread = firsts().max().unwrap_or(0) - firsts().min().unwrap_or(0);
    let vary = |(at, key): (usize, &Key)| {
        let dice = blur(seed, at as u64);
        let by = i64::try_from(dice >> 40).unwrap_or(0) % 1_001 - 500;
        let moved = Reverse(key.1.0.saturating_add(spread / 1_000 * by));
        match dice % 32 {
            0..4 => (key.0, moved, key.2, key.3, key.4),
            4 => (key.0, key.1, key.2, key.3, (dice >> 24) % makespan_ms.max(1)),
            5..9 => (key.0, key.1, key.2, key.3, 0),
            _ => *key,
        }
    };
    keys.iter().enumerate().map(vary).collect()
}

/// A number that a seed and a place determine (SplitMix64's mixer).
fn blur(seed: u64, at: u64) -> u64 {
    let mut z = seed
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(at.wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::world::{Draw, Host, Limit, Outlet, Relays};
    use super::*;

    /// One side may carry no more, and should either side die the other could not carry all.
    #[test]
    fn a_host_goes_dark_by_the_side_that_is_full() {
        let load = [250_000, 350_000];
        let side =
            |side: usize, load| Limit { load, ..Limit::of(format!("side-{side}"), 1_000_000) };
        let dies = |side: usize| Limit {
            load: 1_500_000,
            ..Limit::of(format!("side-{side} if the other dies"), 1_000_000)
        };
        let outlet = |side: usize| Outlet {
            unsure: Vec::new(),
            id: format!("pdu-{side}/1").parse().unwrap(),
            device: side,
            over: vec![Share::whole(side), Share::whole(2), Share::whole(3)],
            relay: Relays::On,
            load: load[side],
            draw: Draw {
                inrush: load[side],
                inrush_ms: 1,
                boot: load[side],
                boot_ms: 1_000,
                steady: load[side],
            },
            min_off_ms: 0,
            off_for_ms: None,
            host: Some(0),
        };
        let world = World {
            limits: vec![side(0, 500_000), side(1, 1_000_000), dies(0), dies(1)],
            outlets: vec![outlet(0), outlet(1)],
            hosts: vec![Host {
                id: "h".parse().unwrap(),
                priority: 0,
                after: Vec::new(),
                feed_gap_ms: 0,
                hold_ms: 2_000,
                min_feeds: 1,
            }],
            step_ms: vec![1_500; 2],
            ..World::default()
        };
        let goal = |outlet| Goal { outlet, want: Want::Off, drops_host: true, why: String::new() };
        for order in [[0, 1], [1, 0]] {
            let made = plan(&world, &order.map(goal)).unwrap();
            let went: Vec<usize> = made.steps.iter().map(|step| step.outlet).collect();
            assert_eq!(went, [1, 0], "wished in the order {order:?}");
        }
    }
}
