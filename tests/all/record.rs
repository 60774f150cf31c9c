//! `pmgate driver record`: what a device answers is recorded whole or said to be not whole, and without what is private.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pmgate::cli::record::{Walked, walk_all};
use pmgate::link::recording::Recording;
use pmgate::link::{Exchange, Line, Link, LinkError, Patience};
use pmgate::model::ask::{Ask, Reply, Value};
use pmgate::model::oid::Oid;

use crate::rig::{Running, free_udp_port, pmgate};

fn oid(text: &str) -> Oid {
    text.parse().unwrap()
}

/// An agent that answers each walk's step as a test has it.
struct Agent<F> {
    answer: F,
    asked: Arc<Mutex<usize>>,
}

impl<F: Fn(&Oid, bool) -> Result<Reply, LinkError> + Send> Link for Agent<F> {
    fn once<'a>(&'a mut self, ask: &'a Ask, _timeout: Duration) -> Exchange<'a> {
        *self.asked.lock().unwrap() += 1;
        let reply = match ask {
            Ask::GetNext(names) => (self.answer)(&names[0], false),
            Ask::GetBulk { names, .. } => (self.answer)(&names[0], true),
            _ => Err(LinkError::WrongProtocol),
        };
        Box::pin(std::future::ready(reply))
    }
}

async fn walk(
    answer: impl Fn(&Oid, bool) -> Result<Reply, LinkError> + Send + 'static,
) -> (Result<Walked, LinkError>, usize) {
    let asked = Arc::new(Mutex::new(0));
    let agent = Agent { answer, asked: asked.clone() };
    let mut line = Line::new(Box::new(agent), Patience::new((0, 100, 1)));
    let walked = walk_all(&mut line, &[oid("1.3.6.1.4.1.5")]).await;
    let asked = *asked.lock().unwrap();
    (walked, asked)
}

/// One object after the other.
fn next(recording: &Recording, at: &Oid) -> Reply {
    let bind = match recording.after(at) {
        Some((oid, recorded)) => (oid.clone(), recorded.value.clone()),
        None => (at.clone(), Value::Nothing),
    };
    Reply::Binds(vec![bind])
}

fn rows() -> Recording {
    let row = |n: u32| format!("1.3.6.1.4.1.5.1.{}.{}|2|{n}\n", n / 10, n % 10);
    Recording::parse(&(10..40).map(row).collect::<String>()).unwrap()
}

#[tokio::test]
async fn an_object_without_a_value_does_not_end_a_walk() {
    let mut recording = rows();
    let nothing = Recording::parse("1.3.6.1.4.1.5.1.2.3|5|\n").unwrap();
    let (name, value) = nothing.iter().next().map(|(o, v)| (o.clone(), v.clone())).unwrap();
    recording.set(name, value);
    let (walked, _) = walk(move |at, _| Ok(next(&recording, at))).await;
    let walked = walked.unwrap();
    assert_eq!((walked.rows.len(), walked.wrong.len()), (30, 0));
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_the_rest_is_read() {
    let recording = rows();
    let bad = oid("1.3.6.1.4.1.5.1.2.4");
    let (walked, _) = walk(move |at, _| {
        if *at == bad {
            return Ok(Reply::Refused { status: 5, index: 1 });
        }
        Ok(next(&recording, at))
    })
    .await;
    let walked = walked.unwrap();
    assert_eq!(walked.rows.len(), 25);
    assert_eq!(walked.wrong, ["after 1.3.6.1.4.1.5.1.2.4 it answers genErr"]);
}

#[tokio::test]
async fn an_agent_without_bulk_is_asked_one_by_one() {
    let recording = rows();
    let (walked, _) = walk(move |at, bulk| {
        let too_big = Reply::Refused { status: 1, index: 0 };
        Ok(if bulk { too_big } else { next(&recording, at) })
    })
    .await;
    let walked = walked.unwrap();
    assert_eq!((walked.rows.len(), walked.wrong.len()), (30, 0));
}

#[tokio::test]
async fn objects_out_of_order_are_read_and_a_circle_is_left() {
    // 1, 3, 2, 4 and the end; then 5 and 6 for ever.
    let order = [1, 3, 2, 4];
    let (walked, _) = walk(move |at, _| {
        let at = at.parts();
        let place = order.iter().position(|n| at.len() == 9 && *n == at[8]);
        let next = if at.len() == 7 { 0 } else { place.map_or(order.len(), |at| at + 1) };
        Ok(Reply::Binds(vec![match order.get(next) {
            Some(n) => (oid(&format!("1.3.6.1.4.1.5.1.{n}")), Value::Integer(1)),
            None => (Oid::from_parts(&at).unwrap(), Value::Nothing),
        }]))
    })
    .await;
    let walked = walked.unwrap();
    assert_eq!((walked.rows.len(), walked.wrong.len()), (4, 0));
    let (walked, asked) = walk(|at, _| {
        let n = if at.parts().last() == Some(&5) { 6 } else { 5 };
        Ok(Reply::Binds(vec![(oid(&format!("1.3.6.1.4.1.5.1.{n}")), Value::Integer(1))]))
    })
    .await;
    let walked = walked.unwrap();
    assert!(walked.wrong[0].ends_with("it goes back to 1.3.6.1.4.1.5.1.6"), "{:?}", walked.wrong);
    assert!(asked < 50, "{asked} requests");
}

#[tokio::test]
async fn an_endless_column_is_left_and_told() {
    let (walked, _) = walk(|at, _| {
        let parts = at.parts();
        let next = match parts.len() {
            7 => at.child(&[1, 1]).unwrap(),
            8 => at.child(&[1]).unwrap(),
            _ => {
                let mut parts = parts;
                *parts.last_mut().unwrap() += 1;
                Oid::from_parts(&parts).unwrap()
            }
        };
        Ok(Reply::Binds(vec![(next, Value::Integer(1))]))
    })
    .await;
    let walked = walked.unwrap();
    assert!(walked.wrong[0].ends_with("has more than 4096 rows in a column"), "{:?}", walked.wrong);
    assert!(walked.rows.len() < 30_000);
}

#[tokio::test]
async fn who_never_answers_is_not_recorded_and_who_falls_silent_is_recorded_so_far() {
    let silent = || LinkError::Timeout { waited_ms: 1, hint: "" };
    let (walked, _) = walk(move |_, _| Err(silent())).await;
    assert!(matches!(walked, Err(LinkError::Timeout { .. })));
    let recording = rows();
    let (walked, _) = walk(move |at, _| {
        if at.parts().len() == 10 && at.parts()[8] == 3 {
            return Err(silent());
        }
        Ok(next(&recording, at))
    })
    .await;
    let walked = walked.unwrap();
    assert_eq!(walked.rows.len(), 21);
    assert!(walked.wrong[0].contains("no answer within"), "{:?}", walked.wrong);
}

/// Records what a stand-in of a recording answers.
fn recorded(rows: &str, more: &[&str]) -> (String, String, i32) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from.snmprec"), dir.path().join("to.snmprec"));
    std::fs::write(&from, rows).unwrap();
    let at = |path: &Path| path.to_str().unwrap().to_owned();
    let listen = format!("127.0.0.1:{}", free_udp_port());
    let args = ["sim", "--recording", &at(&from), "--listen", &listen];
    let _sim = Running::start(&args, &[], "ready");
    let to_text = at(&to);
    let mut args = vec!["driver", "record", "--snmp", &listen];
    args.extend(more);
    args.push(&to_text);
    let (out, err, code) = pmgate(&args, &[]);
    (std::fs::read_to_string(&to).unwrap_or_default(), format!("{out}{err}"), code)
}

