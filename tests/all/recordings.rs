//! Drivers against recordings: those of real devices where they are at hand, and the project's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pmgate::device::adopt::{Adopted, over};
use pmgate::link::recording::Recording;
use pmgate::link::{Exchange, Line, Link, Patience};
use pmgate::model::ask::{Ask, Reply};
use pmgate::model::oid::Oid;
use pmgate::model::reading::Datum;
use pmgate::profile::catalog::Catalog;
use pmgate::profile::detect::Undetected;
use pmgate::profile::format::Speech;
use pmgate::profile::sweep::Item;
use serde_json::Value;

use crate::detect::detect;
use crate::rig::shared;
use crate::rows::catalog;

/// Families that have a driver.
const FAMILIES: &[&str] = &[
    "ts-bspdu",
    "janitza",
    "apc-epdu-text",
    "algcom",
    "abb-cms700",
    "apc-cpdu",
    "apc-epdu",
    "apc-masterswitch",
    "apc-rpdu",
    "apc-xpdu",
    "aten",
    "chatsworth",
    "cyberpower-epdu",
    "dell-rpdu",
    "digipower",
    "digital-loggers",
    "eaton-epdu",
    "eaton-nlogic",
    "fs-net",
    "gude-gude-epc_1104",
    "gude-gude-epc_1202",
    "hpe-pdu3",
    "hpe-pdumm",
    "iboot",
    "ict-dc",
    "liebert-mph2",
    "panduit-g5",
    "raritan-px1",
    "raritan-px2",
    "rittal-pdu",
    "rnx-updu",
    "schleifenbauer",
    "sentry3",
    "sentry4",
    "tripplite",
    "vertiv-v5",
    "wti",
];

fn line(path: &Path) -> Line {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let recording =
        Recording::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Line::new(Box::new(recording), Patience::new((0, 1_000, 1)))
}

async fn adopt(path: &Path) -> Adopted {
    let catalog = catalog();
    let mut line = line(path);
    let id = detect(catalog, &mut line).await;
    let id = id.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    over(line, catalog.get(&id).unwrap().clone(), None).await.unwrap()
}

/// The driver of each recording under `detect`, or which ones came near it, if any: what is no PDU is taken for none,
/// and neither is a PDU of which nothing is known but its vendor.
const DETECTED: [(&str, Result<&str, &[&str]>); 28] = [
    ("apc_ap7998b", Err(&["apc-masterswitch", "apc-cpdu", "apc-rpdu", "apc-rpdu2"])),
    ("apc_ats", Err(&[])),
    ("apc_emu", Err(&[])),
    ("apc_masterswitch", Ok("apc-masterswitch")),
    ("apc_metered-rack", Ok("apc-rpdu")),
    ("apc_smt750x-nmc2", Err(&[])),
    ("cyberpower", Err(&["cyberpower"])),
    ("cyberpower_rmcard202", Err(&["cyberpower"])),
    ("e3meterdc", Err(&[])),
    ("eaton-mgeups_9px", Err(&[])),
    ("eatonups", Err(&[])),
    ("enlogic-pdu", Ok("enlogic")),
    ("ets", Err(&[])),
    ("geist-pdu", Ok("geist-v3")),
    ("geist-watchdog", Err(&[])),
    ("gude-esb_7213-12", Err(&[])),
    ("hpe-ipdu", Ok("hpe-mpdu")),
    ("hpe-rtups", Err(&[])),
    ("liebert_apm", Err(&["liebert-mph2"])),
    ("linux", Err(&[])),
    ("mgepdu", Err(&[])),
    ("poweralert_ups", Err(&["tripplite-old", "tripplite-ats", "tripplite"])),
    ("raritan-emx", Err(&[])),
    ("raritan-kvm", Err(&[])),
    ("rittal-cmc-iii-pu_iot-interface", Err(&["rittal-pdu"])),
    ("sentry3_smart", Ok("sentry3")),
    ("sentry4_smart", Ok("sentry4")),
    ("webpower-smart2", Err(&[])),
];

