//! What goes and what stays: minutes before their readings go, the disk's room, the budget, copies of both.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{DAY, Told, layout, steps, write};
use crate::model::metric::Metric;
use crate::model::reading::Datum;
use crate::model::time::{Span, Stamp};
use crate::series::window::{Aggregate, Bucket};
use crate::store::archive::{Archive, Settings, bytes_in};
use crate::store::shelf::{DAY_MS, HOUR_MS, Name};
use crate::store::writer::Row;
use crate::store::{copy, keeper, roll};

const HOWS: [Aggregate; 4] = [Aggregate::Avg, Aggregate::Max, Aggregate::Min, Aggregate::Last];

/// Three readings a minute.
fn thrice(range: std::ops::Range<i64>) -> Vec<Row> {
    let layout = layout();
    let row = |n: i64, pdu: &str| Row {
        at: Stamp(DAY * DAY_MS + n * 20_000),
        ..super::row(&layout, pdu, n)
    };
    range.flat_map(|n| ["pdu-a", "pdu-b"].map(|pdu| row(n, pdu))).collect()
}

/// The first day by minutes, or by hours.
fn by(archive: &Archive, seconds: u64) -> Vec<Vec<Bucket>> {
    HOWS.map(|how| steps(archive, how, Span::seconds(seconds), DAY_MS)).to_vec()
}

fn after(days: i64) -> Stamp {
    Stamp((DAY + days) * DAY_MS + HOUR_MS)
}

/// An archive on a disk of a hundred gigabytes, with what is free of it.
fn on_disk(dir: &Path, settings: Settings) -> (Arc<Archive>, Told, Arc<AtomicU64>) {
    const ALL: u64 = 100_000_000_000;
    let free = Arc::new(AtomicU64::new(ALL));
    let read = free.clone();
    let told = Told::default();
    let tell = told.clone();
    let alarm = Box::new(move |kind: &'static str, _: String| {
        tell.lock().unwrap().push(kind.to_owned());
    });
    let archive = Archive::open(dir, settings, alarm).unwrap();
    let archive = archive.with_room(Box::new(move || Some((read.load(Ordering::Relaxed), ALL))));
    (Arc::new(archive), told, free)
}

/// Room to write at all, and no more.
const BRIM: u64 = 4 * 1024 * 1024 + 1;

fn sealed_days(archive: &Archive) -> Vec<i64> {
    let names = archive.shelves().into_iter().map(|shelf| shelf.name);
    names
        .filter_map(|name| if let Name::Day(day, _) = name { Some(day - DAY) } else { None })
        .collect()
}

#[test]
fn minutes_are_made_when_readings_go_and_say_what_they_said() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, told, _) = on_disk(dir.path(), Settings::default());
    write(&archive, &thrice(0..4_320));
    keeper::round(&archive, after(1));
    assert!(
        archive.shelf(Name::minutes(DAY)).is_none() && archive.shelf(Name::hours(DAY)).is_some()
    );
    let (minutes, hours) = (by(&archive, 60), by(&archive, 3_600));
    assert!(minutes.iter().flatten().filter(|bucket| bucket.value.is_ok()).count() > 4 * 1_000);
    keeper::round(&archive, after(16));
    assert!(sealed_days(&archive).is_empty());
    assert_eq!((by(&archive, 60), by(&archive, 3_600)), (minutes, hours.clone()));
    keeper::round(&archive, after(100));
    assert!(archive.shelf(Name::minutes(DAY)).is_none());
    assert_eq!(by(&archive, 3_600), hours);
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn killed_between_making_minutes_and_letting_readings_go_nothing_is_lost_and_late_rows_join_both() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, _, _) = on_disk(dir.path(), Settings::default());
    write(&archive, &thrice(0..4_320));
    keeper::round(&archive, after(1));
    let minutes = by(&archive, 60);
    roll::before_going(&archive, Name::Day(DAY, 1), true).unwrap();
    drop(archive);
    let (archive, told, _) = on_disk(dir.path(), Settings::default());
    assert!(archive.shelf(Name::minutes(DAY)).is_some() && sealed_days(&archive) == [0]);
    assert_eq!(by(&archive, 60), minutes);
    // A late row is in the day's next generation, and in its minutes.
    let late = Row {
        at: Stamp(DAY * DAY_MS + 30_500),
        data: vec![(2, Datum::Value(77_000_000))],
        ..thrice(0..1).remove(0)
    };
    write(&archive, &[late]);
    keeper::round(&archive, after(1));
    let with_late = by(&archive, 60);
    assert_eq!(with_late[1][0].value, Ok(77_000_000.0));
    // Killed again, and made again: the same.
    roll::before_going(&archive, Name::Day(DAY, 2), true).unwrap();
    drop(archive);
    let (archive, _, _) = on_disk(dir.path(), Settings::default());
    keeper::round(&archive, after(16));
    assert!(sealed_days(&archive).is_empty());
    assert_eq!(by(&archive, 60), with_late);
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn rows_of_a_day_whose_readings_went_do_not_take_the_place_of_its_rollups() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, _, _) = on_disk(dir.path(), Settings::default());
    write(&archive, &thrice(0..4_320));
    keeper::round(&archive, after(1));
    keeper::round(&archive, after(16));
    let (minutes, hours) = (by(&archive, 60), by(&archive, 3_600));
    // A clock that was wrong for a moment.
    let stray = Row {
        at: Stamp(DAY * DAY_MS + 90_500),
        data: vec![(2, Datum::Value(5))],
        ..thrice(0..1).remove(0)
    };
    write(&archive, &[stray]);
    keeper::round(&archive, after(16));
    keeper::round(&archive, after(16));
    assert!(sealed_days(&archive).is_empty());
    assert_eq!(by(&archive, 3_600), hours);
    let changed = by(&archive, 60)[0].iter().zip(&minutes[0]).filter(|(a, b)| a != b).count();
    assert!(changed <= 1, "{changed}");
}

