//! What is done to the store beside writing: hours and days are sealed when they are over, what has had its time goes,
//! and so does what the disk has no room for, oldest first. On a thread of its own, so that writing never waits.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::model::time::{Clock, Stamp};
use crate::series::merge::Rows;

use super::archive::{Archive, bytes_in};
use super::chunk::StoreError;
use super::roll::before_going;
use super::seal::{seal_day, seal_hour};
use super::shelf::{DAY_MS, HOUR_MS, Kind, Name, date, day_of, key, unkey};

/// How often it looks.
const ROUND: Duration = Duration::from_secs(10);
/// How long after its end an hour is sealed: a slow device's last row is in by then.
const HOUR_GRACE_MS: i64 = 2 * 60_000;
/// The same of a day.
const DAY_GRACE_MS: i64 = 10 * 60_000;
/// Days of readings that stay whatever the disk says: the disk may be full of something else.
const STAY: i64 = 2;

/// Keeps an archive until told to stop, or until who tells is gone.
pub fn run(archive: &Arc<Archive>, clock: &Arc<dyn Clock>, stop: &Receiver<()>) {
    find_rows(archive);
    loop {
        round(archive, clock.stamp());
        match stop.recv_timeout(ROUND) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// One round at a moment.
pub fn round(archive: &Archive, now: Stamp) {
    if archive.root().is_none() {
        return;
    }
    archive.look_aside();
    make_room(archive, now);
    // Sealing writes too; what is not sealed today is tomorrow.
    if !archive.has_room() {
        return;
    }
    let sealed = seal_hours(archive, now).and_then(|()| seal_days(archive, now));
    match sealed {
        Ok(()) => archive.lower("store.seal", "store.sealed", "readings are sealed again"),
        Err(error) => archive.raise("store.seal", format!("readings are not sealed: {error}")),
    }
    forget(archive, now);
}

/// Finds the hours that still have rows: those of before the start. A look-up per device and hour, however many rows.
pub fn find_rows(archive: &Archive) {
    for shelf in archive.shelves().iter().filter(|s| matches!(s.name, Name::Head(..))) {
        let Ok(store) = archive.store(shelf) else { continue };
        let mut from = vec![Kind::Row as u8];
        loop {
            let mut next = None;
            let found = store.range(&from, &[Kind::Row as u8 + 1], &mut |key, _| {
                next = unkey(key).map(|(pdu, at, _)| (pdu.to_owned(), at));
                next.is_none()
            });
            if let Err(error) = found {
                archive.raise("store.damaged", format!("rows cannot be read: {error}"));
                break;
            }
            let Some((pdu, at)) = next else { break };
            let hour = at.div_euclid(HOUR_MS) * HOUR_MS;
            archive.touch(shelf.name, &pdu, hour);
            from = key(Kind::Row, &pdu, hour + HOUR_MS);
        }
    }
}

fn seal_hours(archive: &Archive, now: Stamp) -> Result<(), StoreError> {
    for touched in archive.touched() {
        let (name, pdu, hour) = &touched;
        if hour + HOUR_MS + HOUR_GRACE_MS > now.0 {
            continue;
        }
        let Some(shelf) = archive.shelf(*name) else { continue };
        // Before the rows are read: one that comes meanwhile is touched again.
        archive.sealed_hour(&touched);
        if let Err(error) = seal_hour(archive, &shelf, pdu, *hour, &Rows::default()) {
            archive.touch(*name, pdu, *hour);
            return Err(error);
        }
    }
    Ok(())
}

/// Seals every day that is over; also one that got rows after it was.
fn seal_days(archive: &Archive, now: Stamp) -> Result<(), StoreError> {
    for shelf in archive.shelves() {
        let Name::Head(day, _) = shelf.name else { continue };
        if (day + 1) * DAY_MS + DAY_GRACE_MS <= now.0 {
            drop(shelf);
            seal_day(archive, day, &[])?;
        }
    }
    Ok(())
}

/// Lets go what has had its time; readings when their minutes are on the disk, and not before.
fn forget(archive: &Archive, now: Stamp) {
    let names: Vec<Name> = archive.shelves().iter().map(|shelf| shelf.name).collect();
    for name in names.into_iter().filter(|name| is_over(archive, now, *name)) {
        match left(archive, now, name) {
            Ok(()) => archive.replace(None, &[name]),
            Err(error) => {
                let day = date(name.days().0);
                let text = format!("readings of {day} stay until their minutes are made: {error}");
                archive.raise("store.minutes", text);
            }
        }
    }
}

fn is_over(archive: &Archive, now: Stamp, name: Name) -> bool {
    let kept = &archive.settings;
    let (_, end) = name.days();
    let days = match name {
        // A day that is not sealed yet has no rollups yet.
        Name::Head(..) => return false,
        Name::Day(..) => kept.raw_days,
        Name::Minutes(_) => kept.minute_days,
        Name::Hours(_) => kept.hour_days,
    };
    end <= day_of(now) - days
}

/// Makes what is left of a sealed day when its readings go, unless that has had its time too.
fn left(archive: &Archive, now: Stamp, name: Name) -> Result<(), StoreError> {
    let Name::Day(day, _) = name else { return Ok(()) };
    if is_over(archive, now, Name::minutes(day)) {
        return Ok(());
    }
    before_going(archive, name, true)?;
    archive.lower("store.minutes", "store.minutes_made", "minutes are made again");
    Ok(())
}

/// Lets a directory go before its time, because there is no room. Its minutes are made before, if they are any use; where
/// there is no room for them either they are given up: what comes is worth more than what was. Any other failure has time
/// while there is room to write, and is tried again. Returns whether it went.
fn go(archive: &Archive, now: Stamp, name: Name, minutes: bool) -> bool {
    let day = date(name.days().0);
    let made = if minutes { left(archive, now, name) } else { before_going(archive, name, false) };
    match made {
        Ok(()) if minutes => {}
        Ok(()) => {
            let text =
                format!("the budget has no room for the minutes of {day}: only its hours remain");
            archive.raise("store.minutes", text);
        }
        Err(error) if error == StoreError::Full || !archive.has_room() => {
            let text = format!("there was no room for the minutes of {day}: only its hours remain");
            archive.raise("store.minutes", text);
        }
        Err(error) => {
            let text = format!("readings of {day} stay until their minutes are made: {error}");
            archive.raise("store.minutes", text);
            return false;
        }
    }
    let what = if matches!(name, Name::Day(..)) { "readings" } else { "minutes" };
    tracing::warn!("{what} of {day} go before their time: there is no room");
    archive.replace(None, &[name]);
    true
}

/// Sealed days that may go before their time, oldest first.
fn sealed(archive: &Archive, now: Stamp) -> Vec<Name> {
    let may_go = |name: &Name| matches!(name, Name::Day(day, _) if *day < day_of(now) - STAY);
    archive.shelves().iter().map(|shelf| shelf.name).filter(may_go).collect()
}

/// Lets the oldest readings go while there is too little room for what comes, or more than the budget is taken.
fn make_room(archive: &Archive, now: Stamp) {
    let wanted = archive.settings.free_percent;
    // What somebody still reads goes when he is done: no more has to go for that.
    let leaving = archive.leaving_bytes();
    let is_short = archive.room().is_some_and(|(free, all)| {
        free.saturating_add(leaving).saturating_mul(100) < all.saturating_mul(wanted)
    });
    if is_short {
        let text =
            format!("less than {wanted} % of the disk are free: the oldest readings go first");
        archive.raise("store.room", text);
        // One a round: others may make room too, and a directory goes only when its last reader is done.
        if let Some(oldest) = sealed(archive, now).first() {
            go(archive, now, *oldest, true);
        }
    } else {
        archive.lower("store.room", "store.room_again", "the disk has room again");
    }
    if let (Some(budget), Some(root)) = (archive.settings.budget, archive.root()) {
        keep_budget(archive, now, root, budget);
    }
}

/// The oldest go, readings and minutes alike; hours never by themselves. Minutes that are made when readings go may be the
/// oldest next.
fn keep_budget(archive: &Archive, now: Stamp, root: &Path, budget: u64) {
    let stays = day_of(now) - STAY;
    let may_go = |name: &Name| match name {
        Name::Day(..) | Name::Minutes(_) => name.days().1 <= stays,
        Name::Head(..) | Name::Hours(_) => false,
    };
    let oldest = || {
        let names = archive.shelves().into_iter().map(|shelf| shelf.name).filter(may_go);
        names.min_by_key(|name| (name.days(), *name))
    };
    // A reader may still have what went.
    let taken = || bytes_in(root).saturating_sub(archive.leaving_bytes());
    while taken() > budget
        && let Some(name) = oldest()
    {
        // Minutes take as much as the readings: where they could not be next to go nothing would be won.
        let minutes = match name {
            Name::Day(day, _) => may_go(&Name::minutes(day)),
            _ => true,
        };
        if !go(archive, now, name, minutes) {
            break;
        }
    }
    if taken() > budget {
        // The same text while it lasts: what changes would be told anew each time.
        let ahead = archive.shelves().iter().filter(|s| s.name.days().0 > day_of(now) + 1).count();
        let mut text = format!(
            "readings take more than the {budget} bytes they may: hours and the last {} days stay",
            STAY + 1
        );
        if ahead > 0 {
            text += &format!(", and so do {ahead} that are dated after now: is the clock right?");
        }
        match archive.set_aside_count() {
            0 => {}
            aside => text += &format!(" {aside} directories that were set aside take of it too."),
        }
        archive.raise("store.budget", text);
    } else {
        archive.lower("store.budget", "store.budget_kept", "readings are within their budget");
    }
}

/// Seals all that there is, the hour and day under way too: for copies and measurements.
pub fn seal_all(archive: &Archive) -> Result<(), StoreError> {
    find_rows(archive);
    let shelves = archive.shelves();
    let mut days: Vec<i64> = shelves
        .iter()
        .filter_map(|shelf| match shelf.name {
            Name::Head(day, _) => Some(day),
            _ => None,
        })
        .collect();
    days.dedup();
    drop(shelves);
    for day in days {
        seal_day(archive, day, &[])?;
    }
    Ok(())
}
