//! A file of Modbus registers (`.regs`: `TABLE ADDRESS TYPE VALUE` a line) answered like a device would: for proving
//! drivers without one. Addresses that are not in the file do not exist.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::ask::{Ask, Registers, Reply};

use super::recording::RecordingError;
use super::{Exchange, Link, LinkError};

/// Illegal data address (Modbus Application Protocol 1.1b3, section 7).
const NO_ADDRESS: u8 = 2;

/// The registers of a device.
#[derive(Debug, Clone, Default)]
pub struct RegisterFile {
    words: BTreeMap<(Registers, u16), u16>,
    objects: BTreeMap<u8, String>,
}

impl RegisterFile {
    /// Reads the text of a `.regs` file. Tables are `coil`, `discrete`, `input`, `holding` and `device_id`; types `bit`, `u16`,
    /// `i16`, `u32`, `i32`, `u64`, `i64`, `f32`, `f64` and `textN` for N registers, with `-low` for the low word first; values
    /// are numbers, decimal or 0x…, or texts in quotes.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let mut file = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            file.take(line).map_err(|text| RecordingError { line: at + 1, text })?;
        }
        Ok(file)
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let mut fields = line.splitn(4, char::is_whitespace).map(str::trim);
        let (Some(table), Some(address), Some(kind), Some(value)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err("should be TABLE ADDRESS TYPE VALUE, as in input 0x100 i32 512".into());
        };
        let address = whole(address)
            .and_then(|address| u16::try_from(address).ok())
            .ok_or_else(|| format!("\"{address}\" is no address from 0 to 0xffff"))?;
        if table == "device_id" {
            let id = u8::try_from(address).map_err(|_| "objects are counted to 255".to_owned())?;
            self.objects.insert(id, quoted(value).to_owned());
            return Ok(());
        }
        let table =
            TABLES.iter().find(|(word, _)| *word == table).map(|(_, table)| *table).ok_or_else(
                || {
                    format!(
                        "\"{table}\" is no table: write coil, discrete, input, holding or device_id"
                    )
                },
            )?;
        let words = words(kind, value)
            .ok_or_else(|| format!("\"{value}\" is no {kind}; types are bit, u16, i16, u32, i32, u64, i64, f32, f64 and textN"))?;
        for (at, word) in (u32::from(address)..).zip(words) {
            let at = u16::try_from(at).map_err(|_| "goes beyond address 0xffff".to_owned())?;
            if self.words.insert((table, at), word).is_some() {
                return Err(format!("register {at} is there already"));
            }
        }
        Ok(())
    }

    fn reply(&self, ask: &Ask) -> Option<Reply> {
        Some(match ask {
            Ask::Read { table, start, count } => {
                let addresses = (0..*count).map(|at| start.checked_add(at));
                let words: Option<Vec<u16>> =
                    addresses.map(|at| self.words.get(&(*table, at?)).copied()).collect();
                match words {
                    None => Reply::Exception(NO_ADDRESS),
                    Some(words) if table.is_bits() => {
                        Reply::Bits(words.into_iter().map(|word| word != 0).collect())
                    }
                    Some(words) => Reply::Words(words),
                }
            }
            Ask::DeviceId(id) => {
                let found: Vec<(u8, String)> =
                    self.objects.range(*id..).map(|(id, text)| (*id, text.clone())).collect();
                if found.is_empty() {
                    Reply::Exception(NO_ADDRESS)
                } else {
                    Reply::Identification(found)
                }
            }
            _ => return None,
        })
    }
}

impl Link for RegisterFile {
    fn once<'a>(&'a mut self, ask: &'a Ask, _timeout: Duration) -> Exchange<'a> {
        let reply = self.reply(ask).ok_or(LinkError::WrongProtocol);
        Box::pin(std::future::ready(reply))
    }
}

