//! Second approval, bound to what was looked at; and locks that an admin lifts for one plan, or nobody lifts.

use pmgate::model::switching::Relay;
use serde_json::{Value, json};

use crate::audited::call_as;
use crate::planned::{ended, make, relay, run, two_pdus};
use crate::rig::{Answer, Curl, Gateway, pmgate};

const APPROVAL: &str =
    "[approval]\nfrom_outlets = 2\nactions = [\"off\", \"cycle\"]\nhosts = [\"web-4\"]\n";
const LOCKS: &str = "[[outlet]]\nid = \"pdu-a/6\"\ncritical = \"the storage hangs on it\"\n[[outlet]]\nid = \"pdu-a/8\"\nfeeds = \"gateway\"\n[[outlet]]\nid = \"pdu-b/8\"\nfeeds = \"switch\"\n";

fn off(outlets: &[&str]) -> Value {
    json!({"goals": [{"select": {"outlets": outlets}, "action": "off"}]})
}

fn as_(gateway: &Gateway, who: &str, plan: &Value, what: &str, digest: &Value) -> Answer {
    let path = format!("/v1/plans/{}/{what}", plan["id"].as_str().unwrap());
    let curl = Curl::new(gateway.dir.path(), &gateway.url, who);
    curl.post(&path, &json!({ "digest": digest }).to_string(), &[])
}

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["title"].as_str().unwrap_or_default().to_owned())
}

/// Rewrites a gateway's configuration, and has it taken up.
pub fn reload(gateway: &Gateway, change: impl Fn(String) -> String) {
    let path = gateway.dir.path().join("gateway.toml");
    let count = |events: &Value| {
        let all = events.as_array().unwrap().iter();
        all.filter(|event| event["kind"] == "config.reloaded").count()
    };
    let before = count(&gateway.curl().get("/v1/events?last=1000"));
    std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/events?last=1000", |events| count(events) > before);
}

/// The serial number of a client's certificate.
pub fn serial_of(name: &str, ca: &str) -> String {
    let (text, _, _) = pmgate(&["ca", "show", "--json", "--dir", ca], &[]);
    let issued: Value = serde_json::from_str(&text).unwrap();
    let of = issued.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    of["serial"].as_str().unwrap().to_owned()
}

