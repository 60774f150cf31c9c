//! The gate: who asks, for what, whether it may be, and a durable plan before anything moves.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Identity;
use crate::device::Fleet;
use crate::events::Events;
use crate::model::event::About;
use crate::model::id::{GroupId, HostId, OutletId, PlanId};
use crate::model::limits::{OPEN_PLANS, QUIESCE_MS, WEBHOOKS};
use crate::model::metric::Word;
use crate::model::switching::{Action, Relay};
use crate::model::time::{Clock, Stamp};
use crate::plan::planner::{After, Until};
use crate::plan::record::{PlanState, Record, StepRecord, StepState};
use crate::plan::{Runs, Sight};
use crate::store::journal::{Commit, Journal, JournalError, Kept};

use super::awake::{Awake, LATENCY};
use super::conduct::{Wake, Watched, draft};
use super::keys::{Bound, asked, scoped};
use super::locks::Locks;
use super::plans::{Named, unfit};
use super::refusal::Refusal;
use super::site::Site;

/// What is to be switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One outlet.
    Outlet(OutletId),
    /// Every feed of a host.
    Host(HostId),
    /// Everything in a group.
    Group(GroupId),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Outlet(outlet) => write!(f, "{outlet}"),
            Target::Host(host) => write!(f, "{host}"),
            Target::Group(group) => write!(f, "{group}"),
        }
    }
}

/// A wish.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub who: Identity,
    /// For what.
    pub action: Action,
    /// Of what.
    pub target: Target,
    /// Why.
    pub reason: String,
    /// The client's idempotency key.
    pub key: Option<String>,
}

/// An accepted wish: its plan, and a watch on it.
#[derive(Debug, Clone)]
pub struct Ticket {
    plan: watch::Receiver<Record>,
    /// Whether this request was made before; nothing is switched a second time.
    pub repeated: bool,
}

impl Ticket {
    /// The plan as it stands.
    pub fn now(&self) -> Record {
        self.plan.borrow().clone()
    }

    /// The plan once it has ended.
    pub async fn end(mut self) -> Record {
        let ended = self.plan.wait_for(|plan| plan.state != PlanState::Running).await;
        let ended = ended.map(|plan| plan.clone());
        // The one who carries it out is gone: what is known is how it stood last.
        if let Ok(plan) = ended { plan } else { self.plan.borrow().clone() }
    }
}

/// The gate. Clones are handles to the same one.
#[derive(Clone)]
pub struct Switching {
    pub(super) fleet: Fleet,
    pub(super) journal: Arc<Journal>,
    pub(super) events: Events,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) site: watch::Receiver<Arc<Site>>,
    pub(super) locks: Arc<watch::Sender<Arc<Locks>>>,
    /// One change of a lock at a time, in memory and in the journal.
    pub(super) locking: Arc<tokio::sync::Mutex<()>>,
    runs: Arc<Mutex<Runs>>,
    /// Outlets that somebody wants off since the watch looked last: no outage has them on again.
    pub(super) unwanted: Arc<Mutex<BTreeSet<OutletId>>>,
    /// Those of them that no rule switched off: no rule has them on again.
    pub(super) let_go: Arc<Mutex<BTreeSet<OutletId>>>,
    /// Outlets that are off and of which it was looked for what they drew; nothing while nobody looks.
    pub(super) recalled: Arc<watch::Sender<Option<BTreeSet<OutletId>>>>,
    watched: Arc<Mutex<Watched>>,
    /// What was refused to whom of late.
    pub(super) refused: Arc<Mutex<super::audit::Refused>>,
    /// Keys whose plan is being made, and plans that are being run or cancelled: a second request waits.
    pub(super) turns: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    /// Places of webhooks that are out.
    pub(super) webhooks: Arc<tokio::sync::Semaphore>,
    /// Nodes that the end of the gateway found not taken back yet.
    pub(super) unheard: Arc<tokio::sync::Mutex<super::hooks::Unheard>>,
    /// One kept plan is foreseen at a time: whoever reads may ask for that, and it takes a while.
    pub(super) foreseeing: Arc<tokio::sync::Semaphore>,
    pub(super) wake: Wake,
    awake: Awake,
    pub(super) quiet: Arc<tokio::sync::Notify>,
    pub(super) tasks: TaskTracker,
    /// No more wishes, no more steps.
    pub(super) stop: CancellationToken,
    /// Nothing is under way any more.
    pub(super) done: CancellationToken,
}

