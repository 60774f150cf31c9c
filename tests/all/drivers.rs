//! The table of drivers in `drivers/README.md`: made from the drivers themselves, so that it cannot promise what
//! they do not do.

use std::fmt::Write as _;
use std::path::Path;

use pmgate::model::metric::Scope;
use pmgate::profile::catalog::Catalog;
use pmgate::profile::format::Profile;

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
    let has = |scope| profile.points.iter().any(|spec| spec.point.scope == scope);
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
        let (state, current) = if outlet == 3 { (2, 0) } else { (1, 880) };
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
        (&body["driver"], &body["outlets"][2]["state"]),
        (&"acme-strip".into(), &"off".into())
    );
    assert_eq!(body["inlet"]["power_w"], 412.5);
}
