//! Plans of many outlets: previewed, kept, approved, run when their world still fits, cancelled.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::access::Identity;
use crate::model::event::About;
use crate::model::id::{HostId, OutletId, PduId, PlanId};
use crate::model::metric::Scope;
use crate::model::switching::{Action, Relay};
use crate::model::time::{Span, Stamp};
use crate::plan::guard::Hindrance;
use crate::plan::record::{Maker, OnFailure, OnOverload, PlanState, Record, Select, Selected};
use crate::plan::run::{recorded, reserve};
use crate::plan::world::{Goal, Relays, Want};
use crate::plan::{self, Picture, Plan, Sight};
use crate::store::journal::Commit;

use super::conduct::draft;
use super::keys::{Bound, Foreseen, asked_of, scoped};
use super::refusal::Refusal;
use super::rights::maker;
use super::site::Site;
use super::submit::{Request, Switching, Target, Ticket, claim, new_id, to_json};

/// How long ago it may be that a plan was put off to, ms: a request comes late, and a mistyped year must not switch at once.
const PAST_MS: i64 = 3_600_000;
/// How far ahead a plan may be put off, ms: a week. The rack is another by then.
const AHEAD_MS: i64 = 7 * 86_400_000;
/// How long a cancel waits for the step under way.
const CANCEL_WAIT: Span = Span::seconds(30);

/// Who asks for a plan.
#[derive(Debug, Clone)]
pub enum Asker {
    /// A client, within its rights.
    Client(Identity),
    /// The gateway itself, as its configuration or somebody with the right to it told it to; and what of it.
    Gateway(String),
}

impl Asker {
    /// On whose rights what it asks for rests; the gateway's own need none.
    fn makers(&self) -> Vec<Maker> {
        match self {
            Asker::Client(who) => vec![maker(who)],
            Asker::Gateway(_) => Vec::new(),
        }
    }
}

impl std::fmt::Display for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Asker::Client(who) => who.fmt(f),
            Asker::Gateway(what) => f.write_str(what),
        }
    }
}

/// A wish for a plan.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Who asks.
    pub who: Asker,
    /// For what.
    pub goals: Vec<Selected>,
    /// Why.
    pub reason: String,
    /// What becomes of the rest when a step fails.
    pub on_failure: OnFailure,
    /// What becomes of the rest when more flows than was reckoned.
    pub on_overload: OnOverload,
    /// When it is to begin at the earliest.
    pub not_before: Option<Stamp>,
    /// When it is made anew and run.
    pub calendar: Option<String>,
    /// Whether it may name locked outlets, for an admin to lift their locks.
    pub over_locks: bool,
    /// Whether hosts go strictly by their priority.
    pub by_priority: bool,
}

impl Wish {
    /// What a plan was made for, to be made anew and begun at once; over the locks that were lifted for it.
    pub(super) fn again(record: &Record, who: Asker) -> Self {
        Self {
            who,
            goals: record.goals.clone(),
            reason: record.reason.clone(),
            on_failure: record.on_failure,
            on_overload: record.on_overload,
            not_before: None,
            calendar: None,
            over_locks: record.lifted.is_some(),
            by_priority: record.by_priority,
        }
    }
}

/// What flows over a limit while a plan is carried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The limit.
    pub limit: String,
    /// What may flow for long, mVA.
    pub budget: i64,
    /// What may flow in first moments, mVA.
    pub peak: i64,
    /// What flows from when on, mVA.
    pub points: Vec<(u64, i64)>,
}

/// A plan with what it will do to the limits.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The plan.
    pub record: Record,
    /// The limits above its outlets, and those above other feeds of its hosts that load moves to.
    pub timeline: Vec<Line>,
    /// Hosts that have fewer live feeds after it, and are not switched off whole.
    pub loses_redundancy: Vec<HostId>,
    /// Hosts that are on, and without any feed at some moment of it.
    pub goes_dark: Vec<HostId>,
}

/// What wishes come to, on a picture.
struct Wished {
    goals: Vec<Goal>,
    asks: Vec<crate::plan::record::Asked>,
    over_locks: BTreeMap<OutletId, String>,
}

