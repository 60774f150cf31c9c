//! What outlets draw when they are switched on, learned out of the store.

use std::path::Path;
use std::sync::Arc;

use pmgate::model::metric::{Metric, Scope, Word};
use pmgate::model::reading::Datum;
use pmgate::model::time::{Clock as _, Span, Stamp, SystemClock};
use pmgate::model::topology::{Layout, Part, Slot};
use pmgate::sim::families::Family;
use pmgate::sim::physics::Load;
use pmgate::store::Archive;
use pmgate::store::archive::Settings;
use pmgate::store::writer::{Counts, Row, Writer};
use serde_json::{Value, json};

use crate::rig::{Gateway, Sim, pdu_section};

/// The readings of outlet 5 of pdu-a, ten seconds apart: off for two minutes, then on, drawing `boot` mA for 90 s and
/// 1.9 A after, for so many seconds.
fn start(layout: &Arc<Layout>, at: Stamp, boot: i64, seconds: i64) -> Vec<Row> {
    let row = |second: i64| {
        let on = second >= 0 && second < seconds;
        let drawn = match second {
            _ if !on => 0,
            0..90 => boot,
            _ => 1_900,
        };
        let word = if on { Word::On } else { Word::Off };
        Row {
            pdu: "pdu-a".parse().unwrap(),
            layout: layout.clone(),
            at: Stamp(at.0 + second * 1_000),
            data: vec![(0, Datum::Word(word)), (1, Datum::Value(drawn))],
        }
    };
    (-12..seconds / 10 + 3).map(|n| row(n * 10)).collect()
}

fn write_history(state: &Path) {
    let outlet = Part { number: 5, id: "5".into(), ..Part::default() };
    let slot = |metric| Slot { scope: Scope::Outlet, part: 0, metric };
    let layout = Layout::new(
        [vec![], vec![], vec![], vec![outlet], vec![]],
        vec![slot(Metric::State), slot(Metric::Current)],
    );
    let places = [Metric::State, Metric::Current].map(|metric| layout.place(slot(metric)));
    assert_eq!(places, [Some(0), Some(1)], "the columns stand as the rows have them");
    let now = SystemClock::start().stamp().0;
    let ago = |hours: i64| Stamp(now - hours * 3_600_000);
    let alarm = Box::new(|kind: &'static str, text: String| panic!("{kind}: {text}"));
    let archive =
        Arc::new(Archive::open(&state.join("history"), Settings::default(), alarm).unwrap());
    let mut writer = Writer::new(archive, Arc::new(Counts::default()));
    writer.write(&start(&layout, ago(60), 2_200, 900));
    // It went off again before it was through: nothing is learned of it.
    writer.write(&start(&layout, ago(40), 9_000, 180));
    writer.write(&start(&layout, ago(30), 2_600, 900));
    writer.flush();
}

fn draw_of(limits: &Value, outlet: &str) -> Value {
    let draws = limits["draws"].as_array().unwrap().iter();
    draws.clone().find(|draw| draw["outlet"] == outlet).cloned().unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_outlet_draws_is_learned_out_of_the_store_and_that_is_said() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let sections = pdu_section("pdu-a", sim.address, "write_gap_ms = 0\nfast_s = 1");
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        let before = draw_of(&gateway.curl().get("/v1/limits"), "pdu-a/5");
        assert!(!before["source"].as_str().unwrap().contains("learned"), "{before}");
        let dir = gateway.kill();
        write_history(&dir.path().join("state"));
        let gateway = Gateway::in_dir(dir, &sections, &[]);
        let is_learned =
            |limits: &Value| draw_of(limits, "pdu-a/5")["source"] == "learned from 2 switch-ons";
        let limits = gateway.wait_for("/v1/limits", is_learned);
        let draw = draw_of(&limits, "pdu-a/5");
        let watts = |key: &str| draw[key].as_f64().unwrap();
        // 2.6 A and 1.9 A at some 231 V.
        assert!((590.0..612.0).contains(&watts("boot_w")), "{draw}");
        assert!((430.0..448.0).contains(&watts("steady_w")), "{draw}");
        assert_eq!(draw["boot_s"], json!(80.0), "{draw}");
        assert!((watts("inrush_w") - watts("boot_w") * 1.5).abs() < 1.0, "{draw}");
        let other = draw_of(&limits, "pdu-a/6");
        assert!(!other["source"].as_str().unwrap().contains("learned"), "{other}");
        let curl = gateway.curl();
        assert_eq!(curl.power("pdu-a/5", "off").status, 200);
        let wish = json!({"goals": [{"select": {"outlets": ["pdu-a/5"]}, "action": "on"}], "dry_run": true});
        let plan = curl.post("/v1/plans", &wish.to_string(), &[]).json();
        let why = plan["steps"][0]["why"].as_str().unwrap();
        assert!(why.contains("learned from 2 switch-ons"), "{why}");
        // Kept: the next run need not look again.
        let gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
        gateway.wait_for("/v1/limits", is_learned);
        let events = gateway.curl().get("/v1/events?last=100");
        assert!(!events.to_string().contains("out of the store"), "{events}");
    })
    .await
    .unwrap();
}

