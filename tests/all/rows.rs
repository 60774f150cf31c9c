//! Which rows of a device are which part of it: recordings of ours, changed as other devices of their families are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use pmgate::device::adopt::{Adopted, Failure, over};
use pmgate::link::recording::Recording;
use pmgate::link::{Line, Patience};
use pmgate::model::metric::Scope;
use pmgate::model::oid::Oid;
use pmgate::profile::catalog::Catalog;
use pmgate::profile::format::Rows;
use serde_json::Value;

/// The drivers in the program, loaded once.
pub fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().unwrap());
    &CATALOG
}

/// A recording of ours that is being changed.
pub struct Device {
    driver: String,
    rows: BTreeMap<Oid, String>,
}

impl Device {
    /// The recording of that name, which is of the driver of that name.
    pub fn of(driver: &str) -> Self {
        Self::recorded(driver, driver)
    }

    pub fn recorded(driver: &str, recording: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
        let text = std::fs::read_to_string(dir.join(format!("{recording}.snmprec"))).unwrap();
        let row = |line: &str| {
            let (oid, rest) = line.split_once('|')?;
            Some((oid.parse().ok()?, rest.to_owned()))
        };
        Self { driver: driver.to_owned(), rows: text.lines().filter_map(row).collect() }
    }

    /// Sets a number.
    pub fn number(&mut self, oid: impl AsRef<str>, value: i64) -> &mut Self {
        self.rows.insert(oid.as_ref().parse().unwrap(), format!("2|{value}"));
        self
    }

    /// Sets a text.
    pub fn text(&mut self, oid: impl AsRef<str>, value: &str) -> &mut Self {
        self.rows.insert(oid.as_ref().parse().unwrap(), format!("4|{value}"));
        self
    }

    /// Takes everything under an object away.
    pub fn without(&mut self, under: impl AsRef<str>) -> &mut Self {
        let under: Oid = under.as_ref().parse().unwrap();
        self.rows.retain(|oid, _| !oid.is_under(&under));
        self
    }

    /// The recording as a text.
    pub fn recording(&self) -> String {
        self.rows.iter().map(|(oid, rest)| format!("{oid}|{rest}\n")).collect()
    }

    /// Its rows, to be moved.
    pub fn rows(&mut self) -> &mut BTreeMap<Oid, String> {
        &mut self.rows
    }

    pub async fn adopt(&self, unit: Option<&str>) -> Result<Adopted, Failure> {
        let recording = Recording::parse(&self.recording()).unwrap();
        let line = Line::new(Box::new(recording), Patience::new((0, 1_000, 1)));
        let profile = catalog().get(&self.driver.parse().unwrap()).unwrap().clone();
        let unit = unit.map(|unit| unit.parse().unwrap());
        over(line, profile, unit.as_ref()).await
    }

    /// What is read of it.
    pub async fn read(&self, unit: Option<&str>) -> Read {
        Read { adopted: self.adopt(unit).await.unwrap() }
    }
}

/// What was read of a device.
pub struct Read {
    pub adopted: Adopted,
}

impl Read {
    /// The values of a reading that have a number, by the row's number; of alternatives the one that counts.
    pub fn of(&self, point: &str) -> Vec<(u16, f64)> {
        let layout = &self.adopted.instance.layout;
        let mut values = Vec::new();
        for (slot, datum) in layout.slots().iter().zip(&self.adopted.data) {
            let unit = slot.metric.unit();
            if slot.point().to_string() == point
                && let (Some(kept), Some(unit)) = (datum.value(), unit)
            {
                let number = layout.parts(slot.scope)[usize::from(slot.part)].number;
                values.push((number, unit.to_f64(kept)));
            }
        }
        values
    }

    /// The numbers of the parts of a kind.
    pub fn numbers(&self, scope: Scope) -> Vec<u16> {
        self.adopted.instance.layout.parts(scope).iter().map(|part| part.number).collect()
    }

    /// The body that `GET /v1/pdus/{pdu}` shows.
    pub fn body(&self) -> Value {
        let clock = pmgate::model::time::SystemClock::start();
        let view = pmgate::cli::driver::view_of(&self.adopted, &clock);
        let now = pmgate::model::time::Clock::tick(&clock);
        let body = pmgate::wire::pdu::body(&view, &pmgate::wire::pdu::NoSite, now);
        serde_json::to_value(&body).unwrap()
    }
}

