//! More flows than was reckoned, and hosts that are left half cycled: a plan waits, is planned anew or stops; the host is
//! brought to its safe state.

use std::time::{Duration, Instant};

use pmgate::model::switching::Relay;
use pmgate::model::time::{Span, Tick};
use serde_json::{Value, json};

use crate::planned::{make, relay, run, two_pdus};
use crate::rig::{Curl, Gateway, Sim, pause};

fn path(plan: &Value) -> String {
    format!("/v1/plans/{}", plan["id"].as_str().unwrap())
}

/// Waits for a plan that may wait for room itself.
fn ended(gateway: &Gateway, path: &str) -> Value {
    let until = Instant::now() + Duration::from_mins(3);
    loop {
        let plan = gateway.curl().get(path);
        if plan["state"] != "running" {
            return plan;
        }
        assert!(Instant::now() < until, "it never ended: {plan}");
        pause();
    }
}

fn off(sim: &Sim, outlets: std::ops::RangeInclusive<u16>, relay: Relay) {
    // Long ago by the clock of the PDU: nothing starts up, and nothing rushes in.
    for outlet in outlets {
        sim.pdu.lock().unwrap().switch(outlet - 1, relay, Tick(0));
    }
}

/// A cycle, begun; and a limit that has room for it only while outlets 4 to 8 stay off. They come on by themselves once
/// the host is off.
fn overloaded(a: &Sim, gateway: &Gateway, policies: &[(&[&str], &str)]) -> Vec<Value> {
    let curl = gateway.curl();
    let draws = curl.get("/v1/pdus/pdu-a/outlets?max_age_ms=0");
    let va = |n: usize| draws["outlets"][n - 1]["power_w"].as_f64().unwrap() / 0.965;
    let others: f64 = (4..=8).map(va).sum();
    let hosts: f64 = (1..=policies.iter().map(|(hosts, _)| hosts.len()).sum()).map(va).sum();
    off(a, 4..=8, Relay::Off);
    gateway.wait_for("/v1/pdus/pdu-a", |pdu| {
        (3..=7).all(|at| {
            pdu["outlets"][at]["state"] == "off" && pdu["outlets"][at]["power_w"] == json!(0.0)
        })
    });
    curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    let limits = curl.get("/v1/limits");
    let all = limits["limits"].as_array().unwrap();
    let busway = all.iter().find(|limit| limit["id"] == "busway").unwrap();
    let flows = busway["load_w"].as_f64().unwrap();
    // What is left once the others are on and the hosts are off: 100 VA, where each host needs 250.
    let budget = flows + others - hosts + 100.0;
    assert!(budget > flows + 250.0, "the plan must fit at first: {flows} {others} {hosts}");
    let file = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let rating = (budget / 0.8) as i64;
    std::fs::write(&file, text.replace("rating_w = 20000", &format!("rating_w = {rating}")))
        .unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/limits", |body| {
        let all = body["limits"].as_array().unwrap();
        all.iter().any(|limit| limit["id"] == "busway" && limit["rating_w"] == json!(rating as f64))
    });
    let begun: Vec<Value> = policies
        .iter()
        .map(|(hosts, policy)| {
            let wish = json!({"goals": [{"select": {"hosts": hosts}, "action": "cycle"}], "on_overload": policy, "order": "priority"});
            let plan = make(&curl, &wish);
            assert_eq!(run(&curl, &plan).status, 202);
            plan
        })
        .collect();
    for plan in &begun {
        gateway.wait_for(&path(plan), |plan| {
            let mut steps = plan["steps"].as_array().unwrap().iter();
            steps.all(|step| step["action"] == "on" || step["state"] == "done")
        });
    }
    off(a, 4..=8, Relay::On);
    begun
}

const BUSWAY: &str = "[[limit]]\nid = \"busway\"\nrating_w = 20000\nof = [\"pdu-a\"]\n";

