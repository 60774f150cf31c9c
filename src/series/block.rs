//! A block: the polls of one device over an hour or a day, by columns. One column of times is shared by all; a head
//! says which columns there are and where each lies in a few large values, each with a checksum of its own: one
//! reading is found without touching the others, and a flipped bit costs one column.

use std::borrow::Cow;
use std::sync::Arc;

use super::code::{pull, pull_bytes, pull_count, pull_text, push, push_text};
use super::column;

/// The format; another one gets another number.
pub const VERSION: u8 = 1;
/// Bytes before the head's content: version and CRC-32.
const FRAME: usize = 5;
/// Columns of one device: 84 outlets with ten readings and their parts come to a thousand.
const COLUMNS: usize = 16_384;
/// Different sets of columns in one block: a fast poll and a full one, and a few more when a device is adopted anew.
const SHAPES: usize = 4_096;
/// A value is closed when it is this large: below, sled's own cost shows; far above, one column costs too much, as sled reads
/// the other values of its page too, up to sixteen.
pub const GROUP_BYTES: usize = 16 * 1024;

/// Why bytes are no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A checksum does not match, or what it covers makes no sense.
    #[error("a stored block is damaged")]
    Damaged,
    /// Written by a program that is newer than this one.
    #[error("a stored block has format {0}; this program reads format 1")]
    Version(u8),
}

/// What a column is of: the part, and the key of the metric.
pub type Name = (String, String);

/// The same, borrowed.
pub type Named<'n> = (&'n str, &'n str);

/// A value of a block: many columns are read from one.
pub type Value = Arc<Vec<u8>>;

/// The way to the values of a block, by their numbers from 1; none for one that is gone or cannot be read.
pub type Fetch<'f> = dyn Fn(u16) -> Option<Value> + 'f;

/// A block as it is stored: the head, and the values that it points into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The head.
    pub head: Vec<u8>,
    /// The values, from number 1.
    pub groups: Vec<Value>,
}

impl Stored {
    /// A value by its number.
    pub fn group(&self, number: u16) -> Option<Value> {
        self.groups.get(usize::from(number).checked_sub(1)?).cloned()
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.groups.iter().map(|group| group.len()).sum::<usize>()
    }
}

/// Makes a block, column by column.
#[derive(Debug)]
pub struct Builder {
    times: Vec<u8>,
    rows: usize,
    shapes: usize,
    shape_of: Vec<u8>,
    directory: Vec<u8>,
    columns: usize,
    last_key: String,
    groups: Vec<Vec<u8>>,
    /// Where the columns of the open value lie, by checksum: the voltage of a phase is that of all its outlets.
    twins: Vec<(u32, usize, usize)>,
}

impl Builder {
    /// A block of rows at these times (ms since 1970), each with the number of its shape, below `shapes`.
    pub fn new(times: &[i64], shape_of: &[i64], shapes: usize) -> Self {
        Self {
            times: column::encode(times),
            rows: times.len(),
            shapes,
            shape_of: column::encode(shape_of),
            directory: Vec::new(),
            columns: 0,
            last_key: String::new(),
            groups: vec![Vec::new()],
            twins: Vec::new(),
        }
    }

    /// Adds a column: which shapes have it, and its coded cells.
    pub fn column(&mut self, (part, key): Named<'_>, has: &[bool], cells: &[u8]) {
        let sum = crc32fast::hash(cells);
        if self.groups.last().is_some_and(|group| group.len() >= GROUP_BYTES) {
            self.groups.push(Vec::new());
            self.twins.clear();
        }
        let number = self.groups.len();
        let Some(group) = self.groups.last_mut() else { return };
        let twin = self.twins.iter().find(|(same, at, length)| {
            *same == sum && *length == cells.len() && group[*at..*at + *length] == *cells
        });
        let at = twin.map_or(group.len(), |(_, at, _)| *at);
        if twin.is_none() {
            group.extend_from_slice(cells);
            self.twins.push((sum, at, cells.len()));
        }
        // Columns of one metric stand together: its key is said once.
        push_text(&mut self.directory, if key == self.last_key { "" } else { key });
        key.clone_into(&mut self.last_key);
        push_text(&mut self.directory, part);
        for eight in has.chunks(8) {
            let byte = (0..).zip(eight).fold(0_u8, |byte, (at, has)| byte | u8::from(*has) << at);
            self.directory.push(byte);
        }
        push(&mut self.directory, number as u64);
        push(&mut self.directory, at as u64);
        push(&mut self.directory, cells.len() as u64);
        self.directory.extend_from_slice(&sum.to_le_bytes());
        self.columns += 1;
    }

    /// The block.
    pub fn finish(self) -> Stored {
        let mut head = vec![VERSION, 0, 0, 0, 0];
        push(&mut head, self.rows as u64);
        push(&mut head, self.times.len() as u64);
        head.extend_from_slice(&self.times);
        push(&mut head, self.shapes as u64);
        push(&mut head, self.shape_of.len() as u64);
        head.extend_from_slice(&self.shape_of);
        push(&mut head, self.columns as u64);
        head.extend_from_slice(&self.directory);
        let sum = crc32fast::hash(&head[FRAME..]);
        head[1..FRAME].copy_from_slice(&sum.to_le_bytes());
        Stored { head, groups: self.groups.into_iter().map(Arc::new).collect() }
    }
}