/// Its meter shows the first moment, until the next poll.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_moment_of_a_load_is_not_taken_for_what_it_draws() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let load = Load {
        steady_mw: 300_000,
        boot_percent: 120,
        boot: Span(20_000),
        inrush_percent: 600,
        inrush: Span(1_000),
        power_factor: 9_500,
    };
    sim.pdu.lock().unwrap().load_all(load);
    let sections = pdu_section("pdu-a", sim.address, "write_gap_ms = 0\nfast_s = 10");
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        let curl = gateway.curl();
        assert_eq!(curl.power("pdu-a/5", "off").status, 200);
        assert_eq!(curl.power("pdu-a/5", "on").status, 200);
        let shown = curl.get("/v1/pdus/pdu-a/outlets/5");
        assert!(shown["power_w"].as_f64().unwrap() > 1_500.0, "the meter shows it: {shown}");
        let draw = draw_of(&curl.get("/v1/limits"), "pdu-a/5");
        let steady = draw["steady_w"].as_f64().unwrap();
        assert!((300.0..330.0).contains(&steady), "what it drew before it went off: {draw}");
    })
    .await
    .unwrap();
}

/// A load that draws the same from the first moment on.
fn steady(steady_mw: i64) -> Load {
    Load {
        steady_mw,
        boot_percent: 100,
        boot: Span(0),
        inrush_percent: 100,
        inrush: Span(0),
        power_factor: 10_000,
    }
}

/// What was refused before a restart is refused after it: the store knows what the outlet drew.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_outlet_that_is_off_drew_is_known_over_a_restart() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    sim.pdu.lock().unwrap().load_all(steady(400_000));
    let sections = format!(
        "[switching]\ndefault_draw = {{ steady_w = 150, boot_w = 150, boot_s = 1, inrush_w = 200, inrush_ms = 100 }}\n\
         [[limit]]\nid = \"tight\"\nrating_w = 800\nof = [\"pdu-a/5\", \"pdu-a/6\"]\n{}",
        pdu_section("pdu-a", sim.address, "write_gap_ms = 0\nfast_s = 1")
    );
    tokio::task::spawn_blocking(move || {
        let mut gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway.wait_for("/v1/series?target=pdu-a/5&metric=power_w&start=-10m", |series| {
            series["points"].as_array().is_some_and(|points| points.len() >= 2)
        });
        assert_eq!(gateway.curl().power("pdu-a/5", "off").status, 200);
        for run in ["before", "after"] {
            let limits = gateway.wait_for("/v1/limits", |limits| {
                draw_of(limits, "pdu-a/5")["steady_w"].as_f64() > Some(350.0)
            });
            let source = draw_of(&limits, "pdu-a/5")["source"].as_str().unwrap().to_owned();
            assert_eq!(source, "what it draws, or drew before it was switched off", "{run}");
            let refused = gateway.curl().power("pdu-a/5", "on");
            assert_eq!(refused.status, 409, "{run}: {refused:?}");
            assert!(refused.body.contains("tight"), "{run}: {refused:?}");
            gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
            gateway.wait_online("pdu-a");
        }
    })
    .await
    .unwrap();
}

