//! The picture that plans are made for: the limits that the devices tell and the site configures, the loads on them,
//! and what the outlets and hosts will draw. What is not known is counted as worst.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::id::{OutletId, PduId};
use crate::model::limits::QUIESCE_MS;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::Datum;
use crate::model::time::{Span, Tick};
use crate::model::topology::Part;
use crate::model::view::PduView;

use super::memory::Memory;
use super::site::{Site, Source};
use super::wiring::Wiring;
use super::world::{Draw, Host, Limit, Outlet, Relays, Share, World};

/// How long a step is reckoned to keep its device, ms, where nothing better is known.
pub const STEP_MS: u64 = 1_500;

/// How many orders of its steps a plan is the best of.
const TRIES: usize = 600;

/// A limit with where it comes from.
#[derive(Debug, Clone)]
pub struct Told {
    /// `outlet`, `branch`, `phase`, `inlet`, `pair`, `failover`, or as the site calls it.
    pub kind: String,
    /// Rated, mVA.
    pub rating: i64,
    /// The same in amperes, mA a phase, and at what voltage, mV; where it is rated so.
    pub amperes: Option<(i64, i64)>,
    /// Of the rating, percent.
    pub derating: i64,
    /// Of the rating in a first moment, percent.
    pub inrush: i64,
    /// Where rating and load come from.
    pub why: String,
    /// When its load was read; nothing if it was not.
    pub seen: Option<Tick>,
    /// How many phases carry the load.
    pub phases: i64,
}

/// The picture, with the names of what is in it.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// What plans are made for.
    pub world: World,
    /// Outlets by their names.
    pub outlets: BTreeMap<OutletId, usize>,
    /// Where each limit comes from.
    pub told: Vec<Told>,
    /// By limit: what flows as the meters show, mVA; without what was switched on a moment ago and what plans have taken.
    pub shown: Vec<i64>,
    /// By limit: what was switched on a moment ago and no meter has confirmed, mVA; counted in its load.
    pub(super) unconfirmed: BTreeMap<usize, i64>,
    /// Outlets, by place, that have a meter of their own.
    pub(super) metered: BTreeSet<usize>,
    /// By limit: the first moments that are not over, mVA, each as bad as it may be.
    pub(super) surging: BTreeMap<usize, i64>,
    /// By outlet: the names of the branches and phases that it may be on, where the site names any of its PDU.
    pub(super) parts: Vec<BTreeSet<String>>,
    /// By PDU: what its inlets draw as measured, mVA; nothing if its outlets are not known at all.
    pub(super) inlets: BTreeMap<PduId, Option<i64>>,
    /// By PDU: when it was last read.
    pub(super) seen: BTreeMap<PduId, Option<Tick>>,
    /// By PDU of three phases: what flows on each as measured, mVA; nothing if that was not read.
    pub(super) flows: BTreeMap<PduId, Vec<Option<i64>>>,
    /// By outlet: where it comes from what it is reckoned to draw, and from how many starts that was learned.
    pub sources: Vec<(Source, usize)>,
    /// By outlet with a meter: when that was read, if that is known.
    pub(super) read: BTreeMap<usize, Tick>,
    /// Outlets, by place, that are on and whose meter shows what they draw for long.
    pub(super) settled: BTreeSet<usize>,
    /// Feeds, by place, of which the site does not say it: what each draws if it carries its host alone, where that is more.
    pub(super) alone: BTreeMap<usize, Draw>,
    /// Of those that are reckoned so: what each draws beside another that is on.
    pub(super) own: BTreeMap<usize, Draw>,
    /// By outlet of such a PDU: the phases that it may be on, from 0, with the thousandths that flow through each.
    pub(super) lines: Vec<Vec<(usize, i64)>>,
}

/// What the picture is made of.
#[derive(Clone, Copy)]
pub struct Sight<'s> {
    /// Now, by the monotonic clock.
    pub now: Tick,
    /// Now, by the wall clock.
    pub stamp: crate::model::time::Stamp,
    /// The latest of every PDU, sorted by id.
    pub views: &'s [Arc<PduView>],
    /// What the site says.
    pub site: &'s Site,
    /// Outlets locked while the gateway runs, with the reason.
    pub locks: &'s BTreeMap<OutletId, String>,
}

