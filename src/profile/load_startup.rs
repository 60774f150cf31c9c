//! Reading `[control.startup]` of a driver file: the power-on delays that a device keeps.

use crate::model::document::Item;

use super::format::Source;
use super::load_source::{Context, source, source_in};
use super::startup::{Chain, Off, Startup, Time};

/// `[control.startup]`.
pub(super) fn startup(item: &Item<'_>, context: Context<'_>) -> Option<Startup> {
    if !context.snmp {
        item.fault("is read and written over SNMP only: leave it out");
        return None;
    }
    let fields = item.fields()?;
    let delay = fields
        .need("delay", "where the power-on delay of an outlet is, { oid = \"1.3.6.1.…{row}\" }")
        .and_then(|item| source(&item, context));
    let unit_ms = fields
        .need("unit_ms", "what one count is worth: 1000 for seconds")
        .and_then(|i| i.integer(1..=60_000));
    let range = fields.need("range", "the least and the most that it takes: [0, 7200]");
    let range = range.and_then(|list| {
        let all = list.list();
        let numbers: Vec<i64> = all.iter().filter_map(|i| i.integer(0..=2_147_483_647)).collect();
        match numbers[..] {
            [least, most] if least < most => Some((least, most)),
            _ => {
                list.fault("is the least and the most: write range = [0, 7200]");
                None
            }
        }
    });
    let values = fields.get("values").map_or(Vec::new(), |list| {
        let all = list.list();
        let values: Vec<i64> =
            all.iter().filter_map(|i| i.integer(0..=2_147_483_647)).collect();
        let ordered = values.is_sorted_by(|a, b| a < b) && values.iter().any(|value| *value > 0);
        let within = range.is_none_or(|(least, most)| {
            values.iter().all(|value| (least..=most).contains(value))
        });
        if !ordered || !within {
            list.fault("are the delays that it takes, in order and within the range: write values = [0, 15, 30]");
        }
        values
    });
    let never = fields.get("never").map_or(Vec::new(), |list| {
        let all = list.list();
        all.iter().filter_map(|i| i.integer(-2_147_483_648..=2_147_483_647)).collect()
    });
    if let (Some((least, most)), Some(list)) = (range, fields.get("never"))
        && never.iter().any(|number: &i64| (least..=most).contains(number))
    {
        list.fault("is within the range: a number is a delay, or that it stays off");
    }
    let off = fields.get("off").and_then(|item| off(&item, context));
    let unless = fields.get("unless").and_then(|item| unless(&item, context));
    let before = fields.get("before").and_then(|item| time(&item, context));
    let chain = fields.get("chain").and_then(|item| chain(&item, context));
    if chain.is_some()
        && let Some(list) = fields.get("values")
    {
        list.fault("is not for delays that count from one outlet to the next: leave it out");
    }
    if chain.is_some()
        && let Some(list) = fields.get("never")
    {
        list.fault("is not for delays that count from one outlet to the next: say with off = { … } which stay off");
    }
    fields.done();
    let source = delay.filter(|delay| matches!(delay, Source::Oid(_)))?;
    let (unit_ms, range) = (unit_ms? as u64, range?);
    Some(Startup { source, unit_ms, range, values, never, off, unless, before, chain })
}

/// What an outlet does: `{ oid = "…", is = [0], last = [2], follows = { when = [3], oid = "…" } }`.
fn off(item: &Item<'_>, context: Context<'_>) -> Option<Off> {
    let fields = item.fields()?;
    let source = source_in(&fields, context);
    let is = fields.need("is", "the numbers by which an outlet stays off: [0]");
    let is = is.map(|list| numbers(&list));
    let last = fields.get("last").map_or(Vec::new(), |list| numbers(&list));
    let follows = fields.get("follows").and_then(|item| {
        let fields = item.fields()?;
        let source = of_unit(&item, source_in(&fields, context));
        let when = fields.need("when", "the numbers by which it does what is said there: [3]");
        let when = when.map(|list| numbers(&list));
        fields.done();
        Some((when?, source?))
    });
    fields.done();
    Some(Off { source: source?, is: is?, last, follows })
}

/// What says that no delay is heeded: `{ oid = "…", is = [1] }`.
fn unless(item: &Item<'_>, context: Context<'_>) -> Option<(Source, Vec<i64>)> {
    let fields = item.fields()?;
    let source = of_unit(item, source_in(&fields, context));
    let is = fields.need("is", "the numbers by which no delay is heeded: [1]");
    let is = is.map(|list| numbers(&list));
    fields.done();
    Some((source?, is?))
}

/// Numbers of a device, one at least.
fn numbers(list: &Item<'_>) -> Vec<i64> {
    let all = list.list();
    if all.is_empty() {
        list.fault("names no number: write one at least, or leave all of it out");
    }
    all.iter().filter_map(|i| i.integer(-2_147_483_648..=2_147_483_647)).collect()
}

/// Of what is kept once for all outlets.
fn of_unit(item: &Item<'_>, source: Option<Source>) -> Option<Source> {
    if let Some(Source::Oid(template)) = &source
        && template.holes().any(|part| part == "outlet" || part == "row")
    {
        item.fault("is one for all outlets: leave {outlet} and {row} out of its oid");
        return None;
    }
    source
}

/// A time that the device keeps: `{ oid = "…", unit_ms = 1000 }`.
fn time(item: &Item<'_>, context: Context<'_>) -> Option<Time> {
    let fields = item.fields()?;
    let source = of_unit(item, source_in(&fields, context));
    let unit_ms = fields
        .need("unit_ms", "what one count is worth: 1000 for seconds")
        .and_then(|i| i.integer(1..=60_000));
    fields.done();
    Some(Time { source: source?, unit_ms: unit_ms? as u64 })
}

/// The order in which delays count: `{ order = { oid = "…" }, least = { oid = "…", unit_ms = 1 } }`.
fn chain(item: &Item<'_>, context: Context<'_>) -> Option<Chain> {
    let fields = item.fields()?;
    let order = fields
        .need("order", "where the order of the outlets is, a text: { oid = \"1.3.6.1.…\" }")
        .and_then(|item| of_unit(&item, source(&item, context)));
    let least = fields.get("least").and_then(|item| time(&item, context));
    fields.done();
    Some(Chain { order: order?, least })
}
