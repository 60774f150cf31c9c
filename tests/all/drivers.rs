//! The table of drivers in `drivers/README.md`: made from the drivers themselves, so that it cannot promise what
//! they do not do.

use std::fmt::Write as _;
use std::path::Path;

use pmgate::model::metric::Scope;
use pmgate::profile::catalog::Catalog;
use pmgate::profile::format::{Profile, Source};

use crate::rows::Device;

/// What each driver was proven on beside the simulator: recordings of real devices, as `recordings.rs` replays them
/// where they are at hand. What stands here by its model only was recorded; what is not here was not proven at all.
const RECORDED: &[(&str, &str)] = &[
    ("powertek", "a BladeShelter (firmware v3.10.6)"),
    ("janitza", "a UMG"),
    ("apc-epdu-text", "EPDU1132M"),
    ("algcom", "PDU-08P-AC"),
    ("abb-cms700", "CMS-700"),
    ("apc-cpdu", "APDU10150SM"),
    ("apc-epdu", "EPDU1116S (without load)"),
    ("apc-masterswitch", "a MasterSwitch, 8 outlets"),
    ("apc-rpdu", "AP7900"),
    ("apc-rpdu2", "AP8959EU3, AP7900B"),
    ("apc-xpdu", "InfraStruXure PDU"),
    ("aten", "PE series, 16 outlets"),
    ("chatsworth", "K50-3D136"),
    ("cyberpower", "PDU81005"),
    ("dell-rpdu", "DELL6606"),
    ("digipower", "SWV-1623K-24N1"),
    ("rittal-pdu", "a PDU controller, 30 sockets (firmware 7.17)"),
    ("digital-loggers", "Web Power Switch Pro"),
    ("eaton-epdu", "EMA114-10"),
    ("eaton-nlogic", "EMSV0001 (rebuilt from a listing)"),
    ("fs-net", "net PDU"),
    ("geist-v5", "MG02E4W1 (without outlets)"),
    ("gude-1104", "EPC 1104"),
    ("gude-1202", "EPC 1202"),
    ("hpe-pdu3", "P9S18A"),
    ("hpe-pdumm", "PDU Management Module"),
    ("iboot", "iBoot-PDU8-2N15"),
    ("ict-dc", "ICT180S-12BRCP"),
    ("liebert-mph2", "MPHR3142"),
    ("panduit-g5", "P42D04M, P32G13M"),
    ("raritan-px1", "Dominion PX (without states)"),
    ("raritan-px2", "a PX2, PX3-5493U-K2"),
    ("rnx-updu", "RN3214"),
    ("schleifenbauer", "DPM27e"),
    ("sentry3", "CW-24V2C458, CWG-30VDE455 (without states)"),
    ("sentry4", "Switched, 8 outlets"),
    ("tripplite", "PDUMV30HVNETLX"),
    ("wti", "VMR-8HD20"),
    ("netio", "pymodbus with the manual's registers"),
];

fn reads(profile: &Profile) -> String {
    let scopes = [
        (Scope::Inlet, "inlet"),
        (Scope::Phase, "phases"),
        (Scope::Branch, "branches"),
        (Scope::Outlet, "outlets"),
        (Scope::Sensor, "sensors"),
    ];
    let has = |scope| {
        let sums = scope == Scope::Inlet && !profile.sums.is_empty();
        sums || profile.points.iter().any(|spec| spec.point.scope == scope)
    };
    let named: Vec<&str> =
        scopes.into_iter().filter(|(scope, _)| has(*scope)).map(|(_, name)| name).collect();
    named.join(", ")
}

