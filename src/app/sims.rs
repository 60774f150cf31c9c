//! `pmgate sim`, and the simulated rack of the demo.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, anyhow};
use async_snmp::{AuthProtocol, PrivProtocol};
use tokio_util::sync::CancellationToken;

use crate::cli::args::Sim;
use crate::cli::exit::{Exit, Outcome};
use crate::cli::out;
use crate::link::recording::Recording;
use crate::link::snmp_v3::User;
use crate::model::document::{self, Fields, Item};
use crate::model::fault::Faults;
use crate::model::secret::Secret;
use crate::model::time::{Clock, SystemClock};
use crate::sim::families::Family;
use crate::sim::physics::Pdu;
use crate::sim::recording::Rule;
use crate::sim::snmp::Access;

/// SNMPv3 user of simulated PDUs.
pub const USER: &str = "pmgate";
/// Its passphrase for authentication: nothing is protected by it but simulated loads.
pub const AUTH: &str = "simulated-auth";
/// Its passphrase for privacy.
pub const PRIV: &str = "simulated-priv";

/// How a simulated PDU is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SNMPv2c.
    V2c,
    /// SNMPv3 authPriv.
    V3,
    /// Modbus TCP.
    Modbus,
}

/// A simulated PDU that runs.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its id.
    pub id: String,
    /// What it is, for people.
    pub title: String,
    /// Which SNMP family it plays, if one.
    pub family: Option<Family>,
    /// How it is talked to.
    pub kind: Kind,
    /// Where.
    pub address: SocketAddr,
}

/// What is simulated.
struct Spec {
    id: String,
    family: Option<Family>,
    v3: bool,
    listen: SocketAddr,
    outlets: u16,
    phases: u16,
    branches: u16,
    load_percent: u16,
    seed: u64,
}

/// Runs simulated PDUs until the program is ended.
pub async fn run(args: Sim) -> Outcome {
    let stop = CancellationToken::new();
    match &args.config {
        Some(path) => {
            let text = read(path)?;
            for sim in start(&text, &path.display().to_string(), &stop).await? {
                out::line(&format!("{}  {}  at {}", sim.id, sim.title, sim.address));
            }
        }
        None => recordings(&args, &stop).await?,
    }
    out::line("ready");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(Exit::failed)?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map_err(Exit::failed)?,
        _ = terminate.recv() => {}
    }
    stop.cancel();
    Ok(())
}

