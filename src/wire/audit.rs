//! `GET /v1/audit`.

use serde::Serialize;
use utoipa::ToSchema;

/// A line of the audit. Its hash is the SHA-256 of: seq and at_ms as 8 bytes each, big-endian; then kind, by, about, text
/// and prev, each as its length in bytes (8 bytes, big-endian) and its UTF-8.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditBody {
    /// From 1, without holes.
    pub seq: u64,
    /// When, RFC 3339 UTC.
    pub at: String,
    /// The same, ms since 1970.
    pub at_ms: i64,
    /// What kind, as `plan.accepted`, `step.intended`, `step.ended`.
    pub kind: String,
    /// Who did it.
    pub by: String,
    /// About what.
    pub about: String,
    /// A sentence.
    pub text: String,
    /// The hash of the line before.
    pub prev: String,
    /// The hash of this one.
    pub hash: String,
}

/// Lines of the audit.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditList {
    /// Lines, oldest first.
    pub entries: Vec<AuditBody>,
    /// What to give as `cursor` for the next page; null on the last.
    pub next_cursor: Option<u64>,
    /// The last line of the chain.
    pub head_seq: u64,
    /// Its hash.
    pub head_hash: String,
    /// Whether the whole chain is sound, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// Where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}
