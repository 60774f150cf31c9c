//! The HTTPS API from outside: who gets in, what they may do, and what a hasty, slow or hostile client gets.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SanType, date_time_ymd,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::rig::{Curl, Demo, Gateway, pmgate};

/// The domain of the certificates of [`crate::rig::certificates`].
const URI: &str = "spiffe://test.local/role/operator/mallory";

fn problem(answer: &crate::rig::Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.kind, "application/problem+json", "{answer:?}");
    let json = answer.json();
    assert_eq!(json["status"], status);
    for key in ["title", "detail", "next"] {
        assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "no {key}: {json}");
    }
    json
}

#[test]
fn without_a_certificate_there_is_no_handshake() {
    let gateway = Gateway::start("");
    let ca = gateway.dir.path().join("ca.pem");
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "10", "--cacert", ca.to_str().unwrap()])
        .arg(format!("{}/v1/version", gateway.url))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(errors.contains("certificate required"), "{errors}");
    // TLS 1.2 is not spoken either.
    let old = gateway.curl().raw("/v1/version", &["--tls-max", "1.2"]);
    assert!(!old.status.success(), "{old:?}");
    let plain = Command::new("curl")
        .args(["-s", "--max-time", "10"])
        .arg(gateway.url.replace("https", "http"))
        .output()
        .unwrap();
    assert!(!plain.status.success() && plain.stdout.is_empty(), "{plain:?}");
}

/// Its extended key usage.
#[derive(Clone, Copy)]
enum Usage {
    Client,
    Server,
    Any,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy)]
struct Flaw {
    other_ca: bool,
    expired: bool,
    uri: Option<&'static str>,
    usage: Usage,
    authority: bool,
}

const SOUND: Flaw = Flaw {
    other_ca: false,
    expired: false,
    uri: Some(URI),
    usage: Usage::Client,
    authority: false,
};

/// Issues a flawed certificate by the CA of a directory, as files NAME.pem and NAME.key beside it.
fn issue(dir: &Path, name: &str, flaw: Flaw) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(if flaw.expired { 2021 } else { 2099 }, 1, 1);
    params.subject_alt_names =
        flaw.uri.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = match flaw.usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Any => Vec::new(),
    };
    if flaw.authority {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
    let (ca_pem, ca_key) = if flaw.other_ca {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        (ca.self_signed(&key).unwrap().pem(), key.serialize_pem())
    } else {
        (read("ca/ca.pem"), read("ca/ca.key"))
    };
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&ca_key).unwrap()).unwrap();
    let made = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), made.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn a_flawed_certificate_gets_nothing() {
    let gateway = Gateway::start("");
    let dir = gateway.dir.path();
    let ask = |name: &str, flaw: Flaw| {
        issue(dir, name, flaw);
        Curl::new(dir, &gateway.url, name).raw("/v1/version", &[])
    };
    let body = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let sound = ask("sound", SOUND);
    assert!(sound.status.success() && body(&sound).contains("200 application/json"), "{sound:?}");
    // These do not get through the handshake.
    for (name, flaw) in [
        ("other-ca", Flaw { other_ca: true, ..SOUND }),
        ("expired", Flaw { expired: true, ..SOUND }),
        ("for-servers", Flaw { usage: Usage::Server, ..SOUND }),
    ] {
        let answer = ask(name, flaw);
        assert!(!answer.status.success(), "{name}: {answer:?}");
        assert!(!body(&answer).contains("version"), "{name}: {answer:?}");
    }
    // These are of our authority, but name nobody: they are told so.
    for (name, flaw, why) in [
        ("no-uri", Flaw { uri: None, ..SOUND }, "no single URI"),
        ("no-role", Flaw { uri: Some("spiffe://test.local/role/king/x"), ..SOUND }, "king"),
        ("other-uri", Flaw { uri: Some("https://example.com/"), ..SOUND }, "spiffe://"),
        ("any-use", Flaw { usage: Usage::Any, ..SOUND }, "clientAuth"),
        ("authority", Flaw { authority: true, ..SOUND }, "authority"),
    ] {
        let answer = ask(name, flaw);
        let text = body(&answer);
        let refused = text.contains("403 application/problem+json") && text.contains(why);
        // rustls refuses an authority's certificate by itself.
        assert!(refused || name == "authority" && !answer.status.success(), "{name}: {text}");
    }
}

