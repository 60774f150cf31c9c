//! `pmgate driver …`: everything for those who write, check and prove drivers.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio_serial::StopBits;

use crate::device::adopt::{Adopted, Failure, adopt, detect};
use crate::device::target::{Manners, Target};
use crate::link::LinkError;
use crate::link::rtu::{PARITIES, Serial};
use crate::link::snmp_v3::{AUTH_PROTOCOLS, PRIV_PROTOCOLS, User};
use crate::model::id::{ChainUnit, PduId};
use crate::model::metric::{Kind, Metric};
use crate::model::reading::{Datum, Reading};
use crate::model::secret::Secret;
use crate::model::time::{Clock, SystemClock};
use crate::model::view::{Health, PduView};
use crate::profile::Profile;
use crate::profile::catalog::Catalog;
use crate::profile::sweep::Item;
use crate::resolve::Address;
use crate::wire;

use super::args::{Driver, MoreDrivers, TargetArgs, UserArgs, Version};
use super::discover::Search;
use super::exit::{Exit, Outcome};
use super::out;

/// Carries a driver command out.
pub async fn run(command: Driver) -> Outcome {
    match command {
        Driver::List { more, json } => list(&more, json),
        Driver::Check { files } => check(&files),
        Driver::Detect { target, range: Some(range), allow, per_second, secret, more, json } => {
            let search = Search { range: &range, allow: &allow, per_second, secret: &secret, json };
            let at = |address| at(&target, address);
            super::discover::discover(&search, catalog(more.drivers.as_deref())?, at).await
        }
        Driver::Detect { target, more, json, .. } => detected(&target, &more, json).await,
        Driver::Read { target, more, driver, chain_unit, points, json } => {
            let adopted = read(&target, &more, driver.as_deref(), chain_unit.as_ref()).await?;
            if points { print_points(&adopted, json) } else { print_body(&adopted, json) }
        }
        Driver::Record { target, under, keep, read, more, file } => {
            let drivers = more.drivers.as_deref();
            let (under, keep, read, file) = (&under, &keep, &read, &file);
            let plan = super::record::Plan { under, keep, read, drivers, file };
            super::record::record(&target, &plan).await
        }
        Driver::Prove { file, recordings } => {
            super::prove::prove(&file, recordings.as_deref()).await
        }
    }
}

/// The drivers in the program and those of a directory.
pub fn catalog(more: Option<&Path>) -> Result<Catalog, Exit> {
    let mut catalog = Catalog::embedded().map_err(Exit::failed)?;
    let Some(dir) = more else { return Ok(catalog) };
    let mut faults = Vec::new();
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("no drivers in {}", dir.display()))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "toml")) {
        match load_file(path) {
            Ok(profile) => catalog.add(profile),
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    if faults.is_empty() { Ok(catalog) } else { Err(Exit::failed(anyhow!(faults.join("\n")))) }
}

fn load_file(path: &Path) -> anyhow::Result<Profile> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(crate::profile::load(&path.display().to_string(), &text)?)
}

fn list(more: &MoreDrivers, json: bool) -> Outcome {
    #[derive(Serialize)]
    struct Row<'a> {
        id: &'a str,
        title: &'a str,
        vendor: &'a str,
        protocol: &'a str,
        switches: bool,
    }
    let catalog = catalog(more.drivers.as_deref())?;
    let rows: Vec<Row<'_>> = catalog
        .iter()
        .map(|profile| Row {
            id: profile.id.as_str(),
            title: &profile.title,
            vendor: &profile.vendor,
            protocol: if profile.speech.is_snmp() { "snmp" } else { "modbus" },
            switches: !profile.on.is_empty(),
        })
        .collect();
    if json {
        return out::json(&rows);
    }
    let cells = |row: &Row<'_>| {
        let switches = if row.switches { "reads, switches" } else { "reads" };
        [row.id, row.protocol, switches, row.title].map(str::to_owned).to_vec()
    };
    out::table(
        &["DRIVER", "PROTOCOL", "DOES", "FAMILY"],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    );
    Ok(())
}

fn check(files: &[std::path::PathBuf]) -> Outcome {
    let mut faulty = false;
    for file in files {
        match load_file(file) {
            Ok(profile) => out::line(&format!("{}: driver {} is good", file.display(), profile.id)),
            Err(error) => {
                faulty = true;
                out::line(&format!("{error:#}"));
            }
        }
    }
    if faulty {
        Err(Exit::failed(anyhow!("there are faults; each line says what to write instead")))
    } else {
        Ok(())
    }
}

