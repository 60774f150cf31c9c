//! The limits above the PDUs that the site configures: feeds, busways, rooms; pairs of feeds that stand in for each
//! other; and what every limit on one side has to carry when the other side dies.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::time::Tick;

use super::picture::{Picture, Told, mva};
use super::site::{Amperes, Feed, Member, Site};
use super::world::{Outlet, Share};

/// What hangs on a configured limit.
struct Below {
    /// Outlets, by place: how much of each flows through it, thousandths, and whether it is perhaps not below it.
    under: BTreeMap<usize, (i64, bool)>,
    load: i64,
    seen: Option<Tick>,
    /// A member that is not known.
    lost: Option<String>,
}

impl Picture {
    /// What the site configures above its PDUs, and the pairs that stand in for each other.
    pub(super) fn feeds(&mut self, site: &Site) {
        let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (id, feed) in &site.feeds {
            let below = self.hanging_on(id, site);
            // Who does not know what hangs on a feed knows of no room on it.
            let (load, how) = match &below.lost {
                None => (below.load, "its load is the sum of what hangs on it".to_owned()),
                Some(lost) => (
                    below.load.max(feed.rating),
                    format!("{lost} is not known, so it counts as full"),
                ),
            };
            let told = configured(feed, site, &how, below.seen);
            let limit = self.limit(id.clone(), load, told);
            for (at, (permille, unsure)) in &below.under {
                let outlet = &mut self.world.outlets[*at];
                outlet.over.push(Share { limit, permille: *permille });
                outlet.unsure.extend(unsure.then_some(limit));
            }
            if let Some(amperes) = feed.amperes.filter(|of| of.phases == 3) {
                for line in 0..3 {
                    self.line_of(id, feed, amperes, line, &below, site);
                }
            }
            members.insert(id, below.under.into_keys().collect());
        }
        for (id, feed) in &site.feeds {
            let Some(other) = feed.pair.as_ref().filter(|other| *other > id) else { continue };
            let (Some(own), Some(theirs), Some(twin)) =
                (members.get(id.as_str()), members.get(other.as_str()), site.feeds.get(other))
            else {
                continue;
            };
            let under: BTreeSet<usize> = own.iter().chain(theirs).copied().collect();
            let load = under.iter().map(|at| self.world.outlets[*at].load).sum();
            let told = Told {
                kind: "pair".into(),
                rating: feed.rating.min(twin.rating),
                amperes: None,
                derating: 100,
                inrush: feed.inrush.or(site.inrush).unwrap_or(100).max(100),
                why: "either must carry both when the other dies".into(),
                seen: self.seen_of(&under),
                phases: 1,
            };
            let limit = self.limit(format!("{id} or {other} alone"), load, told);
            for at in under {
                self.world.outlets[at].over.push(Share::whole(limit));
            }
        }
    }

    /// One of the three phases of a configured limit: its breaker trips on the fullest, whatever their sum. What nobody
    /// knows the phase of counts on each.
    fn line_of(
        &mut self,
        id: &str,
        feed: &Feed,
        amperes: Amperes,
        line: usize,
        below: &Below,
        site: &Site,
    ) {
        let lines = site.lines_below(id);
        let limit = self.world.limits.len();
        let mut shares: BTreeMap<usize, (Share, bool)> = BTreeMap::new();
        for at in below.under.keys() {
            let pdu = &self.world.outlets[*at].id.pdu;
            let may_be_on = &self.lines[*at];
            let (permille, unsure) = match (may_be_on.is_empty(), lines.get(pdu)) {
                (true, Some(own)) => (if *own == line { 1_000 } else { 0 }, false),
                (true, None) => (1_000, true),
                (false, _) => {
                    let own = may_be_on.iter().find(|(at, _)| *at == line);
                    let sum: i64 = may_be_on.iter().map(|(_, permille)| permille).sum();
                    (own.map_or(0, |(_, permille)| *permille), sum > 1_500)
                }
            };
            if permille > 0 {
                shares.insert(*at, (Share { limit, permille }, unsure));
            }
        }
        let flows = |at: &usize| {
            shares.get(at).map_or(0, |(share, _)| share.of(self.world.outlets[*at].load))
        };
        let of_member = |member: &Member| {
            let sum: i64 = self.below(member).iter().map(flows).sum();
            let Member::Pdu(pdu) = member else { return sum };
            let measured = match self.flows.get(pdu) {
                // A line that is not read may carry all that the inlet does.
                Some(flows) => flows[line].or_else(|| self.inlets.get(pdu).copied().flatten()),
                None if lines.get(pdu).is_none_or(|own| *own == line) => {
                    self.inlets.get(pdu).copied().flatten()
                }
                None => None,
            };
            sum.max(measured.unwrap_or(0))
        };
        let load: i64 = site.members(id).into_iter().map(of_member).sum();
        let rating = mva(amperes.milliamperes, amperes.millivolts);
        let unsure = shares.values().any(|(_, unsure)| *unsure);
        let how = match &below.lost {
            None if unsure => {
                "what hangs on it; of some of that nobody knows the phase, so it counts on each"
            }
            None => "what hangs on it",
            Some(_) => "not known, so it counts as full",
        };
        // What the configuration says of a PDU that knows better is told, since it is not what counts.
        let own = lines.iter().filter(|(pdu, _)| self.flows.contains_key(*pdu));
        let unheeded: String = own
            .map(|(pdu, own)| {
                format!("; {pdu} has phases of its own, so @L{} is not heeded", own + 1)
            })
            .collect();
        let name = format!("{id}/L{}", line + 1);
        let told = Told {
            kind: "phase".into(),
            rating,
            phases: 1,
            why: format!(
                "one of the three phases of {id}, {} A at {} V; its load is {how}{unheeded}",
                amperes.milliamperes / 1_000,
                amperes.millivolts / 1_000
            ),
            ..configured(feed, site, "", below.seen)
        };
        let load = if below.lost.is_some() { load.max(rating) } else { load };
        let limit = self.limit(name, load, told);
        for (at, (share, unsure)) in shares {
            let outlet = &mut self.world.outlets[at];
            outlet.over.push(share);
            outlet.unsure.extend(unsure.then_some(limit));
        }
    }

