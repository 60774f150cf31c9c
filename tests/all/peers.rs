//! The same roads against programs that are not ours: net-snmp's agent and tools, pymodbus' server and client,
//! and the stand-ins beside the project where they are.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pmgate::sim::families::Family;
use serde_json::Value;

use crate::rig::{Demo, Gateway, Running, Sim, V3, free_tcp_port, free_udp_port, pmgate, python};

/// net-snmp's agent with the rows of a recording in place of its own.
struct Snmpd {
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Running>,
}

const USER: [&str; 10] = [
    "--user",
    "rack",
    "--auth-protocol",
    "SHA-256",
    "--auth-password",
    "long-auth-pass",
    "--priv-protocol",
    "AES-128",
    "--priv-password",
    "long-priv-pass",
];

impl Snmpd {
    fn start(recording: &str) -> Self {
        let mut conf = String::from(
            "createUser rack SHA-256 long-auth-pass AES long-priv-pass\nrouser rack priv .1\nrocommunity public 127.0.0.1 .1\n",
        );
        for line in recording.lines() {
            let mut parts = line.splitn(3, '|');
            let (oid, kind, value) =
                (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let kind = match kind {
                "2" => "integer",
                "4" => "octet_str",
                "6" => "object_id",
                "66" => "uinteger",
                other => panic!("type {other} in the recording"),
            };
            let value = if kind == "octet_str" { format!("\"{value}\"") } else { value.into() };
            conf.push_str(&format!("override {oid} {kind} {value}\n"));
        }
        Self::with(conf)
    }

    fn with(conf: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("snmpd.conf"), conf).unwrap();
        let mut agent = Self { dir, port: free_udp_port(), running: None };
        agent.boot();
        agent
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the agent, anew if it runs: its engine boots once more.
    fn boot(&mut self) {
        self.running = None;
        let mut command = Command::new("/usr/sbin/snmpd");
        command
            .args(["-f", "-Lo", "-C", "-c", self.dir.path().join("snmpd.conf").to_str().unwrap()])
            .arg(format!("udp:{}", self.address()))
            .env("SNMP_PERSISTENT_DIR", self.dir.path().join("kept"))
            .env("MIBS", "");
        self.running = Some(Running::command(command, "NET-SNMP version"));
    }
}

fn recording(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn read(args: &[&str]) -> Value {
    let all: Vec<&str> = ["driver", "read", "--json"].iter().chain(args).copied().collect();
    let (out, err, code) = pmgate(&all, &[]);
    assert_eq!(code, 0, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn an_agent_that_shows_nothing_to_a_user_says_so() {
    let conf = "createUser rack SHA-256 long-auth-pass AES long-priv-pass\nrouser rack priv .1.3.6.1.6.3\n";
    let agent = Snmpd::with(conf.into());
    let at = agent.address();
    let args: Vec<&str> = ["driver", "read", "--snmp", &at].iter().chain(&USER).copied().collect();
    let (_, err, code) = pmgate(&args, &[]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("access settings"), "{err}");
}

/// What must not depend on who carries it.
fn steady(mut body: Value) -> Value {
    let object = body.as_object_mut().unwrap();
    object.remove("age_ms");
    object.remove("observed_at");
    object.remove("id");
    for outlet in object["outlets"].as_array_mut().unwrap() {
        outlet.as_object_mut().unwrap().remove("id");
    }
    body
}

#[test]
fn net_snmps_agent_is_read_as_the_recording_in_every_version() {
    let text = recording("apc-rpdu2.snmprec");
    let agent = Snmpd::start(&text);
    let at = agent.address();
    let v1 = steady(read(&["--snmp", &at, "--snmp-version", "v1"]));
    let v2c = steady(read(&["--snmp", &at]));
    let by_user: Vec<&str> = ["--snmp", &at].iter().chain(&USER).copied().collect();
    let v3 = steady(read(&by_user));
    assert_eq!(v2c["driver"], "apc-rpdu2");
    assert_eq!(v2c["outlets"].as_array().unwrap().len(), 4);
    assert!(v2c["outlets"][0]["power_w"].as_f64().unwrap() > 1.0, "{v2c}");
    assert_eq!(v1, v2c);
    assert_eq!(v3, v2c);
    // The simulator's own agent tells the same of the same recording.
    let port = free_udp_port();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/apc-rpdu2.snmprec");
    let listen = format!("127.0.0.1:{port}");
    let args = ["sim", "--recording", file.to_str().unwrap(), "--listen", &listen];
    let _sim = Running::start(&args, &[], "ready");
    assert_eq!(steady(read(&["--snmp", &listen])), v2c);
}

#[test]
fn net_snmps_agent_restarted_is_found_again_with_its_new_boots() {
    let mut agent = Snmpd::start(&recording("apc-rpdu2.snmprec"));
    let section = format!(
        "[secret.rack]\nuser = \"rack\"\nauth_password_file = \"rack-auth\"\npriv_password_file = \"rack-priv\"\n[poll]\nfast_s = 1\nslow_s = 1\nretry_s = 1\nretry_max_s = 1\nstale_after_s = 2\n[[pdu]]\nid = \"pdu-a\"\nsnmp = \"{}\"\nsecret = \"rack\"\ntimeout_ms = 300\nattempts = 2\n",
        agent.address()
    );
    let dir = tempfile::tempdir().unwrap();
    for (name, secret) in [("rack-auth", "long-auth-pass"), ("rack-priv", "long-priv-pass")] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(dir.path().join(name), secret).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.path().join(name), mode).unwrap();
    }
    let gateway = Gateway::in_dir(dir, &section, &[]);
    gateway.wait_online("pdu-a");
    for _ in 0..2 {
        agent.running = None;
        gateway.wait_for("/v1/pdus/pdu-a", |pdu| pdu["state"] != "online");
        agent.boot();
        let pdu = gateway.wait_online("pdu-a");
        assert_eq!(pdu["quality"], "good", "{pdu}");
    }
}

#[test]
fn what_net_snmp_switches_on_a_simulated_pdu_we_read_and_the_other_way_round() {
    let demo = Demo::start(3, 4);
    let curl = demo.curl();
    let v3 = V3;
    let v2c = ["-v2c", "-c", "private"];
    // PowerNet-MIB rPDU2OutletSwitchedControlCommand (immediateOff 2), PDU2-MIB switchingOperation (off 0),
    // Sentry4-MIB st4OutletControlAction (off 2).
    for (pdu, access, oid, off) in [
        ("pdu-a", &v2c[..], "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.2", "2"),
        ("pdu-b", &v3[..], "1.3.6.1.4.1.13742.6.4.1.2.1.2.1.2", "0"),
        ("pdu-c", &v2c[..], "1.3.6.1.4.1.1718.4.1.8.5.1.2.1.1.2", "2"),
    ] {
        let output = Command::new("snmpset")
            .args(access)
            .args(["-t", "5", &demo.sim(pdu), oid, "i", off])
            .output()
            .unwrap();
        assert!(output.status.success(), "{pdu}: {}", String::from_utf8_lossy(&output.stderr));
        let until = std::time::Instant::now() + Duration::from_secs(20);
        let path = format!("/v1/pdus/{pdu}/outlets/2?max_age_ms=0");
        while curl.get(&path)["state"] != "off" {
            assert!(std::time::Instant::now() < until, "{pdu}: still {}", curl.get(&path));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_walk_by_net_snmp_of_a_simulated_pdu_is_in_order_and_ends() {
    for family in [Family::ApcRpdu2, Family::RaritanPx2, Family::Sentry4] {
        let sim = Sim::start(family, 24).await;
        let walk = |tool: &'static str| {
            let address = sim.address.to_string();
            let run = move || {
                Command::new(tool)
                    .args(["-v2c", "-c", "public", "-On", "-t", "5", &address, ".1.3"])
                    .output()
                    .unwrap()
            };
            tokio::task::spawn_blocking(run)
        };
        let (one, bulk) = (walk("snmpwalk").await.unwrap(), walk("snmpbulkwalk").await.unwrap());
        assert!(one.status.success(), "{family:?}: {}", String::from_utf8_lossy(&one.stderr));
        let names = |output: &std::process::Output| -> Vec<String> {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let named = text.lines().filter(|line| line.starts_with(".1"));
            named.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        let (one, bulk) = (names(&one), names(&bulk));
        assert!(one.len() > 150, "{family:?}: {} objects", one.len());
        assert_eq!(one, bulk, "{family:?}");
    }
}

#[test]
fn pymodbus_server_is_read_and_switched() {
    let port = free_tcp_port();
    let mut command = Command::new(python());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/netio.py");
    command.arg(script).arg(port.to_string());
    let _server = Running::command(command, "ready");
    let at = format!("127.0.0.1:{port}");
    let body = read(&["--modbus", &at, "--driver", "netio"]);
    let inlet = &body["inlet"];
    for (key, value) in [
        ("frequency_hz", 49.98),
        ("voltage_v", 231.2),
        ("power_factor", 0.981),
        ("current_a", 2.21),
        ("power_w", 501.0),
        ("energy_wh", 1_234_567.0),
    ] {
        assert_eq!(inlet[key], value, "inlet.{key}");
    }
    let outlets = body["outlets"].as_array().unwrap();
    let states: Vec<&str> = outlets.iter().map(|o| o["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["on", "off", "on", "off"]);
    assert_eq!(outlets[2]["energy_wh"], 1_164_567.0);
    assert_eq!((&outlets[0]["current_a"], &outlets[0]["power_w"]), (&1.2.into(), &272.0.into()));
    // Switched by us, read back by pymodbus' own client.
    let section = format!("[[pdu]]\nid = \"pdu-m\"\nmodbus = \"{at}\"\ndriver = \"netio\"\n");
    let gateway = Gateway::start(&section);
    gateway.wait_online("pdu-m");
    let coils = || {
        let code = format!(
            "from pymodbus.client import ModbusTcpClient as C\nc = C('127.0.0.1', port={port})\nc.connect()\nprint(c.read_coils(101, count=4, device_id=1).bits[:4])"
        );
        let output = Command::new(python()).args(["-c", &code]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(coils(), "[True, False, True, False]");
    for (outlet, action) in [("pdu-m/2", "on"), ("pdu-m/1", "off")] {
        let answer = gateway.curl().power(outlet, action);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(coils(), "[False, True, True, False]");
}

/// A stand-in that is prepared beside the project, built for this test; it ends with it.
fn stand_in(name: &str, args: &[&str]) -> Option<(Running, tempfile::TempDir)> {
    let bench = crate::rig::shared()?.join("../bench/sim");
    let dir = tempfile::tempdir().unwrap();
    for file in [format!("{name}.c"), "simcommon.h".into()] {
        std::fs::copy(bench.join(&file), dir.path().join(&file)).unwrap();
    }
    let program = dir.path().join(name);
    let source = dir.path().join(format!("{name}.c"));
    let mut compile = Command::new("cc");
    let built = compile.arg("-O1").arg("-o").arg(&program).arg(source).arg("-lm").output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // It does not say when it is up; it is once it answers on its control port.
    let control = free_udp_port();
    let mut command = Command::new("sh");
    command.args(["-c", "echo started; exec \"$@\"", "sh"]).arg(&program).args(args);
    command.args(["--ctl", &format!("127.0.0.1:{control}")]);
    let running = Running::command(command, "started");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let mut reply = [0; 4096];
    loop {
        // Refused until it listens.
        let sent = socket.send_to(b"stats", ("127.0.0.1", control));
        if sent.is_ok() && socket.recv(&mut reply).is_ok() {
            break;
        }
        assert!(std::time::Instant::now() < until, "{}", running.output());
    }
    Some((running, dir))
}

#[test]
fn the_snmp_stand_in_reads_the_same_also_slow_and_lossy() {
    let port = free_udp_port();
    let at = format!("127.0.0.1:{port}");
    let recording =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/apc-rpdu2.snmprec");
    let target = format!("{at}={}", recording.display());
    let lossy = ["--latency-us", "20000", "--jitter-us", "5000", "--loss", "0.02"];
    let args = [&["--range", target.as_str()][..], &lossy[..]].concat();
    let Some(_running) = stand_in("snmpsimd", &args) else { return };
    let port = free_udp_port();
    let own = format!("127.0.0.1:{port}");
    let args = ["sim", "--recording", recording.to_str().unwrap(), "--listen", &own];
    let _sim = Running::start(&args, &[], "ready");
    let expected = steady(read(&["--snmp", &own]));
    assert_eq!(steady(read(&["--snmp", &at])), expected);
    assert_eq!(steady(read(&["--snmp", &at, "--snmp-version", "v1"])), expected);
}

#[test]
fn the_modbus_stand_in_is_read_and_switched() {
    let port = free_tcp_port();
    let at = format!("127.0.0.1:{port}");
    // NETIO PowerPDU 4C, as its manual lists the registers.
    let map = "# table,address,type,value[,count]\nholding,0,u16,1\nholding,1,u16,4\nholding,2,u16,4\ninput,0,u16,5001\ninput,1,u16,2299\ninput,2,u16,970\ninput,3,u16,4000\ninput,4,u16,892\ninput,101,u16,1000,4\ninput,201,u16,223,4\ninput,300,u32,99000\ninput,302,u32,24750,4\ncoil,101,bit,1,4\n";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("netio.csv");
    std::fs::write(&file, map).unwrap();
    let target = format!("{at}={}", file.display());
    let Some(_running) = stand_in("modbussimd", &["--range", &target, "--latency-us", "5000"])
    else {
        return;
    };
    let body = read(&["--modbus", &at, "--driver", "netio"]);
    assert_eq!(
        (&body["inlet"]["power_w"], &body["inlet"]["energy_wh"]),
        (&892.0.into(), &99_000.0.into())
    );
    let outlets = body["outlets"].as_array().unwrap();
    assert!(outlets.iter().all(|o| o["state"] == "on" && o["energy_wh"] == 24_750.0), "{body}");
    let section = format!("[[pdu]]\nid = \"pdu-m\"\nmodbus = \"{at}\"\ndriver = \"netio\"\n");
    let gateway = Gateway::start(&section);
    gateway.wait_online("pdu-m");
    let answer = gateway.curl().power("pdu-m/3", "off");
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &"done".into()), "{answer:?}");
    let states: Vec<bool> = read(&["--modbus", &at, "--driver", "netio"])["outlets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|outlet| outlet["state"] == "on")
        .collect();
    assert_eq!(states, [true, true, false, true]);
}
