//! Reading `[control.startup]` of a driver file: the power-on delays that a device keeps.

use crate::model::document::Item;

use super::format::Source;
use super::load_source::{Context, source, source_in};
use super::startup::{Chain, Startup, Time};

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
    let before = fields.get("before").and_then(|item| time(&item, context));
    let chain = fields.get("chain").and_then(|item| chain(&item, context));
    if chain.is_some()
        && let Some(list) = fields.get("values")
    {
        list.fault("is not for delays that count from one outlet to the next: leave it out");
    }
    fields.done();
    let source = delay.filter(|delay| matches!(delay, Source::Oid(_)))?;
    let (unit_ms, range) = (unit_ms? as u64, range?);
    Some(Startup { source, unit_ms, range, values, never, off, before, chain })
}

/// What says that an outlet stays off: `{ oid = "…", is = [0] }`.
fn off(item: &Item<'_>, context: Context<'_>) -> Option<(Source, Vec<i64>)> {
    let fields = item.fields()?;
    let source = source_in(&fields, context);
    let is = fields.need("is", "the numbers by which an outlet stays off: [0]").map(|list| {
        let all = list.list();
        all.iter().filter_map(|i| i.integer(-2_147_483_648..=2_147_483_647)).collect()
    });
    fields.done();
    Some((source?, is?))
}

/// A time that the device keeps: `{ oid = "…", unit_ms = 1000 }`.
fn time(item: &Item<'_>, context: Context<'_>) -> Option<Time> {
    let fields = item.fields()?;
    let source = source_in(&fields, context);
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
        .and_then(|item| source(&item, context));
    let least = fields.get("least").and_then(|item| time(&item, context));
    fields.done();
    Some(Chain { order: order?, least })
}
