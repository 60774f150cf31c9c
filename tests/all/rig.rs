//! What tests start: simulated PDUs in this process, gateways and the command line as the built program.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pmgate::device::Target;
use pmgate::link::{Line, Patience};
use pmgate::model::secret::Secret;
use pmgate::model::time::{Clock, SystemClock};
use pmgate::sim::families::Family;
use pmgate::sim::physics::Pdu;
use pmgate::sim::snmp::Access;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// net-snmp's options for the user of simulated PDUs.
pub const V3: [&str; 13] = [
    "-v3",
    "-l",
    "authPriv",
    "-u",
    "pmgate",
    "-a",
    "SHA-256",
    "-A",
    "simulated-auth",
    "-x",
    "AES",
    "-X",
    "simulated-priv",
];

/// The built program.
pub const PMGATE: &str = env!("CARGO_BIN_EXE_pmgate");

/// Loopback, any free port.
pub fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A simulated PDU that answers SNMPv2c.
pub struct Sim {
    pub address: SocketAddr,
    pub pdu: Arc<Mutex<Pdu>>,
    stop: CancellationToken,
}

impl Sim {
    pub async fn start(family: Family, outlets: u16) -> Self {
        Self::with(family, outlets, communities()).await
    }

    pub async fn with(family: Family, outlets: u16, access: Access) -> Self {
        Self::of(family, Pdu::new(1, outlets, 3, 3), access).await
    }

    pub async fn of(family: Family, pdu: Pdu, access: Access) -> Self {
        let stop = CancellationToken::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let pdu = Arc::new(Mutex::new(pdu));
        let address = pmgate::sim::snmp::serve(
            family,
            pdu.clone(),
            "SIM1",
            anywhere(),
            access,
            clock,
            stop.clone(),
        )
        .await
        .unwrap();
        Self { address, pdu, stop }
    }

    /// Its power fails: nothing answers any more.
    pub fn fails(&self) {
        self.stop.cancel();
    }

    /// Its power comes back, at the same address; its outlets are as they are.
    pub async fn comes_back(&mut self, family: Family) {
        self.stop = CancellationToken::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let (pdu, stop) = (self.pdu.clone(), self.stop.clone());
        for _ in 0..100 {
            let (pdu, clock, stop) = (pdu.clone(), clock.clone(), stop.clone());
            let served = pmgate::sim::snmp::serve(
                family,
                pdu,
                "SIM1",
                self.address,
                communities(),
                clock,
                stop,
            );
            if served.await.is_ok() {
                return;
            }
            // The one before has not let go of its port yet.
            tokio::task::yield_now().await;
        }
        panic!("{} is still taken", self.address);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn communities() -> Access {
    Access::Communities { read: "public".into(), write: "private".into() }
}

/// How a test reaches an SNMPv2c agent.
pub fn v2c(address: SocketAddr) -> Target {
    Target::Community {
        address: address.to_string().parse().unwrap(),
        v1: false,
        read: Secret::new("public".into()),
        write: Secret::new("private".into()),
    }
}

/// A line with short patience.
pub async fn line(target: &Target, timeout_ms: u64, attempts: u32) -> Line {
    target.line(Patience::new((0, timeout_ms, attempts)), 1).await.unwrap()
}

/// A running program with its output; killed when dropped.
pub struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Starts the program and waits until it prints a line that begins with `ready_line`.
    pub fn start(args: &[&str], env: &[(&str, &str)], ready_line: &str) -> Self {
        let mut command = Command::new(PMGATE);
        command.args(args).envs(env.iter().copied());
        Self::command(command, ready_line)
    }

    /// The same of another program.
    pub fn command(mut command: Command, ready_line: &str) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (told, ready) = std::sync::mpsc::channel();
        for stream in [
            Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ] {
            let (lines, told, wanted) = (lines.clone(), told.clone(), ready_line.to_owned());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let is_ready = line.contains(&wanted);
                    lines.lock().unwrap().push(line);
                    if is_ready {
                        told.send(()).ok();
                    }
                }
            });
        }
        drop(told);
        let running = Self { child, lines };
        assert!(
            ready.recv_timeout(Duration::from_mins(1)).is_ok(),
            "not \"{ready_line}\" within 60 s:\n{}",
            running.output()
        );
        running
    }

    pub fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the program to end by itself.
    pub fn ended(&mut self, within: Duration) -> std::process::ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "still running after {within:?}:\n{}", self.output());
            pause();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The demo as a new user starts it, on free ports.
