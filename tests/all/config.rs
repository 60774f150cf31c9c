//! The configuration: every fault at once, the files in `config/`, and what a reload may not do.

use std::path::{Path, PathBuf};

use pmgate::sim::families::Family;

use crate::rig::{Demo, Gateway, Sim, pdu_section, pmgate};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_fault_is_told_at_once_with_its_place_and_mend() {
    let dir = tempfile::tempdir().unwrap();
    crate::rig::certificates(dir.path());
    std::fs::write(dir.path().join("open"), "public").unwrap();
    let text = r#"rack = "R 42"
listen = "8443"
state_dir = "nowhere"
colour = "red"
[tls]
certificate = "server.pem"
key = "client.key"
client_ca = "missing.pem"
[poll]
fast_s = 0
slow_s = "often"
[secret.a]
community_file = "open"
[secret.b]
user = "x"
priv_password_file = "absent"
[[pdu]]
id = "pdu-a"
snmp = "10.0.0.1:99999"
secret = "c"
[[pdu]]
id = "pdu-b"
snmp = "10.0.0.2"
secret = "a"
drivr = "auto"
[[pdu]]
id = "pdu-b"
modbus = "10.0.0.3"
driver = "apc-rpdu2"
[[host]]
id = "web"
outlets = ["pdu-x/1", "pdu-b"]
[[policy.grant]]
role = "king"
reach = ["pdu-y"]
"#;
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, text).unwrap();
    let (out, err, code) = pmgate(&["config", "check", file.to_str().unwrap()], &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    let err = err.replace(dir.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!("config_faults", err);
}

#[test]
fn a_file_that_is_no_toml_is_told_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.toml");
    std::fs::write(&file, "rack = \"r1\"\nlisten = \n").unwrap();
    let (_, err, code) = pmgate(&["config", "check", file.to_str().unwrap()], &[]);
    assert_eq!(code, 1);
    assert!(err.contains("x.toml:2:"), "{err}");
    let (_, err, code) = pmgate(&["config", "check", "/nonexistent.toml"], &[]);
    assert!(code == 1 && err.contains("/nonexistent.toml"), "{err}");
}

