//! The sections of the configuration that are not PDUs: paces, secrets, switching, policy.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::access::{Grant, Policy, Reach, Role};
use crate::device::Settings;
use crate::link::snmp_v3::{AUTH_PROTOCOLS, PRIV_PROTOCOLS, User};
use crate::model::document::{Fields, Item};
use crate::model::id::{GroupId, HostId};
use crate::model::secret::Secret;
use crate::model::switching::Action;
use crate::model::time::Span;
use crate::pace::Paces;
use crate::plan::site::HostSpec;
use crate::switching::{Approvals, Site};

/// How PDUs are polled unless one says otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Poll {
    pub paces: Paces,
    pub stale_after: Span,
}

/// `[poll]`.
pub(super) fn poll(root: &Fields<'_>) -> Poll {
    let mut poll = Poll { paces: Paces::default(), stale_after: Span::seconds(30) };
    let Some(fields) = root.get("poll").and_then(|i| i.fields()) else { return poll };
    take_paces(&fields, &mut poll);
    set(&fields, "retry_s", 1..=3_600, &mut poll.paces.retry);
    set(&fields, "retry_max_s", 1..=86_400, &mut poll.paces.retry_max);
    fields.done();
    poll
}

/// `fast_s`, `slow_s`, `stale_after_s`; also in a `[[pdu]]`.
pub(super) fn take_paces(fields: &Fields<'_>, poll: &mut Poll) {
    set(fields, "fast_s", 1..=3_600, &mut poll.paces.fast);
    set(fields, "slow_s", 1..=86_400, &mut poll.paces.slow);
    poll.stale_after = poll.stale_after.max(Span(poll.paces.fast.0 * 3));
    set(fields, "stale_after_s", 1..=86_400, &mut poll.stale_after);
    if poll.paces.slow < poll.paces.fast {
        fields.fault("slow_s is less than fast_s: the slow poll reads everything, the fast one what changes fast");
    }
    if poll.stale_after <= poll.paces.fast {
        fields.fault(
            "stale_after_s must be more than fast_s, else every late poll takes the PDU offline",
        );
    }
}

fn set(
    fields: &Fields<'_>,
    key: &'static str,
    bounds: std::ops::RangeInclusive<i64>,
    to: &mut Span,
) {
    if let Some(seconds) = fields.get(key).and_then(|i| i.integer(bounds)) {
        *to = Span::seconds(seconds as u64);
    }
}

/// How a PDU is talked to, by the name of its secret.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    Communities { read: Secret, write: Secret },
    User(User),
}

/// `[secret.…]`: every secret stands in a file of its own.
pub(super) fn secrets(root: &Fields<'_>, base: &Path) -> BTreeMap<String, Credentials> {
    let Some(fields) = root.get("secret").and_then(|i| i.fields()) else { return BTreeMap::new() };
    let secret = |(name, _, item): (String, _, Item<'_>)| Some((name, credentials(&item, base)?));
    fields.entries().into_iter().filter_map(secret).collect()
}

fn credentials(item: &Item<'_>, base: &Path) -> Option<Credentials> {
    let fields = item.fields()?;
    let file = |key: &'static str, least: usize| {
        fields.get(key).and_then(|i| read_secret(&i, base, least))
    };
    let credentials = if let Some(user) = fields.get("user") {
        let name = user.text().filter(|name| !name.is_empty());
        let auth_protocol = fields
            .get("auth_protocol")
            .map_or(Some(AUTH_PROTOCOLS[3].1), |i| i.one_of(&AUTH_PROTOCOLS));
        let priv_protocol = fields
            .get("priv_protocol")
            .map_or(Some(PRIV_PROTOCOLS[2].1), |i| i.one_of(&PRIV_PROTOCOLS));
        // RFC 3414 section 11.2: at least eight characters.
        let auth = file("auth_password_file", 8);
        let privacy = file("priv_password_file", 8);
        if auth.is_none() && privacy.is_some() {
            item.fault("SNMPv3 has no privacy without authentication: add auth_password_file");
        }
        let context = fields.get("context").and_then(|i| i.text()).unwrap_or("").to_owned();
        Some(Credentials::User(User {
            name: name?.to_owned(),
            auth: auth_protocol.zip(auth),
            privacy: priv_protocol.zip(privacy),
            context,
        }))
    } else {
        let read = fields
            .need("community_file", "a file with the community for reading, or user for SNMPv3");
        let read = read.and_then(|i| read_secret(&i, base, 1));
        let write = file("write_community_file", 1).or_else(|| read.clone());
        read.zip(write).map(|(read, write)| Credentials::Communities { read, write })
    };
    fields.done();
    credentials
}

pub(super) fn read_secret(item: &Item<'_>, base: &Path, least: usize) -> Option<Secret> {
    let path = base.join(item.text()?);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            item.fault(format!("{}: {error}", path.display()));
            return None;
        }
    };
    let open = std::fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    if open {
        item.fault(format!(
            "{} can be read by others: run chmod 600 {}",
            path.display(),
            path.display()
        ));
    }
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.chars().count() < least {
        item.fault(format!(
            "the secret in {} is too short: at least {least} characters",
            path.display()
        ));
        return None;
    }
    Some(Secret::new(secret.to_owned()))
}

