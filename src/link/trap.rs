//! Traps and informs as they arrive: SNMPv1 Trap, SNMPv2c and SNMPv3 Trap, SNMPv2c Inform (RFC 1157, RFC 3416 section
//! 4.2.6 and 4.2.7). What they claim is passed on as a word, never as a reading.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use async_snmp::notification::{
    NotificationAcceptance, NotificationPduClass, NotificationReceiver,
};
use async_snmp::{AuthoritativeEngine, SecurityLevel, Version};
use tokio::sync::Notify;

use super::snmp_v3::User;

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// Who sent the datagram, as far as a source address tells.
    pub from: IpAddr,
    /// snmpTrapOID, or what it would be of a version 1 trap (RFC 3584 section 3.1).
    pub what: String,
}

/// What arrived at the port of traps and was none, or was not proven. The library that takes datagrams apart tells
/// only its log, so whoever sets the log up counts it here.
pub static UNREADABLE: Unreadable =
    Unreadable { count: AtomicU64::new(0), last: Mutex::new(None), more: Notify::const_new() };

/// See [`UNREADABLE`].
#[derive(Debug)]
pub struct Unreadable {
    count: AtomicU64,
    last: Mutex<Option<String>>,
    more: Notify,
}

impl Unreadable {
    /// One more, and who sent it as far as that is known.
    pub fn add(&self, from: Option<String>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = from;
        self.more.notify_one();
    }

    /// How many since the start.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Who sent the last one.
    pub fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for more of them.
    pub async fn more(&self) {
        self.more.notified().await;
    }
}

/// A socket on which traps arrive.
pub struct Receiver {
    inner: NotificationReceiver,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Receiver {
    /// Binds. Of version 3 only what is authenticated by one of these users is taken; users with DES, whose sender
    /// state would have to be kept, and those without authentication are left out. An inform is taken, and with that
    /// acknowledged, only if the gate knows its sender: who is acknowledged goes no further and tells nobody else.
    pub async fn bind(
        listen: SocketAddr,
        users: &[User],
        gate: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let engine = AuthoritativeEngine::install(
            // Senders of traps are their own authority (RFC 3414 section 1.5.1): this id is for this run only.
            async_snmp::v3::generate_engine_id()?,
            |_| Ok::<(), std::convert::Infallible>(()),
        )?;
        let mut builder = NotificationReceiver::builder()
            .bind(listen.to_string())
            .authoritative_engine(engine)
            .acceptance_policy(move |envelope| {
                let from = envelope.source.ip().to_canonical();
                let proven = envelope.security_level >= Some(SecurityLevel::AuthNoPriv);
                if envelope.version == Version::V3 && !proven {
                    UNREADABLE.add(Some(from.to_string()));
                    return NotificationAcceptance::Reject;
                }
                match envelope.pdu_class {
                    NotificationPduClass::Inform if !gate(from) => NotificationAcceptance::Reject,
                    _ => NotificationAcceptance::Accept,
                }
            });
        for user in users {
            let Some((auth, pass)) = &user.auth else { continue };
            let privacy = user.privacy.as_ref();
            if privacy.is_some_and(|(protocol, _)| protocol.is_des_family()) {
                tracing::warn!(user = %user.name, "traps of user {} are not taken: they are encrypted with DES", user.name);
                continue;
            }
            builder = builder
                .usm_user(user.name.clone(), |usm| match privacy {
                    Some((protocol, key)) => {
                        usm.auth_priv(*auth, pass.expose(), *protocol, key.expose())
                    }
                    None => usm.auth(*auth, pass.expose()),
                })
                .map_err(|error| anyhow!("the keys of user {}: {error}", user.name))?;
        }
        let inner = builder
            .build()
            .await
            .with_context(|| format!("cannot listen for traps at {listen}"))?;
        let address = inner.local_addr();
        Ok(Self { inner, address })
    }

    /// The next one. What does not parse or is not proven is dropped before.
    pub async fn next(&self) -> anyhow::Result<Trap> {
        let received = self.inner.recv().await?;
        let what = received.notification.trap_oid()?.to_string();
        Ok(Trap { from: received.source.ip().to_canonical(), what })
    }
}
