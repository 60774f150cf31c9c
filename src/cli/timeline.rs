//! What a plan does to the limits and hosts, as text: of each limit what it may carry, what flows now, the most that will flow
//! and when, and how that goes up and down.

use serde_json::Value;

use super::out;
use super::pdu::{number, text};

/// Beside a peak of more than all of what may flow for long.
const BRIEFLY: &str =
    "Over 100 %: the first moment of what comes on, no longer than a breaker stands it.";
/// Moments of a line that are told.
const TOLD: usize = 6;

/// Prints it. `limits` are those of `GET /v1/limits`.
pub fn print(plan: &Value, limits: &[Value]) {
    let lines = plan["timeline"].as_array().map_or(&[][..], Vec::as_slice);
    if !lines.is_empty() {
        let rows: Vec<Vec<String>> = lines.iter().map(|line| row(line, limits)).collect();
        out::line("");
        out::table(&["LIMIT", "RATED W", "MAY W", "NOW W", "PEAK W", "AT", "OF MAY"], &rows);
        if lines.iter().any(|line| passes_for_a_moment(line, limits)) {
            out::line(BRIEFLY);
        }
        out::line("");
        lines.iter().for_each(|line| {
            out::line(&format!("{}: {}", text(line, "limit"), course(&points(line))));
        });
        out::line("");
    }
    for host in plan["goes_dark"].as_array().into_iter().flatten() {
        out::line(&format!("host {} goes dark", host.as_str().unwrap_or("?")));
    }
    for host in plan["loses_redundancy"].as_array().into_iter().flatten() {
        out::line(&format!("host {} loses a feed", host.as_str().unwrap_or("?")));
    }
}

fn row(line: &Value, limits: &[Value]) -> Vec<String> {
    let of = limits.iter().find(|limit| limit["id"] == line["limit"]).unwrap_or(&Value::Null);
    let (at, peak) = highest(&points(line)).map_or((None, None), |(at, w)| (Some(at), Some(w)));
    vec![
        text(line, "limit"),
        watts(of["rating_w"].as_f64()),
        number(line, "budget_w"),
        watts(of["load_w"].as_f64()),
        watts(peak),
        at.map_or_else(unknown, seconds),
        share(line).map_or_else(unknown, |share| format!("{:.0} %", 100.0 * share)),
    ]
}

/// Whether a plan takes a limit beyond what may flow for long; what flows already is no doing of its.
fn passes_for_a_moment(line: &Value, limits: &[Value]) -> bool {
    let points = points(line);
    // What begins at once is in the first point.
    let now = limits.iter().find(|limit| limit["id"] == line["limit"]);
    let now = now.and_then(|limit| limit["load_w"].as_f64()).or(points.first().map(|of| of.1));
    let rises = highest(&points).zip(now).is_some_and(|(peak, now)| peak.1 > now + 0.5);
    rises && share(line).is_some_and(|share| share > 1.0)
}

/// The most that will flow, as a part of what may flow for long.
fn share(line: &Value) -> Option<f64> {
    let may = line["budget_w"].as_f64().filter(|may| *may > 0.0)?;
    highest(&points(line)).map(|(_, peak)| peak / may)
}

fn unknown() -> String {
    "?".to_owned()
}

fn watts(value: Option<f64>) -> String {
    value.map_or_else(unknown, |watts| format!("{watts:.0}"))
}

/// Milliseconds as seconds, or minutes and seconds.
pub fn seconds(ms: u64) -> String {
    if ms < 120_000 {
        return format!("{} s", out::number((ms as f64 / 100.0).round() / 10.0));
    }
    let seconds = (ms + 500) / 1_000;
    format!("{} min {} s", seconds / 60, seconds % 60)
}

fn points(line: &Value) -> Vec<(u64, f64)> {
    let points = line["points"].as_array().into_iter().flatten();
    points.filter_map(|point| Some((point["at_ms"].as_u64()?, point["load_w"].as_f64()?))).collect()
}

