//! The gateway's own policy: what each role may do, and how far the reach of a client goes.

use crate::model::id::{HostId, OutletId, PduId};
use crate::model::switching::Action;

use super::identity::{Identity, Role};

/// Something that may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Reading anything.
    Read,
    /// Switching.
    Switch,
    /// Approving plans.
    Approve,
    /// Configuring, enrolling, locking.
    Administer,
    /// Fetching what a hub fetches.
    Relay,
}

impl Role {
    /// What a role may do at all.
    pub fn may(self, permission: Permission) -> bool {
        use Permission as P;
        match self {
            Role::Viewer => permission == P::Read,
            Role::Operator => matches!(permission, P::Read | P::Switch),
            Role::Approver => matches!(permission, P::Read | P::Approve),
            Role::Admin => matches!(permission, P::Read | P::Administer),
            Role::Hub => matches!(permission, P::Read | P::Relay),
        }
    }
}

/// What a grant reaches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Everything in the rack.
    Rack,
    /// Every outlet of a PDU.
    Pdu(PduId),
    /// One outlet.
    Outlet(OutletId),
    /// Every feed of a host, switched as the host.
    Host(HostId),
}

/// What a client may switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The client's name; nothing for every client of the role.
    pub name: Option<String>,
    /// The role that it is for.
    pub role: Role,
    /// What it reaches.
    pub reach: Vec<Reach>,
    /// Which actions.
    pub actions: Vec<Action>,
}

/// The policy of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Grants; a client gets what all that name it grant together.
    pub grants: Vec<Grant>,
    /// Whether a client that no grant names has its whole role in the whole rack.
    pub whole_role_by_default: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { grants: Vec::new(), whole_role_by_default: true }
    }
}

/// Why something is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The role does not do that.
    #[error("{who}: the role {role} may not {what}")]
    Role {
        /// Who asked.
        who: String,
        /// Its role.
        role: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// Nobody is known on whose rights a plan rests.
    #[error("nobody is known any more on whose rights plan {plan} rests")]
    Nobody {
        /// The plan.
        plan: String,
    },
    /// The certificate of the one who asked was revoked since.
    #[error("{who}: the certificate that this was asked with was revoked")]
    Revoked {
        /// Who asked.
        who: String,
    },
    /// The policy does not reach that far.
    #[error("{who}: the policy of this gateway does not let this client switch {target} {action}")]
    Reach {
        /// Who asked.
        who: String,
        /// What was to be switched.
        target: String,
        /// How.
        action: &'static str,
    },
}

impl Policy {
    /// Whether a client may do something that is not aimed at an outlet.
    pub fn allow(&self, who: &Identity, permission: Permission) -> Result<(), Denied> {
        if who.role.may(permission) {
            return Ok(());
        }
        let what = match permission {
            Permission::Read => "read",
            Permission::Switch => "switch",
            Permission::Approve => "approve plans",
            Permission::Administer => "administer",
            Permission::Relay => "relay",
        };
        Err(Denied::Role { who: who.name.clone(), role: who.role.word(), what })
    }

    /// Whether a client may switch these outlets; `host` if it asked for a host.
    pub fn allow_switching(
        &self,
        who: &Identity,
        action: Action,
        host: Option<&HostId>,
        outlets: &[OutletId],
    ) -> Result<(), Denied> {
        self.allow(who, Permission::Switch)?;
        let named = |grant: &&Grant| {
            grant.role == who.role && grant.name.as_ref().is_none_or(|name| *name == who.name)
        };
        let mut grants = self.grants.iter().filter(named).peekable();
        if grants.peek().is_none() && self.whole_role_by_default {
            return Ok(());
        }
        let grants: Vec<&Grant> = grants.filter(|grant| grant.actions.contains(&action)).collect();
        let reaches = |outlet: &OutletId| {
            grants.iter().flat_map(|grant| &grant.reach).any(|reach| match reach {
                Reach::Rack => true,
                Reach::Pdu(pdu) => *pdu == outlet.pdu,
                Reach::Outlet(one) => one == outlet,
                Reach::Host(id) => host == Some(id),
            })
        };
        match outlets.iter().find(|outlet| !reaches(outlet)) {
            None if !outlets.is_empty() => Ok(()),
            outlet => Err(Denied::Reach {
                who: who.name.clone(),
                target: host
                    .map(ToString::to_string)
                    .or(outlet.map(ToString::to_string))
                    .unwrap_or_else(|| "nothing".into()),
                action: action.word(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(role: &str, name: &str) -> Identity {
        Identity::from_uri(&format!("spiffe://d/role/{role}/{name}"), "01").unwrap()
    }

    fn outlets(ids: &[&str]) -> Vec<OutletId> {
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    #[test]
    fn only_the_operator_switches() {
        let policy = Policy::default();
        for (word, role) in Role::ALL {
            let allowed =
                policy.allow_switching(&who(word, "x"), Action::Off, None, &outlets(&["pdu-a/1"]));
            assert_eq!(allowed.is_ok(), role == Role::Operator, "{word}");
            assert!(policy.allow(&who(word, "x"), Permission::Read).is_ok(), "{word}");
        }
    }

    #[test]
    fn a_grant_narrows_the_role_and_only_for_those_it_names() {
        let grant = Grant {
            name: Some("bob".into()),
            role: Role::Operator,
            reach: vec![
                Reach::Pdu("pdu-a".parse().unwrap()),
                Reach::Outlet("pdu-b/7".parse().unwrap()),
                Reach::Host("web".parse().unwrap()),
            ],
            actions: vec![Action::On],
        };
        let policy = Policy { grants: vec![grant], whole_role_by_default: true };
        let may = |name: &str, action, host: Option<&str>, ids: &[&str]| {
            let host = host.map(|h| h.parse().unwrap());
            policy
                .allow_switching(&who("operator", name), action, host.as_ref(), &outlets(ids))
                .is_ok()
        };
        assert!(may("bob", Action::On, None, &["pdu-a/1", "pdu-b/7"]));
        assert!(!may("bob", Action::Off, None, &["pdu-a/1"]));
        assert!(!may("bob", Action::On, None, &["pdu-a/1", "pdu-b/8"]));
        assert!(may("bob", Action::On, Some("web"), &["pdu-c/1", "pdu-d/1"]));
        assert!(!may("bob", Action::On, None, &["pdu-c/1"]));
        assert!(may("alice", Action::Cycle, None, &["pdu-c/1"]));
        let strict = Policy { whole_role_by_default: false, ..policy.clone() };
        assert!(
            strict
                .allow_switching(
                    &who("operator", "alice"),
                    Action::On,
                    None,
                    &outlets(&["pdu-a/1"])
                )
                .is_err()
        );
        assert!(
            strict
                .allow_switching(&who("viewer", "bob"), Action::On, None, &outlets(&["pdu-a/1"]))
                .is_err()
        );
    }
}
