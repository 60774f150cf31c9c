//! The picture that plans are made for: the limits that the devices tell and the site configures, the loads on them,
//! and what the outlets and hosts will draw. What is not known is counted as worst.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::{OutletId, PduId};
use crate::model::limits::QUIESCE_MS;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::Datum;
use crate::model::switching::{Outcome, Relay};
use crate::model::time::Stamp;
use crate::model::topology::Part;
use crate::model::view::PduView;
use crate::plan;
use crate::plan::world::{Draw, Goal, Host, Limit, Outlet, Relays, Want, World};
use crate::wire::limit::LimitBody;

use super::record::{Record, StepState};
use super::refusal::Refusal;
use super::site::{Feed, Member, Site};
use super::submit::Switching;

/// How long a step is reckoned to keep its device, ms, where nothing better is known.
pub(super) const STEP_MS: u64 = 1_500;

/// How long a meter may not show yet what was switched on, ms.
const UNSEEN_MS: i64 = 10_000;

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
    told: Vec<Told>,
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
        apparent.or_else(current).or_else(|| self.value(scope, part, Metric::Power))
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
    fn pdu(&mut self, view: &PduView, site: &Site, step_ms: u64) {
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
        let drawn = Drawn { view, volts };
        let inlets = self.rated(&drawn, Scope::Inlet, "inlet", site);
        let on_phases = self.rated(&drawn, Scope::Phase, "phase", site);
        let branches = self.rated(&drawn, Scope::Branch, "branch", site);
        for (at, part) in view.outlets() {
            let id = OutletId { pdu: view.id.clone(), number: part.number };
            let relay = match view.outlet_state(at) {
                Ok(Word::On) => Relays::On,
                Ok(Word::Off) => Relays::Off,
                _ => Relays::Unknown,
            };
            let measured = drawn.load(Scope::Outlet, at, 1).filter(|_| relay != Relays::Off);
            let draw = site.draw(&id, measured);
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
            self.outlets.insert(id.clone(), self.world.outlets.len());
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
        let below = |feed: &Feed, outlet: &Outlet, branches: &dyn Fn(&str) -> bool| {
            feed.of.iter().any(|member| match member {
                Member::Pdu(pdu) => outlet.id.pdu == *pdu,
                Member::Outlet(id) => outlet.id == *id,
                Member::Part(pdu, part) => {
                    outlet.id.pdu == *pdu && branches(&format!("{pdu}/{part}"))
                }
            })
        };
        let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (id, feed) in &site.feeds {
            let mut load = 0;
            let mut under = Vec::new();
            for (at, outlet) in self.world.outlets.iter().enumerate() {
                let has = |name: &str| {
                    outlet.limits.iter().any(|limit| self.world.limits[*limit].name == name)
                };
                if below(feed, outlet, &has) {
                    load += outlet.load;
                    under.push(at);
                }
            }
            let told = Told {
                kind: "feed",
                rating: feed.rating,
                derating: feed.derating.unwrap_or(site.derating),
                why: "configured; its load is the sum of its outlets".into(),
            };
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

    /// Adds what a plan has switched on a moment ago and no meter shows yet, or that has still to start up.
    fn unseen(&mut self, record: &Record, now: Stamp) {
        for step in record.steps.iter().filter(|step| step.relay == Relay::On) {
            let (Some(at), Some(since)) = (self.outlets.get(&step.outlet), step.at) else {
                continue;
            };
            let under_way = matches!(
                step.state,
                StepState::Intended | StepState::Ended(Outcome::Done | Outcome::Unverified)
            );
            let outlet = &self.world.outlets[*at];
            let draw = outlet.draw.falling();
            let age = now.0 - since;
            if !under_way || age > draw.settles_ms() as i64 + UNSEEN_MS {
                continue;
            }
            let expected = if step.state == StepState::Intended || age <= draw.inrush_ms as i64 {
                draw.inrush
            } else if age <= draw.settles_ms() as i64 {
                draw.boot
            } else {
                draw.steady
            };
            let hidden = (expected - outlet.load).max(0);
            for limit in outlet.limits.clone() {
                self.world.limits[limit].load += hidden;
            }
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
        for view in self.fleet.services().board.views() {
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(&view.id)) {
                picture.pdu(&view, &site, STEP_MS);
            }
        }
        picture.feeds(&site);
        picture.hosts(&site);
        picture.world.hold_ms = site.hold.0.max(QUIESCE_MS);
        let now = self.clock.stamp();
        for record in self.plans_under_way() {
            picture.unseen(&record, now);
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

    /// What an outlet will draw: as its host is configured; else, where it is on and metered, what it draws now, a
    /// quarter more while it starts up, half as much again in the first moment; else the declared default.
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
