//! The command line as a script or a person meets it: output, JSON, exit codes.

use serde_json::Value;

use crate::rig::{Demo, Gateway, pmgate};

/// Where a demo's gateway is, for the environment.
fn place(demo: &Demo, who: &str) -> Vec<(&'static str, String)> {
    let file = |name: &str| demo.path(name).display().to_string();
    vec![
        ("PMGATE_URL", demo.url.clone()),
        ("PMGATE_CERT", file(&format!("{who}.pem"))),
        ("PMGATE_KEY", file(&format!("{who}.key"))),
        ("PMGATE_CA", file("ca.pem")),
    ]
}

struct Shell {
    env: Vec<(&'static str, String)>,
}

impl Shell {
    fn run(&self, line: &str) -> (String, String, i32) {
        let args: Vec<&str> = line.split_whitespace().collect();
        let env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        pmgate(&args, &env)
    }

    fn json(&self, line: &str) -> Value {
        let (out, err, code) = self.run(line);
        assert_eq!(code, 0, "{line}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{line}: no JSON: {out}"))
    }
}

#[test]
fn a_gateway_is_read_and_switched() {
    let demo = Demo::start(2, 4);
    let shell = Shell { env: place(&demo, "client") };
    let (table, _, code) = shell.run("pdu list");
    assert_eq!(code, 0);
    for word in ["pdu-a", "pdu-b", "AP8", "PX3", "online"] {
        assert!(table.contains(word), "no {word} in\n{table}");
    }
    assert_eq!(shell.json("pdu list --json").as_array().unwrap().len(), 2);
    let (shown, body) = (shell.json("pdu show pdu-a --json"), demo.curl().get("/v1/pdus/pdu-a"));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&shown), keys(&body));
    assert_eq!(shown["serial"], body["serial"]);
    assert_eq!(shell.json("outlet list --json").as_array().unwrap().len(), 8);
    assert_eq!(shell.json("outlet show pdu-a/3 --json")["id"], "pdu-a/3");
    let (said, err, code) = shell.run("outlet off pdu-a/3 pdu-b/1");
    assert_eq!((code, said.lines().count()), (0, 2), "{said}{err}");
    assert_eq!(shell.json("outlet show pdu-b/1 --json")["state"], "off");
    let on = shell.json("outlet on pdu-b/1 --json");
    assert_eq!(on[0]["outcome"], "done", "{on}");
    let hosts = shell.json("host list --json");
    assert_eq!(hosts[0]["id"], "server-1a", "{hosts}");
    assert_eq!(shell.json("host cycle server-1a --json")[0]["outcome"], "done");
    let kinds: Vec<Value> = serde_json::Deserializer::from_str(&shell.run("events --json").0)
        .into_iter::<Value>()
        .map(|event| event.unwrap()["kind"].clone())
        .collect();
    assert!(kinds.contains(&"outlet.off".into()), "{kinds:?}");
    let series = shell.json("series pdu-a/1 power_w --start -5m --json");
    assert!(!series["points"].as_array().unwrap().is_empty(), "{series}");
    let (csv, _, _) = shell.run("series pdu-a/1 power_w --csv");
    assert!(csv.starts_with("at,power_w,quality"), "{csv}");
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let demo = Demo::start(1, 2);
    let shell = Shell { env: place(&demo, "client") };
    let viewer = Shell { env: place(&demo, "viewer") };
    for (shell, line, wanted, word) in [
        (&viewer, "outlet off pdu-a/1", 1, "viewer"),
        (&shell, "outlet off pdu-a/9", 1, "pdu-a/9"),
        (&shell, "outlet off pdu-z/1", 1, "pdu-z"),
        (&shell, "pdu show pdu-z", 1, "pdu-z"),
        (&shell, "outlet off seven", 2, "pdu-a/7"),
        (&shell, "outlet explode pdu-a/1", 2, "explode"),
        (&shell, "host off A!", 2, "A!"),
        (&shell, "pdu list --url http://localhost", 2, "https://"),
        (&shell, "pdu list --url https://127.0.0.1:1", 3, "127.0.0.1:1"),
        (&shell, "pdu list --ca /nonexistent/ca.pem", 2, "/nonexistent/ca.pem"),
        (&shell, "pdu list --context nowhere", 2, "nowhere"),
        (&shell, "series pdu-a/1 horses", 1, "horses"),
    ] {
        let (out, err, code) = shell.run(line);
        assert_eq!(code, wanted, "{line}: {out}{err}");
        assert!(err.contains(word), "{line} does not name {word}: {err}");
    }
    assert_eq!(demo.curl().get("/v1/pdus/pdu-a/outlets/1?max_age_ms=0")["state"], "on");
    // Somebody else answers at that address: nobody we trust.
    let other = Gateway::start("");
    let line = format!("pdu list --url {}", other.url);
    assert_eq!(shell.run(&line).2, 3);
}

