//! The gateway's configuration: from a file to a [`Config`] that cannot be wrong any more, or every fault in
//! it at once, those of the files that it names included.

mod automation;
mod hosts;
mod limits;
mod pdus;
mod sections;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::device::Settings;
use crate::link::snmp_v3::User;
use crate::model::document::{self, Fields, Item};
use crate::model::fault::{FaultList, Faults};
use crate::model::id::RackId;
use crate::profile::catalog::Catalog;
use crate::switching::Site;
use crate::tls::server::{self, Server, ServerFiles};

use sections::Credentials;

/// A checked configuration.
pub struct Config {
    /// The rack, unique in the fleet.
    pub rack: RackId,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where readings and the journal are kept.
    pub state_dir: PathBuf,
    /// The drivers at hand.
    pub catalog: Arc<Catalog>,
    /// The server's TLS.
    pub tls: Server,
    /// The devices.
    pub devices: Vec<Settings>,
    /// Hosts, locks, pauses, policy.
    pub site: Site,
    /// Where traps are taken, if they are.
    pub traps: Option<Traps>,
    /// How long readings are kept.
    pub store: crate::store::archive::Settings,
}

/// Traps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traps {
    /// Where they arrive.
    pub listen: SocketAddr,
    /// Whose SNMPv3 traps are taken.
    pub users: Vec<User>,
}

/// Reads and checks a configuration file with all that it names.
pub fn load(path: &Path) -> anyhow::Result<Config> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(check(&path.display().to_string(), &text, base)?)
}

/// Checks the text of a configuration; relative paths in it are relative to `base`.
pub fn check(file: &str, text: &str, base: &Path) -> Result<Config, FaultList> {
    let faults = Faults::of(file, text);
    let document = document::parse(text, &faults);
    let root = Fields::root(&document, &faults);
    let config = read(root, base);
    faults.or(config)
}

fn read(root: Fields<'_>, base: &Path) -> Option<Config> {
    let rack = root
        .need("rack", "the rack's name, unique in the fleet, as in \"r42\"")
        .and_then(|i| i.parsed());
    let listen = root
        .need("listen", "where the API listens, as in \"0.0.0.0:8443\"")
        .and_then(|i| socket_address(&i));
    let state_dir =
        root.need("state_dir", "where readings and the journal are kept").and_then(|i| {
            let dir = base.join(i.text()?);
            if !dir.is_dir() {
                i.fault(format!(
                    "there is no directory {}: make it, owned by the user that runs pmgate",
                    dir.display()
                ));
            }
            Some(dir)
        });
    let catalog = catalog(&root, base);
    let tls = tls(&root, base);
    let paces = sections::poll(&root);
    let secrets = sections::secrets(&root, base);
    let pdus = pdus::pdus(&root, &catalog, paces, &secrets);
    let mut site = sections::switching(&root);
    site.rack.locked = pdus.locked;
    site.rack.ratings = pdus.ratings;
    hosts::hosts(&root, &pdus.devices, base, &mut site);
    hosts::groups(&root, &pdus.devices, &mut site);
    hosts::outlets(&root, &pdus.devices, &mut site);
    site.rack.feeds = limits::feeds(&root, &pdus.devices, &site.rack);
    site.approvals = sections::approvals(&root, &site.hosts);
    let traps = root.get("traps").and_then(|item| traps(&item, &secrets));
    site.restore = automation::restore(&root);
    site.sheds = automation::sheds(&root, &pdus.devices, &site);
    site.policy = sections::policy(&root, &pdus.devices, &site.rack);
    let store = store::store(&root);
    root.done();
    let tls = tls?;
    site.revoked.clone_from(&tls.revoked);
    Some(Config {
        rack: rack?,
        listen: listen?,
        state_dir: state_dir?,
        catalog: Arc::new(catalog),
        tls,
        devices: pdus.devices,
        site,
        traps,
        store,
    })
}

fn traps(item: &Item<'_>, secrets: &BTreeMap<String, Credentials>) -> Option<Traps> {
    let fields = item.fields()?;
    let listen = fields
        .need("listen", "where traps arrive, as in \"0.0.0.0:162\"")
        .and_then(|i| socket_address(&i));
    fields.done();
    let user = |credentials: &Credentials| match credentials {
        Credentials::User(user) => Some(user.clone()),
        Credentials::Communities { .. } => None,
    };
    Some(Traps { listen: listen?, users: secrets.values().filter_map(user).collect() })
}

fn socket_address(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.text()?;
    let parsed = text.parse();
    if parsed.is_err() {
        item.fault(format!(
            "\"{text}\" is no address to listen at: write ADDRESS:PORT, as in \"0.0.0.0:8443\" or \"[::]:8443\""
        ));
    }
    parsed.ok()
}

/// The drivers in the program, and those of `drivers_dir`; faults in them are told with their own places.
fn catalog(root: &Fields<'_>, base: &Path) -> Catalog {
    let mut catalog = match Catalog::embedded() {
        Ok(catalog) => catalog,
        Err(faults) => {
            root.fault(faults);
            Catalog::default()
        }
    };
    let Some(item) = root.get("drivers_dir") else { return catalog };
    let Some(dir) = item.text().map(|text| base.join(text)) else { return catalog };
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => {
            item.fault(format!("{}: {error}", dir.display()));
            return catalog;
        }
    };
    let mut paths: Vec<PathBuf> =
        entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "toml")) {
        match std::fs::read_to_string(path) {
            Ok(text) => match crate::profile::load(&path.display().to_string(), &text) {
                Ok(profile) => catalog.add(profile),
                Err(faults) => item.fault(faults),
            },
            Err(error) => item.fault(format!("{}: {error}", path.display())),
        }
    }
    catalog
}

fn tls(root: &Fields<'_>, base: &Path) -> Option<Server> {
    let item = root.need("tls", "[tls] with certificate, key and client_ca")?;
    let fields = item.fields()?;
    let path = |key: &'static str, what: &str| {
        fields.need(key, what).and_then(|i| i.text()).map(|text| base.join(text))
    };
    let certificate = path("certificate", "the gateway's certificate chain, PEM");
    let key = path("key", "its key, PEM");
    let client_ca = path("client_ca", "the authority of client certificates, PEM");
    let crl = fields.get("crl").and_then(|i| i.text()).map(|text| base.join(text));
    fields.done();
    let (certificate, key, client_ca) = (certificate?, key?, client_ca?);
    let files = ServerFiles {
        certificate: &certificate,
        key: &key,
        client_ca: &client_ca,
        crl: crl.as_deref(),
    };
    match server::load(&files) {
        Ok(server) => Some(server),
        Err(error) => {
            item.fault(format!("{error:#}"));
            None
        }
    }
}
