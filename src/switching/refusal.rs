//! Why something is not switched. Each says what to do.

use crate::access::Denied;
use crate::model::limits::OPEN_PLANS;
use crate::plan::guard::Hindrance;
use crate::store::journal::JournalError;

/// Why something is not switched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not allowed to this client.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nothing of it may be switched as it stands: unknown, locked, not switchable, not known for certain.
    #[error(transparent)]
    Hindered(#[from] Hindrance),
    /// Another plan is at it.
    #[error("outlet {outlet} is being switched by plan {plan}")]
    Busy {
        /// The outlet.
        outlet: String,
        /// The plan.
        plan: String,
    },
    /// A limit would be passed, or hosts wait for each other.
    #[error(transparent)]
    Unfit(#[from] crate::plan::Refusal),
    /// One outlet is wished two things of.
    #[error("outlet {outlet} is wished {wishes} at once")]
    Conflict {
        /// The outlet.
        outlet: String,
        /// What.
        wishes: String,
    },
    /// The world is no longer the one that the plan was made for.
    #[error("plan {plan} does not fit the rack any more: {difference}")]
    Changed {
        /// The plan.
        plan: String,
        /// In what it differs.
        difference: String,
    },
    /// The digest is not the plan's.
    #[error("the digest is not that of plan {plan}, which is {digest}")]
    OtherDigest {
        /// The plan.
        plan: String,
        /// Its digest.
        digest: String,
    },
    /// The plan is not one that waits to be run.
    #[error("plan {plan} is {state}")]
    NotPlanned {
        /// The plan.
        plan: String,
        /// How it stands.
        state: &'static str,
    },
    /// Others have to agree first.
    #[error("plan {plan} needs the approval of {missing} more")]
    NeedsApproval {
        /// The plan.
        plan: String,
        /// How many.
        missing: usize,
    },
    /// What is asked needs approval, and so a plan.
    #[error("this needs somebody else's approval")]
    NeedsPlan,
    /// Somebody cannot agree to what he asked for, nor twice.
    #[error("{who} made plan {plan}, or has approved it already")]
    OwnApproval {
        /// The plan.
        plan: String,
        /// Who.
        who: String,
    },
    /// An admin has to lift its locks first.
    #[error("plan {plan} names locked outlets")]
    NeedsLift {
        /// The plan.
        plan: String,
    },
    /// It names no locked outlet: there is nothing to lift.
    #[error("plan {plan} names no locked outlet: there is nothing to lift")]
    NothingToLift {
        /// The plan.
        plan: String,
    },
    /// The calendar cannot be read.
    #[error("{0}")]
    Calendar(String),
    /// As many plans wait for their time as may.
    #[error("{OPEN_PLANS} plans are under way or wait for their time: no further one is put off")]
    TooMany,
    /// It is put off to a time that is no such time.
    #[error("not_before is no time from an hour ago until 7 days ahead")]
    NotBefore,
    /// The idempotency key was used for something else.
    #[error("the Idempotency-Key was used before for another request")]
    KeyReused,
    /// A plan begins no further step, and the next start does not know of that.
    #[error(
        "plan {plan} begins no further step, but that could not be made durable: after a restart of the gateway it may go on"
    )]
    NotDurable {
        /// The plan.
        plan: String,
    },
    /// The gateway is ending.
    #[error("the gateway is shutting down")]
    Ending,
    /// The journal failed.
    #[error("nothing is switched while its intent cannot be made durable: {0}")]
    Journal(#[from] JournalError),
}

impl Refusal {
    /// There is no such thing.
    pub(super) fn unknown(what: String) -> Self {
        Refusal::Hindered(Hindrance::Unknown(what))
    }

    /// What it is for: the same of refusals that differ in no more than what was read last.
    pub(super) fn cause(&self) -> String {
        match self {
            Refusal::Unfit(crate::plan::Refusal::Limit { limit, .. }) => format!("room on {limit}"),
            Refusal::Hindered(Hindrance::Doubtful { outlet, .. }) => format!("state of {outlet}"),
            refusal => refusal.to_string(),
        }
    }

