//! One world from its seed to its end: the gateway's own planner, executor and journal; around them cards, a network and
//! breakers that we made up; beside them somebody who sees everything and objects.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use pmgate::model::id::{OutletId, PlanId};
use pmgate::model::switching::{Action, Known, Outcome, Relay, Seen, Terms};
use pmgate::model::time::{Span, Stamp, Tick};
use pmgate::model::view::PduView;
use pmgate::plan::guard::Guarded;
use pmgate::plan::record::{OnFailure, OnOverload, PlanState, Record, StepRecord, StepState};
use pmgate::plan::run::{Care, Deed, Heard, Save, Who, WriteEnd, recorded, reserve};
use pmgate::plan::world::{Goal, Want};
use pmgate::plan::{Refusal, Runs, Sight, plan};
use pmgate::store::journal::{Commit, Journal};

use super::memory::Disk;
use super::physics::Physics;
use super::rack::{Lie, Rack, Seeded, rack};
use super::views;

/// The wall clock at the world's beginning, ms since 1970.
const EPOCH: i64 = 1_700_000_000_000;
/// No world lasts longer, ms.
const END: u64 = 3 * 3_600_000;
/// The longest life of a datagram, ms: less than what the gateway allows for.
const LIFE: u64 = 1_900;

/// What happens.
#[derive(Debug, Clone)]
enum Happens {
    /// The gateway comes up.
    Starts,
    /// It is killed.
    Killed,
    /// It wants to be woken.
    Wakes,
    /// Somebody wishes something.
    Wished,
    /// Somebody switches one outlet by hand.
    ByHand,
    /// Somebody cancels whatever is under way.
    Cancels,
    /// A card is polled.
    Polled(usize),
    /// A look or a reading answers.
    Answers { run: u64, what: Answer },
    /// A command arrives at a card.
    Arrives { socket: usize, relay: Relay, first: Option<Box<Sent>> },
    /// A relay moves.
    Moves { socket: usize, relay: Relay },
    /// Something was made durable.
    Durable { run: u64, plan: PlanId, generation: u64 },
    /// A side of the pair loses its power.
    Dies(usize),
}

#[derive(Debug, Clone)]
enum Answer {
    Look { who: Who, socket: usize, everything: bool },
    Read { who: Who, card: usize },
    Written { who: Who, end: WriteEnd },
}

#[derive(Debug, Clone)]
struct Sent {
    run: u64,
    who: Who,
    asked: u64,
}

/// What is told of a world when it is over.
#[derive(Debug, Default, Clone)]
pub struct Story {
    pub plans: usize,
    pub done: usize,
    pub writes: usize,
    pub crashes: usize,
    pub refused: usize,
    /// The most that any breaker carried, permille of its rating.
    pub most: i64,
    /// The same of what lasted.
    pub lasting: i64,
    /// What is wrong with it.
    pub wrong: Vec<String>,
}

pub struct World {
    rack: Rack,
    random: Seeded,
    physics: Physics,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happens: BTreeMap<u64, Happens>,
    next: u64,
    disk: Disk,
    journal: Option<Journal>,
    runs: Runs,
    care: Care,
    /// Counts the starts of the gateway; answers to an earlier one are lost.
    run: u64,
    started: u64,
    up: bool,
    views: Vec<Arc<PduView>>,
    /// When a card that reboots is back.
    away: Vec<u64>,
    crashes_left: usize,
    crash_chance: i64,
    wishes_left: usize,
    ids: u64,
    /// What somebody in a hurry switches next, and the plan that he waits for.
    hands: Vec<(usize, Relay)>,
    hand: Option<PlanId>,
    /// How often each plan told each outlet each thing: a step has another number once a plan was planned anew.
    sent: BTreeMap<(PlanId, OutletId, Relay), usize>,
    /// Plans that were accepted, as they were last seen.
    known: BTreeMap<PlanId, PlanState>,
    /// Hosts that nobody promised to keep.
    dropped: BTreeSet<usize>,
    woken: Option<u64>,
    verbose: bool,
    story: Story,
}