pub struct Demo {
    pub running: Running,
    pub dir: tempfile::TempDir,
    pub url: String,
}

impl Demo {
    pub fn start(pdus: u16, outlets: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (pdus, outlets) = (pdus.to_string(), outlets.to_string());
        let at = dir.path().to_str().unwrap();
        let args = [
            "demo",
            "--listen",
            "127.0.0.1:0",
            "--sim-port",
            "0",
            "--dir",
            at,
            "--pdus",
            &pdus,
            "--outlets",
            &outlets,
        ];
        let running = Running::start(&args, &[], "ready");
        let url = running
            .output()
            .lines()
            .find_map(|line| line.strip_prefix("base URL      "))
            .unwrap()
            .to_owned();
        Self { running, dir, url }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn curl(&self) -> Curl<'_> {
        self.curl_as("client")
    }

    pub fn curl_as(&self, who: &str) -> Curl<'_> {
        Curl::new(self.dir.path(), &self.url, who)
    }

    /// Where a simulated PDU listens.
    pub fn sim(&self, id: &str) -> String {
        let output = self.running.output();
        let line = output.lines().find(|line| line.starts_with(&format!("{id}  "))).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    }
}

/// curl with the certificates of a demo's directory.
pub struct Curl<'d> {
    dir: &'d Path,
    url: &'d str,
    who: String,
}

/// What curl got.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl<'d> Curl<'d> {
    pub fn new(dir: &'d Path, url: &'d str, who: &str) -> Self {
        Self { dir, url, who: who.to_owned() }
    }

    /// curl's own way, with more arguments; the status and content type come last.
    pub fn raw(&self, path: &str, more: &[&str]) -> Output {
        let file = |name: &str| self.dir.join(name).to_str().unwrap().to_owned();
        let mut command = Command::new("curl");
        command.args(["-s", "--max-time", "60", "--cacert", &file("ca.pem")]);
        command.args([
            "--cert",
            &file(&format!("{}.pem", self.who)),
            "--key",
            &file(&format!("{}.key", self.who)),
        ]);
        command
            .args(["-w", "\n%{http_code} %{content_type}"])
            .args(more)
            .arg(format!("{}{path}", self.url));
        command.output().expect("curl is installed by the test set-up")
    }

    pub fn send(&self, path: &str, more: &[&str]) -> Answer {
        let output = self.raw(path, more);
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, tail) = text
            .rsplit_once('\n')
            .unwrap_or_else(|| panic!("curl says nothing: {}", output.status));
        let (status, kind) = tail.split_once(' ').unwrap();
        Answer { status: status.parse().unwrap(), kind: kind.to_owned(), body: body.to_owned() }
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.send(path, &[]);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub fn post(&self, path: &str, body: &str, more: &[&str]) -> Answer {
        let mut all = vec!["-X", "POST", "-H", "content-type: application/json", "-d", body];
        all.extend(more);
        self.send(path, &all)
    }

    pub fn power(&self, outlet: &str, action: &str) -> Answer {
        let (pdu, number) = outlet.split_once('/').unwrap();
        self.post(
            &format!("/v1/pdus/{pdu}/outlets/{number}/power"),
            &format!("{{\"action\":\"{action}\",\"reason\":\"test\"}}"),
            &[],
        )
    }
}

/// A gateway over PDUs that the test runs itself.
pub struct Gateway {
    pub running: Running,
    pub dir: tempfile::TempDir,
    pub url: String,
}

