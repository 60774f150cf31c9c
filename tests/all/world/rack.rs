//! A generated rack: PDUs on two feeds, hosts with one cord or two, and what the site says of them.

use std::collections::BTreeMap;

use pmgate::model::id::{HostId, OutletId, PduId};
use pmgate::model::time::Span;
use pmgate::plan::site::{Feed, HostSpec, Member, NoAnswer, Safe, Site};
use pmgate::plan::world::Draw;

/// A generator that a seed determines (SplitMix64).
#[derive(Clone)]
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` to `high`.
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    pub fn ms(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn chance(&mut self, percent: i64) -> bool {
        self.within(1, 100) <= percent
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[(self.next() % of.len() as u64) as usize]
    }
}

/// Volts everywhere, mV.
pub const MILLIVOLTS: i64 = 230_000;

/// What a PDU does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// It reads off, and the contact is welded.
    Welded,
    /// It reads what was told, and its neighbour's relay moves.
    Neighbour,
    /// The relay does not move, and reads so.
    Stuck,
}

/// A PDU card and its manners.
#[derive(Clone, Debug)]
pub struct Card {
    pub id: PduId,
    /// 0 or 1.
    pub side: usize,
    pub branches: usize,
    /// Between two polls, ms.
    pub poll_ms: u64,
    /// One look, ms.
    pub look_ms: u64,
    /// From the arrival of a command until the relay moves, ms.
    pub relay_ms: u64,
    /// What the driver gives it, ms.
    pub takes_ms: u64,
    /// Per cent of commands whose answer is lost.
    pub loses_answers: i64,
    /// Per cent of commands that never arrive.
    pub loses_commands: i64,
    /// Per cent of commands that come late, or twice.
    pub delays: i64,
    /// Per cent of commands that it refuses.
    pub refuses: i64,
    /// When it reboots, ms, and for how long.
    pub reboots: Option<(u64, u64)>,
    pub meters: Meters,
}

/// What the meters of a card are like.
#[derive(Clone, Copy, Debug)]
pub struct Meters {
    /// How often it brings up to date what it shows, ms; 0: whenever it is asked.
    pub every_ms: u64,
    /// Whether each outlet has one, beside the branches and the inlet.
    pub of_outlets: bool,
}

impl Meters {
    const BEST: Self = Self { every_ms: 0, of_outlets: true };
}

/// An outlet of the rack.
#[derive(Clone, Debug)]
pub struct Socket {
    pub id: OutletId,
    pub card: usize,
    pub branch: usize,
    pub host: Option<usize>,
    pub lie: Lie,
    pub closed: bool,
}

/// A host as it really is.
#[derive(Clone, Debug)]
pub struct Load {
    pub id: HostId,
    pub cords: Vec<usize>,
    /// What it draws, mVA; the first moment of each cord is its own.
    pub truth: Draw,
}

/// A breaker: what it is rated, and what hangs on it.
#[derive(Clone, Debug)]
pub struct Breaker {
    pub name: String,
    /// mVA.
    pub rating: i64,
    pub below: Vec<usize>,
}

pub struct Rack {
    pub cards: Vec<Card>,
    pub sockets: Vec<Socket>,
    pub loads: Vec<Load>,
    pub breakers: Vec<Breaker>,
    pub site: Site,
    /// When a side of the pair dies, ms.
    pub dies: Option<(u64, usize)>,
}

/// The most that a meter lags behind what flows, ms: what the gateway allows for.
const LAG_MS: u64 = 5_000;
const BRANCH: i64 = 16_000 * MILLIVOLTS / 1_000;
const INLET: i64 = 32_000 * MILLIVOLTS / 1_000;

pub fn pdu(side: usize, n: usize) -> PduId {
    format!("pdu-{}{n}", ["a", "b"][side]).parse().unwrap()
}

fn card(random: &mut Seeded, side: usize, n: usize) -> Card {
    let slow = random.chance(15);
    let relay_ms = if slow { random.ms(500, 4_000) } else { random.ms(0, 300) };
    let bad = random.chance(30);
    Card {
        id: pdu(side, n),
        side,
        branches: 2,
        poll_ms: random.ms(2_000, 10_000),
        look_ms: random.ms(5, 200),
        relay_ms,
        takes_ms: relay_ms + random.ms(2_000, 5_000),
        loses_answers: if bad { random.within(0, 40) } else { 0 },
        loses_commands: if bad { random.within(0, 20) } else { 0 },
        delays: if random.chance(40) { random.within(10, 50) } else { 0 },
        refuses: if bad { random.within(0, 5) } else { 0 },
        reboots: random.chance(10).then(|| (random.ms(5_000, 120_000), random.ms(10_000, 60_000))),
        meters: Meters::BEST,
    }
}

/// A rack of a seed. What hangs on each limit leaves it room in the beginning, also when one side dies. `beside`: dice for
/// what only some racks have.
pub fn rack(random: &mut Seeded, beside: &mut Seeded) -> Rack {
    let each = random.within(1, 4) as usize;
    let outlets = random.within(6, 12) as usize;
    let mut rack = Rack {
        cards: Vec::new(),
        sockets: Vec::new(),
        loads: Vec::new(),
        breakers: Vec::new(),
        site: Site { inrush: Some(400), fresh: Span::seconds(30), ..Site::default() },
        dies: random.chance(15).then(|| (random.ms(2_000, 120_000), random.within(0, 1) as usize)),
    };
    for side in 0..2 {
        for n in 0..each {
            let made = card(random, side, n);
            let at = rack.cards.len();
            for number in 1..=outlets {
                rack.sockets.push(Socket {
                    id: OutletId { pdu: made.id.clone(), number: number as u16 },
                    card: at,
                    branch: (number - 1) * 2 / outlets,
                    host: None,
                    lie: Lie::None,
                    closed: false,
                });
            }
            rack.cards.push(made);
        }
    }
    let per_side = each * outlets;
    rack.meters(beside);
    let tight = beside.chance(25).then(|| beside.within(8, 14));
    breakers(&mut rack, random, tight);
    hosts(&mut rack, random, per_side, tight.is_none());
    // Lies are rare, and of one kind.
    if random.chance(12) {
        let lie = *random.one(&[Lie::Welded, Lie::Neighbour, Lie::Stuck]);
        let at = (random.next() % rack.sockets.len() as u64) as usize;
        // Who is cabled wrong brings up a load that nobody asked for: a feed that bears but two has no room for that, and
        // whoever switches cannot know.
        if tight.is_none() || lie != Lie::Neighbour {
            rack.sockets[at].lie = lie;
        }
    }
    rack
}

impl Rack {
    /// Gives some racks meters that lag, and PDUs whose outlets have none.
    fn meters(&mut self, random: &mut Seeded) {
        let (lag, bare) = (random.chance(40), random.chance(40));
        for card in &mut self.cards {
            card.meters = Meters {
                every_ms: if lag && random.chance(70) { random.ms(500, LAG_MS) } else { 0 },
                of_outlets: !(bare && random.chance(60)),
            };
        }
    }
}

/// `tight`: what the feeds bear of what their PDUs could take, percent, if they bear but a few hosts.
fn breakers(rack: &mut Rack, random: &mut Seeded, tight: Option<i64>) {
    let each = rack.cards.len() / 2;
    let all: Vec<usize> = (0..rack.sockets.len()).collect();
    for (at, card) in rack.cards.iter().enumerate() {
        let own: Vec<usize> = all.iter().copied().filter(|s| rack.sockets[*s].card == at).collect();
        for branch in 0..card.branches {
            let below = own.iter().copied().filter(|s| rack.sockets[*s].branch == branch).collect();
            let name = format!("{}/B{}", card.id, branch + 1);
            rack.breakers.push(Breaker { name, rating: BRANCH, below });
        }
        let name = format!("{}/I1", card.id);
        rack.breakers.push(Breaker { name, rating: INLET, below: own });
    }
    // The feeds are often the tightest: an eighth to two thirds of what their PDUs could take.
    let part = random.within(12, 66);
    let rating = INLET * each as i64 * tight.unwrap_or(part) / 100;
    // Some sides do not stand in for each other: they may be filled up.
    let paired = random.chance(60);
    if !paired {
        rack.dies = None;
    }
    for side in 0..2 {
        let below = all
            .iter()
            .copied()
            .filter(|s| rack.cards[rack.sockets[*s].card].side == side)
            .collect();
        let name = format!("feed-{}", ["a", "b"][side]);
        rack.breakers.push(Breaker { name: name.clone(), rating, below });
        let of = (0..each).map(|n| Member::Pdu(pdu(side, n))).collect();
        let feed = Feed {
            kind: "feed".into(),
            rating,
            amperes: None,
            derating: None,
            inrush: None,
            of,
            lines: BTreeMap::new(),
            pair: paired.then(|| format!("feed-{}", ["b", "a"][side])),
        };
        rack.site.feeds.insert(name, feed);
    }
}

/// `wish`: whether some is said that is too little. On a feed that bears but two hosts nobody could make up for that.
fn hosts(rack: &mut Rack, random: &mut Seeded, per_side: usize, wish: bool) {
    let mut on: BTreeMap<usize, i64> = BTreeMap::new();
    let scarce = random.chance(50);
    let feed = rack.breakers.last().unwrap().rating;
    // In some racks nobody has measured: all that is said of the loads is too little.
    let wishful = random.chance(25).then(|| random.within(40, 60)).filter(|_| wish);
    for number in 0..per_side {
        let dual = random.chance(55);
        let cords = if dual {
            vec![number, per_side + number]
        } else {
            vec![number + per_side * random.within(0, 1) as usize]
        };
        let steady = random.within(60_000, 450_000);
        let boot = steady * random.within(100, 160) / 100;
        let truth = Draw {
            inrush: (steady * random.within(8, 40)).min(BRANCH * 7 / 2).min(feed * 5 / 2),
            inrush_ms: random.ms(60, 400),
            boot,
            boot_ms: random.ms(2_000, 40_000),
            steady,
        };
        let id: HostId = format!("h{number}").parse().unwrap();
        let outlets: Vec<OutletId> =
            cords.iter().map(|cord| rack.sockets[*cord].id.clone()).collect();
        let mut spec = HostSpec::fed_by(id.as_str(), outlets);
        spec.priority = random.within(0, 3) as i32;
        spec.min_off = Span(random.ms(0, 6_000));
        spec.safe = *random.one(&[Safe::Stay, Safe::On, Safe::On, Safe::Off]);
        spec.hold = Some(Span(random.ms(1_000, 5_000)));
        let least = if wish { 0 } else { 100 };
        spec.draw = Some(declared(random, truth, wishful, least));
        // Some are drained; by their numbers, so that racks are what they were.
        if number % 3 == 1 {
            spec.before_off = Some([NoAnswer::Stop, NoAnswer::GoOn][number / 3 % 2]);
            spec.after_on = (number % 2 == 0).then_some(NoAnswer::GoOn);
        }
        if number > 0 && random.chance(10) {
            let before = random.within(0, number as i64 - 1);
            spec.after = vec![format!("h{before}").parse().unwrap()];
        }
        rack.site.hosts.insert(id.clone(), spec);
        let host = rack.loads.len();
        for cord in &cords {
            rack.sockets[*cord].host = Some(host);
        }
        rack.loads.push(Load { id, cords: cords.clone(), truth });
        // On from the beginning, if every breaker above it has room for it, also when it has to carry it alone.
        let wanted = random.chance(if scarce { 85 } else { 50 });
        let room = rack.breakers.iter().enumerate().all(|(at, breaker)| {
            let under = cords.iter().any(|cord| breaker.below.contains(cord));
            let load = on.get(&at).copied().unwrap_or(0);
            !under || (load + steady) * 100 <= breaker.rating * 70
        });
        if wanted && room {
            for cord in &cords {
                rack.sockets[*cord].closed = true;
            }
            for (at, breaker) in rack.breakers.iter().enumerate() {
                if cords.iter().any(|cord| breaker.below.contains(cord)) {
                    *on.entry(at).or_default() += steady;
                }
            }
        }
    }
}

/// What the site says of a load: mostly the truth or more, sometimes less, `least` percent of it.
fn declared(random: &mut Seeded, truth: Draw, wishful: Option<i64>, least: i64) -> Draw {
    let part = match wishful {
        Some(part) => part,
        None if random.chance(12) => random.within(40, 95),
        None => random.within(100, 120),
    };
    let part = part.max(least);
    let inrush = truth.inrush * part.max(100) / 100;
    Draw { inrush, boot: truth.boot * part / 100, steady: truth.steady * part / 100, ..truth }
}
