//! Reading the tables and points of a driver file.

use crate::model::document::{Fields, Item};
use crate::model::limits::TABLE_ROWS;
use crate::model::metric::{Kind, Point, Scope, Word};
use crate::model::oid::Oid;
use crate::model::quantity::Count;

use super::format::{Every, Meaning, PointSpec, Rows, StateKey, Table};
use super::load_source::{Context, source, test};

/// What all tables and points share.
pub(super) struct Shared<'s> {
    pub snmp: bool,
    pub low_first: bool,
    pub names: Option<&'s super::format::Names>,
    pub unit: Option<&'s str>,
    pub absent: &'s [i64],
    pub capabilities: Vec<String>,
}

impl Shared<'_> {
    fn context<'c>(&'c self, holes: &'c [String]) -> Context<'c> {
        let named = self.names.map(|names| &names.value);
        Context { snmp: self.snmp, low_first: self.low_first, named, holes: Some(holes) }
    }

    fn holes(&self, index: &[String]) -> Vec<String> {
        index.iter().cloned().chain(self.unit.map(str::to_owned)).collect()
    }
}

const SCOPES: [(&str, Scope); 5] = [
    ("inlet", Scope::Inlet),
    ("phase", Scope::Phase),
    ("branch", Scope::Branch),
    ("outlet", Scope::Outlet),
    ("sensor", Scope::Sensor),
];

/// `[table.…]`. A driver without a table of inlets has one inlet.
pub(super) fn tables(root: &Fields<'_>, shared: &Shared<'_>) -> Vec<Table> {
    let mut tables = Vec::new();
    if let Some(fields) = root.get("table").and_then(|item| item.fields()) {
        for (name, _, item) in fields.entries() {
            tables.extend(table(name, &item, shared));
        }
    }
    if !tables.iter().any(|table| table.scope == Scope::Inlet) {
        tables.push(Table {
            name: "inlet".into(),
            scope: Scope::Inlet,
            rows: Rows::Single,
            keep: None,
            number: None,
            number_offset: 0,
        });
    }
    tables
}

fn table(name: String, item: &Item<'_>, shared: &Shared<'_>) -> Option<Table> {
    let fields = item.fields()?;
    let scope = match fields.get("scope") {
        Some(scope) => scope.one_of(&SCOPES),
        None => SCOPES.iter().find(|(word, _)| *word == name).map(|(_, scope)| *scope),
    };
    if scope.is_none() && fields.get("scope").is_none() {
        fields.fault(format!(
            "\"{name}\" is not inlet, phase, branch, outlet or sensor: say which with scope = \"…\""
        ));
    }
    let rows = rows(&fields, shared);
    let index = rows.as_ref().map_or(Vec::new(), |rows| rows.index().to_vec());
    let holes = shared.holes(&index);
    let keep = fields.get("keep").and_then(|i| test(&i, shared.context(&holes)));
    let number = fields.get("number").and_then(|i| {
        let part = i.text()?;
        if part == "row" && !index.iter().any(|known| known == "row") {
            return None;
        }
        if !index.iter().any(|known| known == part) {
            i.fault(format!(
                "\"{part}\" is no index part; known: {}; or leave it out to number the rows from 1",
                index.join(", ")
            ));
        }
        Some(part.to_owned())
    });
    let number_offset = fields.get("number_offset").and_then(|i| i.integer(-1..=1)).unwrap_or(0);
    fields.done();
    Some(Table { name, scope: scope?, rows: rows?, keep, number, number_offset })
}

