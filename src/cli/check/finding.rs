//! What was found, and how it is told: a line for people, an object for programs.

use std::fmt;

use serde::Serialize;

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Worth a word, and no fault.
    Note,
    /// Isn't on this machine, so nothing can be said of it.
    NotHere,
    /// Keeps something from working.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::NotHere => "-",
            Self::Failed => "FAILED",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) about: String,
    pub(super) state: State,
    /// How it was found.
    pub(super) says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    fn new(about: impl Into<String>, state: State, says: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            state,
            says: says.into(),
            remedy: None,
        }
    }

    pub(super) fn ok(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(about, State::Ok, says)
    }

    pub(super) fn note(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(about, State::Note, says)
    }

    pub(super) fn not_here(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(about, State::NotHere, says)
    }

    pub(super) fn failed(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(about, State::Failed, says)
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<7} {}: {}", self.state, self.about, self.says)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n        → {remedy}"),
            None => Ok(()),
        }
    }
}

/// All findings, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct Report<'f> {
    /// Whether nothing failed.
    pub(super) sound: bool,
    pub(super) findings: &'f [Finding],
}
