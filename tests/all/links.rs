//! SNMP links against agents and networks that misbehave: late, doubled, lost, cut off, with a wrong id, with
//! another engine, forged. In every case the next answer is the right one, or there is none.

use std::time::Duration;

use pmgate::device::Target;
use pmgate::link::snmp_v3::User;
use pmgate::link::{Line, LinkError};
use pmgate::model::ask::{Ask, Reply, Value};
use pmgate::model::oid::Oid;
use pmgate::model::secret::Secret;
use pmgate::sim::families::Family;
use pmgate::sim::snmp::Access;

use crate::proxy::{Fault, Proxy, is_set};
use crate::rig::{Sim, line, v2c};

const NAME: &str = "1.3.6.1.4.1.318.1.1.26.9.2.3.1.3";
const STATE: &str = "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.1";
const COMMAND: &str = "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.1";

fn oid(text: &str) -> Oid {
    text.parse().unwrap()
}

/// Asks for the name of an outlet: a value that tells which request it answers.
async fn name(line: &mut Line, outlet: u32) -> Result<String, LinkError> {
    let ask = Ask::Get(vec![oid(&format!("{NAME}.{outlet}"))]);
    match line.exchange(&ask).await? {
        Reply::Binds(binds) => Ok(binds[0].1.raw()),
        other => panic!("{other:?}"),
    }
}

async fn v3_sim() -> Sim {
    Sim::with(Family::ApcRpdu2, 8, Access::User(user("simulated-auth", "simulated-priv"))).await
}

fn user(auth: &str, privacy: &str) -> User {
    User {
        name: "pmgate".into(),
        auth: Some((async_snmp::AuthProtocol::Sha256, Secret::new(auth.into()))),
        privacy: Some((async_snmp::PrivProtocol::Aes128, Secret::new(privacy.into()))),
        context: String::new(),
    }
}

fn v3(address: std::net::SocketAddr) -> Target {
    Target::User {
        address: address.to_string().parse().unwrap(),
        user: user("simulated-auth", "simulated-priv"),
    }
}

/// A sim, a proxy before it, and a line through the proxy; v2c or v3.
async fn behind_proxy(use_v3: bool, timeout_ms: u64, attempts: u32) -> (Sim, Proxy, Line) {
    let sim = if use_v3 { v3_sim().await } else { Sim::start(Family::ApcRpdu2, 8).await };
    let proxy = Proxy::before(sim.address).await;
    let target = if use_v3 { v3(proxy.address) } else { v2c(proxy.address) };
    let mut line = line(&target, timeout_ms, attempts).await;
    assert_eq!(name(&mut line, 1).await.unwrap(), "Outlet 1");
    (sim, proxy, line)
}

/// After the fault each of eight different requests gets its own answer.
async fn every_answer_is_its_own(line: &mut Line) {
    for outlet in 1..=8 {
        assert_eq!(name(line, outlet).await.unwrap(), format!("Outlet {outlet}"));
    }
}

#[tokio::test]
async fn a_late_reply_is_taken_for_no_other() {
    for use_v3 in [false, true] {
        let (_sim, proxy, mut line) = behind_proxy(use_v3, 150, 1).await;
        proxy.faults(&[Fault::Late(Duration::from_millis(200))]);
        assert!(matches!(name(&mut line, 2).await, Err(LinkError::Timeout { .. })), "v3: {use_v3}");
        every_answer_is_its_own(&mut line).await;
    }
}

