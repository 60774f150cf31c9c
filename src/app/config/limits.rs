//! `[[limit]]`, and what a load draws.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::device::Settings;
use crate::model::document::{Fields, Item};
use crate::model::id::{OutletId, PduId};
use crate::plan::site::{Amperes, Feed, Member};
use crate::plan::world::Draw;

/// `draw = { steady_w = 300, boot_w = 400, boot_s = 60, inrush_w = 900, inrush_ms = 100 }`; what is left out is as the
/// phase after it.
pub(super) fn draw(item: &Item<'_>) -> Option<Draw> {
    let fields = item.fields()?;
    let watts =
        |key: &'static str| fields.get(key).and_then(|i| i.integer(0..=100_000)).map(|w| w * 1_000);
    let steady =
        fields.need("steady_w", "what it draws once it runs").and_then(|i| i.integer(0..=100_000));
    let (boot, inrush) = (watts("boot_w"), watts("inrush_w"));
    let boot_s = fields.get("boot_s").and_then(|i| i.integer(0..=3_600)).unwrap_or(60);
    let inrush_ms = fields.get("inrush_ms").and_then(|i| i.integer(0..=10_000)).unwrap_or(100);
    fields.done();
    let steady = steady? * 1_000;
    let boot = boot.unwrap_or(steady);
    let draw = Draw {
        inrush: inrush.unwrap_or(boot),
        inrush_ms: inrush_ms as u64,
        boot,
        boot_ms: boot_s as u64 * 1_000,
        steady,
    };
    Some(draw.falling())
}

/// How much of a rating may flow for long, percent: not more than all of it.
const DERATE: RangeInclusive<i64> = 1..=100;
/// How much of a rating may flow in a first moment, percent: at 20 times its rating every breaker trips at once (type D, IEC
/// 60898-1).
const INRUSH: RangeInclusive<i64> = 1..=2_000;

/// `derate_percent` and `inrush_percent`, as far as they are told: of a rating, and in the first moment no less than for long.
pub(super) fn shares(fields: &Fields<'_>, usual_derating: i64) -> (Option<i64>, Option<i64>) {
    let share = |key: &'static str, bounds| fields.get(key).and_then(|i| i.integer(bounds));
    let (derating, inrush) = (share("derate_percent", DERATE), share("inrush_percent", INRUSH));
    let long = derating.unwrap_or(usual_derating);
    if let (Some(item), Some(inrush)) = (fields.get("inrush_percent"), inrush)
        && inrush < long
    {
        item.fault(format!(
            "{inrush} is less than the {long} that may flow for long (derate_percent): write {long} or more, or leave it out"
        ));
    }
    (derating, inrush)
}

/// `[[limit]]`.
pub(super) fn feeds(
    root: &Fields<'_>,
    devices: &[Settings],
    usual: &crate::plan::Site,
) -> BTreeMap<String, Feed> {
    let mut feeds: BTreeMap<String, Feed> = BTreeMap::new();
    let Some(list) = root.get("limit") else { return feeds };
    // Where each stands in the file.
    let mut places: BTreeMap<String, Item<'_>> = BTreeMap::new();
    for item in list.list() {
        let Some((id, feed)) = feed(&item, devices, usual) else { continue };
        if feeds.contains_key(&id) {
            item.fault(format!("the id \"{id}\" is given twice"));
            continue;
        }
        feeds.insert(id.clone(), feed);
        places.insert(id, item);
    }
    for (id, feed) in &feeds {
        let fault = |key: &'static str, text: String| {
            let Some(item) = places.get(id) else { return };
            let at = item.fields().and_then(|fields| fields.get(key));
            at.as_ref().unwrap_or(item).fault(text);
        };
        for member in &feed.of {
            let Member::Feed(below) = member else { continue };
            if !feeds.contains_key(below) {
                fault("of", format!("there is no [[limit]] with id \"{below}\""));
            } else if stands_above(&feeds, below, id) {
                fault("of", format!("\"{id}\" stands above \"{below}\", which stands above it"));
            }
        }
        let is_round = feed
            .of
            .iter()
            .any(|of| matches!(of, Member::Feed(below) if stands_above(&feeds, below, id)));
        if let Some(text) = twice(&feeds, id).filter(|_| !is_round) {
            fault("of", text);
        }
        let Some(pair) = &feed.pair else { continue };
        if pair == id {
            fault("pair", "names itself: name the other limit, and write pair in both".to_owned());
            continue;
        }
        match feeds.get(pair) {
            None => fault("pair", format!("there is no [[limit]] with id \"{pair}\"")),
            Some(other) if other.pair.as_ref() != Some(id) => {
                let other = match &other.pair {
                    Some(other) => format!("which has \"{other}\""),
                    None => "which has none".to_owned(),
                };
                fault("pair", format!("names \"{pair}\", {other}: write pair in both"));
            }
            Some(_) => {}
        }
    }
    feeds
}

