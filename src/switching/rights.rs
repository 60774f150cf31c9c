//! On whose rights a plan rests, asked again when it is run and while it waits for its time: what somebody was allowed
//! when he asked for it, he may not be any more.

use crate::access::policy::Denied;
use crate::access::{Identity, Permission};
use crate::model::event::About;
use crate::model::id::{OutletId, PlanId};
use crate::model::time::{Span, Stamp};
use crate::plan::record::{Approval, Maker, PlanState, Record, StepState};

use super::refusal::Refusal;
use super::submit::Switching;

/// How it is noted that the gateway cancelled a plan by itself: this and why.
pub(super) const BY_ITSELF: &str = "the gateway: ";

/// A plan of which nothing is begun is not taken up after so long: who wished it has helped himself otherwise by then.
const TOO_LATE: Span = Span::seconds(3_600);

/// A client as plans keep it.
pub(super) fn maker(who: &Identity) -> Maker {
    Maker {
        domain: who.domain.clone(),
        role: who.role.word().to_owned(),
        name: who.name.clone(),
        serial: who.serial.clone(),
    }
}

impl Switching {
    /// The client that a plan rests on, if its certificate still counts.
    fn counts(&self, plan: &PlanId, maker: &Maker) -> Result<Identity, Denied> {
        let uri = format!("spiffe://{}/role/{}/{}", maker.domain, maker.role, maker.name);
        let who = Identity::from_uri(&uri, &maker.serial)
            .map_err(|_| Denied::Nobody { plan: plan.to_string() })?;
        if self.site.borrow().revoked.contains(&maker.serial) {
            return Err(Denied::Revoked { who: who.to_string() });
        }
        Ok(who)
    }

    /// Whether a client may do all that a plan does.
    pub(super) fn may(&self, who: &Identity, record: &Record) -> Result<(), Refusal> {
        let site = self.site.borrow().clone();
        for (host, outlets, action) in &record.asks {
            site.policy.allow_switching(who, *action, host.as_ref(), outlets)?;
        }
        if record.asks.is_empty() {
            let outlets: Vec<OutletId> = record.outlets().into_iter().collect();
            site.policy.allow_switching(who, record.action, None, &outlets)?;
        }
        Ok(())
    }

    /// Whether what was asked for as a host's is still that host's: who may switch a host may not what feeds another now.
    pub(super) fn hosts_are_the_same(&self, record: &Record) -> Result<(), Refusal> {
        let site = self.site.borrow().clone();
        for (host, outlets, _) in &record.asks {
            let Some(id) = host else { continue };
            let own = site.hosts.get(id).map(|host| &host.outlets);
            let other = outlets.iter().find(|of| own.is_none_or(|own| !own.contains(of)));
            if let Some(outlet) = other {
                let difference = format!("{outlet} does not feed host {id} any more");
                return Err(Refusal::Changed { plan: record.id.to_string(), difference });
            }
        }
        Ok(())
    }

    /// Whether those who made a plan may still do, by the policy of today, what an instance of it does today.
    pub(super) fn makers_may(&self, parent: &Record, instance: &Record) -> Result<(), Refusal> {
        // An earlier version kept no more than their names: whether they still may nobody can say.
        if parent.makers.is_empty() {
            return Err(Denied::Nobody { plan: parent.id.to_string() }.into());
        }
        for maker in &parent.makers {
            self.may(&self.counts(&parent.id, maker)?, instance)?;
        }
        self.hosts_are_the_same(instance)
    }

    /// Why a plan of which nothing is begun may not be taken up after a restart, if so: it is too late for it, or those who
    /// wished it may not any more.
    pub(super) fn may_not_be_taken_up(&self, record: &Record) -> Option<Refusal> {
        let begun = record.steps.iter().any(|step| step.state != StepState::Pending);
        let over = record.state != PlanState::Running || record.cancelled.is_some();
        if begun || over || record.not_before.is_some() {
            return None;
        }
        let late = record.accepted.map(|at| self.clock.stamp().since(Stamp(at)));
        if let Some(late) = late.filter(|late| *late > TOO_LATE) {
            let difference = format!("it was to begin {late} ago");
            return Some(Refusal::Changed { plan: record.id.to_string(), difference });
        }
        // What the gateway wished itself rests on nobody's rights.
        if record.makers.is_empty() {
            return None;
        }
        self.makers_may(record, record).and_then(|()| self.is_agreed_to(record)).err()
    }

    /// Whether what somebody agreed to still counts: the certificate was not revoked, its role may still do it.
    pub(super) fn agreed(&self, plan: &PlanId, by: &Approval, permission: Permission) -> bool {
        // Never while the site is borrowed: to borrow it twice, with a reload in between, waits for ever.
        let site = self.site.borrow().clone();
        // An earlier version kept no more than the name.
        let who = by.who.as_ref().and_then(|maker| self.counts(plan, maker).ok());
        who.is_some_and(|who| site.policy.allow(&who, permission).is_ok())
    }

    /// Agrees to a plan that somebody else made. In a task of its own, as every change of a plan.
    pub async fn approve(
        &self,
        who: &Identity,
        id: &PlanId,
        digest: &str,
    ) -> Result<Record, Refusal> {
        let (this, who, id, digest) = (self.clone(), who.clone(), id.clone(), digest.to_owned());
        let task = self.tasks.spawn(async move { this.approve_now(&who, &id, &digest).await });
        task.await.unwrap_or(Err(Refusal::Ending))
    }

