//! From an action to the writes that carry it out, for one outlet of an adopted device.

use crate::model::ask::{Ask, Registers, Value, Whole};
use crate::model::oid::Oid;
use crate::model::switching::Relay;

use super::format::{Profile, Source, Write, WriteValue};
use super::instance::Instance;
use super::rows::{Row, item_at};
use super::sweep::Item;

/// Why an outlet cannot be switched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The driver has no verbs, or the device does not let this outlet be switched.
    #[error("driver {0} cannot switch this outlet")]
    NotSwitchable(String),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// As it is.
    Ask(Ask),
    /// An item of a text that lists all outlets: to be read, changed in one place and written.
    List(List),
}

/// A text with the states of all outlets, of which one is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Where the text is.
    pub text: Oid,
    /// Place of the outlet's item, from 0.
    place: usize,
    /// What it is to become.
    value: i64,
    /// What may be written back: the values of the verbs, and what stands for outlets that are not there.
    known: Vec<i64>,
}

impl List {
    /// The text with the item changed, or why it cannot be written. What the others are must be known and be
    /// something that can be commanded, as it is written with the same stroke.
    pub fn changed(&self, text: &str) -> Result<String, String> {
        let mut items = Vec::new();
        for (place, item) in text.trim().split(',').enumerate() {
            let known = item.trim().parse().ok().filter(|number| self.known.contains(number));
            let Some(number) = known else {
                return Err(format!(
                    "its list of outlets says \"{}\" for outlet {}, which cannot be written back",
                    item.trim().escape_debug(),
                    place + 1
                ));
            };
            items.push(if place == self.place { self.value } else { number });
        }
        if self.place >= items.len() {
            return Err(format!("its list of outlets ends at outlet {}", items.len()));
        }
        Ok(items.iter().map(i64::to_string).collect::<Vec<_>>().join(","))
    }

    /// The write of a text.
    pub fn ask(&self, text: &str) -> Ask {
        Ask::Set(vec![(self.text.clone(), Value::Bytes(text.as_bytes().into()))])
    }
}

/// The writes, in order, for an outlet by its place.
pub fn writes(
    profile: &Profile,
    instance: &Instance,
    outlet: u16,
    relay: Relay,
) -> Result<Vec<Command>, ControlError> {
    let refuse = || ControlError::NotSwitchable(instance.driver.to_string());
    let row = instance.outlet_row(outlet).ok_or_else(refuse)?;
    let verb = instance.verb(relay).ok_or_else(refuse)?;
    let command = |write| command(profile, write, row).ok_or_else(refuse);
    verb.writes.iter().map(command).collect()
}

fn command(profile: &Profile, write: &Write, row: &Row) -> Option<Command> {
    let ask = match (item_at(&write.target, row)?, &write.value) {
        (Item::Oid(text), WriteValue::Item(value)) => {
            let place = usize::from(row.place);
            let known = [commandable(profile), absent(profile)].concat();
            return Some(Command::List(List { text, place, value: *value, known }));
        }
        (Item::Oid(oid), WriteValue::Number(number)) => {
            Ask::Set(vec![(oid, Value::Integer(*number))])
        }
        (Item::Oid(oid), WriteValue::Gauge(number)) => {
            Ask::Set(vec![(oid, Value::Unsigned(u64::from(*number), Whole::Gauge))])
        }
        (Item::Oid(oid), WriteValue::Text(text)) => {
            Ask::Set(vec![(oid, Value::Bytes(text.as_bytes().into()))])
        }
        (Item::Register { table: Registers::Coil, address, .. }, WriteValue::Number(number)) => {
            Ask::WriteCoil { address, on: *number != 0 }
        }
        (Item::Register { table: Registers::Holding, address, .. }, WriteValue::Number(number)) => {
            Ask::WriteRegisters { address, words: vec![u16::try_from(*number).ok()?] }
        }
        _ => return None,
    };
    Some(Command::Ask(ask))
}

/// What the verbs write into lists.
fn commandable(profile: &Profile) -> Vec<i64> {
    let writes = profile.on.iter().chain(&profile.off).flat_map(|verb| &verb.writes);
    let value = |write: &Write| match write.value {
        WriteValue::Item(value) => Some(value),
        WriteValue::Number(_) | WriteValue::Gauge(_) | WriteValue::Text(_) => None,
    };
    writes.filter_map(value).collect()
}

fn absent(profile: &Profile) -> Vec<i64> {
    match &profile.speech {
        super::format::Speech::Snmp(manners) => manners.absent.clone(),
        super::format::Speech::Modbus(_) => Vec::new(),
    }
}

/// Whether a write goes where the driver may write at all: a source of the driver's own.
pub fn targets(profile: &Profile) -> impl Iterator<Item = &Source> {
    profile.on.iter().chain(&profile.off).flat_map(|verb| &verb.writes).map(|write| &write.target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_of_a_list_changes_and_what_cannot_be_said_back_is_refused() {
        let list = |place| List {
            text: "1.3.6.1.4.1.5.0".parse().unwrap(),
            place,
            value: 0,
            known: vec![1, 0, -1],
        };
        assert_eq!(list(1).changed("1,1,0,-1").unwrap(), "1,0,0,-1");
        assert_eq!(list(0).changed(" 1, 1 ").unwrap(), "0,1");
        assert!(list(0).changed("1,-2").unwrap_err().contains("\"-2\" for outlet 2"));
        assert!(list(2).changed("1,1").unwrap_err().contains("ends at outlet 2"));
        assert!(list(0).changed("").unwrap_err().contains("outlet 1"));
    }
}