#[tokio::test]
async fn a_doubled_reply_is_taken_once() {
    for use_v3 in [false, true] {
        let (_sim, proxy, mut line) = behind_proxy(use_v3, 300, 2).await;
        proxy.faults(&[Fault::Double, Fault::Pass, Fault::Double, Fault::Double]);
        every_answer_is_its_own(&mut line).await;
    }
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again() {
    for use_v3 in [false, true] {
        let (_sim, proxy, mut line) = behind_proxy(use_v3, 150, 3).await;
        proxy.faults(&[Fault::Lose, Fault::Lose]);
        every_answer_is_its_own(&mut line).await;
    }
}

#[tokio::test]
async fn a_reply_that_is_cut_off_is_none() {
    for use_v3 in [false, true] {
        let (_sim, proxy, mut line) = behind_proxy(use_v3, 150, 1).await;
        for len in [0, 1, 7, 20, 40] {
            proxy.faults(&[Fault::Truncate(len)]);
            let result = name(&mut line, 3).await;
            assert!(result.is_err(), "v3: {use_v3}, {len} bytes: {result:?}");
        }
        every_answer_is_its_own(&mut line).await;
    }
}

/// Adds one to the request id: the first INTEGER after the PDU's header in a v2c reply to a short request.
fn other_id(reply: &[u8]) -> Vec<u8> {
    let mut forged = reply.to_vec();
    let at = forged.windows(2).position(|w| w[0] == 0xa2).unwrap() + 2;
    let id_len = usize::from(forged[at + 1]);
    forged[at + 1 + id_len] ^= 0x01;
    forged
}

#[tokio::test]
async fn a_reply_with_another_id_is_none() {
    let (_sim, proxy, mut line) = behind_proxy(false, 150, 1).await;
    proxy.faults(&[Fault::Forge(other_id)]);
    assert!(matches!(name(&mut line, 2).await, Err(LinkError::Garbled(_))));
    every_answer_is_its_own(&mut line).await;
    // Forged and then the true one: repeated once, it is right.
    line.patience.attempts = 2;
    proxy.faults(&[Fault::ForgeFirst(other_id)]);
    every_answer_is_its_own(&mut line).await;
}

/// Names another instance than was asked for.
fn other_name(reply: &[u8]) -> Vec<u8> {
    let mut forged = reply.to_vec();
    // The last arc of the only OID stands before the value's OCTET STRING tag.
    let at = forged.windows(2).rposition(|w| w[0] == 0x04).unwrap() - 1;
    forged[at] = forged[at].wrapping_add(1);
    forged
}

#[tokio::test]
async fn a_value_of_another_instance_is_no_value() {
    use pmgate::model::reading::Gap;
    use pmgate::profile::format::Speech;
    use pmgate::profile::sweep::{Item, Memory, ReadSet, Wanted};
    let (_sim, proxy, mut line) = behind_proxy(false, 150, 1).await;
    let set = ReadSet::new(
        &Speech::plain_snmp(),
        vec![Wanted::single(Item::Oid(oid(&format!("{NAME}.2"))))],
    );
    let mut sweep = set.sweep(Memory::of(&Speech::plain_snmp()));
    proxy.faults(&[Fault::Forge(other_name)]);
    while let Some(ask) = sweep.next_ask() {
        sweep.answer(line.exchange(&ask).await.unwrap());
    }
    assert_eq!(sweep.finish().0, [Err(Gap::Malformed)]);
}

#[tokio::test]
async fn a_wrong_community_is_silence_and_says_so() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let wrong = Target::Community {
        address: sim.address.to_string().parse().unwrap(),
        v1: false,
        read: Secret::new("wrong".into()),
        write: Secret::new("wrong".into()),
    };
    let error = name(&mut line(&wrong, 100, 2).await, 1).await.unwrap_err();
    assert!(matches!(error, LinkError::Timeout { .. }));
    assert!(error.to_string().contains("a wrong community looks the same"), "{error}");
}

