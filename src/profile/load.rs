//! From the text of a driver file to a checked [`Profile`], or every fault in it.

use std::collections::BTreeSet;

use crate::model::document::{self, Fields, Item};
use crate::model::fault::{FaultList, Faults};
use crate::model::id::DriverId;
use crate::model::limits::{MODBUS_BITS, MODBUS_REGISTERS, SNMP_REPLY_BYTES, SNMP_VARBINDS};
use crate::model::metric::{Metric, Point, Scope};
use crate::model::oid::Oid;

use super::detect::ENTERPRISE_ARCS;
use super::format::{
    Check, Identity, Known, Meaning, ModbusManners, Names, PointSpec, Profile, Rows, SnmpManners,
    Source, Speech, Table, Test, Verb,
};
use super::load_parts::{Shared, points, tables};
use super::load_source::{Context, sources, test};
use super::load_verbs::{Control, control, pacing, proofs};
use super::units::Units;

/// What every agent says of itself (SNMPv2-MIB system).
const SYSTEM: &str = "1.3.6.1.2.1.1";

/// Reads a driver file; `file` is its name in faults.
pub fn load(file: &str, text: &str) -> Result<Profile, FaultList> {
    let faults = Faults::of(file, text);
    let document = document::parse(text, &faults);
    let root = Fields::root(&document, &faults);
    let profile = profile(root);
    faults.or(profile)
}

fn profile(root: Fields<'_>) -> Option<Profile> {
    if let Some(format) = root.need("format", "write format = 1")
        && format.integer(0..=i64::MAX).is_some_and(|n| n != 1)
    {
        format.fault("this program reads format 1");
    }
    let head = root.need("driver", "who this driver is").and_then(|item| head(item.fields()?));
    let snmp = head.as_ref().is_none_or(|head| head.snmp);
    let low_first = root
        .get("modbus")
        .and_then(|i| i.fields())
        .and_then(|f| f.get("word_order"))
        .is_some_and(|i| i.text() == Some("low-first"));
    let speech = speech(&root, snmp);
    let unit = head.as_ref().and_then(|head| head.unit.clone());
    let unit_hole: Vec<String> = unit.iter().map(|units| units.part.clone()).collect();
    let names = root.get("names").and_then(|item| names(item.fields()?));
    let named = names.as_ref().map(|names: &Names| &names.value);
    let holes = Some(unit_hole.as_slice());
    let context = Context { snmp, low_first, named: None, holes, texts: false };
    let detect = root
        .need("detect", "rules that tell this family")
        .map_or(Vec::new(), |list| detect(&list, context));
    let identity = root
        .need("identity", "where the device says who it is")
        .and_then(|i| i.fields())
        .map(|fields| identity(fields, Context { texts: true, ..context }));
    let capabilities = capabilities(&root, context);
    let absent = match &speech {
        Some(Speech::Snmp(manners)) => manners.absent.clone(),
        _ => Vec::new(),
    };
    let shared = Shared {
        snmp,
        low_first,
        names: names.as_ref(),
        units: unit.as_ref(),
        absent: &absent,
        capabilities: capabilities.iter().map(|(name, _)| name.clone()).collect(),
    };
    let tables = tables(&root, &shared);
    let (points, sums) = points(&root, &tables, &shared);
    let outlet_holes: Vec<String> = tables
        .iter()
        .find(|table| table.scope == Scope::Outlet)
        .map_or(Vec::new(), |table| table.rows.index().to_vec())
        .into_iter()
        .chain(unit_hole.clone())
        .collect();
    let Control { on, off, startup } =
        control(&root, Context { named, holes: Some(&outlet_holes), ..context });
    for needs in on.iter().chain(&off).filter_map(|verb| verb.needs.as_ref()) {
        if !shared.capabilities.contains(needs) {
            root.fault(format!(
                "a verb needs \"{needs}\" and there is no [capability.{needs}] in this file"
            ));
        }
    }
    if !on.is_empty() && !points.iter().any(|p| p.point == Point::new(Scope::Outlet, Metric::State))
    {
        root.fault("outlets can be switched but not seen: a driver with control needs a point outlet.state");
    }
    let known = root.get("known").and_then(|item| item.fields()).map(known);
    if !on.is_empty() || !off.is_empty() {
        made_for(&root, known.as_ref(), identity.as_ref());
    }
    let pacing = pacing(&root);
    let proofs = proofs(&root);
    root.done();
    let head = head?;
    let names =
        names.map(|names| Names { patterns: patterns(&tables, &points, [&on, &off]), ..names });
    Some(Profile {
        id: head.id,
        title: head.title,
        vendor: head.vendor,
        speech: speech?,
        unit,
        detect,
        identity: identity?,
        known,
        capabilities,
        names,
        tables,
        points,
        sums,
        on,
        off,
        startup,
        pacing,
        proofs,
    })
}

