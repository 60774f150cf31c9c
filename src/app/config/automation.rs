//! `[[shed]]` and `[restore]`: what the gateway switches by itself.

use crate::device::Settings;
use crate::model::document::{Fields, Item};
use crate::model::id::{GroupId, HostId, OutletId};
use crate::model::time::Span;
use crate::plan::lit::Restore;
use crate::plan::record::Select;
use crate::plan::shed::Rule;
use crate::switching::Site;

/// `[restore]`: what was on goes on again after an outage.
pub(super) fn restore(root: &Fields<'_>) -> Option<Restore> {
    let fields = root.get("restore").and_then(|i| i.fields())?;
    let mut restore = Restore::default();
    let seconds = |key: &'static str| {
        fields.get(key).and_then(|i| i.integer(0..=3_600)).map(|s| Span::seconds(s as u64))
    };
    if let Some(settle) = seconds("settle_s") {
        restore.settle = settle;
    }
    if let Some(wait) = seconds("wait_s") {
        restore.wait = wait;
    }
    let delays = [("keep", false), ("set", true)];
    if let Some(set) = fields.get("power_on_delays").and_then(|i| i.one_of(&delays)) {
        restore.sets_delays = set;
    }
    fields.done();
    Some(restore)
}

/// `[[shed]]`.
pub(super) fn sheds(root: &Fields<'_>, devices: &[Settings], site: &Site) -> Vec<Rule> {
    let Some(list) = root.get("shed") else { return Vec::new() };
    let mut rules: Vec<Rule> = Vec::new();
    for item in list.list() {
        let Some(rule) = shed(&item, devices, site) else { continue };
        if rules.iter().any(|other| other.id == rule.id) {
            item.fault(format!("the id \"{}\" is given twice", rule.id));
        }
        rules.push(rule);
    }
    rules
}

/// Adds what a rule names, once.
fn add(item: &Item<'_>, select: Select, of: &mut Vec<Select>) {
    if of.contains(&select) {
        item.fault(format!("{select} is named twice"));
    }
    of.push(select);
}

/// What no rule may switch.
fn spared(item: &Item<'_>, outlet: &OutletId, site: &Site) {
    let reason = site.rack.critical.get(outlet).or(site.rack.locked.get(outlet));
    if let Some(reason) = reason {
        item.fault(format!("no rule switches {outlet}, as {reason}: leave it out"));
    }
}

fn shed(item: &Item<'_>, devices: &[Settings], site: &Site) -> Option<Rule> {
    let fields = item.fields()?;
    let text = |item: Option<Item<'_>>| item.and_then(|i| i.text().map(str::to_owned));
    let id = text(fields.need("id", "its name, as in \"feed-a-high\""));
    let limit = fields.need(
        "limit",
        "the limit that is watched, by its id in GET /v1/limits: a [[limit]], or \"pdu-a/B1\"",
    );
    let named = limit.as_ref().and_then(|item| Some((item, item.text()?)));
    if let Some((item, name)) = named {
        let of_pdu = name.split_once('/').map(|(pdu, _)| pdu);
        let phase_of = |(feed, part): (&str, &str)| {
            let feed = site.feeds.get(feed).and_then(|feed| feed.amperes);
            feed.is_some_and(|of| of.phases == 3) && ["L1", "L2", "L3"].contains(&part)
        };
        let known = site.feeds.contains_key(name)
            || name.split_once('/').is_some_and(phase_of)
            || of_pdu.is_some_and(|pdu| devices.iter().any(|device| device.id.as_str() == pdu));
        if !known {
            item.fault(format!("there is neither a [[limit]] nor a part of a [[pdu]] \"{name}\""));
        }
    }
    let limit = named.map(|(_, name)| name.to_owned());
    // What hangs on another PDU relieves none of this one's limits.
    let above = limit.as_deref().and_then(|name| name.split_once('/')).map(|(pdu, _)| pdu);
    let above = above.filter(|pdu| devices.iter().any(|device| device.id.as_str() == *pdu));
    let hangs = |outlet: &OutletId| above.is_none_or(|pdu| outlet.pdu.as_str() == pdu);
    let percent = |key: &'static str, usual| {
        fields.get(key).and_then(|i| i.integer(1..=200)).unwrap_or(usual)
    };
    let (over, under) = (percent("over_percent", 90), percent("under_percent", 70));
    if under >= over {
        fields.fault("under_percent must be less than over_percent, else what went off comes back at once and goes again");
    }
    let seconds = |key: &'static str, usual| {
        let seconds = fields.get(key).and_then(|i| i.integer(0..=86_400)).unwrap_or(usual);
        Span::seconds(seconds as u64)
    };
    let (after, back_after) = (seconds("for_s", 30), seconds("back_for_s", 300));
    let (min_off, min_on) = (seconds("min_off_s", 300), seconds("min_on_s", 300));
    let settle = seconds("settle_s", 15);
    let dry_run = fields.get("dry_run").and_then(|i| i.flag()).unwrap_or(false);
    let mut of = Vec::new();
    for item in fields.get("hosts").map_or(Vec::new(), |list| list.list()) {
        let Some(host) = item.parsed::<HostId>() else { continue };
        if !site.hosts.contains_key(&host) {
            item.fault(format!("there is no [[host]] with id \"{host}\""));
        }
        if site.hosts.get(&host).is_some_and(|host| !host.outlets.iter().any(hangs)) {
            item.fault(format!("host \"{host}\" has no outlet on the PDU of this limit"));
        }
        for outlet in site.hosts.get(&host).iter().flat_map(|host| &host.outlets) {
            spared(&item, outlet, site);
        }
        add(&item, Select::Host(host), &mut of);
    }
    for item in fields.get("groups").map_or(Vec::new(), |list| list.list()) {
        let Some(group) = item.parsed::<GroupId>() else { continue };
        if !site.groups.contains_key(&group) {
            item.fault(format!("there is no [[group]] with id \"{group}\""));
        }
        add(&item, Select::Group(group), &mut of);
    }
    for item in fields.get("outlets").map_or(Vec::new(), |list| list.list()) {
        let Some(outlet) = super::hosts::outlet(&item, devices) else { continue };
        spared(&item, &outlet, site);
        if !hangs(&outlet) && devices.iter().any(|device| device.id == outlet.pdu) {
            item.fault(format!("\"{outlet}\" is not on the PDU of this limit"));
        }
        add(&item, Select::Outlet(outlet), &mut of);
    }
    if of.is_empty() {
        fields.fault("names nothing to be shed: write hosts, groups or outlets");
    }
    fields.done();
    Some(Rule {
        id: id?,
        limit: limit?,
        over,
        under,
        after,
        back_after,
        min_off,
        min_on,
        settle,
        of,
        dry_run,
    })
}
