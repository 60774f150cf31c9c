//! What PDUs do with their outlets by themselves when their power comes back: their power-on delays are read and shown, and
//! where the site wants it set such that the rack comes up within its limits though no gateway sees to it. An outlet that
//! is set never to come on, and one that is locked, is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::device::{OrderError, SetCourse, SetStartup, Startups};
use crate::model::event::About;
use crate::model::id::{OutletId, PduId};
use crate::model::metric::Scope;
use crate::model::switching::PowerOn;
use crate::model::time::{Span, Tick};
use crate::model::topology::Layout;
use crate::plan::Refusal;
use crate::plan::onset::{Delays, onsets};
use crate::plan::picture::STEP_MS;
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
            let whole = match &of.course {
                Some(_) => self.set_course_of(site, pdu, of, &wanted).await,
                None => self.set_delays_of(site, pdu, of, &wanted).await,
            };
            if !whole {
                return false;
            }
        }
        true
    }

    /// Sets those of a PDU whose outlets come on each by itself.
    async fn set_delays_of(
        &self,
        site: &Arc<Site>,
        pdu: &PduId,
        of: &Startups,
        wanted: &BTreeMap<OutletId, u64>,
    ) -> bool {
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
            self.tell_set(
                pdu,
                &format!("the power-on delays of {pdu} were set: {}", set.join(", ")),
            );
        }
        !broken
    }

    /// Sets those of a PDU whose outlets come on one after the other: the order, and what passes between.
    async fn set_course_of(
        &self,
        site: &Arc<Site>,
        pdu: &PduId,
        of: &Startups,
        wanted: &BTreeMap<OutletId, u64>,
    ) -> bool {
        let own = wanted.iter().filter(|(outlet, _)| outlet.pdu == *pdu);
        let times: BTreeMap<u16, Span> =
            own.map(|(outlet, ms)| (outlet.number, Span(*ms))).collect();
        let Some(now) = of.course.as_ref().filter(|_| !times.is_empty()) else { return true };
        let course = now.with(&times, of.unit_ms.max(1));
        if course == *now {
            return true;
        }
        let may =
            |number: &u16| self.may_set(site, &OutletId { pdu: pdu.clone(), number: *number });
        if !times.keys().all(may) {
            return false;
        }
        let said = |course: &crate::profile::startup::Course| {
            let gap = |number: &u16| course.gaps.get(number).copied().unwrap_or(Span(0));
            let each = course.order.iter().map(|number| format!("{number}, {}", gap(number)));
            each.collect::<Vec<_>>().join("; ")
        };
        let (before, after) = (said(now), said(&course));
        let text = format!(
            "the power-on order of {pdu}, with what passes after each outlet, is to be {after}; it is {before}"
        );
        let result = async {
            self.notes("pdu.power_on_order", &About::pdu(pdu), text).await?;
            let mut now = of.clone();
            // The order, and what passes after each outlet, is set at most once.
            for _ in 0..=course.order.len() {
                if now.course.as_ref() == Some(&course) {
                    break;
                }
                if !times.keys().all(may) {
                    let why = "a plan began meanwhile, or an outlet was locked; it goes on later";
                    return Err(OrderError::Doubtful(why.into()));
                }
                let handle = self.fleet.get(pdu).ok_or(OrderError::Gone)?;
                now = handle.set_course(SetCourse { now, course: course.clone() }).await?;
            }
            if now.course.as_ref() == Some(&course) {
                return Ok(());
            }
            let why = "the order that is read is not the one that was set";
            Err(OrderError::Refused(why.into()))
        };
        match result.await {
            Ok(()) => {
                self.tell_set(pdu, &format!("the power-on order of {pdu} was set: {after}"));
                true
            }
            Err(error) => {
                let text =
                    format!("the power-on order of {pdu} was not set, or not all of it: {error}");
                tracing::warn!(%pdu, "{text}");
                self.events.tell("delays.refused", About::pdu(pdu), text);
                false
            }
        }
    }

    fn tell_set(&self, pdu: &PduId, text: &str) {
        tracing::info!(%pdu, "{text}");
        self.events.tell("delays.set", About::pdu(pdu), text.to_owned());
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
            let mut delays = Delays::default();
            // Outlets that come on first of their PDU, which has no way to let the first of them wait.
            let mut first: BTreeSet<OutletId> = BTreeSet::new();
            let mut left: BTreeMap<PduId, String> = BTreeMap::new();
            for (pdu, of) in told {
                let free = |outlet: &OutletId| {
                    sight.view(&outlet.pdu).is_some_and(|view| {
                        let at = view.layout.outlet(outlet.number);
                        let part =
                            at.and_then(|at| view.layout.parts(Scope::Outlet).get(usize::from(at)));
                        view.read_only.is_none() && part.is_some_and(|part| part.switchable)
                    }) && sight.lock_of(outlet).is_none()
                };
                let outlets: Vec<(OutletId, PowerOn)> = of
                    .outlets
                    .iter()
                    .map(|(number, now)| (OutletId { pdu: pdu.clone(), number: *number }, *now))
                    .collect();
                let stuck = outlets
                    .iter()
                    .find(|(outlet, now)| *now != PowerOn::Never && !free(outlet))
                    .map(|(outlet, _)| outlet);
                let fits = unit_ms.is_multiple_of(of.unit_ms.max(1));
                let why = if of.serial.is_none() {
                    Some("it tells no serial number, so it may be another one when it is set".to_owned())
                } else if of.before > Span(0) {
                    Some(format!("the PDU waits {} before all of its outlets", of.before))
                } else if let (Some(outlet), Some(_)) = (stuck, &of.course) {
                    // What comes before it in the order, or after, is counted from it.
                    Some(format!("its outlets come on one after the other, and {outlet} is locked or not switchable"))
                } else {
                    (!fits).then(|| format!("it keeps delays of other multiples than {} s", unit_ms / 1_000))
                };
                if let Some(course) = &of.course {
                    delays.apart.insert(pdu.clone(), course.least);
                }
                for (outlet, now) in outlets {
                    match now {
                        PowerOn::Never => delays.stays_off.push(outlet),
                        PowerOn::After(_) if why.is_none() && free(&outlet) => {
                            delays.settable.push(outlet);
                        }
                        PowerOn::After(Span(0)) => delays.at_once.push(outlet),
                        PowerOn::After(_) => {}
                    }
                }
                left.extend(why.map(|why| (pdu.clone(), why)));
            }
            for (pdu, why) in left {
                self.tell_left(&pdu, &why);
            }
            let picture = runs.picture(sight, None, None);
            loop {
                let (pdu, why) = match onsets(&picture, &delays, unit_ms) {
                    Ok(mut wanted) => {
                        wanted.extend(first.iter().map(|outlet| (outlet.clone(), 0)));
                        if let Some(outlet) = waits_first(&wanted, told) {
                            delays.settable.retain(|of| *of != outlet);
                            delays.at_once.push(outlet.clone());
                            first.insert(outlet);
                            continue;
                        }
                        let Some((pdu, why)) = too_late(&wanted, told) else { return Ok(wanted) };
                        (pdu, why)
                    }
                    Err(refusal) => {
                        let Refusal::Limit { outlet, .. } = &refusal else { return Err(refusal) };
                        let pdu = outlet.pdu.clone();
                        let own = |of: &&OutletId| of.pdu == pdu;
                        if delays.settable.iter().chain(&first).find(own).is_none() {
                            return Err(refusal);
                        }
                        (pdu, refusal.to_string())
                    }
                };
                // It stays as it is: what tells to come on at once does, the rest may at any time.
                delays.at_once.retain(|of| of.pdu != pdu || !first.contains(of));
                first.retain(|of| of.pdu != pdu);
                delays.settable.retain(|of| of.pdu != pdu);
                let zero = PowerOn::After(Span(0));
                let outlets = told.get(&pdu).into_iter().flat_map(|of| &of.outlets);
                let at_once = outlets.filter(|(_, now)| **now == zero).map(|(number, _)| *number);
                for number in at_once {
                    let outlet = OutletId { pdu: pdu.clone(), number };
                    if !delays.at_once.contains(&outlet) {
                        delays.at_once.push(outlet);
                    }
                }
                self.tell_left(&pdu, &why);
            }
        })
    }

    fn tell_left(&self, pdu: &PduId, why: &str) {
        let text = format!("the power-on delays of {pdu} stay as they are: {why}");
        tracing::warn!(%pdu, "{text}");
        self.events.tell("delays.refused", About::pdu(pdu), text);
    }

    /// Sets one delay; that it is to be is in the audit before.
    async fn set_delay(&self, outlet: &OutletId, wish: SetStartup) -> Result<(), OrderError> {
        let handle = self.fleet.get(&outlet.pdu).ok_or(OrderError::Gone)?;
        let (now, delay) = (wish.now, wish.delay);
        let text = format!("the power-on delay of {outlet} is to be {delay}; it is {now}");
        self.notes("outlet.power_on_delay", &About::outlet(outlet), text).await?;
        handle.set_startup(wish).await
    }

    /// What is going to be set is in the audit before it is.
    async fn notes(
        &self,
        kind: &'static str,
        about: &About,
        text: String,
    ) -> Result<(), OrderError> {
        let note = draft(self.clock.stamp().0, kind, "the gateway", about, text);
        let commit = Commit { notes: vec![note], ..Commit::default() };
        let saved = self.in_journal(move |journal| journal.commit(commit)).await;
        saved.map(drop).map_err(|error| OrderError::Doubtful(error.to_string()))
    }
}

