//! The time-series store by itself: `ingest DIR FILE PDUS FIRST_MS` writes a file of numbers (i64, little-endian, one
//! column after the other: outlet, metric, time) poll by poll as the gateway does, seals, and prints what it cost;
//! `query DIR …` asks; `fill DIR ROWS` writes until killed and prints what is durable; `check DIR` reads
//! all of it; `fuzz COUNT SEED` feeds the decoders; `year DIR` makes a year of four PDUs and `ask-year DIR` asks it; `fixture DIR` makes
//! a store for `tests/stores/`.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pmgate::model::metric::{Metric, Scope};
use pmgate::model::reading::Datum;
use pmgate::model::time::{Span, Stamp};
use pmgate::model::topology::{Layout, Part, Slot};
use pmgate::series::window::{Aggregate, Buckets};
use pmgate::store::archive::{Archive, Settings, bytes_in};
use pmgate::store::reader::{Item, Scan, scan, scan_runs};
use pmgate::store::writer::{Counts, Row, Writer};
use pmgate::store::{keeper, roll};

#[path = "store/fixture.rs"]
mod fixture;
#[path = "store/year.rs"]
mod year;

const METRICS: [Metric; 8] = [
    Metric::State,
    Metric::Current,
    Metric::Power,
    Metric::ApparentPower,
    Metric::PowerFactor,
    Metric::Voltage,
    Metric::Energy,
    Metric::Frequency,
];
const STEP_MS: i64 = 10_000;

/// CPU seconds of this process, its ended threads too.
fn cpu() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn rss_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn archive(dir: &Path, settings: Settings) -> Arc<Archive> {
    let alarm = Box::new(|kind: &'static str, text: String| eprintln!("{kind}: {text}"));
    Arc::new(Archive::open(dir, settings, alarm).unwrap())
}

fn layout(outlets: u16, metrics: &[Metric]) -> Arc<Layout> {
    let part = |number: u16| Part { number, id: number.to_string(), ..Part::default() };
    let slots = (0..outlets).flat_map(|part| {
        metrics.iter().map(move |metric| Slot { scope: Scope::Outlet, part, metric: *metric })
    });
    let parts = [vec![], vec![], vec![], (1..=outlets).map(part).collect(), vec![]];
    Layout::new(parts, slots.collect())
}

/// Where the value of each slot is among outlets' values in the order of metrics: slots are sorted by metric within an
/// outlet.
fn places(layout: &Layout, metrics: &[Metric]) -> Vec<usize> {
    let place = |slot: &Slot| {
        let metric = metrics.iter().position(|metric| *metric == slot.metric).unwrap();
        usize::from(slot.part) * metrics.len() + metric
    };
    layout.slots().iter().map(place).collect()
}

fn ingest(args: &[String]) {
    let [dir, file, pdus, metrics, first] = args else { panic!("DIR FILE PDUS METRICS FIRST_MS") };
    let (pdus, first): (usize, i64) = (pdus.parse().unwrap(), first.parse().unwrap());
    let metrics = if metrics == "8" { &METRICS[..] } else { &METRICS[2..3] };
    let bytes = std::fs::read(file).unwrap();
    let values: Vec<i64> =
        bytes.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap())).collect();
    drop(bytes);
    let columns = pdus * 48 * metrics.len();
    let polls = values.len() / columns;
    let layout = layout(48, metrics);
    let place = places(&layout, metrics);
    // Rows are made before, as a poll makes them; what the store does with them is what counts.
    let row = |poll: usize, pdu: usize| {
        let datum = |(slot, at): (usize, &usize)| {
            let value = values[(pdu * 48 * metrics.len() + at) * polls + poll];
            (slot as u16, Datum::Value(value))
        };
        Row {
            pdu: format!("pdu-{pdu}").parse().unwrap(),
            layout: layout.clone(),
            at: Stamp(first + poll as i64 * STEP_MS),
            data: place.iter().enumerate().map(datum).collect(),
        }
    };
    let archive = archive(Path::new(dir), Settings::default());
    let mut writer = Writer::new(archive.clone(), Arc::new(Counts::default()));
    let (mut spent, mut wall) = (0.0, 0.0);
    let hour = 360;
    for from in (0..polls).step_by(hour) {
        let rows: Vec<Row> = (from..(from + hour).min(polls))
            .flat_map(|poll| (0..pdus).map(move |pdu| (poll, pdu)))
            .map(|(poll, pdu)| row(poll, pdu))
            .collect();
        let (before, began) = (cpu(), Instant::now());
        // As the gateway does: one poll of each PDU, row by row.
        rows.chunks(pdus).for_each(|rows| writer.write(rows));
        // A minute before the day's grace ends, so that the day itself is sealed at the end, by itself.
        keeper::round(&archive, Stamp(first + (from + hour) as i64 * STEP_MS + 180_000));
        spent += cpu() - before;
        wall += began.elapsed().as_secs_f64();
    }
    writer.flush();
    let (before, began) = (cpu(), Instant::now());
    let live = bytes_in(Path::new(dir));
    keeper::seal_all(&archive).unwrap();
    let (sealing, seal_wall) = (cpu() - before, began.elapsed().as_secs_f64());
    drop(writer);
    let samples = (columns * polls) as f64;
    let by = |word: &str| -> u64 {
        let dirs = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mine = dirs.filter(|e| e.file_name().to_string_lossy().starts_with(word));
        mine.map(|entry| bytes_in(&entry.path())).sum()
    };
    let bytes = bytes_in(Path::new(dir));
    let (day_bytes, hour_bytes) = (by("day-"), by("hours-"));
    // What the readings become when they go: measured in a copy, for the store itself is asked afterwards.
    let copied = format!("{dir}.minutes");
    let status = std::process::Command::new("cp").args(["-a", dir, &copied]).status();
    assert!(status.unwrap().success());
    let before = cpu();
    let gone = self::archive(Path::new(&copied), Settings::default());
    for shelf in gone.shelves() {
        roll::before_going(&gone, shelf.name, true).unwrap();
    }
    let rolling = cpu() - before;
    drop((gone, archive));
    let minute_bytes = bytes_in(Path::new(&copied)) - bytes;
    std::fs::remove_dir_all(&copied).unwrap();
    println!(
        "{{\"samples\":{samples},\"live_bytes\":{live},\"day_bytes\":{day_bytes},\"hour_bytes\":{hour_bytes},\"bytes\":{bytes},\"bytes_per_sample\":{:.4},\"raw_bytes_per_sample\":{:.4},\"minute_bytes_per_sample\":{:.4},\"ingest_cpu_us\":{:.4},\"seal_day_cpu_us\":{:.4},\"minutes_cpu_us\":{:.4},\"wall_s\":{wall:.2},\"seal_wall_s\":{seal_wall:.2},\"rss_kib\":{}}}",
        bytes as f64 / samples,
        day_bytes as f64 / samples,
        minute_bytes as f64 / samples,
        spent / samples * 1e6,
        sealing / samples * 1e6,
        rolling / samples * 1e6,
        rss_kib()
    );
}

