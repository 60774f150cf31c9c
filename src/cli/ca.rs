//! `pmgate ca …`: the offline authority.

use std::path::Path;

use anyhow::Context as _;

use crate::model::time::{Clock as _, Stamp, SystemClock};
use crate::tls::ca::{Authority, Made, Order, Use};
use crate::tls::files::{write_public, write_secret};

use super::args::Ca;
use super::exit::Outcome;
use super::out;

/// Carries a command of the authority out.
pub fn run(command: Ca) -> Outcome {
    let now = SystemClock::start().stamp();
    match command {
        Ca::Init { dir, domain, days } => {
            let authority = Authority::init(&dir.dir, &domain, days, now)?;
            out::line(&format!(
                "made {}; its key {} never leaves this machine",
                authority.certificate_path().display(),
                dir.dir.join("ca.key").display()
            ));
        }
        Ca::Issue { dir, role, scope, host, days, name } => {
            let mut authority = Authority::open(&dir.dir)?;
            let for_use = Use::parse(&role)?;
            let days = days.unwrap_or_else(|| for_use.days());
            let made = authority.issue(&Order { for_use, name: &name, hosts: &host, days, now })?;
            store(&dir.dir, &name, &made)?;
            grant(&role, &name, &scope);
        }
        Ca::Sign { dir, role, name, host, days, csr } => {
            let mut authority = Authority::open(&dir.dir)?;
            let for_use = Use::parse(&role)?;
            let days = days.unwrap_or_else(|| for_use.days());
            let text = std::fs::read_to_string(&csr)
                .with_context(|| format!("cannot read {}", csr.display()))?;
            let made =
                authority.sign(&text, &Order { for_use, name: &name, hosts: &host, days, now })?;
            store(&dir.dir, &name, &made)?;
        }
        Ca::Revoke { dir, serial } => {
            let mut authority = Authority::open(&dir.dir)?;
            authority.revoke(&serial, now)?;
            out::line(&format!(
                "revoked {serial}; give {} to every gateway and send it SIGHUP",
                authority.crl_path().display()
            ));
        }
        Ca::Crl { dir, days } => {
            let mut authority = Authority::open(&dir.dir)?;
            authority.crl(days, now)?;
            out::line(&format!("made {}, good for {days} days", authority.crl_path().display()));
        }
        Ca::Show { dir, json } => return show(&dir.dir, json, now),
    }
    Ok(())
}

fn store(dir: &Path, name: &str, made: &Made) -> anyhow::Result<()> {
    let certificate = dir.join(format!("{name}.pem"));
    write_public(&certificate, &made.certificate)?;
    let mut text = format!("made {}, serial {}", certificate.display(), made.serial);
    if let Some(secret) = &made.key {
        let key = dir.join(format!("{name}.key"));
        write_secret(&key, secret)?;
        text.push_str(&format!(", key {}", key.display()));
    }
    out::line(&text);
    Ok(())
}

/// A scope does not stand in the certificate: it belongs into the gateway's policy, where it can be changed.
fn grant(role: &str, name: &str, scope: &[String]) {
    if scope.is_empty() {
        return;
    }
    let reach: Vec<String> = scope.iter().map(|one| format!("\"{one}\"")).collect();
    out::line("for the gateway's configuration:\n");
    out::line(&format!(
        "[[policy.grant]]\nname  = \"{name}\"\nrole  = \"{role}\"\nreach = [{}]",
        reach.join(", ")
    ));
}

fn show(dir: &Path, json: bool, now: Stamp) -> Outcome {
    let authority = Authority::open(dir)?;
    if json {
        return out::json(&authority.issued());
    }
    let state = |issued: &crate::tls::ca::Issued| match (
        &issued.revoked_at,
        issued.not_after.parse::<Stamp>(),
    ) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Ok(end)) if end < now => "expired".into(),
        _ => "valid".into(),
    };
    let rows: Vec<Vec<String>> = authority
        .issued()
        .iter()
        .map(|i| {
            vec![i.serial.clone(), i.role.clone(), i.name.clone(), i.not_after.clone(), state(i)]
        })
        .collect();
    out::table(&["SERIAL", "ROLE", "NAME", "NOT AFTER", "STATE"], &rows);
    Ok(())
}
