//! Identities out of certificates: `spiffe://{domain}/role/{role}/{name}`.

use std::fmt;

/// What a client may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and switches.
    Operator,
    /// Reads and approves plans.
    Approver,
    /// Reads, configures, enrols, locks.
    Admin,
    /// Relays to a hub.
    Hub,
}

impl Role {
    /// By name.
    pub const ALL: [(&'static str, Role); 5] = [
        ("viewer", Role::Viewer),
        ("operator", Role::Operator),
        ("approver", Role::Approver),
        ("admin", Role::Admin),
        ("hub", Role::Hub),
    ];

    /// The name.
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// A client that has proved itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The trust domain.
    pub domain: String,
    /// The role, as a ceiling.
    pub role: Role,
    /// The name of the person or machine.
    pub name: String,
    /// Serial number of the certificate, hexadecimal.
    pub serial: String,
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the client certificate names no role: its URI \"{0}\" should be spiffe://DOMAIN/role/ROLE/NAME"
)]
pub struct IdentityError(String);

impl Identity {
    /// From the URI of a certificate. Nothing is trimmed, decoded or folded: what is not exactly an identity
    /// is none.
    pub fn from_uri(uri: &str, serial: &str) -> Result<Self, IdentityError> {
        let wrong = || IdentityError(uri.chars().take(120).collect());
        let rest = uri.strip_prefix("spiffe://").ok_or_else(wrong)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [domain, "role", role, name] = parts.as_slice() else { return Err(wrong()) };
        let role = Role::ALL.iter().find(|(word, _)| word == role).ok_or_else(wrong)?.1;
        let host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@');
        let fits = |text: &str, ok: &dyn Fn(u8) -> bool| {
            !text.is_empty() && text.len() <= 120 && text.bytes().all(ok)
        };
        if !fits(domain, &host) || !fits(name, &plain) {
            return Err(wrong());
        }
        Ok(Self {
            domain: (*domain).to_owned(),
            role,
            name: (*name).to_owned(),
            serial: serial.to_owned(),
        })
    }

    /// The URI for a new certificate.
    pub fn uri(domain: &str, role: Role, name: &str) -> String {
        format!("spiffe://{domain}/role/{}/{name}", role.word())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.role.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_role_is_read_from_the_uri() {
        let identity =
            Identity::from_uri("spiffe://rack.example/role/operator/alice", "0a").unwrap();
        assert_eq!((identity.role, identity.name.as_str()), (Role::Operator, "alice"));
        assert_eq!(
            Identity::uri("rack.example", Role::Operator, "alice"),
            "spiffe://rack.example/role/operator/alice"
        );
    }

    #[test]
    fn whatever_is_not_exactly_an_identity_is_none() {
        for uri in [
            "",
            "spiffe://d/role/operator",
            "spiffe://d/role/operator/a/b",
            "spiffe://d/role/root/a",
            "spiffe://d/role/Operator/a",
            "spiffe://d/role/operator/",
            "spiffe:///role/operator/a",
            "SPIFFE://d/role/operator/a",
            "spiffe://d/role/operator/a%2f",
            "spiffe://d/role/operator/a ",
            "spiffe://d/role/operator/ä",
            "https://d/role/operator/a",
            "spiffe://d//role/operator/a",
        ] {
            assert!(Identity::from_uri(uri, "01").is_err(), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn only_what_we_would_write_is_read(uri in "spiffe://[ -~]{0,40}") {
            if let Ok(identity) = Identity::from_uri(&uri, "01") {
                prop_assert_eq!(Identity::uri(&identity.domain, identity.role, &identity.name), uri);
            }
        }
    }
}