impl World {
    /// The world of a seed. `inrush`: whether the site says what loads draw in their first moment.
    pub fn new(seed: u64, care: Care, inrush: bool, verbose: bool) -> Self {
        let mut random = Seeded(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x5DEE_CE66);
        let mut rack = rack(&mut random);
        if !inrush {
            for draw in rack.site.hosts.values_mut().filter_map(|host| host.draw.as_mut()) {
                draw.inrush = draw.boot;
            }
        }
        let physics = Physics::new(&rack, random.next());
        let cards = rack.cards.len();
        let disk = Disk::default();
        let mut world = Self {
            physics,
            now: 0,
            queue: BinaryHeap::new(),
            happens: BTreeMap::new(),
            next: 0,
            journal: None,
            runs: Runs::careless(care),
            care,
            run: 0,
            started: 0,
            up: false,
            views: Vec::new(),
            away: vec![0; cards],
            crashes_left: if random.chance(50) { random.within(1, 3) as usize } else { 0 },
            crash_chance: *random.one(&[2, 5, 20]),
            wishes_left: random.within(1, 4) as usize,
            ids: 0,
            hands: Vec::new(),
            hand: None,
            sent: BTreeMap::new(),
            known: BTreeMap::new(),
            dropped: BTreeSet::new(),
            woken: None,
            verbose,
            story: Story::default(),
            disk,
            rack,
            random,
        };
        world.later(0, Happens::Starts);
        for _ in 0..world.wishes_left {
            let at = world.random.ms(6_000, 60_000);
            world.later(at, Happens::Wished);
        }
        if world.random.chance(50) {
            world.hands();
        }
        if world.random.chance(10) {
            let at = world.random.ms(10_000, 90_000);
            world.later(at, Happens::Cancels);
        }
        if world.random.chance(15) {
            let at = world.random.ms(7_000, 120_000);
            world.later(at, Happens::Killed);
        }
        if let Some((at, side)) = world.rack.dies {
            world.later(at, Happens::Dies(side));
        }
        for (card, of) in world.rack.cards.iter().enumerate() {
            if let Some((at, long)) = of.reboots {
                world.away[card] = at + long;
            }
        }
        // Nobody promised to keep what is off.
        for (host, load) in world.rack.loads.iter().enumerate() {
            if !load.cords.iter().any(|cord| world.rack.sockets[*cord].closed) {
                world.dropped.insert(host);
            }
        }
        // Outlets that lie keep no promise to their hosts.
        for (at, socket) in world.rack.sockets.iter().enumerate() {
            if socket.lie != Lie::None {
                world.dropped.extend(socket.host);
                world.dropped.extend(
                    world.rack.sockets.get(neighbour(at, &world.rack)).and_then(|s| s.host),
                );
            }
        }
        world
    }

    /// Somebody in a hurry re-plugs both cords of a host, one outlet after the other, by hand.
    fn hands(&mut self) {
        let both = |cords: &[usize]| {
            cords.len() == 2 && cords.iter().all(|cord| self.rack.sockets[*cord].closed)
        };
        let hosts: Vec<&super::rack::Load> =
            self.rack.loads.iter().filter(|load| both(&load.cords)).collect();
        if hosts.is_empty() {
            return;
        }
        let cords = self.random.one(&hosts).cords.clone();
        for socket in cords.iter().rev() {
            self.hands.extend([(*socket, Relay::On), (*socket, Relay::Off)]);
        }
        let at = self.random.ms(6_000, 40_000);
        self.later(at, Happens::ByHand);
    }

    fn later(&mut self, after: u64, what: Happens) {
        self.next += 1;
        self.queue.push(Reverse((self.now + after, self.next)));
        self.happens.insert(self.next, what);
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.verbose {
            let line = format!("{:>8} {}", self.now, what());
            println!("{line}");
        }
    }

    fn wrong(&mut self, what: String) {
        self.say(|| format!("WRONG: {what}"));
        self.story.wrong.push(format!("at {} ms: {what}", self.now));
    }

    /// Lets the world go on until nothing is left to be done.
    pub fn live(mut self) -> Story {
        while let Some(Reverse((at, key))) = self.queue.pop() {
            if at > END {
                break;
            }
            let Some(what) = self.happens.remove(&key) else { continue };
            self.physics.advance(&self.rack, at);
            self.now = at;
            self.happen(what);
            self.observe();
            if !self.story.wrong.is_empty() || self.is_over() {
                break;
            }
        }
        if self.story.wrong.is_empty() {
            // What was switched on last shows what it draws.
            self.physics.advance(&self.rack, self.now + 900_000);
            self.observe();
            self.last_words();
        }
        self.story.lasting = self.physics.lasting;
        self.story.most = self.physics.most.iter().copied().max().unwrap_or(0);
        self.story
    }

