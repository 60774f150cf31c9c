//! Plans through the whole gateway: limits, previews, runs, refusals, cancels.

use pmgate::model::switching::Relay;
use pmgate::model::time::{Clock as _, Stamp, SystemClock, Tick};
use pmgate::sim::families::Family;
use pmgate::sim::physics::Pdu;
use serde_json::{Value, json};

use crate::rig::{Curl, Gateway, Sim, communities, pause, pdu_section, pmgate};

pub async fn two_pdus(more: &str) -> (Sim, Sim, Gateway) {
    let hosts: String = (1..=4)
        .map(|n| {
            format!("[[host]]\nid = \"web-{n}\"\noutlets = [\"pdu-a/{n}\", \"pdu-b/{n}\"]\npriority = {n}\ndraw = {{ steady_w = 200, boot_w = 250, boot_s = 1, inrush_w = 400 }}\n")
        })
        .collect();
    two_pdus_with(&hosts, more).await
}

/// The same with other hosts.
pub async fn two_pdus_with(hosts: &str, more: &str) -> (Sim, Sim, Gateway) {
    let (a, b) = (Sim::start(Family::ApcRpdu2, 8).await, Sim::start(Family::Sentry4, 8).await);
    let fast = "write_gap_ms = 0\nfast_s = 1";
    let sections = format!(
        "[switching]\nhold_s = 1\n{more}{}{}{hosts}",
        pdu_section("pdu-a", a.address, fast),
        pdu_section("pdu-b", b.address, fast)
    );
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway.wait_online("pdu-b");
        gateway
    });
    (a, b, gateway.await.unwrap())
}

pub fn relay(sim: &Sim, outlet: u16) -> Relay {
    sim.pdu.lock().unwrap().relay(outlet - 1, Tick(u64::MAX / 2)).unwrap()
}