/// What flows over a limit twice as it is written, if anything does: by itself and within another, or within two.
fn twice(feeds: &BTreeMap<String, Feed>, id: &str) -> Option<String> {
    let pdu_of = |member: &Member| match member {
        Member::Pdu(pdu) | Member::Part(pdu, _) => Some(pdu.clone()),
        Member::Outlet(outlet) => Some(outlet.pdu.clone()),
        Member::Feed(_) => None,
    };
    // What is below it, each with the limit that names it. What one names twice is told there.
    let mut below: Vec<(&Member, &str)> = Vec::new();
    let (mut open, mut seen) = (vec![id], std::collections::BTreeSet::new());
    while let Some(of) = open.pop() {
        // A limit that is come to twice counts once.
        if !seen.insert(of) {
            continue;
        }
        let Some((name, feed)) = feeds.get_key_value(of) else { continue };
        for member in &feed.of {
            if let Member::Feed(next) = member {
                open.push(next);
                continue;
            }
            let is_same = |other: &Member| {
                let whole = matches!(member, Member::Pdu(_)) || matches!(other, Member::Pdu(_));
                other == member || whole && pdu_of(other) == pdu_of(member)
            };
            if let Some((other, by)) = below.iter().find(|(other, by)| by != name && is_same(other))
            {
                return Some(format!(
                    "counts {member} of \"{name}\" and {other} of \"{by}\", so that some of it counts twice: name it once"
                ));
            }
            below.push((member, name));
        }
    }
    None
}

/// Whether one limit stands above another, over others or by itself.
fn stands_above(feeds: &BTreeMap<String, Feed>, above: &str, below: &str) -> bool {
    let (mut open, mut seen) = (vec![above], std::collections::BTreeSet::new());
    while let Some(id) = open.pop() {
        if id == below {
            return true;
        }
        if seen.insert(id) {
            let members = feeds.get(id).map_or(&[][..], |feed| &feed.of);
            open.extend(members.iter().filter_map(|member| match member {
                Member::Feed(id) => Some(id.as_str()),
                _ => None,
            }));
        }
    }
    false
}

