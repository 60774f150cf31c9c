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
use crate::model::switching::{Action, Relay};
use crate::model::time::Span;
use crate::model::view::Health;
use crate::plan::lit::{Lit, Restore};
use crate::plan::record::{OnFailure, OnOverload, Record, Select, Selected, StepRecord};
use crate::plan::shed::{Act, Candidate, Flow, LeftOut, Rule, Standing};
use crate::plan::site::Source;
use crate::plan::starts::Starts;
use crate::plan::world::Relays;
use crate::plan::{Draw, Picture, Runs, Sight, Strange};
use crate::store::Archive;
use crate::store::journal::{Commit, JournalError};

use super::delays::Rounds;
use super::past::Past;
use super::plans::{Asker, Wish};
use super::refusal::Refusal;
use super::restore::{Restoring, is_let_go};
use super::submit::{Switching, to_json};

/// How the plans of rules name who made them: this and the rule.
pub(super) const RULE: &str = "rule ";
const EVERY: Span = Span::seconds(1);
/// How long a rule leaves something out at least that was refused to it.
const LEFT_OUT: Span = Span::seconds(15);
/// How many of those that were left out are named.
const TOLD: usize = 8;

/// What is remembered from second to second.
#[derive(Default)]
struct Watch {
    lit: Lit,
    starts: Starts,
    sheds: BTreeMap<String, Standing>,
    /// The plans that rules are at, each with what is to go off, or to come back.
    busy: BTreeMap<String, Vec<(PlanId, Action, Vec<Select>)>>,
    /// Rules whose limit their PDU does not have; told once.
    lost: BTreeSet<String>,
    restoring: Option<Restoring>,
    past: Past,
    rounds: Rounds,
    /// What the configuration names and PDUs do not have; told once.
    strange: BTreeSet<String>,
    /// The default draw that what was learned rests on.
    default: Option<Draw>,
}

