//! Sweeps over SNMP: exact GET or GETBULK over dense columns, whichever takes fewer packets.

use std::collections::VecDeque;

use crate::model::ask::{Ask, Reply, Value};
use crate::model::oid::Oid;
use crate::model::reading::Gap;

use super::format::SnmpManners;
use super::sweep::{Answer, Item, Memory, Raw, Wanted};

/// Bytes around an OID in a reply: headers of binding, name and value, and a value of four bytes.
const BIND_BYTES: usize = 10;
/// How many more the texts of PDUs take, such as "Outlet 24 (web-07)".
const TEXT_BYTES: usize = 16;
/// Bytes of a reply outside its bindings: headers, version, community or v3 parameters.
const HEAD_BYTES: usize = 60;
/// error-status values (RFC 3416 section 3).
const TOO_BIG: u32 = 1;
pub(super) const NO_SUCH_NAME: u32 = 2;

/// How a set of instances is read best.
#[derive(Debug, Clone)]
pub(super) struct SnmpSet {
    /// Items outside columns, or all of them where bulk does not pay.
    singles: Vec<usize>,
    /// Items by column and row.
    columns: Vec<Vec<usize>>,
    /// What each item takes of a reply.
    bytes: Vec<usize>,
    reply_bytes: usize,
    max_varbinds: usize,
}

impl SnmpSet {
    pub fn new(manners: &SnmpManners, wanted: &[Wanted]) -> Self {
        let exact = Self {
            singles: (0..wanted.len()).collect(),
            columns: Vec::new(),
            bytes: wanted.iter().map(bind_bytes).collect(),
            reply_bytes: manners.reply_bytes,
            max_varbinds: manners.max_varbinds,
        };
        let bulk = exact.in_columns(wanted);
        let pays = manners.bulk_rows > 0 && bulk.packets(manners.bulk_rows) <= exact.packets(0);
        if pays && !bulk.columns.is_empty() { bulk } else { exact }
    }

    /// The columns with the most rows are read in bulk; shorter ones among the singles.
    fn in_columns(&self, wanted: &[Wanted]) -> Self {
        let mut columns: Vec<Vec<(u32, usize)>> = Vec::new();
        for (at, want) in wanted.iter().enumerate() {
            let Some((column, row)) = want.cell else { continue };
            let column = column as usize;
            columns.resize_with(columns.len().max(column + 1), Vec::new);
            columns[column].push((row, at));
        }
        columns.iter_mut().for_each(|column| column.sort_unstable());
        let rows_of = |column: &[(u32, usize)]| column.iter().map(|c| c.0).collect::<Vec<_>>();
        let longest = columns.iter().max_by_key(|column| column.len()).map(|c| rows_of(c));
        let longest = longest.filter(|rows| rows.len() > 3).unwrap_or_default();
        let mut chosen: Vec<Vec<usize>> = columns
            .iter()
            .filter(|column| !longest.is_empty() && rows_of(column) == longest)
            .map(|column| column.iter().map(|c| c.1).collect())
            .collect();
        chosen.truncate(self.max_varbinds);
        let in_bulk: std::collections::BTreeSet<usize> = chosen.iter().flatten().copied().collect();
        let singles = (0..wanted.len()).filter(|at| !in_bulk.contains(at)).collect();
        Self { singles, columns: chosen, ..self.clone() }
    }

    fn packets(&self, bulk_rows: u32) -> usize {
        let bytes = |at: &usize| self.bytes[*at];
        let room = self.reply_bytes.saturating_sub(HEAD_BYTES).max(1);
        let single_bytes: usize = self.singles.iter().map(bytes).sum();
        if self.columns.is_empty() {
            let by_count = self.singles.len().div_ceil(self.max_varbinds);
            return by_count.max(single_bytes.div_ceil(room));
        }
        let rows = self.columns[0].len();
        let row_bytes: usize = self.columns.iter().map(|column| bytes(&column[0])).sum();
        let riding = self.singles.len().min(self.max_varbinds.saturating_sub(self.columns.len()));
        let alone = self.singles.len() - riding;
        let by_rows = rows.div_ceil(bulk_rows.max(1) as usize);
        let by_bytes = (row_bytes * rows + single_bytes).div_ceil(room);
        by_rows.max(by_bytes) + alone.div_ceil(self.max_varbinds)
    }
}

fn bind_bytes(wanted: &Wanted) -> usize {
    let name = match &wanted.item {
        Item::Oid(oid) => oid.wire().len(),
        _ => 0,
    };
    name + BIND_BYTES + if wanted.is_text { TEXT_BYTES } else { 0 }
}

/// One reading of the set.
#[derive(Debug)]
pub(super) struct SnmpSweep<'s> {
    set: &'s SnmpSet,
    items: &'s [Item],
    /// Items still to be asked for exactly.
    exact: VecDeque<usize>,
    /// First row of the columns that has not been answered.
    row: usize,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    Nothing,
    Exact(Vec<usize>),
    Bulk { singles: Vec<usize>, rows: usize },
}

