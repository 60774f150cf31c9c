//! The data of `/v1/events`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::event::Event;

/// One event.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventBody {
    /// What to give as `Last-Event-ID` to read on from here.
    pub id: u64,
    /// When, RFC 3339 UTC.
    pub at: String,
    /// What kind, as `pdu.offline`.
    pub kind: String,
    /// The PDU it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pdu: Option<String>,
    /// The outlet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlet: Option<String>,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// A sentence for people.
    pub text: String,
}

/// The body of an event.
pub fn body(event: &Event) -> EventBody {
    let about = &event.about;
    EventBody {
        id: event.id,
        at: event.at.to_string(),
        kind: event.kind.to_owned(),
        pdu: about.pdu.as_ref().map(ToString::to_string),
        outlet: about.outlet.as_ref().map(ToString::to_string),
        host: about.host.as_ref().map(ToString::to_string),
        plan: about.plan.as_ref().map(ToString::to_string),
        text: event.text.clone(),
    }
}
