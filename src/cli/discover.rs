//! `pmgate driver detect --range CIDR`: PDUs in a network, as configuration to paste. It asks each address what it is,
//! once and slowly; it changes nothing, and goes only where it is allowed to.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::device::adopt::{Failure, adopt, detect};
use crate::device::target::{Manners, Target};
use crate::link::LinkError;
use crate::model::id::ChainUnit;
use crate::profile::catalog::Catalog;
use crate::profile::detect::Undetected;
use crate::resolve::Address;

use super::exit::{Exit, Outcome};
use super::out;

/// The largest network that is looked through at once: 4096 addresses.
const WIDEST: u8 = 20;
/// How long an address may take to say anything.
const ANSWER_MS: u64 = 1_000;
/// Networks that are nobody else's (RFC 1918, RFC 3927, RFC 6598; loopback): allowed without being named.
const OWN: [&str; 6] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
];

/// A network of IPv4 addresses, and the port that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    bits: u8,
    port: u16,
}

impl Range {
    /// `10.20.0.0/24`, or `10.20.0.0/24:1161`.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || {
            anyhow!(
                "\"{text}\" is no network: write it as 10.20.0.0/24, or 10.20.0.0/24:1161 for another port than 161"
            )
        };
        let (address, rest) = text.split_once('/').ok_or_else(wrong)?;
        let (bits, port) = rest.split_once(':').unwrap_or((rest, "161"));
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        if u32::from(address) & !mask != 0 {
            let network = Ipv4Addr::from(u32::from(address) & mask);
            return Err(anyhow!("{text} has bits behind its mask: do you mean {network}/{bits}?"));
        }
        Ok(Self { first: u32::from(address), bits, port })
    }

    fn holds(self, other: Self) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
        self.bits <= other.bits && other.first & mask == self.first
    }

    /// Its hosts: without the network's own address and its broadcast where it has them.
    fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        let last = u64::from(self.first) + (1_u64 << (32 - self.bits)) - 1;
        let edge = u64::from(self.bits < 31);
        (u64::from(self.first) + edge..=last - edge).map(|host| Ipv4Addr::from(host as u32))
    }
}

/// What was found at an address.
#[derive(Debug, Serialize)]
struct Found {
    address: String,
    /// The driver, if it is a PDU that is known.
    driver: Option<String>,
    /// Its title, or why there is none.
    text: String,
    /// The PDUs that the agent there speaks for, as `chain_unit` names them, if they are several.
    units: Vec<String>,
}

/// What is looked for, and how.
pub struct Search<'s> {
    /// The network.
    pub range: &'s str,
    /// Networks that may be asked beside the private ones.
    pub allow: &'s [String],
    /// Addresses a second.
    pub per_second: u16,
    /// The name that the secret is given in the printed configuration.
    pub secret: &'s str,
    /// As JSON instead.
    pub json: bool,
}

/// Asks every address of a network, prints what is there.
pub async fn discover(
    search: &Search<'_>,
    catalog: Catalog,
    target: impl Fn(Address) -> Result<Target, Exit>,
) -> Outcome {
    let range = Range::parse(search.range).map_err(Exit::usage)?;
    if range.bits < WIDEST {
        return Err(Exit::usage(anyhow!(
            "{} is too wide: at most a /{WIDEST} at once",
            search.range
        )));
    }
    let named: Result<Vec<Range>, _> =
        OWN.into_iter().chain(search.allow.iter().map(String::as_str)).map(Range::parse).collect();
    if !named.map_err(Exit::usage)?.iter().any(|allowed| allowed.holds(range)) {
        return Err(Exit::usage(anyhow!(
            "{} is no private network: say that you may ask there with --allow {}",
            search.range,
            search.range
        )));
    }
    let catalog = Arc::new(catalog);
    let mut pace =
        tokio::time::interval(Duration::from_secs(1) / u32::from(search.per_second.max(1)));
    let mut asked = JoinSet::new();
    let mut count = 0;
    for host in range.hosts() {
        pace.tick().await;
        let target = target(Address { host: host.to_string(), port: range.port })?;
        let catalog = catalog.clone();
        count += 1;
        asked.spawn(async move { (host, ask(&target, &catalog).await) });
    }
    let mut found: Vec<(Ipv4Addr, Found)> = Vec::new();
    while let Some(answer) = asked.join_next().await {
        let (host, one) = answer.map_err(Exit::failed)?;
        found.extend(one.map(|one| (host, one)));
    }
    found.sort_by_key(|(host, _)| *host);
    let found: Vec<Found> = found.into_iter().map(|(_, one)| one).collect();
    if search.json {
        return out::json(&found);
    }
    for one in &found {
        out::line(&sections(one, search.secret));
    }
    let pdus: usize =
        found.iter().filter(|one| one.driver.is_some()).map(|one| one.units.len().max(1)).sum();
    out::line(&format!(
        "# {count} addresses asked, {} answered, {pdus} of them PDUs that are known",
        found.len()
    ));
    Ok(())
}

