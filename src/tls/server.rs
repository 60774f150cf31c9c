//! The server side: TLS 1.3 only, client certificates required, no session resumption (a resumed session lets
//! revoked and expired client certificates in).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::FromDer as _;

use super::{files, leaf};

/// Where the server's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles<'p> {
    /// Certificate chain.
    pub certificate: &'p Path,
    /// Its key.
    pub key: &'p Path,
    /// Roots of client certificates.
    pub client_ca: &'p Path,
    /// Revocation list of client certificates.
    pub crl: Option<&'p Path>,
}

/// A server's TLS, ready to accept.
#[derive(Clone)]
pub struct Server {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    /// Serial numbers of revoked client certificates: checked again at every request, since a connection may
    /// be older than the list.
    pub revoked: BTreeSet<String>,
    /// Until when the server's certificate is valid, seconds since 1970.
    pub not_after: i64,
    /// When the next revocation list was promised, seconds since 1970.
    pub crl_next: Option<i64>,
}

/// Loads everything; nothing is half-loaded.
pub fn load(files: &ServerFiles<'_>) -> anyhow::Result<Server> {
    let chain = files::certificates(files.certificate)?;
    let key = files::key(files.key)?;
    let not_after =
        leaf::read(&chain[0]).with_context(|| files.certificate.display().to_string())?.not_after;
    let mut roots = RootCertStore::empty();
    for root in files::certificates(files.client_ca)? {
        roots.add(root).with_context(|| {
            format!("{} is no authority's certificate", files.client_ca.display())
        })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let mut revoked = BTreeSet::new();
    let mut crl_next = None;
    if let Some(path) = files.crl {
        let lists = files::revocations(path)?;
        // A file that was cut off or is another one altogether must not make revoked certificates good again.
        if lists.is_empty() {
            return Err(anyhow!(
                "{} holds no revocation list: make one with \"pmgate ca crl\", or leave crl out",
                path.display()
            ));
        }
        for list in &lists {
            let (serials, next) = parse_crl(list).with_context(|| path.display().to_string())?;
            revoked.extend(serials);
            crl_next = crl_next.min(next).or(next);
        }
        // Whether a list is still fresh is told as an alarm: an old list must not lock everybody out.
        verifier = verifier.with_crls(lists).allow_unknown_revocation_status();
    }
    let verifier = verifier
        .build()
        .with_context(|| format!("client certificates of {}", files.client_ca.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .with_context(|| {
            format!(
                "{} and {} do not belong together",
                files.certificate.display(),
                files.key.display()
            )
        })?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Server { config: Arc::new(config), revoked, not_after, crl_next })
}

fn parse_crl(der: &[u8]) -> anyhow::Result<(Vec<String>, Option<i64>)> {
    let (_, list) = x509_parser::revocation_list::CertificateRevocationList::from_der(der)
        .map_err(|error| anyhow!("the revocation list does not parse: {error}"))?;
    let serials =
        list.iter_revoked_certificates().map(|one| leaf::serial(one.raw_serial())).collect();
    Ok((serials, list.next_update().map(|time| time.timestamp())))
}
