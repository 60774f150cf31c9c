//! `GET /v1/limits`.

use serde::Serialize;
use utoipa::ToSchema;

/// A limit: a breaker, a phase, an inlet, a feed. Powers are apparent powers where the devices tell them: breakers are
/// rated in amperes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LimitBody {
    /// `pdu-a/B1`, `pdu-a/L2`, `pdu-a/I1`, `pdu-a/7`, or as configured.
    pub id: String,
    /// `outlet`, `branch`, `phase`, `inlet`; `feed`, `rack`, or as configured; `pair`: two feeds of which either must
    /// carry both; `failover`: what another carries when its side's twin dies.
    pub kind: String,
    /// Rated, W.
    pub rating_w: f64,
    /// The same where it is rated in amperes: of each phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating_a: Option<f64>,
    /// At so many volts: to neutral, or between lines where it is wired so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voltage_v: Option<f64>,
    /// How many phases carry it.
    pub phases: i64,
    /// How much of the rating may be used, %.
    pub derating_percent: i64,
    /// How much of the rating may flow in the first moment of a load, %.
    pub inrush_percent: i64,
    /// What may flow, W.
    pub budget_w: f64,
    /// What flows, W; with what plans under way will add.
    pub load_w: f64,
    /// The same as a current of each phase, if they share it evenly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_a: Option<f64>,
    /// What is left, W.
    pub headroom_w: f64,
    /// The same as a current of each phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom_a: Option<f64>,
    /// Where rating and load come from.
    pub why: String,
}

/// Every limit.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LimitList {
    /// The limits.
    pub limits: Vec<LimitBody>,
    /// What each outlet is reckoned to draw once it is switched on.
    pub draws: Vec<DrawBody>,
}

/// What an outlet is reckoned to draw once it is switched on; apparent powers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DrawBody {
    /// The outlet.
    pub outlet: String,
    /// For long, W.
    pub steady_w: f64,
    /// While it starts up, W.
    pub boot_w: f64,
    /// How long that lasts, s.
    pub boot_s: f64,
    /// In its first moment, W.
    pub inrush_w: f64,
    /// Where that comes from: configured, learned from so many switch-ons, measured, or the default.
    pub source: String,
}