/// Power of outlets over a time, by steps, summed per PDU.
fn query(args: &[String]) {
    let [dir, pdus, outlets, start, end, step, rounds] = args else {
        panic!("DIR PDUS OUTLETS START_MS END_MS STEP_MS ROUNDS")
    };
    let number = |text: &String| text.parse::<i64>().unwrap();
    let (start, end) = (Stamp(number(start)), Stamp(number(end)));
    let step = Span(number(step) as u64);
    let opened = Instant::now();
    let archive = archive(Path::new(dir), Settings::default());
    let columns: Vec<(String, Metric)> =
        (1..=number(outlets)).map(|n| (n.to_string(), Metric::Power)).collect();
    let columns = if columns.len() == 1 { vec![("7".to_owned(), Metric::Power)] } else { columns };
    let opened = opened.elapsed();
    let mut first = None;
    let mut spent = Vec::new();
    let mut points = 0;
    for _ in 0..number(rounds) {
        let (before, began) = (cpu(), Instant::now());
        points = 0;
        for pdu in 0..number(pdus) {
            let pdu = format!("pdu-{pdu}").parse().unwrap();
            let mut buckets: Vec<Buckets> =
                columns.iter().map(|_| Buckets::new(start, end, step, Aggregate::Avg)).collect();
            let asked =
                Scan { pdu: &pdu, columns: &columns, start, end, step: Some((start, step)) };
            scan_runs(&archive, &asked, &mut |number, run| {
                buckets[number].take_run(run);
                true
            })
            .unwrap();
            let mut sums = vec![0.0; (end.since(start).0 / step.0.max(1)) as usize + 1];
            for buckets in buckets {
                for (sum, bucket) in sums.iter_mut().zip(buckets.finish()) {
                    if let Ok(value) = bucket.value {
                        *sum += value;
                        points += 1;
                    }
                }
            }
        }
        first = first.or(Some(began.elapsed()));
        spent.push((cpu() - before) * 1e3);
    }
    spent.sort_by(f64::total_cmp);
    println!(
        "{{\"points\":{points},\"open_ms\":{:.2},\"first_ms\":{:.3},\"cpu_ms\":{:.4},\"rss_kib\":{}}}",
        opened.as_secs_f64() * 1e3,
        first.unwrap().as_secs_f64() * 1e3,
        spent[spent.len() / 2],
        rss_kib()
    );
}

