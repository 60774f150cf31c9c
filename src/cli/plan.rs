//! `pmgate plan …`.

use std::collections::BTreeSet;

use anyhow::anyhow;
use hyper::Method;
use serde_json::{Value, json};

use super::args::{Client, Plan, Wish};
use super::exit::{Exit, Outcome};
use super::follow::Watch;
use super::out;
use super::pdu::{number, text};
use super::remote::{Gateway, escape};
use super::timeline;

/// Characters of a bar.
const WIDE: usize = 30;

/// Carries a command about plans out.
pub async fn run(command: Plan) -> Outcome {
    match command {
        Plan::Preview(wish) => make(&wish, true).await,
        Plan::Create(wish) => make(&wish, false).await,
        Plan::Run { id, digest, follow, client } => {
            let mut gateway = Gateway::connect(&client).await?;
            let begun = with_digest(&mut gateway, &id, digest, "run").await?;
            // One that has ended by now has its end told, and what it has left off.
            if follow && begun["state"] != "scheduled" {
                return self::follow(&mut gateway, &id, &client).await;
            }
            show(&begun, &client)
        }
        Plan::Approve { id, digest, client } => {
            let mut gateway = Gateway::connect(&client).await?;
            show(&with_digest(&mut gateway, &id, digest, "approve").await?, &client)
        }
        Plan::Lift { id, digest, client } => {
            let mut gateway = Gateway::connect(&client).await?;
            show(&with_digest(&mut gateway, &id, digest, "lift").await?, &client)
        }
        Plan::Cancel { id, client } => {
            let mut gateway = Gateway::connect(&client).await?;
            let path = format!("{}/cancel", path(&id));
            show(&parse(&gateway.text(Method::POST, &path, &[], None).await?)?, &client)
        }
        Plan::Show { id, client } => {
            let mut gateway = Gateway::connect(&client).await?;
            let plan = gateway.get(&path(&id)).await?;
            show(&plan, &client)?;
            if client.json {
                return Ok(());
            }
            if let Some(why) = plan["unfit"].as_str() {
                out::line(&format!("as the rack is now it would be refused: {why}"));
            }
            if plan["timeline"].is_array() {
                out::line("");
                out::line("if it were made now:");
                foretell(&plan, &gateway.get("/v1/limits").await?);
            }
            Ok(())
        }
        Plan::List { client } => {
            let plans = Gateway::connect(&client).await?.list("/v1/plans", "plans").await?;
            if client.json {
                return out::json(&plans);
            }
            let row = |plan: &Value| {
                let mut row: Vec<String> =
                    ["id", "state", "action", "target", "by", "created_at", "waiting_until"]
                        .map(|key| text(plan, key))
                        .to_vec();
                if plan["waiting_until"].is_string() {
                    "waiting".clone_into(&mut row[1]);
                }
                row
            };
            let rows: Vec<Vec<String>> = plans.iter().map(row).collect();
            let head = ["PLAN", "STATE", "ACTION", "OF", "BY", "AT", "WAITS UNTIL"];
            out::table(&head, &rows);
            Ok(())
        }
    }
}

/// Does something to the plan with the digest that was looked at; who names none takes the plan as it is kept.
async fn with_digest(
    gateway: &mut Gateway,
    id: &str,
    digest: Option<String>,
    what: &str,
) -> Result<Value, Exit> {
    let digest = match digest {
        Some(digest) => digest,
        None => text(&gateway.get(&path(id)).await?, "digest"),
    };
    let body = Some(json!({ "digest": digest }));
    parse(&gateway.text(Method::POST, &format!("{}/{what}", path(id)), &[], body).await?)
}

/// `pmgate limits`.
pub async fn limits(client: &Client) -> Outcome {
    let body = Gateway::connect(client).await?.get("/v1/limits").await?;
    if client.json {
        return out::json(&body);
    }
    let limits = body["limits"].as_array().cloned().unwrap_or_else(Vec::new);
    let row = |limit: &Value| {
        let mut row = vec![text(limit, "id"), text(limit, "kind")];
        row.extend(["budget_w", "load_w", "headroom_w"].map(|key| number(limit, key)));
        row.push(text(limit, "why"));
        row
    };
    let rows: Vec<Vec<String>> = limits.iter().map(row).collect();
    out::table(&["LIMIT", "KIND", "MAY W", "FLOWS W", "LEFT W", "WHY"], &rows);
    Ok(())
}

fn path(id: &str) -> String {
    format!("/v1/plans/{}", escape(id))
}

fn parse(text: &str) -> Result<Value, Exit> {
    serde_json::from_str(text).map_err(Exit::failed)
}

