//! Switching: what is asked, and what may come of it.

use serde::{Deserialize, Serialize};

use super::metric::Word;

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
