//! Reading the tables and points of a driver file.

use crate::model::document::{Fields, Item};
use crate::model::limits::TABLE_ROWS;
use crate::model::metric::{Kind, Metric, Point, Scope, Word};
use crate::model::oid::Oid;
use crate::model::quantity::Count;

use super::format::{Every, Meaning, NumberBy, PointSpec, Rows, Sign, StateKey, Table, UnitBy};
use super::load_source::{Context, source, source_in, test};
use super::units::Units;

/// What all tables and points share.
pub(super) struct Shared<'s> {
    pub snmp: bool,
    pub low_first: bool,
    pub names: Option<&'s super::format::Names>,
    pub units: Option<&'s Units>,
    pub absent: &'s [i64],
    pub capabilities: Vec<String>,
}

impl Shared<'_> {
    fn context<'c>(&'c self, holes: &'c [String]) -> Context<'c> {
        let named = self.names.map(|names| &names.value);
        let (snmp, low_first) = (self.snmp, self.low_first);
        Context { snmp, low_first, named, holes: Some(holes), texts: false }
    }

    fn holes(&self, index: &[String]) -> Vec<String> {
        index.iter().cloned().chain(self.units.map(|units| units.part.clone())).collect()
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
            keep: Vec::new(),
            unit: None,
            number: Vec::new(),
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
    let keep = fields.get("keep").map_or(Vec::new(), |item| {
        let tests = item.one_or_more();
        tests.iter().filter_map(|one| test(one, shared.context(&holes))).collect()
    });
    let number = fields.get("number").map_or(Vec::new(), |item| {
        let ways = item.one_or_more();
        ways.iter().filter_map(|way| number(way, &index, shared.context(&holes))).collect()
    });
    let number_offset = fields.get("number_offset").and_then(|i| i.integer(-1..=900)).unwrap_or(0);
    let unit = fields.get("unit").and_then(|i| unit(&i, shared, &index, shared.context(&holes)));
    fields.done();
    Some(Table { name, scope: scope?, rows: rows?, keep, unit, number, number_offset })
}

/// `number = "outlet"`, or `{ oid = "…", of = { 2 = 1, 3 = 2 }, per = "input" }`.
fn number(item: &Item<'_>, index: &[String], context: Context<'_>) -> Option<NumberBy> {
    let part = |item: &Item<'_>| {
        let part = item.text()?;
        if !index.iter().any(|known| known == part) {
            item.fault(format!(
                "\"{part}\" is no index part; known: {}; or leave it out to number the rows from 1",
                index.join(", ")
            ));
        }
        Some(part.to_owned())
    };
    if item.is_text() {
        if item.text() == Some("row") && !index.iter().any(|known| known == "row") {
            return None;
        }
        return part(item).map(NumberBy::Part);
    }
    let fields = item.fields()?;
    let source = source_in(&fields, context);
    let mut of = Vec::new();
    if let Some(table) = fields.get("of").and_then(|i| i.fields()) {
        for (key, span, value) in table.entries() {
            match key.parse::<i64>() {
                Ok(key) => of.extend(value.integer(1..=999).map(|number| (key, number as u16))),
                Err(_) => {
                    fields.faults().add(span, value.path(), "is no number that a device tells");
                }
            }
        }
    }
    let per = fields.get("per").and_then(|i| part(&i));
    fields.done();
    Some(NumberBy::Told { source: source?, of, per })
}

