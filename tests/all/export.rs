//! Series for other programs: an Arrow stream as pyarrow reads it, and answers longer than memory.

use std::process::{Command, Stdio};

use pmgate::model::time::Stamp;
use pmgate::sim::families::Family;
use serde_json::{Value, json};

use crate::rig::{Gateway, Sim, pdu_section, pmgate, python};

const ARROW: &str = "accept: application/vnd.apache.arrow.stream";

/// Rows and schema of an Arrow stream as pyarrow has them: times as milliseconds.
const READ: &str = r#"
import json, sys, pyarrow as pa
table = pa.ipc.open_stream(sys.argv[1]).read_all()
assert table.validate(full=True) is None
at = table.column("at").cast(pa.int64()).to_pylist()
rows = [dict(row, at=ms) for row, ms in zip(table.to_pylist(), at)]
about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
types = {field.name: str(field.type) for field in table.schema}
print(json.dumps({"rows": rows, "about": about, "types": types}))
"#;

fn pyarrow(file: &str) -> Value {
    let output = Command::new(python()).args(["-c", READ, file]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The points of a JSON answer as rows of a table.
fn rows(answer: &Value, metric: &str) -> Vec<Value> {
    let row = |target: Option<&Value>, point: &Value| {
        let at: Stamp = point["at"].as_str().unwrap().parse().unwrap();
        let mut row = json!({"at": at.0, metric: point["value"], "quality": point["quality"]});
        if let Some(target) = target {
            row["target"] = target.clone();
        }
        row
    };
    let of = |target: Option<&Value>, points: &Value| -> Vec<Value> {
        points.as_array().unwrap().iter().map(|point| row(target, point)).collect()
    };
    match answer["series"].as_array() {
        None => of(None, &answer["points"]),
        Some(all) => all.iter().flat_map(|one| of(Some(&one["target"]), &one["points"])).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_reads_what_the_json_says_gaps_and_all() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let section = pdu_section("pdu-a", sim.address, "fast_s = 1\nslow_s = 1");
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&section);
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=-10m";
        let seen = gateway.wait_for(path, |series| series["points"].as_array().unwrap().len() >= 6);
        // What is over does not change any more: up to the fourth reading, and long before the first.
        let end = seen["points"][4]["at"].as_str().unwrap();
        let end: Stamp = end.parse().unwrap();
        let window = format!("start={}&end={end}", Stamp(end.0 - 7_200_000));
        let file = gateway.dir.path().join("table.arrows");
        let file = file.to_str().unwrap();
        for (query, metric, kind, has_gaps) in [
            ("target=pdu-a/2&metric=power_w", "power_w", "double", false),
            ("target=pdu-a/2&metric=power_w&step=1s&agg=max", "power_w", "double", true),
            ("target=pdu-a/3&metric=state&step=1s", "state", "string", true),
            ("pdu=pdu-a&metric=energy_wh", "energy_wh", "double", false),
            ("pdu=pdu-a&metric=power_w&step=7s&fold=sum&by=pdu", "power_w", "double", true),
        ] {
            let path = format!("/v1/series?{query}&{window}");
            let fetched = gateway.curl().send(&path, &["-H", ARROW, "-o", file]);
            assert_eq!(fetched.status, 200);
            assert_eq!(fetched.kind, "application/vnd.apache.arrow.stream");
            let table = pyarrow(file);
            let answer = gateway.curl().get(&path);
            let expected = rows(&answer, metric);
            let values = |wanted: bool| {
                expected.iter().filter(|row| row[metric].is_null() != wanted).count()
            };
            assert!(values(true) >= 1, "{query}: no values");
            assert_eq!(values(false) > 0, has_gaps, "{query}");
            assert_eq!(table["rows"].as_array().unwrap(), &expected, "{query}");
            assert_eq!(table["types"][metric], kind);
            assert_eq!(table["types"]["at"], "timestamp[ms, tz=UTC]");
            for about in ["metric", "start", "end", "agg", "fold", "by"] {
                assert_eq!(table["about"][about], answer[about], "{query}: {about}");
            }
        }
        // The command line hands on the same bytes, and a part of them is no table.
        let path = format!("/v1/series?target=pdu-a/2&metric=power_w&{window}");
        gateway.curl().send(&path, &["-H", ARROW, "-o", file]);
        let own = |name: &str| gateway.dir.path().join(name).to_str().unwrap().to_owned();
        let (start, end) = (Stamp(end.0 - 7_200_000).to_string(), end.to_string());
        let told = Command::new(crate::rig::PMGATE)
            .args(["series", "pdu-a/2", "power_w", "--format", "arrow"])
            .args(["--start", &start, "--end", &end, "--url", &gateway.url])
            .args(["--cert", &own("client.pem"), "--key", &own("client.key")])
            .args(["--ca", &own("ca.pem")])
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let whole = std::fs::read(file).unwrap();
        assert_eq!(told.stdout, whole);
        std::fs::write(file, &whole[..whole.len() / 2]).unwrap();
        let output = Command::new(python()).args(["-c", READ, file]).output().unwrap();
        assert!(!output.status.success(), "half a table was read as one");
        let (_, err, code) = pmgate(&["series", "pdu-a/2", "power_w", "--format", "parquet"], &[]);
        assert!(code == 2 && err.contains("arrow"), "{err}");
    })
    .await
    .unwrap();
}

/// KiB of memory that a process has had at most.
fn most_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_longer_than_memory_takes_little_of_it() {
    let sim = Sim::start(Family::ApcRpdu2, 4).await;
    let section = pdu_section("pdu-a", sim.address, "fast_s = 1\nslow_s = 60");
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&section);
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=-1m";
        gateway.wait_for(path, |series| !series["points"].as_array().unwrap().is_empty());
        let before = most_memory(gateway.running.pid());
        // Forty million steps: 1.9 GB of CSV, of which each reader takes a hundredth and goes.
        let path = "/v1/series?target=pdu-a/2&metric=power_w&start=0&end=40000&step=1ms";
        let dir = gateway.dir.path();
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let readers: Vec<_> = (0..6)
            .map(|_| {
                Command::new("sh")
                    .args(["-c", "curl -sN -H 'accept: text/csv' --cacert $0 --cert $1 --key $2 \"$3\" | head -c 20000000 | wc -c"])
                    .args([file("ca.pem"), file("client.pem"), file("client.key")])
                    .arg(format!("{}{path}", gateway.url))
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for reader in readers {
            let output = reader.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "20000000");
        }
        let grown = most_memory(gateway.running.pid()) - before;
        assert!(grown < 64 * 1024, "{grown} KiB for six answers of 1.9 GB");
        // They went away, and others are served.
        gateway.curl().get("/v1/series?target=pdu-a/2&metric=power_w&start=-1m");
    })
    .await
    .unwrap();
}