/// The example of the repository, with the files that it names beside it.
fn example(text: &str) -> (String, String, i32) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    crate::rig::certificates(dir.path());
    for sub in ["tls", "secrets", "drivers", "var"] {
        std::fs::create_dir(at(sub)).unwrap();
    }
    for (from, to) in [
        ("server.pem", "tls/server.pem"),
        ("server.key", "tls/server.key"),
        ("ca.pem", "tls/ca.pem"),
        ("ca/crl.pem", "tls/crl.pem"),
    ] {
        std::fs::copy(at(from), at(to)).unwrap();
    }
    for name in ["community", "write-community", "auth", "priv", "kube-token"] {
        use std::os::unix::fs::PermissionsExt as _;
        let file = at("secrets").join(name);
        std::fs::write(&file, "a-long-secret\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = text.replace("/var/lib/pmgate", "var");
    std::fs::write(at("gateway.toml"), text).unwrap();
    pmgate(&["config", "check", at("gateway.toml").to_str().unwrap()], &[])
}

#[test]
fn the_commented_example_is_good_also_with_its_comments_taken_away() {
    let text = std::fs::read_to_string(repository("config/gateway.toml")).unwrap();
    let (out, err, code) = example(&text);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("rack r42, 3 PDUs, 1 hosts"), "{out}");
    let commented = |line: &str| {
        let rest = line.strip_prefix("# ")?;
        let is_key = rest
            .split_once(" = ")
            .is_some_and(|(key, _)| key.trim().chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        (is_key || rest.starts_with('[')).then(|| rest.to_owned())
    };
    let whole: Vec<String> =
        text.lines().map(|line| commented(line).unwrap_or_else(|| line.to_owned())).collect();
    let taken = text.lines().filter(|line| commented(line).is_some()).count();
    assert!(taken > 15, "only {taken} keys are commented out");
    let (_, err, code) = example(&whole.join("\n"));
    assert_eq!(code, 0, "{err}");
}

#[test]
fn the_demos_files_are_what_the_demo_writes() {
    let demo = Demo::start(4, 24);
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let mut gateway = read(demo.path("gateway.toml"));
    for (id, port) in [("pdu-a", 16100), ("pdu-b", 16101), ("pdu-c", 16102), ("pdu-d", 16103)] {
        gateway = gateway.replace(&demo.sim(id), &format!("127.0.0.1:{port}"));
    }
    gateway = gateway.replace("listen    = \"127.0.0.1:0\"", "listen    = \"127.0.0.1:8443\"");
    assert_eq!(gateway, read(repository("config/demo.toml")));
    let mut sim = read(demo.path("sim.toml"));
    for port in 16100..16104 {
        sim = sim.replacen("127.0.0.1:0\"", &format!("127.0.0.1:{port}\""), 1);
    }
    assert_eq!(sim, read(repository("config/sim.toml")));
}

/// When each poll was seen, from the events' side: how old the reading is, again and again.
fn oldest_reading(gateway: &Gateway, pdu: &str, until: impl Fn() -> bool) -> u64 {
    let mut oldest = 0;
    while !until() {
        let age = gateway.curl().get(&format!("/v1/pdus/{pdu}"))["age_ms"].as_u64().unwrap();
        oldest = oldest.max(age);
    }
    oldest
}

fn told(gateway: &Gateway, kind: &str) -> usize {
    let events = gateway.curl().get("/v1/events?last=100");
    events.as_array().unwrap().iter().filter(|event| event["kind"] == kind).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_loses_no_poll_and_a_faulty_one_changes_nothing() {
    let (a, b) = (Sim::start(Family::ApcRpdu2, 4).await, Sim::start(Family::Sentry4, 4).await);
    let sections =
        |pdus: &str| format!("[poll]\nfast_s = 1\nslow_s = 2\nstale_after_s = 3\n{pdus}");
    let (first, second) =
        (pdu_section("pdu-a", a.address, ""), pdu_section("pdu-b", b.address, ""));
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections(&first));
        gateway.wait_online("pdu-a");
        // A PDU more: the first goes on being polled at its pace.
        Gateway::write_config(gateway.dir.path(), &sections(&format!("{first}{second}")));
        gateway.running.signal("HUP");
        let oldest = oldest_reading(&gateway, "pdu-a", || {
            gateway.curl().send("/v1/pdus/pdu-b", &[]).status == 200
                && gateway.curl().get("/v1/pdus/pdu-b")["state"] == "online"
        });
        // One pace, and the time of a poll on a busy machine.
        assert!(oldest < 2_000, "a reading became {oldest} ms old over the reload");
        // A faulty one: told, and nothing else.
        Gateway::write_config(gateway.dir.path(), &sections("[[pdu]]\nid = \"pdu-a\"\n"));
        gateway.running.signal("HUP");
        oldest_reading(&gateway, "pdu-a", || told(&gateway, "config.refused") == 1);
        let status = gateway.curl().get("/v1/status");
        assert_eq!(status["state"], "degraded", "{status}");
        assert_eq!(gateway.curl().get("/v1/pdus")["pdus"].as_array().unwrap().len(), 2);
        // The mended one: the PDU that left is gone, the other was never away.
        Gateway::write_config(gateway.dir.path(), &sections(&second));
        gateway.running.signal("HUP");
        gateway.wait_for("/v1/pdus", |list| list["pdus"].as_array().unwrap().len() == 1);
        assert_eq!(gateway.curl().send("/v1/pdus/pdu-a", &[]).status, 404);
        assert_eq!(gateway.curl().get("/v1/status")["state"], "ok");
        assert_eq!(told(&gateway, "pdu.stale") + told(&gateway, "pdu.offline"), 0);
        // Of the drivers that a site has two are new to it: one that it changed, one of its own.
        let config = gateway.dir.path().join("gateway.toml");
        let drivers = gateway.dir.path().join("drivers");
        std::fs::create_dir(&drivers).unwrap();
        let iboot = std::fs::read_to_string("drivers/iboot.toml").unwrap();
        for (file, id) in [("iboot.toml", "iboot"), ("own.toml", "own")] {
            let text = iboot.replacen("= \"iboot\"", &format!("= \"{id}\""), 1);
            let text = text.replacen("= \"Dataprobe iBoot-PDU\"", "= \"Our iBoot-PDU\"", 1);
            assert!(text.contains(&format!("= \"{id}\"")) && text.contains("Our iBoot"), "{text}");
            std::fs::write(drivers.join(file), text).unwrap();
        }
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("drivers_dir = \"drivers\"\n{text}")).unwrap();
        gateway.running.signal("HUP");
        let changed = "0 PDUs started, 0 changed, 0 ended; 2 drivers changed";
        gateway.wait_for("/v1/events?last=100", |events| {
            let texts = events.as_array().unwrap().iter().map(|event| event["text"].as_str());
            texts.flatten().any(|text| text.ends_with(changed))
        });
    })
    .await
    .unwrap();
}
