//! One world from its seed to its end: the gateway's own planner, executor and journal; around them cards, a network and
//! breakers that we made up; beside them somebody who sees everything and objects.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use pmgate::model::id::{HostId, OutletId, PlanId};
use pmgate::model::switching::{Action, Known, Outcome, Relay, Seen, Terms};
use pmgate::model::time::{Span, Stamp, Tick};
use pmgate::model::view::PduView;
use pmgate::plan::guard::Guarded;
use pmgate::plan::record::{OnFailure, OnOverload, PlanState, Record, StepRecord, StepState};
use pmgate::plan::run::{
    Care, Deed, Heard, Moment, Save, Unanswered, Who, WriteEnd, recorded, reserve,
};
use pmgate::plan::site::NoAnswer;
use pmgate::plan::world::{Goal, Want};
use pmgate::plan::{Refusal, Runs, Sight, plan};
use pmgate::store::journal::{Commit, Journal};

use super::memory::Disk;
use super::physics::Physics;
use super::rack::{Lie, Rack, Seeded, rack};
use super::views;

mod gateway;
mod wishes;

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
    /// Somebody who waited for a plan wishes all that is off on at once.
    Hurried,
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
    Called { who: Who, host: HostId, moment: Moment, answer: Result<(), Unanswered> },
}

#[derive(Debug, Clone)]
struct Sent {
    run: u64,
    who: Who,
    asked: u64,
}

/// A command that was written.
#[derive(Debug, Clone)]
struct Claim {
    run: u64,
    socket: usize,
    /// Whether the contact was where it should be at any moment since.
    came_true: bool,
    /// Whether the outlet's meter, as the gateway saw it, told of a load then.
    was_loaded: bool,
}

