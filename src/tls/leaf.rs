//! Reading a client's certificate: what rustls has not checked is checked here.

use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::access::Identity;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its only URI, if it has exactly one.
    pub uri: Option<String>,
    /// Serial number, hexadecimal without leading zeros.
    pub serial: String,
    /// Seconds since 1970 until which it is valid.
    pub not_after: i64,
    /// Whether it is meant for clients (extended key usage clientAuth).
    pub is_for_clients: bool,
    /// Whether it may issue others.
    pub is_authority: bool,
}

/// Why a certificate is of no use to its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Not X.509.
    #[error("the certificate does not parse: {0}")]
    Malformed(String),
    /// Made for something else.
    #[error("the certificate is not meant for clients: its extended key usage lacks clientAuth")]
    NotForClients,
    /// An authority's own.
    #[error("the certificate belongs to an authority, not to a client")]
    Authority,
    /// Names nobody.
    #[error(
        "the certificate has no single URI that names a role, as spiffe://DOMAIN/role/ROLE/NAME"
    )]
    NoUri,
    /// The URI is no identity.
    #[error(transparent)]
    Identity(#[from] crate::access::identity::IdentityError),
}

/// Reads a certificate.
pub fn read(der: &[u8]) -> Result<Leaf, LeafError> {
    let malformed = |error: &dyn std::fmt::Display| LeafError::Malformed(error.to_string());
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
    let mut uris = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
            uris.extend(names.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            }));
        }
    }
    let usage = certificate.extended_key_usage().map_err(|error| malformed(&error))?;
    Ok(Leaf {
        uri: if uris.len() == 1 { uris.pop() } else { None },
        serial: serial(certificate.raw_serial()),
        not_after: certificate.validity().not_after.timestamp(),
        is_for_clients: usage.is_some_and(|usage| usage.value.client_auth),
        is_authority: certificate.is_ca(),
    })
}

/// Who a client is by its certificate, which rustls has verified up to a trusted root, and until when (seconds
/// since 1970).
pub fn identity(der: &[u8]) -> Result<(Identity, i64), LeafError> {
    let leaf = read(der)?;
    if leaf.is_authority {
        return Err(LeafError::Authority);
    }
    if !leaf.is_for_clients {
        return Err(LeafError::NotForClients);
    }
    let identity = Identity::from_uri(&leaf.uri.ok_or(LeafError::NoUri)?, &leaf.serial)?;
    Ok((identity, leaf.not_after))
}

/// A serial number as it is shown and compared.
pub fn serial(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let short = text.trim_start_matches('0');
    if short.is_empty() { "0".into() } else { short.to_owned() }
}