fn rows(fields: &Fields<'_>, shared: &Shared<'_>) -> Option<Rows> {
    let index: Vec<String> = fields.get("index").map_or(Vec::new(), |list| {
        list.list().iter().filter_map(|i| i.text().map(str::to_owned)).collect()
    });
    let walk = fields.get("walk");
    let rows = fields.get("rows");
    if let Some(item) = fields.get("named") {
        let pattern = item.text()?.to_owned();
        let Some(names) = shared.names else {
            item.fault(
                "goes by names, and there is no [names] that says where the device gives them",
            );
            return None;
        };
        let (_, devices) = names.index.split_last()?;
        let holes = super::template::holes_of(&pattern).map(str::to_owned);
        let index = devices.iter().cloned().chain(holes).collect();
        return Some(Rows::Named { pattern, index });
    }
    match (walk, rows) {
        (Some(walk), None) => {
            if !shared.snmp {
                walk.fault(
                    "Modbus has no walk: write rows = 8, or rows = { holding = 2, max = 48 }",
                );
                return None;
            }
            if index.is_empty() {
                walk.fault("needs index: names for what follows the column, as in index = [\"unit\", \"outlet\"]");
                return None;
            }
            Some(Rows::Walk { column: walk.parsed::<Oid>()?, index })
        }
        (None, Some(rows)) if rows.is_integer() => {
            let count = rows.integer(1..=TABLE_ROWS as i64)? as u32;
            let index = if index.is_empty() { vec!["row".to_owned()] } else { index };
            Some(Rows::Listed { index, rows: (1..=count).map(|row| vec![row]).collect() })
        }
        (None, Some(rows)) if rows.is_table() => {
            let fields = rows.fields()?;
            let max = fields
                .need("max", "the most rows that are believed")?
                .integer(1..=TABLE_ROWS as i64)? as u16;
            let read = fields.need("read", "where the number of rows is told")?;
            let source = source(&read, shared.context(&[]));
            fields.done();
            Some(Rows::Counted { source: source?, max })
        }
        (None, Some(rows)) => {
            let listed: Vec<Vec<u32>> = rows
                .list()
                .iter()
                .map(|row| {
                    row.one_or_more()
                        .iter()
                        .filter_map(|i| i.integer(0..=u32::MAX as i64))
                        .map(|n| n as u32)
                        .collect()
                })
                .collect();
            let index = if index.is_empty() { vec!["row".to_owned()] } else { index };
            if listed.iter().any(|row| row.len() != index.len()) {
                rows.fault(format!(
                    "every row needs {} numbers, one for each of: {}",
                    index.len(),
                    index.join(", ")
                ));
                return None;
            }
            Some(Rows::Listed { index, rows: listed })
        }
        (None, None) => Some(Rows::Single),
        (Some(walk), Some(_)) => {
            walk.fault("the table has both walk and rows: write one");
            None
        }
    }
}

/// `[[point]]`.
pub(super) fn points(root: &Fields<'_>, tables: &[Table], shared: &Shared<'_>) -> Vec<PointSpec> {
    let Some(list) = root.need("point", "what can be read") else { return Vec::new() };
    list.list().iter().filter_map(|item| point(item, tables, shared)).collect()
}

fn point(item: &Item<'_>, tables: &[Table], shared: &Shared<'_>) -> Option<PointSpec> {
    let fields = item.fields()?;
    let point: Option<Point> =
        fields.need("name", "which reading, as in \"outlet.power\"").and_then(|i| i.parsed());
    let table = point.and_then(|point| table_of(&fields, point, tables));
    let holes = shared.holes(table.map_or(&[][..], |at| tables[at].rows.index()));
    let context = Context { holes: table.map(|_| holes.as_slice()), ..shared.context(&holes) };
    let read = fields.need("read", "where it is read").and_then(|i| source(&i, context));
    let meaning = point.and_then(|point| meaning(&fields, point, context));
    let every = match fields.need("every", "how often: fast, slow or once") {
        Some(i) => i.one_of(&[("fast", Every::Fast), ("slow", Every::Slow), ("once", Every::Once)]),
        None => None,
    };
    let needs = fields.get("needs").and_then(|i| {
        let name = i.text()?;
        if !shared.capabilities.iter().any(|known| known == name) {
            i.fault(format!("there is no [capability.{name}] in this file"));
        }
        Some(name.to_owned())
    });
    let when = fields.get("when").and_then(|i| test(&i, context));
    let valid = fields.get("valid").and_then(|i| test(&i, context));
    let mut absent: Vec<i64> = shared.absent.to_vec();
    if let Some(list) = fields.get("absent") {
        absent = list.list().iter().filter_map(|i| i.integer(i64::MIN..=i64::MAX)).collect();
    }
    if let Some(counter) = fields.get("counter").and_then(|i| i.fields()) {
        counter.need("bits", "32 or 64").and_then(|i| i.integer(16..=64));
        counter.get("resets").and_then(|i| i.flag());
        counter.done();
    }
    let (read, meaning, every) = (read?, meaning?, every?);
    fields.done();
    let point = point?;
    if matches!(meaning, Meaning::Text | Meaning::Link) && every != Every::Once {
        item.fault(format!("{point} is no reading that changes: write every = \"once\""));
    }
    Some(PointSpec {
        point,
        table: table?,
        source: read,
        meaning,
        every,
        needs,
        when,
        valid,
        absent,
    })
}

