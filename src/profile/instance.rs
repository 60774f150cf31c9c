//! An adopted device: its parts, and for each reading where it is read and how it is decoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::id::DriverId;
use crate::model::metric::{Metric, Scope};
use crate::model::reading::{Datum, Gap};
use crate::model::switching::Relay;
use crate::model::topology::{Identity, Layout};

use super::decode::{Decode, decode, vouches};
use super::format::{Check, Every, Profile, Shape, Speech, Verb};
use super::rows::Row;
use super::sweep::{Answer, Item, ReadSet, Wanted};

/// Where one reading comes from.
#[derive(Debug, Clone)]
pub struct Reader {
    /// What is asked.
    pub item: Item,
    /// How the answer is decoded.
    pub decode: Decode,
    /// How often.
    pub every: Every,
    /// Whether the device itself trusts the value: looked at with every slow poll.
    pub valid: Option<(Item, Check, Option<Shape>)>,
    /// Table, metric and place in it, if neighbours can be read in bulk.
    pub column: Option<(usize, Metric, u16)>,
}

/// An adopted device.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its driver.
    pub driver: DriverId,
    /// Who it says it is.
    pub identity: Arc<Identity>,
    /// The units of a chain that its agent speaks for, whether they are all read or one of them.
    pub units: Vec<String>,
    /// Its parts and slots.
    pub layout: Arc<Layout>,
    readers: Vec<Reader>,
    outlets: Vec<Option<Row>>,
    verbs: Verbs,
    sums: Sums,
    fast: Tier,
    slow: Tier,
}

/// The slots that one kind of poll reads.
#[derive(Debug, Clone)]
pub struct Tier {
    /// What is asked.
    pub set: ReadSet,
    /// Slots with the place of their answer.
    slots: Vec<(usize, usize)>,
    /// Slots with the place of the answer that tells whether they may be trusted.
    trust: Vec<(usize, usize)>,
}

/// Slots that are the sum of others.
pub(super) type Sums = Vec<(usize, Vec<usize>)>;

/// The sum of readings; with a gap in it, it is that gap.
pub(super) fn added(mut data: impl Iterator<Item = Datum>) -> Datum {
    let sum = data.try_fold(0_i64, |sum, datum| match datum {
        Datum::Value(value) => sum.checked_add(value).ok_or(Gap::Implausible),
        Datum::Gap(gap) => Err(gap),
        Datum::Word(_) => Err(Gap::Malformed),
    });
    sum.map_or_else(Datum::Gap, Datum::Value)
}

/// On and off, as this device takes them.
pub(super) type Verbs = (Option<Verb>, Option<Verb>);

/// What the device said last about which of its sensors may be trusted, slot by slot.
pub type Trust = Vec<bool>;

impl Instance {
    pub(super) fn new(
        profile: &Profile,
        identity: Arc<Identity>,
        units: Vec<String>,
        layout: Arc<Layout>,
        readers: Vec<Reader>,
        (outlets, verbs): (Vec<Option<Row>>, Verbs),
    ) -> Self {
        let fast = Tier::new(&profile.speech, &readers, |r| r.every.is_due(false), false);
        let slow = Tier::new(&profile.speech, &readers, |r| r.every.is_due(true), true);
        let driver = profile.id.clone();
        let sums = Sums::new();
        Self { driver, identity, units, layout, readers, outlets, verbs, sums, fast, slow }
    }

    /// With slots that are the sum of others.
    pub(super) fn with_sums(self, sums: Sums) -> Self {
        Self { sums, ..self }
    }

    /// The set of a fast poll, or of a slow one, which reads everything that changes.
    pub fn tier(&self, slow: bool) -> &Tier {
        if slow { &self.slow } else { &self.fast }
    }

    /// A tier with the state of one outlet, or with everything of it that changes.
    pub fn look(&self, speech: &Speech, outlet: u16, everything: bool) -> Tier {
        let seen = |metric: Metric| everything || matches!(metric, Metric::State | Metric::Pending);
        let slots = self.layout.slots_of(Scope::Outlet, outlet);
        let wanted: Vec<usize> = slots
            .filter(|(slot, metric)| seen(*metric) && self.readers[*slot].every != Every::Once)
            .map(|(slot, _)| slot)
            .collect();
        Tier::of(speech, &self.readers, &wanted, false)
    }