/// The rack of these tests: its hold is long enough for a meter to show what came on.
async fn rack() -> (Sim, Sim, Gateway) {
    let host = |id: &str, outlets: &str, watts: u32| {
        format!(
            "[[host]]\nid = \"{id}\"\noutlets = [{outlets}]\nhold_s = 4\npriority = {watts}\ndraw = {{ steady_w = {watts}, boot_s = 1, inrush_w = {watts} }}\n"
        )
    };
    let hosts = host("node-1", "\"pdu-a/1\", \"pdu-b/1\"", 250)
        + &host("node-2", "\"pdu-a/2\", \"pdu-b/2\"", 250)
        + &host("tiny", "\"pdu-a/3\"", 50);
    crate::planned::two_pdus_with(&hosts, BUSWAY).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_waits_while_more_flows_than_was_reckoned_and_goes_on_when_there_is_room() {
    let (a, b, gateway) = rack().await;
    let plans = overloaded(&a, &gateway, &[(&["node-1"], "stop")]);
    // The other feed has room; this one is held back.
    let held = gateway.wait_for(&path(&plans[0]), |plan| {
        let steps = plan["steps"].as_array().unwrap();
        let on_b = steps.iter().find(|s| s["outlet"] == "pdu-b/1" && s["action"] == "on").unwrap();
        on_b["state"] == "done" || on_b["state"] == "pending" && a_is_late(plan)
    });
    assert_eq!(held["state"], "running", "{held}");
    assert_eq!(relay(&a, 1), Relay::Off, "{held}");
    off(&a, 4..=8, Relay::Off);
    let done = ended(&gateway, &path(&plans[0]));
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!((relay(&a, 1), relay(&b, 1)), (Relay::On, Relay::On));
}

/// Whether the on of outlet 1 should have begun long ago by its plan, and has not.
fn a_is_late(plan: &Value) -> bool {
    use pmgate::model::time::{Clock as _, Stamp, SystemClock};
    let steps = plan["steps"].as_array().unwrap();
    let last_off = steps.iter().filter(|s| s["action"] == "off").map(|s| s["at"].as_str()).max();
    let Some(Some(at)) = last_off else { return false };
    let at = Stamp::parse_at(at, Stamp(0)).unwrap();
    SystemClock::start().stamp().since(at) > Span::seconds(8)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_waited_in_vain_stops_or_is_planned_anew_without_what_has_no_room() {
    let (a, b, gateway) = rack().await;
    let plans = overloaded(&a, &gateway, &[(&["node-1"], "stop"), (&["node-2", "tiny"], "replan")]);
    let stopped = ended(&gateway, &path(&plans[0]));
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    let failed = stopped["steps"].as_array().unwrap().iter().find(|s| s["state"] == "failed");
    let failed = failed.unwrap();
    assert_eq!(failed["outlet"], "pdu-a/1", "{stopped}");
    assert!(failed["detail"].as_str().unwrap().contains("busway"), "{stopped}");
    assert_eq!(relay(&a, 1), Relay::Off);
    let anew = ended(&gateway, &path(&plans[1]));
    let steps = anew["steps"].as_array().unwrap();
    let of = |outlet: &str, action: &str| {
        steps.iter().find(|s| s["outlet"] == outlet && s["action"] == action).unwrap()
    };
    let left = of("pdu-a/2", "on");
    assert_eq!(left["state"], "skipped", "{anew}");
    assert!(left["detail"].as_str().unwrap().contains("busway has no room"), "{anew}");
    // A host is left out whole; what has room goes on.
    assert_eq!(of("pdu-b/2", "on")["state"], "skipped", "{anew}");
    assert_eq!(of("pdu-a/3", "on")["state"], "done", "{anew}");
    assert_eq!((relay(&a, 2), relay(&b, 2), relay(&a, 3)), (Relay::Off, Relay::Off, Relay::On));
    let events = gateway.curl().get("/v1/events?last=200");
    let told = events.as_array().unwrap().iter().find(|event| event["kind"] == "plan.replanned");
    let told = told.unwrap_or_else(|| panic!("{events}"));
    assert_eq!(told["plan"], plans[1]["id"]);
    assert!(told["text"].as_str().unwrap().contains("without pdu-a/2"), "{told}");
}

/// A host on two outlets of one PDU, with a second between its feeds.
fn pair(safe: &str) -> String {
    format!(
        "[[host]]\nid = \"pair\"\noutlets = [\"pdu-a/5\", \"pdu-a/6\"]\nfeed_gap_s = 2\nsafe_state = \"{safe}\"\ndraw = {{ steady_w = 300, boot_s = 1 }}\n"
    )
}

fn cycle(curl: &Curl<'_>) -> Value {
    let wish = json!({"goals": [{"select": {"hosts": ["pair"]}, "action": "cycle"}]});
    let plan = make(curl, &wish);
    assert_eq!(run(curl, &plan).status, 202);
    plan
}

/// The relays of a PDU do not move any more, or do again; what was begun is dropped.
fn stick(sim: &Sim, stuck: bool) {
    sim.pdu.lock().unwrap().relay_delay = Span(if stuck { u64::MAX / 4 * 3 } else { 250 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_relay_stops_the_cycle_and_its_host_is_switched_on_once_that_is_possible() {
    let (a, _b, gateway) = two_pdus(&pair("on")).await;
    let curl = gateway.curl();
    let plan = cycle(&curl);
    // Both are off; then the relays stick.
    gateway.wait_for(&path(&plan), |plan| plan["steps"][1]["state"] == "done");
    stick(&a, true);
    let stopped = ended(&gateway, &path(&plan));
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    let on = &stopped["steps"][2];
    assert_eq!(
        (&on["outlet"], &on["state"]),
        (&"pdu-a/5".into(), &"unverified".into()),
        "{stopped}"
    );
    assert_eq!(stopped["steps"][3]["state"], "skipped", "{stopped}");
    let safe = format!("{}.safe", path(&plan));
    let running = gateway.wait_for(&safe, |safe| safe["state"] == "running");
    assert_eq!((&running["parent"], &running["by"]), (&plan["id"], &"the gateway".into()));
    assert_eq!(running["action"], "on", "{running}");
    // Somebody knocks at the PDU: the relays move again, and what was asked before is forgotten.
    stick(&a, false);
    a.pdu.lock().unwrap().switch(4, Relay::Off, Tick(0));
    let done = ended(&gateway, &safe);
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!((relay(&a, 5), relay(&a, 6)), (Relay::On, Relay::On));
    let events = curl.get("/v1/events?last=100");
    assert!(events.as_array().unwrap().iter().any(|e| e["kind"] == "plan.safe"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_safe_state_is_off_loses_what_is_left_of_it() {
    let (a, _b, gateway) = two_pdus(&pair("off")).await;
    let curl = gateway.curl();
    let plan = cycle(&curl);
    gateway.wait_for(&path(&plan), |plan| plan["steps"][0]["state"] == "done");
    stick(&a, true);
    let stopped = ended(&gateway, &path(&plan));
    assert_eq!(stopped["steps"][1]["state"], "unverified", "{stopped}");
    let safe = format!("{}.safe", path(&plan));
    let running = gateway.wait_for(&safe, |safe| safe["state"] == "running");
    assert_eq!(running["action"], "off", "{running}");
    stick(&a, false);
    a.pdu.lock().unwrap().switch(5, Relay::On, Tick(0));
    assert_eq!(ended(&gateway, &safe)["state"], "done");
    assert_eq!((relay(&a, 5), relay(&a, 6)), (Relay::Off, Relay::Off));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_left_half_cycled_stays_so_where_nothing_else_was_said() {
    let (a, _b, gateway) = two_pdus(&pair("stay")).await;
    let curl = gateway.curl();
    let plan = cycle(&curl);
    gateway.wait_for(&path(&plan), |plan| plan["steps"][1]["state"] == "done");
    let cancelled = curl.post(&format!("{}/cancel", path(&plan)), "", &[]);
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    assert_eq!(curl.send(&format!("{}.safe", path(&plan)), &[]).status, 404);
    assert_eq!((relay(&a, 5), relay(&a, 6)), (Relay::Off, Relay::Off));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_a_cancel_left_half_cycled_is_brought_to_its_safe_state() {
    let (a, _b, gateway) = two_pdus(&pair("on")).await;
    let curl = gateway.curl();
    let plan = cycle(&curl);
    gateway.wait_for(&path(&plan), |plan| plan["steps"][1]["state"] == "done");
    let cancelled = curl.post(&format!("{}/cancel", path(&plan)), "", &[]);
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    let safe = format!("{}.safe", path(&plan));
    gateway.wait_for(&safe, |safe| safe["state"] != "planned");
    let done = ended(&gateway, &safe);
    assert_eq!((&done["state"], &done["parent"]), (&"done".into(), &plan["id"]), "{done}");
    assert_eq!((relay(&a, 5), relay(&a, 6)), (Relay::On, Relay::On));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_an_interrupted_cycle_brings_its_host_to_its_safe_state() {
    let (a, _b, gateway) = two_pdus(&format!("after_restart = \"stop\"\n{}", pair("on"))).await;
    let plan = cycle(&gateway.curl());
    gateway.wait_for(&path(&plan), |plan| plan["steps"][1]["state"] == "done");
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
    let dir = gateway.kill();
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
    let gateway = gateway.await.unwrap();
    let interrupted = ended(&gateway, &path(&plan));
    assert_eq!(interrupted["state"], "interrupted", "{interrupted}");
    let safe = format!("{}.safe", path(&plan));
    gateway.wait_for(&safe, |safe| safe["state"] != "planned");
    let done = ended(&gateway, &safe);
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!((relay(&a, 5), relay(&a, 6)), (Relay::On, Relay::On));
    let audit = gateway.curl().get("/v1/audit?limit=100").to_string();
    assert!(audit.contains("\"plan.resumed\""), "whoever reads it knows of the restart: {audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_a_plan_under_way_is_given_to_no_other_and_that_of_one_put_off_is() {
    // What was switched off stays off for a while: until then a plan is under way that has not begun a step.
    let hosts: String = (1..=3)
        .map(|n| {
            let rests = if n < 3 { "min_off_s = 60\n" } else { "" };
            format!("[[host]]\nid = \"web-{n}\"\noutlets = [\"pdu-a/{n}\", \"pdu-b/{n}\"]\n{rests}draw = {{ steady_w = 200, boot_w = 250, boot_s = 1, inrush_w = 400 }}\n")
        })
        .collect();
    let (a, b, gateway) = crate::planned::two_pdus_with(&hosts, BUSWAY).await;
    let curl = gateway.curl();
    for host in ["web-1", "web-2", "web-3"] {
        let off = curl.post(&format!("/v1/hosts/{host}/power"), r#"{"action":"off"}"#, &[]);
        assert_eq!(off.status, 200, "{off:?}");
    }
    curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    let flows = |body: &Value| {
        let all = body["limits"].as_array().unwrap();
        all.iter().find(|limit| limit["id"] == "busway").unwrap()["load_w"].as_f64().unwrap()
    };
    let before = flows(&curl.get("/v1/limits"));
    // Two hosts and the first moment of the second: 250 W and 400 W. A third one would need 250 W more.
    let rating = ((before + 720.0) / 0.8) as i64;
    let file = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("rating_w = 20000", &format!("rating_w = {rating}")))
        .unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/limits", |body| {
        let all = body["limits"].as_array().unwrap();
        all.iter().any(|limit| limit["id"] == "busway" && limit["rating_w"] == json!(rating as f64))
    });
    use pmgate::model::time::{Clock as _, Stamp, SystemClock};
    let later = Stamp(SystemClock::start().stamp().0 + 600_000).to_string();
    let wish = |hosts: &[&str]| json!({"goals": [{"select": {"hosts": hosts}, "action": "on"}]});
    let mut put_off = wish(&["web-1", "web-2"]);
    put_off["not_before"] = json!(later);
    let third = wish(&["web-3"]).to_string();
    let alone = curl.post("/v1/plans", &third, &[]);
    assert_eq!(alone.status, 201, "{alone:?}");
    let plan = make(&curl, &put_off);
    assert_eq!(run(&curl, &plan).status, 202);
    // Nothing is held for a plan before its time.
    assert!(flows(&curl.get("/v1/limits")) < before + 20.0);
    assert_eq!(curl.post("/v1/plans", &third, &[]).status, 201);
    assert_eq!(curl.post(&format!("{}/cancel", path(&plan)), "", &[]).status, 200);
    let plan = make(&curl, &wish(&["web-1", "web-2"]));
    assert_eq!(run(&curl, &plan).status, 202);
    let reserved = flows(&curl.get("/v1/limits"));
    assert!(reserved > before + 450.0, "two hosts of 250 W are to come: {before} {reserved}");
    // Neither by a new plan, nor by one that was made before, nor by hand.
    let refused = curl.post("/v1/plans", &third, &[]);
    assert_eq!((refused.status, &refused.json()["limit"]), (409, &"busway".into()), "{refused:?}");
    assert_eq!(run(&curl, &alone.json()).status, 409);
    let by_hand = curl.post("/v1/hosts/web-3/power", r#"{"action":"on"}"#, &[]);
    assert_eq!((by_hand.status, &by_hand.json()["limit"]), (409, &"busway".into()), "{by_hand:?}");
    assert_eq!((relay(&a, 3), relay(&b, 3)), (Relay::Off, Relay::Off));
    // Once that one is cancelled there is room.
    assert_eq!(curl.post(&format!("{}/cancel", path(&plan)), "", &[]).status, 200);
    assert_eq!(curl.post("/v1/hosts/web-3/power", r#"{"action":"on"}"#, &[]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_on_again_goes_off_where_that_is_its_hosts_safe_state() {
    let (a, _b, gateway) = two_pdus(&pair("off")).await;
    let curl = gateway.curl();
    let plan = cycle(&curl);
    gateway.wait_for(&path(&plan), |plan| plan["steps"][2]["state"] == "done");
    let cancelled = curl.post(&format!("{}/cancel", path(&plan)), "", &[]).json();
    assert_eq!(cancelled["steps"][3]["state"], "skipped", "{cancelled}");
    let safe = format!("{}.safe", path(&plan));
    gateway.wait_for(&safe, |safe| safe["state"] != "planned");
    assert_eq!(ended(&gateway, &safe)["state"], "done");
    assert_eq!((relay(&a, 5), relay(&a, 6)), (Relay::Off, Relay::Off));
}
