//! Webhooks of hosts: called before a host goes dark and after it has come up, with what is configured, within a time,
//! and with a policy for no answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pmgate::model::limits::WEBHOOKS;
use pmgate::model::switching::Relay;
use pmgate::sim::families::Family;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::planned::{ended, make, relay, run, two_pdus};
use crate::rig::{Curl, Gateway, Sim, pdu_section};

/// What a webhook's server was sent.
#[derive(Debug, Clone)]
pub struct Call {
    /// Method and path.
    pub line: String,
    /// In lower case, as name: value.
    headers: Vec<String>,
    body: String,
    at: Instant,
    /// What was seen at that moment.
    seen: String,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| header.strip_prefix(&format!("{name}: ")))
    }
}

/// A server that answers one call after the other as it was told, and the rest with 200; 0 for no answer at all.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    pub answers: Arc<Mutex<Vec<u16>>>,
    look: Arc<Mutex<Box<dyn FnMut() -> String + Send>>>,
}

impl Server {
    pub async fn start(answers: &[u16]) -> Self {
        let (server, listener) = Self::bound(answers).await;
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.serve(stream).await });
            }
        });
        server
    }

    async fn bound(answers: &[u16]) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            calls: Arc::default(),
            answers: Arc::new(Mutex::new(answers.to_vec())),
            look: Arc::new(Mutex::new(Box::new(String::new))),
        };
        (server, listener)
    }

    /// One request of a connection.
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let mut text = String::new();
        let mut bytes = [0; 4_096];
        let (head, body) = loop {
            let count = stream.read(&mut bytes).await.ok().filter(|count| *count > 0)?;
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        };
        let mut lines = head.lines();
        let call = Call {
            line: lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned(),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
                .collect(),
            body,
            at: Instant::now(),
            seen: (self.look.lock().unwrap())(),
        };
        self.calls.lock().unwrap().push(call);
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            if answers.is_empty() { 200 } else { answers.remove(0) }
        };
        if answer == 0 {
            // Until the other side has had enough.
            while stream.read(&mut bytes).await.ok()? > 0 {}
            return None;
        }
        let text = format!("HTTP/1.1 {answer} x\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).await.ok()?;
        stream.flush().await.ok()
    }

    /// What is to be noted with each call.
    fn look(&self, look: impl FnMut() -> String + Send + 'static) {
        *self.look.lock().unwrap() = Box::new(look);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

/// A host on outlets 5 with hooks.
pub fn node(hooks: &str) -> String {
    format!(
        "[[host]]\nid = \"node\"\noutlets = [\"pdu-a/5\", \"pdu-b/5\"]\ndraw = {{ steady_w = 200, boot_s = 1 }}\n{hooks}\n"
    )
}

pub fn hook(key: &str, server: &Server, more: &str) -> String {
    format!("{key} = {{ url = \"http://{}/{key}?host=node\"{more} }}\n", server.address)
}

fn cycle(gateway: &Gateway) -> Value {
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"hosts": ["node"]}, "action": "cycle"}]});
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    ended(gateway, &plan)
}

