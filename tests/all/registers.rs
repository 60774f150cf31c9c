//! Modbus families against pymodbus: servers that have just the registers of a device's map, and the values that a
//! person works out from that map.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pmgate::profile::catalog::Catalog;
use serde_json::Value;

use crate::rig::{Gateway, Running, free_tcp_port, pmgate, python};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn devices() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("tests/registers")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "regs"));
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

/// The driver of a device: `gude-epc-modbus@3phase` is another device of `gude-epc-modbus`.
fn driver(name: &str) -> &str {
    name.split('@').next().unwrap()
}

fn serve(path: &Path) -> (Running, String) {
    let port = free_tcp_port().to_string();
    let mut command = Command::new(python());
    command.arg(root().join("tests/peers/registers.py")).arg(path).arg(&port);
    (Running::command(command, "ready"), format!("127.0.0.1:{port}"))
}

/// Point and row with value and unit, from an `.expect` file: `phase.voltage 1 230.5 V`; `-` is a gap.
fn expected(path: &Path) -> BTreeMap<(String, String), (String, String)> {
    let text = std::fs::read_to_string(path.with_extension("expect")).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let parts: Vec<&str> = line.split_whitespace().collect();
            let row = if parts[1] == "-" { "1" } else { parts[1] };
            let unit = parts.get(3).copied().unwrap_or("");
            ((parts[0].to_owned(), row.to_owned()), (parts[2].to_owned(), unit.to_owned()))
        })
        .collect()
}

/// Whether a point reads as was worked out.
fn same((value, unit): &(String, String), read: &Value) -> bool {
    let (factor, base) = match unit.as_str() {
        "kWh" => (1e3, "Wh"),
        "kW" => (1e3, "W"),
        "kVA" => (1e3, "VA"),
        "mA" => (1e-3, "A"),
        "mV" => (1e-3, "V"),
        unit => (1.0, unit),
    };
    match value.parse::<f64>() {
        Ok(number) => {
            let number = number * factor;
            let close = |read: f64| (read - number).abs() <= 1e-9 * number.abs().max(1.0);
            read["value"].as_f64().is_some_and(close) && read["unit"] == base
        }
        Err(_) if value == "-" => read["value"].is_null(),
        Err(_) => read["value"] == value.as_str(),
    }
}

fn wrong(path: &Path) -> Vec<String> {
    let name = name(path);
    let (_server, address) = serve(path);
    let args =
        ["driver", "read", "--modbus", &address, "--driver", driver(name), "--points", "--json"];
    let (out, err, code) = pmgate(&args, &[]);
    if code != 0 {
        return vec![format!("{name}: {err}")];
    }
    let points: Value = serde_json::from_str(&out).unwrap();
    let mut read: BTreeMap<(String, String), Value> = BTreeMap::new();
    for point in points.as_array().unwrap() {
        let of = |key: &str| point[key].as_str().unwrap_or_default().to_owned();
        if of("point").starts_with("identity.") {
            continue;
        }
        // Of alternatives the first that has a value counts.
        let at = (of("point"), of("row"));
        if read.get(&at).is_none_or(|before| before["value"].is_null()) {
            read.insert(at, point.clone());
        }
    }
    let expected = expected(path);
    let mut wrong: Vec<String> = expected
        .iter()
        .filter(|(at, value)| !read.get(*at).is_some_and(|read| same(value, read)))
        .map(|(at, value)| format!("{name} {at:?}: expected {value:?}, read {:?}", read.get(at)))
        .collect();
    let unexpected = read.keys().filter(|at| !expected.contains_key(*at));
    wrong.extend(unexpected.map(|at| format!("{name} {at:?}: nobody expects it")));
    wrong
}

#[test]
fn modbus_families_read_as_their_maps_say() {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let devices = devices();
        assert!(devices.len() > 20, "{devices:?}");
        let runs: Vec<_> =
            devices.into_iter().map(|path| scope.spawn(move || wrong(&path))).collect();
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_modbus_family_has_registers() {
    let devices = devices();
    for profile in Catalog::embedded().unwrap().iter().filter(|p| !p.speech.is_snmp()) {
        let id = profile.id.as_str();
        // NETIO has a server of its own: tests/peers/netio.py.
        let has = id == "netio" || devices.iter().any(|path| driver(name(path)) == id);
        assert!(has, "no registers in tests/registers for {id}");
    }
}

#[test]
fn relay_boards_are_switched_one_coil_at_a_time() {
    let boards = ["waveshare-relay", "adam-relay", "modbus-coils", "gude-epc-modbus"];
    let servers: Vec<(Running, String)> = boards
        .iter()
        .map(|board| serve(&root().join(format!("tests/registers/{board}.regs"))))
        .collect();
    let section = |(board, (_, address)): (&&str, &(Running, String))| {
        format!(
            "[[pdu]]\nid = \"{board}\"\nmodbus = \"{address}\"\ndriver = \"{board}\"\nwrite_gap_ms = 0\nwatts_follow = false\n"
        )
    };
    let sections: String = boards.iter().zip(&servers).map(section).collect();
    let gateway = Gateway::start(&sections);
    for board in boards {
        gateway.wait_online(board);
        let path = format!("/v1/pdus/{board}/outlets?max_age_ms=0");
        let states = || -> Vec<(u64, String)> {
            let outlets = gateway.curl().get(&path)["outlets"].as_array().unwrap().clone();
            let state = |o: &Value| {
                (o["number"].as_u64().unwrap(), o["state"].as_str().unwrap().to_owned())
            };
            outlets.iter().map(state).collect()
        };
        let before = states();
        let number = before[1].0;
        for action in ["on", "off", "on"] {
            let answer = gateway.curl().power(&format!("{board}/{number}"), action);
            assert_eq!(answer.status, 200, "{board} {action}: {answer:?}");
            let mut wanted = before.clone();
            wanted[1].1 = action.to_owned();
            assert_eq!(states(), wanted, "{board} after {action}");
        }
    }
}