    fn hanging_on(&self, feed: &str, site: &Site) -> Below {
        let (mut load, mut lost) = (0, None);
        let mut under: BTreeMap<usize, (i64, bool)> = BTreeMap::new();
        for member in site.members(feed) {
            let own = self.below(member);
            let sum: i64 = own.iter().map(|at| self.world.outlets[*at].load).sum();
            // The meter of a branch or phase knows, also where nobody knows which outlets it is of.
            let measured = match member {
                Member::Part(pdu, part) => self.measured(&format!("{pdu}/{part}")),
                _ => None,
            };
            load += match member {
                Member::Pdu(pdu) => {
                    if let Some(Some(inlets)) = self.inlets.get(pdu) {
                        sum.max(*inlets)
                    } else {
                        lost = Some(pdu.to_string());
                        0
                    }
                }
                Member::Part(pdu, part) => {
                    if own.is_empty() {
                        lost = Some(format!("{pdu}/{part}"));
                    }
                    measured.map_or(sum, |limit| self.world.limits[limit].load)
                }
                Member::Outlet(outlet) => {
                    if own.is_empty() {
                        lost = Some(outlet.to_string());
                    }
                    sum
                }
                Member::Feed(_) => 0,
            };
            for at in own {
                let outlet = &self.world.outlets[at];
                let share = measured.and_then(|limit| outlet.share(limit));
                let permille = share.map_or(1_000, |share| share.permille);
                let unsure = share.is_some_and(|share| outlet.unsure.contains(&share.limit));
                let of = under.entry(at).or_insert((0, unsure));
                // Between two lines it is on both; of branches that it may be on it is on one.
                let both = share.is_some() && !unsure && !of.1;
                *of = (if both { of.0 + permille } else { of.0.max(permille) }, unsure || of.1);
            }
        }
        let seen = self.seen_of(&under.keys().copied().collect());
        Below { under, load, seen, lost }
    }

    /// The limit of a branch or phase that is rated and whose load is measured.
    fn measured(&self, name: &str) -> Option<usize> {
        let at = self.world.limits.iter().position(|limit| limit.name == name)?;
        self.told[at].seen.map(|_| at)
    }

    /// When the oldest of what hangs on a limit was read.
    fn seen_of(&self, under: &BTreeSet<usize>) -> Option<Tick> {
        let pdus: BTreeSet<_> = under.iter().map(|at| &self.world.outlets[*at].id.pdu).collect();
        pdus.into_iter().map(|pdu| self.seen.get(pdu).copied().flatten()).min().flatten()
    }

    /// The outlets that a member of a feed stands for, by place. One of which nobody knows the branch counts on each.
    fn below(&self, member: &Member) -> Vec<usize> {
        let is_below = |at: usize, outlet: &Outlet| match member {
            Member::Pdu(pdu) => outlet.id.pdu == *pdu,
            Member::Outlet(id) => outlet.id == *id,
            Member::Part(pdu, part) => outlet.id.pdu == *pdu && self.parts[at].contains(part),
            Member::Feed(_) => false,
        };
        let outlets = self.world.outlets.iter().enumerate();
        outlets.filter(|(at, outlet)| is_below(*at, outlet)).map(|(at, _)| at).collect()
    }