    async fn approve_now(
        &self,
        who: &Identity,
        id: &PlanId,
        digest: &str,
    ) -> Result<Record, Refusal> {
        self.site.borrow().policy.allow(who, Permission::Approve)?;
        let turn = self.turn_of(&format!("plan {id}"));
        let _turn = turn.lock().await;
        let mut record = self.planned(id, digest).await?;
        let by = who.to_string();
        // One that counts no more may be given again, by whomever.
        record.approvals.retain(|by| self.agreed(id, by, Permission::Approve));
        if is_of(&record.by, who) || record.approvals.iter().any(|a| is_of(&a.by, who)) {
            return Err(Refusal::OwnApproval { plan: id.to_string(), who: who.name.clone() });
        }
        let at = self.clock.stamp().0;
        record.approvals.push(Approval { by: by.clone(), at, who: Some(maker(who)) });
        let text = format!("plan {id} was approved by {who}");
        self.keep(&record, "plan.approved", &by, &text).await?;
        Ok(record)
    }

    /// Lifts the locks of the outlets that a plan names, for this plan. In a task of its own, as every change of a plan.
    pub async fn lift(&self, who: &Identity, id: &PlanId, digest: &str) -> Result<Record, Refusal> {
        let (this, who, id, digest) = (self.clone(), who.clone(), id.clone(), digest.to_owned());
        let task = self.tasks.spawn(async move { this.lift_now(&who, &id, &digest).await });
        task.await.unwrap_or(Err(Refusal::Ending))
    }

    async fn lift_now(&self, who: &Identity, id: &PlanId, digest: &str) -> Result<Record, Refusal> {
        self.site.borrow().policy.allow(who, Permission::Administer)?;
        let turn = self.turn_of(&format!("plan {id}"));
        let _turn = turn.lock().await;
        let mut record = self.planned(id, digest).await?;
        if record.over_locks.is_empty() {
            return Err(Refusal::NothingToLift { plan: id.to_string() });
        }
        let by = who.to_string();
        let at = self.clock.stamp().0;
        record.lifted = Some(Approval { by: by.clone(), at, who: Some(maker(who)) });
        let outlets: Vec<String> = record.over_locks.keys().map(ToString::to_string).collect();
        let text =
            format!("the locks of {} were lifted for plan {id} by {who}", outlets.join(", "));
        self.keep(&record, "plan.lifted", &by, &text).await?;
        Ok(record)
    }

    /// Whether a plan has the approvals and the lift that it needs, by the rules of today and those of when it was made.
    pub(super) fn is_agreed_to(&self, record: &Record) -> Result<(), Refusal> {
        let plan = record.id.to_string();
        let needed = {
            let site = self.site.borrow().clone();
            record.needs_approvals.max(site.approvals.needed(record, &site)) as usize
        };
        let agreed = |by: &&Approval| self.agreed(&record.id, by, Permission::Approve);
        let missing = needed.saturating_sub(record.approvals.iter().filter(agreed).count());
        if missing > 0 {
            return Err(Refusal::NeedsApproval { plan, missing });
        }
        let lift = record.lifted.as_ref();
        let lifted = lift.is_some_and(|by| self.agreed(&record.id, by, Permission::Administer));
        if !lifted && !record.over_locks.is_empty() {
            return Err(Refusal::NeedsLift { plan });
        }
        Ok(())
    }

    /// Why a plan that waits for its time may not begin then, if so.
    pub(super) fn may_not_begin(&self, record: &Record) -> Option<Refusal> {
        let begun = record.steps.iter().any(|step| step.state != StepState::Pending);
        let waits = record.state == PlanState::Running && record.not_before.is_some() && !begun;
        if !waits || record.cancelled.is_some() {
            return None;
        }
        self.makers_may(record, record).and_then(|()| self.is_agreed_to(record)).err()
    }

    /// Calls plans off that wait for their time, once somebody whom they rest on may no longer do it.
    pub(super) async fn keep_rights(self) {
        let mut site = self.site.clone();
        loop {
            tokio::select! {
                changed = site.changed() => if changed.is_err() { return },
                () = self.done.cancelled() => return,
            }
            let plans: Vec<PlanId> =
                self.runs().records().map(|record| record.id.clone()).collect();
            plans.iter().for_each(|plan| self.calls_off(plan));
        }
    }

    /// Calls a plan off that waits for its time, if it may not begin then. It is looked at and cancelled in one turn: one
    /// that has begun meanwhile goes on.
    pub(super) fn calls_off(&self, plan: &PlanId) {
        let why = self.turn(|runs, sight| {
            let record = runs.records().find(|record| record.id == *plan);
            let Some(why) = record.and_then(|record| self.may_not_begin(record)) else {
                return (None, Vec::new());
            };
            let (found, deeds) = runs.cancel(plan, &format!("{BY_ITSELF}{why}"), sight);
            (found.then_some(why), deeds)
        });
        if let Some(why) = why {
            self.tells_refused(plan, &why);
        }
    }

    pub(super) fn tells_refused(&self, plan: &PlanId, why: &Refusal) {
        let text = format!("plan {plan} is called off before its time: {why}");
        tracing::warn!("{text}");
        self.events.tell("plan.refused", About::plan(plan), text);
    }
}

/// Whether a line "name (role)", perhaps followed by others, begins with this client.
fn is_of(by: &str, who: &Identity) -> bool {
    let own = format!("{} ", who.name);
    by.split("; run by ").any(|one| one == who.name || one.starts_with(&own))
}
