//! Reading the switching half of a driver file: verbs with their verification, pauses, proofs.

use crate::model::document::{Fields, Item};
use crate::model::metric::{Metric, Point, Scope};
use crate::model::quantity::{Count, decimal};

use super::format::{Pacing, Proof, Source, Verb, Write, WriteValue};
use super::load_source::{Context, source};
use super::load_startup::startup;
use super::startup::Startup;

/// `[control.outlet.on]` and `[control.outlet.off]`.
/// Alternatives are written as `[[control.outlet.on]]`, each with the capability that it needs.
pub(super) fn control(root: &Fields<'_>, context: Context<'_>) -> Control {
    let Some(fields) = root.get("control").and_then(|item| item.fields()) else {
        return Control::default();
    };
    let item = fields.need("outlet", "the verbs of an outlet");
    let startup = fields.get("startup").and_then(|item| startup(&item, context));
    fields.done();
    let (on, off) = item.map_or_else(Default::default, |item| verbs(&item, context));
    Control { on, off, startup }
}

/// The switching half of a driver.
#[derive(Default)]
pub(super) struct Control {
    pub on: Vec<Verb>,
    pub off: Vec<Verb>,
    pub startup: Option<Startup>,
}

fn verbs(item: &Item<'_>, context: Context<'_>) -> (Vec<Verb>, Vec<Verb>) {
    let Some(verbs) = item.fields() else {
        return (Vec::new(), Vec::new());
    };
    let alternatives = |item: Option<Item<'_>>, word: &str| -> Vec<Verb> {
        let list = item.map_or(Vec::new(), |item| item.one_or_more());
        list.iter().filter_map(|one| verb(one, word, context)).collect()
    };
    let on = alternatives(verbs.need("on", "how an outlet is switched on"), "on");
    let off = alternatives(verbs.need("off", "how an outlet is switched off"), "off");
    if let Some(cycle) = verbs.get("cycle") {
        cycle.fault("is not a device verb here: PowerMan cycles as off, hold, on, each verified; leave it out");
    }
    verbs.done();
    (on, off)
}

fn verb(item: &Item<'_>, word: &str, context: Context<'_>) -> Option<Verb> {
    let fields = item.fields()?;
    let needs = fields.get("needs").and_then(|i| i.text()).map(str::to_owned);
    let writes = fields
        .need("write", "what is written, in order")
        .map(|list| list.list().iter().filter_map(|one| write(one, context)).collect::<Vec<_>>());
    let timing = fields
        .need(
            "verify",
            "how it is seen that the switching happened; without it a verb does not load",
        )
        .and_then(|verify| verify_timing(&verify, word));
    if let Some(waiting) = fields.get("waiting") {
        waiting_state(&waiting);
    }
    let also = fields.get("also").and_then(|also| witness(&also));
    if writes.as_ref().is_some_and(Vec::is_empty) {
        fields.fault("writes nothing");
    }
    fields.done();
    let (within_ms, poll_ms) = timing?;
    Some(Verb { needs, writes: writes?, within_ms, poll_ms, also })
}

fn write(item: &Item<'_>, context: Context<'_>) -> Option<Write> {
    let fields = item.fields()?;
    let value = fields.need("value", "the number or text to write").and_then(|value| {
        if value.is_text() {
            value.text().map(|text| WriteValue::Text(text.to_owned()))
        } else {
            value.integer(-2_147_483_648..=4_294_967_295).map(WriteValue::Number)
        }
    });
    let value = match fields.get("as") {
        Some(kind) => gauge(&kind, value, context),
        None => value,
    };
    // The rest of the table is the target; "value" has been asked for.
    let target = if let Some(oid) = fields.get("oid") {
        let target = source(&oid, context);
        if let Some(list) = fields.get("item") {
            let write = listed(&list, target, value);
            fields.done();
            return write;
        }
        target
    } else if let Some(item) = fields.get("named") {
        super::load_source::named(&item, &fields, context)
    } else {
        register_target(&fields, context)
    };
    fields.done();
    Some(Write { target: target?, value: value? })
}

/// A number that is no INTEGER: agents take no other type than that of the object.
fn gauge(kind: &Item<'_>, value: Option<WriteValue>, context: Context<'_>) -> Option<WriteValue> {
    if !context.snmp {
        kind.fault("is for SNMP only: leave it out");
        return None;
    }
    kind.one_of(&[("gauge", ())])?;
    let gauge = match value? {
        WriteValue::Number(number) => u32::try_from(number).ok(),
        _ => None,
    };
    if gauge.is_none() {
        kind.fault("needs a number from 0: write value = 1, as = \"gauge\"");
    }
    gauge.map(WriteValue::Gauge)
}

/// The row's item of a text that lists all rows.
fn listed(item: &Item<'_>, target: Option<Source>, value: Option<WriteValue>) -> Option<Write> {
    item.one_of(&[("row", ())])?;
    let Some(Source::Oid(template)) = target else { return None };
    let WriteValue::Number(number) = value? else {
        item.fault("is written as a number: write value = 1");
        return None;
    };
    Some(Write { target: Source::Listed(template, None), value: WriteValue::Item(number) })
}