/// What the relays of the host do at a moment.
fn relays(a: &Sim, b: &Sim) -> impl FnMut() -> String + Send + use<> {
    use pmgate::model::metric::{Metric, Scope};
    use pmgate::model::time::{Clock as _, SystemClock};
    let (a, b, clock) = (a.pdu.clone(), b.pdu.clone(), SystemClock::start());
    move || {
        let word = |pdu: &Mutex<pmgate::sim::physics::Pdu>| {
            let mut pdu = pdu.lock().unwrap();
            let on = pdu.value(Scope::Outlet, 4, Metric::State, clock.tick());
            if on == Some(pmgate::model::metric::Word::On.number()) { "on" } else { "off" }
        };
        format!("{} {}", word(&a), word(&b))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_before_it_goes_dark_and_taken_back_once_it_is_up() {
    let server = Server::start(&[]).await;
    let hooks = hook("before_off", &server, ", token_file = \"community\"");
    let put = hook(
        "after_on",
        &server,
        ", method = \"PATCH\", body = '{\"spec\":{\"unschedulable\":false}}', content_type = \"application/merge-patch+json\"",
    );
    let (a, b, gateway) = two_pdus(&node(&(hooks + &put))).await;
    server.look(relays(&a, &b));
    let done = cycle(&gateway);
    assert_eq!(done["state"], "done", "{done}");
    let calls = server.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    let [before, after] = &calls[..] else { unreachable!() };
    assert_eq!(
        (before.line.as_str(), before.seen.as_str()),
        ("POST /before_off?host=node", "on on")
    );
    let body: Value = serde_json::from_str(&before.body).unwrap();
    assert_eq!(body, json!({"event": "before_off", "host": "node", "plan": done["id"]}));
    assert_eq!(before.header("authorization"), Some("Bearer public"));
    assert_eq!(before.header("content-type"), Some("application/json"));
    assert_eq!(before.header("host"), Some(server.address.to_string().as_str()));
    let key = format!("{}-node-before_off", done["id"].as_str().unwrap());
    assert_eq!(before.header("idempotency-key"), Some(key.as_str()));
    assert_eq!((after.line.as_str(), after.seen.as_str()), ("PATCH /after_on?host=node", "on on"));
    assert_eq!(after.body, r#"{"spec":{"unschedulable":false}}"#);
    assert_eq!(after.header("content-type"), Some("application/merge-patch+json"));
    assert_eq!(after.header("authorization"), None, "a token goes only where it belongs");
    // Off, the hold, and the start-up lie between the two.
    assert!((after.at - before.at).as_millis() >= 2_500, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_that_keeps_one_of_its_feeds_is_taken_back() {
    // An admin locks the outlet that is to go last while the node is drained.
    let server = Server::start(&[202]).await;
    let hooks = hook("before_off", &server, "") + &hook("after_on", &server, "");
    let (a, b, gateway) = two_pdus(&node(&hooks)).await;
    server.look(relays(&a, &b));
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"hosts": ["node"]}, "action": "off"}]});
    let plan = make(&curl, &wish);
    let steps = plan["steps"].as_array().unwrap();
    let last = steps.last().unwrap()["outlet"].as_str().unwrap().to_owned();
    assert_eq!(run(&curl, &plan).status, 202);
    gateway.wait_for("/v1/status", |_| !server.calls().is_empty());
    let admin = Curl::new(gateway.dir.path(), &gateway.url, "admin");
    let (pdu, number) = last.split_once('/').unwrap();
    let path = format!("/v1/pdus/{pdu}/outlets/{number}/lock");
    let put = admin.send(&path, &["-X", "PUT", "-d", "{\"reason\":\"at work\"}"]);
    assert!(put.status < 300, "{put:?}");
    let stopped = ended(&gateway, &plan);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    let on = [relay(&a, 5), relay(&b, 5)].into_iter().filter(|relay| *relay == Relay::On);
    assert_eq!(on.count(), 1, "one feed went: {stopped}");
    let calls = server.calls();
    let back = calls.iter().filter(|call| call.line == "POST /after_on?host=node");
    assert_eq!(back.count(), 1, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_that_is_not_switched_off_is_taken_back_once() {
    // It is at it when it is called first, and meanwhile an admin locks an outlet.
    let server = Server::start(&[202]).await;
    let hooks = hook("before_off", &server, "") + &hook("after_on", &server, "");
    let (a, b, gateway) = two_pdus(&node(&hooks)).await;
    server.look(relays(&a, &b));
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"hosts": ["node"]}, "action": "off"}]});
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    gateway.wait_for("/v1/status", |_| !server.calls().is_empty());
    let admin = Curl::new(gateway.dir.path(), &gateway.url, "admin");
    for outlet in ["pdu-a", "pdu-b"] {
        let path = format!("/v1/pdus/{outlet}/outlets/5/lock");
        let put = admin.send(&path, &["-X", "PUT", "-d", "{\"reason\":\"at work\"}"]);
        assert!(put.status < 300, "{put:?}");
    }
    let stopped = ended(&gateway, &plan);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
    let calls = server.calls();
    let lines: Vec<&str> = calls.iter().map(|call| call.line.as_str()).collect();
    let before = "POST /before_off?host=node";
    assert_eq!(lines, [before, before, "POST /after_on?host=node"], "{calls:?}");
    let audit = curl.get("/v1/audit?last=50");
    let kinds =
        audit["entries"].as_array().unwrap().iter().filter(|l| l["kind"] == "host.taken_back");
    assert_eq!(kinds.count(), 1, "{audit}");
    // A cancel while it is drained: the call is waited for, then it is taken back.
    server.answers.lock().unwrap().extend([202, 202, 202, 202]);
    for outlet in ["pdu-a", "pdu-b"] {
        let path = format!("/v1/pdus/{outlet}/outlets/5/lock");
        assert!(admin.send(&path, &["-X", "DELETE"]).status < 300);
    }
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    gateway.wait_for("/v1/status", |_| server.calls().len() > 3);
    let path = format!("/v1/plans/{}/cancel", plan["id"].as_str().unwrap());
    server.answers.lock().unwrap().clear();
    let cancelled = curl.post(&path, "", &[]);
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    let calls = server.calls();
    assert_eq!(calls.last().unwrap().line, "POST /after_on?host=node", "{calls:?}");
    assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_feed_of_two_is_cut_without_a_call_and_the_last_by_hand_with_one() {
    let server = Server::start(&[]).await;
    let lone = format!(
        "[[host]]\nid = \"lone\"\noutlets = [\"pdu-a/6\"]\n{}",
        hook("before_off", &server, "")
    );
    let more = node(&hook("before_off", &server, "")) + &lone;
    let (a, _b, gateway) = two_pdus(&more).await;
    let curl = gateway.curl();
    let plan =
        make(&curl, &json!({"goals": [{"select": {"outlets": ["pdu-a/5"]}, "action": "off"}]}));
    assert_eq!(run(&curl, &plan).status, 202);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    assert_eq!(relay(&a, 5), Relay::Off);
    assert!(server.calls().is_empty(), "it does not go dark: {:?}", server.calls());
    let off = curl.post("/v1/hosts/lone/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(off.status, 200, "{off:?}");
    let calls = server.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(calls[0].body.contains("\"lone\""), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_its_time_is_asked_again_until_it_is_done() {
    let server = Server::start(&[202, 503]).await;
    let (a, b, gateway) = two_pdus(&node(&hook("before_off", &server, ", within_s = 30"))).await;
    server.look(relays(&a, &b));
    let done = cycle(&gateway);
    assert_eq!(done["state"], "done", "{done}");
    let calls = server.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls.iter().all(|call| call.seen == "on on"), "nothing is cut before: {calls:?}");
    let key = calls[0].header("idempotency-key").unwrap();
    assert!(calls.iter().all(|call| call.header("idempotency-key") == Some(key)), "{calls:?}");
    assert!((calls[1].at - calls[0].at).as_millis() >= 1_900, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_a_plan_stops_or_goes_on_as_its_host_says() {
    let (silent, refuses) = (Server::start(&[0]).await, Server::start(&[404]).await);
    let stops = node(&hook("before_off", &silent, ", within_s = 1"));
    let goes_on = format!(
        "[[host]]\nid = \"free\"\noutlets = [\"pdu-a/6\"]\n{}",
        hook("before_off", &refuses, ", on_no_answer = \"go_on\"")
    );
    let (a, b, gateway) = two_pdus(&(stops + &goes_on)).await;
    let stopped = cycle(&gateway);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    let detail = stopped["steps"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("does not answer") && detail.contains("within 1 s"), "{detail}");
    assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
    assert_eq!(silent.calls().len(), 1);
    let curl = gateway.curl();
    let off = curl.post("/v1/hosts/free/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(off.status, 200, "{off:?}");
    assert_eq!(refuses.calls().len(), 1, "what is refused is not asked again");
    assert_eq!(relay(&a, 6), Relay::Off);
    let events = curl.get("/v1/events?last=100");
    let told: Vec<(&str, &str)> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "host.no_answer")
        .map(|event| (event["host"].as_str().unwrap(), event["text"].as_str().unwrap()))
        .collect();
    assert_eq!(told.len(), 2, "{events}");
    assert!(told[0].0 == "node" && told[0].1.ends_with("the plan stops"), "{told:?}");
    assert!(told[1].0 == "free" && told[1].1.ends_with("the plan goes on"), "{told:?}");
    assert!(told[1].1.contains("404"), "{told:?}");
}

/// It would stay cordoned, and nobody would know.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_node_is_on_and_was_not_taken_back_has_not_ended_well() {
    for (policy, state) in [("", "stopped"), (", on_no_answer = \"go_on\"", "done")] {
        let server = Server::start(&[403]).await;
        let (a, b, gateway) = two_pdus(&node(&hook("after_on", &server, policy))).await;
        let ended = cycle(&gateway);
        assert_eq!(ended["state"], state, "{ended}");
        assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
        let steps = ended["steps"].as_array().unwrap();
        assert!(steps.iter().all(|step| step["state"] == "done"), "{ended}");
        let told = steps.iter().filter_map(|step| step["detail"].as_str());
        let told = told.filter(|detail| detail.contains("403")).count();
        assert_eq!(told, usize::from(state == "stopped"), "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_cancelled_while_a_node_is_drained_cuts_nothing_and_asks_no_more() {
    let server = Server::start(&[202; 100]).await;
    let slow = "[[host]]\nid = \"slow\"\noutlets = [\"pdu-a/6\"]\nhold_s = 5\n";
    let more = node(&hook("before_off", &server, ", within_s = 300")) + slow;
    let (a, b, gateway) = two_pdus(&more).await;
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"hosts": ["node"]}, "action": "off"}]});
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    let until = Instant::now() + std::time::Duration::from_secs(20);
    while server.calls().is_empty() {
        assert!(Instant::now() < until, "it was never called");
        tokio::task::yield_now().await;
    }
    let path = format!("/v1/plans/{}/cancel", plan["id"].as_str().unwrap());
    let cancelled = curl.post(&path, "", &[]);
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
    let calls = server.calls().len();
    // Two more rounds of asking would have come by then.
    let off_and_on = cycle_of_another(&gateway);
    assert_eq!(off_and_on["state"], "done", "{off_and_on}");
    assert_eq!(server.calls().len(), calls, "the drain of a cancelled plan is asked for no more");
    // It is whoever cancelled it that did.
    let audit = curl.get("/v1/audit?last=1000");
    let lines = audit["entries"].as_array().unwrap();
    let line = lines.iter().find(|line| line["kind"] == "plan.cancelled").unwrap();
    assert_eq!(line["by"], "client (operator)", "{line}");
}

