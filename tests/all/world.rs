//! The world simulation: the gateway's own planner, executor and journal on simulated racks whose breakers really trip,
//! with cards that are slow, lie, stick, reboot and lose answers, a network that delays and doubles, and crashes at every
//! write of the journal. A seed determines a world; `cargo world SEED` replays it and tells what happened.
//!
//! cargo world [SEED | --seeds N [--from SEED] | --minutes N] [--without room|inrush|quiesce|feeds|looking|witness]

#![allow(
    clippy::unwrap_used,
    clippy::missing_docs_in_private_items,
    clippy::print_stdout,
    missing_docs
)]

#[path = "world/memory.rs"]
mod memory;
#[path = "world/physics.rs"]
mod physics;
#[path = "world/rack.rs"]
mod rack;
#[path = "world/run.rs"]
mod run;
#[path = "world/views.rs"]
mod views;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pmgate::plan::run::Care;

use run::{Story, World};

/// Worlds that a test run goes through, unless its time is over first.
const SEEDS: u64 = 10_000;
/// Worlds in which each lack of care has to show.
const MUTANT_SEEDS: u64 = 500;
/// Worlds of a build that is not optimised, some twenty times slower: `make test` goes through all in one that is.
const FEW: u64 = 100;
const TIME: Duration = Duration::from_mins(5);

fn main() {
    let mut words = std::env::args().skip(1);
    let (mut seeds, mut from, mut time, mut care, mut inrush, mut replay) =
        (seeds_here(), 0, TIME, Care::default(), true, None);
    while let Some(word) = words.next() {
        let mut number = || {
            let word = words.next().unwrap_or_default();
            word.parse::<u64>().unwrap_or_else(|_| panic!("\"{word}\" is no number"))
        };
        match word.as_str() {
            "--seeds" => (seeds, time) = (number(), Duration::MAX),
            "--from" => from = number(),
            "--minutes" => (seeds, time) = (u64::MAX, Duration::from_mins(number())),
            "--without" => match words.next().unwrap_or_default().as_str() {
                "inrush" => inrush = false,
                "room" => care.room = false,
                "quiesce" => care.quiesce = false,
                "feeds" => care.feeds = false,
                "witness" => care.witness = false,
                "looking" => care.looking = false,
                other => panic!("there is no care \"{other}\""),
            },
            // What cargo test hands over to every test program.
            "--nocapture" | "--test-threads" | "--quiet" | "-q" => {}
            word => replay = word.parse::<u64>().ok(),
        }
    }
    if let Some(seed) = replay {
        let story = World::new(seed, care, inrush, true).live();
        println!("{story:?}");
        std::process::exit(i32::from(!story.wrong.is_empty()));
    }
    let found = go_through((from, seeds, time), (care, inrush), false);
    println!(
        "world: {} worlds, {} plans, {} of them done, {} refused, {} commands, {} crashes; the most that a breaker carried: {} ‰ of its rating, for half a second and longer {} ‰",
        found.worlds,
        found.plans,
        found.done,
        found.refused,
        found.writes,
        found.crashes,
        found.most,
        found.lasting
    );
    if let Some((seed, story)) = &found.first {
        println!("seed {seed}: {}", story.wrong.join("; "));
        println!("replay it: cargo world {seed}");
    }
    if care != Care::default() || !inrush {
        // Somebody wants to see it caught.
        println!("{} of {} worlds went wrong", found.wrong, found.worlds);
        return;
    }
    if found.first.is_some() {
        println!("{} of {} worlds went wrong", found.wrong, found.worlds);
        std::process::exit(1);
    }
    if cfg!(debug_assertions) {
        println!("without care: not tried, as this build is not optimised (make test does)");
    } else if !mutants() {
        std::process::exit(1);
    }
    println!("test world ... ok");
}

fn seeds_here() -> u64 {
    if cfg!(debug_assertions) { FEW } else { SEEDS }
}

#[derive(Default)]
struct Found {
    worlds: u64,
    plans: u64,
    done: u64,
    refused: u64,
    writes: u64,
    crashes: u64,
    most: i64,
    lasting: i64,
    wrong: u64,
    first: Option<(u64, Story)>,
}

/// Goes through worlds on every core, until all are through, or the time is over; or, if that is enough, one is wrong.
fn go_through(
    (from, seeds, time): (u64, u64, Duration),
    (care, inrush): (Care, bool),
    one_is_enough: bool,
) -> Found {
    let next = AtomicU64::new(from);
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = std::sync::Mutex::new(Found::default());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = one_is_enough && found.lock().unwrap().wrong > 0;
                    if seed - from >= seeds || began.elapsed() >= time || enough {
                        return;
                    }
                    let live = || World::new(seed, care, inrush, false).live();
                    let story = std::panic::catch_unwind(live).unwrap_or_else(|_| Story {
                        wrong: vec!["it panicked: see above".to_owned()],
                        ..Story::default()
                    });
                    let mut found = found.lock().unwrap();
                    found.worlds += 1;
                    found.plans += story.plans as u64;
                    found.done += story.done as u64;
                    found.refused += story.refused as u64;
                    found.writes += story.writes as u64;
                    found.crashes += story.crashes as u64;
                    found.most = found.most.max(story.most);
                    found.lasting = found.lasting.max(story.lasting);
                    if !story.wrong.is_empty() {
                        found.wrong += 1;
                        let earlier = found.first.as_ref().is_none_or(|(first, _)| seed < *first);
                        if earlier {
                            found.first = Some((seed, story));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// The executor with less care than it takes is found out.
fn mutants() -> bool {
    let all = Care::default();
    let mutants = [
        ("room", Care { room: false, ..all }, true),
        ("inrush", all, false),
        ("quiesce", Care { quiesce: false, ..all }, true),
        ("feeds", Care { feeds: false, ..all }, true),
        ("looking", Care { looking: false, ..all }, true),
        ("witness", Care { witness: false, ..all }, true),
    ];
    let mut caught = true;
    for (name, care, inrush) in mutants {
        let found = go_through((0, MUTANT_SEEDS, TIME), (care, inrush), true);
        let first = found.first.as_ref().map_or(String::new(), |(seed, story)| {
            format!("; the first, seed {seed}: {}", story.wrong.join("; "))
        });
        println!(
            "without care of {name}: {} of the first {} worlds go wrong{first}",
            found.wrong, found.worlds
        );
        caught &= found.wrong > 0;
    }
    caught
}
