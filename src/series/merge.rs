//! Rows and blocks of one device made into one block: an hour's rows when the hour is over, a day's blocks when the
//! day is over, and whatever came late. One column is in memory at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::reading::Gap;

use super::block::{Builder, Fetch, Head, Name, Stored};
use super::cells::{self, Cell};

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
    columns: Vec<Vec<Cell>>,
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
                self.columns.push(Vec::with_capacity(USUAL));
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

    fn column(&self, name: &Name) -> impl Iterator<Item = (i64, Cell)> {
        let number = self.names.get(name);
        let has: Vec<bool> = self
            .shapes
            .iter()
            .map(|shape| number.is_some_and(|number| shape.columns.contains(number)))
            .collect();
        let rows = self.times.iter().zip(&self.shape_of);
        let times = rows.filter(move |(_, shape)| has[**shape]).map(|(at, _)| *at);
        let cells = number.map_or(&[][..], |number| &self.columns[*number]);
        times.zip(cells.iter().copied())
    }
}

/// What a block is made from. Of two rows of the same moment the later source's counts.
pub enum Source<'s> {
    /// Rows.
    Rows(&'s Rows),
    /// A block, and the way to its values.
    Block(&'s Head<'s>, &'s Fetch<'s>),
}

impl Source<'_> {
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

    fn shapes(&self) -> Vec<BTreeSet<Name>> {
        match self {
            Source::Rows(rows) => {
                rows.shapes.iter().map(|shape| shape.names.iter().cloned().collect()).collect()
            }
            Source::Block(head, _) => {
                let has = |shape: usize| {
                    let entries = head.columns.iter().filter(move |entry| entry.in_shape(shape));
                    entries.map(|entry| (entry.part.to_owned(), entry.key.to_owned())).collect()
                };
                (0..head.shapes).map(has).collect()
            }
        }
    }
}

/// Names of columns in the order in which blocks have them, each once: those of one metric together, and numbers of
/// outlets by their size, so that neighbours stand together for people too.
pub fn in_order(names: impl Iterator<Item = Name>) -> Vec<Name> {
    let mut names: Vec<Name> = names.collect::<BTreeSet<_>>().into_iter().collect();
    names.sort_by(|a, b| {
        (&a.1, a.0.parse::<u32>().ok(), &a.0).cmp(&(&b.1, b.0.parse::<u32>().ok(), &b.0))
    });
    names
}

/// A block under way: a column read by name as (time, cell).
pub struct Merged<'s> {
    sources: Vec<Source<'s>>,
    /// Moment, source, shape among all shapes; rising.
    rows: Vec<(i64, usize, usize)>,
    shapes: Vec<BTreeSet<Name>>,
    lost: BTreeSet<(usize, i64)>,
    /// Columns of blocks that could not be read: their cells are gaps.
    pub damaged: usize,
}

