//! `GET /v1/series`.

use serde::Serialize;
use utoipa::ToSchema;

/// One target, or several.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum SeriesAnswer {
    /// Of one target.
    One(SeriesBody),
    /// Of several, or of a selection.
    Many(ManyBody),
}

/// A series of one target and metric.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SeriesBody {
    /// `pdu-a`, `pdu-a/7`, `pdu-a/L1`, `pdu-a/B2`, `pdu-a/T1`.
    pub target: String,
    /// As `power_w`.
    pub metric: String,
    /// From when, RFC 3339 UTC.
    pub start: String,
    /// Until when.
    pub end: String,
    /// Width of a step; null for the readings as they came.
    pub step_ms: Option<u64>,
    /// `avg`, `min`, `max`, `last` or `rate`; null for the readings as they came.
    pub agg: Option<&'static str>,
    /// Readings or steps, oldest first. A step without a reading, or a reading that failed, is null.
    pub points: Vec<PointBody>,
}

/// One reading or step.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PointBody {
    /// When it was read, or when the step begins.
    pub at: String,
    /// A number, a state's word, or null.
    #[schema(value_type = Option<serde_json::Value>)]
    pub value: PointValue,
    /// `good`, or why there is no value.
    pub quality: &'static str,
}

/// What a reading says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PointValue {
    /// A number.
    Number(f64),
    /// A state.
    Word(&'static str),
    /// Nothing.
    Nothing(()),
}

/// Series of several targets, or what they are folded into.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ManyBody {
    /// As `power_w`.
    pub metric: String,
    /// From when, RFC 3339 UTC.
    pub start: String,
    /// Until when.
    pub end: String,
    /// Width of a step; null for the readings as they came.
    pub step_ms: Option<u64>,
    /// `avg`, `min`, `max`, `last` or `rate`: what a step says of one series; null for the readings as they came.
    pub agg: Option<&'static str>,
    /// `sum`, `avg`, `max` or `min`: what the series of a group become; null if they are not folded.
    pub fold: Option<&'static str>,
    /// `pdu`, `branch`, `host` or `rack`: what is folded together.
    pub by: Option<&'static str>,
    /// The series.
    pub series: Vec<OneBody>,
}

/// One of several series.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OneBody {
    /// The target, or the name of the group.
    pub target: String,
    /// Steps, oldest first. The quality of one that lacks some of its series is `partial`.
    pub points: Vec<PointBody>,
}