    /// When one side of a pair dies, what its hosts drew there moves to their feeds on the other: every limit on that
    /// side must be able to carry it as well.
    pub(super) fn failovers(&mut self, site: &Site) {
        for (dies, feed) in &site.feeds {
            let Some(lives) = feed.pair.as_deref() else { continue };
            let (dead, live) = (self.under(dies, site), self.under(lives, site));
            let dead: Vec<usize> = dead.difference(&live).copied().collect();
            let mut below: BTreeMap<usize, Vec<(usize, Share)>> = BTreeMap::new();
            for (at, outlet) in self.world.outlets.iter().enumerate() {
                for share in &outlet.over {
                    below.entry(share.limit).or_default().push((at, *share));
                }
            }
            for (limit, own) in below {
                // Whatever else hangs on it: what moves comes on top. What dies and is below it as well only moves within it.
                let is_on_side = own.iter().any(|(at, _)| live.contains(at));
                let within: BTreeSet<usize> = own.iter().map(|(at, _)| *at).collect();
                let moves: Vec<usize> =
                    dead.iter().copied().filter(|at| !within.contains(at)).collect();
                let kind = self.told[limit].kind.as_str();
                if is_on_side && !matches!(kind, "outlet" | "failover" | "pair") {
                    self.failover(dies, limit, &own, (&moves, &live));
                }
            }
        }
    }

    fn failover(
        &mut self,
        dies: &str,
        limit: usize,
        own: &[(usize, Share)],
        (dead, live): (&[usize], &BTreeSet<usize>),
    ) {
        let outlets = &self.world.outlets;
        // Which of its feeds below the limit a host then uses is not known: the one that weighs most.
        // Of a feed that is perhaps not below the limit an off frees nothing, nor of what moves to such a one alone.
        let is_unsure = |at: usize| outlets[at].unsure.contains(&limit);
        let through = |host: usize| {
            let is_feed = |at: &usize| live.contains(at) && outlets[*at].host == Some(host);
            let feeds = || own.iter().filter(|(at, _)| is_feed(at));
            let most = feeds().map(|(_, share)| share.permille).max()?;
            let certain = feeds().filter(|(at, _)| !is_unsure(*at));
            Some((most, certain.map(|(_, share)| share.permille).max() != Some(most)))
        };
        let moved: Vec<(usize, i64, bool)> = dead
            .iter()
            .filter_map(|at| {
                let (permille, unsure) = through(outlets[*at].host?)?;
                Some((*at, permille, unsure))
            })
            .collect();
        if moved.is_empty() {
            return;
        }
        let of = self.told[limit].clone();
        let share = |permille| Share { limit: self.world.limits.len(), permille };
        let load = moved.iter().map(|(at, permille, _)| share(*permille).of(outlets[*at].load));
        let load = self.world.limits[limit].load + load.sum::<i64>();
        let name = format!("{} if {dies} dies", self.world.limits[limit].name);
        let told = Told {
            kind: "failover".into(),
            derating: 100,
            inrush: of.inrush.max(100),
            why: format!("what the hosts draw from {dies} moves here when it dies"),
            ..of
        };
        let own = own.iter().map(|(at, share)| (*at, share.permille, is_unsure(*at)));
        let below: Vec<(usize, i64, bool)> = own.chain(moved).collect();
        let limit = self.limit(name, load, told);
        for (at, permille, unsure) in below {
            let outlet = &mut self.world.outlets[at];
            outlet.over.push(Share { limit, permille });
            outlet.unsure.extend(unsure.then_some(limit));
        }
    }

    fn under(&self, feed: &str, site: &Site) -> BTreeSet<usize> {
        site.members(feed).into_iter().flat_map(|member| self.below(member)).collect()
    }
}

fn configured(feed: &Feed, site: &Site, how: &str, seen: Option<Tick>) -> Told {
    let amperes = feed.amperes.map(|of| (of.milliamperes, of.millivolts));
    let rated = feed.amperes.map_or(String::new(), |of| {
        let phases =
            if of.phases > 1 { format!(" on {} phases", of.phases) } else { String::new() };
        format!(" as {} A at {} V{phases}", of.milliamperes / 1_000, of.millivolts / 1_000)
    });
    let derating = feed.derating.unwrap_or(site.derating);
    Told {
        kind: feed.kind.clone(),
        rating: feed.rating,
        amperes,
        derating,
        inrush: feed.inrush.or(site.inrush).unwrap_or(derating),
        why: format!("configured{rated}; {how}"),
        seen,
        phases: feed.amperes.map_or(1, |of| of.phases),
    }
}