#[test]
fn contexts_stand_in_a_file() {
    let demo = Demo::start(1, 2);
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("pmgate")).unwrap();
    let file = |name: &str| demo.path(name).display().to_string();
    let text = format!(
        "current = \"demo\"\n[context.demo]\nurl = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\nca = \"{}\"\n",
        demo.url,
        file("client.pem"),
        file("client.key"),
        file("ca.pem")
    );
    std::fs::write(home.path().join("pmgate/config.toml"), text).unwrap();
    let shell = Shell { env: vec![("XDG_CONFIG_HOME", home.path().display().to_string())] };
    assert_eq!(shell.json("pdu list --json")[0]["id"], "pdu-a");
    assert_eq!(shell.json("pdu list --json --context demo")[0]["id"], "pdu-a");
}

#[test]
fn every_command_of_the_contract_has_help() {
    for line in [
        "demo",
        "serve",
        "sim",
        "config check",
        "driver list",
        "driver check",
        "driver detect",
        "driver read",
        "driver record",
        "driver prove",
        "ca init",
        "ca issue",
        "ca sign",
        "ca revoke",
        "ca crl",
        "ca show",
        "pdu list",
        "pdu show",
        "outlet list",
        "outlet show",
        "outlet on",
        "outlet off",
        "outlet cycle",
        "host list",
        "host show",
        "host on",
        "host off",
        "host cycle",
        "series",
        "events",
    ] {
        let mut args: Vec<&str> = line.split(' ').collect();
        args.push("--help");
        let (out, _, code) = pmgate(&args, &[]);
        assert!(code == 0 && out.contains("Usage: pmgate"), "{line}: {out}");
        let about = out.lines().next().unwrap_or("");
        assert!(about.len() > 5 && !about.starts_with("Usage"), "{line} does not say what it does");
    }
    let (completions, _, code) = pmgate(&["completions", "bash"], &[]);
    assert!(code == 0 && completions.contains("pmgate"), "no completions");
}

#[test]
fn the_authority_signs_a_request_but_not_what_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (key, csr, ca) = (at("mine.key"), at("mine.csr"), at("ca"));
    let openssl = std::process::Command::new("openssl")
        .args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-keyout", &key, "-out", &csr, "-subj", "/CN=root"])
        .args(["-addext", "basicConstraints=CA:TRUE"])
        .args(["-addext", "subjectAltName=URI:spiffe://test.local/role/admin/root"])
        .output()
        .unwrap();
    assert!(openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
    assert_eq!(pmgate(&["ca", "init", "--dir", &ca, "--domain", "test.local"], &[]).2, 0);
    let sign = ["ca", "sign", "--dir", &ca, "--role", "viewer", "--name", "guest", &csr];
    let (out, err, code) = pmgate(&sign, &[]);
    assert_eq!(code, 0, "{out}{err}");
    let shown = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in", &format!("{ca}/guest.pem")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("URI:spiffe://test.local/role/viewer/guest"), "{text}");
    assert!(text.contains("CA:FALSE") && !text.contains("role/admin"), "{text}");
    // Once only; and a name that is no name is refused.
    assert_eq!(pmgate(&["ca", "init", "--dir", &ca, "--domain", "test.local"], &[]).2, 1);
    let issue = ["ca", "issue", "--dir", &ca, "--role", "viewer", "../../etc/x"];
    assert_eq!(pmgate(&issue, &[]).2, 1);
}