impl Sight<'_> {
    /// The latest of one PDU.
    pub fn view(&self, id: &PduId) -> Option<&Arc<PduView>> {
        self.views.get(self.views.binary_search_by(|view| view.id.cmp(id)).ok()?)
    }
}

/// What one line of several carries against the neutral: some tell the voltage between two lines, which is √3 of it.
/// 185 to 217 V and more than 300 V are between lines in every public grid, or are better taken so.
fn to_neutral(millivolts: i64) -> i64 {
    let between = (185_000..217_000).contains(&millivolts) || millivolts > 300_000;
    if between { millivolts * 1_000 / 1_732 } else { millivolts }
}

/// Amperes of a single phase as mVA.
pub fn mva(milliamperes: i64, millivolts: i64) -> i64 {
    milliamperes.saturating_mul(millivolts) / 1_000
}

/// By what an outlet's load is told, and at how many mV it is where that is a current; nothing if it has no meter.
pub fn drawn_as(view: &PduView, site: &Site, at: u16, id: &OutletId) -> Option<(Metric, i64)> {
    let drawn = Drawn::new(view, site);
    let part = view.layout.parts(Scope::Outlet).get(usize::from(at))?;
    let volts = drawn.volts_across(&Wiring::of(view, part, site, id));
    let metrics = [Metric::ApparentPower, Metric::Current, Metric::Power];
    let has = |metric: &&Metric| drawn.value(Scope::Outlet, at, **metric).is_some();
    metrics.iter().find(has).map(|metric| (*metric, volts))
}

struct Drawn<'v> {
    view: &'v PduView,
    /// Phase to neutral; of a PDU of one phase what it is.
    volts: i64,
}

/// A load, and when it was read.
type Load = Option<(i64, Option<Tick>)>;

impl<'v> Drawn<'v> {
    fn new(view: &'v PduView, site: &Site) -> Self {
        let blank = Drawn { view, volts: 0 };
        let phases = view.layout.parts(Scope::Phase).len();
        let told = |scope| {
            let count = view.layout.parts(scope).len() as u16;
            (0..count).filter_map(|at| blank.size(scope, at, Metric::Voltage)).max()
        };
        // A panel of DC has no phases, and may be on 24 V; lines of AC below 50 V are dead, and so is no AC told by them.
        let least = if phases > 0 { 50_000 } else { 5_000 };
        let volts = told(Scope::Phase)
            .or_else(|| told(Scope::Inlet))
            .or_else(|| told(Scope::Branch))
            .filter(|volts| *volts > least)
            .unwrap_or(site.volts * 1_000);
        Drawn { view, volts: if phases > 1 { to_neutral(volts) } else { volts } }
    }

    fn value(&self, scope: Scope, part: u16, metric: Metric) -> Option<i64> {
        match self.view.shown(scope, part, metric) {
            Some(Datum::Value(value)) => Some(value),
            _ => None,
        }
    }

    /// The same without its sign: on a bus of -48 V currents have a minus, too, and trip as any.
    fn size(&self, scope: Scope, part: u16, metric: Metric) -> Option<i64> {
        self.value(scope, part, metric).map(i64::saturating_abs)
    }

    /// When a reading was taken, by the monotonic clock.
    fn taken(&self, scope: Scope, part: u16, metric: Metric) -> Option<Tick> {
        let at = self.view.reading(scope, part, metric)?.at;
        let (stamp, tick) = (self.view.observed_at?, self.view.observed?);
        // One outlet that was looked at is younger than the last poll, most others are as old.
        let later = u64::try_from(at.0 - stamp.0).unwrap_or(0);
        Some(Tick((tick.0 + later).saturating_sub(stamp.since(at).0)))
    }

    /// What a part is wired to: volts across it.
    fn volts_of(&self, part: &Part) -> i64 {
        let between = part.phase.is_some() && part.other_phase.is_some();
        if between { self.volts * 1_732 / 1_000 } else { self.volts }
    }

