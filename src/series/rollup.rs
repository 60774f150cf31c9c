//! Rollups: what a minute or an hour of readings was, kept when the readings themselves are gone. A counter's growth is
//! kept too, over its resets.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::reading::Gap;

use super::block::{Builder, Fetch, Head, Name, Stored};
use super::cells::{self, Cell, Column, Piece};
use super::code::{pull_bytes, pull_count, push};
use super::column;

/// A step of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolled {
    /// When it begins, ms since 1970.
    pub at: i64,
    /// How many readings there were.
    pub count: i64,
    /// Why there were none, or the reason of the last gap.
    pub gap: Gap,
    /// Smallest.
    pub least: i64,
    /// Largest.
    pub most: i64,
    /// Of all readings.
    pub sum: i64,
    /// First.
    pub first: i64,
    /// Last.
    pub last: i64,
    /// How much a counter grew from the first to the last, over resets.
    pub grown: i64,
}

/// How much a counter grew between two readings: one that went back was reset and counts from zero.
#[inline]
pub fn growth(before: i64, after: i64) -> i64 {
    if after >= before { after.saturating_sub(before) } else { after.max(0) }
}

impl Rolled {
    /// A step without a good reading.
    fn none(at: i64, gap: Gap) -> Self {
        Self { at, count: 0, gap, least: 0, most: 0, sum: 0, first: 0, last: 0, grown: 0 }
    }

    fn take(&mut self, cell: Cell) {
        let value = match cell {
            Ok(value) => value,
            Err(gap) => {
                self.gap = gap;
                return;
            }
        };
        if self.count == 0 {
            (self.least, self.most, self.first, self.last) = (value, value, value, value);
        }
        self.count += 1;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        self.sum = self.sum.saturating_add(value);
        self.grown = self.grown.saturating_add(growth(self.last, value));
        self.last = value;
    }
}

/// Rolls a column up, readings in order of time; steps are whole multiples of the width since 1970.
pub fn roll(column: impl IntoIterator<Item = (i64, Cell)>, width_ms: i64) -> Vec<Rolled> {
    let mut out: Vec<Rolled> = Vec::new();
    let mut until = i64::MIN;
    for (at, cell) in column {
        if at >= until {
            let step = at.div_euclid(width_ms) * width_ms;
            out.push(Rolled::none(step, Gap::NotRead));
            until = step.saturating_add(width_ms);
        }
        if let Some(rolled) = out.last_mut() {
            rolled.take(cell);
        }
    }
    out
}

/// Rolls a column up that was read at these moments, rising.
pub fn roll_column(times: &[i64], column: &Column, width_ms: i64) -> Vec<Rolled> {
    let mut out: Vec<Rolled> = Vec::new();
    let mut until = i64::MIN;
    let mut times = times;
    for piece in column.pieces() {
        let (own, rest) = times.split_at(piece.len().min(times.len()));
        times = rest;
        let mut from = 0;
        while from < own.len() {
            if own[from] >= until {
                let step = own[from].div_euclid(width_ms) * width_ms;
                out.push(Rolled::none(step, Gap::NotRead));
                until = step.saturating_add(width_ms);
            }
            let to = from + own[from..].iter().take_while(|at| **at < until).count();
            if let Some(rolled) = out.last_mut() {
                match piece {
                    Piece::Numbers(numbers) => {
                        numbers[from..to].iter().for_each(|number| rolled.take(Ok(*number)));
                    }
                    Piece::Gaps(_, gap) => rolled.gap = gap,
                }
            }
            from = to;
        }
    }
    out
}

/// Codes the steps of a column; their moments are the block's.
pub fn encode(steps: &[Rolled]) -> Vec<u8> {
    let counts = steps.iter().map(|s| if s.count > 0 { Ok(s.count) } else { Err(s.gap) });
    let good = || steps.iter().filter(|s| s.count > 0);
    // All but the smallest are told by how far they are from it: of a calm load that is next to nothing.
    let columns: [Vec<i64>; 6] = [
        good().map(|s| s.least).collect(),
        good().map(|s| s.most.wrapping_sub(s.least)).collect(),
        good().map(|s| s.sum.wrapping_sub(s.count.wrapping_mul(s.least))).collect(),
        good().map(|s| s.last.wrapping_sub(s.least)).collect(),
        good().map(|s| s.first.wrapping_sub(s.least)).collect(),
        good().map(|s| s.grown.wrapping_sub(s.last.wrapping_sub(s.first))).collect(),
    ];
    let mut bytes = Vec::new();
    let coded = columns.iter().map(|column| column::encode(column));
    for part in std::iter::once(cells::encode(counts)).chain(coded) {
        push(&mut bytes, part.len() as u64);
        bytes.extend_from_slice(&part);
    }
    bytes
}

