//! What the gateway does by itself: it sheds load by its rules and brings it back, and restores the rack after an outage.

use pmgate::model::switching::Relay;
use pmgate::model::time::{Stamp, Tick};
use pmgate::sim::families::Family;
use serde_json::{Value, json};

use crate::planned::{ended, make, run};
use crate::rig::{Gateway, Sim, pause, pdu_section};

fn hosts(outlets: u16) -> String {
    (1..=outlets)
        .map(|n| {
            format!(
                "[[host]]\nid = \"web-{n}\"\noutlets = [\"pdu-a/{n}\"]\npriority = {n}\ndraw = {{ steady_w = 200, boot_w = 300, boot_s = 1, inrush_w = 400 }}\n"
            )
        })
        .collect()
}

async fn started(sections: String) -> Gateway {
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway
    });
    gateway.await.unwrap()
}

fn relays(sim: &Sim, outlets: u16) -> Vec<bool> {
    let mut pdu = sim.pdu.lock().unwrap();
    (0..outlets).map(|at| pdu.relay(at, Tick(u64::MAX / 2)) == Some(Relay::On)).collect()
}

fn told(gateway: &Gateway, kind: &str) -> Vec<String> {
    let events = gateway.curl().get("/v1/events?last=500");
    let of_kind = events.as_array().unwrap().iter().filter(|event| event["kind"] == kind).cloned();
    of_kind.map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

fn wait_for(gateway: &Gateway, kind: &str) -> Vec<String> {
    gateway.wait_for("/v1/events?last=500", |events| {
        events.as_array().unwrap().iter().any(|event| event["kind"] == kind)
    });
    told(gateway, kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_shed_by_priority_and_comes_back() {
    let a = Sim::start(Family::ApcRpdu2, 8).await;
    // Eight servers of some 290 W.
    let rules = "[[limit]]\nid = \"feed\"\nrating_w = 2500\nof = [\"pdu-a\"]\n\
        [[shed]]\nid = \"tight\"\nlimit = \"feed\"\nover_percent = 80\nunder_percent = 60\nfor_s = 2\nback_for_s = 1\n\
        min_off_s = 2\nmin_on_s = 1\nsettle_s = 3\nhosts = [\"web-3\", \"web-2\", \"web-1\"]\n\
        [[shed]]\nid = \"tried\"\nlimit = \"feed\"\nover_percent = 81\nunder_percent = 10\nfor_s = 1\noutlets = [\"pdu-a/8\"]\ndry_run = true\n";
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    let gateway = started(format!("[switching]\nhold_s = 1\n{rules}{pdu}{}", hosts(7))).await;
    let acted = wait_for(&gateway, "shed.acted");
    assert!(acted[0].starts_with("rule tight switches host web-1"), "{acted:?}");
    let flows = |body: &Value| {
        let limits = body["limits"].as_array().unwrap();
        let feed = limits.iter().find(|limit| limit["id"] == "feed").unwrap();
        feed["load_w"].as_f64().unwrap()
    };
    let load = flows(&gateway.wait_for("/v1/limits", |body| flows(body) < 2_000.0));
    assert!(load > 1_200.0, "no more than it takes: {load}");
    let on = relays(&a, 8);
    assert!(!on[0] && on[2..].iter().all(|on| *on), "the lowest first: {on:?}");
    assert_eq!(told(&gateway, "shed.dry_run").len(), 1, "a dry run tells once");
    // Who switched them is told.
    let plans = gateway.curl().get("/v1/plans");
    assert_eq!(plans["plans"][0]["by"], "rule tight", "{plans}");
    // Others go: there is room again, and both come back, the higher one first.
    let off = on.iter().filter(|on| !**on).count();
    for outlet in 4..=8 {
        assert_eq!(gateway.curl().power(&format!("pdu-a/{outlet}"), "off").status, 200);
    }
    gateway.wait_for("/v1/pdus/pdu-a/outlets", |body| {
        body["outlets"].as_array().unwrap()[..3].iter().all(|outlet| outlet["state"] == "on")
    });
    let back: Vec<String> =
        told(&gateway, "shed.acted").into_iter().filter(|text| text.contains(" on by ")).collect();
    assert_eq!(back.len(), off, "one after the other: {back:?}");
    assert!(back[back.len() - 1].contains("web-1"), "{back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_plan_is_at_is_left_out_and_the_next_is_shed_in_its_place() {
    let a = Sim::start(Family::ApcRpdu2, 8).await;
    let rule = "[[limit]]\nid = \"feed\"\nrating_w = 20000\nof = [\"pdu-a\"]\n\
        [[shed]]\nid = \"tight\"\nlimit = \"feed\"\nover_percent = 80\nunder_percent = 10\nfor_s = 2\nsettle_s = 3\n\
        hosts = [\"web-4\", \"web-3\", \"web-1\"]\n";
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    let two = "[[host]]\nid = \"web-1\"\noutlets = [\"pdu-a/1\", \"pdu-a/2\"]\nfeed_gap_s = 120\n";
    let all = hosts(8);
    let (_, others) = all.split_at(all.find("[[host]]\nid = \"web-3\"").unwrap());
    let gateway = started(format!("[switching]\nhold_s = 1\n{rule}{pdu}{two}{others}")).await;
    let curl = gateway.curl();
    let at_once = ["-H", "Prefer: respond-async"];
    let slow = curl.post("/v1/hosts/web-1/power", r#"{"action":"off"}"#, &at_once);
    assert_eq!(slow.status, 202, "{slow:?}");
    gateway.wait_for("/v1/pdus/pdu-a/outlets/1", |outlet| outlet["state"] == "off");
    // Seven servers of some 290 W are too much by less than one of them from now on.
    curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    let feed = |limits: &Value| {
        let mut limits = limits["limits"].as_array().unwrap().iter();
        limits.find(|limit| limit["id"] == "feed").unwrap().clone()
    };
    // Once what the first feed left to the second is in the meters.
    let limits = gateway.wait_for("/v1/limits", |limits| {
        !feed(limits)["why"].as_str().unwrap().contains("no meter shows yet")
    });
    let load = feed(&limits)["load_w"].as_f64().unwrap();
    crate::approved::reload(&gateway, |text| {
        text.replace("rating_w = 20000", &format!("rating_w = {:.0}", load / 0.85))
    });
    let acted = wait_for(&gateway, "shed.acted");
    assert!(acted[0].starts_with("rule tight switches host web-3"), "{acted:?}");
    let left = format!(
        "left out host web-1: outlet pdu-a/1 is being switched by plan {}",
        slow.json()["id"].as_str().unwrap()
    );
    assert!(acted[0].contains(&left), "{acted:?}");
    gateway.wait_for("/v1/pdus/pdu-a/outlets/3", |outlet| outlet["state"] == "off");
    assert!(relays(&a, 8)[1], "another's outlet is left alone");
    let audit = curl.get("/v1/audit?last=100");
    let lines = audit["entries"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["text"].as_str().unwrap().contains(&left)), "{audit}");
    assert_eq!(told(&gateway, "shed.refused"), [""; 0]);
}

/// A rule that cannot bring a host back, as what that comes after is off, tries it every second.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_of_a_rule_is_told_once_while_it_stays() {
    let a = Sim::start(Family::ApcRpdu2, 8).await;
    let rule = "[[limit]]\nid = \"feed\"\nrating_w = 2500\nof = [\"pdu-a\"]\n\
        [[shed]]\nid = \"tight\"\nlimit = \"feed\"\nover_percent = 80\nunder_percent = 60\nfor_s = 2\nback_for_s = 1\n\
        min_off_s = 2\nmin_on_s = 1\nsettle_s = 3\nhosts = [\"web-1\"]\n";
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    let app = hosts(7).replacen("id = \"web-1\"", "id = \"web-1\"\nafter = [\"web-2\"]", 1);
    let gateway = started(format!("[switching]\nhold_s = 1\n{rule}{pdu}{app}")).await;
    wait_for(&gateway, "shed.acted");
    let curl = gateway.curl();
    for outlet in [2, 4, 5, 6, 7, 8] {
        assert_eq!(curl.power(&format!("pdu-a/{outlet}"), "off").status, 200);
    }
    let refused = wait_for(&gateway, "shed.refused");
    assert!(refused[0].contains("cannot switch host web-1 on") && refused[0].contains("web-2"));
    let since = observed(&curl.get("/v1/pdus/pdu-a"));
    gateway.wait_for("/v1/pdus/pdu-a", |body| observed(body) > since + 4_000);
    assert_eq!(told(&gateway, "shed.refused"), refused);
    assert_eq!(relays(&a, 1), [false]);
    // It is tried all the while.
    assert_eq!(curl.power("pdu-a/2", "on").status, 200);
    gateway.wait_for("/v1/pdus/pdu-a/outlets/1", |outlet| outlet["state"] == "on");
}

/// One comes after the other, and was shed later: it cannot come back first.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_another_keeps_that_from_nothing() {
    let a = Sim::start(Family::ApcRpdu2, 8).await;
    let rule = "[[limit]]\nid = \"feed\"\nrating_w = 2000\nof = [\"pdu-a\"]\n\
        [[shed]]\nid = \"tight\"\nlimit = \"feed\"\nover_percent = 80\nunder_percent = 60\nfor_s = 2\nback_for_s = 1\n\
        min_off_s = 2\nmin_on_s = 1\nsettle_s = 3\nhosts = [\"web-1\", \"web-2\", \"web-3\"]\n";
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    let app = hosts(7).replacen("id = \"web-3\"", "id = \"web-3\"\nafter = [\"web-2\"]", 1);
    let gateway = started(format!("[switching]\nhold_s = 1\n{rule}{pdu}{app}")).await;
    let curl = gateway.curl();
    for outlet in 1..=3 {
        let path = format!("/v1/pdus/pdu-a/outlets/{outlet}");
        gateway.wait_for(&path, |outlet| outlet["state"] == "off");
    }
    for outlet in 4..=8 {
        assert_eq!(curl.power(&format!("pdu-a/{outlet}"), "off").status, 200);
    }
    for outlet in 1..=3 {
        let path = format!("/v1/pdus/pdu-a/outlets/{outlet}");
        gateway.wait_for(&path, |outlet| outlet["state"] == "on");
    }
    let refused = told(&gateway, "shed.refused");
    assert!(refused[0].contains("host web-3 on"), "{refused:?}");
}

/// When a PDU was last read, ms.
fn observed(body: &Value) -> i64 {
    let at = body["observed_at"].as_str().map(str::to_owned);
    at.map_or(0, |at| Stamp::parse_at(&at, Stamp(0)).unwrap().0)
}

/// The whole rack loses its power, the gateway too, and the PDU comes back with all its outlets off.
async fn after_an_outage(gateway: Gateway, a: &mut Sim, outlets: u16, sections: String) -> Gateway {
    // Some seconds later what was on is durable.
    let since = observed(&gateway.curl().get("/v1/pdus/pdu-a"));
    gateway.wait_for("/v1/pdus/pdu-a", |body| observed(body) > since + 4_000);
    let dir = gateway.kill();
    a.fails();
    for outlet in 0..outlets {
        a.pdu.lock().unwrap().switch(outlet, Relay::Off, Tick(0));
    }
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
    let gateway = gateway.await.unwrap();
    a.comes_back(Family::ApcRpdu2).await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_what_was_on_comes_back_by_priority() {
    let mut a = Sim::start(Family::ApcRpdu2, 6).await;
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    let sections = format!(
        "[poll]\nretry_s = 1\nretry_max_s = 1\n[restore]\nsettle_s = 1\nwait_s = 5\n[switching]\nhold_s = 1\n\
         [[limit]]\nid = \"feed\"\nrating_w = 20000\nof = [\"pdu-a\"]\n{pdu}{}",
        hosts(5)
    );
    let gateway = started(sections.clone()).await;
    // Somebody switched one off: it is not wanted back.
    assert_eq!(gateway.curl().power("pdu-a/2", "off").status, 200);
    gateway.wait_for("/v1/pdus/pdu-a/outlets/2", |outlet| outlet["state"] == "off");
    let gateway = after_an_outage(gateway, &mut a, 6, sections).await;
    let begun = wait_for(&gateway, "restore.begun");
    assert!(begun[0].contains("pdu-a/1") && !begun[0].contains("pdu-a/2"), "{begun:?}");
    wait_for(&gateway, "restore.plan");
    let plan = &gateway.curl().get("/v1/plans")["plans"][0].clone();
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    let done = gateway.wait_for(&path, |plan| plan["state"] != "running");
    assert_eq!(done["state"], "done", "{done}");
    let order: Vec<&str> =
        done["steps"].as_array().unwrap().iter().map(|s| s["outlet"].as_str().unwrap()).collect();
    assert_eq!(order, ["pdu-a/5", "pdu-a/4", "pdu-a/3", "pdu-a/1", "pdu-a/6"]);
    assert_eq!(relays(&a, 6), [true, false, true, true, true, true]);
}

/// Of which nobody says what they draw: by the default there would be no room for half of them.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_outlets_are_reckoned_with_what_they_drew_before() {
    let mut a = Sim::start(Family::ApcRpdu2, 6).await;
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    let sections = format!(
        "[poll]\nretry_s = 1\nretry_max_s = 1\n[restore]\nsettle_s = 1\nwait_s = 5\n[switching]\nhold_s = 1\n\
         default_draw = {{ steady_w = 1500, boot_w = 1600, boot_s = 1, inrush_w = 1600 }}\n\
         [[limit]]\nid = \"feed\"\nrating_w = 5000\nof = [\"pdu-a\"]\n{pdu}"
    );
    let gateway = started(sections.clone()).await;
    let gateway = after_an_outage(gateway, &mut a, 6, sections).await;
    let begun = wait_for(&gateway, "restore.plan");
    assert!(begun[0].ends_with("restores 6 outlets"), "{begun:?}");
    assert_eq!(told(&gateway, "restore.left_out"), [""; 0]);
    let plan = gateway.curl().get("/v1/plans")["plans"][0].clone();
    for step in plan["steps"].as_array().unwrap() {
        let why = step["why"].as_str().unwrap();
        assert!(why.contains("drew before"), "{why}");
    }
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    assert_eq!(relays(&a, 6), [true; 6]);
}

/// One host that cannot come back yet, as what it comes after is off, keeps no other from coming back; and it comes when it
/// can.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_to_wait_keeps_no_other_dark_after_an_outage() {
    let mut a = Sim::start(Family::ApcRpdu2, 3).await;
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    let app = hosts(3).replacen("id = \"web-3\"", "id = \"web-3\"\nafter = [\"web-2\"]", 1);
    let sections = format!(
        "[poll]\nretry_s = 1\nretry_max_s = 1\n[restore]\nsettle_s = 1\nwait_s = 5\n[switching]\nhold_s = 1\n{pdu}{app}"
    );
    let gateway = started(sections.clone()).await;
    assert_eq!(gateway.curl().power("pdu-a/2", "off").status, 200);
    gateway.wait_for("/v1/pdus/pdu-a/outlets/2", |outlet| outlet["state"] == "off");
    let gateway = after_an_outage(gateway, &mut a, 3, sections).await;
    let left = wait_for(&gateway, "restore.left_out");
    assert!(left[0].contains("pdu-a/3") && left[0].contains("web-2"), "{left:?}");
    wait_for(&gateway, "restore.plan");
    gateway.wait_for("/v1/pdus/pdu-a/outlets/1", |outlet| outlet["state"] == "on");
    assert_eq!(relays(&a, 3), [true, false, false]);
    assert_eq!(gateway.curl().power("pdu-a/2", "on").status, 200);
    gateway.wait_for("/v1/pdus/pdu-a/outlets/3", |outlet| outlet["state"] == "on");
    assert_eq!(relays(&a, 3), [true, true, true]);
}

/// What had no room when the gateway was restarted comes back when it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_on_after_a_restart() {
    let mut a = Sim::start(Family::ApcRpdu2, 4).await;
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    let sections = |rating: u32| {
        format!(
            "[poll]\nretry_s = 1\nretry_max_s = 1\n[restore]\nsettle_s = 1\nwait_s = 5\n[switching]\nhold_s = 1\n\
             [[limit]]\nid = \"feed\"\nrating_w = {rating}\nof = [\"pdu-a\"]\n{pdu}{}",
            hosts(4)
        )
    };
    let gateway = started(sections(20_000)).await;
    // Room for the first of them, while it starts up.
    let gateway = after_an_outage(gateway, &mut a, 4, sections(650)).await;
    let waits = wait_for(&gateway, "restore.waits");
    assert!(waits[0].contains("pdu-a/1"), "{waits:?}");
    gateway.wait_for("/v1/pdus/pdu-a/outlets/4", |outlet| outlet["state"] == "on");
    assert_eq!(relays(&a, 4), [false, false, false, true]);
    // Somebody wants one of them off: it is already, and stays so.
    let off = gateway.curl().post("/v1/hosts/web-3/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(off.json()["outcome"], "already_there", "{off:?}");
    let left = wait_for(&gateway, "restore.cancelled");
    assert!(left[0].starts_with("pdu-a/3 stay off"), "{left:?}");
    // Some seconds later what is wanted is durable.
    let since = observed(&gateway.curl().get("/v1/pdus/pdu-a"));
    gateway.wait_for("/v1/pdus/pdu-a", |body| observed(body) > since + 3_000);
    let dir = gateway.kill();
    let more = sections(20_000);
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &more, &[]));
    let gateway = gateway.await.unwrap();
    gateway.wait_online("pdu-a");
    for outlet in [1, 2, 4] {
        let path = format!("/v1/pdus/pdu-a/outlets/{outlet}");
        gateway.wait_for(&path, |outlet| outlet["state"] == "on");
    }
    assert_eq!(relays(&a, 4), [true, true, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_restore_has_not_switched_on_stays_off() {
    let mut a = Sim::start(Family::ApcRpdu2, 4).await;
    let pdu = pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1");
    // Each waits for what comes before it.
    let mut all = hosts(4);
    for n in 1..4 {
        let (id, after) = (format!("id = \"web-{n}\""), n + 1);
        all = all.replace(&id, &format!("{id}\nafter = [\"web-{after}\"]"));
    }
    let all = all.replace("boot_s = 1", "boot_s = 5");
    let sections = format!(
        "[poll]\nretry_s = 1\nretry_max_s = 1\n[restore]\nsettle_s = 1\nwait_s = 5\n[switching]\nhold_s = 1\n{pdu}{all}"
    );
    let gateway = started(sections.clone()).await;
    let gateway = after_an_outage(gateway, &mut a, 4, sections).await;
    wait_for(&gateway, "restore.plan");
    gateway.wait_for("/v1/pdus/pdu-a/outlets/4", |outlet| outlet["state"] == "on");
    let curl = gateway.curl();
    let plan = curl.get("/v1/plans")["plans"][0].clone();
    let path = format!("/v1/plans/{}/cancel", plan["id"].as_str().unwrap());
    assert_eq!(curl.post(&path, "", &[]).json()["state"], "cancelled");
    let left = wait_for(&gateway, "restore.cancelled");
    assert!(left[0].contains("pdu-a/1"), "{left:?}");
    let before = relays(&a, 4);
    assert!(before[3] && !before[0], "{before:?}");
    // Longer than a restore waits before it looks again.
    let since = observed(&curl.get("/v1/pdus/pdu-a"));
    gateway.wait_for("/v1/pdus/pdu-a", |body| observed(body) > since + 13_000);
    assert_eq!(relays(&a, 4), before);
    assert_eq!(told(&gateway, "restore.plan").len(), 1);
}

/// Both PDUs miss a poll, in the same moment, and are back at once.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_short_outage_of_the_whole_rack_what_was_on_comes_back() {
    let (mut a, mut b) =
        (Sim::start(Family::ApcRpdu2, 2).await, Sim::start(Family::ApcRpdu2, 2).await);
    let pdus = [("pdu-a", a.address), ("pdu-b", b.address)]
        .map(|(id, at)| pdu_section(id, at, "write_gap_ms = 0\nfast_s = 1\ntimeout_ms = 200"));
    let sections = format!(
        "[poll]\nretry_s = 1\nretry_max_s = 1\n[restore]\nsettle_s = 1\nwait_s = 5\n[switching]\nhold_s = 1\n{}{}",
        pdus.concat(),
        hosts(2)
    );
    let gateway = started(sections).await;
    gateway.wait_online("pdu-b");
    for id in ["pdu-a", "pdu-b"] {
        let path = format!("/v1/pdus/{id}");
        let since = observed(&gateway.curl().get(&path));
        gateway.wait_for(&path, |body| observed(body) > since + 3_000);
    }
    for sim in [&a, &b] {
        sim.fails();
        for outlet in 0..2 {
            sim.pdu.lock().unwrap().switch(outlet, Relay::Off, Tick(0));
        }
    }
    for id in ["pdu-a", "pdu-b"] {
        gateway.wait_for(&format!("/v1/pdus/{id}"), |pdu| pdu["state"] != "online");
    }
    a.comes_back(Family::ApcRpdu2).await;
    b.comes_back(Family::ApcRpdu2).await;
    let begun = wait_for(&gateway, "restore.begun");
    assert!(begun[0].contains("pdu-a/1, pdu-a/2, pdu-b/1, pdu-b/2"), "{begun:?}");
    for (id, sim) in [("pdu-a", &a), ("pdu-b", &b)] {
        for outlet in 1..=2 {
            let path = format!("/v1/pdus/{id}/outlets/{outlet}");
            gateway.wait_for(&path, |outlet| outlet["state"] == "on");
        }
        assert_eq!(relays(sim, 2), [true, true]);
    }
}

/// Were it off, it could not be switched on again while a limit above it is not read.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cycled_under_a_limit_that_is_not_read() {
    let (a, mut b) = (Sim::start(Family::ApcRpdu2, 2).await, Sim::start(Family::ApcRpdu2, 2).await);
    let pdus = ["pdu-a", "pdu-b"].map(|id| {
        let at = if id == "pdu-a" { a.address } else { b.address };
        pdu_section(id, at, "write_gap_ms = 0\nfast_s = 1")
    });
    let sections = format!(
        "[poll]\nretry_s = 1\nretry_max_s = 1\n[switching]\nfresh_s = 3\nhold_s = 1\n\
         [[limit]]\nid = \"room\"\nrating_w = 20000\nof = [\"pdu-a\", \"pdu-b\"]\n{}{}",
        pdus.concat(),
        hosts(2)
    );
    let gateway = started(sections).await;
    gateway.wait_online("pdu-b");
    let wish = json!({"goals": [{"select": {"hosts": ["web-1"]}, "action": "cycle"}]});
    let plan = make(&gateway.curl(), &wish);
    b.fails();
    let last = observed(&gateway.curl().get("/v1/pdus/pdu-b"));
    gateway.wait_for("/v1/pdus/pdu-a", |body| observed(body) > last + 5_000);
    let limits = gateway.curl().get("/v1/limits");
    let room = limits["limits"].as_array().unwrap().iter().find(|limit| limit["id"] == "room");
    let (left, why) = (&room.unwrap()["headroom_w"], room.unwrap()["why"].as_str().unwrap());
    assert!(left == 0.0 && why.contains("counts as full until it is read again"), "{limits}");
    assert_eq!(run(&gateway.curl(), &plan).status, 202);
    // Long enough for the off, which otherwise comes at once.
    for _ in 0..50 {
        pause();
        assert_eq!(relays(&a, 1), [true]);
    }
    b.comes_back(Family::ApcRpdu2).await;
    assert_eq!(ended(&gateway, &plan)["state"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_whose_limit_its_pdu_does_not_have_is_told_and_stands_as_an_alarm() {
    let a = Sim::start(Family::ApcRpdu2, 4).await;
    let rule = "[[shed]]\nid = \"high\"\nlimit = \"pdu-a/B9\"\noutlets = [\"pdu-a/4\"]\n";
    let pdu = pdu_section("pdu-a", a.address, "fast_s = 1");
    let gateway = started(format!("{rule}{pdu}")).await;
    let told = wait_for(&gateway, "shed.unknown_limit");
    let why = "rule high never sheds: PDU pdu-a has no limit pdu-a/B9 that is rated; it has ";
    assert!(told[0].starts_with(why), "{told:?}");
    let status = gateway.curl().get("/v1/status");
    assert_eq!((&status["state"], &status["alarms"]), (&json!("degraded"), &json!(told)));
    // The mend is taken up without a restart.
    let mended = rule.replace("B9", "B1");
    Gateway::write_config(gateway.dir.path(), &format!("{mended}{pdu}"));
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/status", |status| status["alarms"] == json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rating_of_a_part_that_the_pdu_does_not_have_is_told_and_stands_as_an_alarm() {
    let a = Sim::start(Family::ApcRpdu2, 4).await;
    let gateway =
        started(pdu_section("pdu-a", a.address, "ratings_a = { B1 = 9, X9 = 4, 3 = 8 }")).await;
    let told = wait_for(&gateway, "pdu.unknown_part");
    assert!(told[0].starts_with("ratings_a of PDU pdu-a rates X9, and it has no such"), "{told:?}");
    assert_eq!(gateway.curl().get("/v1/status")["alarms"], json!(told));
    // Of an outlet it holds.
    let limits = gateway.curl().get("/v1/limits");
    let of = limits["limits"].as_array().unwrap().iter().find(|limit| limit["id"] == "pdu-a/3");
    assert_eq!(of.unwrap()["rating_a"], 8.0, "{limits}");
}
