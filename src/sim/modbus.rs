//! A simulated PDU behind a Modbus TCP server, with the registers of a NETIO PowerPDU. The server crate's
//! decoder panics on some malformed requests; every connection has a task of its own, so that a panic ends
//! that connection and nothing else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response};
use tokio_util::sync::CancellationToken;

use crate::model::metric::{Metric, Scope, Word};
use crate::model::quantity::Count;
use crate::model::switching::Relay;
use crate::model::time::Clock;

use super::physics::Pdu;

/// First coil of the outputs; register 102 of the manual.
const OUTPUTS: u16 = 101;

#[derive(Clone)]
struct Netio {
    pdu: Arc<Mutex<Pdu>>,
    clock: Arc<dyn Clock>,
}

/// Starts the server of a simulated PDU; tells where it listens.
pub async fn serve(
    pdu: Arc<Mutex<Pdu>>,
    listen: SocketAddr,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let service = Netio { pdu, clock };
    tokio::spawn(async move {
        let server = Server::new(listener);
        let connected = |stream, peer| {
            let service = service.clone();
            async move { accept_tcp_connection(stream, peer, move |_| Ok(Some(service.clone()))) }
        };
        let failed = |error| tracing::debug!(%error, "a Modbus client went away");
        tokio::select! {
            () = stop.cancelled() => {}
            result = server.serve(&connected, failed) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "the simulated Modbus server at {address} ended");
                }
            }
        }
    });
    Ok(address)
}

impl Service for Netio {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = std::future::Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Request<'static>) -> Self::Future {
        std::future::ready(self.answer(&request))
    }
}

impl Netio {
    fn answer(&self, request: &Request<'_>) -> Result<Response, ExceptionCode> {
        let range = |start: u16, count: u16| {
            let end = start.checked_add(count).ok_or(ExceptionCode::IllegalDataAddress)?;
            Ok::<_, ExceptionCode>(start..end)
        };
        match request {
            Request::ReadCoils(start, count) => {
                let bits: Result<Vec<bool>, _> =
                    range(*start, *count)?.map(|at| self.coil(at)).collect();
                bits.map(Response::ReadCoils)
            }
            Request::ReadHoldingRegisters(start, count) => {
                let words: Result<Vec<u16>, _> =
                    range(*start, *count)?.map(|at| self.holding(at)).collect();
                words.map(Response::ReadHoldingRegisters)
            }
            Request::ReadInputRegisters(start, count) => {
                let words: Result<Vec<u16>, _> =
                    range(*start, *count)?.map(|at| self.input(at)).collect();
                words.map(Response::ReadInputRegisters)
            }
            Request::WriteSingleCoil(at, on) => {
                let outlet = self.output(*at, OUTPUTS)?;
                let relay = if *on { Relay::On } else { Relay::Off };
                self.lock().switch(outlet, relay, self.clock.tick());
                Ok(Response::WriteSingleCoil(*at, *on))
            }
            _ => Err(ExceptionCode::IllegalFunction),
        }
    }

    fn coil(&self, at: u16) -> Result<bool, ExceptionCode> {
        let outlet = self.output(at, OUTPUTS)?;
        let state = self.lock().value(Scope::Outlet, outlet, Metric::State, self.clock.tick());
        Ok(state == Some(Word::On.number()))
    }

    fn holding(&self, at: u16) -> Result<u16, ExceptionCode> {
        match at {
            0 => Ok(1),
            1 | 2 => Ok(self.lock().outlets()),
            at => self.coil(at).map(u16::from),
        }
    }

    fn input(&self, at: u16) -> Result<u16, ExceptionCode> {
        let outlets = self.lock().outlets();
        let inlet = |metric, count| self.show(Scope::Inlet, 0, metric, count);
        let narrow = |value: i64| u16::try_from(value).unwrap_or(u16::MAX);
        let half = |value: i64, high: bool| if high { (value >> 16) as u16 } else { value as u16 };
        match at {
            0 => Ok(narrow(inlet(Metric::Frequency, "0.01 Hz"))),
            1 => Ok(narrow(inlet(Metric::Voltage, "0.1 V"))),
            2 => Ok(narrow(inlet(Metric::PowerFactor, "0.001"))),
            3 | 100 => Ok(narrow(inlet(Metric::Current, "1 mA"))),
            4 | 200 => Ok(narrow(inlet(Metric::Power, "1 W"))),
            300 | 301 => Ok(half(inlet(Metric::Energy, "1 Wh"), at == 300)),
            101..200 => {
                Ok(narrow(self.show(Scope::Outlet, self.output(at, 101)?, Metric::Current, "1 mA")))
            }
            201..300 => {
                Ok(narrow(self.show(Scope::Outlet, self.output(at, 201)?, Metric::Power, "1 W")))
            }
            302.. if at < 302 + 2 * outlets => {
                let outlet = (at - 302) / 2;
                Ok(half(
                    self.show(Scope::Outlet, outlet, Metric::Energy, "1 Wh"),
                    at.is_multiple_of(2),
                ))
            }
            _ => Err(ExceptionCode::IllegalDataAddress),
        }
    }

    fn output(&self, at: u16, first: u16) -> Result<u16, ExceptionCode> {
        let outlet = at.checked_sub(first).filter(|outlet| *outlet < self.lock().outlets());
        outlet.ok_or(ExceptionCode::IllegalDataAddress)
    }

    fn show(&self, scope: Scope, part: u16, metric: Metric, count: &str) -> i64 {
        let kept = self.lock().value(scope, part, metric, self.clock.tick()).unwrap_or(0);
        count.parse::<Count>().map_or(0, |count| count.counts(kept))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pdu> {
        self.pdu.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