impl Switching {
    /// The gate of a gateway, with the locks that an earlier run left.
    pub fn new(
        fleet: Fleet,
        journal: Arc<Journal>,
        site: watch::Receiver<Arc<Site>>,
        stop: CancellationToken,
    ) -> Result<Self, JournalError> {
        let services = fleet.services();
        let (events, clock) = (services.events.clone(), services.clock.clone());
        let locks = watch::Sender::new(Arc::new(super::locks::load(&journal)?));
        let this = Self {
            fleet,
            journal,
            events,
            clock,
            site,
            locks: Arc::new(locks),
            locking: Arc::default(),
            runs: Arc::default(),
            unwanted: Arc::default(),
            let_go: Arc::default(),
            recalled: Arc::default(),
            watched: Arc::default(),
            refused: Arc::default(),
            turns: Arc::default(),
            webhooks: Arc::new(tokio::sync::Semaphore::new(WEBHOOKS)),
            unheard: Arc::default(),
            foreseeing: Arc::new(tokio::sync::Semaphore::new(1)),
            wake: Arc::new(watch::Sender::new(None)),
            awake: Awake::by(std::path::Path::new(LATENCY)),
            quiet: Arc::default(),
            tasks: TaskTracker::new(),
            stop,
            done: CancellationToken::new(),
        };
        this.tasks.spawn(this.clone().keep_time());
        this.tasks.spawn(this.clone().keep_journal());
        this.tasks.spawn(this.clone().keep_rights());
        this.tasks.spawn(this.awake.clone().keep(this.done.clone()));
        Ok(this)
    }

    /// A wish is coming: the processor stays awake for it.
    pub fn expect(&self) {
        self.awake.stay();
    }

    /// Takes a wish, or refuses it. Returns once the plan is durable; it is carried out from then on whether
    /// anybody waits or not.
    ///
    /// With a key, all of it runs in a task of its own: a client that hangs up drops its request wherever that stands, and
    /// the next with the same key is to wait for what becomes of it. Without one it may be dropped up to where the plan has
    /// its outlets; what comes then is done on another thread.
    pub async fn submit(&self, request: Request) -> Result<Ticket, Refusal> {
        if request.key.is_none() {
            return self.take(request).await;
        }
        let this = self.clone();
        let task = self.tasks.spawn(async move { this.take(request).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a wish was not taken to its end");
            Err(Refusal::Ending)
        })
    }

    async fn take(&self, request: Request) -> Result<Ticket, Refusal> {
        // The end waits for it.
        let _counted = self.tasks.token();
        let site = self.site.borrow().clone();
        Self::may_ask(&site, &request)?;
        let Some(key) = request.key.as_ref().map(|key| scoped(&request.who, key)) else {
            return self.accept(request, &site, None).await;
        };
        let work = async {
            match self.bound(&key, &asked(&request)).await? {
                // A key whose plan is no longer kept was used all the same: nothing is switched on it again.
                Some(bound) => {
                    let ticket = self.ticket(&bound.plan).await?.ok_or(Refusal::KeyReused)?;
                    Ok(Ticket { repeated: true, ..ticket })
                }
                None => self.accept(request, &site, Some(key.clone())).await,
            }
        };
        self.in_turn(&key, work).await
    }

    /// Whether a client may ask for this at all: before anything of an earlier request is told.
    fn may_ask(site: &Site, request: &Request) -> Result<(), Refusal> {
        for (host, outlets) in Self::asked_of(site, &request.target)? {
            site.policy.allow_switching(&request.who, request.action, host.as_ref(), &outlets)?;
        }
        Ok(())
    }