/// What row n says of column c: whoever reads it can tell whether it is right.
fn value(n: i64, column: i64) -> i64 {
    ((n * 7_919 + column * 104_729) % 1_000) * 1_000
}

/// Writes polls of one PDU with 48 outlets, ten seconds apart in its own time, sealing as it goes, until it is killed.
/// Says after each flush how many rows are durable.
fn fill(args: &[String]) {
    let [dir, most] = args else { panic!("DIR ROWS") };
    let archive = archive(Path::new(dir), filling());
    keeper::find_rows(&archive);
    let pdu: pmgate::model::id::PduId = "pdu-a".parse().unwrap();
    let layout = layout(48, &METRICS[2..3]);
    let counts = Arc::new(Counts::default());
    let mut writer = Writer::new(archive.clone(), counts.clone());
    let from = durable(&archive).whole;
    println!("from {from}");
    for n in from..most.parse::<i64>().unwrap() {
        let data = (0..48_u16).map(|c| (c, Datum::Value(value(n, i64::from(c))))).collect();
        let at = Stamp(n * STEP_MS);
        writer.write(&[Row { pdu: pdu.clone(), layout: layout.clone(), at, data }]);
        if counts.dropped.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            println!("full at {n}");
            return;
        }
        if n % 20 == 19 {
            writer.flush();
            println!("acked {}", n + 1);
        }
        if n % 100 == 99 {
            keeper::round(&archive, at);
        }
    }
    println!("done");
}

/// How `fill` keeps: readings for a day, so that minutes take their place as it goes.
fn filling() -> Settings {
    Settings { free_percent: 0, raw_days: 1, ..Settings::default() }
}

/// What is there of what [`fill`] wrote, by readings or by minutes.
struct Durable {
    /// Rows from the first on without a hole.
    whole: i64,
    rows: i64,
    wrong: u64,
    /// What is known to be damaged.
    damaged: usize,
}

/// Where the store cannot be read at present, as on a disk without a free byte, it says so and ends.
fn durable(archive: &Archive) -> Durable {
    let pdu: pmgate::model::id::PduId = "pdu-a".parse().unwrap();
    let columns: Vec<(String, Metric)> =
        (1..=48).map(|n: i64| (n.to_string(), Metric::Power)).collect();
    let (start, end) = (Stamp(0), Stamp(i64::MAX));
    let step = Some((start, Span(60_000)));
    let asked = Scan { pdu: &pdu, columns: &columns, start, end, step };
    let (mut next, mut rows, mut wrong) = (vec![0_i64; 48], 0, 0);
    let failed = |error| -> usize {
        println!("{{\"error\":\"{error}\"}}");
        std::process::exit(0);
    };
    let mut damaged = scan(archive, &asked, &mut |column, item| {
        let (at, count, right) = match item {
            Item::Sample((at, Ok(cell))) => (at.0, 1, cell == value(at.0 / STEP_MS, column as i64)),
            // Hours alone are a loss.
            Item::Rolled(step, width) if step.count > 0 && width == 60_000 => {
                (step.at, width / STEP_MS, *step == rolled(step.at, width, column as i64))
            }
            Item::Sample(_) | Item::Rolled(..) => return true,
        };
        wrong += u64::from(!right);
        rows += if column == 0 { count } else { 0 };
        if next[column] == at / STEP_MS {
            next[column] += count;
        }
        true
    })
    .unwrap_or_else(failed);
    // Of days that have both, the readings too.
    let asked = Scan { step: None, ..asked };
    damaged += scan(archive, &asked, &mut |column, item| {
        let Item::Sample((at, Ok(cell))) = item else { return true };
        wrong += u64::from(cell != value(at.0 / STEP_MS, column as i64));
        true
    })
    .unwrap_or_else(failed);
    Durable { whole: next.into_iter().min().unwrap(), rows, wrong, damaged }
}

