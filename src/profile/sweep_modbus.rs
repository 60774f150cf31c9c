//! Sweeps over Modbus: neighbouring registers in one read, within what the device bears.

use std::collections::VecDeque;

use crate::model::ask::{Ask, Registers, Reply};
use crate::model::reading::Gap;

use super::format::ModbusManners;
use super::sweep::{Answer, Item, Memory, Raw, Wanted};

/// Exception codes that mean "there is nothing here" (Application Protocol 1.1b3, section 7).
const NOTHING_THERE: [u8; 3] = [1, 2, 3];

/// Blocks of neighbouring registers.
#[derive(Debug, Clone)]
pub(super) struct ModbusSet {
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
struct Block {
    /// Items with their offset in the block.
    items: Vec<usize>,
    table: Option<Registers>,
    start: u16,
    count: u16,
}

impl ModbusSet {
    pub fn new(manners: &ModbusManners, wanted: &[Wanted]) -> Self {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| match &wanted[*at].item {
            Item::Register { table, address, .. } => (0, Some(*table), *address),
            Item::DeviceId(id) => (1, None, u16::from(*id)),
            Item::Oid(_) => (2, None, 0),
        });
        let mut blocks: Vec<Block> = Vec::new();
        for at in order {
            let block = single(at, &wanted[at].item);
            match blocks.last_mut() {
                Some(last) if joins(manners, last, &block) => {
                    last.count =
                        last.count.max(block.start.saturating_add(block.count) - last.start);
                    last.items.push(at);
                }
                _ => blocks.push(block),
            }
        }
        Self { blocks }
    }
}

fn single(at: usize, item: &Item) -> Block {
    match item {
        Item::Register { table, address, words } => {
            Block { items: vec![at], table: Some(*table), start: *address, count: *words }
        }
        Item::DeviceId(id) => {
            Block { items: vec![at], table: None, start: u16::from(*id), count: 1 }
        }
        Item::Oid(_) => Block { items: vec![at], table: None, start: 0, count: 0 },
    }
}

fn joins(manners: &ModbusManners, last: &Block, next: &Block) -> bool {
    let Some(table) = last.table else { return false };
    let most = if table.is_bits() { manners.max_bits } else { manners.max_registers };
    let hole = if table.is_bits() {
        16 * u32::from(manners.max_hole)
    } else {
        u32::from(manners.max_hole)
    };
    let end = u32::from(last.start) + u32::from(last.count);
    let next_end = u32::from(next.start) + u32::from(next.count);
    next.table == Some(table)
        && u32::from(next.start) <= end + hole
        && next_end - u32::from(last.start) <= u32::from(most)
        && next_end <= 65_536
}

/// One reading of the set.
#[derive(Debug)]
pub(super) struct ModbusSweep<'s> {
    items: &'s [Item],
    blocks: VecDeque<Block>,
    asked: Option<Block>,
}

impl<'s> ModbusSweep<'s> {
    pub fn new(set: &'s ModbusSet, items: &'s [Item]) -> Self {
        Self { items, blocks: set.blocks.iter().cloned().collect(), asked: None }
    }

    pub fn next(&mut self, memory: &Memory) -> Option<Ask> {
        let mut block = self.blocks.pop_front()?;
        if memory.split && block.items.len() > 1 {
            for at in block.items.drain(..).rev() {
                self.blocks.push_front(single(at, &self.items[at]));
            }
            block = self.blocks.pop_front()?;
        }
        let ask = match block.table {
            Some(table) => Ask::Read { table, start: block.start, count: block.count },
            None => Ask::DeviceId(block.start as u8),
        };
        self.asked = Some(block);
        Some(ask)
    }

    pub fn answer(&mut self, reply: Reply, answers: &mut [Option<Answer>], memory: &mut Memory) {
        let Some(block) = self.asked.take() else { return };
        let all = |answers: &mut [Option<Answer>], gap| {
            block.items.iter().for_each(|at| answers[*at] = Some(Err(gap)));
        };
        match reply {
            Reply::Words(words) if words.len() == usize::from(block.count) => {
                for at in &block.items {
                    answers[*at] = Some(self.words(*at, &block, &words));
                }
            }
            Reply::Bits(bits) if bits.len() >= usize::from(block.count) => {
                for at in &block.items {
                    answers[*at] = Some(self.bit(*at, &block, &bits));
                }
            }
            Reply::Identification(objects) => {
                for at in &block.items {
                    let Item::DeviceId(wanted) = self.items[*at] else { continue };
                    let found = objects.iter().find(|(id, _)| *id == wanted);
                    let text = found.map(|(_, text)| Raw::Text(text.clone()));
                    answers[*at] = Some(text.ok_or(Gap::Missing));
                }
            }
            // A block across an undefined register is refused as a whole: ask one by one from now on.
            Reply::Exception(code) if NOTHING_THERE.contains(&code) && block.items.len() > 1 => {
                memory.split = true;
                self.blocks.push_front(block);
            }
            Reply::Exception(code) if NOTHING_THERE.contains(&code) => all(answers, Gap::Missing),
            Reply::Exception(_) => all(answers, Gap::DeviceError),
            _ => all(answers, Gap::Malformed),
        }
    }

    fn words(&self, at: usize, block: &Block, words: &[u16]) -> Answer {
        let Item::Register { address, words: count, .. } = &self.items[at] else {
            return Err(Gap::Malformed);
        };
        let from = usize::from(address - block.start);
        let slice = words.get(from..from + usize::from(*count));
        slice.map(|slice| Raw::Words(slice.to_vec())).ok_or(Gap::Malformed)
    }

    fn bit(&self, at: usize, block: &Block, bits: &[bool]) -> Answer {
        let Item::Register { address, .. } = &self.items[at] else { return Err(Gap::Malformed) };
        bits.get(usize::from(address - block.start)).map(|bit| Raw::Bit(*bit)).ok_or(Gap::Malformed)
    }
}
