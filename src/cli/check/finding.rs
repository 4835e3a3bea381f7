//! A result of the check: a line for people, an object for programs.

use std::fmt;

use serde::Serialize;

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Worth knowing, and no error.
    Note,
    /// Not on this machine, so it can't be checked.
    #[serde(rename = "not_here")]
    NotInstalled,
    /// Keeps something from working.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::NotInstalled => "-",
            Self::Failed => "FAILED",
        })
    }
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was checked.
    pub(super) about: String,
    pub(super) state: State,
    #[serde(rename = "says")]
    pub(super) message: String,
    /// What to do about it.
    #[serde(rename = "remedy", skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

impl Finding {
    fn new(about: impl Into<String>, state: State, message: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            state,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn ok(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(about, State::Ok, message)
    }

    pub(super) fn note(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(about, State::Note, message)
    }

    pub(super) fn not_installed(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(about, State::NotInstalled, message)
    }

    pub(super) fn failed(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(about, State::Failed, message)
    }

    pub(super) fn is_ok(&self) -> bool {
        self.state == State::Ok
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<7} {}: {}", self.state, self.about, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n        → {hint}"),
            None => Ok(()),
        }
    }
}

/// All findings, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct Report<'f> {
    /// Whether no check failed.
    #[serde(rename = "sound")]
    pub(super) ok: bool,
    pub(super) findings: &'f [Finding],
}
