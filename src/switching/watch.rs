//! What the gateway does by itself, once a second: it remembers what is on, learns what outlets draw when they start,
//! brings back after an outage what was on, and sheds load by its rules. All of it goes through plans, as everybody's
//! wishes do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::event::About;
use crate::model::id::{OutletId, PlanId};
use crate::model::metric::Word;
use crate::model::switching::{Action, Outcome, Relay};
use crate::model::time::{Span, Stamp, Tick};
use crate::model::view::Health;
use crate::plan::lit::{Lit, Restore};
use crate::plan::record::{OnFailure, OnOverload, PlanState, Record, Select, Selected, StepState};
use crate::plan::shed::{Act, Candidate, Flow, LeftOut, Rule, Standing};
use crate::plan::starts::Starts;
use crate::plan::world::Relays;
use crate::plan::{Picture, Runs, Sight};
use crate::store::Archive;
use crate::store::journal::{Commit, JournalError};

use super::delays::Rounds;
use super::past::Past;
use super::plans::{Asker, Wish};
use super::refusal::Refusal;
use super::submit::{Switching, parse, to_json};

const EVERY: Span = Span::seconds(1);
/// How often a restore that is refused for a reason that may pass is tried again, and how long.
const AGAIN: Span = Span::seconds(10);
const TRIES: u32 = 60;
/// How long a rule leaves something out at least that was refused to it.
const LEFT_OUT: Span = Span::seconds(15);
/// How many of those that were left out are named.
const TOLD: usize = 8;
/// How long after an off it is noted that nobody wants the outlet back, at most, ms.
const NOTED_MS: i64 = 10_000;
/// How many plans are looked through for outlets that were switched off last.
const LATEST: usize = 200;

/// What is remembered from second to second.
#[derive(Default)]
struct Watch {
    lit: Lit,
    starts: Starts,
    sheds: BTreeMap<String, Standing>,
    /// The plans that rules are at, each with what it is to bring back, if so.
    busy: BTreeMap<String, Vec<(PlanId, Option<Select>)>>,
    restoring: Option<Restoring>,
    past: Past,
    rounds: Rounds,
    /// Outlets whose configuration names parts that their PDUs do not have; told once.
    strange: BTreeMap<OutletId, String>,
}

/// A restore that goes on, for as long as something is wanted back.
struct Restoring {
    began: Tick,
    tries: u32,
    next: Tick,
    /// The plan that was begun last.
    plan: Option<PlanId>,
}

/// What of that is off.
#[derive(Default)]
struct LeftDark {
    /// May be switched on.
    open: Vec<OutletId>,
    locked: Vec<OutletId>,
    /// Was told to come on since, and did not.
    tried: Vec<OutletId>,
    /// There is no such outlet any more.
    gone: Vec<OutletId>,
}

/// Looks at what is wanted back. What cannot be seen now, and what a plan is at, is left for later.
fn left_dark(
    lit: &Lit,
    of: &Restoring,
    given_up: &[OutletId],
    runs: &Runs,
    sight: &Sight<'_>,
) -> LeftDark {
    let mut found = LeftDark::default();
    for outlet in lit.wanted().iter().filter(|outlet| !given_up.contains(outlet)) {
        let Some(view) = sight.view(&outlet.pdu) else {
            found.gone.push(outlet.clone());
            continue;
        };
        if view.health != Health::Online || runs.claimed_by(outlet).is_some() {
            continue;
        }
        let written = runs.memory.written.get(outlet);
        let kind = match view.layout.outlet(outlet.number).map(|at| view.outlet_state(at)) {
            None => &mut found.gone,
            Some(Ok(Word::Off)) if sight.lock_of(outlet).is_some() => &mut found.locked,
            Some(Ok(Word::Off)) if written.is_some_and(|last| last.sent >= of.began) => {
                &mut found.tried
            }
            Some(Ok(Word::Off)) => &mut found.open,
            Some(_) => continue,
        };
        kind.push(outlet.clone());
    }
    found
}

