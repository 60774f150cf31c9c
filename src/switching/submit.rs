//! The gate: who asks, for what, whether it may be, and a durable plan before anything moves.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Identity, Role};
use crate::device::{Fleet, Handle, Known};
use crate::events::Events;
use crate::model::id::{HostId, OutletId, PlanId};
use crate::model::metric::{Scope, Word};
use crate::model::reading::Gap;
use crate::model::switching::{Action, Relay};
use crate::model::time::{Clock, Stamp, Tick};
use crate::model::view::Health;
use crate::store::journal::{Journal, JournalError};

use super::locks::Locks;
use super::plans::{Mark, OnFailure};
use super::record::{PlanState, Record, StepRecord, StepState};
use super::refusal::Refusal;
use super::site::Site;

/// What is to be switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One outlet.
    Outlet(OutletId),
    /// Every feed of a host.
    Host(HostId),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Outlet(outlet) => write!(f, "{outlet}"),
            Target::Host(host) => write!(f, "{host}"),
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

/// What an idempotency key is bound to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bound {
    plan: PlanId,
    /// What was asked for with it.
    asked: String,
    at: i64,
}

/// How long idempotency keys are remembered, ms: a week.
const KEYS_KEPT_MS: i64 = 7 * 86_400_000;

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
    running: Arc<Mutex<Running>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

