//! History as clients see it: Prometheus' remote read by a real Prometheus, energy, selectors, copies.

use std::process::Command;
use std::time::{Duration, Instant};

use pmgate::sim::families::Family;
use serde_json::Value;

use crate::rig::{Gateway, Running, Sim, free_tcp_port, pause, pdu_section};

fn sections(sim: &Sim) -> String {
    let host = "[[host]]\nid = \"web\"\noutlets = [\"pdu-a/1\", \"pdu-a/2\"]\n";
    format!("{}\n{host}", pdu_section("pdu-a", sim.address, "fast_s = 1\nslow_s = 1"))
}

fn ask(port: u16, query: &str) -> Value {
    let url = format!("http://127.0.0.1:{port}/api/v1/query_range?{query}");
    let out = Command::new("curl").args(["-s", "-m", "10", &url]).output().unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_answers_over_history_that_it_never_scraped() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections = sections(&sim);
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=-10m";
        gateway.wait_for(path, |series| series["points"].as_array().unwrap().len() >= 14);
        let dir = gateway.dir.path();
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let config = format!(
            "remote_read:\n- url: {}/v1/prometheus/read\n  read_recent: true\n  tls_config: {{ca_file: {}, cert_file: {}, key_file: {}}}\n",
            gateway.url, file("ca.pem"), file("client.pem"), file("client.key")
        );
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        let port = free_tcp_port();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file("prometheus.yml")));
        command.arg(format!("--storage.tsdb.path={}", file("tsdb")));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let _prometheus = Running::command(command, "ready to receive web requests");
        let now = pmgate::model::time::Clock::stamp(&pmgate::model::time::SystemClock::start());
        let (start, end) = (now.0 / 1_000 - 30, now.0 / 1_000 + 1);
        let query = format!("query=sum(pdu_outlet_power_watts%7Bpdu%3D~%22pdu-.*%22%2Coutlet!%3D%221%22%7D)&start={start}&end={end}&step=1");
        let began = Instant::now();
        let answer = loop {
            let answer = ask(port, &query);
            let is_there = answer["data"]["result"][0]["values"].as_array().is_some_and(|v| v.len() > 8);
            if is_there || began.elapsed() > Duration::from_secs(40) {
                break answer;
            }
            pause();
        };
        let values = answer["data"]["result"][0]["values"].as_array().unwrap_or_else(|| panic!("{answer}"));
        // The same moment by the gateway's own series, summed over outlets 2 to 4.
        // A moment some seconds back: nothing comes to it any more.
        let back = &values[values.len() - 6];
        let (at, sum) = (back[0].as_f64().unwrap(), back[1].as_str().unwrap().parse::<f64>().unwrap());
        let mut expected = 0.0;
        for outlet in 2..=4 {
            let path = format!("/v1/series?target=pdu-a/{outlet}&metric=power_w&start=-10m&end={at}");
            let series = gateway.curl().get(&path);
            expected += series["points"].as_array().unwrap().last().unwrap()["value"].as_f64().unwrap();
        }
        assert!((sum - expected).abs() < 0.001, "{sum} {expected} at {at}");
        let query = format!("query=pdu_outlet_energy_watthours_total%7Boutlet%3D%222%22%2Chost%3D%22web%22%7D&start={start}&end={end}&step=5");
        assert!(ask(port, &query)["data"]["result"][0]["metric"]["pdu"] == "pdu-a");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_energy_and_copies_answer() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections = sections(&sim);
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=-10m";
        gateway.wait_for(path, |series| series["points"].as_array().unwrap().len() >= 5);
        let curl = gateway.curl();
        let folded = curl
            .get("/v1/series?pdu=pdu-a&metric=power_w&start=-1m&step=60s&agg=last&fold=sum&by=pdu");
        assert_eq!(folded["series"][0]["target"], "pdu-a", "{folded}");
        let many = curl.get("/v1/series?host=web&metric=power_w&start=-1m&step=60s&agg=max");
        assert_eq!(many["series"].as_array().unwrap().len(), 2, "{many}");
        let branches =
            curl.get("/v1/series?pdu=*&metric=current_a&start=-1m&step=60s&fold=max&by=branch");
        assert!(!branches["series"].as_array().unwrap().is_empty(), "{branches}");
        let energy = curl.get("/v1/energy?host=web&start=-1h&period=hour");
        assert_eq!(energy["of"][0]["id"], "web", "{energy}");
        assert!(energy["of"][0]["energy_wh"].as_f64().is_some_and(|wh| wh >= 0.0), "{energy}");
        let one = curl.get("/v1/energy?target=pdu-a/2&start=-1h");
        assert_eq!(one["of"][0]["id"], "pdu-a/2", "an outlet is not its host: {one}");
        assert_eq!(one["of"][0]["quality"], "partial", "its history began in the window: {one}");
        // Seventeen queries at once that ask for everything, as snappy packs them: nobody asks so.
        let many = [&[34, 33 << 2][..], &[0x0a, 0].repeat(17)].concat();
        let file = gateway.dir.path().join("queries");
        std::fs::write(&file, many).unwrap();
        let data = format!("@{}", file.display());
        let answer = curl.raw("/v1/prometheus/read", &["--data-binary", &data]);
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(text.contains("at most 16 at once"), "{text}");
        for (wrong, next) in [
            ("target=pdu-a/99&metric=power_w", "shows its parts"),
            ("target=pdu-a/2&metric=temperature_c", "power_w"),
            ("target=pdu-a/2&metric=power_w&start=-2m&start=-1m", "once"),
        ] {
            let answer = curl.raw(&format!("/v1/series?{wrong}"), &[]);
            let text = String::from_utf8_lossy(&answer.stdout).into_owned();
            let (_, told) = text.split_once("\"next\"").unwrap_or_else(|| panic!("{text}"));
            assert!(told.contains(next), "{wrong}: {text}");
        }
        for wrong in
            ["fold=sum", "pdu=nope", "host=nope", "pdu=pdu-a&fold=most", "pdu=pdu-a&by=pdu"]
        {
            let path = format!("/v1/series?metric=power_w&start=-1m&step=60s&{wrong}");
            let answer = curl.raw(&path, &[]);
            let text = String::from_utf8_lossy(&answer.stdout).into_owned();
            assert!(text.contains("\"next\""), "{wrong}: {text}");
        }
        // Stopped, copied, taken in elsewhere: the same readings, and all of them whole.
        let mut gateway = gateway;
        gateway.running.signal("TERM");
        assert!(gateway.running.ended(Duration::from_secs(20)).success());
        let state = gateway.dir.path().join("state");
        let (state, copy) = (state.to_str().unwrap(), gateway.dir.path().join("copy"));
        let copy = copy.to_str().unwrap();
        let run = |args: &[&str]| {
            let (out, err, code) = crate::rig::pmgate(args, &[]);
            assert_eq!(code, 0, "{args:?}: {out}{err}");
            out
        };
        let verified = run(&["store", "verify", "--state", state]);
        assert!(verified.contains(" 0 damaged"), "{verified}");
        let told = run(&["store", "export", "--state", state, copy]);
        let other = tempfile::tempdir().unwrap();
        run(&["store", "import", "--state", other.path().to_str().unwrap(), copy]);
        let again = other.path().join("copy");
        let told_again = run(&[
            "store",
            "export",
            "--state",
            other.path().to_str().unwrap(),
            again.to_str().unwrap(),
        ]);
        let readings =
            |told: &str| told.split(": ").nth(1).unwrap().split(", ").nth(1).unwrap().to_owned();
        // The import adds minutes and hours; the readings are among what it tells.
        assert!(
            told.contains(" 0 damaged") && told_again.contains(" 0 damaged"),
            "{told}{told_again}"
        );
        assert_ne!(readings(&told), "0 readings");
    })
    .await
    .unwrap();
}