/// `unit = { oid = "…" }` where the device tells it row by row, or `unit = 1`.
fn unit(
    item: &Item<'_>,
    shared: &Shared<'_>,
    index: &[String],
    context: Context<'_>,
) -> Option<UnitBy> {
    match shared.units {
        Some(units) if units.first.is_none() || index.contains(&units.part) => {
            item.fault("is told by the index already: leave it out");
            None
        }
        Some(_) if item.is_integer() => item.integer(0..=255).map(|n| UnitBy::Fixed(n as u32)),
        Some(_) => source(item, context).map(UnitBy::Told),
        None => {
            item.fault("says of which unit the rows are, and [driver] has no unit = { part = \"unit\", first = 1 }");
            None
        }
    }
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
            let columns: Vec<Oid> =
                walk.one_or_more().iter().filter_map(Item::parsed::<Oid>).collect();
            (!columns.is_empty()).then_some(Rows::Walk { columns, index })
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

/// `[[point]]`: what is read, and what is added up.
pub(super) fn points(
    root: &Fields<'_>,
    tables: &[Table],
    shared: &Shared<'_>,
) -> (Vec<PointSpec>, Vec<Metric>) {
    let Some(list) = root.need("point", "what can be read") else { return Default::default() };
    let (sums, read): (Vec<Item<'_>>, Vec<Item<'_>>) = list.list().into_iter().partition(|item| {
        item.is_table() && item.fields().is_some_and(|fields| fields.get("sum").is_some())
    });
    let read = read.iter().filter_map(|item| point(item, tables, shared)).collect();
    (read, sums.iter().filter_map(sum).collect())
}

/// `name = "inlet.power"`, `sum = "phase.power"`.
fn sum(item: &Item<'_>) -> Option<Metric> {
    let fields = item.fields()?;
    let point: Option<Point> =
        fields.need("name", "which reading, as in \"inlet.power\"").and_then(|i| i.parsed());
    let of: Option<Point> = fields.get("sum").and_then(|i| i.parsed());
    let (point, of) = (point?, of?);
    let adds_up = [Metric::Power, Metric::ApparentPower, Metric::Energy];
    if point.scope != Scope::Inlet || of != Point::new(Scope::Phase, point.metric) {
        item.fault("only what an inlet tells of its phases is added up: write name = \"inlet.power\", sum = \"phase.power\"");
    } else if !adds_up.contains(&point.metric) {
        item.fault(format!("{of} does not add up: power, apparent_power and energy do"));
    }
    fields.done();
    Some(point.metric)
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
    let of_scope = |table: &&Table| table.scope == point.scope;
    if let Some(item) = fields.get("table") {
        let name = item.text()?;
        let found = tables.iter().position(|table| table.name == name && of_scope(&table));
        if found.is_none() {
            let word = point.scope.word();
            item.fault(format!("there is no [table.{name}] of {word}s in this file"));
        }
        return found;
    }
    // Of several the one that has the scope's own name.
    let own = tables.iter().position(|table| of_scope(&table) && table.name == point.scope.word());
    let found = own.or_else(|| tables.iter().position(|table| of_scope(&table)));
    if found.is_none() {
        fields.fault(format!(
            "{point} needs a [table.{}] that says which there are",
            point.scope.word()
        ));
    }
    found
}

fn sign(fields: &Fields<'_>, point: Point) -> Sign {
    let dropped = fields.get("abs").and_then(|i| i.flag()).unwrap_or(false);
    let polarity = fields.get("polarity");
    if let Some(item) = &polarity {
        if !matches!(point.metric, Metric::Voltage | Metric::Current) {
            item.fault(format!("{point} has no polarity: voltage and current of a DC bus have"));
        }
        if dropped {
            item.fault("abs drops the sign that polarity keeps: write one of them");
        }
    }
    match (dropped, polarity.and_then(|i| i.flag()).unwrap_or(false)) {
        (true, _) => Sign::Dropped,
        (false, true) => Sign::Polarity,
        (false, false) => Sign::Plausible,
    }
}

fn meaning(fields: &Fields<'_>, point: Point, context: Context<'_>) -> Option<Meaning> {
    let count = fields.get("count");
    let states = fields.get("states");
    let digits = fields.get("digits").and_then(|i| source(&i, context));
    let factor = fields.get("factor").and_then(|i| source(&i, context));
    let fahrenheit = fields.get("fahrenheit").and_then(|i| test(&i, context));
    let sign = sign(fields, point);
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
            Some(Meaning::Quantity { count, digits, factor, fahrenheit, sign })
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
