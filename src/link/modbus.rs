//! Modbus TCP over tokio-modbus. The crate checks lengths and echoes only in debug builds, so they are
//! checked here; after anything odd the connection is dropped, and a late reply with it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_modbus::client::{Client as _, Context, tcp};
use tokio_modbus::prelude::ReadCode;
use tokio_modbus::{Error, Request, Response, Slave};

use crate::model::ask::{Ask, Registers, Reply};

use super::{Exchange, Link, LinkError};

/// A Modbus TCP link.
pub struct ModbusLink {
    peer: SocketAddr,
    unit: u8,
    connection: Option<Context>,
}

impl ModbusLink {
    /// To a device, or to a unit behind a gateway.
    pub fn new(peer: SocketAddr, unit: u8) -> Self {
        Self { peer, unit, connection: None }
    }

    async fn connected(&mut self) -> Result<Context, LinkError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let unreachable = |error: std::io::Error| LinkError::Unreachable(error.to_string());
        let stream = TcpStream::connect(self.peer).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(tcp::attach_slave(stream, Slave(self.unit)))
    }

    async fn send(&mut self, ask: &Ask, timeout: Duration) -> Result<Reply, LinkError> {
        let request = request(ask).ok_or(LinkError::WrongProtocol)?;
        let exchange = async {
            let mut connection = self.connected().await?;
            let result = connection.call(request).await.map_err(failure)?;
            Ok::<_, LinkError>((connection, result))
        };
        let Ok(exchanged) = tokio::time::timeout(timeout, exchange).await else {
            // The connection is gone with the future that held it.
            let waited_ms = timeout.as_millis() as u64;
            return Err(LinkError::Timeout { waited_ms, hint: "" });
        };
        let (connection, result) = exchanged?;
        let reply = match result {
            Ok(response) => checked(ask, response)?,
            Err(exception) => Reply::Exception(exception.into()),
        };
        self.connection = Some(connection);
        Ok(reply)
    }
}

impl Link for ModbusLink {
    fn once<'a>(&'a mut self, ask: &'a Ask, timeout: Duration) -> Exchange<'a> {
        Box::pin(self.send(ask, timeout))
    }
}

pub(super) fn request(ask: &Ask) -> Option<Request<'_>> {
    Some(match ask {
        Ask::Read { table: Registers::Coil, start, count } => Request::ReadCoils(*start, *count),
        Ask::Read { table: Registers::Discrete, start, count } => {
            Request::ReadDiscreteInputs(*start, *count)
        }
        Ask::Read { table: Registers::Holding, start, count } => {
            Request::ReadHoldingRegisters(*start, *count)
        }
        Ask::Read { table: Registers::Input, start, count } => {
            Request::ReadInputRegisters(*start, *count)
        }
        Ask::WriteCoil { address, on } => Request::WriteSingleCoil(*address, *on),
        Ask::WriteRegisters { address, words } => match words.as_slice() {
            [word] => Request::WriteSingleRegister(*address, *word),
            words => Request::WriteMultipleRegisters(*address, words.into()),
        },
        Ask::DeviceId(object) => Request::ReadDeviceIdentification(ReadCode::Specific, *object),
        Ask::Get(_) | Ask::GetNext(_) | Ask::GetBulk { .. } | Ask::Set(_) => return None,
    })
}

/// The reply, if it is as long as what was asked for, or echoes what was written.
pub(super) fn checked(ask: &Ask, response: Response) -> Result<Reply, LinkError> {
    let wrong =
        || LinkError::Garbled("the reply has another length or echo than the request".into());
    match (ask, response) {
        (
            Ask::Read { count, .. },
            Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words),
        ) if words.len() == usize::from(*count) => Ok(Reply::Words(words)),
        (
            Ask::Read { count, .. },
            Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits),
        ) if (usize::from(*count)..usize::from(*count) + 8).contains(&bits.len()) => {
            Ok(Reply::Bits(bits))
        }
        (Ask::WriteCoil { address, on }, Response::WriteSingleCoil(at, state))
            if (at, state) == (*address, *on) =>
        {
            Ok(Reply::Written)
        }
        (Ask::WriteRegisters { address, words }, Response::WriteSingleRegister(at, word))
            if at == *address && words.as_slice() == [word] =>
        {
            Ok(Reply::Written)
        }
        (Ask::WriteRegisters { address, words }, Response::WriteMultipleRegisters(at, count))
            if at == *address && words.len() == usize::from(count) =>
        {
            Ok(Reply::Written)
        }
        (Ask::DeviceId(_), Response::ReadDeviceIdentification(found)) => {
            let objects = found.device_id_objects.iter();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Reply::Identification(objects.map(|o| (o.id, text(&o.value))).collect()))
        }
        _ => Err(wrong()),
    }
}

pub(super) fn failure(error: Error) -> LinkError {
    match error {
        Error::Protocol(error) => LinkError::Garbled(error.to_string()),
        // The crate reports a closed connection by whatever the last system error was.
        Error::Transport(error) => LinkError::Closed(error.to_string()),
    }
}
