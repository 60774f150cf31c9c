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

/// The directory of rows under way.
fn head_of(state: &std::path::Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(state.join("history")).unwrap().map(|entry| entry.unwrap());
    let is_head = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("head-");
    entries.filter(|entry| is_head(&entry.file_name())).map(|entry| entry.path()).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_of_a_damaged_store_is_salvaged_and_taken_in_again() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections = pdu_section("pdu-a", sim.address, "fast_s = 1\nslow_s = 60");
    tokio::task::spawn_blocking(move || {
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=-10m";
        let gateway = Gateway::start(&sections);
        let before = points(&gateway.wait_for(path, |series| points(series).len() >= 8));
        let dir = gateway.kill();
        // A flipped bit, far into what is written, and a file that sled does not open over.
        let head = head_of(&dir.path().join("state"));
        let rot = |file: &str, from: usize, of: usize, bits: u8| {
            let path = head.join(file);
            let mut bytes = std::fs::read(&path).unwrap();
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[written * from / of] ^= bits;
            std::fs::write(path, bytes).unwrap();
        };
        rot("db", 9, 10, 0x10);
        rot("conf", 1, 2, 0x41);
        let began = std::time::Instant::now();
        let gateway = Gateway::in_dir(dir, &sections, &[]);
        gateway.wait_online("pdu-a");
        let status = gateway
            .wait_for("/v1/status", |status| status["store"]["rows_written"].as_u64() >= Some(1));
        let took = began.elapsed().as_secs_f64();
        println!(
            "polled, served and stored {took:.2} s after the start, {:.2} of the limit",
            took / 5.0
        );
        // The alarm says what to do, word for word.
        let alarms = status["alarms"].as_array().unwrap();
        let alarm = alarms.iter().find_map(|alarm| alarm.as_str()).unwrap();
        let (_, command) =
            alarm.split_once("pmgate store salvage ").unwrap_or_else(|| panic!("{alarm}"));
        let aside = command.split_whitespace().next().unwrap().to_owned();
        let copy = gateway.dir.path().join("copy");
        let (out, err, code) =
            crate::rig::pmgate(&["store", "salvage", &aside, copy.to_str().unwrap()], &[]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(!out.contains(" 0 readings"), "{out}");
        // Taken in by the stopped gateway, it is history again.
        let mut gateway = gateway;
        gateway.running.signal("TERM");
        assert!(gateway.running.ended(std::time::Duration::from_secs(20)).success());
        let state = gateway.dir.path().join("state");
        let (out, err, code) = crate::rig::pmgate(
            &["store", "import", "--state", state.to_str().unwrap(), copy.to_str().unwrap()],
            &[],
        );
        assert_eq!(code, 0, "{out}{err}");
        let dir = std::mem::replace(&mut gateway.dir, tempfile::tempdir().unwrap());
        let gateway = Gateway::in_dir(dir, &sections, &[]);
        let after = points(&gateway.curl().get(path));
        let first = before[0].0;
        let last = before.last().unwrap().0;
        let back: Vec<_> = after.iter().filter(|(at, _)| (first..=last).contains(at)).collect();
        assert!(!back.is_empty(), "nothing of {before:?} in {after:?}");
        assert!(back.iter().all(|point| before.contains(point)), "{back:?} of {before:?}");
        // From the beginning on without a hole, as far as the log was whole.
        assert_eq!(before[..back.len()].iter().collect::<Vec<_>>(), back);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_running_gateway_is_whole_and_right_elsewhere() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let sections = pdu_section("pdu-a", sim.address, "fast_s = 1\nslow_s = 60");
    tokio::task::spawn_blocking(move || {
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=-10m";
        let gateway = Gateway::start(&sections);
        let before = points(&gateway.wait_for(path, |series| points(series).len() >= 5));
        let file = |name: &str| gateway.dir.path().join(name).to_str().unwrap().to_owned();
        let env = [
            ("PMGATE_URL", gateway.url.as_str()),
            ("PMGATE_CERT", &file("admin.pem")),
            ("PMGATE_KEY", &file("admin.key")),
            ("PMGATE_CA", &file("ca.pem")),
        ];
        let (out, err, code) = crate::rig::pmgate(&["store", "export", &file("copy")], &env);
        assert_eq!(code, 0, "{out}{err}");
        // It went on polling meanwhile.
        let after =
            points(&gateway.wait_for(path, |series| points(series).len() > before.len() + 1));
        let other = tempfile::tempdir().unwrap();
        let state = other.path().join("state");
        let run = |args: &[&str]| {
            let (out, err, code) = crate::rig::pmgate(args, &[]);
            assert_eq!(code, 0, "{args:?}: {out}{err}");
            out
        };
        run(&["store", "import", "--state", state.to_str().unwrap(), &file("copy")]);
        let verified = run(&["store", "verify", "--state", state.to_str().unwrap()]);
        assert!(verified.contains(" 0 damaged"), "{verified}");
        let copied = {
            use pmgate::store::{Archive, archive::Settings, reader};
            let fail = Box::new(|_: &'static str, text: String| panic!("{text}"));
            let archive = Archive::open(&state.join("history"), Settings::default(), fail).unwrap();
            let (pdu, part) = reader::target("pdu-a/2").unwrap();
            let metric = pmgate::model::metric::Metric::Power;
            let series = reader::Series { pdu, part, metric };
            let found =
                reader::read(&archive, &series, Stamp(0), Stamp(i64::MAX), usize::MAX).unwrap();
            let unit = metric.unit().unwrap();
            let point = |(at, cell): (Stamp, Result<i64, _>)| Some((at.0, unit.to_f64(cell.ok()?)));
            found.samples.into_iter().filter_map(point).collect::<Vec<_>>()
        };
        // What was stored before the copy is in it, and nothing that was not.
        assert!(before.iter().all(|point| copied.contains(point)), "{before:?} {copied:?}");
        let (first, last) = (after[0].0, after.last().unwrap().0);
        let mut known = copied.iter().filter(|(at, _)| (first..=last).contains(at));
        assert!(known.all(|point| after.contains(point)), "{copied:?} {after:?}");
    })
    .await
    .unwrap();
}
