//! `pmgate events`.

use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::Value;

use super::args::Events;
use super::exit::{Exit, Outcome};
use super::out;
use super::pdu::text;
use super::remote::Gateway;

/// Prints the last events, and on request those that come.
pub async fn run(args: Events) -> Outcome {
    let mut gateway = Gateway::connect(&args.client).await?;
    let last = gateway.get("/v1/events?last=50").await?;
    let Some(events) = last.as_array() else {
        return Err(Exit::failed(anyhow::anyhow!("the gateway's answer is no list of events")));
    };
    for event in events {
        print(event, args.client.json);
    }
    let mut seen = events.last().and_then(|event| event["id"].as_u64());
    if !args.follow {
        return Ok(());
    }
    loop {
        // A connection that ends, as when the gateway restarts, is taken up where it ended.
        if let Err(exit) = follow(&mut gateway, &args, &mut seen).await {
            out::complain(&format!("{:#}; trying again", exit.error));
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        match Gateway::connect(&args.client).await {
            Ok(new) => gateway = new,
            Err(exit) if exit.code == 3 => {}
            Err(exit) => return Err(exit),
        }
    }
}

async fn follow(gateway: &mut Gateway, args: &Events, seen: &mut Option<u64>) -> Outcome {
    let id = seen.map_or_else(|| "0".into(), |id| id.to_string());
    let mut response = gateway
        .send(
            Method::GET,
            "/v1/events",
            &[("last-event-id", &id), ("accept", "text/event-stream")],
            None,
        )
        .await?;
    let mut rest = String::new();
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(Exit::unreachable)?;
        let Some(data) = frame.data_ref() else { continue };
        rest.push_str(&String::from_utf8_lossy(data));
        while let Some(end) = rest.find("\n\n") {
            let block: String = rest.drain(..end + 2).collect();
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(event) = data.and_then(|data| serde_json::from_str::<Value>(data).ok()) {
                *seen = event["id"].as_u64().or(*seen);
                print(&event, args.client.json);
            }
        }
    }
    Ok(())
}

fn print(event: &Value, json: bool) {
    if json {
        out::line(&event.to_string());
    } else {
        out::line(&format!(
            "{}  {:16}  {}",
            text(event, "at"),
            text(event, "kind"),
            text(event, "text")
        ));
    }
}