#[tokio::test]
async fn the_read_community_does_not_write() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let Target::Community { address, v1, read, .. } = v2c(sim.address) else { unreachable!() };
    let reader = Target::Community { address, v1, write: read.clone(), read };
    let ask = Ask::Set(vec![(oid(COMMAND), Value::Integer(2))]);
    match line(&reader, 300, 1).await.exchange(&ask).await.unwrap() {
        Reply::Refused { status, .. } => assert!([6, 16, 17].contains(&status), "{status}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_key_or_user_is_refused_and_says_so() {
    let sim = v3_sim().await;
    for user in [
        user("wrong-password", "simulated-priv"),
        User { name: "stranger".into(), ..user("simulated-auth", "simulated-priv") },
    ] {
        let target = Target::User { address: sim.address.to_string().parse().unwrap(), user };
        let error = name(&mut line(&target, 300, 1).await, 1).await.unwrap_err();
        assert!(matches!(error, LinkError::Denied(_) | LinkError::Timeout { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_engine_that_was_replaced_is_found_anew() {
    // A card that is replaced answers with another engine id, and boots and time that start again.
    let first = v3_sim().await;
    let proxy = Proxy::before(first.address).await;
    let mut line = line(&v3(proxy.address), 400, 3).await;
    assert_eq!(name(&mut line, 1).await.unwrap(), "Outlet 1");
    let address = first.address;
    drop(first);
    let stop = tokio_util::sync::CancellationToken::new();
    let clock: std::sync::Arc<dyn pmgate::model::time::Clock> =
        std::sync::Arc::new(pmgate::model::time::SystemClock::start());
    let pdu =
        std::sync::Arc::new(std::sync::Mutex::new(pmgate::sim::physics::Pdu::new(1, 8, 3, 3)));
    // The first agent frees its port when it has ended.
    loop {
        let access = Access::User(user("simulated-auth", "simulated-priv"));
        match pmgate::sim::snmp::serve(
            Family::ApcRpdu2,
            pdu.clone(),
            "SIM2",
            address,
            access,
            clock.clone(),
            stop.clone(),
        )
        .await
        {
            Ok(_) => break,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    // The first exchange may find out; the next one works.
    drop(name(&mut line, 1).await);
    every_answer_is_its_own(&mut line).await;
    stop.cancel();
}

/// A reply with another engineBoots and a MAC that cannot be right.
fn poisoned(reply: &[u8]) -> Vec<u8> {
    let mut forged = reply.to_vec();
    let at = forged.len() / 3;
    forged[at] ^= 0x55;
    let last = forged.len() - 1;
    forged[last] ^= 0xff;
    forged
}

#[tokio::test]
async fn forged_v3_datagrams_do_not_stop_polling() {
    let (_sim, proxy, mut line) = behind_proxy(true, 300, 2).await;
    for _ in 0..5 {
        proxy.faults(&[Fault::ForgeFirst(poisoned)]);
        every_answer_is_its_own(&mut line).await;
    }
}

#[tokio::test]
async fn a_set_is_sent_once_whatever_happens_to_its_reply() {
    for fault in [
        Fault::Lose,
        Fault::Truncate(9),
        Fault::Forge(other_id),
        Fault::Late(Duration::from_millis(300)),
    ] {
        let (_sim, proxy, mut line) = behind_proxy(false, 150, 3).await;
        proxy.take_requests();
        proxy.faults(std::slice::from_ref(&fault));
        let error =
            line.exchange(&Ask::Set(vec![(oid(COMMAND), Value::Integer(2))])).await.unwrap_err();
        assert!(error.may_have_arrived());
        let sets = proxy.take_requests().iter().filter(|request| is_set(request)).count();
        assert_eq!(sets, 1, "{fault:?}");
        every_answer_is_its_own(&mut line).await;
    }
}

#[tokio::test]
async fn a_set_and_a_get_of_version_1_work_and_missing_names_are_told() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let Target::Community { address, read, write, .. } = v2c(sim.address) else { unreachable!() };
    let mut line = line(&Target::Community { address, v1: true, read, write }, 300, 1).await;
    assert!(!line.has_bulk());
    let set = Ask::Set(vec![(oid(COMMAND), Value::Integer(2))]);
    assert!(matches!(line.exchange(&set).await.unwrap(), Reply::Binds(_)));
    let missing = Ask::Get(vec![oid(STATE), oid("1.3.6.1.4.1.318.9.9.9.0")]);
    assert_eq!(line.exchange(&missing).await.unwrap(), Reply::Refused { status: 2, index: 2 });
}

#[tokio::test]
async fn nothing_there_is_unreachable_or_silent_and_never_hangs() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let error = name(&mut line(&v2c(address), 200, 2).await, 1).await.unwrap_err();
    assert!(matches!(error, LinkError::Unreachable(_) | LinkError::Timeout { .. }), "{error:?}");
}
