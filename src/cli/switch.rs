//! `pmgate outlet …` and `pmgate host …`.

use std::hash::{BuildHasher as _, Hasher as _};

use anyhow::anyhow;
use hyper::Method;
use serde_json::{Value, json};

use crate::model::id::{GroupId, HostId, OutletId};

use super::args::{Client, Group, Host, Outlet, Switch};
use super::exit::{Exit, Outcome};
use super::out;
use super::pdu::{number, table, text};
use super::remote::{Gateway, escape};

/// Carries a command about outlets out.
pub async fn outlet(command: Outlet) -> Outcome {
    match command {
        Outlet::List { pdu, client } => list(pdu.as_deref(), &client).await,
        Outlet::Show { id, client } => {
            let outlet = Gateway::connect(&client).await?.get(&path(&id)?).await?;
            if client.json { out::json(&outlet) } else { show(&outlet) }
        }
        Outlet::On(switch) => each(&switch, "on", path).await,
        Outlet::Off(switch) => each(&switch, "off", path).await,
        Outlet::Cycle(switch) => each(&switch, "cycle", path).await,
        Outlet::Lock { id, reason, client } => {
            lock(&id, Method::PUT, Some(json!({ "reason": reason })), &client).await
        }
        Outlet::Unlock { id, client } => lock(&id, Method::DELETE, None, &client).await,
    }
}

async fn lock(id: &str, method: Method, body: Option<Value>, client: &Client) -> Outcome {
    let path = format!("{}/lock", path(id)?);
    let text = Gateway::connect(client).await?.text(method, &path, &[], body).await?;
    let outlet: Value = serde_json::from_str(&text).map_err(Exit::failed)?;
    if client.json { out::json(&outlet) } else { show(&outlet) }
}