/// A drain may take a quarter of an hour, and nothing is written meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_at_its_pdu_while_a_node_is_drained() {
    let server = Server::start(&[202; 100]).await;
    let (a, b, gateway) = two_pdus(&node(&hook("before_off", &server, ", within_s = 300"))).await;
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"hosts": ["node"]}, "action": "off"}]});
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    let until = Instant::now() + std::time::Duration::from_secs(20);
    while server.calls().is_empty() {
        assert!(Instant::now() < until, "it was never called");
        tokio::task::yield_now().await;
    }
    let other = curl.power("pdu-a/7", "off");
    assert_eq!((other.status, &other.json()["state"]), (200, &"done".into()), "{other:?}");
    assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
    server.answers.lock().unwrap().clear();
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::Off, Relay::Off));
}

/// A rack may be drained as a whole; more are not asked at a time, and the time of those that wait begins with their turn.
#[tokio::test(flavor = "multi_thread")]
async fn more_nodes_than_there_are_places_are_drained_some_after_the_others() {
    let server = Server::start(&[0; WEBHOOKS]).await;
    // A plan takes a second and a half for each step of a PDU: three each.
    let pdus = WEBHOOKS / 3 + 1;
    let mut sims = Vec::new();
    let mut sections = String::new();
    for n in 0..WEBHOOKS + 2 {
        let (pdu, outlet) = (n % pdus, n / pdus + 1);
        if outlet == 1 {
            let sim = Sim::start(Family::ApcRpdu2, 3).await;
            sections += &pdu_section(&format!("pdu-{pdu}"), sim.address, "write_gap_ms = 0");
            sims.push(sim);
        }
        let hook = hook("before_off", &server, ", within_s = 7");
        sections +=
            &format!("[[host]]\nid = \"node-{n}\"\noutlets = [\"pdu-{pdu}/{outlet}\"]\n{hook}");
    }
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        for pdu in 0..pdus {
            gateway.wait_online(&format!("pdu-{pdu}"));
        }
        gateway
    });
    let gateway = gateway.await.unwrap();
    let curl = gateway.curl();
    let hosts: Vec<String> = (0..WEBHOOKS + 2).map(|n| format!("node-{n}")).collect();
    let goal = json!({"select": {"hosts": hosts}, "action": "off"});
    let plan = make(&curl, &json!({"goals": [goal], "on_failure": "continue"}));
    assert_eq!(run(&curl, &plan).status, 202);
    let ended = ended(&gateway, &plan);
    let calls = server.calls();
    assert_eq!(calls.len(), WEBHOOKS + 2, "{ended}");
    let first = calls[0].at;
    let waited: Vec<u128> = calls.iter().map(|call| (call.at - first).as_millis()).collect();
    // No place is free before the first has had its time.
    assert!(waited[WEBHOOKS - 1] < 6_000, "side by side: {waited:?}");
    assert!(waited[WEBHOOKS] >= 6_500, "not before a place is free: {waited:?}");
    let steps = ended["steps"].as_array().unwrap();
    let hosts_off = (0..WEBHOOKS + 2).filter(|n| {
        let (pdu, outlet) = (n % pdus, n / pdus + 1);
        relay(&sims[pdu], outlet as u16) == Relay::Off
    });
    assert_eq!(hosts_off.count(), 2, "those that were answered: {steps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_gateway_is_killed_before_it_was_taken_back_is_taken_back_later() {
    let server = Server::start(&[0]).await;
    let (a, _b, gateway) = two_pdus(&node(&hook("after_on", &server, ""))).await;
    let curl = gateway.curl();
    let wish = json!({"goals": [{"select": {"hosts": ["node"]}, "action": "cycle"}]});
    let plan = make(&curl, &wish);
    assert_eq!(run(&curl, &plan).status, 202);
    let until = Instant::now() + std::time::Duration::from_secs(30);
    while server.calls().is_empty() {
        assert!(Instant::now() < until, "it was never called");
        tokio::task::yield_now().await;
    }
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
    let dir = gateway.kill();
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
    let gateway = gateway.await.unwrap();
    let done = ended(&gateway, &plan);
    assert_eq!(done["state"], "done", "{done}");
    let calls = server.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!(calls[0].header("idempotency-key"), calls[1].header("idempotency-key"));
    assert_eq!(relay(&a, 5), Relay::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_drained_when_the_gateway_died_and_did_not_go_dark_is_taken_back() {
    let server = Server::start(&[]).await;
    let hooks = hook("before_off", &server, "") + &hook("after_on", &server, "");
    let (a, b, gateway) = two_pdus(&node(&hooks)).await;
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
    let dir = gateway.kill();
    let again = tokio::task::spawn_blocking(move || {
        let mut gateway = Gateway::in_dir(dir, &sections, &[("PMGATE_KILL_AT", "before-write")]);
        gateway.wait_online("pdu-a");
        gateway.wait_online("pdu-b");
        let plan = make(
            &gateway.curl(),
            &json!({"goals": [{"select": {"hosts": ["node"]}, "action": "cycle"}]}),
        );
        // It dies with the first off intended, and none sent; sometimes before it has answered.
        let status = run(&gateway.curl(), &plan).status;
        assert!([202, 0].contains(&status), "{status}");
        gateway.running.ended(std::time::Duration::from_secs(30));
        let dir = std::mem::replace(&mut gateway.dir, tempfile::tempdir().unwrap());
        (Gateway::in_dir(dir, &sections, &[]), plan)
    });
    let (gateway, plan) = again.await.unwrap();
    let ended = ended(&gateway, &plan);
    assert_eq!(ended["state"], "interrupted", "{ended}");
    let lines: Vec<String> = server.calls().into_iter().map(|call| call.line).collect();
    assert_eq!(lines, ["POST /before_off?host=node", "POST /after_on?host=node"], "{ended}");
    assert_eq!((relay(&a, 5), relay(&b, 5)), (Relay::On, Relay::On));
}

/// A cycle with a hold of 5 s, of an outlet that has no hooks.
fn cycle_of_another(gateway: &Gateway) -> Value {
    let answer = gateway.curl().post("/v1/hosts/slow/power", r#"{"action":"cycle"}"#, &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_over_tls_is_called_only_at_a_server_of_the_named_authority() {
    let ((server, listener), (other, others)) =
        (Server::bound(&[]).await, Server::bound(&[]).await);
    let secure = |host: &str, outlet: u16, server: &Server, ca: &str| {
        format!(
            "[[host]]\nid = \"{host}\"\noutlets = [\"pdu-a/{outlet}\"]\nbefore_off = {{ url = \"https://{}/drain\", within_s = 2, ca = \"{ca}\" }}\n",
            server.address
        )
    };
    // The authority of another site.
    let stranger = tempfile::tempdir().unwrap();
    let ca = stranger.path().to_str().unwrap();
    let (_, err, code) = crate::rig::pmgate(&["ca", "init", "--domain", "other", "--dir", ca], &[]);
    assert_eq!(code, 0, "{err}");
    let more = secure("good", 5, &server, "ca.pem")
        + &secure("bad", 6, &other, stranger.path().join("ca.pem").to_str().unwrap());
    let (a, _b, gateway) = two_pdus(&more).await;
    for (server, listener) in [(server.clone(), listener), (other.clone(), others)] {
        let acceptor = acceptor(&gateway);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    server.serve(stream).await;
                }
            }
        });
    }
    let curl = gateway.curl();
    let good = curl.post("/v1/hosts/good/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(good.status, 200, "{good:?}");
    assert_eq!(server.calls()[0].line, "POST /drain");
    let bad = curl.post("/v1/hosts/bad/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(bad.status, 502, "{bad:?}");
    assert!(bad.json()["detail"].as_str().unwrap().contains("certificate"), "{bad:?}");
    assert!(other.calls().is_empty(), "nothing is sent to a stranger");
    assert_eq!((relay(&a, 5), relay(&a, 6)), (Relay::Off, Relay::On));
}

/// TLS with the certificate of the gateway's own server.
fn acceptor(gateway: &Gateway) -> tokio_rustls::TlsAcceptor {
    let at = |name: &str| gateway.dir.path().join(name);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            pmgate::tls::files::certificates(&at("server.pem")).unwrap(),
            pmgate::tls::files::key(&at("server.key")).unwrap(),
        )
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}
