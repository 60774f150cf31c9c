//! Switching through the whole gateway: verified, once, and never on doubt.

use std::time::Duration;

use pmgate::model::switching::Relay;
use pmgate::model::time::Tick;
use pmgate::sim::families::Family;
use serde_json::Value;

use crate::proxy::{Fault, Proxy, is_set};
use crate::rig::{Curl, Gateway, Sim, pdu_section};

/// Far enough ahead that every relay has moved.
const LATER: Tick = Tick(u64::MAX / 2);

async fn gateway(sections: String) -> Gateway {
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway
    })
    .await
    .unwrap()
}

fn relay(sim: &Sim, outlet: u16) -> Relay {
    sim.pdu.lock().unwrap().relay(outlet - 1, LATER).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn off_on_and_cycle_answer_once_they_are_verified() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let gateway =
        gateway(format!("[switching]\nhold_s = 1\n{}", pdu_section("pdu-a", sim.address, "")))
            .await;
    let curl = gateway.curl();
    let off = curl.power("pdu-a/3", "off");
    assert_eq!((off.status, off.json()["outcome"].as_str()), (200, Some("done")), "{off:?}");
    assert_eq!(relay(&sim, 3), Relay::Off);
    assert_eq!(curl.get("/v1/pdus/pdu-a/outlets/3")["state"], "off");
    let again = curl.power("pdu-a/3", "off").json();
    assert_eq!(again["outcome"], "already_there");
    let cycle = curl.power("pdu-a/4", "cycle").json();
    let steps: Vec<(&str, &str)> = cycle["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["action"].as_str().unwrap(), s["state"].as_str().unwrap()))
        .collect();
    assert_eq!(steps, [("off", "done"), ("on", "done")]);
    assert!(cycle["makespan_ms"].as_u64().unwrap() >= 1_000, "{cycle}");
    assert_eq!(relay(&sim, 4), Relay::On);
    let plan = curl.get(&format!("/v1/plans/{}", cycle["id"].as_str().unwrap()));
    assert_eq!(plan, cycle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_two_feeds_is_cycled_as_one() {
    let (a, b) = (Sim::start(Family::ApcRpdu2, 4).await, Sim::start(Family::Sentry4, 4).await);
    let sections = format!(
        "[switching]\nhold_s = 1\n{}{}[[host]]\nid = \"web\"\noutlets = [\"pdu-a/1\", \"pdu-b/2\"]\n",
        pdu_section("pdu-a", a.address, ""),
        pdu_section("pdu-b", b.address, "")
    );
    let gateway = gateway(sections).await;
    gateway.wait_online("pdu-b");
    let curl = gateway.curl();
    assert_eq!(curl.get("/v1/hosts/web")["state"], "on");
    let cycle = curl.post("/v1/hosts/web/power", r#"{"action":"cycle"}"#, &[]);
    assert_eq!(cycle.status, 200, "{cycle:?}");
    let json = cycle.json();
    let order: Vec<String> = json["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| format!("{} {}", s["outlet"].as_str().unwrap(), s["action"].as_str().unwrap()))
        .collect();
    assert_eq!(order, ["pdu-a/1 off", "pdu-b/2 off", "pdu-a/1 on", "pdu-b/2 on"]);
    assert_eq!(curl.get("/v1/hosts/web?max_age_ms=0")["state"], "on");
    let off = curl.post("/v1/hosts/web/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(off.status, 200, "{off:?}");
    assert_eq!((relay(&a, 1), relay(&b, 2)), (Relay::Off, Relay::Off));
    assert_eq!(curl.get("/v1/hosts/web")["state"], "off");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_switches_once_also_across_a_restart() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let proxy = Proxy::before(sim.address).await;
    let sections = format!("[switching]\nhold_s = 1\n{}", pdu_section("pdu-a", proxy.address, ""));
    let gateway = gateway(sections.clone()).await;
    let path = "/v1/pdus/pdu-a/outlets/2/power";
    let key = ["-H", "idempotency-key: abc-1"];
    let body = r#"{"action":"cycle","reason":"once"}"#;
    proxy.take_requests();
    // Twice at the same time, and once more after that.
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..2).map(|_| scope.spawn(|| gateway.curl().post(path, body, &key).json())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let third = gateway.curl().post(path, body, &key).json();
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], third);
    assert_eq!(third["state"], "done");
    let sets = || proxy.take_requests().iter().filter(|request| is_set(request)).count();
    assert_eq!(sets(), 2);
    let other = gateway.curl().post(path, r#"{"action":"off","reason":"once"}"#, &key);
    assert_eq!((other.status, other.kind.as_str()), (422, "application/problem+json"));
    // Another client's key of the same name is another key; a viewer may not use any.
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
        gateway.wait_online("pdu-a");
        gateway
    })
    .await
    .unwrap();
    assert_eq!(gateway.curl().post(path, body, &key).json(), third);
    assert_eq!(sets(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_switched_on_stale_or_unknown_state() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let proxy = Proxy::before(sim.address).await;
    let section =
        pdu_section("pdu-a", proxy.address, "fast_s = 1\nstale_after_s = 60\nnever_switch = [4]");
    let gateway = gateway(format!("[switching]\nfresh_s = 1\n{section}")).await;
    let refused = |answer: crate::rig::Answer, status: u16, says: &str| {
        assert_eq!(
            (answer.status, answer.kind.as_str()),
            (status, "application/problem+json"),
            "{answer:?}"
        );
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        assert!(!problem["next"].as_str().unwrap().is_empty());
    };
    refused(gateway.curl().power("pdu-a/4", "off"), 409, "locked");
    refused(gateway.curl().power("pdu-a/9", "off"), 404, "no outlet");
    proxy.take_requests();
    proxy.silent(true);
    gateway.wait_for("/v1/pdus/pdu-a", |pdu| pdu["state"] == "stale");
    refused(gateway.curl().power("pdu-a/1", "off"), 409, "not known for certain");
    assert!(
        proxy.take_requests().iter().all(|request| !is_set(request)),
        "something was written on doubt"
    );
    assert_eq!(relay(&sim, 1), Relay::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_command_is_settled_by_looking() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let proxy = Proxy::before(sim.address).await;
    // The agent takes the command, its answer is lost; nothing is sent again.
    let gateway = gateway(pdu_section("pdu-a", proxy.address, "fast_s = 600\nslow_s = 600")).await;
    let losing = proxy.clone();
    proxy.on_request(move |request| {
        if is_set(request) {
            losing_next(&losing);
        }
        true
    });
    proxy.take_requests();
    let off = gateway.curl().power("pdu-a/1", "off");
    assert_eq!((off.status, off.json()["outcome"].as_str()), (200, Some("done")), "{off:?}");
    assert_eq!(proxy.take_requests().iter().filter(|request| is_set(request)).count(), 1);
    assert_eq!(relay(&sim, 1), Relay::Off);
}

/// Loses the reply that is about to come. On a thread of its own: the proxy holds its lock while it asks.
fn losing_next(proxy: &Proxy) {
    let proxy = proxy.clone();
    std::thread::spawn(move || proxy.faults(&[Fault::Lose]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_does_not_move_is_told_and_not_taken_for_done() {
    let recording =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/sentry4.snmprec");
    let recording =
        pmgate::link::recording::Recording::parse(&std::fs::read_to_string(recording).unwrap())
            .unwrap();
    // Writable, acknowledged, and nothing comes of it.
    let rules = pmgate::sim::recording::Rule::parse_all(
        "1.3.6.1.4.1.1718.4.1.8.5.1.2 -> 1.3.6.1.4.1.1718.4.1.8.5.1.3 1:0, 2:0\n",
    )
    .unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let address = pmgate::sim::recording::serve(
        recording,
        rules,
        crate::rig::anywhere(),
        crate::rig::communities(),
        stop.clone(),
    )
    .await
    .unwrap();
    let gateway = gateway(pdu_section("pdu-a", address, "")).await;
    let off = gateway.curl().power("pdu-a/1", "off");
    let problem = off.json();
    assert_eq!((off.status, problem["outcome"].as_str()), (504, Some("unverified")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("still reads on"), "{problem}");
    let plan = gateway.curl().get(&format!("/v1/plans/{}", problem["plan"].as_str().unwrap()));
    assert_eq!(plan["state"], "stopped");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_prefers_not_to_wait_gets_202_and_a_place_to_look() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let gateway =
        gateway(format!("[switching]\nhold_s = 1\n{}", pdu_section("pdu-a", sim.address, "")))
            .await;
    let answer = gateway.curl().post(
        "/v1/pdus/pdu-a/outlets/2/power",
        r#"{"action":"cycle"}"#,
        &["-H", "prefer: respond-async", "-D", "-"],
    );
    assert_eq!(answer.status, 202, "{answer:?}");
    let location = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap()
        .trim()
        .to_owned();
    let busy = gateway.curl().power("pdu-a/2", "on");
    assert_eq!(busy.status, 409, "{busy:?}");
    gateway.wait_for(&location, |plan| plan["state"] == "done");
    let events = gateway.curl().get("/v1/events?last=10");
    let kinds: Vec<&str> =
        events.as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let story = ["outlet.switching", "outlet.off", "outlet.switching", "outlet.on", "plan.done"];
    assert!(kinds.ends_with(&story), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_goes_before_polling() {
    let sim = Sim::start(Family::ApcRpdu2, 48).await;
    let proxy = Proxy::before(sim.address).await;
    let gateway = gateway(pdu_section("pdu-a", proxy.address, "fast_s = 600\nslow_s = 600")).await;
    proxy.delay(Duration::from_millis(200));
    proxy.take_requests();
    // A poll of several slow requests is under way when the command comes.
    std::thread::scope(|scope| {
        scope.spawn(|| gateway.curl().get("/v1/pdus/pdu-a?max_age_ms=0"));
        while proxy.take_requests().is_empty() {
            std::thread::yield_now();
        }
        let off = gateway.curl().power("pdu-a/1", "off");
        assert_eq!(off.status, 200, "{off:?}");
    });
    let requests = proxy.take_requests();
    let set = requests.iter().position(|request| is_set(request)).unwrap();
    assert!(set <= 2, "{set} requests went before the SET");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_was_under_way_does_not_undo_what_was_seen_since() {
    let sim = Sim::start(Family::ApcRpdu2, 48).await;
    let proxy = Proxy::before(sim.address).await;
    let gateway = gateway(pdu_section("pdu-a", proxy.address, "fast_s = 600\nslow_s = 600")).await;
    proxy.delay(Duration::from_millis(150));
    proxy.take_requests();
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| gateway.curl().get("/v1/pdus/pdu-a?max_age_ms=0"));
        // The poll has the state of the outlets in hand when the command comes.
        let mut requests = 0;
        while requests < 3 {
            requests += proxy.take_requests().len();
            std::thread::yield_now();
        }
        assert_eq!(gateway.curl().power("pdu-a/1", "off").status, 200);
        let body = poll.join().unwrap();
        assert_eq!(body["outlets"][0]["state"], "off");
    });
    assert_eq!(gateway.curl().get("/v1/pdus/pdu-a/outlets/1")["state"], "off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_no_outlet_locked() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let gateway = gateway(pdu_section("pdu-a", sim.address, "fast_s = 1\nwrite_gap_ms = 0")).await;
    for round in 0..40 {
        let action = if round % 2 == 0 { "off" } else { "on" };
        {
            let mut tls = crate::api::connect(gateway.dir.path(), &gateway.url, "client").await;
            let body = format!("{{\"action\":\"{action}\"}}");
            let head = format!(
                "POST /v1/pdus/pdu-a/outlets/2/power HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            use tokio::io::AsyncWriteExt as _;
            tls.write_all(head.as_bytes()).await.unwrap();
            tls.flush().await.unwrap();
            // Gone at any moment between the request and the answer.
            let gone = std::time::Instant::now() + Duration::from_micros(150) * round;
            while std::time::Instant::now() < gone {
                tokio::task::yield_now().await;
            }
        }
        // The plan of the one that hung up may still be under way; an outlet that it locked would stay so.
        let until = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let again = tokio::task::block_in_place(|| gateway.curl().power("pdu-a/2", action));
            if again.status == 200 {
                break;
            }
            assert!(std::time::Instant::now() < until, "round {round}: {again:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_in_the_hold_of_a_cycle_leaves_no_host_dark() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections = |more: &str| {
        format!("[switching]\nhold_s = 2\n{}", pdu_section("pdu-a", sim.address, more))
    };
    let gateway = gateway(sections("fast_s = 1")).await;
    std::thread::scope(|scope| {
        let cycle = scope.spawn(|| gateway.curl().power("pdu-a/4", "cycle"));
        gateway.wait_for("/v1/pdus/pdu-a/outlets/4", |outlet| outlet["state"] == "off");
        // Another patience is another line: the device's task is started anew.
        Gateway::write_config(gateway.dir.path(), &sections("fast_s = 1\ntimeout_ms = 900"));
        gateway.running.signal("HUP");
        let answer = cycle.join().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    assert_eq!(relay(&sim, 4), Relay::On);
}

#[test]
fn an_outlet_that_reads_off_but_still_draws_is_not_taken_for_done() {
    // The driver asks for a second witness. On the first outlet the load goes with the relay, on the second it stays.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let driver = std::fs::read_to_string(root.join("drivers/apc-rpdu2.toml")).unwrap();
    let verify =
        "verify = { point = \"outlet.state\", is = \"off\", within_ms = 8000, poll_ms = 250 }";
    let also = "also   = { point = \"outlet.power\", below = \"10 W\" }";
    let strict = driver
        .replace("verify  = {", "verify = {")
        .replace(verify, &format!("{}\n{also}", verify.replace("8000", "2000")));
    assert_ne!(strict, driver.replace("verify  = {", "verify = {"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("drivers")).unwrap();
    std::fs::write(dir.path().join("drivers/apc-rpdu2.toml"), strict).unwrap();
    let tree = "1.3.6.1.4.1.318.1.1.26.9";
    let rules = dir.path().join("rules");
    let text = format!(
        "{tree}.2.4.1.5.1 -> {tree}.2.3.1.5.1 2:1\n{tree}.2.4.1.5.1 -> {tree}.4.3.1.7.1 2:0@700\n{tree}.2.4.1.5.2 -> {tree}.2.3.1.5.2 2:1\n"
    );
    std::fs::write(&rules, text).unwrap();
    let listen = format!("127.0.0.1:{}", crate::rig::free_udp_port());
    let recording = root.join("tests/recordings/apc-rpdu2.snmprec");
    let args = ["sim", "--recording", recording.to_str().unwrap(), "--listen", &listen, "--rules"];
    let args = [&args[..], &[rules.to_str().unwrap()]].concat();
    let _sim = crate::rig::Running::start(&args, &[], "ready");
    let pdu = pdu_section("pdu-a", listen.parse().unwrap(), "write_gap_ms = 0");
    let gateway = Gateway::in_dir(dir, &pdu, &[]);
    gateway.wait_online("pdu-a");
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    std::fs::write(
        gateway.dir.path().join("gateway.toml"),
        format!("drivers_dir = \"drivers\"\n{text}"),
    )
    .unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/events?last=10", |events| {
        events.as_array().unwrap().iter().any(|event| event["kind"] == "config.reloaded")
    });
    // A changed driver is taken up with the next poll of everything.
    gateway.curl().get("/v1/pdus/pdu-a?max_age_ms=0");
    let good = gateway.curl().power("pdu-a/1", "off");
    assert_eq!((good.status, &good.json()["outcome"]), (200, &"done".into()), "{good:?}");
    let bad = gateway.curl().power("pdu-a/2", "off");
    assert_eq!(bad.status, 504, "{bad:?}");
    let detail = bad.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("still draws") && detail.contains("mismatch"), "{detail}");
}

/// A file stands in for the kernel's, in a mount namespace of the gateway's own; where none may be made the test is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn the_processor_stays_awake_for_whoever_may_switch_and_for_nobody_else() {
    const KERNEL: &str = "/dev/cpu_dma_latency";
    let mount = |file: &std::path::Path, then: &str| {
        let mut command = std::process::Command::new("unshare");
        let script = format!("mount --bind \"$1\" {KERNEL} && {then}");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(file);
        command
    };
    let probe = tempfile::NamedTempFile::new().unwrap();
    if !mount(probe.path(), "true").status().unwrap().success() {
        println!("skipped: nothing can be mounted at {KERNEL} here");
        return;
    }
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("latency");
    std::fs::write(&told, "").unwrap();
    Gateway::prepare(dir.path(), &pdu_section("pdu-a", sim.address, ""));
    let mut command = mount(&told, "exec \"$2\" serve --config \"$3\"");
    command.arg(crate::rig::PMGATE).arg(dir.path().join("gateway.toml"));
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::served(dir, command);
        gateway.wait_online("pdu-a");
        gateway
    })
    .await
    .unwrap();
    let curl = gateway.curl();
    let refused = Curl::new(gateway.dir.path(), &gateway.url, "viewer").power("pdu-a/3", "off");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(std::fs::read(&told).unwrap(), b"", "woken by a viewer");
    assert_eq!(curl.power("pdu-a/3", "off").status, 200);
    let wakes = 0_i32.to_ne_bytes();
    assert_eq!(std::fs::read(&told).unwrap()[..4], wakes);
    let rests = [wakes, (-1_i32).to_ne_bytes()].concat();
    gateway.wait_for("/v1/status", |_| std::fs::read(&told).unwrap() == rests);
}