fn named(outlets: &[OutletId]) -> String {
    let names: Vec<String> = outlets.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// What one look comes to.
struct Found {
    lit: bool,
    learned: bool,
    dark: Vec<OutletId>,
    strange: Vec<(OutletId, String)>,
    acts: Vec<(Rule, Act, Flow)>,
}

impl Switching {
    /// Watches until the gateway ends. Call once, after what the last run left was taken up.
    /// What outlets draw is learned out of `store` where it is not known otherwise.
    pub async fn watch(&self, store: Arc<Archive>) -> Result<(), JournalError> {
        let mut watch = Watch {
            lit: self.remembered("lit").await?,
            starts: self.remembered("starts").await?,
            sheds: self.remembered("sheds").await?,
            ..Watch::default()
        };
        // What was switched off last, and was perhaps not noted any more, is not wanted back.
        let kept = self.in_journal(|journal| journal.latest(LATEST, None)).await?;
        let kept: Result<Vec<Record>, _> = kept.iter().map(|kept| parse("a plan", kept)).collect();
        let off = went_off(&kept?, watch.lit.at());
        watch.lit.forget(off.iter());
        self.learn(&watch.starts);
        let this = self.clone();
        self.tasks.spawn(async move {
            let mut clock = tokio::time::interval(EVERY.duration());
            clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = clock.tick() => {
                        this.look_around(&mut watch, &store).await;
                        this.look_back(&mut watch, &store).await;
                        this.keep_delays(&mut watch.rounds);
                    }
                    () = this.stop.cancelled() => return,
                }
            }
        });
        Ok(())
    }

    async fn remembered<T: DeserializeOwned + Default>(
        &self,
        name: &'static str,
    ) -> Result<T, JournalError> {
        let Some(bytes) = self.in_journal(move |journal| journal.thing(name)).await? else {
            // It was never kept.
            return Ok(T::default());
        };
        serde_json::from_slice(&bytes).map_err(|_| JournalError::Damaged(format!("\"{name}\"")))
    }

    async fn remember(&self, name: &'static str, what: &impl Serialize) {
        let saved = match to_json(what) {
            Err(error) => Err(error),
            Ok(bytes) => {
                let commit = Commit { thing: Some((name.to_owned(), bytes)), ..Commit::default() };
                self.in_journal(move |journal| journal.commit(commit)).await
            }
        };
        if let Err(error) = saved {
            tracing::error!(%error, "\"{name}\" was not kept over a restart");
        }
    }

    fn learn(&self, starts: &Starts) {
        let default = self.site.borrow().default_draw;
        self.with_runs(|runs, _| {
            runs.memory.learned = starts.draws(default);
            runs.memory.starts = starts.counts();
        });
    }

    /// Learns what outlets draw that nothing is known of, out of the store.
    async fn look_back(&self, watch: &mut Watch, store: &Arc<Archive>) {
        let (site, raw_days) = (self.site.borrow().clone(), store.settings.raw_days);
        let (past, starts) = (&mut watch.past, &watch.starts);
        self.with_runs(|_, sight| past.begin(&site, sight, starts, raw_days));
        let Some((pdu, found)) = watch.past.go_on(store).await else { return };
        let mut count = 0;
        for (outlet, of) in found {
            count += usize::from(watch.starts.remember(outlet, of));
        }
        if count == 0 {
            return;
        }
        self.learn(&watch.starts);
        let text = format!("what {count} outlets of {pdu} draw was learned out of the store");
        tracing::info!(%pdu, "{text}");
        self.events.tell("draws.learned", About::pdu(&pdu), text);
        self.remember("starts", &watch.starts).await;
    }

    async fn look_around(&self, watch: &mut Watch, store: &Arc<Archive>) {
        let site = self.site.borrow().clone();
        // What was to come back by plans that are over.
        let mut ended: BTreeMap<String, Vec<(PlanId, Select)>> = BTreeMap::new();
        watch.busy.retain(|rule, plans| {
            let watched = self.watched();
            let (open, over) = plans.drain(..).partition(|(plan, _)| watched.contains_key(plan));
            *plans = open;
            let over: Vec<(PlanId, Option<Select>)> = over;
            let back = over.into_iter().filter_map(|(plan, item)| Some((plan, item?)));
            ended.entry(rule.clone()).or_default().extend(back);
            !plans.is_empty()
        });
        let mut texts = dropped(&mut watch.sheds, &site.sheds);
        let drops = !texts.is_empty();
        let found = self.with_runs(|runs, sight| {
            let mut lit = watch.lit.observe(sight, &runs.memory);
            let dark = if let Some(how) = site.restore {
                watch.lit.dark(how, sight)
            } else {
                // What is off now is what is wanted: nobody is to find an old outage when restoring is configured later.
                watch
                    .lit
                    .dark(Restore { settle: Span(0), wait: Span(0), ..Restore::default() }, sight);
                let left: Vec<OutletId> = watch.lit.wanted().iter().cloned().collect();
                lit |= watch.lit.forget(left.iter());
                Vec::new()
            };
            lit |= !dark.is_empty();
            let wants = watch.starts.wants(&runs.memory);
            let (mut learned, mut acts) = (false, Vec::new());
            if wants || !site.sheds.is_empty() {
                let picture = runs.picture(sight, None, None);
                learned = wants && watch.starts.observe(&picture, &runs.memory, sight);
                for rule in &site.sheds {
                    let standing = watch.sheds.entry(rule.id.clone()).or_default();
                    let busy = watch.busy.contains_key(&rule.id);
                    let candidates = candidates(rule, &picture, runs, sight);
                    for name in standing.strays(&candidates) {
                        let text =
                            format!("rule {} does not name {name} any more, which stays off", rule.id);
                        texts.push(("shed.dropped", text));
                    }
                    for (plan, item) in ended.remove(&rule.id).unwrap_or_default() {
                        let of = candidates.iter().find(|of| of.select == item);
                        if of.is_some_and(|of| standing.stays_off(of, sight.now)) {
                            let text = format!(
                                "rule {}: {item} did not come back by plan {plan}; it is tried again later",
                                rule.id
                            );
                            texts.push(("shed.failed", text));
                        }
                    }
                    let flow = flow(rule, &picture, sight);
                    let when = (sight.now, sight.stamp);
                    let act = standing.decide(rule, flow, &candidates, busy, when);
                    acts.extend(act.zip(flow).map(|(act, flow)| (rule.clone(), act, flow)));
                }
            }
            let strange = crate::plan::strange(&site.rack, sight.views);
            Found { lit, learned, dark, strange, acts }
        });
        self.tell_strange(watch, found.strange);
        texts.into_iter().for_each(|(kind, text)| self.tell(kind, text));
        if drops {
            self.remember("sheds", &watch.sheds).await;
        }
        if found.lit {
            self.remember("lit", &watch.lit).await;
        }
        if found.learned {
            self.learn(&watch.starts);
            self.remember("starts", &watch.starts).await;
        }
        if !found.dark.is_empty() {
            let names: Vec<String> = found.dark.iter().map(ToString::to_string).collect();
            let text = format!(
                "after an outage {} are off that were on; they are switched on again",
                names.join(", ")
            );
            self.tell("restore.begun", text);
            self.recalls(&found.dark, store).await;
            let next = self.clock.tick();
            let plan = watch.restoring.take().and_then(|of| of.plan);
            watch.restoring = Some(Restoring { began: next, tries: 0, next, plan });
        }
        if let Some(restoring) = watch.restoring.take() {
            watch.restoring = self.restore(&mut watch.lit, restoring).await;
        } else if let Some(how) = site.restore.filter(|_| !watch.lit.wanted().is_empty()) {
            // The last run was at it.
            let began = self.clock.tick();
            let next = began + how.settle;
            watch.restoring = Some(Restoring { began, tries: 0, next, plan: None });
        }
        for (rule, act, flow) in found.acts {
            self.shed(watch, &rule, act, flow).await;
        }
    }

    fn tell_strange(&self, watch: &mut Watch, found: Vec<(OutletId, String)>) {
        for (outlet, text) in &found {
            if watch.strange.get(outlet) != Some(text) {
                tracing::warn!(%outlet, "{text}");
                self.events.tell("outlet.unknown_part", About::outlet(outlet), text.clone());
            }
        }
        watch.strange = found.into_iter().collect();
    }

    fn tell(&self, kind: &'static str, text: String) {
        tracing::warn!("{text}");
        self.events.tell(kind, About::default(), text);
    }

    /// Tries to begin the plan that switches on what an outage left dark, until all of it is on or given up.
    async fn restore(&self, lit: &mut Lit, mut of: Restoring) -> Option<Restoring> {
        if self.clock.tick() < of.next {
            return Some(of);
        }
        of.next = self.clock.tick() + AGAIN;
        let mut given_up = self.called_off(lit, &mut of).await;
        let mut found = self.with_runs(|runs, sight| left_dark(lit, &of, &given_up, runs, sight));
        if !found.locked.is_empty() {
            let text = format!("{} are locked and stay off", named(&found.locked));
            self.tell("restore.left_out", text);
        }
        if !found.tried.is_empty() {
            let text = format!(
                "{} were on before the outage and stay off: they were switched on, and were not seen on",
                named(&found.tried)
            );
            self.tell("restore.failed", text);
        }
        given_up.extend(found.locked.into_iter().chain(found.tried).chain(found.gone));
        if !found.open.is_empty() {
            let first = of.tries == 0;
            let why = match self.begin_restore(&mut found.open, first).await {
                Ok(plan) => {
                    of.plan = Some(plan);
                    "there is no room for them, what they come after is off, or they cannot be switched"
                        .to_owned()
                }
                Err(why) => why.to_string(),
            };
            if found.open.is_empty() {
                of.tries = of.tries.max(1);
            } else if of.tries + 1 >= TRIES {
                let names = named(&found.open);
                let text = format!("{names} were on before the outage and stay off: {why}");
                self.tell("restore.failed", text);
                given_up.extend(found.open);
            } else {
                if first {
                    let text = format!("{} wait, and are tried again: {why}", named(&found.open));
                    self.tell("restore.waits", text);
                }
                of.tries += 1;
            }
        }
        if lit.forget(given_up.iter()) {
            self.remember("lit", lit).await;
        }
        (!lit.wanted().is_empty()).then_some(of)
    }

    /// What stays off as somebody has cancelled the plan that was to switch it on.
    async fn called_off(&self, lit: &Lit, of: &mut Restoring) -> Vec<OutletId> {
        let Some(plan) = of.plan.take() else { return Vec::new() };
        // One that is not kept any more is over.
        let Ok(record) = self.kept(&plan).await else { return Vec::new() };
        if record.state == PlanState::Running {
            of.plan = Some(plan.clone());
        }
        if record.state != PlanState::Cancelled {
            return Vec::new();
        }
        let left: Vec<OutletId> =
            record.outlets().into_iter().filter(|outlet| lit.wanted().contains(outlet)).collect();
        if !left.is_empty() {
            let names = named(&left);
            self.tell("restore.cancelled", format!("{names} stay off: plan {plan} was cancelled"));
        }
        left
    }

    /// Begins the plan for those of some outlets that can be switched on now; the others are left.
    async fn begin_restore(
        &self,
        outlets: &mut Vec<OutletId>,
        tells: bool,
    ) -> Result<PlanId, Refusal> {
        let mut now: BTreeSet<OutletId> = outlets.iter().cloned().collect();
        let mut left = Vec::new();
        // Each time at least one is left out.
        loop {
            let goals = now.iter().map(|outlet| Select::Outlet(outlet.clone()));
            let mut wish = wish("the restore after an outage".into(), goals, Action::On);
            wish.by_priority = true;
            let begun = match self.preview(&wish) {
                Ok(preview) => {
                    self.begin_by_itself(Record { patient: true, ..preview.record }).await
                }
                Err(refusal) => Err(refusal),
            };
            let refusal = match begun {
                Ok(id) => {
                    self.tell("restore.plan", format!("plan {id} restores {} outlets", now.len()));
                    *outlets = left;
                    return Ok(id);
                }
                Err(refusal) => refusal,
            };
            let without = self.keeping_out(&refusal, &now);
            let (out, kept): (BTreeSet<OutletId>, BTreeSet<OutletId>) =
                now.into_iter().partition(|outlet| without.contains(outlet));
            now = kept;
            if tells && !out.is_empty() {
                let names: Vec<OutletId> = out.iter().cloned().collect();
                let text = format!("{} are not switched on yet: {refusal}", named(&names));
                self.tell("restore.left_out", text);
            }
            if out.is_empty() || now.is_empty() {
                return Err(refusal);
            }
            left.extend(out);
        }
    }

    /// Which outlets have to be left out for the others to be switched on: what does not fit, and hosts that come after one
    /// that is off.
    fn keeping_out(&self, refusal: &Refusal, of: &BTreeSet<OutletId>) -> BTreeSet<OutletId> {
        match refusal {
            Refusal::Unfit(crate::plan::Refusal::Limit { leave_out, .. }) => {
                leave_out.iter().cloned().collect()
            }
            Refusal::Unfit(crate::plan::Refusal::Needs { host, .. }) => {
                self.with_runs(|_, sight| {
                    let is_of = |outlet: &&OutletId| {
                        sight.site.host_of(outlet).is_some_and(|(id, _)| id.as_str() == host)
                    };
                    of.iter().filter(is_of).cloned().collect()
                })
            }
            // What is in the way of one of them is not in the way of the others.
            refusal => {
                refusal.outlet().and_then(|outlet| outlet.parse().ok()).into_iter().collect()
            }
        }
    }

    async fn shed(&self, watch: &mut Watch, rule: &Rule, act: Act, flow: Flow) {
        let id = &rule.id;
        let flows =
            format!("{} of {} W flow over {}", flow.load / 1_000, flow.rating / 1_000, rule.limit);
        let (items, left_out, action) = match act {
            Act::Helpless(left_out) => {
                let text = format!(
                    "rule {id}: {flows}, more than {} %, and nothing is left to be shed{}",
                    rule.over,
                    told(&left_out)
                );
                self.tell("shed.helpless", text);
                return;
            }
            Act::Shed(items, left_out) => (items, left_out, Action::Off),
            Act::Back(item) => (vec![item], Vec::new(), Action::On),
            Act::Waits(item, needs) => {
                let taken = (flow.taken - flow.load).max(0) / 1_000;
                let beside = if taken > 0 {
                    format!(" and {taken} W are taken by plans and by what was just switched on")
                } else {
                    String::new()
                };
                let text = format!(
                    "rule {id} leaves {item} off for now: {flows}{beside}, and with the {} W that it may start up with that would be more than {} %",
                    needs / 1_000,
                    rule.over
                );
                self.tell("shed.waits", text);
                return;
            }
        };
        let names: Vec<String> = items.iter().map(ToString::to_string).collect();
        let (names, word) = (names.join(", "), action.word());
        let why = if action == Action::Off {
            format!("{flows}, more than {} %{}", rule.over, told(&left_out))
        } else {
            format!("{flows}, less than {} %", rule.under)
        };
        if rule.dry_run {
            self.tell("shed.dry_run", format!("rule {id} would switch {names} {word}: {why}"));
            return;
        }
        let mut wish = wish(format!("rule {id}"), items.iter().cloned(), action);
        wish.reason = why.clone();
        let begun = match self.preview(&wish) {
            Ok(preview) => {
                // Before it is begun: a crash in between must not leave off what no rule knows of. What does not go off after
                // all is seen on.
                let standing = watch.sheds.entry(id.clone()).or_default();
                let at = self.clock.stamp();
                for item in &items {
                    match action {
                        Action::Off => standing.went_off(item, at),
                        _ => standing.comes_back(item, at),
                    }
                }
                self.remember("sheds", &watch.sheds).await;
                self.begin_by_itself(preview.record).await
            }
            Err(refusal) => Err(refusal),
        };
        match begun {
            Ok(plan) => {
                self.tell(
                    "shed.acted",
                    format!("rule {id} switches {names} {word} by plan {plan}: {why}"),
                );
                let back = items.into_iter().next().filter(|_| action == Action::On);
                watch.busy.entry(id.clone()).or_default().push((plan, back));
            }
            Err(refusal) => {
                let standing = watch.sheds.entry(id.clone()).or_default();
                // It is tried every second, and whatever is in the way may stay there for long.
                if standing.tells(action == Action::Off, refusal.cause()) {
                    let text = format!("rule {id} cannot switch {names} {word}: {refusal}");
                    self.tell("shed.refused", text);
                }
                // Whatever is in the way of one of them is not in the way of the others.
                let hindered = refusal.outlet().and_then(|outlet| outlet.parse().ok());
                let hindered: Option<OutletId> = hindered;
                let site = self.site.borrow().clone();
                let of = |item: &&Select| match (item, &hindered) {
                    (Select::Outlet(own), Some(outlet)) => own == outlet,
                    (Select::Host(id), Some(outlet)) => {
                        site.hosts.get(id).is_some_and(|host| host.outlets.contains(outlet))
                    }
                    _ => false,
                };
                // Of what is to come back there is one: something that comes after it may, while it cannot.
                let back = items.first().filter(|_| action == Action::On);
                if let Some(item) = items.iter().find(of).or(back) {
                    let until = self.clock.tick() + rule.settle.max(LEFT_OUT);
                    standing.was_refused(item, refusal.to_string(), until);
                }
            }
        }
    }
}

