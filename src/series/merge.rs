//! Rows and blocks of one device made into one block: an hour's rows when the hour is over, a day's blocks when the
//! day is over, and whatever came late. One column is in memory at a time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::reading::Gap;

use super::block::{Builder, Fetch, Head, Name, Named, Stored};
use super::cells::{self, Cell, Column};

/// Rows that an hour has at a poll every ten seconds: so much room is taken at once.
const USUAL: usize = 360;

/// Rows taken up one by one.
#[derive(Debug, Default)]
pub struct Rows {
    times: Vec<i64>,
    shape_of: Vec<usize>,
    shapes: Vec<Shape>,
    names: BTreeMap<Name, usize>,
    /// The cells of each name, of the rows that have it.
    columns: Vec<Column>,
}

/// Rows with the same columns.
#[derive(Debug)]
struct Shape {
    names: Vec<Name>,
    /// Where the cells of each name go.
    columns: Vec<usize>,
}

impl Rows {
    /// The number of a shape: what [`Rows::add`] wants to know of a row.
    pub fn shape(&mut self, names: &[Name]) -> usize {
        if let Some(number) = self.shapes.iter().position(|known| known.names == names) {
            return number;
        }
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let next = self.columns.len();
            let at = *self.names.entry(name.clone()).or_insert(next);
            if at == next {
                self.columns.push(Column::with_capacity(USUAL));
            }
            columns.push(at);
        }
        self.shapes.push(Shape { names: names.to_vec(), columns });
        self.shapes.len() - 1
    }

    /// Adds a row of a shape that [`Rows::shape`] gave the number of.
    pub fn add(&mut self, at: i64, shape: usize, cells: impl Iterator<Item = Cell>) {
        self.times.push(at);
        self.shape_of.push(shape);
        for (column, cell) in self.shapes[shape].columns.iter().zip(cells) {
            self.columns[*column].push(cell);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    fn column(&self, (part, key): Named<'_>) -> Option<&Column> {
        let name = (part.to_owned(), key.to_owned());
        self.names.get(&name).map(|number| &self.columns[*number])
    }

    /// When the rows were read that have a column.
    fn times_of(&self, (part, key): Named<'_>) -> Vec<i64> {
        let is = |name: &Name| name.0 == part && name.1 == key;
        let has: Vec<bool> = self.shapes.iter().map(|shape| shape.names.iter().any(is)).collect();
        let rows = self.times.iter().zip(&self.shape_of);
        rows.filter(|(_, shape)| has[**shape]).map(|(at, _)| *at).collect()
    }
}

/// What a block is made from. Of two rows of the same moment the later source's counts.
pub enum Source<'s> {
    /// Rows.
    Rows(&'s Rows),
    /// A block, and the way to its values.
    Block(&'s Head<'s>, &'s Fetch<'s>),
}

impl<'s> Source<'s> {
    fn is_empty(&self) -> bool {
        match self {
            Source::Rows(rows) => rows.is_empty(),
            Source::Block(head, _) => head.times.is_empty(),
        }
    }

    fn rows(&self) -> Vec<(i64, usize)> {
        match self {
            Source::Rows(rows) => {
                rows.times.iter().copied().zip(rows.shape_of.iter().copied()).collect()
            }
            Source::Block(head, _) => {
                let shapes = head.shape_of.iter().map(|shape| *shape as usize);
                head.times.iter().copied().zip(shapes).collect()
            }
        }
    }

    fn shapes(&self) -> Vec<BTreeSet<Named<'s>>> {
        match self {
            Source::Rows(rows) => {
                let named = |name: &'s Name| (name.0.as_str(), name.1.as_str());
                rows.shapes.iter().map(|shape| shape.names.iter().map(named).collect()).collect()
            }
            Source::Block(head, _) => {
                let has = |shape: usize| {
                    let entries = head.columns.iter().filter(move |entry| entry.in_shape(shape));
                    entries.map(|entry| (entry.part, entry.key)).collect()
                };
                (0..head.shapes).map(has).collect()
            }
        }
    }

    /// Whether it is a block with the shapes and columns of another, as an hour of a day mostly is of the one before.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Source::Block(head, _), Source::Block(other, _)) => head.is_like(other),
            _ => false,
        }
    }
}

