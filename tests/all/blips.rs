//! A PDU that does not answer for a while, in the middle of a plan that has left something dark: it comes on once it can.

use std::time::Instant;

use pmgate::model::switching::Relay;
use pmgate::sim::families::Family;
use serde_json::json;

use crate::planned::{make, relay, run};
use crate::proxy::{Proxy, is_set};
use crate::rig::{Gateway, Sim, pdu_section};

async fn silent_in_between(sections: &str, more: &str, hosts: &str) -> (Sim, Proxy, Gateway) {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let proxy = Proxy::before(sim.address).await;
    let device = format!("write_gap_ms = 0\nfast_s = 1\n{more}");
    let pdu = pdu_section("pdu-a", proxy.address, &device);
    let sections = format!("[poll]\nretry_s = 1\nretry_max_s = 1\n{sections}{pdu}{hosts}");
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway
    });
    (sim, proxy, gateway.await.unwrap())
}

/// What is asked is lost from before the on is due until some seconds after it: the on waits for its turn behind a poll that
/// comes to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_outlet_whose_pdu_is_silent_as_its_on_is_due_comes_on_all_the_same() {
    let (sim, proxy, gateway) =
        silent_in_between("[switching]\nhold_s = 4\n", "timeout_ms = 1500\nattempts = 2", "").await;
    tokio::task::spawn_blocking(move || {
        proxy.take_requests();
        let mut off: Option<Instant> = None;
        proxy.on_request(move |request| {
            if is_set(request) {
                off.get_or_insert_with(Instant::now);
            }
            let since = off.map_or(0, |off| off.elapsed().as_millis());
            is_set(request) || !(2_500..12_000).contains(&since)
        });
        let cycle = gateway.curl().power("pdu-a/5", "cycle");
        assert_eq!((cycle.status, &cycle.json()["state"]), (200, &"done".into()), "{cycle:?}");
        assert_eq!(relay(&sim, 5), Relay::On);
        let sets = proxy.take_requests().iter().filter(|request| is_set(request)).count();
        assert_eq!(sets, 2, "each is sent once");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_brings_a_host_to_its_safe_state_waits_for_a_pdu_that_is_silent_and_says_so() {
    let host =
        "[[host]]\nid = \"web\"\noutlets = [\"pdu-a/5\"]\nhold_s = 20\nsafe_state = \"on\"\n";
    let (sim, proxy, gateway) =
        silent_in_between("[switching]\n", "timeout_ms = 300\nattempts = 1", host).await;
    tokio::task::spawn_blocking(move || {
        let curl = gateway.curl();
        let plan =
            make(&curl, &json!({"goals": [{"select": {"hosts": ["web"]}, "action": "cycle"}]}));
        assert_eq!(run(&curl, &plan).status, 202);
        let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
        gateway.wait_for(&path, |plan| plan["steps"][0]["state"] == "done");
        proxy.silent(true);
        gateway.wait_for("/v1/pdus/pdu-a", |pdu| pdu["state"] == "stale");
        assert_eq!(curl.post(&format!("{path}/cancel"), "", &[]).json()["state"], "cancelled");
        let safe = format!("{path}.safe");
        let waits = gateway.wait_for(&safe, |safe| {
            let why = safe["steps"][0]["detail"].as_str();
            why.is_some_and(|why| why.starts_with("waits: PDU pdu-a is stale"))
        });
        assert_eq!(waits["state"], "running", "{waits}");
        proxy.silent(false);
        let done = gateway.wait_for(&safe, |safe| safe["state"] != "running");
        assert_eq!(done["state"], "done", "{done}");
        assert_eq!(relay(&sim, 5), Relay::On);
    })
    .await
    .unwrap();
}
