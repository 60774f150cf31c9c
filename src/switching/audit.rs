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

/// So many lines of what was refused to one client at once, and one more each time that this is over; the rest is counted:
/// nobody is to fill the audit with them.
const REFUSED: u64 = 30;
const EVERY: Span = Span::seconds(180);
/// A client's address may be long.
const CHARS: usize = 400;

/// What was refused to a client of late.
#[derive(Debug, Clone)]
pub(super) struct Lately {
    /// How many lines there may be, as of when.
    lines: u64,
    since: Tick,
    /// Those of which no line tells, and the last of them.
    more: u32,
    last: String,
}

/// The same, by client.
pub(super) type Refused = HashMap<String, Lately>;

impl Lately {
    /// Whether there may be a line.
    fn takes_a_line(&mut self, now: Tick) -> bool {
        let gained = (now - self.since).0 / EVERY.0;
        self.since = self.since + Span(gained * EVERY.0);
        self.lines = (self.lines + gained).min(REFUSED);
        let takes = self.lines > 0;
        self.lines -= u64::from(takes);
        takes
    }
}

/// Whether one more is to be told of, and of how many before it none was.
fn tells(refused: &mut Refused, who: &str, text: &str, now: Tick) -> Option<u32> {
    let all = Span(EVERY.0 * REFUSED);
    refused.retain(|_, of| of.more > 0 || now - of.since < all);
    let new = Lately { lines: REFUSED, since: now, more: 0, last: String::new() };
    let of = refused.entry(who.to_owned()).or_insert(new);
    if of.takes_a_line(now) {
        return Some(std::mem::take(&mut of.more));
    }
    of.more = of.more.saturating_add(1);
    text.clone_into(&mut of.last);
    None
}

/// Clients of which more was refused than was told, and how much, where there may be a line again or no time is left.
fn untold(refused: &mut Refused, now: Tick, is_over: bool) -> Vec<(String, u32, String)> {
    let mut told = Vec::new();
    for (who, of) in refused.iter_mut().filter(|(_, of)| of.more > 0) {
        if of.takes_a_line(now) || is_over {
            let last = std::mem::take(&mut of.last);
            told.push((who.clone(), std::mem::take(&mut of.more), last));
        }
    }
    told
}

impl Switching {
    /// Writes down that a client asked for something and may not, or that it was not done. Returns at once.
    pub fn refuses(&self, who: &Identity, asked: &str, why: &str) {
        let (by, now) = (who.to_string(), self.clock.tick());
        let mut text: String = format!("{asked}: {why}").chars().take(CHARS).collect();
        let told = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            tells(&mut refused, &by, &text, now)
        };
        let Some(more) = told else { return };
        if more > 0 {
            text.push_str(&format!(" (and {more} more before it)"));
        }
        self.writes_refused(by, text);
    }

    /// Writes down how much more was refused than was told.
    pub(super) fn tells_what_else_was_refused(&self, is_over: bool) {
        let told = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            untold(&mut refused, self.clock.tick(), is_over)
        };
        for (by, more, last) in told {
            self.writes_refused(by, format!("{more} more were refused, the last of them {last}"));
        }
    }

    fn writes_refused(&self, by: String, text: String) {
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
            (0..count).filter_map(|n| tells(refused, who, &format!("no. {n}"), Tick(at))).collect()
        };
        assert_eq!(lines(&mut refused, "mallory", 1_000, 100), vec![0; 30]);
        // Another client has its own lines.
        assert_eq!(lines(&mut refused, "alice", 1_000, 1), [0]);
        assert_eq!(lines(&mut refused, "mallory", 180_999, 1), [0; 0]);
        assert!(untold(&mut refused, Tick(180_999), false).is_empty());
        assert_eq!(lines(&mut refused, "mallory", 181_000, 2), [71]);
        let mallory = |more, last: &str| [("mallory".to_owned(), more, last.to_owned())];
        assert_eq!(untold(&mut refused, Tick(361_000), false), mallory(1, "no. 1"));
        assert!(untold(&mut refused, Tick(361_000), true).is_empty());
        assert_eq!(lines(&mut refused, "mallory", 361_000, 3), [0; 0]);
        assert_eq!(untold(&mut refused, Tick(361_000), true), mallory(3, "no. 2"));
        assert_eq!(lines(&mut refused, "bob", 90_000_000, 1), [0]);
        assert_eq!(refused.len(), 1, "the others are forgotten: {refused:?}");
        // In a day no more than these.
        let day = (0..86_400)
            .filter(|s| tells(&mut refused, "bob", "", Tick(90_000_000 + s * 1_000)).is_some());
        assert_eq!(day.count(), 29 + 479);
    }
}
