//! What outlets drew after earlier switch-ons, out of the store: for outlets of which neither the configuration says what
//! they draw nor a start was watched yet. A PDU at a time, a day a second, in a thread that may block: polling waits for
//! none of it. The newest starts count, at most as many as are kept. And what they drew before an outage, when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::model::id::{OutletId, PduId};
use crate::model::metric::{Metric, Scope, Word};
use crate::model::time::{Span, Stamp, Tick};
use crate::model::topology::Layout;
use crate::model::view::PduView;
use crate::plan::picture::{drawn_as, mva};
use crate::plan::starts::{KEPT, LONGEST_GAP, Start, Starts, WATCHED, start_of};
use crate::plan::{Runs, Sight};
use crate::store::reader::{Item, Scan, scan};
use crate::store::{Archive, StoreError};

use super::feeds::{Last, dark_hosts, drew_together, feeds_beside, unmetered};
use super::site::Site;
use super::submit::Switching;

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// How long a load takes at most to start up, as far as what it drew before an off is concerned.
const STARTS_UP: Span = Span::seconds(180);
/// How long one day may be read: an appliance reads one in some milliseconds; what takes longer is left out.
const LONGEST: Span = Span::seconds(5);
/// When what was not gone through is asked for again.
const RESTS: Span = Span::seconds(60);
const RESTS_AT_MOST: Span = Span::seconds(3_600);

/// An outlet whose starts are looked for.
#[derive(Debug, Clone)]
struct Sought {
    outlet: OutletId,
    /// Its name in the store.
    part: String,
    /// By what its load is told, and at how many mV where that is a current.
    metric: Metric,
    millivolts: i64,
}

/// A PDU that is gone through, day by day, the newest first.
struct Search {
    pdu: PduId,
    outlets: Arc<Vec<Sought>>,
    /// The days that are left, from the first to before the last.
    days: std::ops::Range<i64>,
    /// What was found, the newest first.
    found: BTreeMap<OutletId, Vec<Start>>,
}

impl Sought {
    /// What it draws by a reading, mVA.
    fn load(&self, value: i64) -> i64 {
        let current = self.metric == Metric::Current;
        if current { mva(value.saturating_abs(), self.millivolts) } else { value }
    }
}

/// The metered outlets of a PDU of which the configuration does not say what they draw.
fn unconfigured<'s>(view: &'s PduView, sight: &'s Sight<'_>) -> impl Iterator<Item = Sought> + 's {
    view.outlets().filter_map(|(at, part)| {
        let outlet = OutletId { pdu: view.id.clone(), number: part.number };
        let (metric, millivolts) = drawn_as(view, sight.site, at, &outlet)?;
        let part = part.id.clone();
        let wanted = !sight.site.is_configured(&outlet);
        wanted.then_some(Sought { outlet, part, metric, millivolts })
    })
}

type Day = Result<Vec<(OutletId, Start)>, StoreError>;

/// The looking back.
#[derive(Default)]
pub(super) struct Past {
    /// PDUs that were gone through, with the layout that they had.
    done: BTreeMap<PduId, Arc<Layout>>,
    /// The configuration by which that was.
    site: Option<Arc<Site>>,
    search: Option<Search>,
    day: Option<JoinHandle<Day>>,
    /// Outlets that were off when they were looked for.
    off: BTreeSet<OutletId>,
    /// The looking for some of them; whether all was gone through.
    recalling: Option<(JoinHandle<bool>, BTreeSet<OutletId>)>,
    /// After one that was not whole, twice as long each time.
    rests_until: Option<Tick>,
    rests: Span,
}

impl Past {
    /// Finds a PDU with outlets that nothing is known of.
    pub fn begin(&mut self, site: &Arc<Site>, sight: &Sight<'_>, starts: &Starts, raw_days: i64) {
        if self.search.is_some() {
            return;
        }
        if self.site.as_ref().is_none_or(|of| !Arc::ptr_eq(of, site)) {
            self.done.clear();
            self.off.clear();
            self.site = Some(site.clone());
        }
        // A device is learned anew now and then, and mostly is what it was.
        let is_new = |layout: Option<&Arc<Layout>>, now: &Arc<Layout>| {
            let is_same = |of: &Arc<Layout>| {
                Arc::ptr_eq(of, now) || of.parts(Scope::Outlet) == now.parts(Scope::Outlet)
            };
            !layout.is_some_and(is_same)
        };
        let views = sight.views.iter().filter(|view| view.observed.is_some());
        for view in views {
            if !is_new(self.done.get(&view.id), &view.layout) {
                continue;
            }
            self.done.insert(view.id.clone(), view.layout.clone());
            let unknown = |of: &Sought| !starts.knows(&of.outlet);
            let outlets: Vec<Sought> = unconfigured(view, sight).filter(unknown).collect();
            if outlets.is_empty() {
                continue;
            }
            let today = sight.stamp.0.div_euclid(DAY_MS);
            self.search = Some(Search {
                pdu: view.id.clone(),
                outlets: Arc::new(outlets),
                days: today - raw_days.max(1)..today + 1,
                found: BTreeMap::new(),
            });
            return;
        }
    }