impl Switching {
    /// Makes a plan, and keeps nothing.
    pub fn preview(&self, wish: &Wish) -> Result<Preview, Refusal> {
        let now = self.clock.stamp().0;
        let in_time = |at: &Stamp| (-PAST_MS..=AHEAD_MS).contains(&at.0.saturating_sub(now));
        if !wish.not_before.as_ref().is_none_or(in_time) {
            return Err(Refusal::NotBefore);
        }
        let site = self.site.borrow().clone();
        let (mut picture, wished) = self.with_runs(|runs, sight| {
            let mut picture = runs.picture(sight, None, None);
            picture.adds_what_is_not_read_yet(sight.now, &runs.memory);
            let wished = Self::wished(wish, &site, &picture, sight)?;
            Ok::<_, Refusal>((picture, wished))
        })?;
        // Plans under way do not wait for what follows: a large plan takes a while to make.
        picture.world.by_priority = wish.by_priority;
        let doubtful = wished
            .goals
            .iter()
            .find(|goal| picture.world.outlets[goal.outlet].relay == Relays::Unknown);
        if let Some(doubtful) = doubtful {
            let outlet = picture.world.outlets[doubtful.outlet].id.to_string();
            let reason = "its relay is not known to be on or off".to_owned();
            return Err(Hindrance::Doubtful { outlet, reason }.into());
        }
        picture.goes_dark(&wished.goals);
        let made = plan::plan(&picture.world, &wished.goals)?;
        let mut preview = self.previewed(wish, &picture, wished, &made);
        preview.record.needs_approvals = site.approvals.needed(&preview.record, &site);
        Ok(preview)
    }

    fn wished(
        wish: &Wish,
        site: &Site,
        picture: &Picture,
        sight: &Sight<'_>,
    ) -> Result<Wished, Refusal> {
        let mut wished =
            Wished { goals: Vec::new(), asks: Vec::new(), over_locks: BTreeMap::new() };
        let mut taken: BTreeMap<usize, Action> = BTreeMap::new();
        for Selected { select, action, drops_hosts } in &wish.goals {
            for (host, outlets) in selected(select, site, sight)? {
                if let Asker::Client(who) = &wish.who {
                    site.policy.allow_switching(who, *action, host.as_ref(), &outlets)?;
                }
                wished.asks.push((host.clone(), outlets.clone(), *action));
                for outlet in outlets {
                    let at = *picture
                        .outlets
                        .get(&outlet)
                        .ok_or_else(|| Refusal::unknown(format!("outlet {outlet}")))?;
                    match taken.insert(at, *action) {
                        None => wished.goals.push(Goal {
                            outlet: at,
                            want: want(*action),
                            drops_host: host.is_some() || *drops_hosts,
                            why: format!("{select}: {}", action.word()),
                        }),
                        Some(before) if before == *action => {}
                        Some(before) => {
                            return Err(Refusal::Conflict {
                                outlet: outlet.to_string(),
                                wishes: format!("{} and {}", before.word(), action.word()),
                            });
                        }
                    }
                    let Some(lock) = sight.lock_of(&outlet) else { continue };
                    if !(lock.liftable && wish.over_locks) {
                        let reason = lock.reason.to_owned();
                        return Err(Hindrance::Locked { outlet: outlet.to_string(), reason }.into());
                    }
                    wished.over_locks.insert(outlet, lock.reason.to_owned());
                }
            }
        }
        Ok(wished)
    }

