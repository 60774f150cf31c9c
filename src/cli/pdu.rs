//! `pmgate pdu …`, and how a PDU is printed.

use serde_json::Value;

use super::args::Pdu;
use super::exit::Outcome;
use super::out;
use super::remote::{Gateway, escape};

/// Carries a command about PDUs out.
pub async fn run(command: Pdu) -> Outcome {
    match command {
        Pdu::List { client } => {
            let pdus = Gateway::connect(&client).await?.list("/v1/pdus", "pdus").await?;
            if client.json {
                return out::json(&pdus);
            }
            let row = |pdu: &Value| {
                let (model, power) = (text(pdu, "model"), number(&pdu["inlet"], "power_w"));
                let outlets = pdu["outlets"].as_array().map_or(0, Vec::len).to_string();
                vec![
                    text(pdu, "id"),
                    text(pdu, "state"),
                    power,
                    outlets,
                    model,
                    text(pdu, "driver"),
                    text(pdu, "name"),
                ]
            };
            out::table(
                &["PDU", "STATE", "W", "OUTLETS", "MODEL", "DRIVER", "NAME"],
                &pdus.iter().map(row).collect::<Vec<_>>(),
            );
            Ok(())
        }
        Pdu::Show { id, max_age_ms, client } => {
            let query = max_age_ms.map_or(String::new(), |ms| format!("?max_age_ms={ms}"));
            let pdu = Gateway::connect(&client)
                .await?
                .get(&format!("/v1/pdus/{}{query}", escape(&id)))
                .await?;
            if client.json { out::json(&pdu) } else { print(&pdu) }
        }
    }
}

/// A text of an object, `-` where there is none.
pub fn text(of: &Value, key: &str) -> String {
    match &of[key] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.into(),
        _ => "-".into(),
    }
}

/// A number of an object: `-` where the device does not have it, `?` where it could not be read.
pub fn number(of: &Value, key: &str) -> String {
    match of.get(key) {
        Some(Value::Number(number)) => out::number(number.as_f64().unwrap_or(f64::NAN)),
        Some(_) => "?".into(),
        None => "-".into(),
    }
}

/// A PDU as a few tables.
pub fn print(pdu: &Value) -> Outcome {
    let age = pdu["age_ms"].as_u64().map_or(String::new(), |ms| format!(", {ms} ms old"));
    out::line(&format!(
        "{}  {}  {} ({}{age})",
        text(pdu, "id"),
        text(pdu, "name"),
        text(pdu, "state"),
        text(pdu, "quality")
    ));
    if let Some(reason) = pdu["reason"].as_str() {
        out::line(&format!("  {reason}"));
    }
    if let Some(reason) = pdu["read_only"].as_str() {
        out::line(&format!("  is read and not switched: {reason}"));
    }
    let who = [
        ("", "vendor"),
        ("", "model"),
        ("serial ", "serial"),
        ("firmware ", "firmware"),
        ("driver ", "driver"),
    ];
    out::line(&format!(
        "  {}",
        who.map(|(label, key)| format!("{label}{}", text(pdu, key))).join("  ")
    ));
    let units = [
        ("power_w", "W"),
        ("apparent_power_va", "VA"),
        ("power_factor", "PF"),
        ("current_a", "A"),
        ("voltage_v", "V"),
        ("frequency_hz", "Hz"),
        ("energy_wh", "Wh"),
    ];
    let inlet = units
        .iter()
        .filter(|(key, _)| pdu["inlet"].get(key).is_some())
        .map(|(key, unit)| format!("{} {unit}", number(&pdu["inlet"], key)));
    out::line(&format!("  inlet  {}", inlet.collect::<Vec<_>>().join("  ")));
    table(
        pdu,
        "phases",
        &[
            ("PHASE", "id"),
            ("V", "voltage_v"),
            ("A", "current_a"),
            ("W", "power_w"),
            ("RATING A", "rating_a"),
        ],
    );
    table(
        pdu,
        "branches",
        &[
            ("BRANCH", "id"),
            ("A", "current_a"),
            ("W", "power_w"),
            ("RATING A", "rating_a"),
            ("BREAKER", "breaker"),
        ],
    );
    table(
        pdu,
        "outlets",
        &[
            ("OUTLET", "number"),
            ("STATE", "state"),
            ("W", "power_w"),
            ("A", "current_a"),
            ("Wh", "energy_wh"),
            ("HOST", "host"),
            ("NAME", "name"),
        ],
    );
    table(
        pdu,
        "sensors",
        &[
            ("SENSOR", "id"),
            ("KIND", "kind"),
            ("°C", "temperature_c"),
            ("%", "humidity_percent"),
            ("NAME", "name"),
        ],
    );
    Ok(())
}

/// A table of the objects under a key, if there are any.
pub fn table(of: &Value, key: &str, columns: &[(&str, &str)]) {
    let Some(items) = of[key].as_array().filter(|items| !items.is_empty()) else { return };
    const TEXTS: [&str; 4] = ["name", "host", "state", "breaker"];
    let cell = |item: &Value, key: &str| match &item[key] {
        Value::String(_) | Value::Bool(_) => text(item, key),
        _ if TEXTS.contains(&key) => text(item, key),
        _ => number(item, key),
    };
    let head: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|(_, key)| cell(item, key)).collect()).collect();
    out::table(&head, &rows);
}