    fn is_over(&self) -> bool {
        let wishes = self.happens.values().any(|what| {
            matches!(
                what,
                Happens::Wished
                    | Happens::ByHand
                    | Happens::Arrives { .. }
                    | Happens::Moves { .. }
                    | Happens::Dies(_)
                    | Happens::Killed
            )
        });
        let running = self.known.values().any(|state| *state == PlanState::Running);
        self.up && !wishes && !running && self.runs.wake().is_none() && self.runs.is_quiet()
    }

    fn observe(&mut self) {
        if let Some(trip) = self.physics.tripped.first() {
            self.wrong(trip.clone());
        }
        for (host, load) in self.rack.loads.iter().enumerate() {
            if self.dropped.contains(&host) {
                continue;
            }
            if !load.cords.iter().any(|cord| self.physics.is_live(*cord)) {
                let text = format!("host {} was cut, and nobody asked for it", load.id);
                self.wrong(text);
                return;
            }
        }
    }

    fn last_words(&mut self) {
        let open: Vec<PlanId> = self
            .known
            .iter()
            .filter(|(_, state)| **state == PlanState::Running)
            .map(|(id, _)| id.clone())
            .collect();
        if !open.is_empty() {
            self.wrong(format!("plans {open:?} never ended"));
        }
        let Some(journal) = &self.journal else { return };
        let sound = journal.verify_audit().unwrap();
        if let Err(broken) = sound {
            self.wrong(broken.to_string());
        }
        let Some(journal) = &self.journal else { return };
        let plans = journal.latest(1_000, None).unwrap();
        for kept in plans {
            let record = pmgate::switching::parse("a plan", &kept).unwrap();
            self.story.plans += 1;
            self.story.done += usize::from(record.state == PlanState::Done);
            if record.state == PlanState::Running {
                self.wrong(format!("plan {} is still open in the journal", record.id));
            }
        }
    }

    fn tick(&self) -> Tick {
        Tick(self.now - self.started)
    }