#[derive(Default)]
struct Running {
    plans: HashMap<PlanId, watch::Receiver<Record>>,
    outlets: HashMap<OutletId, PlanId>,
    /// Keys whose plan is being made: a second request with the key waits for it.
    keys: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    /// What an outlet was last told, and when: until its datagrams have died, its relay may move again, and until its
    /// load has started up no meter shows it.
    written: HashMap<OutletId, (Relay, Tick)>,
    /// What an outlet drew, mVA, before it was last switched off here.
    drew: HashMap<OutletId, i64>,
    /// One step at a time that a host has to survive.
    hosts: HashMap<HostId, Arc<tokio::sync::Mutex<()>>>,
    /// Plans of which no further step is to begin.
    stopping: std::collections::HashSet<PlanId>,
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
        Ok(Self {
            fleet,
            journal,
            events,
            clock,
            site,
            locks: Arc::new(locks),
            locking: Arc::default(),
            running: Arc::default(),
            tasks: TaskTracker::new(),
            stop,
        })
    }

    /// Takes a wish, or refuses it. Returns once the plan is durable; it is carried out from then on whether
    /// anybody waits or not.
    ///
    /// All of it runs in a task of its own: a client that hangs up drops its request wherever that stands, and
    /// a plan that is half accepted would hold its outlets for ever.
    pub async fn submit(&self, request: Request) -> Result<Ticket, Refusal> {
        let this = self.clone();
        let task = self.tasks.spawn(async move { this.take(request).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a wish was not taken to its end");
            Err(Refusal::Ending)
        })
    }

    async fn take(&self, request: Request) -> Result<Ticket, Refusal> {
        let site = self.site.borrow().clone();
        let (host, outlets) = Self::feeds(&site, &request.target)?;
        site.policy.allow_switching(&request.who, request.action, host.as_ref(), &outlets)?;
        let Some(key) = request.key.as_ref().map(|key| scoped(&request.who, key)) else {
            return self.accept(request, &site, outlets, None).await;
        };
        let turn = self.running().keys.entry(key.clone()).or_default().clone();
        let guard = turn.lock().await;
        let result = match self.bound(&key, &request).await {
            Ok(Some(ticket)) => Ok(ticket),
            Ok(None) => self.accept(request, &site, outlets, Some(key.clone())).await,
            Err(refusal) => Err(refusal),
        };
        drop(guard);
        let mut running = self.running();
        // Nobody else waits for this turn: forget it.
        if running.keys.get(&key).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
            running.keys.remove(&key);
        }
        result
    }

    /// The plan of a request that was made before with this key.
    async fn bound(&self, key: &str, request: &Request) -> Result<Option<Ticket>, Refusal> {
        let key = key.to_owned();
        let Some(bytes) = self.in_journal(move |journal| journal.key(&key)).await? else {
            return Ok(None);
        };
        let damaged = || JournalError::Damaged("an idempotency key".into());
        let bound: Bound = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if bound.asked != asked(request) {
            return Err(Refusal::KeyReused);
        }
        // A key whose plan is no longer kept was used all the same: nothing is switched on it again.
        let ticket = self.ticket(&bound.plan).await?.ok_or(Refusal::KeyReused)?;
        Ok(Some(Ticket { repeated: true, ..ticket }))
    }

    /// A watch on a plan, running or ended.
    pub async fn ticket(&self, id: &PlanId) -> Result<Option<Ticket>, Refusal> {
        if let Some(plan) = self.running().plans.get(id).cloned() {
            return Ok(Some(Ticket { plan, repeated: false }));
        }
        let wanted = id.clone();
        let Some(bytes) = self.in_journal(move |journal| journal.get(&wanted)).await? else {
            return Ok(None);
        };
        let record = parse(id, &bytes)?;
        Ok(Some(Ticket { plan: watch::channel(record).1, repeated: false }))
    }

    /// The latest plans, newest first.
    pub async fn latest(&self, count: usize) -> Result<Vec<Record>, Refusal> {
        let records = self.in_journal(move |journal| journal.latest(count)).await?;
        records
            .iter()
            .map(|bytes| {
                Ok(serde_json::from_slice(bytes)
                    .map_err(|_| JournalError::Damaged("a plan".into()))?)
            })
            .collect()
    }

    /// How many plans are being carried out.
    pub fn running_plans(&self) -> usize {
        self.running().plans.len()
    }

    fn feeds(site: &Site, target: &Target) -> Result<(Option<HostId>, Vec<OutletId>), Refusal> {
        match target {
            Target::Outlet(outlet) => Ok((None, vec![outlet.clone()])),
            Target::Host(id) => {
                let host =
                    site.hosts.get(id).ok_or_else(|| Refusal::Unknown(format!("host {id}")))?;
                Ok((Some(id.clone()), host.outlets.clone()))
            }
        }
    }

    async fn accept(
        &self,
        request: Request,
        site: &Site,
        outlets: Vec<OutletId>,
        key: Option<String>,
    ) -> Result<Ticket, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::Ending);
        }
        for outlet in &outlets {
            self.check(site, outlet).await?;
        }
        let now = self.clock.stamp();
        let mut record = Self::plan(&request, site, &outlets, now);
        self.has_headroom(&record)?;
        self.claim(&record)?;
        // A plan's first step is intended in the same commit that accepts it: one fsync before the wire.
        super::execute::intend_first(&mut record, now);
        super::crash::point("submitted");
        let bound = key
            .map(|key| (key, Bound { plan: record.id.clone(), asked: asked(&request), at: now.0 }));
        if let Err(error) = self.save(&record, bound).await {
            self.release(&record);
            return Err(error.into());
        }
        super::crash::point("intended");
        Ok(self.start(record))
    }

    /// Carries a durable plan out.
    pub(super) fn start(&self, record: Record) -> Ticket {
        let this = self.clone();
        self.watched(record, move |plan| async move { this.carry_out(&plan).await })
    }

    /// Runs something over a plan, watched; its outlets are released at the end.
    pub(super) fn watched<F>(
        &self,
        record: Record,
        work: impl FnOnce(Arc<watch::Sender<Record>>) -> F,
    ) -> Ticket
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, plan) = watch::channel(record.clone());
        self.running().plans.insert(record.id.clone(), plan.clone());
        let sender = Arc::new(sender);
        let work = work(sender.clone());
        let this = self.clone();
        self.tasks.spawn(async move {
            work.await;
            this.release(&record);
            // Watchers see the end of the plan even if it came from a failure: the sender goes last.
            drop(sender);
        });
        Ticket { plan, repeated: false }
    }

    /// Whether an outlet may be switched now: known, unlocked, switchable, seen a moment ago.
    pub(super) async fn check(
        &self,
        site: &Site,
        outlet: &OutletId,
    ) -> Result<(Handle, Known), Refusal> {
        let handle = self
            .fleet
            .get(&outlet.pdu)
            .ok_or_else(|| Refusal::Unknown(format!("PDU {}", outlet.pdu)))?;
        let lock = self.locks.borrow().get(outlet).map(|lock| lock.reason.clone());
        if let Some(reason) = lock.or_else(|| site.locked.get(outlet).cloned()) {
            return Err(Refusal::Locked { outlet: outlet.to_string(), reason });
        }
        let view = handle.view();
        let doubtful = |reason: String| Refusal::Doubtful { outlet: outlet.to_string(), reason };
        if let (Health::Offline(reason), true) =
            (&view.health, view.layout.parts(Scope::Outlet).is_empty())
        {
            return Err(doubtful(format!("PDU {} is offline: {reason}", outlet.pdu)));
        }
        let Some(at) = view.layout.outlet(outlet.number) else {
            return Err(Refusal::Unknown(format!("outlet {outlet}")));
        };
        let part = &view.layout.parts(Scope::Outlet)[usize::from(at)];
        if let Some(reason) = view.read_only.as_deref() {
            return Err(Refusal::NotSwitchable {
                outlet: outlet.to_string(),
                reason: reason.to_owned(),
            });
        }
        if !part.switchable {
            let reason = "the PDU or its driver does not switch it".to_owned();
            return Err(Refusal::NotSwitchable { outlet: outlet.to_string(), reason });
        }
        let age = view.observed.map(|observed| self.clock.tick() - observed);
        let fresh = view.health == Health::Online && age.is_some_and(|age| age <= site.fresh);
        let state = if fresh {
            view.outlet_state(at)
        } else {
            self.look(&handle, outlet.number, &doubtful).await?
        };
        let known = Known { layout: view.layout.clone(), fresh: site.fresh };
        match state {
            Ok(Word::On | Word::Off) => Ok((handle, known)),
            Ok(Word::Pending) => Err(doubtful("a delayed command is pending in the PDU".into())),
            Ok(_) | Err(Gap::UnknownState) => {
                Err(doubtful("the PDU tells a state that its driver does not know".into()))
            }
            Err(gap) => Err(doubtful(format!("its state could not be read ({gap})"))),
        }
    }

    async fn look(
        &self,
        handle: &Handle,
        number: u16,
        doubtful: &impl Fn(String) -> Refusal,
    ) -> Result<Result<Word, Gap>, Refusal> {
        let looked = handle.look(number).await;
        looked
            .map(|seen| seen.state)
            .map_err(|error| doubtful(format!("the last reading is too old, and now {error}")))
    }

    fn plan(request: &Request, site: &Site, outlets: &[OutletId], now: Stamp) -> Record {
        let host_hold = match &request.target {
            Target::Host(id) => site.hosts.get(id).and_then(|host| host.hold),
            Target::Outlet(_) => None,
        };
        let rest = outlets.iter().map(|outlet| site.min_off(outlet).0).max().unwrap_or(0);
        let hold_ms = host_hold.unwrap_or(site.hold).0.max(rest);
        let of = match &request.target {
            Target::Host(id) => format!("feed of host {id}"),
            Target::Outlet(_) => "asked for".into(),
        };
        let step = |relay: Relay, at_ms: u64| {
            let why = format!("{of}: {}", request.action.word());
            outlets.iter().map(move |outlet| StepRecord {
                outlet: outlet.clone(),
                relay,
                at_ms,
                why: why.clone(),
                keeps_host: false,
                state: StepState::Pending,
                detail: None,
                at: None,
            })
        };
        let steps = match request.action {
            Action::On => step(Relay::On, 0).collect(),
            Action::Off => step(Relay::Off, 0).collect(),
            Action::Cycle => step(Relay::Off, 0).chain(step(Relay::On, hold_ms)).collect(),
        };
        Record {
            id: new_id(now),
            action: request.action,
            target: request.target.to_string(),
            reason: request.reason.clone(),
            by: request.who.to_string(),
            created: now.0,
            finished: None,
            state: PlanState::Running,
            hold_ms,
            steps,
            mixed: false,
            scheduled: None,
            not_before: None,
            on_failure: OnFailure::Stop,
            mark: Mark::default(),
            asks: Vec::new(),
        }
    }

    /// Takes the outlets of a plan; no other plan may touch them until it has ended.
    pub(super) fn claim(&self, record: &Record) -> Result<(), Refusal> {
        let mut running = self.running();
        for step in &record.steps {
            if let Some(plan) = running.outlets.get(&step.outlet) {
                return Err(Refusal::Busy {
                    outlet: step.outlet.to_string(),
                    plan: plan.to_string(),
                });
            }
        }
        for step in &record.steps {
            running.outlets.insert(step.outlet.clone(), record.id.clone());
        }
        Ok(())
    }

    /// Remembers that an outlet was written.
    pub(super) fn note_write(&self, outlet: &OutletId, relay: Relay) {
        let now = self.clock.tick();
        self.running().written.insert(outlet.clone(), (relay, now));
    }

    /// Remembers what an outlet drew before it was switched off.
    pub(super) fn note_drew(&self, outlet: &OutletId, mva: i64) {
        self.running().drew.insert(outlet.clone(), mva);
    }

    /// What outlets drew before they were last switched off, in this run, mVA.
    pub(super) fn drew(&self) -> HashMap<OutletId, i64> {
        self.running().drew.clone()
    }

    /// When an outlet was last written, in this run.
    pub(super) fn last_write(&self, outlet: &OutletId) -> Option<(Relay, Tick)> {
        self.running().written.get(outlet).copied()
    }

    /// Everything that was written, in this run, last: at most once an outlet.
    pub(super) fn writes(&self) -> Vec<(OutletId, Relay, Tick)> {
        let running = self.running();
        running.written.iter().map(|(id, (relay, at))| (id.clone(), *relay, *at)).collect()
    }

    /// The turn of those who cut a feed of a host that has to stay up.
    pub(super) fn turn_of_host(&self, host: &HostId) -> Arc<tokio::sync::Mutex<()>> {
        self.running().hosts.entry(host.clone()).or_default().clone()
    }

    /// The turn of those who would run or cancel a plan.
    pub(super) fn turn_of_plan(&self, id: &PlanId) -> Arc<tokio::sync::Mutex<()>> {
        self.running().keys.entry(format!("plan {id}")).or_default().clone()
    }

    /// Has a plan begin no further step.
    pub(super) fn ask_to_stop(&self, id: &PlanId) {
        self.running().stopping.insert(id.clone());
    }

    /// Whether a plan is to begin no further step.
    pub(super) fn is_to_stop(&self, id: &PlanId) -> bool {
        self.running().stopping.contains(id)
    }

    /// Whether a plan is at an outlet.
    pub(super) fn is_claimed(&self, outlet: &OutletId) -> bool {
        self.running().outlets.contains_key(outlet)
    }

    pub(super) fn release(&self, record: &Record) {
        let mut running = self.running();
        running.outlets.retain(|_, plan| *plan != record.id);
        running.plans.remove(&record.id);
        running.stopping.remove(&record.id);
    }

    /// Makes a record durable.
    pub(super) async fn save(
        &self,
        record: &Record,
        bound: Option<(String, Bound)>,
    ) -> Result<(), JournalError> {
        let (id, open) = (record.id.clone(), record.state == PlanState::Running);
        let bytes = to_json(record)?;
        let bound = match bound {
            Some((key, bound)) => Some((key, to_json(&bound)?)),
            None => None,
        };
        self.in_journal(move |journal| {
            let key = bound.as_ref().map(|(key, value)| (key.as_str(), value.as_slice()));
            journal.put(&id, &bytes, open, key)
        })
        .await
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

    /// Forgets old plans and keys.
    pub async fn forget(&self) -> Result<(), JournalError> {
        let old = self.clock.stamp().0 - KEYS_KEPT_MS;
        let is_old = move |bytes: &[u8]| {
            serde_json::from_slice::<Bound>(bytes).is_ok_and(|bound| bound.at < old)
        };
        self.in_journal(move |journal| journal.forget(is_old)).await
    }

    /// Takes no more wishes, and waits for the plans under way. What they have not begun stays in the journal
    /// and goes on, or stands interrupted, after the next start.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The plans that are being carried out, as they stand.
    pub(super) fn plans_under_way(&self) -> Vec<Record> {
        self.running().plans.values().map(|plan| plan.borrow().clone()).collect()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(value).map_err(|error| JournalError::Failed(error.to_string()))
}

/// A record out of the journal.
pub(super) fn parse(id: &PlanId, bytes: &[u8]) -> Result<Record, JournalError> {
    serde_json::from_slice(bytes).map_err(|_| JournalError::Damaged(id.to_string()))
}

/// Keys of different clients are different keys.
fn scoped(who: &Identity, key: &str) -> String {
    format!("{}/{}/{}:{key}", who.domain, Role::word(who.role), who.name)
}

fn asked(request: &Request) -> String {
    format!("{} {} {}", request.action.word(), request.target, request.reason)
}

/// Ids grow with time, and do not repeat after a clock was set back.
pub(super) fn new_id(now: Stamp) -> PlanId {
    let chance = std::hash::RandomState::new().build_hasher().finish();
    let text = format!("p{:012x}{:06x}", now.0.max(0), chance & 0xff_ffff);
    text.parse().unwrap_or_else(|_| unreachable!("hexadecimal digits are an id"))
}
