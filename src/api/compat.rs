//! The prototype's URLs: `/api/{pdu}/retdata`, `/api/{pdu}/outlet{X}/{n}/power_on` and its kin.

use hyper::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::model::metric::{Metric, Scope};
use crate::model::reading::Datum;
use crate::model::switching::Action;
use crate::model::topology::Part;
use crate::model::view::PduView;
use crate::switching::Target;
use crate::wire::plan::PlanBody;
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json};
use super::power::{answer, carry_out, outlet_of};
use super::problem::{bad, not_found};

/// An outlet as the prototype showed it.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Retdata {
    outlet: String,
    status: &'static str,
    power: Option<f64>,
    energy: Option<f64>,
    temp: Option<f64>,
    voltage: Option<f64>,
    current: Option<f64>,
    frequency: Option<f64>,
    phase: String,
    meter: String,
    location: String,
    id: String,
}

/// The first outlet, or the one that `?outlet=B` names, and all of them beside it.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct RetdataList {
    #[serde(flatten)]
    first: Retdata,
    outlets: Vec<Retdata>,
}

/// An outlet's letter: A, B, … Z, AA, AB, …
fn letter(number: u16) -> String {
    let mut rest = u32::from(number);
    let mut letters = Vec::new();
    while rest > 0 {
        rest -= 1;
        letters.push(b'A' + (rest % 26) as u8);
        rest /= 26;
    }
    letters.iter().rev().map(|b| char::from(*b)).collect()
}

fn value(view: &PduView, scope: Scope, part: u16, metric: Metric) -> Option<f64> {
    match view.shown(scope, part, metric)? {
        Datum::Value(kept) => metric.unit().map(|unit| unit.to_f64(kept)),
        _ => None,
    }
}

fn entry(view: &PduView, at: u16, part: &Part) -> Retdata {
    let own = |metric| value(view, Scope::Outlet, at, metric);
    let branch = part.branch.and_then(|b| view.layout.parts(Scope::Branch).get(usize::from(b)));
    let phase = part.phase.or_else(|| branch.and_then(|branch| branch.phase)).unwrap_or(0);
    let of_feed = |metric| {
        value(view, Scope::Phase, phase, metric).or_else(|| value(view, Scope::Inlet, 0, metric))
    };
    let sensors = 0..view.layout.parts(Scope::Sensor).len() as u16;
    Retdata {
        outlet: letter(part.number),
        status: match view.outlet_state(at) {
            Ok(word) => match word.word() {
                "on" => "ON",
                "off" => "OFF",
                "pending" => "PENDING",
                _ => "UNKNOWN",
            },
            Err(_) => "UNKNOWN",
        },
        power: own(Metric::Power),
        energy: own(Metric::Energy),
        temp: sensors
            .clone()
            .find_map(|sensor| value(view, Scope::Sensor, sensor, Metric::Temperature)),
        voltage: own(Metric::Voltage).or_else(|| of_feed(Metric::Voltage)),
        current: own(Metric::Current),
        frequency: own(Metric::Frequency).or_else(|| of_feed(Metric::Frequency)),
        phase: format!("L{}", phase + 1),
        meter: format!("M{}", part.branch.map_or(1, |branch| branch + 1)),
        location: view.location.as_deref().unwrap_or("").to_owned(),
        id: view.id.to_string(),
    }
}

/// The readings of a PDU in the prototype's form.
#[utoipa::path(get, path = "/api/{pdu}/retdata", tag = "prototype",
    params(("pdu" = String, Path, description = "its id"), ("outlet" = Option<String>, Query, description = "letter of the outlet that stands first"),
        ("max_age_ms" = Option<u64>, Query, description = "how old the reading may be")),
    responses((status = 200, body = RetdataList), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn retdata(context: Context) -> Answer {
    context.only(&["outlet", "max_age_ms"])?;
    let view = super::pdus::view(&context).await?;
    let outlets: Vec<Retdata> = view.outlets().map(|(at, part)| entry(&view, at, part)).collect();
    let wanted = context.query::<String>("outlet", "letter")?;
    let first = match &wanted {
        Some(letter) => outlets.iter().find(|outlet| outlet.outlet.eq_ignore_ascii_case(letter)),
        None => outlets.first(),
    };
    let first = first
        .cloned()
        .ok_or_else(|| not_found(&format!("such outlet on PDU {} as far as is known", view.id)))?;
    json(StatusCode::OK, &RetdataList { first, outlets })
}

/// Switches on.
#[utoipa::path(method(post, patch), path = "/api/{pdu}/{outlet}/{n}/power_on", tag = "prototype",
    params(("pdu" = String, Path, description = "its id"), ("outlet" = String, Path, description = "outletA and so on: its letter, or that of its branch"), ("n" = u16, Path, description = "its number")),
    responses((status = 200, body = PlanBody), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 504, body = Problem, content_type = "application/problem+json")))]
