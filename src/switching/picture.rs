//! The picture that plans are made for: the limits that the devices tell and the site configures, the loads on them,
//! and what the outlets and hosts will draw. What is not known is counted as worst.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::id::{OutletId, PduId};
use crate::model::limits::QUIESCE_MS;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::Datum;
use crate::model::switching::Relay;
use crate::model::topology::Part;
use crate::model::view::PduView;
use crate::plan;
use crate::plan::world::{Draw, Goal, Host, Limit, Outlet, Relays, Want, World};
use crate::wire::limit::LimitBody;

use super::record::{Record, StepState};
use super::refusal::Refusal;
use super::site::{Member, Site};
use super::submit::Switching;

/// How long a step is reckoned to keep its device, ms, where nothing better is known.
pub(super) const STEP_MS: u64 = 1_500;

/// How long a meter may not show yet what was switched on, ms: a slow poll, and the meter's own.
const UNSEEN_MS: u64 = 70_000;

/// What an outlet must draw now to be reckoned to draw the like again, mVA: less may be a host that is down.
const LEAST: i64 = 50_000;

/// A limit with where it comes from.
#[derive(Debug, Clone)]
pub(super) struct Told {
    kind: &'static str,
    /// Rated, mVA.
    rating: i64,
    /// Of the rating, percent.
    derating: i64,
    why: String,
}

/// The picture, with the names of what is in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    pub world: World,
    pub outlets: BTreeMap<OutletId, usize>,
    /// Outlets, by place, that have a meter of their own.
    metered: BTreeSet<usize>,
    /// By outlet: the names of the branches and phases that it may be on.
    parts: Vec<BTreeSet<String>>,
    /// By PDU: what its inlets draw as measured, mVA; nothing if its outlets are not known at all.
    inlets: BTreeMap<PduId, Option<i64>>,
    told: Vec<Told>,
}

/// What one line of several carries against the neutral: some tell the voltage between two lines, which is √3 of it.
/// 185 to 217 V and more than 300 V are between lines in every public grid, or are better taken so.
fn to_neutral(millivolts: i64) -> i64 {
    let between = (185_000..217_000).contains(&millivolts) || millivolts > 300_000;
    if between { millivolts * 1_000 / 1_732 } else { millivolts }
}

/// Amperes of a single phase as mVA.
fn mva(milliamperes: i64, millivolts: i64) -> i64 {
    milliamperes.saturating_mul(millivolts) / 1_000
}

struct Drawn<'v> {
    view: &'v PduView,
    volts: i64,
}

impl Drawn<'_> {
    fn value(&self, scope: Scope, part: u16, metric: Metric) -> Option<i64> {
        match self.view.shown(scope, part, metric) {
            Some(Datum::Value(value)) => Some(value),
            _ => None,
        }
    }

    /// What a part draws, mVA: as apparent power, or as current, or as power.
    fn load(&self, scope: Scope, part: u16, phases: i64) -> Option<i64> {
        let apparent = self.value(scope, part, Metric::ApparentPower);
        let current = || {
            let current = self.value(scope, part, Metric::Current)?;
            (phases == 1).then(|| mva(current, self.volts))
        };
        let lines = || {
            let count = self.view.layout.parts(Scope::Phase).len() as u16;
            let of = |at| self.value(Scope::Phase, at, Metric::Current);
            let all: Option<Vec<i64>> = (0..count).map(of).collect();
            all.filter(|all| phases > 1 && !all.is_empty())
                .map(|all| all.iter().map(|current| mva(*current, self.volts)).sum())
        };
        // A watt may be more than one volt-ampere's worth: on a limit a power factor of 0.8 is assumed, of an outlet, whose
        // load is freed when it goes off, 1.
        let power = || {
            let power = self.value(scope, part, Metric::Power)?;
            Some(if scope == Scope::Outlet { power } else { power * 5 / 4 })
        };
        apparent.or_else(current).or_else(lines).or_else(power)
    }
}

impl Picture {
    fn limit(&mut self, name: String, load: i64, told: Told) -> usize {
        let budget = told.rating / 100 * told.derating;
        self.world.limits.push(Limit { name, budget, load });
        self.told.push(told);
        self.world.limits.len() - 1
    }