/// Revokes a client's certificate, and has that taken up.
pub fn revoke(gateway: &Gateway, name: &str) {
    let ca = gateway.dir.path().join("ca");
    let ca = ca.to_str().unwrap();
    assert_eq!(pmgate(&["ca", "revoke", "--dir", ca, &serial_of(name, ca)], &[]).2, 0);
    reload(gateway, |text| text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_needs_approval_is_run_only_with_that_of_another_for_this_digest() {
    let (a, _b, gateway) = two_pdus(APPROVAL).await;
    let curl = gateway.curl();
    // The same person has two certificates: one to switch, one to approve.
    let ca = gateway.dir.path().join("own-ca");
    std::fs::create_dir(&ca).unwrap();
    for name in std::fs::read_dir(gateway.dir.path().join("ca")).unwrap() {
        let name = name.unwrap().file_name();
        let from = gateway.dir.path().join("ca").join(&name);
        if !name.to_str().unwrap().starts_with("client.") {
            std::fs::copy(from, ca.join(&name)).unwrap();
        }
    }
    let issue = ["ca", "issue", "--role", "approver", "client", "--dir", ca.to_str().unwrap()];
    let (_, err, code) = pmgate(&issue, &[]);
    assert_eq!(code, 0, "{err}");
    for kind in ["pem", "key"] {
        let to = gateway.dir.path().join(format!("own.{kind}"));
        std::fs::copy(ca.join(format!("client.{kind}")), to).unwrap();
    }
    let plan = make(&curl, &off(&["pdu-a/5", "pdu-a/6"]));
    assert_eq!(plan["needs_approvals"], 1, "{plan}");
    assert!(plan["next"].as_str().unwrap().contains("/approve"), "{plan}");
    let digest = &plan["digest"];
    assert_eq!(refused(&run(&curl, &plan)), (409, "Needs approval".into()));
    for who in ["client", "viewer", "admin"] {
        assert_eq!(as_(&gateway, who, &plan, "approve", digest).status, 403, "{who}");
    }
    let own = as_(&gateway, "own", &plan, "approve", digest);
    assert_eq!(refused(&own), (409, "Own approval".into()), "{own:?}");
    let other = as_(&gateway, "approver", &plan, "approve", &json!("00"));
    assert_eq!(refused(&other), (409, "Other digest".into()));
    assert_eq!(refused(&run(&curl, &plan)), (409, "Needs approval".into()));
    let approved = as_(&gateway, "approver", &plan, "approve", digest);
    assert_eq!(approved.status, 200, "{approved:?}");
    assert_eq!(approved.json()["approvals"][0]["by"], "approver (approver)");
    assert_eq!(&approved.json()["digest"], digest, "an approval changes nothing that it is for");
    let twice = as_(&gateway, "approver", &plan, "approve", digest);
    assert_eq!(refused(&twice), (409, "Own approval".into()));
    assert_eq!(relay(&a, 5), Relay::On, "nothing was switched so far");
    assert_eq!(run(&curl, &plan).status, 202);
    let done = ended(&gateway, &plan);
    assert_eq!((&done["state"], &done["timeline"]), (&json!("done"), &Value::Null));
    assert_eq!((relay(&a, 5), relay(&a, 6)), (Relay::Off, Relay::Off));
    let late = as_(&gateway, "approver", &plan, "approve", digest);
    assert_eq!(refused(&late), (409, "Plan cannot be run".into()));
    let audit = curl.get("/v1/audit?last=100");
    let line = audit["entries"].as_array().unwrap().iter().find(|l| l["kind"] == "plan.approved");
    assert_eq!(line.unwrap()["by"], "approver (approver)", "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_approval_is_not_had_by_another_door() {
    let more = format!("{APPROVAL}[[group]]\nid = \"two\"\noutlets = [\"pdu-a/5\", \"pdu-a/6\"]\n");
    let (a, b, gateway) = two_pdus(&more).await;
    let curl = gateway.curl();
    // A host with two feeds, a named host, a group, a feed of the named host.
    for (path, action) in [
        ("/v1/hosts/web-1/power", "off"),
        ("/v1/hosts/web-4/power", "cycle"),
        ("/v1/groups/two/power", "cycle"),
        ("/v1/pdus/pdu-a/outlets/4/power", "off"),
    ] {
        let answer = curl.post(path, &json!({ "action": action }).to_string(), &[]);
        assert_eq!(refused(&answer), (409, "Needs approval".into()), "{path}: {answer:?}");
    }
    let old = curl.post("/api/pdu-a/outletD/4/power_off", "", &[]);
    assert_eq!(old.status, 409, "{old:?}");
    assert_eq!((relay(&a, 1), relay(&a, 4), relay(&b, 4)), (Relay::On, Relay::On, Relay::On));
    // What is neither many nor named needs none; on is not among the actions.
    assert_eq!(curl.power("pdu-a/7", "off").status, 200);
    let plan = make(&curl, &off(&["pdu-a/8"]));
    assert!(plan["needs_approvals"].is_null(), "{plan}");
    assert_eq!(curl.post("/v1/hosts/web-4/power", r#"{"action":"on"}"#, &[]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_does_not_outlive_the_world_it_was_given_for() {
    let (a, _b, gateway) = two_pdus(APPROVAL).await;
    let curl = gateway.curl();
    let plan = make(&curl, &off(&["pdu-a/5", "pdu-a/6"]));
    assert_eq!(as_(&gateway, "approver", &plan, "approve", &plan["digest"]).status, 200);
    assert_eq!(curl.power("pdu-a/5", "off").status, 200);
    assert_eq!(refused(&run(&curl, &plan)), (409, "Plan does not fit any more".into()));
    assert_eq!(relay(&a, 6), Relay::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_to_agree_sees_what_a_plan_does_and_whether_it_can_be_run_at_all() {
    let (_a, _b, gateway) = two_pdus(APPROVAL).await;
    let curl = gateway.curl();
    let plan = make(&curl, &off(&["pdu-a/1", "pdu-a/5"]));
    let id = plan["id"].as_str().unwrap();
    let see = || {
        let approver = Curl::new(gateway.dir.path(), &gateway.url, "approver");
        let seen = approver.get(&format!("/v1/plans/{id}"));
        let (out, err, code) = call_as("approver", &gateway, &["plan", "show", id]);
        assert_eq!(code, 0, "{err}");
        (seen, out)
    };
    let limits = |plan: &Value| -> Vec<Value> {
        plan["timeline"].as_array().unwrap().iter().map(|line| line["limit"].clone()).collect()
    };
    let (seen, out) = see();
    assert!(limits(&plan).contains(&json!("pdu-a/B1")), "{plan}");
    assert_eq!(limits(&seen), limits(&plan));
    let hosts = (&seen["loses_redundancy"], &seen["goes_dark"]);
    assert_eq!(hosts, (&json!(["web-1"]), &json!([])), "{seen}");
    assert_eq!((&seen["digest"], &seen["unfit"]), (&plan["digest"], &Value::Null));
    assert!(out.contains("OF MAY") && out.contains("host web-1 loses a feed"), "{out}");
    assert_eq!(curl.power("pdu-a/5", "off").status, 200);
    let (seen, out) = see();
    assert!(seen["unfit"].as_str().unwrap().contains("pdu-a/5"), "{seen}");
    assert!(seen["timeline"].is_null() && !out.contains("OF MAY"), "{seen} {out}");
    assert!(out.contains("as the rack is now it would be refused: "), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_to_agree_sees_the_plan_that_is_kept_whatever_became_of_its_group() {
    let group = |hosts: &str| format!("[[group]]\nid = \"web\"\nhosts = [{hosts}]\n");
    let (both, one) = (group("\"web-1\", \"web-2\""), group("\"web-1\""));
    let (_a, _b, gateway) = two_pdus(&format!("{APPROVAL}{both}")).await;
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"groups": ["web"]}, "action": "off"}]});
    let plan = make(&curl, &wish);
    let see = |plan: &Value| curl.get(&format!("/v1/plans/{}", plan["id"].as_str().unwrap()));
    assert_eq!(see(&plan)["goes_dark"], json!(["web-1", "web-2"]));
    let mut by_calendar = wish.clone();
    by_calendar["calendar"] = json!("daily 03:00");
    let each_day = make(&curl, &by_calendar);
    reload(&gateway, |text| text.replace(&both, &one));
    assert_eq!(see(&plan)["goes_dark"], json!(["web-1", "web-2"]), "it goes by what it switches");
    assert_eq!(see(&each_day)["goes_dark"], json!(["web-1"]), "it is made anew each day");
    // A lock that came since is told, and one that the plan does not name.
    let admin = Curl::new(gateway.dir.path(), &gateway.url, "admin");
    let lock = r#"{"reason":"being repaired"}"#;
    let locked = admin.send("/v1/pdus/pdu-a/outlets/2/lock", &["-X", "PUT", "-d", lock]);
    assert_eq!(locked.status, 200, "{locked:?}");
    let seen = see(&plan);
    assert!(seen["unfit"].as_str().unwrap().contains("being repaired"), "{seen}");
    assert!(see(&each_day)["unfit"].is_null(), "web-2 is none of its hosts any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_came_after_the_plan_holds_for_it() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let plan = make(&curl, &off(&["pdu-a/5", "pdu-a/6"]));
    assert!(plan["needs_approvals"].is_null(), "{plan}");
    reload(&gateway, |text| format!("{text}{APPROVAL}"));
    assert_eq!(refused(&run(&curl, &plan)), (409, "Needs approval".into()));
    assert_eq!(relay(&a, 5), Relay::On);
    assert_eq!(as_(&gateway, "approver", &plan, "approve", &plan["digest"]).status, 200);
    assert_eq!(run(&curl, &plan).status, 202);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_critical_outlet_is_switched_only_by_a_plan_whose_lock_an_admin_lifts() {
    let (a, _b, gateway) = two_pdus(LOCKS).await;
    let curl = gateway.curl();
    assert_eq!(curl.get("/v1/pdus/pdu-a/outlets/6")["locked"], true);
    let by_hand = curl.power("pdu-a/6", "off");
    assert_eq!(refused(&by_hand), (409, "Outlet locked".into()));
    assert!(by_hand.body.contains("the storage hangs on it"), "{by_hand:?}");
    let mut wish = off(&["pdu-a/6", "pdu-a/7"]);
    let without = curl.post("/v1/plans", &wish.to_string(), &[]);
    assert_eq!(refused(&without), (409, "Outlet locked".into()));
    wish["over_locks"] = json!(true);
    let plan = make(&curl, &wish);
    assert_eq!(plan["over_locks"], json!(["pdu-a/6"]), "{plan}");
    assert_eq!(refused(&run(&curl, &plan)), (409, "Locks not lifted".into()));
    let harmless = make(&curl, &off(&["pdu-a/7"]));
    let nothing = as_(&gateway, "admin", &harmless, "lift", &harmless["digest"]);
    assert_eq!(refused(&nothing), (409, "Nothing to lift".into()));
    let kept = curl.get(&format!("/v1/plans/{}", harmless["id"].as_str().unwrap()));
    assert!(kept["lifted_by"].is_null(), "{kept}");
    for who in ["client", "approver", "viewer"] {
        assert_eq!(as_(&gateway, who, &plan, "lift", &plan["digest"]).status, 403, "{who}");
    }
    let other = as_(&gateway, "admin", &plan, "lift", &json!("00"));
    assert_eq!(refused(&other), (409, "Other digest".into()));
    let lifted = as_(&gateway, "admin", &plan, "lift", &plan["digest"]);
    assert_eq!(lifted.status, 200, "{lifted:?}");
    assert_eq!(lifted.json()["lifted_by"]["by"], "admin (admin)");
    // It is lifted for this plan and nothing else.
    assert_eq!(refused(&curl.power("pdu-a/6", "off")), (409, "Outlet locked".into()));
    assert_eq!(relay(&a, 6), Relay::On);
    assert_eq!(run(&curl, &plan).status, 202);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    assert_eq!((relay(&a, 6), relay(&a, 7)), (Relay::Off, Relay::Off));
    assert_eq!(refused(&curl.power("pdu-a/6", "on")), (409, "Outlet locked".into()));
    assert_eq!(curl.get("/v1/pdus/pdu-a/outlets/6")["locked"], true);
    let audit = curl.get("/v1/audit?last=100");
    let line = audit["entries"].as_array().unwrap().iter().find(|l| l["kind"] == "plan.lifted");
    assert!(line.unwrap()["text"].as_str().unwrap().contains("pdu-a/6"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_feeds_the_gateway_or_its_switch_is_cut_by_nobody() {
    let (a, b, gateway) = two_pdus(LOCKS).await;
    let curl = gateway.curl();
    for (outlet, reason) in [("pdu-a/8", "feeds this gateway"), ("pdu-b/8", "gateway's switch")] {
        let by_hand = curl.power(outlet, "cycle");
        assert_eq!(refused(&by_hand), (409, "Outlet locked".into()), "{outlet}");
        assert!(by_hand.body.contains(reason), "{by_hand:?}");
        let mut wish = off(&[outlet]);
        wish["over_locks"] = json!(true);
        let answer = curl.post("/v1/plans", &wish.to_string(), &[]);
        assert_eq!(refused(&answer), (409, "Outlet locked".into()), "{outlet}");
        let admin = Curl::new(gateway.dir.path(), &gateway.url, "admin");
        let (pdu, number) = outlet.split_once('/').unwrap();
        let path = format!("/v1/pdus/{pdu}/outlets/{number}/lock");
        let unlock = admin.send(&path, &["-X", "DELETE"]);
        assert_eq!(refused(&unlock), (409, "Outlet locked".into()), "{unlock:?}");
    }
    // Neither by naming all of its PDU.
    let wish = json!({"goals": [{"select": {"pdus": ["pdu-b"]}, "action": "off", "drop_hosts": true}], "over_locks": true});
    let all = curl.post("/v1/plans", &wish.to_string(), &[]);
    assert_eq!(refused(&all), (409, "Outlet locked".into()));
    assert_eq!((relay(&a, 8), relay(&b, 8), relay(&b, 1)), (Relay::On, Relay::On, Relay::On));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lift_is_for_the_lock_that_was_seen_and_may_itself_need_approval() {
    let more = format!("{LOCKS}[approval]\nover_locks = true\n");
    let (a, _b, gateway) = two_pdus(&more).await;
    let curl = gateway.curl();
    let mut wish = off(&["pdu-a/6"]);
    wish["over_locks"] = json!(true);
    let plan = make(&curl, &wish);
    assert_eq!(plan["needs_approvals"], 1, "{plan}");
    assert_eq!(as_(&gateway, "admin", &plan, "lift", &plan["digest"]).status, 200);
    assert_eq!(refused(&run(&curl, &plan)), (409, "Needs approval".into()));
    assert_eq!(as_(&gateway, "approver", &plan, "approve", &plan["digest"]).status, 200);
    // Meanwhile it is locked for another reason.
    let admin = Curl::new(gateway.dir.path(), &gateway.url, "admin");
    let lock = ["-X", "PUT", "-d", "{\"reason\":\"somebody works there\"}"];
    assert_eq!(admin.send("/v1/pdus/pdu-a/outlets/6/lock", &lock).status, 200);
    let answer = run(&curl, &plan);
    assert_eq!(refused(&answer), (409, "Outlet locked".into()), "{answer:?}");
    assert!(answer.body.contains("somebody works there"), "{answer:?}");
    assert_eq!(relay(&a, 6), Relay::On);
    assert_eq!(admin.send("/v1/pdus/pdu-a/outlets/6/lock", &["-X", "DELETE"]).status, 200);
    // That it is critical the configuration says: nothing is lifted where nothing is.
    let again = admin.send("/v1/pdus/pdu-a/outlets/6/lock", &["-X", "DELETE"]);
    assert_eq!(refused(&again), (409, "Outlet locked".into()), "{again:?}");
    assert_eq!(run(&curl, &plan).status, 202);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    assert_eq!(relay(&a, 6), Relay::Off);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_approves_and_lifts() {
    let more = format!("{LOCKS}[approval]\nover_locks = true\n");
    let (a, _b, gateway) = two_pdus(&more).await;
    let file = |name: String| gateway.dir.path().join(name).to_str().unwrap().to_owned();
    let call = |who: &str, words: &[&str]| {
        let (cert, key) = (file(format!("{who}.pem")), file(format!("{who}.key")));
        let ca = file("ca.pem".into());
        let client = ["--url", &gateway.url, "--cert", &cert, "--key", &key, "--ca", &ca];
        pmgate(&[words, &client].concat(), &[])
    };
    let create = ["plan", "create", "--off", "pdu-a/6", "--over-locks", "--json"];
    let (out, err, code) = call("client", &create);
    assert_eq!(code, 0, "{err}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    let id = plan["id"].as_str().unwrap();
    let (_, err, code) = call("client", &["plan", "run", id]);
    assert!(code == 1 && err.contains("approval"), "{err}");
    let (_, err, code) = call("client", &["plan", "approve", id]);
    assert!(code == 1 && err.contains("may not approve"), "{err}");
    let (_, err, code) = call("approver", &["plan", "approve", id, "--digest", "00"]);
    assert!(code == 1 && err.contains("digest"), "{err}");
    let (_, err, code) = call("approver", &["plan", "approve", id]);
    assert_eq!(code, 0, "{err}");
    let (_, err, code) = call("client", &["plan", "run", id]);
    assert!(code == 1 && err.contains("lock"), "{err}");
    let (_, err, code) = call("admin", &["plan", "lift", id]);
    assert_eq!(code, 0, "{err}");
    let (out, err, code) = call("client", &["plan", "run", id, "--follow"]);
    assert!(code == 0 && out.contains(&format!("plan {id}: done")), "{out}{err}");
    assert_eq!(relay(&a, 6), Relay::Off);
}