    /// What a target stands for: outlets by themselves, and those of hosts.
    pub(super) fn asked_of(site: &Site, target: &Target) -> Result<Vec<Named>, Refusal> {
        let host = |id: &HostId| {
            let host = site.hosts.get(id).ok_or_else(|| Refusal::unknown(format!("host {id}")))?;
            Ok::<_, Refusal>((Some(id.clone()), host.outlets.clone()))
        };
        match target {
            Target::Outlet(outlet) => Ok(vec![(None, vec![outlet.clone()])]),
            Target::Host(id) => Ok(vec![host(id)?]),
            Target::Group(id) => {
                let group = site.groups.get(id);
                let group = group.ok_or_else(|| Refusal::unknown(format!("group {id}")))?;
                let mut asked: Vec<_> = group.hosts.iter().map(host).collect::<Result<_, _>>()?;
                if !group.outlets.is_empty() {
                    asked.push((None, group.outlets.clone()));
                }
                Ok(asked)
            }
        }
    }

    /// A watch on a plan, running or ended.
    pub async fn ticket(&self, id: &PlanId) -> Result<Option<Ticket>, Refusal> {
        let plan = self.watched().get(id).map(watch::Sender::subscribe);
        if let Some(plan) = plan {
            return Ok(Some(Ticket { plan, repeated: false }));
        }
        let kept = self.kept_in_journal(id).await?;
        Ok(kept.map(|record| Ticket { plan: watch::channel(record).1, repeated: false }))
    }

    /// A plan as the next start would find it.
    pub(super) async fn kept_in_journal(
        &self,
        id: &PlanId,
    ) -> Result<Option<Record>, JournalError> {
        let wanted = id.clone();
        let kept = self.in_journal(move |journal| journal.get(&wanted)).await?;
        kept.map(|kept| parse(id.as_str(), &kept)).transpose()
    }

    /// The latest plans before one, newest first.
    pub async fn latest(
        &self,
        count: usize,
        before: Option<PlanId>,
    ) -> Result<Vec<Record>, Refusal> {
        let kept = self.in_journal(move |journal| journal.latest(count, before.as_ref())).await?;
        let record = |kept: &Kept| Ok(parse("a plan", kept)?);
        kept.iter().map(record).collect()
    }

    /// How many plans are being carried out.
    pub fn running_plans(&self) -> usize {
        self.runs().records().count()
    }

    /// Accepts a wish. Where there is no room for it, and something was switched a moment ago, what flows is read anew first.
    async fn accept(
        &self,
        request: Request,
        site: &Site,
        key: Option<String>,
    ) -> Result<Ticket, Refusal> {
        let first = self.accept_as_read(request.clone(), site, key.clone()).await;
        let is_full = matches!(first, Err(Refusal::Unfit(crate::plan::Refusal::Limit { .. })));
        if !is_full || !self.reads_what_was_switched().await {
            return first;
        }
        self.accept_as_read(request, site, key).await
    }

