//! When each outlet is to come on after all of the rack lost its power and has it back: the delays that PDUs keep
//! themselves, so that the rack comes up within its limits also while no gateway is there to see to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::{OutletId, PduId};
use crate::model::time::Span;

use super::picture::{Picture, STEP_MS};
use super::planner::Refusal;
use super::search::plan;
use super::world::{Goal, Relays, Want, World};

/// What is drawn is rounded up to so many mVA: a reading that wavers changes no delay.
const ROUGHLY: i64 = 50_000;

/// What is known of outlets when all of them get their power back.
#[derive(Debug, Default)]
pub struct Delays {
    /// Those whose delays are asked for.
    pub settable: Vec<OutletId>,
    /// Those that stay off.
    pub stays_off: Vec<OutletId>,
    /// Those that come on at once. All others may at any time, and have room for their first moment all the time.
    pub at_once: Vec<OutletId>,
    /// What passes at least between two outlets of a PDU, where it keeps them apart.
    pub apart: BTreeMap<PduId, Span>,
    /// What passes before the first outlet of a PDU, where it waits.
    pub before: BTreeMap<PduId, Span>,
    /// Of those whose delays are asked for the ones that go before all others, as their PDU can let none of them wait.
    pub first: BTreeSet<OutletId>,
}

/// The delay of each of these outlets, ms, a multiple of `unit_ms`; hosts by their priority and what they come after.
/// What flows through a limit and is of no outlet that is known goes on.
pub fn onsets(
    picture: &Picture,
    delays: &Delays,
    unit_ms: u64,
) -> Result<BTreeMap<OutletId, u64>, Refusal> {
    let unit_ms = unit_ms.max(1);
    let mut picture = picture.clone();
    picture.all_alone();
    let mut world = std::mem::take(&mut picture.world);
    world.by_priority = true;
    for outlet in &world.outlets {
        let apart = delays.apart.get(&outlet.id.pdu).map_or(0, |apart| apart.0);
        let step = &mut world.step_ms[outlet.device];
        *step = (*step).max(apart);
    }
    rounded(&mut world, unit_ms);
    let places = |outlets: &[OutletId]| -> Vec<usize> {
        outlets.iter().filter_map(|outlet| picture.outlets.get(outlet).copied()).collect()
    };
    let mut set = places(&delays.settable);
    let (off, at_once) = (places(&delays.stays_off), places(&delays.at_once));
    for outlet in &world.outlets {
        for share in &outlet.over {
            world.limits[share.limit].load -= share.of(outlet.load);
        }
    }
    for limit in &mut world.limits {
        (limit.load, limit.surge, limit.surge_ms) = (roughly(limit.load.max(0)), 0, 0);
    }
    for at in 0..world.outlets.len() {
        let outlet = &mut world.outlets[at];
        (outlet.min_off_ms, outlet.off_for_ms) = (0, None);
        (outlet.relay, outlet.load) = (Relays::Off, 0);
        if set.contains(&at) {
            let before = delays.before.get(&outlet.id.pdu).map_or(0, |before| before.0);
            outlet.min_off_ms = before.div_ceil(unit_ms) * unit_ms;
            outlet.off_for_ms = Some(0);
        }
        if set.contains(&at) || off.contains(&at) {
            continue;
        }
        let draw = outlet.draw;
        let load = if at_once.contains(&at) { draw.boot } else { draw.inrush.max(draw.boot) };
        (outlet.relay, outlet.load) = (Relays::On, load);
        for share in outlet.over.clone() {
            let limit = &mut world.limits[share.limit];
            limit.load += share.of(load);
            limit.surges(share.of(draw.inrush - load), draw.inrush_ms);
        }
    }
    // Of the feeds of a host it is the first as well.
    world.first =
        delays.first.iter().filter_map(|outlet| picture.outlets.get(outlet)).copied().collect();
    let goal = |outlet: &usize| {
        let why = "the rack has its power back".to_owned();
        Goal { outlet: *outlet, want: Want::On, drops_host: true, why }
    };
    set.sort_by_key(|outlet| !world.first.contains(outlet));
    let goals: Vec<Goal> = set.iter().map(goal).collect();
    let made = plan(&world, &goals)?;
    let steps = made.steps.iter();
    Ok(steps.map(|step| (world.outlets[step.outlet].id.clone(), step.at_ms)).collect())
}

fn roughly(mva: i64) -> i64 {
    (mva + ROUGHLY - 1).div_euclid(ROUGHLY) * ROUGHLY
}

/// Every time in it a multiple of the unit, so that the steps begin at multiples of it.
fn rounded(world: &mut World, unit_ms: u64) {
    let up = |ms: u64| ms.div_ceil(unit_ms) * unit_ms;
    world.hold_ms = up(world.hold_ms);
    for step_ms in &mut world.step_ms {
        *step_ms = up(STEP_MS.max(*step_ms));
    }
    for host in &mut world.hosts {
        (host.feed_gap_ms, host.hold_ms) = (up(host.feed_gap_ms), up(host.hold_ms));
    }
    for outlet in &mut world.outlets {
        let mut draw = outlet.draw.falling();
        (draw.inrush_ms, draw.boot_ms) = (up(draw.inrush_ms), up(draw.boot_ms));
        (draw.steady, draw.boot) = (roughly(draw.steady), roughly(draw.boot));
        draw.inrush = roughly(draw.inrush);
        outlet.draw = draw;
    }
}
