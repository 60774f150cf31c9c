//! Traps and informs as they arrive: SNMPv1 Trap, SNMPv2c and SNMPv3 Trap, SNMPv2c Inform (RFC 1157, RFC 3416 section
//! 4.2.6 and 4.2.7). What they claim is passed on as a word, never as a reading.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, anyhow};
use async_snmp::notification::{NotificationAcceptance, NotificationReceiver};
use async_snmp::{AuthoritativeEngine, SecurityLevel, Version};

use super::snmp_v3::User;

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// Who sent the datagram, as far as a source address tells.
    pub from: IpAddr,
    /// snmpTrapOID, or what it would be of a version 1 trap (RFC 3584 section 3.1).
    pub what: String,
}

/// A socket on which traps arrive.
pub struct Receiver {
    inner: NotificationReceiver,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Receiver {
    /// Binds. Of version 3 only what is authenticated by one of these users is taken; users with DES, whose sender
    /// state would have to be kept, and those without authentication are left out.
    pub async fn bind(listen: SocketAddr, users: &[User]) -> anyhow::Result<Self> {
        let engine = AuthoritativeEngine::install(
            // Senders of traps are their own authority (RFC 3414 section 1.5.1): this id is for this run only.
            async_snmp::v3::generate_engine_id()?,
            |_| Ok::<(), std::convert::Infallible>(()),
        )?;
        let mut builder = NotificationReceiver::builder()
            .bind(listen.to_string())
            .authoritative_engine(engine)
            .acceptance_policy(|envelope| {
                let proven = envelope.security_level >= Some(SecurityLevel::AuthNoPriv);
                if envelope.version == Version::V3 && !proven {
                    NotificationAcceptance::Reject
                } else {
                    NotificationAcceptance::Accept
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