    /// The same of an outlet, as it is wired: what flows in each line of three is drawn three times from the neutral.
    fn volts_across(&self, wiring: &Wiring) -> i64 {
        if wiring.on_three { self.volts * 3 } else { self.volts_of(&wiring.part) }
    }

    /// What a part draws, mVA: of a line and a breaker what its current tells, as that is what trips; of others what is
    /// told as apparent power, else the current, else the power.
    fn load(&self, scope: Scope, part: u16, phases: i64, volts: i64) -> Load {
        let seen = |metric| self.taken(scope, part, metric);
        let apparent = || {
            let apparent = self.value(scope, part, Metric::ApparentPower)?;
            Some((apparent, seen(Metric::ApparentPower)))
        };
        let current = || {
            let current = self.size(scope, part, Metric::Current)?;
            (phases == 1).then(|| (mva(current, volts), seen(Metric::Current)))
        };
        let lines = || {
            let count = self.view.layout.parts(Scope::Phase).len() as u16;
            let of = |at| self.size(Scope::Phase, at, Metric::Current);
            let all: Option<Vec<i64>> = (0..count).map(of).collect();
            let all = all.filter(|all| phases > 1 && !all.is_empty())?;
            let sum = all.iter().map(|current| mva(*current, self.volts)).sum();
            Some((sum, self.taken(Scope::Phase, 0, Metric::Current)))
        };
        // A watt may be more than one volt-ampere's worth: on a limit a power factor of 0.8 is assumed, of an outlet, whose
        // load is freed when it goes off, 1. What is fed back heats a breaker as well.
        let power = || {
            let power = self.value(scope, part, Metric::Power)?;
            let reckoned = if scope == Scope::Outlet { power } else { power.abs() * 5 / 4 };
            Some((reckoned, seen(Metric::Power)))
        };
        let told = match scope {
            Scope::Phase | Scope::Branch => current().or_else(apparent),
            _ => apparent().or_else(current),
        };
        told.or_else(lines).or_else(power)
    }
}

/// What the outlets of a picture know of the site, and of what was seen of them.
pub(super) struct About<'a> {
    pub site: &'a Site,
    pub memory: &'a Memory,
    pub now: Tick,
}

