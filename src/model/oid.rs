//! Object identifiers, kept as they go on the wire (X.690 section 8.19, contents octets only).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::limits::OID_BYTES;

/// An object identifier. Ordered as SNMP walks are: by sub-identifiers, not by bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Oid(heapless::Vec<u8, OID_BYTES>);

/// Why a text or an encoding is no OID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidError {
    /// A sub-identifier is not a number below 2^32.
    #[error("\"{0}\" is not an object identifier: write numbers with dots, as in 1.3.6.1.4.1.318")]
    Text(String),
    /// Longer than [`OID_BYTES`], or ending inside a sub-identifier.
    #[error("object identifier is longer than {OID_BYTES} bytes or cut off")]
    Length,
}

impl Oid {
    /// From sub-identifiers; the first two share an octet (X.690 8.19.4).
    pub fn from_parts(parts: &[u32]) -> Result<Self, OidError> {
        let mut bytes = heapless::Vec::new();
        let (head, rest) = match parts {
            [] => return Ok(Self::default()),
            [a] => (u64::from(*a) * 40, &parts[1..]),
            [a, b, ..] => (u64::from(*a) * 40 + u64::from(*b), &parts[2..]),
        };
        push_base128(&mut bytes, head)?;
        for part in rest {
            push_base128(&mut bytes, u64::from(*part))?;
        }
        Ok(Self(bytes))
    }

    /// From contents octets as received.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, OidError> {
        if bytes.last().is_some_and(|last| last & 0x80 != 0) {
            return Err(OidError::Length);
        }
        heapless::Vec::from_slice(bytes).map(Self).map_err(|_| OidError::Length)
    }

    /// The contents octets.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The sub-identifiers. An arc above 2^32-1, which SNMP forbids, reads as 2^32-1.
    pub fn parts(&self) -> Vec<u32> {
        let mut parts = Vec::with_capacity(self.0.len() + 1);
        let mut value: u64 = 0;
        for byte in &self.0 {
            value = value.saturating_mul(128).saturating_add(u64::from(byte & 0x7f));
            if byte & 0x80 != 0 {
                continue;
            }
            let arc = u32::try_from(value).unwrap_or(u32::MAX);
            if parts.is_empty() {
                let first = (arc / 40).min(2);
                parts.push(first);
                parts.push(arc - first * 40);
            } else {
                parts.push(arc);
            }
            value = 0;
        }
        parts
    }

    /// Whether this is `base` or lies below it.
    pub fn is_under(&self, base: &Oid) -> bool {
        self.0.starts_with(&base.0)
    }

    /// The sub-identifiers below `base`, or nothing if this does not lie under it.
    pub fn below(&self, base: &Oid) -> Option<Vec<u32>> {
        if !self.is_under(base) {
            return None;
        }
        let skip = base.parts().len();
        Some(self.parts().split_off(skip))
    }

    /// This identifier with more sub-identifiers behind it.
    pub fn child(&self, below: &[u32]) -> Result<Self, OidError> {
        let mut bytes = self.0.clone();
        for part in below {
            push_base128(&mut bytes, u64::from(*part))?;
        }
        Ok(Self(bytes))
    }

    /// An identifier whose successor in a walk is this one, if this one exists: for GETNEXT and
    /// GETBULK, which name the predecessor of what they want.
    #[must_use]
    pub fn predecessor(&self) -> Self {
        let mut parts = self.parts();
        match parts.last_mut() {
            Some(last) if *last > 0 => *last -= 1,
            Some(_) => {
                parts.pop();
            }
            None => {}
        }
        // Never longer than the original, which fitted.
        Self::from_parts(&parts).unwrap_or_default()
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn push_base128(bytes: &mut heapless::Vec<u8, OID_BYTES>, value: u64) -> Result<(), OidError> {
    let groups = (64 - value.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let more = if group == 0 { 0 } else { 0x80 };
        let byte = (value >> (group * 7)) as u8 & 0x7f | more;
        bytes.push(byte).map_err(|_| OidError::Length)?;
    }
    Ok(())
}

impl FromStr for Oid {
    type Err = OidError;

    fn from_str(text: &str) -> Result<Self, OidError> {
        let wrong = || OidError::Text(text.to_owned());
        let trimmed = text.strip_prefix('.').unwrap_or(text);
        let parts = trimmed
            .split('.')
            .map(|part| part.parse::<u32>().map_err(|_| wrong()))
            .collect::<Result<Vec<_>, _>>()?;
        if parts.len() < 2 || parts[0] > 2 {
            return Err(wrong());
        }
        Self::from_parts(&parts)
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts().iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialOrd for Oid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Oid {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_oid_reads_back_as_it_was_written() {
        let oid: Oid = "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.24".parse().unwrap();
        assert_eq!(oid.to_string(), "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.24");
        assert_eq!(oid.wire()[..2], [0x2b, 6]);
    }

    #[test]
    fn order_is_by_number_not_by_byte() {
        let nine: Oid = "1.3.6.1.9".parse().unwrap();
        let big: Oid = "1.3.6.1.300".parse().unwrap();
        assert!(nine < big);
    }

    #[test]
    fn the_predecessor_of_a_scalar_drops_the_zero() {
        let scalar: Oid = "1.3.6.1.2.1.1.3.0".parse().unwrap();
        assert_eq!(scalar.predecessor().to_string(), "1.3.6.1.2.1.1.3");
        let row: Oid = "1.3.6.1.2.1.1.3.7".parse().unwrap();
        assert_eq!(row.predecessor().to_string(), "1.3.6.1.2.1.1.3.6");
    }

    #[test]
    fn what_is_no_oid_is_told_so() {
        for text in ["", "1", "1.3.x", "1..3", "3.1.2", "1.3.4294967296"] {
            assert!(text.parse::<Oid>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn wire_and_text_agree(first in 0u32..3, second in 0u32..40, rest in prop::collection::vec(any::<u32>(), 0..15)) {
            let mut parts = vec![first, second];
            parts.extend(rest);
            let oid = Oid::from_parts(&parts).unwrap();
            prop_assert_eq!(oid.parts(), parts.clone());
            prop_assert_eq!(Oid::from_wire(oid.wire()).unwrap(), oid.clone());
            prop_assert_eq!(oid.to_string().parse::<Oid>().unwrap(), oid);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(oid) = Oid::from_wire(&bytes) {
                let _text = oid.to_string();
                let _before = oid.predecessor();
            }
        }
    }
}
