//! What may turn out worse than it is said, asked before an outlet is switched on.

use std::collections::{BTreeMap, BTreeSet};

use super::super::memory::first_moment;
use super::super::picture::Picture;
use super::super::site::Source;
use super::super::world::{Outlet, Relays, Share, World};
use super::Runs;

impl Runs {
    /// Why an outlet that draws something is not to be switched on now though it fits by what is said, if so. `world` is
    /// the picture's.
    pub(super) fn may_be_worse(
        &self,
        picture: &Picture,
        world: &World,
        at: usize,
    ) -> Option<String> {
        unconfirmed(picture, world, at)
            .or_else(|| self.surges_meet(picture, world, at))
            .or_else(|| self.understated(picture, world, at))
    }

    /// It may turn out that another outlet is switched than was meant: where first moments fall together, each counts as
    /// the worst that it could be.
    fn surges_meet(&self, picture: &Picture, world: &World, at: usize) -> Option<String> {
        let (moment, _) = first_moment(world, at, &self.memory);
        let (limit, _) = moment.into_iter().find(|(limit, first)| {
            let surging = picture.surging.get(limit).copied().unwrap_or(0);
            let of = &world.limits[*limit];
            let boot = world.outlets[at].share(*limit).map_or(0, |share| boots(world, at, &share));
            surging > 0 && of.load + surging + boot + first > of.peak
        })?;
        Some(format!(
            "what was switched on a moment ago may still surge on {}, and no meter has shown yet which outlets these are",
            world.limits[limit].name
        ))
    }

    /// Where what is on draws more than was said of it, so may this: not even then is a rating passed. Another feed of a host
    /// that is on brings nothing that is not there already; and what an outlet drew before it went off here is known.
    fn understated(&self, picture: &Picture, world: &World, at: usize) -> Option<String> {
        let outlet = &world.outlets[at];
        let is_up = |other: &Outlet| other.host == outlet.host && other.relay == Relays::On;
        if !is_said(picture, at)
            || self.memory.drew.contains_key(&outlet.id)
            || outlet.host.is_some() && world.outlets.iter().any(is_up)
        {
            return None;
        }
        let (limit, permille) = outlet.over.iter().find_map(|share| {
            let permille = draws_more(picture, world, share.limit)?;
            let flows = world.limits[share.limit].load + boots(world, at, share) * permille / 1_000;
            (flows > picture.told[share.limit].rating).then_some((share.limit, permille))
        })?;
        Some(format!(
            "what is on below {} draws {} % of the most that the configuration says, and {} may do so as well",
            world.limits[limit].name,
            permille / 10,
            outlet.id
        ))
    }
}

fn boots(world: &World, at: usize, share: &Share) -> i64 {
    share.of(world.outlets[at].draw.falling().boot)
}

/// What no meter has confirmed may turn out to be twice what was said of it: not even then is a rating passed.
fn unconfirmed(picture: &Picture, world: &World, at: usize) -> Option<String> {
    let share = world.outlets[at].over.iter().find(|share| {
        let unconfirmed = picture.unconfirmed.get(&share.limit).copied().unwrap_or(0);
        let flows = world.limits[share.limit].load + unconfirmed + boots(world, at, share);
        unconfirmed > 0 && flows > picture.told[share.limit].rating
    })?;
    Some(format!(
        "what was switched on a moment ago is not in the meters of {} yet, and may be more than was said",
        world.limits[share.limit].name
    ))
}

/// Whether the configuration says what an outlet draws.
fn is_said(picture: &Picture, at: usize) -> bool {
    matches!(picture.sources[at].0, Source::Outlet | Source::Host)
}

/// What draws at present below a limit, in thousandths of the most that the site says of it; nothing if that is no more than
/// it says. Of hosts, as what one draws moves between its feeds; only those whose feeds are all metered.
fn draws_more(picture: &Picture, world: &World, limit: usize) -> Option<i64> {
    let is_below = |outlet: &Outlet| outlet.relay == Relays::On && outlet.share(limit).is_some();
    let below = world.outlets.iter().filter(|outlet| is_below(outlet));
    let hosts: BTreeSet<usize> = below.filter_map(|outlet| outlet.host).collect();
    // By host: what it draws and what was said, while all of it is known.
    let mut of: BTreeMap<usize, Option<(i64, i64)>> = BTreeMap::new();
    for (at, outlet) in world.outlets.iter().enumerate() {
        let Some(host) = outlet.host.filter(|host| hosts.contains(host)) else { continue };
        if outlet.relay == Relays::Off {
            continue;
        }
        let known = picture.metered.contains(&at) && is_said(picture, at);
        let sum = of.entry(host).or_insert(Some((0, 0)));
        *sum = sum
            .filter(|_| known)
            .map(|(draws, most)| (draws + outlet.load, most.max(outlet.draw.falling().boot)));
    }
    let all = of.values().flatten();
    let (draws, most) = all.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    (most > 0 && draws > most).then(|| draws * 1_000 / most)
}