    fn stamp(&self) -> Stamp {
        Stamp(EPOCH + self.now as i64)
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Starts => self.starts(),
            Happens::Killed => self.killed("by somebody"),
            Happens::Wakes => {
                self.woken = None;
                self.hear(Heard::Time);
            }
            Happens::Wished => self.wished(),
            Happens::ByHand => self.by_hand(),
            Happens::Cancels => self.cancels(),
            Happens::Polled(card) => self.polled(card),
            Happens::Answers { run, what } if run == self.run && self.up => self.answers(what),
            Happens::Answers { .. } => {}
            Happens::Arrives { socket, relay, first } => self.arrives(socket, relay, first),
            Happens::Moves { socket, relay } => self.moves(socket, relay),
            Happens::Durable { run, plan, generation } if run == self.run && self.up => {
                self.hear(Heard::Saved { plan, generation, ok: true });
            }
            Happens::Durable { .. } => {}
            Happens::Dies(side) => {
                self.say(|| format!("side {side} dies"));
                // Who hangs on it alone was cut by that.
                for (host, load) in self.rack.loads.iter().enumerate() {
                    let other = load.cords.iter().any(|cord| {
                        self.rack.cards[self.rack.sockets[*cord].card].side != side
                            && self.physics.is_live(*cord)
                    });
                    if !other {
                        self.dropped.insert(host);
                    }
                }
                // So was one whose other feed was told to go off a moment before.
                for what in self.happens.values() {
                    if let Happens::Arrives { socket, relay: Relay::Off, .. }
                    | Happens::Moves { socket, relay: Relay::Off } = what
                    {
                        self.dropped.extend(self.rack.sockets[*socket].host);
                    }
                }
                self.physics.die(&self.rack, side);
                for (card, of) in self.rack.cards.iter().enumerate() {
                    if of.side == side {
                        self.away[card] = u64::MAX;
                    }
                }
            }
        }
    }

    /// What the gateway sees, for the time of one call.
    fn with_sight<T>(&mut self, act: impl FnOnce(&mut Runs, &Sight<'_>) -> T) -> T {
        let locks = BTreeMap::new();
        let sight = Sight {
            now: Tick(self.now - self.started),
            stamp: Stamp(EPOCH + self.now as i64),
            views: &self.views,
            site: &self.rack.site,
            locks: &locks,
        };
        act(&mut self.runs, &sight)
    }

    fn hear(&mut self, heard: Heard) {
        if !self.up {
            return;
        }
        let deeds = self.with_sight(|runs, sight| runs.heard(heard, sight));
        self.carry_out(deeds);
    }

    fn carry_out(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            if !self.up {
                return;
            }
            self.deed(deed);
        }
        self.sleep();
    }

    fn sleep(&mut self) {
        let Some(wake) = self.runs.wake() else { return };
        let at = (wake.0 + self.started).max(self.now + 1);
        if self.woken.is_none_or(|woken| at < woken || woken <= self.now) {
            self.woken = Some(at);
            self.later(at - self.now, Happens::Wakes);
        }
    }

    fn starts(&mut self) {
        self.run += 1;
        self.started = self.now;
        self.up = true;
        self.woken = None;
        self.runs = Runs::careless(self.care);
        self.say(|| "the gateway starts".into());
        let journal = Journal::on(self.disk.clone()).unwrap();
        self.views = self.rack.cards.iter().map(|card| views::unknown(card)).collect();
        for card in 0..self.rack.cards.len() {
            let after = self.random.ms(100, 3_000);
            self.later(after, Happens::Polled(card));
        }
        let open = journal.open_plans().unwrap();
        self.journal = Some(journal);
        for kept in open {
            let record = pmgate::switching::parse("a plan", &kept).unwrap();
            if let Err((outlet, other)) = self.runs.claim(&record) {
                self.wrong(format!("{outlet} is in plans {} and {other}", record.id));
                return;
            }
            self.known.insert(record.id.clone(), PlanState::Running);
            let deeds = self.with_sight(|runs, sight| runs.take_up(record, sight));
            self.carry_out(deeds);
            if !self.up {
                return;
            }
        }
    }

    fn killed(&mut self, how: &str) {
        if !self.up {
            return;
        }
        self.say(|| format!("the gateway is killed {how}"));
        self.story.crashes += 1;
        self.up = false;
        self.journal = None;
        let after = self.random.ms(500, 60_000);
        self.later(after, Happens::Starts);
    }

    fn crashes_here(&mut self) -> bool {
        let crashes = self.crashes_left > 0 && self.random.chance(self.crash_chance);
        self.crashes_left -= usize::from(crashes);
        crashes
    }

    fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Save(save) => self.save(*save),
            Deed::Look { who, outlet, everything } => {
                let socket = self.socket(&outlet);
                let card = self.rack.sockets[socket].card;
                let away = self.is_away(card);
                let after = if away { 2_000 } else { self.rack.cards[card].look_ms };
                let what = Answer::Look { who, socket, everything };
                self.later(after, Happens::Answers { run: self.run, what });
            }
            Deed::Read { who, pdu } => {
                let card = self.rack.cards.iter().position(|card| card.id == pdu).unwrap();
                let after = if self.is_away(card) { 2_000 } else { self.rack.cards[card].look_ms };
                let what = Answer::Read { who, card };
                self.later(after, Happens::Answers { run: self.run, what });
            }
            Deed::Write { who, outlet, relay, known } => self.write(who, &outlet, relay, &known),
            Deed::Want(pdu) => {
                let card = self.rack.cards.iter().position(|card| card.id == pdu).unwrap();
                if !self.is_away(card) {
                    self.see(card);
                }
            }
            Deed::Refresh(_) => {}
            Deed::Call { who, .. } => {
                let _answered = self.with_sight(|runs, sight| {
                    runs.heard(Heard::Called { who, answer: Ok(()) }, sight)
                });
            }
            Deed::Lock(outlet, why) => self.say(|| format!("{outlet} is locked: {why}")),
            Deed::Tell { kind, text, .. } => self.say(|| format!("  {kind}: {text}")),
            Deed::Show(record) => drop(self.known.insert(record.id.clone(), record.state)),
            Deed::Ended(record) => {
                self.known.insert(record.id.clone(), record.state);
                self.truthful(&record);
                if self.hand.as_ref() == Some(&record.id) {
                    let after = self.random.ms(0, 300);
                    self.later(after, Happens::ByHand);
                }
            }
        }
    }

    /// What is said to be done is so.
    fn truthful(&mut self, record: &Record) {
        let mut last: BTreeMap<&OutletId, (Relay, Outcome)> = BTreeMap::new();
        for step in &record.steps {
            if let Some(outcome) = step.state.outcome().filter(|o| *o != Outcome::Skipped) {
                last.insert(&step.outlet, (step.relay, outcome));
            }
        }
        let lies: Vec<String> = last
            .iter()
            .filter(|(_, (_, outcome))| outcome.is_success())
            .filter_map(|(outlet, (relay, _))| {
                let socket = self.socket(outlet);
                let closed = self.physics.contacts[socket].closed;
                let honest = self.rack.sockets[socket].lie == Lie::None
                    && self.rack.sockets[neighbour_of(socket, &self.rack)].lie != Lie::Neighbour;
                let doubled = self.happens.values().any(|what| {
                    matches!(what, Happens::Arrives { socket: of, .. } | Happens::Moves { socket: of, .. } if *of == socket)
                });
                let wished = *relay == Relay::On;
                (honest && !doubled && closed != wished)
                    .then(|| format!("plan {} says that {outlet} is {}", record.id, relay.word()))
            })
            .collect();
        if let Some(lie) = lies.first() {
            // A doubled datagram of an earlier command may have undone it since; a plan of many does not wait for that.
            if record.scheduled.is_some() || record.steps.len() == 1 {
                self.say(|| format!("  (undone since: {lie})"));
            }
        }
    }

    fn socket(&self, outlet: &OutletId) -> usize {
        self.rack.sockets.iter().position(|socket| socket.id == *outlet).unwrap()
    }

    fn is_away(&self, card: usize) -> bool {
        let from = self.rack.cards[card].reboots.map_or(u64::MAX, |(at, _)| at);
        self.away[card] == u64::MAX || (from..self.away[card]).contains(&self.now)
    }

    fn save(&mut self, save: Save) {
        if self.crashes_here() {
            // Before it is durable.
            self.killed("before a commit");
            return;
        }
        let mut commit = Commit::default();
        for record in save.record.iter().chain(&save.more) {
            let open = record.state == PlanState::Running;
            commit.plans.push((record.id.clone(), serde_json::to_vec(record).unwrap(), open));
            self.known.insert(record.id.clone(), record.state);
        }
        if save.record.is_none() {
            for (place, step) in &save.steps {
                let bytes = serde_json::to_vec(step).unwrap();
                commit.steps.push((save.plan.clone(), *place as u32, bytes));
            }
        }
        if let Some(safe) = &save.more {
            // Nobody promised to keep a host whose safe state is off.
            self.drops(safe);
        }
        let stamp = self.stamp().0;
        for note in save.notes {
            commit.notes.push(pmgate::audit::Draft {
                at: stamp,
                kind: note.kind.to_owned(),
                by: "the gateway".into(),
                about: String::new(),
                text: note.text,
            });
        }
        self.journal.as_ref().unwrap().commit(commit).unwrap();
        if self.crashes_here() {
            self.killed("after a commit");
            return;
        }
        let after = self.random.ms(0, 8);
        let (plan, generation) = (save.plan, save.generation);
        self.later(after, Happens::Durable { run: self.run, plan, generation });
    }

    fn drops(&mut self, record: &Record) {
        for step in record.steps.iter().filter(|s| s.relay == Relay::Off && !s.keeps_host) {
            let socket = self.socket(&step.outlet);
            self.dropped.extend(self.rack.sockets[socket].host);
        }
    }

    fn write(&mut self, who: Who, outlet: &OutletId, relay: Relay, _known: &Known) {
        let socket = self.socket(outlet);
        self.say(|| format!("  {outlet} is written {}", relay.word()));
        self.story.writes += 1;
        // The intent is in the journal.
        let kept = self.journal.as_ref().unwrap().get(&who.plan).unwrap();
        let record = kept.map(|kept| pmgate::switching::parse("a plan", &kept).unwrap());
        let intended = record.as_ref().is_some_and(|record| {
            let step = record.steps.get(who.step);
            step.is_some_and(|s| {
                s.state == StepState::Intended && s.outlet == *outlet && s.relay == relay
            })
        });
        if !intended {
            self.wrong(format!("{outlet} is written {}, and no intent is durable", relay.word()));
            return;
        }
        let sent = self.sent.entry((who.plan.clone(), outlet.clone(), relay)).or_default();
        *sent += 1;
        if *sent > 1 {
            self.wrong(format!("{outlet} is written twice for one step"));
            return;
        }
        let at = self.rack.sockets[socket].card;
        let card = self.rack.cards[at].clone();
        let run = self.run;
        let gone = self.is_away(at);
        if gone || self.random.chance(card.refuses) {
            let end = WriteEnd::Not(if gone { "it does not answer" } else { "refused" }.into());
            self.later(card.look_ms, Happens::Answers { run, what: Answer::Written { who, end } });
            return;
        }
        let lost = self.random.chance(card.loses_commands);
        let late = self.random.chance(card.delays);
        let doubled = self.random.chance(card.delays);
        let way = if late { self.random.ms(200, LIFE) } else { card.look_ms / 2 };
        let answered = !self.random.chance(card.loses_answers);
        let first = Sent { run, who: who.clone(), asked: self.now };
        if !lost {
            let first = answered.then(|| Box::new(first));
            self.later(way, Happens::Arrives { socket, relay, first });
            if doubled {
                let way = self.random.ms(way, LIFE);
                self.later(way, Happens::Arrives { socket, relay, first: None });
            }
        }
        if lost || !answered {
            // Nothing is heard of it; only looking tells.
            let end = WriteEnd::Sent(terms(&card, false));
            self.later(2_000, Happens::Answers { run, what: Answer::Written { who, end } });
        }
    }

    fn arrives(&mut self, socket: usize, relay: Relay, first: Option<Box<Sent>>) {
        let at = self.rack.sockets[socket].card;
        let card = self.rack.cards[at].clone();
        if self.away[at] == u64::MAX {
            if let Some(Sent { run, who, .. }) = first.map(|sent| *sent) {
                let end = WriteEnd::Sent(terms(&card, false));
                self.later(2_000, Happens::Answers { run, what: Answer::Written { who, end } });
            }
            return;
        }
        self.later(card.relay_ms, Happens::Moves { socket, relay });
        if let Some(Sent { run, who, asked }) = first.map(|sent| *sent) {
            // The answer may come after the gateway gave up waiting for it.
            let after = card.look_ms / 2;
            let in_time = self.now + after - asked < 2_000;
            let end = WriteEnd::Sent(terms(&card, in_time));
            let after = if in_time { after } else { 1 };
            self.later(after, Happens::Answers { run, what: Answer::Written { who, end } });
        }
    }

    fn moves(&mut self, socket: usize, relay: Relay) {
        let closed = relay == Relay::On;
        self.rack.sockets[socket].closed = match self.rack.sockets[socket].lie {
            Lie::Stuck => self.rack.sockets[socket].closed,
            _ => closed,
        };
        let physical = match self.rack.sockets[socket].lie {
            Lie::None => Some(socket),
            Lie::Neighbour => Some(neighbour(socket, &self.rack)),
            Lie::Welded if closed => Some(socket),
            Lie::Welded | Lie::Stuck => None,
        };
        if let Some(physical) = physical {
            self.say(|| format!("  socket {physical} {}", relay.word()));
            self.physics.set(&self.rack, physical, closed);
        }
    }

    fn polled(&mut self, card: usize) {
        if !self.up {
            return;
        }
        let period = self.rack.cards[card].poll_ms;
        self.later(period, Happens::Polled(card));
        if self.is_away(card) {
            self.views[card] = views::failed(&self.views[card], self.tick());
        } else {
            self.see(card);
        }
        // Some plan may wait for it.
        self.hear(Heard::Time);
    }

    /// Everything of a card, as its meters show it.
    fn see(&mut self, card: usize) {
        let error = self.random.within(-10, 10);
        let (tick, stamp) = (self.tick(), self.stamp());
        self.views[card] = views::seen(&self.rack, &self.physics, card, error, tick, stamp);
    }

    fn answers(&mut self, what: Answer) {
        match what {
            Answer::Look { who, socket, everything } => {
                let card = self.rack.sockets[socket].card;
                let seen = if self.is_away(card) {
                    Err("it does not answer".to_owned())
                } else {
                    let (tick, stamp) = (self.tick(), self.stamp());
                    let view = views::looked(
                        &self.views[card],
                        &self.rack,
                        &self.physics,
                        socket,
                        everything,
                        stamp,
                    );
                    self.views[card] = view;
                    let takes = Span(self.rack.cards[card].takes_ms);
                    Ok(Seen { state: Ok(views::word(&self.rack, socket)), at: tick, takes })
                };
                self.hear(Heard::Looked { who, seen });
            }
            Answer::Read { who, card } => {
                if !self.is_away(card) {
                    self.see(card);
                }
                self.hear(Heard::Read { who });
            }
            Answer::Written { who, end } => self.hear(Heard::Written { who, end }),
        }
    }

    fn cancels(&mut self) {
        let Some(id) = self.runs.records().next().map(|record| record.id.clone()) else { return };
        self.say(|| format!("plan {id} is cancelled"));
        let (_, deeds) = self.with_sight(|runs, sight| runs.cancel(&id, "somebody", sight));
        self.carry_out(deeds);
    }

    /// Somebody switches one outlet: a plan of one step, whose intent is durable with it.
    fn by_hand(&mut self) {
        if !self.up {
            return;
        }
        let Some((socket, relay)) = self.hands.pop() else { return };
        self.ids += 1;
        let id: PlanId = format!("p{:04}", self.ids).parse().unwrap();
        let (stamp, outlet) = (self.stamp(), self.rack.sockets[socket].id.clone());
        let action = if relay == Relay::On { Action::On } else { Action::Off };
        let mut record = Record::new(id, action, outlet.to_string(), "us".into(), stamp);
        let mut step = StepRecord::pending(outlet.clone(), relay, 0, "by hand".into());
        step.keeps_host = relay == Relay::Off;
        step.state = StepState::Intended;
        record.steps.push(step);
        record.state = PlanState::Running;
        let taken = self.with_sight(|runs, sight| {
            let known = matches!(sight.guard(&outlet, &BTreeMap::new()), Guarded::Known(..));
            if !known {
                return Err("not known for certain".to_owned());
            }
            runs.has_headroom(&record, sight).map_err(|refusal| refusal.to_string())?;
            runs.claim(&record).map_err(|(outlet, plan)| format!("{outlet} is at {plan}"))
        });
        match taken {
            Err(why) => {
                self.story.refused += 1;
                self.say(|| format!("{outlet} {} by hand is refused: {why}", relay.word()));
            }
            Ok(()) => {
                self.say(|| format!("plan {}: {outlet} {} by hand", record.id, relay.word()));
                self.hand = Some(record.id.clone());
                self.accepted(record);
            }
        }
    }

    /// An accepted plan becomes durable, and begins.
    fn accepted(&mut self, record: Record) {
        self.drops(&record);
        if self.crashes_here() {
            self.killed("before a plan was durable");
            return;
        }
        let bytes = serde_json::to_vec(&record).unwrap();
        let plans = vec![(record.id.clone(), bytes, true)];
        self.journal.as_ref().unwrap().commit(Commit { plans, ..Commit::default() }).unwrap();
        self.known.insert(record.id.clone(), PlanState::Running);
        if self.crashes_here() {
            self.killed("after a plan was durable");
            return;
        }
        let deeds = self.with_sight(|runs, sight| runs.begin(record, sight));
        self.carry_out(deeds);
    }

    /// Somebody makes a plan and runs it.
    fn wished(&mut self) {
        if !self.up {
            self.later(5_000, Happens::Wished);
            return;
        }
        let goals = self.goals();
        let by_priority = self.random.chance(20);
        let replan = self.random.chance(50);
        let on = self.random.chance(40);
        self.ids += 1;
        let id: PlanId = format!("p{:04}", self.ids).parse().unwrap();
        let stamp = self.stamp();
        let made = self.with_sight(|runs, sight| {
            let mut picture = runs.picture(sight, None, None);
            picture.world.by_priority = by_priority;
            // Plans need not be the shortest here.
            picture.world.tries = 2;
            let goals: Vec<Goal> = goals
                .iter()
                .filter_map(|(outlet, want, drops_host)| {
                    let outlet = *picture.outlets.get(outlet)?;
                    Some(Goal { outlet, want: *want, drops_host: *drops_host, why: String::new() })
                })
                .collect();
            let known = goals.iter().all(|goal| {
                picture.world.outlets[goal.outlet].relay != pmgate::plan::Relays::Unknown
            });
            if !known || goals.is_empty() {
                return Err("not known for certain".to_owned());
            }
            let mut goals = goals;
            let made = match plan(&picture.world, &goals) {
                // As much as fits.
                Err(Refusal::Limit { leave_out, .. }) => {
                    goals
                        .retain(|goal| !leave_out.contains(&picture.world.outlets[goal.outlet].id));
                    plan(&picture.world, &goals)
                }
                made => made,
            };
            let made = made.map_err(|refusal| refusal.to_string())?;
            let mut record = Record::new(id.clone(), Action::On, "w".into(), "us".into(), stamp);
            record.steps = recorded(&picture.world, &made, &goals);
            record.scheduled = Some(made.makespan_ms);
            record.reserve = reserve(&picture.world, &made);
            record.state = PlanState::Running;
            record.on_overload = if replan { OnOverload::Replan } else { OnOverload::Stop };
            record.on_failure = if on { OnFailure::Continue } else { OnFailure::Stop };
            runs.claim(&record).map_err(|(outlet, plan)| format!("{outlet} is at {plan}"))?;
            Ok(record)
        });
        match made {
            Err(why) => {
                self.story.refused += 1;
                self.say(|| format!("a wish is refused: {why}"));
            }
            Ok(record) => {
                self.say(|| {
                    let steps: Vec<String> = record
                        .steps
                        .iter()
                        .map(|s| format!("{} {} {}", s.at_ms, s.outlet, s.relay.word()))
                        .collect();
                    format!("plan {} begins: {}", record.id, steps.join(", "))
                });
                self.accepted(record);
            }
        }
    }

    fn goals(&mut self) -> Vec<(OutletId, Want, bool)> {
        let wish = self.random.within(0, 3);
        let all = self.random.chance(30);
        let part = if all { 100 } else { self.random.within(10, 90) };
        let mut goals = Vec::new();
        for load in &self.rack.loads {
            if !self.random.chance(part) {
                continue;
            }
            let want = match wish {
                _ if all => Want::On,
                0 => Want::On,
                1 => Want::Cycle,
                _ => *self.random.one(&[Want::On, Want::Off, Want::Cycle]),
            };
            // The host as such, or one of its cords.
            let both = load.cords.iter().all(|cord| self.rack.sockets[*cord].closed);
            let as_host = !both || load.cords.len() < 2 || want == Want::On;
            if as_host || self.random.chance(60) {
                for cord in &load.cords {
                    goals.push((self.rack.sockets[*cord].id.clone(), want, true));
                }
            } else {
                let cord = *self.random.one(&load.cords);
                goals.push((self.rack.sockets[cord].id.clone(), want, false));
                if want == Want::Cycle && self.random.chance(50) {
                    for cord in load.cords.iter().filter(|other| **other != cord) {
                        goals.push((self.rack.sockets[*cord].id.clone(), want, false));
                    }
                }
            }
        }
        goals
    }
}

fn terms(card: &super::rack::Card, acknowledged: bool) -> Terms {
    Terms {
        within: Span(card.takes_ms),
        every: Span(300),
        acknowledged,
        also: None,
        follows: true,
        settle: Span(1_000),
    }
}

/// The outlet whose relay moves instead of one that is cabled wrong.
fn neighbour(socket: usize, rack: &Rack) -> usize {
    let of = |at: usize| rack.sockets.get(at).map(|socket| socket.card);
    if of(socket + 1) == of(socket) { socket + 1 } else { socket - 1 }
}

/// The outlet that would move this one's relay.
fn neighbour_of(socket: usize, rack: &Rack) -> usize {
    (0..rack.sockets.len()).find(|at| neighbour(*at, rack) == socket).unwrap_or(socket)
}
