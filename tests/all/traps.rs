//! Traps and informs from net-snmp: a reason to look, never a value.

use std::process::Command;

use pmgate::sim::families::Family;

use crate::rig::{Gateway, Sim, V3, pdu_section};

/// rPDUOutletOff of PowerNet-MIB, as APC sends it when a relay opens.
const OUTLET_OFF: &str = "1.3.6.1.4.1.318.0.269";

fn traps_at(gateway: &Gateway) -> String {
    let output = gateway.running.output();
    let line = output.lines().find(|line| line.contains("traps are taken at ")).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

fn send(tool: &str, args: &[&str]) {
    let output = Command::new(tool).args(args).env("MIBS", "").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn counted(gateway: &Gateway, sender: &str) -> u64 {
    let metrics = gateway.curl().send("/metrics", &[]).body;
    let start = format!("pmgate_traps_total{{sender=\"{sender}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    line.parse::<f64>().unwrap() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_of_a_known_pdu_has_it_read_at_once_in_every_version() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections = format!(
        "[traps]\nlisten = \"127.0.0.1:0\"\n{}",
        pdu_section("pdu-a", sim.address, "fast_s = 600\nslow_s = 600\nstale_after_s = 1300")
    );
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        let at = traps_at(&gateway);
        let v3 = [&V3[..], &["-e", "0x8000000001020304"]].concat();
        let v1 = [at.as_str(), "1.3.6.1.4.1.318", "127.0.0.1", "6", "269", "42"];
        let v2 = [at.as_str(), "42", OUTLET_OFF];
        let ways: [(&str, Vec<&str>); 4] = [
            ("snmptrap", [&["-v1", "-c", "any"][..], &v1].concat()),
            ("snmptrap", [&["-v2c", "-c", "any"][..], &v2].concat()),
            ("snmpinform", [&["-v2c", "-c", "any"][..], &v2].concat()),
            ("snmptrap", [&v3[..], &v2].concat()),
        ];
        for (tool, args) in ways {
            // The next poll by itself is ten minutes away.
            let before = gateway.curl().get("/v1/pdus/pdu-a")["observed_at"].clone();
            send(tool, &args);
            gateway.wait_for("/v1/pdus/pdu-a", |pdu| pdu["observed_at"] != before);
        }
        let told = gateway.curl().get("/v1/events?last=100");
        let traps: Vec<&str> = told
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["kind"] == "pdu.trap")
            .map(|event| event["text"].as_str().unwrap())
            .collect();
        assert!(
            !traps.is_empty() && traps.iter().all(|text| text.contains(OUTLET_OFF)),
            "{traps:?}"
        );
        assert_eq!((counted(&gateway, "known"), counted(&gateway, "unknown")), (4, 0));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_and_a_liar_are_dropped_and_a_storm_costs_little() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let proxy = crate::proxy::Proxy::before(sim.address).await;
    let sections = format!(
        "[traps]\nlisten = \"127.0.0.1:0\"\n{}",
        pdu_section("pdu-a", proxy.address, "fast_s = 600\nslow_s = 600\nstale_after_s = 1300")
    );
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        let at = traps_at(&gateway);
        let until = |sender: &str, count: u64| {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while counted(&gateway, sender) < count {
                assert!(std::time::Instant::now() < end, "{sender}: {}", counted(&gateway, sender));
            }
        };
        proxy.take_requests();
        // From an address where no PDU is.
        let stranger = ["--clientaddr=127.9.9.9", "-v2c", "-c", "any", &at, "42", OUTLET_OFF];
        send("snmptrap", &stranger);
        until("unknown", 1);
        // From the right address, but without proof, or with a wrong one.
        let unproven = ["-v3", "-l", "noAuthNoPriv", "-u", "pmgate", "-e", "0x8000000001020304"];
        let wrong = [
            "-v3",
            "-l",
            "authNoPriv",
            "-u",
            "pmgate",
            "-a",
            "SHA-256",
            "-A",
            "another-pass",
            "-e",
            "0x8000000001020305",
        ];
        for args in [&unproven[..], &wrong[..]] {
            send("snmptrap", &[args, &[at.as_str(), "42", OUTLET_OFF]].concat());
        }
        until("unreadable", 2);
        assert_eq!(proxy.take_requests().len(), 0);
        // A storm: one look at once, one after it, and no more for as long as it lasts.
        for _ in 0..30 {
            send("snmptrap", &["-v2c", "-c", "any", &at, "42", OUTLET_OFF]);
        }
        until("known", 30);
        assert_eq!(counted(&gateway, "known"), 30, "an unproven trap was taken");
        let polls = gateway.curl().get("/v1/events?last=100");
        let told = polls.as_array().unwrap().iter().filter(|e| e["kind"] == "pdu.trap").count();
        assert!((1..=3).contains(&told), "{told} events of 30 traps");
        let requests = proxy.take_requests().len();
        assert!((1..=12).contains(&requests), "{requests} requests of 30 traps");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_not_acknowledged_and_noise_is_counted_and_told_once() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections =
        format!("[traps]\nlisten = \"127.0.0.1:0\"\n{}", pdu_section("pdu-a", sim.address, ""));
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        let at = traps_at(&gateway);
        let inform = |from: &str| {
            let args = [from, "-v2c", "-c", "any", "-r", "0", "-t", "1", &at, "42", OUTLET_OFF];
            Command::new("snmpinform").args(args).env("MIBS", "").output().unwrap().status.success()
        };
        assert!(!inform("--clientaddr=127.9.9.9"), "a stranger's inform was acknowledged");
        assert_eq!((counted(&gateway, "known"), counted(&gateway, "unknown")), (0, 1));
        assert!(inform("--clientaddr=127.0.0.1"), "a PDU's inform was not acknowledged");
        assert_eq!((counted(&gateway, "known"), counted(&gateway, "unknown")), (1, 1));

        let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sent = 0;
        for junk in [&b""[..], b"x", b"0", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0xff; 1400]] {
            for _ in 0..10 {
                noise.send_to(junk, &at).unwrap();
                sent += 1;
                let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
                while counted(&gateway, "unreadable") < sent {
                    assert!(std::time::Instant::now() < end, "{junk:?}");
                }
            }
        }
        assert_eq!(counted(&gateway, "unreadable"), sent);
        let output = gateway.running.output();
        let told: Vec<&str> = output.lines().filter(|line| line.contains("no traps")).collect();
        assert_eq!(told.len(), 1, "{output}");
        assert!(told[0].contains("the last came from 127.0.0.1"), "{}", told[0]);
        assert!(!output.contains("failed to parse"), "{output}");
    })
    .await
    .unwrap();
}