    async fn accept_as_read(
        &self,
        request: Request,
        site: &Site,
        key: Option<String>,
    ) -> Result<Ticket, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::Ending);
        }
        let now = self.clock.stamp();
        let mut record = match &request.target {
            Target::Group(_) => self.planned_at_once(&request)?,
            _ => Self::plan(&request, site, Self::asked_of(site, &request.target)?, now),
        };
        if site.approvals.needed(&record, site) > 0 {
            return Err(Refusal::NeedsPlan);
        }
        // Those of a group as well that are reckoned as switched already.
        let beside = record.mark.relays.keys().cloned();
        for outlet in record.outlets().into_iter().chain(beside).collect::<BTreeSet<_>>() {
            self.check(&outlet).await?;
        }
        let fits = |record: &Record| self.with_runs(|runs, sight| runs.still_fits(record, sight));
        if record.scheduled.is_some() && fits(&record).is_err() {
            // It was planned for what was seen before that.
            record = self.planned_at_once(&request)?;
        }
        record.state = PlanState::Running;
        record.accepted = Some(now.0);
        // An outlet may have been looked at meanwhile.
        if self.stop.is_cancelled() {
            return Err(Refusal::Ending);
        }
        if let Err(refusal) = self.takes(&record) {
            // Its feeds may fit in another order than they are configured in.
            let orders = matches!(request.target, Target::Host(_)) && record.outlets().len() > 1;
            let is_full = matches!(refusal, Refusal::Unfit(crate::plan::Refusal::Limit { .. }));
            if !orders || !is_full {
                return Err(refusal);
            }
            record = self.planned_at_once(&request)?;
            record.state = PlanState::Running;
            record.accepted = Some(now.0);
            self.takes(&record)?;
        }
        // A plan's first step is intended in the same commit that accepts it: one fsync before the wire.
        let mut notes = vec![self.accepted(&record)];
        if let Some(first) = record.steps.first_mut().filter(|_| record.scheduled.is_none()) {
            first.state = StepState::Intended;
            first.at = Some(now.0);
            let text = format!("{} is to be switched {}", first.outlet, first.relay.word());
            let about = About { plan: Some(record.id.clone()), ..About::outlet(&first.outlet) };
            notes.push(draft(now.0, "step.intended", "the gateway", &about, text));
        }
        super::crash::point("submitted");
        let (plan, asked) = (record.id.clone(), asked(&request));
        let bound = Bound { plan, asked, at: now.0, foreseen: None };
        let key = match key {
            Some(key) => Some((key, to_json(&bound)?)),
            None => None,
        };
        let plans = vec![(record.id.clone(), to_json(&record)?, true)];
        self.begin(record, Commit { plans, key, notes, ..Commit::default() }).await
    }

    /// Takes the outlets of a plan that fits.
    fn takes(&self, record: &Record) -> Result<(), Refusal> {
        self.with_runs(|runs, sight| {
            if record.scheduled.is_none() {
                keeps_feeds(record, sight)?;
                comes_after(record, sight)?;
                runs.has_headroom(record, sight)?;
            } else {
                runs.still_fits(record, sight).map_err(|why| unfit(&record.id, why))?;
            }
            claim(runs, record)
        })
    }

    /// The line of the audit for a plan that was accepted.
    pub(super) fn accepted(&self, record: &Record) -> crate::audit::Draft {
        let about = About::plan(&record.id);
        draft(self.clock.stamp().0, "plan.accepted", &record.by, &about, told(record))
    }

    /// Makes a claimed plan durable, and begins it: all on the thread that wrote, as to wake another takes as long as a
    /// disk does; and whether anybody waits for it or not.
    pub(super) async fn begin(&self, record: Record, commit: Commit) -> Result<Ticket, Refusal> {
        let this = self.clone();
        let work = move || this.commits_and_begins(record, commit);
        // Should that come to no end, nobody knows how far it got: its outlets stay taken until the next start.
        self.tasks.spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a wish was not taken to its end");
            Err(Refusal::Ending)
        })
    }

    fn commits_and_begins(&self, record: Record, commit: Commit) -> Result<Ticket, Refusal> {
        if let Err(error) = self.journal.commit(commit) {
            self.runs().release(&record.id);
            return Err(error.into());
        }
        super::crash::point("intended");
        if record.scheduled.is_some() {
            let from = record.not_before.map(|at| format!(", not before {}", Stamp(at)));
            let text = format!("{}{}", told(&record), from.unwrap_or_default());
            let text = format!("plan {} is run: {text}, for {}", record.id, record.by);
            self.events.tell("plan.accepted", About::plan(&record.id), text);
        }
        self.unwants(&record);
        self.show(record.clone());
        let plan = self.watched().get(&record.id).map(watch::Sender::subscribe);
        self.turn(|runs, sight| ((), runs.begin(record.clone(), sight)));
        if record.not_before.is_some() {
            // Somebody's rights may have gone between the question and the claim.
            self.calls_off(&record.id);
        }
        let plan = plan.unwrap_or_else(|| watch::channel(record).1);
        Ok(Ticket { plan, repeated: false })
    }

    fn plan(request: &Request, site: &Site, asked: Vec<Named>, now: Stamp) -> Record {
        let host = match &request.target {
            Target::Host(id) => site.hosts.get(id),
            _ => None,
        };
        let outlets: Vec<OutletId> =
            asked.iter().flat_map(|(_, outlets)| outlets.iter().cloned()).collect();
        let rest = outlets.iter().map(|outlet| site.min_off(outlet).0).max().unwrap_or(0);
        let hold_ms = host.and_then(|host| host.hold).unwrap_or(site.hold).0.max(rest);
        let gap = host.map_or(0, |host| host.feed_gap.0);
        let of = match &request.target {
            Target::Host(id) => format!("feed of host {id}"),
            _ => "asked for".into(),
        };
        let why = format!("{of}: {}", request.action.word());
        let relays: &[Relay] = match request.action {
            Action::On => &[Relay::On],
            Action::Off => &[Relay::Off],
            Action::Cycle => &[Relay::Off, Relay::On],
        };
        let mut steps: Vec<StepRecord> = Vec::new();
        for relay in relays {
            for outlet in &outlets {
                let at_ms = if *relay == Relay::On && relays.len() > 1 { hold_ms } else { 0 };
                let mut step = StepRecord::pending(outlet.clone(), *relay, at_ms, why.clone());
                if let Some(last) = steps.last() {
                    // The off has died before the on is sent: a doubled one would undo it.
                    let turns = last.relay != *relay;
                    let pause_ms = if turns { hold_ms.max(QUIESCE_MS) } else { gap };
                    step.after.push(After { step: steps.len() - 1, until: Until::Done, pause_ms });
                }
                step.at_ms = 0;
                // One feed of several goes off; the host was not named, and stays up.
                let shares = || site.host_of(outlet).is_some_and(|(_, of)| of.outlets.len() > 1);
                step.keeps_host = *relay == Relay::Off && host.is_none() && shares();
                steps.push(step);
            }
        }
        let (target, by) = (request.target.to_string(), request.who.to_string());
        let mut record = Record::new(new_id(now), request.action, target, by, now);
        record.reason.clone_from(&request.reason);
        record.hold_ms = hold_ms;
        record.asks =
            asked.into_iter().map(|(host, outlets)| (host, outlets, request.action)).collect();
        record.steps = steps;
        record.makers = vec![super::rights::maker(&request.who)];
        record
    }

    /// Runs something on the journal, off the threads that must not block.
    pub(super) async fn in_journal<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let journal = self.journal.clone();
        let done = tokio::task::spawn_blocking(move || work(&journal)).await;
        done.unwrap_or_else(|error| Err(JournalError::Failed(error.to_string())))
    }

    pub(super) fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more plan may be kept that waits for its time: each is looked at time and again.
    pub(super) fn has_place(&self) -> Result<(), Refusal> {
        if self.watched().len() < OPEN_PLANS { Ok(()) } else { Err(Refusal::TooMany) }
    }

    /// Notes what nobody wants back by a plan.
    pub(super) fn unwants(&self, record: &Record) {
        let outlets = super::restore::unwanted(record);
        if !super::watch::is_shed(record) {
            let mut let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
            let_go.extend(outlets.iter().cloned());
        }
        self.unwanted.lock().unwrap_or_else(PoisonError::into_inner).extend(outlets);
    }

    pub(super) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a plan switches and why, in words.
