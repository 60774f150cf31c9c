//! `[[pdu]]`.

use std::collections::BTreeMap;

use tokio_serial::StopBits;

use crate::device::{Manners, Settings, Target};
use crate::link::rtu::{PARITIES, Serial};
use crate::model::document::{Fields, Item};
use crate::model::id::{ChainUnit, DriverId, OutletId, PduId};
use crate::model::limits::PDUS;
use crate::model::time::Span;
use crate::profile::catalog::Catalog;
use crate::resolve::Address;

use super::sections::{Credentials, Poll, take_paces};

/// What the `[[pdu]]` sections say.
#[derive(Default)]
pub(super) struct Pdus {
    pub devices: Vec<Settings>,
    pub locked: BTreeMap<OutletId, String>,
    /// Ratings that the site gives to parts, mA.
    pub ratings: BTreeMap<(PduId, String), i64>,
}

/// `[[pdu]]`.
pub(super) fn pdus(
    root: &Fields<'_>,
    catalog: &Catalog,
    poll: Poll,
    secrets: &BTreeMap<String, Credentials>,
) -> Pdus {
    let mut pdus = Pdus::default();
    let Some(list) = root.get("pdu") else { return pdus };
    let items = list.list();
    if items.len() > PDUS {
        list.fault(format!("there are {} PDUs; one gateway takes {PDUS}", items.len()));
    }
    for (at, item) in items.iter().enumerate() {
        let Some(mut settings) = pdu(item, catalog, poll, secrets, &mut pdus) else {
            continue;
        };
        let line = |settings: &Settings| match &settings.target {
            Target::Serial { serial, .. } => Some(serial.clone()),
            _ => None,
        };
        let other_speed = |other: &Settings| {
            line(other).zip(line(&settings)).is_some_and(|(a, b)| a.device == b.device && a != b)
        };
        if pdus.devices.iter().any(other_speed) {
            item.fault("another PDU has this serial line with another baud, parity or stop_bits: a line has one setting");
        }
        if pdus.devices.iter().any(|other| other.id == settings.id) {
            item.fault(format!("the id \"{}\" is given twice", settings.id));
        }
        // First polls are spread over the fast pace.
        let spread = settings.paces.fast.0.min(10_000) * at as u64 / items.len().max(1) as u64;
        settings.offset = Span(spread.min(at as u64 * 250));
        pdus.devices.push(settings);
    }
    pdus
}

fn pdu(
    item: &Item<'_>,
    catalog: &Catalog,
    mut poll: Poll,
    secrets: &BTreeMap<String, Credentials>,
    pdus: &mut Pdus,
) -> Option<Settings> {
    let fields = item.fields()?;
    let id: Option<PduId> =
        fields.need("id", "its id in URLs, as in \"pdu-a\"").and_then(|i| i.parsed());
    let text =
        |key: &'static str| fields.get(key).and_then(|i| i.text()).map(std::sync::Arc::<str>::from);
    let (name, location) = (text("name"), text("location"));
    let target = target(&fields, secrets);
    let driver = driver(&fields, catalog, target.as_ref());
    let unit = chain_unit(&fields, catalog, driver.as_ref());
    take_paces(&fields, &mut poll);
    let manners = Manners {
        timeout_ms: fields
            .get("timeout_ms")
            .and_then(|i| i.integer(50..=30_000))
            .map(|ms| ms as u64),
        write_gap_ms: fields
            .get("write_gap_ms")
            .and_then(|i| i.integer(0..=60_000))
            .map(|ms| ms as u64),
        attempts: fields.get("attempts").and_then(|i| i.integer(1..=5)).map(|n| n as u32),
    };
    let read_only = fields.get("read_only").and_then(|i| i.flag()).unwrap_or(false);
    let read_only = read_only.then(|| "the configuration says read_only".into());
    let flag =
        |key: &'static str, usual: bool| fields.get(key).and_then(|i| i.flag()).unwrap_or(usual);
    let (watts_follow, allow_unknown) = (flag("watts_follow", true), flag("allow_unknown", false));
    if let Some(list) = fields.get("never_switch") {
        for item in list.list() {
            let number = item.integer(0..=65_535).map(|n| n as u16);
            if let (Some(pdu), Some(number)) = (id.clone(), number) {
                let reason = "the configuration says never_switch".into();
                pdus.locked.insert(OutletId { pdu, number }, reason);
            }
        }
    }
    if let Some(table) = fields.get("ratings_a").and_then(|i| i.fields()) {
        for (part, _, item) in table.entries() {
            if let (Some(pdu), Some(amperes)) = (id.clone(), item.integer(1..=10_000)) {
                pdus.ratings.insert((pdu, part), amperes * 1_000);
            }
        }
    }
    fields.done();
    Some(Settings {
        id: id?,
        name,
        location,
        target: target?,
        driver: driver?,
        unit,
        manners,
        paces: poll.paces,
        stale_after: poll.stale_after,
        offset: Span(0),
        read_only,
        watts_follow,
        allow_unknown,
    })
}

