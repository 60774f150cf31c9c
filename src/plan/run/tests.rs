//! Plans carried out on a PDU of three outlets, at times that are told. What is to be done is done at once, but for
//! webhooks, and for writes while they are held.

mod alone;
mod worst;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::record::{OnOverload, StepRecord};
use super::super::site::{Feed, HostSpec, Member, NoAnswer, Site};
use super::super::world::Draw;
use super::*;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::{Datum, Reading};
use crate::model::switching::Action;
use crate::model::time::Stamp;
use crate::model::topology::{Layout, Part, Slot};
use crate::model::view::{Health, PduView};

struct Rack {
    runs: Runs,
    site: Site,
    locks: BTreeMap<OutletId, String>,
    on: [bool; 3],
    /// Another PDU, of one outlet, which is on: how it is, and how long ago it was read, ms.
    beside: Option<(Health, u64)>,
    /// Whether that PDU has never answered.
    unknown: bool,
    /// Whether that outlet is on.
    beside_on: bool,
    /// Outlets without a meter.
    unmetered: Vec<u16>,
    /// An outlet that loses its power while something is made durable.
    falls: Option<u16>,
    /// What is to be made durable, while the journal hangs.
    hangs: Option<Vec<(PlanId, u64)>>,
    now: u64,
    /// Webhooks that were called, each with its host.
    calls: Vec<(Who, HostId)>,
    /// Writes that are held, and those that were made.
    held: Option<Vec<(Who, OutletId, Relay)>>,
    written: Vec<String>,
    /// How each step is in the journal.
    durable: BTreeMap<usize, StepState>,
    ended: Vec<Record>,
}

fn outlet(number: u16) -> OutletId {
    OutletId { pdu: "pdu-a".parse().unwrap(), number }
}

/// A host on each of the first two outlets, which is drained before it goes dark and draws 500 W.
fn site() -> Site {
    let mut site = Site::default();
    for number in 1..=2 {
        let mut host = HostSpec::fed_by("node", vec![outlet(number)]);
        host.before_off = Some(NoAnswer::Stop);
        site.hosts.insert(format!("node-{number}").parse().unwrap(), host);
    }
    site
}

/// A host on the third outlet, which draws 800 W, and a feed of all these PDUs.
fn heavy(mut site: Site, pdus: &[&str], rating: i64) -> Site {
    let feed = Feed {
        kind: "feed".into(),
        rating,
        amperes: None,
        derating: Some(100),
        inrush: Some(400),
        of: pdus.iter().map(|id| Member::Pdu(id.parse().unwrap())).collect(),
        lines: BTreeMap::new(),
        pair: None,
    };
    site.feeds.insert("feed".into(), feed);
    site.hosts.insert("heavy".parse().unwrap(), drawing(3, 800_000, 1_000, 800_000));
    site
}

fn drawing(number: u16, boot: i64, boot_ms: u64, steady: i64) -> HostSpec {
    let mut host = HostSpec::fed_by("some", vec![outlet(number)]);
    host.draw = Some(Draw { inrush: boot, inrush_ms: 100, boot, boot_ms, steady });
    host
}

/// Steps in the order of their numbers.
fn plan(id: &str, steps: &[(u16, Relay)]) -> Record {
    let id: PlanId = id.parse().unwrap();
    let mut record = Record::new(id, Action::Off, "some".into(), "us".into(), Stamp(0));
    record.steps = steps
        .iter()
        .map(|(number, relay)| StepRecord::pending(outlet(*number), *relay, 0, "asked for".into()))
        .collect();
    record.state = PlanState::Running;
    record.scheduled = Some(0);
    record
}

impl Rack {
    fn new(site: Site, on: [bool; 3]) -> Self {
        Self {
            runs: Runs::default(),
            site,
            locks: BTreeMap::new(),
            on,
            beside: None,
            unknown: false,
            beside_on: true,
            unmetered: Vec::new(),
            falls: None,
            hangs: None,
            now: 100_000,
            calls: Vec::new(),
            held: None,
            written: Vec::new(),
            durable: BTreeMap::new(),
            ended: Vec::new(),
        }
    }