struct Head {
    id: DriverId,
    title: String,
    vendor: String,
    snmp: bool,
    unit: Option<Units>,
}

fn head(fields: Fields<'_>) -> Option<Head> {
    let id = fields.need("id", "its name in configs, as in \"apc-rpdu2\"").and_then(|i| i.parsed());
    let title = fields.need("title", "the family, for people").and_then(|i| i.text());
    let vendor = fields.need("vendor", "the vendor, for people").and_then(|i| i.text());
    let snmp = fields
        .need("protocol", "snmp or modbus")
        .and_then(|i| i.one_of(&[("snmp", true), ("modbus", false)]));
    let unit = fields.get("unit").and_then(|item| units(item.fields()?));
    fields.done();
    Some(Head { id: id?, title: title?.to_owned(), vendor: vendor?.to_owned(), snmp: snmp?, unit })
}

/// `{ part = "unit", first = 1 }`, or `{ part = "mac", text = true }`.
fn units(fields: Fields<'_>) -> Option<Units> {
    let part = fields.need("part", "the index part that tells units apart").and_then(|i| i.text());
    let is_text = fields.get("text").and_then(|i| i.flag()).unwrap_or(false);
    let first = if is_text {
        None
    } else {
        let first = fields.need("first", "its value for the first unit, or text = true");
        Some(first.and_then(|i| i.integer(0..=255))? as u32)
    };
    fields.done();
    Some(Units { part: part?.to_owned(), first })
}

fn speech(root: &Fields<'_>, snmp: bool) -> Option<Speech> {
    let (key, other) = if snmp { ("snmp", "modbus") } else { ("modbus", "snmp") };
    if let Some(item) = root.get(other) {
        item.fault(format!("this driver speaks {key}: remove [{other}]"));
    }
    let fields = root.need(key, "the manners of the device").and_then(|item| item.fields())?;
    let number = |key: &'static str, default: i64, low: i64, high: i64| {
        fields.get(key).and_then(|i| i.integer(low..=high)).unwrap_or(default)
    };
    let gap_ms = number("gap_ms", 20, 0, 5_000) as u64;
    let timeout_ms = number("timeout_ms", 2_000, 100, 30_000) as u64;
    let attempts = number("attempts", 3, 1, 5) as u32;
    let speech = if snmp {
        let absent = fields.get("absent").map_or(Vec::new(), |list| {
            list.list().iter().filter_map(|i| i.integer(i64::MIN..=i64::MAX)).collect()
        });
        Speech::Snmp(SnmpManners {
            max_varbinds: number("max_varbinds", 20, 1, SNMP_VARBINDS as i64) as usize,
            bulk_rows: number("bulk_rows", 24, 0, 128) as u32,
            reply_bytes: number("reply_bytes", SNMP_REPLY_BYTES as i64, 484, 65_507) as usize,
            gap_ms,
            timeout_ms,
            attempts,
            absent,
        })
    } else {
        fields.get("word_order").and_then(|i| i.one_of(&[("high-first", ()), ("low-first", ())]));
        Speech::Modbus(ModbusManners {
            unit: number("unit", 1, 0, 255) as u8,
            max_registers: number(
                "max_registers",
                i64::from(MODBUS_REGISTERS),
                1,
                i64::from(MODBUS_REGISTERS),
            ) as u16,
            max_bits: number("max_coils", i64::from(MODBUS_BITS), 1, 2_000) as u16,
            max_hole: number("max_hole", 0, 0, 124) as u16,
            gap_ms,
            timeout_ms,
            attempts,
        })
    };
    fields.done();
    Some(speech)
}

fn identity(fields: Fields<'_>, context: Context<'_>) -> Identity {
    let list = |key| fields.get(key).map_or(Vec::<Source>::new(), |item| sources(&item, context));
    let identity = Identity {
        model: list("model"),
        serial: list("serial"),
        firmware: list("firmware"),
        name: list("name"),
    };
    fields.done();
    identity
}

fn names(fields: Fields<'_>) -> Option<Names> {
    let column = fields.need("walk", "the column of names").and_then(|i| i.parsed());
    let value = fields.need("value", "the column of values").and_then(|i| i.parsed());
    let index = fields.need("index", "names for what follows the column").map(|list| {
        list.list().iter().filter_map(|i| i.text().map(str::to_owned)).collect::<Vec<_>>()
    });
    if index.as_ref().is_some_and(Vec::is_empty) {
        fields.fault("index is empty: write index = [\"variable\"]");
    }
    fields.done();
    let index = index.filter(|index| !index.is_empty())?;
    Some(Names { column: column?, index, value: value?, patterns: Vec::new() })
}

