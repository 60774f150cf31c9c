//! Plans of many outlets: previewed, kept, run when their world still fits, cancelled.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::access::Identity;
use crate::model::event::About;
use crate::model::id::{HostId, OutletId, PduId, PlanId};
use crate::model::metric::Scope;
use crate::model::switching::{Action, Relay};
use crate::model::time::{Span, Stamp};
use crate::plan::world::{Goal, Relays, Want};
use crate::plan::{self, Plan};

use super::picture::Picture;
use super::record::{PlanState, Record, StepRecord, StepState};
use super::refusal::Refusal;
use super::submit::{Switching, Ticket, new_id};

/// How long a cancel waits for the step under way.
const CANCEL_WAIT: Span = Span::seconds(30);

/// What a wish is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// Every outlet of a PDU.
    Pdu(PduId),
    /// An outlet.
    Outlet(OutletId),
    /// Every feed of a host.
    Host(HostId),
}

impl std::fmt::Display for Select {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Select::Pdu(pdu) => write!(f, "PDU {pdu}"),
            Select::Outlet(outlet) => write!(f, "outlet {outlet}"),
            Select::Host(host) => write!(f, "host {host}"),
        }
    }
}

/// What becomes of the rest when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is not begun.
    #[default]
    Stop,
    /// It goes on, but for outlets of the same host.
    Continue,
}

/// A wish for a plan.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Who asks.
    pub who: Identity,
    /// For what.
    pub goals: Vec<(Select, Action)>,
    /// Why.
    pub reason: String,
    /// What becomes of the rest when a step fails.
    pub on_failure: OnFailure,
    /// When it is to begin at the earliest.
    pub not_before: Option<Stamp>,
}

/// What a plan was made for: it is run only while this still holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// What each outlet's relay did.
    relays: BTreeMap<OutletId, String>,
    /// What each limit above them may carry, mVA.
    budgets: BTreeMap<String, i64>,
}

