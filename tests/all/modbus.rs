//! Modbus links against devices that misbehave: late replies, wrong lengths and echoes, connections cut in the
//! middle, exceptions.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pmgate::device::Target;
use pmgate::link::{Line, LinkError};
use pmgate::model::ask::{Ask, Registers, Reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::rig::{anywhere, line};

/// How the device answers one request: bytes after a delay, and whether it then cuts the connection.
#[derive(Debug, Clone)]
struct Reaction {
    bytes: Vec<u8>,
    after: Duration,
    cut: bool,
}

type Behaviour = Box<dyn FnMut(&[u8]) -> Reaction + Send>;

/// A device whose every answer is decided by the test. Tells its address, and counts connections.
async fn device(
    behaviour: impl FnMut(&[u8]) -> Reaction + Send + 'static,
) -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(Mutex::new(0));
    let counted = connections.clone();
    let behaviour: Arc<Mutex<Behaviour>> = Arc::new(Mutex::new(Box::new(behaviour)));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *counted.lock().unwrap() += 1;
            let behaviour = behaviour.clone();
            tokio::spawn(async move {
                let mut head = [0; 7];
                while stream.read_exact(&mut head).await.is_ok() {
                    let mut pdu = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 1];
                    stream.read_exact(&mut pdu).await.unwrap();
                    let request = [&head[..], &pdu[..]].concat();
                    let reaction = (behaviour.lock().unwrap())(&request);
                    tokio::time::sleep(reaction.after).await; // the peer's own delay
                    if stream.write_all(&reaction.bytes).await.is_err() || reaction.cut {
                        return;
                    }
                }
            });
        }
    });
    (address, connections)
}

/// The right answer to a read of holding registers: each has its address as value.
fn honest(request: &[u8]) -> Vec<u8> {
    let (start, count) = (
        u16::from_be_bytes([request[8], request[9]]),
        u16::from_be_bytes([request[10], request[11]]),
    );
    let mut pdu = vec![request[7], (count * 2) as u8];
    (start..start + count).for_each(|register| pdu.extend(register.to_be_bytes()));
    framed(request, &pdu)
}

fn framed(request: &[u8], pdu: &[u8]) -> Vec<u8> {
    let mut frame = request[..4].to_vec();
    frame.extend((pdu.len() as u16 + 1).to_be_bytes());
    frame.push(request[6]);
    frame.extend(pdu);
    frame
}

fn at_once(bytes: Vec<u8>) -> Reaction {
    Reaction { bytes, after: Duration::ZERO, cut: false }
}

async fn read(line: &mut Line, start: u16, count: u16) -> Result<Vec<u16>, LinkError> {
    match line.exchange(&Ask::Read { table: Registers::Holding, start, count }).await? {
        Reply::Words(words) => Ok(words),
        other => panic!("{other:?}"),
    }
}

fn target(address: SocketAddr) -> Target {
    Target::Modbus { address: address.to_string().parse().unwrap(), unit: Some(1) }
}

