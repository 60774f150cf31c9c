//! What the site says about its rack beyond what the PDUs tell: hosts and their feeds, limits above the PDUs, wiring,
//! what is never switched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::id::{GroupId, HostId, OutletId, PduId};
use crate::model::time::Span;

use super::hosts::Hosts;
use super::world::Draw;

/// What becomes of a host that a plan switched off to switch it on again, and could not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Safe {
    /// It stays as it is.
    #[default]
    Stay,
    /// It is switched on, as soon as that is certain to be safe.
    On,
    /// What is left of it is switched off.
    Off,
}

/// What becomes of a plan when a host's webhook does not answer in time, or not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// It stops.
    Stop,
    /// It goes on.
    GoOn,
}

/// A host (load) and its feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name.
    pub name: String,
    /// The outlets that feed it.
    pub outlets: Vec<OutletId>,
    /// How long a cycle keeps it off.
    pub hold: Option<Span>,
    /// Pause between its feeds.
    pub feed_gap: Span,
    /// Higher ones are switched on first and off last.
    pub priority: i32,
    /// Hosts that have to be up before it.
    pub after: Vec<HostId>,
    /// How long its outlets have to be off before they are switched on.
    pub min_off: Span,
    /// How many of its feeds stay on while it is not to go dark.
    pub min_feeds: usize,
    /// What it draws, if the site says so: each of its feeds may have to carry it alone.
    pub draw: Option<Draw>,
    /// What becomes of it when a cycle is cut off in the middle.
    pub safe: Safe,
    /// It has a webhook before it goes dark.
    pub before_off: Option<NoAnswer>,
    /// It has a webhook after it has come up.
    pub after_on: Option<NoAnswer>,
}

impl HostSpec {
    /// A host of which nothing is said but its feeds.
    pub fn fed_by(name: &str, outlets: Vec<OutletId>) -> Self {
        Self {
            name: name.to_owned(),
            outlets,
            hold: None,
            feed_gap: Span(0),
            priority: 0,
            after: Vec::new(),
            min_off: Span(0),
            min_feeds: 1,
            draw: None,
            safe: Safe::Stay,
            before_off: None,
            after_on: None,
        }
    }
}

/// A group of what is switched together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// Hosts.
    pub hosts: Vec<HostId>,
    /// Outlets beside them.
    pub outlets: Vec<OutletId>,
}

/// What the site says of one outlet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutletSpec {
    /// What it draws.
    pub draw: Option<Draw>,
    /// The phases that it is on, by their names: one, two (between them) or three.
    pub phases: Vec<String>,
    /// The branch that it is on, by its name.
    pub branch: Option<String>,
}

/// What a configured limit stands above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// All of a PDU.
    Pdu(PduId),
    /// A branch or phase of a PDU, by its name.
    Part(PduId, String),
    /// An outlet.
    Outlet(OutletId),
    /// Another configured limit, with all below it.
    Feed(String),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Pdu(pdu) => write!(f, "{pdu}"),
            Member::Part(pdu, part) => write!(f, "{pdu}/{part}"),
            Member::Outlet(outlet) => write!(f, "{outlet}"),
            Member::Feed(id) => write!(f, "limit:{id}"),
        }
    }
}

/// A limit that the site configures: a rack, a feed, a busway, a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// What it is: `feed`, `rack`, `busway`, `room`, …
    pub kind: String,
    /// Rated, mVA.
    pub rating: i64,
    /// The same in amperes on so many phases, where the site says it so: mA, volts of a phase.
    pub amperes: Option<Amperes>,
    /// Of the rating, percent; nothing for the site's own.
    pub derating: Option<i64>,
    /// Of the rating in the first moment of a load, percent; nothing for the site's own.
    pub inrush: Option<i64>,
    /// What it stands above.
    pub of: Vec<Member>,
    /// PDUs of one phase among that, and on which of its three they are, from 0.
    pub lines: BTreeMap<PduId, usize>,
    /// The other feed that it stands in for when that dies.
    pub pair: Option<String>,
}

/// A rating in amperes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amperes {
    /// Of each phase, mA.
    pub milliamperes: i64,
    /// Phase to neutral, or between the two lines of a single phase, mV.
    pub millivolts: i64,
    /// 1 or 3.
    pub phases: i64,
}

