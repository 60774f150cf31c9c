//! `pmgate demo`: a simulated rack, a gateway and a throw-away CA, with what to try printed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::access::Role;
use crate::cli::args::Demo;
use crate::cli::exit::{Exit, Outcome};
use crate::cli::out;
use crate::model::time::{Clock as _, SystemClock};
use crate::sim::families::Family;
use crate::tls::ca::{Authority, Made, Order, Use};
use crate::tls::files::{write_public, write_secret};

use super::config;
use super::gateway::{Gateway, no_core_dumps};
use super::sims;

/// How long the simulated PDUs may take to be read for the first time.
const FIRST_READ: Duration = Duration::from_secs(30);

/// Runs the demo until it is ended.
pub async fn run(args: Demo) -> Outcome {
    no_core_dumps();
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("pmgate-demo-{}", std::process::id())),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let dir = dir.canonicalize().context("the demo's directory")?;
    certificates(&dir, args.listen.ip().to_string())?;
    let rack = sims::rack(args.pdus, args.outlets, args.sim_port);
    write_public(&dir.join("sim.toml"), &rack)?;
    let stop = CancellationToken::new();
    let addresses = sims::start(&rack, "sim.toml", &stop).await?;
    secrets(&dir)?;
    let path = dir.join("gateway.toml");
    write_public(&path, &gateway_toml(&args, &addresses))?;
    std::fs::create_dir_all(dir.join("state")).context("the demo's state directory")?;
    let gateway = Gateway::start(config::load(&path)?).await?;
    gateway.all_read(FIRST_READ).await;
    print(&gateway, &dir, &addresses);
    let mut hangup = signal(SignalKind::hangup()).map_err(Exit::failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Exit::failed)?;
    loop {
        tokio::select! {
            _ = hangup.recv() => gateway.reload(&path),
            _ = terminate.recv() => break,
            result = tokio::signal::ctrl_c() => {
                result.map_err(Exit::failed)?;
                break;
            }
        }
    }
    gateway.end().await;
    stop.cancel();
    Ok(())
}

/// A CA of its own, the gateway's certificate, and one client for each role that the demo shows.
fn certificates(dir: &Path, listen: String) -> anyhow::Result<()> {
    let now = SystemClock::start().stamp();
    let ca = dir.join("ca");
    let mut authority = if ca.join("ca.key").exists() {
        Authority::open(&ca)?
    } else {
        Authority::init(&ca, "demo.powerman.local", 30, now)?
    };
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    if !hosts.contains(&listen) && listen != "0.0.0.0" && listen != "::" {
        hosts.push(listen);
    }
    let mut issue = |for_use, name: &str, files: &str| -> anyhow::Result<()> {
        let made: Made = authority.issue(&Order { for_use, name, hosts: &hosts, days: 30, now })?;
        write_public(&dir.join(format!("{files}.pem")), &made.certificate)?;
        let key = made.key.context("the certificate authority made no key")?;
        write_secret(&dir.join(format!("{files}.key")), &key)
    };
    issue(Use::Server, "gateway", "server")?;
    issue(Use::Client(Role::Operator), "operator", "client")?;
    issue(Use::Client(Role::Viewer), "viewer", "viewer")?;
    issue(Use::Client(Role::Admin), "admin", "admin")?;
    let root = std::fs::read_to_string(authority.certificate_path()).context("the demo's CA")?;
    write_public(&dir.join("ca.pem"), &root)
}

fn secrets(dir: &Path) -> anyhow::Result<()> {
    let secrets = dir.join("secrets");
    std::fs::create_dir_all(&secrets).context("the demo's secrets")?;
    for (name, secret) in [
        ("community", "public"),
        ("write-community", "private"),
        ("auth", sims::AUTH),
        ("priv", sims::PRIV),
    ] {
        write_secret(&secrets.join(name), secret)?;
    }
    Ok(())
}