    /// How this device carries out a relay action.
    pub fn verb(&self, relay: Relay) -> Option<&Verb> {
        match relay {
            Relay::On => self.verbs.0.as_ref(),
            Relay::Off => self.verbs.1.as_ref(),
        }
    }

    /// What the first reading of everything says about the device's sensors.
    pub fn trust_after(&self, data: &[Datum]) -> Trust {
        data.iter().map(|datum| *datum != Datum::Gap(Gap::Unavailable)).collect()
    }

    /// The readings of a tier: slot and what was read there.
    pub fn decode(
        &self,
        tier: &Tier,
        answers: &[Answer],
        trust: &mut Trust,
    ) -> Vec<(usize, Datum)> {
        for (slot, at) in &tier.trust {
            if let (Some((_, check, shape)), Some(answer)) =
                (&self.readers[*slot].valid, answers.get(*at))
            {
                trust[*slot] = vouches(check, answer, *shape);
            }
        }
        let datum = |slot: usize, at: usize| {
            let unread = Err(Gap::NotRead);
            let datum = decode(&self.readers[slot].decode, answers.get(at).unwrap_or(&unread));
            if trust[slot] || !datum.is_good() { datum } else { Datum::Gap(Gap::Unavailable) }
        };
        let mut data: Vec<(usize, Datum)> =
            tier.slots.iter().map(|(slot, at)| (*slot, datum(*slot, *at))).collect();
        for (whole, parts) in &self.sums {
            let of = |slot: &usize| data.iter().find(|(at, _)| at == slot).map(|(_, datum)| *datum);
            let parts: Option<Vec<Datum>> = parts.iter().map(of).collect();
            if let (Some(parts), Some((_, datum))) =
                (parts, data.iter_mut().find(|(slot, _)| slot == whole))
            {
                *datum = added(parts.into_iter());
            }
        }
        data
    }

    /// The row of an outlet, by its place.
    pub fn outlet_row(&self, outlet: u16) -> Option<&Row> {
        self.outlets.get(usize::from(outlet))?.as_ref()
    }

    /// Where a slot is read.
    pub fn reader(&self, slot: usize) -> &Reader {
        &self.readers[slot]
    }
}

impl Tier {
    fn new(
        speech: &Speech,
        readers: &[Reader],
        due: impl Fn(&Reader) -> bool,
        trust: bool,
    ) -> Self {
        let wanted: Vec<usize> = (0..readers.len()).filter(|at| due(&readers[*at])).collect();
        Self::of(speech, readers, &wanted, trust)
    }

    fn of(speech: &Speech, readers: &[Reader], wanted: &[usize], with_trust: bool) -> Self {
        let columns = columns(readers, wanted);
        let mut items: Vec<Wanted> = Vec::new();
        let mut places: BTreeMap<Item, usize> = BTreeMap::new();
        let mut place = |item: &Item, cell| {
            *places.entry(item.clone()).or_insert_with(|| {
                items.push(Wanted { cell, ..Wanted::single(item.clone()) });
                items.len() - 1
            })
        };
        let slots = wanted
            .iter()
            .map(|slot| (*slot, place(&readers[*slot].item, columns.get(slot).copied())));
        let slots: Vec<(usize, usize)> = slots.collect();
        let trusted = wanted.iter().filter(|_| with_trust).filter_map(|slot| {
            let (item, ..) = readers[*slot].valid.as_ref()?;
            Some((*slot, place(item, None)))
        });
        let trust = trusted.collect();
        Self { set: ReadSet::new(speech, items), slots, trust }
    }
}

/// Columns that are complete among the wanted slots: (column, row) by slot.
fn columns(readers: &[Reader], wanted: &[usize]) -> BTreeMap<usize, (u32, u32)> {
    let mut grouped: BTreeMap<(usize, Metric), Vec<(u16, usize)>> = BTreeMap::new();
    for slot in wanted {
        if let Some((table, metric, place)) = readers[*slot].column {
            grouped.entry((table, metric)).or_default().push((place, *slot));
        }
    }
    let mut cells = BTreeMap::new();
    let mut keys: Vec<_> = grouped.keys().copied().collect();
    keys.sort_unstable();
    for (column, key) in (0u32..).zip(keys) {
        let Some(mut rows) = grouped.remove(&key) else { continue };
        rows.sort_unstable();
        // A row that lacks this reading breaks the column: what is left is asked for exactly.
        if rows.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0) {
            for (place, slot) in rows {
                cells.insert(slot, (column, u32::from(place)));
            }
        }
    }
    cells
}
