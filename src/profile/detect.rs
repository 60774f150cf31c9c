//! Which driver a device needs: exactly one, or a clear word on why none or several.

use std::collections::BTreeMap;

use crate::model::id::DriverId;
use crate::model::reading::Gap;

use super::adopt::shape;
use super::decode::holds;
use super::format::Profile;
use super::rows::{item_at, unit_row};
use super::sweep::{Answer, Item, ReadSet, Wanted};

/// The outcome of a detection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undetected {
    /// No driver's rules hold.
    #[error(
        "no driver knows this device ({seen}); name one with driver = \"…\" if you are sure, or write one: drivers/README.md"
    )]
    None {
        /// What the device said of itself.
        seen: String,
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
            for test in &profile.detect {
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
            [] => Err(Undetected::None { seen: seen() }),
            [one] => Ok(one.id.clone()),
            several => Err(Undetected::Several(several.iter().map(|p| p.id.to_string()).collect())),
        }
    }
}

fn refused(answer: &Answer) -> bool {
    matches!(answer, Err(Gap::DeviceError | Gap::Missing))
}

fn fits(profile: &Profile, answers: &BTreeMap<&Item, &Answer>) -> bool {
    let row = unit_row(profile, None);
    !profile.detect.is_empty()
        && profile.detect.iter().all(|test| {
            let answer = item_at(&test.source, &row).and_then(|item| answers.get(&item).copied());
            answer.is_some_and(|answer| holds(&test.check, answer, shape(&test.source, &row)))
        })
}