/// The tables by their words.
pub const TABLES: [(&str, Registers); 4] = [
    ("coil", Registers::Coil),
    ("discrete", Registers::Discrete),
    ("input", Registers::Input),
    ("holding", Registers::Holding),
];

/// A number, decimal or 0x….
pub fn whole(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => i128::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(sign * number)
}

fn quoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.or_else(|| text.strip_prefix('\'')?.strip_suffix('\'')).unwrap_or(text)
}

fn words(kind: &str, value: &str) -> Option<Vec<u16>> {
    let (kind, low) = match kind.strip_suffix("-low") {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    if let Some(count) = kind.strip_prefix("text") {
        let count: usize = count.parse().ok().filter(|count| (1..=125).contains(count))?;
        let mut bytes = quoted(value).as_bytes().to_vec();
        bytes.resize(2 * count, 0);
        let pair = |pair: &[u8]| {
            let pair = [pair[0], pair[1]];
            if low { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
        };
        return Some(bytes.chunks_exact(2).map(pair).collect());
    }
    let number = || whole(value);
    let bytes: Vec<u8> = match kind {
        "bit" => return Some(vec![u16::from(!matches!(value, "0" | "off"))]),
        "u16" => u16::try_from(number()?).ok()?.to_be_bytes().to_vec(),
        "i16" => i16::try_from(number()?).ok()?.to_be_bytes().to_vec(),
        "u32" => u32::try_from(number()?).ok()?.to_be_bytes().to_vec(),
        "i32" => i32::try_from(number()?).ok()?.to_be_bytes().to_vec(),
        "u64" => u64::try_from(number()?).ok()?.to_be_bytes().to_vec(),
        "i64" => i64::try_from(number()?).ok()?.to_be_bytes().to_vec(),
        "f32" => value.parse::<f32>().ok()?.to_be_bytes().to_vec(),
        "f64" => value.parse::<f64>().ok()?.to_be_bytes().to_vec(),
        _ => return None,
    };
    let words = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut words: Vec<u16> = words.collect();
    if low {
        words.reverse();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &RegisterFile, table: Registers, start: u16, count: u16) -> Option<Reply> {
        file.reply(&Ask::Read { table, start, count })
    }

    #[test]
    fn registers_are_as_the_file_has_them_and_no_others() {
        let file = RegisterFile::parse(
            "# a meter\ninput 0x10 i32-low -2\ninput 0x12 f32 230.5\ncoil 3 bit 1\nholding 7 text2 \"ab\"\ndevice_id 1 text \"EPC 8\"\n",
        )
        .unwrap();
        assert_eq!(
            read(&file, Registers::Input, 0x10, 4),
            Some(Reply::Words(vec![0xfffe, 0xffff, 0x4366, 0x8000]))
        );
        assert_eq!(read(&file, Registers::Input, 0x10, 5), Some(Reply::Exception(2)));
        assert_eq!(read(&file, Registers::Coil, 3, 1), Some(Reply::Bits(vec![true])));
        assert_eq!(read(&file, Registers::Holding, 7, 2), Some(Reply::Words(vec![0x6162, 0])));
        let told = Reply::Identification(vec![(1, "EPC 8".into())]);
        assert_eq!(file.reply(&Ask::DeviceId(0)), Some(told));
        assert_eq!(file.reply(&Ask::DeviceId(2)), Some(Reply::Exception(2)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let wrong = |text: &str| RegisterFile::parse(text).unwrap_err().to_string();
        assert!(wrong("\ninput 0 u16").starts_with("line 2: should be TABLE ADDRESS TYPE VALUE"));
        assert!(wrong("inputs 0 u16 1").contains("\"inputs\" is no table"));
        assert!(wrong("input 0 u16 65536").contains("\"65536\" is no u16"));
        assert!(wrong("input 0x10000 u16 1").contains("no address"));
        assert!(wrong("input 0 u32 1\ninput 1 u16 1").contains("register 1 is there already"));
    }
}