impl<'s> SnmpSweep<'s> {
    pub fn new(set: &'s SnmpSet, items: &'s [Item]) -> Self {
        let exact = set.singles.iter().copied().collect();
        Self { set, items, exact, row: 0, asked: Asked::Nothing }
    }

    fn oid(&self, item: usize) -> Oid {
        match &self.items[item] {
            Item::Oid(oid) => oid.clone(),
            _ => Oid::default(),
        }
    }

    fn rows_left(&self) -> usize {
        self.set.columns.first().map_or(0, |column| column.len() - self.row)
    }

    pub fn next(&mut self, memory: &Memory) -> Option<Ask> {
        if self.rows_left() > 0 && memory.rows == 0 {
            self.give_up_bulk();
        }
        if self.rows_left() > 0 { Some(self.bulk(memory)) } else { self.get(memory) }
    }

    /// What is left of the columns is asked for exactly.
    fn give_up_bulk(&mut self) {
        for column in &self.set.columns {
            self.exact.extend(&column[self.row..]);
        }
        self.row = self.set.columns.first().map_or(0, Vec::len);
    }

    fn bulk(&mut self, memory: &Memory) -> Ask {
        let places = self.set.max_varbinds.saturating_sub(self.set.columns.len());
        let singles: Vec<usize> = self.exact.drain(..self.exact.len().min(places)).collect();
        let mut names: Vec<Oid> = singles.iter().map(|at| self.oid(*at).predecessor()).collect();
        for column in &self.set.columns {
            names.push(match self.row {
                0 => self.oid(column[0]).predecessor(),
                row => self.oid(column[row - 1]),
            });
        }
        let rows = self.rows_left().min(memory.rows as usize);
        let single = singles.len() as u32;
        self.asked = Asked::Bulk { singles, rows };
        Ask::GetBulk { names, single, repeat: rows as u32 }
    }

    fn get(&mut self, memory: &Memory) -> Option<Ask> {
        let room = self.set.reply_bytes.saturating_sub(HEAD_BYTES);
        let mut bytes = 0;
        let mut chunk = Vec::new();
        while let Some(at) = self.exact.front() {
            bytes += self.set.bytes[*at];
            if chunk.len() >= memory.chunk.max(1) || (bytes > room && !chunk.is_empty()) {
                break;
            }
            chunk.extend(self.exact.pop_front());
        }
        if chunk.is_empty() {
            return None;
        }
        let oids = chunk.iter().map(|at| self.oid(*at)).collect();
        self.asked = Asked::Exact(chunk);
        Some(Ask::Get(oids))
    }

    pub fn answer(&mut self, reply: Reply, answers: &mut [Option<Answer>], memory: &mut Memory) {
        match (std::mem::replace(&mut self.asked, Asked::Nothing), reply) {
            (Asked::Exact(asked), Reply::Binds(binds)) => {
                self.exact_answered(&asked, binds, answers, memory);
            }
            (Asked::Exact(asked), Reply::Refused { status, index }) => {
                self.exact_refused(asked, status, index, answers, memory);
            }
            (Asked::Bulk { singles, rows }, Reply::Binds(binds)) => {
                self.bulk_answered(&singles, rows, binds, answers, memory);
            }
            (Asked::Bulk { singles, rows }, _) => {
                // tooBig and its kin: fewer rows; at one row, no more bulk for this device.
                self.exact.extend(singles);
                memory.rows = if rows > 1 { rows as u32 / 2 } else { 0 };
            }
            (Asked::Exact(asked), _) => {
                asked.into_iter().for_each(|at| answers[at] = Some(Err(Gap::Malformed)));
            }
            (Asked::Nothing, _) => {}
        }
    }

    fn exact_answered(
        &mut self,
        asked: &[usize],
        binds: Vec<(Oid, Value)>,
        answers: &mut [Option<Answer>],
        memory: &mut Memory,
    ) {
        let came = binds.len();
        for (at, (oid, value)) in asked.iter().zip(binds) {
            let same = matches!(&self.items[*at], Item::Oid(wanted) if *wanted == oid);
            answers[*at] = Some(if same { raw(value) } else { Err(Gap::Malformed) });
        }
        // A short answer: the rest is asked again, in smaller requests.
        let missing = &asked[came.min(asked.len())..];
        match (missing.len(), asked.len()) {
            (0, _) => {}
            (_, 1) => answers[asked[0]] = Some(Err(Gap::Malformed)),
            (_, all) => {
                memory.chunk = (all / 2).max(1);
                missing.iter().rev().for_each(|at| self.exact.push_front(*at));
            }
        }
    }

