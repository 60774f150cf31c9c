//! Groups of hosts and outlets: shown, switched as one plan that passes no limit, wished in plans, by the command line.

use pmgate::model::switching::Relay;
use serde_json::json;

use crate::planned::{ended, make, relay, run, two_pdus};
use crate::rig::{Curl, pmgate};

const GROUPS: &str = "[[group]]\nid = \"web\"\nname = \"The web servers\"\nhosts = [\"web-1\", \"web-2\"]\noutlets = [\"pdu-a/7\"]\n[[group]]\nid = \"half\"\noutlets = [\"pdu-a/3\", \"pdu-b/3\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_shown_and_switched_whole() {
    let (a, b, gateway) = two_pdus(GROUPS).await;
    let curl = gateway.curl();
    let list = curl.get("/v1/groups");
    let ids: Vec<&str> =
        list["groups"].as_array().unwrap().iter().map(|g| g["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["half", "web"]);
    let first = curl.get("/v1/groups?limit=1");
    assert_eq!(
        (&first["groups"][0]["id"], &first["next_cursor"]),
        (&"half".into(), &"half".into())
    );
    assert_eq!(curl.get("/v1/groups?limit=1&cursor=half")["groups"][0]["id"], "web");
    let group = curl.get("/v1/groups/web?max_age_ms=1000");
    assert_eq!(group["name"], "The web servers");
    assert_eq!(group["hosts"], json!(["web-1", "web-2"]));
    assert_eq!(
        (&group["outlets"][0]["outlet"], &group["outlets"][0]["state"]),
        (&"pdu-a/7".into(), &"on".into())
    );
    assert!(group["outlets"][0]["power_w"].as_f64().unwrap() > 100.0, "{group}");
    for nobody in ["/v1/groups/db", "/v1/groups/no%20group"] {
        assert_eq!(curl.send(nobody, &[]).status, 404);
    }
    // Who may not switch may not switch groups.
    let viewer = Curl::new(gateway.dir.path(), &gateway.url, "viewer");
    assert_eq!(viewer.post("/v1/groups/web/power", r#"{"action":"off"}"#, &[]).status, 403);
    let key = ["-H", "idempotency-key: group-1"];
    let off = curl.post("/v1/groups/web/power", r#"{"action":"off"}"#, &key);
    assert_eq!((off.status, &off.json()["state"]), (200, &"done".into()), "{off:?}");
    assert_eq!(off.json()["target"], "web");
    let all = [(&a, 1), (&a, 2), (&a, 7), (&b, 1), (&b, 2)];
    assert!(all.iter().all(|(sim, outlet)| relay(sim, *outlet) == Relay::Off));
    assert_eq!((relay(&a, 3), relay(&b, 7)), (Relay::On, Relay::On), "nothing else is switched");
    assert_eq!(curl.get("/v1/groups/web")["outlets"][0]["state"], "off");
    let on = curl.post("/v1/groups/web/power", r#"{"action":"on"}"#, &[]);
    assert_eq!(on.status, 200, "{on:?}");
    assert!(all.iter().all(|(sim, outlet)| relay(sim, *outlet) == Relay::On));
    // Both feeds of a host were on before the next host's.
    let steps = on.json()["steps"].as_array().unwrap().len();
    assert_eq!(steps, 5, "{on:?}");
    let again = curl.post("/v1/groups/web/power", r#"{"action":"off"}"#, &key);
    assert_eq!((again.status, &again.json()["id"]), (200, &off.json()["id"]), "{again:?}");
    assert_eq!(relay(&a, 1), Relay::On, "a repeated request switches nothing");
    // Outlets of a group are not its hosts: the last feed of one is not cut.
    let half = curl.post("/v1/groups/half/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(
        (half.status, half.json()["title"].as_str()),
        (409, Some("Last feed of a host")),
        "{half:?}"
    );
    assert_eq!((relay(&a, 3), relay(&b, 3)), (Relay::On, Relay::On));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_does_not_fit_is_refused_and_nothing_of_it_is_switched() {
    let (a, b, gateway) = two_pdus(GROUPS).await;
    let curl = gateway.curl();
    let off = curl.post("/v1/groups/web/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(off.status, 200, "{off:?}");
    curl.get("/v1/pdus/pdu-b?max_age_ms=0");
    let limits = curl.get("/v1/limits");
    let inlet = limits["limits"].as_array().unwrap().iter().find(|l| l["id"] == "pdu-b/AA");
    let inlet = inlet.or(limits["limits"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["kind"] == "inlet" && l["id"].as_str().unwrap().starts_with("pdu-b")));
    // Room for one host, not for two.
    let rating = ((inlet.unwrap()["load_w"].as_f64().unwrap() + 450.0) / 0.8) as i64;
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let limit = format!("[[limit]]\nid = \"busway\"\nrating_w = {rating}\nof = [\"pdu-b\"]\n");
    std::fs::write(gateway.dir.path().join("gateway.toml"), text + &limit).unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/limits", |body| {
        body["limits"].as_array().unwrap().iter().any(|limit| limit["id"] == "busway")
    });
    let refused = curl.post("/v1/groups/web/power", r#"{"action":"on"}"#, &[]);
    let body = refused.json();
    assert_eq!((refused.status, &body["limit"]), (409, &"busway".into()), "{refused:?}");
    assert!(body["needs_w"].as_i64().unwrap() > body["headroom_w"].as_i64().unwrap(), "{body}");
    // Without what it says the rest fits, and it says one host whole.
    let left = body["leave_out"].as_array().unwrap();
    let rest = ["web-1", "web-2"].map(|host| {
        let feeds = [format!("pdu-a/{}", &host[4..]), format!("pdu-b/{}", &host[4..])];
        (host, left.iter().filter(|outlet| feeds.iter().any(|feed| **outlet == *feed)).count())
    });
    let keeps: Vec<&str> =
        rest.iter().filter(|(_, out)| *out == 0).map(|(host, _)| *host).collect();
    assert!(keeps.len() == 1 && left.len() == 2, "{body}");
    let wish = json!({"goals": [{"select": {"hosts": keeps}, "action": "on"}], "dry_run": true});
    let fits = curl.post("/v1/plans", &wish.to_string(), &[]);
    assert_eq!(fits.status, 200, "{fits:?}");
    for outlet in [1, 2] {
        assert_eq!((relay(&a, outlet), relay(&b, outlet)), (Relay::Off, Relay::Off));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn goals_select_groups_and_no_outlet_is_wished_twice() {
    let (a, b, gateway) = two_pdus(GROUPS).await;
    let curl = gateway.curl();
    let goal =
        |select: serde_json::Value, action: &str| json!({"select": select, "action": action});
    // The outlet is in the group as well: it is switched once.
    let wish = json!({"goals": [goal(json!({"groups": ["web"], "outlets": ["pdu-a/7"]}), "off")]});
    let plan = make(&curl, &wish);
    assert_eq!(plan["steps"].as_array().unwrap().len(), 5, "{plan}");
    let steps = plan["steps"].as_array().unwrap();
    let by_group = |step: &&serde_json::Value| step["why"].as_str().unwrap().contains("group web");
    assert_eq!(steps.iter().filter(by_group).count(), 4, "{plan}");
    assert_eq!(plan["target"], "outlet pdu-a/7, group web");
    assert_eq!(plan["loses_redundancy"], json!([]), "its hosts go dark whole");
    assert!(!plan["goes_dark"].as_array().unwrap().is_empty(), "{plan}");
    assert_eq!(run(&curl, &plan).status, 202);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    assert_eq!((relay(&a, 7), relay(&a, 2), relay(&b, 1)), (Relay::Off, Relay::Off, Relay::Off));
    let two = json!({"goals": [goal(json!({"groups": ["web"]}), "on"), goal(json!({"outlets": ["pdu-a/7"]}), "off")]});
    let refused = curl.post("/v1/plans", &two.to_string(), &[]);
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.json()["detail"].as_str().unwrap().contains("on and off"), "{refused:?}");
    let nobody = json!({"goals": [goal(json!({"groups": ["db"]}), "on")]});
    let refused = curl.post("/v1/plans", &nobody.to_string(), &[]);
    assert_eq!(refused.status, 404, "{refused:?}");
    assert!(refused.json()["detail"].as_str().unwrap().contains("group db"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_shows_and_switches_groups() {
    let (a, _b, gateway) = two_pdus(GROUPS).await;
    let file = |name: &str| gateway.dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (file("client.pem"), file("client.key"), file("ca.pem"));
    let client = ["--url", &gateway.url, "--cert", &cert, "--key", &key, "--ca", &ca];
    let call = |words: &[&str]| pmgate(&[words, &client].concat(), &[]);
    let (out, err, code) = call(&["group", "list"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("host web-1, host web-2, pdu-a/7"), "{out}");
    let (out, err, code) = call(&["group", "show", "web"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("The web servers"), "{out}");
    let (out, err, code) = call(&["group", "off", "web"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("web off: done"), "{out}");
    assert_eq!((relay(&a, 1), relay(&a, 7)), (Relay::Off, Relay::Off));
    let (out, err, code) = call(&["plan", "preview", "--on", "group:web"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("pdu-b/2") && out.contains("PEAK W"), "{out}");
    let (_, err, code) = call(&["group", "on", "web", "db"]);
    assert_eq!(code, 1);
    assert!(err.contains("db on") && err.contains("1 of 2 were not switched"), "{err}");
    assert_eq!(relay(&a, 1), Relay::On, "the one that there is was switched");
    assert_eq!(call(&["group", "on", "no group"]).2, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_a_group_reaches_what_is_in_it_and_no_further() {
    let grant = "[policy]\ngrant = [{ role = \"operator\", reach = [\"group:web\"] }]\n";
    let (a, _b, gateway) = two_pdus(&format!("{GROUPS}{grant}")).await;
    let curl = gateway.curl();
    let off = |path: &str| curl.post(&format!("{path}/power"), r#"{"action":"off"}"#, &[]).status;
    assert_eq!(off("/v1/groups/half"), 403);
    assert_eq!(off("/v1/hosts/web-3"), 403);
    assert_eq!(off("/v1/pdus/pdu-a/outlets/1"), 403, "a feed of its hosts is not the host");
    assert_eq!(off("/v1/pdus/pdu-a/outlets/8"), 403);
    assert_eq!(relay(&a, 8), Relay::On);
    assert_eq!(off("/v1/groups/web"), 200);
    assert_eq!((relay(&a, 1), relay(&a, 7)), (Relay::Off, Relay::Off));
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("group:web", "group:db")).unwrap();
    let (out, err, code) = pmgate(&["config", "check", path.to_str().unwrap()], &[]);
    assert!(code == 1 && (out + &err).contains("no [[group]] with id \"db\""), "{err}");
}

/// What a group's outlet did when it was read last is not what it does: it is looked at, and what is planned is planned for that.
#[tokio::test(flavor = "multi_thread")]
async fn an_outlet_of_a_group_that_is_thought_to_be_off_already_is_looked_at() {
    use crate::rig::{Gateway, Sim, pdu_section};
    let sim = Sim::start(pmgate::sim::families::Family::ApcRpdu2, 8).await;
    let sections = format!(
        "[switching]\nfresh_s = 1\nhold_s = 1\n{}[[group]]\nid = \"lab\"\noutlets = [\"pdu-a/5\", \"pdu-a/6\"]\n",
        pdu_section(
            "pdu-a",
            sim.address,
            "write_gap_ms = 0\nfast_s = 600\nslow_s = 600\nstale_after_s = 900"
        )
    );
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        let curl = gateway.curl();
        assert_eq!(curl.power("pdu-a/5", "off").status, 200);
        // Somebody presses the button at the PDU, and nobody reads it.
        sim.pdu.lock().unwrap().switch(4, Relay::On, pmgate::model::time::Tick(0));
        gateway.wait_for("/v1/pdus/pdu-a", |pdu| pdu["age_ms"].as_u64() > Some(6_000));
        assert_eq!(curl.get("/v1/pdus/pdu-a/outlets/5")["state"], "off", "it was not read since");
        let off = curl.post("/v1/groups/lab/power", r#"{"action":"off"}"#, &[]);
        assert_eq!((off.status, &off.json()["state"]), (200, &"done".into()), "{off:?}");
        assert_eq!((relay(&sim, 5), relay(&sim, 6)), (Relay::Off, Relay::Off), "{off:?}");
    })
    .await
    .unwrap();
}
