//! Switching is believed by its outcome: what an outlet draws must follow its relay, and a device that its driver does
//! not know is not switched.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::rig::{Curl, Gateway, Running, free_udp_port, pdu_section, pmgate};

const TREE: &str = "1.3.6.1.4.1.318.1.1.26";

/// A recorded PDU of four loaded outlets, changed by `edit`, whose writes do what the rules say.
struct Liar {
    _sim: Running,
    _dir: tempfile::TempDir,
    address: std::net::SocketAddr,
}

fn liar(rules: &str, edit: impl Fn(String) -> String) -> Liar {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recording =
        std::fs::read_to_string(root.join("tests/recordings/apc-rpdu2.snmprec")).unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let recording = write("device.snmprec", &edit(recording));
    // Every relay obeys.
    let relays = format!("{TREE}.9.2.4.1.5 -> {TREE}.9.2.3.1.5 1:2, 2:1\n");
    let rules = write("device.rules", &(relays + rules));
    let listen = format!("127.0.0.1:{}", free_udp_port());
    let args = ["sim", "--recording", recording.to_str().unwrap(), "--listen", &listen, "--rules"];
    let args = [&args[..], &[rules.to_str().unwrap()]].concat();
    let sim = Running::start(&args, &[], "ready");
    Liar { _sim: sim, _dir: dir, address: listen.parse().unwrap() }
}

fn load(outlet: u16, follows: u16) -> String {
    format!("{TREE}.9.2.4.1.5.{outlet} -> {TREE}.9.4.3.1.7.{follows} 2:0, 1:=\n")
}

fn gateway(device: &Liar, more: &str) -> Gateway {
    let more = format!("write_gap_ms = 0\n{more}");
    let gateway = Gateway::start(&pdu_section("pdu-a", device.address, &more));
    gateway.wait_online("pdu-a");
    gateway
}

fn detail(answer: &crate::rig::Answer) -> String {
    answer.json()["detail"].as_str().unwrap().to_owned()
}

#[test]
fn a_load_that_stays_is_no_verified_off_unless_the_site_says_so() {
    // The fourth outlet shows that the meters live: 350 W after 356.
    let lives = format!("{TREE}.9.2.4.1.5.2 -> {TREE}.9.4.3.1.7.4 2:350\n");
    let device = liar(&(load(1, 1) + &lives), |recording| recording);
    let gateway = gateway(&device, "");
    let good = gateway.curl().power("pdu-a/1", "off");
    assert_eq!((good.status, &good.json()["outcome"]), (200, &"done".into()), "{good:?}");
    let bad = gateway.curl().power("pdu-a/2", "off");
    assert_eq!(bad.status, 504, "{bad:?}");
    assert!(detail(&bad).contains("reads off, but still draws 307 W"), "{bad:?}");
    assert_eq!(gateway.curl().get("/v1/pdus/pdu-a/outlets/2")["locked"], false);
    // The site knows that this meter tells nothing.
    let more = "write_gap_ms = 0\nwatts_follow = false";
    let pdu = pdu_section("pdu-a", device.address, more);
    Gateway::write_config(gateway.dir.path(), &pdu);
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/events?last=20", |events| {
        events.as_array().unwrap().iter().any(|event| event["kind"] == "config.reloaded")
    });
    let believed = gateway.curl().power("pdu-a/3", "off");
    assert_eq!(believed.status, 200, "{believed:?}");
}

#[test]
fn meters_that_stand_still_belie_no_relay() {
    let device = liar("", |recording| recording);
    let gateway = gateway(&device, "");
    let off = gateway.curl().power("pdu-a/1", "off");
    assert_eq!((off.status, &off.json()["outcome"]), (200, &"done".into()), "{off:?}");
    let told = off.json()["steps"][0]["detail"].as_str().unwrap().to_owned();
    assert!(told.contains("meters have not moved"), "{told}");
}