pub fn make(curl: &Curl<'_>, body: &Value) -> Value {
    let answer = curl.post("/v1/plans", &body.to_string(), &[]);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

pub fn run(curl: &Curl<'_>, plan: &Value) -> crate::rig::Answer {
    let path = format!("/v1/plans/{}/run", plan["id"].as_str().unwrap());
    curl.post(&path, &json!({"digest": plan["digest"]}).to_string(), &[])
}

pub fn ended(gateway: &Gateway, plan: &Value) -> Value {
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    gateway.wait_for(&path, |plan| plan["state"] != "running" && plan["state"] != "planned")
}

pub const FEEDS: &str = "[[limit]]\nid = \"feed-a\"\nrating_w = 20000\nof = [\"pdu-a\"]\npair = \"feed-b\"\n[[limit]]\nid = \"feed-b\"\nrating_w = 20000\nof = [\"pdu-b\"]\npair = \"feed-a\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_shown_with_rating_load_and_why() {
    let (_a, _b, gateway) = two_pdus(FEEDS).await;
    let body = gateway.curl().get("/v1/limits?max_age_ms=500");
    let limits = body["limits"].as_array().unwrap();
    let kind = |kind: &str| limits.iter().filter(|l| l["kind"] == kind).collect::<Vec<_>>();
    assert!(kind("inlet").len() >= 2 && !kind("branch").is_empty(), "{body}");
    let feed = limits.iter().find(|limit| limit["id"] == "feed-a").unwrap();
    assert_eq!((&feed["rating_w"], &feed["budget_w"]), (&20000.0.into(), &16000.0.into()));
    let outlets = gateway.curl().get("/v1/pdus/pdu-a/outlets?max_age_ms=0");
    let drawn: f64 = outlets["outlets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| {
            o["apparent_power_va"].as_f64().or(o["current_a"].as_f64().map(|a| a * 230.0)).unwrap()
        })
        .sum();
    let load = feed["load_w"].as_f64().unwrap();
    assert!((load - drawn).abs() < drawn * 0.1, "{load} against {drawn}");
    assert_eq!(kind("pair").len(), 1, "{body}");
    for limit in limits {
        let number = |key: &str| limit[key].as_f64().unwrap();
        let left = (number("budget_w") - number("load_w")).max(0.0);
        assert!((left - number("headroom_w")).abs() < 0.01, "{limit}");
        assert!(!limit["why"].as_str().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_previewed_kept_run_and_done() {
    let (a, b, gateway) = two_pdus(FEEDS).await;
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"hosts": ["web-1", "web-2"]}, "action": "cycle"}, {"select": {"outlets": ["pdu-a/7"]}, "action": "off"}], "reason": "kernel", "dry_run": true});
    let dry = curl.post("/v1/plans", &wish.to_string(), &[]);
    assert_eq!(dry.status, 200, "{dry:?}");
    assert_eq!(curl.get("/v1/plans")["plans"], json!([]), "a dry run is not kept");
    let mut wish = wish;
    wish["dry_run"] = json!(false);
    let plan = make(&curl, &wish);
    assert_eq!((&plan["state"], &plan["action"]), (&"planned".into(), &"mixed".into()));
    assert_eq!(plan["steps"].as_array().unwrap().len(), 9, "{plan}");
    assert!(plan["makespan_ms"].as_u64().unwrap() > 1_000);
    let policy = ["on_failure", "on_overload", "order"].map(|key| plan[key].as_str().unwrap());
    assert_eq!(policy, ["stop", "stop", "fastest"], "{plan}");
    is_documented(&curl, &plan);
    let line =
        plan["timeline"].as_array().unwrap().iter().find(|l| l["limit"] == "feed-a").unwrap();
    let budget = line["budget_w"].as_f64().unwrap();
    let points = line["points"].as_array().unwrap();
    assert!(
        points.len() > 2 && points.iter().all(|p| p["load_w"].as_f64().unwrap() <= budget),
        "{line}"
    );
    assert_eq!(relay(&a, 7), Relay::On, "making a plan switches nothing");
    // Not with another digest.
    let mut other = plan.clone();
    other["digest"] = json!("00");
    assert_eq!(run(&curl, &other).status, 409);
    let begun = run(&curl, &plan);
    assert_eq!(begun.status, 202, "{begun:?}");
    let done = ended(&gateway, &plan);
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!((relay(&a, 7), relay(&a, 1), relay(&b, 2)), (Relay::Off, Relay::On, Relay::On));
    // No host was switched on before all of it had been off for its hold.
    let at = |outlet: &str, action: &str| {
        let steps = done["steps"].as_array().unwrap();
        let step = steps.iter().find(|s| s["outlet"] == outlet && s["action"] == action).unwrap();
        step["at"].as_str().unwrap().to_owned()
    };
    for host in 1..=2 {
        let off = at(&format!("pdu-a/{host}"), "off").max(at(&format!("pdu-b/{host}"), "off"));
        let on = at(&format!("pdu-a/{host}"), "on").min(at(&format!("pdu-b/{host}"), "on"));
        let stamp = |text: &str| Stamp::parse_at(text, Stamp(0)).unwrap().0;
        assert!(stamp(&on) - stamp(&off) >= 1_000, "{done}");
    }
    assert_eq!(run(&curl, &plan).status, 409, "a plan is run once");
}