#[tokio::test]
async fn recordings_are_told_apart_and_what_is_no_pdu_is_taken_for_none() {
    let Some(dir) = shared().map(|dir| dir.join("recordings/detect")) else { return };
    let catalog = Catalog::embedded().unwrap();
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".snmprec")
        else {
            continue;
        };
        let expected = DETECTED.iter().find(|(file, _)| *file == name);
        let verdict = detect(&catalog, &mut line(&path)).await;
        let told = match (&verdict, expected.map(|(_, expected)| *expected)) {
            (Ok(id), Some(Ok(driver))) => id.as_str() == driver,
            (Err(Undetected::None { near, .. }), Some(Err(drivers))) => {
                near.len() == drivers.len()
                    && drivers.iter().all(|driver| {
                        let named = format!("(driver {driver})");
                        near.iter().any(|text| text.contains(&named))
                    })
            }
            _ => false,
        };
        if !told {
            wrong.push(format!("{name}: {verdict:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is not read of recordings, scope and class by class, and why: the model has no place for it, or it stands for
/// nothing (outlets that a padded table claims, sensors that are not plugged in).
const NOT_READ: &[(&str, &str)] = &[
    ("apc-cpdu", "pdu peak_power, pdu rating"),
    ("apc_ap7900b", "pdu peak_power, phase peak_current"),
    ("apc_ap8959eu3", "pdu peak_power, phase peak_current"),
    ("apc_isx-pdu", "input voltage, input voltage_ll, pdu neutral_current, phase voltage_ll"),
    (
        "atenpdu",
        "outlet active_power, outlet current, outlet energy, outlet name, outlet state, outlet switchable, outlet voltage",
    ),
    ("chatsworth-pdu", "bank alarm, bank energy_va"),
    ("digital-loggers", "outlet admin_state"),
    ("gude-epc_1104", "outlet switch_count"),
    ("gude-epc_1202", "outlet switch_count"),
    ("iboot_pdu8-2n15", "outlet cycle_time, sensor temperature"),
    ("janitza_generic", "pdu reactive_power, phase reactive_power, phase voltage_ll"),
    ("liebert_mph2rg", "pdu neutral_current"),
    ("panduit", "pdu rating"),
    ("panduit_g5-p32g13m", "pdu rating"),
    ("raritan-pdu", "pdu temperature_cpu"),
    ("raritan-pdu_px3", "sensor door_contact, sensor door_lock, sensor handle_lock"),
    ("rittal-cmc-iii-pu_pdu-controller", "var measure, var text"),
    ("rnx-updu_rn3214", "meter reactive_power, meter type"),
    ("sentry4_switched8i", "inlet rated_power, inlet threshold_overload, line name"),
    ("ts-bspdu", "inlet energy_raw"),
    // What flows in a line between two phases is not what a phase has.
    ("vertiv-pdu_mg02e4w1", "line current"),
];

/// Values of our own words for states that the expectations name otherwise.
fn same_word(expected: &str, read: &str) -> bool {
    let ours = match expected {
        "none" => "no",
        "near_overload" => "high",
        "overload" => "critical",
        "open" => "tripped",
        "1" | "on" | "ok" if read == "closed" => "closed",
        word => word,
    };
    ours.eq_ignore_ascii_case(read)
}

fn compare(expected: &Value, point: &Value) -> Result<(), String> {
    let fail = || {
        Err(format!(
            "{} {} {}: expected {} {}, read {point}",
            expected["scope"],
            expected["class"],
            expected["oid"],
            expected["value"],
            expected["unit"]
        ))
    };
    match (&expected["value"], &point["value"]) {
        (Value::Null, Value::Null) => Ok(()),
        (Value::Number(wanted), Value::Number(read)) => {
            let (scale, unit) = match expected["unit"].as_str() {
                Some("kWh") => (1_000.0, "Wh"),
                Some(unit) => (1.0, unit),
                None => (1.0, ""),
            };
            let (wanted, read) = (wanted.as_f64().unwrap() * scale, read.as_f64().unwrap());
            // Energy is kept to the milliwatt-hour; a family that counts joules has more decimals.
            let step = if unit == "Wh" { 0.000_5 } else { 0.0 };
            let equal = (wanted - read).abs() <= (1e-9 * wanted.abs().max(1.0)).max(step);
            if equal && point["unit"] == unit { Ok(()) } else { fail() }
        }
        // A rating in a text ("32A") is read as a number.
        (Value::String(wanted), Value::Number(read)) => {
            let digits: String =
                wanted.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            if digits.parse() == Ok(read.as_f64().unwrap()) { Ok(()) } else { fail() }
        }
        (Value::String(wanted), Value::String(read)) => {
            if wanted == read || same_word(wanted, read) { Ok(()) } else { fail() }
        }
        // A state that the device says it does not have.
        (Value::String(wanted), Value::Null) if wanted == "unsupported" => Ok(()),
        // What is written with a state that means "nothing there", as for a missing trip sensor.
        (Value::Number(wanted), Value::String(read))
            if read == "closed" && wanted.as_f64() == Some(1.0) =>
        {
            Ok(())
        }
        _ => fail(),
    }
}

#[tokio::test]
async fn real_recordings_read_as_expected_to_the_last_digit() {
    let Some(dir) = shared().map(|dir| dir.join("recordings")) else { return };
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("MANIFEST.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut not_read: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut compared = 0;
    for entry in manifest.as_array().unwrap() {
        if !FAMILIES.contains(&entry["family"].as_str().unwrap()) {
            continue;
        }
        let name = entry["name"].as_str().unwrap();
        let path = dir.join(format!("{name}.snmprec"));
        if !path.exists() {
            continue;
        }
        let adopted = adopt(&path).await;
        let points: Value = serde_json::to_value(pmgate::cli::driver::points(&adopted)).unwrap();
        let expected: Value = serde_json::from_str(
            &std::fs::read_to_string(dir.join(format!("{name}.expected.json"))).unwrap(),
        )
        .unwrap();
        for expected in expected.as_array().unwrap() {
            if expected["class"] == "identity" || expected["class"] == "detect" {
                continue;
            }
            let of_oid: Vec<&Value> = points
                .as_array()
                .unwrap()
                .iter()
                .filter(|point| point["oid"] == expected["oid"])
                .collect();
            if of_oid.is_empty() {
                let of = |key: &str| expected[key].as_str().unwrap_or_default().to_owned();
                let what = format!("{} {}", of("scope"), of("class"));
                not_read.entry(name.to_owned()).or_default().insert(what);
                continue;
            }
            if expected["class"] == "config_list" {
                // "OutletA,0,0,0,0": its first item is the name.
                let first = expected["value"].as_str().unwrap().split(',').next();
                assert_eq!(of_oid[0]["value"].as_str(), first, "{name}");
                continue;
            }
            compared += 1;
            let results: Vec<Result<(), String>> =
                of_oid.iter().map(|point| compare(expected, point)).collect();
            if results.iter().all(Result::is_err) {
                wrong.push(format!("{name}: {}", results[0].clone().unwrap_err()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let joined = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(", ");
    let not_read: BTreeMap<String, String> =
        not_read.into_iter().map(|(name, set)| (name, joined(set))).collect();
    let pinned = NOT_READ.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned()));
    assert_eq!(not_read, pinned.collect::<BTreeMap<_, _>>());
    assert!(compared > 2_000, "only {compared} values were compared");
}

#[tokio::test]
async fn the_projects_own_recordings_prove_their_drivers() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let catalog = Catalog::embedded().unwrap();
    let mut proofs = 0;
    // Several proofs rest on one recording.
    let mut replayed: Option<(PathBuf, Adopted)> = None;
    for profile in catalog.iter() {
        for proof in &profile.proofs {
            let path = dir.join(&proof.recording);
            let adopted = match replayed.take() {
                Some((before, adopted)) if before == path => adopted,
                _ => adopt(&path).await,
            };
            let (_, adopted) = replayed.insert((path.clone(), adopted));
            assert_eq!(adopted.profile.id, profile.id, "{}", path.display());
            for (point, expected) in &proof.expect {
                let read = adopted.points.iter().find(|read| {
                    read.point == *point && proof.part.is_none_or(|part| part == read.row)
                });
                let read =
                    read.unwrap_or_else(|| panic!("{}: {point} was not read", proof.recording));
                let kept = pmgate::profile::expected(*point, expected);
                let same = match kept {
                    Some(kept) => read.datum.value() == Some(kept),
                    // Why there is none is a value, too.
                    None => match read.datum {
                        Datum::Word(word) => word.word() == expected,
                        Datum::Gap(gap) => gap.word() == expected,
                        Datum::Value(_) => false,
                    },
                };
                assert!(
                    same,
                    "{} {point}: expected {expected}, read {:?}",
                    proof.recording, read.datum
                );
                proofs += 1;
            }
        }
    }
    assert!(proofs >= 12, "only {proofs} values are proven");
}

/// Recordings at hand: the project's own, and those of real devices beside it.
fn all_recordings() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let dirs = [Some(own), shared().map(|dir| dir.join("recordings"))];
    let entries = dirs.into_iter().flatten().flat_map(|dir| std::fs::read_dir(dir).unwrap());
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "snmprec"));
    paths.sort();
    paths
}

/// A recorded agent whose replies have a size, and that counts what it is asked. A GETBULK's reply is cut where it no
/// longer fits; a GET that does not fit is refused, as RFC 3416 section 4.2.1 has it.
struct Sized {
    recording: Recording,
    room: usize,
    asked: Arc<AtomicUsize>,
}

/// Bytes of a binding in BER: its own header and those of name and value, with the lengths that these need.
fn bytes((oid, value): &(Oid, pmgate::model::ask::Value)) -> usize {
    use pmgate::model::ask::Value;
    let value = match value {
        Value::Nothing | Value::Other => 0,
        Value::Integer(number) => 8 - (number.unsigned_abs() << 1).leading_zeros() as usize / 8,
        Value::Unsigned(number, _) => 9 - (number << 1 | 1).leading_zeros() as usize / 8,
        Value::Bytes(bytes) => bytes.len(),
        Value::Oid(oid) => oid.wire().len(),
        Value::Ip(_) => 4,
    };
    let head = |length: usize| if length < 128 { 2 } else { 4 };
    let inside = oid.wire().len() + head(oid.wire().len()) + value.max(1) + head(value);
    inside + head(inside)
}

/// Bytes of a message around its bindings: version, community, request id, error fields and the headers of all of them.
const AROUND: usize = 45;

impl Link for Sized {
    fn once<'a>(&'a mut self, ask: &'a Ask, timeout: Duration) -> Exchange<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let Reply::Binds(mut binds) = self.recording.once(ask, timeout).await? else {
                unreachable!("a recording answers with bindings")
            };
            let mut left = self.room - AROUND;
            let fits = binds.iter().take_while(|bind| {
                let fits = bytes(bind) <= left;
                left = left.saturating_sub(bytes(bind));
                fits
            });
            match (fits.count(), ask) {
                (fit, _) if fit == binds.len() => Ok(Reply::Binds(binds)),
                (fit, Ask::GetBulk { .. }) => {
                    binds.truncate(fit);
                    Ok(Reply::Binds(binds))
                }
                _ => Ok(Reply::Refused { status: 1, index: 0 }),
            }
        })
    }
}

