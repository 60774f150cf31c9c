//! How a command ends: a code for scripts and a sentence for people.

use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Exit {
    /// 1 refused or failed, 2 usage, 3 unreachable.
    pub code: u8,
    /// What to print; the causes are printed behind it.
    pub error: anyhow::Error,
    /// The gateway's answer, where it refused: what `--json` prints.
    pub problem: Option<Box<serde_json::Value>>,
}

impl Exit {
    /// Refused or failed.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 1, error: error.into(), problem: None }
    }

    /// Used wrongly.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into(), problem: None }
    }

    /// Nobody there.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 3, error: error.into(), problem: None }
    }

    /// Prints the error as a chain and gives the code; where results are asked for as JSON, a refusal is one.
    pub fn report(&self) -> ExitCode {
        let wants_json = std::env::args_os().any(|word| word == "--json");
        if let Some(problem) = self.problem.as_ref().filter(|_| wants_json) {
            super::out::line(&format!("{problem:#}"));
        }
        super::out::complain(&format!("{:#}", self.error));
        ExitCode::from(self.code)
    }
}

impl From<anyhow::Error> for Exit {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}

impl From<std::io::Error> for Exit {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

/// What a command returns.
pub type Outcome = Result<(), Exit>;
