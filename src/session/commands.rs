//! The frames of a client, parsed (pure): which headers each command needs, and what their values mean.

use std::time::Duration;

use super::error::SessionError;
use crate::domain::secret::Secret;
use crate::stomp::negotiate::{HeartBeat, HeartBeatOffer, heart_beat, version};
use crate::stomp::{Command, Frame, Version};

/// Longest subscription id, in bytes.
pub(super) const ID_MAX: usize = 256;
/// Longest heart-beat interval that decides whether a client is alive, if `queue.client_heart_beat` is not longer. A
/// client that promises less is pinged, like one that promises nothing.
const EXPECT_MAX: Duration = Duration::from_secs(60);
/// The start of an `Authorization` header, in any case.
const SCHEME: &str = "bearer ";

/// CONNECT or STOMP.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) heart_beat: HeartBeat,
    pub(super) token: Secret,
}

/// SUBSCRIBE.
#[derive(Debug)]
pub(super) struct Subscribe {
    pub(super) destination: String,
    pub(super) id: String,
    pub(super) wants_ack: bool,
    /// Replaces the token of CONNECT for this subscription: the documented sample repeats it here.
    pub(super) token: Option<Secret>,
}

/// UNSUBSCRIBE.
#[derive(Debug)]
pub(super) enum Unsubscribe<'f> {
    Id(&'f str),
    /// STOMP 1.0, without an id.
    Destination(&'f str),
}

impl Connect {
    pub(super) fn parse(frame: &Frame, offer: HeartBeatOffer) -> Result<Self, SessionError> {
        let version = version(frame.header("accept-version"))?;
        // STOMP 1.0 has no heart-beats; stompjs sends the header anyway but never beats.
        let header = frame
            .header("heart-beat")
            .filter(|_| version > Version::V10);
        let beats = heart_beat(header, offer)?;
        let token = token(frame)?.ok_or(SessionError::TokenMissing)?;
        let expect_max = offer.want.max(EXPECT_MAX);
        Ok(Self {
            version,
            heart_beat: HeartBeat {
                expect: beats.expect.filter(|expect| *expect <= expect_max),
                ..beats
            },
            token,
        })
    }
}

impl Subscribe {
    pub(super) fn parse(frame: &Frame, version: Version) -> Result<Self, SessionError> {
        let token = token(frame)?;
        let destination = required(frame, "destination")?;
        let id = match frame.header("id") {
            Some(id) if id.len() > ID_MAX => return Err(SessionError::IdTooLong { max: ID_MAX }),
            Some(id) => id,
            // Without ids, 1.0 distinguishes subscriptions by their destination.
            None if version == Version::V10 => destination,
            None => return Err(missing(frame, "id")),
        };
        let wants_ack = match frame.header("ack") {
            None | Some("auto") => false,
            Some("client" | "client-individual") => true,
            Some(_) => return Err(SessionError::UnknownAckMode),
        };
        Ok(Self {
            destination: destination.to_owned(),
            id: id.to_owned(),
            wants_ack,
            token,
        })
    }
}

impl<'f> Unsubscribe<'f> {
    pub(super) fn parse(frame: &'f Frame, version: Version) -> Result<Self, SessionError> {
        match (frame.header("id"), version) {
            (Some(id), _) => Ok(Self::Id(id)),
            (None, Version::V10) => required(frame, "destination").map(Self::Destination),
            (None, _) => Err(missing(frame, "id")),
        }
    }
}

/// Verifies the headers of ACK and NACK. They have no effect: no message is sent again.
pub(super) fn check_ack(frame: &Frame, version: Version) -> Result<(), SessionError> {
    let needed: &[&'static str] = match (version, frame.command) {
        (Version::V10, Command::Nack) => return Err(SessionError::NackInV10),
        (Version::V10, _) => &["message-id"],
        (Version::V11, _) => &["message-id", "subscription"],
        (Version::V12, _) => &["id"],
    };
    for name in needed {
        required(frame, name)?;
    }
    Ok(())
}

/// The token in a frame's `Authorization` header, in either case of its first letter.
fn token(frame: &Frame) -> Result<Option<Secret>, SessionError> {
    let header = frame
        .header("Authorization")
        .or_else(|| frame.header("authorization"));
    let Some(header) = header.map(str::trim).filter(|header| !header.is_empty()) else {
        return Ok(None);
    };
    match header.get(..SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let token = header[SCHEME.len()..].trim();
            Ok(Some(Secret::new(token.to_owned())))
        }
        _ => Err(SessionError::AuthorizationScheme),
    }
}

fn required<'f>(frame: &'f Frame, name: &'static str) -> Result<&'f str, SessionError> {
    frame.header(name).ok_or_else(|| missing(frame, name))
}

fn missing(frame: &Frame, name: &'static str) -> SessionError {
    let command = frame.command;
    SessionError::MissingHeader { command, name }
}