    fn view(&self, id: &str, on: &[bool]) -> PduView {
        let part = |number| Part { number, switchable: true, ..Part::default() };
        let mut slots = Vec::new();
        let mut readings = Vec::new();
        for (part, on) in (0..).zip(on.iter().copied()) {
            let word = if on { Word::On } else { Word::Off };
            let drawn = Datum::Value(if on { 500_000 } else { 0 });
            let mut told = vec![(Metric::State, Datum::Word(word))];
            if !self.unmetered.contains(&(part + 1)) {
                told.push((Metric::Power, drawn));
            }
            for (metric, datum) in told {
                slots.push(Slot { scope: Scope::Outlet, part, metric });
                readings.push(Reading { at: Stamp(0), datum });
            }
        }
        let outlets = (1..=on.len() as u16).map(part).collect();
        PduView {
            health: Health::Online,
            layout: Layout::new([vec![], vec![], vec![], outlets, vec![]], slots),
            readings: readings.into(),
            observed: Some(Tick(self.now)),
            observed_at: Some(Stamp(0)),
            complete: Some(Tick(self.now)),
            ..PduView::unknown(id.parse().unwrap(), id.into(), None)
        }
    }

    fn views(&self) -> Vec<Arc<PduView>> {
        let mut views = vec![Arc::new(self.view("pdu-a", &self.on))];
        if let Some((health, ago)) = &self.beside {
            let seen = Some(Tick(self.now - ago));
            let of = self.view("pdu-b", &[self.beside_on]);
            views.push(Arc::new(PduView { health: health.clone(), observed: seen, ..of }));
        }
        if self.unknown {
            let id = "pdu-b".parse().unwrap();
            views.push(Arc::new(PduView::unknown(id, "pdu-b".into(), None)));
        }
        views
    }

    fn turn(&mut self, act: impl FnOnce(&mut Runs, &Sight<'_>) -> Vec<Deed>) {
        let mut acts: VecDeque<Heard> = VecDeque::new();
        let deeds = self.sees(act);
        acts.extend(self.does(deeds));
        while let Some(heard) = acts.pop_front() {
            let deeds = self.sees(|runs, sight| runs.heard(heard, sight));
            acts.extend(self.does(deeds));
        }
    }

    fn sees(&mut self, act: impl FnOnce(&mut Runs, &Sight<'_>) -> Vec<Deed>) -> Vec<Deed> {
        let (now, stamp) = (Tick(self.now), Stamp(self.now as i64));
        let views = self.views();
        let (site, locks) = (&self.site, &self.locks);
        act(&mut self.runs, &Sight { now, stamp, views: &views, site, locks })
    }

    fn does(&mut self, deeds: Vec<Deed>) -> Vec<Heard> {
        let seen = |this: &Self, outlet: &OutletId| {
            let is_on = match outlet.pdu.as_str() {
                "pdu-b" => this.beside_on,
                _ => this.on[usize::from(outlet.number) - 1],
            };
            let word = if is_on { Word::On } else { Word::Off };
            Ok(Seen { state: Ok(word), at: Tick(this.now), takes: Span::seconds(2) })
        };
        let mut heard = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Save(save) => {
                    let (plan, generation) = (save.plan.clone(), save.generation);
                    self.durable.extend(save.steps.into_iter().map(|(at, step)| (at, step.state)));
                    if let Some(number) = self.falls.take() {
                        self.on[usize::from(number) - 1] = false;
                    }
                    match &mut self.hangs {
                        Some(saves) => saves.push((plan, generation)),
                        None => heard.push(Heard::Saved { plan, generation, ok: true }),
                    }
                }
                Deed::Look { who, outlet, .. } => {
                    heard.push(Heard::Looked { who, seen: seen(self, &outlet) });
                }
                Deed::Write { who, outlet, relay, .. } => match &mut self.held {
                    Some(held) => held.push((who, outlet, relay)),
                    None => heard.push(self.writes(who, &outlet, relay)),
                },
                Deed::Read { who, .. } => heard.push(Heard::Read { who }),
                Deed::Call { who, host, .. } => self.calls.push((who, host)),
                Deed::Ended(record) => self.ended.push(*record),
                // Nobody waits for any of that.
                _ => {}
            }
        }
        heard
    }

    fn writes(&mut self, who: Who, outlet: &OutletId, relay: Relay) -> Heard {
        match outlet.pdu.as_str() {
            "pdu-b" => self.beside_on = relay == Relay::On,
            _ => self.on[usize::from(outlet.number) - 1] = relay == Relay::On,
        }
        self.written.push(format!("{outlet} {}", relay.word()));
        let terms = Terms {
            within: Span::seconds(5),
            every: PAUSE,
            acknowledged: true,
            also: None,
            follows: false,
            settle: PAUSE,
        };
        Heard::Written { who, end: WriteEnd::Sent(terms) }
    }