/// Reads the steps of a column; `None` if the bytes are not theirs.
pub fn decode(mut bytes: &[u8], times: &[i64]) -> Option<Vec<Rolled>> {
    let mut part = || {
        let left = bytes.len();
        let length = pull_count(&mut bytes, left)?;
        pull_bytes(&mut bytes, length)
    };
    let counts = cells::decode(part()?, times.len())?;
    let good = counts.iter().filter(|count| count.is_ok()).count();
    let mut column = || column::decode(part()?, good);
    let (least, most, sum) = (column()?, column()?, column()?);
    let (last, first, grown) = (column()?, column()?, column()?);
    let mut n = 0;
    let step = |(at, count): (&i64, &Cell)| match *count {
        Err(gap) => Rolled::none(*at, gap),
        Ok(count) => {
            let low = least[n];
            let (end, start) = (last[n].wrapping_add(low), first[n].wrapping_add(low));
            let step = Rolled {
                at: *at,
                count,
                gap: Gap::NotRead,
                least: low,
                most: most[n].wrapping_add(low),
                sum: sum[n].wrapping_add(count.wrapping_mul(low)),
                first: start,
                last: end,
                grown: grown[n].wrapping_add(end.wrapping_sub(start)),
            };
            n += 1;
            step
        }
    };
    Some(times.iter().zip(&counts).map(step).collect())
}

/// Two tellings of the same time as one: of each step the telling of more readings, and the later one where both are of
/// as many. So nothing that is damaged or incomplete takes the place of what is whole.
pub fn join(before: &[Rolled], after: &[Rolled]) -> Vec<Rolled> {
    let mut steps: BTreeMap<i64, Rolled> = before.iter().map(|step| (step.at, *step)).collect();
    for step in after {
        let known = steps.entry(step.at).or_insert(*step);
        if step.count >= known.count {
            *known = *step;
        }
    }
    steps.into_values().collect()
}

/// What steps are taken from, column by column.
pub enum Steps<'s> {
    /// A block of readings, which are rolled up.
    Readings(&'s Head<'s>, &'s Fetch<'s>),
    /// A block of rollups.
    Rolled(&'s Head<'s>, &'s Fetch<'s>),
    /// What was rolled up while the readings were at hand, of the width that is asked for.
    Made(&'s Made),
}

/// Steps of columns by their names.
pub type Made = BTreeMap<Name, Vec<Rolled>>;

impl Steps<'_> {
    /// The names of the columns.
    pub fn names(&self) -> Vec<Name> {
        match self {
            Steps::Readings(head, _) | Steps::Rolled(head, _) => {
                let columns = head.columns.iter();
                columns.map(|entry| (entry.part.to_owned(), entry.key.to_owned())).collect()
            }
            Steps::Made(made) => made.keys().cloned().collect(),
        }
    }

    /// The steps of a column; none where there is no such column, or it is damaged, which is counted. Readings that are
    /// damaged are steps that say so.
    pub fn column(&self, name: &Name, width_ms: i64, damaged: &mut usize) -> Vec<Rolled> {
        let (head, fetch) = match self {
            Steps::Readings(head, fetch) | Steps::Rolled(head, fetch) => (head, fetch),
            Steps::Made(made) => return made.get(name).cloned().unwrap_or_default(),
        };
        let Some(entry) = head.find(&name.0, &name.1) else { return Vec::new() };
        let times = head.times_of(entry);
        let group = fetch(entry.group);
        let coded = group.as_ref().and_then(|group| entry.cells(group).ok());
        if let Steps::Rolled(..) = self {
            let steps = coded.and_then(|coded| decode(coded, &times));
            *damaged += usize::from(steps.is_none());
            return steps.unwrap_or_default();
        }
        let mut cells = Column::default();
        if coded.and_then(|coded| cells::decode_into(coded, times.len(), &mut cells)).is_none() {
            *damaged += 1;
            cells.push_gaps(times.len(), Gap::Damaged);
        }
        roll_column(&times, &cells, width_ms)
    }
}

/// A block of rollups under way: coded columns, and at which moments each has steps.
#[derive(Debug, Default)]
pub struct Roller {
    moments: Vec<Vec<i64>>,
    columns: Vec<(Name, usize, Vec<u8>)>,
}

impl Roller {
    /// Adds a column of steps, rising.
    pub fn add(&mut self, name: &Name, steps: &[Rolled]) {
        let moments: Vec<i64> = steps.iter().map(|step| step.at).collect();
        let number = self.moments.iter().position(|known| *known == moments);
        let number = number.unwrap_or_else(|| {
            self.moments.push(moments);
            self.moments.len() - 1
        });
        self.columns.push((name.clone(), number, encode(steps)));
    }