fn table() -> String {
    let catalog = Catalog::embedded().unwrap();
    let mut text = String::from(
        "| driver | family | speaks | reads | switches | proven on |\n|---|---|---|---|---|---|\n",
    );
    for profile in catalog.iter() {
        let speaks = if profile.speech.is_snmp() { "SNMP" } else { "Modbus TCP, RTU" };
        let switches = if profile.on.is_empty() { "nothing" } else { "on, off" };
        let id = profile.id.as_str();
        let recorded = RECORDED.iter().find(|(driver, _)| *driver == id).map(|(_, what)| *what);
        let simulated = ["apc-rpdu2", "raritan-px2", "sentry4"].contains(&id);
        let own = match (simulated, profile.proofs.is_empty(), recorded) {
            (true, ..) => Some("our simulator"),
            (false, false, None) => Some("our own recording, made from its MIB"),
            _ if !profile.speech.is_snmp() && id != "netio" => {
                Some("registers of our own, made from its map")
            }
            _ => None,
        };
        let proven: Vec<&str> = recorded.into_iter().chain(own).collect();
        let proven = if proven.is_empty() { "nothing yet".to_owned() } else { proven.join("; ") };
        let title = &profile.title;
        writeln!(
            text,
            "| `{id}` | {title} | {speaks} | {} | {switches} | {proven} |",
            reads(profile)
        )
        .unwrap();
    }
    text
}

#[test]
fn the_table_in_the_readme_is_what_the_drivers_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let table = table();
    assert!(readme.contains(&table), "put this into drivers/README.md:\n\n{table}");
}

#[test]
fn nothing_is_said_of_a_driver_that_is_not_there() {
    let catalog = Catalog::embedded().unwrap();
    for (driver, _) in RECORDED {
        assert!(catalog.get(&driver.parse().unwrap()).is_some(), "there is no driver {driver}");
    }
}

#[test]
fn every_driver_tells_the_same_story() {
    for profile in Catalog::embedded().unwrap().iter() {
        let id = &profile.id;
        // Who can switch on can switch off, and sees the state that verifies it.
        assert_eq!(profile.on.is_empty(), profile.off.is_empty(), "{id}");
        let sees = profile.points.iter().any(|spec| spec.point.to_string() == "outlet.state");
        assert!(profile.on.is_empty() || sees, "{id} switches blindly");
        // Whoever speaks SNMP is proven on a recording of ours, which a clone of the project has, too.
        assert!(!profile.proofs.is_empty() || !profile.speech.is_snmp(), "{id} has no [[proof]]");
        // Only Modbus devices, which tell nothing of themselves, may have no rule to be found by.
        assert!(!profile.detect.is_empty() || !profile.speech.is_snmp(), "{id} cannot be detected");
    }
}

/// The driver of the walk-through, and a recording of the device that it tells of.
#[test]
fn the_walk_through_works_as_it_is_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("drivers/README.md")).unwrap();
    let driver = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("acme.toml");
    std::fs::write(&file, driver).unwrap();
    let base = "1.3.6.1.4.1.99999.1";
    let mut rows = format!(
        "1.3.6.1.2.1.1.2.0|6|{base}\n{base}.1.1.0|4|Strip 8\n{base}.1.2.0|4|<private>\n{base}.2.1.0|2|4125\n"
    );
    for outlet in 1..=8 {
        let (state, current) = if outlet == 1 { (2, 0) } else { (1, 880) };
        rows += &format!("{base}.3.1.2.{outlet}|2|{state}\n{base}.3.1.3.{outlet}|2|{current}\n");
    }
    let recording = dir.path().join("acme.snmprec");
    std::fs::write(&recording, rows).unwrap();
    let at = |path: &Path| path.to_str().unwrap().to_owned();
    let (out, err, code) = crate::rig::pmgate(&["driver", "check", &at(&file)], &[]);
    assert_eq!(code, 0, "{out}{err}");
    let prove = ["driver", "prove", &at(&file), "--recordings", &at(dir.path())];
    let (out, err, code) = crate::rig::pmgate(&prove, &[]);
    assert_eq!(code, 0, "{out}{err}");
    // Read over the wire, detected among all the others.
    let listen = format!("127.0.0.1:{}", crate::rig::free_udp_port());
    let args = ["sim", "--recording", &at(&recording), "--listen", &listen];
    let _sim = crate::rig::Running::start(&args, &[], "ready");
    let read = ["driver", "read", "--snmp", &listen, "--drivers", &at(dir.path()), "--json"];
    let (out, err, code) = crate::rig::pmgate(&read, &[]);
    assert_eq!(code, 0, "{err}");
    let body: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&body["driver"], &body["outlets"][0]["state"]),
        (&"acme-strip".into(), &"off".into())
    );
    assert_eq!(body["inlet"]["power_w"], 412.5);
}

