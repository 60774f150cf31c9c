//! `[[limit]]`, and what a load draws.

use std::collections::BTreeMap;

use crate::device::Settings;
use crate::model::document::{Fields, Item};
use crate::model::id::{OutletId, PduId};
use crate::plan::world::Draw;
use crate::switching::{Feed, Member};

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

/// `[[limit]]`.
pub(super) fn feeds(root: &Fields<'_>, devices: &[Settings]) -> BTreeMap<String, Feed> {
    let mut feeds: BTreeMap<String, Feed> = BTreeMap::new();
    let Some(list) = root.get("limit") else { return feeds };
    for item in list.list() {
        let Some((id, feed)) = feed(&item, devices) else { continue };
        if feeds.insert(id.clone(), feed).is_some() {
            item.fault(format!("the id \"{id}\" is given twice"));
        }
    }
    for (id, feed) in &feeds {
        let Some(pair) = &feed.pair else { continue };
        match feeds.get(pair) {
            None => {
                list.fault(format!(
                    "pair names \"{pair}\", and there is no [[limit]] with that id"
                ));
            }
            Some(other) if other.pair.as_ref() != Some(id) => {
                list.fault(format!(
                    "\"{id}\" has the pair \"{pair}\", which has another: write pair in both"
                ));
            }
            Some(_) => {}
        }
    }
    feeds
}

fn feed(item: &Item<'_>, devices: &[Settings]) -> Option<(String, Feed)> {
    let fields = item.fields()?;
    let id = fields.need("id", "its name, as in \"feed-a\"").and_then(|i| i.text());
    let rating = fields
        .need("rating_w", "what it is rated for, in watts (volt-amperes)")
        .and_then(|i| i.integer(1..=100_000_000));
    let derating = fields.get("derate_percent").and_then(|i| i.integer(1..=100));
    let of =
        fields.need("of", "what it stands above, as in [\"pdu-a\", \"pdu-b/B1\", \"pdu-c/7\"]");
    let of: Vec<Member> = of.map_or(Vec::new(), |list| {
        list.list().iter().filter_map(|item| member(item, devices)).collect()
    });
    if of.is_empty() {
        fields.fault("of names nothing: a limit above nothing limits nothing");
    }
    let pair = fields.get("pair").and_then(|i| i.text()).map(str::to_owned);
    fields.done();
    Some((id?.to_owned(), Feed { rating: rating? * 1_000, derating, of, pair }))
}

fn member(item: &Item<'_>, devices: &[Settings]) -> Option<Member> {
    let text = item.text()?;
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