/// What a step of [`value`] rolls up to.
fn rolled(at: i64, width: i64, column: i64) -> pmgate::series::rollup::Rolled {
    let numbers = at / STEP_MS..(at + width) / STEP_MS;
    let readings = numbers.map(|n| (n * STEP_MS, Ok(value(n, column))));
    pmgate::series::rollup::roll(readings, width)[0]
}

fn check(args: &[String]) {
    let began = Instant::now();
    let archive = archive(Path::new(&args[0]), Settings::default());
    let Durable { whole, rows, wrong, damaged } = durable(&archive);
    println!(
        "{{\"whole\":{whole},\"rows\":{rows},\"wrong\":{wrong},\"damaged\":{damaged},\"alarms\":{},\"ms\":{}}}",
        archive.alarms().len(),
        began.elapsed().as_millis()
    );
}

/// Feeds every decoder arbitrary and changed bytes.
fn fuzz(args: &[String]) {
    use pmgate::series::{block::Head, cells, column, merge, rollup, row};
    let [count, seed] = args else { panic!("COUNT SEED") };
    let (count, seed) = (count.parse::<u64>().unwrap(), seed.parse::<u64>().unwrap());
    println!("seed {seed}");
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    let mut rows = merge::Rows::default();
    let name = |n: i64| (n.to_string(), "power_w".to_owned());
    let names: Vec<_> = (1..4).map(name).collect();
    let shape = rows.shape(&names);
    for n in 0..200_i64 {
        rows.add(n * 10_000, shape, (0..3).map(|c| Ok(value(n, c))));
    }
    let block = merge::Merged::new(vec![merge::Source::Rows(&rows)]).block(|_, times, column| {
        seeds.push(cells::encode(column.cells()));
        seeds.push(rollup::encode(&rollup::roll_column(times, column, 60_000)));
    });
    seeds.push(block.head.clone());
    seeds.push(column::encode(&(0..300).map(|n| n * n).collect::<Vec<i64>>()));
    seeds.push(column::encode(&[1, 1, 1, 2, 2, 2, 5]));
    seeds.push(row::pack(1, (0..9_i32).map(|n| Datum::Value(i64::from(n)))));
    let (mut read, began) = (0_u64, Instant::now());
    for n in 0..count {
        let mut bytes = if n % 4 == 0 {
            (0..random() % 96).map(|_| random() as u8).collect()
        } else {
            seeds[(random() % seeds.len() as u64) as usize].clone()
        };
        for _ in 0..random() % 4 {
            let length = bytes.len().max(1) as u64;
            match random() % 4 {
                0 => bytes.truncate((random() % length) as usize),
                1 => bytes.insert((random() % length) as usize % (bytes.len() + 1), random() as u8),
                _ => {
                    let at = (random() % length) as usize;
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << (random() % 8);
                    }
                }
            }
        }
        // With a checksum that fits, to get past it.
        if bytes.len() > 5 && n % 3 == 0 {
            bytes[0] = 1;
            let sum = crc32fast::hash(&bytes[5..]).to_le_bytes();
            bytes[1..5].copy_from_slice(&sum);
        }
        let many = (random() % 400) as usize;
        let times: Vec<i64> = (0..many as i64).collect();
        read += u64::from(column::decode(&bytes, many).is_some());
        read += u64::from(cells::decode(&bytes, many).is_some());
        read += u64::from(rollup::decode(&bytes, &times).is_some());
        read += u64::from(row::Packed::open(&bytes).is_ok_and(|row| row.cells().count() < 1 << 20));
        if let Ok(head) = Head::open(&bytes) {
            read += head.columns.iter().map(|entry| head.times_of(entry).len() as u64).sum::<u64>();
        }
    }
    println!(
        "{count} inputs, {read} read, {:.0} s, {} KiB",
        began.elapsed().as_secs_f64(),
        rss_kib()
    );
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.split_first() {
        Some((verb, rest)) if verb == "ingest" => ingest(rest),
        Some((verb, rest)) if verb == "query" => query(rest),
        Some((verb, rest)) if verb == "fill" => fill(rest),
        Some((verb, rest)) if verb == "check" => check(rest),
        Some((verb, rest)) if verb == "fuzz" => fuzz(rest),
        Some((verb, rest)) if verb == "fixture" => fixture::make(rest),
        Some((verb, rest)) if verb == "year" => year::make(rest),
        Some((verb, rest)) if verb == "ask-year" => year::ask(rest),
        _ => println!("see the head of benches/store.rs for what to ask"),
    }
}