fn strange(id: &str) -> Exit {
    Exit::usage(anyhow!("\"{id}\" is neither pdu-a, pdu-a/7, host:web-01 nor group:web"))
}

async fn make(wish: &Wish, dry_run: bool) -> Outcome {
    let mut goals = Vec::new();
    for (action, ids) in [("on", &wish.on), ("off", &wish.off), ("cycle", &wish.cycle)] {
        for id in ids {
            let select = match id.split_once(':').filter(|(_, name)| !name.is_empty()) {
                Some(("host", host)) => json!({ "hosts": [host] }),
                Some(("group", group)) => json!({ "groups": [group] }),
                None if id.is_empty() || id.ends_with(':') => return Err(strange(id)),
                None if id.contains('/') => json!({ "outlets": [id] }),
                None => json!({ "pdus": [id] }),
                Some(_) => return Err(strange(id)),
            };
            goals
                .push(json!({ "select": select, "action": action, "drop_hosts": wish.drop_hosts }));
        }
    }
    if goals.is_empty() {
        return Err(Exit::usage(anyhow!(
            "wish something: --on, --off or --cycle pdu-a, pdu-a/7, host:web-01 or group:web"
        )));
    }
    let mut body = json!({
        "goals": goals, "reason": wish.reason, "dry_run": dry_run, "order": wish.order,
        "on_failure": wish.on_failure, "on_overload": wish.on_overload, "over_locks": wish.over_locks,
    });
    if let Some(at) = &wish.not_before {
        body["not_before"] = json!(at);
    }
    if let Some(rule) = &wish.calendar {
        body["calendar"] = json!(rule);
    }
    let mut gateway = Gateway::connect(&wish.client).await?;
    let limits = if wish.client.json { Value::Null } else { gateway.get("/v1/limits").await? };
    let made = parse(&gateway.text(Method::POST, "/v1/plans", &[], Some(body)).await?)?;
    show(&made, &wish.client)?;
    if !wish.client.json {
        foretell(&made, &limits);
        out::line(&what_next(&made, dry_run));
    }
    Ok(())
}

fn foretell(plan: &Value, limits: &Value) {
    timeline::print(plan, limits["limits"].as_array().map_or(&[][..], Vec::as_slice));
}

/// What is to be done with a plan that was just made.
fn what_next(made: &Value, dry_run: bool) -> String {
    let id = text(made, "id");
    if dry_run {
        "this is a preview: nothing was kept; \"pmgate plan create\" keeps the plan".to_owned()
    } else {
        let mut first = String::new();
        match made["needs_approvals"].as_u64() {
            None | Some(0) => {}
            Some(1) => first.push_str(&format!(
                "it needs approval first, by somebody else: pmgate plan approve {id}; "
            )),
            Some(count) => first.push_str(&format!(
                "it needs approval first, by {count} others: pmgate plan approve {id}; "
            )),
        }
        let is_locked = made["over_locks"].as_array().is_some_and(|locks| !locks.is_empty());
        if is_locked && made["lifted_by"].is_null() {
            first.push_str(&format!("an admin lifts its locks first: pmgate plan lift {id}; "));
        }
        let then = if first.is_empty() { "" } else { "then " };
        format!("{first}{then}run it: pmgate plan run {id} --follow")
    }
}

