//! Which series a query is about: targets, or all outlets of PDUs, hosts and groups; and what they are folded into.

use std::collections::BTreeMap;

use crate::model::id::{GroupId, HostId, OutletId, PduId};
use crate::model::limits::SERIES_POINTS;
use crate::model::metric::{Metric, Scope};
use crate::model::reading::Gap;
use crate::model::time::{Span, Stamp};
use crate::series::window::{Aggregate, Bucket, Buckets};
use crate::store::Archive;
use crate::store::reader::{Item, Scan, Series, parts, scan, target};
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

/// Steps of all series of one PDU that may be in memory at once.
const HELD: usize = 2_000_000;

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
                found.push(Series { pdu, part, metric });
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
    let (store, pdu) = (context.state.store.clone(), pdu.clone());
    let found = tokio::task::spawn_blocking(move || parts(&store, &pdu, metric)).await;
    let found = found.map_err(|error| {
        Problem::new(500, "Internal error", error.to_string(), "report this with the request")
    })??;
    // Outlets go by numbers; inlets, phases and branches by letters and numbers.
    Ok(found.into_iter().filter(|part| part.parse::<u16>().is_ok()).collect())
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
    fn steps(&self) -> usize {
        (self.end.since(self.start).0.div_ceil(self.step.0.max(1))) as usize
    }
}

/// What a fold says of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Folded {
    /// When the step begins.
    pub at: Stamp,
    /// The number, or why there is none.
    pub value: Result<f64, Gap>,
    /// Some of the series have no number here.
    pub partial: bool,
}

/// The steps of each series, shown one after the other; those of one PDU are read together.
pub fn each(
    store: &Archive,
    all: &[Series],
    window: &Window,
    show: &mut dyn FnMut(&Series, Vec<Bucket>),
) -> Result<(), Problem> {
    if window.steps() > SERIES_POINTS {
        return Err(bad(
            format!("that makes more than {SERIES_POINTS} steps"),
            "ask for a larger step or a shorter time",
        ));
    }
    let at_once = (HELD / window.steps().max(1)).max(1);
    // A rate needs the reading before the window.
    let needs_before = matches!(window.how, Aggregate::Rate);
    let back = if needs_before { window.step.0.max(600_000) } else { 0 };
    let from = Stamp(window.start.0.saturating_sub(i64::try_from(back).unwrap_or(i64::MAX)));
    for of_pdu in all.chunk_by(|a, b| a.pdu == b.pdu) {
        for some in of_pdu.chunks(at_once) {
            let columns: Vec<(String, Metric)> =
                some.iter().map(|series| (series.part.clone(), series.metric)).collect();
            let new = || Buckets::new(window.start, window.end, window.step, window.how);
            let mut buckets: Vec<Buckets> = some.iter().map(|_| new()).collect();
            let step = Some((window.start, window.step));
            let (pdu, end) = (&some[0].pdu, window.end);
            let asked = Scan { pdu, columns: &columns, start: from, end, step };
            scan(store, &asked, &mut |number, item| {
                match item {
                    Item::Sample(sample) => buckets[number].take(sample),
                    Item::Rolled(rolled, width) => buckets[number].take_rolled(rolled, width),
                }
                true
            })?;
            some.iter().zip(buckets).for_each(|(series, buckets)| show(series, buckets.finish()));
        }
    }
    Ok(())
}

/// Series folded into groups.
pub fn folded(
    store: &Archive,
    all: &[(Series, String)],
    window: &Window,
    fold: Fold,
) -> Result<BTreeMap<String, Vec<Folded>>, Problem> {
    #[derive(Clone, Copy)]
    struct Sum {
        at: Stamp,
        value: f64,
        known: u32,
        of: u32,
        gap: Gap,
    }
    let groups: BTreeMap<(&PduId, &str), &String> =
        all.iter().map(|(series, group)| ((&series.pdu, series.part.as_str()), group)).collect();
    let mut sums: BTreeMap<String, Vec<Sum>> = BTreeMap::new();
    let only: Vec<Series> = all.iter().map(|(series, _)| series.clone()).collect();
    each(store, &only, window, &mut |series, steps| {
        let Some(group) = groups.get(&(&series.pdu, series.part.as_str())) else { return };
        let sums = sums.entry((*group).clone()).or_insert_with(|| {
            let sum =
                |step: &Bucket| Sum { at: step.at, value: 0.0, known: 0, of: 0, gap: Gap::NotRead };
            steps.iter().map(sum).collect()
        });
        for (sum, step) in sums.iter_mut().zip(&steps) {
            sum.of += 1;
            match step.value {
                Ok(value) => {
                    sum.value = match fold {
                        _ if sum.known == 0 => value,
                        Fold::Sum | Fold::Avg => sum.value + value,
                        Fold::Max => sum.value.max(value),
                        Fold::Min => sum.value.min(value),
                    };
                    sum.known += 1;
                }
                Err(gap) => sum.gap = gap,
            }
        }
    })?;
    let told = |sum: &Sum| {
        let value = match (sum.known, fold) {
            (0, _) => Err(sum.gap),
            (known, Fold::Avg) => Ok(sum.value / f64::from(known)),
            _ => Ok(sum.value),
        };
        Folded { at: sum.at, value, partial: sum.known < sum.of }
    };
    Ok(sums.into_iter().map(|(group, sums)| (group, sums.iter().map(told).collect())).collect())
}
