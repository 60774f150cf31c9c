//! What PDUs do with their outlets by themselves when their power comes back: their power-on delays are read and shown, and
//! where the site wants it set such that the rack comes up within its limits though no gateway sees to it. An outlet that
//! is set never to come on, and one that is locked, is left as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::device::{OrderError, Startups};
use crate::model::event::About;
use crate::model::id::{OutletId, PduId};
use crate::model::metric::Scope;
use crate::model::switching::PowerOn;
use crate::model::time::{Span, Tick};
use crate::model::topology::Layout;
use crate::plan::Refusal;
use crate::plan::onset::onsets;
use crate::store::journal::Commit;

use super::conduct::draft;
use super::site::Site;
use super::submit::Switching;

/// How long PDUs are waited for after the start, or after a change, until delays are looked at.
const SETTLES: Span = Span::seconds(20);
/// How often they are looked at when nothing has changed: PDUs keep them in memory that wears out.
const AGAIN: Span = Span::seconds(86_400);

/// When the delays are looked at.
#[derive(Default)]
pub(super) struct Rounds {
    site: Option<Arc<Site>>,
    layouts: BTreeMap<PduId, Arc<Layout>>,
    next: Option<Tick>,
    task: Option<JoinHandle<()>>,
}

impl Switching {
    /// Looks at the delays, if it is time to. Once a second.
    pub(super) fn keep_delays(&self, rounds: &mut Rounds) {
        if rounds.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (site, now) = (self.site.borrow().clone(), self.clock.tick());
        let same_site = rounds.site.as_ref().is_some_and(|of| Arc::ptr_eq(of, &site));
        let mut changed = !same_site;
        for view in self.fleet.services().board.views() {
            let known = rounds
                .layouts
                .get(&view.id)
                .is_some_and(|of| of.parts(Scope::Outlet) == view.layout.parts(Scope::Outlet));
            if !known && !view.layout.parts(Scope::Outlet).is_empty() {
                rounds.layouts.insert(view.id.clone(), view.layout.clone());
                changed = true;
            }
        }
        if changed {
            rounds.site = Some(site.clone());
            rounds.next = Some(now + SETTLES);
        }
        // What is switched just now changes what is drawn; and nothing is written beside a plan.
        if rounds.next.is_none_or(|next| next > now) || self.running_plans() > 0 {
            return;
        }
        rounds.next = Some(now + AGAIN);
        let this = self.clone();
        rounds.task = Some(self.tasks.spawn(async move {
            tokio::select! {
                () = this.look_at_delays(&site) => {}
                () = this.stop.cancelled() => {}
            }
        }));
    }

    async fn look_at_delays(&self, site: &Site) {
        let mut told: BTreeMap<PduId, Startups> = BTreeMap::new();
        for view in self.fleet.services().board.views() {
            let Some(handle) = self.fleet.get(&view.id) else { continue };
            match handle.startups().await {
                Ok(startups) if !startups.outlets.is_empty() => {
                    told.insert(view.id.clone(), startups);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(pdu = %view.id, %error, "the power-on delays of {} are not known", view.id);
                }
            }
        }
        if site.restore.is_some_and(|restore| restore.sets_delays) {
            self.set_delays(&told).await;
        }
    }