/// Who agreed to a plan that somebody has to agree to, and whose locks are lifted for it; nothing where that is not asked.
fn agreed(plan: &Value) -> Option<String> {
    let by = |of: &Value| text(of, "by");
    let mut said = Vec::new();
    if let Some(needed) = plan["needs_approvals"].as_u64().filter(|count| *count > 0) {
        let given = plan["approvals"].as_array().map_or(&[][..], Vec::as_slice);
        let names: Vec<String> = given.iter().map(by).collect();
        said.push(match names.len() {
            0 => format!("needs {needed} approvals, has none"),
            count => format!("needs {needed} approvals, has {count}: {}", names.join(", ")),
        });
    }
    if let Some(locked) = plan["over_locks"].as_array().filter(|locked| !locked.is_empty()) {
        let locked: Vec<&str> = locked.iter().filter_map(Value::as_str).collect();
        let lifted = &plan["lifted_by"];
        let lifted = if lifted.is_null() {
            "not lifted".to_owned()
        } else {
            format!("lifted by {}", by(lifted))
        };
        said.push(format!("goes over the locks of {}, {lifted}", locked.join(", ")));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

/// How a plan ended that did not end well: what was done of it, what it has left off, and what is to be done.
fn ended_badly(plan: &Value) -> String {
    let steps = plan["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let done = steps.iter().filter(|step| step["state"] == "done");
    let mut off: Vec<String> = Vec::new();
    for step in done.clone() {
        let outlet = text(step, "outlet");
        off.retain(|of| *of != outlet);
        if step["action"] == "off" {
            off.push(outlet);
        }
    }
    let left = match off.len() {
        0 => String::new(),
        1 => format!(", and {} is off", off.join(", ")),
        _ => format!(", and {} are off", off.join(", ")),
    };
    let next = plan["next"].as_str().map_or(String::new(), |next| format!("; {next}"));
    format!("{} of its {} steps were done{left}{next}", done.count(), steps.len())
}

fn show(plan: &Value, client: &Client) -> Outcome {
    if client.json {
        return out::json(plan);
    }
    let takes = plan["makespan_ms"].as_u64().map_or_else(|| "?".into(), timeline::seconds);
    out::line(&format!(
        "{}  {} {}: {}, takes {takes}",
        text(plan, "id"),
        text(plan, "action"),
        text(plan, "target"),
        text(plan, "state"),
    ));
    if let Some(until) = plan["waiting_until"].as_str() {
        out::line(&format!(
            "waits until {until} and holds nothing until then; \"pmgate plan cancel {}\" calls it off",
            text(plan, "id")
        ));
    }
    for (key, word) in [
        ("reason", "since"),
        ("by", "asked for by"),
        ("not_before", "not before"),
        ("calendar", "by the calendar"),
        ("next_run_at", "next run at"),
        ("last_run_at", "last due at"),
        ("last_run", "which was"),
        ("digest", "digest"),
    ] {
        if let Some(value) = plan[key].as_str() {
            out::line(&format!("{word} {value}"));
        }
    }
    if let Some(line) = agreed(plan) {
        out::line(&line);
    }
    let steps = plan["steps"].as_array().cloned().unwrap_or_else(Vec::new);
    let row = |step: &Value| {
        let mut row = vec![number(step, "n"), number(step, "at_ms")];
        row.extend(["outlet", "action", "state", "why", "detail"].map(|key| text(step, key)));
        row
    };
    let rows: Vec<Vec<String>> = steps.iter().map(row).collect();
    out::table(&["N", "AT MS", "OUTLET", "ACTION", "STATE", "WHY", ""], &rows);
    Ok(())
}

/// Prints how a plan goes on until it has ended; fails where it did. On a terminal a bar stays at the bottom.
async fn follow(gateway: &mut Gateway, id: &str, client: &Client) -> Outcome {
    // By outlet and action: a plan that is planned anew has its steps in other places.
    let mut told: BTreeSet<(String, String)> = BTreeSet::new();
    let bar = out::is_terminal() && !client.json;
    // Opened before the first look, so that nothing is missed in between.
    let mut watch = Watch::of(id, client).await;
    loop {
        let plan = gateway.get(&path(id)).await?;
        let steps = plan["steps"].as_array().cloned().unwrap_or_else(Vec::new);
        let is_over =
            |step: &&Value| !matches!(step["state"].as_str(), Some("pending" | "intended"));
        let done = steps.iter().filter(is_over).count();
        for step in steps.iter().filter(is_over) {
            if !told.insert((text(step, "outlet"), text(step, "action"))) {
                continue;
            }
            if client.json {
                out::json(step)?;
                continue;
            }
            let line = format!(
                "{}/{} {} {}: {} {}",
                number(step, "n"),
                steps.len(),
                text(step, "outlet"),
                text(step, "action"),
                text(step, "state"),
                step["detail"].as_str().unwrap_or("")
            );
            if bar {
                out::over(&line);
                out::line("");
            } else {
                out::line(&line);
            }
        }
        let at_work = steps.iter().filter(|step| step["state"] == "intended");
        let at_work: Vec<String> = at_work.map(|step| text(step, "outlet")).collect();
        if bar {
            let filled = if steps.is_empty() { WIDE } else { done * WIDE / steps.len() };
            out::over(&format!(
                "[{}{}] {done}/{} {}",
                "#".repeat(filled),
                ".".repeat(WIDE - filled),
                steps.len(),
                at_work.join(" ")
            ));
        }
        let state = text(&plan, "state");
        if state != "running" {
            if bar {
                out::line("");
            }
            if client.json {
                // The last line is the plan as it ended.
                out::json(&plan)?;
            } else {
                out::line(&format!("plan {id}: {state}"));
            }
            let failed = || Exit::failed(anyhow!("plan {id} is {state}: {}", ended_badly(&plan)));
            return if state == "done" { Ok(()) } else { Err(failed()) };
        }
        watch.moved().await;
    }
}
