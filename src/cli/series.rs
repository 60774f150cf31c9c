//! `pmgate series`.

use anyhow::anyhow;
use serde_json::Value;

use super::args::{Format, Series};
use super::exit::{Exit, Outcome};
use super::out;
use super::pdu::text;
use super::remote::{Gateway, escape};

/// Prints readings over time.
pub async fn run(args: Series) -> Outcome {
    let mut path = format!(
        "/v1/series?target={}&metric={}&start={}&end={}",
        escape(&args.target),
        escape(&args.metric),
        escape(&args.start),
        escape(&args.end)
    );
    for (key, value) in [("step", &args.step), ("agg", &args.agg)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", escape(value)));
        }
    }
    let format = if args.csv { Some(Format::Csv) } else { args.format };
    if format == Some(Format::Arrow) && out::is_terminal() {
        return Err(Exit::usage(anyhow!(
            "an Arrow stream is not for a terminal: write it to a file, as in --format arrow > power.arrows"
        )));
    }
    let mut gateway = Gateway::connect(&args.client).await?;
    if let Some(format) = format {
        let accept = match format {
            Format::Csv => "text/csv",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        };
        return gateway.copy(&path, accept, out::bytes).await;
    }
    let series: Value = gateway.get(&path).await?;
    if args.client.json {
        return out::json(&series);
    }
    let points = series["points"].as_array().cloned().unwrap_or_else(Vec::new);
    let value = |point: &Value| match &point["value"] {
        Value::Number(number) => out::number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(word) => word.clone(),
        _ => format!("? ({})", text(point, "quality")),
    };
    let rows: Vec<Vec<String>> =
        points.iter().map(|point| vec![text(point, "at"), value(point)]).collect();
    out::table(&["AT", &args.metric], &rows);
    Ok(())
}