impl<'s> Merged<'s> {
    /// Of sources.
    pub fn new(sources: Vec<Source<'s>>) -> Self {
        let mut shapes: Vec<BTreeSet<Name>> = Vec::new();
        let mut rows = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let own: Vec<usize> = source
                .shapes()
                .into_iter()
                .map(|shape| {
                    shapes.iter().position(|known| *known == shape).unwrap_or_else(|| {
                        shapes.push(shape);
                        shapes.len() - 1
                    })
                })
                .collect();
            rows.extend(source.rows().into_iter().map(|(at, shape)| (at, number, own[shape])));
        }
        rows.sort_by_key(|(at, source, _)| (*at, *source));
        let mut lost = BTreeSet::new();
        for pair in rows.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            lost.insert((pair[0].1, pair[0].0));
        }
        rows.retain(|(at, source, _)| !lost.contains(&(*source, *at)));
        Self { sources, rows, shapes, lost, damaged: 0 }
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
    pub fn names(&self) -> Vec<Name> {
        in_order(self.shapes.iter().flatten().cloned())
    }

    /// The cells of a column with their moments, rising, in the place of those before.
    fn column(&mut self, name: &Name, out: &mut Vec<(i64, Cell)>, cells: &mut Vec<Cell>) {
        out.clear();
        for (number, source) in self.sources.iter().enumerate() {
            let lost = |at: i64| !self.lost.is_empty() && self.lost.contains(&(number, at));
            match source {
                Source::Rows(rows) => {
                    out.reserve(rows.times.len());
                    out.extend(rows.column(name).filter(|(at, _)| !lost(*at)));
                }
                Source::Block(head, fetch) => {
                    let Some(entry) = head.find(&name.0, &name.1) else { continue };
                    let times = head.times_of(entry);
                    let group = fetch(entry.group);
                    let coded = group.as_ref().and_then(|group| entry.cells(group).ok());
                    let read =
                        coded.and_then(|coded| cells::decode_into(coded, times.len(), cells));
                    if read.is_none() {
                        self.damaged += 1;
                        cells.clear();
                        cells.resize(times.len(), Err(Gap::Damaged));
                    }
                    let column = times.iter().copied().zip(cells.iter().copied());
                    out.extend(column.filter(|(at, _)| !lost(*at)));
                }
            }
        }
        if !out.is_sorted_by_key(|(at, _)| *at) {
            out.sort_by_key(|(at, _)| *at);
        }
    }

    /// The block, to be kept; each column is shown on its way, for what else is made from it.
    pub fn block(&mut self, show: impl FnMut(&Name, &[(i64, Cell)])) -> Stored {
        self.block_by(|column| cells::encode(column.iter().map(|(_, cell)| *cell)), show)
    }

    /// The block, to be merged into another before long: larger, and made for less.
    pub fn block_quickly(&mut self) -> Stored {
        let encode =
            |column: &[(i64, Cell)]| cells::encode_quickly(column.iter().map(|(_, cell)| *cell));
        self.block_by(encode, |_, _| {})
    }

    fn block_by(
        &mut self,
        encode: impl Fn(&[(i64, Cell)]) -> Vec<u8>,
        mut show: impl FnMut(&Name, &[(i64, Cell)]),
    ) -> Stored {
        let times: Vec<i64> = self.rows.iter().map(|(at, _, _)| *at).collect();
        let shape_of: Vec<i64> = self.rows.iter().map(|(_, _, shape)| *shape as i64).collect();
        let mut builder = Builder::new(&times, &shape_of, self.shapes.len());
        let (mut column, mut cells) = (Vec::with_capacity(self.rows.len()), Vec::new());
        for name in self.names() {
            self.column(&name, &mut column, &mut cells);
            show(&name, &column);
            let has: Vec<bool> = self.shapes.iter().map(|shape| shape.contains(&name)).collect();
            builder.column(&name, &has, &encode(&column));
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
            let expected: BTreeMap<Name, Vec<(i64, Cell)>> = whole.names.keys().map(|name| (name.clone(), whole.column(name).collect::<Vec<_>>())).collect();
            let whole = Merged::new(vec![Source::Rows(&whole)]).block(|_, _| {});
            prop_assert_eq!(all(&whole), expected.clone());
            // Two blocks, and rows that overlap both.
            let at = if readings.is_empty() { 0 } else { at.index(readings.len()) };
            let (left, right) = readings.split_at(at);
            let (left, right) = (rows(left), rows(right));
            let (left, right) = (Merged::new(vec![Source::Rows(&left)]).block(|_, _| {}), Merged::new(vec![Source::Rows(&right)]).block(|_, _| {}));
            let (heads, groups) = ((Head::open(&left.head).unwrap(), Head::open(&right.head).unwrap()), (left.groups.clone(), right.groups.clone()));
            let fetch = |groups: Vec<Value>| move |n: u16| groups.get(usize::from(n) - 1).cloned();
            let (first, second) = (fetch(groups.0), fetch(groups.1));
            let again = rows(&readings);
            let joined = Merged::new(vec![Source::Block(&heads.1, &second), Source::Block(&heads.0, &first), Source::Rows(&again)]).block(|_, _| {});
            prop_assert_eq!(all(&joined), expected);
        }

        #[test]
        fn changed_heads_never_panic(readings in prop::collection::vec(reading(), 1..20), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let rows = rows(&readings);
            let mut stored = Merged::new(vec![Source::Rows(&rows)]).block(|_, _| {});
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
        let stored = Merged::new(vec![Source::Rows(&rows)]).block(|_, _| {});
        assert!(stored.groups[0].len() < 400, "{}", stored.groups[0].len());
    }
}