    fn previewed(&self, wish: &Wish, picture: &Picture, wished: Wished, made: &Plan) -> Preview {
        let world = &picture.world;
        let goals = &wished.goals;
        let now = self.clock.stamp();
        let outlets: Vec<&OutletId> =
            goals.iter().map(|goal| &world.outlets[goal.outlet].id).collect();
        let over = |at: usize| world.outlets[at].over.iter().map(|share| share.limit);
        let mut above: BTreeSet<usize> = goals.iter().flat_map(|goal| over(goal.outlet)).collect();
        // And those that load moves to.
        let hosts: BTreeSet<usize> =
            goals.iter().filter_map(|goal| world.outlets[goal.outlet].host).collect();
        let feeds = (0..world.outlets.len())
            .filter(|at| world.outlets[*at].host.is_some_and(|host| hosts.contains(&host)));
        above.extend(feeds.flat_map(over).filter(|limit| made.timelines[*limit].len() > 1));
        let target: Vec<String> = wish.goals.iter().map(|goal| goal.select.to_string()).collect();
        let actions: BTreeSet<&str> = wish.goals.iter().map(|goal| goal.action.word()).collect();
        let action = wish.goals.first().map_or(Action::Off, |goal| goal.action);
        let mut record = Record {
            reason: wish.reason.clone(),
            makers: wish.who.makers(),
            mixed: actions.len() > 1,
            steps: recorded(world, made, goals),
            scheduled: Some(made.makespan_ms),
            not_before: wish.not_before.map(|at| at.0),
            on_failure: wish.on_failure,
            on_overload: wish.on_overload,
            mark: picture.mark(outlets.into_iter()),
            asks: wished.asks,
            reserve: reserve(world, made),
            over_locks: wished.over_locks,
            goals: wish.goals.clone(),
            by_priority: wish.by_priority,
            calendar: wish.calendar.clone(),
            ..Record::new(new_id(now), action, target.join(", "), wish.who.to_string(), now)
        };
        let timeline = above.iter().map(|limit| {
            let of = &world.limits[*limit];
            Line {
                limit: of.name.clone(),
                budget: of.budget,
                peak: of.peak,
                points: made.timelines[*limit].clone(),
            }
        });

        for (step, of) in record.steps.iter_mut().zip(&made.steps) {
            if step.relay == Relay::On {
                step.why.push_str(&reckoned(picture, of.outlet));
            }
        }
        let (loses_redundancy, goes_dark) = cut(picture, made);
        Preview { timeline: timeline.collect(), loses_redundancy, goes_dark, record }
    }

    /// The plan of a wish that is carried out at once.
    pub(super) fn planned_at_once(&self, request: &Request) -> Result<Record, Refusal> {
        let select = match &request.target {
            Target::Outlet(outlet) => Select::Outlet(outlet.clone()),
            Target::Host(host) => Select::Host(host.clone()),
            Target::Group(group) => Select::Group(group.clone()),
        };
        let wish = Wish {
            who: Asker::Client(request.who.clone()),
            goals: vec![Selected { select, action: request.action, drops_hosts: false }],
            reason: request.reason.clone(),
            on_failure: OnFailure::Stop,
            on_overload: OnOverload::Stop,
            not_before: None,
            calendar: None,
            over_locks: false,
            by_priority: false,
        };
        Ok(Record { target: request.target.to_string(), ..self.preview(&wish)?.record })
    }

    /// Makes a plan and keeps it, to be run later. With an idempotency key that its client has used before for the same
    /// wish it is the plan of then, as it stands now.
    ///
    /// In a task of its own: a client that hangs up and asks again must find what became of its first request.
    pub async fn create(&self, wish: &Wish, key: Option<&str>) -> Result<Preview, Refusal> {
        let (this, wish) = (self.clone(), wish.clone());
        let key = match &wish.who {
            Asker::Client(who) => key.map(|key| scoped(who, key)),
            Asker::Gateway(_) => None,
        };
        let task = self.tasks.spawn(async move {
            let Some(key) = key else { return this.make(&wish, None).await };
            let asked = asked_of(&wish);
            let work = async {
                match this.bound(&key, &asked).await? {
                    Some(bound) => this.made_before(&wish, bound).await,
                    None => this.make(&wish, Some((key.clone(), asked))).await,
                }
            };
            this.in_turn(&key, work).await
        });
        task.await.unwrap_or(Err(Refusal::Ending))
    }

