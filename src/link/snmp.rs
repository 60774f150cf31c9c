//! SNMPv1 and v2c over snmp2. Its session has no timeout and stays one reply behind for good after a
//! late one, so a session that met anything odd is thrown away with its socket: what arrives late then
//! arrives nowhere.

use std::net::SocketAddr;
use std::time::Duration;

use snmp2::{AsyncSession, Error, Oid as WireOid, Pdu, Value as WireValue};

use crate::model::ask::{Ask, Reply, Value, Whole};
use crate::model::oid::Oid;
use crate::model::secret::Secret;

use super::{Exchange, Link, LinkError};

const HINT: &str = " (a wrong community looks the same)";

/// An SNMPv1 or v2c link.
pub struct SnmpLink {
    peer: SocketAddr,
    v1: bool,
    read: Secret,
    write: Secret,
    reader: Option<AsyncSession>,
    writer: Option<AsyncSession>,
    request_id: i32,
}

impl SnmpLink {
    /// To an agent. The request ids start anywhere, so that replies to an earlier program are strange.
    pub fn new(peer: SocketAddr, v1: bool, read: Secret, write: Secret, first_id: i32) -> Self {
        Self {
            peer,
            v1,
            read,
            write,
            reader: None,
            writer: None,
            request_id: first_id & 0x3fff_ffff,
        }
    }

    async fn session(&mut self, for_write: bool) -> Result<AsyncSession, LinkError> {
        let kept = if for_write { self.writer.take() } else { self.reader.take() };
        if let Some(session) = kept {
            return Ok(session);
        }
        let community = if for_write { &self.write } else { &self.read };
        // Sessions of one link never share ids: what is late for one is no reply for the next.
        self.request_id = self.request_id.wrapping_add(0x0001_0000) & 0x3fff_ffff;
        let session = if self.v1 {
            AsyncSession::new_v1(self.peer, community.expose().as_bytes(), self.request_id).await
        } else {
            AsyncSession::new_v2c(self.peer, community.expose().as_bytes(), self.request_id).await
        };
        session.map_err(|error| LinkError::Unreachable(error.to_string()))
    }

    async fn send(&mut self, ask: &Ask, timeout: Duration) -> Result<Reply, LinkError> {
        let for_write = ask.is_write();
        let mut session = self.session(for_write).await?;
        let reply = match tokio::time::timeout(timeout, request(&mut session, ask)).await {
            Err(_) => {
                let waited_ms = timeout.as_millis() as u64;
                return Err(LinkError::Timeout { waited_ms, hint: HINT });
            }
            Ok(result) => result?,
        };
        *(if for_write { &mut self.writer } else { &mut self.reader }) = Some(session);
        Ok(reply)
    }
}

impl Link for SnmpLink {
    fn once<'a>(&'a mut self, ask: &'a Ask, timeout: Duration) -> Exchange<'a> {
        Box::pin(self.send(ask, timeout))
    }

    fn has_bulk(&self) -> bool {
        !self.v1
    }
}

async fn request(session: &mut AsyncSession, ask: &Ask) -> Result<Reply, LinkError> {
    let result = match ask {
        Ask::Get(oids) => {
            let wire = wire_oids(oids);
            session.get_many(&wire.iter().collect::<Vec<_>>()).await
        }
        Ask::GetNext(oids) => {
            let wire = wire_oids(oids);
            let [first] = wire.as_slice() else { return Err(LinkError::WrongProtocol) };
            session.getnext(first).await
        }
        Ask::GetBulk { names, single, repeat } => {
            let wire = wire_oids(names);
            session.getbulk(&wire.iter().collect::<Vec<_>>(), *single, *repeat).await
        }
        Ask::Set(binds) => {
            let names: Vec<WireOid<'_>> = binds.iter().map(|(oid, _)| wire_oid(oid)).collect();
            let values: Option<Vec<_>> = binds.iter().map(|(_, value)| wire_value(value)).collect();
            let values = values.ok_or(LinkError::WrongProtocol)?;
            session.set(&names.iter().zip(values).collect::<Vec<_>>()).await
        }
        _ => return Err(LinkError::WrongProtocol),
    };
    match result {
        Ok(pdu) => Ok(reply(&pdu)),
        Err(Error::Send | Error::Receive) => {
            Err(LinkError::Unreachable("nothing listens at this address and port".into()))
        }
        Err(Error::CommunityMismatch) => {
            Err(LinkError::Denied("another community came back".into()))
        }
        Err(error) => Err(LinkError::Garbled(error.to_string())),
    }
}

fn reply(pdu: &Pdu<'_>) -> Reply {
    if pdu.error_status != 0 {
        return Reply::Refused { status: pdu.error_status, index: pdu.error_index };
    }
    let binds = pdu.varbinds.clone().map(|(oid, value)| (our_oid(&oid), our_value(&value)));
    Reply::Binds(binds.collect())
}

fn wire_oids(oids: &[Oid]) -> Vec<WireOid<'_>> {
    oids.iter().map(wire_oid).collect()
}

fn wire_oid(oid: &Oid) -> WireOid<'_> {
    WireOid::new(oid.wire().into())
}

/// An OID that is too long for us is one that we did not ask for.
fn our_oid(oid: &WireOid<'_>) -> Oid {
    Oid::from_wire(oid.as_bytes()).unwrap_or_default()
}

fn wire_value(value: &Value) -> Option<WireValue<'_>> {
    match value {
        Value::Integer(number) => Some(WireValue::Integer(*number)),
        Value::Unsigned(number, _) => Some(WireValue::Unsigned32(u32::try_from(*number).ok()?)),
        Value::Bytes(bytes) => Some(WireValue::OctetString(bytes)),
        _ => None,
    }
}

fn our_value(value: &WireValue<'_>) -> Value {
    match value {
        WireValue::Boolean(flag) => Value::Integer(i64::from(*flag)),
        WireValue::Integer(number) => Value::Integer(*number),
        WireValue::Counter32(number) => Value::Unsigned(u64::from(*number), Whole::Counter),
        WireValue::Unsigned32(number) => Value::Unsigned(u64::from(*number), Whole::Gauge),
        WireValue::Timeticks(number) => Value::Unsigned(u64::from(*number), Whole::Ticks),
        WireValue::Counter64(number) => Value::Unsigned(*number, Whole::Counter64),
        WireValue::OctetString(bytes) | WireValue::Opaque(bytes) => Value::Bytes((*bytes).into()),
        WireValue::ObjectIdentifier(oid) => Value::Oid(our_oid(oid)),
        WireValue::IpAddress(ip) => Value::Ip(*ip),
        WireValue::Null
        | WireValue::NoSuchObject
        | WireValue::NoSuchInstance
        | WireValue::EndOfMibView => Value::Nothing,
        _ => Value::Other,
    }
}