#[test]
fn a_network_is_searched_slowly_and_what_is_found_can_be_pasted() {
    // Three PDUs, and somebody else's agent, on loopback addresses of their own.
    let port = crate::rig::free_udp_port();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sim.toml");
    let sim = |at: u8, family: &str| {
        format!(
            "[[pdu]]\nid = \"s{at}\"\nfamily = \"{family}\"\nlisten = \"127.77.0.{at}:{port}\"\noutlets = 2\n"
        )
    };
    let text = [sim(2, "apc-rpdu2"), sim(5, "raritan-px2"), sim(6, "sentry4")].concat();
    std::fs::write(&file, text).unwrap();
    let _sims =
        crate::rig::Running::start(&["sim", "--config", file.to_str().unwrap()], &[], "ready");
    let other = dir.path().join("other.snmprec");
    std::fs::write(
        &other,
        "1.3.6.1.2.1.1.1.0|4|a printer\n1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.11.2.3\n",
    )
    .unwrap();
    let listen = format!("127.77.0.9:{port}");
    let args = ["sim", "--recording", other.to_str().unwrap(), "--listen", &listen];
    let _other = crate::rig::Running::start(&args, &[], "ready");
    // Two PDUs behind one address.
    let listen = format!("127.77.0.11:{port}");
    let chain = "tests/recordings/chatsworth.snmprec";
    let args = ["sim", "--recording", chain, "--listen", &listen];
    let _chain = crate::rig::Running::start(&args, &[], "ready");
    let range = format!("127.77.0.0/28:{port}");
    let began = std::time::Instant::now();
    let args = ["driver", "detect", "--range", &range, "--per-second", "20", "--secret", "v2c"];
    let (out, err, code) = pmgate(&args, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(began.elapsed().as_millis() >= 13 * 50, "14 addresses at 20 a second took less");
    assert!(out.contains("14 addresses asked, 5 answered, 5 of them PDUs"), "{out}");
    assert!(out.contains("a printer"), "{out}");
    let units: Vec<&str> = out.lines().filter(|line| line.starts_with("chain_unit")).collect();
    let mac = |last: &str| format!("chain_unit = \"000ED3000A{last}\"");
    assert_eq!(units, [mac("01"), mac("02")], "{out}");
    // Pasted into a configuration it is good.
    crate::rig::certificates(dir.path());
    std::fs::create_dir(dir.path().join("state")).unwrap();
    for name in ["community", "write", "auth", "priv"] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(dir.path().join(name), "a-long-secret").unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.path().join(name), mode).unwrap();
    }
    Gateway::write_config(dir.path(), &out);
    let config = dir.path().join("gateway.toml");
    let (said, err, code) = pmgate(&["config", "check", config.to_str().unwrap()], &[]);
    assert!(code == 0 && said.contains("5 PDUs"), "{said}{err}");
    // Not the whole world, and not what nobody allowed.
    for (args, word) in [
        (vec!["--range", "10.0.0.0/8"], "too wide"),
        (vec!["--range", "192.0.2.0/28"], "--allow"),
        (vec!["--range", "10.0.0.1/24"], "10.0.0.0/24"),
        (vec!["--range", "10.0.0.0/28", "--snmp", "10.0.0.1"], "cannot be used"),
    ] {
        let all: Vec<&str> = ["driver", "detect"].into_iter().chain(args).collect();
        let (_, err, code) = pmgate(&all, &[]);
        assert!(code == 2 && err.contains(word), "{all:?}: {err}");
    }
}
