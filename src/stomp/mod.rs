//! STOMP 1.0, 1.1 and 1.2 without any I/O: bytes become frames, frames become bytes.
//!
//! What the specifications ask of a server, what is done here and the test that shows it stand in
//! `tests/conformance/stomp.md`.

pub mod decoder;
pub mod error;
pub mod frame;
pub mod negotiate;

pub use decoder::{Decoder, Item, Limits};
pub use error::DecodeError;
pub use frame::{Command, Frame};

use std::fmt;

/// A version of the protocol; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.0: no escapes, no heart-beats.
    V10,
    /// 1.1: escapes, heart-beats, negotiation.
    V11,
    /// 1.2: lines may end in CR LF, which can be escaped too.
    V12,
}

impl Version {
    /// Every version spoken here, the lowest first.
    pub const ALL: [Self; 3] = [Self::V10, Self::V11, Self::V12];

    /// As in the headers `accept-version` and `version`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// Its name as a WebSocket sub-protocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::V10 => "v10.stomp",
            Self::V11 => "v11.stomp",
            Self::V12 => "v12.stomp",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod conformance;
