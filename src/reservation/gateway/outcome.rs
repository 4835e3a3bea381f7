//! What comes of asking an upstream: for requests, for ids, and why there may be no answer.

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::response::{Flaw, UpstreamConference};
use super::retry::Trouble;
use crate::domain::allocation::Allocation;

/// What became of a request for a conference.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The upstream opened it.
    Opened(UpstreamConference),
    /// It runs there already; the asker is let in.
    Running(UpstreamConference),
    /// A visitor who is to wait in the queue, as the upstream says.
    Queued,
    /// The upstream says no.
    Refused(Refused),
    /// There is no answer, and the operator wants conferences to run then.
    Unasked(Allocation),
    /// There is no answer.
    Failed(Failure),
}

/// A no of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its status, from 400 to 499.
    pub status: u16,
    /// Its message, or one of ours.
    pub message: String,
}

/// What is known of an id.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// It runs, says the upstream.
    Running(UpstreamConference),
    /// It runs because the upstream could not be asked.
    Unasked(Allocation),
    /// It ended at this instant.
    Over(DateTime<Utc>),
    /// Nobody knows it.
    Unknown,
    /// The upstream doesn't say.
    Refused(Refused),
    /// There is no answer.
    Failed(Failure),
}

/// Why there is no answer that could be passed on. The messages are for whoever wanted into the room.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// No connection.
    #[error("The reservation system can't be reached right now. Try again in a minute.")]
    Unreachable,
    /// It took longer than the configuration gives it.
    #[error("The reservation system took too long to answer. Try again in a minute.")]
    TooSlow,
    /// A status from 500 up.
    #[error("The reservation system fails right now (status {0}). Try again in a minute.")]
    Failing(u16),
    /// It has failed repeatedly and is left alone for a while.
    #[error("The reservation system is out of order right now. Try again in a minute.")]
    Resting,
    /// Something answered, but not as the API has it.
    #[error("The reservation system's answer can't be used: {0}. Tell whoever runs it.")]
    Unusable(Flaw),
    /// More than is read.
    #[error("The reservation system's answer can't be used: it is too long. Tell whoever runs it.")]
    TooLong,
    /// As many rooms are being asked for as may.
    #[error("Too many rooms are being opened at this moment. Try again in a minute.")]
    Busy,
    /// The database didn't take the answer; the log says why.
    #[error(
        "The reservation service can't write down its answer right now. Try again in a few seconds."
    )]
    NotWritten,
}

impl Failure {
    /// The code in the decision log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable => "upstream_unreachable",
            Self::TooSlow => "upstream_too_slow",
            Self::Failing(_) => "upstream_failing",
            Self::Resting => "upstream_resting",
            Self::Unusable(_) | Self::TooLong => "upstream_unusable",
            Self::Busy => "busy",
            Self::NotWritten => "not_written",
        }
    }

    /// Whether the upstream is away, rather than there and wrong: what `on_failure` is for.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::TooSlow | Self::Failing(_) | Self::Resting
        )
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreachable(_) => Self::Unreachable,
            Trouble::TooSlow => Self::TooSlow,
            Trouble::TooLong => Self::TooLong,
        }
    }
}
