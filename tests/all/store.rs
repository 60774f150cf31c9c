//! Readings survive `kill -9`: at most the last second is lost.

use pmgate::model::time::Stamp;
use pmgate::sim::families::Family;
use serde_json::Value;

use crate::rig::{Gateway, Sim, pdu_section};

fn points(series: &Value) -> Vec<(i64, f64)> {
    let point = |point: &Value| {
        let at: Stamp = point["at"].as_str().unwrap().parse().unwrap();
        point["value"].as_f64().map(|value| (at.0, value))
    };
    series["points"].as_array().unwrap().iter().filter_map(point).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_survive_a_kill_but_for_the_last_second() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections = pdu_section("pdu-a", sim.address, "fast_s = 1\nslow_s = 60");
    tokio::task::spawn_blocking(move || {
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=-10m";
        let gateway = Gateway::start(&sections);
        let before = gateway.wait_for(path, |series| points(series).len() >= 5);
        let killed_at =
            pmgate::model::time::Clock::stamp(&pmgate::model::time::SystemClock::start()).0;
        let dir = gateway.kill();
        let gateway = Gateway::in_dir(dir, &sections, &[]);
        let after = gateway.curl().get(path);
        let (before, after) = (points(&before), points(&after));
        for point in before.iter().filter(|(at, _)| *at < killed_at - 1_000) {
            assert!(after.contains(point), "lost {point:?}, killed at {killed_at}");
        }
        // The command line reads the same.
        let dir = gateway.dir.path();
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let env = [
            ("PMGATE_URL", gateway.url.as_str()),
            ("PMGATE_CERT", &file("client.pem")),
            ("PMGATE_KEY", &file("client.key")),
            ("PMGATE_CA", &file("ca.pem")),
        ];
        let (out, err, code) = crate::rig::pmgate(
            &["series", "pdu-a/2", "power_w", "--start", "-10m", "--json"],
            &env,
        );
        assert_eq!(code, 0, "{err}");
        let listed = points(&serde_json::from_str(&out).unwrap());
        assert!(after.iter().all(|point| listed.contains(point)));
        // And after an orderly end nothing at all is lost.
        let last = points(&gateway.wait_for(path, |series| points(series).len() > after.len()));
        let mut running = gateway;
        running.running.signal("TERM");
        assert!(running.running.ended(std::time::Duration::from_secs(20)).success());
        let dir = std::mem::replace(&mut running.dir, tempfile::tempdir().unwrap());
        let gateway = Gateway::in_dir(dir, &sections, &[]);
        let again = points(&gateway.curl().get(path));
        assert!(last.iter().all(|point| again.contains(point)));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_open_stops_nothing() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections = pdu_section("pdu-a", sim.address, "fast_s = 1");
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway
            .wait_for("/v1/status", |status| status["store"]["rows_written"].as_u64() >= Some(3));
        let dir = gateway.kill();
        // Rot in the file that sled reads first.
        let history = dir.path().join("state/history");
        let is_head = |name: &str| name.starts_with("head-");
        let entries = std::fs::read_dir(&history).unwrap().map(|entry| entry.unwrap());
        let head = entries.filter(|e| is_head(&e.file_name().to_string_lossy())).last().unwrap();
        let file = head.path().join("conf");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x41);
        std::fs::write(&file, bytes).unwrap();
        let gateway = Gateway::in_dir(dir, &sections, &[]);
        gateway.wait_online("pdu-a");
        let off = gateway.curl().power("pdu-a/1", "off");
        assert_eq!(off.status, 200, "{off:?}");
        let status = gateway
            .wait_for("/v1/status", |status| status["store"]["rows_written"].as_u64() >= Some(1));
        assert_eq!(status["state"], "degraded");
        assert!(status["alarms"][0].as_str().unwrap().contains("set aside"), "{status}");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_a_gap_with_a_reason_in_history_and_now() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let proxy = crate::proxy::Proxy::before(sim.address).await;
    let more = "fast_s = 1\nslow_s = 2\nstale_after_s = 2\ntimeout_ms = 200\nattempts = 1\n";
    let sections = format!(
        "[poll]\nretry_s = 1\nretry_max_s = 1\n{}",
        pdu_section("pdu-a", proxy.address, more)
    );
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        proxy.silent(true);
        gateway.wait_for("/v1/pdus/pdu-a", |pdu| pdu["state"] == "offline");
        // Not yesterday's value shown as today's.
        let outlet = gateway.curl().get("/v1/pdus/pdu-a/outlets/2");
        assert!(outlet["power_w"].is_null() && outlet["state"] == "unknown", "{outlet}");
        assert_eq!(outlet["gaps"]["power_w"], "offline", "{outlet}");
        assert!(gateway.curl().get("/api/pdu-a/retdata")["power"].is_null());
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=-10m";
        let series = gateway.wait_for(path, |series| {
            let points = series["points"].as_array().unwrap();
            points.iter().any(|point| point["quality"] == "timeout")
        });
        let points = series["points"].as_array().unwrap();
        assert!(points.iter().all(|p| (p["quality"] == "good") == p["value"].is_number()));
        // A step made of nothing but the outage says so too.
        proxy.silent(false);
        gateway.wait_online("pdu-a");
    })
    .await
    .unwrap();
}
