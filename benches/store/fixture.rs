//! A small store of today's format, for a test that opens it ever after: a day by minutes and hours, a sealed day, and a
//! day under way in hours and rows; and beside it, as text, what was put in.
//!
//!     cargo bench --bench store -- fixture tests/stores/NAME
//!
//! makes one anew. Do so under a new name when the format changes; what is there stays, and stays tested.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use pmgate::model::metric::{Metric, Word};
use pmgate::model::reading::{Datum, Gap};
use pmgate::model::time::Stamp;
use pmgate::store::archive::Settings;
use pmgate::store::keeper;
use pmgate::store::writer::{Counts, Row, Writer};

use super::{archive, layout};

/// 2026-11-23.
const FIRST: i64 = 20_780;
const DAY_MS: i64 = 86_400_000;
const OUTLETS: u16 = 2;
const METRICS: [Metric; 3] = [Metric::State, Metric::Power, Metric::Energy];

/// What poll n says of an outlet: it is off for a while, its counter is reset once, and it does not always answer.
fn read(n: i64, outlet: i64, metric: Metric) -> Datum {
    let off = outlet == 1 && (40..60).contains(&(n % 144));
    match metric {
        _ if n % 31 == 7 => Datum::Gap(Gap::Timeout),
        Metric::State => Datum::Word(if off { Word::Off } else { Word::On }),
        Metric::Power if off => Datum::Value(0),
        Metric::Power => Datum::Value((120 + outlet * 37 + n * 7 % 11) * 1_000),
        _ if outlet == 0 && n % 13 == 5 => Datum::Gap(Gap::Implausible),
        _ if n < 200 => Datum::Value((90_000 + n * 3) * 1_000),
        _ => Datum::Value((n - 200) * 3_000),
    }
}

/// Three polls, twenty seconds apart, every half hour.
fn moment(n: i64) -> i64 {
    FIRST * DAY_MS + n / 3 * 1_800_000 + n % 3 * 20_000
}

pub fn make(args: &[String]) {
    let [dir] = args else { panic!("DIR") };
    let dir = Path::new(dir);
    let history = dir.join("history");
    assert!(!history.exists(), "{} is there already", history.display());
    let settings = Settings { raw_days: 1, free_percent: 0, ..Settings::default() };
    let kept = archive(&history, settings);
    let mut writer = Writer::new(kept.clone(), Arc::new(Counts::default()));
    let layout = layout(OUTLETS, &METRICS);
    let mut text = "at_ms".to_owned();
    for slot in layout.slots() {
        write!(text, ",{} {}", slot.part + 1, slot.metric.key()).unwrap();
    }
    text.push('\n');
    // Two days, and the third until twenty to four.
    for n in 0..2 * 144 + 3 * 32 {
        let at = moment(n);
        write!(text, "{at}").unwrap();
        let mut data = Vec::new();
        for (number, slot) in (0..).zip(layout.slots()) {
            let datum = read(n, i64::from(slot.part), slot.metric);
            data.push((number, datum));
            match datum.stored() {
                Ok(kept) => write!(text, ",{kept}").unwrap(),
                Err(gap) => write!(text, ",{gap}").unwrap(),
            }
        }
        text.push('\n');
        writer.write(&[Row {
            pdu: "pdu-a".parse().unwrap(),
            layout: layout.clone(),
            at: Stamp(at),
            data,
        }]);
    }
    writer.flush();
    keeper::round(&kept, Stamp(FIRST * DAY_MS + 2 * DAY_MS + 56_400_000));
    for shelf in kept.shelves() {
        kept.store(&shelf).unwrap().flush().unwrap();
    }
    drop((writer, kept));
    std::fs::write(dir.join("readings.csv"), text).unwrap();
    // sled writes logs of whole segments: what follows the last byte that says something is left out.
    for entry in std::fs::read_dir(&history).unwrap() {
        let log = entry.unwrap().path().join("db");
        let mut bytes = std::fs::read(&log).unwrap();
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        std::fs::write(&log, bytes).unwrap();
    }
}