/// The configuration of the demo's gateway; `config/demo.toml` is this for four PDUs.
pub fn gateway_toml(args: &Demo, sims: &[sims::Running]) -> String {
    let mut text = format!(
        "# The gateway of the demo: a simulated rack on loopback. Written by \"pmgate demo\"; every key is explained\n\
         # in config/gateway.toml.\n\
         rack      = \"demo\"\n\
         listen    = \"{}\"\n\
         state_dir = \"state\"\n\n\
         [tls]\n\
         certificate = \"server.pem\"\n\
         key         = \"server.key\"\n\
         client_ca   = \"ca.pem\"\n\
         crl         = \"ca/crl.pem\"\n\n\
         # Simulated PDUs bear more than real ones.\n\
         [poll]\n\
         fast_s        = 2\n\
         slow_s        = 10\n\
         stale_after_s = 8\n\n\
         [switching]\n\
         hold_s  = 3\n\
         fresh_s = 8\n\
         # Of a breaker of type B, in the first moment of a load.\n\
         inrush_percent = 300\n\
         # Servers of one height unit.\n\
         default_draw = {{ steady_w = 360, boot_w = 470, boot_s = 30, inrush_w = 2200, inrush_ms = 120 }}\n\n\
         [secret.v2c]\n\
         community_file       = \"secrets/community\"\n\
         write_community_file = \"secrets/write-community\"\n\n\
         [secret.v3]\n\
         user               = \"{}\"\n\
         auth_protocol      = \"SHA-256\"\n\
         auth_password_file = \"secrets/auth\"\n\
         priv_protocol      = \"AES-128\"\n\
         priv_password_file = \"secrets/priv\"\n",
        args.listen,
        sims::USER,
    );
    // A String takes every line.
    for sim in sims {
        let (id, at) = (&sim.id, sim.address);
        let reach = match sim.kind {
            sims::Kind::Modbus => format!("modbus   = \"{at}\"\ndriver   = \"netio\""),
            sims::Kind::V3 => format!("snmp     = \"{at}\"\nsecret   = \"v3\""),
            sims::Kind::V2c => format!("snmp     = \"{at}\"\nsecret   = \"v2c\""),
        };
        write!(text, "\n[[pdu]]\nid       = \"{id}\"\nlocation = \"demo rack\"\n{reach}\n").ok();
    }
    for (pair, number) in sims.chunks_exact(2).zip(1..) {
        let outlets = if args.outlets > 1 { 2 } else { 1 };
        for outlet in 1..=outlets {
            let feeds = format!("\"{}/{outlet}\", \"{}/{outlet}\"", pair[0].id, pair[1].id);
            // Raritan and Server Technology do not tell which branch an outlet is on; the first ones are on the first.
            let mute = [Some(Family::RaritanPx2), Some(Family::Sentry4)];
            for of in pair.iter().filter(|of| mute.contains(&of.family)) {
                write!(text, "\n[[outlet]]\nid      = \"{}/{outlet}\"\nbranch  = \"B1\"\n", of.id)
                    .ok();
            }
            write!(
                text,
                "\n[[host]]\nid      = \"server-{number}{}\"\noutlets = [{feeds}]\n",
                (b'a' + outlet as u8 - 1) as char
            )
            .ok();
        }
    }
    text
}

fn print(gateway: &Gateway, dir: &Path, sims: &[sims::Running]) {
    let url = format!("https://{}", gateway.address);
    let dir: PathBuf = dir.to_owned();
    let d = dir.display();
    let curl = format!("curl --cacert {d}/ca.pem --cert {d}/client.pem --key {d}/client.key");
    let post = "-X POST -H 'content-type: application/json'";
    let pdu = sims.first().map_or("pdu-a", |sim| sim.id.as_str());
    for sim in sims {
        out::line(&format!("{}  {}  at {}", sim.id, sim.title, sim.address));
    }
    out::line("");
    out::line(&format!("base URL      {url}"));
    out::line(&format!(
        "certificates  {d}   (ca.pem client.pem client.key: role operator; viewer.pem viewer.key, admin.pem admin.key)"
    ));
    out::line("");
    out::line("Try:");
    out::line(&format!("  {curl} {url}/v1/pdus"));
    out::line(&format!("  {curl} {url}/v1/pdus/{pdu}/outlets/7"));
    out::line(&format!(
        "  {curl} {post} -d '{{\"action\":\"off\",\"reason\":\"demo\"}}' {url}/v1/pdus/{pdu}/outlets/7/power"
    ));
    out::line(&format!(
        "  {curl} {post} -d '{{\"action\":\"cycle\",\"reason\":\"demo\"}}' {url}/v1/hosts/server-1a/power"
    ));
    out::line(&format!("  {curl} '{url}/v1/series?target={pdu}/7&metric=power_w&start=-5m'"));
    out::line(&format!("  {curl} -N {url}/v1/events"));
    out::line(&format!("  {curl} {url}/metrics"));
    out::line("");
    out::line("Or with the command line:");
    out::line(&format!(
        "  export PMGATE_URL={url} PMGATE_CERT={d}/client.pem PMGATE_KEY={d}/client.key PMGATE_CA={d}/ca.pem"
    ));
    // By its path: after `make demo` it is not on anyone's PATH.
    let program = std::env::current_exe();
    let program = program.map_or_else(|_| "pmgate".into(), |path| path.display().to_string());
    out::line(&format!("  {program} pdu list"));
    out::line("");
    out::line("Ctrl-C ends it.");
    out::line("ready");
}
