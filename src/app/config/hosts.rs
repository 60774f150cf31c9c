//! `[[host]]`, `[[group]]`, `[[outlet]]`: what hangs on the outlets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::device::Settings;
use crate::model::document::{Fields, Item};
use crate::model::id::{GroupId, HostId, OutletId};
use crate::model::time::Span;
use crate::plan::site::{GroupSpec, HostSpec, NoAnswer, OutletSpec, Safe};
use crate::resolve::Address;
use crate::switching::Site;
use crate::switching::hooks::{Hook, HostHooks};

/// `[[host]]`.
pub(super) fn hosts(root: &Fields<'_>, devices: &[Settings], base: &Path, site: &mut Site) {
    let mut hosts: BTreeMap<HostId, HostSpec> = BTreeMap::new();
    let Some(list) = root.get("host") else { return };
    // What each host comes after, with the places in the file.
    let mut afters: BTreeMap<HostId, Vec<(HostId, Item<'_>)>> = BTreeMap::new();
    for item in list.list() {
        let Some((id, mut host, hooks)) = host(&item, devices, base) else { continue };
        if hooks != HostHooks::default() {
            site.hooks.0.insert(id.clone(), hooks);
        }
        for outlet in &host.outlets {
            let other = hosts.iter().find(|(_, other)| other.outlets.contains(outlet));
            if let Some((other, _)) = other {
                item.fault(format!(
                    "outlet {outlet} feeds host {other} already: an outlet feeds one host"
                ));
            }
        }
        let after = after(&item);
        host.after = after.iter().map(|(id, _)| id.clone()).collect();
        if hosts.insert(id.clone(), host).is_some() {
            item.fault(format!("the id \"{id}\" is given twice"));
        }
        afters.insert(id, after);
    }
    for (missing, item) in afters.values().flatten().filter(|(id, _)| !hosts.contains_key(id)) {
        item.fault(format!("there is no [[host]] with id \"{missing}\""));
    }
    for circle in circles(&hosts) {
        let last = &circle[circle.len() - 1];
        let place = afters[&circle[0]].iter().find(|(id, _)| id == last);
        let Some((_, item)) = place else { continue };
        item.fault(match &circle[..] {
            [host] => format!("host {host} cannot come after itself: take it out"),
            _ => format!("{}: take one of these out of \"after\"", waits(&circle)),
        });
    }
    site.rack.hosts = hosts.into_iter().collect();
}

/// What a host comes after, with the places in the file.
fn after<'a>(item: &Item<'a>) -> Vec<(HostId, Item<'a>)> {
    let list = item.fields().and_then(|fields| fields.get("after"));
    let list = list.map_or(Vec::new(), |list| list.list());
    list.into_iter().filter_map(|item| Some((item.parsed()?, item))).collect()
}

/// The circles of hosts that come after each other, each host of one coming before the next in the list and the last before
/// the first; one circle for hosts that wait for each other in several.
fn circles(hosts: &BTreeMap<HostId, HostSpec>) -> Vec<Vec<HostId>> {
    let mut found: Vec<Vec<HostId>> = Vec::new();
    let mut told: BTreeSet<&HostId> = BTreeSet::new();
    for start in hosts.keys() {
        if told.contains(start) {
            continue;
        }
        // The shortest way back, by what each comes after.
        let mut from: BTreeMap<&HostId, &HostId> = BTreeMap::new();
        let mut open = std::collections::VecDeque::from([start]);
        while let Some(id) = open.pop_front() {
            for next in hosts.get(id).map_or(&[][..], |host| &host.after) {
                if from.contains_key(next) {
                    continue;
                }
                from.insert(next, id);
                open.push_back(next);
            }
        }
        if !from.contains_key(start) {
            continue;
        }
        // From the start back to it: what is before a host comes after it.
        let mut circle = vec![start.clone()];
        let mut at = from[start];
        while at != start {
            circle.push(at.clone());
            at = from[at];
        }
        told.extend(circle.iter().filter_map(|id| hosts.get_key_value(id)).map(|(id, _)| id));
        found.push(circle);
    }
    found
}

/// "web comes after db, which comes after web".
fn waits(circle: &[HostId]) -> String {
    let mut names = circle.iter().rev().chain(circle.last());
    let first = names.next().map_or(String::new(), |id| format!("host {id}"));
    let then: Vec<String> = names.map(|id| format!("comes after {id}")).collect();
    format!("{first} {}", then.join(", which "))
}