/// An Eaton ePDU with three phases: voltages to neutral, between the phases, and the neutral's current before all others.
fn eaton() -> Device {
    const INPUT: &str = "1.3.6.1.4.1.534.6.6.7.3";
    let mut device = Device::of("eaton-epdu");
    for table in ["2", "3", "4", "5"] {
        device.without(format!("{INPUT}.{table}"));
    }
    for (row, (kind, volts)) in
        (1..).zip([(5, 404), (2, 231), (6, 405), (3, 232), (7, 406), (4, 233)])
    {
        device.number(format!("{INPUT}.2.1.2.0.1.{row}"), kind);
        device.number(format!("{INPUT}.2.1.3.0.1.{row}"), volts * 1_000);
    }
    for (row, (kind, amperes)) in (1..).zip([(2, 1), (3, 11), (5, 13), (4, 12)]) {
        device.number(format!("{INPUT}.3.1.2.0.1.{row}"), kind);
        device.number(format!("{INPUT}.3.1.4.0.1.{row}"), amperes * 1_000);
    }
    for (row, (kind, watts)) in (1..).zip([(4, 600), (1, 100), (2, 200), (3, 300)]) {
        device.number(format!("{INPUT}.4.1.2.0.1.{row}"), kind);
        device.number(format!("{INPUT}.4.1.4.0.1.{row}"), watts);
    }
    device
}

#[tokio::test]
async fn what_is_measured_of_a_phase_is_told_by_its_kind_and_not_by_its_row() {
    let read = eaton().read(None).await;
    assert_eq!(read.of("phase.voltage"), [(1, 231.0), (2, 232.0), (3, 233.0)]);
    assert_eq!(read.of("phase.current"), [(1, 11.0), (2, 12.0), (3, 13.0)]);
    assert_eq!(read.of("phase.power"), [(1, 100.0), (2, 200.0), (3, 300.0)]);
    assert_eq!(read.of("inlet.power"), [(1, 600.0)]);
    assert_eq!(read.numbers(Scope::Phase), [1, 2, 3]);
}

#[tokio::test]
async fn a_delta_has_the_voltages_between_its_phases() {
    let mut device = eaton();
    device.number("1.3.6.1.4.1.534.6.6.7.3.1.1.2.0.1", 3);
    for row in [2, 4, 6] {
        device.without(format!("1.3.6.1.4.1.534.6.6.7.3.2.1.2.0.1.{row}"));
        device.without(format!("1.3.6.1.4.1.534.6.6.7.3.2.1.3.0.1.{row}"));
    }
    let read = device.read(None).await;
    assert_eq!(read.of("phase.voltage"), [(1, 404.0), (2, 405.0), (3, 406.0)]);
}

