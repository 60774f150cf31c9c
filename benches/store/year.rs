//! A year of four PDUs of 48 outlets: made through the production writer and keeper on simulated time, with retention as
//! it is by default, then asked as clients ask. Limits are those of the store's design; ratios to them are printed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pmgate::model::id::PduId;
use pmgate::model::metric::Metric;
use pmgate::model::reading::Datum;
use pmgate::model::time::{Span, Stamp};
use pmgate::series::window::{Aggregate, Buckets};
use pmgate::store::archive::{Archive, Settings, bytes_in};
use pmgate::store::keeper;
use pmgate::store::reader::{Scan, scan_runs};
use pmgate::store::writer::{Counts, Row, Writer};

use super::{archive, cpu, layout, rss_kib};

/// 2026-01-01.
const FIRST: i64 = 20_454;
const DAYS: i64 = 365;
/// How often is polled, from how many days before the end on: as racks do while the readings are there, and less often what
/// is minutes or hours at the end, for the making to end soon. An hour takes the same room then, a minute less.
const EVERY: [(i64, i64); 3] = [(15, 10_000), (92, 60_000), (DAYS, 600_000)];
const PDUS: usize = 4;
const OUTLETS: u16 = 48;
/// What is read of each outlet.
const METRICS: [Metric; 4] = [Metric::State, Metric::Current, Metric::Power, Metric::Energy];
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// Memory while serving, time to the first answer, and for a graph of a month.
const LIMITS: (f64, f64, f64) = (64.0, 2_000.0, 50.0);

struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn even(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, of variance 1.
    fn noise(&mut self) -> f64 {
        ((0..4).map(|_| self.even()).sum::<f64>() - 2.0) * 3.0_f64.sqrt()
    }
}

/// A load as outlets of a rack have them: empty, idle, or of jobs over a daily cycle; noise that forgets slowly.
struct Load {
    base: f64,
    kind: u16,
    phase: f64,
    drift: f64,
    job: f64,
    until_ms: i64,
    energy_wh: f64,
}

impl Load {
    fn new(outlet: u16, dice: &mut Dice) -> Self {
        let base = if outlet % 12 == 11 { 0.0 } else { 60.0 + 320.0 * dice.even() };
        let energy_wh = 1e5 * f64::from(outlet + 1);
        let phase = dice.even();
        Self { base, kind: outlet % 3, phase, drift: 0.0, job: 0.0, until_ms: 0, energy_wh }
    }

    fn watts(&mut self, at_ms: i64, step_ms: i64, dice: &mut Dice) -> f64 {
        if self.base == 0.0 {
            return 0.0;
        }
        self.drift = 0.92 * self.drift + dice.noise();
        let mut watts = self.base;
        if self.kind == 0 {
            watts += self.drift * 0.4;
        } else {
            let turn = at_ms as f64 / DAY_MS as f64 + self.phase;
            watts += self.drift * self.base * 0.008;
            watts += self.base * 0.12 * (std::f64::consts::TAU * turn).sin();
            if at_ms >= self.until_ms {
                self.until_ms = at_ms + 60_000 + (-dice.even().ln() * HOUR_MS as f64) as i64;
                self.job = [0.0, 0.0, 0.25, 0.5][(dice.even() * 4.0) as usize % 4];
            }
            watts += self.job * self.base;
        }
        self.energy_wh += watts * step_ms as f64 / HOUR_MS as f64;
        watts
    }
}

struct Pdu {
    id: PduId,
    loads: Vec<Load>,
    dice: Dice,
    volts: f64,
}

