//! Names to addresses, in Rust: a static binary must not lean on the C library's resolver, which loads
//! shared objects at run time. An IP address is taken as it stands, without any look-up.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hickory_resolver::TokioResolver;

/// A host and a port as written: `10.20.0.11:161`, `[fe80::1]:161`, `pdu-a.example.net:161`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why a text is no address, or a name has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not HOST:PORT.
    #[error("\"{0}\" is no address: write HOST:PORT, as in 10.20.0.11:161 or [fd00::7]:161")]
    Text(String),
    /// The name does not resolve.
    #[error("the name {name} does not resolve: {why}")]
    Name {
        /// The name.
        name: String,
        /// What the resolver said.
        why: String,
    },
}

impl Address {
    /// With a port of its own, or this one.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let wrong = || AddressError::Text(text.chars().take(120).collect());
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: default_port });
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self { host: socket.ip().to_string(), port: socket.port() });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (text, default_port),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) || port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// Where it is.
    pub async fn resolve(&self) -> Result<SocketAddr, AddressError> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let fail = |why: String| AddressError::Name { name: self.host.clone(), why };
        let builder = TokioResolver::builder_tokio().map_err(|error| fail(error.to_string()))?;
        let resolver = builder.build().map_err(|error| fail(error.to_string()))?;
        let found = resolver
            .lookup_ip(self.host.as_str())
            .await
            .map_err(|error| fail(error.to_string()))?;
        let first = found.iter().next().ok_or_else(|| fail("no address".into()))?;
        Ok(SocketAddr::new(first, self.port))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// The port must be written.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = Self::parse(text, 0)?;
        if address.port == 0 {
            return Err(AddressError::Text(text.to_owned()));
        }
        Ok(address)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        for (text, back) in [
            ("10.0.0.1:161", "10.0.0.1:161"),
            ("[fd00::7]:1161", "[fd00::7]:1161"),
            ("pdu-a.example.net:161", "pdu-a.example.net:161"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), back);
        }
        assert_eq!(Address::parse("10.0.0.1", 161).unwrap().port, 161);
        assert_eq!(Address::parse("fd00::7", 502).unwrap().to_string(), "[fd00::7]:502");
        for text in ["", "10.0.0.1", "host", ":161", "a b:161", "host:99999", "http://x:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn localhost_is_found_without_the_c_library() {
        let found = "localhost:161".parse::<Address>().unwrap().resolve().await.unwrap();
        assert!(found.ip().is_loopback());
    }
}
