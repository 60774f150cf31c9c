//! A recording behind an SNMP agent, with rules for what a write changes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::link::recording::{Recorded, Recording};
use crate::model::ask::Value;
use crate::model::oid::Oid;

use super::agent::{Access, Answers, start};
use super::objects::Refusal;

/// What a write changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The object or column written.
    written: Oid,
    /// The object or column that changes, at the same index, and what follows the index.
    changed: (Oid, Vec<u32>),
    /// What a write brings about, after a delay.
    effects: Vec<(Written, Becomes, Duration)>,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Number(i64),
    /// From the one to the other.
    Range(i64, i64),
    Anything,
}

impl Written {
    fn is(self, value: &Value) -> bool {
        match self {
            Written::Number(number) => value.number() == Some(number),
            Written::Range(least, most) => {
                value.number().is_some_and(|number| (least..=most).contains(&number))
            }
            Written::Anything => true,
        }
    }
}

/// What an object becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    Number(i64),
    /// As it was recorded.
    Recorded,
    /// What was written.
    Written,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: {text}; a rule is: WRITTEN-OID -> CHANGED-OID 1:2, 2:1@500 (written:new@milliseconds, = for as recorded, *:* for whatever was written, -1..7200:* for a number in a range)"
)]
pub struct RuleError {
    line: usize,
    text: String,
}

impl Rule {
    /// Reads rules, one a line: `1.3.6.1.4.1.318.1.1.26.9.2.4.1.5 -> 1.3.6.1.4.1.318.1.1.26.9.2.3.1.5 1:2, 2:1@500`.
    /// `#` begins a comment; a `*` in the name that changes stands for the index where something follows it.
    pub fn parse_all(text: &str) -> Result<Vec<Rule>, RuleError> {
        let lines = text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.split('#').next().unwrap_or("").trim()));
        lines
            .filter(|(_, line)| !line.is_empty())
            .map(|(line, text)| Self::parse(line, text))
            .collect()
    }

    fn parse(line: usize, text: &str) -> Result<Rule, RuleError> {
        let wrong = |text: &str| RuleError { line, text: text.to_owned() };
        let (written, rest) = text.split_once("->").ok_or_else(|| wrong("there is no ->"))?;
        let (changed, effects) =
            rest.trim().split_once(' ').ok_or_else(|| wrong("it changes nothing"))?;
        let changed = changed.split_once(".*").unwrap_or((changed, ""));
        let tail = changed.1.split('.').filter(|arc| !arc.is_empty());
        let tail: Result<Vec<u32>, _> = tail.map(str::parse).collect();
        let tail = tail.map_err(|_| wrong("what follows the * is no part of a name"))?;
        let oid = |text: &str| text.trim().parse().map_err(|error| wrong(&format!("{error}")));
        let effect = |text: &str| -> Option<(Written, Becomes, Duration)> {
            let (from, to) = text.trim().split_once(':')?;
            let (to, after) = to.split_once('@').unwrap_or((to, "0"));
            let from = match from {
                "*" => Written::Anything,
                number => match number.split_once("..") {
                    Some((least, most)) => Written::Range(least.parse().ok()?, most.parse().ok()?),
                    None => Written::Number(number.parse().ok()?),
                },
            };
            let to = match to {
                "=" => Becomes::Recorded,
                "*" => Becomes::Written,
                number => Becomes::Number(number.parse().ok()?),
            };
            Some((from, to, Duration::from_millis(after.parse().ok()?)))
        };
        let effects = effects.split(',').map(|one| {
            effect(one).ok_or_else(|| wrong(&format!("\"{}\" is no effect", one.trim())))
        });
        Ok(Rule {
            written: oid(written)?,
            changed: (oid(changed.0)?, tail),
            effects: effects.collect::<Result<_, _>>()?,
        })
    }
}

struct Replay {
    now: Mutex<Recording>,
    recorded: Recording,
    rules: Vec<Rule>,
}

/// Starts an agent that answers as recorded; tells where it listens.
pub async fn serve(
    recording: Recording,
    rules: Vec<Rule>,
    listen: SocketAddr,
    access: Access,
    stop: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let replay = Replay { now: Mutex::new(recording.clone()), recorded: recording, rules };
    start(listen, access, Arc::new(ReplayHandle(Arc::new(replay))), stop).await
}

#[derive(Clone)]
struct ReplayHandle(Arc<Replay>);

impl Replay {
    fn lock(&self) -> std::sync::MutexGuard<'_, Recording> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn apply(&self, changed: &Oid, new: Becomes, written: &Value) {
        let recorded = self.recorded.get(changed).cloned();
        let next = match (new, recorded) {
            (Becomes::Recorded, Some(recorded)) => recorded,
            (Becomes::Recorded, None) => return,
            (Becomes::Written, Some(recorded)) => {
                Recorded { tag: recorded.tag, value: written.clone() }
            }
            (Becomes::Written, None) => Recorded { tag: 4, value: written.clone() },
            (Becomes::Number(number), Some(Recorded { tag, value: Value::Unsigned(_, kind) })) => {
                Recorded { tag, value: Value::Unsigned(number as u64, kind) }
            }
            (Becomes::Number(number), _) => Recorded { tag: 2, value: Value::Integer(number) },
        };
        self.lock().set(changed.clone(), next);
    }
}

