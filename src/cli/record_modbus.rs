//! `pmgate driver record --modbus`: what a device has in ranges of registers, as a file that its driver is proven with.
//! It reads, and never writes to the device.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::device::target::Target;
use crate::link::registers::{TABLES, whole};
use crate::link::{Line, LinkError, Patience};
use crate::model::ask::{Ask, Registers, Reply, exception_name};

use super::exit::{Exit, Outcome};
use super::out;

/// Registers in one read: more than some devices bear, less than others; where it fails it is halved.
const BLOCK: u16 = 60;
/// Objects of the identification that tell what a device is: vendor, product, revision.
const OBJECTS: [u8; 3] = [0, 1, 2];
/// Exceptions that say that there is nothing here: illegal function, address, value.
const NOTHING_HERE: [u8; 3] = [1, 2, 3];

/// A range of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    table: Registers,
    first: u16,
    last: u16,
}

impl Range {
    /// `input:0-99`, `holding:0x5000-0x50ff`, `coil:16`.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || {
            anyhow!(
                "\"{text}\" is no range of registers: write TABLE:FIRST-LAST, as in input:0-99 or holding:0x5000-0x50ff; tables are coil, discrete, input, holding"
            )
        };
        let (table, range) = text.split_once(':').ok_or_else(wrong)?;
        let (_, table) = TABLES.iter().find(|(word, _)| *word == table).ok_or_else(wrong)?;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let address =
            |text: &str| whole(text.trim()).and_then(|n| u16::try_from(n).ok()).ok_or_else(wrong);
        let (first, last) = (address(first)?, address(last)?);
        if first > last {
            return Err(wrong());
        }
        Ok(Self { table: *table, first, last })
    }
}

/// Reads ranges and writes the file.
pub async fn record(target: &Target, ranges: &[String], file: &Path) -> Outcome {
    if ranges.is_empty() {
        return Err(Exit::usage(anyhow!(
            "a Modbus device has no list of its registers: say which to read, as with --read input:0-99 --read holding:0-20"
        )));
    }
    let parsed: Result<Vec<Range>, _> = ranges.iter().map(|text| Range::parse(text)).collect();
    let parsed = parsed.map_err(Exit::usage)?;
    let unreachable = |error: LinkError| Exit::unreachable(anyhow!("the device {error}"));
    let mut line = target.line(Patience::new((20, 3_000, 2)), 1).await.map_err(unreachable)?;
    let mut text = String::new();
    let (mut count, mut wrong) = (0, Vec::new());
    for range in parsed {
        count += read(&mut line, range, &mut text, &mut wrong).await.map_err(unreachable)?;
    }
    if count == 0 {
        return Err(Exit::failed(anyhow!(
            "none of these registers is there: {}",
            ranges.join(" ")
        )));
    }
    for object in OBJECTS {
        if let Ok(Reply::Identification(found)) = line.exchange(&Ask::DeviceId(object)).await
            && let Some((id, told)) = found.into_iter().find(|(id, _)| *id == object)
        {
            let told: String = told.chars().filter(|c| !c.is_control() && *c != '"').collect();
            // A String takes every line.
            writeln!(text, "device_id {id} text \"{told}\"").ok();
        }
    }
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    out::line(&format!(
        "{}: {count} registers; a serial number or a name may be among them: look through it before you show it to others",
        file.display()
    ));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Exit::failed(anyhow!("the recording is not complete: {}", wrong.join("; "))))
}

/// Reads a range; where a block cannot be read its halves are, down to single registers.
async fn read(
    line: &mut Line,
    range: Range,
    text: &mut String,
    wrong: &mut Vec<String>,
) -> Result<usize, LinkError> {
    let mut blocks: Vec<(u16, u16)> = Vec::new();
    let mut first = range.first;
    loop {
        let last = first.saturating_add(BLOCK - 1).min(range.last);
        blocks.push((first, last));
        match last.checked_add(1).filter(|next| *next <= range.last) {
            Some(next) => first = next,
            None => break,
        }
    }
    blocks.reverse();
    let mut count = 0;
    while let Some((first, last)) = blocks.pop() {
        let ask = Ask::Read { table: range.table, start: first, count: last - first + 1 };
        match line.exchange(&ask).await? {
            Reply::Words(words) => {
                count += words.len();
                for (at, word) in (first..=last).zip(words) {
                    writeln!(text, "{} {at} u16 {word}", range.table.word()).ok();
                }
            }
            Reply::Bits(bits) => {
                let bits = bits.into_iter().take(usize::from(last - first) + 1);
                for (at, bit) in (first..=last).zip(bits) {
                    count += 1;
                    writeln!(text, "{} {at} bit {}", range.table.word(), u8::from(bit)).ok();
                }
            }
            _ if first < last => {
                let middle = first + (last - first) / 2;
                blocks.push((middle + 1, last));
                blocks.push((first, middle));
            }
            Reply::Exception(code) if NOTHING_HERE.contains(&code) => {}
            Reply::Exception(code) => {
                let why = exception_name(code);
                wrong.push(format!("{} {first}: exception {code}, {why}", range.table.word()));
            }
            _ => wrong.push(format!("{} {first}: something else", range.table.word())),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_what_is_none_is_told() {
        let range = Range::parse("holding:0x10-0x1f").unwrap();
        assert_eq!((range.first, range.last), (16, 31));
        assert_eq!(Range::parse("coil:7").unwrap().last, 7);
        for wrong in ["coil", "coils:1", "coil:9-3", "input:0-70000", "input:a"] {
            assert!(Range::parse(wrong).is_err(), "{wrong}");
        }
    }
}