#[test]
fn readings_wait_for_their_minutes_while_there_is_no_room_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { free_percent: 0, ..Settings::default() };
    let (archive, told, free) = on_disk(dir.path(), settings);
    write(&archive, &thrice(0..4_320));
    keeper::round(&archive, after(1));
    let minutes = by(&archive, 60);
    free.store(BRIM, Ordering::Relaxed);
    keeper::round(&archive, after(16));
    assert_eq!(sealed_days(&archive), [0]);
    assert_eq!(*told.lock().unwrap(), ["store.minutes"]);
    assert_eq!(by(&archive, 60), minutes);
    free.store(u64::MAX, Ordering::Relaxed);
    keeper::round(&archive, after(16));
    assert!(sealed_days(&archive).is_empty());
    assert_eq!(*told.lock().unwrap(), ["store.minutes", "store.minutes_made"]);
    assert_eq!(by(&archive, 60), minutes);
}

#[test]
fn a_disk_with_less_than_a_tenth_free_loses_its_oldest_readings_one_day_a_round_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, told, free) = on_disk(dir.path(), Settings::default());
    write(&archive, &thrice(0..4_320 * 5));
    keeper::round(&archive, after(5));
    assert_eq!(sealed_days(&archive), [0, 1, 2, 3, 4]);
    let (minutes, hours) = (by(&archive, 60), by(&archive, 3_600));
    free.store(10_000_000_000, Ordering::Relaxed);
    keeper::round(&archive, after(5));
    assert!(sealed_days(&archive).len() == 5 && told.lock().unwrap().is_empty());
    free.store(9_999_999_999, Ordering::Relaxed);
    keeper::round(&archive, after(5));
    assert_eq!(sealed_days(&archive), [1, 2, 3, 4]);
    assert_eq!(*told.lock().unwrap(), ["store.room"]);
    // Its minutes are there; of a day that goes where there is no room for them, the hours.
    assert_eq!(by(&archive, 60), minutes);
    free.store(BRIM, Ordering::Relaxed);
    keeper::round(&archive, after(5));
    assert_eq!(sealed_days(&archive), [2, 3, 4]);
    assert_eq!(told.lock().unwrap().last().unwrap(), "store.minutes");
    assert!(archive.alarms().iter().any(|text| text.contains("only its hours remain")));
    assert_eq!((by(&archive, 60), by(&archive, 3_600)), (minutes, hours));
    // The last two days stay whatever the disk says.
    for _ in 0..3 {
        keeper::round(&archive, after(5));
    }
    assert_eq!(sealed_days(&archive), [3, 4]);
    free.store(u64::MAX / 100, Ordering::Relaxed);
    keeper::round(&archive, after(5));
    assert!(sealed_days(&archive) == [3, 4] && archive.alarms().len() <= 1);
    assert!(told.lock().unwrap().iter().any(|kind| kind == "store.room_again"));
}

#[test]
fn a_budget_is_kept_by_the_oldest_day_and_no_more_than_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, _, _) = on_disk(dir.path(), Settings::default());
    write(&archive, &super::rows(0..1_440 * 7));
    keeper::round(&archive, after(7));
    let hours = by(&archive, 3_600);
    drop(archive);
    let budget = bytes_in(dir.path());
    let kept = |bytes| {
        let settings = Settings { budget: Some(bytes), ..Settings::default() };
        let (archive, told, _) = on_disk(dir.path(), settings);
        keeper::round(&archive, after(7));
        assert!(archive.bytes() <= bytes, "{} of {bytes}", archive.bytes());
        assert_eq!(by(&archive, 3_600), hours);
        assert!(told.lock().unwrap().is_empty());
        sealed_days(&archive)
    };
    assert_eq!(kept(budget), [0, 1, 2, 3, 4, 5, 6]);
    // Minutes of a reading a minute take more than the readings: those of the first days go again.
    let days = kept(budget - 1);
    assert!(days.len() < 7 && (days[0]..7).eq(days.iter().copied()), "{days:?}");
}

