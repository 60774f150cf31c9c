//! Rules on a rack of five loads, second by second.

use super::*;

fn outlet(at: usize) -> OutletId {
    format!("pdu-a/{}", at + 1).parse().unwrap()
}

fn rule() -> Rule {
    Rule {
        id: "r".into(),
        limit: "feed-a".into(),
        over: 90,
        under: 70,
        after: Span::seconds(10),
        back_after: Span::seconds(60),
        min_off: Span::seconds(300),
        min_on: Span::seconds(120),
        settle: Span::seconds(15),
        of: Vec::new(),
        dry_run: false,
    }
}

/// A rack of loads with their priorities as their places, each of 100 of a rating of 1000, driven by its rule.
struct Rack {
    rule: Rule,
    standing: Standing,
    on: Vec<bool>,
    /// Those that another plan is at.
    busy: Vec<usize>,
    locked: Vec<usize>,
    /// Those that do not come on when they are told to.
    stuck: Vec<usize>,
    /// Those that a plan is about to switch off.
    going: Vec<usize>,
    base: i64,
    /// What plans have taken beside that.
    taken: i64,
    now: u64,
    acts: Vec<(u64, String)>,
}

impl Rack {
    fn new(rule: Rule) -> Self {
        let standing = Standing::default();
        Self {
            rule,
            standing,
            on: vec![true; 5],
            busy: Vec::new(),
            locked: Vec::new(),
            stuck: Vec::new(),
            going: Vec::new(),
            base: 0,
            taken: 0,
            now: 0,
            acts: Vec::new(),
        }
    }

    fn select(at: usize) -> Select {
        Select::Outlet(outlet(at))
    }

    fn load(&self) -> i64 {
        self.base + self.on.iter().filter(|on| **on).count() as i64 * 100
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            let candidates: Vec<Candidate> = (0..self.on.len())
                .map(|at| Candidate {
                    select: Self::select(at),
                    priority: at as i32,
                    is_on: Some(self.on[at]),
                    own: vec![outlet(at)],
                    on: if self.on[at] { vec![outlet(at)] } else { Vec::new() },
                    goes_off: self.going.contains(&at),
                    is_locked: self.locked.contains(&at),
                    draws: if self.on[at] { 100 } else { 0 },
                    returns: 120,
                    hindrance: self.busy.contains(&at).then(|| "it is busy".to_owned()),
                })
                .collect();
            let (tick, stamp) = (Tick(self.now * 1_000), Stamp(self.now as i64 * 1_000));
            let flow =
                Some(Flow { load: self.load(), taken: self.load() + self.taken, rating: 1_000 });
            let rule = self.rule.clone();
            let act = self.standing.decide(&rule, flow, &candidates, false, (tick, stamp));
            let place = |select: &Select| (0..5).find(|at| Self::select(*at) == *select).unwrap();
            match act {
                Some(Act::Shed(items, left_out)) => {
                    for (item, why) in left_out {
                        self.acts.push((self.now, format!("without {}: {why}", place(&item))));
                    }
                    for item in items {
                        let at = place(&item);
                        self.acts.push((self.now, format!("off {at}")));
                        if !rule.dry_run {
                            self.standing.goes_off(&item, &[outlet(at)], stamp);
                            self.on[at] = false;
                        }
                    }
                }
                Some(Act::Back(item)) => {
                    let at = place(&item);
                    self.acts.push((self.now, format!("on {at}")));
                    self.standing.comes_back(&item, stamp);
                    self.on[at] = !self.stuck.contains(&at);
                }
                Some(Act::Waits(item, needs)) => {
                    self.acts.push((self.now, format!("{} waits for {needs}", place(&item))));
                }
                Some(Act::Helpless(left_out)) => {
                    let of: Vec<String> =
                        left_out.iter().map(|(item, _)| format!(" {}", place(item))).collect();
                    self.acts.push((self.now, format!("helpless{}", of.concat())));
                }
                None => {}
            }
        }
    }

    fn said(&mut self) -> Vec<String> {
        self.acts.drain(..).map(|(_, what)| what).collect()
    }
}

