//! Where a device is and how it is spoken to.

use std::hash::{BuildHasher, Hasher};

use crate::link::modbus::ModbusLink;
use crate::link::rtu::{RtuLink, Serial};
use crate::link::snmp::SnmpLink;
use crate::link::snmp_v3::{SnmpV3Link, User};
use crate::link::{Line, Link, LinkError, Patience};
use crate::model::secret::Secret;
use crate::resolve::Address;

/// Where a device is and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// SNMPv1 or v2c.
    Community {
        /// The agent.
        address: Address,
        /// SNMPv1.
        v1: bool,
        /// For reading.
        read: Secret,
        /// For writing.
        write: Secret,
    },
    /// SNMPv3.
    User {
        /// The agent.
        address: Address,
        /// Who we are.
        user: User,
    },
    /// Modbus TCP.
    Modbus {
        /// The device, or a gateway before it.
        address: Address,
        /// Its unit; nothing for the one that the driver names.
        unit: Option<u8>,
    },
    /// Modbus RTU.
    Serial {
        /// The line.
        serial: Serial,
        /// Its unit; nothing for the one that the driver names.
        unit: Option<u8>,
    },
}

impl Target {
    /// Whether it is SNMP.
    pub fn is_snmp(&self) -> bool {
        !matches!(self, Target::Modbus { .. } | Target::Serial { .. })
    }

    /// The address, where it is reached by one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Target::Community { address, .. }
            | Target::User { address, .. }
            | Target::Modbus { address, .. } => Some(address),
            Target::Serial { .. } => None,
        }
    }

    /// A line to it, with the manners of a family. `driver_unit` is the Modbus unit that the driver names.
    pub async fn line(&self, patience: Patience, driver_unit: u8) -> Result<Line, LinkError> {
        let peer = async |address: &Address| {
            let resolved = address.resolve().await;
            resolved.map_err(|error| LinkError::Unreachable(error.to_string()))
        };
        let link: Box<dyn Link> = match self {
            Target::Community { address, v1, read, write } => {
                let peer = peer(address).await?;
                Box::new(SnmpLink::new(peer, *v1, read.clone(), write.clone(), random_id()))
            }
            Target::User { address, user } => {
                Box::new(SnmpV3Link::new(peer(address).await?, user.clone()))
            }
            Target::Modbus { address, unit } => {
                Box::new(ModbusLink::new(peer(address).await?, unit.unwrap_or(driver_unit)))
            }
            Target::Serial { serial, unit } => {
                Box::new(RtuLink::new(serial.clone(), unit.unwrap_or(driver_unit)))
            }
        };
        Ok(Line::new(link, patience))
    }
}

/// What a site knows better than a driver about a device: a slow link, a card that needs time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manners {
    /// How long a reply may take, ms.
    pub timeout_ms: Option<u64>,
    /// How often a read is sent.
    pub attempts: Option<u32>,
    /// Pause between two commands, ms.
    pub write_gap_ms: Option<u64>,
}

impl Manners {
    /// The patience of a driver, as the site corrects it.
    pub fn correct(self, (gap_ms, timeout_ms, attempts): (u64, u64, u32)) -> Patience {
        Patience::new((
            gap_ms,
            self.timeout_ms.unwrap_or(timeout_ms),
            self.attempts.unwrap_or(attempts),
        ))
    }
}

/// Where request ids start: anywhere, so that replies to an earlier program are strange.
fn random_id() -> i32 {
    std::hash::RandomState::new().build_hasher().finish() as i32
}