/// The table is printed with `--nocapture`: what a poll reads, how many requests that needs at least, and how many it
/// costs once the device is known, counted by the agent.
#[tokio::test]
async fn a_poll_costs_one_request_more_than_its_values_need_at_most() {
    let catalog = Catalog::embedded().unwrap();
    println!("{:36} {:>6} {:>6} {:>8} {:>5}", "recording", "values", "bytes", "at least", "cost");
    let mut wrong = Vec::new();
    let mut polls = 0;
    for path in all_recordings() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let recording = Recording::parse(&text).unwrap();
        let id = detect(&catalog, &mut line(&path)).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let profile = catalog.get(&id).unwrap().clone();
        let Speech::Snmp(manners) = &profile.speech else { unreachable!("a recording is of SNMP") };
        let asked = Arc::new(AtomicUsize::new(0));
        let agent =
            Sized { recording: recording.clone(), room: manners.reply_bytes, asked: asked.clone() };
        let agent = Line::new(Box::new(agent), Patience::new((0, 1_000, 1)));
        let mut adopted = over(agent, profile.clone(), None).await.unwrap();
        for slow in [false, true] {
            let tier = adopted.instance.tier(slow).clone();
            let mut named = false;
            // The second is the one that counts: the first may learn what the device bears.
            for _ in 0..2 {
                asked.store(0, Ordering::Relaxed);
                let mut sweep = tier.set.sweep(adopted.memory);
                while let Some(ask) = sweep.next_ask() {
                    named |= !matches!(ask, Ask::GetBulk { .. });
                    sweep.answer(adopted.line.exchange(&ask).await.unwrap());
                }
                adopted.memory = sweep.finish().1;
            }
            let cost = asked.load(Ordering::Relaxed);
            let of = |item: &Item| {
                let Item::Oid(oid) = item else { unreachable!("a recording is of SNMP") };
                let value = recording.get(oid).map(|recorded| recorded.value.clone());
                bytes(&(oid.clone(), value.unwrap_or(pmgate::model::ask::Value::Nothing)))
            };
            let values = tier.set.items().len();
            let all: usize = tier.set.items().iter().map(of).sum();
            let by_bytes = all.div_ceil(manners.reply_bytes - AROUND);
            // GETBULK brings more bindings than it names; without it a request names each.
            let by_names = if named { values.div_ceil(manners.max_varbinds) } else { 0 };
            let least = by_bytes.max(by_names);
            let pace = if slow { "all" } else { "fast" };
            println!("{:36} {values:>6} {all:>6} {least:>8} {cost:>5}", format!("{name} ({pace})"));
            if cost > least + 1 {
                wrong.push(format!(
                    "{name} ({pace}), driver {id}: {values} values of {all} bytes, {cost} requests"
                ));
            }
            polls += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(polls > 100, "only {polls} polls of recordings were counted");
}

/// What a driver author types in a hurry.
const FAULTY: &str = r#"format = 2
[driver]
id = "Bad Id"
title = "x"
vendor = "x"
protocol = "snmp"
[snmp]
max_varbind = 20
timeout_ms = 50
[[detect]]
read = { oid = "1.3.6.1.2.1.1.2.0" }
[identity]
[table.outlet]
walk = "1.3.6.1.4.1.9.1"
index = ["unit", "outlet"]
number = "outlt"
[[point]]
name = "outlet.powr"
read = { oid = "1.3.6.1.4.1.9.2.{unit}.{outlet}" }
count = "1 W"
every = "fast"
[[point]]
name = "outlet.current"
read = { oid = "1.3.6.1.4.1.9.3.{row}" }
count = "0.1 V"
every = "fats"
[[point]]
name = "outlet.state"
read = { oid = "1.3.6.1.4.1.9.4.{unit}.{outlet}", oops = 1 }
states = { 1 = "on", 2 = "of" }
every = "fast"
[control.outlet.on]
write = [{ oid = "1.3.6.1.4.1.9.5.{unit}.{outlet}", value = -1, as = "gauge" }]
[control.outlet.off]
write = [{ holding = 3, value = 1 }]
verify = { point = "outlet.state", is = "on", within_ms = 5000, poll_ms = 250 }
[control.outlet.cycle]
write = []
[control.startup]
delay   = { oid = "1.3.6.1.4.1.9.6.{row}" }
unit_ms = 0
range   = [30, 0]
values  = [30, 15]
never   = [-1, 15]
off     = { oid = "1.3.6.1.4.1.9.7.{unit}.{outlet}" }
before  = { oid = "1.3.6.1.4.1.9.8.0" }
chain   = { least = { oid = "1.3.6.1.4.1.9.9.0", unit_ms = 1 } }
"#;

#[test]
fn a_faulty_driver_is_told_all_its_faults_with_places_and_mends() {
    let faults = pmgate::profile::load("bad.toml", FAULTY).unwrap_err();
    insta::assert_snapshot!(faults);
}

#[tokio::test]
async fn holes_in_tables_are_gaps_and_not_shifted_values() {
    // Outlet 2 has no power column: its neighbours keep theirs.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/apc-rpdu2.snmprec");
    let text = std::fs::read_to_string(dir).unwrap();
    let hole = "1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.2|";
    let holey: String = text
        .lines()
        .filter(|line| !line.starts_with(hole))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_ne!(holey.len(), text.len());
    let catalog = Catalog::embedded().unwrap();
    let profile = catalog.get(&"apc-rpdu2".parse().unwrap()).unwrap().clone();
    let read = async |text: &str| {
        let line =
            Line::new(Box::new(Recording::parse(text).unwrap()), Patience::new((0, 1_000, 1)));
        let adopted = over(line, Arc::clone(&profile), None).await.unwrap();
        let powers = adopted.points.iter().filter(|read| read.point.to_string() == "outlet.power");
        powers.map(|read| (read.row, read.datum.value())).collect::<Vec<_>>()
    };
    let mut whole = read(&text).await;
    let with_hole = read(&holey).await;
    whole.retain(|(row, _)| *row != 2);
    assert_eq!(with_hole, whole);
}
