//! What a kept plan would do, looked at anew: for who is to agree to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::OutletId;
use crate::model::switching::Action;
use crate::plan::guard::{Guarded, Hindrance};
use crate::plan::record::{Record, Select, Selected};

use super::calendar::covers;
use super::plans::{Asker, Preview, Wish, unfit};
use super::refusal::Refusal;
use super::submit::Switching;

impl Switching {
    /// What a kept plan would do to the limits and hosts if it were made now: who is to agree to it sees that. Refused where
    /// it would be refused as the rack is now.
    pub async fn foresees(&self, record: &Record) -> Result<Preview, Refusal> {
        let Ok(_turn) = self.foreseeing.acquire().await else { return Err(Refusal::Ending) };
        let (this, record) = (self.clone(), record.clone());
        let work = move || this.foresees_now(&record);
        self.tasks.spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "what a plan would do was not looked at to its end");
            Err(Refusal::Ending)
        })
    }

    fn foresees_now(&self, record: &Record) -> Result<Preview, Refusal> {
        let mut wish = Wish::again(record, Asker::Gateway("the gateway".into()));
        wish.over_locks = !record.over_locks.is_empty();
        // A calendar goes by what is in its groups that day; any other run by the outlets that were in them.
        if record.calendar.is_none() {
            self.hosts_are_the_same(record)?;
            self.with_runs(|runs, sight| {
                let may = |outlet: &OutletId| match sight.guard(outlet, &record.over_locks) {
                    Guarded::Not(why) => Err(Refusal::from(why)),
                    // It is looked at before it is switched.
                    Guarded::Known(..) | Guarded::Aged(_) => Ok(()),
                };
                record.outlets().iter().try_for_each(may)?;
                runs.still_fits(record, sight).map_err(|why| unfit(&record.id, why))
            })?;
            wish.goals = outlets_of(record);
        }
        let preview = self.preview(&wish)?;
        over_no_other_lock(&preview.record, &record.over_locks)?;
        if record.calendar.is_some() && !record.approvals.is_empty() {
            covers(record, &preview.record)?;
        }
        Ok(preview)
    }
}

/// What a plan wishes of which outlets, whatever becomes of its groups and hosts.
fn outlets_of(record: &Record) -> Vec<Selected> {
    let keep = record.steps.iter().filter(|step| step.keeps_host).map(|step| &step.outlet);
    let keep: BTreeSet<&OutletId> = keep.collect();
    let drops = record.goals.iter().any(|goal| goal.drops_hosts);
    let of = |outlet: &OutletId, action: Action, is_host: bool| {
        let drops_hosts = is_host || drops && !keep.contains(outlet);
        Selected { select: Select::Outlet(outlet.clone()), action, drops_hosts }
    };
    let asks = record.asks.iter();
    asks.flat_map(|(host, outlets, action)| {
        outlets.iter().map(|outlet| of(outlet, *action, host.is_some()))
    })
    .collect()
}

/// Refuses a plan that goes over a lock that is not among those, or that is there for another reason.
pub(super) fn over_no_other_lock(
    record: &Record,
    locks: &BTreeMap<OutletId, String>,
) -> Result<(), Refusal> {
    let other = record.over_locks.iter().find(|lock| locks.get(lock.0) != Some(lock.1));
    other.map_or(Ok(()), |(outlet, reason)| {
        let (outlet, reason) = (outlet.to_string(), reason.clone());
        Err(Hindrance::Locked { outlet, reason }.into())
    })
}
