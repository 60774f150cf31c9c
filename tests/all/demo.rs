//! The demo as a newcomer meets it, checked with tools that are not ours.

use std::process::Command;

use serde_json::Value;

use crate::rig::{Demo, V3};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Whether two figures differ by less than a share of the larger, or by less than the resolution of small ones.
fn near(a: f64, b: f64, share: f64, least: f64) -> bool {
    (a - b).abs() <= (a.abs().max(b.abs()) * share).max(least)
}

#[test]
fn four_pdus_are_live_and_their_values_hang_together() {
    let demo = Demo::start(4, 24);
    let curl = demo.curl();
    let list = curl.get("/v1/pdus");
    let pdus = list["pdus"].as_array().unwrap();
    let vendors: Vec<&str> = pdus.iter().map(|pdu| pdu["vendor"].as_str().unwrap()).collect();
    assert_eq!(pdus.len(), 4, "{vendors:?}");
    for pdu in pdus {
        let id = pdu["id"].as_str().unwrap();
        assert_eq!((&pdu["state"], &pdu["quality"]), (&"online".into(), &"good".into()), "{id}");
        assert!(pdu["age_ms"].as_u64().unwrap() < 10_000, "{id}: {}", pdu["age_ms"]);
        // NETIO's Modbus registers name neither model nor serial number.
        let identity = ["driver", "observed_at", "model", "serial", "firmware"];
        for key in &identity[..if id == "pdu-d" { 2 } else { 5 }] {
            assert!(pdu[*key].as_str().is_some_and(|text| !text.is_empty()), "{id} has no {key}");
        }
        let outlets = pdu["outlets"].as_array().unwrap();
        assert_eq!(outlets.len(), 24, "{id}");
        let mut sum = 0.0;
        let mut whole = 0;
        for outlet in outlets {
            let power = number(&outlet["power_w"]);
            sum += power;
            assert_eq!((&outlet["state"], &outlet["switchable"]), (&"on".into(), &true.into()));
            // Not every family tells all of these an outlet.
            let factors = ["voltage_v", "current_a", "power_factor"].map(|key| outlet.get(key));
            if let [Some(volts), Some(amperes), Some(factor)] = factors {
                whole += 1;
                let product = number(volts) * number(amperes) * number(factor);
                assert!(near(power, product, 0.05, 2.0), "{id}: {power} W is not {product} W");
            }
        }
        let inlet = &pdu["inlet"];
        let power = number(&inlet["power_w"]);
        assert!(near(power, sum, 0.05, 1.0), "{id}: inlet {power} W, outlets {sum} W");
        if whole == 0 {
            // Then the phases or the inlet tell it.
            let apparent = match inlet.get("apparent_power_va") {
                Some(apparent) => number(apparent),
                None => number(&inlet["voltage_v"]) * number(&inlet["current_a"]),
            };
            let product = apparent * number(&inlet["power_factor"]);
            assert!(near(power, product, 0.05, 2.0), "{id}: {inlet}");
        }
    }
    // Live: other readings come by themselves, and loads are not constant, though two may come within one tick of them.
    let watts = |pdu: &Value| -> Vec<f64> {
        pdu["outlets"].as_array().unwrap().iter().map(|o| number(&o["power_w"])).collect()
    };
    let before = &pdus[0];
    let mut now = before.clone();
    for _ in 0..5 {
        let last = now.clone();
        while now["observed_at"] == last["observed_at"] {
            now = curl.get("/v1/pdus/pdu-a?max_age_ms=1000");
        }
        if watts(before) != watts(&now) {
            return;
        }
    }
    panic!("the loads stand still: {:?}", watts(&now));
}