/// A whole driver, with one part of it written otherwise.
fn loaded(from: &str, to: &str) -> Result<Profile, String> {
    let text = "format = 1\n[driver]\nid = \"x\"\ntitle = \"X\"\nvendor = \"X\"\nprotocol = \"snmp\"\n[snmp]\n[[detect]]\n\
        read = { oid = \"1.3.6.1.2.1.1.2.0\" }\nunder = \"1.3.6.1.4.1.9.1\"\n[identity]\nmodel = \"1.3.6.1.4.1.9.1.1.0\"\n\
        [known]\nmodels = [\"X\"]\n[table.outlet]\nwalk = \"1.3.6.1.4.1.9.1.2\"\nindex = [\"outlet\"]\n[[point]]\n\
        name = \"outlet.state\"\nread = { oid = \"1.3.6.1.4.1.9.1.2.{outlet}\" }\nstates = { 1 = \"on\", 2 = \"off\" }\n\
        every = \"fast\"\n[control.outlet.on]\nwrite = [{ oid = \"1.3.6.1.4.1.9.1.2.{outlet}\", value = 1 }]\n\
        verify = { point = \"outlet.state\", is = \"on\", within_ms = 5000, poll_ms = 250 }\n[control.outlet.off]\n\
        write = [{ oid = \"1.3.6.1.4.1.9.1.2.{outlet}\", value = 2 }]\n\
        verify = { point = \"outlet.state\", is = \"off\", within_ms = 5000, poll_ms = 250 }\n";
    assert!(text.contains(from), "{from}");
    pmgate::profile::load("x.toml", &text.replace(from, to)).map_err(|faults| faults.to_string())
}

#[test]
fn a_driver_that_switches_says_what_it_was_made_for() {
    let known = "[known]\nmodels = [\"X\"]\n";
    assert!(loaded(known, known).is_ok());
    let fault = loaded(known, "").unwrap_err();
    assert!(fault.contains("a driver that switches says what it was made for"), "{fault}");
    let fault = loaded(known, "[known]\nfirmware = [\"1.\"]\n").unwrap_err();
    assert!(fault.contains("[known] names no models"), "{fault}");
    let fault = loaded(known, "[known]\nuntold = \"it is mute\"\n").unwrap_err();
    assert!(fault.contains("[identity] says where the model"), "{fault}");
    let fault = loaded("model = \"1.3.6.1.4.1.9.1.1.0\"\n", "").unwrap_err();
    assert!(fault.contains("names what [identity] does not tell"), "{fault}");
    let mute = "[identity]\nmodel = \"1.3.6.1.4.1.9.1.1.0\"\n[known]\nmodels = [\"X\"]\n";
    assert!(loaded(mute, "[identity]\n[known]\nuntold = \"it is mute\"\n").is_ok());
}

/// `[control.startup]` with one line more.
fn startup_with(line: &str) -> Result<Profile, String> {
    let verb = "[control.outlet.off]\n";
    let startup = "[control.startup]\ndelay = { oid = \"1.3.6.1.4.1.9.1.3.{outlet}\" }\nunit_ms = 1000\nrange = [0, 60]\n";
    loaded(verb, &format!("{startup}{line}\n{verb}"))
}