impl Mark {
    /// In what another one differs, in words; nothing if in nothing.
    fn difference(&self, now: &Mark) -> Option<String> {
        let mut said = Vec::new();
        for (outlet, was) in &self.relays {
            let is = now.relays.get(outlet).map_or("gone", String::as_str);
            if is != was {
                said.push(format!("{outlet} was {was} and is {is}"));
            }
        }
        let names: BTreeSet<&String> = self.budgets.keys().chain(now.budgets.keys()).collect();
        for name in names {
            let watts = |of: &Mark| of.budgets.get(name).map(|mva| mva / 1_000);
            if watts(self) != watts(now) {
                let word = |of: Option<i64>| of.map_or("no limit".into(), |w| format!("{w} W"));
                said.push(format!(
                    "{name} allowed {} and allows {}",
                    word(watts(self)),
                    word(watts(now))
                ));
            }
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// What flows over a limit while a plan is carried out.
#[derive(Debug, Clone)]
pub struct Line {
    /// The limit.
    pub limit: String,
    /// What it may carry, mVA.
    pub budget: i64,
    /// What flows from when on, mVA.
    pub points: Vec<(u64, i64)>,
}

/// A plan with what it will do to the limits.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The plan.
    pub record: Record,
    /// The limits above its outlets.
    pub timeline: Vec<Line>,
    /// Hosts that have fewer live feeds after it, and are not switched off whole.
    pub loses_redundancy: Vec<HostId>,
}

impl Switching {
    /// Makes a plan, and keeps nothing.
    pub fn preview(&self, wish: &Wish) -> Result<Preview, Refusal> {
        let site = self.site.borrow().clone();
        let picture = self.picture(None, None);
        let mut goals = Vec::new();
        let mut wanted: BTreeMap<usize, Action> = BTreeMap::new();
        let mut asks = Vec::new();
        for (select, action) in &wish.goals {
            let (host, outlets) = self.select(select)?;
            site.policy.allow_switching(&wish.who, *action, host.as_ref(), &outlets)?;
            asks.push((host, outlets.clone(), *action));
            for outlet in outlets {
                let at = *picture
                    .outlets
                    .get(&outlet)
                    .ok_or_else(|| Refusal::Unknown(format!("outlet {outlet}")))?;
                match wanted.insert(at, *action) {
                    None => goals.push(Goal {
                        outlet: at,
                        want: want(*action),
                        drops_host: matches!(select, Select::Host(_)),
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
                if let Some(reason) = crate::wire::pdu::Site::locked(&self.standing(), &outlet) {
                    return Err(Refusal::Locked { outlet: outlet.to_string(), reason });
                }
            }
        }
        if let Some(doubtful) =
            goals.iter().find(|goal| picture.world.outlets[goal.outlet].relay == Relays::Unknown)
        {
            let outlet = picture.world.outlets[doubtful.outlet].id.to_string();
            let reason = "its relay is not known to be on or off".to_owned();
            return Err(Refusal::Doubtful { outlet, reason });
        }
        let made = plan::plan(&picture.world, &goals)?;
        let mut preview = self.previewed(wish, &picture, &goals, &made);
        preview.record.asks = asks;
        Ok(preview)
    }

    fn previewed(&self, wish: &Wish, picture: &Picture, goals: &[Goal], made: &Plan) -> Preview {
        let world = &picture.world;
        let now = self.clock.stamp();
        let steps = made.steps.iter().map(|step| StepRecord {
            outlet: world.outlets[step.outlet].id.clone(),
            relay: step.relay,
            at_ms: step.at_ms,
            why: step.why.clone(),
            keeps_host: step.relay == Relay::Off
                && goals.iter().any(|goal| goal.outlet == step.outlet && !goal.drops_host),
            state: StepState::Pending,
            detail: None,
            at: None,
        });
        let mut mark = Mark::default();
        let mut above: BTreeSet<usize> = BTreeSet::new();
        for goal in goals {
            let outlet = &world.outlets[goal.outlet];
            mark.relays.insert(outlet.id.clone(), format!("{:?}", outlet.relay).to_lowercase());
            above.extend(&outlet.limits);
        }
        for limit in &above {
            let limit = &world.limits[*limit];
            mark.budgets.insert(limit.name.clone(), limit.budget);
        }
        let target: Vec<String> = wish.goals.iter().map(|(select, _)| select.to_string()).collect();
        let actions: BTreeSet<&str> = wish.goals.iter().map(|(_, action)| action.word()).collect();
        let record = Record {
            id: new_id(now),
            action: wish.goals.first().map_or(Action::Off, |(_, action)| *action),
            mixed: actions.len() > 1,
            target: target.join(", "),
            reason: wish.reason.clone(),
            by: wish.who.to_string(),
            created: now.0,
            finished: None,
            state: PlanState::Planned,
            hold_ms: 0,
            steps: steps.collect(),
            scheduled: Some(made.makespan_ms),
            not_before: wish.not_before.map(|at| at.0),
            on_failure: wish.on_failure,
            mark,
            asks: Vec::new(),
        };
        let timeline = above.iter().map(|limit| {
            let of = &world.limits[*limit];
            Line {
                limit: of.name.clone(),
                budget: of.budget,
                points: made.timelines[*limit].clone(),
            }
        });
        Preview { timeline: timeline.collect(), loses_redundancy: loses(picture, made), record }
    }

    fn select(&self, select: &Select) -> Result<(Option<HostId>, Vec<OutletId>), Refusal> {
        match select {
            Select::Outlet(outlet) => Ok((None, vec![outlet.clone()])),
            Select::Host(id) => {
                let site = self.site.borrow();
                let host =
                    site.hosts.get(id).ok_or_else(|| Refusal::Unknown(format!("host {id}")))?;
                Ok((Some(id.clone()), host.outlets.clone()))
            }
            Select::Pdu(pdu) => {
                let handle = self.fleet.get(pdu);
                let handle = handle.ok_or_else(|| Refusal::Unknown(format!("PDU {pdu}")))?;
                let view = handle.view();
                let parts = view.layout.parts(Scope::Outlet).iter();
                let outlets: Vec<OutletId> =
                    parts.map(|part| OutletId { pdu: pdu.clone(), number: part.number }).collect();
                if outlets.is_empty() {
                    return Err(Refusal::Unknown(format!(
                        "outlet of PDU {pdu} as far as is known"
                    )));
                }
                Ok((None, outlets))
            }
        }
    }

    /// Makes a plan and keeps it, to be run later.
    pub async fn create(&self, wish: &Wish) -> Result<Preview, Refusal> {
        let preview = self.preview(wish)?;
        self.save(&preview.record, None).await?;
        let id = &preview.record.id;
        let text = format!("plan {id} was made for {}: {}", wish.who, preview.record.target);
        self.events.tell("plan.created", About::plan(id), text);
        Ok(preview)
    }

    /// Runs a kept plan, if its digest is the one that was seen and its world still fits. In a task of its own, as every
    /// wish: a client that hangs up leaves nothing half begun.
    pub async fn run(&self, who: &Identity, id: &PlanId, digest: &str) -> Result<Ticket, Refusal> {
        let (this, who, id, digest) = (self.clone(), who.clone(), id.clone(), digest.to_owned());
        let task = self.tasks.spawn(async move {
            let turn = this.turn_of_plan(&id);
            let _turn = turn.lock().await;
            this.run_now(&who, &id, &digest).await
        });
        task.await.unwrap_or(Err(Refusal::Ending))
    }

    async fn run_now(&self, who: &Identity, id: &PlanId, digest: &str) -> Result<Ticket, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::Ending);
        }
        let mut record = self.kept(id).await?;
        if record.state != PlanState::Planned {
            let state = record.state.word();
            return Err(Refusal::NotPlanned { plan: id.to_string(), state });
        }
        if record.digest() != digest {
            return Err(Refusal::OtherDigest { plan: id.to_string(), digest: record.digest() });
        }
        self.may(who, &record)?;
        let site = self.site.borrow().clone();
        for outlet in record.mark.relays.keys() {
            self.check(&site, outlet).await?;
        }
        self.still_fits(&record)?;
        record.state = PlanState::Running;
        record.by = format!("{}; run by {who}", record.by);
        self.claim(&record)?;
        if let Err(error) = self.save(&record, None).await {
            self.release(&record);
            return Err(error.into());
        }
        Ok(self.start(record))
    }

    /// Whether a client may do all that a plan does.
    fn may(&self, who: &Identity, record: &Record) -> Result<(), Refusal> {
        let site = self.site.borrow().clone();
        for (host, outlets, action) in &record.asks {
            site.policy.allow_switching(who, *action, host.as_ref(), outlets)?;
        }
        if record.asks.is_empty() {
            let outlets: Vec<OutletId> = record.steps.iter().map(|s| s.outlet.clone()).collect();
            site.policy.allow_switching(who, record.action, None, &outlets)?;
        }
        Ok(())
    }

    /// Whether the world is the one that a plan was made for, and its steps still fit into it.
    pub(super) fn still_fits(&self, record: &Record) -> Result<(), Refusal> {
        let picture = self.picture(Some(&record.id), None);
        let world = &picture.world;
        let mut now = Mark::default();
        let mut goals = Vec::new();
        for outlet in record.mark.relays.keys() {
            let Some(at) = picture.outlets.get(outlet).copied() else { continue };
            let of = &world.outlets[at];
            now.relays.insert(outlet.clone(), format!("{:?}", of.relay).to_lowercase());
            for limit in &of.limits {
                let limit = &world.limits[*limit];
                now.budgets.insert(limit.name.clone(), limit.budget);
            }
            let has = |relay| {
                record.steps.iter().any(|step| step.outlet == *outlet && step.relay == relay)
            };
            let want = match (has(Relay::Off), has(Relay::On)) {
                (true, true) => Want::Cycle,
                (true, false) => Want::Off,
                (false, true) => Want::On,
                (false, false) => continue,
            };
            let keeps = record.steps.iter().any(|step| step.outlet == *outlet && step.keeps_host);
            goals.push(Goal { outlet: at, want, drops_host: !keeps, why: String::new() });
        }
        if let Some(difference) = record.mark.difference(&now) {
            return Err(Refusal::Changed { plan: record.id.to_string(), difference });
        }
        plan::plan(world, &goals)?;
        Ok(())
    }

    /// Cancels a plan: one that was not run is not run any more; of one under way no further step begins. Comes back once
    /// that is so, or after a while, if a step under way takes that long.
    pub async fn cancel(&self, who: &Identity, id: &PlanId) -> Result<Record, Refusal> {
        let (this, who, id) = (self.clone(), who.clone(), id.clone());
        let task = self.tasks.spawn(async move { this.cancel_now(&who, &id).await });
        task.await.unwrap_or(Err(Refusal::Ending))
    }

    async fn cancel_now(&self, who: &Identity, id: &PlanId) -> Result<Record, Refusal> {
        let turn = self.turn_of_plan(id);
        let ours = turn.lock().await;
        let mut record = self.kept(id).await?;
        self.may(who, &record)?;
        match record.state {
            PlanState::Planned => {
                record.state = PlanState::Cancelled;
                record.finished = Some(self.clock.stamp().0);
                self.save(&record, None).await?;
                let text = format!("plan {id} was cancelled by {who}");
                self.events.tell("plan.cancelled", About::plan(id), text);
                Ok(record)
            }
            PlanState::Running => {
                self.ask_to_stop(id);
                drop(ours);
                let text = format!("plan {id} is to stop, by {who}");
                self.events.tell("plan.cancelled", About::plan(id), text);
                let Some(ticket) = self.ticket(id).await? else { return Ok(record) };
                let now = ticket.now();
                tokio::select! {
                    ended = ticket.end() => Ok(ended),
                    () = tokio::time::sleep(CANCEL_WAIT.duration()) => Ok(now),
                }
            }
            state => Err(Refusal::NotPlanned { plan: id.to_string(), state: state.word() }),
        }
    }

    async fn kept(&self, id: &PlanId) -> Result<Record, Refusal> {
        let ticket = self.ticket(id).await?;
        Ok(ticket.ok_or_else(|| Refusal::Unknown(format!("plan {id}")))?.now())
    }
}

fn want(action: Action) -> Want {
    match action {
        Action::On => Want::On,
        Action::Off => Want::Off,
        Action::Cycle => Want::Cycle,
    }
}

/// Hosts that keep a feed and lose another.
fn loses(picture: &Picture, made: &Plan) -> Vec<HostId> {
    let mut after: Vec<Relays> = picture.world.outlets.iter().map(|outlet| outlet.relay).collect();
    for step in &made.steps {
        after[step.outlet] = if step.relay == Relay::On { Relays::On } else { Relays::Off };
    }
    let live = |host: usize, relays: &dyn Fn(usize) -> Relays| {
        let own = picture.world.outlets.iter().enumerate().filter(|(_, o)| o.host == Some(host));
        own.filter(|(at, _)| relays(*at) == Relays::On).count()
    };
    let hosts = picture.world.hosts.iter().enumerate();
    hosts
        .filter(|(host, _)| {
            let before = live(*host, &|at| picture.world.outlets[at].relay);
            let left = live(*host, &|at| after[at]);
            left > 0 && left < before
        })
        .map(|(_, host)| host.id.clone())
        .collect()
}