pub async fn power_on(context: Context) -> Answer {
    switch(&context, Action::On).await
}

/// Switches off.
#[utoipa::path(method(post, patch), path = "/api/{pdu}/{outlet}/{n}/power_off", tag = "prototype",
    params(("pdu" = String, Path, description = "its id"), ("outlet" = String, Path, description = "outletA and so on: its letter, or that of its branch"), ("n" = u16, Path, description = "its number")),
    responses((status = 200, body = PlanBody), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 504, body = Problem, content_type = "application/problem+json")))]
pub async fn power_off(context: Context) -> Answer {
    switch(&context, Action::Off).await
}

/// Off, hold, on.
#[utoipa::path(method(post, patch), path = "/api/{pdu}/{outlet}/{n}/power_cycle", tag = "prototype",
    params(("pdu" = String, Path, description = "its id"), ("outlet" = String, Path, description = "outletA and so on: its letter, or that of its branch"), ("n" = u16, Path, description = "its number")),
    responses((status = 200, body = PlanBody), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 504, body = Problem, content_type = "application/problem+json")))]
pub async fn power_cycle(context: Context) -> Answer {
    switch(&context, Action::Cycle).await
}

async fn switch(context: &Context, action: Action) -> Answer {
    context.only(&[])?;
    let outlet = outlet_of(context, context.param("n"))?;
    let view = super::pdus::view(context).await?;
    let at =
        view.layout.outlet(outlet.number).ok_or_else(|| not_found(&format!("outlet {outlet}")))?;
    let part = &view.layout.parts(Scope::Outlet)[usize::from(at)];
    agree(context.param("outlet"), part)?;
    let record =
        carry_out(context, Target::Outlet(outlet), action, "by the prototype's URL".into()).await?;
    answer(&record)
}

/// The path names the outlet twice, by letter and by number. The letter may be the outlet's own (A is 1), that
/// of its branch (A is the first), or the number again; if it is none of these, nothing is switched.
fn agree(segment: &str, part: &Part) -> Result<(), Problem> {
    let shown: String = segment.chars().take(20).collect();
    let name = segment.strip_prefix("outlet").ok_or_else(|| {
        not_found(&format!("such path: \"{shown}\" should be outletA or the like"))
    })?;
    let own = letter(part.number);
    let of_branch = letter(part.branch.unwrap_or(0) + 1);
    let number = part.number.to_string();
    if name.eq_ignore_ascii_case(&own) || name.eq_ignore_ascii_case(&of_branch) || name == number {
        return Ok(());
    }
    Err(bad(
        format!("\"{shown}\" and outlet number {number} do not name the same outlet"),
        format!("write outlet{own}/{number}, or use POST /v1/pdus/{{pdu}}/outlets/{number}/power"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_count_like_columns() {
        assert_eq!([1, 2, 26, 27, 52, 53].map(letter), ["A", "B", "Z", "AA", "AZ", "BA"]);
    }

    #[test]
    fn a_path_that_names_two_outlets_switches_none() {
        let part = Part { number: 9, branch: Some(1), ..Part::default() };
        for good in ["outletI", "outleti", "outletB", "outlet9"] {
            assert!(agree(good, &part).is_ok(), "{good}");
        }
        for bad in ["outletA", "outlet1", "outlet", "I", "outletI9"] {
            assert!(agree(bad, &part).is_err(), "{bad}");
        }
    }
}