impl Picture {
    /// The picture of all PDUs, or of these and those that share a feed or a host with them.
    pub fn of(sight: &Sight<'_>, memory: &Memory, about: Option<&BTreeSet<PduId>>) -> Self {
        let site = sight.site;
        let known = About { site, memory, now: sight.now };
        let mut picture = Picture::default();
        let wanted = about.map(|about| site.sharing(about));
        for view in sight.views {
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(&view.id)) {
                picture.pdu(view, &known);
            }
        }
        picture.feeds(site);
        picture.hosts(site);
        picture.alone(site, memory, sight.now);
        picture.failovers(site);
        // How long an outlet has been off: since this gateway told it so, or as long as this gateway runs.
        for outlet in &mut picture.world.outlets {
            let written = memory.written.get(&outlet.id);
            let since = written.map_or(Tick(0), |written| written.last(sight.now));
            outlet.off_for_ms = (outlet.relay == Relays::Off).then(|| (sight.now - since).0);
        }
        picture.shown = picture.world.limits.iter().map(|limit| limit.load).collect();
        picture.world.tries = TRIES;
        picture.world.hold_ms = site.hold.0.max(QUIESCE_MS);
        picture.unseen(sight.now, memory);
        picture.moved(sight.now, site.fresh, memory);
        picture
    }

    pub(super) fn limit(&mut self, name: String, load: i64, told: Told) -> usize {
        let budget = told.rating / 100 * told.derating;
        let peak = budget.max(told.rating / 100 * told.inrush);
        self.world.limits.push(Limit { peak, load, ..Limit::of(name, budget) });
        self.told.push(told);
        self.world.limits.len() - 1
    }

    /// One PDU: its limits, its outlets, its device.
    fn pdu(&mut self, view: &PduView, about: &About<'_>) {
        let device = self.world.step_ms.len();
        self.world.step_ms.push(STEP_MS);
        let phases = view.layout.parts(Scope::Phase);
        let drawn = Drawn::new(view, about.site);
        let inlets = self.rated(&drawn, Scope::Inlet, "inlet", about.site);
        let lines = self.rated(&drawn, Scope::Phase, "phase", about.site);
        let branches = self.rated(&drawn, Scope::Branch, "branch", about.site);
        let inlet_count = view.layout.parts(Scope::Inlet).len() as u16;
        let of_inlet = |at| drawn.load(Scope::Inlet, at, phases.len().max(1) as i64, drawn.volts);
        let drawn_by_inlets: Option<Vec<i64>> =
            (0..inlet_count).map(|at| Some(of_inlet(at)?.0)).collect();
        let known = !view.layout.parts(Scope::Outlet).is_empty();
        let inlets_draw = drawn_by_inlets.map_or(0, |all| all.iter().sum());
        self.inlets.insert(view.id.clone(), known.then_some(inlets_draw));
        self.seen.insert(view.id.clone(), view.observed);
        if phases.len() == 3 {
            let flows = (0..3).map(|at| Some(drawn.load(Scope::Phase, at, 1, drawn.volts)?.0));
            self.flows.insert(view.id.clone(), flows.collect());
        }
        let mut strange: Vec<(usize, OutletId)> = Vec::new();
        let is_named = about.site.names_parts_of(&view.id);
        for (at, part) in view.outlets() {
            let id = OutletId { pdu: view.id.clone(), number: part.number };
            let relay = match view.outlet_state(at) {
                Ok(Word::On) => Relays::On,
                Ok(Word::Off) => Relays::Off,
                _ => Relays::Unknown,
            };
            let wiring = Wiring::of(view, part, about.site, &id);
            let volts = drawn.volts_across(&wiring);
            let told = drawn.load(Scope::Outlet, at, 1, volts).filter(|_| relay != Relays::Off);
            let measured = told.map(|(load, _)| load);
            let learned = about.memory.learned.get(&id).copied();
            let host = about.site.host_of(&id).map(|(_, host)| host);
            // A meter may catch the first moment of a load, or how it starts up: that is not what it draws.
            let on = about.memory.switched_on(&id, about.now);
            let read_after = |ms: u64| {
                let is_later = |seen: Tick| on.is_none_or(|on| seen > on + Span(ms + STEP_MS));
                told.filter(|(_, seen)| seen.is_none_or(is_later)).map(|(load, _)| load)
            };
            let begins = about.site.draw(&id, host, learned, None);
            let calm = read_after(begins.inrush_ms);
            let before = about.memory.drew.get(&id).copied();
            let settled = read_after(begins.settles_ms());
            let drew = settled.or(before).or(calm);
            let (draw, source) = about.site.draw_with_source(&id, host, learned, drew);
            self.sources.push((source, about.memory.starts.get(&id).copied().unwrap_or(0)));
            let load = match relay {
                Relays::Off => 0,
                // What no meter shows yet is added later; a first moment is no more than how it starts up.
                _ => calm
                    .or(measured.map(|load| load.min(draw.falling().boot)))
                    .unwrap_or(draw.steady),
            };
            let mut over = Wiring::below(wiring.part.branch, &branches, 1_000);
            over.extend(wiring.lines(&lines, phases.len()));
            let unsure = wiring.unsure(&branches, &lines);
            over.extend(inlets.iter().map(|(_, limit)| Share::whole(*limit)));
            over.extend(self.rated_outlet(&drawn, at, part, volts, load, about.site));
            let place = self.world.outlets.len();
            self.outlets.insert(id.clone(), place);
            if measured.is_some() {
                self.metered.insert(place);
            }
            if let Some((_, Some(read))) = told {
                self.read.insert(place, read);
            }
            if settled.is_some() && relay == Relays::On {
                self.settled.insert(place);
            }
            self.parts.push(if is_named { wiring.names(view) } else { BTreeSet::new() });
            self.lines.push(if phases.len() == 3 { wiring.on() } else { Vec::new() });
            if !wiring.strange.is_empty() {
                let beside = wiring.beside(&branches, &lines);
                strange.extend(beside.into_iter().map(|limit| (limit, id.clone())));
            }
            self.world.outlets.push(Outlet {
                id,
                device,
                over,
                unsure,
                relay,
                load,
                draw,
                min_off_ms: host.map_or(0, |host| host.min_off.0),
                off_for_ms: None,
                host: None,
            });
        }
        for (limit, outlet) in strange {
            let text = format!(
                "; outlet {outlet} counts on it, as its configuration names a part that the PDU does not have"
            );
            self.told[limit].why.push_str(&text);
        }
    }

    /// The limits of a kind that the device rates, or the site, by their places.
    fn rated(
        &mut self,
        drawn: &Drawn<'_>,
        scope: Scope,
        kind: &'static str,
        site: &Site,
    ) -> Vec<(u16, usize)> {
        let phases = match scope {
            Scope::Inlet => drawn.view.layout.parts(Scope::Phase).len().max(1) as i64,
            _ => 1,
        };
        let mut limits = Vec::new();
        for (at, part) in (0..).zip(drawn.view.layout.parts(scope)) {
            let tells = drawn.value(scope, at, Metric::Rating).filter(|a| *a > 0);
            let says = site.ratings.get(&(drawn.view.id.clone(), part.id.clone())).copied();
            let Some(amperes) = tells.into_iter().chain(says).min() else { continue };
            let volts = drawn.volts_of(part);
            let rating = mva(amperes, volts) * phases;
            let load = drawn.load(scope, at, phases, volts);
            let how =
                if load.is_some() { "measured" } else { "not measured, so it counts as full" };
            let who = if tells == Some(amperes) { "the PDU tells" } else { "the site configures" };
            let why = format!(
                "{who} a rating of {} A, at {} V{}; its load is {how}",
                amperes / 1_000,
                volts / 1_000,
                if phases > 1 { format!(" on {phases} phases") } else { String::new() }
            );
            let told = Told {
                kind: kind.into(),
                rating,
                amperes: Some((amperes, volts)),
                derating: site.derating,
                inrush: site.inrush.unwrap_or(site.derating),
                why,
                seen: load.and_then(|(_, seen)| seen),
                phases,
            };
            let load = load.map_or(rating, |(load, _)| load);
            limits.push((at, self.limit(format!("{}/{}", drawn.view.id, part.id), load, told)));
        }
        limits
    }

    fn rated_outlet(
        &mut self,
        drawn: &Drawn<'_>,
        at: u16,
        part: &Part,
        volts: i64,
        load: i64,
        site: &Site,
    ) -> Option<Share> {
        let tells = drawn.value(Scope::Outlet, at, Metric::Rating).filter(|a| *a > 0);
        let says = site.ratings.get(&(drawn.view.id.clone(), part.id.clone())).copied();
        let amperes = tells.into_iter().chain(says).min()?;
        let who = if tells == Some(amperes) { "the PDU tells" } else { "the site configures" };
        let told = Told {
            kind: "outlet".into(),
            rating: mva(amperes, volts),
            amperes: Some((amperes, volts)),
            derating: site.derating,
            inrush: site.inrush.unwrap_or(site.derating),
            why: format!("{who} a rating of {} A", amperes / 1_000),
            seen: drawn.view.observed,
            phases: 1,
        };
        Some(Share::whole(self.limit(format!("{}/{}", drawn.view.id, part.id), load, told)))
    }

    fn hosts(&mut self, site: &Site) {
        let places: BTreeMap<_, usize> = site.hosts.keys().zip(0..).collect();
        for (id, host) in site.hosts.iter() {
            let place = self.world.hosts.len();
            for outlet in &host.outlets {
                if let Some(at) = self.outlets.get(outlet) {
                    self.world.outlets[*at].host = Some(place);
                }
            }
            self.world.hosts.push(Host {
                id: id.clone(),
                priority: host.priority,
                after: host.after.iter().filter_map(|id| places.get(id).copied()).collect(),
                feed_gap_ms: host.feed_gap.0,
                hold_ms: host.hold.unwrap_or(site.hold).0.max(QUIESCE_MS),
                min_feeds: host.min_feeds,
            });
        }
    }
}