fn host(
    item: &Item<'_>,
    devices: &[Settings],
    base: &Path,
) -> Option<(HostId, HostSpec, HostHooks)> {
    let fields = item.fields()?;
    let id: Option<HostId> =
        fields.need("id", "its id in URLs, as in \"web-01\"").and_then(|i| i.parsed());
    let name = fields.get("name").and_then(|i| i.text()).map(str::to_owned);
    let outlets =
        fields.need("outlets", "the outlets that feed it, as in [\"pdu-a/1\", \"pdu-b/1\"]");
    let feeds = outlets_of(outlets, devices);
    if feeds.is_empty() {
        fields.fault("a host needs at least one outlet");
    }
    let seconds = |key: &'static str, least| {
        let seconds = fields.get(key).and_then(|i| i.integer(least..=3_600));
        seconds.map(|s| Span::seconds(s as u64))
    };
    let (hold, feed_gap, min_off) =
        (seconds("hold_s", 1), seconds("feed_gap_s", 0), seconds("min_off_s", 0));
    let priority =
        fields.get("priority").and_then(|i| i.integer(-1_000..=1_000)).unwrap_or(0) as i32;
    // Read by `after`, with its places.
    fields.get("after");
    let min_feeds = fields.get("min_feeds").and_then(|item| {
        let count = item.integer(1..=16)? as usize;
        if count > feeds.len() {
            item.fault(format!("it has {} feeds", feeds.len()));
        }
        Some(count)
    });
    let draw = fields.get("draw").and_then(|item| super::limits::draw(&item));
    let safe = [("stay", Safe::Stay), ("on", Safe::On), ("off", Safe::Off)];
    let safe = fields.get("safe_state").and_then(|i| i.one_of(&safe)).unwrap_or_default();
    let hook_of = |key: &'static str| fields.get(key).and_then(|item| hook(&item, base)).unzip();
    let (before_off, before_policy) = hook_of("before_off");
    let (after_on, after_policy) = hook_of("after_on");
    fields.done();
    let id = id?;
    let name = name.unwrap_or_else(|| id.to_string());
    let spec = HostSpec {
        hold,
        feed_gap: feed_gap.unwrap_or(Span(0)),
        priority,
        min_off: min_off.unwrap_or(Span(0)),
        min_feeds: min_feeds.unwrap_or(1),
        draw,
        safe,
        before_off: before_policy,
        after_on: after_policy,
        ..HostSpec::fed_by(&name, feeds)
    };
    Some((id, spec, HostHooks { before_off, after_on }))
}

/// An outlet that may be there.
pub(super) fn outlet(item: &Item<'_>, devices: &[Settings]) -> Option<OutletId> {
    let outlet: OutletId = item.parsed()?;
    if devices.iter().all(|device| device.id != outlet.pdu) {
        item.fault(format!("there is no [[pdu]] with id \"{}\"", outlet.pdu));
    } else if outlet.number == 0 {
        item.fault("there is no outlet 0: outlets are numbered from 1");
    }
    Some(outlet)
}

/// A list of outlets, each once and on a known PDU.
fn outlets_of(list: Option<Item<'_>>, devices: &[Settings]) -> Vec<OutletId> {
    let mut outlets: Vec<OutletId> = Vec::new();
    for item in list.map_or(Vec::new(), |list| list.list()) {
        let Some(outlet) = outlet(&item, devices) else { continue };
        if outlets.contains(&outlet) {
            item.fault("is given twice");
        }
        outlets.push(outlet);
    }
    outlets
}

const METHODS: [(&str, &str); 4] =
    [("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH"), ("GET", "GET")];