/// Nothing where nobody answers.
async fn ask(target: &Target, catalog: &Catalog) -> Option<Found> {
    let manners = Manners { timeout_ms: Some(ANSWER_MS), attempts: Some(1), write_gap_ms: None };
    let address = target.address()?;
    let shown = if address.port == 161 { address.host.clone() } else { address.to_string() };
    let nothing =
        |text: String| Found { address: shown.clone(), driver: None, text, units: Vec::new() };
    match detect(target, catalog, manners).await {
        Ok(profile) => {
            let driver = Some(profile.id.to_string());
            let (mut text, mut units) = (profile.title.clone(), Vec::new());
            if profile.unit.is_some() {
                // Several PDUs may be behind its address: only their rows tell.
                match adopt(target, profile, None, Manners::default()).await {
                    Ok(adopted) => units = nameable(adopted.instance.units),
                    Err(failure) => text = format!("{text}; whether it has units: {failure}"),
                }
            }
            units.truncate(if units.len() > 1 { usize::MAX } else { 0 });
            Some(Found { address: shown, driver, text, units })
        }
        Err(Failure::Link(LinkError::Timeout { .. } | LinkError::Unreachable(_))) => None,
        Err(Failure::Undetected(Undetected::None { seen, near })) => {
            let seen = format!("no PDU that is known: {seen}");
            Some(nothing(std::iter::once(seen).chain(near).collect::<Vec<_>>().join("; ")))
        }
        Err(failure) => Some(nothing(failure.to_string())),
    }
}

/// The units that a configuration can name: a device may call them what it likes.
fn nameable(mut units: Vec<String>) -> Vec<String> {
    units.retain(|unit| unit.parse::<ChainUnit>().is_ok());
    units
}

/// One `[[pdu]]` for each PDU.
fn sections(found: &Found, secret: &str) -> String {
    let Found { address, driver, text, units } = found;
    // What a device says of itself goes into a comment: on one line, whatever it says.
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let Some(driver) = driver else { return format!("# {address}: {text}\n") };
    let plain =
        |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
    let section = |unit: Option<&String>| {
        let (mut id, mut chain, mut of) = (format!("pdu-{}", plain(address)), String::new(), "");
        if let Some(unit) = unit {
            id = format!("{id}-{}", plain(unit));
            chain = match unit.parse::<u32>() {
                Ok(number) if number.to_string() == *unit => format!("chain_unit = {number}\n"),
                // Of visible ASCII, which Rust and TOML quote alike.
                _ => format!("chain_unit = {unit:?}\n"),
            };
            of = ", one of several PDUs behind this address";
        }
        format!(
            "# {text}{of}\n[[pdu]]\nid     = \"{id}\"\nsnmp   = \"{address}\"\nsecret = \"{secret}\"\ndriver = \"{driver}\"\n{chain}"
        )
    };
    match units.as_slice() {
        [] => section(None),
        units => units.iter().map(|unit| section(Some(unit))).collect::<Vec<_>>().join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_hosts_that_it_has() {
        let hosts = |text: &str| Range::parse(text).unwrap().hosts().count();
        assert_eq!([hosts("10.0.0.0/24"), hosts("10.0.0.4/30"), hosts("10.0.0.4/32")], [254, 2, 1]);
        for wrong in ["10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "10.0.0/8", "a/8", "10.0.0.0/8:x"] {
            assert!(Range::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_holds_its_parts_and_no_other() {
        let range = |text| Range::parse(text).unwrap();
        assert!(range("10.0.0.0/8").holds(range("10.9.0.0/16")));
        assert!(!range("10.9.0.0/16").holds(range("10.0.0.0/8")));
        assert!(!range("10.0.0.0/8").holds(range("11.0.0.0/16")));
    }
}
