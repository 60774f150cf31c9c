//! Webhooks of plans that go no further, and of a gateway that ends while one is out.

use std::time::{Duration, Instant};

use pmgate::model::switching::Relay;
use pmgate::model::time::Span;
use serde_json::json;

use crate::approved::serial_of;
use crate::hooks::{Server, hook, node};
use crate::planned::{ended, make, relay, run, two_pdus};
use crate::rig::{Curl, Gateway, pmgate};

fn wait_for_calls(server: &Server, count: usize) {
    let until = Instant::now() + Duration::from_secs(40);
    while server.calls().len() < count {
        assert!(Instant::now() < until, "{count} calls are awaited: {:?}", server.calls());
        crate::rig::pause();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_is_drained_any_further_for_a_plan_that_failed() {
    let server = Server::start(&[202; 200]).await;
    let back = Server::start(&[]).await;
    let hooks = hook("before_off", &server, ", within_s = 300") + &hook("after_on", &back, "");
    let dead = "[[host]]\nid = \"dead\"\noutlets = [\"pdu-a/6\"]\n";
    let (a, b, gateway) = two_pdus(&(node(&hooks) + dead)).await;
    tokio::task::spawn_blocking(move || {
        let curl = gateway.curl();
        // A relay that does not move.
        a.pdu.lock().unwrap().relay_delay = Span(u64::MAX / 4 * 3);
        let wish = json!({"goals": [{"select": {"hosts": ["node", "dead"]}, "action": "off"}]});
        let plan = make(&curl, &wish);
        assert_eq!(run(&curl, &plan).status, 202);
        wait_for_calls(&server, 1);
        // Long before the drain's time is over.
        let stopped = ended(&gateway, &plan);
        assert_eq!(stopped["state"], "stopped", "{stopped}");
        assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
        assert_eq!(back.calls().len(), 1, "it is taken back: {:?}", back.calls());
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_on_as_the_gateway_ends_is_taken_back_by_the_next_start_once() {
    let server = Server::start(&[202; 500]).await;
    let hooks = hook("after_on", &server, ", within_s = 300");
    let (a, _b, mut gateway) = two_pdus(&node(&hooks)).await;
    tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
        let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
        let wish = json!({"goals": [{"select": {"hosts": ["node"]}, "action": "cycle"}]});
        let plan = make(&gateway.curl(), &wish);
        assert_eq!(run(&gateway.curl(), &plan).status, 202);
        wait_for_calls(&server, 1);
        let again = |gateway: &mut Gateway| {
            gateway.running.signal("TERM");
            assert!(gateway.running.ended(Duration::from_secs(30)).success());
            let dir = std::mem::replace(&mut gateway.dir, tempfile::tempdir().unwrap());
            Gateway::in_dir(dir, &sections, &[])
        };
        let mut gateway = again(&mut gateway);
        // Twice: the server is at it for long.
        let calls = server.calls().len();
        wait_for_calls(&server, calls + 1);
        let mut gateway = again(&mut gateway);
        let calls = server.calls().len();
        server.answers.lock().unwrap().clear();
        wait_for_calls(&server, calls + 1);
        gateway.wait_for("/v1/events?last=100", |events| {
            let is_back = |event: &serde_json::Value| event["kind"] == "host.taken_back";
            events.as_array().unwrap().iter().any(is_back)
        });
        let calls = server.calls();
        let key = calls[0].header("idempotency-key");
        assert!(calls.iter().all(|call| call.header("idempotency-key") == key), "{calls:?}");
        let over = ended(&gateway, &plan);
        assert!(over["finished_at"].is_string(), "{over}");
        assert_eq!(relay(&a, 5), Relay::On);
        // It was answered: no later start asks it again. Once that has switched something it would have.
        let count = calls.len();
        let gateway = again(&mut gateway);
        gateway.wait_online("pdu-a");
        assert_eq!(gateway.curl().power("pdu-a/7", "off").status, 200);
        assert_eq!(server.calls().len(), count);
    })
    .await
    .unwrap();
}

/// Nothing of it was begun but the drain: who was turned away while the gateway was off switches nothing by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_one_who_was_turned_away_meanwhile_is_not_taken_up_and_its_node_is_taken_back() {
    let server = Server::start(&[202; 500]).await;
    let back = Server::start(&[]).await;
    let hooks = hook("before_off", &server, ", within_s = 300") + &hook("after_on", &back, "");
    let (a, b, gateway) = two_pdus(&node(&hooks)).await;
    tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
        let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
        let own = gateway.dir.path().join("ca");
        let ca = own.to_str().unwrap();
        let issued = pmgate(&["ca", "issue", "--role", "operator", "other", "--dir", ca], &[]);
        assert_eq!(issued.2, 0, "{issued:?}");
        for kind in ["pem", "key"] {
            let name = format!("other.{kind}");
            std::fs::copy(own.join(&name), gateway.dir.path().join(&name)).unwrap();
        }
        let other = Curl::new(gateway.dir.path(), &gateway.url, "other");
        let wish = json!({"goals": [{"select": {"hosts": ["node"]}, "action": "cycle"}]});
        let plan = make(&other, &wish);
        assert_eq!(run(&other, &plan).status, 202);
        wait_for_calls(&server, 1);
        let dir = gateway.kill();
        let serial = serial_of("other", ca);
        assert_eq!(pmgate(&["ca", "revoke", "--dir", ca, &serial], &[]).2, 0);
        let gateway = Gateway::in_dir(dir, &sections, &[]);
        let over = ended(&gateway, &plan);
        assert_eq!(over["state"], "cancelled", "{over}");
        let refused = gateway.wait_for("/v1/events?last=100", |events| {
            let mut all = events.as_array().unwrap().iter();
            all.any(|event| event["kind"] == "plan.refused")
        });
        assert!(refused.to_string().contains("revoked"), "{refused}");
        wait_for_calls(&back, 1);
        assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
    })
    .await
    .unwrap();
}