#[test]
fn a_budget_takes_no_more_than_it_needs_wherever_the_weeks_of_minutes_begin() {
    for shift in 0..7 {
        let dir = tempfile::tempdir().unwrap();
        let (archive, _, _) = on_disk(dir.path(), Settings::default());
        let mut rows = super::rows(0..1_440 * 7);
        rows.iter_mut().for_each(|row| row.at = Stamp(row.at.0 + shift * DAY_MS));
        write(&archive, &rows);
        let now = after(7 + shift);
        keeper::round(&archive, now);
        let budget = archive.bytes() - 1;
        drop(archive);
        let settings = Settings { budget: Some(budget), ..Settings::default() };
        let (archive, _, _) = on_disk(dir.path(), settings);
        keeper::round(&archive, now);
        let days: Vec<i64> = sealed_days(&archive).iter().map(|day| day - shift).collect();
        // A directory grows by some when it is opened, and these days are small: no more than two.
        assert!(days.ends_with(&[2, 3, 4, 5, 6]), "weeks begin {shift} days earlier: {days:?}");
        assert!(archive.bytes() <= budget, "weeks begin {shift} days earlier");
    }
}

#[test]
fn a_budget_that_cannot_be_kept_is_told_once_and_days_dated_after_now_stay() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { budget: Some(1), ..Settings::default() };
    let (archive, told, _) = on_disk(dir.path(), settings);
    // Written while the clock was two weeks ahead.
    write(&archive, &thrice(15 * 4_320..15 * 4_320 + 100));
    keeper::seal_all(&archive).unwrap();
    for round in 0..3 {
        write(&archive, &thrice(round * 100..(round + 1) * 100));
        keeper::round(&archive, after(1));
    }
    assert!(archive.shelf(Name::Day(DAY + 15, 1)).is_some());
    let alarms = archive.alarms().join(" ");
    assert!(alarms.contains("the 1 bytes") && alarms.contains("is the clock right?"), "{alarms}");
    let times = told.lock().unwrap().iter().filter(|kind| *kind == "store.budget").count();
    assert_eq!(times, 1, "the same alarm is told once");
}

#[test]
fn what_somebody_still_reads_counts_as_gone_and_nothing_is_made_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, _, free) = on_disk(dir.path(), Settings::default());
    write(&archive, &thrice(0..4_320 * 5));
    keeper::round(&archive, after(5));
    let reader = archive.shelf(Name::Day(DAY, 1)).unwrap();
    // One byte too few are free: a day is enough, as soon as its reader is done.
    free.store(9_999_999_999, Ordering::Relaxed);
    for _ in 0..3 {
        keeper::round(&archive, after(5));
        assert_eq!(sealed_days(&archive), [1, 2, 3, 4]);
    }
    drop(reader);
    keeper::round(&archive, after(5));
    assert_eq!(sealed_days(&archive), [2, 3, 4]);
    // Minutes that are read while they go do not take those with them that are made anew.
    let minutes = Name::minutes(DAY);
    let reader = archive.shelf(minutes).unwrap();
    archive.replace(None, &[minutes]);
    assert!(roll::before_going(&archive, Name::Day(DAY + 2, 1), true).is_err());
    drop(reader);
    roll::before_going(&archive, Name::Day(DAY + 2, 1), true).unwrap();
    assert!(archive.shelf(minutes).is_some_and(|shelf| shelf.path().exists()));
}