/// Names of columns in the order in which blocks have them, each once: those of one metric together, and numbers of
/// outlets by their size, so that neighbours stand together for people too.
pub fn in_order<'n>(names: impl Iterator<Item = Named<'n>>) -> Vec<Named<'n>> {
    let each_once: BTreeSet<Named<'n>> = names.collect();
    let mut names: Vec<_> =
        each_once.into_iter().map(|(part, key)| (key, part.parse::<u32>().ok(), part)).collect();
    names.sort_unstable();
    names.into_iter().map(|(key, _, part)| (part, key)).collect()
}

/// A block under way: a column read by name.
pub struct Merged<'s> {
    sources: Vec<Source<'s>>,
    /// Moment, source, shape among all shapes; rising.
    rows: Vec<(i64, usize, usize)>,
    shapes: Vec<BTreeSet<Named<'s>>>,
    lost: BTreeSet<(usize, i64)>,
    /// Whether all rows come one after the other, source by source: then so do the cells of each column.
    in_turn: bool,
    /// The rows, if they are all that there is.
    only: Option<&'s Rows>,
    /// Columns of blocks that could not be read: their cells are gaps.
    pub damaged: usize,
}

/// Memory for columns that are read one after the other.
#[derive(Default)]
struct Room {
    whole: Column,
    piece: Column,
    /// For each source, where the next column's entry is looked for first: they are asked for in their order.
    next: Vec<usize>,
}