    fn exact_refused(
        &mut self,
        mut asked: Vec<usize>,
        status: u32,
        index: u32,
        answers: &mut [Option<Answer>],
        memory: &mut Memory,
    ) {
        let gap = if status == NO_SUCH_NAME { Gap::Missing } else { Gap::DeviceError };
        let named = (index as usize).checked_sub(1).filter(|at| *at < asked.len());
        match named {
            Some(at) if status != TOO_BIG => {
                answers[asked.remove(at)] = Some(Err(gap));
            }
            _ if asked.len() == 1 => answers[asked.remove(0)] = Some(Err(gap)),
            _ => memory.chunk = (asked.len() / 2).max(1),
        }
        asked.into_iter().rev().for_each(|at| self.exact.push_front(at));
    }

    fn bulk_answered(
        &mut self,
        singles: &[usize],
        rows: usize,
        binds: Vec<(Oid, Value)>,
        answers: &mut [Option<Answer>],
        memory: &mut Memory,
    ) {
        let columns = &self.set.columns;
        let full_rows = binds.len().saturating_sub(singles.len()) / columns.len();
        let row = self.row;
        let in_rows =
            (row..row + full_rows.min(rows)).flat_map(|r| columns.iter().map(move |c| c[r]));
        let expected: Vec<usize> = singles.iter().copied().chain(in_rows).collect();
        let mut strays = Vec::new();
        let came = binds.len();
        for (at, (oid, value)) in expected.iter().copied().zip(binds) {
            if matches!(&self.items[at], Item::Oid(wanted) if *wanted == oid) {
                answers[at] = Some(raw(value));
            } else {
                strays.push(at);
            }
        }
        self.exact.extend(singles.iter().skip(came));
        self.row += full_rows.min(rows);
        // Not what a walk should bring: the table has holes. These are asked for exactly, and if
        // there are many the device is no longer asked in bulk.
        let stuck = full_rows == 0 && (singles.is_empty() || came < singles.len());
        if strays.len() * 4 > expected.len() || stuck {
            memory.rows = 0;
        }
        self.exact.extend(strays);
    }
}

fn raw(value: Value) -> Answer {
    match value {
        Value::Nothing => Err(Gap::Missing),
        Value::Other => Err(Gap::Malformed),
        value => Ok(Raw::Value(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Speech;
    use super::super::sweep::ReadSet;
    use super::*;

    fn manners(max_varbinds: usize) -> SnmpManners {
        match Speech::plain_snmp() {
            Speech::Snmp(manners) => {
                SnmpManners { max_varbinds, bulk_rows: 48, reply_bytes: 1_472, ..manners }
            }
            Speech::Modbus(_) => unreachable!(),
        }
    }

    /// 31 single instances and five columns of 24 rows, as a rack PDU has them.
    fn wanted() -> Vec<Wanted> {
        let oid = |column: u32, row: u32| {
            Item::Oid(
                Oid::from_parts(&[1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 9, 2, 3, 1, column, row])
                    .unwrap(),
            )
        };
        let singles = (0..31).map(|n| Wanted::single(oid(100, n + 1)));
        let cells = (0..5).flat_map(|column| (0..24).map(move |row| (column, row)));
        singles
            .chain(cells.map(|(column, row)| Wanted {
                item: oid(column + 1, row + 1),
                cell: Some((column, row)),
                is_text: false,
            }))
            .collect()
    }

    /// An agent that knows everything and fills replies up to a size; counts requests.
    fn read(set: &ReadSet, mut memory: Memory, most: usize) -> (usize, Vec<Answer>) {
        let mut sweep = set.sweep(memory);
        let mut requests = 0;
        while let Some(ask) = sweep.next_ask() {
            requests += 1;
            let next = |oid: &Oid| {
                let mut parts = oid.parts();
                *parts.last_mut().unwrap() += 1;
                Oid::from_parts(&parts).unwrap()
            };
            let mut oids: Vec<Oid> = Vec::new();
            match ask {
                Ask::Get(asked) => oids = asked,
                Ask::GetBulk { names, single, repeat } => {
                    let (once, many) = names.split_at(single as usize);
                    oids.extend(once.iter().map(next));
                    let mut heads = many.to_vec();
                    for _ in 0..repeat {
                        heads.iter_mut().for_each(|head| *head = next(head));
                        oids.extend(heads.iter().cloned());
                    }
                }
                other => panic!("{other:?}"),
            }
            let fits = oids.len().min(most / 24);
            sweep.answer(Reply::Binds(
                oids.into_iter().take(fits).map(|oid| (oid, Value::Integer(7))).collect(),
            ));
        }
        let (answers, learned) = sweep.finish();
        memory = learned;
        assert!(memory.rows > 0);
        (requests, answers)
    }

    #[test]
    fn dense_columns_are_read_in_bulk_and_in_three_packets() {
        let speech = Speech::Snmp(manners(40));
        let set = ReadSet::new(&speech, wanted());
        let (requests, answers) = read(&set, Memory::of(&speech), 1_412);
        assert_eq!(requests, 3);
        assert!(answers.iter().all(Result::is_ok));
    }
}