#[test]
fn switching_is_seen_by_net_snmp() {
    let demo = Demo::start(3, 8);
    let curl = demo.curl();
    // The state's object of outlet 5 with its word for on and off: PowerNet-MIB rPDU2OutletSwitchedStatusState,
    // PDU2-MIB outletSwitchingState, Sentry4-MIB st4OutletState.
    let v3 = V3;
    let v2c = ["-v2c", "-c", "public"];
    for (pdu, access, oid, on, off) in [
        ("pdu-a", &v2c[..], "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.5", "2", "1"),
        ("pdu-b", &v3[..], "1.3.6.1.4.1.13742.6.4.1.2.1.3.1.5", "7", "8"),
        ("pdu-c", &v2c[..], "1.3.6.1.4.1.1718.4.1.8.3.1.1.1.1.5", "1", "2"),
    ] {
        let agent = demo.sim(pdu);
        let get = || {
            let output = Command::new("snmpget")
                .args(access)
                .args(["-Oqve", "-t", "5", &agent, oid])
                .output()
                .expect("net-snmp is installed by the test set-up");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(get(), on, "{pdu} at first");
        for (action, wanted) in [("off", off), ("on", on), ("cycle", on)] {
            let answer = curl.power(&format!("{pdu}/5"), action);
            assert_eq!((answer.status, &answer.json()["outcome"]), (200, &"done".into()));
            assert_eq!(get(), wanted, "{pdu} after {action}");
        }
    }
}

/// Also a second one in the half minute that the first one's start has room reserved for, and the first one again: every
/// branch has room for that, whatever the noise.
#[test]
fn the_demos_hosts_are_cycled_one_right_after_the_other() {
    let demo = Demo::start(4, 24);
    let curl = demo.curl();
    let limits = curl.get("/v1/limits");
    let branches = limits["limits"].as_array().unwrap().iter();
    let branches: Vec<&Value> = branches.filter(|limit| limit["kind"] == "branch").collect();
    assert_eq!(branches.len(), 9, "{limits}");
    for branch in branches {
        let (load, budget) = (number(&branch["load_w"]), number(&branch["budget_w"]));
        assert!(load > 0.3 * budget && load < 0.65 * budget, "{branch}");
    }
    for host in ["server-1a", "server-1b", "server-2a", "server-2b", "server-1a"] {
        let answer = curl.post(&format!("/v1/hosts/{host}/power"), r#"{"action":"cycle"}"#, &[]);
        assert_eq!(answer.status, 200, "{host}: {}", answer.body);
        assert_eq!(answer.json()["outcome"], "done", "{host}: {}", answer.body);
    }
}

#[test]
fn what_the_demo_prints_can_be_pasted() {
    let demo = Demo::start(4, 24);
    let output = demo.running.output();
    let lines: Vec<&str> = output
        .lines()
        .map(str::trim)
        // The stream of events has no end.
        .filter(|line| line.starts_with("curl ") && !line.contains("/v1/events"))
        .collect();
    assert!(lines.len() >= 5, "{output}");
    for line in lines {
        let result =
            Command::new("sh").args(["-c", &format!("{line} -s --fail-with-body")]).output();
        let result = result.unwrap();
        assert!(result.status.success(), "{line}: {}", String::from_utf8_lossy(&result.stdout));
    }
    let line = output.lines().find(|line| line.trim().starts_with("export ")).unwrap();
    let list = output.lines().find(|line| line.trim().ends_with(" pdu list")).unwrap();
    let result = Command::new("sh").args(["-c", &format!("{line}\n{list}")]).output().unwrap();
    let table = String::from_utf8_lossy(&result.stdout).into_owned();
    assert!(result.status.success() && table.contains("pdu-d"), "{table}");
    // Keys and secrets are for their owner only.
    for name in ["client.key", "server.key", "ca/ca.key", "secrets/community", "secrets/auth"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(demo.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} can be read by others");
    }
}

/// The lines to paste of a part of the README, between two of its lines.
fn to_paste<'r>(readme: &'r str, from: &str, until: &str) -> Vec<&'r str> {
    let (_, part) = readme.split_once(from).unwrap_or_else(|| panic!("no line {from:?}"));
    let (part, _) = part.split_once(until).unwrap_or_else(|| panic!("no line {until:?}"));
    part.lines().filter_map(|line| line.strip_prefix("    ")).collect()
}

#[test]
fn what_the_readme_says_can_be_pasted() {
    let demo = Demo::start(4, 24);
    let readme = include_str!("../../README.md");
    let mut lines = to_paste(readme, "\n## Try it\n", "\n## Switch a rack\n");
    lines.extend(to_paste(readme, "\n## Switch a rack\n", "\n### Drain a Kubernetes node"));
    let dir = demo.dir.path().to_str().unwrap();
    let program = std::path::Path::new(crate::rig::PMGATE).parent().unwrap();
    let mut script = format!("set -e\ncd {dir}\nD={dir}\nPATH={}:$PATH\n", program.display());
    let output = demo.running.output();
    let export = output.lines().find(|line| line.trim().starts_with("export ")).unwrap();
    script += &format!("{export}\nset -x\n");
    for line in lines.iter().filter(|line| !line.starts_with("make demo")) {
        // What the reader is to put in, and what has no end.
        let line = line
            .replace("https://127.0.0.1:8443", &demo.url)
            .replace("${D##*-}", &demo.running.pid().to_string())
            .replace("plan create  --cycle", "plan create  | tee try.txt --cycle")
            .replace("$C -N ", "timeout 2 $C -N ");
        let line = match line.strip_prefix("pmgate plan create  | tee try.txt") {
            Some(rest) => format!("pmgate plan create {rest} | tee try.txt"),
            None => line.replace("plan run PLAN", "plan run $(awk 'NR == 1 { print $1 }' try.txt)"),
        };
        let may_end = if line.starts_with("timeout 2") { " || test $? = 124" } else { "" };
        script += &format!("{line}{may_end}\n");
        // The reader is slower: by then the meters do not show the first moment of what came on.
        if line.starts_with("pmgate plan run") {
            for pdu in ["pdu-a", "pdu-b"] {
                script += &format!("$C '{}/v1/pdus/{pdu}?max_age_ms=0' > {pdu}.json\n", demo.url);
            }
        }
    }
    let result = Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().unwrap();
    let (said, errors) = (&result.stdout, String::from_utf8_lossy(&result.stderr));
    let said = String::from_utf8_lossy(said);
    assert!(result.status.success(), "{errors}\n{said}");
    let done = |line: &&str| line.starts_with("plan p") && line.ends_with(": done");
    assert_eq!(said.lines().filter(done).count(), 3, "{said}");
}

#[test]
fn a_busy_port_is_told_with_its_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let args = ["demo", "--listen", &address, "--sim-port", "0", "--dir", at];
    let (_, errors, code) = crate::rig::pmgate(&args, &[]);
    assert_eq!(code, 1);
    assert!(errors.contains(&address), "{errors}");
}
