//! Links: one request to a device and its reply, over SNMP or Modbus. A link never has two requests in
//! flight, never takes one reply for another, and never sends a write twice.

pub mod modbus;
pub mod recording;
pub mod registers;
pub mod rtu;
pub mod snmp;
pub mod snmp_v3;
pub mod trap;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::ask::{Ask, Reply};

/// What a link's call returns.
pub type Exchange<'a> = Pin<Box<dyn Future<Output = Result<Reply, LinkError>> + Send + 'a>>;

/// One request, one reply, once.
pub trait Link: Send {
    /// Sends the request and waits for its reply, at most this long. After an error the link has
    /// forgotten whatever might still arrive.
    fn once<'a>(&'a mut self, ask: &'a Ask, timeout: Duration) -> Exchange<'a>;

    /// Whether the peer can be asked in bulk (not SNMPv1).
    fn has_bulk(&self) -> bool {
        true
    }
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nothing came in time.
    #[error("gave no answer within {waited_ms} ms{hint}")]
    Timeout {
        /// How long was waited in all.
        waited_ms: u64,
        /// What else looks like this.
        hint: &'static str,
    },
    /// The network says that nothing is there.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Something came that is no answer to what was asked.
    #[error("answered with something else: {0}")]
    Garbled(String),
    /// The credentials are refused.
    #[error("refuses the credentials: {0}")]
    Denied(String),
    /// The connection ended in the middle.
    #[error("closed the connection: {0}")]
    Closed(String),
    /// This link does not speak that protocol: a mistake of ours.
    #[error("the link does not speak the protocol of the driver")]
    WrongProtocol,
}

impl LinkError {
    /// Whether a write that failed so may have taken effect all the same.
    pub fn may_have_arrived(&self) -> bool {
        matches!(
            self,
            LinkError::Timeout { .. }
                | LinkError::Garbled(_)
                | LinkError::Closed(_)
                | LinkError::Unreachable(_)
        )
    }

    /// Whether asking again may help.
    fn may_pass(&self) -> bool {
        !matches!(self, LinkError::WrongProtocol)
    }
}

/// How a device of a family wants to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Pause between two requests.
    pub gap: Duration,
    /// How long a reply may take.
    pub timeout: Duration,
    /// How often a read is sent. A write is sent once.
    pub attempts: u32,
}

impl Patience {
    /// In milliseconds and times.
    pub fn new((gap_ms, timeout_ms, attempts): (u64, u64, u32)) -> Self {
        Self {
            gap: Duration::from_millis(gap_ms),
            timeout: Duration::from_millis(timeout_ms),
            attempts,
        }
    }
}

/// A link with manners: pauses between requests, repeats reads, counts.
pub struct Line {
    link: Box<dyn Link>,
    /// How the device wants to be treated.
    pub patience: Patience,
    last: Option<Instant>,
    requests: u64,
}

impl Line {
    /// Over a link.
    pub fn new(link: Box<dyn Link>, patience: Patience) -> Self {
        Self { link, patience, last: None, requests: 0 }
    }

    /// Sends a request. A read is repeated on failure, a write never: whether a lost write took effect
    /// is found out by looking.
    pub async fn exchange(&mut self, ask: &Ask) -> Result<Reply, LinkError> {
        let attempts = if ask.is_write() { 1 } else { self.patience.attempts.max(1) };
        let began = Instant::now();
        for attempt in 1..=attempts {
            self.pause().await;
            self.requests += 1;
            let result = self.link.once(ask, self.patience.timeout).await;
            self.last = Some(Instant::now());
            match result {
                Ok(reply) => return Ok(reply),
                Err(error) if attempt < attempts && error.may_pass() => {
                    tracing::debug!(attempt, %error, "asking again");
                }
                Err(LinkError::Timeout { hint, .. }) => {
                    let waited_ms = began.elapsed().as_millis() as u64;
                    return Err(LinkError::Timeout { waited_ms, hint });
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn pause(&mut self) {
        if let Some(last) = self.last.filter(|_| !self.patience.gap.is_zero()) {
            tokio::time::sleep_until(last + self.patience.gap).await;
        }
    }

    /// Whether the peer can be asked in bulk.
    pub fn has_bulk(&self) -> bool {
        self.link.has_bulk()
    }

    /// Requests sent so far, repeats included.
    pub fn requests(&self) -> u64 {
        self.requests
    }
}