/// `[switching]`.
pub(super) fn switching(root: &Fields<'_>) -> Site {
    let mut site = Site::default();
    let Some(fields) = root.get("switching").and_then(|i| i.fields()) else { return site };
    let rack = &mut site.rack;
    set(&fields, "hold_s", 1..=3_600, &mut rack.hold);
    set(&fields, "fresh_s", 1..=3_600, &mut rack.fresh);
    let number = |key: &'static str, range, usual| {
        fields.get(key).and_then(|i| i.integer(range)).unwrap_or(usual)
    };
    let (derating, inrush) = super::limits::shares(&fields, rack.derating);
    rack.derating = derating.unwrap_or(rack.derating);
    rack.inrush = inrush;
    rack.volts = number("volts", 100..=480, rack.volts);
    if let Some(draw) = fields.get("default_draw") {
        rack.default_draw = super::limits::draw(&draw).unwrap_or(rack.default_draw);
    }
    if let Some(resume) =
        fields.get("after_restart").and_then(|i| i.one_of(&[("resume", true), ("stop", false)]))
    {
        rack.resume = resume;
    }
    fields.done();
    site
}

/// `[approval]`.
pub(super) fn approvals(root: &Fields<'_>, hosts: &BTreeMap<HostId, HostSpec>) -> Approvals {
    let Some(fields) = root.get("approval").and_then(|i| i.fields()) else {
        return Approvals::default();
    };
    let count = fields.get("approvers").and_then(|i| i.integer(1..=5)).unwrap_or(1) as u32;
    let from_outlets =
        fields.get("from_outlets").and_then(|i| i.integer(1..=10_000)).map(|n| n as usize);
    let actions = fields.get("actions").map_or(Vec::new(), |list| {
        list.list().iter().filter_map(|i| i.one_of(&Action::ALL)).collect()
    });
    let mut named = std::collections::BTreeSet::new();
    for item in fields.get("hosts").map_or(Vec::new(), |list| list.list()) {
        let Some(host) = item.parsed::<HostId>() else { continue };
        if !hosts.contains_key(&host) {
            item.fault(format!("there is no [[host]] with id \"{host}\""));
        }
        named.insert(host);
    }
    let over_locks = fields.get("over_locks").and_then(|i| i.flag()).unwrap_or(false);
    if from_outlets.is_none() && named.is_empty() && !over_locks {
        fields.fault("asks for approval of nothing: write from_outlets, hosts or over_locks");
    }
    fields.done();
    Approvals { count, from_outlets, actions, hosts: named, over_locks }
}

/// `[policy]`.
pub(super) fn policy(root: &Fields<'_>, devices: &[Settings], rack: &crate::plan::Site) -> Policy {
    let mut policy = Policy::default();
    let Some(fields) = root.get("policy").and_then(|i| i.fields()) else { return policy };
    if let Some(whole) =
        fields.get("default").and_then(|i| i.one_of(&[("role", true), ("none", false)]))
    {
        policy.whole_role_by_default = whole;
    }
    if let Some(list) = fields.get("grant") {
        policy.grants = list.list().iter().filter_map(|item| grant(item, devices, rack)).collect();
    }
    fields.done();
    policy
}

fn grant(item: &Item<'_>, devices: &[Settings], rack: &crate::plan::Site) -> Option<Grant> {
    let fields = item.fields()?;
    let name = fields.get("name").and_then(|i| i.text()).map(str::to_owned);
    let role = fields
        .need("role", "the role of the certificates that it is for")
        .and_then(|i| i.one_of(&Role::ALL));
    let reach = fields.need(
        "reach",
        "what may be switched: \"rack\", \"pdu-a\", \"pdu-a/7\", \"host:web-01\", \"group:web\"",
    );
    let reach =
        reach.map(|list| list.list().iter().flat_map(|i| reach_of(i, devices, rack)).collect());
    let actions = match fields.get("actions") {
        Some(list) => list.list().iter().filter_map(|i| i.one_of(&Action::ALL)).collect(),
        None => Action::ALL.iter().map(|(_, action)| *action).collect(),
    };
    fields.done();
    Some(Grant { name, role: role?, reach: reach?, actions })
}

/// A group reaches as far as what is in it.
fn reach_of(item: &Item<'_>, devices: &[Settings], rack: &crate::plan::Site) -> Vec<Reach> {
    let Some(name) = item.text().and_then(|text| text.strip_prefix("group:")) else {
        return one_reach(item, devices, rack).into_iter().collect();
    };
    let Ok(id) = name.parse::<GroupId>().map_err(|error| item.fault(error)) else {
        return Vec::new();
    };
    let Some(group) = rack.groups.get(&id) else {
        item.fault(format!("there is no [[group]] with id \"{id}\""));
        return Vec::new();
    };
    let outlets = group.outlets.iter().cloned().map(Reach::Outlet);
    group.hosts.iter().cloned().map(Reach::Host).chain(outlets).collect()
}

fn one_reach(item: &Item<'_>, devices: &[Settings], rack: &crate::plan::Site) -> Option<Reach> {
    let text = item.text()?;
    let known = |id: &crate::model::id::PduId| {
        let known = devices.iter().any(|device| device.id == *id);
        if !known {
            item.fault(format!("there is no [[pdu]] with id \"{id}\""));
        }
        known
    };
    if text == "rack" {
        return Some(Reach::Rack);
    }
    if let Some(host) = text.strip_prefix("host:") {
        let id: HostId = host.parse().map_err(|error| item.fault(error)).ok()?;
        if !rack.hosts.contains_key(&id) {
            item.fault(format!("there is no [[host]] with id \"{id}\""));
        }
        return Some(Reach::Host(id));
    }
    if text.contains('/') {
        let outlet: crate::model::id::OutletId = item.parsed()?;
        known(&outlet.pdu);
        return Some(Reach::Outlet(outlet));
    }
    let id = item.parsed()?;
    known(&id);
    Some(Reach::Pdu(id))
}