    /// One PDU: its limits, its outlets, its device.
    fn pdu(&mut self, view: &PduView, site: &Site, drew: &HashMap<OutletId, i64>, step_ms: u64) {
        let device = self.world.step_ms.len();
        self.world.step_ms.push(step_ms);
        let phases = view.layout.parts(Scope::Phase);
        let told_volts = |scope, count: usize| {
            let drawn = Drawn { view, volts: 0 };
            (0..count as u16).filter_map(move |at| drawn.value(scope, at, Metric::Voltage)).max()
        };
        let volts = told_volts(Scope::Phase, phases.len())
            .or_else(|| told_volts(Scope::Inlet, view.layout.parts(Scope::Inlet).len()))
            .filter(|volts| *volts > 50_000)
            .unwrap_or(site.volts * 1_000);
        let volts = if phases.len() > 1 { to_neutral(volts) } else { volts };
        let drawn = Drawn { view, volts };
        let inlets = self.rated(&drawn, Scope::Inlet, "inlet", site);
        let on_phases = self.rated(&drawn, Scope::Phase, "phase", site);
        let branches = self.rated(&drawn, Scope::Branch, "branch", site);
        let inlet_count = view.layout.parts(Scope::Inlet).len() as u16;
        let inlet = |at| drawn.load(Scope::Inlet, at, phases.len().max(1) as i64);
        let drawn_by_inlets: Option<Vec<i64>> = (0..inlet_count).map(inlet).collect();
        let known = !view.layout.parts(Scope::Outlet).is_empty();
        let inlets_draw = drawn_by_inlets.map_or(0, |all| all.iter().sum());
        self.inlets.insert(view.id.clone(), known.then_some(inlets_draw));
        for (at, part) in view.outlets() {
            let id = OutletId { pdu: view.id.clone(), number: part.number };
            let relay = match view.outlet_state(at) {
                Ok(Word::On) => Relays::On,
                Ok(Word::Off) => Relays::Off,
                _ => Relays::Unknown,
            };
            let measured = drawn.load(Scope::Outlet, at, 1).filter(|_| relay != Relays::Off);
            let learned = measured.or_else(|| drew.get(&id).copied());
            let draw = site.draw(&id, learned);
            let load = match relay {
                Relays::Off => 0,
                _ => measured.unwrap_or(draw.steady),
            };
            // An outlet of which nobody knows the branch may be on any.
            let of = |known: Option<u16>, all: &[(u16, usize)]| -> Vec<usize> {
                let own: Vec<usize> = all
                    .iter()
                    .filter(|(at, _)| known == Some(*at))
                    .map(|(_, limit)| *limit)
                    .collect();
                if own.is_empty() && known.is_none() {
                    all.iter().map(|(_, limit)| *limit).collect()
                } else {
                    own
                }
            };
            let phase = part.phase.or_else(|| phase_of_branch(view, part));
            let mut limits = of(part.branch, &branches);
            limits.extend(of(phase, &on_phases));
            limits.extend(inlets.iter().map(|(_, limit)| *limit));
            limits.extend(self.rated_outlet(&drawn, at, part, load, site));
            let place = self.world.outlets.len();
            self.outlets.insert(id.clone(), place);
            if measured.is_some() {
                self.metered.insert(place);
            }
            let named = |scope, known: Option<u16>| {
                let parts = (0..).zip(view.layout.parts(scope));
                let own = parts.filter(move |(at, _)| known.is_none_or(|known| known == *at));
                own.map(|(_, part)| part.id.clone()).collect::<Vec<_>>()
            };
            let parts = named(Scope::Branch, part.branch).into_iter();
            self.parts.push(parts.chain(named(Scope::Phase, phase)).collect());
            self.world.outlets.push(Outlet {
                id,
                device,
                limits,
                relay,
                load,
                draw,
                min_off_ms: 0,
                off_for_ms: None,
                host: None,
            });
        }
    }