fn same_type(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Unsigned(_, one), Value::Unsigned(_, other)) => one == other,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

impl Answers for ReplayHandle {
    fn get(&self, oid: &Oid) -> Option<(u8, Value)> {
        self.0.lock().get(oid).map(|r| (r.tag, r.value.clone()))
    }

    fn after(&self, oid: &Oid) -> Option<(Oid, u8, Value)> {
        self.0.lock().after(oid).map(|(next, r)| (next.clone(), r.tag, r.value.clone()))
    }

    fn check(&self, oid: &Oid, value: &Value) -> Result<(), Refusal> {
        let mut rules = self.0.rules.iter().filter(|rule| oid.is_under(&rule.written)).peekable();
        if rules.peek().is_none() {
            return Err(Refusal::NotWritable);
        }
        // Real agents take no INTEGER for an Unsigned32 (RFC 3416 section 4.2.5: wrongType).
        if self.0.recorded.get(oid).is_some_and(|recorded| !same_type(&recorded.value, value)) {
            return Err(Refusal::WrongType);
        }
        let mut effects = rules.flat_map(|rule| &rule.effects);
        if effects.any(|(from, ..)| from.is(value)) {
            return Ok(());
        }
        Err(if value.number().is_none() { Refusal::WrongType } else { Refusal::WrongValue })
    }

    fn write(&self, oid: &Oid, value: &Value) -> Result<(), Refusal> {
        self.check(oid, value)?;
        for rule in &self.0.rules {
            let Some(index) = oid.below(&rule.written) else { continue };
            let (column, tail) = &rule.changed;
            let Ok(changed) = column.child(&[&index[..], tail].concat()) else { continue };
            for (from, to, after) in &rule.effects {
                if !from.is(value) {
                    continue;
                }
                if after.is_zero() {
                    self.0.apply(&changed, *to, value);
                } else {
                    let (replay, changed, to, after) =
                        (self.0.clone(), changed.clone(), *to, *after);
                    let value = value.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        replay.apply(&changed, to, &value);
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ask::Whole;

    #[tokio::test(start_paused = true)]
    async fn a_write_changes_another_object_after_a_delay() {
        let recording = Recording::parse("1.3.6.1.5.7|2|2\n1.3.6.1.6.7.9|66|90\n").unwrap();
        let rules = Rule::parse_all(
            "# off and on\n1.3.6.1.4 -> 1.3.6.1.5 1:2@500, 2:1\n1.3.6.1.4 -> 1.3.6.1.6.*.9 2:0, 1:=\n",
        )
        .unwrap();
        let replay = ReplayHandle(Arc::new(Replay {
            now: Mutex::new(recording.clone()),
            recorded: recording,
            rules,
        }));
        let oid = |text: &str| text.parse::<Oid>().unwrap();
        let value = |replay: &ReplayHandle, text: &str| replay.get(&oid(text)).unwrap().1;
        replay.write(&oid("1.3.6.1.4.7"), &Value::Integer(2)).unwrap();
        assert_eq!(value(&replay, "1.3.6.1.5.7"), Value::Integer(1));
        assert_eq!(value(&replay, "1.3.6.1.6.7.9"), Value::Unsigned(0, Whole::Gauge));
        replay.write(&oid("1.3.6.1.4.7"), &Value::Integer(1)).unwrap();
        assert_eq!(value(&replay, "1.3.6.1.5.7"), Value::Integer(1));
        assert_eq!(value(&replay, "1.3.6.1.6.7.9"), Value::Unsigned(90, Whole::Gauge));
        tokio::time::sleep(Duration::from_millis(501)).await;
        assert_eq!(value(&replay, "1.3.6.1.5.7"), Value::Integer(2));
        assert_eq!(
            replay.check(&oid("1.3.6.1.5.7"), &Value::Integer(1)),
            Err(Refusal::NotWritable)
        );
        assert_eq!(replay.check(&oid("1.3.6.1.4.7"), &Value::Integer(9)), Err(Refusal::WrongValue));
        // An object is of the type that it was recorded with.
        let rules = Rule::parse_all("1.3.6.1.6 -> 1.3.6.1.6 *:*").unwrap();
        let replay = ReplayHandle(Arc::new(Replay {
            now: Mutex::new(replay.0.recorded.clone()),
            recorded: replay.0.recorded.clone(),
            rules,
        }));
        let named = oid("1.3.6.1.6.7.9");
        assert_eq!(replay.check(&named, &Value::Integer(1)), Err(Refusal::WrongType));
        assert_eq!(replay.check(&named, &Value::Unsigned(1, Whole::Gauge)), Ok(()));
    }

    #[test]
    fn a_broken_rule_is_told_with_its_line() {
        let error = Rule::parse_all("\n1.3.6.1 -> 1.3.7 1=2").unwrap_err().to_string();
        assert!(error.starts_with("line 2: \"1=2\" is no effect"), "{error}");
    }
}
