//! A checked driver: what a driver file means once nothing in it can be wrong any more.

use crate::model::ask::Registers;
use crate::model::id::DriverId;
use crate::model::metric::{Metric, Point, Scope, Word};
use crate::model::oid::Oid;
use crate::model::quantity::Count;

use super::template::Template;
use super::units::Units;

/// How a family of PDUs speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name in configs.
    pub id: DriverId,
    /// The family, for people.
    pub title: String,
    /// The vendor, for people.
    pub vendor: String,
    /// Protocol and manners.
    pub speech: Speech,
    /// How units of a daisy chain are told apart, where one agent speaks for several.
    pub unit: Option<Units>,
    /// Rules that must all hold for a device to be of this family; of the tests of a rule one must.
    pub detect: Vec<Vec<Test>>,
    /// Where the device says who it is; alternatives in order.
    pub identity: Identity,
    /// Models and firmware that it was made for; nothing where the family does not differ.
    pub known: Option<Known>,
    /// Optional abilities, probed once.
    pub capabilities: Vec<(String, Test)>,
    /// Where the device names its variables, for families whose numbers differ from device to device.
    pub names: Option<Names>,
    /// Tables of parts.
    pub tables: Vec<Table>,
    /// Readings.
    pub points: Vec<PointSpec>,
    /// Readings of the inlet that are the sum of its phases' where the device does not tell them.
    pub sums: Vec<Metric>,
    /// How an outlet is switched on, alternatives in order; without any the family is read-only.
    pub on: Vec<Verb>,
    /// How an outlet is switched off.
    pub off: Vec<Verb>,
    /// Where it keeps what it does with an outlet by itself when its power comes back.
    pub startup: Option<super::startup::Startup>,
    /// Pauses around writes.
    pub pacing: Pacing,
    /// Recordings that prove it.
    pub proofs: Vec<Proof>,
}

/// The protocol with its manners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speech {
    /// SNMP.
    Snmp(SnmpManners),
    /// Modbus.
    Modbus(ModbusManners),
}

impl Speech {
    /// Whether it is SNMP.
    pub fn is_snmp(&self) -> bool {
        matches!(self, Speech::Snmp(_))
    }

    /// SNMP of a device whose family is not known.
    pub fn plain_snmp() -> Self {
        Speech::Snmp(SnmpManners {
            max_varbinds: 8,
            bulk_rows: 0,
            reply_bytes: 484,
            gap_ms: 20,
            timeout_ms: 2_000,
            attempts: 2,
            absent: Vec::new(),
        })
    }

    /// Pause between two requests, ms; how long to wait for a reply, ms; how often to ask.
    pub fn patience(&self) -> (u64, u64, u32) {
        match self {
            Speech::Snmp(m) => (m.gap_ms, m.timeout_ms, m.attempts),
            Speech::Modbus(m) => (m.gap_ms, m.timeout_ms, m.attempts),
        }
    }
}

/// What an SNMP agent of the family bears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpManners {
    /// Variable bindings in one request.
    pub max_varbinds: usize,
    /// Rows in one GETBULK; 0 where the agent must not be asked in bulk.
    pub bulk_rows: u32,
    /// Bytes of a reply that the agent fills at most.
    pub reply_bytes: usize,
    /// Pause between two requests, ms.
    pub gap_ms: u64,
    /// How long to wait for a reply, ms.
    pub timeout_ms: u64,
    /// How often a read is sent before it counts as failed. A SET is sent once.
    pub attempts: u32,
    /// Raw numbers that mean "does not have it", for every point of the family.
    pub absent: Vec<i64>,
}

/// What a Modbus device of the family bears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModbusManners {
    /// Unit identifier unless the site says otherwise.
    pub unit: u8,
    /// Registers in one read.
    pub max_registers: u16,
    /// Coils or inputs in one read.
    pub max_bits: u16,
    /// Unwanted registers that may be read across rather than asking twice.
    pub max_hole: u16,
    /// Pause between two requests, ms.
    pub gap_ms: u64,
    /// How long to wait for a reply, ms.
    pub timeout_ms: u64,
    /// How often a read is sent before it counts as failed.
    pub attempts: u32,
}