/// What the site says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Hosts.
    pub hosts: Hosts,
    /// Groups.
    pub groups: BTreeMap<GroupId, GroupSpec>,
    /// Single outlets.
    pub outlets: BTreeMap<OutletId, OutletSpec>,
    /// Outlets that are never switched, with the reason.
    pub locked: BTreeMap<OutletId, String>,
    /// Outlets that are not switched unless an admin lifts that for one plan, with the reason.
    pub critical: BTreeMap<OutletId, String>,
    /// Limits above the PDUs.
    pub feeds: BTreeMap<String, Feed>,
    /// Ratings of parts that no device tells, by PDU and the part's name (its inlet too), mA.
    pub ratings: BTreeMap<(PduId, String), i64>,
    /// How much of a rating may be used, percent.
    pub derating: i64,
    /// How much of a rating may flow in the first moment of a load, percent; nothing for no more than later.
    pub inrush: Option<i64>,
    /// Volts where no device tells them.
    pub volts: i64,
    /// What an outlet is reckoned to draw whose host says nothing.
    pub default_draw: Draw,
    /// How long a cycle keeps an outlet off.
    pub hold: Span,
    /// How old the state of an outlet may be when it is switched.
    pub fresh: Span,
    /// Whether a plan that a crash interrupted goes on with steps that had not begun.
    pub resume: bool,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            hosts: Hosts::default(),
            groups: BTreeMap::new(),
            outlets: BTreeMap::new(),
            locked: BTreeMap::new(),
            critical: BTreeMap::new(),
            feeds: BTreeMap::new(),
            ratings: BTreeMap::new(),
            derating: 80,
            inrush: None,
            volts: 230,
            default_draw: Draw {
                inrush: 800_000,
                inrush_ms: 100,
                boot: 500_000,
                boot_ms: 30_000,
                steady: 400_000,
            },
            hold: Span::seconds(5),
            fresh: Span::seconds(30),
            resume: true,
        }
    }
}

/// Where it comes from what an outlet is reckoned to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The site says it of the outlet.
    Outlet,
    /// The site says it of the host.
    Host,
    /// Earlier starts.
    Learned,
    /// Earlier starts, and it draws more than it ever did.
    More,
    /// What it draws now, or drew before it was switched off here or by an outage.
    Now,
    /// What all feeds of its host draw, or drew: it would carry them alone.
    Alone,
    /// Nothing is known of it.
    Default,
}

impl Source {
    /// In words; `starts` is from how many it was learned.
    pub fn told(self, starts: usize) -> String {
        let ons = if starts == 1 { "switch-on" } else { "switch-ons" };
        match self {
            Source::Outlet => "configured at its [[outlet]]".into(),
            Source::Host => "configured at its [[host]]".into(),
            Source::Learned => format!("learned from {starts} {ons}"),
            Source::More => format!("learned from {starts} {ons}, and it draws more now"),
            Source::Now => "what it draws, or drew before it was switched off".into(),
            Source::Alone => {
                "what all feeds of its host draw, or drew: it would be the only one on".into()
            }
            Source::Default => "nothing is known of it: the default draw".into(),
        }
    }
}

/// What an outlet must draw now to be reckoned to draw the like again, mVA: less may be a host that is down.
pub(super) const LEAST: i64 = 50_000;

impl Site {
    /// The host that an outlet feeds.
    pub fn host_of(&self, outlet: &OutletId) -> Option<(&HostId, &HostSpec)> {
        self.hosts.of(outlet)
    }

    /// How long an outlet has to be off before it is switched on.
    pub fn min_off(&self, outlet: &OutletId) -> Span {
        self.host_of(outlet).map_or(Span(0), |(_, host)| host.min_off)
    }

    /// Whether the site says what an outlet draws, or its host.
    pub fn is_configured(&self, outlet: &OutletId) -> bool {
        let own = self.outlets.get(outlet).is_some_and(|spec| spec.draw.is_some());
        own || self.host_of(outlet).is_some_and(|(_, host)| host.draw.is_some())
    }

    /// What an outlet will draw: as it or its host is configured; else as was learned of it; else, where it is metered,
    /// what it draws now or drew before it was switched off, a quarter more while it starts up, half as much again
    /// in the first moment, and in both no less than the declared default; else that.
    pub fn draw(
        &self,
        outlet: &OutletId,
        host: Option<&HostSpec>,
        learned: Option<Draw>,
        now: Option<i64>,
    ) -> Draw {
        self.draw_with_source(outlet, host, learned, now).0
    }

