//! Adopting a device over its line: which driver, which parts, what it says first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::link::{Line, LinkError};
use crate::model::ask::Value;
use crate::model::id::{ChainUnit, DriverId};
use crate::model::limits::ADOPT_REQUESTS;
use crate::model::oid::Oid;
use crate::model::reading::Datum;
use crate::profile::Profile;
use crate::profile::adopt::{AdoptError, Facts, Filter, PointRead, Probe, Walk};
use crate::profile::catalog::Catalog;
use crate::profile::detect::{Detection, Undetected};
use crate::profile::format::Speech;
use crate::profile::instance::Instance;
use crate::profile::names::NameMap;
use crate::profile::sweep::{Item, Memory, Raw, ReadSet, Wanted};

use super::read;
use super::target::{Manners, Target};

/// How a device is treated before its family is known: carefully.
const CAREFUL: (u64, u64, u32) = (20, 2_000, 2);

/// An adopted device, ready to be polled.
pub struct Adopted {
    /// The line to it.
    pub line: Line,
    /// Its driver.
    pub profile: Arc<Profile>,
    /// Its parts.
    pub instance: Instance,
    /// Its first readings, in the order of the layout's slots.
    pub data: Vec<Datum>,
    /// The unit of a chain that it is; nothing for all of them.
    pub unit: Option<ChainUnit>,
    /// What it cannot bear.
    pub memory: Memory,
    /// What was read, point by point.
    pub points: Vec<PointRead>,
    /// Where the identity came from, for those who check drivers.
    pub identity: Vec<(&'static str, Item, String)>,
}

impl Adopted {
    /// Whether several units are read together that have no numbers of their own: by what is there now they are told
    /// apart, and nobody can know what their outlets were called before.
    pub fn mixed(&self) -> Option<String> {
        let units = self.profile.unit.as_ref().filter(|_| self.unit.is_none())?;
        let there = &self.instance.units;
        units.unnumbered(there).then(|| match there.as_slice() {
            [lone] => format!(
                "it is unit {lone} of its chain, which is too great a number to stand before those of its outlets; write chain_unit = {lone} in its [[pdu]]"
            ),
            _ => format!(
                "its agent speaks for {} PDUs, which have no numbers of their own; make a [[pdu]] of each with chain_unit, one of: {}",
                there.len(),
                there.join(", ")
            ),
        })
    }