fn target(fields: &Fields<'_>, secrets: &BTreeMap<String, Credentials>) -> Option<Target> {
    let address = |item: &Item<'_>, port| {
        let parsed = Address::parse(item.text()?, port);
        parsed.map_err(|error| item.fault(error)).ok()
    };
    let version = fields.get("version").and_then(|i| i.one_of(&[("1", 1), ("2c", 2), ("3", 3)]));
    let secret = fields.get("secret");
    if let Some(serial) = fields.get("serial") {
        for (key, item) in [("snmp", fields.get("snmp")), ("modbus", fields.get("modbus"))] {
            if let Some(item) = item {
                item.fault(format!("a PDU is reached in one way: serial or {key}"));
            }
        }
        return serial_target(fields, &serial);
    }
    match (fields.get("snmp"), fields.get("modbus")) {
        (Some(snmp), None) => {
            let address = address(&snmp, 161);
            let Some(secret) = secret else {
                fields.fault("an SNMP device needs secret: the name of a [secret.…]");
                return None;
            };
            let Some(credentials) = secrets.get(secret.text()?) else {
                let known: Vec<&str> = secrets.keys().map(String::as_str).collect();
                secret.fault(format!(
                    "there is no [secret.{}] without faults; there are: {}",
                    secret.text()?,
                    known.join(", ")
                ));
                return None;
            };
            match (credentials, version) {
                (Credentials::User(user), None | Some(3)) => {
                    Some(Target::User { address: address?, user: user.clone() })
                }
                (Credentials::Communities { read, write }, None | Some(1 | 2)) => {
                    let v1 = version == Some(1);
                    Some(Target::Community {
                        address: address?,
                        v1,
                        read: read.clone(),
                        write: write.clone(),
                    })
                }
                (Credentials::User(_), Some(_)) => {
                    secret.fault(
                        "is an SNMPv3 user: leave version out, or name a secret with communities",
                    );
                    None
                }
                (Credentials::Communities { .. }, Some(_)) => {
                    secret
                        .fault("has communities: version 3 needs a secret with user and passwords");
                    None
                }
            }
        }
        (None, Some(modbus)) => {
            if let Some(secret) = secret {
                secret.fault("Modbus knows no secrets: leave it out, and let nobody but this gateway reach the device");
            }
            let unit = fields.get("unit").and_then(|i| i.integer(1..=255)).map(|n| n as u8);
            Some(Target::Modbus { address: address(&modbus, 502)?, unit })
        }
        _ => {
            fields.fault(
                "says not where it is reached: write snmp = \"ADDR:161\", modbus = \"ADDR:502\" or serial = \"/dev/ttyUSB0\"",
            );
            None
        }
    }
}

fn serial_target(fields: &Fields<'_>, item: &Item<'_>) -> Option<Target> {
    let mut serial = Serial::usual(item.text()?.into());
    if let Some(baud) = fields.get("baud").and_then(|i| i.integer(300..=460_800)) {
        serial.baud = baud as u32;
    }
    if let Some(parity) = fields.get("parity").and_then(|i| i.one_of(&PARITIES)) {
        serial.parity = parity;
    }
    if fields.get("stop_bits").and_then(|i| i.integer(1..=2)) == Some(2) {
        serial.stop_bits = StopBits::Two;
    }
    let unit = fields.get("unit").and_then(|i| i.integer(1..=247)).map(|n| n as u8);
    Some(Target::Serial { serial, unit })
}

fn chain_unit(
    fields: &Fields<'_>,
    catalog: &Catalog,
    driver: Option<&Option<DriverId>>,
) -> Option<ChainUnit> {
    let item = fields.get("chain_unit")?;
    let named = driver.and_then(Option::as_ref).and_then(|id| catalog.get(id));
    if let Some(profile) = named.filter(|profile| profile.unit.is_none()) {
        item.fault(format!(
            "driver {} knows no units of a chain: leave chain_unit out",
            profile.id
        ));
        return None;
    }
    if item.is_text() {
        return item.parsed();
    }
    item.integer(0..=255).map(|number| ChainUnit::from(number as u32))
}

#[allow(clippy::option_option)] // None: faulty and told; Some(None): detect it
fn driver(
    fields: &Fields<'_>,
    catalog: &Catalog,
    target: Option<&Target>,
) -> Option<Option<DriverId>> {
    let Some(item) = fields.get("driver") else { return Some(None) };
    if item.text()? == "auto" {
        return Some(None);
    }
    let id: DriverId = item.parsed()?;
    match catalog.get(&id) {
        None => {
            let names: Vec<&str> = catalog.iter().map(|profile| profile.id.as_str()).collect();
            let near = crate::model::document::nearest(id.as_str(), names.iter().copied());
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            item.fault(format!(
                "there is no driver \"{id}\"{near} write \"auto\", or one of: {}",
                names.join(", ")
            ));
            None
        }
        Some(profile) => {
            if target.is_some_and(|target| target.is_snmp() != profile.speech.is_snmp()) {
                item.fault("does not speak the protocol that the PDU is reached by");
            }
            Some(Some(id))
        }
    }
}