/// Every field of a plan and of its steps is in the API's own description.
fn is_documented(curl: &Curl<'_>, plan: &Value) {
    let document = curl.get("/openapi.json");
    let schemas = &document["components"]["schemas"];
    let mut bodies = vec![(plan, ["PlannedBody", "PlanBody"])];
    bodies.extend(plan["steps"].as_array().unwrap().iter().map(|step| (step, ["StepBody"; 2])));
    for (body, names) in bodies {
        for key in body.as_object().unwrap().keys() {
            let told = names.iter().any(|name| {
                let text = schemas[*name].to_string();
                text.contains(&format!("\"{key}\":"))
            });
            assert!(told, "{key} is in no schema of {names:?}");
        }
    }
    let states = schemas["StepBody"]["properties"]["state"]["description"].as_str().unwrap();
    assert!(states.contains("`intended`") && !states.contains("`written`"), "{states}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outlet_whose_branch_the_pdu_does_not_have_counts_on_each_and_that_is_told() {
    let strange = "[[outlet]]\nid = \"pdu-a/7\"\nbranch = \"B9\"\n";
    let (_a, _b, gateway) = two_pdus(strange).await;
    let curl = gateway.curl();
    let told = gateway.wait_for("/v1/events?last=200", |events| {
        events.as_array().unwrap().iter().any(|event| event["kind"] == "outlet.unknown_part")
    });
    let told: Vec<&Value> = told
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "outlet.unknown_part")
        .collect();
    assert_eq!((told.len(), &told[0]["outlet"]), (1, &json!("pdu-a/7")), "{told:?}");
    assert!(told[0]["text"].as_str().unwrap().contains("branch \"B9\""), "{told:?}");
    let status = curl.get("/v1/status");
    assert!(status["alarms"].to_string().contains("pdu-a/7"), "{status}");
    let limits = curl.get("/v1/limits");
    let why = |id: &str| {
        let limit = limits["limits"].as_array().unwrap().iter().find(|l| l["id"] == id).unwrap();
        limit["why"].as_str().unwrap().to_owned()
    };
    assert!(why("pdu-a/B1").contains("outlet pdu-a/7 counts on it"), "{limits}");
    assert!(!why("pdu-b/B1").contains("counts on it"), "{limits}");
    // In a preview it weighs on every branch of its PDU.
    let wish = json!({"goals": [{"select": {"outlets": ["pdu-a/7"]}, "action": "cycle"}], "dry_run": true});
    let dry = curl.post("/v1/plans", &wish.to_string(), &[]).json();
    let lines: Vec<&str> =
        dry["timeline"].as_array().unwrap().iter().map(|l| l["limit"].as_str().unwrap()).collect();
    let branches = limits["limits"].as_array().unwrap().iter().filter(|limit| {
        limit["kind"] == "branch" && limit["id"].as_str().unwrap().starts_with("pdu-a/")
    });
    for branch in branches {
        assert!(lines.contains(&branch["id"].as_str().unwrap()), "{branch} not in {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_phase_of_a_configured_limit_is_held_and_not_only_their_sum() {
    // Three phases of 12 A: by their sum there is room for far more than one of them bears.
    for rating in ["rating_a = 12", "rating_w = 8280"] {
        each_phase_is_held(rating).await;
    }
}

async fn each_phase_is_held(rating: &str) {
    let limit = format!(
        "[[limit]]\nid = \"room\"\n{rating}\nvolts = 230\nphases = 3\nderate_percent = 100\nof = [\"pdu-a@L1\", \"pdu-b@L2\"]\n"
    );
    let hosts =
        "[[host]]\nid = \"big\"\noutlets = [\"pdu-b/8\"]\ndraw = { steady_w = 100, boot_s = 1 }\n";
    let a = Sim::start(Family::ApcRpdu2, 8).await;
    let b = Sim::of(Family::Sentry4, Pdu::new(1, 8, 1, 1), communities()).await;
    let pdus = [("pdu-a", &a), ("pdu-b", &b)]
        .map(|(id, sim)| pdu_section(id, sim.address, "write_gap_ms = 0\nfast_s = 1"));
    let sections = format!("{}{limit}{hosts}", pdus.concat());
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway.wait_online("pdu-b");
        gateway
    });
    let gateway = gateway.await.unwrap();
    let curl = gateway.curl();
    let limits = curl.get("/v1/limits");
    let of = |id: &str| {
        let all = limits["limits"].as_array().unwrap();
        all.iter().find(|limit| limit["id"] == id).unwrap_or_else(|| panic!("no {id}: {limits}"))
    };
    let watts = |id: &str, key: &str| of(id)[key].as_f64().unwrap();
    assert_eq!(of("room")["rating_w"], json!(8_280.0));
    for line in ["room/L1", "room/L2", "room/L3"] {
        assert_eq!((&of(line)["rating_w"], &of(line)["kind"]), (&json!(2_760.0), &json!("phase")));
    }
    // A PDU with phases of its own knows better than the configuration, and that is told.
    let why = of("room/L2")["why"].as_str().unwrap();
    assert!(why.ends_with("; pdu-a has phases of its own, so @L1 is not heeded"), "{why}");
    // What hangs on pdu-b is on L2 and on no other.
    assert!(watts("room/L2", "load_w") > watts("room/L3", "load_w") + 1_000.0, "{limits}");
    assert_eq!(curl.power("pdu-b/8", "off").status, 200);
    assert_eq!(relay(&b, 8), Relay::Off);
    let wish = json!({"goals": [{"select": {"hosts": ["big"]}, "action": "on"}]});
    let refused = curl.post("/v1/plans", &wish.to_string(), &[]);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(refused.json()["limit"], "room/L2", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_matters_more_goes_off_last_and_comes_back_first() {
    let (_a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let order = |action: &str, first: &str| -> Vec<String> {
        let hosts = ["web-1", "web-2", "web-3", "web-4"];
        let goals = json!([{"select": {"hosts": hosts}, "action": action}]);
        let wish = json!({"goals": goals, "order": "priority", "dry_run": true});
        let answer = curl.post("/v1/plans", &wish.to_string(), &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
        let steps = answer.json()["steps"].as_array().unwrap().clone();
        let on_a = steps.iter().filter(|step| step["action"] == first);
        let outlets = on_a.map(|step| step["outlet"].as_str().unwrap().to_owned());
        outlets.filter(|outlet| outlet.starts_with("pdu-a/")).collect()
    };
    // The priority of a host is the number of its outlet.
    assert_eq!(order("off", "off"), ["pdu-a/1", "pdu-a/2", "pdu-a/3", "pdu-a/4"]);
    for step in ["off", "on"] {
        assert_eq!(order("cycle", step), ["pdu-a/4", "pdu-a/3", "pdu-a/2", "pdu-a/1"], "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_world_has_changed_is_refused_with_the_difference() {
    let (_a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"outlets": ["pdu-a/5", "pdu-a/6"]}, "action": "off"}]});
    let plan = make(&curl, &wish);
    assert_eq!(curl.power("pdu-a/5", "off").status, 200);
    let refused = run(&curl, &plan);
    assert_eq!(refused.status, 409, "{refused:?}");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("pdu-a/5 was on and is off"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_names_the_limit() {
    // Room for what flows, and for one host more, not for two.
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    for host in ["web-1", "web-2"] {
        let body = "{\"action\":\"off\"}";
        assert_eq!(curl.post(&format!("/v1/hosts/{host}/power"), body, &[]).status, 200);
    }
    curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    let flows = gateway.wait_for("/v1/limits", |body| body["limits"].is_array());
    let inlet = flows["limits"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["kind"] == "inlet" && l["id"].as_str().unwrap().starts_with("pdu-a"))
        .unwrap()
        .clone();
    let load = inlet["load_w"].as_f64().unwrap();
    let rating = ((load + 500.0) / 0.8) as i64;
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let limit = format!("[[limit]]\nid = \"busway\"\nrating_w = {rating}\nof = [\"pdu-a\"]\n");
    std::fs::write(gateway.dir.path().join("gateway.toml"), text + &limit).unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/limits", |body| {
        body["limits"].as_array().unwrap().iter().any(|limit| limit["id"] == "busway")
    });
    let wish = json!({"goals": [{"select": {"outlets": ["pdu-a/1", "pdu-a/2"]}, "action": "on"}]});
    let refused = curl.post("/v1/plans", &wish.to_string(), &[]);
    assert_eq!(refused.status, 409, "{refused:?}");
    let body = refused.json();
    assert_eq!(body["limit"], "busway", "{body}");
    assert_eq!(body["leave_out"].as_array().unwrap().len(), 1, "{body}");
    assert!(body["needs_w"].as_i64().unwrap() > body["headroom_w"].as_i64().unwrap(), "{body}");
    // One of them fits, by hand as well; the other then does not, by hand neither.
    assert_eq!(curl.power("pdu-a/1", "on").status, 200);
    let second = curl.power("pdu-a/2", "on");
    assert_eq!(
        (second.status, second.json()["limit"].as_str()),
        (409, Some("busway")),
        "{second:?}"
    );
    assert_eq!(relay(&a, 2), Relay::Off);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_plan_begins_no_further_step() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"pdus": ["pdu-a"]}, "action": "cycle"}]});
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    gateway.wait_for(&path, |plan| plan["steps"][1]["state"] == "done");
    let cancelled = curl.post(&format!("{path}/cancel"), "", &[]);
    assert_eq!(
        (cancelled.status, &cancelled.json()["state"]),
        (200, &"cancelled".into()),
        "{cancelled:?}"
    );
    let steps = cancelled.json()["steps"].as_array().unwrap().clone();
    assert!(steps.iter().any(|step| step["state"] == "skipped"), "{steps:?}");
    for step in &steps {
        let outlet: u16 = step["outlet"].as_str().unwrap()[6..].parse().unwrap();
        if step["state"] == "skipped" && step["action"] == "off" {
            assert_eq!(relay(&a, outlet), Relay::On, "{step}");
        }
    }
    assert_eq!(ended(&gateway, &plan)["outcome"], "skipped", "not all of it is done");
    // Its outlets are free.
    assert_eq!(curl.power("pdu-a/8", "off").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_killed_in_the_middle_goes_on_and_does_nothing_twice() {
    let (a, _b, gateway) = two_pdus("").await;
    let wish = json!({"goals": [{"select": {"outlets": ["pdu-a/3", "pdu-a/4", "pdu-a/5", "pdu-a/6"]}, "action": "off"}]});
    let plan = make(&gateway.curl(), &wish);
    assert_eq!(run(&gateway.curl(), &plan).status, 202);
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    gateway.wait_for(&path, |plan| plan["steps"][1]["state"] == "done");
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = text.split_once("[switching]").unwrap().1.to_owned();
    let dir = gateway.kill();
    let gateway = tokio::task::spawn_blocking(move || {
        Gateway::in_dir(dir, &format!("[switching]{sections}"), &[])
    });
    let gateway = gateway.await.unwrap();
    let done = ended(&gateway, &plan);
    assert_eq!(done["state"], "done", "{done}");
    for outlet in 3..=6 {
        assert_eq!(relay(&a, outlet), Relay::Off);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_for_a_plan_makes_no_second_one_also_after_a_restart() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let goals = json!([{"select": {"outlets": ["pdu-a/5"]}, "action": "off"}]);
    let wish = json!({"goals": goals, "reason": "once"}).to_string();
    let key = ["-H", "Idempotency-Key: plan-1"];
    // A dry run keeps nothing, and uses no key up.
    let dry = json!({"goals": goals, "reason": "tried", "dry_run": true}).to_string();
    assert_eq!(curl.post("/v1/plans", &dry, &key).status, 200);
    let first = curl.post("/v1/plans", &wish, &key);
    assert_eq!(first.status, 201, "{first:?}");
    // The same wish in other words.
    let other = r#"{"reason": "once", "on_failure": "stop", "goals": [{"action": "off", "select": {"outlets": ["pdu-a/5"], "hosts": []}}]}"#;
    let again = curl.post("/v1/plans", other, &key);
    assert_eq!((again.status, again.json()), (201, first.json()), "{again:?}");
    let count = |curl: &Curl<'_>| curl.get("/v1/plans")["plans"].as_array().unwrap().len();
    assert_eq!(count(&curl), 1);
    let refused = |answer: crate::rig::Answer| {
        let title = answer.json()["title"].clone();
        assert_eq!((answer.status, title), (422, "Idempotency-Key reused".into()), "{answer:?}");
    };
    refused(curl.post("/v1/plans", &wish.replace("once", "twice"), &key));
    let power = "/v1/pdus/pdu-a/outlets/5/power";
    refused(curl.post(power, r#"{"action":"off","reason":"once"}"#, &key));
    let used = ["-H", "Idempotency-Key: power-1"];
    assert_eq!(curl.post(power, r#"{"action":"on"}"#, &used).status, 200);
    refused(curl.post("/v1/plans", &wish, &used));
    let long = format!("Idempotency-Key: {}", "k".repeat(129));
    assert_eq!(curl.post("/v1/plans", &wish, &["-H", &long]).status, 400);
    // Who may not make it is told nothing of it, and has keys of his own.
    let viewer = Curl::new(gateway.dir.path(), &gateway.url, "viewer");
    assert_eq!(viewer.post("/v1/plans", &wish, &key).status, 403);
    // Two at once are one.
    let both = ["-H", "Idempotency-Key: plan-2"];
    let ids: Vec<Value> = std::thread::scope(|scope| {
        let ask = || gateway.curl().post("/v1/plans", &wish, &both).json()["id"].clone();
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{ids:?}");
    assert_eq!(count(&curl), 3, "one by hand, one for each key");
    assert_eq!(run(&curl, &first.json()).status, 202);
    assert_eq!(ended(&gateway, &first.json())["state"], "done");
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
    let dir = gateway.kill();
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
    let gateway = gateway.await.unwrap();
    let again = gateway.curl().post("/v1/plans", &wish, &key);
    let (then, now) = (first.json(), again.json());
    assert_eq!((again.status, &now["id"], &now["state"]), (201, &then["id"], &"done".into()));
    assert_eq!(now["timeline"], then["timeline"], "what was foreseen then");
    assert_eq!((count(&gateway.curl()), relay(&a, 5)), (3, Relay::Off));
}

#[test]
fn the_command_line_previews_runs_and_follows() {
    let demo = crate::rig::Demo::start(2, 4);
    let file = |name: &str| demo.path(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (file("client.pem"), file("client.key"), file("ca.pem"));
    let client = ["--url", &demo.url, "--cert", &cert, "--key", &key, "--ca", &ca];
    let call = |words: &[&str]| pmgate(&[words, &client].concat(), &[]);
    let (out, err, code) = call(&["plan", "preview", "--off", "host:server-1a"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("pdu-a/1") && out.contains("off"), "{out}");
    // What it does to the limits, and to the host.
    let limits = demo.curl().get("/v1/limits");
    let inlet = limits["limits"].as_array().unwrap().iter().find(|l| l["id"] == "pdu-a/I1");
    let rated = format!("{:.0}", inlet.unwrap()["rating_w"].as_f64().unwrap());
    let row =
        out.lines().find(|line| line.starts_with("pdu-a/I1 ")).unwrap_or_else(|| panic!("{out}"));
    assert_eq!(row.split_whitespace().nth(1), Some(rated.as_str()), "{out}");
    assert!(out.contains("NOW W") && row.trim_end().ends_with('%'), "{out}");
    let course = out.lines().find(|line| line.starts_with("pdu-a/I1: ")).unwrap();
    assert!(course.contains(" W at first"), "{out}");
    assert!(out.contains("host server-1a goes dark"), "{out}");
    let (out, err, code) = call(&["plan", "preview", "--off", "host:server-1a", "--json"]);
    assert_eq!(code, 0, "{err}");
    let plain: Value = serde_json::from_str(&out).unwrap();
    assert!(plain["timeline"].is_array() && plain["goes_dark"] == json!(["server-1a"]), "{out}");
    let (out, err, code) =
        call(&["plan", "create", "--off", "pdu-a/2", "--reason", "test", "--json"]);
    assert_eq!(code, 0, "{err}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    let id = plan["id"].as_str().unwrap();
    let (out, err, code) = call(&["plan", "run", id, "--follow"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("done"), "{out}");
    let (out, _, code) = call(&["plan", "list"]);
    assert!(code == 0 && out.contains(id), "{out}");
    let (out, _, code) = call(&["plan", "show", id]);
    assert!(code == 0 && out.contains("pdu-a/2"), "{out}");
    let (_, err, code) = call(&["plan", "cancel", id]);
    assert!(code == 1 && err.contains("is done"), "{err}");
    // One that is put off says what it waits for, and how to call it off.
    let later = SystemClock::start().stamp().0 + 600_000;
    let at = Stamp(later).to_string();
    let (out, err, code) =
        call(&["plan", "create", "--off", "pdu-a/3", "--not-before", &at, "--json"]);
    assert_eq!(code, 0, "{err}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    let id = plan["id"].as_str().unwrap();
    assert_eq!(call(&["plan", "run", id]).2, 0);
    let (out, _, _) = call(&["plan", "list"]);
    let row = out.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{out}"));
    assert!(row.contains(" waiting ") && row.ends_with(&at), "{out}");
    let (out, _, _) = call(&["plan", "show", id]);
    assert!(out.contains(&format!("waits until {at}")), "{out}");
    assert!(out.contains(&format!("pmgate plan cancel {id}")), "{out}");
    assert_eq!(call(&["plan", "cancel", id]).2, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_of_a_host_are_cycled_one_after_the_other_and_the_last_is_not_cut() {
    let (a, b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let both = |action: &str| json!({"goals": [{"select": {"outlets": ["pdu-a/3", "pdu-b/3"]}, "action": action}]});
    let refused = curl.post("/v1/plans", &both("off").to_string(), &[]);
    assert_eq!(
        (refused.status, refused.json()["title"].as_str()),
        (409, Some("Last feed of a host")),
        "{refused:?}"
    );
    let plan = make(&curl, &both("cycle"));
    let order: Vec<String> = plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| format!("{} {}", s["outlet"].as_str().unwrap(), s["action"].as_str().unwrap()))
        .collect();
    assert_eq!(order, ["pdu-a/3 off", "pdu-a/3 on", "pdu-b/3 off", "pdu-b/3 on"]);
    assert_eq!(run(&curl, &plan).status, 202);
    let done = ended(&gateway, &plan);
    assert_eq!(done["state"], "done", "{done}");
    // The second went off only when no command to the first could still be under way.
    let at = |step: usize| {
        let text = done["steps"][step]["at"].as_str().unwrap();
        Stamp::parse_at(text, Stamp(0)).unwrap().0
    };
    assert!(at(2) - at(1) >= 1_500, "{done}");
    // A feed that was cut meanwhile, by anybody, keeps the other from being cut.
    let plan =
        make(&curl, &json!({"goals": [{"select": {"outlets": ["pdu-b/4"]}, "action": "off"}]}));
    a.pdu.lock().unwrap().switch(3, Relay::Off, Tick(0));
    // A poll may have told the gateway before the plan is run; if not, the step looks.
    let begun = run(&curl, &plan);
    let why = if begun.status == 202 {
        let stopped = ended(&gateway, &plan);
        assert_eq!(stopped["state"], "stopped", "{stopped}");
        stopped["steps"][0]["detail"].clone()
    } else {
        begun.json()["detail"].clone()
    };
    assert!(why.as_str().unwrap().contains("last feed of host web-4"), "{begun:?} {why}");
    assert_eq!(relay(&b, 4), Relay::On);
    // By hand neither; its first feed can be cut, once the meters have forgotten the first moment of what went on last.
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let off = curl.power("pdu-a/2", "off");
        if off.status == 200 {
            break;
        }
        assert_eq!(off.json()["title"], "Limit would be passed", "{off:?}");
        assert!(std::time::Instant::now() < until, "{off:?}");
        pause();
    }
    let refused = curl.power("pdu-b/2", "off");
    assert_eq!(
        (refused.status, refused.json()["title"].as_str()),
        (409, Some("Last feed of a host")),
        "{refused:?}"
    );
    assert_eq!(relay(&b, 2), Relay::On);
    // A host that is named may go dark; that too once the meters have forgotten.
    let wish =
        json!({"goals": [{"select": {"hosts": ["web-1"]}, "action": "off"}], "dry_run": true});
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let answer = curl.post("/v1/plans", &wish.to_string(), &[]);
        if answer.status == 200 {
            break;
        }
        assert!(std::time::Instant::now() < until, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_run_twice_at_once_is_run_once() {
    let (_a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let plan =
        make(&curl, &json!({"goals": [{"select": {"outlets": ["pdu-a/6"]}, "action": "cycle"}]}));
    let answers = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..6).map(|_| scope.spawn(|| run(&gateway.curl(), &plan).status)).collect();
        let mut all: Vec<u16> = runs.into_iter().map(|run| run.join().unwrap()).collect();
        all.sort_unstable();
        all
    });
    assert_eq!(answers, [202, 409, 409, 409, 409, 409]);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_comes_while_a_step_waits_holds() {
    // The on of the cycle waits for its hold; meanwhile an admin locks the outlet.
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let plan =
        make(&curl, &json!({"goals": [{"select": {"outlets": ["pdu-a/5"]}, "action": "cycle"}]}));
    assert_eq!(run(&curl, &plan).status, 202);
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    gateway.wait_for(&path, |plan| plan["steps"][0]["state"] == "done");
    let admin = Curl::new(gateway.dir.path(), &gateway.url, "admin");
    let lock = [
        "-X",
        "PUT",
        "-H",
        "content-type: application/json",
        "-d",
        "{\"reason\":\"somebody works there\"}",
    ];
    assert_eq!(admin.send("/v1/pdus/pdu-a/outlets/5/lock", &lock).status, 200);
    let stopped = ended(&gateway, &plan);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    assert!(
        stopped["steps"][1]["detail"].as_str().unwrap().contains("somebody works there"),
        "{stopped}"
    );
    assert_eq!(relay(&a, 5), Relay::Off);
}