/// Carries a command about hosts out.
pub async fn host(command: Host) -> Outcome {
    match command {
        Host::List { client } => {
            let hosts = Gateway::connect(&client).await?.list("/v1/hosts", "hosts").await?;
            if client.json {
                return out::json(&hosts);
            }
            let feeds = |host: &Value| {
                let feeds = host["feeds"].as_array().cloned().unwrap_or_else(Vec::new);
                feeds
                    .iter()
                    .map(|feed| format!("{} {}", text(feed, "outlet"), text(feed, "state")))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let rows: Vec<Vec<String>> = hosts
                .iter()
                .map(|host| {
                    vec![
                        text(host, "id"),
                        text(host, "state"),
                        number(host, "power_w"),
                        feeds(host),
                    ]
                })
                .collect();
            out::table(&["HOST", "STATE", "W", "FEEDS"], &rows);
            Ok(())
        }
        Host::Show { id, client } => {
            let host = Gateway::connect(&client).await?.get(&host_path(&id)?).await?;
            if client.json {
                return out::json(&host);
            }
            out::line(&format!(
                "{}  {}  {} W",
                text(&host, "id"),
                text(&host, "state"),
                number(&host, "power_w")
            ));
            table(&host, "feeds", &[("FEED", "outlet"), ("STATE", "state"), ("W", "power_w")]);
            Ok(())
        }
        Host::On(switch) => each(&switch, "on", host_path).await,
        Host::Off(switch) => each(&switch, "off", host_path).await,
        Host::Cycle(switch) => each(&switch, "cycle", host_path).await,
    }
}

/// Carries a command about groups out.
pub async fn group(command: Group) -> Outcome {
    match command {
        Group::List { client } => {
            let groups = Gateway::connect(&client).await?.list("/v1/groups", "groups").await?;
            if client.json {
                return out::json(&groups);
            }
            let names = |group: &Value| {
                let hosts = group["hosts"].as_array().into_iter().flatten();
                let hosts = hosts.map(|host| format!("host {}", host.as_str().unwrap_or("?")));
                let outlets = group["outlets"].as_array().into_iter().flatten();
                let outlets = outlets.map(|outlet| text(outlet, "outlet"));
                hosts.chain(outlets).collect::<Vec<_>>().join(", ")
            };
            let row = |group: &Value| vec![text(group, "id"), text(group, "name"), names(group)];
            let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
            out::table(&["GROUP", "NAME", "WHAT"], &rows);
            Ok(())
        }
        Group::Show { id, client } => {
            let group = Gateway::connect(&client).await?.get(&group_path(&id)?).await?;
            out::json(&group)
        }
        Group::On(switch) => each(&switch, "on", group_path).await,
        Group::Off(switch) => each(&switch, "off", group_path).await,
        Group::Cycle(switch) => each(&switch, "cycle", group_path).await,
    }
}

fn group_path(id: &str) -> Result<String, Exit> {
    let id: GroupId = id.parse().map_err(Exit::usage)?;
    Ok(format!("/v1/groups/{id}"))
}

fn path(id: &str) -> Result<String, Exit> {
    let outlet: OutletId = id.parse().map_err(Exit::usage)?;
    Ok(format!("/v1/pdus/{}/outlets/{}", outlet.pdu, outlet.number))
}

fn host_path(id: &str) -> Result<String, Exit> {
    let id: HostId = id.parse().map_err(Exit::usage)?;
    Ok(format!("/v1/hosts/{id}"))
}

async fn list(pdu: Option<&str>, client: &Client) -> Outcome {
    let mut gateway = Gateway::connect(client).await?;
    let outlets = if let Some(pdu) = pdu {
        gateway.list(&format!("/v1/pdus/{}/outlets", escape(pdu)), "outlets").await?
    } else {
        let pdus = gateway.list("/v1/pdus", "pdus").await?;
        pdus.iter()
            .flat_map(|pdu| pdu["outlets"].as_array().cloned().unwrap_or_else(Vec::new))
            .collect()
    };
    if client.json {
        return out::json(&outlets);
    }
    let row = |outlet: &Value| {
        vec![
            text(outlet, "id"),
            text(outlet, "state"),
            number(outlet, "power_w"),
            number(outlet, "current_a"),
            text(outlet, "host"),
            text(outlet, "name"),
        ]
    };
    out::table(
        &["OUTLET", "STATE", "W", "A", "HOST", "NAME"],
        &outlets.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

fn show(outlet: &Value) -> Outcome {
    let Some(fields) = outlet.as_object() else {
        return Err(Exit::failed(anyhow!("the answer is no outlet")));
    };
    let rows: Vec<Vec<String>> = fields
        .keys()
        .filter(|key| *key != "gaps")
        .map(|key| vec![key.clone(), text(outlet, key)])
        .collect();
    out::table(&["FIELD", "VALUE"], &rows);
    Ok(())
}

/// Switches one after the other; goes on after a failure, and fails in the end.
async fn each(
    switch: &Switch,
    action: &str,
    path: impl Fn(&str) -> Result<String, Exit>,
) -> Outcome {
    // Every path is checked before the first thing is switched.
    let paths: Vec<String> = switch.ids.iter().map(|id| path(id)).collect::<Result<_, _>>()?;
    let mut gateway = Gateway::connect(&switch.client).await?;
    let mut plans = Vec::new();
    let mut failed = 0;
    for (id, path) in switch.ids.iter().zip(paths) {
        let key = match &switch.idempotency_key {
            Some(key) if switch.ids.len() == 1 => key.clone(),
            Some(key) => format!("{key}:{id}"),
            None => format!("cli-{:016x}", std::hash::RandomState::new().build_hasher().finish()),
        };
        let body = json!({ "action": action, "reason": switch.reason });
        let answer = gateway
            .text(Method::POST, &format!("{path}/power"), &[("idempotency-key", &key)], Some(body))
            .await;
        match answer {
            Ok(text) if switch.client.json => {
                plans.push(serde_json::from_str(&text).unwrap_or(Value::String(text)));
            }
            Ok(body) => {
                let plan: Value = serde_json::from_str(&body).map_err(Exit::failed)?;
                out::line(&format!(
                    "{id} {action}: {} ({} ms, plan {})",
                    text(&plan, "outcome"),
                    number(&plan, "makespan_ms"),
                    text(&plan, "id")
                ));
            }
            Err(exit) if exit.code == 1 => {
                failed += 1;
                plans.extend(exit.problem.map(|problem| *problem));
                out::complain(&format!("{id} {action}: {:#}", exit.error));
            }
            Err(exit) => return Err(exit),
        }
    }
    if switch.client.json {
        out::json(&plans)?;
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Exit::failed(anyhow!("{failed} of {} were not switched", switch.ids.len())))
    }
}
