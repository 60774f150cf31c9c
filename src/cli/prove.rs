//! `pmgate driver prove`: a driver against its recordings.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use crate::device::adopt::{Adopted, over};
use crate::link::recording::Recording;
use crate::link::{Line, Patience};
use crate::model::metric::{Point, Word};
use crate::model::reading::Datum;
use crate::profile::Profile;
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
    let profile = Arc::new(profile);
    let mut wrong = 0;
    for proof in &profile.proofs {
        let adopted = replay(&dir.join(&proof.recording), &profile).await?;
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
        Err(Exit::failed(anyhow!("{wrong} values are not what the driver file expects")))
    }
}

/// Adopts what a recording answers.
pub async fn replay(path: &Path, profile: &Arc<Profile>) -> anyhow::Result<Adopted> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let recording = Recording::parse(&String::from_utf8_lossy(&text))
        .with_context(|| path.display().to_string())?;
    let line = Line::new(Box::new(recording), Patience::new((0, 1_000, 1)));
    Ok(over(line, profile.clone(), None).await?)
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
