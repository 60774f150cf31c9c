//! From an action to the writes that carry it out, for one outlet of an adopted device.

use crate::model::ask::{Ask, Registers, Value};
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

/// The writes, in order, for an outlet by its place.
pub fn writes(instance: &Instance, outlet: u16, relay: Relay) -> Result<Vec<Ask>, ControlError> {
    let refuse = || ControlError::NotSwitchable(instance.driver.to_string());
    let row = instance.outlet_row(outlet).ok_or_else(refuse)?;
    let verb = instance.verb(relay).ok_or_else(refuse)?;
    verb.writes.iter().map(|write| ask(write, row).ok_or_else(refuse)).collect()
}

fn ask(write: &Write, row: &Row) -> Option<Ask> {
    match (item_at(&write.target, row)?, &write.value) {
        (Item::Oid(oid), WriteValue::Number(number)) => {
            Some(Ask::Set(vec![(oid, Value::Integer(*number))]))
        }
        (Item::Oid(oid), WriteValue::Text(text)) => {
            Some(Ask::Set(vec![(oid, Value::Bytes(text.as_bytes().into()))]))
        }
        (Item::Register { table: Registers::Coil, address, .. }, WriteValue::Number(number)) => {
            Some(Ask::WriteCoil { address, on: *number != 0 })
        }
        (Item::Register { table: Registers::Holding, address, .. }, WriteValue::Number(number)) => {
            let word = u16::try_from(*number).ok()?;
            Some(Ask::WriteRegisters { address, words: vec![word] })
        }
        _ => None,
    }
}

/// Whether a write goes where the driver may write at all: a source of the driver's own.
pub fn targets(profile: &Profile) -> impl Iterator<Item = &Source> {
    profile.on.iter().chain(&profile.off).flat_map(|verb| &verb.writes).map(|write| &write.target)
}
