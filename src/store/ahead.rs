//! Opens directories side by side, ahead of a scan that is to come to them: each costs a write that reaches the disk and
//! a page read from it, and one after the other they were most of what the first graph of a month took.

use std::sync::Arc;

use crate::series::block::Head;

use super::reader::Scan;
use super::seal::Loaded;
use super::shelf::{DAY_MS, Kind, Shelf};

/// How many days a scan looks ahead, and so how many directories are opened at once at most.
pub const DAYS: usize = 16;

/// Opens those that are not open yet, where there is more than one, and reads the page that the first column of each of
/// their days is in. What fails is left to the scan, which comes to it again and knows what to do.
pub fn open(wanted: &[(Arc<Shelf>, Kind, Vec<i64>)], asked: &Scan<'_>) {
    let closed: Vec<_> = wanted.iter().filter(|(shelf, _, _)| !shelf.is_open()).collect();
    if closed.len() < 2 {
        return;
    }
    std::thread::scope(|scope| {
        for (shelf, kind, days) in closed {
            scope.spawn(move || {
                let Ok(store) = shelf.store() else { return };
                for day in days {
                    let found = Loaded::find(&store, *kind, asked.pdu.as_str(), day * DAY_MS);
                    let Ok(Some(loaded)) = found else { continue };
                    let Ok(head) = Head::open(loaded.head()) else { continue };
                    let mut columns = asked.columns.iter();
                    let column = columns.find_map(|(part, metric)| head.find(part, metric.key()));
                    column.and_then(|entry| loaded.group(entry.group));
                }
            });
        }
    });
}
