//! Modbus RTU over a serial line that several units share, one request at a time, in the order of asking.
//!
//! An RTU reply carries no transaction number: one that comes late looks like the answer to the next question, and all
//! answers after it are off by one. So after anything but a clean exchange the port is closed and opened again, and
//! nothing is asked until the line has been silent for as long as a reply may take.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;
use tokio_modbus::client::{Client as _, Context, rtu};
use tokio_modbus::slave::SlaveContext as _;
use tokio_modbus::{Request, Slave};
use tokio_serial::{DataBits, Parity, SerialPortBuilderExt as _, SerialStream, StopBits};

use crate::model::ask::{Ask, Reply};

use super::modbus::{checked, failure, request};
use super::{Exchange, Link, LinkError};

/// The least time that a reply is given, and that a line must be silent after one that did not come: RS-485 devices
/// behind slow gateways answer within it.
const LEAST: Duration = Duration::from_secs(1);
/// How long a line may go on talking before it is given up.
const BABBLE: Duration = Duration::from_secs(10);

/// A serial port and how it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial {
    /// The device file.
    pub device: PathBuf,
    /// Bits a second.
    pub baud: u32,
    /// Parity.
    pub parity: Parity,
    /// Stop bits: 1 or 2.
    pub stop_bits: StopBits,
}

impl Serial {
    /// As most PDUs are set when they are new: 9600 baud, no parity, one stop bit.
    pub fn usual(device: PathBuf) -> Self {
        Self { device, baud: 9_600, parity: Parity::None, stop_bits: StopBits::One }
    }

    fn open(&self) -> Result<SerialStream, LinkError> {
        let device = self.device.display().to_string();
        tokio_serial::new(device.clone(), self.baud)
            .data_bits(DataBits::Eight)
            .parity(self.parity)
            .stop_bits(self.stop_bits)
            .open_native_async()
            .map_err(|error| LinkError::Unreachable(format!("{device} does not open: {error}")))
    }

    /// Silence between two frames: 3.5 characters of 11 bits (Modbus over Serial Line 1.02, section 2.5.1.1), and at
    /// least what it says for fast lines.
    fn gap(&self) -> Duration {
        let bits = 38.5 / f64::from(self.baud.max(1));
        Duration::from_secs_f64(bits).max(Duration::from_micros(1_750))
    }
}

/// By name.
pub const PARITIES: [(&str, Parity); 3] =
    [("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)];

/// A line with whatever hangs on it.
struct Bus {
    serial: Serial,
    port: tokio::sync::Mutex<Port>,
}

#[derive(Default)]
struct Port {
    /// Open, and every exchange on it so far was clean.
    clean: Option<Context>,
    /// When the last frame ended.
    ended: Option<Instant>,
    /// How long a reply of the last unclean exchange may still come.
    silence: Duration,
}

/// The lines in use, by device file: PDUs on one line share it.
static LINES: LazyLock<Mutex<HashMap<PathBuf, Weak<Bus>>>> = LazyLock::new(Mutex::default);

fn bus(serial: Serial) -> Arc<Bus> {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.retain(|_, bus| bus.strong_count() > 0);
    if let Some(bus) = lines.get(&serial.device).and_then(Weak::upgrade)
        && bus.serial == serial
    {
        return bus;
    }
    let device = serial.device.clone();
    let bus = Arc::new(Bus { serial, port: tokio::sync::Mutex::default() });
    lines.insert(device, Arc::downgrade(&bus));
    bus
}

/// One unit on a line.
pub struct RtuLink {
    bus: Arc<Bus>,
    unit: u8,
}

impl RtuLink {
    /// To a unit.
    pub fn new(serial: Serial, unit: u8) -> Self {
        Self { bus: bus(serial), unit }
    }

    async fn send(&mut self, ask: &Ask, timeout: Duration) -> Result<Reply, LinkError> {
        let request = request(ask).ok_or(LinkError::WrongProtocol)?;
        let timeout = timeout.max(LEAST);
        // Whoever asked first is served first; waiting for a turn does not count as waiting for the device.
        let mut port = self.bus.port.lock().await;
        // The context is taken out: if this future is dropped in the middle, the port is closed with it.
        let mut line = match port.clean.take() {
            Some(line) => line,
            None => self.quiet(port.silence).await?,
        };
        port.silence = timeout;
        if let Some(ended) = port.ended {
            tokio::time::sleep_until(ended + self.bus.serial.gap()).await;
        }
        line.set_slave(Slave(self.unit));
        let called = tokio::time::timeout(timeout, line.call(Request::into_owned(request))).await;
        port.ended = Some(Instant::now());
        let Ok(called) = called else {
            return Err(LinkError::Timeout { waited_ms: timeout.as_millis() as u64, hint: "" });
        };
        let reply = match called.map_err(failure)? {
            Ok(response) => checked(ask, response)?,
            Err(exception) => Reply::Exception(exception.into()),
        };
        port.clean = Some(line);
        Ok(reply)
    }

    /// Opens the line and listens until nothing more comes.
    async fn quiet(&self, silence: Duration) -> Result<Context, LinkError> {
        let mut port = self.bus.serial.open()?;
        let until = Instant::now() + BABBLE;
        let mut bytes = [0; 256];
        loop {
            match tokio::time::timeout(silence, port.read(&mut bytes)).await {
                Err(_) => return Ok(rtu::attach_slave(port, Slave(self.unit))),
                Ok(Ok(0)) => return Err(LinkError::Closed("the serial line is gone".into())),
                Ok(Ok(_)) if Instant::now() < until => {}
                Ok(Ok(_)) => {
                    return Err(LinkError::Garbled("the serial line does not fall silent".into()));
                }
                Ok(Err(error)) => return Err(LinkError::Closed(error.to_string())),
            }
        }
    }
}

impl Link for RtuLink {
    fn once<'a>(&'a mut self, ask: &'a Ask, timeout: Duration) -> Exchange<'a> {
        Box::pin(self.send(ask, timeout))
    }
}