    /// The block, if there is anything in it.
    pub fn block(self) -> Option<Stored> {
        let mut at: BTreeMap<i64, BTreeSet<usize>> = BTreeMap::new();
        for (number, moments) in self.moments.iter().enumerate() {
            for moment in moments {
                at.entry(*moment).or_default().insert(number);
            }
        }
        let mut shapes: Vec<&BTreeSet<usize>> = Vec::new();
        let mut shape_of = Vec::new();
        for set in at.values() {
            let shape = shapes.iter().position(|known| *known == set).unwrap_or_else(|| {
                shapes.push(set);
                shapes.len() - 1
            });
            shape_of.push(shape as i64);
        }
        let times: Vec<i64> = at.keys().copied().collect();
        let mut builder = Builder::new(&times, &shape_of, shapes.len());
        for (name, number, bytes) in &self.columns {
            let has: Vec<bool> = shapes.iter().map(|shape| shape.contains(number)).collect();
            builder.column((&name.0, &name.1), &has, bytes);
        }
        (!times.is_empty()).then(|| builder.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rollups_are_read_back_and_say_what_the_readings_said(readings in prop::collection::btree_map(-500_000_i64..500_000, prop_oneof![3 => (0_i64..100_000).prop_map(Ok), 1 => Just(Err(Gap::Timeout))], 1..80)) {
            let column: Vec<(i64, Cell)> = readings.into_iter().collect();
            let (times, cells): (Vec<i64>, Vec<Cell>) = column.iter().copied().unzip();
            prop_assert_eq!(roll_column(&times, &cells.into_iter().collect(), 60_000), roll(column.iter().copied(), 60_000));
            let mut roller = Roller::default();
            let name = ("1".to_owned(), "energy_wh".to_owned());
            roller.add(&name, &roll(column.iter().copied(), 60_000));
            let stored = roller.block().unwrap();
            let head = Head::open(&stored.head).unwrap();
            let entry = head.find("1", "energy_wh").unwrap();
            let steps = decode(entry.cells(&stored.groups[0]).unwrap(), &head.times_of(entry)).unwrap();
            let good = |at: i64| column.iter().filter(move |(t, _)| t.div_euclid(60_000) * 60_000 == at).filter_map(|(_, cell)| cell.ok());
            for step in &steps {
                prop_assert_eq!(step.count, good(step.at).count() as i64);
                if step.count > 0 {
                    prop_assert_eq!(Some(step.least), good(step.at).min());
                    prop_assert_eq!(Some(step.most), good(step.at).max());
                    prop_assert_eq!(step.sum, good(step.at).sum::<i64>());
                    prop_assert_eq!(Some(step.last), good(step.at).next_back());
                }
            }
            let all: Vec<i64> = column.iter().filter_map(|(_, cell)| cell.ok()).collect();
            let grown: i64 = all.windows(2).map(|pair| growth(pair[0], pair[1])).sum();
            let kept: Vec<&Rolled> = steps.iter().filter(|step| step.count > 0).collect();
            let between: i64 = kept.windows(2).map(|pair| growth(pair[0].last, pair[1].first)).sum();
            prop_assert_eq!(kept.iter().map(|step| step.grown).sum::<i64>() + between, grown);
        }

        #[test]
        fn joined_steps_are_those_of_more_readings(left in prop::collection::btree_map(0_i64..40, 0_i64..5, 0..20), right in prop::collection::btree_map(0_i64..40, 0_i64..5, 0..20)) {
            let steps = |of: &BTreeMap<i64, i64>, sum| of.iter().map(|(at, count)| Rolled { at: *at, count: *count, gap: Gap::NotRead, least: 0, most: 0, sum, first: 0, last: 0, grown: 0 }).collect::<Vec<_>>();
            let joined = join(&steps(&left, 1), &steps(&right, 2));
            prop_assert!(joined.is_sorted_by(|a, b| a.at < b.at));
            for step in &joined {
                let (l, r) = (left.get(&step.at).copied().unwrap_or(-1), right.get(&step.at).copied().unwrap_or(-1));
                prop_assert_eq!((step.count, step.sum), if r >= l { (r, 2) } else { (l, 1) });
            }
            prop_assert_eq!(joined.len(), left.keys().chain(right.keys()).collect::<BTreeSet<_>>().len());
        }

        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..80), count in 0_usize..300) {
            let times: Vec<i64> = (0..count as i64).collect();
            prop_assert!(decode(&bytes, &times).is_none_or(|steps| steps.len() == count));
        }
    }
}