fn table_of(fields: &Fields<'_>, point: Point, tables: &[Table]) -> Option<usize> {
    let found = match fields.get("table") {
        Some(item) => {
            let name = item.text()?;
            let found =
                tables.iter().position(|table| table.name == name && table.scope == point.scope);
            if found.is_none() {
                item.fault(format!(
                    "there is no [table.{name}] of {}s in this file",
                    point.scope.word()
                ));
            }
            return found;
        }
        None => tables.iter().position(|table| table.scope == point.scope),
    };
    if found.is_none() {
        fields.fault(format!(
            "{point} needs a [table.{}] that says which there are",
            point.scope.word()
        ));
    }
    found
}

fn meaning(fields: &Fields<'_>, point: Point, context: Context<'_>) -> Option<Meaning> {
    let count = fields.get("count");
    let states = fields.get("states");
    let digits = fields.get("digits").and_then(|i| source(&i, context));
    let factor = fields.get("factor").and_then(|i| source(&i, context));
    let fahrenheit = fields.get("fahrenheit").and_then(|i| test(&i, context));
    let absolute = fields.get("abs").and_then(|i| i.flag()).unwrap_or(false);
    match point.metric.kind() {
        Kind::Quantity(unit) => {
            if let Some(states) = states {
                states
                    .fault(format!("{point} is a quantity: write count = \"1 {}\"", unit.symbol()));
            }
            let Some(item) = count else {
                fields.fault(format!("{point} is a quantity and needs count: what one count on the wire is worth, as in count = \"0.1 {}\"", unit.symbol()));
                return None;
            };
            let count: Count = item.parsed()?;
            if count.unit != unit {
                item.fault(format!(
                    "{point} is measured in {}: its count cannot be in {}",
                    symbol(unit),
                    symbol(count.unit)
                ));
                return None;
            }
            Some(Meaning::Quantity { count, digits, factor, fahrenheit, absolute })
        }
        Kind::Words(words) => {
            if let Some(count) = count {
                count.fault(format!("{point} is a state: write states = {{ 1 = \"…\" }}"));
            }
            let Some(item) = states else {
                fields.fault(format!("{point} is a state and needs states, as in states = {{ 1 = \"{}\", 2 = \"{}\" }}", words[0].word(), words[1].word()));
                return None;
            };
            let table = item.fields()?;
            let known: Vec<(&str, Word)> = words
                .iter()
                .map(|word| (word.word(), *word))
                .chain([("unknown", Word::Off)])
                .collect();
            let mut pairs = Vec::new();
            for (key, _, value) in table.entries() {
                let word = value.one_of(&known);
                // "unknown" may be written for the reader; a number that is not listed reads so anyway.
                if value.text() != Some("unknown") {
                    let key = key.parse().map_or(StateKey::Text(key), StateKey::Number);
                    pairs.extend(word.map(|word| (key, word)));
                }
            }
            Some(Meaning::States(pairs))
        }
        Kind::Text => Some(Meaning::Text),
        Kind::Link(_) => Some(Meaning::Link),
    }
}

fn symbol(unit: crate::model::quantity::Unit) -> &'static str {
    match unit.symbol() {
        "" => "plain numbers",
        symbol => symbol,
    }
}