/// The target that was typed.
pub fn target(args: &TargetArgs) -> Result<Target, Exit> {
    let usage = |error: anyhow::Error| Exit::usage(error);
    if let Some(text) = &args.modbus {
        let address = Address::parse(text, 502).map_err(Exit::usage)?;
        return Ok(Target::Modbus { address, unit: args.unit });
    }
    if let Some(device) = &args.serial {
        let mut serial = Serial::usual(device.clone());
        serial.baud = args.baud;
        let parity = PARITIES.iter().find(|(name, _)| *name == args.parity);
        serial.parity = parity.map(|(_, parity)| *parity).ok_or_else(|| {
            usage(anyhow!("\"{}\" is no parity: write none, even or odd", args.parity))
        })?;
        serial.stop_bits = if args.stop_bits == 2 { StopBits::Two } else { StopBits::One };
        return Ok(Target::Serial { serial, unit: args.unit });
    }
    let text = args
        .snmp
        .as_ref()
        .ok_or_else(|| usage(anyhow!("name a device: --snmp ADDR:PORT or --modbus ADDR:PORT")))?;
    at(args, Address::parse(text, 161).map_err(Exit::usage)?)
}

/// An SNMP agent at an address, with the credentials that were typed.
fn at(args: &TargetArgs, address: Address) -> Result<Target, Exit> {
    if let Some(user) = user(&args.user)? {
        return Ok(Target::User { address, user });
    }
    let community = Secret::new(args.community.clone());
    Ok(Target::Community {
        address,
        v1: args.snmp_version == Version::V1,
        read: community.clone(),
        write: community,
    })
}

/// The SNMPv3 user that was typed, if one was.
pub fn user(args: &UserArgs) -> Result<Option<User>, Exit> {
    let Some(name) = &args.user else { return Ok(None) };
    let auth = protocol("--auth-protocol", &args.auth_protocol, &AUTH_PROTOCOLS)?;
    let privacy = protocol("--priv-protocol", &args.priv_protocol, &PRIV_PROTOCOLS)?;
    let secret = |text: &Option<String>| match text {
        Some(text) if text.len() < 8 => Err(Exit::usage(anyhow!(
            "an SNMPv3 passphrase has at least 8 characters (RFC 3414 section 11.2)"
        ))),
        Some(text) => Ok(Some(Secret::new(text.clone()))),
        None => Ok(None),
    };
    let (auth_pass, priv_pass) = (secret(&args.auth_password)?, secret(&args.priv_password)?);
    if auth_pass.is_none() && priv_pass.is_some() {
        return Err(Exit::usage(anyhow!(
            "SNMPv3 has no privacy without authentication: give --auth-password too"
        )));
    }
    Ok(Some(User {
        name: name.clone(),
        auth: auth_pass.map(|pass| (auth, pass)),
        privacy: priv_pass.map(|pass| (privacy, pass)),
        context: args.context.clone(),
    }))
}

fn protocol<T: Copy>(flag: &str, text: &str, known: &[(&str, T)]) -> Result<T, Exit> {
    let found =
        known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        Exit::usage(anyhow!("{flag} {text} is not known: write one of {}", names.join(", ")))
    })
}

/// 3 where nobody answers, else 1.
fn exit_of(failure: Failure) -> Exit {
    match failure {
        Failure::Link(
            LinkError::Timeout { .. } | LinkError::Unreachable(_) | LinkError::Closed(_),
        ) => Exit::unreachable(anyhow!("the device {failure}")),
        Failure::Link(_) => Exit::failed(anyhow!("the device {failure}")),
        _ => Exit::failed(failure),
    }
}

async fn detected(args: &TargetArgs, more: &MoreDrivers, json: bool) -> Outcome {
    #[derive(Serialize)]
    struct Found<'a> {
        driver: &'a str,
        title: &'a str,
    }
    let catalog = catalog(more.drivers.as_deref())?;
    let profile = detect(&target(args)?, &catalog, Manners::default()).await.map_err(exit_of)?;
    if json {
        return out::json(&Found { driver: profile.id.as_str(), title: &profile.title });
    }
    out::line(&format!("{}: {}", profile.id, profile.title));
    Ok(())
}

async fn read(
    args: &TargetArgs,
    more: &MoreDrivers,
    driver: Option<&str>,
    unit: Option<&ChainUnit>,
) -> Result<Adopted, Exit> {
    let catalog = catalog(more.drivers.as_deref())?;
    let target = target(args)?;
    let profile: Arc<Profile> = match driver {
        Some(name) => {
            let id = name.parse().map_err(Exit::usage)?;
            catalog.get(&id).cloned().ok_or_else(|| exit_of(Failure::NoDriver(id)))?
        }
        None => detect(&target, &catalog, Manners::default()).await.map_err(exit_of)?,
    };
    adopt(&target, profile, unit, Manners::default()).await.map_err(exit_of)
}