    fn begins(&mut self, record: Record) {
        self.runs.claim(&record).unwrap();
        self.turn(|runs, sight| runs.begin(record, sight));
    }

    /// Time goes on, as far as it wants to be woken on the way.
    fn passes(&mut self, seconds: u64) {
        let until = self.now + seconds * 1_000;
        while let Some(wake) = self.runs.wake().filter(|wake| wake.0 <= until) {
            self.now = wake.0.max(self.now + 1);
            self.turn(|runs, sight| runs.heard(Heard::Time, sight));
        }
        self.now = until;
        self.turn(|runs, sight| runs.heard(Heard::Time, sight));
    }

    /// The webhook that was called first, and not answered yet, answers.
    fn answers(&mut self, answer: Result<(), Unanswered>) {
        let (who, _) = self.calls.remove(0);
        self.turn(|runs, sight| runs.heard(Heard::Called { who, answer }, sight));
    }

    /// The journal goes on, having done what was asked of it, or not.
    fn journal_goes_on(&mut self, ok: bool) {
        for (plan, generation) in self.hangs.take().unwrap_or_default() {
            self.turn(|runs, sight| runs.heard(Heard::Saved { plan, generation, ok }, sight));
        }
    }

    fn lets_go(&mut self) {
        for (who, outlet, relay) in self.held.take().unwrap_or_default() {
            let heard = self.writes(who, &outlet, relay);
            self.turn(|runs, sight| runs.heard(heard, sight));
        }
    }
}

#[test]
fn a_host_that_is_drained_keeps_nobody_from_its_pdu() {
    let mut rack = Rack::new(site(), [true; 3]);
    rack.begins(plan("one", &[(1, Relay::Off), (2, Relay::Off)]));
    // Those of one plan side by side.
    let hosts: Vec<&str> = rack.calls.iter().map(|(_, host)| host.as_str()).collect();
    assert_eq!(hosts, ["node-1", "node-2"]);
    rack.begins(plan("two", &[(3, Relay::Off)]));
    assert_eq!(rack.written, ["pdu-a/3 off"]);
    rack.passes(600);
    assert_eq!(rack.written.len(), 1, "nothing goes dark before it is drained");
    rack.answers(Ok(()));
    rack.passes(1);
    assert_eq!(rack.written[1..], ["pdu-a/1 off"]);
    rack.answers(Ok(()));
    rack.passes(1);
    assert_eq!(rack.written[2..], ["pdu-a/2 off"]);
    assert!(rack.calls.is_empty(), "nobody is asked twice");
    let states: Vec<PlanState> = rack.ended.iter().map(|record| record.state).collect();
    assert_eq!(states, [PlanState::Done; 2]);
}

#[test]
fn a_host_that_was_drained_waits_for_its_turn_again_and_is_guarded_anew() {
    let mut rack = Rack::new(site(), [true; 3]);
    rack.begins(plan("one", &[(1, Relay::Off)]));
    rack.held = Some(Vec::new());
    rack.begins(plan("two", &[(3, Relay::Off)]));
    rack.answers(Ok(()));
    rack.passes(10);
    let held = rack.held.as_ref().unwrap();
    assert!(held.len() == 1 && held[0].1 == outlet(3), "one at a time: {held:?}");
    // Locked between its answer and its turn.
    rack.locks.insert(outlet(1), "it feeds the switch".into());
    rack.lets_go();
    rack.passes(1);
    assert_eq!(rack.written, ["pdu-a/3 off"]);
    let one = rack.ended.iter().find(|record| record.id.as_str() == "one").unwrap();
    assert_eq!(one.state, PlanState::Stopped);
    assert!(one.steps[0].detail.as_ref().unwrap().contains("it feeds the switch"), "{one:?}");
}

#[test]
fn a_plan_that_is_cancelled_while_a_host_waits_for_its_turn_again_cuts_nothing() {
    let mut rack = Rack::new(site(), [true; 3]);
    rack.begins(plan("one", &[(1, Relay::Off)]));
    rack.held = Some(Vec::new());
    rack.begins(plan("two", &[(3, Relay::Off)]));
    rack.answers(Ok(()));
    let one: PlanId = "one".parse().unwrap();
    rack.turn(|runs, sight| runs.cancel(&one, "us", sight).1);
    rack.lets_go();
    rack.passes(60);
    assert_eq!(rack.written, ["pdu-a/3 off"]);
    assert_eq!(rack.ended[0].state, PlanState::Cancelled);
    assert!(rack.ended[0].drained.is_empty(), "it is told, as nobody takes it back");
}

