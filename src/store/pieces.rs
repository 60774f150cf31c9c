//! What there is of a day that is in several places: rows, hours, and what was sealed before late rows came.

use std::collections::HashMap;
use std::sync::Arc;

use crate::series::block::{Head, Value};
use crate::series::cells::{self, Cell, Column};
use crate::series::row::Packed;
use crate::series::window::Run;

use super::chunk::{ChunkStore, StoreError};
use super::reader::{Scan, Show, Shown, schema, show};
use super::seal::Loaded;
use super::shelf::{DAY_MS, HOUR_MS, Kind, Name, key, unkey};
use super::writer::Schema;

/// Readings of a column, and when they were read.
#[derive(Debug, Clone, Default)]
struct Readings {
    times: Vec<i64>,
    cells: Column,
}

impl Readings {
    fn push(&mut self, at: i64, cell: Cell) {
        self.times.push(at);
        self.cells.push(cell);
    }

    /// Takes up readings that lie beside each other; what is rolled up is none.
    fn take(&mut self, run: Run<'_>) {
        match run {
            Run::Numbers(times, numbers) => {
                self.times.extend_from_slice(times);
                self.cells.push_numbers(numbers);
            }
            Run::Gaps(times, gap) => {
                self.times.extend_from_slice(times);
                self.cells.push_gaps(times.len(), gap);
            }
            Run::Rolled(..) => {}
        }
    }

    /// In order of time, of one moment the first that was found.
    fn sort(&mut self) {
        if self.times.is_sorted_by(|a, b| a < b) {
            return;
        }
        let mut all: Vec<(i64, Cell)> = self.times.drain(..).zip(self.cells.cells()).collect();
        all.sort_by_key(|(at, _)| *at);
        all.dedup_by_key(|(at, _)| *at);
        self.cells.clear();
        all.into_iter().for_each(|(at, cell)| self.push(at, cell));
    }
}

/// What there is of a day, per column.
pub(super) struct Pieces<'a, 's> {
    asked: &'a Scan<'s>,
    keys: Vec<&'static str>,
    columns: Vec<Readings>,
    pub(super) damaged: usize,
    found: bool,
}

impl<'a, 's> Pieces<'a, 's> {
    pub(super) fn new(asked: &'a Scan<'s>) -> Self {
        let keys = asked.columns.iter().map(|(_, metric)| metric.key()).collect();
        let columns = vec![Readings::default(); asked.columns.len()];
        Self { asked, keys, columns, damaged: 0, found: false }
    }

    pub(super) fn take(
        &mut self,
        store: &Arc<dyn ChunkStore>,
        name: Name,
        day: i64,
    ) -> Result<(), StoreError> {
        let pdu = self.asked.pdu.as_str();
        let (start, end) = (day * DAY_MS, (day + 1) * DAY_MS);
        // Rows first: what is sealed in between is then seen twice, and not missed.
        if matches!(name, Name::Head(..)) {
            self.rows(store.as_ref(), start.max(self.asked.start.0), end.min(self.asked.end.0))?;
        }
        let step = if matches!(name, Name::Day(..)) { DAY_MS } else { HOUR_MS };
        for at in (start..end).step_by(step as usize) {
            if at >= self.asked.end.0 || at + step <= self.asked.start.0 {
                continue;
            }
            let Some(loaded) = Loaded::find(store, Kind::Block, pdu, at)? else { continue };
            self.found = true;
            match Head::open(loaded.head()) {
                Ok(head) => self.block(&head, &loaded),
                Err(_) => self.damaged += 1,
            }
        }
        Ok(())
    }

    fn block(&mut self, head: &Head<'_>, loaded: &Loaded) {
        let mut cells = Column::default();
        let mut groups: HashMap<u16, Option<Value>> = HashMap::new();
        for (number, (part, _)) in self.asked.columns.iter().enumerate() {
            let Some(entry) = head.find(part, self.keys[number]) else { continue };
            let times = head.times_of(entry);
            let group = groups.entry(entry.group).or_insert_with(|| loaded.group(entry.group));
            let coded = group.as_ref().and_then(|group| entry.cells(group).ok());
            if coded.and_then(|coded| cells::decode_into(coded, times.len(), &mut cells)).is_none()
            {
                self.damaged += 1;
                continue;
            }
            let readings = &mut self.columns[number];
            show(number, self.asked, &times, &cells, &mut |_, run| {
                readings.take(run);
                true
            });
        }
    }

    fn rows(&mut self, store: &dyn ChunkStore, from: i64, until: i64) -> Result<(), StoreError> {
        let pdu = self.asked.pdu.as_str();
        // For each schema, where each of its columns goes.
        let mut ways: HashMap<u32, Vec<(usize, usize)>> = HashMap::new();
        let mut failure = None;
        let (from, until) = (key(Kind::Row, pdu, from), key(Kind::Row, pdu, until));
        store.range(&from, &until, &mut |key, value| {
            let (Some((_, at, _)), Ok(row)) = (unkey(key), Packed::open(value)) else {
                self.damaged += 1;
                return true;
            };
            self.found = true;
            let way = ways.entry(row.schema).or_insert_with(|| {
                let known = schema(store, row.schema).unwrap_or_else(|error| {
                    failure = Some(error);
                    None
                });
                self.way(known.filter(|schema| schema.pdu == pdu))
            });
            let mut wanted = way.iter().peekable();
            for (place, cell) in row.cells().enumerate() {
                match wanted.peek() {
                    Some((at_place, number)) if *at_place == place => {
                        self.columns[*number].push(at, cell);
                        wanted.next();
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            failure.is_none()
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Places in a schema's rows and the numbers of the columns that are asked for, by place.
    fn way(&self, schema: Option<Schema>) -> Vec<(usize, usize)> {
        let Some(schema) = schema else { return Vec::new() };
        let columns = schema.columns.iter().enumerate();
        columns
            .filter_map(|(place, (part, key))| {
                let wanted = self.asked.columns.iter().zip(&self.keys);
                let number = wanted.enumerate().find(|(_, ((p, _), k))| p == part && *k == key);
                number.map(|(number, _)| (place, number))
            })
            .collect()
    }

    pub(super) fn show(mut self, visit: Show<'_>) -> Shown {
        for (number, column) in self.columns.iter_mut().enumerate() {
            column.sort();
            if !show(number, self.asked, &column.times, &column.cells, visit) {
                return Shown::Stop(self.damaged);
            }
        }
        let shown = self.found || self.damaged > 0;
        if shown { Shown::Some(self.damaged) } else { Shown::Nothing }
    }
}