    /// Makes a plan and keeps it; the key that it is bound to becomes durable with it.
    async fn make(&self, wish: &Wish, key: Option<(String, String)>) -> Result<Preview, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::Ending);
        }
        let preview = self.preview(wish)?;
        let record = &preview.record;
        let key = match key {
            Some((key, asked)) => {
                let (plan, at) = (record.id.clone(), record.created);
                let foreseen = Some(Foreseen::of(&preview));
                Some((key, to_json(&Bound { plan, asked, at, foreseen })?))
            }
            None => None,
        };
        let text = format!("plan {} was made for {}: {}", record.id, wish.who, record.target);
        self.keep_with(record, "plan.created", &wish.who.to_string(), &text, key).await?;
        Ok(preview)
    }

    /// The plan that a key is bound to, with what was foreseen of it.
    async fn made_before(&self, wish: &Wish, bound: Bound) -> Result<Preview, Refusal> {
        let ticket = self.ticket(&bound.plan).await?;
        // A key whose plan is no longer kept was used all the same.
        let (Some(ticket), Some(foreseen)) = (ticket, bound.foreseen) else {
            return Err(Refusal::KeyReused);
        };
        let record = ticket.now();
        if let Asker::Client(who) = &wish.who {
            self.may(who, &record)?;
        }
        let Foreseen { timeline, loses_redundancy, goes_dark } = foreseen;
        Ok(Preview { record, timeline, loses_redundancy, goes_dark })
    }

    /// Makes a plan that is not under way durable as it stands, with a line in the audit, and tells.
    pub(super) async fn keep(
        &self,
        record: &Record,
        kind: &'static str,
        by: &str,
        text: &str,
    ) -> Result<(), Refusal> {
        self.keep_with(record, kind, by, text, None).await
    }

    async fn keep_with(
        &self,
        record: &Record,
        kind: &'static str,
        by: &str,
        text: &str,
        key: Option<(String, Vec<u8>)>,
    ) -> Result<(), Refusal> {
        let about = About::plan(&record.id);
        let notes = vec![draft(self.clock.stamp().0, kind, by, &about, text.to_owned())];
        let plans = vec![(record.id.clone(), to_json(record)?, false)];
        let commit = Commit { plans, key, notes, ..Commit::default() };
        self.in_journal(move |journal| journal.commit(commit)).await?;
        self.events.tell(kind, about, text);
        Ok(())
    }

    /// A kept plan with the digest that somebody saw.
    pub(super) async fn planned(&self, id: &PlanId, digest: &str) -> Result<Record, Refusal> {
        let record = self.kept(id).await?;
        if record.state != PlanState::Planned {
            let state = record.state.word();
            return Err(Refusal::NotPlanned { plan: id.to_string(), state });
        }
        if record.digest() != digest {
            return Err(Refusal::OtherDigest { plan: id.to_string(), digest: record.digest() });
        }
        Ok(record)
    }

    /// Runs a kept plan, if its digest is the one that was seen and its world still fits. In a task of its own, as every
    /// wish: a client that hangs up leaves nothing half begun. With an idempotency key that its client has used before to
    /// run it, it is that run, as it stands now.
    pub async fn run(
        &self,
        who: &Identity,
        id: &PlanId,
        digest: &str,
        key: Option<&str>,
    ) -> Result<Ticket, Refusal> {
        let (this, who, id, digest) = (self.clone(), who.clone(), id.clone(), digest.to_owned());
        let key = key.map(|key| scoped(&who, key));
        let task = self.tasks.spawn(async move {
            let turn = this.turn_of(&format!("plan {id}"));
            let _turn = turn.lock().await;
            let Some(key) = key else { return this.run_now(&who, &id, &digest, None).await };
            let asked = format!("run {id} {digest}");
            let work = async {
                if this.bound(&key, &asked).await?.is_none() {
                    let key = Some((key.clone(), asked));
                    return this.run_now(&who, &id, &digest, key).await;
                }
                let ticket = this.ticket(&id).await?.ok_or(Refusal::KeyReused)?;
                this.may(&who, &ticket.now())?;
                Ok(ticket)
            };
            this.in_turn(&key, work).await
        });
        task.await.unwrap_or(Err(Refusal::Ending))
    }

    async fn run_now(
        &self,
        who: &Identity,
        id: &PlanId,
        digest: &str,
        key: Option<(String, String)>,
    ) -> Result<Ticket, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::Ending);
        }
        let mut record = self.planned(id, digest).await?;
        self.may(who, &record)?;
        self.hosts_are_the_same(&record)?;
        // A rule that came since it was made holds for it as well.
        let site = self.site.borrow().clone();
        record.needs_approvals = record.needs_approvals.max(site.approvals.needed(&record, &site));
        self.is_agreed_to(&record)?;
        record.by = format!("{}; run by {who}", record.by);
        record.makers.push(maker(who));
        let key = match key {
            Some((key, asked)) => {
                let (plan, at) = (id.clone(), self.clock.stamp().0);
                Some((key, to_json(&Bound { plan, asked, at, foreseen: None })?))
            }
            None => None,
        };
        if record.not_before.is_some() {
            self.has_place()?;
        }
        if record.calendar.is_some() {
            return self.put_on_calendar(record, key).await;
        }
        let lifted = record.lifts();
        for outlet in record.mark.relays.keys() {
            self.check_with(outlet, &lifted).await?;
        }
        record.state = PlanState::Running;
        record.accepted = Some(self.clock.stamp().0);
        self.with_runs(|runs, sight| {
            runs.still_fits(&record, sight).map_err(|why| unfit(id, why))?;
            // One that was put off takes nothing before its time.
            if plan::Runs::waits(&record, sight) { Ok(()) } else { claim(runs, &record) }
        })?;
        let plans = vec![(id.clone(), to_json(&record)?, true)];
        let notes = vec![self.accepted(&record)];
        self.begin(record, Commit { plans, key, notes, ..Commit::default() }).await
    }

    /// Cancels a plan: one that was not run is not run any more; of one under way no further step begins. Comes back once
    /// that is so, or after a while, if a step under way takes that long; refused if a restart would not know of it.
    pub async fn cancel(&self, who: &Identity, id: &PlanId) -> Result<Record, Refusal> {
        let (this, who, id) = (self.clone(), who.clone(), id.clone());
        let task = self.tasks.spawn(async move { this.cancel_now(&who, &id).await });
        task.await.unwrap_or(Err(Refusal::Ending))
    }

    async fn cancel_now(&self, who: &Identity, id: &PlanId) -> Result<Record, Refusal> {
        let turn = self.turn_of(&format!("plan {id}"));
        let ours = turn.lock().await;
        let mut record = self.kept(id).await?;
        self.may(who, &record)?;
        match record.state {
            PlanState::Planned | PlanState::Scheduled => {
                record.state = PlanState::Cancelled;
                record.finished = Some(self.clock.stamp().0);
                let text = format!("plan {id} was cancelled by {who}");
                self.keep(&record, "plan.cancelled", &who.to_string(), &text).await?;
                self.watched().remove(id);
                Ok(record)
            }
            PlanState::Running => {
                let ticket = self.ticket(id).await?;
                let is_open = self.turn(|runs, sight| runs.cancel(id, &who.to_string(), sight));
                drop(ours);
                // It is over by now, or the gateway ends and has put it away: then the next start is told.
                if !is_open && self.stop.is_cancelled() {
                    return Err(Refusal::Ending);
                }
                let text = format!("plan {id} is to stop, by {who}");
                self.events.tell("plan.cancelled", About::plan(id), text);
                let Some(ticket) = ticket else { return Ok(record) };
                let watch = ticket.clone();
                let record = tokio::select! {
                    ended = ticket.end() => ended,
                    () = tokio::time::sleep(CANCEL_WAIT.duration()) => watch.now(),
                };
                // By now its cancel was committed, or could not be.
                let kept = self.kept_in_journal(id).await;
                let goes_on =
                    |kept: &Record| kept.state == PlanState::Running && kept.cancelled.is_none();
                if kept.is_ok_and(|kept| !kept.as_ref().is_some_and(goes_on)) {
                    Ok(record)
                } else {
                    Err(Refusal::NotDurable { plan: id.to_string() })
                }
            }
            state => Err(Refusal::NotPlanned { plan: id.to_string(), state: state.word() }),
        }
    }

    pub(super) async fn kept(&self, id: &PlanId) -> Result<Record, Refusal> {
        let ticket = self.ticket(id).await?;
        Ok(ticket.ok_or_else(|| Refusal::unknown(format!("plan {id}")))?.now())
    }

    /// Every limit as it is now, with the room that plans under way have taken.
    pub fn limits(&self) -> Picture {
        self.with_runs(|runs, sight| {
            let mut picture = runs.picture(sight, None, None);
            picture.adds_what_is_not_read_yet(sight.now, &runs.memory);
            picture.fills_what_is_not_read(sight.now, sight.site.fresh);
            picture
        })
    }
}