/// A plan orders a host's feeds, one after the other; these came to be of one host after it was made.
#[test]
fn no_feed_of_a_host_is_cut_while_that_is_drained() {
    let mut site = site();
    let (id, mut host) = site.hosts.iter().next().map(|(id, of)| (id.clone(), of.clone())).unwrap();
    host.outlets.push(outlet(2));
    site.hosts = [(id, host)].into_iter().collect();
    let mut rack = Rack::new(site, [true; 3]);
    rack.begins(plan("one", &[(1, Relay::Off), (2, Relay::Off)]));
    rack.passes(60);
    assert_eq!((rack.written.len(), rack.calls.len()), (0, 1));
    rack.answers(Ok(()));
    rack.passes(1);
    assert_eq!(rack.written, ["pdu-a/1 off", "pdu-a/2 off"]);
}

/// What came after the off, at the same PDU, waited for it as long as its host was drained; it does so still.
#[test]
fn an_on_that_needs_the_room_of_a_host_waits_until_that_is_drained() {
    let mut rack = Rack::new(heavy(site(), &["pdu-a"], 1_000_000), [true, false, false]);
    rack.begins(plan("one", &[(1, Relay::Off), (3, Relay::On)]));
    rack.passes(900);
    assert_eq!(rack.written, [""; 0]);
    assert!(rack.ended.is_empty(), "it waits: {:?}", rack.ended);
    rack.answers(Ok(()));
    rack.passes(30);
    assert_eq!(rack.written, ["pdu-a/1 off", "pdu-a/3 on"]);
    assert_eq!(rack.ended[0].state, PlanState::Done);
}

#[test]
fn a_host_whose_drain_is_refused_stays_on_and_holds_nothing() {
    let mut rack = Rack::new(site(), [true; 3]);
    rack.begins(plan("one", &[(1, Relay::Off)]));
    rack.answers(Err(Unanswered { why: "no answer".into(), refused: true }));
    rack.passes(1);
    assert_eq!((rack.written.len(), rack.ended[0].state), (0, PlanState::Stopped));
    assert_eq!(rack.runs.claimed_by(&outlet(1)), None);
}

/// Another plan may wait for the room that it gives back.
#[test]
fn a_step_that_finds_no_room_gives_up_when_its_minute_is_over_and_not_later() {
    let mut rack = Rack::new(heavy(Site::default(), &["pdu-a"], 1_000_000), [true, false, false]);
    let began = rack.now;
    rack.begins(plan("one", &[(3, Relay::On)]));
    rack.passes(70);
    assert_eq!(rack.written, [""; 0]);
    assert_eq!(rack.ended[0].finished, Some(began as i64 + PATIENCE.0 as i64));
}

#[test]
fn what_a_plan_has_taken_is_told_apart_from_what_flows() {
    let mut rack = Rack::new(heavy(Site::default(), &["pdu-a"], 5_000_000), [true, false, false]);
    rack.hangs = Some(Vec::new());
    rack.begins(plan("one", &[(3, Relay::On)]));
    let mut loads = None;
    rack.sees(|runs, sight| {
        let picture = runs.picture(sight, None, None);
        loads = Some((picture.shown[0], picture.world.limits[0].load));
        Vec::new()
    });
    assert_eq!(loads, Some((500_000, 1_300_000)));
}

/// What was read of the PDU beside is too old, and stays so: no other order of the steps mends that.
#[test]
fn a_plan_that_waits_for_what_is_not_read_any_more_ends_instead_of_being_planned_anew_for_ever() {
    let site = heavy(Site::default(), &["pdu-a", "pdu-b"], 5_000_000);
    let mut rack = Rack::new(site, [false; 3]);
    rack.beside = Some((Health::Offline("no answer".into()), 40_000));
    let mut plan = plan("one", &[(3, Relay::On)]);
    plan.on_overload = OnOverload::Replan;
    rack.begins(plan);
    rack.passes(70);
    assert_eq!(rack.written, [""; 0]);
    let detail = rack.ended[0].steps[0].detail.clone().unwrap();
    assert!(detail.contains("was last read more than"), "{detail}");
}

