//! `GET /v1/limits`.

use serde::Serialize;
use utoipa::ToSchema;

/// A limit: a breaker, a phase, an inlet, a feed. Powers are apparent powers where the devices tell them: breakers are
/// rated in amperes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LimitBody {
    /// `pdu-a/B1`, `pdu-a/L2`, `pdu-a/I1`, `pdu-a/7`, or as configured.
    pub id: String,
    /// `outlet`, `branch`, `phase`, `inlet`, `feed`, or `pair`: two feeds of which either must carry both.
    pub kind: &'static str,
    /// Rated, W.
    pub rating_w: f64,
    /// How much of the rating may be used, %.
    pub derating_percent: i64,
    /// What may flow, W.
    pub budget_w: f64,
    /// What flows, W; with what plans under way will add.
    pub load_w: f64,
    /// What is left, W.
    pub headroom_w: f64,
    /// Where rating and load come from.
    pub why: String,
}

/// Every limit.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LimitList {
    /// The limits.
    pub limits: Vec<LimitBody>,
}
