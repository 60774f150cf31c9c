//! `pmgate events`.

use serde_json::Value;

use super::args::Events;
use super::exit::{Exit, Outcome};
use super::follow::Stream;
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
    let mut stream = Stream::open(gateway, Some(seen.unwrap_or(0))).await?;
    while let Some(event) = stream.next().await? {
        *seen = event["id"].as_u64().or(*seen);
        print(&event, args.client.json);
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