    /// Goes on by a day, if one is to be gone through. Gives what was found once a PDU is through: the oldest first.
    pub async fn go_on(
        &mut self,
        archive: &Arc<Archive>,
    ) -> Option<(PduId, BTreeMap<OutletId, Vec<Start>>)> {
        if self.day.as_ref().is_some_and(|day| !day.is_finished()) {
            return None;
        }
        let search = self.search.as_mut()?;
        if let Some(day) = self.day.take() {
            match day.await {
                Ok(Ok(found)) => {
                    for (outlet, start) in found {
                        search.found.entry(outlet).or_default().push(start);
                    }
                }
                Ok(Err(error)) => {
                    let pdu = &search.pdu;
                    tracing::warn!(%pdu, %error, "starts of {pdu} are not looked for in the store");
                    search.days.end = search.days.start;
                }
                Err(error) => tracing::error!(%error, "a day of the store was not gone through"),
            }
        }
        let enough = |of: &Sought| search.found.get(&of.outlet).is_some_and(|of| of.len() >= KEPT);
        let over = search.days.is_empty() || search.outlets.iter().all(enough);
        if !over {
            search.days.end -= 1;
            let (archive, outlets, day) =
                (archive.clone(), search.outlets.clone(), search.days.end);
            self.day =
                Some(tokio::task::spawn_blocking(move || starts_of_day(&archive, &outlets, day)));
            return None;
        }
        let mut search = self.search.take()?;
        for starts in search.found.values_mut() {
            starts.truncate(KEPT);
            starts.reverse();
        }
        Some((search.pdu, search.found))
    }
}

impl Switching {
    /// Remembers what outlets that an outage left dark drew before it, as of those that are switched off here: a default
    /// would be too little for some and leave no room for others.
    pub(super) async fn recalls(&self, dark: &BTreeSet<OutletId>, archive: &Arc<Archive>) {
        let wanted = self.with_runs(|_, sight| feeds_beside(dark, sight));
        let (found, _) = self.drew_before(wanted, archive, false).await;
        self.with_runs(|runs, sight| {
            for feeds in dark_hosts(dark, sight) {
                if let Some(load) = drew_together(&feeds, &found, unmetered(&feeds, sight)) {
                    runs.memory.whole.insert(feeds, load);
                }
            }
            let own = found.into_iter().filter(|(outlet, _)| dark.contains(outlet));
            let own = own.filter_map(|(outlet, last)| Some((outlet, last.load?)));
            runs.memory.drew.extend(own);
        });
    }