/// After a restart PDUs may be long in coming back: that is waited for once, not anew for each step.
#[test]
fn a_plan_that_goes_on_after_a_restart_has_its_long_patience_once() {
    let mut site = heavy(Site::default(), &["pdu-a", "pdu-b"], 5_000_000);
    site.hosts.insert("other".parse().unwrap(), drawing(1, 200_000, 1_000, 200_000));
    let mut rack = Rack::new(site, [false; 3]);
    rack.beside = Some((Health::Offline("no answer".into()), 40_000));
    let mut plan = plan("one", &[(3, Relay::On), (1, Relay::On)]);
    plan.on_failure = OnFailure::Continue;
    plan.patient = true;
    rack.begins(plan);
    rack.passes(890);
    let states = |rack: &Rack| -> Vec<bool> {
        let record = rack.runs.records().next().unwrap_or_else(|| &rack.ended[0]);
        record.steps.iter().map(|step| step.state.outcome().is_some()).collect()
    };
    assert_eq!(states(&rack), [false, false]);
    rack.passes(20);
    assert_eq!(states(&rack), [true, false]);
    rack.passes(60);
    assert_eq!((states(&rack), rack.written.len()), (vec![true, true], 0));
}

/// It may have died with its feed a moment ago, while what was read of it is still young.
#[test]
fn a_host_is_not_cut_for_a_cycle_while_a_pdu_below_one_of_its_limits_is_silent() {
    let cycle = || plan("one", &[(3, Relay::Off), (3, Relay::On)]);
    let site = heavy(Site::default(), &["pdu-a", "pdu-b"], 5_000_000);
    let mut rack = Rack::new(site.clone(), [true; 3]);
    rack.beside = Some((Health::Stale("no answer".into()), 5_000));
    rack.begins(cycle());
    rack.passes(70);
    assert_eq!(rack.written, [""; 0]);
    let detail = rack.ended[0].steps[0].detail.clone().unwrap();
    assert!(detail.contains("pdu-b") && detail.contains("is stale"), "{detail}");
    // Also if it has not answered since the gateway started.
    let mut rack = Rack::new(site.clone(), [true; 3]);
    rack.unknown = true;
    rack.begins(cycle());
    rack.passes(70);
    assert_eq!(rack.written, [""; 0]);
    let mut rack = Rack::new(site, [true; 3]);
    rack.beside = Some((Health::Online, 5_000));
    rack.begins(cycle());
    rack.passes(70);
    assert_eq!(rack.written, ["pdu-a/3 off", "pdu-a/3 on"]);
}

/// The planner believes what is said of loads that start up; what no meter has confirmed may be twice that.
#[test]
fn a_plan_is_planned_anew_while_a_host_starts_up_but_not_for_ever() {
    for (boots_for, comes_on) in [(600, true), (7_200, false)] {
        let mut site = heavy(Site::default(), &["pdu-a"], 2_500_000);
        let slow = drawing(1, 1_200_000, boots_for * 1_000, 500_000);
        site.hosts.insert("slow".parse().unwrap(), slow);
        let mut rack = Rack::new(site, [false; 3]);
        rack.begins(plan("one", &[(1, Relay::On)]));
        let mut second = plan("two", &[(3, Relay::On)]);
        second.on_overload = OnOverload::Replan;
        rack.begins(second);
        rack.passes(1_100);
        let came_on = rack.written.contains(&"pdu-a/3 on".to_owned());
        let states: Vec<PlanState> = rack.ended.iter().map(|record| record.state).collect();
        let ends = if comes_on { PlanState::Done } else { PlanState::Stopped };
        assert_eq!((came_on, states), (comes_on, vec![PlanState::Done, ends]));
    }
}

/// A disk may take its time.
#[test]
fn a_feed_that_goes_while_an_intent_is_made_durable_keeps_the_other_on() {
    for falls in [Some(2), None] {
        let mut site = Site::default();
        let mut two = drawing(1, 200_000, 1_000, 200_000);
        two.outlets.push(outlet(2));
        site.hosts.insert("two".parse().unwrap(), two);
        let mut rack = Rack::new(site, [true; 3]);
        rack.falls = falls;
        let mut off = plan("one", &[(1, Relay::Off)]);
        off.steps[0].keeps_host = true;
        rack.begins(off);
        rack.passes(10);
        if falls.is_some() {
            assert_eq!(rack.written, [""; 0]);
            let detail = rack.ended[0].steps[0].detail.clone().unwrap();
            assert!(detail.contains("last feed of host two"), "{detail}");
        } else {
            assert_eq!(rack.written, ["pdu-a/1 off"]);
        }
    }
}