    async fn set_delays(&self, told: &BTreeMap<PduId, Startups>) {
        let unit_ms = told.values().map(|of| of.unit_ms).max().unwrap_or(1_000);
        let wanted = match self.wanted_delays(told, unit_ms) {
            Ok(wanted) => wanted,
            Err(refusal) => {
                let text = format!("the power-on delays of the PDUs stay as they are: {refusal}");
                tracing::warn!("{text}");
                self.events.tell("delays.refused", About::default(), text);
                return;
            }
        };
        for (pdu, of) in told {
            let mut set = Vec::new();
            for (number, now) in &of.outlets {
                let outlet = OutletId { pdu: pdu.clone(), number: *number };
                let Some(delay) = wanted.get(&outlet).map(|ms| Span(*ms)) else { continue };
                if *now == PowerOn::After(delay) {
                    continue;
                }
                if delay.0 > of.most_ms {
                    let text = format!(
                        "{outlet} is to come on {delay} after an outage, and the PDU knows no such delay: it stays as it is"
                    );
                    self.events.tell("delays.refused", About::outlet(&outlet), text);
                    continue;
                }
                if let Err(error) = self.set_delay(&outlet, *now, delay).await {
                    let text = format!("the power-on delay of {outlet} was not set: {error}");
                    tracing::warn!(%outlet, "{text}");
                    self.events.tell("delays.refused", About::outlet(&outlet), text);
                    // Whoever refuses one, or does not answer, is left alone.
                    break;
                }
                set.push(format!("{number}: {delay}"));
            }
            if !set.is_empty() {
                let text = format!("the power-on delays of {pdu} were set: {}", set.join(", "));
                tracing::info!(%pdu, "{text}");
                self.events.tell("delays.set", About::pdu(pdu), text);
            }
        }
    }

    /// The delays that the limits ask for. A PDU whose outlets do not all fit is left as it is.
    fn wanted_delays(
        &self,
        told: &BTreeMap<PduId, Startups>,
        unit_ms: u64,
    ) -> Result<BTreeMap<OutletId, u64>, Refusal> {
        self.with_runs(|runs, sight| {
            let known = told
                .iter()
                .flat_map(|(pdu, of)| {
                    of.outlets.iter().map(move |(number, now)| (pdu, number, now))
                })
                .map(|(pdu, number, now)| (OutletId { pdu: pdu.clone(), number: *number }, now));
            let (mut settable, mut stays_off) = (Vec::new(), Vec::new());
            for (outlet, now) in known {
                let fits = told
                    .get(&outlet.pdu)
                    .is_some_and(|of| unit_ms.is_multiple_of(of.unit_ms.max(1)));
                let view = sight.view(&outlet.pdu);
                let free = view.is_some_and(|view| view.read_only.is_none())
                    && sight.lock_of(&outlet).is_none();
                match now {
                    PowerOn::Never => stays_off.push(outlet),
                    PowerOn::After(_) if fits && free => settable.push(outlet),
                    PowerOn::After(_) => {}
                }
            }
            let picture = runs.picture(sight, None, None);
            loop {
                let refusal = match onsets(&picture, (&settable, &stays_off), unit_ms) {
                    Ok(wanted) => return Ok(wanted),
                    Err(refusal) => refusal,
                };
                let Refusal::Limit { outlet, .. } = &refusal else { return Err(refusal) };
                let pdu = outlet.pdu.clone();
                let before = settable.len();
                settable.retain(|outlet| outlet.pdu != pdu);
                if settable.len() == before {
                    return Err(refusal);
                }
                let text = format!("the power-on delays of {pdu} stay as they are: {refusal}");
                tracing::warn!(%pdu, "{text}");
                self.events.tell("delays.refused", About::pdu(&pdu), text);
            }
        })
    }

    /// Sets one delay; that it is to be is in the audit before.
    async fn set_delay(
        &self,
        outlet: &OutletId,
        now: PowerOn,
        delay: Span,
    ) -> Result<(), OrderError> {
        let handle = self.fleet.get(&outlet.pdu).ok_or(OrderError::Gone)?;
        let text = format!("the power-on delay of {outlet} is to be {delay}; it is {now}");
        let about = About::outlet(outlet);
        let by = "the gateway";
        let note = draft(self.clock.stamp().0, "outlet.power_on_delay", by, &about, text);
        let commit = Commit { notes: vec![note], ..Commit::default() };
        let saved = self.in_journal(move |journal| journal.commit(commit)).await;
        saved.map_err(|error| OrderError::Doubtful(error.to_string()))?;
        handle.set_startup(outlet.number, delay).await
    }
}
