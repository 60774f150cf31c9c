//! Reading a set over a line: the loop between a sweep, which says what to ask, and the link.

use crate::link::{Line, LinkError};
use crate::model::ask::{Ask, Reply, Value, exception_name, status_name};
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

/// Whether a device took a write, or why not. An SNMP agent may answer with noError and yet say in the
/// binding that there is nothing to write.
pub fn accepted(ask: &Ask, reply: Reply) -> Result<(), String> {
    match (ask, reply) {
        (Ask::Set(sent), Reply::Binds(binds)) => {
            let echoed = binds.len() == sent.len()
                && sent
                    .iter()
                    .zip(&binds)
                    .all(|((oid, _), (back, value))| oid == back && *value != Value::Nothing);
            if echoed { Ok(()) } else { Err("its reply does not name what was written".into()) }
        }
        (_, Reply::Written) => Ok(()),
        (_, Reply::Refused { status, index }) => {
            Err(format!("{} at binding {index}", status_name(status)))
        }
        (_, Reply::Exception(code)) => Err(format!("exception {code}, {}", exception_name(code))),
        _ => Err("its reply is none to a write".into()),
    }
}