/// What rules have switched off that are not configured any more; their standing is over.
fn dropped(sheds: &mut BTreeMap<String, Standing>, rules: &[Rule]) -> Vec<(&'static str, String)> {
    let mut texts = Vec::new();
    sheds.retain(|id, standing| {
        let stays = rules.iter().any(|rule| rule.id == *id);
        let off: Vec<&str> = standing.off.keys().map(String::as_str).collect();
        if !stays && !off.is_empty() {
            let text = format!("rule {id} is gone; {} stay off", off.join(", "));
            texts.push(("shed.dropped", text));
        }
        stays || off.is_empty()
    });
    texts
}

/// What plans have switched off last, and not so long before a moment that it was noted by then.
fn went_off(plans: &[Record], noted: Stamp) -> Vec<OutletId> {
    let mut last: BTreeMap<&OutletId, (i64, Relay)> = BTreeMap::new();
    for step in plans.iter().flat_map(|plan| &plan.steps) {
        let was_written = matches!(
            step.state,
            StepState::Intended | StepState::Ended(Outcome::Done | Outcome::Unverified)
        );
        let Some(at) = step.at.filter(|at| was_written && at + NOTED_MS >= noted.0) else {
            continue;
        };
        let known = last.entry(&step.outlet).or_insert((at, step.relay));
        // Of two in the same moment an off is the safe one.
        if at > known.0 || at == known.0 && step.relay == Relay::Off {
            *known = (at, step.relay);
        }
    }
    let off = last.into_iter().filter(|(_, (_, relay))| *relay == Relay::Off);
    off.map(|(outlet, _)| outlet.clone()).collect()
}

