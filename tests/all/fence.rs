//! The second opinion of cluster managers: Debian's fence agents read what we switched, and we read what they switched.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use pmgate::model::switching::Relay;
use pmgate::model::time::Tick;
use pmgate::sim::families::Family;
use pmgate::sim::physics::Pdu;

use crate::families::stand_ins;
use crate::rig::{Gateway, Sim, pdu_section};

/// An agent of Debian's fence-agents, and how it names outlets.
struct Agent {
    name: &'static str,
    /// The stand-in's recording.
    device: &'static str,
    plug: fn(u16) -> String,
    outlet: u16,
}

const AGENTS: &[Agent] = &[
    Agent { name: "fence_apc_snmp", device: "apc-rpdu", plug: plain, outlet: 1 },
    Agent { name: "fence_apc_snmp", device: "apc-masterswitch", plug: plain, outlet: 1 },
    Agent { name: "fence_eaton_snmp", device: "eaton-revelation", plug: plain, outlet: 1 },
    Agent { name: "fence_eaton_snmp", device: "pulizzi", plug: plain, outlet: 1 },
    Agent { name: "fence_ipdu", device: "ibm-dpi", plug: plain, outlet: 1 },
    Agent { name: "fence_tripplite_snmp", device: "tripplite-old", plug: plain, outlet: 1 },
    Agent { name: "fence_emerson", device: "liebert-mph2", plug: liebert, outlet: 1 },
];

fn plain(outlet: u16) -> String {
    outlet.to_string()
}

/// PDU, receptacle branch, receptacle.
fn liebert(outlet: u16) -> String {
    format!("1.1.{outlet}")
}

/// Runs an agent; what it says on its standard output.
fn run(name: &str, action: &str, arguments: &[&str]) -> String {
    let output = Command::new(format!("/usr/sbin/{name}"))
        .args(["-a", "127.0.0.1", "-o", action, "--power-wait", "0"])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // `status` exits with 2 where the outlet is off.
    let fine = output.status.success() || (action == "status" && output.status.code() == Some(2));
    assert!(fine, "{name} {action}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// We off, it reads off; it on, we read on; it off, we read off; we on, it reads on.
fn agree(gateway: &Gateway, pdu: &str, outlet: u16, agent: &dyn Fn(&str) -> String) {
    gateway.wait_online(pdu);
    let target = format!("{pdu}/{outlet}");
    let seen = || {
        let path = format!("/v1/pdus/{pdu}/outlets/{outlet}?max_age_ms=0");
        gateway.curl().get(&path)["state"].as_str().unwrap().to_owned()
    };
    let switch = |action: &str| {
        let answer = gateway.curl().power(&target, action);
        assert_eq!(answer.status, 200, "{target} {action}: {answer:?}");
    };
    assert_eq!(seen(), "on", "{target}");
    assert!(agent("status").contains("ON"), "{target}");
    switch("off");
    assert!(agent("status").contains("OFF"), "{target}: the agent reads no off after ours");
    agent("on");
    assert_eq!(seen(), "on", "{target}: after the agent's on");
    agent("off");
    assert_eq!(seen(), "off", "{target}: after the agent's off");
    switch("on");
    assert!(agent("status").contains("ON"), "{target}: the agent reads no on after ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn fence_agents_over_snmp_agree_with_us() {
    let devices: Vec<&str> = AGENTS.iter().map(|agent| agent.device).collect();
    let stand_ins = stand_ins(&devices).await;
    let section = |device: &&str| pdu_section(device, stand_ins.at[*device], "write_gap_ms = 0");
    let sections: String = devices.iter().map(section).collect();
    // The meter of its branch stays where it is in a recording, also when the outlet goes off.
    let small = "[[outlet]]\nid = \"apc-rpdu/1\"\ndraw = { steady_w = 60, boot_s = 1 }\n";
    tokio::task::block_in_place(|| {
        let gateway = Gateway::start(&format!("{small}{sections}"));
        std::thread::scope(|scope| {
            for agent in AGENTS {
                let (gateway, stand_ins) = (&gateway, &stand_ins);
                scope.spawn(move || {
                    let port = stand_ins.at[agent.device].port().to_string();
                    let plug = (agent.plug)(agent.outlet);
                    let arguments = ["-u", &port, "-c", "private", "-d", "2c", "-n", &plug];
                    agree(gateway, agent.device, agent.outlet, &|action| {
                        run(agent.name, action, &arguments)
                    });
                });
            }
        });
    });
}

/// The command line of a Raritan PX, by Telnet, over the relays of a simulated one.
fn command_line(pdu: Arc<Mutex<Pdu>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let pdu = pdu.clone();
            // A client that leaves ends its session.
            std::thread::spawn(move || session(client, &pdu).ok());
        }
    });
    address
}

fn session(mut client: TcpStream, pdu: &Mutex<Pdu>) -> std::io::Result<()> {
    // Telnet negotiates in bytes that are no text.
    let mut lines = BufReader::new(client.try_clone()?).split(b'\n');
    for prompt in ["Welcome to PX CLP\r\nLogin: ", "Password: ", "\r\nclp:/-> "] {
        client.write_all(prompt.as_bytes())?;
        if prompt.contains("clp") {
            break;
        }
        lines.next().transpose()?;
    }
    for line in lines {
        let line = String::from_utf8_lossy(&line?).into_owned();
        let line = line.trim();
        let outlet = |path: &str| path.trim().rsplit("outlet").next()?.parse::<u16>().ok();
        let later = Tick(u64::MAX / 2);
        if let Some(path) = line.strip_prefix("show -d properties=powerState ") {
            let relay =
                outlet(path).and_then(|number| pdu.lock().unwrap().relay(number - 1, later));
            let state = if relay == Some(Relay::On) { 1 } else { 2 };
            write!(client, "\r\n  {path}\r\n  powerState is {state}\r\n")?;
        } else if let Some((path, state)) =
            line.strip_prefix("set ").and_then(|rest| rest.split_once(" powerState="))
        {
            let relay = if state.trim() == "on" { Relay::On } else { Relay::Off };
            if let Some(number) = outlet(path) {
                pdu.lock().unwrap().switch(number - 1, relay, Tick(0));
            }
        } else if line == "exit" {
            return Ok(());
        }
        client.write_all(b"\r\nclp:/-> ")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fence_raritan_over_telnet_agrees_with_us() {
    let sim = Sim::start(Family::RaritanPx2, 8).await;
    let port = command_line(sim.pdu.clone()).port().to_string();
    tokio::task::block_in_place(|| {
        let gateway = Gateway::start(&pdu_section("pdu-a", sim.address, "write_gap_ms = 0"));
        let arguments = ["-u", &port, "-l", "admin", "-p", "secret", "-n", "3"];
        agree(&gateway, "pdu-a", 3, &|action| run("fence_raritan", action, &arguments));
    });
}
