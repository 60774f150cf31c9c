//! `GET /v1/energy`.

use serde::Serialize;
use utoipa::ToSchema;

/// Energy of hosts, PDUs or outlets, period by period.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EnergyBody {
    /// From when, RFC 3339 UTC.
    pub start: String,
    /// Until when.
    pub end: String,
    /// `hour`, `day`, `month` or `all`, in UTC.
    pub period: &'static str,
    /// What was asked for, in order of its names.
    pub of: Vec<ConsumerBody>,
}

/// One consumer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConsumerBody {
    /// The host, the PDU or the outlet.
    pub id: String,
    /// All of the window; null if nothing was read.
    pub energy_wh: Option<f64>,
    /// `good`; `partial` if a part of it or of the time has no readings, `missing` if all of it; `estimated` if only hours or
    /// minutes are left of a time and a period begins or ends within one, which is shared out by time, or if nothing was read
    /// around its beginning: what was used meanwhile is in the period of the next reading.
    pub quality: &'static str,
    /// How often its counters were reset in the window: what was counted before and after is in the sum.
    pub resets: u64,
    /// The periods.
    pub periods: Vec<PeriodBody>,
}

/// One period.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PeriodBody {
    /// When it begins.
    pub start: String,
    /// What was counted; null if nothing was read.
    pub energy_wh: Option<f64>,
    /// As above.
    pub quality: &'static str,
}
