//! `pmgate driver prove`: a driver against its recordings.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use crate::device::adopt::{Adopted, detect_over, over};
use crate::link::recording::Recording;
use crate::link::registers::RegisterFile;
use crate::link::{Line, Link, Patience};
use crate::model::metric::{Point, Word};
use crate::model::reading::Datum;
use crate::profile::Profile;
use crate::profile::catalog::Catalog;
use crate::profile::format::Proof;

use super::exit::{Exit, Outcome};
use super::out;

/// Replays every recording that a driver file names and compares.
pub async fn prove(file: &Path, recordings: Option<&Path>) -> Outcome {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let profile = crate::profile::load(&file.display().to_string(), &text).map_err(Exit::failed)?;
    let beside = file.parent().unwrap_or(Path::new(".")).join("recordings");
    let dir = recordings.unwrap_or(&beside);
    if profile.proofs.is_empty() {
        return Err(Exit::failed(anyhow!(
            "{} names no recording: add [[proof]] with recording and expect",
            file.display()
        )));
    }
    let mut catalog = super::driver::catalog(None)?;
    let id = profile.id.clone();
    catalog.add(profile);
    let profile = catalog.get(&id).cloned().context("a driver that was added is there")?;
    let mut wrong = 0;
    let mut told = BTreeSet::new();
    for proof in &profile.proofs {
        let path = dir.join(&proof.recording);
        if !profile.detect.is_empty() && told.insert(&proof.recording) {
            let verdict = detected(&path, &profile, &catalog).await?;
            wrong += usize::from(verdict.is_err());
            let (mark, text) = match verdict {
                Ok(()) => ("ok", format!("is told to need driver {id}")),
                Err(why) => ("WRONG", format!("is not told to need driver {id}: {why}")),
            };
            out::line(&format!("{mark:5} {} {text}", proof.recording));
        }
        let adopted = replay(&path, &profile).await?;
        for (point, expected) in &proof.expect {
            let seen = seen(&adopted, *point, proof);
            let verdict = if matches(*point, expected, seen) { "ok" } else { "WRONG" };
            wrong += usize::from(verdict != "ok");
            out::line(&format!(
                "{verdict:5} {} {point}: {expected}, read {}",
                proof.recording,
                describe(*point, seen)
            ));
        }
    }
    if wrong == 0 {
        Ok(())
    } else {
        let text =
            "not all that the driver file expects is read so: see what is marked WRONG above";
        Err(Exit::failed(anyhow!("{text} ({wrong} of them)")))
    }
}

/// Whether a recording is told to be one of the driver's, among all drivers in the program.
async fn detected(
    path: &Path,
    profile: &Arc<Profile>,
    catalog: &Catalog,
) -> anyhow::Result<Result<(), String>> {
    let mut line = opened(path, profile)?;
    let verdict = detect_over(&mut line, catalog, profile.speech.is_snmp()).await;
    Ok(match verdict {
        Ok(told) if told.id == profile.id => Ok(()),
        Ok(told) => Err(format!("driver {} fits better", told.id)),
        Err(failure) => Err(failure.to_string()),
    })
}

/// Adopts what a recording answers.
pub async fn replay(path: &Path, profile: &Arc<Profile>) -> anyhow::Result<Adopted> {
    Ok(over(opened(path, profile)?, profile.clone(), None).await?)
}

fn opened(path: &Path, profile: &Profile) -> anyhow::Result<Line> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let named = || path.display().to_string();
    let is_registers = path.extension().is_some_and(|kind| kind == "regs");
    if is_registers == profile.speech.is_snmp() {
        return Err(anyhow!(
            "{}: a driver for SNMP is proven with .snmprec recordings, one for Modbus with .regs files",
            named()
        ));
    }
    let link: Box<dyn Link> = if is_registers {
        Box::new(RegisterFile::parse(&text).with_context(named)?)
    } else {
        Box::new(Recording::parse(&text).with_context(named)?)
    };
    Ok(Line::new(link, Patience::new((0, 1_000, 1))))
}

fn seen(adopted: &Adopted, point: Point, proof: &Proof) -> Option<Datum> {
    let of_part = |read: &&crate::profile::adopt::PointRead| {
        read.point == point && proof.part.is_none_or(|part| part == read.row)
    };
    adopted.points.iter().find(of_part).map(|read| read.datum)
}

fn matches(point: Point, expected: &str, seen: Option<Datum>) -> bool {
    match seen {
        Some(Datum::Value(kept)) => crate::profile::expected(point, expected) == Some(kept),
        Some(Datum::Word(word)) => word.word() == expected,
        Some(Datum::Gap(gap)) => gap.word() == expected,
        None => false,
    }
}

fn describe(point: Point, seen: Option<Datum>) -> String {
    match (seen, point.metric.unit()) {
        (Some(Datum::Value(kept)), Some(unit)) => {
            format!("{} {}", unit.to_f64(kept), unit.symbol())
        }
        (Some(Datum::Word(word)), _) => Word::word(word).to_owned(),
        (Some(Datum::Gap(gap)), _) => format!("nothing ({gap})"),
        _ => "nothing".into(),
    }
}