    /// The limits of a kind that the device rates, by their places.
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
            let Some(amperes) = drawn.value(scope, at, Metric::Rating).filter(|a| *a > 0) else {
                continue;
            };
            let rating = mva(amperes, drawn.volts) * phases;
            let (load, how) = match drawn.load(scope, at, phases) {
                Some(load) => (load, "measured"),
                None => (rating, "not measured, so it counts as full"),
            };
            let why = format!(
                "the PDU tells a rating of {} A, at {} V{}; its load is {how}",
                amperes / 1_000,
                drawn.volts / 1_000,
                if phases > 1 { format!(" on {phases} phases") } else { String::new() }
            );
            let told = Told { kind, rating, derating: site.derating, why };
            limits.push((at, self.limit(format!("{}/{}", drawn.view.id, part.id), load, told)));
        }
        limits
    }

    fn rated_outlet(
        &mut self,
        drawn: &Drawn<'_>,
        at: u16,
        part: &Part,
        load: i64,
        site: &Site,
    ) -> Option<usize> {
        let amperes = drawn.value(Scope::Outlet, at, Metric::Rating).filter(|a| *a > 0)?;
        let why = format!("the PDU tells a rating of {} A", amperes / 1_000);
        let rating = mva(amperes, drawn.volts);
        let told = Told { kind: "outlet", rating, derating: site.derating, why };
        Some(self.limit(format!("{}/{}", drawn.view.id, part.id), load, told))
    }

    /// What the site configures above its PDUs, and the pairs that stand in for each other.
    fn feeds(&mut self, site: &Site) {
        let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (id, feed) in &site.feeds {
            let (mut load, mut under, mut lost) = (0, BTreeSet::new(), None);
            for member in &feed.of {
                let own = self.below(member);
                let sum: i64 = own.iter().map(|at| self.world.outlets[*at].load).sum();
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
                        sum
                    }
                    Member::Outlet(outlet) => {
                        if own.is_empty() {
                            lost = Some(outlet.to_string());
                        }
                        sum
                    }
                };
                under.extend(own);
            }
            // Who does not know what hangs on a feed knows of no room on it.
            let (load, why) = match lost {
                None => (load, "configured; its load is the sum of what hangs on it".to_owned()),
                Some(lost) => (
                    load.max(feed.rating),
                    format!("configured; {lost} is not known, so it counts as full"),
                ),
            };
            let under: Vec<usize> = under.into_iter().collect();
            let derating = feed.derating.unwrap_or(site.derating);
            let told = Told { kind: "feed", rating: feed.rating, derating, why };
            let limit = self.limit(id.clone(), load, told);
            for at in &under {
                self.world.outlets[*at].limits.push(limit);
            }
            members.insert(id, under);
        }
        for (id, feed) in &site.feeds {
            let Some(other) = feed.pair.as_ref().filter(|other| *other > id) else { continue };
            let (Some(own), Some(theirs), Some(twin)) =
                (members.get(id.as_str()), members.get(other.as_str()), site.feeds.get(other))
            else {
                continue;
            };
            let under: std::collections::BTreeSet<usize> =
                own.iter().chain(theirs).copied().collect();
            let load = under.iter().map(|at| self.world.outlets[*at].load).sum();
            let told = Told {
                kind: "pair",
                rating: feed.rating.min(twin.rating),
                derating: 100,
                why: "either must carry both when the other dies".into(),
            };
            let limit = self.limit(format!("{id} or {other} alone"), load, told);
            for at in under {
                self.world.outlets[at].limits.push(limit);
            }
        }
    }

    /// The outlets that a member of a feed stands for, by place. One of which nobody knows the branch counts on each.
    fn below(&self, member: &Member) -> Vec<usize> {
        let is_below = |at: usize, outlet: &Outlet| match member {
            Member::Pdu(pdu) => outlet.id.pdu == *pdu,
            Member::Outlet(id) => outlet.id == *id,
            Member::Part(pdu, part) => outlet.id.pdu == *pdu && self.parts[at].contains(part),
        };
        let outlets = self.world.outlets.iter().enumerate();
        outlets.filter(|(at, outlet)| is_below(*at, outlet)).map(|(at, _)| at).collect()
    }

    fn hosts(&mut self, site: &Site) {
        let places: BTreeMap<_, usize> = site.hosts.keys().zip(0..).collect();
        for (id, host) in &site.hosts {
            let place = self.world.hosts.len();
            for outlet in &host.outlets {
                if let Some(at) = self.outlets.get(outlet) {
                    self.world.outlets[*at].host = Some(place);
                    self.world.outlets[*at].min_off_ms = host.min_off.0;
                }
            }
            self.world.hosts.push(Host {
                id: id.clone(),
                priority: host.priority,
                after: host.after.iter().filter_map(|id| places.get(id).copied()).collect(),
                feed_gap_ms: 0,
                hold_ms: host.hold.unwrap_or(site.hold).0.max(QUIESCE_MS),
            });
        }
    }

    /// Adds what was switched on a moment ago and no meter shows yet, or that has still to start up.
    fn unseen(&mut self, outlet: &OutletId, age_ms: u64) {
        let Some(at) = self.outlets.get(outlet).copied() else { return };
        let outlet = &self.world.outlets[at];
        let draw = outlet.draw.falling();
        if age_ms > draw.settles_ms() + UNSEEN_MS {
            return;
        }
        let expected = if age_ms <= draw.inrush_ms + STEP_MS {
            draw.inrush
        } else if age_ms <= draw.settles_ms() + STEP_MS {
            draw.boot
        } else {
            draw.steady
        };
        // What an outlet without a meter draws is in no reading of its own.
        let shown = if self.metered.contains(&at) { outlet.load } else { 0 };
        let hidden = (expected - shown).max(0);
        for limit in outlet.limits.clone() {
            self.world.limits[limit].load += hidden;
        }
    }

    /// The limits as bodies.
    pub fn bodies(&self) -> Vec<LimitBody> {
        let watts = |mva: i64| mva as f64 / 1_000.0;
        let limits = self.world.limits.iter().zip(&self.told);
        limits
            .map(|(limit, told)| LimitBody {
                id: limit.name.clone(),
                kind: told.kind,
                rating_w: watts(told.rating),
                derating_percent: told.derating,
                budget_w: watts(limit.budget),
                load_w: watts(limit.load),
                headroom_w: watts((limit.budget - limit.load).max(0)),
                why: told.why.clone(),
            })
            .collect()
    }
}