#[test]
fn a_role_is_a_ceiling() {
    let demo = Demo::start(1, 4);
    let paths = ["/v1/pdus/pdu-a/outlets/1/power", "/api/pdu-a/outletA/1/power_off"];
    for who in ["viewer", "admin"] {
        let curl = demo.curl_as(who);
        assert_eq!(curl.get("/v1/pdus/pdu-a/outlets/1")["state"], "on");
        for path in paths {
            let refused = problem(&curl.post(path, r#"{"action":"off"}"#, &[]), 403);
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.contains(who), "{refused}");
        }
        assert_eq!(curl.get("/v1/pdus/pdu-a/outlets/1?max_age_ms=0")["state"], "on");
    }
    assert_eq!(demo.curl().post(paths[0], r#"{"action":"off"}"#, &[]).status, 200);
}

#[test]
fn a_grant_narrows_what_an_operator_may() {
    let sim = Demo::start(1, 4);
    let section = format!(
        "[policy]\ndefault = \"none\"\n[[policy.grant]]\nname = \"client\"\nrole = \"operator\"\nreach = [\"pdu-a/2\"]\nactions = [\"cycle\"]\n[switching]\nhold_s = 1\n[[pdu]]\nid = \"pdu-a\"\nsnmp = \"{}\"\nsecret = \"v2c\"\n",
        sim.sim("pdu-a")
    );
    let gateway = Gateway::start(&section);
    gateway.wait_online("pdu-a");
    let curl = gateway.curl();
    problem(&curl.power("pdu-a/2", "off"), 403);
    problem(&curl.power("pdu-a/1", "cycle"), 403);
    assert_eq!(curl.power("pdu-a/2", "cycle").status, 200);
}

#[test]
fn a_revoked_certificate_is_turned_away_on_a_connection_that_it_has() {
    let gateway = Gateway::start("");
    let dir = gateway.dir.path();
    let ca = dir.join("ca");
    let (text, _, _) = pmgate(&["ca", "show", "--json", "--dir", ca.to_str().unwrap()], &[]);
    let issued: Value = serde_json::from_str(&text).unwrap();
    let serial = issued
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "viewer")
        .and_then(|one| one["serial"].as_str())
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut tls = connect(dir, &gateway.url, "viewer").await;
        assert!(exchange(&mut tls, "/v1/version").await.starts_with("HTTP/1.1 200"));
        let revoke = ["ca", "revoke", "--dir", ca.to_str().unwrap(), serial];
        assert_eq!(pmgate(&revoke, &[]).2, 0);
        gateway.running.signal("HUP");
        gateway.wait_for("/v1/events?last=10", |events| {
            events.as_array().unwrap().iter().any(|event| event["kind"] == "config.reloaded")
        });
        let answer = exchange(&mut tls, "/v1/version").await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("revoked"), "{answer}");
    });
    // A list that was cut off does not make it good again: the configuration is refused as a whole.
    std::fs::write(ca.join("crl.pem"), "").unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/events?last=10", |events| {
        events.as_array().unwrap().iter().any(|event| event["kind"] == "config.refused")
    });
    let anew = Curl::new(dir, &gateway.url, "viewer").raw("/v1/version", &[]);
    assert!(!anew.status.success(), "a revoked client still shakes hands: {anew:?}");
    assert_eq!(gateway.curl().send("/v1/version", &[]).status, 200);
}

pub async fn connect(dir: &Path, url: &str, who: &str) -> TlsStream<TcpStream> {
    let file = |name: String| dir.join(name);
    let config = pmgate::tls::client::load(
        &file(format!("{who}.pem")),
        &file(format!("{who}.key")),
        &file("ca.pem".into()),
    )
    .unwrap();
    let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap()
}

