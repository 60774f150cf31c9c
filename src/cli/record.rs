//! `pmgate driver record`: what a device answers, as a recording that may be shown to others.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::link::{Line, LinkError, Patience};
use crate::model::ask::{Ask, Reply, Value};
use crate::model::oid::Oid;

use super::args::TargetArgs;
use super::exit::{Exit, Outcome};
use super::out;

/// Objects that say where a device is, whose it is, or how to reach it (SNMPv2-MIB sysContact, sysName,
/// sysLocation; the interface and address tables).
const PRIVATE: [&str; 5] = [
    "1.3.6.1.2.1.1.4",
    "1.3.6.1.2.1.1.5",
    "1.3.6.1.2.1.1.6",
    "1.3.6.1.2.1.2.2.1.6",
    "1.3.6.1.2.1.4.20",
];
/// What stands for them.
const BLOT: &str = "<private>";
/// More rows than any PDU has; a Raritan PX3 has 8000.
const ROWS: usize = 100_000;

/// Walks a device and writes the recording.
pub async fn record(args: &TargetArgs, under: &[String], file: &Path) -> Outcome {
    let target = super::driver::target(args)?;
    if !target.is_snmp() {
        return Err(Exit::usage(anyhow!(
            "only SNMP can be walked: a Modbus device has no list of its registers"
        )));
    }
    let unreachable = |error: LinkError| Exit::unreachable(anyhow!("the device {error}"));
    let mut line = target.line(Patience::new((20, 3_000, 3)), 1).await.map_err(unreachable)?;
    let private: Vec<Oid> = PRIVATE.iter().filter_map(|text| text.parse().ok()).collect();
    let secrets = serials(&mut line).await.map_err(unreachable)?;
    let mut text = String::new();
    let mut rows = 0;
    for base in under {
        let base: Oid = base.parse().map_err(Exit::usage)?;
        rows += walk(&mut line, &base, &private, &secrets, &mut text).await.map_err(unreachable)?;
    }
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    out::line(&format!(
        "{}: {rows} rows; look through it before you show it to others",
        file.display()
    ));
    Ok(())
}

/// Serial numbers that the device tells in its own entry of the common trees: blotted out everywhere.
async fn serials(line: &mut Line) -> Result<Vec<String>, LinkError> {
    // entPhysicalSerialNum (ENTITY-MIB) and those of the embedded drivers.
    let catalog = crate::profile::catalog::Catalog::embedded()
        .map_err(|e| LinkError::Garbled(e.to_string()))?;
    let mut oids: Vec<Oid> = Vec::new();
    for profile in catalog.speaking(true) {
        let row = crate::profile::rows::unit_row(profile, None);
        for source in &profile.identity.serial {
            if let Some(crate::profile::sweep::Item::Oid(oid)) =
                crate::profile::rows::item_at(source, &row)
            {
                oids.push(oid);
            }
        }
    }
    let mut found = Vec::new();
    for chunk in oids.chunks(8) {
        if let Reply::Binds(binds) = line.exchange(&Ask::Get(chunk.to_vec())).await? {
            found.extend(
                binds.iter().filter_map(|(_, value)| value.text()).filter(|text| text.len() >= 4),
            );
        }
    }
    Ok(found)
}

async fn walk(
    line: &mut Line,
    base: &Oid,
    private: &[Oid],
    secrets: &[String],
    text: &mut String,
) -> Result<usize, LinkError> {
    let mut at = base.clone();
    let mut rows = 0;
    while rows < ROWS {
        let ask = if line.has_bulk() {
            Ask::GetBulk { names: vec![at.clone()], single: 0, repeat: 20 }
        } else {
            Ask::GetNext(vec![at.clone()])
        };
        let Reply::Binds(binds) = line.exchange(&ask).await? else { return Ok(rows) };
        let before = rows;
        for (oid, value) in binds {
            if !oid.is_under(base) || oid <= at || value == Value::Nothing {
                return Ok(rows);
            }
            let hidden = private.iter().any(|p| oid.is_under(p));
            // A String takes every line.
            writeln!(text, "{oid}|{}", shown(&value, hidden, secrets)).ok();
            at = oid;
            rows += 1;
        }
        if rows == before {
            return Ok(rows);
        }
    }
    Ok(rows)
}

fn shown(value: &Value, hidden: bool, secrets: &[String]) -> String {
    match value {
        Value::Integer(number) => format!("2|{number}"),
        Value::Unsigned(number) if *number > u64::from(u32::MAX) => format!("70|{number}"),
        Value::Unsigned(number) => format!("66|{number}"),
        Value::Oid(oid) => format!("6|{oid}"),
        Value::Ip(_) => "64|0.0.0.0".into(),
        Value::Bytes(_) if hidden => format!("4|{BLOT}"),
        Value::Bytes(bytes) => {
            let plain = bytes.iter().all(|b| (0x20..0x7f).contains(b));
            let Some(text) = value.text().filter(|_| plain) else {
                return format!(
                    "4x|{}",
                    bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
                );
            };
            format!("4|{}", secrets.iter().fold(text, |text, secret| text.replace(secret, BLOT)))
        }
        Value::Nothing | Value::Other => "5|".into(),
    }
}
