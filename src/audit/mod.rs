//! The audit: who asked for what, what was intended, what came of it, in lines of which each carries the hash of the
//! one before. Nobody changes, removes or adds a line in the middle without the chain telling where.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What is to be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// When, ms since 1970.
    pub at: i64,
    /// What kind, as `plan.accepted`.
    pub kind: String,
    /// Who did it: a client's name and role, or `the gateway`.
    pub by: String,
    /// About what: a plan, an outlet, a host.
    pub about: String,
    /// A sentence.
    pub text: String,
}

/// A line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, without holes.
    pub seq: u64,
    /// When, ms since 1970.
    pub at: i64,
    /// What kind.
    pub kind: String,
    /// Who did it.
    pub by: String,
    /// About what.
    pub about: String,
    /// A sentence.
    pub text: String,
    /// The hash of the line before, hexadecimal; of the first line, zeros.
    pub prev: String,
    /// SHA-256 over all of that, hexadecimal.
    pub hash: String,
}

/// The end of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last line.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }
}

/// Where the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A line is not what it was.
    #[error("line {0} of the audit was changed: its hash is not that of what it says")]
    Changed(u64),
    /// A line does not follow the one before.
    #[error(
        "line {0} of the audit does not follow the line before: one was removed, added or moved"
    )]
    Unlinked(u64),
    /// The chain ends before its head.
    #[error("the audit ends at line {0}, but had {1} lines")]
    CutOff(u64, u64),
}

impl Head {
    /// The next line.
    pub fn next(&self, draft: Draft) -> Entry {
        let Draft { at, kind, by, about, text } = draft;
        let (seq, prev) = (self.seq + 1, self.hash.clone());
        let mut entry = Entry { seq, at, kind, by, about, text, prev, hash: String::new() };
        entry.hash = entry.digest();
        entry
    }
}

impl Entry {
    /// The end of the chain behind it.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash.clone() }
    }

    /// SHA-256 over every field, each with its length before it: no two lines read alike.
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.seq.to_be_bytes());
        hash.update(self.at.to_be_bytes());
        for field in [&self.kind, &self.by, &self.about, &self.text, &self.prev] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field.as_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Checks lines that follow `before`, up to the head; tells the first that is wrong.
pub fn verify<'e>(
    before: &Head,
    entries: impl IntoIterator<Item = &'e Entry>,
    head: &Head,
) -> Result<(), Broken> {
    let mut last = before.clone();
    for entry in entries {
        if entry.seq != last.seq + 1 || entry.prev != last.hash {
            return Err(Broken::Unlinked(last.seq + 1));
        }
        if entry.hash != entry.digest() {
            return Err(Broken::Changed(entry.seq));
        }
        last = entry.head();
    }
    if last.seq < head.seq {
        return Err(Broken::CutOff(last.seq, head.seq));
    }
    if last == *head { Ok(()) } else { Err(Broken::Unlinked(last.seq)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: u64) -> (Vec<Entry>, Head) {
        let (mut entries, mut head) = (Vec::new(), Head::default());
        for n in 0..count {
            let draft = Draft {
                at: n as i64,
                kind: "k".into(),
                by: "alice".into(),
                about: "p1".into(),
                text: format!("line {n}"),
            };
            let entry = head.next(draft);
            head = entry.head();
            entries.push(entry);
        }
        (entries, head)
    }

    /// Every line changed in every field, removed, doubled, moved, and every cut: the verifier names the place.
    #[test]
    fn whatever_is_done_to_the_chain_is_told_with_its_place() {
        let (entries, head) = chain(60);
        let start = Head::default();
        assert_eq!(verify(&start, &entries, &head), Ok(()));
        for at in 0..entries.len() {
            let seq = at as u64 + 1;
            let changes: [fn(&mut Entry); 6] = [
                |e| e.text.push('x'),
                |e| e.at += 1,
                |e| e.by.clear(),
                |e| e.about.push('2'),
                |e| e.kind.push('k'),
                |e| e.hash.replace_range(0..1, if e.hash.starts_with('0') { "1" } else { "0" }),
            ];
            for change in changes {
                let mut other = entries.clone();
                change(&mut other[at]);
                assert_eq!(verify(&start, &other, &head), Err(Broken::Changed(seq)));
            }
            let mut removed = entries.clone();
            removed.remove(at);
            assert!(verify(&start, &removed, &head).is_err(), "{at}");
            let mut doubled = entries.clone();
            doubled.insert(at, entries[at].clone());
            assert_eq!(verify(&start, &doubled, &head), Err(Broken::Unlinked(seq + 1)));
            let cut = verify(&start, &entries[..at], &head);
            assert_eq!(cut, Err(Broken::CutOff(at as u64, 60)));
            if at > 0 {
                let mut moved = entries.clone();
                moved.swap(at - 1, at);
                assert_eq!(verify(&start, &moved, &head), Err(Broken::Unlinked(seq - 1)));
            }
        }
        // A line that was made anew with a right hash does not fit the next one.
        let mut forged = entries.clone();
        forged[5].text = "nothing".into();
        forged[5].hash = forged[5].digest();
        assert_eq!(verify(&start, &forged, &head), Err(Broken::Unlinked(7)));
        let mut last = entries.clone();
        last[59].text = "nothing".into();
        last[59].hash = last[59].digest();
        assert!(verify(&start, &last, &head).is_err());
    }
}
