//! Reading the audit.

use crate::audit::{Entry, Head};
use crate::model::event::About;
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

impl Switching {
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
        let note = draft(self.clock.stamp().0, kind, "the gateway", &About::default(), text);
        let commit = Commit { notes: vec![note], ..Commit::default() };
        self.in_journal(move |journal| journal.commit(commit)).await
    }
}