/// A column in the directory of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'b> {
    /// The part of the device.
    pub part: &'b str,
    /// The key of the metric.
    pub key: &'b str,
    has: &'b [u8],
    /// The number of the value that it lies in.
    pub group: u16,
    at: usize,
    length: usize,
    sum: u32,
}

impl Entry<'_> {
    /// Whether rows of a shape have this column.
    pub fn in_shape(&self, shape: usize) -> bool {
        self.has.get(shape / 8).is_some_and(|byte| byte & 1 << (shape % 8) != 0)
    }

    /// Its coded cells in the value of its group.
    pub fn cells<'g>(&self, group: &'g [u8]) -> Result<&'g [u8], BlockError> {
        let cells = group.get(self.at..self.at.saturating_add(self.length));
        cells.filter(|cells| crc32fast::hash(cells) == self.sum).ok_or(BlockError::Damaged)
    }
}

/// The head of a block, checked.
#[derive(Debug, Clone)]
pub struct Head<'b> {
    /// When its rows were read, ms since 1970, rising.
    pub times: Vec<i64>,
    /// The shape of each row.
    pub shape_of: Vec<i64>,
    /// How many shapes there are.
    pub shapes: usize,
    /// Its columns.
    pub columns: Vec<Entry<'b>>,
}

impl<'b> Head<'b> {
    /// Checks bytes.
    pub fn open(bytes: &'b [u8]) -> Result<Self, BlockError> {
        let (frame, mut rest) = bytes.split_at_checked(FRAME).ok_or(BlockError::Damaged)?;
        if frame[0] != VERSION {
            return Err(BlockError::Version(frame[0]));
        }
        if frame[1..] != crc32fast::hash(rest).to_le_bytes() {
            return Err(BlockError::Damaged);
        }
        Self::read(&mut rest).ok_or(BlockError::Damaged)
    }

    fn read(rest: &mut &'b [u8]) -> Option<Self> {
        let rows = pull_count(rest, column::MOST)?;
        let length = pull_count(rest, rest.len())?;
        let times = column::decode(pull_bytes(rest, length)?, rows)?;
        let shapes = pull_count(rest, SHAPES)?;
        let length = pull_count(rest, rest.len())?;
        let shape_of = column::decode(pull_bytes(rest, length)?, rows)?;
        let known = |shape: &i64| usize::try_from(*shape).is_ok_and(|shape| shape < shapes);
        if !shape_of.iter().all(known) {
            return None;
        }
        let count = pull_count(rest, COLUMNS)?;
        let mut columns = Vec::with_capacity(count);
        let mut last_key = "";
        for _ in 0..count {
            let key = pull_text(rest)?;
            last_key = if key.is_empty() { last_key } else { key };
            let part = pull_text(rest)?;
            let has = pull_bytes(rest, shapes.div_ceil(8))?;
            let group = u16::try_from(pull(rest)?).ok()?;
            let at = usize::try_from(pull(rest)?).ok()?;
            let length = usize::try_from(pull(rest)?).ok()?;
            let sum = u32::from_le_bytes(pull_bytes(rest, 4)?.try_into().ok()?);
            columns.push(Entry { part, key: last_key, has, group, at, length, sum });
        }
        Some(Self { times, shape_of, shapes, columns })
    }

    /// A column by its name.
    pub fn find(&self, part: &str, key: &str) -> Option<&Entry<'b>> {
        self.columns.iter().find(|entry| entry.key == key && entry.part == part)
    }

    /// A column and its place, looked for from a place on, and then everywhere: who asks for many mostly asks in the order
    /// in which they are.
    pub fn find_from(&self, place: usize, (part, key): Named<'_>) -> Option<(usize, &Entry<'b>)> {
        let is = |entry: &Entry<'_>| entry.part == part && entry.key == key;
        if let Some(entry) = self.columns.get(place).filter(|entry| is(entry)) {
            return Some((place, entry));
        }
        self.columns.iter().enumerate().find(|(_, entry)| is(entry))
    }

    /// Whether another has the same columns in the same shapes.
    pub fn is_like(&self, other: &Head<'_>) -> bool {
        let same = |a: &Entry<'_>, b: &Entry<'_>| (a.part, a.key, a.has) == (b.part, b.key, b.has);
        self.shapes == other.shapes
            && self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(|(a, b)| same(a, b))
    }

    /// The times of the rows that have a column.
    pub fn times_of(&self, entry: &Entry<'_>) -> Cow<'_, [i64]> {
        if (0..self.shapes).all(|shape| entry.in_shape(shape)) {
            return Cow::Borrowed(&self.times);
        }
        let rows = self.times.iter().zip(&self.shape_of);
        rows.filter(|(_, shape)| entry.in_shape(**shape as usize)).map(|(at, _)| *at).collect()
    }
}