    /// Waits until it was looked for what an outlet drew that a run before this one left off: by the default it may pass what
    /// was refused then. A store that takes long is not waited for.
    pub(super) async fn until_recalled(&self, outlet: &OutletId) {
        let is_over = |looked: &Option<BTreeSet<OutletId>>| {
            looked.as_ref().is_none_or(|looked| looked.contains(outlet))
        };
        let is_known = |runs: &mut Runs, sight: &Sight<'_>| {
            runs.memory.written.contains_key(outlet) || sight.site.is_configured(outlet)
        };
        if is_over(&self.recalled.borrow()) || self.with_runs(is_known) {
            return;
        }
        let mut looked = self.recalled.subscribe();
        let looked = tokio::time::timeout(LONGEST.duration(), looked.wait_for(is_over)).await;
        if !matches!(looked, Ok(Ok(_))) {
            tracing::warn!(%outlet, "what {outlet} drew before was not found in time");
            // Nor a second time, until it has answered.
            self.recalled.send_replace(None);
        }
    }

    /// Remembers of outlets that are off, and that this run has not seen on, what they drew when they were on, where that is
    /// more than is known otherwise: what was refused before a restart is not to pass after it.
    pub(super) async fn recalls_what_is_off(&self, past: &mut Past, archive: &Arc<Archive>) {
        if past.recalling.as_ref().is_some_and(|(task, _)| !task.is_finished()) {
            return;
        }
        if let Some((task, of)) = past.recalling.take() {
            let is_whole = task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "what outlets drew before was not looked for");
                false
            });
            if !is_whole {
                // The disk may be at something else; it is asked again in a while.
                past.off.retain(|outlet| !of.contains(outlet));
                past.rests = Span((past.rests.0 * 2).clamp(RESTS.0, RESTS_AT_MOST.0));
                past.rests_until = Some(self.clock.tick() + past.rests);
            }
        }
        if past.rests_until.is_some_and(|until| self.clock.tick() < until) {
            return;
        }
        let looked: BTreeSet<OutletId> = past.off.clone();
        self.recalled.send_if_modified(|before| {
            let is_new = before.as_ref() != Some(&looked);
            *before = Some(looked);
            is_new
        });
        let known = &mut past.off;
        let new = self.with_runs(|runs, sight| {
            let mut new: BTreeSet<OutletId> = BTreeSet::new();
            let is_whole = |id: &OutletId| {
                let host = sight.site.host_of(id).map(|(_, host)| &host.outlets);
                host.is_none_or(|feeds| feeds.len() == 1 || runs.memory.whole.contains_key(feeds))
            };
            for view in sight.views {
                for (at, part) in view.outlets() {
                    let id = OutletId { pdu: view.id.clone(), number: part.number };
                    match view.outlet_state(at) {
                        Ok(Word::On) => drop(known.remove(&id)),
                        Ok(Word::Off) => {
                            let wanted = !runs.memory.drew.contains_key(&id) || !is_whole(&id);
                            // Of the others it is known.
                            if known.insert(id.clone()) && wanted {
                                new.insert(id);
                            }
                        }
                        _ => {}
                    }
                }
            }
            new
        });
        if new.is_empty() {
            return;
        }
        let (this, archive) = (self.clone(), archive.clone());
        let of = new.clone();
        let task = self.tasks.spawn(async move {
            let wanted = this.with_runs(|_, sight| feeds_beside(&new, sight));
            let (found, is_whole) = this.drew_before(wanted, &archive, true).await;
            this.with_runs(|runs, sight| {
                let memory = &mut runs.memory;
                for feeds in dark_hosts(&new, sight) {
                    if let Some(load) = drew_together(&feeds, &found, unmetered(&feeds, sight)) {
                        memory.whole.entry(feeds).or_insert(load);
                    }
                }
                for (outlet, last) in found.into_iter().filter(|(outlet, _)| new.contains(outlet)) {
                    let Some(load) = last.load else { continue };
                    let host = sight.site.host_of(&outlet).map(|(_, host)| host);
                    // Of one feed of several it is only a part of what the host draws.
                    let is_part = host.is_some_and(|host| host.outlets.len() > 1);
                    let learned = memory.learned.get(&outlet).copied();
                    if is_part || load > sight.site.draw(&outlet, host, learned, None).steady {
                        memory.drew.entry(outlet).or_insert(load);
                    }
                }
            });
            is_whole
        });
        past.recalling = Some((task, of));
    }

    /// What outlets drew in the last hour in which they were on, mVA; nothing of those that were not metered then. And
    /// whether all was gone through within the time there is, for all of them or for `each` PDU.
    async fn drew_before(
        &self,
        wanted: BTreeSet<OutletId>,
        archive: &Arc<Archive>,
        each: bool,
    ) -> (BTreeMap<OutletId, Last>, bool) {
        let sought: Vec<Vec<Sought>> = self.with_runs(|_, sight| {
            let is_wanted = |of: &Sought| wanted.contains(&of.outlet);
            let views = sight.views.iter();
            views.map(|view| unconfigured(view, sight).filter(is_wanted).collect()).collect()
        });
        let (archive, now, stop) = (archive.clone(), self.clock.stamp(), self.stop.clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut began = std::time::Instant::now();
            let (mut drew, mut is_whole) = (BTreeMap::new(), true);
            for outlets in sought {
                if each {
                    began = std::time::Instant::now();
                }
                let in_time = || began.elapsed() < LONGEST.duration() && !stop.is_cancelled();
                let result = drew_last(&archive, &outlets, now, &in_time, &mut drew);
                is_whole &= result.is_ok() && in_time();
                if let (Err(error), Some(first)) = (result, outlets.first()) {
                    let pdu = &first.outlet.pdu;
                    tracing::warn!(%pdu, %error, "what {pdu} drew is not looked for in the store");
                }
            }
            (drew, is_whole)
        });
        found.await.unwrap_or_else(|error| {
            tracing::error!(%error, "what outlets drew before was not looked for");
            (BTreeMap::new(), false)
        })
    }
}

