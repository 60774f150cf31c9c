//! Drivers for Modbus without a device: recorded by ranges, proven with the file.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Running, free_tcp_port, pmgate, python};

fn registers(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registers").join(format!("{name}.regs"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The driver of a family with proofs of a file: each line of the family's expectations.
fn with_proofs(dir: &Path, driver: &str, file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut toml = std::fs::read_to_string(root.join(format!("drivers/{driver}.toml"))).unwrap();
    let expected = registers(driver).with_extension("expect");
    for line in std::fs::read_to_string(expected).unwrap().lines() {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let (point, row, value) = match parts.as_slice() {
            [point, row, value, unit] => (point, row, format!("{value} {unit}")),
            _ => continue,
        };
        if value.starts_with('-') && value.len() == 1 {
            continue;
        }
        let scope = point.split('.').next().unwrap();
        let part = if *row == "-" { String::new() } else { format!("{scope} = {row}\n") };
        toml += &format!(
            "[[proof]]\nrecording = \"{file}\"\n{part}expect = {{ \"{point}\" = \"{value}\" }}\n"
        );
    }
    let path = dir.join(format!("{driver}.toml"));
    std::fs::write(&path, toml).unwrap();
    path
}

#[test]
fn a_modbus_driver_is_proven_with_its_registers() {
    let dir = tempfile::tempdir().unwrap();
    for driver in ["eastron-sdm120", "schneider-iem3000", "gavazzi-em24"] {
        let file = format!("{driver}.regs");
        std::fs::copy(registers(driver), dir.path().join(&file)).unwrap();
        let path = with_proofs(dir.path(), driver, &file);
        let prove = ["driver", "prove", text(&path), "--recordings", text(dir.path())];
        let (out, err, code) = pmgate(&prove, &[]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.lines().filter(|line| line.starts_with("ok")).count() > 4, "{out}");
    }
    // A file that has another value proves nothing.
    let file = dir.path().join("eastron-sdm120.regs");
    let other = std::fs::read_to_string(&file).unwrap().replace("233.125", "233.5");
    std::fs::write(&file, other).unwrap();
    let path = dir.path().join("eastron-sdm120.toml");
    let (out, _, code) =
        pmgate(&["driver", "prove", text(&path), "--recordings", text(dir.path())], &[]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("WRONG eastron-sdm120.regs inlet.voltage"), "{out}");
}

#[test]
fn ranges_of_registers_are_recorded_and_holes_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_tcp_port().to_string();
    let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/registers.py");
    let mut command = Command::new(python());
    command.arg(peer).arg(registers("gude-epc-modbus")).arg(&port);
    let _server = Running::command(command, "ready");
    let address = format!("127.0.0.1:{port}");
    let file = dir.path().join("recorded.regs");
    let record = ["driver", "record", "--modbus", &address];
    let ranges = ["--read", "input:0-0x10f", "--read", "input:0x400-0x410", "--read", "coil:0-3"];
    let args: Vec<&str> =
        record.into_iter().chain(ranges).chain(std::iter::once(text(&file))).collect();
    let (out, err, code) = pmgate(&args, &[]);
    assert_eq!(code, 0, "{out}{err}");
    let recorded = std::fs::read_to_string(&file).unwrap();
    for line in [
        "input 0 u16 4",
        "input 264 u16 65483",
        "coil 0 bit",
        "device_id 1 text \"Expert Power Control 8316-1\"",
    ] {
        assert!(recorded.contains(line), "{line}: {recorded}");
    }
    assert!(!recorded.contains("input 6 "), "{recorded}");
    // Without ranges, and for the other protocol, it is told what to write.
    let (_, err, code) = pmgate(&["driver", "record", "--modbus", &address, text(&file)], &[]);
    assert!(code == 2 && err.contains("--read input:0-99"), "{err}");
    let (_, err, code) =
        pmgate(&["driver", "record", "--modbus", &address, "--read", "x", text(&file)], &[]);
    assert!(code == 2 && err.contains("is no range of registers"), "{err}");
}

#[test]
fn a_recording_of_another_family_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let toml = std::fs::read_to_string(root.join("drivers/sentry3.toml")).unwrap();
    // It looks for less than the driver in the program does.
    let head = toml.split("[[detect]]").next().unwrap();
    let rest = toml.split_once("[identity]").unwrap().1;
    let other =
        format!("{head}[[detect]]\noid = \"1.3.6.1.2.1.1.1.0\"\nexists = true\n\n[identity]{rest}")
            .replace("id       = \"sentry3\"", "id       = \"sentry-mine\"");
    let path = dir.path().join("mine.toml");
    std::fs::write(&path, other).unwrap();
    let recordings = root.join("tests/recordings");
    let (out, err, code) =
        pmgate(&["driver", "prove", text(&path), "--recordings", text(&recordings)], &[]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("is not told to need driver sentry-mine: driver sentry3 fits better"),
        "{out}"
    );
}