impl Pdu {
    fn new(number: usize) -> Self {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1) << 20);
        let loads = (0..OUTLETS).map(|outlet| Load::new(outlet, &mut dice)).collect();
        let id = format!("pdu-{number}").parse().unwrap();
        Self { id, loads, dice, volts: 0.0 }
    }

    /// What each outlet reads, in the order of `METRICS`, as kept steps of what metered PDUs resolve.
    fn poll(&mut self, at_ms: i64, step_ms: i64) -> Vec<[i64; 4]> {
        self.volts = 0.9 * self.volts + 0.07 * self.dice.noise();
        let turn = std::f64::consts::TAU * at_ms as f64 / DAY_MS as f64;
        let volts = 230.0 + 1.5 * turn.sin() + self.volts;
        let dice = &mut self.dice;
        let read = |load: &mut Load| {
            let watts = load.watts(at_ms, step_ms, dice);
            let power_factor = (0.9 + watts / 4_000.0 + 0.003 * dice.noise()).clamp(0.01, 1.0);
            let power_factor = if watts > 0.0 { power_factor } else { 0.0 };
            let apparent = if watts > 0.0 { watts / power_factor } else { 0.0 };
            [
                1,
                (apparent / volts * 1_000.0).round() as i64,
                watts.round() as i64 * 1_000,
                load.energy_wh.floor() as i64 * 1_000,
            ]
        };
        self.loads.iter_mut().map(read).collect()
    }
}

/// The last moment that is stored: in the middle of an hour of the last day.
fn end() -> Stamp {
    Stamp((FIRST + DAYS) * DAY_MS - HOUR_MS / 2)
}

/// Makes the year.
pub fn make(args: &[String]) {
    let [dir] = args else { panic!("DIR") };
    let archive = archive(Path::new(dir), Settings { free_percent: 0, ..Settings::default() });
    let counts = Arc::new(Counts::default());
    let mut writer = Writer::new(archive.clone(), counts.clone());
    let layout = layout(OUTLETS, &METRICS);
    let place = super::places(&layout, &METRICS);
    let mut pdus: Vec<Pdu> = (0..PDUS).map(Pdu::new).collect();
    let (mut stored, mut samples) = (0.0, 0_u64);
    let began = Instant::now();
    let before = cpu();
    for hour in FIRST * 24..(FIRST + DAYS) * 24 {
        let before_end = (FIRST + DAYS) - hour.div_euclid(24);
        let (_, step_ms) = EVERY.into_iter().find(|(days, _)| before_end <= *days).unwrap();
        let until = ((hour + 1) * HOUR_MS).min(end().0);
        let mut rows = Vec::new();
        for at in (hour * HOUR_MS..until).step_by(step_ms as usize) {
            for pdu in &mut pdus {
                let read = pdu.poll(at, step_ms);
                let datum = |(slot, at): (usize, &usize)| {
                    (slot as u16, Datum::Value(read[at / METRICS.len()][at % METRICS.len()]))
                };
                let data: Vec<_> = place.iter().enumerate().map(datum).collect();
                samples += data.len() as u64;
                rows.push(Row { pdu: pdu.id.clone(), layout: layout.clone(), at: Stamp(at), data });
            }
        }
        let from = cpu();
        rows.chunks(PDUS).for_each(|rows| writer.write(rows));
        keeper::round(&archive, Stamp(until + 180_000));
        stored += cpu() - from;
        if hour % (24 * 30) == 0 {
            eprintln!("day {}, {:.0} s", hour / 24 - FIRST, began.elapsed().as_secs_f64());
        }
    }
    writer.flush();
    let dropped = counts.dropped.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((dropped, archive.alarms()), (0, Vec::new()));
    drop(writer);
    drop(archive);
    let by = |word: &str| -> (usize, u64) {
        let dirs = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mine = dirs.filter(|e| e.file_name().to_string_lossy().starts_with(word));
        mine.fold((0, 0), |(count, bytes), e| (count + 1, bytes + bytes_in(&e.path())))
    };
    let kinds = ["head-", "day-", "minutes-", "hours-"].map(|word| {
        let (count, bytes) = by(word);
        format!("\"{word}\":{{\"dirs\":{count},\"bytes\":{bytes}}}")
    });
    println!(
        "{{\"samples\":{samples},\"bytes\":{},{},\"cpu_s\":{:.0},\"store_cpu_us\":{:.4},\"wall_s\":{:.0},\"rss_kib\":{}}}",
        bytes_in(Path::new(dir)),
        kinds.join(","),
        cpu() - before,
        stored / samples as f64 * 1e6,
        began.elapsed().as_secs_f64(),
        rss_kib()
    );
}