/// What was left out, at the end of a sentence.
fn told(left_out: &LeftOut) -> String {
    let named: Vec<String> =
        left_out.iter().take(TOLD).map(|(of, why)| format!("{of}: {why}")).collect();
    match left_out.len() {
        0 => String::new(),
        count if count > TOLD => {
            format!("; left out {}, and {} more", named.join(", "), count - TOLD)
        }
        _ => format!("; left out {}", named.join(", ")),
    }
}

fn wish(who: String, items: impl Iterator<Item = Select>, action: Action) -> Wish {
    let selected = |select| Selected { select, action, drops_hosts: true };
    Wish {
        reason: who.clone(),
        who: Asker::Gateway(who),
        goals: items.map(selected).collect(),
        on_failure: OnFailure::Continue,
        on_overload: OnOverload::Replan,
        not_before: None,
        calendar: None,
        over_locks: false,
        by_priority: false,
    }
}

/// What flows over the limit of a rule; nothing if it was not read a moment ago.
fn flow(rule: &Rule, picture: &Picture, sight: &Sight<'_>) -> Option<Flow> {
    let at = picture.world.limits.iter().position(|limit| limit.name == rule.limit)?;
    let told = &picture.told[at];
    told.seen.filter(|seen| sight.now - *seen <= sight.site.fresh)?;
    let (load, taken) = (picture.shown[at], picture.world.limits[at].load);
    Some(Flow { load, taken, rating: told.rating })
}

