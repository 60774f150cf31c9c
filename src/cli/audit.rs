//! `pmgate audit …`.

use anyhow::anyhow;
use serde_json::Value;

use crate::audit::{Entry, Head, verify};

use super::args::{Audit, Client};
use super::exit::{Exit, Outcome};
use super::out;
use super::pdu::{number, text};
use super::remote::Gateway;

/// Lines in one answer.
const PAGE: usize = 1_000;

/// Carries a command about the audit out.
pub async fn run(command: Audit) -> Outcome {
    match command {
        Audit::List { last, client } => list(last, &client).await,
        Audit::Verify { client } => check(&client).await,
    }
}

async fn list(last: u32, client: &Client) -> Outcome {
    let path = format!("/v1/audit?last={last}&limit={PAGE}");
    let page = Gateway::connect(client).await?.get(&path).await?;
    if client.json {
        return out::json(&page);
    }
    let lines = page["entries"].as_array().cloned().unwrap_or_else(Vec::new);
    let row = |line: &Value| {
        let mut row = vec![number(line, "seq")];
        row.extend(["at", "kind", "by", "about", "text"].map(|key| text(line, key)));
        row
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    out::table(&["LINE", "AT", "KIND", "BY", "ABOUT", ""], &rows);
    Ok(())
}

/// Reads the chain from its first line and checks every hash here; the gateway checks its own as well.
async fn check(client: &Client) -> Outcome {
    let mut gateway = Gateway::connect(client).await?;
    let mut head: Option<Head> = None;
    let (mut first, mut count) = (None, 0);
    loop {
        let cursor = head.as_ref().map_or(0, |head| head.seq);
        let path = format!("/v1/audit?limit={PAGE}&cursor={cursor}&verify={}", cursor == 0);
        let page = gateway.get(&path).await?;
        if page["verified"] == Value::Bool(false) {
            return Err(Exit::failed(anyhow!("the gateway says: {}", text(&page, "broken"))));
        }
        let lines = page["entries"].as_array().into_iter().flatten();
        let entries: Vec<Entry> = lines.map(entry).collect::<Result<_, _>>()?;
        let Some(last) = entries.last() else { break };
        // The oldest may have been dropped: the first line that is there says what it follows.
        let before =
            head.unwrap_or_else(|| Head { seq: entries[0].seq - 1, hash: entries[0].prev.clone() });
        first.get_or_insert(entries[0].seq);
        let end = last.head();
        verify(&before, &entries, &end).map_err(Exit::failed)?;
        count += entries.len();
        head = Some(end);
        if page["next_cursor"].is_null() {
            break;
        }
    }
    if client.json {
        return out::json(&serde_json::json!({ "lines": count, "first": first, "sound": true }));
    }
    out::line(&format!("{count} lines, each follows the one before"));
    Ok(())
}

fn entry(line: &Value) -> Result<Entry, Exit> {
    let word = |key: &str| text(line, key);
    let number = |key: &str| {
        line[key].as_i64().ok_or_else(|| Exit::failed(anyhow!("a line of the audit has no {key}")))
    };
    Ok(Entry {
        seq: u64::try_from(number("seq")?).map_err(Exit::failed)?,
        at: number("at_ms")?,
        kind: word("kind"),
        by: word("by"),
        about: word("about"),
        text: word("text"),
        prev: word("prev"),
        hash: word("hash"),
    })
}