/// One request on a connection that is kept; what came, up to the end of a JSON body.
async fn exchange(tls: &mut TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut bytes = [0; 4096];
        let count = tls.read(&mut bytes).await.unwrap();
        assert!(count > 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    text
}

/// What comes until the other side closes.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A connection that is cut without TLS's farewell is as closed as one with it.
    let end = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut bytes)).await;
    assert!(end.is_ok(), "still open after 40 s: {}", String::from_utf8_lossy(&bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_client_that_dawdles_is_closed() {
    let gateway = Gateway::start("");
    let (dir, url) = (gateway.dir.path(), gateway.url.as_str());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let address = url.strip_prefix("https://").unwrap();
        let in_handshake = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
            rest(&mut stream).await
        };
        let in_head = async {
            let mut tls = connect(dir, url, "client").await;
            tls.write_all(b"GET /v1/version HTTP/1.1\r\nhost").await.unwrap();
            rest(&mut tls).await
        };
        let in_silence = async {
            let mut tls = connect(dir, url, "client").await;
            exchange(&mut tls, "/v1/version").await;
            rest(&mut tls).await
        };
        let in_body = async {
            let mut tls = connect(dir, url, "client").await;
            let head = "POST /v1/pdus/pdu-a/outlets/1/power HTTP/1.1\r\nhost: x\r\ncontent-length: 30\r\n\r\n{";
            tls.write_all(head.as_bytes()).await.unwrap();
            rest(&mut tls).await
        };
        let (handshake, head, silence, body) =
            tokio::join!(in_handshake, in_head, in_silence, in_body);
        assert!(handshake.len() < 100 && !handshake.contains("HTTP"), "{handshake}");
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
        assert!(silence.is_empty(), "{silence}");
        assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    });
}

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let demo = Demo::start(1, 4);
    let curl = demo.curl();
    problem(&curl.send("/v1/nothing", &[]), 404);
    problem(&curl.send("/v1/pdus/pdu-z", &[]), 404);
    problem(&curl.send("/v1/pdus/pdu-a/outlets/5", &[]), 404);
    problem(&curl.send("/v1/pdus/pdu-a/outlets/x", &[]), 404);
    problem(&curl.send("/v1/hosts/nobody", &[]), 404);
    let method = curl.send("/v1/pdus", &["-X", "DELETE", "-D", "-"]);
    assert!(method.body.to_lowercase().contains("allow: get"), "{method:?}");
    assert_eq!(method.status, 405);
    let query = problem(&curl.send("/v1/pdus?max_age=5", &[]), 400);
    assert!(query.to_string().contains("max_age_ms"), "not told which are known: {query}");
    problem(&curl.send("/v1/pdus?max_age_ms=soon", &[]), 400);
    let path = "/v1/pdus/pdu-a/outlets/1/power";
    for body in
        ["", "{", "[]", "null", r#"{"action":"explode"}"#, r#"{"action":"off","force":true}"#]
    {
        problem(&curl.post(path, body, &[]), 400);
    }
    // A list whose places would fit the fields.
    for (path, body) in [
        (path, r#" ["off", "x"]"#),
        ("/v1/hosts/server-1a/power", r#"["off","x"]"#),
        ("/v1/groups/web/power", r#"["off","x"]"#),
        ("/v1/plans", r#"[[{"select":{"outlets":["pdu-a/1"]},"action":"off"}]]"#),
        ("/v1/plans/p1/run", r#"["00"]"#),
        ("/v1/plans/p1/lift", "\n[\"00\"]"),
    ] {
        let who = if path.ends_with("lift") { "admin" } else { "client" };
        let list = problem(&demo.curl_as(who).post(path, body, &[]), 400);
        assert!(list["detail"].as_str().unwrap().contains("it is a list"), "{path}: {list}");
    }
    let null = problem(&curl.post("/v1/plans", "null", &[]), 400);
    assert!(null["detail"].as_str().unwrap().contains("it is a single value"), "{null}");
    assert_eq!(curl.get("/v1/plans")["plans"], serde_json::json!([]));
    let long = format!(r#"{{"action":"off","reason":"{}"}}"#, "x".repeat(501));
    problem(&curl.post(path, &long, &[]), 400);
    let key = format!("idempotency-key: {}", "k".repeat(129));
    problem(&curl.post(path, r#"{"action":"off"}"#, &["-H", &key]), 400);
    let file = demo.path("large");
    std::fs::write(&file, "x".repeat(200_000)).unwrap();
    problem(&curl.post(path, &format!("@{}", file.display()), &[]), 413);
    let series = "/v1/series?target=pdu-a/1&metric=power_w";
    problem(&curl.send("/v1/series?metric=power_w", &[]), 400);
    problem(&curl.send("/v1/series?target=pdu-a/1&metric=horses", &[]), 400);
    problem(&curl.send(&format!("{series}&start=yesterday"), &[]), 400);
    problem(&curl.send(&format!("{series}&step=0s"), &[]), 400);
    problem(&curl.send(&format!("{series}&agg=median"), &[]), 400);
    // The whole of time in milliseconds is more steps than there is memory.
    let ever = "start=-9223372036854775807ms&end=253402207199";
    problem(&curl.send(&format!("{series}&{ever}&step=1ms"), &[]), 400);
    assert_eq!(curl.send(&format!("{series}&{ever}&step=365d"), &[]).status, 200);
    // Nothing of this switched anything.
    assert_eq!(curl.get("/v1/pdus/pdu-a/outlets/1?max_age_ms=0")["state"], "on");
}

#[test]
fn lists_come_in_pages() {
    let demo = Demo::start(3, 2);
    let curl = demo.curl();
    let mut seen = Vec::new();
    let mut path = "/v1/pdus?limit=2".to_owned();
    loop {
        let page = curl.get(&path);
        let pdus = page["pdus"].as_array().unwrap();
        seen.extend(pdus.iter().map(|pdu| pdu["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/pdus?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["pdu-a", "pdu-b", "pdu-c"]);
    problem(&curl.send("/v1/pdus?limit=0", &[]), 400);
}

#[test]
fn both_http_versions_and_head_are_spoken() {
    let demo = Demo::start(1, 2);
    let curl = demo.curl();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = curl.send("/v1/version", &[flag, "-w", "\n%{http_code} %{http_version}"]);
        assert_eq!((answer.status, answer.kind.as_str()), (200, version), "{answer:?}");
    }
    let head = curl.send("/v1/pdus", &["-I"]);
    assert!(head.status == 200 && head.body.to_lowercase().contains("content-length"), "{head:?}");
}

/// `id`, `event` and `data` of each event in a stream.
fn events_of(text: &str) -> Vec<(u64, String, Value)> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    text.split("\n\n")
        .filter_map(|block| {
            let id = field(block, "id: ")?.parse().unwrap();
            let data = serde_json::from_str(&field(block, "data: ")?).unwrap();
            Some((id, field(block, "event: ")?, data))
        })
        .collect()
}

#[test]
fn events_come_as_they_happen_and_are_taken_up_where_they_ended() {
    let demo = Demo::start(1, 4);
    let curl = demo.curl();
    let before = curl.get("/v1/events?last=1")[0]["id"].as_u64().unwrap();
    assert_eq!(curl.power("pdu-a/2", "off").status, 200);
    let since = |id: u64| {
        let header = format!("last-event-id: {id}");
        // The stream has no end: curl gives up after two seconds, with what came until then.
        let output = curl.raw("/v1/events", &["-N", "--max-time", "2", "-H", &header]);
        events_of(&String::from_utf8_lossy(&output.stdout))
    };
    let events = since(before);
    let kinds: Vec<&str> = events.iter().map(|(_, kind, _)| kind.as_str()).collect();
    for wanted in ["outlet.off", "plan.done"] {
        assert!(kinds.contains(&wanted), "no {wanted} among {kinds:?}");
    }
    let ids: Vec<u64> = events.iter().map(|(id, _, _)| *id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]) && ids[0] > before, "{ids:?}");
    // Half of it, then the rest: nothing twice, nothing lost.
    let half = ids[ids.len() / 2];
    let rest: Vec<u64> = since(half).iter().map(|(id, _, _)| *id).collect();
    assert!(rest.starts_with(&ids[ids.len() / 2 + 1..]), "{ids:?} then {rest:?}");
    problem(&curl.send("/v1/events", &["-H", "last-event-id: x"]), 400);
}

#[test]
fn the_prototypes_urls_keep_working() {
    let demo = Demo::start(1, 4);
    let curl = demo.curl();
    let body = curl.get("/api/pdu-a/retdata");
    let keys: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = [
        "outlet",
        "status",
        "power",
        "energy",
        "temp",
        "voltage",
        "current",
        "frequency",
        "phase",
        "meter",
        "location",
        "id",
    ];
    assert!(wanted.iter().all(|key| keys.contains(key)), "{body}");
    assert_eq!((&body["outlet"], &body["status"]), (&"A".into(), &"ON".into()));
    assert!(body["power"].as_f64().unwrap() > 1.0 && body["voltage"].as_f64().unwrap() > 90.0);
    for (method, verb, status) in
        [("PATCH", "power_off", "OFF"), ("POST", "power_on", "ON"), ("PATCH", "power_cycle", "ON")]
    {
        let answer = curl.send(&format!("/api/pdu-a/outletB/2/{verb}"), &["-X", method]);
        assert_eq!(answer.status, 200, "{answer:?}");
        let now = curl.get("/api/pdu-a/retdata?outlet=B");
        assert_eq!(now["status"], status, "after {verb}: {now}");
    }
    // The letter and the number must name the same outlet: when in doubt, nothing is switched.
    problem(&curl.send("/api/pdu-a/outletC/2/power_off", &["-X", "PATCH"]), 400);
    assert_eq!(curl.get("/v1/pdus/pdu-a/outlets/2?max_age_ms=0")["state"], "on");
}

#[test]
fn metrics_pass_prometheus_own_check() {
    let demo = Demo::start(4, 4);
    let curl = demo.curl();
    let answer = curl.send("/metrics", &[]);
    assert_eq!(answer.status, 200);
    let file = demo.path("metrics.txt");
    // promtool reads the older text format, which has no end mark.
    std::fs::write(&file, answer.body.replace("# EOF\n", "")).unwrap();
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("error")).collect();
    assert!(errors.is_empty() && output.status.code() != Some(1), "{said}");
    for name in [
        "pdu_outlet_power_watts{",
        "pdu_outlet_state{",
        "pdu_branch_current_amperes{",
        "pdu_inlet_power_watts{",
        "pdu_up{",
        "pdu_last_poll_timestamp_seconds{",
        "pmgate_limit_budget_watts{",
        "pmgate_limit_load_watts{",
        "pmgate_limit_headroom_watts{limit=\"pdu-a/B1\",kind=\"branch\"}",
    ] {
        assert!(answer.body.contains(name), "no {name} in\n{}", answer.body);
    }
    let ups = answer.body.lines().filter(|line| line.starts_with("pdu_up{")).count();
    assert_eq!(ups, 4);
}

#[test]
fn the_description_is_openapi_and_tells_every_route() {
    let gateway = Gateway::start("");
    let document = gateway.curl().get("/openapi.json");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let file = gateway.dir.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let output = Command::new(crate::rig::python())
        .args(["-m", "openapi_spec_validator", file.to_str().unwrap()])
        .output()
        .expect("make test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/v1/pdus",
        "/v1/pdus/{pdu}",
        "/v1/pdus/{pdu}/outlets",
        "/v1/pdus/{pdu}/outlets/{n}",
        "/v1/pdus/{pdu}/outlets/{n}/power",
        "/v1/pdus/{pdu}/outlets/{n}/lock",
        "/v1/hosts",
        "/v1/hosts/{host}",
        "/v1/hosts/{host}/power",
        "/v1/series",
        "/v1/events",
        "/v1/status",
        "/v1/version",
        "/v1/plans",
        "/v1/plans/{plan}",
        "/metrics",
        "/api/{pdu}/retdata",
    ] {
        assert!(paths.contains_key(path), "{path} is not described");
    }
}

#[test]
fn the_status_tells_how_the_gateway_is() {
    let demo = Demo::start(2, 2);
    let status = demo.curl().get("/v1/status");
    assert_eq!((&status["state"], &status["rack"]), (&"ok".into(), &"demo".into()), "{status}");
    assert_eq!(status["pdus"]["online"], 2);
    assert_eq!(status["store"]["kind"], "sled");
    assert!(status["certificate_expires_at"].is_string(), "{status}");
    let version = demo.curl().get("/v1/version");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}
