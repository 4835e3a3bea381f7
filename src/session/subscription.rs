//! What a client subscribed to, and the messages that it gets for it.

use std::net::IpAddr;

use tokio::time::Instant;

use super::limits::LimitGuard;
use crate::domain::conference::Conference;
use crate::queue::{QueueTicket, TokenKey};
use crate::stomp::frame::{end, write_header};
use crate::stomp::{Command, Version};

/// Room for the headers of a message beside those that the client wrote.
const OTHER_HEADERS: usize = 128;

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    /// The header lines that begin each message: destination and id, as the client wrote them. Kept as they are
    /// sent: thousands are told at a time, and to write these anew took a twentieth of that.
    head: Box<[u8]>,
    /// Whether messages carry an `ack` header (the client's `ack` is not `auto`).
    acknowledged: bool,
    pub(super) topic: Topic,
}

/// What it leads to.
#[derive(Debug)]
pub(super) enum Topic {
    /// A visitor's place in the line; `told` once it was told.
    Visitor {
        seat: u32,
        waiting: QueueTicket,
        told: bool,
        /// The second and each further place of a connection counts like a connection of its address.
        _further_place: Option<Box<LimitGuard<IpAddr>>>,
    },
    /// How many wait.
    State(Box<Watch>),
}

/// What a moderator was told last, and when to look again.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) conference: Conference,
    pub(super) told: Option<usize>,
    pub(super) look_at: Instant,
    /// Among those who watch with the same token.
    pub(super) _counted: LimitGuard<TokenKey>,
}

impl Subscription {
    pub(super) fn new(
        destination: &str,
        id: &str,
        version: Version,
        acknowledged: bool,
        topic: Topic,
    ) -> Self {
        let mut head = line("destination", destination, version);
        head.append(&mut line("subscription", id, version));
        Self {
            head: head.into(),
            acknowledged,
            topic,
        }
    }

    /// Whether it is the one with this id. `version` is the session's.
    pub(super) fn has_id(&self, id: &str, version: Version) -> bool {
        // A line before it has ended: no header holds a bare line break.
        let line = [b"\n", &*line("subscription", id, version)].concat();
        self.head.ends_with(&line)
    }

    /// Whether it is one to this destination.
    pub(super) fn leads_to(&self, destination: &str, version: Version) -> bool {
        self.head
            .starts_with(&line("destination", destination, version))
    }

    /// A MESSAGE frame with this number, and this JSON.
    pub(super) fn message(&self, number: u32, json: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.head.len() + OTHER_HEADERS + json.len());
        frame.extend_from_slice(Command::Message.as_str().as_bytes());
        frame.push(b'\n');
        frame.extend_from_slice(&self.head);
        frame.extend_from_slice(b"message-id:");
        let number = number.to_string();
        frame.extend_from_slice(number.as_bytes());
        frame.extend_from_slice(b"\ncontent-type:application/json\n");
        if self.acknowledged {
            frame.extend_from_slice(b"ack:");
            frame.extend_from_slice(number.as_bytes());
            frame.push(b'\n');
        }
        end(json, &mut frame);
        frame
    }
}

/// A header line of a MESSAGE frame.
fn line(name: &str, value: &str, version: Version) -> Vec<u8> {
    let mut line = Vec::with_capacity(name.len() + value.len() + 2);
    write_header(Command::Message, version, name, value, &mut line);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stomp::Frame;

    fn subscription(destination: &str, id: &str, version: Version) -> Subscription {
        let topic = Topic::State(Box::new(Watch {
            conference: Conference::from_names("room", None, "meet.example.com").unwrap(),
            told: None,
            look_at: Instant::now(),
            _counted: super::super::limits::LimitCounter::default()
                .add(TokenKey([0; 16]), 1)
                .unwrap(),
        }));
        Subscription::new(destination, id, version, true, topic)
    }

    #[test]
    fn a_message_is_the_frame_that_it_says_it_is() {
        for version in Version::ALL {
            let (destination, id) = ("/topic/a:b\\c", "one:two");
            let message = subscription(destination, id, version).message(7, b"{}");
            let frame = Frame::new(Command::Message)
                .with("destination", destination)
                .with("subscription", id)
                .with("message-id", "7")
                .with("content-type", "application/json")
                .with("ack", "7");
            let expected = Frame {
                body: b"{}".to_vec(),
                ..frame
            };
            assert_eq!(message, expected.encode(version), "{version:?}");
        }
    }

    #[test]
    fn it_is_known_by_its_whole_id_and_its_whole_destination() {
        for version in Version::ALL {
            let found = subscription("/topic/a", "x\\subscription:1", version);
            assert!(found.has_id("x\\subscription:1", version), "{version:?}");
            for other in ["1", "subscription:1", "", "x", "x\\subscription:11"] {
                assert!(!found.has_id(other, version), "{version:?} {other}");
            }
            assert!(found.leads_to("/topic/a", version));
            for other in ["/topic/", "/topic/ab", ""] {
                assert!(!found.leads_to(other, version), "{version:?} {other}");
            }
        }
    }
}
