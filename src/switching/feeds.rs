//! Hosts with several feeds, in what is looked up of the past: which of them are dark, and what they drew by all their feeds
//! when they were on last.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::OutletId;
use crate::model::metric::Word;
use crate::model::time::{Span, Stamp};
use crate::model::view::PduView;
use crate::plan::Sight;
use crate::plan::alone::together;
use crate::plan::picture::drawn_as;

/// Feeds that went off within so long did so together.
const TOGETHER: Span = Span::seconds(600);

/// When an outlet was on last, and what it drew then, mVA; nothing if it was not metered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub on: Stamp,
    pub load: Option<i64>,
}

/// Outlets with the other feeds of their hosts.
pub(super) fn feeds_beside(of: &BTreeSet<OutletId>, sight: &Sight<'_>) -> BTreeSet<OutletId> {
    let hosts = of.iter().filter_map(|outlet| sight.site.host_of(outlet));
    hosts.flat_map(|(_, host)| &host.outlets).chain(of).cloned().collect()
}

/// An outlet's PDU as it was seen last, and its place there.
fn seen<'s>(outlet: &OutletId, sight: &'s Sight<'_>) -> Option<(&'s PduView, u16)> {
    let view = sight.view(&outlet.pdu)?;
    Some((view, view.layout.outlet(outlet.number)?))
}

/// The feeds of the hosts with several of which these are some, where all of them are off.
pub(super) fn dark_hosts(of: &BTreeSet<OutletId>, sight: &Sight<'_>) -> BTreeSet<Vec<OutletId>> {
    let is_off = |outlet: &OutletId| {
        seen(outlet, sight).is_some_and(|(view, at)| view.outlet_state(at) == Ok(Word::Off))
    };
    let hosts = of.iter().filter_map(|outlet| sight.site.host_of(outlet));
    let feeds = hosts.map(|(_, host)| &host.outlets).filter(|feeds| feeds.len() > 1);
    feeds.filter(|feeds| feeds.iter().all(is_off)).cloned().collect()
}

/// How many feeds have no meter: of those nothing is in the store.
pub(super) fn unmetered(feeds: &[OutletId], sight: &Sight<'_>) -> usize {
    let is_unmetered = |outlet: &&OutletId| {
        let place = seen(outlet, sight);
        place.is_some_and(|(view, at)| drawn_as(view, sight.site, at, outlet).is_none())
    };
    feeds.iter().filter(is_unmetered).count()
}

/// What the feeds of a host drew together when they were on last. One that had been off for longer had left it to the others.
pub(super) fn drew_together(
    feeds: &[OutletId],
    found: &BTreeMap<OutletId, Last>,
    unmetered: usize,
) -> Option<i64> {
    let found = || feeds.iter().filter_map(|feed| found.get(feed));
    let last = found().map(|last| last.on).max()?;
    let known = found().filter(|of| last.since(of.on) < TOGETHER).map(|of| of.load);
    together(known.chain(std::iter::repeat_n(None, unmetered)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_drew_is_what_those_of_its_feeds_did_that_were_on_last() {
        let outlet = |text: &str| -> OutletId { text.parse().unwrap() };
        let feeds = vec![outlet("pdu-a/1"), outlet("pdu-b/1")];
        let last = |second: i64, load| Last { on: Stamp(second * 1_000), load };
        let together =
            |a, b| drew_together(&feeds, &[(feeds[0].clone(), a), (feeds[1].clone(), b)].into(), 0);
        // The second a moment after the first: its hour is mostly one of both.
        assert_eq!(together(last(9_000, Some(150)), last(9_030, Some(160))), Some(310));
        // The first was off for long, and the second carried all.
        assert_eq!(together(last(1_000, Some(150)), last(9_030, Some(310))), Some(310));
        // One without a meter drew as much, for all that is known.
        assert_eq!(together(last(9_000, None), last(9_030, Some(160))), Some(320));
        assert_eq!(together(last(9_000, None), last(9_030, None)), None);
        let one = [(feeds[0].clone(), last(9_000, Some(150)))].into();
        assert_eq!(drew_together(&feeds, &one, 0), Some(150));
        assert_eq!(drew_together(&feeds, &one, 1), Some(300));
        assert_eq!(drew_together(&feeds, &BTreeMap::new(), 1), None);
    }
}
