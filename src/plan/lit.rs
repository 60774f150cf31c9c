//! What was on before an outage of the rack, so that it can be switched on again: kept while PDUs are there, compared
//! when they come back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::id::{OutletId, PduId};
use crate::model::metric::{Scope, Word};
use crate::model::switching::Relay;
use crate::model::time::{Span, Stamp, Tick};
use crate::model::view::{Health, PduView};

use super::memory::Memory;
use super::picture::Sight;

/// How a site wants its rack back after an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restore {
    /// How long a PDU that came back is left alone: it may switch outlets on by its own setting.
    pub settle: Span,
    /// How long PDUs that are still away are waited for.
    pub wait: Span,
    /// Whether the power-on delays of PDUs are set by what the limits allow.
    pub sets_delays: bool,
}

impl Default for Restore {
    fn default() -> Self {
        Self { settle: Span::seconds(30), wait: Span::seconds(120), sets_delays: false }
    }
}

/// How long a PDU is away at least, from the poll that failed first, that has lost its power by itself: no card starts up
/// sooner, and a poll that is lost now and then is no outage.
const AWAY: Span = Span::seconds(10);
/// How long the other PDUs of the rack are waited for after a shorter absence, for them to show that it was an outage.
const DOUBT: Span = Span::seconds(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It was seen, last at that moment; when its last good poll began, and how many had failed by then.
    There { seen: Tick, good: Tick, failed: u64 },
    /// It came back after no more than a failed poll or two, and all that was on is off: whether that was an outage the
    /// others tell. When its last good poll before that began, when it was back.
    Doubtful { good: Tick, since: Tick },
    /// It came back, and all that was on is off. When its last good poll before that began, if that is known, when it was
    /// back, and since when that is certain.
    Dark { good: Option<Tick>, back: Tick, since: Tick },
}

/// What was on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lit {
    on: BTreeSet<OutletId>,
    /// Of these, what an outage left dark and is to come on again: wanted until it is seen on, or is given up.
    #[serde(default)]
    wanted: BTreeSet<OutletId>,
    /// When this changed last, ms since 1970.
    #[serde(default)]
    at: i64,
    #[serde(skip)]
    presence: BTreeMap<PduId, Presence>,
    /// Outlets that were seen on after this gateway had switched them off, by when it sent that: what it told them then is
    /// no more what is wanted of them.
    #[serde(skip)]
    outdone: BTreeMap<OutletId, Tick>,
}

fn states(view: &PduView) -> impl Iterator<Item = (OutletId, Word)> + '_ {
    let parts = view.layout.parts(Scope::Outlet).iter().enumerate();
    parts.filter_map(|(at, part)| {
        let word = view.outlet_state(at as u16).ok()?;
        Some((OutletId { pdu: view.id.clone(), number: part.number }, word))
    })
}

fn there(view: &PduView, seen: Tick) -> Presence {
    Presence::There { seen, good: view.observed.unwrap_or(seen), failed: view.failed_polls }
}

