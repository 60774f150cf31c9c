//! The journal over files, and over disks that lose what was not synced.

use std::collections::BTreeMap;
use std::io;

use super::*;

fn plan(id: &PlanId, record: &[u8], open: bool) -> Commit {
    Commit { plans: vec![(id.clone(), record.to_vec(), open)], ..Commit::default() }
}

fn line(text: &str) -> Draft {
    Draft { at: 1, kind: "k".into(), by: "b".into(), about: "a".into(), text: text.into() }
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let (one, two): (PlanId, PlanId) = ("p1".parse().unwrap(), "p2".parse().unwrap());
    let journal = Journal::open(&path).unwrap();
    let key = Some(("alice:k".to_owned(), b"p1".to_vec()));
    journal.commit(Commit { key, ..plan(&one, b"first", true) }).unwrap();
    journal.commit(plan(&two, b"second", true)).unwrap();
    let steps = vec![(two.clone(), 3, b"step".to_vec()), (one.clone(), 0, b"of one".to_vec())];
    journal.commit(Commit { steps, ..Commit::default() }).unwrap();
    journal.commit(plan(&one, b"first, done", false)).unwrap();
    for (outlet, lock) in [("1", Some("why")), ("2", Some("why not")), ("2", None)] {
        let lock = Some((format!("pdu-a/{outlet}"), lock.map(|lock| lock.as_bytes().to_vec())));
        let notes = vec![line(outlet)];
        journal.commit(Commit { lock, notes, ..Commit::default() }).unwrap();
    }
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.locks().unwrap(), [("pdu-a/1".to_owned(), b"why".to_vec())]);
    let first = Kept { record: b"first, done".to_vec(), steps: Vec::new() };
    assert_eq!(journal.get(&one).unwrap().unwrap(), first, "a whole record has its steps");
    let second = Kept { record: b"second".to_vec(), steps: vec![(3, b"step".to_vec())] };
    assert_eq!(journal.open_plans().unwrap(), std::slice::from_ref(&second));
    assert_eq!(journal.key("alice:k").unwrap().unwrap(), b"p1");
    assert_eq!(journal.key("bob:k").unwrap(), None);
    assert_eq!(journal.latest(1, None).unwrap(), [second]);
    assert_eq!(journal.latest(9, Some(&two)).unwrap(), [first]);
    journal.forget(|value| value == b"p1").unwrap();
    assert_eq!(journal.key("alice:k").unwrap(), None);
    assert!(journal.get(&two).unwrap().is_some());
    assert_eq!(journal.verify_audit().unwrap(), Ok(3));
    assert_eq!(journal.audit(1, 9).unwrap().len(), 2);
}

#[test]
fn a_line_of_the_audit_that_is_gone_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("journal.redb")).unwrap();
    let notes = (0..5).map(|n| line(&n.to_string())).collect();
    journal.commit(Commit { notes, ..Commit::default() }).unwrap();
    journal.settle().unwrap();
    journal.tables.remove_line(5);
    assert_eq!(journal.verify_audit().unwrap(), Err(Broken::CutOff(4, 5)));
}

/// A disk with a cache: what was not synced is lost in a crash, or torn, or not.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Cached>>);

#[derive(Debug, Default)]
struct Cached {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// So many writes and syncs succeed before every one fails.
    left: Option<u32>,
    /// So many syncs from now one fails, and no other: 1 is the next.
    fails_once: u32,
}