fn feed(
    item: &Item<'_>,
    devices: &[Settings],
    usual: &crate::plan::Site,
) -> Option<(String, Feed)> {
    let fields = item.fields()?;
    let id = fields.need("id", "its name, as in \"feed-a\"").and_then(|i| i.text());
    let kind = fields.get("kind").and_then(|i| i.text()).unwrap_or("feed").to_owned();
    let number = |key: &'static str, most| fields.get(key).and_then(|i| i.integer(1..=most));
    let (watts, amperes) = (number("rating_w", 100_000_000), number("rating_a", 100_000));
    let phases = fields.get("phases").and_then(|item| {
        if item.is_text() {
            return item.one_of(&[("1", 1), ("3", 3)]);
        }
        let phases = item.integer(1..=3)?;
        if phases == 2 {
            item.fault("is 1 or 3: two lines of three are one phase at the volts between them");
        }
        Some(phases)
    });
    let phases = phases.unwrap_or(1);
    let volts = number("volts", 1_000).unwrap_or(usual.volts);
    let of_amperes = |milliamperes| Amperes { milliamperes, millivolts: volts * 1_000, phases };
    let amperes = amperes.map(|amperes| of_amperes(amperes * 1_000));
    let rating = match (watts, amperes) {
        (Some(watts), None) => Some(watts * 1_000),
        (None, Some(of)) => Some(of.milliamperes * of.millivolts / 1_000 * of.phases),
        (Some(_), Some(_)) => {
            fields.fault("is rated twice: write rating_w, or rating_a with volts and phases");
            None
        }
        (None, None) => {
            fields.fault("needs rating_w (watts, volt-amperes), or rating_a with volts (to neutral) and phases");
            None
        }
    };
    let (derating, inrush) = shares(&fields, usual.derating);
    let of = fields.need(
        "of",
        "what it stands above, as in [\"pdu-a\", \"pdu-b/B1\", \"pdu-c/7\", \"limit:busway-1\"]",
    );
    let of: Vec<(Member, Option<usize>)> = of.map_or(Vec::new(), |list| {
        list.list().iter().filter_map(|item| member(item, devices, phases)).collect()
    });
    if of.is_empty() {
        fields.fault("of names nothing: a limit above nothing limits nothing");
    }
    for (at, (member, _)) in of.iter().enumerate() {
        let twice = of[..at].iter().any(|(other, _)| other == member);
        let within = of.iter().any(|(other, _)| match (other, member) {
            (Member::Pdu(pdu), Member::Part(of, _)) => pdu == of,
            (Member::Pdu(pdu), Member::Outlet(of)) => *pdu == of.pdu,
            _ => false,
        });
        if twice || within {
            fields.fault(format!("of counts {member} twice: name it once, or its PDU as a whole"));
        }
    }
    let part = |id: &str| {
        id.split_once('/').is_some_and(|(pdu, _)| devices.iter().any(|of| of.id.as_str() == pdu))
    };
    if let Some(id) = id.filter(|id| part(id)) {
        fields.fault(format!("the id \"{id}\" is that of a part of a PDU: give it another"));
    }
    let own_name = id.filter(|id| phases == 3 && devices.iter().any(|of| of.id.as_str() == *id));
    if let Some(id) = own_name {
        fields.fault(format!(
            "its phases would be called \"{id}/L1\" as those of the [[pdu]]: give it another id"
        ));
    }
    // Of three phases each is held by itself, also where watts of all together are given.
    let each =
        watts.filter(|_| phases == 3).map(|watts| of_amperes(watts * 1_000 / phases / volts));
    let amperes = amperes.or(each);
    let pair = fields.get("pair").and_then(|i| i.text()).map(str::to_owned);
    fields.done();
    let lines = of.iter().filter_map(|(member, line)| match (member, line) {
        (Member::Pdu(pdu), Some(line)) => Some((pdu.clone(), *line)),
        _ => None,
    });
    let lines = lines.collect();
    let of = of.into_iter().map(|(member, _)| member).collect();
    let feed = Feed { kind, rating: rating?, amperes, derating, inrush, of, lines, pair };
    Some((id?.to_owned(), feed))
}

/// What a limit stands above; of a PDU of one phase perhaps with the phase of the limit that it is on: `pdu-a@L2`.
fn member(item: &Item<'_>, devices: &[Settings], phases: i64) -> Option<(Member, Option<usize>)> {
    let text = item.text()?;
    let Some((pdu, line)) = text.split_once('@') else {
        return Some((member_of(item, text, devices)?, None));
    };
    let line = ["L1", "L2", "L3"].iter().position(|name| *name == line);
    let member = member_of(item, pdu, devices)?;
    if phases != 3 || line.is_none() || !matches!(member, Member::Pdu(_)) {
        item.fault("a phase is written as in \"pdu-a@L2\": of a PDU of one phase, on a limit with phases = 3");
        return None;
    }
    Some((member, line))
}

fn member_of(item: &Item<'_>, text: &str, devices: &[Settings]) -> Option<Member> {
    if let Some(feed) = text.strip_prefix("limit:") {
        return Some(Member::Feed(feed.to_owned()));
    }
    let (pdu, part) = text.split_once('/').map_or((text, None), |(pdu, part)| (pdu, Some(part)));
    let Some(known) = devices.iter().find(|device| device.id.as_str() == pdu) else {
        item.fault(format!("there is no [[pdu]] with id \"{pdu}\""));
        return None;
    };
    let pdu: PduId = known.id.clone();
    Some(match part {
        None => Member::Pdu(pdu),
        Some(part) => match part.parse() {
            Ok(number) => Member::Outlet(OutletId { pdu, number }),
            Err(_) => Member::Part(pdu, part.to_owned()),
        },
    })
}
