//! What happened: the lines of `/v1/events`.

use super::id::{HostId, OutletId, PduId, PlanId};
use super::time::Stamp;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Grows by one from event to event; starts anew, higher, at each start of the gateway.
    pub id: u64,
    /// When.
    pub at: Stamp,
    /// What kind, as `pdu.offline`, `outlet.on`, `plan.done`.
    pub kind: &'static str,
    /// About what.
    pub about: About,
    /// A sentence for people.
    pub text: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// A PDU.
    pub pdu: Option<PduId>,
    /// An outlet.
    pub outlet: Option<OutletId>,
    /// A host.
    pub host: Option<HostId>,
    /// A plan.
    pub plan: Option<PlanId>,
}

impl About {
    /// A PDU.
    pub fn pdu(id: &PduId) -> Self {
        Self { pdu: Some(id.clone()), ..Self::default() }
    }

    /// An outlet, and with it its PDU.
    pub fn outlet(id: &OutletId) -> Self {
        Self { pdu: Some(id.pdu.clone()), outlet: Some(id.clone()), ..Self::default() }
    }

    /// A plan.
    pub fn plan(id: &PlanId) -> Self {
        Self { plan: Some(id.clone()), ..Self::default() }
    }
}