/// Of a host with two feeds each is reckoned to carry all of it where both are off, over a restart too; beside one that is
/// on, it takes its own part again.
#[tokio::test(flavor = "multi_thread")]
async fn a_dark_host_is_reckoned_over_a_restart_with_what_both_its_feeds_drew() {
    let (a, b) = (Sim::start(Family::ApcRpdu2, 8).await, Sim::start(Family::ApcRpdu2, 8).await);
    for sim in [&a, &b] {
        sim.pdu.lock().unwrap().load_all(steady(200_000));
    }
    let device = "write_gap_ms = 0\nfast_s = 1";
    let sections = format!(
        "[switching]\nhold_s = 1\ndefault_draw = {{ steady_w = 50, boot_w = 50, boot_s = 1, inrush_w = 50, inrush_ms = 100 }}\n\
         [[limit]]\nid = \"tight\"\nrating_w = 750\nof = [\"pdu-a/5\", \"pdu-a/6\"]\n{}{}\
         [[host]]\nid = \"h1\"\noutlets = [\"pdu-a/5\", \"pdu-b/5\"]\n",
        pdu_section("pdu-a", a.address, device),
        pdu_section("pdu-b", b.address, device),
    );
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        for pdu in ["pdu-a", "pdu-b"] {
            gateway.wait_online(pdu);
            let series = format!("/v1/series?target={pdu}/5&metric=power_w&start=-10m");
            gateway.wait_for(&series, |series| {
                series["points"].as_array().is_some_and(|points| points.len() >= 2)
            });
        }
        let off = gateway.curl().post("/v1/hosts/h1/power", r#"{"action":"off"}"#, &[]);
        assert_eq!(off.status, 200, "{off:?}");
        let mut gateway = gateway;
        let steady_of = |limits: &Value| draw_of(limits, "pdu-a/5")["steady_w"].as_f64();
        for run in ["before", "after"] {
            // Both parts, beside what pdu-a/6 draws: over 600 W.
            let limits = gateway.wait_for("/v1/limits", |limits| steady_of(limits) > Some(350.0));
            assert!(steady_of(&limits) < Some(450.0), "{run}: {limits}");
            let refused = gateway.curl().power("pdu-a/5", "on");
            assert_eq!(refused.status, 409, "{run}: {refused:?}");
            assert!(refused.body.contains("tight"), "{run}: {refused:?}");
            gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
            gateway.wait_online("pdu-a");
            gateway.wait_online("pdu-b");
        }
        // Beside the other one, its own part.
        assert_eq!(gateway.curl().power("pdu-b/5", "on").status, 200);
        let is_own = |limits: &Value| (150.0..250.0).contains(&steady_of(limits).unwrap_or(0.0));
        gateway.wait_for("/v1/limits", is_own);
        let gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
        gateway.wait_for("/v1/limits", is_own);
        let on = gateway.curl().power("pdu-a/5", "on");
        assert_eq!(on.status, 200, "{on:?}");
    })
    .await
    .unwrap();
}

/// What was refused before a restart is refused as soon as the gateway answers again: it waits until it knows.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_on_after_a_restart_before_it_is_known_what_it_drew() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    sim.pdu.lock().unwrap().load_all(steady(200_000));
    let sections = format!(
        "[switching]\nhold_s = 1\ndefault_draw = {{ steady_w = 50, boot_w = 50, boot_s = 1, inrush_w = 50, inrush_ms = 100 }}\n\
         [[limit]]\nid = \"tight\"\nrating_w = 450\nof = [\"pdu-a/5\", \"pdu-a/6\"]\n{}",
        pdu_section("pdu-a", sim.address, "write_gap_ms = 0\nfast_s = 1"),
    );
    tokio::task::spawn_blocking(move || {
        let mut gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        let series = "/v1/series?target=pdu-a/5&metric=power_w&start=-10m";
        gateway.wait_for(series, |series| {
            series["points"].as_array().is_some_and(|points| points.len() >= 2)
        });
        assert_eq!(gateway.curl().power("pdu-a/5", "off").status, 200);
        for _ in 0..3 {
            gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
            // As often as it takes until the PDU is seen.
            let began = std::time::Instant::now();
            let refused = loop {
                let answer = gateway.curl().power("pdu-a/5", "on");
                if answer.body.contains("tight") || began.elapsed().as_secs() > 60 {
                    break answer;
                }
                assert!(answer.status >= 400, "{answer:?}");
            };
            assert_eq!(refused.status, 409, "{refused:?}");
        }
    })
    .await
    .unwrap();
}
