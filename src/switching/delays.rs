//! What PDUs do with their outlets by themselves when their power comes back: their power-on delays are read and shown, and
//! where the site wants it set such that the rack comes up within its limits though no gateway sees to it. An outlet that
//! is set never to come on, and one that is locked, is left as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use crate::device::{OrderError, SetCourse, SetStartup, Startups};
use crate::model::event::About;
use crate::model::id::{OutletId, PduId};
use crate::model::metric::Scope;
use crate::model::switching::PowerOn;
use crate::model::time::{Span, Tick};
use crate::model::topology::Layout;
use crate::store::journal::Commit;

use super::conduct::draft;
use super::site::Site;
use super::submit::Switching;
use super::wanted::{Why, times_of};

/// How long PDUs are waited for after the start, or after a change, until delays are looked at.
const SETTLES: Span = Span::seconds(20);
/// How often they are looked at when nothing has changed: PDUs keep them in memory that wears out.
const AGAIN: Span = Span::seconds(86_400);
/// How long a round that did not come to its end is waited with, and the first that found no room.
const RETRY: Span = Span::seconds(600);

/// What a round came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Came {
    /// It did not come to its end.
    #[default]
    Short,
    /// As loads are, the limits leave a PDU no room for any delays: that may pass, as after an outage, when all starts up.
    NoRoom,
    /// All that can be set is set.
    Done,
}

/// When the delays are looked at.
#[derive(Default)]
pub(super) struct Rounds {
    site: Option<Arc<Site>>,
    layouts: BTreeMap<PduId, Known>,
    next: Option<Tick>,
    task: Option<JoinHandle<()>>,
    came: Arc<Mutex<Came>>,
    /// How many rounds, one after the other, have found no room.
    cramped: u32,
    left: Arc<Mutex<Left>>,
}

impl Rounds {
    /// Sets when the next round is. Where there was no room, twice as late each time: PDUs keep their delays in memory that
    /// wears out, and the loads by which those of the others are set anew are never the same.
    fn ends(&mut self, came: Came, now: Tick) {
        let pause = match came {
            Came::Short => RETRY,
            Came::NoRoom => Span(RETRY.0 << self.cramped.min(16)).min(AGAIN),
            Came::Done => AGAIN,
        };
        self.cramped = if came == Came::NoRoom { self.cramped + 1 } else { 0 };
        self.next = Some(now + pause);
    }
}

/// What is known of PDUs that did not take a delay, until something changes: what rests on them is not set, day for day.
#[derive(Default)]
struct Left {
    /// Those that refused, and why.
    refused: BTreeMap<PduId, String>,
    /// How often one gave no answer when it was to be set.
    mute: BTreeMap<PduId, u32>,
    /// What was told of which.
    told: BTreeMap<PduId, Why>,
    /// Whether it was told that none can be set.
    told_of_all: bool,
}

impl Left {
    /// Why a PDU that did not take its delay is left out from now on; nothing if it is tried again in a later round.
    fn gives_up(&mut self, pdu: &PduId, unset: Unset) -> Option<String> {
        let why = match unset {
            Unset::Later => return None,
            Unset::Refused(why) => why,
            Unset::Mute(why) => {
                let times = self.mute.entry(pdu.clone()).or_default();
                *times += 1;
                if *times < TRIES {
                    return None;
                }
                why
            }
        };
        self.refused.insert(pdu.clone(), why.clone());
        Some(why)
    }

    /// Every PDU that was to be set has taken its delays.
    fn all_taken(&mut self) {
        self.mute.clear();
        self.told_of_all = false;
    }

    /// Of PDUs that are left as they are, those that this is to be told of: not again what was told, nor that there is still
    /// no room, by other figures; but again of one that was not among them in a whole round in between.
    fn news(&mut self, left: BTreeMap<PduId, Why>, came: Came) -> Vec<(PduId, String)> {
        let is_known = |pdu: &PduId, why: &Why| match (self.told.get(pdu), why) {
            (Some(Why::NoRoom(_)), Why::NoRoom(_)) => true,
            (told, why) => told == Some(why),
        };
        let news = left.iter().filter(|(pdu, why)| !is_known(pdu, why));
        let news = news.map(|(pdu, why)| (pdu.clone(), why.to_string())).collect();
        if came != Came::Short {
            self.told.clear();
        }
        self.told.extend(left);
        news
    }
}