/// Where something is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An SNMP instance.
    Oid(Template),
    /// The word behind a mark in an SNMP instance: `MN:` in "… MN:AP7900 HR:B2 …".
    Behind(Template, String),
    /// One item of an SNMP instance that is a list, as "1,1,0": of the row's place, or always the same (from 0).
    Listed(Template, Option<u16>),
    /// Modbus registers or bits.
    Register(Register),
    /// A Modbus identification object.
    DeviceId(u8),
}

/// A place in a Modbus table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register {
    /// Which table.
    pub table: Registers,
    /// Wire address of the first row, from 0.
    pub address: u16,
    /// Distance to the next row.
    pub step: u16,
    /// How the words are to be read.
    pub shape: Shape,
}

/// How Modbus words, or the items of a list, make a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Type.
    pub kind: ShapeKind,
    /// How many words; of a list, which item.
    pub words: u16,
    /// Whether the low word comes first.
    pub low_first: bool,
    /// One bit of the word only.
    pub bit: Option<u8>,
}

/// Types of Modbus values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeKind {
    /// A coil or discrete input.
    Bit,
    /// Unsigned.
    Unsigned,
    /// Two's complement.
    Signed,
    /// IEEE 754.
    Float,
    /// ASCII, two characters a word.
    Text,
    /// An item of a text with commas.
    Item,
}

/// A question with an expected answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Where to look.
    pub source: Source,
    /// What should be there.
    pub check: Check,
}

/// What should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Anything.
    Exists,
    /// Nothing.
    Lacks,
    /// One of these numbers.
    Is(Vec<i64>),
    /// None of these numbers, but a number.
    Not(Vec<i64>),
    /// One of these texts.
    Equals(Vec<String>),
    /// A text that starts with one of these.
    Starts(Vec<String>),
    /// A text that contains one of these.
    Contains(Vec<String>),
    /// A text that contains none of these.
    Without(Vec<String>),
    /// An OID equal to or under one of these.
    Under(Vec<Oid>),
}

/// Where the device says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Model.
    pub model: Vec<Source>,
    /// Serial number.
    pub serial: Vec<Source>,
    /// Firmware.
    pub firmware: Vec<Source>,
    /// Name set in the device.
    pub name: Vec<Source>,
}

/// A column of names, and what its index consists of; the parts before the last tell devices on one agent apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The column.
    pub column: Oid,
    /// Names of the index parts.
    pub index: Vec<String>,
    /// The column of values, unless a source says another.
    pub value: Oid,
    /// All patterns that the driver asks for.
    pub patterns: Vec<String>,
}

/// What a driver was made for. Of others of the family the readings are taken, but nothing is switched unless the site
/// allows it: what their control objects mean, nobody has looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// What the model's text starts with, in any case.
    pub models: Vec<String>,
    /// What the firmware's text starts with, in any case; none for any.
    pub firmware: Vec<String>,
    /// Why neither can be known, of a family that tells neither.
    pub untold: Option<String>,
}

impl Known {
    /// Why a device is not one of these, if so. One that does not say what it is, is not known to be one.
    pub fn doubt(&self, model: Option<&str>, firmware: Option<&str>) -> Option<String> {
        let text = |text: Option<&str>| text.map(|text| text.trim().to_owned());
        let (model, firmware) = (text(model), text(firmware));
        let fits = |starts: &[String], text: &str| {
            let text = text.to_lowercase();
            starts.iter().any(|start| text.starts_with(&start.to_lowercase()))
        };
        match &model {
            _ if self.models.is_empty() => {}
            None => return Some("it does not tell its model".into()),
            Some(text) if !fits(&self.models, text) => {
                return Some(format!("its model is \"{text}\""));
            }
            Some(_) => {}
        }
        match &firmware {
            _ if self.firmware.is_empty() => None,
            None => self.models.is_empty().then(|| "it does not tell its firmware".into()),
            Some(text) => {
                (!fits(&self.firmware, text)).then(|| format!("its firmware is \"{text}\""))
            }
        }
    }
}