fn told(record: &Record) -> String {
    format!(
        "{} {}{}",
        if record.mixed { "switching" } else { record.action.word() },
        record.target,
        if record.reason.is_empty() { String::new() } else { format!(": {}", record.reason) }
    )
}

/// Whether every host keeps feeds enough that are seen to be on; they are looked at again before the step.
fn keeps_feeds(record: &Record, sight: &Sight<'_>) -> Result<(), Refusal> {
    let is_on = |outlet: &OutletId| {
        let view = sight.view(&outlet.pdu)?;
        let at = view.layout.outlet(outlet.number)?;
        view.outlet_state(at).ok().map(|word| word == Word::On)
    };
    for step in record.steps.iter().filter(|step| step.keeps_host) {
        let Some((id, host)) = sight.site.host_of(&step.outlet) else { continue };
        let others = host.outlets.iter().filter(|feed| **feed != step.outlet);
        let live = others.filter(|feed| is_on(feed) == Some(true)).count();
        if live < host.min_feeds && is_on(&step.outlet) == Some(true) {
            let (host, outlet) = (id.to_string(), step.outlet.clone());
            return Err(Refusal::Unfit(crate::plan::Refusal::LastFeed { host, outlet }));
        }
    }
    Ok(())
}

/// Whether the hosts are up after which hosts are to come on that were named.
fn comes_after(record: &Record, sight: &Sight<'_>) -> Result<(), Refusal> {
    let is_off = |outlet: &OutletId| {
        let view = sight.view(&outlet.pdu)?;
        view.outlet_state(view.layout.outlet(outlet.number)?).ok().map(|word| word == Word::Off)
    };
    for (host, _, action) in &record.asks {
        let Some(host) = host.as_ref().filter(|_| *action == Action::On) else { continue };
        let after = sight.site.hosts.get(host).map_or(&[][..], |of| &of.after);
        let is_dark = |before: &&HostId| {
            let outlets = sight.site.hosts.get(*before).map_or(&[][..], |of| &of.outlets);
            !outlets.is_empty() && outlets.iter().all(|outlet| is_off(outlet) == Some(true))
        };
        if let Some(before) = after.iter().find(is_dark) {
            let (host, needs) = (host.to_string(), before.to_string());
            return Err(Refusal::Unfit(crate::plan::Refusal::Needs { host, needs }));
        }
    }
    Ok(())
}