    /// Why it is not a device that its driver was made for, if so.
    pub fn unknown(&self) -> Option<String> {
        let identity = &self.instance.identity;
        let known = self.profile.known.as_ref()?;
        let doubt = known.doubt(identity.model.as_deref(), identity.firmware.as_deref())?;
        Some(format!(
            "driver {} was not made for this one: {doubt}; allow_unknown = true in its [[pdu]] lets it be switched",
            self.profile.id
        ))
    }
}

/// Why a device is not adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No driver, or several.
    #[error(transparent)]
    Undetected(#[from] Undetected),
    /// The driver does not fit.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The configured driver is not there.
    #[error("there is no driver \"{0}\"; run \"pmgate driver list\" to see those there are")]
    NoDriver(DriverId),
    /// The configured driver speaks another protocol than the PDU's address.
    #[error("driver {0} does not speak the protocol of this address")]
    OtherProtocol(DriverId),
}

/// Finds the driver of a device.
pub async fn detect(
    target: &Target,
    catalog: &Catalog,
    manners: Manners,
) -> Result<Arc<Profile>, Failure> {
    let unit = catalog.speaking(target.is_snmp()).iter().find_map(|p| modbus_unit(p)).unwrap_or(1);
    let mut line = target.line(manners.correct(CAREFUL), unit).await?;
    detect_over(&mut line, catalog, target.is_snmp()).await
}

/// Finds the driver of what is at the end of a line.
pub async fn detect_over(
    line: &mut Line,
    catalog: &Catalog,
    snmp: bool,
) -> Result<Arc<Profile>, Failure> {
    let detection = Detection::among(catalog.speaking(snmp));
    let nothing = || Undetected::None {
        seen: "there is no driver for its protocol".into(),
        near: Vec::new(),
    };
    let set = detection.set().ok_or_else(nothing)?;
    let mut memory = Memory::careful();
    let answers = read::sweep(line, &set, &mut memory).await?;
    let seen = if snmp { system(line).await } else { "it answers Modbus".into() };
    let id = detection.verdict(&answers, || seen)?;
    catalog.get(&id).cloned().ok_or(Failure::NoDriver(id))
}

fn modbus_unit(profile: &Profile) -> Option<u8> {
    match &profile.speech {
        Speech::Modbus(manners) => Some(manners.unit),
        Speech::Snmp(_) => None,
    }
}

/// sysDescr and sysObjectID (SNMPv2-MIB), for messages.
async fn system(line: &mut Line) -> String {
    let names = ["1.3.6.1.2.1.1.2.0", "1.3.6.1.2.1.1.1.0"];
    let oids: Vec<Oid> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let set = ReadSet::new(
        &Speech::plain_snmp(),
        oids.into_iter().map(|oid| Wanted::single(Item::Oid(oid))).collect(),
    );
    let answers = match read::sweep(line, &set, &mut Memory::careful()).await {
        Ok(answers) => answers,
        Err(error) => return format!("asked who it is, it {error}"),
    };
    let text = |at: usize| match answers.get(at) {
        Some(Ok(Raw::Value(value @ (Value::Bytes(_) | Value::Oid(_))))) => value.raw(),
        _ => "nothing".into(),
    };
    format!("sysObjectID {}, sysDescr \"{}\"", text(0), text(1))
}

/// Adopts a device with a driver: learns its parts, reads everything once.
pub async fn adopt(
    target: &Target,
    profile: Arc<Profile>,
    unit: Option<&ChainUnit>,
    manners: Manners,
) -> Result<Adopted, Failure> {
    if target.is_snmp() != profile.speech.is_snmp() {
        return Err(Failure::OtherProtocol(profile.id.clone()));
    }
    let patience = manners.correct(profile.speech.patience());
    let line = target.line(patience, modbus_unit(&profile).unwrap_or(1)).await?;
    over(line, profile, unit).await
}

/// Adopts what is at the end of a line.
pub async fn over(
    mut line: Line,
    profile: Arc<Profile>,
    unit: Option<&ChainUnit>,
) -> Result<Adopted, Failure> {
    let mut memory = Memory::of(&profile.speech);
    if !line.has_bulk() {
        memory = memory.without_bulk();
    }
    let facts = Facts::new(&profile, unit)?;
    let answers = read::sweep(&mut line, &facts.set(), &mut memory).await?;
    let known = facts.known(&answers)?;
    let identity = facts.identity_read(&answers);
    let mut budget = ADOPT_REQUESTS;
    let mut found = BTreeMap::new();
    for (table, walks) in Walk::all(&profile, memory.bulk_rows()) {
        for walk in walks {
            let rows = read::walk(&mut line, walk, &mut budget).await?.found()?;
            let any = !rows.is_empty();
            found.insert(table, rows);
            if any {
                break;
            }
        }
    }
    let names = match Walk::names(&profile, memory.bulk_rows()) {
        Some(walk) => {
            let walk = read::walk(&mut line, walk, &mut budget).await?;
            NameMap::new(&profile, &walk.found_with_values()?)
        }
        None => NameMap::default(),
    };
    let filter = Filter::new(&profile, &known, &found, &names);
    let answers = read::sweep(&mut line, &filter.set(), &mut memory).await?;
    let rows = filter.kept(&answers)?;
    let alone = profile.unit.as_ref().filter(|_| unit.is_none()).and_then(|u| u.alone(&rows.1));
    if let Some(alone) = alone {
        let adopted = Box::pin(over(line, profile, Some(&alone))).await?;
        return Ok(Adopted { unit: None, ..adopted });
    }
    let probe = Probe::new(&profile, known, rows);
    let mut probing = memory;
    let answers = read::sweep(&mut line, &probe.set(), &mut probing).await?;
    memory = memory.with_chunk_of(probing);
    let points = probe.points_read(&answers);
    let (instance, data) = probe.settle(&answers)?;
    let unit = unit.cloned();
    Ok(Adopted { line, profile: profile.clone(), instance, data, unit, memory, points, identity })
}