/// A table of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name in the file.
    pub name: String,
    /// What its rows are.
    pub scope: Scope,
    /// Where its rows come from.
    pub rows: Rows,
    /// Which rows count: the first of these tests that the device has an object for decides.
    pub keep: Vec<Test>,
    /// Which unit its rows belong to, where their index does not tell.
    pub unit: Option<UnitBy>,
    /// How the rows get their numbers: the first way that the device has. Without any they are numbered from 1.
    pub number: Vec<NumberBy>,
    /// Added to the number: for devices that count from 0.
    pub number_offset: i64,
}

impl Table {
    /// What is asked for each of its rows before it counts.
    pub fn asked_of_rows(&self) -> impl Iterator<Item = &Source> {
        let unit = self.unit.iter().filter_map(|by| match by {
            UnitBy::Told(source) => Some(source),
            UnitBy::Fixed(_) => None,
        });
        let numbers = self.number.iter().filter_map(|by| match by {
            NumberBy::Told { source, .. } => Some(source),
            NumberBy::Part(_) => None,
        });
        self.keep.iter().map(|test| &test.source).chain(unit).chain(numbers)
    }
}

/// Which unit a row belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitBy {
    /// The device says so, row by row.
    Told(Source),
    /// Always the same.
    Fixed(u32),
}

/// What number a row has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NumberBy {
    /// The one in this index part.
    Part(String),
    /// The one that the device tells.
    Told {
        /// Where.
        source: Source,
        /// What it tells and what number that is; a row with anything else does not count. Empty: as it is told.
        of: Vec<(i64, u16)>,
        /// The index part that counts groups of such rows: the second group's numbers follow the first's.
        per: Option<String>,
    },
}

/// Where the rows of a table come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// There is one, without an index.
    Single,
    /// A walk of a column; what follows the column is the index.
    Walk {
        /// The column; of several the first that has rows.
        columns: Vec<Oid>,
        /// Names of the index parts.
        index: Vec<String>,
    },
    /// The variables with a name of a pattern.
    Named {
        /// The pattern.
        pattern: String,
        /// Names of the index parts: the device, then the holes of the pattern.
        index: Vec<String>,
    },
    /// Listed in the file.
    Listed {
        /// Names of the index parts.
        index: Vec<String>,
        /// Their values.
        rows: Vec<Vec<u32>>,
    },
    /// The device tells how many, up to a bound.
    Counted {
        /// Where.
        source: Source,
        /// At most.
        max: u16,
    },
}

impl Rows {
    /// Names of the index parts.
    pub fn index(&self) -> &[String] {
        match self {
            Rows::Walk { index, .. } | Rows::Listed { index, .. } | Rows::Named { index, .. } => {
                index
            }
            Rows::Single | Rows::Counted { .. } => &[],
        }
    }
}

/// How often a point is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Every {
    /// With every poll.
    Fast,
    /// With every slow poll.
    Slow,
    /// When the device is adopted.
    Once,
}

/// A reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointSpec {
    /// Its place in the dictionary.
    pub point: Point,
    /// Which table's rows it has (place in [`Profile::tables`]).
    pub table: usize,
    /// Where it is read.
    pub source: Source,
    /// What the raw value means.
    pub meaning: Meaning,
    /// How often.
    pub every: Every,
    /// A capability without which it is not asked for.
    pub needs: Option<String>,
    /// Looked at once per row: whether the row has this reading at all.
    pub when: Option<Test>,
    /// Looked at with every slow poll: whether the value may be trusted.
    pub valid: Option<Test>,
    /// Raw numbers that mean "does not have it".
    pub absent: Vec<i64>,
}

impl PointSpec {
    /// What else is read to know what the value means.
    pub fn companions(&self) -> Vec<&Source> {
        let mut sources: Vec<&Source> =
            [&self.when, &self.valid].into_iter().flatten().map(|test| &test.source).collect();
        if let Meaning::Quantity { digits, factor, fahrenheit, .. } = &self.meaning {
            sources.extend(digits);
            sources.extend(factor);
            sources.extend(fahrenheit.iter().map(|test| &test.source));
        }
        sources
    }
}

