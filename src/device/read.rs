//! Reading a set over a line: the loop between a sweep, which says what to ask, and the link.

use crate::link::{Line, LinkError};
use crate::model::ask::{Ask, Reply, Value, exception_name, status_name};
use crate::model::oid::Oid;
use crate::profile::adopt::Walk;
use crate::profile::sweep::{Answer, Memory, ReadSet};

/// Reads a set. A link error ends it: what is not answered in this sweep is asked in the next.
pub async fn sweep(
    line: &mut Line,
    set: &ReadSet,
    memory: &mut Memory,
) -> Result<Vec<Answer>, LinkError> {
    let mut sweep = set.sweep(*memory);
    while let Some(ask) = sweep.next_ask() {
        let reply = line.exchange(&ask).await?;
        sweep.answer(reply);
    }
    let (answers, learned) = sweep.finish();
    *memory = learned;
    Ok(answers)
}

/// Walks a column to its end, within `budget` requests.
pub async fn walk(line: &mut Line, mut walk: Walk, budget: &mut usize) -> Result<Walk, LinkError> {
    while let Some(ask) = walk.next() {
        let Some(left) = budget.checked_sub(1) else {
            return Err(LinkError::Garbled("its tables do not end".into()));
        };
        *budget = left;
        // SNMPv1 has no GETBULK.
        let reply = match (&ask, line.has_bulk()) {
            (Ask::GetBulk { names, .. }, false) => {
                line.exchange(&Ask::GetNext(names.clone())).await?
            }
            _ => line.exchange(&ask).await?,
        };
        walk.answer(reply);
    }
    Ok(walk)
}

/// Reads one text, or tells why it is not known.
pub async fn text(line: &mut Line, oid: &Oid) -> Result<String, String> {
    match line.exchange(&Ask::Get(vec![oid.clone()])).await {
        Ok(Reply::Binds(binds)) => match binds.as_slice() {
            [(at, Value::Bytes(bytes))] if at == oid => {
                String::from_utf8(bytes.to_vec()).map_err(|_| format!("{oid} is no text"))
            }
            _ => Err(format!("{oid} is no text")),
        },
        Ok(_) => Err(format!("it did not tell {oid}")),
        Err(error) => Err(format!("the PDU {error}")),
    }
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The device says that it took it.
    Yes,
    /// The device says that it did not, and by the protocol nothing has changed.
    No(String),
    /// The answer leaves it open: only looking tells.
    Perhaps(String),
}

/// SNMP errors after which something may have changed: genErr, commitFailed, undoFailed (RFC 3416 section 4.2.5).
const OPEN_STATUS: [u32; 3] = [5, 14, 15];
/// Modbus exceptions that come before anything is done: illegal function, address, value; busy (Modbus Application
/// Protocol 1.1b3, section 7). The others may come after.
const BEFORE: [u8; 4] = [1, 2, 3, 6];

/// Whether a device took a write. An SNMP agent may answer with noError and yet say in the binding that there
/// is nothing to write.
pub fn taken(ask: &Ask, reply: Reply) -> Taken {
    match (ask, reply) {
        (Ask::Set(sent), Reply::Binds(binds)) => {
            let echoed = binds.len() == sent.len()
                && sent
                    .iter()
                    .zip(&binds)
                    .all(|((oid, _), (back, value))| oid == back && *value != Value::Nothing);
            let nothing = binds.iter().any(|(_, value)| *value == Value::Nothing);
            match (echoed, nothing) {
                (true, _) => Taken::Yes,
                (_, true) => Taken::No("it has no such object to write".into()),
                _ => Taken::Perhaps("its reply does not name what was written".into()),
            }
        }
        (_, Reply::Written) => Taken::Yes,
        (_, Reply::Refused { status, index }) => {
            let why = format!("{} at binding {index}", status_name(status));
            if OPEN_STATUS.contains(&status) { Taken::Perhaps(why) } else { Taken::No(why) }
        }
        (_, Reply::Exception(code)) => {
            let why = format!("exception {code}, {}", exception_name(code));
            if BEFORE.contains(&code) { Taken::No(why) } else { Taken::Perhaps(why) }
        }
        _ => Taken::Perhaps("its reply is none to a write".into()),
    }
}
