//! `GET /v1/status` and `GET /v1/version`.

use serde::Serialize;
use utoipa::ToSchema;

/// How the gateway is doing.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StatusBody {
    /// `ok`, or `degraded` with reasons in `alarms`.
    pub state: &'static str,
    /// The rack.
    pub rack: String,
    /// The version of the program.
    pub version: &'static str,
    /// When the gateway started, RFC 3339 UTC.
    pub started_at: String,
    /// How long ago that was.
    pub uptime_ms: u64,
    /// PDUs by state.
    pub pdus: PduCounts,
    /// What an operator should look at.
    pub alarms: Vec<String>,
    /// The store.
    pub store: StoreBody,
    /// The certificate that the gateway shows expires at this time.
    pub certificate_expires_at: Option<String>,
    /// Plans that are being carried out.
    pub running_plans: usize,
}

/// PDUs by state.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct PduCounts {
    /// Answering.
    pub online: usize,
    /// Not answering since a short while.
    pub stale: usize,
    /// Not answering.
    pub offline: usize,
}

/// The store.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct StoreBody {
    /// `sled`, or `memory` where no disk can be used.
    pub kind: &'static str,
    /// Rows written since the start.
    pub rows_written: u64,
    /// Rows dropped since the start, because the store could not keep up or failed.
    pub rows_dropped: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What runs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VersionBody {
    /// The program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The API that it serves.
    pub api: &'static str,
}
