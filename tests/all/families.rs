//! Every family that is switched, against a stand-in of its own: a recording of ours whose rules for writes follow the
//! family's MIB, not the driver.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pmgate::link::recording::Recording;
use pmgate::profile::catalog::Catalog;
use pmgate::sim::recording::{Rule, serve};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::rig::{Gateway, anywhere, communities, pause, pdu_section};

/// Stand-ins, ended when dropped.
pub struct StandIns {
    pub at: BTreeMap<String, SocketAddr>,
    _stop: DropGuard,
}

/// Starts a stand-in for every recording of ours that has rules, or for those named.
pub async fn stand_ins(only: &[&str]) -> StandIns {
    stand_ins_with(only, str::to_owned).await
}

/// The same of recordings that are changed first.
pub async fn stand_ins_with(only: &[&str], change: impl Fn(&str) -> String) -> StandIns {
    stand_ins_by(only, change, str::to_owned).await
}

/// The same, and of what they do when they are written to.
pub async fn stand_ins_by(
    only: &[&str],
    change: impl Fn(&str) -> String,
    behave: impl Fn(&str) -> String,
) -> StandIns {
    let stop = CancellationToken::new();
    let mut at = BTreeMap::new();
    for rules in rules() {
        let name = rules.file_stem().unwrap().to_str().unwrap().to_owned();
        if !only.is_empty() && !only.contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(rules.with_extension("snmprec")).unwrap();
        let recording = Recording::parse(&change(&text)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let text = std::fs::read_to_string(&rules).unwrap();
        let rules = Rule::parse_all(&behave(&text)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let listen = serve(recording, rules, anywhere(), communities(), stop.clone());
        at.insert(name, listen.await.unwrap());
    }
    StandIns { at, _stop: stop.drop_guard() }
}

fn rules() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut rules: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|kind| kind == "rules")).collect();
    rules.sort();
    rules
}

fn states(gateway: &Gateway, pdu: &str) -> BTreeMap<u64, String> {
    let outlets = gateway.curl().get(&format!("/v1/pdus/{pdu}/outlets?max_age_ms=0"));
    let outlets = outlets["outlets"].as_array().unwrap().iter();
    outlets
        .map(|o| (o["number"].as_u64().unwrap(), o["state"].as_str().unwrap().to_owned()))
        .collect()
}

/// Switches one outlet off and on again; whatever is wrong is told.
fn off_and_on(gateway: &Gateway, pdu: &str) -> Result<(), String> {
    let path = format!("/v1/pdus/{pdu}");
    let until = Instant::now() + Duration::from_secs(90);
    let body = loop {
        let body = gateway.curl().get(&path);
        if body["state"] == "online" {
            break body;
        }
        if Instant::now() > until {
            return Err(format!("is not online: {}", body["reason"]));
        }
        pause();
    };
    let outlets = body["outlets"].as_array().unwrap();
    let drawn = |outlet: &&Value| {
        let of = |key: &str| outlet[key].as_f64().unwrap_or(0.0);
        (of("power_w").max(of("current_a") * 230.0) * 1e3) as u64
    };
    // One whose meter is heard; a small one, as the meters of limits in a recording stay where they are when it goes off,
    // and it has to fit beside itself. Else the largest.
    let live = outlets.iter().filter(|outlet| {
        outlet["switchable"] == true && (outlet["state"] == "on" || outlet["state"] == "off")
    });
    let size = |outlet: &&Value| (drawn(outlet) <= 300_000, drawn(outlet));
    let Some(outlet) = live.max_by_key(size) else {
        return Err(format!("has no outlet that is switchable: {body}"));
    };
    let order = if outlet["state"] == "on" { ["off", "on"] } else { ["on", "off"] };
    let number = outlet["number"].as_u64().unwrap();
    let before = states(gateway, pdu);
    for action in order {
        let answer = gateway.curl().power(&format!("{pdu}/{number}"), action);
        if answer.status != 200 || answer.json()["outcome"] != "done" {
            return Err(format!("{action} of outlet {number}: {}", answer.body));
        }
        // What the meter says goes with the relay: it was believed.
        if !answer.json()["steps"][0]["detail"].is_null() {
            return Err(format!("{action} of outlet {number}: {}", answer.body));
        }
        let mut wanted = before.clone();
        wanted.insert(number, action.to_owned());
        let now = states(gateway, pdu);
        if now != wanted {
            return Err(format!("after {action} of outlet {number}: {now:?}, before {before:?}"));
        }
    }
    Ok(())
}

/// Which of several PDUs behind one agent is meant, where they have no numbers.
fn unit_of(stand_in: &str) -> &'static str {
    if stand_in == "chatsworth" { "chain_unit = \"000ED3000A01\"" } else { "" }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_switches_its_own_outlet_and_no_other() {
    let stand_ins = stand_ins(&[]).await;
    let section = |(name, at): (&String, &SocketAddr)| {
        pdu_section(name, *at, &format!("write_gap_ms = 0\n{}", unit_of(name)))
    };
    let sections: String = stand_ins.at.iter().map(section).collect();
    let wrong = tokio::task::block_in_place(|| {
        // The meters of limits stay where they are in a recording, also when an outlet goes off.
        let small = "[switching]\ndefault_draw = { steady_w = 60, boot_w = 60, boot_s = 1, inrush_w = 60 }\n";
        let gateway = Gateway::start(&format!("{small}{sections}"));
        std::thread::scope(|scope| {
            let gateway = &gateway;
            let runs: Vec<_> = stand_ins
                .at
                .keys()
                .map(|name| (name, scope.spawn(move || off_and_on(gateway, name))))
                .collect();
            let ended = runs.into_iter().map(|(name, run)| (name, run.join().unwrap()));
            ended
                .filter_map(|(name, result)| Some(format!("{name}: {}", result.err()?)))
                .collect::<Vec<_>>()
        })
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
/// No family is switched that no stand-in was switched of.
#[test]
fn every_switched_family_has_a_stand_in() {
    let catalog = Catalog::embedded().unwrap();
    let has = |driver: &str| rules().iter().any(|path| path.file_stem().unwrap() == driver);
    let without: Vec<&str> = catalog
        .iter()
        .filter(|profile| profile.speech.is_snmp() && !profile.on.is_empty())
        .map(|profile| profile.id.as_str())
        .filter(|id| !has(id))
        .collect();
    assert!(without.is_empty(), "no rules in tests/recordings for {}", without.join(", "));
}
