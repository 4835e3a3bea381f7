//! Destinations (pure): what a client subscribes to, and for which conference.

use thiserror::Error;

use crate::domain::conference::{Conference, ConferenceError};

const VISITOR: &str = "/secured/conference/visitor/topic.";
const STATE: &str = "/secured/conference/state/topic.";

/// The destination of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A visitor waits until the conference goes live.
    Visitor(Conference),
    /// A moderator watches how many visitors wait.
    State(Conference),
}

/// Why a destination is invalid. Each message fits an ERROR frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum DestinationError {
    /// It is neither topic.
    #[error(
        "there is no such destination; subscribe to /secured/conference/visitor/topic.ROOM or /secured/conference/state/topic.ROOM, with the address of the room"
    )]
    Unknown,
    /// Its conference is invalid or elsewhere.
    #[error("{0}")]
    Conference(#[from] ConferenceError),
}

impl Destination {
    pub(crate) fn parse(
        text: &str,
        muc_prefix: &str,
        domain: &str,
    ) -> Result<Self, DestinationError> {
        let of = |jid| Conference::from_jid(jid, muc_prefix, domain);
        if let Some(jid) = text.strip_prefix(VISITOR) {
            Ok(Self::Visitor(of(jid)?))
        } else if let Some(jid) = text.strip_prefix(STATE) {
            Ok(Self::State(of(jid)?))
        } else {
            Err(DestinationError::Unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Destination, DestinationError> {
        Destination::parse(text, "conference", "meet.example.com")
    }

    #[test]
    fn both_topics_are_parsed_in_every_spelling_of_a_conference() {
        let room = Conference::from_names("room", Some("acme"), "meet.example.com").unwrap();
        for jid in [
            "room@conference.acme.meet.example.com",
            "[acme]room@conference.meet.example.com",
            "Room@Conference.Acme.Meet.Example.com",
        ] {
            let visitor = parse(&format!("/secured/conference/visitor/topic.{jid}"));
            assert_eq!(visitor, Ok(Destination::Visitor(room.clone())), "{jid}");
            let state = parse(&format!("/secured/conference/state/topic.{jid}"));
            assert_eq!(state, Ok(Destination::State(room.clone())), "{jid}");
        }
    }

    #[test]
    fn unknown_destinations_are_refused() {
        for text in [
            "",
            "/topic",
            "/secured/conference/visitor/topic",
            "/secured/conference/visitors-list/topic/7",
            "/SECURED/conference/visitor/topic.room@conference.meet.example.com",
        ] {
            assert_eq!(parse(text), Err(DestinationError::Unknown), "{text}");
        }
        for jid in [
            "",
            "room",
            "room@conference.other.example.com",
            "@conference.meet.example.com",
        ] {
            let refused = parse(&format!("/secured/conference/visitor/topic.{jid}"));
            assert!(
                matches!(refused, Err(DestinationError::Conference(_))),
                "{jid}"
            );
        }
    }
}
