//! What a plan leaves behind and shows while it is under way: the audit with its chain, the events, the progress bar.

use pmgate::audit::{Entry, Head, verify};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::planned::{ended, make, run, two_pdus};
use crate::rig::{Curl, Gateway, pmgate};

/// What the command line has to be told to be a client.
fn client(gateway: &Gateway, name: &str) -> Vec<String> {
    let file = |name: &str| gateway.dir.path().join(name).to_str().unwrap().to_owned();
    let pairs = [
        ("--url", gateway.url.clone()),
        ("--cert", file(&format!("{name}.pem"))),
        ("--key", file(&format!("{name}.key"))),
        ("--ca", file("ca.pem")),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn call(gateway: &Gateway, words: &[&str]) -> (String, String, i32) {
    call_as("client", gateway, words)
}

/// Calls the command line as a client of a gateway.
pub fn call_as(name: &str, gateway: &Gateway, words: &[&str]) -> (String, String, i32) {
    let client = client(gateway, name);
    let all: Vec<&str> = words.iter().copied().chain(client.iter().map(String::as_str)).collect();
    pmgate(&all, &[])
}

/// Runs a plan that switches outlets off, one after the other; its body.
fn plan_of(curl: &Curl<'_>, outlets: &[&str]) -> Value {
    make(
        curl,
        &json!({"goals": [{"select": {"outlets": outlets}, "action": "off"}], "reason": "audit"}),
    )
}

/// Every line of the audit, in pages.
fn all_lines(curl: &Curl<'_>) -> Vec<Value> {
    let (mut lines, mut cursor) = (Vec::new(), 0);
    loop {
        let page = curl.get(&format!("/v1/audit?limit=3&cursor={cursor}"));
        let own = page["entries"].as_array().unwrap();
        assert!(own.len() <= 3, "{page}");
        lines.extend(own.iter().cloned());
        let Some(next) = page["next_cursor"].as_u64() else {
            assert_eq!(page["head_seq"], lines.last().unwrap()["seq"]);
            assert_eq!(page["head_hash"], lines.last().unwrap()["hash"]);
            return lines;
        };
        cursor = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_tells_who_asked_what_was_intended_and_what_came_of_it() {
    let (_a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let plan = plan_of(&curl, &["pdu-a/5"]);
    assert_eq!(run(&curl, &plan).status, 202);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    let lines = all_lines(&curl);
    let own: Vec<(&str, &str)> = lines
        .iter()
        .filter(|line| line["about"].as_str().unwrap().contains(plan["id"].as_str().unwrap()))
        .map(|line| (line["kind"].as_str().unwrap(), line["by"].as_str().unwrap()))
        .collect();
    let (maker, runner) = ("client (operator)", "client (operator); run by client (operator)");
    let gateways = "the gateway";
    assert_eq!(
        own,
        [
            ("plan.created", maker),
            ("plan.accepted", runner),
            ("step.intended", gateways),
            ("step.ended", gateways),
            ("plan.ended", gateways)
        ]
    );
    // Without holes, each line with its own hash over all that it says and the hash before.
    let mut before = "0".repeat(64);
    for (at, line) in (1..).zip(&lines) {
        assert_eq!((&line["seq"], &line["prev"]), (&json!(at), &json!(before)), "{line}");
        let mut hash = Sha256::new();
        hash.update(line["seq"].as_u64().unwrap().to_be_bytes());
        hash.update(line["at_ms"].as_i64().unwrap().to_be_bytes());
        for key in ["kind", "by", "about", "text", "prev"] {
            let text = line[key].as_str().unwrap();
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        before = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line["hash"], json!(before), "{line}");
    }
    let last = curl.get("/v1/audit?last=2&verify=true");
    assert_eq!(last["entries"].as_array().unwrap()[..], lines[lines.len() - 2..]);
    assert_eq!((&last["verified"], &last["next_cursor"]), (&json!(true), &Value::Null), "{last}");
    assert!(curl.get("/v1/audit")["verified"].is_null(), "only where it is asked for");
    for wrong in ["limit=0", "limit=1001", "cursor=x", "cursor=1&last=1", "verify=perhaps", "x=1"] {
        assert_eq!(curl.send(&format!("/v1/audit?{wrong}"), &[]).status, 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_taken_out_of_the_audit_is_missed() {
    let (_a, _b, gateway) = two_pdus("").await;
    for outlet in ["pdu-a/5", "pdu-a/6"] {
        assert_eq!(gateway.curl().power(outlet, "off").status, 200);
    }
    let (out, err, code) = call(&gateway, &["audit", "list", "--last", "2"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.lines().count() == 3 && out.contains("plan.ended"), "{out}");
    let (out, err, code) = call(&gateway, &["audit", "list", "--json"]);
    assert_eq!(code, 0, "{err}");
    let count = serde_json::from_str::<Value>(&out).unwrap()["head_seq"].as_u64().unwrap();
    let (out, err, code) = call(&gateway, &["audit", "verify"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, format!("{count} lines, each follows the one before\n"));
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let sections = format!("[switching]{}", text.split_once("[switching]").unwrap().1);
    let dir = gateway.kill();
    let gone = {
        let journal = redb::Database::open(dir.path().join("state/journal.redb")).unwrap();
        let audit = redb::TableDefinition::<u64, &[u8]>::new("audit");
        let write = journal.begin_write().unwrap();
        let gone = write.open_table(audit).unwrap().remove(3).unwrap().is_some();
        write.commit().unwrap();
        gone
    };
    assert!(gone);
    let gateway = tokio::task::spawn_blocking(move || Gateway::in_dir(dir, &sections, &[]));
    let gateway = gateway.await.unwrap();
    let page = gateway.curl().get("/v1/audit?verify=true");
    assert_eq!(page["verified"], false, "{page}");
    assert!(page["broken"].as_str().unwrap().contains("line 3"), "{page}");
    let (_, err, code) = call(&gateway, &["audit", "verify"]);
    assert!(code == 1 && err.contains("line"), "{err}");
    // Who checks by himself finds it as well.
    let entries: Vec<Entry> = page["entries"].as_array().unwrap().iter().map(entry).collect();
    let end = entries.last().unwrap().head();
    assert!(verify(&Head::default(), &entries, &end).is_err());
}

fn entry(line: &Value) -> Entry {
    let text = |key: &str| line[key].as_str().unwrap().to_owned();
    Entry {
        seq: line["seq"].as_u64().unwrap(),
        at: line["at_ms"].as_i64().unwrap(),
        kind: text("kind"),
        by: text("by"),
        about: text("about"),
        text: text("text"),
        prev: text("prev"),
        hash: text("hash"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_under_way_tells_each_step_as_an_event() {
    let (_a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let plan = plan_of(&curl, &["pdu-a/5", "pdu-a/6"]);
    let before = curl.get("/v1/events?last=1")[0]["id"].as_u64().unwrap();
    assert_eq!(run(&curl, &plan).status, 202);
    assert_eq!(ended(&gateway, &plan)["state"], "done");
    // The stream itself, resumed after the last event before the plan.
    let resume = format!("last-event-id: {before}");
    let stream = curl.raw("/v1/events", &["--max-time", "2", "-N", "-H", &resume]);
    let text = String::from_utf8(stream.stdout).unwrap();
    let mut story = Vec::new();
    for message in text.split("\n\n").filter(|message| message.starts_with("id: ")) {
        let field = |name: &str| {
            let line = message.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{message}")).trim().to_owned()
        };
        let body: Value = serde_json::from_str(&field("data:")).unwrap();
        assert_eq!(body["kind"], json!(field("event:")));
        assert!(field("id:").parse::<u64>().unwrap() > before);
        if body["plan"] == plan["id"] {
            let outlet = body["outlet"].as_str().unwrap_or("-");
            story.push(format!("{} {outlet}", body["kind"].as_str().unwrap()));
            if body["kind"] == "outlet.switching" {
                let said = body["text"].as_str().unwrap();
                assert!(said.contains("of 2") && said.contains("switched off"), "{said}");
            }
        }
    }
    let steps = plan["steps"].as_array().unwrap().iter();
    let mut told: Vec<String> = steps
        .flat_map(|step| {
            let outlet = step["outlet"].as_str().unwrap();
            [format!("outlet.switching {outlet}"), format!("outlet.off {outlet}")]
        })
        .collect();
    told.insert(0, "plan.accepted -".into());
    told.push("plan.done -".into());
    assert_eq!(story, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_followed_with_a_bar_on_a_terminal_and_line_by_line_elsewhere() {
    let (a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let plan = plan_of(&curl, &["pdu-a/5", "pdu-a/6"]);
    let id = plan["id"].as_str().unwrap();
    let words = ["plan", "run", id, "--follow"].map(str::to_owned);
    let all: Vec<String> = words.into_iter().chain(client(&gateway, "client")).collect();
    // `script` (util-linux) gives it a terminal.
    let command = format!("{} {}", crate::rig::PMGATE, all.join(" "));
    let output = std::process::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("] 0/2") || text.contains("] 1/2"), "{text:?}");
    assert!(text.contains(&format!("[{}] 2/2", "#".repeat(30))), "{text:?}");
    let first = plan["steps"][0]["outlet"].as_str().unwrap();
    assert!(text.contains(&format!("1/2 {first} off: done")), "{text:?}");
    assert!(text.trim_end().ends_with(&format!("plan {id}: done")), "{text:?}");
    // Elsewhere no control characters.
    let plan = plan_of(&curl, &["pdu-a/7", "pdu-a/8"]);
    let id = plan["id"].as_str().unwrap();
    let (out, err, code) = call(&gateway, &["plan", "run", id, "--follow"]);
    assert_eq!(code, 0, "{err}");
    let last = plan["steps"][1]["outlet"].as_str().unwrap();
    assert!(out.contains(&format!("2/2 {last} off: done")) && !out.contains('\r'), "{out:?}");
    // One that stops fails, and says so.
    let plan = plan_of(&curl, &["pdu-a/4"]);
    let id = plan["id"].as_str().unwrap();
    a.pdu.lock().unwrap().relay_delay = pmgate::model::time::Span(u64::MAX / 4 * 3);
    let (out, err, code) = call(&gateway, &["plan", "run", id, "--follow"]);
    assert!(code == 1 && out.contains("pdu-a/4 off: unverified"), "{out}{err}");
    assert!(err.contains("is stopped"), "{err}");
}

/// The gateway closes a connection over which nothing was asked for ten seconds; a plan may be silent for longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_in_which_nothing_happens_for_a_while_is_followed_to_its_end() {
    let host = "[[host]]\nid = \"slow\"\noutlets = [\"pdu-a/1\"]\nhold_s = 18\ndraw = { steady_w = 200, boot_w = 250, boot_s = 1, inrush_w = 400 }\n";
    let (_a, _b, gateway) = crate::planned::two_pdus_with(host, "").await;
    let wish = serde_json::json!({"goals": [{"select": {"hosts": ["slow"]}, "action": "cycle"}]});
    let plan = crate::planned::make(&gateway.curl(), &wish);
    let id = plan["id"].as_str().unwrap();
    let (out, err, code) = call(&gateway, &["plan", "run", id, "--follow"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.trim_end().ends_with(&format!("plan {id}: done")), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_to_whom_is_in_the_audit_and_does_not_fill_it() {
    let (_a, _b, gateway) =
        two_pdus("[[outlet]]\nid = \"pdu-a/6\"\ncritical = \"the core switch\"\n").await;
    let viewer = Curl::new(gateway.dir.path(), &gateway.url, "viewer");
    for _ in 0..40 {
        assert_eq!(viewer.power("pdu-a/5", "off").status, 403);
    }
    assert_eq!(gateway.curl().power("pdu-a/6", "off").status, 409);
    let refused = |lines: &[Value]| -> Vec<(String, String)> {
        let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        let of_kind = lines.iter().filter(|line| line["kind"] == "request.refused");
        of_kind.map(|line| (text(line, "by"), text(line, "text"))).collect()
    };
    gateway.wait_for("/v1/audit?last=1000", |page| {
        refused(page["entries"].as_array().unwrap())
            .iter()
            .any(|(_, text)| text.contains("pdu-a/6"))
    });
    let told = refused(&all_lines(&gateway.curl()));
    let of = |name: &str| told.iter().filter(|(by, _)| by.starts_with(name)).collect::<Vec<_>>();
    assert_eq!((of("viewer").len(), of("client").len()), (30, 1), "{told:?}");
    assert!(of("viewer")[0].1.starts_with("POST /v1/pdus/pdu-a/outlets/5/power: "), "{told:?}");
    assert!(of("client")[0].1.contains("critical: the core switch"), "{told:?}");
}
