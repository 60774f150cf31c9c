//! Copies of a store, and what can be read of a damaged one.

use super::super::copy;
use super::*;

fn exported(archive: &Archive) -> (copy::Summary, Vec<u8>) {
    let mut out = Vec::new();
    (copy::export(archive, &mut out).unwrap(), out)
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x41);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_copy_goes_on_past_a_damaged_directory() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (archive, _) = open(dirs[0].path());
    write(&archive, &rows(0..4 * 1_440));
    keeper::seal_all(&archive).unwrap();
    let before = all(&archive, "pdu-b", "1", Metric::Power);
    let (whole, _) = exported(&archive);
    let broken = archive.shelf(Name::Day(DAY + 1, 1)).unwrap().path().join("conf");
    drop(archive);
    flip(&broken);
    let (archive, told) = open(dirs[0].path());
    let (copied, bytes) = exported(&archive);
    assert_eq!((whole.damaged, copied.damaged), (0, 1));
    assert_eq!(*told.lock().unwrap(), ["store.set_aside"]);
    let (other, _) = open(dirs[1].path());
    copy::import(&other, &mut bytes.as_slice()).unwrap();
    let day_of = |sample: &Sample| sample.0.0.div_euclid(DAY_MS);
    let kept: Vec<Sample> = before.into_iter().filter(|s| day_of(s) != DAY + 1).collect();
    assert_eq!(all(&other, "pdu-b", "1", Metric::Power), kept);
}

#[test]
fn more_rollups_than_are_flushed_at_once_are_all_taken_in() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (archive, _) = open(dirs[0].path());
    let layout = layout();
    let days = 45;
    let some: Vec<Row> = (0..days)
        .flat_map(|day| (0..6).map(move |n| day * 1_440 + n * 200))
        .flat_map(|n| ["pdu-a", "pdu-b"].map(|pdu| row(&layout, pdu, n)))
        .collect();
    write(&archive, &some);
    keeper::seal_all(&archive).unwrap();
    // No readings are left of any of them, and minutes of all.
    keeper::round(&archive, Stamp((DAY + days + 20) * DAY_MS));
    assert!(archive.shelves().iter().all(|s| matches!(s.name, Name::Minutes(_) | Name::Hours(_))));
    let (summary, bytes) = exported(&archive);
    assert!(summary.blocks > 128, "{summary:?}");
    let (other, _) = open(dirs[1].path());
    let taken = copy::import(&other, &mut bytes.as_slice()).unwrap();
    assert_eq!(taken, summary);
    for step in [60_000, 3_600_000] {
        let of = |archive: &Archive| steps(archive, Aggregate::Last, Span(step), days * DAY_MS);
        let found = of(&other);
        assert!(found.iter().filter(|bucket| bucket.value.is_ok()).count() as i64 >= days);
        assert!(found == of(&archive), "by {step} ms");
    }
}

/// sled reads its snapshot, what it says of its format and its log: each of them may be what is damaged.
#[test]
fn all_is_salvaged_where_only_a_short_cut_is_damaged() {
    for broken in ["conf", "snap.00000000000000A0"] {
        let dir = tempfile::tempdir().unwrap();
        let (archive, _) = open(dir.path());
        write(&archive, &rows(0..600));
        let head = archive.head(DAY).path().to_path_buf();
        let mut whole = copy::verify(&archive);
        let whole = whole.remove(&archive.head(DAY).name.dir()).unwrap().unwrap();
        drop(archive);
        let file = head.join(broken);
        if file.exists() {
            flip(&file);
        } else {
            std::fs::write(file, [0x41; 200]).unwrap();
        }
        let mut out = Vec::new();
        let found = copy::salvage(&head, &mut out).unwrap();
        assert_eq!((found.cells, found.damaged), (whole.cells, 0), "{broken}");
        assert!(whole.cells > 600, "{whole:?}");
        let other = tempfile::tempdir().unwrap();
        let (other, _) = open(other.path());
        assert_eq!(copy::import(&other, &mut out.as_slice()).unwrap().cells, whole.cells);
        assert_eq!(all(&other, "pdu-a", "1", Metric::Power).len(), 600, "{broken}");
    }
}
