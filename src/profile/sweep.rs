//! Sweeps: reading a set of values in the fewest requests. A sweep is told replies and says what to
//! ask next; it does no I/O and remembers what a device could not bear.

use crate::model::ask::{Ask, Registers, Reply, Value};
use crate::model::oid::Oid;
use crate::model::reading::Gap;

use super::format::Speech;
use super::sweep_modbus::{ModbusSet, ModbusSweep};
use super::sweep_snmp::{SnmpSet, SnmpSweep};

/// One value wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// An SNMP instance.
    Oid(Oid),
    /// Modbus registers, or one bit.
    Register {
        /// Table.
        table: Registers,
        /// Wire address, from 0.
        address: u16,
        /// Registers; 1 for a bit.
        words: u16,
    },
    /// A Modbus identification object.
    DeviceId(u8),
}

/// What came for an item.
pub type Answer = Result<Raw, Gap>;

/// A raw value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// Of SNMP.
    Value(Value),
    /// Of Modbus registers.
    Words(Vec<u16>),
    /// Of a coil or discrete input.
    Bit(bool),
    /// Of an identification object.
    Text(String),
}

/// An item with its place in a table column, if it has one: neighbours can be read in bulk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What.
    pub item: Item,
    /// Column and row, both counted from 0 within the set; rows of one column follow in walk order.
    pub cell: Option<(u32, u32)>,
    /// Whether it is a text or a name, which takes more of a reply than a number does.
    pub is_text: bool,
}

impl Wanted {
    /// A number outside any column.
    pub fn single(item: Item) -> Self {
        Self { item, cell: None, is_text: false }
    }
}

/// A set of items that is read together, again and again.
#[derive(Debug, Clone)]
pub struct ReadSet {
    items: Vec<Item>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Snmp(SnmpSet),
    Modbus(ModbusSet),
}

/// What a device could not bear, learned while reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// At most so many items in one exact request.
    pub(super) chunk: usize,
    /// At most so many rows in one bulk request; 0: no bulk.
    pub(super) rows: u32,
    /// Modbus: blocks are no longer merged.
    pub(super) split: bool,
}

impl Memory {
    /// Of a device of this family, before anything was learned.
    pub fn of(speech: &Speech) -> Self {
        match speech {
            Speech::Snmp(m) => Self { chunk: m.max_varbinds, rows: m.bulk_rows, split: false },
            Speech::Modbus(m) => {
                Self { chunk: usize::from(m.max_registers), rows: 0, split: false }
            }
        }
    }

    /// Before the family is known: small requests.
    pub fn careful() -> Self {
        Self { chunk: 8, rows: 0, split: true }
    }

    /// Rows in one bulk request; 0: no bulk.
    pub fn bulk_rows(&self) -> u32 {
        self.rows
    }

    /// With the size of requests that another reading learned. Whether bulk works is not taken over from a
    /// probe, which asks for columns that are not there.
    #[must_use]
    pub fn with_chunk_of(self, other: Memory) -> Self {
        Self { chunk: other.chunk, split: other.split, ..self }
    }

    /// For SNMPv1, which has no GETBULK.
    #[must_use]
    pub fn without_bulk(self) -> Self {
        Self { rows: 0, ..self }
    }
}

impl ReadSet {
    /// Works out how the items are read with the fewest requests.
    pub fn new(speech: &Speech, wanted: Vec<Wanted>) -> Self {
        let kind = match speech {
            Speech::Snmp(manners) => Kind::Snmp(SnmpSet::new(manners, &wanted)),
            Speech::Modbus(manners) => Kind::Modbus(ModbusSet::new(manners, &wanted)),
        };
        Self { items: wanted.into_iter().map(|w| w.item).collect(), kind }
    }

    /// The items, in the order in which answers come.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Begins reading.
    pub fn sweep(&self, memory: Memory) -> Sweep<'_> {
        let kind = match &self.kind {
            Kind::Snmp(set) => SweepKind::Snmp(SnmpSweep::new(set, &self.items)),
            Kind::Modbus(set) => SweepKind::Modbus(ModbusSweep::new(set, &self.items)),
        };
        Sweep {
            kind,
            answers: vec![None; self.items.len()],
            memory,
            budget: self.items.len() * 2 + 16,
        }
    }
}

/// One reading of a set.
#[derive(Debug)]
pub struct Sweep<'s> {
    kind: SweepKind<'s>,
    answers: Vec<Option<Answer>>,
    memory: Memory,
    budget: usize,
}

#[derive(Debug)]
enum SweepKind<'s> {
    Snmp(SnmpSweep<'s>),
    Modbus(ModbusSweep<'s>),
}

impl Sweep<'_> {
    /// What to ask next; nothing once everything is answered, or once the device has cost more
    /// requests than twice its items.
    pub fn next_ask(&mut self) -> Option<Ask> {
        self.budget = self.budget.checked_sub(1)?;
        match &mut self.kind {
            SweepKind::Snmp(sweep) => sweep.next(&self.memory),
            SweepKind::Modbus(sweep) => sweep.next(&self.memory),
        }
    }

    /// The reply to what [`Sweep::next_ask`] asked.
    pub fn answer(&mut self, reply: Reply) {
        match &mut self.kind {
            SweepKind::Snmp(sweep) => sweep.answer(reply, &mut self.answers, &mut self.memory),
            SweepKind::Modbus(sweep) => sweep.answer(reply, &mut self.answers, &mut self.memory),
        }
    }

    /// The answers, in the order of the items, and what was learned.
    pub fn finish(self) -> (Vec<Answer>, Memory) {
        let left = |answer: Option<Answer>| answer.unwrap_or(Err(Gap::NotRead));
        (self.answers.into_iter().map(left).collect(), self.memory)
    }
}