async fn recordings(args: &Sim, stop: &CancellationToken) -> Outcome {
    if args.recording.len() != args.listen.len() {
        return Err(Exit::usage(anyhow!(
            "give as many --listen as --recording: {} and {}",
            args.listen.len(),
            args.recording.len()
        )));
    }
    let rules = match &args.rules {
        Some(path) => Rule::parse_all(&read(path)?).with_context(|| path.display().to_string())?,
        None => Vec::new(),
    };
    let user = crate::cli::driver::user(&args.user)?;
    for (path, listen) in args.recording.iter().zip(&args.listen) {
        let recording =
            Recording::parse(&read(path)?).with_context(|| path.display().to_string())?;
        let access = match &user {
            Some(user) => Access::User(user.clone()),
            None => Access::Communities {
                read: args.community.clone(),
                write: args.write_community.clone(),
            },
        };
        let address =
            crate::sim::recording::serve(recording, rules.clone(), *listen, access, stop.clone())
                .await?;
        out::line(&format!("{} answers at {address}", path.display()));
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the outlets of a rack draw, in percent: as little as where either side of a rack is to carry both,
/// so one host after the other is cycled without a wait until the last one's start is over.
const LOAD: u16 = 60;

/// A rack of PDUs: APC, Raritan, Server Technology and NETIO in turn; `config/sim.toml` is this for four.
pub fn rack(pdus: u16, outlets: u16, first_port: u16) -> String {
    let mut text = String::from(
        "# Simulated PDUs on loopback, for \"pmgate sim --config FILE\". Loads have physics: steady draw with noise,\n\
         # boot peak, inrush, energy that integrates power; relays take a quarter of a second. An outlet draws\n\
         # 220 to 360 W, or so many percent of that as load_percent says.\n\
         # family: apc-rpdu2, raritan-px2, sentry4 (SNMP, communities public and private), netio (Modbus TCP);\n\
         # snmp_version = \"3\" answers to user pmgate with SHA-256 \"simulated-auth\" and AES-128 \"simulated-priv\".\n",
    );
    for at in 0..pdus {
        let (family, more) = match at % 4 {
            0 => ("apc-rpdu2", ""),
            1 => ("raritan-px2", "snmp_version = \"3\"\n"),
            2 => ("sentry4", ""),
            _ => ("netio", ""),
        };
        let port = if first_port == 0 { 0 } else { first_port + at };
        let (phases, branches) = if family == "netio" || outlets < 6 { (1, 1) } else { (3, 3) };
        // A String takes every line.
        write!(
            text,
            "\n[[pdu]]\nid       = \"{}\"\nfamily   = \"{family}\"\n{more}listen   = \"127.0.0.1:{port}\"\n\
             outlets  = {outlets}\nphases   = {phases}\nbranches = {branches}\nload_percent = {LOAD}\nseed     = {}\n",
            pdu_id(at),
            at + 1
        )
        .ok();
    }
    text
}

/// pdu-a … pdu-z, pdu-27, …
fn pdu_id(at: u16) -> String {
    match u8::try_from(at) {
        Ok(letter) if letter < 26 => format!("pdu-{}", char::from(b'a' + letter)),
        _ => format!("pdu-{}", at + 1),
    }
}

/// Starts the PDUs of a simulation file.
pub async fn start(
    text: &str,
    file: &str,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Running>> {
    let faults = Faults::of(file, text);
    let document = document::parse(text, &faults);
    let root = Fields::root(&document, &faults);
    let list = root.need("pdu", "the PDUs to simulate").map_or(Vec::new(), |list| list.list());
    let specs: Vec<Spec> = list.iter().filter_map(spec).collect();
    root.done();
    let specs = faults.or(Some(specs))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let mut running = Vec::new();
    for spec in specs {
        running.push(spec.start(clock.clone(), stop.clone()).await?);
    }
    Ok(running)
}

fn spec(item: &Item<'_>) -> Option<Spec> {
    let fields = item.fields()?;
    let families: Vec<(&str, Option<Family>)> = Family::ALL
        .iter()
        .map(|(name, family)| (*name, Some(*family)))
        .chain([("netio", None)])
        .collect();
    let id = fields.need("id", "its id").and_then(|i| i.text());
    let family = fields.need("family", "which family").and_then(|i| i.one_of(&families));
    let v3 = fields
        .get("snmp_version")
        .and_then(|i| i.one_of(&[("2c", false), ("3", true)]))
        .unwrap_or(false);
    let listen = fields
        .need("listen", "where it listens, as in \"127.0.0.1:16100\"")
        .and_then(|i| i.parsed::<SocketAddr>());
    let number = |key: &'static str, default: i64, most: i64| {
        fields.get(key).and_then(|i| i.integer(1..=most)).unwrap_or(default)
    };
    let (outlets, phases, branches, load_percent, seed) = (
        number("outlets", 24, 48),
        number("phases", 1, 3),
        number("branches", 1, 12),
        number("load_percent", 100, 300),
        number("seed", 1, i64::MAX),
    );
    fields.done();
    Some(Spec {
        id: id?.to_owned(),
        family: family?,
        v3,
        listen: listen?,
        outlets: outlets as u16,
        phases: phases as u16,
        branches: branches as u16,
        load_percent: load_percent as u16,
        seed: seed as u64,
    })
}

impl Spec {
    async fn start(
        self,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> anyhow::Result<Running> {
        let mut pdu = Pdu::new(self.seed, self.outlets, self.phases, self.branches);
        pdu.scale_loads(self.load_percent);
        let pdu = Arc::new(Mutex::new(pdu));
        let serial = format!("SIM{:08}", self.seed);
        let (kind, title, address) = match self.family {
            Some(family) => {
                let access = if self.v3 { Access::User(user()) } else { communities() };
                let address =
                    crate::sim::snmp::serve(family, pdu, &serial, self.listen, access, clock, stop)
                        .await?;
                let name =
                    Family::ALL.iter().find(|(_, one)| *one == family).map_or("", |(name, _)| name);
                let kind = if self.v3 { Kind::V3 } else { Kind::V2c };
                (
                    kind,
                    format!(
                        "{name}, {}",
                        if self.v3 { "SNMPv3 authPriv SHA-256/AES-128" } else { "SNMPv2c" }
                    ),
                    address,
                )
            }
            None => (
                Kind::Modbus,
                "netio, Modbus TCP".to_owned(),
                crate::sim::modbus::serve(pdu, self.listen, clock, stop).await?,
            ),
        };
        Ok(Running { id: self.id, title, family: self.family, kind, address })
    }
}

fn communities() -> Access {
    Access::Communities { read: "public".into(), write: "private".into() }
}

fn user() -> User {
    User {
        name: USER.into(),
        auth: Some((AuthProtocol::Sha256, Secret::new(AUTH.into()))),
        privacy: Some((PrivProtocol::Aes128, Secret::new(PRIV.into()))),
        context: String::new(),
    }
}
