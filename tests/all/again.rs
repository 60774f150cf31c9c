//! What is asked for again, or against each other: a run with its key, a list page by page, an off during a cycle.

use pmgate::model::switching::Relay;
use serde_json::{Value, json};

use crate::planned::{ended, make, relay, run, two_pdus, two_pdus_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_asked_for_again_with_its_key_is_answered_and_runs_once() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let wish =
        json!({"goals": [{"select": {"outlets": ["pdu-a/5"]}, "action": "off"}], "reason": "once"});
    let (plan, other) = (make(&curl, &wish), make(&curl, &wish));
    let keyed = |plan: &Value| {
        let path = format!("/v1/plans/{}/run", plan["id"].as_str().unwrap());
        let body = json!({"digest": plan["digest"]}).to_string();
        curl.post(&path, &body, &["-H", "idempotency-key: run-1"])
    };
    assert_eq!(keyed(&plan).status, 202);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    assert_eq!(curl.power("pdu-a/5", "on").status, 200);
    let again = keyed(&plan);
    assert_eq!((again.status, &again.json()["state"]), (202, &"done".into()), "{again:?}");
    assert_eq!(relay(&a, 5), Relay::On, "nothing was switched again");
    // Without a key, and with it for something else.
    assert_eq!(run(&curl, &plan).status, 409);
    assert_eq!(keyed(&other).status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_no_page_gave_is_refused() {
    let (_a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"outlets": ["pdu-a/5"]}, "action": "off"}]});
    let (first, second) = (make(&curl, &wish), make(&curl, &wish));
    let page = curl.get("/v1/plans?limit=1");
    assert_eq!(page["plans"][0]["id"], second["id"]);
    let path = format!("/v1/plans?cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(curl.get(&path)["plans"][0]["id"], first["id"]);
    for cursor in ["zzz", "p0", "pzzzzzzzzzzzzzzzzzz"] {
        let answer = curl.send(&format!("/v1/plans?cursor={cursor}"), &[]);
        assert_eq!(answer.status, 400, "{cursor}: {answer:?}");
        assert!(answer.body.contains("next_cursor"), "{answer:?}");
    }
}

/// It is off already, so nothing would be left to do: but it is about to come on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_off_within_a_cycle_is_not_said_to_be_switched_off() {
    let host = "[[host]]\nid = \"slow\"\noutlets = [\"pdu-a/5\"]\nhold_s = 8\n";
    let (a, _b, gateway) = two_pdus_with(host, "").await;
    let curl = gateway.curl();
    let at_once = ["-H", "Prefer: respond-async"];
    let cycle = curl.post("/v1/hosts/slow/power", r#"{"action":"cycle"}"#, &at_once);
    assert_eq!(cycle.status, 202, "{cycle:?}");
    gateway.wait_for("/v1/pdus/pdu-a/outlets/5", |outlet| outlet["state"] == "off");
    let wish = json!({"goals": [{"select": {"hosts": ["slow"]}, "action": "off"}]});
    let plan = make(&curl, &wish);
    assert_eq!(plan["steps"], json!([]), "{plan}");
    let refused = run(&curl, &plan);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("is being switched by plan"), "{refused:?}");
    assert_eq!(ended(&gateway, &cycle.json())["state"], "done");
    assert_eq!(relay(&a, 5), Relay::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_wish_has_the_same_digest_and_an_outlet_that_feeds_a_host_by_now_is_no_such() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let off = |more: Value| {
        let mut wish =
            json!({"goals": [{"select": {"outlets": ["pdu-a/7", "pdu-b/7"]}, "action": "off"}]});
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        make(&curl, &wish)
    };
    let plans = [off(json!({})), off(json!({}))];
    assert_eq!(plans[0]["digest"], plans[1]["digest"]);
    assert_ne!(plans[0]["digest"], off(json!({"reason": "another"}))["digest"]);
    // One that was put off and is run already.
    let now = pmgate::model::time::Clock::stamp(&pmgate::model::time::SystemClock::start());
    let soon = pmgate::model::time::Stamp(now.0 + 4_000).to_string();
    let late = off(json!({"not_before": soon}));
    assert_eq!(run(&curl, &late).status, 202);
    let told = gateway.wait_for("/v1/events?last=200", |events| {
        events.as_array().unwrap().iter().any(|event| event["kind"] == "plan.accepted")
    });
    assert!(told.to_string().contains("not before"), "{told}");
    crate::approved::reload(&gateway, |text| {
        format!("{text}[[host]]\nid = \"new\"\noutlets = [\"pdu-a/7\", \"pdu-b/7\"]\n")
    });
    let refused = run(&curl, &plans[0]);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("pdu-a/7 fed no host and feeds host new"), "{refused:?}");
    let late = ended(&gateway, &late);
    assert_eq!(late["state"], "stopped", "{late}");
    assert!(late["steps"][0]["detail"].to_string().contains("feeds host new"), "{late}");
    assert_eq!(relay(&a, 7), Relay::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_after_one_that_is_off_is_not_switched_on_by_hand_either() {
    let hosts = "[[host]]\nid = \"db\"\noutlets = [\"pdu-a/5\"]\n[[host]]\nid = \"shop\"\noutlets = [\"pdu-a/6\"]\nafter = [\"db\"]\n";
    let (a, _b, gateway) = two_pdus_with(hosts, "").await;
    let curl = gateway.curl();
    let host = |id: &str, action: Value| {
        curl.post(&format!("/v1/hosts/{id}/power"), &action.to_string(), &[])
    };
    for id in ["db", "shop"] {
        assert_eq!(host(id, json!({"action": "off"})).status, 200);
    }
    let refused = host("shop", json!({"action": "on"}));
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("db"), "{refused:?}");
    assert_eq!(relay(&a, 6), Relay::Off);
    assert_eq!(host("db", json!({"action": "on"})).status, 200);
    assert_eq!(host("shop", json!({"action": "on"})).status, 200);
    assert_eq!(relay(&a, 6), Relay::On);
}
