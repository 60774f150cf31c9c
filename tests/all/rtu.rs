//! Modbus RTU over pseudo-terminals: late replies, several units on one line, and pymodbus at the other end.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pmgate::link::rtu::{RtuLink, Serial};
use pmgate::link::{Link as _, LinkError};
use pmgate::model::ask::{Ask, Registers, Reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_serial::{SerialPort as _, SerialStream};

use crate::rig::{Gateway, Running, pmgate, python};

/// A line with a device at its end whose registers hold their own addresses, and the unit's number in thousands.
struct Device {
    path: PathBuf,
    /// How late the next replies are; then they come at once.
    late: Arc<Mutex<VecDeque<Duration>>>,
    /// Units as they were asked.
    asked: Arc<Mutex<Vec<u8>>>,
    // The far end stays open, so that the line is not hung up when the link closes its port.
    _held: std::fs::File,
}

impl Device {
    fn start() -> Self {
        let (mut master, slave) = SerialStream::pair().unwrap();
        let path = PathBuf::from(slave.name().unwrap());
        let held = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        drop(slave);
        let (late, asked) =
            (Arc::<Mutex<VecDeque<Duration>>>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (delays, seen) = (late.clone(), asked.clone());
        tokio::spawn(async move {
            let mut frame = [0; 8];
            while master.read_exact(&mut frame).await.is_ok() {
                seen.lock().unwrap().push(frame[0]);
                let delay = delays.lock().unwrap().pop_front();
                if let Some(delay) = delay {
                    tokio::time::sleep(delay).await; // the peer's own delay
                }
                let first = u16::from_be_bytes([frame[2], frame[3]]);
                let count = u16::from_be_bytes([frame[4], frame[5]]);
                let mut reply = vec![frame[0], frame[1], count as u8 * 2];
                for at in first..first + count {
                    reply.extend((at + 1_000 * u16::from(frame[0])).to_be_bytes());
                }
                reply.extend(crc(&reply).to_le_bytes());
                if master.write_all(&reply).await.is_err() {
                    return;
                }
            }
        });
        Self { path, late, asked, _held: held }
    }

    fn link(&self, unit: u8) -> RtuLink {
        RtuLink::new(Serial::usual(self.path.clone()), unit)
    }
}

/// CRC-16/MODBUS (Modbus over Serial Line 1.02, section 6.2.2).
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 }
        })
    })
}

async fn words(link: &mut RtuLink, start: u16) -> Result<Vec<u16>, LinkError> {
    let ask = Ask::Read { table: Registers::Holding, start, count: 2 };
    match link.once(&ask, Duration::from_secs(1)).await? {
        Reply::Words(words) => Ok(words),
        reply => panic!("{reply:?}"),
    }
}

#[tokio::test]
async fn a_late_reply_is_no_answer_to_the_next_question() {
    let device = Device::start();
    let mut link = device.link(1);
    assert_eq!(words(&mut link, 10).await.unwrap(), [1_010, 1_011]);
    // Later than the second that a reply is given: it arrives when the next question could have been asked.
    device.late.lock().unwrap().push_back(Duration::from_millis(1_300));
    assert!(matches!(words(&mut link, 20).await, Err(LinkError::Timeout { .. })));
    assert_eq!(unlocked(&mut link, 30).await, [1_030, 1_031]);
    for start in [40, 50] {
        assert_eq!(words(&mut link, start).await.unwrap(), [1_000 + start, 1_001 + start]);
    }
}

/// The port was closed, and is opened again: a program that another test starts in that moment holds a copy of it, and its
/// lock, until it has begun.
async fn unlocked(link: &mut RtuLink, start: u16) -> Vec<u16> {
    let answered = async {
        loop {
            match words(link, start).await {
                Err(error) if error.to_string().contains("exclusive lock") => {
                    tokio::task::yield_now().await;
                }
                words => return words.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap()
}

#[tokio::test]
async fn units_on_one_line_take_turns() {
    let device = Device::start();
    let reads = async |unit: u8| {
        let mut link = device.link(unit);
        for start in 0..20 {
            let expected = 1_000 * u16::from(unit) + start;
            assert_eq!(words(&mut link, start).await.unwrap(), [expected, expected + 1]);
        }
    };
    tokio::join!(reads(1), reads(2), reads(3));
    let asked = device.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 60);
    for turn in asked.chunks(3) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        assert_eq!(turn, [1, 2, 3], "{asked:?}");
    }
}

#[tokio::test]
async fn a_line_that_is_not_there_says_so() {
    let mut link = RtuLink::new(Serial::usual("/dev/no-such-line".into()), 1);
    let error = words(&mut link, 1).await.unwrap_err();
    assert!(error.to_string().contains("/dev/no-such-line"), "{error}");
}

/// Two serial devices that are joined, and the program that joins them.
fn joined(dir: &Path) -> (PathBuf, PathBuf, Running) {
    let ends = [dir.join("ours"), dir.join("theirs")];
    let mut command = Command::new("socat");
    command.args(["-d", "-d"]);
    command.args(ends.iter().map(|end| format!("pty,raw,echo=0,link={}", end.display())));
    let running = Running::command(command, "starting data transfer loop");
    let [ours, theirs] = ends;
    (ours, theirs, running)
}

#[test]
fn pymodbus_over_a_serial_line_is_read_and_switched() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs, _socat) = joined(dir.path());
    // Held open, so that the line is not hung up between two commands.
    let _held = std::fs::File::options().read(true).write(true).open(&ours).unwrap();
    let mut command = Command::new(python());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/netio.py");
    command.arg(script).arg(&theirs);
    let _server = Running::command(command, "ready");
    let line = ours.to_str().unwrap();
    let args = ["driver", "read", "--json", "--driver", "netio", "--serial", line, "--unit", "2"];
    let (out, err, code) = pmgate(&args, &[]);
    assert_eq!(code, 0, "{err}");
    let body: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&body["inlet"]["power_w"], &body["outlets"][0]["power_w"]),
        (&1_002.0.into(), &544.0.into())
    );
    let pdu = |id: &str, unit: u8| {
        format!("[[pdu]]\nid = \"{id}\"\nserial = \"{line}\"\nunit = {unit}\ndriver = \"netio\"\n")
    };
    let gateway = Gateway::start(&[pdu("one", 1), pdu("two", 2)].concat());
    for id in ["one", "two"] {
        gateway.wait_online(id);
    }
    let curl = gateway.curl();
    for (outlet, action) in [("two/2", "on"), ("one/1", "off")] {
        let answer = curl.power(outlet, action);
        assert_eq!((answer.status, &answer.json()["outcome"]), (200, &"done".into()), "{answer:?}");
    }
    let states = |id: &str| -> Vec<String> {
        let pdu = curl.get(&format!("/v1/pdus/{id}?max_age_ms=0"));
        let outlets = pdu["outlets"].as_array().unwrap().iter();
        outlets.map(|outlet| outlet["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states("one"), ["off", "off", "on", "off"]);
    assert_eq!(states("two"), ["on", "on", "on", "off"]);
}
