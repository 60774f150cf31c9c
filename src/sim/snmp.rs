//! A simulated PDU behind an SNMP agent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::model::ask::Value;
use crate::model::oid::Oid;
use crate::model::time::Clock;

pub use super::agent::Access;
use super::agent::{Answers, start};
use super::families::Family;
use super::objects::{Refusal, Tree};
use super::physics::Pdu;

/// Starts the agent of a simulated PDU; tells where it listens.
pub async fn serve(
    family: Family,
    pdu: Arc<Mutex<Pdu>>,
    serial: &str,
    listen: SocketAddr,
    access: Access,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let objects = {
        let pdu = pdu.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        family.tree(&pdu, serial)
    };
    start(listen, access, Arc::new(Tree::new(objects, pdu, clock)), stop).await
}

impl Answers for Tree {
    fn get(&self, oid: &Oid) -> Option<(u8, Value)> {
        Tree::get(self, oid).map(|value| (2, value))
    }

    fn after(&self, oid: &Oid) -> Option<(Oid, u8, Value)> {
        Tree::after(self, oid).map(|(oid, value)| (oid, 2, value))
    }

    fn check(&self, oid: &Oid, value: &Value) -> Result<(), Refusal> {
        Tree::check(self, oid, value)
    }

    fn write(&self, oid: &Oid, value: &Value) -> Result<(), Refusal> {
        Tree::write(self, oid, value)
    }
}
