//! The client side, for the command line: our certificate, and the gateway's authority.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;

use super::files;

/// TLS of a client with a certificate.
pub fn load(certificate: &Path, key: &Path, authority: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for root in files::certificates(authority)? {
        roots
            .add(root)
            .with_context(|| format!("{} is no authority's certificate", authority.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(files::certificates(certificate)?, files::key(key)?)
        .with_context(|| {
            format!("{} and {} do not belong together", certificate.display(), key.display())
        })?;
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS of a client without a certificate, that trusts an authority given as PEM: for webhooks.
pub fn trusting(authority: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for root in rustls_pki_types::CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(root.context("the authority is no PEM")?).context("it is no authority")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
