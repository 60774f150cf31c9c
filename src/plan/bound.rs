//! A bound below which no plan can end, whatever its order: for judging the planner.

use crate::model::switching::Relay;

use super::jobs::{Until, bind, jobs};
use super::planner::Plan;
use super::world::{Goal, World};

/// A lower bound on the makespan of a plan's steps, ms: the devices' own time, the chains of each host, and for every
/// limit the room that its starts take beyond what they draw ever after.
pub fn lower(world: &World, goals: &[Goal], plan: &Plan) -> u64 {
    let ons: Vec<usize> =
        plan.steps.iter().filter(|s| s.relay == Relay::On).map(|s| s.outlet).collect();
    let settles = |outlet: &usize| {
        let outlet = &world.outlets[*outlet];
        world.step_ms[outlet.device] + outlet.draw.settles_ms()
    };
    let longest = ons.iter().map(settles).max().unwrap_or(0);
    let by_device = (0..world.step_ms.len()).map(|device| by_device(world, plan, device));
    let by_limit = (0..world.limits.len()).map(|limit| by_limit(world, plan, &ons, limit));
    by_device.chain(by_limit).max().unwrap_or(0).max(longest).max(by_chain(world, goals))
}

/// The longest chain of steps that wait for each other.
fn by_chain(world: &World, goals: &[Goal]) -> u64 {
    let mut jobs = jobs(world, goals);
    if bind(world, goals, &mut jobs).is_err() {
        return 0;
    }
    let mut free: Vec<usize> = (0..jobs.len()).filter(|at| jobs[*at].waits == 0).collect();
    let mut longest = 0;
    while let Some(at) = free.pop() {
        let outlet = &world.outlets[jobs[at].outlet];
        let done = jobs[at].ready + world.step_ms[outlet.device];
        let is_on = jobs[at].relay == Relay::On;
        let up = done + if is_on { outlet.draw.settles_ms() } else { 0 };
        longest = longest.max(up);
        for (then, until, pause) in jobs[at].frees.clone() {
            let from = if until == Until::Up { up } else { done };
            let job = &mut jobs[then];
            job.ready = job.ready.max(from + pause);
            job.waits -= 1;
            if job.waits == 0 {
                free.push(then);
            }
        }
    }
    longest
}

/// A device's steps follow each other, and the last of them settles.
fn by_device(world: &World, plan: &Plan, device: usize) -> u64 {
    let own = plan.steps.iter().filter(|step| world.outlets[step.outlet].device == device);
    let (mut count, mut least) = (0, u64::MAX);
    for step in own {
        count += 1;
        let settles =
            if step.relay == Relay::On { world.outlets[step.outlet].draw.settles_ms() } else { 0 };
        least = least.min(settles);
    }
    if count == 0 { 0 } else { count * world.step_ms[device] + least }
}

/// Each start takes, beyond its steady load, an area of mVA·ms out of what the limit has left; and what is left shrinks
/// by every steady load that was added. Least time goes by if those come first that add least for ever for the area
/// that they take.
fn by_limit(world: &World, plan: &Plan, ons: &[usize], limit: usize) -> u64 {
    let freed: i64 = plan
        .steps
        .iter()
        .filter(|step| step.relay == Relay::Off)
        .map(|step| &world.outlets[step.outlet])
        .filter(|outlet| outlet.limits.contains(&limit))
        .map(|outlet| outlet.load)
        .sum();
    let mut room = world.limits[limit].budget - world.limits[limit].load + freed;
    let mut starts: Vec<(i128, i64)> = ons
        .iter()
        .map(|at| &world.outlets[*at])
        .filter(|outlet| outlet.limits.contains(&limit))
        .map(|outlet| {
            let draw = outlet.draw.falling();
            let step = world.step_ms[outlet.device];
            let area = i128::from(draw.inrush - draw.steady) * i128::from(step + draw.inrush_ms)
                + i128::from(draw.boot - draw.steady) * i128::from(draw.boot_ms);
            (area, draw.steady)
        })
        .collect();
    // steady / area, ascending.
    starts.sort_by(|a, b| (i128::from(a.1) * b.0).cmp(&(i128::from(b.1) * a.0)));
    let mut time = 0;
    for (area, steady) in starts {
        if room <= 0 {
            break;
        }
        time += area / i128::from(room);
        room -= steady;
    }
    u64::try_from(time).unwrap_or(u64::MAX)
}