/// The earliest outlet of a PDU that cannot let it wait, and is to.
fn waits_first(
    wanted: &BTreeMap<OutletId, u64>,
    told: &BTreeMap<PduId, Startups>,
) -> Option<OutletId> {
    let chained = told.iter().filter(|(_, of)| of.course.is_some());
    let mut earliest = chained.filter_map(|(pdu, _)| {
        let own = wanted.iter().filter(|(outlet, _)| outlet.pdu == *pdu);
        own.min_by_key(|(outlet, ms)| (**ms, outlet.number))
    });
    earliest.find(|(_, ms)| **ms > 0).map(|(outlet, _)| outlet.clone())
}

/// A PDU that cannot keep the times of its outlets, and why.
fn too_late(
    wanted: &BTreeMap<OutletId, u64>,
    told: &BTreeMap<PduId, Startups>,
) -> Option<(PduId, String)> {
    told.iter().find_map(|(pdu, of)| {
        let own = wanted.iter().filter(|(outlet, _)| outlet.pdu == *pdu);
        let times: BTreeMap<u16, Span> =
            own.map(|(outlet, ms)| (outlet.number, Span(*ms))).collect();
        let Some(course) = &of.course else {
            let late = times.iter().find(|(_, at)| at.0 > of.most_ms);
            return late.map(|(number, at)| {
                let why = format!("{pdu}/{number} is to come on {at} after an outage, and the PDU knows no such delay");
                (pdu.clone(), why)
            });
        };
        let course = course.with(&times, of.unit_ms.max(1));
        let late = course.gaps.iter().find(|(_, gap)| gap.0 > of.most_ms);
        if let Some((number, gap)) = late {
            let why = format!("{gap} are to pass after {pdu}/{number}, and the PDU knows no such delay");
            return Some((pdu.clone(), why));
        }
        let real = course.times();
        let late = times.iter().find(|(number, at)| {
            real.get(number).is_none_or(|real| real.0 > at.0 + STEP_MS)
        });
        late.map(|(number, at)| {
            let why = format!(
                "{pdu}/{number} is to come on {at} after an outage, and comes later, as {} pass between two outlets at least",
                course.least
            );
            (pdu.clone(), why)
        })
    })
}