#[tokio::test]
async fn a_late_reply_dies_with_its_connection() {
    let mut seen = 0;
    let (address, connections) = device(move |request| {
        seen += 1;
        let after = Duration::from_millis(if seen == 1 { 250 } else { 0 });
        Reaction { bytes: honest(request), after, cut: false }
    })
    .await;
    let mut line = line(&target(address), 150, 1).await;
    assert!(matches!(read(&mut line, 10, 2).await, Err(LinkError::Timeout { .. })));
    for start in [20, 30, 40] {
        assert_eq!(read(&mut line, start, 2).await.unwrap(), [start, start + 1]);
    }
    assert_eq!(*connections.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_reply_of_another_length_is_none() {
    let mut seen = 0;
    let (address, _) = device(move |request| {
        seen += 1;
        // One register where two were asked for: the crate itself lets this pass in release builds.
        at_once(if seen == 1 { framed(request, &[request[7], 2, 0, 9]) } else { honest(request) })
    })
    .await;
    let mut line = line(&target(address), 300, 1).await;
    assert!(matches!(read(&mut line, 10, 2).await, Err(LinkError::Garbled(_))));
    assert_eq!(read(&mut line, 10, 2).await.unwrap(), [10, 11]);
}

#[tokio::test]
async fn a_reply_to_another_transaction_or_unit_or_function_is_none() {
    for byte in [1, 6, 7] {
        let mut seen = 0;
        let (address, _) = device(move |request| {
            seen += 1;
            let mut reply = honest(request);
            if seen == 1 {
                reply[byte] ^= 1;
            }
            at_once(reply)
        })
        .await;
        let mut line = line(&target(address), 300, 1).await;
        let result = read(&mut line, 10, 2).await;
        assert!(
            matches!(result, Err(LinkError::Garbled(_) | LinkError::Closed(_))),
            "byte {byte}: {result:?}"
        );
        assert_eq!(read(&mut line, 10, 2).await.unwrap(), [10, 11]);
    }
}

#[tokio::test]
async fn a_connection_cut_half_way_is_made_anew() {
    for keep in [0, 5, 9] {
        let mut seen = 0;
        let (address, connections) = device(move |request| {
            seen += 1;
            let reply = honest(request);
            if seen == 1 {
                Reaction { bytes: reply[..keep].to_vec(), after: Duration::ZERO, cut: true }
            } else {
                at_once(reply)
            }
        })
        .await;
        let mut line = line(&target(address), 300, 2).await;
        assert_eq!(read(&mut line, 10, 2).await.unwrap(), [10, 11], "cut after {keep} bytes");
        assert_eq!(*connections.lock().unwrap(), 2);
    }
}

#[tokio::test]
async fn a_write_that_is_not_echoed_is_not_taken_for_done_and_never_repeated() {
    let writes = Arc::new(Mutex::new(0));
    let counted = writes.clone();
    let (address, _) = device(move |request| {
        *counted.lock().unwrap() += 1;
        let mut pdu = request[7..].to_vec();
        pdu[2] ^= 1; // another coil
        at_once(framed(request, &pdu))
    })
    .await;
    let mut line = line(&target(address), 300, 3).await;
    let error = line.exchange(&Ask::WriteCoil { address: 101, on: false }).await.unwrap_err();
    assert!(matches!(error, LinkError::Garbled(_)) && error.may_have_arrived(), "{error:?}");
    assert_eq!(*writes.lock().unwrap(), 1);
}

#[tokio::test]
async fn an_exception_is_an_answer() {
    let (address, _) = device(|request| at_once(framed(request, &[request[7] | 0x80, 2]))).await;
    let mut line = line(&target(address), 300, 1).await;
    let reply =
        line.exchange(&Ask::Read { table: Registers::Holding, start: 1, count: 1 }).await.unwrap();
    assert_eq!(reply, Reply::Exception(2));
}

#[tokio::test]
async fn a_malformed_request_ends_one_connection_of_the_simulator_and_nothing_else() {
    let clock: Arc<dyn pmgate::model::time::Clock> =
        Arc::new(pmgate::model::time::SystemClock::start());
    let pdu = Arc::new(Mutex::new(pmgate::sim::physics::Pdu::new(1, 4, 1, 1)));
    let stop = tokio_util::sync::CancellationToken::new();
    let address = pmgate::sim::modbus::serve(pdu, anywhere(), clock, stop.clone()).await.unwrap();
    let mut bad = tokio::net::TcpStream::connect(address).await.unwrap();
    // Function 15 with nine coils and one byte for them: the server crate's decoder panics on it.
    bad.write_all(&[0, 1, 0, 0, 0, 8, 1, 15, 0, 0, 0, 9, 1, 0xff]).await.unwrap();
    let mut rest = Vec::new();
    drop(bad.read_to_end(&mut rest).await);
    let mut line = line(&target(address), 500, 1).await;
    let reply =
        line.exchange(&Ask::Read { table: Registers::Coil, start: 101, count: 4 }).await.unwrap();
    assert!(matches!(reply, Reply::Bits(bits) if bits[..4] == [true; 4]));
    stop.cancel();
}