#[test]
fn an_outlet_whose_neighbour_goes_dark_is_locked_until_an_admin_lifts_it() {
    let device = liar(&load(2, 3), |recording| recording);
    let gateway = gateway(&device, "");
    // The plan stops: what was switched off by mistake is not switched on by mistake.
    let cycle = gateway.curl().power("pdu-a/2", "cycle");
    assert_eq!(cycle.status, 504, "{cycle:?}");
    let why = "cabling or profile mismatch: when pdu-a/2 was switched off, pdu-a/3 lost its load";
    assert!(detail(&cycle).contains(why), "{cycle:?}");
    let plan = &gateway.curl().get("/v1/plans?limit=1")["plans"][0];
    assert_eq!(
        (&plan["state"], &plan["steps"][1]["state"]),
        (&"stopped".into(), &"skipped".into())
    );
    let refused = gateway.curl().power("pdu-a/2", "on");
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(detail(&refused).contains(&format!("pdu-a/2 is locked: {why}")), "{refused:?}");

    // The lock outlives a power cut of the gateway.
    let dir = gateway.kill();
    let pdu = pdu_section("pdu-a", device.address, "write_gap_ms = 0");
    let gateway = Gateway::in_dir(dir, &pdu, &[]);
    gateway.wait_online("pdu-a");
    let outlet = gateway.curl().get("/v1/pdus/pdu-a/outlets/2");
    assert_eq!(outlet["locked"], true);
    assert!(outlet["lock_reason"].as_str().unwrap().starts_with("cabling"), "{outlet}");
    assert_eq!(gateway.curl().power("pdu-a/2", "on").status, 409);

    let path = "/v1/pdus/pdu-a/outlets/2/lock";
    assert_eq!(gateway.curl().send(path, &["-X", "DELETE"]).status, 403);
    let admin = Curl::new(gateway.dir.path(), &gateway.url, "admin");
    let lifted = admin.send(path, &["-X", "DELETE"]);
    assert_eq!((lifted.status, &lifted.json()["locked"]), (200, &Value::Bool(false)), "{lifted:?}");
    assert_eq!(gateway.curl().power("pdu-a/2", "on").status, 200);
}

#[test]
fn an_idle_outlet_whose_neighbour_goes_dark_is_locked_too() {
    let idle = |text: String| {
        text.replace(&format!("{TREE}.9.4.3.1.7.2|2|307"), &format!("{TREE}.9.4.3.1.7.2|2|0"))
    };
    let device = liar(&load(2, 4), idle);
    let gateway = gateway(&device, "");
    let off = gateway.curl().power("pdu-a/2", "off");
    assert_eq!(off.status, 200, "{off:?}");
    let locked = gateway.wait_for("/v1/pdus/pdu-a/outlets/2", |outlet| outlet["locked"] == true);
    assert!(locked["lock_reason"].as_str().unwrap().contains("pdu-a/4 lost its load"), "{locked}");
    gateway.wait_for("/v1/events?last=20", |events| {
        events.as_array().unwrap().iter().any(|event| event["kind"] == "outlet.mismatch")
    });
}