impl Cached {
    fn works(&mut self) -> io::Result<()> {
        match &mut self.left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

const SECTOR: usize = 512;

impl Disk {
    /// The power is cut, and comes back.
    fn crash(&self, random: &mut Random) {
        let mut disk = self.0.lock().unwrap();
        let disk = &mut *disk;
        for (from, data) in std::mem::take(&mut disk.unsynced) {
            disk.durable.resize(disk.durable.len().max(from + data.len()), 0);
            for (sector, piece) in data.chunks(SECTOR).enumerate() {
                if random.below(2) == 0 {
                    let at = from + sector * SECTOR;
                    disk.durable[at..at + piece.len()].copy_from_slice(piece);
                }
            }
        }
        disk.seen = disk.durable.clone();
        disk.left = None;
    }

    fn fails_after(&self, count: u32) {
        self.0.lock().unwrap().left = Some(count);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        let found = disk.seen.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.works()?;
        // A file system keeps the length by a journal of its own.
        disk.seen.resize(len as usize, 0);
        disk.durable.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.works()?;
        let disk = &mut *disk;
        if disk.fails_once > 0 {
            disk.fails_once -= 1;
            if disk.fails_once == 0 {
                return Err(io::Error::other("the disk fails"));
            }
        }
        for (from, data) in disk.unsynced.drain(..) {
            disk.durable[from..from + data.len()].copy_from_slice(&data);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.works()?;
        let from = offset as usize;
        disk.seen[from..from + data.len()].copy_from_slice(data);
        disk.unsynced.push((from, data.to_vec()));
        Ok(())
    }
}

/// Numbers of a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What a journal should have.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    plans: BTreeMap<PlanId, (Kept, bool)>,
    keys: BTreeMap<String, Vec<u8>>,
    locks: BTreeMap<String, Vec<u8>>,
    lines: Vec<String>,
}

impl Model {
    fn takes(&mut self, commit: &Commit) {
        for (id, record, open) in &commit.plans {
            let kept = Kept { record: record.clone(), steps: Vec::new() };
            self.plans.insert(id.clone(), (kept, *open));
        }
        for (id, place, step) in &commit.steps {
            let Some((kept, _)) = self.plans.get_mut(id) else { continue };
            kept.steps.retain(|(of, _)| of != place);
            kept.steps.push((*place, step.clone()));
            kept.steps.sort();
        }
        self.keys.extend(commit.key.clone());
        match &commit.lock {
            Some((outlet, Some(lock))) => drop(self.locks.insert(outlet.clone(), lock.clone())),
            Some((outlet, None)) => drop(self.locks.remove(outlet)),
            None => {}
        }
        self.lines.extend(commit.notes.iter().map(|note| note.text.clone()));
    }

    /// What a journal has, of what this knows to ask for; by what needs no settling first.
    fn of(journal: &Journal, names: &Model) -> Model {
        let open = |id: &PlanId, kept: &Kept| {
            let open = journal.tables.open_plans().unwrap();
            let pending = journal.state().batch();
            let told = pending.iter().rev().flat_map(|(_, commit)| &commit.plans);
            let last = told.filter(|(of, _, _)| of == id).map(|(_, _, open)| *open).next();
            last.unwrap_or_else(|| open.iter().any(|one| one.record == kept.record))
        };
        let plan = |id: &PlanId| {
            let kept = journal.get(id).unwrap()?;
            Some((id.clone(), (kept.clone(), open(id, &kept))))
        };
        let key = |key: &String| Some((key.clone(), journal.key(key).unwrap()?));
        Model {
            plans: names.plans.keys().filter_map(plan).collect(),
            keys: names.keys.keys().filter_map(key).collect(),
            locks: journal.locks().unwrap().into_iter().collect(),
            lines: journal.audit(0, 10_000).unwrap().into_iter().map(|line| line.text).collect(),
        }
    }
}

fn commit_of(random: &mut Random, nth: u64) -> Commit {
    let id: PlanId = format!("p{}", random.below(6)).parse().unwrap();
    // Most fit in a block; a few do not fit in the log at all.
    let long = match random.below(40) {
        0 => 1_200_000,
        1..4 => 90_000,
        _ => random.below(6_000),
    };
    let bytes = format!("{nth}-{id}-{}", "x".repeat(long as usize)).into_bytes();
    let mut commit = Commit::default();
    match random.below(5) {
        0 | 1 => commit.plans.push((id, bytes, random.below(2) == 0)),
        2 => commit.steps.push((id, random.below(3) as u32, bytes)),
        3 => commit.key = Some((format!("k{}", random.below(5)), bytes)),
        _ => {
            let lock = (random.below(2) == 0).then_some(bytes);
            commit.lock = Some((format!("pdu-a/{}", random.below(4)), lock));
        }
    }
    commit.notes = (0..random.below(3)).map(|of| line(&format!("{nth}/{of}"))).collect();
    commit
}

/// Steps of plans that are not there are not looked for.
fn without_strays(commit: Commit, model: &Model) -> Commit {
    let known = |id: &PlanId| model.plans.contains_key(id);
    let steps = commit.steps.into_iter().filter(|(id, _, _)| known(id)).collect();
    Commit { steps, ..commit }
}

fn lives(seed: u64) {
    let random = &mut Random(seed);
    let (tables, log) = (Disk::default(), Disk::default());
    let mut journal = Journal::on(tables.clone(), log.clone()).unwrap();
    let mut model = Model::default();
    let mut nth = 0;
    for _ in 0..random.below(12) + 2 {
        for _ in 0..random.below(40) {
            nth += 1;
            let commit = without_strays(commit_of(random, nth), &model);
            model.takes(&commit);
            journal.commit(commit).unwrap();
            if random.below(8) == 0 {
                journal.settle().unwrap();
            }
        }
        if random.below(2) == 0 {
            assert_eq!(Model::of(&journal, &model), model, "seed {seed}");
        }
        // The power goes in the middle of something.
        nth += 1;
        let last = without_strays(commit_of(random, nth), &model);
        let mut with_last = model.clone();
        with_last.takes(&last);
        let (disk, count) = (if random.below(2) == 0 { &log } else { &tables }, random.below(12));
        disk.fails_after(count as u32);
        let accepted = journal.commit(last).is_ok();
        let settled = journal.settle();
        drop(journal);
        tables.crash(random);
        log.crash(random);
        journal = Journal::on(tables.clone(), log.clone())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}; settled: {settled:?}"));
        let found = Model::of(&journal, &with_last);
        assert_eq!(journal.verify_audit().unwrap(), Ok(found.lines.len() as u64), "seed {seed}");
        if found == with_last {
            model = with_last;
        } else {
            assert!(!accepted, "seed {seed}: what was accepted is gone");
            assert_eq!(found, model, "seed {seed}");
        }
    }
}

#[test]
fn what_was_accepted_outlives_a_power_cut_at_any_write() {
    for seed in 0..20 {
        lives(seed);
    }
}

fn commits(journal: &Journal, from: u32, to: u32) {
    for n in from..=to {
        journal.commit(Commit { notes: vec![line(&n.to_string())], ..Commit::default() }).unwrap();
    }
}

fn texts(journal: &Journal) -> Vec<String> {
    journal.audit(0, 100).unwrap().into_iter().map(|line| line.text).collect()
}

#[test]
fn a_log_that_is_rotten_in_its_middle_is_told_and_a_torn_end_is_none() {
    let (tables, log) = (Disk::default(), Disk::default());
    let journal = Journal::on(tables.clone(), log.clone()).unwrap();
    commits(&journal, 1, 3);
    drop(journal);
    let flip = |at: usize| log.0.lock().unwrap().seen[at] ^= 1;
    // The end of the log: as if it had been torn.
    flip(2 * 4096 + 30);
    let (torn, whole) = (copy(&log), copy(&tables));
    assert_eq!(texts(&Journal::on(whole, torn).unwrap()), ["1", "2"]);
    flip(2 * 4096 + 30);
    flip(4096 + 30);
    let error = Journal::on(copy(&tables), copy(&log)).err().unwrap();
    assert!(
        matches!(&error, JournalError::Apart(why) if why.contains("between 1 and 3")),
        "{error}"
    );
    flip(4096 + 30);
    assert_eq!(texts(&Journal::on(tables, log).unwrap()), ["1", "2", "3"]);
}

fn copy(disk: &Disk) -> Disk {
    let seen = disk.0.lock().unwrap().seen.clone();
    Disk(Arc::new(Mutex::new(Cached { durable: seen.clone(), seen, ..Cached::default() })))
}

#[test]
fn tables_of_another_time_than_the_log_are_told() {
    let (tables, log) = (Disk::default(), Disk::default());
    let journal = Journal::on(tables.clone(), log.clone()).unwrap();
    let old = copy(&tables);
    commits(&journal, 1, 2);
    journal.settle().unwrap();
    commits(&journal, 3, 4);
    drop(journal);
    let error = Journal::on(old, copy(&log)).err().unwrap();
    assert!(matches!(&error, JournalError::Apart(why) if why.contains("goes on at 3")), "{error}");
}

#[test]
fn what_an_earlier_version_wrote_is_not_overwritten_by_an_old_log() {
    let (tables, log) = (Disk::default(), Disk::default());
    let journal = Journal::on(tables.clone(), log.clone()).unwrap();
    commits(&journal, 1, 2);
    journal.settle().unwrap();
    commits(&journal, 3, 3);
    drop(journal);
    // It knows the tables only.
    let earlier = Tables::on(tables.clone()).unwrap();
    earlier.add_line(line("of before"));
    drop(earlier);
    let journal = Journal::on(tables.clone(), log.clone()).unwrap();
    assert_eq!(texts(&journal), ["1", "2", "of before"]);
    commits(&journal, 4, 4);
    drop(journal);
    assert_eq!(texts(&Journal::on(tables, log).unwrap()), ["1", "2", "of before", "4"]);
}

#[test]
fn nor_is_it_by_a_log_that_was_never_settled() {
    let (tables, log) = (Disk::default(), Disk::default());
    let journal = Journal::on(tables.clone(), log.clone()).unwrap();
    commits(&journal, 1, 3);
    drop(journal);
    let earlier = Tables::on(tables.clone()).unwrap();
    earlier.add_line(line("of before"));
    drop(earlier);
    assert_eq!(texts(&Journal::on(tables, log).unwrap()), ["of before"]);
}

#[test]
fn commits_without_pause_find_room() {
    let (tables, log) = (Disk::default(), Disk::default());
    let journal = Journal::on(tables.clone(), log.clone()).unwrap();
    commits(&journal, 1, 700);
    assert_eq!(
        journal.tables.verify_audit().unwrap(),
        Ok(514),
        "a log of 256, and what had no room, twice"
    );
    drop(journal);
    let journal = Journal::on(tables, log).unwrap();
    assert!(journal.is_settled());
    assert_eq!(journal.verify_audit().unwrap(), Ok(700));
}

#[test]
fn after_a_failed_sync_nothing_is_accepted() {
    let log = Disk::default();
    let journal = Journal::on(Disk::default(), log.clone()).unwrap();
    commits(&journal, 1, 1);
    log.fails_after(1);
    assert!(journal.commit(Commit::default()).is_err());
    log.0.lock().unwrap().left = None;
    let error = journal.commit(Commit::default()).unwrap_err();
    assert!(error.to_string().contains("restart the gateway"), "{error}");
}

#[test]
fn what_was_refused_as_the_disk_failed_does_not_come_back() {
    let (tables, log) = (Disk::default(), Disk::default());
    let journal = Journal::on(tables.clone(), log.clone()).unwrap();
    commits(&journal, 1, 1);
    // Its sync fails, and the next ones do not.
    log.0.lock().unwrap().fails_once = 1;
    let refused = Commit { notes: vec![line("refused")], ..Commit::default() };
    assert!(journal.commit(refused).is_err());
    drop(journal);
    assert_eq!(texts(&Journal::on(tables, log).unwrap()), ["1"]);
}

#[test]
fn words_of_a_client_are_no_record() {
    // A whole record, as a log has it, behind where this one ends.
    let other = Disk::default();
    let forger = Journal::on(Disk::default(), other.clone()).unwrap();
    commits(&forger, 1, 3);
    let forged = other.0.lock().unwrap().seen[2 * 4096..2 * 4096 + 300].to_vec();
    assert!(forged.starts_with(b"pmj1"));
    // At each place of a client's words at which a block could begin.
    for shift in 0..64 {
        let (tables, log) = (Disk::default(), Disk::default());
        let journal = Journal::on(tables.clone(), log.clone()).unwrap();
        let mut words = vec![b'x'; 4096 - 64 + shift];
        words.extend_from_slice(&forged);
        let thing = Some(("t".to_owned(), words.clone()));
        journal.commit(Commit { thing, ..Commit::default() }).unwrap();
        journal.settle().unwrap();
        // A shorter one in its place ends just before them.
        commits(&journal, 2, 2);
        drop(journal);
        let journal = Journal::on(tables, log).unwrap();
        assert_eq!(journal.thing("t").unwrap(), Some(words));
        assert_eq!(texts(&journal), ["2"], "{shift}");
    }
}

#[test]
fn a_log_without_its_tables_is_told() {
    let log = Disk::default();
    let journal = Journal::on(Disk::default(), log.clone()).unwrap();
    commits(&journal, 1, 2);
    drop(journal);
    let error = Journal::on(Disk::default(), log).err().unwrap();
    assert!(matches!(&error, JournalError::Apart(why) if why.contains("no log")), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    drop(Journal::open(&path).unwrap());
    std::fs::write(path.with_extension("log"), [0; 4096]).unwrap();
    let error = Journal::open(&path).err().unwrap();
    assert!(error.to_string().contains("4096 bytes instead of"), "{error}");
}

#[test]
fn two_who_settle_at_once_write_no_line_twice() {
    let journal = Journal::on(Disk::default(), Disk::default()).unwrap();
    commits(&journal, 1, 3);
    let first = journal.state().batch();
    commits(&journal, 4, 4);
    let second = journal.state().batch();
    for batch in [&first, &second, &first] {
        journal.tables.apply(batch).unwrap();
    }
    assert_eq!(texts(&journal), ["1", "2", "3", "4"]);
}

#[test]
fn what_may_be_durable_past_the_log_shares_its_number_with_nobody() {
    let (tables, log) = (Disk::default(), Disk::default());
    let journal = Journal::on(tables.clone(), log.clone()).unwrap();
    let long = Commit { thing: Some(("t".to_owned(), vec![1; 2 << 20])), ..Commit::default() };
    tables.fails_after(3);
    assert!(journal.commit(long).is_err());
    tables.0.lock().unwrap().left = None;
    let error = journal.commit(Commit::default()).unwrap_err();
    assert!(error.to_string().contains("restart the gateway"), "{error}");
}