/// What a meter must tell for an off to be believed by it, mW.
const LOADED: i64 = 20_000;

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
    log: Disk,
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
    /// How often somebody is in a hurry as soon as a plan is over.
    hurries_left: usize,
    ids: u64,
    /// What somebody in a hurry switches next, and the plan that he waits for.
    hands: Vec<(usize, Relay)>,
    hand: Option<PlanId>,
    /// How often each plan told each outlet each thing: a step has another number once a plan was planned anew.
    sent: BTreeMap<(PlanId, OutletId, Relay), usize>,
    /// Hosts whose webhook before an off was called in this run of the gateway, with whether it has answered.
    drains: BTreeMap<(PlanId, HostId), bool>,
    /// What is to come of each command of this run of the gateway: it may be said to be done only once that is so.
    claims: BTreeMap<(PlanId, OutletId, Relay), Claim>,
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
        // Dice of their own: what came later leaves other worlds as they were.
        let mut beside = Seeded(seed ^ 0x6D65_7465_7273);
        let mut rack = rack(&mut random, &mut beside);
        if !inrush {
            rack.site.hosts.draws_mut().for_each(|draw| draw.inrush = draw.boot);
        }
        let hurries_left = if beside.chance(40) { beside.within(1, 4) as usize } else { 0 };
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
            hurries_left,
            ids: 0,
            hands: Vec::new(),
            hand: None,
            sent: BTreeMap::new(),
            drains: BTreeMap::new(),
            claims: BTreeMap::new(),
            known: BTreeMap::new(),
            dropped: BTreeSet::new(),
            woken: None,
            verbose,
            story: Story::default(),
            disk,
            log: Disk::default(),
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

    /// What there is, for whoever replays it.
    fn introduces(&self) {
        if !self.verbose {
            return;
        }
        for breaker in &self.rack.breakers {
            let load = self.physics.carries(&self.rack, breaker);
            println!("{}: {} of {} VA", breaker.name, load / 1_000, breaker.rating / 1_000);
        }
        for card in &self.rack.cards {
            println!("{}: polled every {} ms, {:?}", card.id, card.poll_ms, card.meters);
        }
        for load in &self.rack.loads {
            let cords = load.cords.iter().map(|cord| &self.rack.sockets[*cord]);
            let cords: Vec<String> = cords
                .map(|of| format!("{} {}", of.id, if of.closed { "on" } else { "off" }))
                .collect();
            let said = self.rack.site.hosts.get(&load.id).and_then(|host| host.draw);
            println!("{} at {}: {:?}; said: {said:?}", load.id, cords.join(", "), load.truth);
        }
    }

    fn wrong(&mut self, what: &str) {
        self.say(|| format!("WRONG: {what}"));
        self.story.wrong.push(format!("at {} ms: {what}", self.now));
    }

    /// Lets the world go on until nothing is left to be done.
    pub fn live(mut self) -> Story {
        self.introduces();
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
        // What is told soonest comes first: this is asked after all that happens.
        let running = || self.known.values().any(|state| *state == PlanState::Running);
        if !self.up || running() || !self.runs.is_quiet() || self.runs.wake().is_some() {
            return false;
        }
        let wishes = self.happens.values().any(|what| {
            matches!(
                what,
                Happens::Wished
                    | Happens::Hurried
                    | Happens::ByHand
                    | Happens::Arrives { .. }
                    | Happens::Moves { .. }
                    | Happens::Dies(_)
                    | Happens::Killed
            )
        });
        !wishes
    }

    fn observe(&mut self) {
        if let Some(trip) = self.physics.tripped.first().cloned() {
            self.wrong(&trip);
        }
        for (host, load) in self.rack.loads.iter().enumerate() {
            if self.dropped.contains(&host) {
                continue;
            }
            if !load.cords.iter().any(|cord| self.physics.is_live(*cord)) {
                let text = format!("host {} was cut, and nobody asked for it", load.id);
                self.wrong(&text);
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
            self.wrong(&format!("plans {open:?} never ended"));
        }
        let Some(journal) = &self.journal else { return };
        let sound = journal.verify_audit().unwrap();
        if let Err(broken) = sound {
            self.wrong(&broken.to_string());
        }
        let Some(journal) = &self.journal else { return };
        let plans = journal.latest(1_000, None).unwrap();
        for kept in plans {
            let record = pmgate::switching::parse("a plan", &kept).unwrap();
            self.story.plans += 1;
            self.story.done += usize::from(record.state == PlanState::Done);
            if record.state == PlanState::Running {
                self.wrong(&format!("plan {} is still open in the journal", record.id));
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
            Happens::Wished => {
                if self.up {
                    let goals = self.goals();
                    self.wished(&goals);
                } else {
                    self.later(5_000, Happens::Wished);
                }
            }
            Happens::Hurried if self.up => {
                let goals = self.dark();
                self.wished(&goals);
            }
            Happens::ByHand => self.by_hand(),
            Happens::Cancels => self.cancels(),
            Happens::Polled(card) => self.polled(card),
            Happens::Answers { run, what } if run == self.run && self.up => self.answers(what),
            Happens::Arrives { socket, relay, first } => self.arrives(socket, relay, first),
            Happens::Moves { socket, relay } => self.moves(socket, relay),
            Happens::Durable { run, plan, generation } if run == self.run && self.up => {
                self.hear(Heard::Saved { plan, generation, ok: true });
            }
            // What was meant for a gateway that is no more.
            Happens::Answers { .. } | Happens::Durable { .. } | Happens::Hurried => {}
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
            for ((_, _, wished), claim) in &mut self.claims {
                claim.came_true |= claim.socket == physical && (*wished == Relay::On) == closed;
            }
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
            Answer::Called { who, host, moment, answer } => {
                self.say(|| format!("  the webhook of {host} answers {answer:?}"));
                let goes_on = self.rack.site.hosts[&host].before_off == Some(NoAnswer::GoOn);
                if moment == Moment::BeforeOff && (goes_on || answer.is_ok()) {
                    self.drains.insert((who.plan.clone(), host), true);
                }
                self.hear(Heard::Called { who, answer });
            }
        }
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