#[test]
fn a_driver_says_of_power_on_delays_only_what_can_be_kept() {
    let chain = "chain = { order = { oid = \"1.3.6.1.4.1.9.1.4\" } }\n";
    let sound = [
        "",
        "never = [-1]",
        chain,
        "off = { oid = \"1.3.6.1.4.1.9.1.5.{outlet}\", is = [0], last = [2], follows = { when = [3], oid = \"1.3.6.1.4.1.9.1.6\" } }",
        "unless = { oid = \"1.3.6.1.4.1.9.1.7\", is = [1] }",
    ];
    for line in sound {
        assert_eq!(startup_with(line).err(), None, "{line}");
    }
    let faults = [
        ("off = { oid = \"1.3.6.1.4.1.9.1.5.{outlet}\", is = [] }", "names no number"),
        (
            "before = { oid = \"1.3.6.1.4.1.9.1.5.{outlet}\", unit_ms = 1000 }",
            "is one for all outlets",
        ),
        ("unless = { oid = \"1.3.6.1.4.1.9.1.5.{outlet}\", is = [1] }", "is one for all outlets"),
        ("chain = { order = { oid = \"1.3.6.1.4.1.9.1.4.{outlet}\" } }", "is one for all outlets"),
        (&format!("never = [-1]\n{chain}"), "say with off"),
        (&format!("values = [0, 5]\n{chain}"), "leave it out"),
        ("never = [7]", "is within the range"),
    ];
    for (line, why) in faults {
        let fault = startup_with(line).err().unwrap_or_else(|| panic!("{line} loads"));
        assert!(fault.contains(why), "{line}: {fault}");
    }
}

#[test]
fn a_vendor_is_no_family() {
    let rule = "under = \"1.3.6.1.4.1.9.1\"\n";
    let vendor = "under = \"1.3.6.1.4.1.9\"\n";
    let fault = loaded(rule, vendor).unwrap_err();
    assert!(fault.contains("tell a vendor and no family"), "{fault}");
    let lacks = format!("{vendor}[[detect]]\noid = \"1.3.6.1.4.1.9.7.0\"\nexists = false\n");
    assert!(loaded(rule, &lacks).is_err());
    let either = format!(
        "{vendor}[[detect]]\nany = [{{ oid = \"1.3.6.1.4.1.9.7.0\", exists = true }}, {{ oid = \"1.3.6.1.4.1.9.8.0\", exists = true }}]\n"
    );
    assert_eq!(loaded(rule, &either).unwrap().detect[1].len(), 2);
}

/// The objects that tell what a device is.
fn identity_of(profile: &Profile, sources: &[Source]) -> Vec<String> {
    let row = pmgate::profile::rows::unit_row(profile, None);
    let items = sources.iter().filter_map(|source| pmgate::profile::rows::item_at(source, &row));
    let oid = |item| match item {
        pmgate::profile::sweep::Item::Oid(oid) => Some(oid.to_string()),
        _ => None,
    };
    items.filter_map(oid).collect()
}

#[tokio::test]
async fn every_driver_switches_what_it_knows_and_nothing_else() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    for profile in Catalog::embedded().unwrap().iter() {
        let id = profile.id.as_str();
        let Some(known) = profile.known.as_ref().filter(|_| !profile.on.is_empty()) else {
            continue;
        };
        if !profile.speech.is_snmp() || known.untold.is_some() {
            continue;
        }
        assert!(dir.join(format!("{id}.snmprec")).exists(), "{id}");
        let unknown = async |device: &Device| device.adopt(None).await.unwrap().unknown();
        assert_eq!(unknown(&Device::of(id)).await, None, "{id}");
        let of_model = !known.models.is_empty();
        let told = if of_model { &profile.identity.model } else { &profile.identity.firmware };
        let (mut other, mut mute) = (Device::of(id), Device::of(id));
        for oid in identity_of(profile, told) {
            other.text(&oid, "Never Heard Of 1");
            mute.without(&oid);
        }
        assert!(unknown(&other).await.is_some(), "{id}");
        assert!(unknown(&mute).await.is_some(), "{id}");
    }
}
