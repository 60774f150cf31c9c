//! What may turn out worse than it is said, asked before an outlet is switched on.

use std::collections::{BTreeMap, BTreeSet};

use super::super::memory::first_moment;
use super::super::picture::Picture;
use super::super::site::Source;
use super::super::world::{Outlet, Relays, Share, World};
use super::Runs;

impl Runs {
    /// Why an outlet that draws something is not to be switched on now though it fits by what is said, if so. `world` is
    /// the picture's; `was_on`: the plan that wants it on has switched it off.
    pub(super) fn may_be_worse(
        &self,
        picture: &Picture,
        world: &World,
        at: usize,
        was_on: bool,
    ) -> Option<String> {
        unconfirmed(picture, world, at)
            .or_else(|| self.surges_meet(picture, world, at))
            .or_else(|| self.understated(picture, world, at, was_on))
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
    /// that is on brings nothing that is not there already.
    fn understated(
        &self,
        picture: &Picture,
        world: &World,
        at: usize,
        was_on: bool,
    ) -> Option<String> {
        let outlet = &world.outlets[at];
        let is_up = |other: &Outlet| other.host == outlet.host && other.relay == Relays::On;
        if !is_said(picture, at) || outlet.host.is_some() && world.outlets.iter().any(is_up) {
            return None;
        }
        let said = outlet.draw.falling().boot;
        let drew = self.drew(world, at);
        // What no meter shows by outlet was there all the same until its plan switched it off.
        if drew.is_none() && was_on {
            return None;
        }
        let hosts = by_host(picture, world);
        let (limit, beside, expected) = outlet.over.iter().find_map(|share| {
            let beside = draws_more(world, &hosts, share.limit);
            let may =
                said + beside.map_or(0, |(draws, most)| (draws - most) * said.min(most) / most);
            let bounds = drew.map_or((may, may), |(least, most)| (said.max(least), said.max(most)));
            let expected = may.clamp(bounds.0, bounds.1);
            let flows = world.limits[share.limit].load + share.of(expected);
            let is_too_much = expected > said && flows > picture.told[share.limit].rating;
            is_too_much.then_some((share.limit, beside.filter(|_| expected <= may), expected))
        })?;
        let (id, name) = (&outlet.id, &world.limits[limit].name);
        Some(match beside {
            Some((draws, most)) => format!(
                "what is on below {name} draws {} % of the most that the configuration says, and {id} may do so as well",
                draws * 100 / most
            ),
            None => format!(
                "{id} drew {} VA before it went off, where the configuration says {} VA at most: too much for {name}",
                expected / 1_000,
                said / 1_000
            ),
        })
    }

    /// What an outlet, or the host that it feeds, drew before it was switched off here, if that is known: between the most
    /// of one feed and the sum of all, as what one drew moved to the next when they went off one after the other. In mVA.
    fn drew(&self, world: &World, at: usize) -> Option<(i64, i64)> {
        let outlet = &world.outlets[at];
        let is_feed = |other: &&Outlet| outlet.host.is_some() && other.host == outlet.host;
        let others = world.outlets.iter().filter(is_feed).filter(|other| other.id != outlet.id);
        let feeds = others.chain([outlet]).filter_map(|feed| self.memory.drew.get(&feed.id));
        feeds.fold(None, |of, drew| {
            let (most, sum) = of.unwrap_or((0, 0));
            Some((most.max(*drew), sum + drew))
        })
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

/// What a host draws at present and the most that the site says of it, mVA; nothing where a feed of it is on without a meter,
/// or nothing is said.
type Host = Option<(i64, i64)>;

/// All hosts, by place. Of each all feeds together, as what it draws moves between them.
fn by_host(picture: &Picture, world: &World) -> BTreeMap<usize, Host> {
    // What is said of a host holds for each of its feeds, what is said of an outlet only for that.
    let mut of: BTreeMap<usize, Option<(i64, i64, i64)>> = BTreeMap::new();
    for (at, outlet) in world.outlets.iter().enumerate() {
        let Some(host) = outlet.host else { continue };
        let is_shown = outlet.relay == Relays::Off || picture.metered.contains(&at);
        let boot = outlet.draw.falling().boot;
        let said = match picture.sources[at].0 {
            Source::Outlet => Some((boot, 0)),
            Source::Host => Some((0, boot)),
            _ => None,
        };
        let sum = of.entry(host).or_insert(Some((0, 0, 0)));
        *sum = sum.filter(|_| is_shown).zip(said).map(|((draws, own, hosts), said)| {
            (draws + outlet.load, own + said.0, hosts.max(said.1))
        });
    }
    of.into_iter()
        .map(|(host, sum)| (host, sum.map(|(draws, own, hosts)| (draws, own.max(hosts)))))
        .collect()
}

/// What the hosts below a limit draw and the most that the site says of them, mVA, as far as that is known; nothing unless
/// they draw more.
fn draws_more(world: &World, hosts: &BTreeMap<usize, Host>, limit: usize) -> Host {
    let is_below = |outlet: &&Outlet| outlet.relay == Relays::On && outlet.share(limit).is_some();
    let below: BTreeSet<usize> =
        world.outlets.iter().filter(is_below).filter_map(|outlet| outlet.host).collect();
    let known = below.iter().filter_map(|host| *hosts.get(host)?);
    let (draws, most) = known.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    (most > 0 && draws > most).then_some((draws, most))
}
