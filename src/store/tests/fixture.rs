//! Stores as programs of before wrote them, and what was put into them: `benches/store/fixture.rs` says how they are made.

use std::collections::BTreeMap;

use super::{all, open};
use crate::model::metric::Metric;
use crate::model::reading::Gap;
use crate::model::time::{Span, Stamp};
use crate::series::cells::Cell;
use crate::series::rollup::{Rolled, roll};
use crate::store::archive::Archive;
use crate::store::copy;
use crate::store::reader::{Item, Scan, scan};
use crate::store::shelf::{DAY_MS, HOUR_MS, MINUTE_MS, Name, day_of};

type Columns = BTreeMap<(String, Metric), Vec<(i64, Cell)>>;

fn put_in(text: &str) -> Columns {
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names: Vec<(String, Metric)> = lines.next().unwrap()[1..]
        .iter()
        .map(|name| name.split_once(' ').unwrap())
        .map(|(part, key)| (part.to_owned(), Metric::by_key(key).unwrap()))
        .collect();
    let gap = |word: &str| (1..=11).filter_map(Gap::from_number).find(|gap| gap.word() == word);
    let mut columns = Columns::new();
    for line in lines {
        let at = line[0].parse().unwrap();
        for (name, cell) in names.iter().zip(&line[1..]) {
            let cell = cell.parse().map_err(|_| gap(cell).unwrap());
            columns.entry(name.clone()).or_default().push((at, cell));
        }
    }
    columns
}

fn rollups(archive: &Archive, name: &(String, Metric), day: i64, width: i64) -> Vec<Rolled> {
    let pdu = "pdu-a".parse().unwrap();
    let (start, end) = (Stamp(day * DAY_MS), Stamp((day + 1) * DAY_MS));
    let columns = [name.clone()];
    let step = Some((start, Span(width as u64)));
    let mut found = Vec::new();
    let asked = Scan { pdu: &pdu, columns: &columns, start, end, step };
    let damaged = scan(archive, &asked, &mut |_, item| {
        match item {
            Item::Rolled(step, of) if of == width => found.push(*step),
            item => panic!("{item:?}"),
        }
        true
    });
    assert_eq!(damaged, Ok(0));
    found
}

/// What is kept of steps: the reason of a gap where there is nothing else.
fn kept(steps: Vec<Rolled>) -> Vec<Rolled> {
    let gap = |step: &Rolled| if step.count > 0 { Gap::NotRead } else { step.gap };
    steps.into_iter().map(|step| Rolled { gap: gap(&step), ..step }).collect()
}

#[test]
fn a_store_of_rows_hours_days_and_rollups_is_read_as_it_was_written() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stores/0.2");
    let dir = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-a", &format!("{fixture}/history/."), &dir.path().display().to_string()])
        .status();
    assert!(copied.unwrap().success());
    let (archive, told) = open(dir.path());
    let names: Vec<Name> = archive.shelves().iter().map(|shelf| shelf.name).collect();
    let [Name::Head(today, 0), Name::Day(sealed, 1), Name::Minutes(_), Name::Hours(_)] = names[..]
    else {
        panic!("{names:?}")
    };
    let columns = put_in(&std::fs::read_to_string(format!("{fixture}/readings.csv")).unwrap());
    assert_eq!(columns.len(), 6);
    for (name, column) in &columns {
        let of = |day: i64| column.iter().filter(move |(at, _)| day_of(Stamp(*at)) == day).copied();
        let raw: Vec<(i64, Cell)> = all(&archive, "pdu-a", &name.0, name.1)
            .into_iter()
            .map(|(at, cell)| (at.0, cell))
            .collect();
        assert_eq!(raw, of(sealed).chain(of(today)).collect::<Vec<_>>(), "{name:?}");
        let gone = sealed - 1;
        assert!(of(gone).count() > 100 && of(sealed).count() > 100 && of(today).count() > 50);
        assert_eq!(rollups(&archive, name, gone, MINUTE_MS), kept(roll(of(gone), MINUTE_MS)));
        for day in [gone, sealed] {
            assert_eq!(rollups(&archive, name, day, HOUR_MS), kept(roll(of(day), HOUR_MS)));
        }
    }
    let whole = copy::verify(&archive);
    assert!(whole.values().all(|found| found.as_ref().is_ok_and(|sum| sum.damaged == 0)));
    assert!(told.lock().unwrap().is_empty());
}