/// Its intent became durable with the plan.
#[test]
fn what_was_intended_and_not_written_before_the_gateway_ends_is_intended_no_more() {
    let site = heavy(Site::default(), &["pdu-a", "pdu-b"], 5_000_000);
    let mut rack = Rack::new(site, [true; 3]);
    rack.beside = Some((Health::Stale("no answer".into()), 5_000));
    let mut cycle = plan("one", &[(3, Relay::Off), (3, Relay::On)]);
    cycle.steps[0].state = StepState::Intended;
    rack.begins(cycle);
    rack.passes(5);
    rack.turn(Runs::end);
    assert_eq!((rack.written.len(), rack.durable.get(&0)), (0, Some(&StepState::Pending)));
    assert!(rack.ended.is_empty() && rack.runs.is_quiet(), "it goes on after the next start");
}

/// The second step comes to its intent while the commit with the first one's is under way.
#[test]
fn when_the_journal_fails_no_step_is_written_whose_intent_was_to_come_with_the_next_commit() {
    let mut rack = Rack::new(Site::default(), [true; 3]);
    rack.beside = Some((Health::Online, 40_000));
    let mut both = plan("one", &[(1, Relay::Off), (1, Relay::Off)]);
    both.steps[1].outlet.pdu = "pdu-b".parse().unwrap();
    rack.hangs = Some(Vec::new());
    rack.begins(both);
    let intended = |rack: &Rack| -> Vec<bool> {
        let steps = &rack.runs.records().next().unwrap().steps;
        steps.iter().map(|step| step.state == StepState::Intended).collect()
    };
    assert_eq!(intended(&rack), [true, true]);
    assert_eq!(rack.durable.get(&1), None, "it is not in the first commit");
    rack.journal_goes_on(false);
    rack.passes(70);
    assert_eq!(rack.written, [""; 0]);
    assert_eq!(rack.ended[0].state, PlanState::Stopped);
    for step in &rack.ended[0].steps {
        let detail = step.detail.clone().unwrap_or_default();
        assert!(detail.contains("could not be made durable"), "{step:?}");
    }
}

#[test]
fn what_an_outlet_draws_is_not_remembered_from_its_first_moment_nor_grows_with_each_cycle() {
    let mut rack = Rack::new(Site::default(), [true; 3]);
    let remembers = |rack: &mut Rack| {
        rack.sees(|runs, sight| {
            runs.remember_load(&outlet(3), sight);
            Vec::new()
        });
        rack.runs.memory.drew.get(&outlet(3)).copied()
    };
    // It came on this moment: what its meter shows may be anything.
    let on = |rack: &mut Rack| {
        let sent = Tick(rack.now);
        let written = Written {
            relay: Relay::On,
            sent,
            seen: Some(sent),
            acknowledged: true,
            takes: Span(0),
        };
        rack.runs.memory.written.insert(outlet(3), written);
    };
    on(&mut rack);
    rack.now += 30;
    assert_eq!(remembers(&mut rack), None);
    // It has drawn 500 W for long.
    rack.now += 600_000;
    assert_eq!(remembers(&mut rack), Some(500_000));
    // Off and on, again and again.
    for _ in 0..10 {
        on(&mut rack);
        rack.now += 20_000;
        rack.runs.memory.drew.insert(outlet(3), 300_000);
        assert_eq!(remembers(&mut rack), Some(300_000), "it starts up");
    }
    rack.now += 600_000;
    assert_eq!(remembers(&mut rack), Some(500_000), "another machine may be behind it");
}

#[test]
fn a_plan_without_steps_whose_time_has_passed_is_stopped_and_told() {
    let mut rack = Rack::new(Site::default(), [true; 3]);
    let mut record = plan("p1", &[]);
    record.not_before = Some(rack.now as i64 - 10_000_000);
    rack.turn(|runs, sight| runs.take_up(record, sight));
    assert_eq!(rack.ended.len(), 1);
    assert_eq!(rack.ended[0].state, PlanState::Stopped);
}