/// How often a PDU is tried that answers when it is read and not when it is written to, as many do that refuse.
const TRIES: u32 = 3;

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
            rounds.left = Arc::default();
            (rounds.cramped, rounds.task) = (0, None);
            rounds.next = Some(now + SETTLES);
        } else if rounds.task.take().is_some() {
            let came = std::mem::take(&mut *lock(&rounds.came));
            rounds.ends(came, now);
        }
        // What is switched just now changes what is drawn; and nothing is written beside a plan.
        if rounds.next.is_none_or(|next| next > now) || self.running_plans() > 0 {
            return;
        }
        rounds.next = None;
        rounds.came = Arc::default();
        let (this, came, left) = (self.clone(), rounds.came.clone(), rounds.left.clone());
        rounds.task = Some(self.tasks.spawn(async move {
            tokio::select! {
                of = this.look_at_delays(&site, &left) => *lock(&came) = of,
                () = this.stop.cancelled() => {}
            }
        }));
    }

    /// Reads all delays, and sets them where they are to be.
    async fn look_at_delays(&self, site: &Arc<Site>, left: &Mutex<Left>) -> Came {
        let mut came = Came::Done;
        let mut told: BTreeMap<PduId, Startups> = BTreeMap::new();
        for view in self.fleet.services().board.views() {
            let Some(handle) = self.fleet.get(&view.id) else { continue };
            match handle.startups().await {
                Ok(startups) => {
                    told.insert(view.id.clone(), startups);
                }
                Err(error) => {
                    tracing::debug!(pdu = %view.id, %error, "the power-on delays of {} are not known", view.id);
                    came = Came::Short;
                }
            }
        }
        if site.restore.is_some_and(|restore| restore.sets_delays) {
            let set = self.set_delays(site, told, left).await;
            if came == Came::Done {
                came = set;
            }
        }
        came
    }

    /// Sets them. Where one PDU does not take what the others were reckoned with, they are reckoned anew without it.
    async fn set_delays(
        &self,
        site: &Arc<Site>,
        mut told: BTreeMap<PduId, Startups>,
        known: &Mutex<Left>,
    ) -> Came {
        let refused = lock(known).refused.clone();
        let mut left: BTreeMap<PduId, Why> =
            refused.into_iter().map(|(pdu, why)| (pdu, Why::Lasting(why))).collect();
        for (pdu, of) in &told {
            left.extend(of.unknown.clone().map(|why| (pdu.clone(), Why::Lasting(why))));
        }
        told.retain(|_, of| !of.outlets.is_empty());
        let unit_ms = told.values().map(|of| of.unit_ms).max().unwrap_or(1_000);
        let came = loop {
            let wanted = match self.wanted_delays(&told, unit_ms, &mut left) {
                Ok(wanted) => wanted,
                Err(refusal) => {
                    let text =
                        format!("the power-on delays of the PDUs stay as they are: {refusal}");
                    if !std::mem::replace(&mut lock(known).told_of_all, true) {
                        tracing::warn!("{text}");
                        self.events.tell("delays.refused", About::default(), text);
                    }
                    break Came::NoRoom;
                }
            };
            let (pdu, unset) = match self.set_all(site, &told, &wanted).await {
                Ok(()) => {
                    lock(known).all_taken();
                    let is_cramped = left.values().any(|why| matches!(why, Why::NoRoom(_)));
                    break if is_cramped { Came::NoRoom } else { Came::Done };
                }
                Err(failed) => failed,
            };
            let Some(why) = lock(known).gives_up(&pdu, unset) else { break Came::Short };
            left.insert(pdu, Why::Lasting(why));
            // What was set of the others is as it is now.
            if !self.reads_again(&mut told).await {
                break Came::Short;
            }
        };
        let news = lock(known).news(left, came);
        for (pdu, why) in news {
            self.tell_left(&pdu, &why);
        }
        came
    }

    async fn reads_again(&self, told: &mut BTreeMap<PduId, Startups>) -> bool {
        for (pdu, of) in told {
            let Some(handle) = self.fleet.get(pdu) else { return false };
            let Ok(now) = handle.startups().await else { return false };
            *of = now;
        }
        true
    }

    async fn set_all(
        &self,
        site: &Arc<Site>,
        told: &BTreeMap<PduId, Startups>,
        wanted: &BTreeMap<OutletId, u64>,
    ) -> Result<(), (PduId, Unset)> {
        for (pdu, of) in told {
            let set = match &of.course {
                Some(_) => self.set_course_of(site, pdu, of, wanted).await,
                None => self.set_delays_of(site, pdu, of, wanted).await,
            };
            set.map_err(|unset| (pdu.clone(), unset))?;
        }
        Ok(())
    }

    /// Sets those of a PDU whose outlets come on each by itself.
    async fn set_delays_of(
        &self,
        site: &Arc<Site>,
        pdu: &PduId,
        of: &Startups,
        wanted: &BTreeMap<OutletId, u64>,
    ) -> Result<(), Unset> {
        let mut set = Vec::new();
        let mut result = Ok(());
        for (number, now) in &of.outlets {
            let outlet = OutletId { pdu: pdu.clone(), number: *number };
            let Some(delay) = wanted.get(&outlet).map(|ms| Span(*ms)) else { continue };
            if *now == PowerOn::After(delay) {
                continue;
            }
            if !self.may_set(site, &outlet) {
                result = Err(Unset::Later);
                break;
            }
            let (number, now) = (*number, *now);
            let (serial, before) = (of.serial.clone(), of.before);
            let wish = SetStartup { number, now, serial, delay, before };
            if let Err(error) = self.set_delay(&outlet, wish).await {
                let text = format!("the power-on delay of {outlet} was not set: {error}");
                tracing::warn!(%outlet, "{text}");
                self.events.tell("delays.refused", About::outlet(&outlet), text);
                result = Err(Unset::of(&error));
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
        result
    }

    /// Sets those of a PDU whose outlets come on one after the other: the order, and what passes between.
    async fn set_course_of(
        &self,
        site: &Arc<Site>,
        pdu: &PduId,
        of: &Startups,
        wanted: &BTreeMap<OutletId, u64>,
    ) -> Result<(), Unset> {
        let times = times_of(pdu, of, wanted);
        let Some(now) = of.course.as_ref().filter(|_| !times.is_empty()) else { return Ok(()) };
        let course = now.with(&times, of.unit_ms.max(1));
        if course == *now {
            return Ok(());
        }
        let may =
            |number: &u16| self.may_set(site, &OutletId { pdu: pdu.clone(), number: *number });
        if !times.keys().all(may) {
            return Err(Unset::Later);
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
                Ok(())
            }
            Err(error) => {
                let text =
                    format!("the power-on order of {pdu} was not set, or not all of it: {error}");
                tracing::warn!(%pdu, "{text}");
                self.events.tell("delays.refused", About::pdu(pdu), text);
                Err(Unset::of(&error))
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

    fn tell_left(&self, pdu: &PduId, why: &str) {
        let view = self.fleet.get(pdu).map(|handle| handle.view());
        if view.is_some_and(|view| view.read_only.is_some()) {
            // Who may only read it has not asked for more.
            return;
        }
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

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a delay was not set.
enum Unset {
    /// That may pass: it is tried again.
    Later,
    /// The PDU does not take it, or will not the next time either.
    Refused(String),
    /// It does not answer: also what is refused may look so.
    Mute(String),
}

impl Unset {
    fn of(error: &OrderError) -> Self {
        match error {
            OrderError::Refused(_) | OrderError::NotSwitchable(_) => {
                Unset::Refused(error.to_string())
            }
            OrderError::Link(_) => Unset::Mute(error.to_string()),
            _ => Unset::Later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pdu(id: &str) -> PduId {
        id.parse().unwrap()
    }

    #[test]
    fn a_pdu_that_refuses_is_left_out_at_once_and_one_that_gives_no_answer_the_third_time() {
        let mut left = Left::default();
        let (a, b) = (pdu("pdu-a"), pdu("pdu-b"));
        let mute = || Unset::Mute("no answer".into());
        assert_eq!(
            left.gives_up(&a, Unset::Refused("wrongValue".into())),
            Some("wrongValue".into())
        );
        assert_eq!(left.gives_up(&b, mute()), None);
        assert_eq!(left.gives_up(&b, Unset::Later), None);
        assert_eq!(left.gives_up(&b, mute()), None);
        assert!(!left.refused.contains_key(&b), "the next round tries it");
        assert_eq!(left.gives_up(&b, mute()), Some("no answer".into()));
        // The rounds of the days after begin with these.
        assert_eq!(left.refused.keys().collect::<Vec<_>>(), [&a, &b]);
    }

    #[test]
    fn a_pdu_that_took_its_delays_meanwhile_has_all_its_tries_again() {
        let mut left = Left::default();
        let b = pdu("pdu-b");
        let mute = || Unset::Mute("no answer".into());
        assert_eq!((left.gives_up(&b, mute()), left.gives_up(&b, mute())), (None, None));
        left.all_taken();
        assert_eq!((left.gives_up(&b, mute()), left.gives_up(&b, mute())), (None, None));
    }

    #[test]
    fn where_there_is_no_room_it_is_looked_again_before_a_day_is_over_and_ever_later() {
        let mut rounds = Rounds::default();
        let mut pause = |came| {
            rounds.ends(came, Tick(5));
            rounds.next.unwrap() - Tick(5)
        };
        let minutes: Vec<u64> = (0..10).map(|_| pause(Came::NoRoom).0 / 60_000).collect();
        assert_eq!(minutes, [10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]);
        assert_eq!(pause(Came::Done), AGAIN);
        assert_eq!(pause(Came::Short), RETRY);
        assert_eq!(pause(Came::NoRoom), RETRY, "it begins anew");
    }

    #[test]
    fn that_there_is_still_no_room_is_told_once_and_again_after_there_was() {
        let mut left = Left::default();
        let no_room = |watts: u32| {
            BTreeMap::from([(pdu("pdu-a"), Why::NoRoom(format!("{watts} W are left")))])
        };
        let told = [(pdu("pdu-a"), "713 W are left".to_owned())];
        assert_eq!(left.news(no_room(713), Came::NoRoom), told);
        assert_eq!(left.news(no_room(669), Came::NoRoom), []);
        assert_eq!(left.news(BTreeMap::new(), Came::Short), []);
        assert_eq!(left.news(no_room(669), Came::NoRoom), []);
        assert_eq!(left.news(BTreeMap::new(), Came::Done), []);
        assert_eq!(left.news(no_room(669), Came::NoRoom).len(), 1);
        let lasting = BTreeMap::from([(pdu("pdu-a"), Why::Lasting("wrongValue".into()))]);
        assert_eq!(left.news(lasting.clone(), Came::Done).len(), 1);
        assert_eq!(left.news(lasting, Came::Done), []);
    }
}
