//! `kill -9` between any two steps of a switching ends, after the restart, in a recorded and correct outcome,
//! and nothing is written twice.

use pmgate::model::switching::Relay;
use pmgate::model::time::Tick;
use pmgate::sim::families::Family;

use crate::proxy::{Proxy, is_set};
use crate::rig::{Gateway, Sim, pdu_section};

/// The places at which the program kills itself, as the debug build knows them, in the order of a switching.
const PLACES: [&str; 6] =
    ["submitted", "intended", "before-write", "written", "verified", "recorded"];

async fn kill_at(place: &'static str, action: &'static str) {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let proxy = Proxy::before(sim.address).await;
    let sections =
        format!("[switching]\nhold_s = 1\n{}", pdu_section("pdu-a", proxy.address, "fast_s = 1"));
    let sets = || proxy.take_requests().iter().filter(|request| is_set(request)).count();
    let (gateway, killed_sets) = tokio::task::spawn_blocking({
        let (sections, proxy) = (sections.clone(), proxy.clone());
        move || {
            let dir = tempfile::tempdir().unwrap();
            let mut gateway = Gateway::in_dir(dir, &sections, &[("PMGATE_KILL_AT", place)]);
            gateway.wait_online("pdu-a");
            proxy.take_requests();
            let body = format!("{{\"action\":\"{action}\"}}");
            let output = gateway.curl().raw(
                "/v1/pdus/pdu-a/outlets/2/power",
                &["-X", "POST", "-d", &body, "-H", "idempotency-key: k"],
            );
            assert!(!output.status.success(), "{place}: the gateway answered instead of dying");
            gateway.running.ended(std::time::Duration::from_secs(20));
            let killed_sets =
                proxy.take_requests().iter().filter(|request| is_set(request)).count();
            let dir = std::mem::replace(&mut gateway.dir, tempfile::tempdir().unwrap());
            let gateway = Gateway::in_dir(dir, &sections, &[]);
            gateway.wait_online("pdu-a");
            (gateway, killed_sets)
        }
    })
    .await
    .unwrap();
    let plans = gateway.wait_for("/v1/plans", |plans| {
        plans["plans"].as_array().unwrap().iter().all(|plan| plan["state"] != "running")
    });
    let plan = &plans["plans"][0];
    let relay = sim.pdu.lock().unwrap().relay(1, Tick(u64::MAX / 2)).unwrap();
    let later_sets = sets();
    let written = killed_sets > 0;
    match (place, action) {
        // Not even the plan was durable: nothing happened, and nothing is recorded.
        ("submitted", _) => {
            assert!(plan.is_null(), "{plan}");
            assert_eq!((relay, killed_sets, later_sets), (Relay::On, 0, 0));
        }
        ("intended" | "before-write", _) => {
            assert_eq!((killed_sets, later_sets), (0, 0), "{place}: {plan}");
            assert_eq!(
                (plan["state"].as_str(), plan["outcome"].as_str()),
                (Some("interrupted"), Some("not_done")),
                "{place}: {plan}"
            );
            assert_eq!(relay, Relay::On);
        }
        (_, "off") => {
            assert!(written, "{place}");
            assert_eq!((killed_sets, later_sets), (1, 0), "{place}: {plan}");
            assert_eq!(
                (plan["state"].as_str(), plan["outcome"].as_str()),
                (Some("done"), Some("done")),
                "{place}: {plan}"
            );
            assert_eq!(relay, Relay::Off);
        }
        // A cycle whose off was seen goes on with the on that had not begun.
        (_, _) => {
            assert_eq!((killed_sets, later_sets), (1, 1), "{place}: {plan}");
            assert_eq!(
                (plan["state"].as_str(), plan["outcome"].as_str()),
                (Some("done"), Some("done")),
                "{place}: {plan}"
            );
            assert_eq!(relay, Relay::On);
        }
    }
    if !plan.is_null() {
        // The same request again: told what came of it, and nothing is written.
        let body = format!("{{\"action\":\"{action}\"}}");
        let again = gateway.curl().post(
            "/v1/pdus/pdu-a/outlets/2/power",
            &body,
            &["-H", "idempotency-key: k"],
        );
        let id = again.json().get("id").or(again.json().get("plan")).cloned();
        assert_eq!(id.as_ref(), Some(&plan["id"]), "{again:?}");
        assert_eq!(sets(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_an_off_has_one_true_outcome() {
    for place in PLACES {
        kill_at(place, "off").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_its_off_a_cycle_has_one_true_outcome() {
    for place in PLACES {
        kill_at(place, "cycle").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_the_network_still_holds_at_the_kill_is_seen_after_it() {
    // The SET leaves, the gateway dies, and only then the SET arrives: the look comes after a quiet time.
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let proxy = Proxy::before(sim.address).await;
    let sections = pdu_section("pdu-a", proxy.address, "fast_s = 1");
    let gateway = tokio::task::spawn_blocking({
        let sections = sections.clone();
        move || {
            let gateway = Gateway::start(&sections);
            gateway.wait_online("pdu-a");
            gateway
        }
    })
    .await
    .unwrap();
    let pid = gateway.running.pid().to_string();
    let (told, killed) = std::sync::mpsc::channel();
    proxy.on_request(move |request| {
        if is_set(request) {
            std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
            told.send(()).ok();
        }
        true
    });
    proxy.delay(std::time::Duration::from_millis(700));
    let gateway = tokio::task::spawn_blocking(move || {
        let output = gateway
            .curl()
            .raw("/v1/pdus/pdu-a/outlets/3/power", &["-X", "POST", "-d", r#"{"action":"off"}"#]);
        assert!(!output.status.success());
        killed.recv().unwrap();
        let gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
        gateway.wait_for("/v1/plans", |plans| plans["plans"][0]["state"] == "done");
        gateway
    })
    .await
    .unwrap();
    let plan = gateway.curl().get("/v1/plans")["plans"][0].clone();
    assert_eq!(plan["steps"][0]["detail"], "seen after a restart of the gateway", "{plan}");
    assert_eq!(sim.pdu.lock().unwrap().relay(2, Tick(u64::MAX / 2)), Some(Relay::Off));
}

#[test]
fn a_relay_that_is_slower_than_the_restart_is_waited_for() {
    // The PDU took the command and needs five seconds; the gateway dies at once and is back after one.
    let port = crate::rig::free_udp_port();
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    let outlet = |column: &str| format!("1.3.6.1.4.1.318.1.1.26.9.2.{column}.3");
    std::fs::write(&rules, format!("{} -> {} 2:1@5000\n", outlet("4.1.5"), outlet("3.1.5")))
        .unwrap();
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/apc-rpdu2.snmprec");
    let listen = format!("127.0.0.1:{port}");
    let args = ["sim", "--recording", recording, "--listen", &listen, "--rules"];
    let args = [&args[..], &[rules.to_str().unwrap()]].concat();
    let _sim = crate::rig::Running::start(&args, &[], "ready");
    let sections = pdu_section("pdu-a", listen.parse().unwrap(), "fast_s = 1");
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::in_dir(dir, &sections, &[("PMGATE_KILL_AT", "written")]);
    gateway.wait_online("pdu-a");
    let body = ["-X", "POST", "-d", r#"{"action":"off"}"#];
    gateway.curl().raw("/v1/pdus/pdu-a/outlets/3/power", &body);
    gateway.running.ended(std::time::Duration::from_secs(20));
    let gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
    let plans = gateway.wait_for("/v1/plans", |plans| plans["plans"][0]["state"] != "running");
    let plan = &plans["plans"][0];
    assert_eq!((&plan["state"], &plan["steps"][0]["state"]), (&"done".into(), &"done".into()));
}
