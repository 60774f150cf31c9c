//! `pmgate driver record`: what a device answers, as a recording that may be shown to others. It asks, and never writes
//! to the device; what could not be read is told, and the recording is not called whole then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::link::{Line, LinkError, Patience};
use crate::model::ask::{Ask, Reply, Value, status_name};
use crate::model::oid::Oid;

use super::args::TargetArgs;
use super::exit::{Exit, Outcome};
use super::out;
use super::scrub::Scrub;

/// More rows than any PDU has; a Raritan PX3 has 8000.
const ROWS: usize = 100_000;
/// More rows than any column has: beyond this an agent makes them up.
const COLUMN: usize = 4_096;
/// How often a walk goes on behind a place that cannot be read.
const SKIPS: usize = 4;
/// Objects asked for in one request.
const BULK: u32 = 20;
/// SNMPv1's end of a walk (RFC 1157 section 4.1.3).
const NO_SUCH_NAME: u32 = 2;

/// What is recorded.
pub struct Plan<'p> {
    /// Where to walk.
    pub under: &'p [String],
    /// Objects whose texts may be shown.
    pub keep: &'p [String],
    /// Ranges of Modbus registers.
    pub read: &'p [String],
    /// A directory with more drivers, which know what texts mean.
    pub drivers: Option<&'p Path>,
    /// The recording to write.
    pub file: &'p PathBuf,
}

/// Walks a device and writes the recording.
pub async fn record(args: &TargetArgs, plan: &Plan<'_>) -> Outcome {
    let target = super::driver::target(args)?;
    if !target.is_snmp() {
        return super::record_modbus::record(&target, plan.read, plan.file).await;
    }
    if !plan.read.is_empty() {
        return Err(Exit::usage(anyhow!(
            "--read names Modbus registers: SNMP is walked, --under OID"
        )));
    }
    let oids = |texts: &[String]| -> Result<Vec<Oid>, Exit> {
        texts.iter().map(|text| text.parse().map_err(Exit::usage)).collect()
    };
    let (bases, keep) = (oids(plan.under)?, oids(plan.keep)?);
    let catalog = super::driver::catalog(plan.drivers)?;
    let scrub = Scrub::new(&catalog.speaking(true), keep, args.secrets());
    let unreachable = |error: LinkError| Exit::unreachable(anyhow!("the device {error}"));
    let mut line = target.line(Patience::new((20, 3_000, 3)), 1).await.map_err(unreachable)?;
    let walked = walk_all(&mut line, &bases).await.map_err(unreachable)?;
    let scrubbed = scrub.scrub(&walked.rows);
    let file = plan.file;
    std::fs::write(file, &scrubbed.text)
        .with_context(|| format!("cannot write {}", file.display()))?;
    out::line(&format!(
        "{}: {} rows, {} texts blotted out, {} rows of network tables left out; look through it before you show it to others",
        file.display(),
        scrubbed.rows,
        scrubbed.blotted,
        scrubbed.left_out
    ));
    if walked.wrong.is_empty() {
        return Ok(());
    }
    Err(Exit::failed(anyhow!("the recording is not complete: {}", walked.wrong.join("; "))))
}

/// What a walk brought.
#[derive(Debug, Default)]
pub struct Walked {
    /// The objects.
    pub rows: BTreeMap<Oid, Value>,
    /// What could not be read.
    pub wrong: Vec<String>,
}

/// Walks all of some subtrees. Fails only where nobody answers at all.
pub async fn walk_all(line: &mut Line, bases: &[Oid]) -> Result<Walked, LinkError> {
    let mut walked = Walked::default();
    for base in bases {
        let nothing = walked.rows.is_empty() && walked.wrong.is_empty();
        match (Walker::new(base).walk(line, &mut walked).await, nothing) {
            (Err(error), true) => return Err(error),
            (Err(error), false) => walked.wrong.push(format!("at {base} it {error}")),
            (Ok(()), _) => {}
        }
    }
    Ok(walked)
}

/// A walk of one subtree.
struct Walker<'b> {
    base: &'b Oid,
    at: Oid,
    /// Requests for single objects before many are asked for again.
    single: u32,
    skips: usize,
    /// How many rows the column has so far.
    column: (Oid, usize),
    fresh: bool,
}

impl<'b> Walker<'b> {
    fn new(base: &'b Oid) -> Self {
        let column = (base.clone(), 0);
        Self { base, at: base.clone(), single: 0, skips: 0, column, fresh: true }
    }

    async fn walk(mut self, line: &mut Line, walked: &mut Walked) -> Result<(), LinkError> {
        loop {
            if walked.rows.len() >= ROWS {
                walked.wrong.push(format!("after {ROWS} objects there are still more"));
                return Ok(());
            }
            let bulk = line.has_bulk() && self.single == 0;
            let ask = if bulk {
                Ask::GetBulk { names: vec![self.at.clone()], single: 0, repeat: BULK }
            } else {
                self.single = self.single.saturating_sub(1);
                Ask::GetNext(vec![self.at.clone()])
            };
            let trouble = match line.exchange(&ask).await {
                Ok(Reply::Binds(binds)) if !binds.is_empty() => match self.take(binds, walked) {
                    Step::On => continue,
                    Step::End => return Ok(()),
                    Step::Stuck(why) => why,
                },
                Ok(Reply::Refused { status: NO_SUCH_NAME, .. }) if !line.has_bulk() => {
                    return Ok(());
                }
                // Some agents bear no GETBULK, or not here.
                _ if bulk => {
                    self.single = BULK;
                    continue;
                }
                Err(error) if self.fresh => return Err(error),
                Err(error) => error.to_string(),
                Ok(Reply::Refused { status, .. }) => format!("answers {}", status_name(status)),
                Ok(_) => "answers with something else".into(),
            };
            walked.wrong.push(format!("after {} it {trouble}", self.at));
            if !self.skip() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, binds: Vec<(Oid, Value)>, walked: &mut Walked) -> Step {
        self.fresh = false;
        for (oid, value) in binds {
            let ended = oid == self.at && value == Value::Nothing;
            if ended || (!oid.is_under(self.base) && oid > self.at) {
                return Step::End;
            }
            // An agent may have its objects out of order; going in a circle it may not.
            if !oid.is_under(self.base) || walked.rows.contains_key(&oid) || oid == self.at {
                return Step::Stuck(format!("goes back to {oid}"));
            }
            let parts = oid.parts();
            let column = Oid::from_parts(&parts[..parts.len() - 1]).unwrap_or_default();
            let count = if column == self.column.0 { self.column.1 + 1 } else { 1 };
            self.column = (column, count);
            self.at = oid.clone();
            walked.rows.insert(oid, value);
            if count >= COLUMN {
                return Step::Stuck(format!("has more than {COLUMN} rows in a column"));
            }
        }
        Step::On
    }

    /// Goes on behind the column, and behind what it is part of if that is no way either.
    fn skip(&mut self) -> bool {
        self.skips += 1;
        let mut parts = self.at.parts();
        parts.pop();
        let Some(last) = parts.last_mut() else { return false };
        let Some(next) = last.checked_add(1) else { return false };
        *last = next;
        let Ok(next) = Oid::from_parts(&parts) else { return false };
        let onward = self.skips <= SKIPS && next.is_under(self.base) && next != *self.base;
        self.at = next;
        onward
    }
}

enum Step {
    On,
    End,
    Stuck(String),
}
