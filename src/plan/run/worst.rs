//! What may turn out worse than it is said, asked before an outlet is switched on, or off for a while.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::OutletId;
use crate::model::time::{Span, Tick};

use super::super::memory::first_moment;
use super::super::picture::Picture;
use super::super::site::Source;
use super::super::world::{Outlet, Relays, Share, World};
use super::Runs;

/// How long it is expected of an outlet what it drew before: another machine may be behind it later.
const KNOWN: Span = Span::seconds(3_600);

impl Runs {
    /// Why an outlet that draws something is not to be switched on now though it fits by what is said, if so. `world` is
    /// the picture's.
    pub(super) fn may_be_worse(
        &self,
        picture: &Picture,
        world: &World,
        at: usize,
        now: Tick,
    ) -> Option<String> {
        let outlet = &world.outlets[at];
        // Another feed of a host that is on brings nothing that is not there already.
        let is_up = feeds(world, outlet).any(|feed| feed.relay == Relays::On);
        unconfirmed(picture, world, at).or_else(|| self.surges_meet(picture, world, at)).or_else(
            || {
                let drew = feeds(world, outlet).filter_map(|feed| self.drew(&feed.id, now)).max();
                if is_up { None } else { understated(picture, world, at, drew.unwrap_or(0)) }
            },
        )
    }

    /// What an outlet drew before it was switched off here a while ago, mVA.
    fn drew(&self, id: &OutletId, now: Tick) -> Option<i64> {
        let written = self.memory.written.get(id)?;
        let drew = self.memory.drew.get(id)?;
        (now.0 < (written.sent + KNOWN).0).then_some(*drew)
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
}

/// Why an outlet that goes off with its host, and is to come on again, would perhaps not, if so: it is not switched off then.
pub(super) fn may_stay_dark(picture: &Picture, world: &World, at: usize) -> Option<String> {
    let metered = feeds(world, &world.outlets[at]).filter(|feed| is_metered(picture, feed));
    understated(picture, world, at, metered.map(|feed| feed.load).sum())
}

/// Where what is on below a limit draws more than was said of it, so may an outlet that comes on, in proportion to what is
/// seen of that; and what it drew before, `drew` mVA, it draws again. Not even then is a rating passed.
fn understated(picture: &Picture, world: &World, at: usize, drew: i64) -> Option<String> {
    if !is_said(picture, at) {
        return None;
    }
    let outlet = &world.outlets[at];
    let said = outlet.draw.falling().boot;
    let hosts = by_host(picture, world, outlet.host);
    let (limit, beside, expected) = outlet.over.iter().find_map(|share| {
        let beside = draws_more(world, &hosts, share.limit);
        let more = beside.map_or(0, |(draws, most)| (draws - most) * said.min(most) / most);
        let expected = drew.max(said + more);
        // Without its own host, should that be on.
        let flows = world.limits[share.limit].load - own(picture, world, outlet, share.limit)
            + share.of(expected);
        let is_too_much = expected > said && flows > picture.told[share.limit].rating;
        is_too_much.then_some((share.limit, beside.filter(|_| drew < said + more), expected))
    })?;
    let (id, name) = (&outlet.id, &world.limits[limit].name);
    Some(match beside {
        Some((draws, most)) => format!(
            "what is on below {name} draws {} % of the most that the configuration says, and {id} may do so as well",
            draws * 100 / most
        ),
        None => format!(
            "what {id} feeds drew {} VA before, where the configuration says {} VA at most: too much for {name}",
            expected / 1_000,
            said / 1_000
        ),
    })
}

/// What an outlet and the other feeds of its host draw over a limit. Of those without a meter it is known only what one
/// draws if it carries the host alone.
fn own(picture: &Picture, world: &World, outlet: &Outlet, limit: usize) -> i64 {
    let (mut metered, mut alone) = (0, 0);
    for feed in feeds(world, outlet) {
        let Some(share) = feed.share(limit) else { continue };
        if is_metered(picture, feed) {
            metered += share.of(feed.load);
        } else {
            alone = share.of(feed.load).max(alone);
        }
    }
    metered + alone
}

fn is_metered(picture: &Picture, outlet: &Outlet) -> bool {
    picture.outlets.get(&outlet.id).is_some_and(|at| picture.metered.contains(at))
}

/// An outlet with the other feeds of its host.
fn feeds<'w>(world: &'w World, outlet: &'w Outlet) -> impl Iterator<Item = &'w Outlet> {
    let is_feed = |other: &&Outlet| other.host.is_some() && other.host == outlet.host;
    let others = world.outlets.iter().filter(is_feed).filter(|other| other.id != outlet.id);
    others.chain([outlet])
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

/// All hosts but one, by place. Of each all feeds together, as what it draws moves between them; what is said of each holds for
/// when it carries the host alone.
fn by_host(picture: &Picture, world: &World, except: Option<usize>) -> BTreeMap<usize, Host> {
    let mut of: BTreeMap<usize, Host> = BTreeMap::new();
    for (at, outlet) in world.outlets.iter().enumerate() {
        let Some(host) = outlet.host.filter(|host| Some(*host) != except) else { continue };
        if outlet.relay == Relays::Off {
            continue;
        }
        let known = picture.metered.contains(&at) && is_said(picture, at);
        // Who needs several feeds never has to live on one.
        let feeds = i64::try_from(world.hosts[host].min_feeds).unwrap_or(1).max(1);
        let said = outlet.draw.falling().boot.saturating_mul(feeds);
        let sum = of.entry(host).or_insert(Some((0, 0)));
        *sum = sum.filter(|_| known).map(|(draws, most)| (draws + outlet.load, most.max(said)));
    }
    of
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