impl<'s> Merged<'s> {
    /// Of sources.
    pub fn new(sources: Vec<Source<'s>>) -> Self {
        let mut shapes: Vec<BTreeSet<Named<'s>>> = Vec::new();
        let mut rows = Vec::new();
        let mut own: Vec<usize> = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            if number == 0 || !source.is_like(&sources[number - 1]) {
                let known = |shape| {
                    shapes.iter().position(|known| *known == shape).unwrap_or_else(|| {
                        shapes.push(shape);
                        shapes.len() - 1
                    })
                };
                own = source.shapes().into_iter().map(known).collect();
            }
            rows.extend(source.rows().into_iter().map(|(at, shape)| (at, number, own[shape])));
        }
        let mut some = sources.iter().filter(|source| !source.is_empty());
        let only = match (some.next(), some.next()) {
            (Some(Source::Rows(rows)), None) => Some(*rows),
            _ => None,
        };
        let in_turn = rows.is_sorted_by(|a, b| a.0 < b.0);
        let mut lost = BTreeSet::new();
        if !in_turn {
            rows.sort_by_key(|(at, source, _)| (*at, *source));
            for pair in rows.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                lost.insert((pair[0].1, pair[0].0));
            }
            rows.retain(|(at, source, _)| !lost.contains(&(*source, *at)));
        }
        Self { sources, rows, shapes, lost, in_turn, only, damaged: 0 }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The columns: those of one metric together.
    pub fn names(&self) -> Vec<Named<'s>> {
        in_order(self.shapes.iter().flatten().copied())
    }

    /// The cells of a column, those of the rows that have it.
    fn column<'c>(&mut self, name: Named<'_>, room: &'c mut Room) -> &'c Column
    where
        's: 'c,
    {
        room.whole.clear();
        if !self.in_turn {
            self.sort(name, room);
        } else if let Some(rows) = self.only {
            return rows.column(name).unwrap_or(&room.whole);
        } else {
            for number in 0..self.sources.len() {
                self.take(number, name, room);
                room.whole.append(&room.piece);
            }
        }
        &room.whole
    }

    /// The cells of a column in order of time, without those of rows that do not count.
    fn sort(&mut self, name: Named<'_>, room: &mut Room) {
        let mut column: Vec<(i64, Cell)> = Vec::with_capacity(self.rows.len());
        for number in 0..self.sources.len() {
            let times = self.take(number, name, room);
            let cells = times.iter().copied().zip(room.piece.cells());
            column.extend(cells.filter(|(at, _)| !self.lost.contains(&(number, *at))));
        }
        column.sort_by_key(|(at, _)| *at);
        column.iter().for_each(|(_, cell)| room.whole.push(*cell));
    }

    /// Takes up the cells of a column that a source has, and tells when they were read.
    fn take(&mut self, number: usize, name: Named<'_>, room: &mut Room) -> Cow<'s, [i64]> {
        room.piece.clear();
        let (head, fetch) = match &self.sources[number] {
            Source::Rows(rows) => {
                rows.column(name).into_iter().for_each(|column| room.piece.append(column));
                return Cow::Owned(rows.times_of(name));
            }
            Source::Block(head, fetch) => (*head, *fetch),
        };
        let Some((place, entry)) = head.find_from(room.next[number], name) else {
            return Cow::Borrowed(&[]);
        };
        room.next[number] = place + 1;
        let times = head.times_of(entry);
        let group = fetch(entry.group);
        let coded = group.as_ref().and_then(|group| entry.cells(group).ok());
        let read = coded.and_then(|coded| cells::decode_into(coded, times.len(), &mut room.piece));
        if read.is_none() {
            self.damaged += 1;
            room.piece.push_gaps(times.len(), Gap::Damaged);
        }
        times
    }

    /// The block, to be kept; each column is shown on its way with its moments, for what else is made from it.
    pub fn block(&mut self, show: impl FnMut(Named<'_>, &[i64], &Column)) -> Stored {
        self.block_by(cells::encode_onto, show)
    }

    /// The block, to be merged into another before long: larger, and made for less.
    pub fn block_quickly(&mut self) -> Stored {
        self.block_by(cells::encode_quickly_onto, |_, _, _| {})
    }

    fn block_by(
        &mut self,
        encode_onto: impl Fn(&Column, &mut Vec<u8>),
        mut show: impl FnMut(Named<'_>, &[i64], &Column),
    ) -> Stored {
        let times: Vec<i64> = self.rows.iter().map(|(at, _, _)| *at).collect();
        let shape_of: Vec<i64> = self.rows.iter().map(|(_, _, shape)| *shape as i64).collect();
        let mut builder = Builder::new(&times, &shape_of, self.shapes.len());
        let mut room = Room { next: vec![0; self.sources.len()], ..Room::default() };
        let mut coded = Vec::new();
        for name in self.names() {
            let has: Vec<bool> = self.shapes.iter().map(|shape| shape.contains(&name)).collect();
            let times = if has.iter().all(|has| *has) {
                Cow::Borrowed(&times)
            } else {
                let rows = self.rows.iter().filter(|(_, _, shape)| has[*shape]);
                Cow::Owned(rows.map(|(at, _, _)| *at).collect())
            };
            let column = self.column(name, &mut room);
            show(name, &times, column);
            coded.clear();
            encode_onto(column, &mut coded);
            builder.column(name, &has, &coded);
        }
        builder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::Value;
    use super::*;
    use proptest::prelude::*;

    fn name(part: usize, key: &str) -> Name {
        (part.to_string(), key.to_owned())
    }

    /// Rows of two shapes: a fast poll and a full one.
    fn rows(readings: &[(i64, bool, [i64; 3])]) -> Rows {
        let fast = vec![name(1, "power_w"), name(2, "power_w")];
        let full = vec![name(1, "power_w"), name(2, "power_w"), name(1, "energy_wh")];
        let mut rows = Rows::default();
        for (at, is_full, values) in readings {
            let cells = values
                .map(|value| if value % 7 == 0 { Err(Gap::Timeout) } else { Ok(value * 1_000) });
            let shape = rows.shape(if *is_full { &full } else { &fast });
            rows.add(*at, shape, cells.into_iter());
        }
        rows
    }

    fn all(stored: &Stored) -> BTreeMap<Name, Vec<(i64, Cell)>> {
        let head = Head::open(&stored.head).unwrap();
        let read = |entry: &super::super::block::Entry<'_>| {
            let times = head.times_of(entry);
            let group = &stored.groups[usize::from(entry.group) - 1];
            let cells = cells::decode(entry.cells(group).unwrap(), times.len()).unwrap();
            let name = (entry.part.to_owned(), entry.key.to_owned());
            (name, times.iter().copied().zip(cells).collect())
        };
        head.columns.iter().map(read).collect()
    }

    fn reading() -> impl Strategy<Value = (i64, bool, [i64; 3])> {
        (0..1_000_000_i64, any::<bool>(), prop::array::uniform3(-50..5_000_i64))
    }

    proptest! {
        #[test]
        fn a_block_of_halves_is_the_block_of_the_whole(readings in prop::collection::btree_map(0..1_000_000_i64, reading(), 0..60), at in any::<prop::sample::Index>()) {
            let readings: Vec<_> = readings.into_iter().map(|(at, (_, full, values))| (at, full, values)).collect();
            let whole = rows(&readings);
            let expected: BTreeMap<Name, Vec<(i64, Cell)>> = whole.names.keys().map(|name| (name.clone(), whole.times_of((&name.0, &name.1)).into_iter().zip(whole.column((&name.0, &name.1)).unwrap().cells()).collect::<Vec<_>>())).collect();
            let whole = Merged::new(vec![Source::Rows(&whole)]).block(|_, _, _| {});
            prop_assert_eq!(all(&whole), expected.clone());
            // Two blocks, and rows that overlap both.
            let at = if readings.is_empty() { 0 } else { at.index(readings.len()) };
            let (left, right) = readings.split_at(at);
            let (left, right) = (rows(left), rows(right));
            let (left, right) = (Merged::new(vec![Source::Rows(&left)]).block(|_, _, _| {}), Merged::new(vec![Source::Rows(&right)]).block(|_, _, _| {}));
            let (heads, groups) = ((Head::open(&left.head).unwrap(), Head::open(&right.head).unwrap()), (left.groups.clone(), right.groups.clone()));
            let fetch = |groups: Vec<Value>| move |n: u16| groups.get(usize::from(n) - 1).cloned();
            let (first, second) = (fetch(groups.0), fetch(groups.1));
            let again = rows(&readings);
            let joined = Merged::new(vec![Source::Block(&heads.1, &second), Source::Block(&heads.0, &first), Source::Rows(&again)]).block(|_, _, _| {});
            prop_assert_eq!(all(&joined), expected);
        }

        #[test]
        fn changed_heads_never_panic(readings in prop::collection::vec(reading(), 1..20), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let rows = rows(&readings);
            let mut stored = Merged::new(vec![Source::Rows(&rows)]).block(|_, _, _| {});
            let at = at.index(stored.head.len());
            stored.head[at] = byte;
            // With a checksum that fits, to get past it.
            let sum = crc32fast::hash(&stored.head[5..]).to_le_bytes();
            stored.head[1..5].copy_from_slice(&sum);
            if let Ok(head) = Head::open(&stored.head) {
                for entry in &head.columns {
                    let times = head.times_of(entry);
                    let group = stored.groups.get(usize::from(entry.group).wrapping_sub(1));
                    let _either_way = group.and_then(|group| cells::decode(entry.cells(group).ok()?, times.len()));
                }
            }
        }
    }

    #[test]
    fn columns_that_are_alike_are_stored_once() {
        let names: Vec<Name> = (1..=48).map(|n| name(n, "voltage_v")).collect();
        let mut rows = Rows::default();
        let shape = rows.shape(&names);
        for n in 0..360_i64 {
            let value = 230_000 + (n * 7919 % 13) * 100;
            rows.add(n * 10_000, shape, std::iter::repeat_n(Ok(value), 48));
        }
        let stored = Merged::new(vec![Source::Rows(&rows)]).block(|_, _, _| {});
        assert!(stored.groups[0].len() < 400, "{}", stored.groups[0].len());
    }
}