/// The device of the walk-through, as it is before anybody has written its driver.
fn acme() -> String {
    let base = "1.3.6.1.4.1.99999.1";
    let mut rows = format!(
        "1.3.6.1.2.1.1.1.0|4|Acme Strip 8\n1.3.6.1.2.1.1.2.0|6|{base}\n1.3.6.1.2.1.1.5.0|4|strip-of-meier\n\
         1.3.6.1.2.1.229.1.1|2|7\n{base}.1.1.0|4|Strip 8\n{base}.1.2.0|4|SN-4711-0815\n{base}.2.1.0|2|4125\n"
    );
    for outlet in 1..=8 {
        rows += &format!("{base}.3.1.1.{outlet}|4|customer-db-{outlet}\n");
        rows += &format!("{base}.3.1.2.{outlet}|2|1\n{base}.3.1.3.{outlet}|2|880\n");
    }
    rows += &format!(
        "{base}.4.1.0|65|7\n{base}.4.2.0|66|8\n{base}.4.3.0|67|9\n{base}.4.4.0|70|5000000000\n"
    );
    rows
}

#[test]
fn the_recording_of_the_walk_through_tells_no_serial_number_and_no_customer() {
    let (recording, said, code) = recorded(&acme(), &[]);
    assert_eq!(code, 0, "{said}");
    for private in ["4711", "customer", "meier"] {
        assert!(!recording.contains(private), "{recording}");
    }
    // Every number with the type that it had, for those who replay the file.
    for typed in ["4.1.0|65|7", "4.2.0|66|8", "4.3.0|67|9", "4.4.0|70|5000000000"] {
        assert!(recording.contains(typed), "{typed}: {recording}");
    }
    // What a driver needs is there, and all subtrees that drivers read.
    for shown in
        ["|4|Acme Strip 8", "1.1.1.0|4|Strip 8", "3.1.3.8|2|880", "1.3.6.1.2.1.229.1.1|2|7"]
    {
        assert!(recording.contains(shown), "{shown}: {recording}");
    }
    assert!(said.contains("look through it before you show it to others"), "{said}");
    assert_eq!(recording.lines().count(), acme().lines().count());
}

#[test]
fn who_says_so_keeps_a_text() {
    let (recording, said, code) = recorded(&acme(), &["--keep", "1.3.6.1.4.1.99999.1.3.1.1.2"]);
    assert_eq!(code, 0, "{said}");
    assert!(recording.contains("|4|customer-db-2") && !recording.contains("customer-db-1"));
}

#[test]
fn what_drivers_read_is_read_from_a_recording_as_from_the_device() {
    for name in ["apc-rpdu2", "raritan-px2", "chatsworth", "rittal-pdu", "digipower", "sentry3"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
        let rows = std::fs::read_to_string(dir.join(format!("{name}.snmprec"))).unwrap();
        let (recording, said, code) = recorded(&rows, &[]);
        assert_eq!(code, 0, "{name}: {said}");
        let read = |text: &str| {
            let recording = Recording::parse(text).unwrap();
            let line = Line::new(Box::new(recording), Patience::new((0, 1_000, 1)));
            let catalog = pmgate::profile::catalog::Catalog::embedded().unwrap();
            let profile = catalog.get(&name.parse().unwrap()).unwrap().clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let adopted = runtime
                .unwrap()
                .block_on(pmgate::device::adopt::over(line, profile, None))
                .unwrap();
            (adopted.data, adopted.instance.identity.model.clone())
        };
        assert_eq!(read(&recording), read(&rows), "{name}");
    }
}
