//! What a kept plan would do, looked at anew: for who is to agree to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::OutletId;
use crate::model::switching::Action;
use crate::plan::guard::Hindrance;
use crate::plan::record::{Record, Select, Selected};

use super::plans::{Asker, Preview, Wish};
use super::refusal::Refusal;
use super::submit::Switching;

impl Switching {
    /// What a kept plan would do to the limits and hosts if it were made now: who is to agree to it sees that. Refused where
    /// it would be refused as the rack is now.
    pub async fn foresees(&self, record: &Record) -> Result<Preview, Refusal> {
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
            let now = self.with_runs(|runs, sight| {
                runs.picture(sight, Some(&record.id), None).mark(record.mark.relays.keys())
            });
            if let Some(difference) = record.mark.difference(&now) {
                return Err(Refusal::Changed { plan: record.id.to_string(), difference });
            }
            wish.goals = outlets_of(record);
        }
        let preview = self.preview(&wish)?;
        over_no_other_lock(&preview.record, &record.over_locks)?;
        Ok(preview)
    }
}

/// What a plan wishes of which outlets, whatever becomes of its groups and hosts.
fn outlets_of(record: &Record) -> Vec<Selected> {
    let keep = record.steps.iter().filter(|step| step.keeps_host).map(|step| &step.outlet);
    let keep: BTreeSet<&OutletId> = keep.collect();
    let of = |outlet: &OutletId, action: Action| {
        let drops_hosts = !keep.contains(outlet);
        Selected { select: Select::Outlet(outlet.clone()), action, drops_hosts }
    };
    let asks = record.asks.iter();
    asks.flat_map(|(_, outlets, action)| outlets.iter().map(|outlet| of(outlet, *action))).collect()
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
