//! Reading the audit, and writing what stands for itself in it.

use std::collections::HashMap;
use std::sync::PoisonError;

use crate::access::Identity;
use crate::audit::{Entry, Head};
use crate::model::event::About;
use crate::model::time::{Span, Tick};
use crate::store::journal::{Commit, JournalError};

use super::conduct::draft;
use super::refusal::Refusal;
use super::submit::Switching;

/// Lines of the audit, with its end.
#[derive(Debug, Clone)]
pub struct Page {
    /// Lines, oldest first.
    pub entries: Vec<Entry>,
    /// The end of the chain.
    pub head: Head,
    /// Whether the whole chain is sound, or where it is not; if that was asked.
    pub verified: Option<Result<u64, String>>,
}

/// So many lines of what was refused to one client in a minute; more are counted: nobody is to fill the audit with them.
const REFUSED: u32 = 30;
const MINUTE: Span = Span::seconds(60);
/// A client's address may be long.
const CHARS: usize = 400;

/// What was refused to a client of late.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lately {
    since: Tick,
    lines: u32,
    /// Those of which no line tells.
    more: u32,
}

/// The same, by client.
pub(super) type Refused = HashMap<String, Lately>;

/// Whether one more is to be told of, and of how many before it none was.
fn tells(refused: &mut Refused, who: &str, now: Tick) -> Option<u32> {
    refused.retain(|_, of| of.more > 0 || now - of.since < MINUTE);
    let new = Lately { since: now, lines: 0, more: 0 };
    let of = refused.entry(who.to_owned()).or_insert(new);
    if now - of.since >= MINUTE {
        *of = Lately { more: of.more, ..new };
    }
    if of.lines >= REFUSED {
        of.more += 1;
        return None;
    }
    of.lines += 1;
    Some(std::mem::take(&mut of.more))
}

impl Switching {
    /// Writes down that a client asked for something and may not, or that it was not done. Returns at once.
    pub fn refuses(&self, who: &Identity, asked: &str, why: &str) {
        let (by, now) = (who.to_string(), self.clock.tick());
        let told = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            tells(&mut refused, &by, now)
        };
        let Some(more) = told else { return };
        let mut text: String = format!("{asked}: {why}").chars().take(CHARS).collect();
        if more > 0 {
            text.push_str(&format!(" (and {more} more before it)"));
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = this.writes("request.refused", &by, text).await {
                tracing::error!(%error, "the audit does not tell what was refused");
            }
        });
    }

    /// Lines of the audit after one, or the last ones.
    pub async fn audit(
        &self,
        after: Option<u64>,
        last: Option<u64>,
        count: usize,
        verify: bool,
    ) -> Result<Page, Refusal> {
        let page = self.in_journal(move |journal| {
            let head = journal.audit_head()?;
            let after =
                after.unwrap_or_else(|| last.map_or(0, |last| head.seq.saturating_sub(last)));
            let entries = journal.audit(after, count)?;
            let verified = if verify {
                Some(journal.verify_audit()?.map_err(|broken| broken.to_string()))
            } else {
                None
            };
            Ok(Page { entries, head, verified })
        });
        Ok(page.await?)
    }

    /// Writes a line of the audit that stands for itself: a changed configuration, a start.
    pub async fn write_down(&self, kind: &'static str, text: String) -> Result<(), JournalError> {
        self.writes(kind, "the gateway", text).await
    }

    async fn writes(&self, kind: &'static str, by: &str, text: String) -> Result<(), JournalError> {
        let note = draft(self.clock.stamp().0, kind, by, &About::default(), text);
        let commit = Commit { notes: vec![note], ..Commit::default() };
        self.in_journal(move |journal| journal.commit(commit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_too_often_is_counted_and_told_once() {
        let mut refused = Refused::new();
        let lines = |refused: &mut Refused, who: &str, at: u64, count: u32| -> Vec<u32> {
            (0..count).filter_map(|_| tells(refused, who, Tick(at))).collect()
        };
        assert_eq!(lines(&mut refused, "mallory", 1_000, 100), vec![0; 30]);
        // Another client has its own lines.
        assert_eq!(lines(&mut refused, "alice", 1_000, 1), [0]);
        assert_eq!(lines(&mut refused, "mallory", 60_999, 1), [0; 0]);
        assert_eq!(lines(&mut refused, "mallory", 500_000, 2), [71, 0]);
        assert!(!refused.contains_key("alice"), "it is forgotten");
    }
}