/// Of an outlet, oldest first: when it was on and when not, and what it drew.
#[derive(Default)]
struct Course {
    on: Vec<(Stamp, bool)>,
    loads: Vec<(Stamp, i64)>,
}

impl Course {
    /// Notes what it is: the first and the last of what is the same all the while.
    fn sees(&mut self, at: Stamp, on: bool) {
        match &mut self.on[..] {
            [.., (_, before), (last, now)] if *before == on && *now == on => *last = at,
            _ => self.on.push((at, on)),
        }
    }

    fn last_on(&self) -> Option<Stamp> {
        self.on.iter().rev().find(|(_, on)| *on).map(|(at, _)| *at)
    }

    /// What it drew in the last hour in which it was on; nothing if it was not, or was not metered then.
    fn last(&self) -> Option<i64> {
        let hour_of = |at: Stamp| at.0.div_euclid(HOUR_MS);
        let last = self.last_on()?;
        let own: Vec<(Stamp, i64)> =
            self.loads.iter().filter(|(at, _)| hour_of(*at) == hour_of(last)).copied().collect();
        let all: Vec<i64> = own.iter().map(|(_, load)| *load).collect();
        // Once it has started up, if it was on for that long since it was seen off.
        let begun = self.on.windows(2).filter(|pair| !pair[0].1 && pair[1].1 && pair[1].0 <= last);
        let begun: Vec<Stamp> = begun.map(|pair| pair[1].0).collect();
        let is_up = |at: Stamp| {
            let since = begun.iter().rev().find(|begun| **begun <= at);
            since.is_none_or(|since| at.since(*since) >= STARTS_UP)
        };
        let up: Vec<i64> = own
            .iter()
            .filter(|(at, load)| is_up(*at) && *load > 0)
            .map(|(_, load)| *load)
            .collect();
        if up.is_empty() { mostly(&all) } else { mostly(&up) }
    }
}

/// What outlets of a PDU drew in the last hour in which they were on, for most of it at most, mVA: what a meter catches of a
/// first moment, or while a load starts up, is not what it draws. Nothing of one that was not metered then.
/// Looked for from now on backwards, each time twice as far: most outages are short.
fn drew_last(
    archive: &Archive,
    outlets: &[Sought],
    now: Stamp,
    in_time: &dyn Fn() -> bool,
    drew: &mut BTreeMap<OutletId, Last>,
) -> Result<(), StoreError> {
    let farthest = archive.settings.raw_days.max(1) * DAY_MS;
    let mut back = 0;
    while back < farthest {
        let left: Vec<&Sought> =
            outlets.iter().filter(|of| !drew.contains_key(&of.outlet)).collect();
        let Some(first) = left.first() else { break };
        let columns: Vec<_> = left
            .iter()
            .flat_map(|of| [(of.part.clone(), Metric::State), (of.part.clone(), of.metric)])
            .collect();
        let (end, start) = (Stamp(now.0 - back), Stamp(now.0 - (back * 2).max(HOUR_MS)));
        back = now.0 - start.0;
        let asked = Scan { pdu: &first.outlet.pdu, columns: &columns, start, end, step: None };
        let mut courses: Vec<Course> = left.iter().map(|_| Course::default()).collect();
        scan(archive, &asked, &mut |column, item| {
            let Item::Sample((at, Ok(value))) = item else { return in_time() };
            let of = &mut courses[column / 2];
            if column % 2 == 1 {
                of.loads.push((at, left[column / 2].load(value)));
            } else if let Some(word @ (Word::On | Word::Off)) = Word::from_number(value) {
                of.sees(at, word == Word::On);
            }
            in_time()
        })?;
        if !in_time() {
            // What was seen may be half of it.
            break;
        }
        for (of, course) in left.iter().zip(courses) {
            if let Some(on) = course.last_on() {
                drew.insert(of.outlet.clone(), Last { on, load: course.last() });
            }
        }
    }
    Ok(())
}

/// What is passed in no more than a twentieth of some readings of what draws something; nothing if there are none.
fn mostly(loads: &[i64]) -> Option<i64> {
    let mut sorted: Vec<i64> = loads.iter().copied().filter(|load| *load > 0).collect();
    if sorted.is_empty() {
        return loads.first().copied();
    }
    sorted.sort_unstable();
    sorted.get((sorted.len() * 19).div_ceil(20).checked_sub(1)?).copied()
}