/// Why a kept plan does not fit any more.
pub(super) fn unfit(id: &PlanId, why: plan::run::Unfit) -> Refusal {
    match why {
        plan::run::Unfit::Changed(difference) => {
            Refusal::Changed { plan: id.to_string(), difference }
        }
        plan::run::Unfit::Refused(refusal) => Refusal::Unfit(refusal),
    }
}

/// With what an on is reckoned, for its step.
fn reckoned(picture: &Picture, at: usize) -> String {
    let draw = picture.world.outlets[at].draw.falling();
    let (source, starts) = picture.sources[at];
    format!(
        "; reckoned with {} W, {} W from {} s on: {}",
        draw.boot / 1_000,
        draw.steady / 1_000,
        draw.settles_ms().div_ceil(1_000),
        source.told(starts)
    )
}

/// Outlets, by themselves or as those of a host.
pub(super) type Named = (Option<HostId>, Vec<OutletId>);

/// What a selection stands for: outlets by themselves, and those of hosts.
fn selected(select: &Select, site: &Site, sight: &Sight<'_>) -> Result<Vec<Named>, Refusal> {
    let target = match select {
        Select::Pdu(pdu) => return Ok(vec![(None, outlets_of(pdu, sight)?)]),
        Select::Outlet(outlet) => Target::Outlet(outlet.clone()),
        Select::Host(host) => Target::Host(host.clone()),
        Select::Group(group) => Target::Group(group.clone()),
    };
    Switching::asked_of(site, &target)
}