/// What a minus before a number says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sign {
    /// Nothing true, but of what may flow back.
    #[default]
    Plausible,
    /// Something else, as leading or lagging: it is dropped.
    Dropped,
    /// The polarity of a bus of direct current: -48 V, and -2 A from it.
    Polarity,
}

/// What a raw value means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A quantity.
    Quantity {
        /// What one count is worth.
        count: Count,
        /// Decimal digits that the device tells.
        digits: Option<Source>,
        /// A factor that the device tells: negative numbers divide, 0 is none.
        factor: Option<Source>,
        /// If this holds, the device counts in degrees Fahrenheit.
        fahrenheit: Option<Test>,
        /// What a minus before it says.
        sign: Sign,
    },
    /// A state.
    States(Vec<(StateKey, Word)>),
    /// A text.
    Text,
    /// The number of a branch or phase.
    Link,
}

/// What a device sends for a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateKey {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

/// How one verb is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verb {
    /// A capability without which this verb is not used.
    pub needs: Option<String>,
    /// Writes, in order.
    pub writes: Vec<Write>,
    /// How long the state may take, ms.
    pub within_ms: u64,
    /// How often it is looked at meanwhile, ms.
    pub poll_ms: u64,
    /// Current or power that must be undercut too, as kept steps: a second witness.
    pub also: Option<(Point, i64)>,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub target: Source,
    /// What.
    pub value: WriteValue,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteValue {
    /// An INTEGER, a register or a coil.
    Number(i64),
    /// A Gauge32 or Unsigned32, which are one type on the wire (RFC 2578 section 7.1.11).
    Gauge(u32),
    /// An OCTET STRING.
    Text(String),
    /// The outlet's item of a text that lists the states of all outlets; the others are written as they are.
    Item(i64),
}

/// Pauses around writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Between two writes to one device, ms.
    pub write_gap_ms: u64,
    /// Until the load of a switched outlet may be counted on, ms.
    pub settle_ms: u64,
}

/// A recording and what must be read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// File name below the recordings.
    pub recording: String,
    /// Number of the part, where the reading has one.
    pub part: Option<u16>,
    /// Readings with their values as the file writes them.
    pub expect: Vec<(Point, String)>,
}

/// Columns of readings that are walked where a table's own has no rows.
const OTHER_COLUMNS: usize = 3;

impl Profile {
    /// The columns that tell which rows a table has: its own, and where a model lacks that, those of its readings.
    pub fn key_columns(&self, table: usize) -> Vec<Oid> {
        let Some(Rows::Walk { columns, index }) = self.tables.get(table).map(|table| &table.rows)
        else {
            return Vec::new();
        };
        let mut keys = columns.clone();
        let mut readings: Vec<&PointSpec> =
            self.points.iter().filter(|spec| spec.table == table).collect();
        readings.sort_by_key(|spec| spec.every);
        for spec in readings {
            let Source::Oid(template) = &spec.source else { continue };
            let column = template.head();
            let is_new = template.is_column_of(index) && !keys.contains(&column);
            if is_new && keys.len() < columns.len() + OTHER_COLUMNS {
                keys.push(column);
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_say_or_says_something_else_is_not_known() {
        let known =
            Known { models: vec!["AP8".into()], firmware: vec!["v6.".into()], untold: None };
        let doubt = |model, firmware| known.doubt(model, firmware);
        assert_eq!(doubt(Some("ap8981"), Some("v6.9")), None);
        assert_eq!(doubt(Some(" AP8981"), None), None);
        assert_eq!(doubt(None, Some("v6.9")).unwrap(), "it does not tell its model");
        assert_eq!(doubt(Some("AP7900"), None).unwrap(), "its model is \"AP7900\"");
        assert_eq!(doubt(Some("AP8981"), Some("v9.1")).unwrap(), "its firmware is \"v9.1\"");
        let firmware = Known { models: vec![], ..known };
        assert_eq!(firmware.doubt(None, None).unwrap(), "it does not tell its firmware");
        assert_eq!(firmware.doubt(Some("x"), Some("v6.1")), None);
        assert_eq!(Known::default().doubt(Some("x"), Some("y")), None);
    }
}