/// Takes the outlets of a plan.
pub(super) fn claim(runs: &mut Runs, record: &Record) -> Result<(), Refusal> {
    // What is as wished already needs no step: another plan must not be about to change that.
    for outlet in record.asks.iter().flat_map(|(_, outlets, _)| outlets) {
        if let Some(plan) = runs.claimed_by(outlet).filter(|plan| **plan != record.id) {
            let (outlet, plan) = (outlet.to_string(), plan.to_string());
            return Err(Refusal::Busy { outlet, plan });
        }
    }
    runs.claim(record).map_err(|(outlet, plan)| Refusal::Busy {
        outlet: outlet.to_string(),
        plan: plan.to_string(),
    })
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(value).map_err(|error| JournalError::Failed(error.to_string()))
}

/// A record out of the journal, with the steps that have changed since it was put there whole.
pub fn parse(what: &str, kept: &Kept) -> Result<Record, JournalError> {
    let damaged = || JournalError::Damaged(what.to_owned());
    let mut record: Record = serde_json::from_slice(&kept.record).map_err(|_| damaged())?;
    for (place, step) in &kept.steps {
        let own = record.steps.get_mut(*place as usize).ok_or_else(damaged)?;
        *own = serde_json::from_slice(step).map_err(|_| damaged())?;
    }
    Ok(record)
}

/// Ids grow with time, and do not repeat after a clock was set back.
pub(super) fn new_id(now: Stamp) -> PlanId {
    let chance = std::hash::RandomState::new().build_hasher().finish();
    let text = format!("p{:012x}{:06x}", now.0.max(0), chance & 0xff_ffff);
    text.parse().unwrap_or_else(|_| unreachable!("hexadecimal digits are an id"))
}

/// Whether a plan may have been called so; those that bring hosts to their safe state after another end with `.safe`.
pub fn is_id(id: &PlanId) -> bool {
    let own = id.as_str().strip_suffix(".safe").unwrap_or(id.as_str());
    let digits = own.strip_prefix('p').unwrap_or_default();
    digits.len() == 18 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}