#[test]
fn a_copy_brings_minutes_only_where_readings_do_not_tell_them() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (whole, _, _) = on_disk(dirs[0].path(), Settings::default());
    write(&whole, &thrice(0..4_320));
    keeper::round(&whole, after(1));
    let minutes = by(&whole, 60);
    // As a store of before has it: a sealed day, with its minutes.
    roll::before_going(&whole, Name::Day(DAY, 1), true).unwrap();
    let mut both = Vec::new();
    copy::export(&whole, &mut both).unwrap();
    let (empty, _, _) = on_disk(dirs[1].path(), Settings::default());
    copy::import(&empty, &mut both.as_slice()).unwrap();
    assert!(empty.shelf(Name::minutes(DAY)).is_none() && sealed_days(&empty) == [0]);
    assert_eq!(by(&empty, 60), minutes);
    // Of half a day of readings and a copy of all of its minutes, all minutes.
    keeper::round(&whole, after(16));
    let mut rolled = Vec::new();
    copy::export(&whole, &mut rolled).unwrap();
    let (half, _, _) = on_disk(dirs[2].path(), Settings::default());
    write(&half, &thrice(1_000..3_000));
    keeper::round(&half, after(1));
    copy::import(&half, &mut rolled.as_slice()).unwrap();
    assert_eq!(by(&half, 60), minutes);
    assert_eq!(by(&half, 3_600), by(&whole, 3_600));
    keeper::round(&half, after(16));
    assert_eq!(by(&half, 60), minutes);
    let series = super::all(&empty, "pdu-a", "1", Metric::Power);
    assert_eq!(series.len(), 4_320);
}

/// A year's hours were set aside as damaged over this: sled removes values that it has replaced whenever it likes.
#[test]
fn a_value_that_goes_while_the_disk_is_told_to_keep_all_is_no_damage() {
    use crate::store::chunk::{Change, ChunkStore as _};
    use crate::store::sled::{SledStore, Use};
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), Use::Sealed).unwrap();
    store.apply(&[Change::Put(b"B".to_vec(), vec![7; 100_000])]).unwrap();
    std::os::unix::fs::symlink("gone", dir.path().join("blobs/987654321")).unwrap();
    assert_eq!(store.flush(), Ok(()));
    assert_eq!(store.get(b"B").unwrap().unwrap().len(), 100_000);
}

/// Of a rack of several PDUs a day took twice its room over this: sled writes a page anew after ten changes, and keeps the
/// old values until its log has moved on.
#[test]
fn a_directory_takes_little_more_than_its_values() {
    use crate::store::chunk::{Change, ChunkStore as _};
    use crate::store::sled::{SledStore, Use};
    let dir = tempfile::tempdir().unwrap();
    let value =
        |n: u8| (0..100_000_u32).map(|at| (at * u32::from(n + 1)) as u8).collect::<Vec<u8>>();
    let store = SledStore::open(dir.path(), Use::Sealed).unwrap();
    for n in 0..30 {
        store.apply(&[Change::Put(vec![b'B', n], value(n))]).unwrap();
    }
    store.flush().unwrap();
    let taken = bytes_in(dir.path());
    assert!((3_000_000..3_300_000).contains(&taken), "{taken} bytes for 3,000,000");
    drop(store);
    let store = SledStore::open(dir.path(), Use::Sealed).unwrap();
    assert!((0..30).all(|n| store.get(&[b'B', n]).unwrap() == Some(value(n))));
    drop(store);
    // One that is damaged keeps no other from being put: a year's hours are in one directory.
    let blob = std::fs::read_dir(dir.path().join("blobs")).unwrap().next().unwrap().unwrap();
    std::fs::write(blob.path(), b"rot").unwrap();
    let store = SledStore::open(dir.path(), Use::Sealed).unwrap();
    assert!((0..30).any(|n| store.get(&[b'B', n]).is_err()));
    let sound = (0..30).find(|n| store.get(&[b'B', *n]).is_ok()).unwrap();
    store.apply(&[Change::Put(vec![b'B', sound], value(99))]).unwrap();
    assert_eq!(store.flush(), Ok(()));
    assert_eq!(store.get(&[b'B', sound]).unwrap(), Some(value(99)));
}

/// Threads of any sled database of the process keep what was replaced from going: a flush waits for them, not for ever, and
/// what is left then goes with the next.
#[test]
fn what_was_replaced_goes_when_no_thread_sees_it_any_more() {
    use crate::store::chunk::{Change, ChunkStore as _};
    use crate::store::sled::{SledStore, Use};
    use std::sync::mpsc::channel;
    let dir = tempfile::tempdir().unwrap();
    let (sees, is_seen) = channel();
    let (done, is_done) = channel::<()>();
    let seer = std::thread::spawn(move || {
        let guard = crossbeam_epoch::pin();
        sees.send(()).unwrap();
        is_done.recv().unwrap();
        drop(guard);
    });
    is_seen.recv().unwrap();
    let store = SledStore::open(dir.path(), Use::Sealed).unwrap();
    for n in 0..30 {
        store.apply(&[Change::Put(vec![b'B', n], vec![n; 100_000])]).unwrap();
    }
    store.flush().unwrap();
    assert!(bytes_in(dir.path()) > 6_000_000);
    done.send(()).unwrap();
    seer.join().unwrap();
    store.flush().unwrap();
    let taken = bytes_in(dir.path());
    assert!((3_000_000..3_300_000).contains(&taken), "{taken} bytes for 3,000,000");
}