fn phase_of_branch(view: &PduView, part: &Part) -> Option<u16> {
    view.layout.parts(Scope::Branch).get(usize::from(part.branch?))?.phase
}

impl Switching {
    /// The picture as it is now, with what plans under way will still add; `except` is not counted. Of a large rack
    /// only the PDUs of these outlets are looked at, and those that share a feed with them.
    pub(super) fn picture(
        &self,
        except: Option<&crate::model::id::PlanId>,
        about: Option<&BTreeSet<PduId>>,
    ) -> Picture {
        let site = self.site.borrow().clone();
        let mut picture = Picture::default();
        let wanted = about.map(|about| site.sharing(about));
        let drew = self.drew();
        for view in self.fleet.services().board.views() {
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(&view.id)) {
                picture.pdu(&view, &site, &drew, STEP_MS);
            }
        }
        picture.feeds(&site);
        picture.hosts(&site);
        // How long an outlet has been off: since this gateway told it so, or as long as this gateway runs.
        let up = self.clock.tick();
        for outlet in &mut picture.world.outlets {
            let since = self.last_write(&outlet.id).map(|(_, at)| at);
            outlet.off_for_ms =
                (outlet.relay == Relays::Off).then(|| since.map_or(up.0, |at| (up - at).0));
        }
        picture.world.hold_ms = site.hold.0.max(QUIESCE_MS);
        let now = self.clock.tick();
        for (outlet, relay, at) in self.writes() {
            if relay == Relay::On {
                picture.unseen(&outlet, (now - at).0);
            }
        }
        for record in self.plans_under_way() {
            if Some(&record.id) == except {
                continue;
            }
            let ons = record.steps.iter().filter(|step| {
                step.relay == Relay::On
                    && matches!(step.state, StepState::Pending | StepState::Intended)
            });
            for step in ons {
                let Some(at) = picture.outlets.get(&step.outlet) else { continue };
                let outlet = &picture.world.outlets[*at];
                let (adds, limits) = (outlet.draw.falling().inrush, outlet.limits.clone());
                for limit in limits {
                    picture.world.limits[limit].load += adds;
                }
            }
        }
        picture
    }

    /// Remembers what an outlet draws that is being switched off, for when it is switched on again.
    pub(super) fn remember_load(&self, outlet: &OutletId) {
        let about = BTreeSet::from([outlet.pdu.clone()]);
        let picture = self.picture(None, Some(&about));
        let Some(at) = picture.outlets.get(outlet) else { return };
        let load = picture.world.outlets[*at].load;
        if picture.metered.contains(at) && load >= LEAST {
            self.note_drew(outlet, load);
        }
    }

    /// Forgets the draw of outlets of which the site says nothing, neither what they draw nor what feeds them: somebody
    /// who switches one outlet by hand knows it better than a default does. A plan of many counts them as worst.
    fn by_hand(&self, world: &mut World) {
        let site = self.site.borrow();
        let fed: BTreeSet<usize> = (0..)
            .zip(&world.limits)
            .filter(|(_, limit)| site.feeds.contains_key(&limit.name))
            .map(|(at, _)| at)
            .collect();
        for outlet in &mut world.outlets {
            let told = site
                .hosts
                .values()
                .any(|host| host.draw.is_some() && host.outlets.contains(&outlet.id));
            if !told && outlet.limits.iter().all(|limit| !fed.contains(limit)) {
                outlet.draw = Draw { inrush: 0, boot: 0, steady: 0, ..outlet.draw };
                outlet.load = 0;
            }
        }
    }

    /// Whether the ons of a plan that is not scheduled fit, one after the other, on top of what flows.
    pub(super) fn has_headroom(&self, record: &Record) -> Result<(), Refusal> {
        let about = record.steps.iter().map(|step| step.outlet.pdu.clone()).collect();
        let mut picture = self.picture(Some(&record.id), Some(&about));
        self.by_hand(&mut picture.world);
        let mut goals: BTreeMap<usize, Goal> = BTreeMap::new();
        for step in &record.steps {
            let Some(at) = picture.outlets.get(&step.outlet).copied() else { continue };
            let want = match (goals.get(&at).map(|goal| goal.want), step.relay) {
                (Some(_), Relay::On) => Want::Cycle,
                (_, Relay::On) => Want::On,
                (_, Relay::Off) => Want::Off,
            };
            goals.insert(at, Goal { outlet: at, want, drops_host: true, why: String::new() });
        }
        let goals: Vec<Goal> = goals.into_values().collect();
        plan::plan(&picture.world, &goals)?;
        Ok(())
    }

    /// Whether an outlet may be switched on now, as measured.
    pub(super) fn has_room(&self, record: &Record, outlet: &OutletId) -> Result<(), Refusal> {
        let about = BTreeSet::from([outlet.pdu.clone()]);
        let picture = self.picture(Some(&record.id), Some(&about));
        let Some(at) = picture.outlets.get(outlet).copied() else { return Ok(()) };
        let goal = Goal { outlet: at, want: Want::On, drops_host: true, why: String::new() };
        let mut world = picture.world;
        if record.scheduled.is_none() {
            self.by_hand(&mut world);
        }
        // It is the step's turn: only the limits are asked.
        world.outlets[at].min_off_ms = 0;
        world.hosts.iter_mut().for_each(|host| host.after.clear());
        plan::plan(&world, &[goal])?;
        Ok(())
    }

    /// Every limit with its load and headroom.
    pub fn limits(&self) -> Vec<LimitBody> {
        self.picture(None, None).bodies()
    }
}

