//! What PDUs do with their outlets by themselves when their power comes back: their power-on delays are read and shown, and
//! where the site wants it set such that the rack comes up within its limits though no gateway sees to it. An outlet that
//! is set never to come on, and one that is locked, is left as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::device::{OrderError, SetStartup, Startups};
use crate::model::event::About;
use crate::model::id::{OutletId, PduId};
use crate::model::metric::Scope;
use crate::model::switching::PowerOn;
use crate::model::time::{Span, Tick};
use crate::model::topology::Layout;
use crate::plan::Refusal;
use crate::plan::onset::{Delays, onsets};
use crate::store::journal::Commit;

use super::conduct::draft;
use super::site::Site;
use super::submit::Switching;

/// How long PDUs are waited for after the start, or after a change, until delays are looked at.
const SETTLES: Span = Span::seconds(20);
/// How often they are looked at when nothing has changed: PDUs keep them in memory that wears out.
const AGAIN: Span = Span::seconds(86_400);
/// How long a round that did not come to its end is waited with.
const RETRY: Span = Span::seconds(600);

/// When the delays are looked at.
#[derive(Default)]
pub(super) struct Rounds {
    site: Option<Arc<Site>>,
    layouts: BTreeMap<PduId, Known>,
    next: Option<Tick>,
    task: Option<JoinHandle<()>>,
    /// Whether the last round came to its end.
    ended: Arc<AtomicBool>,
}