/// `before_off = { url = "https://…", within_s = 300, on_no_answer = "stop" }`.
fn hook(item: &Item<'_>, base: &Path) -> Option<(Hook, NoAnswer)> {
    let fields = item.fields()?;
    let text = |key: &'static str| fields.get(key).and_then(|i| i.text()).map(str::to_owned);
    let url =
        fields.need("url", "what is called, as in \"https://drain.example.net:8000/node/web-01\"");
    let place = url.and_then(|item| {
        let url = item.text()?;
        let (tls, rest) = match url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => {
                item.fault("begins with neither https:// nor http://");
                return None;
            }
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = Address::parse(host, if tls { 443 } else { 80 });
        let address = address.map_err(|error| item.fault(error)).ok()?;
        Some((tls, address, format!("/{path}")))
    });
    let method = fields.get("method").map_or(Some("POST"), |i| i.one_of(&METHODS));
    let body = text("body");
    let content_type = text("content_type").unwrap_or_else(|| "application/json".into());
    let token = fields.get("token_file").and_then(|i| super::sections::read_secret(&i, base, 1));
    let authority = fields.get("ca").and_then(|item| {
        let path = base.join(item.text()?);
        let read = std::fs::read_to_string(&path);
        read.map_err(|error| item.fault(format!("{}: {error}", path.display()))).ok()
    });
    if let (Some(item), Some((true, ..)), None) = (fields.get("url"), &place, &authority) {
        item.fault("is called over TLS: write ca, the file (PEM) with its authority");
    }
    let within = fields.get("within_s").and_then(|i| i.integer(1..=3_600)).unwrap_or(300);
    let policies = [("stop", NoAnswer::Stop), ("go_on", NoAnswer::GoOn)];
    let policy = fields.get("on_no_answer").and_then(|i| i.one_of(&policies));
    fields.done();
    let (tls, address, path) = place?;
    let (method, within) = (method?, Span::seconds(within as u64));
    let hook = Hook { tls, address, path, method, body, content_type, token, authority, within };
    Some((hook, policy.unwrap_or(NoAnswer::Stop)))
}

/// `[[group]]`.
pub(super) fn groups(root: &Fields<'_>, devices: &[Settings], site: &mut Site) {
    let Some(list) = root.get("group") else { return };
    for item in list.list() {
        let Some(fields) = item.fields() else { continue };
        let id: Option<GroupId> =
            fields.need("id", "its id in URLs, as in \"web\"").and_then(|i| i.parsed());
        let name = fields.get("name").and_then(|i| i.text()).map(str::to_owned);
        let mut hosts: Vec<HostId> = Vec::new();
        for item in fields.get("hosts").map_or(Vec::new(), |list| list.list()) {
            let Some(host) = item.parsed::<HostId>() else { continue };
            if !site.hosts.contains_key(&host) {
                item.fault(format!("there is no [[host]] with id \"{host}\""));
            }
            hosts.push(host);
        }
        let outlets = outlets_of(fields.get("outlets"), devices);
        if hosts.is_empty() && outlets.is_empty() {
            fields.fault("is empty: write hosts or outlets");
        }
        fields.done();
        let Some(id) = id else { continue };
        let name = name.unwrap_or_else(|| id.to_string());
        let group = GroupSpec { name, hosts, outlets };
        if site.rack.groups.insert(id.clone(), group).is_some() {
            item.fault(format!("the id \"{id}\" is given twice"));
        }
    }
}

/// `[[outlet]]`.
pub(super) fn outlets(root: &Fields<'_>, devices: &[Settings], site: &mut Site) {
    let Some(list) = root.get("outlet") else { return };
    for item in list.list() {
        let Some(fields) = item.fields() else { continue };
        let id = fields.need("id", "the outlet, as in \"pdu-a/7\"");
        let id = id.and_then(|item| outlet(&item, devices));
        let draw = fields.get("draw").and_then(|item| super::limits::draw(&item));
        let phases = fields.get("phases").map_or(Vec::new(), |list| {
            let names: Vec<String> =
                list.list().iter().filter_map(|i| i.text().map(str::to_owned)).collect();
            if !(1..=3).contains(&names.len()) {
                list.fault("an outlet is on one phase, between two, or on three");
            }
            if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
                list.fault("names a phase twice: an outlet is between two phases, or on three");
            }
            names
        });
        let branch = fields.get("branch").and_then(|i| i.text()).map(str::to_owned);
        let critical = fields.get("critical").and_then(|item| {
            let reason = item.text()?.trim().to_owned();
            if reason.is_empty() {
                item.fault("say what for, as in critical = \"the core switch\"; or leave it out");
            }
            Some(reason)
        });
        let feeds =
            [("gateway", "it feeds this gateway"), ("switch", "it feeds this gateway's switch")];
        let feeds = fields.get("feeds").and_then(|i| i.one_of(&feeds));
        fields.done();
        let Some(id) = id else { continue };
        if let Some(reason) = critical {
            site.rack.critical.insert(id.clone(), format!("it is critical: {reason}"));
        }
        if let Some(reason) = feeds {
            site.rack.locked.insert(id.clone(), reason.to_owned());
        }
        let spec = OutletSpec { draw, phases, branch };
        if site.rack.outlets.insert(id.clone(), spec).is_some() {
            item.fault(format!("outlet {id} is given twice"));
        }
    }
}