    /// The same, and where it comes from.
    pub fn draw_with_source(
        &self,
        outlet: &OutletId,
        host: Option<&HostSpec>,
        learned: Option<Draw>,
        now: Option<i64>,
    ) -> (Draw, Source) {
        let own = self.outlets.get(outlet).and_then(|spec| spec.draw);
        let host = || host.and_then(|host| host.draw);
        let draws = now.filter(|now| *now >= LEAST).map(|now| Draw {
            inrush: now * 3 / 2,
            boot: now * 5 / 4,
            steady: now,
            ..self.default_draw
        });
        if let Some(own) = own {
            return (own, Source::Outlet);
        }
        if let Some(host) = host() {
            return (host, Source::Host);
        }
        match (learned, draws) {
            // What it draws now may be more than it ever did.
            (Some(learned), Some(now)) => {
                let draw = Draw {
                    inrush: learned.inrush.max(now.inrush),
                    boot: learned.boot.max(now.steady),
                    steady: learned.steady.max(now.steady),
                    ..learned
                };
                (draw, if draw == learned { Source::Learned } else { Source::More })
            }
            (Some(learned), None) => (learned, Source::Learned),
            // How it starts nobody has seen: no better than the default says.
            (None, Some(now)) => {
                let (inrush, boot) = (self.default_draw.inrush, self.default_draw.boot);
                let (inrush, boot) = (now.inrush.max(inrush), now.boot.max(boot));
                (Draw { inrush, boot, ..now }, Source::Now)
            }
            (None, None) => (self.default_draw, Source::Default),
        }
    }

    /// PDUs with all that share a feed, or a host, with them.
    pub(super) fn sharing(&self, about: &BTreeSet<PduId>) -> BTreeSet<PduId> {
        let hosts = self.hosts.together().cloned();
        let feeds = self.feeds.iter().map(|(id, feed)| {
            let twin = feed.pair.as_ref().map(|pair| self.pdus_of(pair)).unwrap_or_default();
            self.pdus_of(id).into_iter().chain(twin).collect()
        });
        let groups: Vec<BTreeSet<PduId>> = feeds.chain(hosts).collect();
        let mut wanted = about.clone();
        // A host's other feed may share a further limit: until nothing is added.
        loop {
            let before = wanted.len();
            for group in &groups {
                if !group.is_disjoint(&wanted) {
                    wanted.extend(group.iter().cloned());
                }
            }
            if wanted.len() == before {
                return wanted;
            }
        }
    }

    /// Whether a configured limit is on branches or phases of a PDU.
    pub(super) fn names_parts_of(&self, pdu: &PduId) -> bool {
        let is_its = |member: &Member| matches!(member, Member::Part(of, _) if of == pdu);
        self.feeds.values().any(|feed| feed.of.iter().any(is_its))
    }

    /// The members of a configured limit with those of the limits below it; no limit is taken twice.
    pub fn members(&self, feed: &str) -> Vec<&Member> {
        let (mut found, mut open, mut seen) = (Vec::new(), vec![feed], BTreeSet::new());
        while let Some(id) = open.pop() {
            let (true, Some(feed)) = (seen.insert(id), self.feeds.get(id)) else { continue };
            for member in &feed.of {
                match member {
                    Member::Feed(id) => open.push(id),
                    member => found.push(member),
                }
            }
        }
        found
    }

    /// On which of three phases PDUs of one phase are that hang on a configured limit, or on those below it.
    pub(super) fn lines_below(&self, feed: &str) -> BTreeMap<&PduId, usize> {
        let (mut lines, mut open, mut seen) = (BTreeMap::new(), vec![feed], BTreeSet::new());
        while let Some(id) = open.pop() {
            let (true, Some(feed)) = (seen.insert(id), self.feeds.get(id)) else { continue };
            lines.extend(feed.lines.iter().map(|(pdu, line)| (pdu, *line)));
            open.extend(feed.of.iter().filter_map(|member| match member {
                Member::Feed(id) => Some(id.as_str()),
                _ => None,
            }));
        }
        lines
    }

    pub(super) fn pdus_of(&self, feed: &str) -> BTreeSet<PduId> {
        let members = self.members(feed).into_iter();
        let pdu = |member: &Member| match member {
            Member::Pdu(pdu) | Member::Part(pdu, _) => Some(pdu.clone()),
            Member::Outlet(outlet) => Some(outlet.pdu.clone()),
            Member::Feed(_) => None,
        };
        members.filter_map(pdu).collect()
    }
}