    /// The outlet that cannot be switched, where it is one.
    pub(super) fn outlet(&self) -> Option<&str> {
        match self {
            Refusal::Busy { outlet, .. }
            | Refusal::Hindered(
                Hindrance::Locked { outlet, .. }
                | Hindrance::NotSwitchable { outlet, .. }
                | Hindrance::Doubtful { outlet, .. },
            ) => Some(outlet),
            _ => None,
        }
    }

    /// The step that helps.
    pub fn next(&self) -> &'static str {
        match self {
            Refusal::Denied(_) => {
                "ask somebody whose certificate has the role for it (an operator switches, an approver approves, an admin administers), or for a wider grant in the gateway's policy"
            }
            Refusal::Hindered(Hindrance::Unknown(_)) => {
                "list what there is: GET /v1/pdus, GET /v1/hosts"
            }
            Refusal::Hindered(Hindrance::Locked { .. }) => {
                "a lock of the configuration (\"critical\") is lifted for one plan: over_locks, and POST /v1/plans/{id}/lift by an admin; one that was set since is lifted by an admin with DELETE /v1/pdus/{pdu}/outlets/{n}/lock once its reason is gone; what feeds the gateway or its switch is switched at the PDU only"
            }
            Refusal::Hindered(Hindrance::NotSwitchable { .. }) => {
                "see \"switchable\" and \"read_only\" at GET /v1/pdus/{pdu}"
            }
            Refusal::Hindered(Hindrance::Doubtful { .. }) => {
                "see why at GET /v1/pdus/{pdu}; try again once the PDU is online and the outlet's state is on or off"
            }
            Refusal::Busy { .. } => {
                "wait for that plan, GET /v1/plans/{id}, or stop it: POST /v1/plans/{id}/cancel"
            }
            Refusal::Unfit(crate::plan::Refusal::LastFeed { .. }) => {
                "select the host, not its outlet, if it is to go dark; or switch its other feed on first"
            }
            Refusal::Unfit(crate::plan::Refusal::Needs { .. }) => {
                "wish the host that it needs on as well"
            }
            Refusal::Unfit(crate::plan::Refusal::Circle { .. }) => {
                "mend \"after\" of these hosts in the gateway's configuration"
            }
            Refusal::Unfit(_) => {
                "see GET /v1/limits; leave out what \"leave_out\" names, switch something else off first, or try again in a minute if something has just come on"
            }
            Refusal::Conflict { .. } => "wish one thing of each outlet",
            Refusal::Changed { .. } => "make the plan anew: POST /v1/plans with the same goals",
            Refusal::OtherDigest { .. } => {
                "look at the plan, GET /v1/plans/{id}, and send its digest"
            }
            Refusal::NotPlanned { state: "running", .. } => {
                "look at it, GET /v1/plans/{id}, or stop it: POST /v1/plans/{id}/cancel"
            }
            Refusal::NotPlanned { .. } => "make a new plan: POST /v1/plans",
            Refusal::NeedsApproval { .. } => {
                "POST /v1/plans/{id}/approve with its digest, by an approver who did not make it"
            }
            Refusal::NeedsPlan => "make a plan: POST /v1/plans; an approver approves it; run it",
            Refusal::OwnApproval { .. } => "ask another approver",
            Refusal::NeedsLift { .. } => "POST /v1/plans/{id}/lift with its digest, by an admin",
            Refusal::NothingToLift { .. } => "run it: POST /v1/plans/{id}/run with its digest",
            Refusal::Calendar(_) => {
                "write it as \"Mon-Fri 07:30 Europe/Berlin\", \"daily 22:00\" or \"Sun 03:15 UTC\""
            }
            Refusal::TooMany => {
                "cancel some that are not needed: GET /v1/plans, POST /v1/plans/{id}/cancel"
            }
            Refusal::NotBefore => "write it as 2026-01-31T22:00:00Z",
            Refusal::KeyReused => "use a new Idempotency-Key for a new request",
            Refusal::NotDurable { .. } => {
                "mend the disk that holds the gateway's state directory, restart the gateway and cancel the plan again; with after_restart = \"stop\" it begins no step before that"
            }
            Refusal::Ending => "try again once it is up",
            Refusal::Journal(_) => "look at the disk that holds the gateway's state directory",
        }
    }
}
