//! Which series a query is about: targets, or all outlets of PDUs, hosts and groups; and what they are folded into.

use crate::model::id::{GroupId, HostId, OutletId, PduId};
use crate::model::metric::{Metric, Scope};
use crate::model::time::{Span, Stamp};
use crate::model::topology::Slot;
use crate::series::window::Aggregate;
use crate::store::reader::{Series, is_stored, parts, target};
use crate::wire::problem::Problem;

use super::context::{Context, State};
use super::problem::{bad, not_found};

/// What several series become at each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Their sum.
    Sum,
    /// Their mean.
    Avg,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl Fold {
    /// By name.
    pub const ALL: [(&'static str, Fold); 4] =
        [("sum", Fold::Sum), ("avg", Fold::Avg), ("max", Fold::Max), ("min", Fold::Min)];
}

/// What is folded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// All of a PDU.
    Pdu,
    /// All of a branch of a PDU.
    Branch,
    /// All of a host.
    Host,
    /// All.
    Rack,
}

impl By {
    /// By name.
    pub const ALL: [(&'static str, By); 4] =
        [("pdu", By::Pdu), ("branch", By::Branch), ("host", By::Host), ("rack", By::Rack)];
}

/// The series that a query names: `target` as often as needed, or `pdu`, `host`, `group`; `pdu=*` is all of them.
pub async fn select(context: &Context, metric: Metric) -> Result<Vec<Series>, Problem> {
    let mut found = Vec::new();
    let site = context.state.site.borrow().clone();
    for (key, value) in &context.query {
        let missing =
            || not_found(&format!("{key} \"{}\"", value.chars().take(64).collect::<String>()));
        let outlet =
            |id: &OutletId| Series { pdu: id.pdu.clone(), part: id.number.to_string(), metric };
        match key.as_str() {
            "target" => {
                let (pdu, part) = target(value)
                    .map_err(|error| bad(error.to_string(), "write target=pdu-a/7 or the like"))?;
                if context.state.fleet.get(&pdu).is_none() {
                    return Err(not_found(&format!("PDU \"{pdu}\"")));
                }
                let series = Series { pdu, part, metric };
                there_is(context, &series).await?;
                found.push(series);
            }
            "pdu" => {
                let views = context.state.board.views();
                let of: Vec<_> =
                    views.iter().filter(|view| value == "*" || view.id.as_str() == value).collect();
                if of.is_empty() {
                    return Err(missing());
                }
                for view in of {
                    let mut parts: Vec<String> =
                        view.outlets().map(|(_, part)| part.id.clone()).collect();
                    if parts.is_empty() {
                        parts = stored_outlets(context, &view.id, metric).await?;
                    }
                    let of = |part| Series { pdu: view.id.clone(), part, metric };
                    found.extend(parts.into_iter().map(of));
                }
            }
            "host" => {
                let id: HostId = value.parse().map_err(|_| missing())?;
                let host = site.hosts.get(&id).ok_or_else(missing)?;
                found.extend(host.outlets.iter().map(outlet));
            }
            "group" => {
                let id: GroupId = value.parse().map_err(|_| missing())?;
                let group = site.groups.get(&id).ok_or_else(missing)?;
                found.extend(group.outlets.iter().map(outlet));
                let hosts = group.hosts.iter().filter_map(|id| site.hosts.get(id));
                found.extend(hosts.flat_map(|host| &host.outlets).map(outlet));
            }
            _ => {}
        }
    }
    found.sort_by(|a, b| (&a.pdu, order(&a.part)).cmp(&(&b.pdu, order(&b.part))));
    found.dedup();
    Ok(found)
}

/// The outlets of a PDU that has not been reached since the start.
async fn stored_outlets(
    context: &Context,
    pdu: &PduId,
    metric: Metric,
) -> Result<Vec<String>, Problem> {
    let pdu = pdu.clone();
    let found = context.state.in_turn(move |store| Ok(parts(store, &pdu, metric)?)).await?;
    // Outlets go by numbers; inlets, phases and branches by letters and numbers.
    Ok(found.into_iter().filter(|part| part.parse::<u16>().is_ok()).collect())
}

/// Refuses a part that a PDU does not have, or of which it does not tell this, unless it did once. Of a PDU that was not
/// reached since the start nobody knows.
async fn there_is(context: &Context, series: &Series) -> Result<(), Problem> {
    let Series { pdu, part, metric } = series;
    let views = context.state.board.views();
    let layout = views.iter().find(|view| view.id == *pdu).map(|view| &view.layout);
    let Some(layout) = layout.filter(|layout| !layout.slots().is_empty()) else { return Ok(()) };
    let of = |slot: &Slot| layout.parts(slot.scope).get(usize::from(slot.part));
    let of_part = layout.slots().iter().filter(|slot| of(slot).is_some_and(|of| of.id == *part));
    let told: Vec<Metric> =
        of_part.map(|slot| slot.metric).filter(|metric| metric.is_series()).collect();
    if told.contains(metric) {
        return Ok(());
    }
    let wanted = series.clone();
    if context.state.in_turn(move |store| Ok(is_stored(store, &wanted)?)).await? {
        return Ok(());
    }
    let (what, next) = if told.is_empty() {
        (format!("part \"{part}\" of PDU \"{pdu}\""), format!("GET /v1/pdus/{pdu} shows its parts"))
    } else {
        let told: Vec<&str> = told.into_iter().map(Metric::key).collect();
        (format!("{} of \"{pdu}/{part}\"", metric.key()), format!("it has {}", told.join(", ")))
    };
    Err(Problem { next, ..not_found(&what) })
}

fn order(part: &str) -> (Option<u32>, &str) {
    (part.parse().ok(), part)
}

/// The name of what a series is folded into.
pub fn group_of(state: &State, series: &Series, by: By) -> String {
    match by {
        By::Rack => state.rack.to_string(),
        By::Pdu => series.pdu.to_string(),
        By::Host => {
            let site = state.site.borrow().clone();
            let number = series.part.parse::<u16>().ok();
            let outlet = number.map(|number| OutletId { pdu: series.pdu.clone(), number });
            let host =
                outlet.and_then(|outlet| site.host_of(&outlet).map(|(id, _)| id.to_string()));
            host.unwrap_or_else(|| format!("{}/{}", series.pdu, series.part))
        }
        By::Branch => branch_of(state, &series.pdu, &series.part)
            .map_or_else(|| series.pdu.to_string(), |branch| format!("{}/{branch}", series.pdu)),
    }
}

fn branch_of(state: &State, pdu: &PduId, part: &str) -> Option<String> {
    let views = state.board.views();
    let view = views.iter().find(|view| view.id == *pdu)?;
    let parts = view.layout.parts(Scope::Outlet);
    let branch = parts.iter().find(|known| known.id == part)?.branch?;
    Some(view.layout.parts(Scope::Branch).get(usize::from(branch))?.id.clone())
}

/// A window of steps.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// From when.
    pub start: Stamp,
    /// Until before when.
    pub end: Stamp,
    /// How wide a step is.
    pub step: Span,
    /// What a step says of one series.
    pub how: Aggregate,
}

impl Window {
    /// How many steps.
    pub fn steps(&self) -> usize {
        self.end.since(self.start).0.div_ceil(self.step.0.max(1)) as usize
    }

    /// How wide a step is, ms; at least one.
    pub fn step_ms(&self) -> i64 {
        i64::try_from(self.step.0.max(1)).unwrap_or(i64::MAX)
    }
}
