//! SNMPv3 over async-snmp: it skips late replies, survives a forged datagram (time and boots count only
//! once authenticated), and re-discovers an engine that rebooted. snmp2 does none of these in v3.

use std::net::SocketAddr;
use std::time::Duration;

use async_snmp::{
    Auth, AuthProtocol, Client, ErrorKind, PrivProtocol, Retry, UdpHandle, UsmConfig,
};

use crate::model::ask::{Ask, Reply, Value, Whole};
use crate::model::oid::Oid;
use crate::model::secret::Secret;

use super::{Exchange, Link, LinkError};

/// Who we are to an SNMPv3 agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User name.
    pub name: String,
    /// Authentication protocol and passphrase.
    pub auth: Option<(AuthProtocol, Secret)>,
    /// Privacy protocol and passphrase.
    pub privacy: Option<(PrivProtocol, Secret)>,
    /// Context name, mostly empty.
    pub context: String,
}

impl User {
    fn config(&self) -> Result<UsmConfig, LinkError> {
        let wrong =
            |error| LinkError::Denied(format!("the SNMPv3 passphrases do not make a key: {error}"));
        let config = UsmConfig::new(self.name.clone());
        let config = match (&self.auth, &self.privacy) {
            (Some((auth, pass)), Some((privacy, key))) => config
                .auth_priv(*auth, pass.expose(), *privacy, key.expose())
                .map_err(|e| wrong(e.to_string()))?,
            (Some((auth, pass)), None) => {
                config.auth(*auth, pass.expose()).map_err(|e| wrong(e.to_string()))?
            }
            (None, _) => config,
        };
        Ok(config.context_name(self.context.clone()))
    }
}

/// Authentication protocols by the names that net-snmp gives them.
pub const AUTH_PROTOCOLS: [(&str, AuthProtocol); 6] = [
    ("MD5", AuthProtocol::Md5),
    ("SHA", AuthProtocol::Sha1),
    ("SHA-224", AuthProtocol::Sha224),
    ("SHA-256", AuthProtocol::Sha256),
    ("SHA-384", AuthProtocol::Sha384),
    ("SHA-512", AuthProtocol::Sha512),
];

/// Privacy protocols by name. AES-192 and AES-256 extend keys as net-snmp does (Blumenthal); some
/// vendors need Reeder's way, written AES-256-C.
pub const PRIV_PROTOCOLS: [(&str, PrivProtocol); 6] = [
    ("DES", PrivProtocol::Des),
    ("AES", PrivProtocol::Aes128),
    ("AES-128", PrivProtocol::Aes128),
    ("AES-192", PrivProtocol::Aes192Blumenthal),
    ("AES-256", PrivProtocol::Aes256Blumenthal),
    ("AES-256-C", PrivProtocol::Aes256Reeder),
];

/// An SNMPv3 link.
pub struct SnmpV3Link {
    peer: SocketAddr,
    user: User,
    client: Option<(Client<UdpHandle>, Duration)>,
    /// Requests in a row that got no answer.
    silence: u32,
}

/// A card that was replaced, or that came back with other keys, says nothing to the old ones: after so many
/// requests without an answer its engine is discovered anew.
const SILENCE: u32 = 2;

impl SnmpV3Link {
    /// To an agent, as a user.
    pub fn new(peer: SocketAddr, user: User) -> Self {
        Self { peer, user, client: None, silence: 0 }
    }

    /// The engine's id, boots and time stay with the client: it is kept as long as it works.
    async fn client(&mut self, timeout: Duration) -> Result<&Client<UdpHandle>, LinkError> {
        if !matches!(&self.client, Some((_, made_for)) if *made_for == timeout) {
            let built = Client::builder(self.peer, Auth::from(self.user.config()?))
                .request_timeout(timeout)
                // Repeats are decided one floor up, where it is known what is a write.
                .retry(Retry::none())
                .strict_source(true)
                .max_oids_per_request(crate::model::limits::SNMP_VARBINDS)
                .connect()
                .await
                .map_err(|error| LinkError::Unreachable(error.to_string()))?;
            self.client = Some((built, timeout));
        }
        match &self.client {
            Some((client, _)) => Ok(client),
            None => Err(LinkError::WrongProtocol),
        }
    }