fn outlets_of(pdu: &PduId, sight: &Sight<'_>) -> Result<Vec<OutletId>, Refusal> {
    let view = sight.view(pdu).ok_or_else(|| Refusal::unknown(format!("PDU {pdu}")))?;
    let parts = view.layout.parts(Scope::Outlet).iter();
    let outlets: Vec<OutletId> =
        parts.map(|part| OutletId { pdu: pdu.clone(), number: part.number }).collect();
    if outlets.is_empty() {
        return Err(Refusal::unknown(format!("outlet of PDU {pdu} as far as is known")));
    }
    Ok(outlets)
}

fn want(action: Action) -> Want {
    match action {
        Action::On => Want::On,
        Action::Off => Want::Off,
        Action::Cycle => Want::Cycle,
    }
}

/// Hosts that keep a feed and lose another, or are without one for a while; and those that are without any.
fn cut(picture: &Picture, made: &Plan) -> (Vec<HostId>, Vec<HostId>) {
    let mut relays: Vec<Relays> = picture.world.outlets.iter().map(|outlet| outlet.relay).collect();
    let live = |host: usize, relays: &[Relays]| {
        let own = picture.world.outlets.iter().enumerate().filter(|(_, o)| o.host == Some(host));
        own.filter(|(at, _)| relays[*at] == Relays::On).count()
    };
    let before: Vec<usize> =
        (0..picture.world.hosts.len()).map(|host| live(host, &relays)).collect();
    let mut least = before.clone();
    for step in &made.steps {
        relays[step.outlet] = if step.relay == Relay::On { Relays::On } else { Relays::Off };
        if let Some(host) = picture.world.outlets[step.outlet].host {
            least[host] = least[host].min(live(host, &relays));
        }
    }
    let fewer = (0..before.len()).filter(|host| least[*host] < before[*host]);
    let (dark, lit): (Vec<usize>, Vec<usize>) = fewer.partition(|host| least[*host] == 0);
    let named = |hosts: Vec<usize>| {
        hosts.into_iter().map(|host| picture.world.hosts[host].id.clone()).collect()
    };
    (named(lit), named(dark))
}