fn register_target(fields: &Fields<'_>, context: Context<'_>) -> Option<Source> {
    use super::format::{Register, Shape, ShapeKind};
    use crate::model::ask::Registers;
    if context.snmp {
        fields.fault("says nowhere where to write: write oid = \"1.3.6.1.…\"");
        return None;
    }
    let step = fields.get("step").map_or(Some(0), |i| i.integer(0..=65_535))? as u16;
    let (item, table) = match (fields.get("coil"), fields.get("holding")) {
        (Some(item), None) => (item, Registers::Coil),
        (None, Some(item)) => (item, Registers::Holding),
        _ => {
            fields.fault(
                "says nowhere where to write: write coil or holding, only these can be written",
            );
            return None;
        }
    };
    let address = item.integer(0..=65_535)? as u16;
    let kind = if table.is_bits() { ShapeKind::Bit } else { ShapeKind::Unsigned };
    let shape = Shape { kind, words: 1, low_first: false, bit: None };
    Some(Source::Register(Register { table, address, step, shape }))
}

fn verify_timing(item: &Item<'_>, word: &str) -> Option<(u64, u64)> {
    let fields = item.fields()?;
    let point: Option<Point> = fields.need("point", "outlet.state").and_then(|i| i.parsed());
    if point.is_some_and(|p| p != Point::new(Scope::Outlet, Metric::State)) {
        fields.fault(
            "is verified by outlet.state, the relay itself; a second witness goes into \"also\"",
        );
    }
    if let Some(is) = fields.need("is", "the state that is waited for")
        && is.text().is_some_and(|text| text != word)
    {
        is.fault(format!("the verb \"{word}\" is verified by is = \"{word}\""));
    }
    let within = fields
        .need("within_ms", "how long the device may take")
        .and_then(|i| i.integer(100..=120_000));
    let poll =
        fields.need("poll_ms", "how often to look meanwhile").and_then(|i| i.integer(20..=10_000));
    fields.done();
    Some((within? as u64, poll? as u64))
}

fn waiting_state(item: &Item<'_>) {
    let Some(fields) = item.fields() else { return };
    let pending = Point::new(Scope::Outlet, Metric::Pending);
    let state = Point::new(Scope::Outlet, Metric::State);
    let point: Option<Point> = fields.need("point", "outlet.pending").and_then(|i| i.parsed());
    if point.is_some_and(|p| p != pending && p != state) {
        fields.fault("waits on outlet.pending = \"yes\" or outlet.state = \"pending\"");
    }
    if let Some(is) = fields.need("is", "the state that is no failure yet") {
        is.one_of(&[("yes", ()), ("pending", ())]);
    }
    fields.done();
}

fn witness(item: &Item<'_>) -> Option<(Point, i64)> {
    let fields = item.fields()?;
    let point: Option<Point> =
        fields.need("point", "outlet.current or outlet.power").and_then(|i| i.parsed());
    let below = fields.need("below", "a quantity, as in \"50 mA\"").and_then(|i| {
        let count: Count = i.parsed()?;
        let unit = point.and_then(|p| p.metric.unit());
        if unit.is_some_and(|unit| unit != count.unit) {
            i.fault("is in another unit than its point");
        }
        count.apply(1, 0)
    });
    if point.is_some_and(|p| p.scope != Scope::Outlet) {
        fields.fault("looks at the outlet itself: outlet.current or outlet.power");
    }
    fields.done();
    Some((point?, below?))
}

/// `[pacing]`.
pub(super) fn pacing(root: &Fields<'_>) -> Pacing {
    let mut pacing = Pacing { write_gap_ms: 300, settle_ms: 1_500 };
    if let Some(fields) = root.get("pacing").and_then(|item| item.fields()) {
        if let Some(gap) = fields.get("write_gap_ms").and_then(|i| i.integer(0..=60_000)) {
            pacing.write_gap_ms = gap as u64;
        }
        if let Some(settle) = fields.get("settle_ms").and_then(|i| i.integer(0..=60_000)) {
            pacing.settle_ms = settle as u64;
        }
        fields.done();
    }
    pacing
}

/// `[[proof]]`.
pub(super) fn proofs(root: &Fields<'_>) -> Vec<Proof> {
    let Some(list) = root.get("proof") else { return Vec::new() };
    list.list().iter().filter_map(proof).collect()
}

fn proof(item: &Item<'_>) -> Option<Proof> {
    let fields = item.fields()?;
    let recording = fields.need("recording", "the name of a recording").and_then(|i| i.text());
    let mut part = None;
    for key in ["outlet", "branch", "phase", "sensor", "inlet"] {
        if let Some(number) = fields.get(key).and_then(|i| i.integer(0..=65_535)) {
            part = Some(number as u16);
        }
    }
    let expect = fields.need("expect", "readings and their values").and_then(|i| i.fields());
    let mut wanted = Vec::new();
    if let Some(expect) = &expect {
        for (name, span, value) in expect.entries() {
            match name.parse::<Point>() {
                Ok(point) => wanted.extend(value.text().map(|text| (point, text.to_owned()))),
                Err(error) => fields.faults().add(span, value.path(), error),
            }
        }
    }
    fields.done();
    Some(Proof { recording: recording?.to_owned(), part, expect: wanted })
}

/// A value of a proof, "0.633 A", as kept steps in the point's unit.
pub fn expected(point: Point, text: &str) -> Option<i64> {
    let unit = point.metric.unit()?;
    let (number, symbol) = text.split_once(' ').unwrap_or((text, ""));
    let (mantissa, places) = decimal(number)?;
    let count: Count = format!("1 {symbol}").trim().parse().ok()?;
    (count.unit == unit).then(|| count.apply(mantissa, places)).flatten()
}
