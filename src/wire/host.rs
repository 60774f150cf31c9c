//! `GET /v1/hosts`: the loads behind the outlets, as configured.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::id::{HostId, OutletId};
use crate::model::metric::{Metric, Scope, Word};
use crate::model::view::PduView;

/// A host with its feeds.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HostBody {
    /// As configured.
    #[schema(value_type = String)]
    pub id: HostId,
    /// As configured.
    pub name: String,
    /// `on` (every feed), `off` (every feed), `partial` (some), `pending`, or `unknown` where a feed's
    /// state is not known.
    pub state: &'static str,
    /// The sum over its feeds; null where a feed's power is not known or not metered.
    pub power_w: Option<f64>,
    /// Its feeds.
    pub feeds: Vec<FeedBody>,
}

/// One feed of a host.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FeedBody {
    /// The outlet.
    #[schema(value_type = String)]
    pub outlet: OutletId,
    /// `on`, `off`, `pending` or `unknown`.
    pub state: &'static str,
    /// W; null where unknown or not metered.
    pub power_w: Option<f64>,
}

/// A page of hosts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HostList {
    /// The hosts, by id.
    pub hosts: Vec<HostBody>,
    /// What to give as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A group with what is in it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct GroupBody {
    /// As configured.
    pub id: String,
    /// As configured.
    pub name: String,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// Its outlets beside them.
    pub outlets: Vec<FeedBody>,
}

/// A page of groups.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct GroupList {
    /// The groups, by id.
    pub groups: Vec<GroupBody>,
    /// What to give as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// The body of a feed, from the view of its PDU.
pub fn feed(outlet: &OutletId, view: Option<&PduView>) -> FeedBody {
    let found = view.and_then(|view| Some((view, view.layout.outlet(outlet.number)?)));
    let state = found.and_then(|(view, at)| view.outlet_state(at).ok());
    let power = found.and_then(|(view, at)| {
        let kept = view.shown(Scope::Outlet, at, Metric::Power)?.value()?;
        Metric::Power.unit().map(|unit| unit.to_f64(kept))
    });
    FeedBody { outlet: outlet.clone(), state: state.map_or("unknown", Word::word), power_w: power }
}

/// The body of a host from its feeds.
pub fn body(id: &HostId, name: &str, feeds: Vec<FeedBody>) -> HostBody {
    let all = |state| feeds.iter().all(|feed| feed.state == state);
    let any = |state| feeds.iter().any(|feed| feed.state == state);
    let state = match () {
        () if any("unknown") => "unknown",
        () if any("pending") => "pending",
        () if all("on") => "on",
        () if all("off") => "off",
        () => "partial",
    };
    let power_w = feeds.iter().map(|feed| feed.power_w).sum();
    HostBody { id: id.clone(), name: name.to_owned(), state, power_w, feeds }
}
