//! Which driver a device needs: exactly one, or a clear word on why none or several.

use std::collections::BTreeMap;

use crate::model::ask::Value;
use crate::model::id::DriverId;
use crate::model::oid::Oid;
use crate::model::reading::Gap;

use super::adopt::shape;
use super::decode::holds;
use super::format::{Check, Profile, Test};
use super::rows::{item_at, unit_row};
use super::sweep::{Answer, Item, Raw, ReadSet, Wanted};

/// sysObjectID (SNMPv2-MIB).
pub(super) const SYS_OBJECT_ID: &str = "1.3.6.1.2.1.1.2.0";
/// An OID with so many arcs names a vendor and no product: 1.3.6.1.4.1.N.
pub(super) const ENTERPRISE_ARCS: usize = 7;
/// The agent whose sysObjectID tells nothing of a device: Linux boxes of all kinds answer with it.
const NET_SNMP: &str = "1.3.6.1.4.1.8072";
/// Drivers that are told to have come near.
const MOST_NEAR: usize = 4;

/// The outcome of a detection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undetected {
    /// No driver's rules hold.
    #[error(
        "no driver knows this device ({seen}){}; name one with driver = \"…\" if you are sure, or write one: drivers/README.md",
        missed(.near)
    )]
    None {
        /// What the device said of itself.
        seen: String,
        /// Which drivers came near, and what was missing.
        near: Vec<String>,
    },
    /// Nothing is shown, not even sysObjectID, which every agent has (RFC 3418): the view of these credentials
    /// excludes it, or there is none (RFC 3415).
    #[error(
        "the device refuses to tell these credentials what it is; let them read 1.3.6.1.2.1.1 and 1.3.6.1.4.1 in its access settings"
    )]
    Refused,
    /// Several drivers fit equally well.
    #[error("several drivers fit this device equally well: {}; name one with driver = \"…\"", .0.join(", "))]
    Several(Vec<String>),
}

/// A detection among some profiles that speak the same protocol.
pub struct Detection<'p> {
    profiles: Vec<&'p Profile>,
    items: Vec<Item>,
}

impl<'p> Detection<'p> {
    /// Among these profiles.
    pub fn among(profiles: Vec<&'p Profile>) -> Self {
        let mut items = Vec::new();
        for profile in &profiles {
            let row = unit_row(profile, None);
            for test in profile.detect.iter().flatten() {
                items.extend(item_at(&test.source, &row).filter(|item| !items.contains(item)));
            }
        }
        Self { profiles, items }
    }

    /// What to read: nothing if there are no profiles.
    pub fn set(&self) -> Option<ReadSet> {
        let speech = &self.profiles.first()?.speech;
        Some(ReadSet::new(speech, self.items.iter().cloned().map(Wanted::single).collect()))
    }

    /// The one driver whose rules all hold; of several the one with the most rules.
    pub fn verdict(
        &self,
        answers: &[Answer],
        seen: impl FnOnce() -> String,
    ) -> Result<DriverId, Undetected> {
        let by_item: BTreeMap<&Item, &Answer> = self.items.iter().zip(answers).collect();
        let mut fitting: Vec<&Profile> =
            self.profiles.iter().copied().filter(|profile| fits(profile, &by_item)).collect();
        let most = fitting.iter().map(|profile| profile.detect.len()).max();
        fitting.retain(|profile| Some(profile.detect.len()) == most);
        // A Modbus device has no credentials to refuse: what is not there is just not there.
        let snmp = self.profiles.first().is_some_and(|profile| profile.speech.is_snmp());
        match fitting.as_slice() {
            [] if snmp && !answers.is_empty() && answers.iter().all(refused) => {
                Err(Undetected::Refused)
            }
            [] => {
                let near = self.profiles.iter().filter_map(|profile| missing(profile, &by_item));
                let mut near: Vec<(usize, String)> = near.collect();
                near.sort();
                near.truncate(MOST_NEAR);
                let near = near.into_iter().map(|(_, text)| text).collect();
                Err(Undetected::None { seen: seen(), near })
            }
            [one] => Ok(one.id.clone()),
            several => Err(Undetected::Several(several.iter().map(|p| p.id.to_string()).collect())),
        }
    }
}

fn refused(answer: &Answer) -> bool {
    matches!(answer, Err(Gap::DeviceError | Gap::Missing))
}

fn fits(profile: &Profile, answers: &BTreeMap<&Item, &Answer>) -> bool {
    !profile.detect.is_empty()
        && profile.detect.iter().all(|rule| rule_holds(profile, rule, answers))
}

fn rule_holds(profile: &Profile, rule: &[Test], answers: &BTreeMap<&Item, &Answer>) -> bool {
    rule.iter().any(|test| test_holds(profile, test, answers))
}

fn test_holds(profile: &Profile, test: &Test, answers: &BTreeMap<&Item, &Answer>) -> bool {
    let row = unit_row(profile, None);
    let answer = item_at(&test.source, &row).and_then(|item| answers.get(&item).copied());
    answer.is_some_and(|answer| holds(&test.check, answer, shape(&test.source, &row)))
}

fn missed(near: &[String]) -> String {
    near.iter().map(|text| format!("; {text}")).collect()
}

/// What a device lacks whose sysObjectID is one of a family's: of the family, and not merely of its vendor.
fn missing(profile: &Profile, answers: &BTreeMap<&Item, &Answer>) -> Option<(usize, String)> {
    let object_id: Item = Item::Oid(SYS_OBJECT_ID.parse().ok()?);
    let generic: Oid = NET_SNMP.parse().ok()?;
    let row = unit_row(profile, None);
    let Ok(Raw::Value(Value::Oid(seen))) = answers.get(&object_id)? else { return None };
    let of_family = |test: &Test| match &test.check {
        Check::Under(bases) if item_at(&test.source, &row).as_ref() == Some(&object_id) => {
            bases.iter().filter(|base| !base.is_under(&generic)).any(|base| {
                seen == base || (base.parts().len() > ENTERPRISE_ARCS && seen.is_under(base))
            })
        }
        _ => false,
    };
    profile.detect.iter().flatten().any(of_family).then_some(())?;
    let failing = profile.detect.iter().filter(|rule| !rule_holds(profile, rule, answers));
    let failing: Vec<&Vec<Test>> = failing.collect();
    let why = lacks(failing.first()?, &row)?;
    let (title, id) = (&profile.title, &profile.id);
    Some((failing.len(), format!("its sysObjectID is one of {title} (driver {id}), but {why}")))
}

/// What is wrong with a rule that does not hold.
fn lacks(rule: &[Test], row: &super::rows::Row) -> Option<String> {
    let oid = |test: &Test| match item_at(&test.source, row) {
        Some(Item::Oid(oid)) => Some(oid.to_string()),
        _ => None,
    };
    let wanted = rule.iter().filter(|test| test.check == Check::Exists).filter_map(oid);
    let wanted: Vec<String> = wanted.collect();
    Some(match wanted.as_slice() {
        [] => {
            let test = rule.first()?;
            let what = if test.check == Check::Lacks { "is there" } else { "says something else" };
            format!("object {} {what}", oid(test)?)
        }
        [one] => format!("object {one} is not there, or not shown to these credentials"),
        [one, others @ ..] => format!(
            "neither object {one} nor {} like it is there, or they are not shown to these credentials",
            others.len()
        ),
    })
}