/// The view of a device that was read once.
pub fn view_of(adopted: &Adopted, clock: &dyn Clock) -> PduView {
    let id: PduId = "device".parse().unwrap_or_else(|_| unreachable!("a plain word is an id"));
    let name = adopted.instance.identity.name.clone().unwrap_or_else(|| "device".into());
    let mut view = PduView::unknown(id, name.into(), None);
    let at = clock.stamp();
    view.driver = Some(adopted.profile.id.clone());
    view.identity = adopted.instance.identity.clone();
    view.layout = adopted.instance.layout.clone();
    view.readings = adopted.data.iter().map(|datum| Reading { datum: *datum, at }).collect();
    view.health = Health::Online;
    // As a gateway would show it without being told otherwise.
    view.read_only = adopted.mixed().or_else(|| adopted.unknown()).map(Into::into);
    view.observed_at = Some(at);
    view.observed = Some(clock.tick());
    view
}

fn print_body(adopted: &Adopted, json: bool) -> Outcome {
    let clock = SystemClock::start();
    let view = view_of(adopted, &clock);
    let body = wire::pdu::body(&view, &wire::pdu::NoSite, clock.tick());
    let body = serde_json::to_value(&body).map_err(Exit::failed)?;
    if json { out::json(&body) } else { super::pdu::print(&body) }
}

/// A point as `--points` prints it.
#[derive(Debug, Serialize)]
pub struct PointLine {
    point: String,
    row: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    oid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    register: Option<String>,
    raw: Option<String>,
    value: serde_json::Value,
    unit: &'static str,
    quality: &'static str,
}

fn place(item: &Item) -> (Option<String>, Option<String>) {
    match item {
        Item::Oid(oid) => (Some(oid.to_string()), None),
        Item::Register { table, address, .. } => {
            (None, Some(format!("{} {address}", table.word())))
        }
        Item::DeviceId(id) => (None, Some(format!("device_id {id}"))),
    }
}

/// What an adopted device said, point by point, its identity first.
pub fn points(adopted: &Adopted) -> Vec<PointLine> {
    let identity = adopted.identity.iter().map(|(name, item, text)| {
        let (oid, register) = place(item);
        let value = serde_json::Value::from(text.clone());
        PointLine {
            point: (*name).into(),
            row: "1".into(),
            oid,
            register,
            raw: Some(text.clone()),
            value,
            unit: "",
            quality: "good",
        }
    });
    let read = adopted.points.iter().map(|read| {
        let (oid, register) = place(&read.item);
        let is_text = matches!(read.point.metric.kind(), Kind::Text | Kind::Link(_));
        let is_link = matches!(read.point.metric.kind(), Kind::Link(_));
        let linked = read.text.as_deref().filter(|_| is_link).and_then(|text| text.parse().ok());
        let (value, quality) = match (is_text, read.datum) {
            // A link that the device tells as a number, and not as "L2", is one.
            (true, _) if linked.is_some() => {
                (linked.map_or(serde_json::Value::Null, |n: i64| n.into()), "good")
            }
            (true, _) => {
                (read.text.clone().into(), if read.text.is_some() { "good" } else { "missing" })
            }
            (false, Datum::Value(kept)) => (number(read.point.metric, kept), "good"),
            (false, Datum::Word(word)) => (word.word().into(), "good"),
            (false, Datum::Gap(gap)) => (serde_json::Value::Null, gap.word()),
        };
        PointLine {
            point: read.point.to_string(),
            row: read.row.to_string(),
            oid,
            register,
            raw: read.raw.clone(),
            value,
            unit: read.point.metric.unit().map_or("", |unit| unit.symbol()),
            quality,
        }
    });
    identity.chain(read).collect()
}

fn number(metric: Metric, kept: i64) -> serde_json::Value {
    metric.unit().map_or(serde_json::Value::Null, |unit| unit.to_f64(kept).into())
}

fn print_points(adopted: &Adopted, json: bool) -> Outcome {
    let lines = points(adopted);
    if json {
        return out::json(&lines);
    }
    let cells = |line: &PointLine| {
        let at = line.oid.clone().or_else(|| line.register.clone()).unwrap_or_else(|| "-".into());
        let value = match &line.value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(n) => {
                format!("{} {}", out::number(n.as_f64().unwrap_or(f64::NAN)), line.unit)
            }
            _ => "-".into(),
        };
        vec![
            line.point.clone(),
            line.row.clone(),
            at,
            line.raw.clone().unwrap_or_else(|| "-".into()),
            value.trim_end().into(),
            line.quality.into(),
        ]
    };
    out::table(
        &["POINT", "ROW", "AT", "RAW", "VALUE", "QUALITY"],
        &lines.iter().map(cells).collect::<Vec<_>>(),
    );
    Ok(())
}