#[test]
fn the_lowest_go_first_and_as_many_as_it_takes() {
    let mut rack = Rack::new(rule());
    rack.base = 550;
    rack.run(10);
    assert_eq!(rack.said(), [""; 0], "not before it has lasted");
    rack.run(1);
    assert_eq!(rack.said(), ["off 0", "off 1"], "1050 of 900: two of 100");
    rack.run(600);
    assert_eq!(rack.said(), [""; 0], "850 is neither too much nor little");
}

#[test]
fn what_went_off_comes_back_one_after_the_other_and_late() {
    let mut rack = Rack::new(rule());
    rack.base = 550;
    rack.run(11);
    rack.said();
    rack.base = 100;
    rack.run(299);
    assert_eq!(rack.said(), [""; 0], "its least time off is not over");
    rack.run(1);
    assert_eq!(rack.said(), ["on 1"]);
    rack.run(14);
    assert_eq!(rack.said(), [""; 0]);
    rack.run(1);
    assert_eq!(rack.said(), ["on 0"]);
    rack.run(1);
    assert!(rack.standing.off.is_empty(), "both are seen on");
    // What came back is not taken again at once: the next one goes.
    rack.base = 500;
    rack.run(20);
    assert_eq!(rack.said(), ["off 2"]);
}

#[test]
fn nothing_comes_back_that_would_have_to_go_again() {
    let mut rack = Rack::new(Rule { under: 89, ..rule() });
    rack.base = 500;
    rack.run(11);
    assert_eq!(rack.said(), ["off 0"]);
    rack.base = 400;
    rack.run(1_000);
    assert_eq!(rack.said(), ["0 waits for 120"], "800 is little, and 120 more is too much");
    rack.base = 500;
    rack.run(5);
    rack.base = 400;
    rack.run(1_000);
    assert_eq!(rack.said(), ["0 waits for 120"], "told again, as more flowed in between");
    rack.base = 370;
    rack.run(20);
    assert_eq!(rack.said(), ["on 0"]);
}

#[test]
fn room_that_plans_have_taken_is_no_excess_and_nothing_comes_back_into_it() {
    let mut rack = Rack::new(rule());
    (rack.base, rack.taken) = (100, 900);
    rack.run(100);
    assert_eq!(rack.said(), [""; 0]);
    (rack.base, rack.taken) = (500, 0);
    rack.run(11);
    assert_eq!(rack.said(), ["off 0"]);
    (rack.base, rack.taken) = (0, 500);
    rack.run(1_000);
    assert_eq!(rack.said(), ["0 waits for 120"]);
    rack.taken = 0;
    rack.run(20);
    assert_eq!(rack.said(), ["on 0"]);
}

#[test]
fn a_moment_is_no_excess_and_the_unknown_is_none() {
    let mut rack = Rack::new(rule());
    for _ in 0..20 {
        rack.base = 550;
        rack.run(9);
        rack.base = 0;
        rack.run(2);
    }
    assert_eq!(rack.said(), [""; 0]);
    let mut standing = Standing::default();
    for second in 0..100 {
        let when = (Tick(second * 1_000), Stamp(second as i64 * 1_000));
        assert_eq!(standing.decide(&rule(), None, &[], false, when), None);
    }
}

#[test]
fn a_dry_run_tells_once() {
    let mut rack = Rack::new(Rule { dry_run: true, ..rule() });
    rack.base = 550;
    rack.run(600);
    assert_eq!(rack.said(), ["off 0", "off 1"]);
    assert!(rack.on.iter().all(|on| *on) && rack.standing.off.is_empty());
    rack.base = 0;
    rack.run(5);
    rack.base = 550;
    rack.run(60);
    assert_eq!(rack.said(), ["off 0", "off 1"], "another excess is told again");
}

#[test]
fn whoever_has_nothing_left_says_so_once() {
    let mut rack = Rack::new(rule());
    rack.base = 2_000;
    rack.run(600);
    assert_eq!(rack.said(), ["off 0", "off 1", "off 2", "off 3", "off 4", "helpless"]);
}