impl Site {
    /// PDUs with all that share a feed, or a host, with them.
    fn sharing(&self, about: &BTreeSet<PduId>) -> BTreeSet<PduId> {
        let of_member = |member: &Member| match member {
            Member::Pdu(pdu) | Member::Part(pdu, _) => pdu.clone(),
            Member::Outlet(outlet) => outlet.pdu.clone(),
        };
        let hosts = self.hosts.values().map(|host| {
            host.outlets.iter().map(|outlet| outlet.pdu.clone()).collect::<BTreeSet<_>>()
        });
        let feeds = self.feeds.values().map(|feed| {
            let twin = feed.pair.as_ref().and_then(|pair| self.feeds.get(pair));
            let all = feed.of.iter().chain(twin.into_iter().flat_map(|twin| &twin.of));
            all.map(of_member).collect()
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

    /// What an outlet will draw: as its host is configured; else, where it is metered, what it draws now or drew before
    /// it was switched off here, a quarter more while it starts up, half as much again in the first moment; else the
    /// declared default.
    pub(super) fn draw(&self, outlet: &OutletId, now: Option<i64>) -> Draw {
        let host = self.hosts.values().find(|host| host.outlets.contains(outlet));
        let learned = now.filter(|now| *now >= LEAST).map(|now| Draw {
            inrush: now * 3 / 2,
            boot: now * 5 / 4,
            steady: now,
            ..self.default_draw
        });
        host.and_then(|host| host.draw).or(learned).unwrap_or(self.default_draw)
    }
}
