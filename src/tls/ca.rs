//! An offline authority in a directory: its certificate and key, a register of what it issued, and the
//! revocation list. Role and name of a certificate always come from the operator of the authority, never
//! from a request.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::access::{Identity, Role};
use crate::model::time::Stamp;

use super::{files, leaf};

/// Clocks of machines differ: a new certificate is valid from a little before now.
const SKEW: Duration = Duration::from_mins(5);

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A client in a role.
    Client(Role),
    /// A gateway's own.
    Server,
}

impl Use {
    /// By name: a role, or "server".
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        if text == "server" {
            return Ok(Use::Server);
        }
        let role = Role::ALL.iter().find(|(word, _)| *word == text);
        role.map(|(_, role)| Use::Client(*role)).ok_or_else(|| {
            let known: Vec<&str> = Role::ALL.iter().map(|(word, _)| *word).collect();
            anyhow!("\"{text}\" is no role: write one of {}, or server", known.join(", "))
        })
    }

    /// Days of validity where nothing else is asked for: people 90, machines 30.
    pub fn days(self) -> u32 {
        match self {
            Use::Client(Role::Hub) | Use::Server => 30,
            Use::Client(_) => 90,
        }
    }
}

/// A line of the register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Name of the person or machine.
    pub name: String,
    /// Role, or `server`.
    pub role: String,
    /// Valid until, RFC 3339 UTC.
    pub not_after: String,
    /// Revoked at, RFC 3339 UTC.
    pub revoked_at: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Register {
    domain: String,
    next_crl: u64,
    issued: Vec<Issued>,
}

/// An authority in a directory.
pub struct Authority {
    dir: PathBuf,
    register: Register,
}

/// What is to be issued.
#[derive(Debug, Clone)]
pub struct Order<'o> {
    /// For what.
    pub for_use: Use,
    /// Name of the person or machine.
    pub name: &'o str,
    /// Host names and addresses, for a server.
    pub hosts: &'o [String],
    /// Days of validity.
    pub days: u32,
    /// Now.
    pub now: Stamp,
}

/// A new certificate, PEM, with its key if it was made here.
#[derive(Debug, Clone)]
pub struct Made {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: Option<String>,
    /// Serial number, hexadecimal.
    pub serial: String,
}