#[test]
fn an_admin_locks_by_the_command_line() {
    let device = liar(&load(1, 1), |recording| recording);
    let gateway = gateway(&device, "");
    let file = |name: &str| gateway.dir.path().join(name).to_str().unwrap().to_owned();
    let run = |who: &str, words: &[&str]| {
        let (cert, key, ca) =
            (file(&format!("{who}.pem")), file(&format!("{who}.key")), file("ca.pem"));
        let client = ["--url", &gateway.url, "--cert", &cert, "--key", &key, "--ca", &ca];
        pmgate(&[words, &client].concat(), &[])
    };
    let (out, err, code) =
        run("admin", &["outlet", "lock", "pdu-a/1", "--reason", "feeds the switch"]);
    assert_eq!(code, 0, "{out}{err}");
    let (_, err, code) = run("client", &["outlet", "off", "pdu-a/1"]);
    assert!(code == 1 && err.contains("locked: feeds the switch"), "{err}");
    let (_, err, code) = run("client", &["outlet", "unlock", "pdu-a/1"]);
    assert!(code == 1 && err.contains("admin"), "{err}");
    let (_, err, code) = run("admin", &["outlet", "lock", "pdu-a/99", "--reason", "x"]);
    assert!(code == 1 && err.contains("there is no outlet pdu-a/99"), "{err}");
    let (out, err, code) = run("admin", &["outlet", "unlock", "pdu-a/1"]);
    assert_eq!(code, 0, "{out}{err}");
    let (out, err, code) = run("client", &["outlet", "off", "pdu-a/1"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn an_unknown_model_or_firmware_is_read_and_switched_only_if_allowed() {
    for (from, to, shown) in [
        ("|AP8981", "|ZX9000", "its model is \"ZX9000\""),
        ("|v6.9.6", "|v99.1", "its firmware is \"v99.1\""),
    ] {
        let device = liar(&load(1, 1), |text| text.replace(from, to));
        let gateway = gateway(&device, "");
        let pdu = gateway.curl().get("/v1/pdus/pdu-a");
        assert_eq!(
            (&pdu["outlets"][0]["power_w"], &pdu["outlets"][0]["switchable"]),
            (&238.0.into(), &false.into())
        );
        assert!(pdu["read_only"].as_str().unwrap().contains(shown), "{pdu}");
        let refused = gateway.curl().power("pdu-a/1", "off");
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(detail(&refused).contains("allow_unknown = true"), "{refused:?}");
        let more = "write_gap_ms = 0\nallow_unknown = true";
        Gateway::write_config(gateway.dir.path(), &pdu_section("pdu-a", device.address, more));
        gateway.running.signal("HUP");
        gateway.wait_for("/v1/pdus/pdu-a", |pdu| pdu["read_only"].is_null());
        assert_eq!(gateway.curl().power("pdu-a/1", "off").status, 200);
    }
}

/// A family that lists the states of all outlets in one text, which is read, changed in one place and written whole.
#[test]
fn a_list_that_cannot_be_said_back_is_not_written() {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let of = |name: &str| recordings.join(name).to_str().unwrap().to_owned();
    let start = |recording: &str| {
        let listen = format!("127.0.0.1:{}", free_udp_port());
        let (recording, rules) = (of(recording), of("digipower.rules"));
        let args = ["sim", "--recording", &recording, "--listen", &listen, "--rules", &rules];
        let sim = Running::start(&args, &[], "ready");
        let gateway = Gateway::start(&pdu_section("pdu-a", listen.parse().unwrap(), ""));
        gateway.wait_online("pdu-a");
        (sim, gateway)
    };
    // Outlet 3 says that its breaker is open.
    let (_sim, gateway) = start("digipower-breaker.snmprec");
    let answer = gateway.curl().power("pdu-a/1", "off");
    assert_eq!(answer.json()["outcome"], "failed", "{}", answer.body);
    assert!(answer.body.contains("nothing was sent"), "{}", answer.body);
    assert!(answer.body.contains("\\\"-2\\\" for outlet 3"), "{}", answer.body);
    let states = |gateway: &Gateway| -> Vec<Value> {
        let outlets = gateway.curl().get("/v1/pdus/pdu-a/outlets?max_age_ms=0");
        outlets["outlets"].as_array().unwrap().iter().map(|o| o["state"].clone()).collect()
    };
    assert_eq!(states(&gateway), ["on", "off", "unknown", "on"]);
    let (_sim, gateway) = start("digipower.snmprec");
    assert_eq!(gateway.curl().power("pdu-a/1", "off").json()["outcome"], "done");
    assert_eq!(gateway.curl().power("pdu-a/3", "off").json()["outcome"], "done");
    assert_eq!(states(&gateway), ["off", "off", "off", "on"]);
}
