//! Switching: what is asked, and what may come of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::metric::{Metric, Word};
use super::reading::Gap;
use super::time::{Span, Tick};
use super::topology::Layout;

/// What to do with an outlet or a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Close the relay.
    On,
    /// Open the relay.
    Off,
    /// Off, hold, on; each verified. Never the device's own reboot command.
    Cycle,
}

impl Action {
    /// The word in URLs and bodies.
    pub fn word(self) -> &'static str {
        match self {
            Action::On => "on",
            Action::Off => "off",
            Action::Cycle => "cycle",
        }
    }

    /// All of them by their word.
    pub const ALL: [(&'static str, Action); 3] =
        [("on", Action::On), ("off", Action::Off), ("cycle", Action::Cycle)];
}

/// What one step does to one relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relay {
    /// Open.
    Off,
    /// Closed.
    On,
}

impl Relay {
    /// The state that a device tells once it is done.
    pub fn state(self) -> Word {
        match self {
            Relay::Off => Word::Off,
            Relay::On => Word::On,
        }
    }

    /// The word.
    pub fn word(self) -> &'static str {
        self.state().word()
    }
}

/// What came of a step. Only the first two mean that the relay is where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Written, and seen in the wished state.
    Done,
    /// Was in the wished state before; nothing was written.
    AlreadyThere,
    /// Written, but not seen in the wished state in time.
    Unverified,
    /// The device refused, or nothing could be sent.
    Failed,
    /// Not begun, since an earlier step did not succeed or a guard held it back.
    Skipped,
    /// The gateway stopped between intent and outcome; the outlet was looked at afterwards and is
    /// not in the wished state. Nothing was repeated.
    NotDone,
}

impl Outcome {
    /// Whether the relay is where it should be.
    pub fn is_success(self) -> bool {
        matches!(self, Outcome::Done | Outcome::AlreadyThere)
    }

    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::AlreadyThere => "already_there",
            Outcome::Unverified => "unverified",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
            Outcome::NotDone => "not_done",
        }
    }
}

/// An outlet as a look has just shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What the relay does.
    pub state: Result<Word, Gap>,
    /// When the look began.
    pub at: Tick,
    /// How long a command may take here until it shows.
    pub takes: Span,
}

/// What a write rests on: it is refused if that is no longer so when its turn comes.
#[derive(Debug, Clone)]
pub struct Known {
    /// The parts that the outlet was chosen among.
    pub layout: Arc<Layout>,
    /// How old its state may be.
    pub fresh: Span,
}

/// How the outcome of a write is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long the state may take.
    pub within: Span,
    /// How often it is looked at meanwhile.
    pub every: Span,
    /// Whether the device said that it took the write. If it said nothing, only looking tells.
    pub acknowledged: bool,
    /// A second witness: what the outlet draws must be less than this, in kept steps, once it is off.
    pub also: Option<(Metric, i64)>,
    /// Whether what the outlet draws must follow its relay where it is metered.
    pub follows: bool,
    /// How long the load takes to settle.
    pub settle: Span,
}

/// The word for a state, for messages.
pub fn state_word(state: Result<Word, Gap>) -> String {
    match state {
        Ok(word) => word.word().to_owned(),
        Err(gap) => format!("unknown ({gap})"),
    }
}
/// What a PDU does with an outlet by itself when its power comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerOn {
    /// It stays off.
    Never,
    /// It is switched on after so long.
    After(Span),
}

impl PowerOn {
    /// The same so much later.
    #[must_use]
    pub fn later(self, by: Span) -> Self {
        match self {
            PowerOn::Never => PowerOn::Never,
            PowerOn::After(delay) => PowerOn::After(Span(delay.0.saturating_add(by.0))),
        }
    }
}

impl std::fmt::Display for PowerOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PowerOn::Never => f.write_str("never"),
            PowerOn::After(delay) => delay.fmt(f),
        }
    }
}
