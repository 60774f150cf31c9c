//! A recording (`.snmprec`: `OID|type|value` a line) answered like an agent would: for proving drivers
//! without a device, and for the simulator's replay.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::ask::{Ask, Reply, Value, Whole};
use crate::model::oid::Oid;

use super::{Exchange, Link, LinkError};

/// A recorded agent.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    rows: BTreeMap<Oid, Recorded>,
}

/// A recorded value with the ASN.1 tag that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Tag, as 2 for INTEGER and 66 for Gauge32.
    pub tag: u8,
    /// Value.
    pub value: Value,
}

/// Why a text is no recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct RecordingError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub text: String,
}

impl Recording {
    /// Reads the text of a `.snmprec` file. Types are ASN.1 tag numbers (2 INTEGER, 4 OCTET STRING, 6 OID,
    /// 64 IpAddress, 65 Counter32, 66 Gauge32, 67 TimeTicks, 68 Opaque, 70 Counter64); an `x` behind it
    /// says that the value is hexadecimal, an `e` that it has escapes (`\x00`); other modifiers are refused.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let mut rows = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let wrong = |text: String| RecordingError { line: at + 1, text };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(3, '|');
            let (Some(oid), Some(tag), Some(value)) = (fields.next(), fields.next(), fields.next())
            else {
                return Err(wrong("should be OID|type|value".into()));
            };
            let oid: Oid = oid.trim().parse().map_err(|e| wrong(format!("{e}")))?;
            rows.insert(oid, recorded(tag.trim(), value).map_err(wrong)?);
        }
        Ok(Self { rows })
    }

    /// The value of an instance.
    pub fn get(&self, oid: &Oid) -> Option<&Recorded> {
        self.rows.get(oid)
    }

    /// The instance after a name.
    pub fn after(&self, oid: &Oid) -> Option<(&Oid, &Recorded)> {
        use std::ops::Bound;
        self.rows.range((Bound::Excluded(oid), Bound::Unbounded)).next()
    }

    /// All instances in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Oid, &Recorded)> {
        self.rows.iter()
    }

    /// Sets an instance, for rules that change it.
    pub fn set(&mut self, oid: Oid, recorded: Recorded) {
        self.rows.insert(oid, recorded);
    }

    fn next_bind(&self, name: &Oid) -> (Oid, Value) {
        match self.after(name) {
            Some((oid, recorded)) => (oid.clone(), recorded.value.clone()),
            None => (name.clone(), Value::Nothing),
        }
    }

    fn reply(&self, ask: &Ask) -> Option<Reply> {
        let exact =
            |oid: &Oid| (oid.clone(), self.get(oid).map_or(Value::Nothing, |r| r.value.clone()));
        Some(Reply::Binds(match ask {
            Ask::Get(oids) => oids.iter().map(exact).collect(),
            Ask::GetNext(oids) => oids.iter().map(|oid| self.next_bind(oid)).collect(),
            Ask::GetBulk { names, single, repeat } => {
                let (once, many) = names.split_at((*single as usize).min(names.len()));
                let mut binds: Vec<_> = once.iter().map(|oid| self.next_bind(oid)).collect();
                let mut heads: Vec<Oid> = many.to_vec();
                for _ in 0..*repeat {
                    for head in &mut heads {
                        let (oid, value) = self.next_bind(head);
                        *head = oid.clone();
                        binds.push((oid, value));
                    }
                }
                binds
            }
            _ => return None,
        }))
    }
}

impl Link for Recording {
    fn once<'a>(&'a mut self, ask: &'a Ask, _timeout: Duration) -> Exchange<'a> {
        let reply = self.reply(ask).ok_or(LinkError::WrongProtocol);
        Box::pin(std::future::ready(reply))
    }
}

fn recorded(tag: &str, text: &str) -> Result<Recorded, String> {
    let digits = tag.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u8 = digits.parse().map_err(|_| format!("type \"{tag}\" is not known"))?;
    let bytes = || match &tag[digits.len()..] {
        "" => Some(text.as_bytes().to_vec()),
        "x" => unhex(text),
        "e" => unescape(text),
        _ => None,
    };
    let no = |what: &str| format!("\"{}\" is no {what}", text.chars().take(40).collect::<String>());
    let unsigned = |kind: Whole| {
        let number = text.trim().parse().map_err(|_| no("unsigned number"))?;
        Ok(Value::Unsigned(number, kind))
    };
    let value = match number {
        2 => text.trim().parse().map(Value::Integer).map_err(|_| no("integer")),
        4 | 68 => bytes().map(|b| Value::Bytes(b.into())).ok_or_else(|| no("hexadecimal text")),
        5 => Ok(Value::Nothing),
        6 => text.trim().parse().map(Value::Oid).map_err(|_| no("object identifier")),
        64 if tag != "64" => {
            let ip = bytes().and_then(|bytes| bytes.try_into().ok());
            ip.map(Value::Ip).ok_or_else(|| no("IP address"))
        }
        64 => ip(text).map(Value::Ip).ok_or_else(|| no("IP address")),
        65 => unsigned(Whole::Counter),
        66 => unsigned(Whole::Gauge),
        67 => unsigned(Whole::Ticks),
        70 => unsigned(Whole::Counter64),
        _ => Err(format!("type \"{tag}\" is not known")),
    };
    value.map(|value| Recorded { tag: number, value })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.extend(unhex(rest.get(at + 2..at + 4)?)?);
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

fn ip(text: &str) -> Option<[u8; 4]> {
    text.trim().parse::<std::net::Ipv4Addr>().ok().map(|ip| ip.octets())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_answers_as_its_agent_did() {
        let recording =
            Recording::parse("1.3.6.1.1.0|2|-7\n1.3.6.1.2.1|4x|00ff\n1.3.6.1.2.2|67|12\n").unwrap();
        let oid = |text: &str| text.parse::<Oid>().unwrap();
        let Some(Reply::Binds(binds)) =
            recording.reply(&Ask::Get(vec![oid("1.3.6.1.1.0"), oid("1.3.6.1.9")]))
        else {
            panic!()
        };
        assert_eq!(binds[0].1, Value::Integer(-7));
        assert_eq!(binds[1].1, Value::Nothing);
        let bulk =
            Ask::GetBulk { names: vec![oid("1.3.6.1.1"), oid("1.3.6.1.2")], single: 1, repeat: 3 };
        let Some(Reply::Binds(binds)) = recording.reply(&bulk) else { panic!() };
        assert_eq!(
            binds.iter().map(|b| b.0.to_string()).collect::<Vec<_>>(),
            ["1.3.6.1.1.0", "1.3.6.1.2.1", "1.3.6.1.2.2", "1.3.6.1.2.2"]
        );
        assert_eq!(binds[3].1, Value::Nothing);
    }

    #[test]
    fn a_broken_line_is_told_with_its_number() {
        let error = Recording::parse("1.3.6.1|2|1\nnonsense\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2: should be OID|type|value");
        assert!(Recording::parse("1.3.6|2|x").is_err());
        assert!(Recording::parse("1.3.6|4x|0g").is_err());
        assert_eq!(
            recorded("64e", "\\xc0\\xa8\\x00\\x01").unwrap().value,
            Value::Ip([192, 168, 0, 1])
        );
    }
}
