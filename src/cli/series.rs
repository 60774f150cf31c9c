//! `pmgate series`.

use hyper::Method;
use serde_json::Value;

use super::args::Series;
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
    let accept = if args.csv { "text/csv" } else { "application/json" };
    let answer = Gateway::connect(&args.client)
        .await?
        .text(Method::GET, &path, &[("accept", accept)], None)
        .await?;
    if args.csv {
        out::line(answer.trim_end());
        return Ok(());
    }
    let series: Value = serde_json::from_str(&answer).map_err(Exit::failed)?;
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