/// The starts of a day, the newest first.
fn starts_of_day(archive: &Archive, outlets: &[Sought], day: i64) -> Day {
    let Some(first) = outlets.first() else { return Ok(Vec::new()) };
    let began = std::time::Instant::now();
    let in_time = || began.elapsed() < LONGEST.duration();
    let (begin, end) = (day * DAY_MS, (day + 1) * DAY_MS);
    let (gap, watched) = (LONGEST_GAP.0 as i64, WATCHED.0 as i64);
    let columns: Vec<_> = outlets.iter().map(|of| (of.part.clone(), Metric::State)).collect();
    let pdu = &first.outlet.pdu;
    let states = Scan {
        pdu,
        columns: &columns,
        start: Stamp(begin - gap),
        end: Stamp(end + watched + gap),
        step: None,
    };
    // By outlet: its last state, and when it went on and when off again.
    let mut last: Vec<Option<(Stamp, bool)>> = vec![None; outlets.len()];
    let mut ons: Vec<(Stamp, usize, Option<Stamp>)> = Vec::new();
    scan(archive, &states, &mut |column, item| {
        let Item::Sample((at, Ok(number))) = item else { return in_time() };
        let on = match Word::from_number(number) {
            Some(Word::On) => true,
            Some(Word::Off) => false,
            _ => return in_time(),
        };
        let before = last[column].replace((at, on));
        let fresh = before.filter(|(was, _)| at.since(*was) <= LONGEST_GAP);
        match fresh {
            Some((_, false)) if on && (begin..end).contains(&at.0) => ons.push((at, column, None)),
            Some((_, true)) if !on => {
                if let Some(open) = ons.iter_mut().rev().find(|(_, of, _)| *of == column) {
                    open.2 = open.2.or(Some(at));
                }
            }
            _ => {}
        }
        in_time()
    })?;
    ons.sort_by_key(|(at, column, _)| (std::cmp::Reverse(*at), *column));
    let mut found = Vec::new();
    for (on, column, off) in ons {
        // Of one that went off again too soon nothing is learned.
        if off.is_some_and(|off| off.since(on) < WATCHED) {
            continue;
        }
        if !in_time() {
            tracing::warn!(%pdu, "a day of {pdu} takes too long to go through; the rest is left out");
            break;
        }
        let of = &outlets[column];
        let columns = [(of.part.clone(), of.metric)];
        let end = Stamp(on.0 + watched + gap);
        let drawn = Scan { pdu, columns: &columns, start: on, end, step: None };
        let mut readings = Vec::new();
        scan(archive, &drawn, &mut |_, item| {
            if let Item::Sample((at, Ok(value))) = item {
                readings.push((at.since(on), of.load(value)));
            }
            true
        })?;
        found.extend(start_of(&readings).map(|start| (of.outlet.clone(), start)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_meter_catches_of_a_first_moment_is_not_what_an_outlet_draws() {
        assert_eq!(mostly(&[]), None);
        assert_eq!(mostly(&[310]), Some(310));
        assert_eq!(mostly(&[310, 290]), Some(310));
        let mut hour = vec![290; 700];
        hour.extend([1_831, 1_819, 0, 470, 470]);
        hour.extend([305; 40]);
        assert_eq!(mostly(&hour), Some(305));
        // It was off for most of the hour.
        hour.extend(vec![0; 5_000]);
        assert_eq!(mostly(&hour), Some(305));
        assert_eq!(mostly(&[0, 0]), Some(0));
    }

    #[test]
    fn what_an_outlet_drew_while_it_started_up_is_not_what_it_drew() {
        let at = |second: i64| Stamp(40 * HOUR_MS + second * 1_000);
        let mut course = Course::default();
        for second in 0..600 {
            course.sees(at(second), (100..400).contains(&second));
            let load = match second {
                100..160 => 900,
                160..400 => 600,
                _ => 0,
            };
            course.loads.push((at(second), load));
        }
        assert_eq!(course.on.len(), 6, "{:?}", course.on);
        assert_eq!(course.last(), Some(600));
        // Off before it was up: all that is known of it.
        let mut short = Course::default();
        for second in 0..60 {
            short.sees(at(second), second >= 30);
            short.loads.push((at(second), if second >= 30 { 900 } else { 0 }));
        }
        assert_eq!(short.last(), Some(900));
        assert_eq!(Course::default().last_on(), None);
        let mut unmetered = Course::default();
        unmetered.sees(at(0), true);
        assert_eq!((unmetered.last_on(), unmetered.last()), (Some(at(0)), None));
    }
}
