//! Plans for later: put off until a moment, and made anew by a calendar, also over a restart.

use std::process::Command;
use std::time::{Duration, Instant};

use pmgate::model::switching::Relay;
use pmgate::model::time::{Clock as _, Span, Stamp, SystemClock, Tick};
use serde_json::{Value, json};

use crate::planned::{ended, make, relay, run, two_pdus};
use crate::rig::{Curl, Gateway, PMGATE, pause};

fn now() -> Stamp {
    SystemClock::start().stamp()
}

fn stamp(text: &Value) -> Stamp {
    Stamp::parse_at(text.as_str().unwrap(), Stamp(0)).unwrap()
}

fn off(outlets: &[&str]) -> Value {
    json!({"goals": [{"select": {"outlets": outlets}, "action": "off"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_put_off_begins_at_its_time_and_not_before() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let at = Stamp(now().0 + 8_000);
    let mut wish = off(&["pdu-a/5"]);
    wish["not_before"] = json!(at.to_string());
    let plan = make(&curl, &wish);
    assert_eq!(plan["not_before"], json!(at.to_string()), "{plan}");
    let begun = run(&curl, &plan);
    assert_eq!((begun.status, &begun.json()["state"]), (202, &"running".into()), "{begun:?}");
    assert_eq!(begun.json()["waiting_until"], json!(at.to_string()), "{begun:?}");
    let shown = curl.get(&format!("/v1/plans/{}", plan["id"].as_str().unwrap()));
    assert_eq!(shown["waiting_until"], json!(at.to_string()), "{shown}");
    assert!(shown["next"].as_str().unwrap().contains("/cancel"), "{shown}");
    assert_eq!(curl.get("/v1/plans")["plans"][0]["waiting_until"], json!(at.to_string()));
    // Nothing is held for it: others switch its outlet, and as it is as before, so will it.
    for action in ["off", "on"] {
        let by_hand = curl.power("pdu-a/5", action);
        assert_eq!(by_hand.status, 200, "{by_hand:?}");
    }
    let done = ended(&gateway, &plan);
    assert_eq!(done["state"], "done", "{done}");
    let step = stamp(&done["steps"][0]["at"]);
    assert!(step >= at && step.0 < at.0 + 10_000, "{done}");
    assert_eq!(done.get("waiting_until"), None, "{done}");
    assert_eq!(relay(&a, 5), Relay::Off);
    // One that is under way, and still waits, is cancelled.
    let mut wish = off(&["pdu-a/6"]);
    wish["not_before"] = json!(Stamp(now().0 + 600_000).to_string());
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    let path = format!("/v1/plans/{}/cancel", plan["id"].as_str().unwrap());
    let cancelled = curl.post(&path, "", &[]);
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    assert_eq!(relay(&a, 6), Relay::On);
    let far = Stamp(now().0 + 8 * 86_400_000).to_string();
    for wrong in [far.as_str(), "tomorrow", "+5m", "2020-01-01T00:00:00Z"] {
        wish["not_before"] = json!(wrong);
        assert_eq!(curl.post("/v1/plans", &wish.to_string(), &[]).status, 400, "{wrong}");
    }
}

/// A client that was away for an hour asks again for what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_tells_of_its_plan_also_when_the_time_of_that_is_long_over() {
    let (_a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let mut wish = off(&["pdu-a/5"]);
    // For a new plan that is in time for some seconds more.
    let at = Stamp(now().0 - 3_600_000 + 5_000);
    wish["not_before"] = json!(at.to_string());
    let send = |key: &str| {
        let key = format!("Idempotency-Key: {key}");
        curl.post("/v1/plans", &wish.to_string(), &["-H", &key])
    };
    let first = send("one");
    assert_eq!(first.status, 201, "{first:?}");
    while now().0 <= at.0 + 3_600_000 {
        pause();
    }
    let again = send("one");
    assert_eq!((again.status, &again.json()["id"]), (201, &first.json()["id"]), "{again:?}");
    let other = send("two");
    assert_eq!(other.status, 400, "{other:?}");
    assert!(other.json()["detail"].as_str().unwrap().contains("not_before"), "{other:?}");
    wish["dry_run"] = json!(true);
    assert_eq!(curl.post("/v1/plans", &wish.to_string(), &[]).status, 400);
}

/// A disk that takes nothing more, while a plan waits: it begins no step, and a restart knows nothing of its cancel.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_cannot_be_made_durable_is_not_said_to_be_done() {
    let (a, _b, gateway) = two_pdus("").await;
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
    let dir = gateway.kill();
    // What it may not write is an error then, and not its end.
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" XFSZ; exec "$0" serve --config "$1""#, PMGATE]);
    command.arg(dir.path().join("gateway.toml"));
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::served(dir, command);
        gateway.wait_online("pdu-a");
        gateway
    });
    let gateway = gateway.await.unwrap();
    let mut wish = off(&["pdu-a/5"]);
    wish["not_before"] = json!(Stamp(now().0 + 600_000).to_string());
    let plan = make(&gateway.curl(), &wish);
    assert_eq!(run(&gateway.curl(), &plan).status, 202);
    let pid = gateway.running.pid().to_string();
    let full = Command::new("prlimit").args(["--pid", &pid, "--fsize=1"]).status().unwrap();
    assert!(full.success());
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    for _ in 0..2 {
        let answer = gateway.curl().post(&format!("{path}/cancel"), "", &[]);
        assert_eq!(answer.status, 507, "{answer:?}");
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("begins no further step") && detail.contains("may go on"));
        assert!(problem["next"].as_str().unwrap().contains("restart"), "{problem}");
    }
    // As it was told.
    let dir = gateway.kill();
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
    let gateway = gateway.await.unwrap();
    let shown = gateway.curl().get(&path);
    assert_eq!(
        (&shown["state"], shown.get("waiting_until")),
        (&"running".into(), plan.get("not_before"))
    );
    let cancelled = gateway.curl().post(&format!("{path}/cancel"), "", &[]);
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &"cancelled".into()));
    assert_eq!(relay(&a, 5), Relay::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_world_changes_while_it_waits_switches_nothing_whatever_its_policy() {
    let (a, b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let mut wish = off(&["pdu-a/5", "pdu-a/6", "pdu-b/7"]);
    wish["not_before"] = json!(Stamp(now().0 + 4_000).to_string());
    wish["on_failure"] = json!("continue");
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    // Somebody presses the button at the PDU.
    a.pdu.lock().unwrap().switch(4, Relay::Off, Tick(0));
    gateway.wait_for("/v1/pdus/pdu-a/outlets/5", |outlet| outlet["state"] == "off");
    let stopped = ended(&gateway, &plan);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    let failed = stopped["steps"].as_array().unwrap().iter().find(|s| s["state"] == "failed");
    let detail = failed.unwrap()["detail"].as_str().unwrap();
    assert!(detail.contains("pdu-a/5 was on and is off"), "{stopped}");
    assert_eq!((relay(&a, 6), relay(&b, 7)), (Relay::On, Relay::On), "{stopped}");
}

/// A host that stays off for a while when it is cycled.
const SLOW: &str = "[[host]]\nid = \"slow\"\noutlets = [\"pdu-a/5\"]\nhold_s = 8\ndraw = { steady_w = 200, boot_s = 1 }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_outlet_is_being_switched_when_it_is_due_waits_for_that() {
    let (a, _b, gateway) = crate::planned::two_pdus_with(SLOW, "").await;
    let curl = gateway.curl();
    let put_off = |after_ms| {
        let mut wish = json!({"goals": [{"select": {"hosts": ["slow"]}, "action": "off"}]});
        wish["not_before"] = json!(Stamp(now().0 + after_ms).to_string());
        let plan = make(&curl, &wish);
        assert_eq!(run(&curl, &plan).status, 202);
        plan
    };
    let plan = put_off(3_000);
    let at_once = ["-H", "Prefer: respond-async"];
    let cycle = curl.post("/v1/hosts/slow/power", r#"{"action":"cycle"}"#, &at_once);
    assert_eq!(cycle.status, 202, "{cycle:?}");
    let events = gateway.wait_for("/v1/events?last=100", |events| {
        events.as_array().unwrap().iter().any(|e| e["kind"] == "plan.waits")
    });
    let told = events.as_array().unwrap().iter().find(|e| e["kind"] == "plan.waits").unwrap();
    let text = told["text"].as_str().unwrap();
    let busy =
        format!("pdu-a/5 is being switched by plan {}", cycle.json()["id"].as_str().unwrap());
    assert!(told["plan"] == plan["id"] && text.contains(&busy), "{told}");
    assert_eq!(ended(&gateway, &cycle.json())["state"], "done");
    let done = ended(&gateway, &plan);
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(relay(&a, 5), Relay::Off);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_due_while_the_gateway_was_off_waits_until_the_rack_is_read() {
    let (mut a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let put_off = |outlet: &str, after_ms| {
        let mut wish = off(&[outlet]);
        wish["not_before"] = json!(Stamp(now().0 + after_ms).to_string());
        let plan = make(&curl, &wish);
        assert_eq!(run(&curl, &plan).status, 202);
        plan
    };
    let (missed, later) = (put_off("pdu-a/5", 1_500), put_off("pdu-a/6", 600_000));
    a.fails();
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!(
        "[poll]\nretry_s = 1\nretry_max_s = 1\n[switching]{}",
        text.split_once("[switching]").unwrap().1
    );
    let dir = gateway.kill();
    let due = Instant::now() + Duration::from_millis(1_600);
    while Instant::now() < due {
        pause();
    }
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
    let gateway = gateway.await.unwrap();
    let path = |plan: &Value| format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    let events = gateway.wait_for("/v1/events?last=100", |events| {
        events.as_array().unwrap().iter().any(|e| e["kind"] == "plan.waits")
    });
    let waits = events.as_array().unwrap().iter().find(|e| e["kind"] == "plan.waits").unwrap();
    assert_eq!(waits["plan"], missed["id"], "{events}");
    // The rack cannot be read yet.
    gateway.wait_for("/v1/pdus/pdu-b", |pdu| pdu["state"] == "online");
    let waiting = gateway.curl().get(&path(&missed));
    assert_eq!((&waiting["state"], relay(&a, 5)), (&"running".into(), Relay::On), "{waiting}");
    a.comes_back(pmgate::sim::families::Family::ApcRpdu2).await;
    let done = ended(&gateway, &missed);
    assert_eq!((&done["state"], relay(&a, 5)), (&"done".into(), Relay::Off), "{done}");
    // The one whose time has not come is not lost either.
    let waiting = gateway.curl().get(&path(&later));
    assert_eq!(waiting["state"], "running", "{waiting}");
    assert!(waiting["waiting_until"].is_string() && relay(&a, 6) == Relay::On, "{waiting}");
    let cancelled = gateway.curl().post(&format!("{}/cancel", path(&later)), "", &[]);
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
}

/// Waits long enough for a calendar, which knows minutes.
fn wait_minutes(gateway: &Gateway, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(150);
    loop {
        let body = gateway.curl().get(path);
        if holds(&body) {
            return body;
        }
        assert!(Instant::now() < until, "never came: {path}: {body}");
        pause();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_makes_its_plan_anew_also_after_a_restart_until_it_is_cancelled() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    for (rule, why) in [("every day", "begins with days"), ("Mon 7:30", "comes a time")] {
        let mut wish = off(&["pdu-a/5"]);
        wish["calendar"] = json!(rule);
        let refused = curl.post("/v1/plans", &wish.to_string(), &[]);
        assert!(refused.status == 400 && refused.body.contains(why), "{refused:?}");
    }
    // The first minute that begins long enough from now for a restart.
    let at = (now().0 + 15_000) / 60_000 * 60_000 + 60_000;
    let next = Stamp(at).to_string();
    let mut wish = off(&["pdu-a/5"]);
    wish["calendar"] = json!(format!("daily {} UTC", &next[11..16]));
    let plan = make(&curl, &wish);
    assert_eq!((&plan["calendar"], &plan["state"]), (&wish["calendar"], &"planned".into()));
    let begun = run(&curl, &plan);
    assert_eq!((begun.status, &begun.json()["state"]), (202, &"scheduled".into()), "{begun:?}");
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
    let again = async |gateway: Gateway| {
        let (dir, sections) = (gateway.kill(), sections.clone());
        let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
        let gateway = gateway.await.unwrap();
        gateway.wait_online("pdu-a");
        gateway.wait_online("pdu-b");
        gateway
    };
    let gateway = again(gateway).await;
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    let shown = gateway.curl().get(&path);
    assert_eq!((&shown["state"], &shown["next_run_at"]), (&"scheduled".into(), &json!(next)));
    assert_eq!(relay(&a, 5), Relay::On, "not before its time");
    let plans = wait_minutes(&gateway, "/v1/plans", |plans| {
        let instance = &plans["plans"][0];
        instance["parent"] == plan["id"] && instance["state"] != "running"
    });
    let instance = &plans["plans"][0];
    assert_eq!(instance["state"], "done", "{instance}");
    assert_eq!(instance["by"], "the calendar for client (operator); run by client (operator)");
    assert!(stamp(&instance["created_at"]).0 >= at, "{instance}");
    assert!(Stamp(at).since(stamp(&instance["created_at"])) < Span::seconds(30), "{instance}");
    assert_eq!(relay(&a, 5), Relay::Off);
    let events = gateway.curl().get("/v1/events?last=100");
    assert!(events.as_array().unwrap().iter().any(|e| e["kind"] == "plan.by_calendar"), "{events}");
    // Killed in the same minute: what was missed by less would be made up for, but this time was seen to.
    assert_eq!(gateway.curl().power("pdu-a/5", "on").status, 200);
    let gateway = again(gateway).await;
    let curl = gateway.curl();
    // A time that cannot be had at once is tried again after five seconds.
    let mut later = off(&["pdu-a/6"]);
    later["not_before"] = json!(Stamp(now().0 + 8_000).to_string());
    let later = make(&curl, &later);
    assert_eq!(run(&curl, &later).status, 202);
    assert_eq!(ended(&gateway, &later)["state"], "done");
    let plans = curl.get("/v1/plans");
    let of_it = plans["plans"].as_array().unwrap().iter().filter(|of| of["parent"] == plan["id"]);
    assert_eq!((of_it.count(), relay(&a, 5)), (1, Relay::On), "{plans}");
    let kept = gateway.wait_for(&path, |plan| !plan["last_run"].is_null());
    assert_eq!(kept["state"], "scheduled", "it is run again tomorrow");
    assert_eq!(kept["last_run"], json!(format!("run as {}", instance["id"].as_str().unwrap())));
    assert_eq!(stamp(&kept["last_run_at"]), Stamp(at), "{kept}");
    let cancelled = curl.post(&format!("{path}/cancel"), "", &[]);
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    assert_eq!(run(&curl, &plan).status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_does_not_run_what_its_maker_may_no_longer_switch() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let at = (now().0 + 10_000) / 60_000 * 60_000 + 60_000;
    let mut wish = off(&["pdu-a/5"]);
    wish["calendar"] = json!(format!("daily {} UTC", &Stamp(at).to_string()[11..16]));
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    // Since then the policy was narrowed.
    crate::approved::reload(&gateway, |text| {
        format!(
            "{text}[[policy.grant]]\nname = \"client\"\nrole = \"operator\"\nreach = [\"pdu-b\"]\n"
        )
    });
    let plans =
        wait_minutes(&gateway, "/v1/plans", |plans| plans["plans"][0]["parent"] == plan["id"]);
    let instance = &plans["plans"][0];
    assert_eq!(instance["state"], "stopped", "{instance}");
    assert_eq!(instance["steps"][0]["state"], "skipped", "{instance}");
    let detail = instance["steps"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("the policy of this gateway does not let"), "{detail}");
    assert_eq!(relay(&a, 5), Relay::On);
    let events = gateway.wait_for("/v1/events?last=100", |events| {
        events.as_array().unwrap().iter().any(|e| e["kind"] == "plan.missed")
    });
    let missed = events.as_array().unwrap().iter().find(|e| e["kind"] == "plan.missed").unwrap();
    assert!(missed["text"].as_str().unwrap().contains("does not let"), "{missed}");
    let audit = curl.get("/v1/audit?last=50");
    let lines = audit["entries"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["kind"] == "plan.refused"), "{audit}");
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    let kept = gateway.wait_for(&path, |plan| !plan["last_run"].is_null());
    assert_eq!(kept["state"], "scheduled", "it may be allowed again tomorrow");
    assert!(kept["last_run"].as_str().unwrap().starts_with("not run: "), "{kept}");
    let audit = curl.get("/v1/audit?last=50");
    let lines = audit["entries"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["kind"] == "plan.missed"), "{audit}");
}

fn cancelled(gateway: &Gateway, plan: &Value, why: &str) {
    let ended = ended(gateway, plan);
    assert_eq!(ended["state"], "cancelled", "{ended}");
    assert_eq!(ended["steps"][0]["state"], "skipped", "{ended}");
    let events = gateway.curl().get("/v1/events?last=200");
    let told = events
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["kind"] == "plan.refused" && e["text"].as_str().unwrap().contains(why));
    assert!(told.is_some(), "{why}: {events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_waits_is_called_off_once_its_maker_or_approver_may_no_longer() {
    let (a, _b, gateway) = two_pdus("[approval]\nfrom_outlets = 2\n").await;
    let curl = gateway.curl();
    let later = || json!(Stamp(now().0 + 600_000).to_string());
    let put_off = |outlets: &[&str]| {
        let mut wish = off(outlets);
        wish["not_before"] = later();
        make(&curl, &wish)
    };
    let approve = |plan: &Value| {
        let path = format!("/v1/plans/{}/approve", plan["id"].as_str().unwrap());
        let digest = json!({ "digest": plan["digest"] }).to_string();
        Curl::new(gateway.dir.path(), &gateway.url, "approver").post(&path, &digest, &[])
    };
    let agreed = put_off(&["pdu-a/5", "pdu-a/6"]);
    assert_eq!(approve(&agreed).status, 200);
    assert_eq!(run(&curl, &agreed).status, 202);
    let own = put_off(&["pdu-a/7"]);
    assert_eq!(run(&curl, &own).status, 202);
    let kept = make(&curl, &off(&["pdu-a/7", "pdu-a/8"]));
    assert_eq!(approve(&kept).status, 200);
    // The approver's certificate is revoked: what rests on it is called off, what does not goes on.
    crate::approved::revoke(&gateway, "approver");
    cancelled(&gateway, &agreed, "needs the approval of 1 more");
    let path = format!("/v1/plans/{}", own["id"].as_str().unwrap());
    assert_eq!(curl.get(&path)["state"], "running");
    assert_eq!(run(&curl, &kept).json()["title"], "Needs approval");
    // The maker's rights shrink while the gateway is off.
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!(
        "[switching]{}[[policy.grant]]\nname = \"client\"\nrole = \"operator\"\nreach = [\"pdu-b\"]\n",
        text.split_once("[switching]").unwrap().1
    );
    let dir = gateway.kill();
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
    let gateway = gateway.await.unwrap();
    let ended = ended(&gateway, &own);
    assert_eq!(
        (&ended["state"], &ended["steps"][0]["state"]),
        (&"cancelled".into(), &"skipped".into())
    );
    assert_eq!([5, 6, 7].map(|outlet| relay(&a, outlet)), [Relay::On; 3]);
}