/// All patterns that a driver goes by.
fn patterns(tables: &[Table], points: &[PointSpec], verbs: [&[Verb]; 2]) -> Vec<String> {
    let of = |source: &Source| match source {
        Source::Oid(template) | Source::Listed(template, _) | Source::Behind(template, _) => {
            template.pattern().map(str::to_owned)
        }
        _ => None,
    };
    let mut patterns: BTreeSet<String> = BTreeSet::new();
    for table in tables {
        if let Rows::Named { pattern, .. } = &table.rows {
            patterns.insert(pattern.clone());
        }
        patterns.extend(table.asked_of_rows().filter_map(of));
    }
    for spec in points {
        let tests = [&spec.when, &spec.valid].into_iter().flatten().map(|test| &test.source);
        patterns.extend(std::iter::once(&spec.source).chain(tests).filter_map(of));
        if let Meaning::Quantity { digits, factor, fahrenheit, .. } = &spec.meaning {
            let unit = fahrenheit.iter().map(|test| &test.source);
            patterns.extend(digits.iter().chain(factor).chain(unit).filter_map(of));
        }
    }
    let writes = verbs.into_iter().flatten().flat_map(|verb| &verb.writes);
    patterns.extend(writes.filter_map(|write| of(&write.target)));
    patterns.into_iter().collect()
}

/// `[[detect]]`: a test, or `any = [ … ]` of which one must hold.
fn detect(list: &Item<'_>, context: Context<'_>) -> Vec<Vec<Test>> {
    let rule = |item: &Item<'_>| -> Option<Vec<Test>> {
        let fields = item.is_table().then(|| item.fields())??;
        match fields.get("any") {
            Some(any) => {
                let tests = any.list().iter().filter_map(|one| test(one, context)).collect();
                fields.done();
                Some(tests)
            }
            None => test(item, context).map(|test| vec![test]),
        }
    };
    let rules: Vec<Vec<Test>> = list.list().iter().filter_map(rule).collect();
    let system: Option<Oid> = SYSTEM.parse().ok();
    let of_system = |test: &Test| match &test.source {
        Source::Oid(template) => system.as_ref().is_some_and(|base| template.head().is_under(base)),
        _ => false,
    };
    let vendor_only = |test: &Test| match &test.check {
        Check::Under(bases) => {
            of_system(test) && bases.iter().any(|base| base.parts().len() <= ENTERPRISE_ARCS)
        }
        _ => false,
    };
    let tells =
        |rule: &Vec<Test>| rule.iter().all(|test| test.check != Check::Lacks && !vendor_only(test));
    if !rules.is_empty() && !rules.iter().any(tells) {
        list.fault("tell a vendor and no family: add a rule that an object of its PDUs is there, as { oid = \"1.3.6.1.4.1.…\", exists = true }");
    }
    rules
}

fn known(fields: Fields<'_>) -> Known {
    let texts = |key| {
        let list = fields.get(key).map_or(Vec::new(), |item| item.list());
        list.iter().filter_map(|item| item.text().map(str::to_owned)).collect()
    };
    let untold = fields.get("untold").and_then(|i| i.text()).map(str::to_owned);
    let known = Known { models: texts("models"), firmware: texts("firmware"), untold };
    fields.done();
    known
}

/// A driver that switches says what it was made for, or why nobody can know.
fn made_for(root: &Fields<'_>, known: Option<&Known>, identity: Option<&Identity>) {
    const HOW: &str = "write [known] with models = [\"…\"], what their texts start with, and firmware = [\"…\"], or untold = \"why the family tells neither\"";
    let tells = |of: fn(&Identity) -> &Vec<Source>| identity.is_some_and(|who| !of(who).is_empty());
    let (model, firmware) = (tells(|who| &who.model), tells(|who| &who.firmware));
    let Some(known) = known else {
        root.fault(format!("a driver that switches says what it was made for: {HOW}"));
        return;
    };
    if known.untold.is_some() {
        if model || firmware {
            root.fault("[known] has untold, and [identity] says where the model or the firmware is told: list those that are known");
        }
    } else if known.models.is_empty() && (model || known.firmware.is_empty()) {
        root.fault(format!("[known] names no models: {HOW}"));
    } else if (!known.models.is_empty() && !model) || (!known.firmware.is_empty() && !firmware) {
        root.fault("[known] names what [identity] does not tell: say there where the model and the firmware are told");
    }
}

fn capabilities(root: &Fields<'_>, context: Context<'_>) -> Vec<(String, Test)> {
    let Some(fields) = root.get("capability").and_then(|item| item.fields()) else {
        return Vec::new();
    };
    let entries = fields.entries();
    entries.into_iter().filter_map(|(name, _, item)| Some((name, test(&item, context)?))).collect()
}
