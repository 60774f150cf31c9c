//! Reading sources and tests of a driver file: `{ oid = "…", is = [1] }`, `{ holding = 0x10, as = "u32" }`.

use crate::model::ask::Registers;
use crate::model::document::{Fields, Item};
use crate::model::oid::Oid;

use super::format::{Check, Register, Shape, ShapeKind, Source, Test};

/// What a source may be, in this driver.
#[derive(Clone, Copy)]
pub(super) struct Context<'c> {
    pub snmp: bool,
    pub low_first: bool,
    /// The column of values, in a driver that goes by names.
    pub named: Option<&'c Oid>,
    /// Index parts that a template may name; nothing where they cannot be known, after another fault.
    pub holes: Option<&'c [String]>,
    /// Whether only texts are read: then a part of one may be meant.
    pub texts: bool,
}

const TABLES: [(&str, Registers); 4] = [
    ("coil", Registers::Coil),
    ("discrete", Registers::Discrete),
    ("input", Registers::Input),
    ("holding", Registers::Holding),
];

/// A source from a table of its own; unknown keys are faults.
pub(super) fn source(item: &Item<'_>, context: Context<'_>) -> Option<Source> {
    if item.is_text() {
        return oid(item, context);
    }
    let fields = item.fields()?;
    let source = source_in(&fields, context);
    fields.done();
    source
}

/// One source or a list of alternatives.
pub(super) fn sources(item: &Item<'_>, context: Context<'_>) -> Vec<Source> {
    item.one_or_more().iter().filter_map(|one| source(one, context)).collect()
}

/// A source and a check, both in one table.
pub(super) fn test(item: &Item<'_>, context: Context<'_>) -> Option<Test> {
    let fields = item.fields()?;
    let source = match fields.get("read") {
        Some(read) => source(&read, context),
        None => source_in(&fields, context),
    };
    let check = check(&fields);
    fields.done();
    Some(Test { source: source?, check: check? })
}

pub(super) fn source_in(fields: &Fields<'_>, context: Context<'_>) -> Option<Source> {
    let mut found = Vec::new();
    if let Some(item) = fields.get("oid") {
        let source = oid(&item, context);
        found.push(match (fields.get("item"), fields.get("after")) {
            (None, None) => source,
            (Some(item), _) => listed(&item, source),
            (None, Some(mark)) => behind(&mark, source, context),
        });
    }
    if let Some(item) = fields.get("named") {
        found.push(named(&item, fields, context));
    }
    for (word, table) in TABLES {
        if let Some(item) = fields.get(word) {
            found.push(register(&item, table, fields, context));
        }
    }
    if let Some(item) = fields.get("device_id") {
        if context.snmp {
            item.fault("is a Modbus source and this driver speaks SNMP: write oid = \"1.3.6.1.…\"");
        }
        found.push(item.integer(0..=255).map(|id| Source::DeviceId(id as u8)));
    }
    match found.len() {
        1 => found.pop().flatten(),
        0 if context.snmp => {
            fields.fault("says nowhere where to look: write oid = \"1.3.6.1.…\"");
            None
        }
        0 => {
            fields.fault(
                "says nowhere where to look: write coil, discrete, input, holding or device_id",
            );
            None
        }
        _ => {
            fields.fault("names more than one source: write exactly one");
            None
        }
    }
}

fn oid(item: &Item<'_>, context: Context<'_>) -> Option<Source> {
    if !context.snmp {
        item.fault(
            "is an SNMP source and this driver speaks Modbus: write holding = 0x0100 or the like",
        );
        return None;
    }
    let template: super::template::Template = item.parsed()?;
    Some(known_holes(item, template, context))
}

/// `item = "row"`, or `item = 1` for the first.
fn listed(item: &Item<'_>, source: Option<Source>) -> Option<Source> {
    let at = if item.is_integer() {
        Some(item.integer(1..=256)? as u16 - 1)
    } else {
        item.one_of(&[("row", ())])?;
        None
    };
    match source? {
        Source::Oid(template) => Some(Source::Listed(template, at)),
        other => Some(other),
    }
}

/// `after = "MN:"`: the word behind it.
fn behind(item: &Item<'_>, source: Option<Source>, context: Context<'_>) -> Option<Source> {
    if !context.texts {
        item.fault("takes a word out of a text, and only [identity] has texts");
        return None;
    }
    let mark = item.text()?.to_owned();
    match source? {
        Source::Oid(template) => Some(Source::Behind(template, mark)),
        other => Some(other),
    }
}

/// `named = "Phase L{phase}.Current.Value"`, in the column of values or in another.
pub(super) fn named(item: &Item<'_>, fields: &Fields<'_>, context: Context<'_>) -> Option<Source> {
    let column = fields.get("column").map(|i| i.parsed::<Oid>());
    let Some(value) = context.named else {
        item.fault("goes by names, and there is no [names] that says where the device gives them");
        return None;
    };
    let column = column.map_or(Some(value.clone()), |column| column)?;
    let template = super::template::Template::named(&column, item.text()?);
    Some(known_holes(item, template, context))
}