fn candidates(rule: &Rule, picture: &Picture, runs: &Runs, sight: &Sight<'_>) -> Vec<Candidate> {
    let limit = picture.world.limits.iter().position(|limit| limit.name == rule.limit);
    let candidate = |(select, priority): (Select, i32)| {
        let own: Vec<OutletId> = match &select {
            Select::Host(id) => sight.site.hosts.get(id).map(|host| host.outlets.clone())?,
            Select::Outlet(outlet) => vec![outlet.clone()],
            Select::Pdu(_) | Select::Group(_) => return None,
        };
        let is_locked = own.iter().any(|outlet| sight.lock_of(outlet).is_some());
        let places: Option<Vec<usize>> =
            own.iter().map(|outlet| picture.outlets.get(outlet).copied()).collect();
        let places = places.unwrap_or_default();
        let relays = || places.iter().map(|at| picture.world.outlets[*at].relay);
        let unknown = places.is_empty() || relays().any(|relay| relay == Relays::Unknown);
        let is_on = (!unknown).then(|| relays().any(|relay| relay == Relays::On));
        let is_whole = !unknown && relays().all(|relay| relay == Relays::On);
        let (mut draws, mut returns) = (0, 0);
        for at in &places {
            let outlet = &picture.world.outlets[*at];
            for share in outlet.over.iter().filter(|share| Some(share.limit) == limit) {
                draws += share.of(outlet.load);
                returns += share.of(outlet.draw.falling().boot);
            }
        }
        let hindrance = own.iter().find_map(|outlet| {
            let plan = runs.claimed_by(outlet)?;
            Some(format!("outlet {outlet} is being switched by plan {plan}"))
        });
        Some(Candidate { select, priority, is_on, is_whole, is_locked, draws, returns, hindrance })
    };
    rule.items(sight.site).into_iter().filter_map(candidate).collect()
}