    async fn send(&mut self, ask: &Ask, timeout: Duration) -> Result<Reply, LinkError> {
        let client = self.client(timeout).await?;
        let result = request(client, ask).await;
        self.silence = match &result {
            Err(LinkError::Timeout { .. }) => self.silence + 1,
            _ => 0,
        };
        let lost = matches!(
            &result,
            Err(LinkError::Unreachable(_) | LinkError::Closed(_) | LinkError::Denied(_))
        );
        if lost || self.silence >= SILENCE {
            self.client = None;
            self.silence = 0;
        }
        result
    }
}

impl Link for SnmpV3Link {
    fn once<'a>(&'a mut self, ask: &'a Ask, timeout: Duration) -> Exchange<'a> {
        Box::pin(self.send(ask, timeout))
    }
}

async fn request(client: &Client<UdpHandle>, ask: &Ask) -> Result<Reply, LinkError> {
    let result = match ask {
        Ask::Get(oids) => client.get_many(&their_oids(oids)).await.map(|r| r.varbinds),
        Ask::GetNext(oids) => client.get_next_many(&their_oids(oids)).await.map(|r| r.varbinds),
        Ask::GetBulk { names, single, repeat } => {
            client.get_bulk(&their_oids(names), *single, *repeat).await
        }
        Ask::Set(binds) => {
            let theirs: Option<Vec<_>> = binds
                .iter()
                .map(|(oid, value)| Some((their_oid(oid), their_value(value)?)))
                .collect();
            let theirs = theirs.ok_or(LinkError::WrongProtocol)?;
            client.set_many(&theirs).await.map(|r| r.varbinds)
        }
        _ => return Err(LinkError::WrongProtocol),
    };
    match result {
        Ok(binds) => {
            let ours = binds.iter().map(|bind| (our_oid(&bind.oid), our_value(&bind.value)));
            Ok(Reply::Binds(ours.collect()))
        }
        Err(error) => failure(&error),
    }
}

fn failure(error: &async_snmp::Error) -> Result<Reply, LinkError> {
    if let async_snmp::Error::Snmp { status, index, .. } = error.exchange_source() {
        let status = u32::try_from(status.as_i32()).unwrap_or(5);
        return Ok(Reply::Refused { status, index: *index });
    }
    let text = error.to_string();
    Err(match error.kind() {
        ErrorKind::Timeout => LinkError::Timeout {
            waited_ms: 0,
            hint: " (some agents say nothing to a wrong user or key)",
        },
        ErrorKind::Auth | ErrorKind::Report | ErrorKind::Privacy => LinkError::Denied(text),
        ErrorKind::Closed => LinkError::Closed(text),
        ErrorKind::Network | ErrorKind::ConstructionTimeout => LinkError::Unreachable(text),
        _ => LinkError::Garbled(text),
    })
}

fn their_oids(oids: &[Oid]) -> Vec<async_snmp::Oid> {
    oids.iter().map(their_oid).collect()
}

fn their_oid(oid: &Oid) -> async_snmp::Oid {
    async_snmp::Oid::new(oid.parts())
}

fn our_oid(oid: &async_snmp::Oid) -> Oid {
    Oid::from_parts(oid.arcs()).unwrap_or_default()
}

fn their_value(value: &Value) -> Option<async_snmp::Value> {
    match value {
        Value::Integer(number) => i32::try_from(*number).ok().map(async_snmp::Value::Integer),
        Value::Unsigned(number, _) => u32::try_from(*number).ok().map(async_snmp::Value::Gauge32),
        Value::Bytes(bytes) => Some(async_snmp::Value::OctetString(bytes.to_vec().into())),
        _ => None,
    }
}

fn our_value(value: &async_snmp::Value) -> Value {
    use async_snmp::Value as Theirs;
    match value {
        Theirs::Integer(number) => Value::Integer(i64::from(*number)),
        Theirs::Counter32(n) => Value::Unsigned(u64::from(*n), Whole::Counter),
        Theirs::Gauge32(n) | Theirs::UInteger32(n) => Value::Unsigned(u64::from(*n), Whole::Gauge),
        Theirs::TimeTicks(n) => Value::Unsigned(u64::from(*n), Whole::Ticks),
        Theirs::Counter64(number) => Value::Unsigned(*number, Whole::Counter64),
        Theirs::OctetString(bytes) | Theirs::Opaque(bytes) => Value::Bytes(bytes.as_ref().into()),
        Theirs::ObjectIdentifier(oid) => Value::Oid(our_oid(oid)),
        Theirs::IpAddress(ip) => Value::Ip(*ip),
        Theirs::Null | Theirs::NoSuchObject | Theirs::NoSuchInstance | Theirs::EndOfMibView => {
            Value::Nothing
        }
        _ => Value::Other,
    }
}