#[tokio::test]
async fn the_phases_of_a_second_input_follow_those_of_the_first() {
    let mut device = eaton();
    let second: Vec<(Oid, String)> = device
        .rows()
        .iter()
        .filter_map(|(oid, rest)| {
            let mut arcs = oid.parts();
            let of_inputs = oid.is_under(&"1.3.6.1.4.1.534.6.6.7.3".parse().unwrap());
            // …3.table.1.column.unit.input
            if !of_inputs || arcs.len() < 16 {
                return None;
            }
            arcs[15] = 2;
            Some((Oid::from_parts(&arcs).unwrap(), rest.clone()))
        })
        .collect();
    device.rows().extend(second);
    let numbers: Vec<u16> =
        device.read(None).await.of("phase.current").iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn families_made_alike_tell_the_neutral_from_the_phases_too() {
    let families = [
        ("hpe-pdu2", "1.3.6.1.4.1.232.165.7.2.2.1", "0", 19),
        ("hpe-pdu3", "1.3.6.1.4.1.232.165.11.2.2.1", "1", 18),
        ("panduit-g5", "1.3.6.1.4.1.19536.10.1.2.2.1", "1", 18),
        ("eaton-nlogic", "1.3.6.1.4.1.534.7.1.2.2.1", "1", 18),
    ];
    for (driver, table, unit, power) in families {
        let plain = Device::of(driver).read(None).await;
        let mut device = Device::of(driver);
        for column in 1..=25 {
            device.number(format!("{table}.{column}.{unit}.4"), 4_000);
        }
        for (column, kind) in [(2, 5), (9, 2), (power, 2)] {
            device.number(format!("{table}.{column}.{unit}.4"), kind);
        }
        let read = device.read(None).await;
        assert_eq!(read.numbers(Scope::Phase), [1, 2, 3], "{driver}");
        for point in ["phase.voltage", "phase.current", "phase.power"] {
            assert_eq!(read.of(point), plain.of(point), "{driver} {point}");
        }
    }
}

/// A Vertiv PDU whose firmware has no row of totals.
fn without_totals() -> Device {
    let mut device = Device::of("geist-v5");
    device.without("1.3.6.1.4.1.21239.5.2.3.1");
    device
}

#[tokio::test]
async fn what_an_inlet_does_not_tell_its_phases_do_together() {
    let mut read = without_totals().read(None).await;
    let phases: f64 = read.of("phase.power").iter().map(|(_, watts)| watts).sum();
    assert!(phases > 0.0);
    assert_eq!(read.of("inlet.power"), [(1, phases)]);
    assert_eq!(read.body()["inlet"]["power_w"], phases);
    // A poll adds up what it brings.
    let adopted = &mut read.adopted;
    let tier = adopted.instance.tier(true).clone();
    let mut sweep = tier.set.sweep(adopted.memory);
    while let Some(ask) = sweep.next_ask() {
        sweep.answer(adopted.line.exchange(&ask).await.unwrap());
    }
    let mut trust = adopted.instance.trust_after(&adopted.data);
    let polled = adopted.instance.decode(&tier, &sweep.finish().0, &mut trust);
    for (slot, datum) in polled {
        assert_eq!(datum, adopted.data[slot], "{:?}", adopted.instance.layout.slots()[slot]);
    }
    // Two phases are not all.
    let mut device = without_totals();
    device.number("1.3.6.1.4.1.21239.5.2.3.2.1.12.2", 0x7fff_ffff);
    let read = device.read(None).await;
    assert_eq!(read.of("phase.power").len(), 2);
    assert_eq!(read.of("inlet.power"), []);
    assert_eq!(read.body()["inlet"]["gaps"]["power_w"], "implausible");
    // What the device tells itself is taken at its word.
    assert_ne!(Device::of("geist-v5").read(None).await.of("inlet.power"), [(1, phases)]);
}

/// Tables that need the column they are walked by, as it says what their rows are: which sort of meter, sensor or group,
/// or that there is one at all.
const NEED_THEIR_COLUMN: [(&str, &str); 14] = [
    ("aten", "reading"),
    ("avocent-pm", "sensor"),
    ("eaton-epdu", "branch"),
    ("liebert-mph2", "sensor"),
    ("raritan-px1", "humidity"),
    ("raritan-px1", "temperature"),
    ("rnx-updu", "branch"),
    ("rnx-updu", "humidity"),
    ("rnx-updu", "inlet"),
    ("rnx-updu", "outlet"),
    ("rnx-updu", "phase"),
    ("rnx-updu", "temperature"),
    // A recording in which a single column holds everything of the outlets.
    ("chatsworth", "outlet"),
    // All outlets have a name, and some a meter or a relay.
    ("schleifenbauer", "outlet"),
];

/// How many readings have values besides those of some columns, by name.
fn besides(read: &[Value], columns: &[String]) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for point in read.iter().filter(|point| !point["value"].is_null()) {
        let oid = point["oid"].as_str().unwrap_or_default();
        if !columns.iter().any(|column| oid.starts_with(&format!("{column}."))) {
            *counts.entry(point["point"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test]
async fn a_table_does_not_vanish_with_the_column_that_it_is_walked_by() {
    let mut vanished = Vec::new();
    for profile in catalog().iter().filter(|p| p.speech.is_snmp()) {
        let id = profile.id.as_str();
        let points = |adopted: &Adopted| {
            let read = serde_json::to_value(pmgate::cli::driver::points(adopted)).unwrap();
            read.as_array().unwrap().clone()
        };
        let whole = points(&Device::of(id).read(None).await.adopted);
        for table in &profile.tables {
            let Rows::Walk { columns, .. } = &table.rows else { continue };
            let columns: Vec<String> = columns.iter().map(Oid::to_string).collect();
            let mut device = Device::of(id);
            for column in &columns {
                device.without(column);
            }
            // Nothing else may be left to read.
            let Ok(adopted) = device.adopt(None).await else { continue };
            let (before, after) = (besides(&whole, &columns), besides(&points(&adopted), &columns));
            let lost = before.iter().any(|(name, count)| after.get(name) < Some(count));
            let is_pinned = NEED_THEIR_COLUMN.contains(&(id, table.name.as_str()));
            if lost != is_pinned {
                vanished.push(format!("{id} {}: {before:?}, {after:?}", table.name));
            }
        }
    }
    assert!(vanished.is_empty(), "{}", vanished.join("\n"));
}
