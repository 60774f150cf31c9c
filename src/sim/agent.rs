//! The SNMP agent of a simulated device: async-snmp in front, an object tree or a recording behind.

use std::net::SocketAddr;
use std::sync::Arc;

use async_snmp::agent::{Agent, SecurityModel, VacmBuilder};
use async_snmp::handler::{
    BoxFuture, GetNextResult, GetResult, HandlerResult, MibHandler, PreparedSet, RequestContext,
    SetCommitError, SetCommitResult, SetTestError, SetTestResult, SetUndoResult,
};
use async_snmp::message::SecurityLevel;
use async_snmp::varbind::VarBind;
use async_snmp::{AuthoritativeEngine, Oid as TheirOid, Value as TheirValue, oid};
use tokio_util::sync::CancellationToken;

use crate::link::snmp_v3::User;
use crate::model::ask::{Value, Whole};
use crate::model::oid::Oid;

use super::objects::Refusal;

/// What answers behind an agent.
pub(super) trait Answers: Send + Sync + 'static {
    /// The value of an instance, with its ASN.1 tag.
    fn get(&self, oid: &Oid) -> Option<(u8, Value)>;
    /// The instance after a name.
    fn after(&self, oid: &Oid) -> Option<(Oid, u8, Value)>;
    /// Whether a write would be taken.
    fn check(&self, oid: &Oid, value: &Value) -> Result<(), Refusal>;
    /// Carries a write out.
    fn write(&self, oid: &Oid, value: &Value) -> Result<(), Refusal>;
}

/// Who may talk to a simulated agent.
#[derive(Debug, Clone)]
pub enum Access {
    /// SNMPv1 and v2c with these communities.
    Communities {
        /// For reading.
        read: String,
        /// For reading and writing.
        write: String,
    },
    /// SNMPv3.
    User(User),
}

struct Mib {
    answers: Arc<dyn Answers>,
}

/// The read community reads, the write community reads and writes, the v3 user does both, and only at
/// the security level that it has keys for.
fn views(vacm: VacmBuilder, access: &Access) -> VacmBuilder {
    let vacm = vacm.view("all", |view| view.include(oid!(1)));
    match access {
        Access::Communities { read, write } => {
            let none = SecurityLevel::NoAuthNoPriv;
            [SecurityModel::V1, SecurityModel::V2c].into_iter().fold(vacm, |vacm, model| {
                vacm.group(read.clone(), model, "readers")
                    .group(write.clone(), model, "writers")
                    .access("readers", model, none, |access| access.read_view("all"))
                    .access("writers", model, none, |access| {
                        access.read_view("all").write_view("all")
                    })
            })
        }
        Access::User(user) => {
            let level = match (&user.auth, &user.privacy) {
                (Some(_), Some(_)) => SecurityLevel::AuthPriv,
                (Some(_), None) => SecurityLevel::AuthNoPriv,
                (None, _) => SecurityLevel::NoAuthNoPriv,
            };
            vacm.group(user.name.clone(), SecurityModel::Usm, "users").access(
                "users",
                SecurityModel::Usm,
                level,
                |access| access.read_view("all").write_view("all"),
            )
        }
    }
}

/// Starts an agent; it runs until the token is cancelled.
pub(super) async fn start(
    listen: SocketAddr,
    access: Access,
    answers: Arc<dyn Answers>,
    stop: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let mib = Arc::new(Mib { answers });
    let mut builder = Agent::builder()
        .bind(listen.to_string())
        .without_builtin_handlers()
        .max_message_size(crate::model::limits::SNMP_REPLY_BYTES)
        .handler(oid!(1), mib)
        .cancellation_token(stop);
    builder = builder.vacm(|vacm| views(vacm, &access));
    match access {
        Access::Communities { read, write } => {
            builder = builder.community(read.into_bytes()).community(write.into_bytes());
        }
        Access::User(user) => {
            // A simulated engine is a new one at every start.
            let engine_id =
                [0x80, 0, 0, 0, 5].into_iter().chain(random_bytes()).collect::<Vec<u8>>();
            let engine =
                AuthoritativeEngine::install(engine_id, |_| Ok::<(), std::convert::Infallible>(()))
                    .map_err(|error| {
                        anyhow::anyhow!("the SNMPv3 engine does not start: {error}")
                    })?;
            builder =
                builder.authoritative_engine(engine).usm_user(user.name.clone(), |usm| {
                    match (&user.auth, &user.privacy) {
                        (Some((auth, pass)), Some((privacy, key))) => {
                            usm.auth_priv(*auth, pass.expose(), *privacy, key.expose())
                        }
                        (Some((auth, pass)), None) => usm.auth(*auth, pass.expose()),
                        (None, _) => Ok(usm),
                    }
                })?;
        }
    }
    let agent = builder
        .build()
        .await
        .map_err(|error| anyhow::anyhow!("no SNMP agent at {listen}: {error}"))?;
    let address = agent.local_addr();
    tokio::spawn(async move {
        if let Err(error) = agent.run().await {
            tracing::warn!(%error, "the simulated agent at {address} ended");
        }
    });
    Ok(address)
}

