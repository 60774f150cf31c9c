//! A UDP proxy between us and an agent that does to datagrams what networks and bad agents do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;

/// What is done to the next replies, one after the other; then they pass.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Passes.
    Pass,
    /// Is lost.
    Lose,
    /// Comes twice.
    Double,
    /// Comes this late.
    Late(Duration),
    /// Comes with this many bytes only.
    Truncate(usize),
    /// Comes with this in place of what was sent.
    Forge(fn(&[u8]) -> Vec<u8>),
    /// Comes after a forged one.
    ForgeFirst(fn(&[u8]) -> Vec<u8>),
}

/// Is shown each request; whether it goes on to the device.
type Guard = Box<dyn FnMut(&[u8]) -> bool + Send>;

#[derive(Default)]
struct Shared {
    faults: Vec<Fault>,
    requests: Vec<Vec<u8>>,
    delay: Duration,
    silent: bool,
    on_request: Option<Guard>,
}

/// The proxy.
#[derive(Clone)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// Before an agent.
    pub async fn before(agent: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let proxy = Self { address: front.local_addr().unwrap(), shared: Arc::default() };
        let running = proxy.clone();
        tokio::spawn(async move { running.run(front, agent).await });
        proxy
    }

    async fn run(self, front: Arc<UdpSocket>, agent: SocketAddr) {
        let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut buffer = vec![0; 65_536];
        while let Ok((len, client)) = front.recv_from(&mut buffer).await {
            let datagram = buffer[..len].to_vec();
            let (pass, delay) = {
                let mut shared = self.shared.lock().unwrap();
                shared.requests.push(datagram.clone());
                let wanted =
                    shared.on_request.as_mut().is_none_or(|on_request| on_request(&datagram));
                (wanted && !shared.silent, shared.delay)
            };
            if !pass {
                continue;
            }
            let back = if let Some(back) = backs.get(&client) {
                back.clone()
            } else {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                back.connect(agent).await.unwrap();
                backs.insert(client, back.clone());
                let (this, front, replies) = (self.clone(), front.clone(), back.clone());
                tokio::spawn(async move { this.replies(&front, &replies, client).await });
                back
            };
            if !delay.is_zero() {
                tokio::time::sleep(delay).await; // the peer's own delay
            }
            back.send(&datagram).await.unwrap();
        }
    }

    async fn replies(&self, front: &Arc<UdpSocket>, back: &UdpSocket, client: SocketAddr) {
        let mut buffer = vec![0; 65_536];
        while let Ok(len) = back.recv(&mut buffer).await {
            let reply = buffer[..len].to_vec();
            let fault = {
                let mut shared = self.shared.lock().unwrap();
                if shared.faults.is_empty() { Fault::Pass } else { shared.faults.remove(0) }
            };
            match fault {
                Fault::Pass => drop(front.send_to(&reply, client).await),
                Fault::Lose => {}
                Fault::Double => {
                    drop(front.send_to(&reply, client).await);
                    drop(front.send_to(&reply, client).await);
                }
                Fault::Truncate(len) => {
                    drop(front.send_to(&reply[..len.min(reply.len())], client).await);
                }
                Fault::Forge(forge) => drop(front.send_to(&forge(&reply), client).await),
                Fault::ForgeFirst(forge) => {
                    drop(front.send_to(&forge(&reply), client).await);
                    drop(front.send_to(&reply, client).await);
                }
                Fault::Late(late) => {
                    let front = front.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(late).await; // the peer's own delay
                        drop(front.send_to(&reply, client).await);
                    });
                }
            }
        }
    }

    /// What happens to the next replies.
    pub fn faults(&self, faults: &[Fault]) {
        self.shared.lock().unwrap().faults = faults.to_vec();
    }

    /// Every request is held this long.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().unwrap().delay = delay;
    }

    /// Nothing passes, or everything again.
    pub fn silent(&self, silent: bool) {
        self.shared.lock().unwrap().silent = silent;
    }

    /// Looks at every request; false keeps it back.
    pub fn on_request(&self, look: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.shared.lock().unwrap().on_request = Some(Box::new(look));
    }

    /// The requests so far, taken out.
    pub fn take_requests(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.shared.lock().unwrap().requests)
    }
}

/// Whether a datagram is an SNMPv1 or v2c SET (RFC 3416: context tag 3).
pub fn is_set(datagram: &[u8]) -> bool {
    // SEQUENCE, version INTEGER, community OCTET STRING, then the PDU.
    let Some(rest) = skip_header(datagram) else { return false };
    let Some(rest) = skip(rest) else { return false };
    let Some(rest) = skip(rest) else { return false };
    rest.first() == Some(&0xa3)
}

fn skip_header(bytes: &[u8]) -> Option<&[u8]> {
    let length = *bytes.get(1)?;
    bytes.get(if length & 0x80 == 0 { 2 } else { 2 + usize::from(length & 0x7f) }..)
}

fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let inner = skip_header(bytes)?;
    let length = usize::from(*bytes.get(1)?);
    inner.get(length..)
}