impl Authority {
    /// Makes a new authority; refuses a directory that has one.
    pub fn init(dir: &Path, domain: &str, days: u32, now: Stamp) -> anyhow::Result<Self> {
        // The domain stands in every identity; one that would not be read back is refused here.
        Identity::from_uri(&Identity::uri(domain, Role::Viewer, "x"), "0")
            .map_err(|_| anyhow!("\"{domain}\" is no trust domain: a-z 0-9 . - only"))?;
        if dir.join("ca.key").exists() {
            return Err(anyhow!("there is an authority in {} already", dir.display()));
        }
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(&format!("PowerMan CA {domain}"), days, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        files::write_secret(&dir.join("ca.key"), &key.serialize_pem())?;
        files::write_public(&dir.join("ca.pem"), &certificate.pem())?;
        let register = Register { domain: domain.to_owned(), next_crl: 1, issued: Vec::new() };
        let mut authority = Self { dir: dir.to_owned(), register };
        authority.save()?;
        authority.crl(30, now)?;
        Ok(authority)
    }

    /// Opens an authority.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("register.json");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "there is no authority in {}: run \"pmgate ca init --dir {}\"",
                dir.display(),
                dir.display()
            )
        })?;
        let register = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Self { dir: dir.to_owned(), register })
    }

    /// Where its certificate is.
    pub fn certificate_path(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Where its revocation list is.
    pub fn crl_path(&self) -> PathBuf {
        self.dir.join("crl.pem")
    }

    /// What it issued.
    pub fn issued(&self) -> &[Issued] {
        &self.register.issued
    }

    fn save(&self) -> anyhow::Result<()> {
        files::write_secret(
            &self.dir.join("register.json"),
            &serde_json::to_string_pretty(&self.register)?,
        )
    }

    fn issuer(&self) -> anyhow::Result<Issuer<'static, KeyPair>> {
        let key = std::fs::read_to_string(self.dir.join("ca.key"))
            .context("the authority's key cannot be read")?;
        let certificate = std::fs::read_to_string(self.certificate_path())
            .context("the authority's certificate cannot be read")?;
        Ok(Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?)
    }

    /// Makes a key and a certificate.
    pub fn issue(&mut self, order: &Order<'_>) -> anyhow::Result<Made> {
        // P-256: curl with OpenSSL 3.0 does not read the Ed25519 keys that are written here.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = self.leaf_params(order)?;
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        self.register(order, &certificate.pem(), certificate.der(), Some(key.serialize_pem()))
    }

    /// Signs a request. Only its public key is taken over: a request may ask to be an authority.
    pub fn sign(&mut self, csr: &str, order: &Order<'_>) -> anyhow::Result<Made> {
        let mut request =
            CertificateSigningRequestParams::from_pem(csr).context("the request does not parse")?;
        request.params = self.leaf_params(order)?;
        let certificate = request.signed_by(&self.issuer()?)?;
        self.register(order, &certificate.pem(), certificate.der(), None)
    }

    fn leaf_params(&self, order: &Order<'_>) -> anyhow::Result<CertificateParams> {
        let mut params = params(order.name, order.days, order.now)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match order.for_use {
            Use::Client(role) => {
                let uri = Identity::uri(&self.register.domain, role, order.name);
                Identity::from_uri(&uri, "0").map_err(|_| {
                    anyhow!(
                        "\"{}\" is no name for a certificate: letters, digits, . - _ @ only",
                        order.name
                    )
                })?;
                params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
            Use::Server => {
                if order.hosts.is_empty() {
                    return Err(anyhow!(
                        "a gateway's certificate needs the names and addresses that it is reached by: --host gw.example.net --host 10.0.0.5"
                    ));
                }
                let san = |host: &String| -> anyhow::Result<SanType> {
                    match host.parse::<IpAddr>() {
                        Ok(ip) => Ok(SanType::IpAddress(ip)),
                        Err(_) => Ok(SanType::DnsName(host.clone().try_into()?)),
                    }
                };
                params.subject_alt_names =
                    order.hosts.iter().map(san).collect::<anyhow::Result<_>>()?;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
        }
        Ok(params)
    }

    fn register(
        &mut self,
        order: &Order<'_>,
        pem: &str,
        der: &[u8],
        key: Option<String>,
    ) -> anyhow::Result<Made> {
        let leaf = leaf::read(der)?;
        let role = match order.for_use {
            Use::Client(role) => role.word(),
            Use::Server => "server",
        };
        self.register.issued.push(Issued {
            serial: leaf.serial.clone(),
            name: order.name.to_owned(),
            role: role.to_owned(),
            not_after: Stamp(leaf.not_after * 1_000).to_string(),
            revoked_at: None,
        });
        self.save()?;
        Ok(Made { certificate: pem.to_owned(), key, serial: leaf.serial })
    }

    /// Revokes a certificate and makes a new list.
    pub fn revoke(&mut self, serial: &str, now: Stamp) -> anyhow::Result<()> {
        let wanted = serial.to_ascii_lowercase().replace(':', "");
        let wanted = wanted.trim_start_matches('0');
        let issued = self.register.issued.iter_mut().find(|issued| issued.serial == wanted);
        let issued = issued.ok_or_else(|| anyhow!("this authority has issued no certificate with serial number {serial}; see \"pmgate ca show\""))?;
        if issued.revoked_at.is_none() {
            issued.revoked_at = Some(now.to_string());
        }
        self.save()?;
        self.crl(30, now)
    }

    /// Makes a new revocation list.
    pub fn crl(&mut self, days: u32, now: Stamp) -> anyhow::Result<()> {
        let mut revoked_certs = Vec::new();
        for issued in &self.register.issued {
            let Some(at) = &issued.revoked_at else { continue };
            let at: Stamp = at.parse()?;
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from(unhex(&issued.serial)?),
                revocation_time: date(at),
                reason_code: None,
                invalidity_date: None,
            });
        }
        let number = self.register.next_crl;
        self.register.next_crl += 1;
        let list = CertificateRevocationListParams {
            this_update: date(now),
            next_update: date(now) + Duration::from_secs(u64::from(days) * 86_400),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer()?)?;
        files::write_public(&self.crl_path(), &list.pem()?)?;
        self.save()
    }
}

fn params(common_name: &str, days: u32, now: Stamp) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from(random_serial()?));
    params.not_before = date(now) - SKEW;
    params.not_after = date(now) + Duration::from_secs(u64::from(days) * 86_400);
    Ok(params)
}

/// 127 random bits: positive, and never the same twice.
fn random_serial() -> anyhow::Result<Vec<u8>> {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes.to_vec())
}

/// A moment for rcgen, in whole seconds.
fn date(at: Stamp) -> OffsetDateTime {
    date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(at.0 / 1_000).unwrap_or(0))
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let padded = if text.len().is_multiple_of(2) { text.to_owned() } else { format!("0{text}") };
    let byte = |at: usize| u8::from_str_radix(padded.get(at..at + 2).unwrap_or(""), 16);
    (0..padded.len())
        .step_by(2)
        .map(|at| byte(at).with_context(|| format!("{text} is no serial number")))
        .collect()
}