/// The first moment at which the most flows.
fn highest(points: &[(u64, f64)]) -> Option<(u64, f64)> {
    points.iter().copied().reduce(|most, point| if point.1 > most.1 { point } else { most })
}

/// "1200 W at first, 2150 W from 2.5 s, …": those moments at which most changes.
fn course(points: &[(u64, f64)]) -> String {
    let Some((first, rest)) = points.split_first() else { return "nothing is told".to_owned() };
    let peak = highest(points).unwrap_or(*first);
    let mut kept: Vec<(u64, f64)> = vec![*first];
    for point in rest {
        // What is as good as before is no change.
        if (point.1 - kept[kept.len() - 1].1).abs() >= 0.5 {
            kept.push(*point);
        }
    }
    let all = kept.len();
    while kept.len() > TOLD {
        let change = |at: usize| (kept[at].1 - kept[at - 1].1).abs();
        let droppable = (1..kept.len() - 1).filter(|at| kept[*at] != peak);
        let Some(least) = droppable.min_by(|a, b| change(*a).total_cmp(&change(*b))) else { break };
        kept.remove(least);
    }
    let from = |(at, load): &(u64, f64)| format!("{load:.0} W from {}", seconds(*at));
    let mut told = vec![format!("{:.0} W at first", first.1)];
    told.extend(kept.iter().skip(1).map(from));
    let left = all - kept.len();
    let more = if left > 0 { format!(" ({left} lesser changes left out)") } else { String::new() };
    format!("{}{more}", told.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_told_by_its_greatest_changes_and_never_without_its_peak() {
        let course_of = |loads: &[f64]| {
            let points: Vec<(u64, f64)> = (0..).step_by(1_500).zip(loads.iter().copied()).collect();
            course(&points)
        };
        assert_eq!(course_of(&[]), "nothing is told");
        assert_eq!(course_of(&[100.0, 100.2, 100.0]), "100 W at first");
        assert_eq!(
            course_of(&[100.0, 300.0, 150.0]),
            "100 W at first, 300 W from 1.5 s, 150 W from 3 s"
        );
        // The peak is reached by the smallest step of all.
        let told =
            course_of(&[100.0, 500.0, 200.0, 600.0, 601.0, 300.0, 500.0, 250.0, 260.0, 240.0]);
        assert!(told.contains("601 W from 6 s"), "{told}");
        assert!(told.starts_with("100 W at first, "), "{told}");
        assert!(told.contains("240 W from 13.5 s"), "what flows in the end: {told}");
        assert!(told.ends_with("(4 lesser changes left out)"), "{told}");
    }

    #[test]
    fn a_limit_is_told_with_its_rating_what_flows_and_the_peak_with_its_moment() {
        let line = json!({"limit": "feed-a", "budget_w": 800.0, "peak_w": 800.0, "points": [
            {"at_ms": 0, "load_w": 200.0}, {"at_ms": 2_500, "load_w": 600.4},
            {"at_ms": 130_000, "load_w": 600.4}]});
        let limits =
            [json!({"id": "feed-b"}), json!({"id": "feed-a", "rating_w": 1000.0, "load_w": 190.0})];
        assert_eq!(row(&line, &limits), ["feed-a", "1000", "800", "190", "600", "2.5 s", "75 %"]);
        assert_eq!(row(&line, &[])[1], "?", "a limit that is gone");
        let of = |loads: [f64; 2]| {
            json!({"limit": "feed-a", "budget_w": 800.0, "points": [
                {"at_ms": 0, "load_w": loads[0]}, {"at_ms": 900, "load_w": loads[1]}]})
        };
        assert!(passes_for_a_moment(&of([200.0, 900.0]), &limits));
        assert!(passes_for_a_moment(&of([900.0, 200.0]), &limits), "it comes on at once");
        assert!(!passes_for_a_moment(&of([900.0, 200.0]), &[]), "it flows already");
        assert!(!passes_for_a_moment(&of([200.0, 800.0]), &limits));
        assert_eq!(seconds(130_499), "2 min 10 s");
    }
}
