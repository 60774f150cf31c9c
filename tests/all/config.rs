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

/// A check of these sections, with all that they need; what it says of lines is counted from the first of them.
fn checked(sections: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    crate::rig::certificates(dir.path());
    std::fs::write(dir.path().join("community"), "public").unwrap();
    let head = "rack = \"r1\"\nlisten = \"127.0.0.1:0\"\nstate_dir = \".\"\n[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n\
         [[pdu]]\nid = \"pdu-a\"\nmodbus = \"10.0.0.1\"\ndriver = \"netio\"\n";
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, format!("{head}{sections}")).unwrap();
    let (out, err, _) = pmgate(&["config", "check", file.to_str().unwrap()], &[]);
    let before = head.lines().count();
    let line = |line: &str| {
        let (_, rest) = line.split_once("gateway.toml:")?;
        let (number, rest) = rest.split_once(':')?;
        let number: usize = number.parse().ok()?;
        Some(format!("{}:{rest}\n", number.checked_sub(before)?))
    };
    let told: String = err.lines().filter_map(line).collect();
    if told.is_empty() { out + &err } else { told }
}

#[test]
fn hosts_that_come_after_each_other_in_a_circle_are_told_with_the_place_and_the_mend() {
    let hosts = |afters: &[(&str, &str)]| -> String {
        (1..)
            .zip(afters)
            .map(|(n, (id, after))| {
                format!("[[host]]\nid = \"{id}\"\noutlets = [\"pdu-a/{n}\"]\nafter = [{after}]\n")
            })
            .collect()
    };
    // One circle of three with a host outside of it, one host by itself, and what does not exist.
    let told = checked(&hosts(&[
        ("outside", "\"app\""),
        ("web", "\"app\""),
        ("app", "\"store\", \"db\""),
        ("db", "\"web\""),
        ("store", ""),
        ("lonely", "\"lonely\""),
        ("late", "\"store\", \"strore\""),
    ]));
    insta::assert_snapshot!(told, @r#"
    12:19: host[2].after[1]: host db comes after web, which comes after app, which comes after db: take one of these out of "after"
    24:10: host[5].after[0]: host lonely cannot come after itself: take it out
    28:19: host[6].after[1]: there is no [[host]] with id "strore"
    "#);
    let told = checked(&hosts(&[("web", "\"app\", \"db\""), ("app", "\"db\""), ("db", "")]));
    assert!(told.contains("rack r1, 1 PDUs, 3 hosts"), "{told}");
}

#[test]
fn shares_of_a_rating_that_make_no_sense_are_told_and_each_fault_at_its_own_section() {
    let told = checked(
        r#"[switching]
derate_percent = nan
inrush_percent = 0
[[limit]]
id = "feed-a"
rating_w = 1000
of = ["limit:feed-b"]
[[limit]]
id = "feed-b"
rating_w = 1000
derate_percent = -5
inrush_percent = 2001
of = ["pdu-a", "limit:feed-a"]
[[limit]]
id = "feed-c"
rating_w = 1000
derate_percent = 101
inrush_percent = 1.5
of = ["limit:nowhere"]
[[limit]]
id = "feed-d"
rating_w = 1000
derate_percent = 90
inrush_percent = 85
of = ["pdu-a"]
[[limit]]
id = "feed-e"
rating_w = 1000
of = ["pdu-a"]
pair = "feed-d"
[[limit]]
id = "feed-e"
rating_w = 1000
of = ["pdu-a"]
pair = "feed-x"
[[limit]]
id = "feed-f"
rating_w = 1000
of = ["pdu-a"]
pair = "feed-x"
"#,
    );
    insta::assert_snapshot!(told, @r#"
    2:18: switching.derate_percent: is a decimal number and should be a whole number from 1 to 100
    3:18: switching.inrush_percent: 0 is out of bounds: from 1 to 2000
    7:6: limit[0].of: "feed-a" stands above "feed-b", which stands above it
    11:18: limit[1].derate_percent: -5 is out of bounds: from 1 to 100
    12:18: limit[1].inrush_percent: 2001 is out of bounds: from 1 to 2000
    13:6: limit[1].of: "feed-b" stands above "feed-a", which stands above it
    17:18: limit[2].derate_percent: 101 is out of bounds: from 1 to 100
    18:18: limit[2].inrush_percent: is a decimal number and should be a whole number from 1 to 2000
    19:6: limit[2].of: there is no [[limit]] with id "nowhere"
    24:18: limit[3].inrush_percent: 85 is less than the 90 that may flow for long (derate_percent): write 90 or more, or leave it out
    30:8: limit[4].pair: names "feed-d", which has none: write pair in both
    31:1: limit[5]: the id "feed-e" is given twice
    40:8: limit[6].pair: there is no [[limit]] with id "feed-x"
    "#);
    let told = checked(
        r#"[[limit]]
id = "feed-a"
rating_w = 1000
of = ["pdu-a", "pdu-a/3", "pdu-a/B1"]
pair = "feed-a"
[[limit]]
id = "pdu-a/B1"
rating_w = 1000
of = ["pdu-a/B1", "pdu-a/B1"]
[[outlet]]
id = "pdu-a/1"
phases = ["L1", "L1"]
"#,
    );
    insta::assert_snapshot!(told, @r#"
    1:1: limit[0]: of counts pdu-a/3 twice: name it once, or its PDU as a whole
    1:1: limit[0]: of counts pdu-a/B1 twice: name it once, or its PDU as a whole
    5:8: limit[0].pair: names itself: name the other limit, and write pair in both
    6:1: limit[1]: of counts pdu-a/B1 twice: name it once, or its PDU as a whole
    6:1: limit[1]: the id "pdu-a/B1" is that of a part of a PDU: give it another
    12:10: outlet[0].phases: names a phase twice: an outlet is between two phases, or on three
    "#);
    let good = "[switching]\nderate_percent = 100\ninrush_percent = 2000\n[[limit]]\nid = \"feed\"\nrating_w = 1000\nderate_percent = 70\ninrush_percent = 70\nof = [\"pdu-a\"]\n";
    let told = checked(good);
    assert!(told.contains("rack r1, 1 PDUs"), "{told}");
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
fn a_rule_that_names_what_cannot_help_or_names_it_twice_is_refused() {
    let text = std::fs::read_to_string(repository("config/gateway.toml")).unwrap();
    let rule =
        |more: &str| format!("{text}\n[[shed]]\nid = \"high\"\nlimit = \"pdu-a/B1\"\n{more}\n");
    let (_, err, code) = example(&rule("outlets = [\"pdu-a/1\", \"pdu-a/2\"]"));
    assert_eq!(code, 0, "{err}");
    let (out, err, code) = example(&rule("outlets = [\"pdu-a/1\", \"pdu-b/1\", \"pdu-a/1\"]"));
    let told = out + &err;
    assert_eq!(code, 1, "{told}");
    for fault in ["\"pdu-b/1\" is not on the PDU of this limit", "outlet pdu-a/1 is named twice"] {
        assert!(told.contains(fault), "{fault}: {told}");
    }
}

#[test]
fn outlets_that_cannot_be_or_that_no_rule_switches_are_told_with_the_mend() {
    let told = checked(
        "[[host]]\nid = \"web\"\noutlets = [\"pdu-a/0\"]\n\
         [[host]]\nid = \"db\"\noutlets = [\"pdu-a/1\"]\n\
         [[group]]\nid = \"all\"\nhosts = [\"db\"]\noutlets = [\"pdu-a/3\"]\n\
         [[outlet]]\nid = \"pdu-a/1\"\ncritical = \"the core switch\"\n\
         [[outlet]]\nid = \"pdu-a/2\"\ncritical = \" \"\n\
         [[outlet]]\nid = \"pdu-a/3\"\nfeeds = \"gateway\"\n\
         [[shed]]\nid = \"high\"\nlimit = \"pdu-a/B1\"\nhosts = [\"db\"]\ngroups = [\"all\"]\noutlets = [\"pdu-a/3\", \"pdu-a/4\"]\n",
    );
    insta::assert_snapshot!(told, @r#"
    3:12: host[0].outlets[0]: there is no outlet 0: outlets are numbered from 1
    16:12: outlet[1].critical: say what for, as in critical = "the core switch"; or leave it out
    23:10: shed[0].hosts[0]: no rule switches pdu-a/1, as it is critical: the core switch: leave it out
    25:12: shed[0].outlets[0]: no rule switches pdu-a/3, as it feeds this gateway: leave it out
    "#);
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

#[test]
fn what_would_count_twice_below_a_limit_is_refused_and_a_limit_that_is_come_to_twice_is_not() {
    let told = checked(
        r#"[[limit]]
id = "l1"
rating_w = 1000
of = ["pdu-a"]
[[limit]]
id = "l2"
rating_w = 2000
of = ["limit:l1", "pdu-a/3"]
[[limit]]
id = "l3"
rating_w = 2000
of = ["limit:l1"]
[[limit]]
id = "room"
rating_w = 3000
of = ["limit:l3", "limit:l1"]
"#,
    );
    insta::assert_snapshot!(told, @r#"
    8:6: limit[1].of: counts pdu-a of "l1" and pdu-a/3 of "l2", so that some of it counts twice: name it once
    "#);
}
