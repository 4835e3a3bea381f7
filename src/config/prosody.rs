//! `[prosody]`: the protocol of usher's modules for Prosody.

use std::time::Duration;

use serde::Deserialize;

use super::reader::Reader;
use super::reload::Fixed;
use super::value::{HOUR, SECOND, Time};

/// `[prosody]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prosody {
    /// How long a Prosody may be absent before its conferences end, from `1s` to `1h`: only those that its modules
    /// opened or reported, and that no other Prosody reports.
    pub absent_after: Duration,
    /// What happens to a booking with a lobby if Jitsi has no lobbies (`persistent_lobby` is not loaded).
    pub without_lobby: WithoutLobby,
}

/// What happens to a booking with a lobby if Jitsi has no lobbies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithoutLobby {
    /// `open`: the room is opened without a lobby.
    Open,
    /// `refuse`: the room can't be opened.
    Refuse,
}

impl Default for Prosody {
    fn default() -> Self {
        Self {
            absent_after: Duration::from_secs(60),
            without_lobby: WithoutLobby::Open,
        }
    }
}

impl Prosody {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let mut it = Self::default();
        read.set::<Time<SECOND, HOUR>, _>("prosody.absent_after", &mut it.absent_after);
        read.set::<WithoutLobby, _>("prosody.without_lobby", &mut it.without_lobby);
        it
    }

    /// A reload applies no key of `[prosody]`.
    pub(super) fn keep_fixed(&self, new: &mut Self, fixed: &mut Fixed) {
        fixed.keep("prosody", self, new);
    }
}