/// One graph: power of some outlets of a PDU, the mean of each step. Milliseconds it took, and points with a value.
fn graph(archive: &Archive, pdu: &str, outlets: &[u16], days: f64, step: Span) -> (f64, usize) {
    let began = Instant::now();
    let pdu: PduId = pdu.parse().unwrap();
    let columns: Vec<(String, Metric)> =
        outlets.iter().map(|outlet| (outlet.to_string(), Metric::Power)).collect();
    let step_ms = step.0 as i64;
    let start = Stamp((end().0 - (days * DAY_MS as f64) as i64).div_euclid(step_ms) * step_ms);
    let mut buckets: Vec<Buckets> =
        columns.iter().map(|_| Buckets::new(start, end(), step, Aggregate::Avg)).collect();
    let asked = Scan { pdu: &pdu, columns: &columns, start, end: end(), step: Some((start, step)) };
    scan_runs(archive, &asked, &mut |number, run| {
        buckets[number].take_run(run);
        true
    })
    .unwrap();
    let points = buckets.into_iter().flat_map(Buckets::finish).filter(|b| b.value.is_ok()).count();
    (began.elapsed().as_secs_f64() * 1e3, points)
}

/// Asks the year, in a process that has only that to do.
pub fn ask(args: &[String]) {
    let [dir] = args else { panic!("DIR") };
    let began = Instant::now();
    let archive = archive(Path::new(dir), Settings { free_percent: 0, ..Settings::default() });
    keeper::find_rows(&archive);
    let (_, points) = graph(&archive, "pdu-0", &[7], 1.0 / 24.0, Span(10_000));
    let first = began.elapsed().as_secs_f64() * 1e3;
    println!(
        "first answer after {first:.1} ms ({points} points), {:.2} of the limit",
        first / LIMITS.1
    );
    let all: Vec<u16> = (1..=OUTLETS).collect();
    for (what, outlets, days, step, limit) in [
        ("a month of one outlet by the hour, cold", &all[6..7], 30.0, 3_600_000, Some(LIMITS.2)),
        ("a month of one outlet by the hour", &all[6..7], 30.0, 3_600_000, Some(LIMITS.2)),
        ("a month of one outlet by 15 minutes, cold", &all[8..9], 30.0, 900_000, Some(LIMITS.2)),
        ("a month of one outlet by 15 minutes", &all[8..9], 30.0, 900_000, Some(LIMITS.2)),
        ("a month of one outlet by the minute", &all[8..9], 30.0, 60_000, None),
        ("a day of one outlet by the minute", &all[6..7], 1.0, 60_000, None),
        ("a day of 48 outlets by the minute", &all[..], 1.0, 60_000, None),
        ("three months of one outlet by the minute", &all[6..7], 90.0, 60_000, None),
        ("the year of one outlet by the hour", &all[6..7], 365.0, 3_600_000, None),
        ("the year of 48 outlets by the day", &all[..], 365.0, DAY_MS as u64, None),
    ] {
        let (ms, points) = graph(&archive, "pdu-1", outlets, days, Span(step));
        let ratio =
            limit.map_or_else(String::new, |limit| format!(", {:.2} of the limit", ms / limit));
        println!("{what}: {ms:.1} ms, {points} points{ratio}");
    }
    let mib = rss_kib() as f64 / 1024.0;
    println!("memory at most {mib:.1} MiB, {:.2} of the limit", mib / LIMITS.0);
}
