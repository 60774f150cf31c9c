//! Errors over HTTP: `application/problem+json` (RFC 9457) with the step that helps.

use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of problem.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was tried, on what, and what came of it.
    pub detail: String,
    /// The step that helps.
    pub next: String,
    /// The plan that this is about, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The limit that would be passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What flows there, W.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_w: Option<i64>,
    /// What is left there, W.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom_w: Option<i64>,
    /// What is needed there, W.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs_w: Option<i64>,
    /// Without these outlets the rest would fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<String>,
    /// What came of a switching that was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

impl Problem {
    /// A problem.
    pub fn new(
        status: u16,
        title: &str,
        detail: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            title: title.to_owned(),
            status,
            detail: detail.into(),
            next: next.into(),
            plan: None,
            limit: None,
            load_w: None,
            headroom_w: None,
            needs_w: None,
            leave_out: Vec::new(),
            outcome: None,
        }
    }
}
