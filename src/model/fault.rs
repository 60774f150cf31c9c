//! Faults found in a file that a person wrote: all of them, each with its place and its mend.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key, as in `point[3].count`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to write instead.
    pub text: String,
}

/// The faults of one file, in the order of their places. Collects through a shared reference, so
/// that many readers of one document can report into it.
#[derive(Debug)]
pub struct Faults {
    file: String,
    line_starts: Vec<usize>,
    source: String,
    found: RefCell<Vec<Fault>>,
}

impl Faults {
    /// For a file of this name with this text.
    pub fn of(file: &str, source: &str) -> Self {
        let breaks = source.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self {
            file: file.to_owned(),
            line_starts: std::iter::once(0).chain(breaks).collect(),
            source: source.to_owned(),
            found: RefCell::default(),
        }
    }

    /// Adds a fault at a place in the text.
    pub fn add(&self, span: Range<usize>, key: impl Into<String>, text: impl fmt::Display) {
        let start = span.start.min(self.source.len());
        let line = self.line_starts.partition_point(|at| *at <= start);
        let from = self.line_starts[line - 1];
        let column = self.source.get(from..start).map_or(1, |before| before.chars().count() + 1);
        let fault = Fault { line, column, key: key.into(), text: text.to_string() };
        let mut found = self.found.borrow_mut();
        if !found.contains(&fault) {
            found.push(fault);
        }
    }

    /// The name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether nothing has been found.
    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// The value if nothing has been found, else every fault.
    pub fn or<T>(self, value: Option<T>) -> Result<T, FaultList> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => {
                let mut faults = self.found.into_inner();
                faults.sort();
                Err(FaultList { file: self.file, faults })
            }
        }
    }
}

/// Every fault of a file. Prints one a line, as compilers do: `file:line:column: key: text`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FaultList {
    /// The file.
    pub file: String,
    /// What was found, by place.
    pub faults: Vec<Fault>,
}

impl fmt::Display for FaultList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            let end = if at + 1 < self.faults.len() { "\n" } else { "" };
            let Fault { line, column, key, text } = fault;
            let colon = if key.is_empty() { "" } else { ": " };
            write!(f, "{}:{line}:{column}: {key}{colon}{text}{end}", self.file)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_tell_line_and_column_in_characters() {
        let faults = Faults::of("a.toml", "ä = 1\nbb = 2\n");
        faults.add(7..9, "bb", "unknown");
        faults.add(0..1, "", "first");
        let list = faults.or(Some(())).unwrap_err();
        assert_eq!(list.to_string(), "a.toml:1:1: first\na.toml:2:1: bb: unknown");
    }

    #[test]
    fn a_place_beyond_the_end_is_the_end() {
        let faults = Faults::of("a.toml", "x");
        faults.add(99..100, "k", "late");
        assert_eq!(faults.or(Some(())).unwrap_err().faults[0].line, 1);
    }
}