fn random_bytes() -> [u8; 8] {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish().to_be_bytes()
}

impl MibHandler for Mib {
    fn get<'a>(
        &'a self,
        _: &'a RequestContext,
        oid: &'a TheirOid,
    ) -> BoxFuture<'a, HandlerResult<GetResult>> {
        let found = ours(oid).and_then(|oid| self.answers.get(&oid));
        let result = match found {
            Some((tag, value)) => GetResult::Value(theirs(tag, value)),
            None => GetResult::NoSuchInstance,
        };
        Box::pin(std::future::ready(Ok(result)))
    }

    fn get_next<'a>(
        &'a self,
        _: &'a RequestContext,
        oid: &'a TheirOid,
    ) -> BoxFuture<'a, HandlerResult<GetNextResult>> {
        let found = ours(oid).and_then(|oid| self.answers.after(&oid));
        let result = match found {
            Some((next, tag, value)) => {
                GetNextResult::Value(VarBind::new(TheirOid::new(next.parts()), theirs(tag, value)))
            }
            None => GetNextResult::EndOfMibView,
        };
        Box::pin(std::future::ready(Ok(result)))
    }

    fn test_set<'a>(
        &'a self,
        _: &'a RequestContext,
        oid: &'a TheirOid,
        value: &'a TheirValue,
    ) -> BoxFuture<'a, SetTestResult> {
        Box::pin(std::future::ready(self.prepare(oid, value)))
    }
}

impl Mib {
    fn prepare(&self, oid: &TheirOid, value: &TheirValue) -> SetTestResult {
        let oid = ours(oid).ok_or(SetTestError::NoCreation)?;
        let value = our_value(value);
        self.answers.check(&oid, &value).map_err(|refusal| match refusal {
            Refusal::NotWritable => SetTestError::NotWritable,
            Refusal::WrongType => SetTestError::WrongType,
            Refusal::WrongValue => SetTestError::WrongValue,
        })?;
        Ok(Box::new(Prepared { answers: self.answers.clone(), oid, value }))
    }
}

struct Prepared {
    answers: Arc<dyn Answers>,
    oid: Oid,
    value: Value,
}

impl PreparedSet for Prepared {
    fn commit<'a>(
        &'a mut self,
        _: &'a RequestContext,
        _: &'a TheirOid,
        _: &'a TheirValue,
    ) -> BoxFuture<'a, SetCommitResult> {
        let result = self.answers.write(&self.oid, &self.value).map_err(|_| SetCommitError::Failed);
        Box::pin(std::future::ready(result))
    }

    // A relay that has been told to move cannot be untold.
    fn undo<'a>(
        &'a mut self,
        _: &'a RequestContext,
        _: &'a TheirOid,
        _: &'a TheirValue,
    ) -> BoxFuture<'a, SetUndoResult> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn ours(oid: &TheirOid) -> Option<Oid> {
    Oid::from_parts(oid.arcs()).ok()
}

fn our_value(value: &TheirValue) -> Value {
    match value {
        TheirValue::Integer(number) => Value::Integer(i64::from(*number)),
        TheirValue::Gauge32(n) => Value::Unsigned(u64::from(*n), Whole::Gauge),
        TheirValue::Counter32(n) => Value::Unsigned(u64::from(*n), Whole::Counter),
        TheirValue::TimeTicks(n) => Value::Unsigned(u64::from(*n), Whole::Ticks),
        TheirValue::OctetString(bytes) => Value::Bytes(bytes.as_ref().into()),
        _ => Value::Other,
    }
}

fn theirs(tag: u8, value: Value) -> TheirValue {
    match value {
        Value::Integer(number) => {
            TheirValue::Integer(number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
        }
        Value::Unsigned(number, _) => match tag {
            65 => TheirValue::Counter32(number as u32),
            67 => TheirValue::TimeTicks(number as u32),
            70 => TheirValue::Counter64(number),
            _ => TheirValue::Gauge32(number as u32),
        },
        Value::Bytes(bytes) if tag == 68 => TheirValue::Opaque(bytes.into_vec().into()),
        Value::Bytes(bytes) => TheirValue::OctetString(bytes.into_vec().into()),
        Value::Oid(oid) => TheirValue::ObjectIdentifier(TheirOid::new(oid.parts())),
        Value::Ip(ip) => TheirValue::IpAddress(ip),
        Value::Nothing | Value::Other => TheirValue::Null,
    }
}
