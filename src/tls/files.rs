//! PEM files: read with their place in errors, written so that nobody else can read a key.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// The certificates in a file, at least one.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found =
        read.with_context(|| format!("cannot read certificates from {}", path.display()))?;
    if found.is_empty() {
        return Err(anyhow!("there is no certificate in {}", path.display()));
    }
    Ok(found)
}

/// The private key in a file that only its owner may read.
pub fn key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let mode = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(anyhow!(
            "{} can be read by others (mode {:o}): run chmod 600 {}",
            path.display(),
            mode & 0o777,
            path.display()
        ));
    }
    PrivateKeyDer::from_pem_file(path)
        .with_context(|| format!("cannot read a key from {}", path.display()))
}

/// The revocation lists in a file.
pub fn revocations(path: &Path) -> anyhow::Result<Vec<CertificateRevocationListDer<'static>>> {
    let read = CertificateRevocationListDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.with_context(|| format!("cannot read revocation lists from {}", path.display()))
}

/// Writes a file that only its owner can read.
pub fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    write(path, text, 0o600)
}

/// Writes a file that anybody can read.
pub fn write_public(path: &Path, text: &str) -> anyhow::Result<()> {
    write(path, text, 0o644)
}

/// Whole or not at all: written beside its place, synced, moved there.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let context = || format!("cannot write {}", path.display());
    if beside.exists() {
        std::fs::remove_file(&beside).with_context(context)?;
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .with_context(context)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(context)?;
    std::fs::rename(&beside, path).with_context(context)
}