/// A PDU's outlets are known by their numbers, and the PDU by its serial number.
type Known = (Arc<Layout>, Option<String>);

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
            let outlets = view.layout.parts(Scope::Outlet);
            let known = rounds.layouts.get(&view.id).is_some_and(|(layout, serial)| {
                layout.parts(Scope::Outlet) == outlets && *serial == view.identity.serial
            });
            if !known && !outlets.is_empty() {
                let known = (view.layout.clone(), view.identity.serial.clone());
                rounds.layouts.insert(view.id.clone(), known);
                changed = true;
            }
        }
        if changed {
            rounds.site = Some(site.clone());
            rounds.next = Some(now + SETTLES);
        } else if rounds.task.take().is_some() && !rounds.ended.load(Ordering::Relaxed) {
            rounds.next = Some(now + RETRY);
        }
        // What is switched just now changes what is drawn; and nothing is written beside a plan.
        if rounds.next.is_none_or(|next| next > now) || self.running_plans() > 0 {
            return;
        }
        rounds.next = Some(now + AGAIN);
        rounds.ended.store(false, Ordering::Relaxed);
        let (this, ended) = (self.clone(), rounds.ended.clone());
        rounds.task = Some(self.tasks.spawn(async move {
            tokio::select! {
                whole = this.look_at_delays(&site) => ended.store(whole, Ordering::Relaxed),
                () = this.stop.cancelled() => {}
            }
        }));
    }

    /// Reads all delays, and sets them where they are to be. Returns whether it came to its end.
    async fn look_at_delays(&self, site: &Arc<Site>) -> bool {
        let mut whole = true;
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
                    whole = false;
                }
            }
        }
        if site.restore.is_some_and(|restore| restore.sets_delays) {
            whole &= self.set_delays(site, &told).await;
        }
        whole
    }

    /// Sets them. It ends where one is not set: the others were reckoned with it. Returns whether it came to its end.
    async fn set_delays(&self, site: &Arc<Site>, told: &BTreeMap<PduId, Startups>) -> bool {
        let unit_ms = told.values().map(|of| of.unit_ms).max().unwrap_or(1_000);
        let wanted = match self.wanted_delays(told, unit_ms) {
            Ok(wanted) => wanted,
            Err(refusal) => {
                let text = format!("the power-on delays of the PDUs stay as they are: {refusal}");
                tracing::warn!("{text}");
                self.events.tell("delays.refused", About::default(), text);
                return true;
            }
        };
        for (pdu, of) in told {
            let mut set = Vec::new();
            let mut broken = false;
            for (number, now) in &of.outlets {
                let outlet = OutletId { pdu: pdu.clone(), number: *number };
                let Some(delay) = wanted.get(&outlet).map(|ms| Span(*ms)) else { continue };
                if *now == PowerOn::After(delay) {
                    continue;
                }
                if !self.may_set(site, &outlet) {
                    broken = true;
                    break;
                }
                let number = *number;
                let wish = SetStartup { number, now: *now, serial: of.serial.clone(), delay };
                if let Err(error) = self.set_delay(&outlet, wish).await {
                    let text = format!("the power-on delay of {outlet} was not set: {error}");
                    tracing::warn!(%outlet, "{text}");
                    self.events.tell("delays.refused", About::outlet(&outlet), text);
                    broken = true;
                    break;
                }
                set.push(format!("{number}: {delay}"));
            }
            if !set.is_empty() {
                let text = format!("the power-on delays of {pdu} were set: {}", set.join(", "));
                tracing::info!(%pdu, "{text}");
                self.events.tell("delays.set", About::pdu(pdu), text);
            }
            if broken {
                return false;
            }
        }
        true
    }

    /// Whether it still holds what the round began with: nothing is written beside a plan, against a lock, or for a site
    /// that is configured otherwise by now.
    fn may_set(&self, site: &Arc<Site>, outlet: &OutletId) -> bool {
        Arc::ptr_eq(site, &self.site.borrow())
            && self.running_plans() == 0
            && self.with_runs(|_, sight| sight.lock_of(outlet).is_none())
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
            let mut delays = Delays::default();
            for (outlet, now) in known {
                let fits = told
                    .get(&outlet.pdu)
                    .is_some_and(|of| unit_ms.is_multiple_of(of.unit_ms.max(1)));
                let free = sight.view(&outlet.pdu).is_some_and(|view| {
                    let at = view.layout.outlet(outlet.number);
                    let part =
                        at.and_then(|at| view.layout.parts(Scope::Outlet).get(usize::from(at)));
                    view.read_only.is_none() && part.is_some_and(|part| part.switchable)
                }) && sight.lock_of(&outlet).is_none();
                match now {
                    PowerOn::Never => delays.stays_off.push(outlet),
                    PowerOn::After(_) if fits && free => delays.settable.push(outlet),
                    PowerOn::After(Span(0)) => delays.at_once.push(outlet),
                    PowerOn::After(_) => {}
                }
            }
            let picture = runs.picture(sight, None, None);
            loop {
                let (pdu, why) = match onsets(&picture, &delays, unit_ms) {
                    Ok(wanted) => {
                        let late = wanted.iter().find(|(outlet, ms)| {
                            told.get(&outlet.pdu).is_some_and(|of| **ms > of.most_ms)
                        });
                        let Some((outlet, ms)) = late else { return Ok(wanted) };
                        let delay = Span(*ms);
                        let why = format!(
                            "{outlet} is to come on {delay} after an outage, and the PDU knows no such delay"
                        );
                        (outlet.pdu.clone(), why)
                    }
                    Err(refusal) => {
                        let Refusal::Limit { outlet, .. } = &refusal else { return Err(refusal) };
                        let pdu = outlet.pdu.clone();
                        if delays.settable.iter().all(|outlet| outlet.pdu != pdu) {
                            return Err(refusal);
                        }
                        (pdu, refusal.to_string())
                    }
                };
                let (left, kept): (Vec<OutletId>, Vec<OutletId>) =
                    delays.settable.into_iter().partition(|outlet| outlet.pdu == pdu);
                delays.settable = kept;
                let zero = PowerOn::After(Span(0));
                let told = |of: &OutletId| told.get(&of.pdu)?.outlets.get(&of.number).copied();
                delays.at_once.extend(left.into_iter().filter(|of| told(of) == Some(zero)));
                let text = format!("the power-on delays of {pdu} stay as they are: {why}");
                tracing::warn!(%pdu, "{text}");
                self.events.tell("delays.refused", About::pdu(&pdu), text);
            }
        })
    }

    /// Sets one delay; that it is to be is in the audit before.
    async fn set_delay(&self, outlet: &OutletId, wish: SetStartup) -> Result<(), OrderError> {
        let handle = self.fleet.get(&outlet.pdu).ok_or(OrderError::Gone)?;
        let (now, delay) = (wish.now, wish.delay);
        let text = format!("the power-on delay of {outlet} is to be {delay}; it is {now}");
        let about = About::outlet(outlet);
        let by = "the gateway";
        let note = draft(self.clock.stamp().0, "outlet.power_on_delay", by, &about, text);
        let commit = Commit { notes: vec![note], ..Commit::default() };
        let saved = self.in_journal(move |journal| journal.commit(commit)).await;
        saved.map_err(|error| OrderError::Doubtful(error.to_string()))?;
        handle.set_startup(wish).await
    }
}