impl Gateway {
    /// Makes certificates and a configuration with these sections, and serves it.
    pub fn start(sections: &str) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), sections, &[])
    }

    /// In a directory that may have the state of an earlier run.
    pub fn in_dir(dir: tempfile::TempDir, sections: &str, env: &[(&str, &str)]) -> Self {
        Self::prepare(dir.path(), sections);
        let mut command = Command::new(PMGATE);
        let config = dir.path().join("gateway.toml");
        command.args(["serve", "--config"]).arg(config).envs(env.iter().copied());
        Self::served(dir, command)
    }

    /// What a gateway with these sections needs in its directory; what is there already stays.
    pub fn prepare(dir: &Path, sections: &str) {
        let at = |name: &str| dir.join(name);
        if !at("ca.pem").exists() {
            certificates(dir);
            std::fs::create_dir(at("state")).unwrap();
            for (name, secret) in [
                ("community", "public"),
                ("write", "private"),
                ("auth", "simulated-auth"),
                ("priv", "simulated-priv"),
            ] {
                secret_file(&at(name), secret);
            }
        }
        Self::write_config(dir, sections);
    }

    /// By a command that serves what is in a directory.
    pub fn served(dir: tempfile::TempDir, command: Command) -> Self {
        let running = Running::command(command, "is served at https://");
        let output = running.output();
        let line = output.lines().find(|line| line.contains("is served at https://")).unwrap();
        let url = format!(
            "https://{}",
            line.split("https://").nth(1).unwrap().split_whitespace().next().unwrap()
        );
        Self { running, dir, url }
    }

    pub fn write_config(dir: &Path, sections: &str) {
        let head = "rack = \"test\"\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\ncrl = \"ca/crl.pem\"\n[secret.v2c]\ncommunity_file = \"community\"\nwrite_community_file = \"write\"\n[secret.v3]\nuser = \"pmgate\"\nauth_password_file = \"auth\"\npriv_password_file = \"priv\"\n";
        std::fs::write(dir.join("gateway.toml"), format!("{head}{sections}")).unwrap();
    }

    pub fn curl(&self) -> Curl<'_> {
        Curl::new(self.dir.path(), &self.url, "client")
    }

    /// Waits until a condition on an answer holds.
    pub fn wait_for(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let answer = self.curl().send(path, &[]);
            if answer.status == 200 && holds(&answer.json()) {
                return answer.json();
            }
            assert!(
                Instant::now() < until,
                "never came: {path}: {answer:?}\n{}",
                self.running.output()
            );
            pause();
        }
    }

    pub fn wait_online(&self, pdu: &str) -> Value {
        self.wait_for(&format!("/v1/pdus/{pdu}"), |body| body["state"] == "online")
    }

    /// Kills it as a power cut would, and gives its directory back.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.running.kill();
        self.dir
    }
}

/// What is waited for in another process tells nobody: it is asked again, and not without a pause, which would take a
/// processor from it.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(40)); // between two questions to a process
}