#[test]
fn what_another_plan_is_at_is_left_out_and_the_next_goes_in_its_place() {
    let mut rack = Rack::new(rule());
    rack.base = 550;
    rack.busy = vec![0, 2, 4];
    rack.run(11);
    // The last one is not needed: that it is busy is nobody's matter.
    assert_eq!(rack.said(), ["without 0: it is busy", "without 2: it is busy", "off 1", "off 3"]);
    // Nor does it keep another from coming back.
    rack.base = 100;
    rack.busy = vec![3];
    rack.run(400);
    assert_eq!(rack.said(), ["on 1"]);
    rack.busy = Vec::new();
    rack.run(1);
    assert_eq!(rack.said(), ["on 3"]);
}

#[test]
fn where_all_are_busy_that_is_told_once_and_they_go_when_they_can() {
    let mut rack = Rack::new(rule());
    rack.base = 550;
    rack.busy = vec![0, 1, 2, 3, 4];
    rack.run(60);
    assert_eq!(rack.said(), ["helpless 0 1 2 3 4"]);
    rack.busy = vec![0];
    rack.run(1);
    assert_eq!(rack.said(), ["without 0: it is busy", "off 1", "off 2"]);
}

#[test]
fn what_was_refused_is_left_out_for_a_while() {
    let mut rack = Rack::new(rule());
    rack.base = 550;
    rack.run(10);
    let until = Tick((rack.now + 12) * 1_000);
    rack.standing.was_refused(&Rack::select(1), "not known for certain".into(), until);
    rack.run(1);
    assert_eq!(rack.said(), ["without 1: not known for certain", "off 0", "off 2"]);
    rack.base = 650;
    rack.run(30);
    assert_eq!(rack.said(), ["off 1"], "its time is over");
}

#[test]
fn a_cause_is_told_once_of_an_excess_and_again_of_the_next() {
    let mut rack = Rack::new(rule());
    let cause = || "outlet pdu-a/1 is read only".to_owned();
    rack.base = 2_000;
    rack.run(20);
    assert!(rack.standing.tells(true, cause()) && rack.standing.tells(false, cause()));
    rack.run(20);
    assert!(!rack.standing.tells(true, cause()), "too much flows all the while");
    assert!(rack.standing.tells(false, cause()), "and not little");
    rack.base = 800;
    rack.run(1);
    assert!(rack.standing.tells(true, cause()), "it was over");
    rack.base = 0;
    rack.run(1);
    assert!(rack.standing.tells(false, cause()));
    rack.run(100);
    assert!(!rack.standing.tells(false, cause()));
}

/// A rack that has shed its first two.
fn shed() -> Rack {
    let mut rack = Rack::new(rule());
    rack.base = 550;
    rack.run(11);
    assert_eq!(rack.said(), ["off 0", "off 1"]);
    rack
}

#[test]
fn what_did_not_come_back_is_not_forgotten_and_keeps_no_other_off() {
    let mut rack = shed();
    (rack.base, rack.stuck) = (100, vec![1]);
    rack.run(300);
    assert_eq!(rack.said(), ["on 1"]);
    let of = Candidate {
        select: Rack::select(1),
        priority: 1,
        is_on: Some(false),
        own: vec![outlet(1)],
        on: Vec::new(),
        goes_off: false,
        is_locked: false,
        draws: 0,
        returns: 120,
        hindrance: None,
    };
    assert!(rack.standing.came_of(&of, false, Tick(rack.now * 1_000)));
    rack.run(59);
    assert_eq!(rack.said(), ["on 0"]);
    rack.stuck = Vec::new();
    rack.run(20);
    assert_eq!(rack.said(), ["on 1"]);
    rack.run(1);
    assert!(rack.standing.off.is_empty());
    assert!(!rack.standing.came_of(&of, false, Tick(rack.now * 1_000)), "it is back");
    // The pauses grow, up to an hour.
    rack.standing.goes_off(&of.select, &[outlet(1)], Stamp(0));
    for minutes in [1, 2, 4, 8, 16, 32, 64, 64] {
        assert!(rack.standing.came_of(&of, false, Tick(0)));
        let (until, _) = rack.standing.refused[&of.select.to_string()];
        assert_eq!(until, Tick(minutes * 60_000));
    }
}