/// What one look comes to.
struct Found {
    lit: bool,
    learned: bool,
    dark: Vec<OutletId>,
    strange: Vec<Strange>,
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
        self.forgets_what_went_off(&mut watch.lit, &mut watch.sheds).await?;
        self.takes_back_what_was_left().await?;
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
                        this.tells_what_else_was_refused(false);
                    }
                    () = this.stop.cancelled() => return,
                }
            }
        });
        Ok(())
    }

    pub(super) async fn remembered<T: DeserializeOwned + Default>(
        &self,
        name: &'static str,
    ) -> Result<T, JournalError> {
        let Some(bytes) = self.in_journal(move |journal| journal.thing(name)).await? else {
            // It was never kept.
            return Ok(T::default());
        };
        serde_json::from_slice(&bytes).map_err(|_| JournalError::Damaged(format!("\"{name}\"")))
    }

    pub(super) async fn remember(&self, name: &'static str, what: &impl Serialize) {
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
        self.recalls_what_is_off(&mut watch.past, store).await;
        let default = Some(self.site.borrow().default_draw);
        if std::mem::replace(&mut watch.default, default) != default {
            self.learn(&watch.starts);
        }
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
        let mut ended: BTreeMap<String, Vec<(PlanId, Action, Vec<Select>)>> = BTreeMap::new();
        watch.busy.retain(|rule, plans| {
            let watched = self.watched();
            let (open, over) = plans.drain(..).partition(|(plan, ..)| watched.contains_key(plan));
            *plans = open;
            ended.insert(rule.clone(), over);
            !plans.is_empty()
        });
        let mut texts = dropped(&mut watch.sheds, &site.sheds);
        let let_go = std::mem::take(
            &mut *self.let_go.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let mut drops = false;
        for (id, standing) in &mut watch.sheds {
            let before = standing.fed.clone();
            let gone = standing.lets_go(&let_go);
            drops |= standing.fed != before;
            for name in gone {
                texts.push(("shed.dropped", is_let_go(id, &name)));
            }
        }
        drops |= !texts.is_empty();
        // What several rules switched off is the last one's to bring back.
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for (name, at) in watch.sheds.values().flat_map(|standing| &standing.off) {
            let known = last.entry(name.clone()).or_insert(*at);
            *known = (*known).max(*at);
        }
        let found = self.with_runs(|runs, sight| {
            let mut lit = self.forgets_unwanted(&mut watch.lit);
            lit |= watch.lit.observe(sight, &runs.memory);
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
                    let mut candidates = candidates(rule, &picture, runs, sight);
                    for of in &mut candidates {
                        let name = of.select.to_string();
                        of.is_locked |= standing.since(&name).is_some_and(|at| at < last[&name]);
                    }
                    for name in standing.strays(&candidates) {
                        drops = true;
                        let text =
                            format!("rule {} does not name {name} any more, which stays off", rule.id);
                        texts.push(("shed.dropped", text));
                    }
                    for (plan, action, items) in ended.remove(&rule.id).unwrap_or_default() {
                        let of = candidates.iter().filter(|of| items.contains(&of.select));
                        for of in of {
                            if standing.came_of(of, action == Action::Off, sight.now) {
                                let text = format!(
                                    "rule {}: {} did not go {} by plan {plan}, and is left alone for a while",
                                    rule.id,
                                    of.select,
                                    action.word()
                                );
                                texts.push(("shed.failed", text));
                            }
                        }
                    }
                    match lost(rule, &picture, sight) {
                        Some(text) => {
                            if watch.lost.insert(rule.id.clone()) {
                                texts.push(("shed.unknown_limit", text));
                            }
                        }
                        None => drop(watch.lost.remove(&rule.id)),
                    }
                    let flow = flow(rule, &picture, sight);
                    let when = (sight.now, sight.stamp);
                    let known = (standing.off.len(), standing.fed.len());
                    let act = standing.decide(rule, flow, &candidates, busy, when);
                    // What is back must not be brought back again after a restart.
                    drops |= known != (standing.off.len(), standing.fed.len());
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
            // Those as well that were dark before: what carried them may be dark by now.
            let dark = watch.lit.wanted().iter().chain(&found.dark).cloned().collect();
            self.recalls(&dark, store).await;
            let next = self.clock.tick();
            watch.restoring = Some(Restoring {
                began: next,
                tries: 0,
                left: 0,
                told: false,
                next,
                recalled: true,
            });
        }
        if let Some(mut restoring) = watch.restoring.take() {
            if !restoring.recalled && self.clock.tick() >= restoring.next {
                restoring.recalled = true;
                self.recalls(watch.lit.wanted(), store).await;
            }
            watch.restoring = self.restore(&mut watch.lit, restoring).await;
        } else if let Some(how) = site.restore.filter(|_| !watch.lit.wanted().is_empty()) {
            // The last run was at it.
            let began = self.clock.tick();
            let next = began + how.settle;
            watch.restoring =
                Some(Restoring { began, tries: 0, left: 0, told: false, next, recalled: false });
        }
        for (rule, act, flow) in found.acts {
            self.shed(watch, &rule, act, flow).await;
        }
    }

    fn tell_strange(&self, watch: &mut Watch, found: Vec<Strange>) {
        for Strange { kind, about, text } in &found {
            if !watch.strange.contains(text) {
                tracing::warn!("{text}");
                self.events.tell(kind, about.clone(), text.clone());
            }
        }
        watch.strange = found.into_iter().map(|of| of.text).collect();
    }

    /// Rules that never shed, as their limit is none that its PDU has, each with why.
    pub fn idle_rules(&self) -> Vec<String> {
        let site = self.site.borrow().clone();
        if site.sheds.is_empty() {
            return Vec::new();
        }
        self.with_runs(|runs, sight| {
            let picture = runs.picture(sight, None, None);
            site.sheds.iter().filter_map(|rule| lost(rule, &picture, sight)).collect()
        })
    }

    pub(super) fn tell(&self, kind: &'static str, text: String) {
        tracing::warn!("{text}");
        self.events.tell(kind, About::default(), text);
    }

    /// The outlets of a host, or the one that is named, that are seen on, or that an outage left dark and are wanted back.
    fn to_be_on(&self, item: &Select, wanted: &BTreeSet<OutletId>) -> Vec<OutletId> {
        self.with_runs(|_, sight| {
            let own = match item {
                Select::Host(id) => sight.site.hosts.get(id).map(|host| host.outlets.clone()),
                Select::Outlet(outlet) => Some(vec![outlet.clone()]),
                Select::Pdu(_) | Select::Group(_) => None,
            };
            let is_on = |outlet: &OutletId| {
                let view = sight.view(&outlet.pdu)?;
                view.outlet_state(view.layout.outlet(outlet.number)?).ok()
            };
            let mut own = own.unwrap_or_default();
            own.retain(|outlet| is_on(outlet) == Some(Word::On) || wanted.contains(outlet));
            own
        })
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
        let standing = watch.sheds.entry(id.clone()).or_default();
        let before = standing.clone();
        let selects: Vec<Select> = match action {
            Action::On => items.iter().flat_map(|item| to_come_back(standing, item)).collect(),
            _ => items.clone(),
        };
        let mut wish = wish(format!("{RULE}{id}"), selects.into_iter(), action);
        wish.reason = why.clone();
        let begun = match self.preview(&wish) {
            Ok(preview) => {
                // Before it is begun: a crash in between must not leave off what no rule knows of. What does not go off after
                // all is seen on.
                let at = self.clock.stamp();
                for item in &items {
                    match action {
                        Action::Off => {
                            let on = self.to_be_on(item, watch.lit.wanted());
                            standing.goes_off(item, &on, at);
                        }
                        _ => standing.comes_back(item, at),
                    }
                }
                self.remember("sheds", &watch.sheds).await;
                let begun = self.begin_by_itself(preview.record).await;
                // Where the journal fails nobody knows whether it has the plan.
                let is_kept = matches!(begun, Ok(_) | Err(Refusal::Journal(_) | Refusal::Ending));
                if !is_kept {
                    watch.sheds.entry(id.clone()).or_default().takes_back(before);
                    self.remember("sheds", &watch.sheds).await;
                }
                begun
            }
            Err(refusal) => Err(refusal),
        };
        match begun {
            Ok(plan) => {
                self.tell(
                    "shed.acted",
                    format!("rule {id} switches {names} {word} by plan {plan}: {why}"),
                );
                watch.busy.entry(id.clone()).or_default().push((plan, action, items));
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

/// That the limit of a rule is none that its PDU has, once that is seen.
fn lost(rule: &Rule, picture: &Picture, sight: &Sight<'_>) -> Option<String> {
    let known = |name: &str| picture.world.limits.iter().any(|limit| limit.name == name);
    let (pdu, _) = rule.limit.split_once('/').filter(|_| !known(&rule.limit))?;
    let view = sight.views.iter().find(|view| view.id.as_str() == pdu)?;
    if view.health != Health::Online {
        return None;
    }
    let own = format!("{pdu}/");
    let names = picture.world.limits.iter().map(|limit| limit.name.as_str());
    let names: Vec<&str> = names.filter(|name| name.starts_with(&own)).take(TOLD).collect();
    Some(format!(
        "rule {} never sheds: PDU {pdu} has no limit {} that is rated; it has {}",
        rule.id,
        rule.limit,
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    ))
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

/// Whether a plan is one by which a rule switches something off.
pub(super) fn is_shed(record: &Record) -> bool {
    is_of_rule(record) && record.cancelled.is_none()
}

/// Whether a plan is one of a rule; a client may be called as one.
pub(super) fn is_of_rule(record: &Record) -> bool {
    record.by.starts_with(RULE) && record.makers.is_empty()
}

/// What comes back of what a rule switched off: the outlets that were on.
fn to_come_back(standing: &Standing, item: &Select) -> Vec<Select> {
    match standing.fed(item) {
        Some(fed) => fed.iter().cloned().map(Select::Outlet).collect(),
        None => vec![item.clone()],
    }
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

pub(super) fn wish(who: String, items: impl Iterator<Item = Select>, action: Action) -> Wish {
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
        let is_lit = |at: &&usize| picture.world.outlets[**at].relay == Relays::On;
        let on = places.iter().filter(is_lit).map(|at| picture.world.outlets[*at].id.clone());
        let plan = |outlet: &OutletId| runs.record(runs.claimed_by(outlet)?);
        let goes_off = own.iter().any(|outlet| {
            let open = |relay: Relay| {
                let is_open = |step: &&StepRecord| {
                    step.outlet == *outlet && step.relay == relay && step.state.outcome().is_none()
                };
                plan(outlet).is_some_and(|plan| plan.steps.iter().any(|step| is_open(&step)))
            };
            open(Relay::Off) && !open(Relay::On)
        });
        // What is reckoned of a host as a whole comes back by one of its feeds, or moves between them.
        let (mut draws, mut returns, mut moves) = (0, 0, 0);
        for at in &places {
            let outlet = &picture.world.outlets[*at];
            for share in outlet.over.iter().filter(|share| Some(share.limit) == limit) {
                draws += share.of(outlet.load);
                let boot = share.of(outlet.draw.falling().boot);
                match picture.sources[*at].0 {
                    Source::Host | Source::Alone => moves = boot.max(moves),
                    _ => returns += boot,
                }
            }
        }
        returns += moves;
        let hindrance = own.iter().find_map(|outlet| {
            let plan = runs.claimed_by(outlet)?;
            Some(format!("outlet {outlet} is being switched by plan {plan}"))
        });
        Some(Candidate {
            select,
            priority,
            is_on,
            own: own.clone(),
            on: on.collect(),
            goes_off,
            is_locked,
            draws,
            returns,
            hindrance,
        })
    };
    rule.items(sight.site).into_iter().filter_map(candidate).collect()
}
