//! Identifiers: of PDUs, outlets, hosts and plans. They stand in URLs, so only plain characters pass,
//! and two identifiers are equal only byte by byte.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::ID_CHARS;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Characters that would need escaping somewhere, or too many of them.
    #[error(
        "\"{0}\" is no identifier: 1 to {ID_CHARS} of a-z 0-9 . _ - and starting with a letter or digit"
    )]
    Name(String),
    /// Not `pdu/number`.
    #[error("\"{0}\" names no outlet: write the PDU and the outlet number, as in pdu-a/7")]
    Outlet(String),
    /// Not what an agent can call one of its units.
    #[error(
        "\"{0}\" names no unit of a chain: write its number, or its name as the agent has it, as in \"000DE3000A01\""
    )]
    Unit(String),
}

fn check(text: &str) -> Result<(), IdError> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && text.len() <= ID_CHARS {
        Ok(())
    } else {
        Err(IdError::Name(text.chars().take(80).collect()))
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_id!(
    /// A PDU, as configured: `pdu-a`.
    PduId
);
name_id!(
    /// A host (load) with one or more feeds, as configured: `web-01`.
    HostId
);
name_id!(
    /// A group of outlets, as configured: `web`.
    GroupId
);
name_id!(
    /// A driver, as its file says: `apc-rpdu2`.
    DriverId
);
name_id!(
    /// A rack, unique in the fleet: `r42`.
    RackId
);
name_id!(
    /// A switching plan, made by the gateway.
    PlanId
);

/// One unit of several behind one agent, as the agent calls it: `2`, or `000DE3000A01` where units go by a text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChainUnit(Arc<str>);

impl ChainUnit {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChainUnit {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let plain = text.bytes().all(|b| b.is_ascii_graphic());
        if !text.is_empty() && plain && text.len() <= ID_CHARS {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Unit(text.chars().take(80).collect()))
        }
    }
}

impl From<u32> for ChainUnit {
    fn from(number: u32) -> Self {
        Self(number.to_string().into())
    }
}

impl fmt::Display for ChainUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An outlet: its PDU and its number on it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OutletId {
    /// The PDU.
    pub pdu: PduId,
    /// The number printed beside the outlet, from 1 (from 0 on the few devices that count so).
    pub number: u16,
}

impl FromStr for OutletId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Outlet(text.chars().take(80).collect());
        let (pdu, number) = text.split_once('/').ok_or_else(wrong)?;
        let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if !plain || (number.len() > 1 && number.starts_with('0')) {
            return Err(wrong());
        }
        Ok(Self { pdu: pdu.parse()?, number: number.parse().map_err(|_| wrong())? })
    }
}

impl TryFrom<String> for OutletId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<OutletId> for String {
    fn from(id: OutletId) -> String {
        id.to_string()
    }
}

impl fmt::Display for OutletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pdu, self.number)
    }
}

impl fmt::Debug for OutletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn outlets_read_and_print() {
        let outlet: OutletId = "pdu-a/7".parse().unwrap();
        assert_eq!((outlet.pdu.as_str(), outlet.number), ("pdu-a", 7));
        assert_eq!(outlet.to_string(), "pdu-a/7");
    }

    #[test]
    fn nothing_that_needs_escaping_is_an_identifier() {
        for text in ["", "PDU", "-a", "a/b", "a b", "ä", "a\u{200b}", "../a", &"x".repeat(64)] {
            assert!(text.parse::<PduId>().is_err(), "{text:?}");
        }
        for text in ["pdu-a", "pdu-a/", "pdu-a/x", "pdu-a/07", "pdu-a/+7", "pdu-a/70000", "/7"] {
            assert!(text.parse::<OutletId>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn only_equal_bytes_make_equal_ids(a in "\\PC{0,12}", b in "\\PC{0,12}") {
            if let (Ok(x), Ok(y)) = (a.parse::<PduId>(), b.parse::<PduId>()) {
                prop_assert_eq!(x == y, a == b);
                prop_assert_eq!(x.as_str(), a);
            }
        }
    }
}