#[test]
fn what_does_not_go_off_keeps_no_other_on() {
    let mut rack = shed();
    // The first does not: its node refuses to be drained.
    rack.on[0] = true;
    let of = Candidate {
        select: Rack::select(0),
        priority: 0,
        is_on: Some(true),
        own: vec![outlet(0)],
        on: vec![outlet(0)],
        goes_off: false,
        is_locked: false,
        draws: 100,
        returns: 120,
        hindrance: None,
    };
    assert!(rack.standing.came_of(&of, true, Tick(rack.now * 1_000)));
    // The meters are given their time to show what went off.
    rack.run(14);
    assert_eq!(rack.said(), [""; 0]);
    rack.run(1);
    assert_eq!(rack.said(), ["without 0: it did not go off", "off 2"]);
    assert!(!rack.standing.came_of(&Candidate { is_on: Some(false), ..of }, true, Tick(0)));
}

#[test]
fn what_is_locked_for_a_while_comes_back_after_it() {
    let mut rack = shed();
    (rack.base, rack.locked) = (100, vec![0, 1]);
    rack.run(400);
    assert_eq!(rack.said(), [""; 0]);
    rack.locked = Vec::new();
    rack.run(20);
    assert_eq!(rack.said(), ["on 1", "on 0"]);
}

#[test]
fn what_a_plan_is_still_at_is_not_over() {
    // It is drained, and flows for a while: it counts as gone, and another goes where that does not suffice.
    let mut rack = shed();
    (rack.on[1], rack.busy, rack.going) = (true, vec![1], vec![1]);
    rack.run(60);
    assert_eq!(rack.said(), [""; 0]);
    rack.base = 650;
    rack.run(20);
    assert_eq!(rack.said(), ["off 2"]);
    // After a restart nobody knows of the plan but by its claim.
    rack.standing = serde_json::from_slice(&serde_json::to_vec(&rack.standing).unwrap()).unwrap();
    rack.run(5);
    (rack.on[1], rack.busy, rack.going, rack.base) = (false, Vec::new(), Vec::new(), 100);
    rack.run(400);
    // The third has not been off for long enough before the others are back.
    assert_eq!(rack.said(), ["on 1", "on 0", "on 2"]);
}

#[test]
fn what_comes_on_is_not_counted_as_going_off() {
    let mut rack = shed();
    // A plan is at what this rule switched off, and has switched it on: too much flows again.
    (rack.on, rack.busy) = (vec![true; 5], vec![0, 1]);
    rack.run(20);
    assert_eq!(rack.said(), ["without 0: it is busy", "without 1: it is busy", "off 2", "off 3"]);
}

#[test]
fn only_the_outlets_that_were_on_are_waited_for() {
    let mut rack = shed();
    let select = Rack::select(0);
    assert_eq!(rack.standing.fed(&select), Some(&BTreeSet::from([outlet(0)])));
    // Another plan for it was not begun after all: what an earlier one did stands.
    let before = rack.standing.clone();
    rack.standing.goes_off(&select, &[outlet(4)], Stamp(99_000));
    rack.standing.takes_back(before);
    assert_eq!(rack.standing.fed(&select), Some(&BTreeSet::from([outlet(0)])));
    assert_eq!(rack.standing.since("outlet pdu-a/1"), Some(11_000));
    // Somebody wishes one of them off.
    let mut other = rack.standing.clone();
    assert!(other.lets_go(&BTreeSet::from([outlet(3)])).is_empty());
    assert_eq!(other.lets_go(&BTreeSet::from([outlet(0), outlet(3)])), ["outlet pdu-a/1"]);
    assert_eq!((other.fed(&select), other.since("outlet pdu-a/1")), (None, None));
    assert_eq!(other.since("outlet pdu-a/2"), Some(11_000));
    // What the rule does not name any more is told once.
    let strays = rack.standing.strays(&[]);
    assert_eq!(strays, ["outlet pdu-a/1", "outlet pdu-a/2"]);
    assert!(rack.standing.strays(&[]).is_empty());
}

#[test]
fn a_clock_that_was_set_back_keeps_nothing_off() {
    let mut rack = shed();
    rack.standing.off.values_mut().for_each(|at| *at += 31_536_000_000);
    rack.base = 100;
    rack.run(400);
    assert_eq!(rack.said(), ["on 1", "on 0"]);
}