fn secret_file(path: &Path, secret: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, secret).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A CA by the command line, and one certificate a role.
pub fn certificates(dir: &Path) {
    let ca = dir.join("ca");
    let run = |args: &[&str]| {
        let output = Command::new(PMGATE)
            .arg("ca")
            .args(args)
            .args(["--dir", ca.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["init", "--domain", "test.local"]);
    run(&["issue", "--role", "server", "--host", "127.0.0.1", "server"]);
    for (role, name) in [
        ("operator", "client"),
        ("viewer", "viewer"),
        ("admin", "admin"),
        ("approver", "approver"),
        ("hub", "hub"),
    ] {
        run(&["issue", "--role", role, name]);
    }
    std::fs::copy(ca.join("ca.pem"), dir.join("ca.pem")).unwrap();
    for name in ["server", "client", "viewer", "admin", "approver", "hub"] {
        for kind in ["pem", "key"] {
            std::fs::copy(ca.join(format!("{name}.{kind}")), dir.join(format!("{name}.{kind}")))
                .unwrap();
        }
    }
}

/// Runs the command line; standard output, standard error, exit code.
pub fn pmgate(args: &[&str], env: &[(&str, &str)]) -> (String, String, i32) {
    let mut child = Command::new(PMGATE)
        .args(args)
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (out, errors.join().unwrap(), code)
}

/// A `[[pdu]]` section for an SNMPv2c agent.
pub fn pdu_section(id: &str, address: SocketAddr, more: &str) -> String {
    format!("[[pdu]]\nid = \"{id}\"\nsnmp = \"{address}\"\nsecret = \"v2c\"\n{more}\n")
}

/// A port for a program that cannot choose one itself: each once in a run, and below those that the system hands out
/// to whoever asks for any (`ip_local_port_range`, from 32768), so that nobody takes it before that program does.
fn free_port(bind: impl Fn(u16) -> std::io::Result<()>) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another run on the same machine begins elsewhere.
    let first = std::process::id() % 120 * 100;
    let mut ports = (0..12_000).map(|_| {
        let n = first + NEXT.fetch_add(1, Ordering::Relaxed);
        u16::try_from(20_000 + n % 12_000).unwrap()
    });
    ports.find(|port| bind(*port).is_ok()).expect("a port between 20000 and 32000 that is free")
}

/// A UDP port that nobody has.
pub fn free_udp_port() -> u16 {
    free_port(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).map(drop))
}

/// The same for TCP.
pub fn free_tcp_port() -> u16 {
    free_port(|port| std::net::TcpListener::bind(("127.0.0.1", port)).map(drop))
}

/// Python with what the test set-up installed.
pub fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/venv/bin/python")
}

/// The material prepared beside the project, where it is; a test that needs it says when it is not.
pub fn shared() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/devices");
    if !dir.exists() {
        eprintln!("skipped: the recordings beside the project are not here");
        return None;
    }
    Some(dir)
}

/// Devices in this process, for tests that look inside.
pub struct House {
    pub fleet: pmgate::device::Fleet,
    pub board: pmgate::board::Board,
    pub rows: tokio::sync::mpsc::Receiver<pmgate::store::writer::Row>,
    _rows: tokio::sync::mpsc::Sender<pmgate::store::writer::Row>,
    _catalog: tokio::sync::watch::Sender<Arc<pmgate::profile::catalog::Catalog>>,
}

impl House {
    pub fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let board = pmgate::board::Board::default();
        let (catalog, seen) = tokio::sync::watch::channel(Arc::new(
            pmgate::profile::catalog::Catalog::embedded().unwrap(),
        ));
        let (sender, rows) = tokio::sync::mpsc::channel(1_000);
        let services = pmgate::device::Services {
            clock: clock.clone(),
            board: board.clone(),
            catalog: seen,
            events: pmgate::events::Events::new(clock),
            counts: Arc::default(),
            rows: sender.downgrade(),
        };
        let fleet = pmgate::device::Fleet::new(services, CancellationToken::new());
        Self { fleet, board, rows, _rows: sender, _catalog: catalog }
    }
}

/// Settings of a device that is polled often, for tests that wait for polls.
pub fn settings(id: &str, target: Target, fast_ms: u64) -> pmgate::device::Settings {
    use pmgate::model::time::Span;
    let paces = pmgate::pace::Paces {
        fast: Span(fast_ms),
        slow: Span(fast_ms * 10),
        retry: Span(fast_ms),
        retry_max: Span(fast_ms * 4),
    };
    pmgate::device::Settings {
        id: id.parse().unwrap(),
        name: None,
        location: None,
        target,
        driver: Some("apc-rpdu2".parse().unwrap()),
        unit: None,
        manners: pmgate::device::Manners {
            timeout_ms: Some(100),
            attempts: Some(1),
            write_gap_ms: None,
        },
        paces,
        stale_after: Span(fast_ms * 3),
        offset: Span(0),
        read_only: None,
        watts_follow: true,
        allow_unknown: false,
    }
}