impl Lit {
    /// Forgets outlets that were switched off: nobody wants them back. True if any was wanted.
    pub fn forget<'o>(&mut self, outlets: impl Iterator<Item = &'o OutletId>) -> bool {
        outlets.fold(false, |changed, outlet| {
            self.wanted.remove(outlet);
            self.on.remove(outlet) | changed
        })
    }

    /// When it changed last: what was switched off before that is out of it already.
    pub fn at(&self) -> Stamp {
        Stamp(self.at)
    }

    /// What an outage left dark and is to come on again.
    pub fn wanted(&self) -> &BTreeSet<OutletId> {
        &self.wanted
    }

    /// Takes in what is seen. True if what has to be durable has changed.
    pub fn observe(&mut self, sight: &Sight<'_>, memory: &Memory) -> bool {
        let changed = self.sees(sight, memory);
        if changed {
            self.at = sight.stamp.0;
        }
        changed
    }

    fn sees(&mut self, sight: &Sight<'_>, memory: &Memory) -> bool {
        // Told to go off, by this gateway: not by an outage.
        let told = || memory.written.iter().filter(|(_, written)| written.relay == Relay::Off);
        for (outlet, written) in told() {
            let Some(view) = sight.view(&outlet.pdu) else { continue };
            let is_on = view.layout.outlet(outlet.number).map(|at| view.outlet_state(at));
            let is_later = view.observed.is_some_and(|seen| seen > written.dead());
            if is_later && is_on == Some(Ok(Word::On)) {
                self.outdone.insert(outlet.clone(), written.sent);
            }
        }
        let holds = |outlet: &OutletId, sent| self.outdone.get(outlet) != Some(&sent);
        let off = told().filter(|(outlet, written)| holds(outlet, written.sent));
        let off: Vec<OutletId> = off.map(|(outlet, _)| outlet.clone()).collect();
        let mut changed = self.forget(off.iter());
        for view in sight.views.iter().filter(|view| view.health == Health::Online) {
            let now: BTreeMap<OutletId, Word> = states(view).collect();
            if now.is_empty() {
                continue;
            }
            let was = self.presence.get(&view.id).copied();
            if matches!(was, Some(Presence::Dark { .. } | Presence::Doubtful { .. })) {
                continue;
            }
            let lit = || self.on.iter().filter(|outlet| outlet.pdu == view.id);
            let is_off = |outlet: &OutletId| now.get(outlet) == Some(&Word::Off);
            let is_dark = lit().count() > 0 && lit().all(is_off);
            let since = sight.now;
            let presence = match was {
                Some(Presence::There { seen, good, failed }) if is_dark => {
                    // Not one that this gateway was too busy to look at.
                    if since - seen >= AWAY && view.failed_polls != failed {
                        Presence::Dark { good: Some(good), back: since, since }
                    } else if view.failed_polls > failed {
                        Presence::Doubtful { good, since }
                    } else {
                        there(view, since)
                    }
                }
                None if is_dark => Presence::Dark { good: None, back: since, since },
                _ => there(view, since),
            };
            self.presence.insert(view.id.clone(), presence);
            if matches!(presence, Presence::There { .. }) {
                changed |= self.takes(now);
            }
        }
        self.settles_doubts(sight) | changed
    }

    /// Takes what outlets do as what is wanted of them.
    fn takes(&mut self, states: BTreeMap<OutletId, Word>) -> bool {
        states.into_iter().fold(false, |changed, (outlet, word)| {
            changed
                | match word {
                    Word::On => self.wanted.remove(&outlet) | self.on.insert(outlet),
                    Word::Off if self.wanted.contains(&outlet) => false,
                    Word::Off => self.on.remove(&outlet),
                    _ => false,
                }
        })
    }

    /// Whether a short absence was an outage: if every PDU that fed something, and two at least, was away in the same moment
    /// and came back with all of that off. One alone may have missed a poll while somebody switched it off. True if what
    /// has to be durable has changed.
    fn settles_doubts(&mut self, sight: &Sight<'_>) -> bool {
        let doubtful = |presence: &Presence| match presence {
            Presence::Doubtful { good, since } => Some((*good, *since)),
            _ => None,
        };
        let Some(first) = self.presence.values().filter_map(doubtful).map(|(_, at)| at).min()
        else {
            return false;
        };
        let (mut feeding, mut waits, mut was_outage) = (0, false, true);
        let (mut last_good, mut first_back) = (Tick(0), Tick(u64::MAX));
        for view in sight.views {
            if self.on.iter().all(|outlet| outlet.pdu != view.id) {
                continue;
            }
            feeding += 1;
            match self.presence.get(&view.id) {
                _ if view.health != Health::Online => waits = true,
                // Of an outage before the start nobody knows when it began.
                Some(Presence::Dark { good: None, .. }) => waits = true,
                Some(
                    Presence::Doubtful { good, since: back }
                    | Presence::Dark { good: Some(good), back, .. },
                ) => {
                    last_good = last_good.max(*good);
                    first_back = first_back.min(*back);
                }
                // What was read before the first came back says nothing of the time since.
                _ if view.observed.is_none_or(|read| read < first) => waits = true,
                _ => was_outage = false,
            }
        }
        was_outage &= feeding >= 2 && last_good < first_back;
        if was_outage && waits && sight.now - first < DOUBT {
            return false;
        }
        was_outage &= !waits;
        let pdus: Vec<PduId> = self
            .presence
            .iter()
            .filter(|(_, of)| doubtful(of).is_some())
            .map(|(id, _)| id.clone())
            .collect();
        let mut changed = false;
        for pdu in pdus {
            if was_outage {
                if let Some((good, back)) = self.presence.get(&pdu).and_then(doubtful) {
                    let dark = Presence::Dark { good: Some(good), back, since: sight.now };
                    self.presence.insert(pdu, dark);
                }
                continue;
            }
            let Some(view) = sight.view(&pdu).filter(|view| view.health == Health::Online) else {
                // Gone again: when it is back it is looked at anew.
                if let Some((good, seen)) = self.presence.get(&pdu).and_then(doubtful) {
                    let failed = sight.view(&pdu).map_or(0, |view| view.failed_polls);
                    self.presence.insert(pdu, Presence::There { seen, good, failed });
                }
                continue;
            };
            changed |= self.takes(states(view).collect());
            self.presence.insert(pdu, there(view, sight.now));
        }
        changed
    }

    /// What is to be switched on again, once the PDUs that came back have been left alone for a while and those that are
    /// away were waited for; nothing if there is nothing to restore yet. What it tells is told once.
    pub fn dark(&mut self, restore: Restore, sight: &Sight<'_>) -> Vec<OutletId> {
        let dark: Vec<(PduId, Tick)> = self
            .presence
            .iter()
            .filter_map(|(pdu, presence)| match presence {
                Presence::Dark { since, .. } => Some((pdu.clone(), *since)),
                Presence::There { .. } | Presence::Doubtful { .. } => None,
            })
            .collect();
        let Some(last) = dark.iter().map(|(_, since)| *since).max() else { return Vec::new() };
        let first = dark.iter().map(|(_, since)| *since).min().unwrap_or(last);
        let is_away = |view: &&std::sync::Arc<PduView>| {
            view.health != Health::Online && self.on.iter().any(|outlet| outlet.pdu == view.id)
        };
        let waits =
            sight.views.iter().any(|view| is_away(&view)) && sight.now - first < restore.wait;
        if sight.now - last < restore.settle || waits {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (pdu, _) in dark {
            let Some(view) = sight.view(&pdu) else { continue };
            if view.health != Health::Online {
                // Gone again: it will be looked at when it is back.
                continue;
            }
            let off: BTreeSet<OutletId> = states(view)
                .filter(|(_, word)| *word == Word::Off)
                .map(|(outlet, _)| outlet)
                .collect();
            found.extend(self.on.iter().filter(|outlet| off.contains(*outlet)).cloned());
            self.wanted.extend(found.iter().cloned());
            let presence = there(view, sight.now);
            self.presence.insert(pdu, presence);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::memory::Written;
    use super::super::site::Site;
    use super::*;
    use crate::model::metric::Metric;
    use crate::model::reading::{Datum, Reading};
    use crate::model::time::Stamp;
    use crate::model::topology::{Layout, Part, Slot};

    const RESTORE: Restore =
        Restore { settle: Span::seconds(30), wait: Span::seconds(120), sets_delays: false };

    struct Rack {
        site: Site,
        memory: Memory,
        lit: Lit,
        views: Vec<Arc<PduView>>,
        now: u64,
    }

    impl Rack {
        fn new() -> Self {
            let (site, memory, lit) = (Site::default(), Memory::default(), Lit::default());
            let views = ["pdu-a", "pdu-b"].map(|id| view(id, &[true, true], 0, Health::Online));
            Self { site, memory, lit, views: views.map(Arc::new).to_vec(), now: 0 }
        }

        fn set(&mut self, at: usize, on: &[bool], failed: u64, health: Health) {
            let id = self.views[at].id.to_string();
            let observed = self.views[at].observed;
            let mut view = view(&id, on, failed, health);
            // One that answers is read all the time.
            view.observed = if view.health == Health::Online { None } else { observed };
            self.views[at] = Arc::new(view);
        }

        /// From now on it is not read, though nothing fails.
        fn stays(&mut self, at: usize) {
            let view = PduView { version: 1, ..PduView::clone(&self.views[at]) };
            self.views[at] = Arc::new(view);
        }

        /// Goes on for some seconds, and tells what is to be restored by then.
        fn run(&mut self, seconds: u64) -> Vec<String> {
            let mut found = Vec::new();
            let locks = BTreeMap::new();
            for _ in 0..seconds {
                self.now += 1;
                for view in &mut self.views {
                    if view.health == Health::Online && view.version == 0 {
                        Arc::make_mut(view).observed = Some(Tick(self.now * 1_000));
                    }
                }
                let (now, stamp) = (Tick(self.now * 1_000), Stamp(self.now as i64 * 1_000));
                let sight =
                    Sight { now, stamp, views: &self.views, site: &self.site, locks: &locks };
                self.lit.observe(&sight, &self.memory);
                found.extend(self.lit.dark(RESTORE, &sight).iter().map(ToString::to_string));
            }
            found
        }

        /// The gateway starts anew, with what is durable.
        fn restart(&mut self) {
            let kept = serde_json::to_vec(&self.lit).unwrap();
            self.lit = serde_json::from_slice(&kept).unwrap();
        }
    }

    fn view(id: &str, on: &[bool], failed: u64, health: Health) -> PduView {
        let outlets: Vec<Part> =
            (1..=on.len() as u16).map(|number| Part { number, ..Part::default() }).collect();
        let slot = |part| Slot { scope: Scope::Outlet, part, metric: Metric::State };
        let slots = (0..on.len() as u16).map(slot).collect();
        let word = |on: &bool| Datum::Word(if *on { Word::On } else { Word::Off });
        let readings: Vec<Reading> =
            on.iter().map(|on| Reading { at: Stamp(0), datum: word(on) }).collect();
        PduView {
            health,
            failed_polls: failed,
            layout: Layout::new([vec![], vec![], vec![], outlets, vec![]], slots),
            readings: readings.into(),
            ..PduView::unknown(id.parse().unwrap(), id.into(), None)
        }
    }

    /// Two failed polls of each, some seconds apart; then both are back, dark.
    fn short(rack: &mut Rack) {
        rack.run(5);
        rack.set(0, &[true, true], 1, gone());
        rack.run(3);
        rack.set(1, &[true, true], 1, gone());
        rack.run(4);
        rack.set(0, &[false, false], 1, Health::Online);
    }

    #[test]
    fn a_short_outage_of_all_pdus_is_one() {
        let mut rack = Rack::new();
        short(&mut rack);
        assert_eq!(rack.run(3), [""; 0]);
        rack.set(1, &[false, false], 1, Health::Online);
        assert_eq!(rack.run(60), ["pdu-a/1", "pdu-a/2", "pdu-b/1", "pdu-b/2"]);
        assert_eq!(rack.run(600), [""; 0], "it is told once");
    }

    #[test]
    fn a_short_absence_is_no_outage_where_another_pdu_says_otherwise() {
        // The other was not away, and is on.
        let mut rack = Rack::new();
        rack.run(5);
        rack.set(0, &[true, true], 1, gone());
        rack.run(5);
        rack.set(0, &[false, false], 1, Health::Online);
        // It was read before the first came back; that says nothing yet.
        rack.stays(1);
        rack.run(5);
        assert_eq!(rack.lit.on.len(), 4, "nothing is decided");
        rack.set(1, &[true, true], 0, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
        assert_eq!(rack.lit.on.len(), 2, "somebody switched it off");
        // It was away as well, and has something on.
        let mut rack = Rack::new();
        short(&mut rack);
        rack.set(1, &[false, true], 1, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
        // It stays away.
        let mut rack = Rack::new();
        short(&mut rack);
        assert_eq!(rack.run(600), [""; 0]);
        // Each was away, one after the other.
        let mut rack = Rack::new();
        rack.run(5);
        rack.set(0, &[true, true], 1, gone());
        rack.run(5);
        rack.set(0, &[false, false], 1, Health::Online);
        rack.stays(1);
        rack.run(5);
        rack.set(1, &[true, true], 0, Health::Online);
        rack.run(1);
        rack.set(1, &[true, true], 1, gone());
        rack.run(5);
        rack.set(1, &[false, false], 1, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
        // The other has been dark for long, and is gone again.
        let mut rack = Rack::new();
        rack.run(5);
        rack.set(1, &[true, true], 5, gone());
        rack.run(60);
        rack.set(1, &[false, false], 5, Health::Online);
        rack.run(1);
        rack.set(1, &[false, false], 6, gone());
        rack.run(600);
        rack.set(0, &[true, true], 1, gone());
        rack.run(5);
        rack.set(0, &[false, false], 1, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
        // There is no other.
        let mut rack = Rack::new();
        rack.set(1, &[false, false], 0, Health::Online);
        rack.run(5);
        rack.set(0, &[true, true], 1, gone());
        rack.run(5);
        rack.set(0, &[false, false], 1, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
    }

    fn gone() -> Health {
        Health::Offline("gone".into())
    }

    #[test]
    fn what_was_on_is_restored_once_all_are_back() {
        let mut rack = Rack::new();
        rack.set(1, &[true, false], 0, Health::Online);
        assert_eq!(rack.run(10), [""; 0]);
        rack.set(0, &[], 3, gone());
        rack.set(1, &[], 3, gone());
        assert_eq!(rack.run(600), [""; 0]);
        rack.set(0, &[false, false], 3, Health::Online);
        assert_eq!(rack.run(60), [""; 0], "the other is waited for");
        rack.set(1, &[false, false], 5, Health::Online);
        assert_eq!(rack.run(30), [""; 0], "it is left alone");
        assert_eq!(rack.run(1), ["pdu-a/1", "pdu-a/2", "pdu-b/1"]);
        assert_eq!(rack.run(600), [""; 0], "it is told once");
    }

    #[test]
    fn it_outlives_the_gateway() {
        let mut rack = Rack::new();
        rack.run(5);
        rack.restart();
        rack.set(0, &[false, false], 0, Health::Online);
        assert_eq!(rack.run(60), ["pdu-a/1", "pdu-a/2"]);
    }

    #[test]
    fn one_that_stays_away_is_not_waited_for_for_ever() {
        let mut rack = Rack::new();
        rack.run(5);
        rack.set(0, &[], 3, gone());
        rack.set(1, &[], 3, gone());
        rack.run(15);
        rack.set(0, &[false, false], 3, Health::Online);
        assert_eq!(rack.run(120), [""; 0]);
        assert_eq!(rack.run(2), ["pdu-a/1", "pdu-a/2"]);
    }

    #[test]
    fn what_people_switch_off_is_no_outage() {
        // Under our eyes, by its own web page.
        let mut rack = Rack::new();
        rack.run(5);
        rack.set(0, &[false, false], 0, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
        // While a poll was lost.
        rack.set(1, &[true, true], 1, gone());
        rack.run(5);
        rack.set(1, &[false, false], 1, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
        // While it was away, but not all of it.
        rack.set(1, &[true, true], 1, Health::Online);
        rack.run(5);
        rack.set(1, &[], 1, gone());
        rack.run(60);
        rack.set(1, &[true, false], 4, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
        // By this gateway, while it was away.
        let written = Written {
            relay: Relay::Off,
            sent: Tick(0),
            seen: None,
            acknowledged: true,
            takes: Span(0),
        };
        rack.memory.written.insert("pdu-b/1".parse().unwrap(), written);
        rack.set(1, &[], 4, gone());
        rack.run(60);
        rack.set(1, &[false, false], 5, Health::Online);
        assert_eq!(rack.run(600), [""; 0]);
    }

    #[test]
    fn what_comes_on_by_itself_is_left_alone() {
        let mut rack = Rack::new();
        rack.run(5);
        rack.set(0, &[], 3, gone());
        rack.run(15);
        rack.set(0, &[false, false], 3, Health::Online);
        rack.run(10);
        rack.set(0, &[true, false], 3, Health::Online);
        assert_eq!(rack.run(60), ["pdu-a/2"]);
    }

    #[test]
    fn what_is_not_back_yet_is_wanted_also_after_another_outage_and_a_restart() {
        let mut rack = Rack::new();
        rack.run(5);
        rack.set(0, &[], 3, gone());
        rack.run(15);
        rack.set(0, &[false, false], 3, Health::Online);
        assert_eq!(rack.run(40), ["pdu-a/1", "pdu-a/2"]);
        // One comes on; then the gateway is restarted.
        rack.set(0, &[true, false], 3, Health::Online);
        rack.run(5);
        let wanted =
            |rack: &Rack| rack.lit.wanted().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(wanted(&rack), ["pdu-a/2"]);
        rack.restart();
        assert_eq!(rack.run(60), [""; 0]);
        assert_eq!(wanted(&rack), ["pdu-a/2"], "it is still wanted");
        // All of it is dark again.
        rack.set(0, &[], 6, gone());
        rack.run(15);
        rack.set(0, &[false, false], 6, Health::Online);
        assert_eq!(rack.run(40), ["pdu-a/1", "pdu-a/2"]);
        // It was given up, or switched off: nobody wants it back.
        rack.lit.forget(["pdu-a/2".parse().unwrap()].iter());
        rack.set(0, &[true, false], 6, Health::Online);
        rack.run(5);
        assert_eq!(wanted(&rack), [""; 0]);
        assert_eq!(rack.lit.on.len(), 3);
    }

    #[test]
    fn what_somebody_else_switched_on_after_an_off_is_wanted_again() {
        let mut rack = Rack::new();
        rack.run(5);
        let written = Written {
            relay: Relay::Off,
            sent: Tick(5_000),
            seen: Some(Tick(5_100)),
            acknowledged: true,
            takes: Span(0),
        };
        rack.memory.written.insert("pdu-b/1".parse().unwrap(), written);
        rack.set(1, &[false, true], 0, Health::Online);
        rack.run(10);
        assert_eq!(rack.lit.on.len(), 3);
        // At the PDU's own panel.
        rack.set(1, &[true, true], 0, Health::Online);
        rack.run(10);
        assert_eq!(rack.lit.on.len(), 4);
        let at = rack.lit.at();
        rack.run(60);
        assert_eq!(rack.lit.at(), at, "nothing is written while nothing changes");
        rack.set(1, &[], 4, gone());
        rack.run(60);
        rack.set(1, &[false, false], 5, Health::Online);
        assert_eq!(rack.run(60), ["pdu-b/1", "pdu-b/2"]);
    }
}