fn known_holes(
    item: &Item<'_>,
    template: super::template::Template,
    context: Context<'_>,
) -> Source {
    let Some(holes) = context.holes else { return Source::Oid(template) };
    for hole in template.holes() {
        if !holes.iter().any(|known| known == hole) {
            let known = match holes {
                [] => "there is no index here".to_owned(),
                holes => format!("known here: {}", holes.join(", ")),
            };
            item.fault(format!("{{{hole}}} is no index part; {known}"));
        }
    }
    Source::Oid(template)
}

fn register(
    item: &Item<'_>,
    table: Registers,
    fields: &Fields<'_>,
    context: Context<'_>,
) -> Option<Source> {
    if context.snmp {
        item.fault("is a Modbus source and this driver speaks SNMP: write oid = \"1.3.6.1.…\"");
        return None;
    }
    let address = item.integer(0..=65_535)? as u16;
    let step = fields.get("step").map_or(Some(0), |i| i.integer(0..=65_535))? as u16;
    let shape = shape(fields, table, context)?;
    Some(Source::Register(Register { table, address, step, shape }))
}

fn shape(fields: &Fields<'_>, table: Registers, context: Context<'_>) -> Option<Shape> {
    const KINDS: [(&str, (ShapeKind, u16)); 10] = [
        ("u16", (ShapeKind::Unsigned, 1)),
        ("i16", (ShapeKind::Signed, 1)),
        ("u32", (ShapeKind::Unsigned, 2)),
        ("i32", (ShapeKind::Signed, 2)),
        ("u64", (ShapeKind::Unsigned, 4)),
        ("i64", (ShapeKind::Signed, 4)),
        ("f32", (ShapeKind::Float, 2)),
        ("f64", (ShapeKind::Float, 4)),
        ("text", (ShapeKind::Text, 0)),
        ("bit", (ShapeKind::Bit, 1)),
    ];
    let order = fields.get("word_order");
    let low_first = match order {
        Some(item) => item.one_of(&[("high-first", false), ("low-first", true)])?,
        None => context.low_first,
    };
    let bit = fields.get("bit").and_then(|i| i.integer(0..=15)).map(|b| b as u8);
    let words = fields.get("words").and_then(|i| i.integer(1..=64)).map(|w| w as u16);
    if table.is_bits() {
        if fields.get("as").is_some() {
            fields.fault("a coil or discrete input is one bit: leave \"as\" out");
        }
        return Some(Shape { kind: ShapeKind::Bit, words: 1, low_first, bit: None });
    }
    let (kind, natural) =
        fields.get("as").map_or(Some((ShapeKind::Unsigned, 1)), |i| i.one_of(&KINDS))?;
    let words = match (kind, words) {
        (ShapeKind::Text, Some(words)) => words,
        (ShapeKind::Text, None) => {
            fields.fault("as = \"text\" needs words: how many registers the text has");
            return None;
        }
        (_, Some(words)) if words != natural => {
            fields.fault(format!(
                "words = {words} does not fit its type, which has {natural}: leave it out"
            ));
            return None;
        }
        _ => natural,
    };
    if bit.is_some() && natural != 1 {
        fields.fault("bit picks one bit of a 16-bit register: write as = \"u16\"");
    }
    Some(Shape { kind, words, low_first, bit })
}

fn check(fields: &Fields<'_>) -> Option<Check> {
    let numbers = |item: Item<'_>| -> Vec<i64> {
        item.one_or_more().iter().filter_map(|i| i.integer(i64::MIN..=i64::MAX)).collect()
    };
    let texts = |item: Item<'_>| -> Vec<String> {
        item.one_or_more().iter().filter_map(|i| i.text().map(str::to_owned)).collect()
    };
    let mut found = Vec::new();
    if let Some(item) = fields.get("exists") {
        let flag = item.flag()?;
        found.push(if flag { Check::Exists } else { Check::Lacks });
    }
    found.extend(fields.get("is").map(|i| Check::Is(numbers(i))));
    found.extend(fields.get("not").map(|i| Check::Not(numbers(i))));
    if let Some(item) = fields.get("equals") {
        let of_numbers = item.one_or_more().first().is_some_and(Item::is_integer);
        found.push(if of_numbers { Check::Is(numbers(item)) } else { Check::Equals(texts(item)) });
    }
    found.extend(fields.get("starts").map(|i| Check::Starts(texts(i))));
    found.extend(fields.get("contains").map(|i| Check::Contains(texts(i))));
    found.extend(fields.get("without").map(|i| Check::Without(texts(i))));
    if let Some(item) = fields.get("under") {
        let oids = item.one_or_more().iter().filter_map(Item::parsed::<Oid>).collect();
        found.push(Check::Under(oids));
    }
    match found.len() {
        1 => found.pop(),
        0 => {
            fields.fault("does not say what should be there: write one of exists, is, not, equals, starts, contains, without, under");
            None
        }
        _ => {
            fields.fault(
                "says more than one thing that should be there: write one, or a second rule",
            );
            None
        }
    }
}
