//! A subscription, and the MESSAGE frames sent for it.

use std::time::Duration;

use tokio::time::Instant;

use super::commands::Subscribe;
use super::limits::{ClientAddress, LimitGuard};
use crate::domain::conference::Conference;
use crate::queue::{QueueTicket, TokenKey, message};
use crate::stomp::frame::{end, write_header};
use crate::stomp::{Command, Version};

/// Capacity for the headers of a MESSAGE other than those that the client wrote.
const OTHER_HEADERS: usize = 128;

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    /// The first header lines of each MESSAGE: destination and id. They are stored encoded: encoding them for each
    /// visitor took a twentieth of the time in which a crowd is notified.
    header_bytes: Box<[u8]>,
    /// Whether messages carry an `ack` header (the client's `ack` is not `auto`).
    wants_ack: bool,
    pub(super) topic: Topic,
}

/// What a subscription is about.
#[derive(Debug)]
pub(super) enum Topic {
    /// A visitor waits.
    Visitor {
        /// Unique in the session.
        number: u32,
        ticket: QueueTicket,
        is_released: bool,
        /// Counts a second and further conference that the session waits for.
        limit: Option<Box<LimitGuard<ClientAddress>>>,
    },
    /// A further subscription of a visitor that waits for the conference already: it has no place of its own.
    Also {
        /// The number of the subscription with the place.
        number: u32,
        is_released: bool,
    },
    /// A moderator watches how many visitors wait.
    State(Box<StateSubscription>),
}

/// How many visitors wait for a conference, as last sent to a moderator.
#[derive(Debug)]
pub(super) struct StateSubscription {
    pub(super) conference: Conference,
    pub(super) last_sent: Option<usize>,
    pub(super) next_update_at: Instant,
    /// Counts the watchers with the same token.
    pub(super) _limit: LimitGuard<TokenKey>,
}

impl Topic {
    pub(super) fn is_visitor(&self) -> bool {
        matches!(self, Self::Visitor { .. })
    }

    /// Takes the guard of a further wait, if this is one.
    pub(super) fn take_limit(&mut self) -> Option<Box<LimitGuard<ClientAddress>>> {
        match self {
            Self::Visitor { limit, .. } => limit.take(),
            Self::Also { .. } | Self::State(_) => None,
        }
    }

    /// Gives the place of `self`, which ends, to a further subscription of the same wait.
    pub(super) fn hand_over(&mut self, to: &mut Self) -> bool {
        let (
            Self::Visitor { number: from, .. },
            Self::Also {
                number,
                is_released,
            },
        ) = (&*self, &*to)
        else {
            return false;
        };
        let (is_same, was_released) = (from == number, *is_released);
        if is_same {
            std::mem::swap(self, to);
            if let Self::Visitor { is_released, .. } = to {
                *is_released = was_released;
            }
        }
        is_same
    }

    /// Marks the visitor with this number as released; false if it is another subscription or was released before.
    pub(super) fn release(&mut self, wanted: u32) -> bool {
        match self {
            Self::Visitor {
                number,
                is_released,
                ..
            }
            | Self::Also {
                number,
                is_released,
            } if *number == wanted => !std::mem::replace(is_released, true),
            _ => false,
        }
    }

    /// The message to a moderator, if it is due and the number of waiting visitors has changed.
    pub(super) fn update(
        &mut self,
        now: Instant,
        interval: Duration,
        count: impl Fn(&Conference) -> usize,
        muc_prefix: &str,
    ) -> Option<Vec<u8>> {
        let Self::State(state) = self else {
            return None;
        };
        if state.next_update_at > now {
            return None;
        }
        state.next_update_at = now + interval;
        let waiting = count(&state.conference);
        if state.last_sent.replace(waiting) == Some(waiting) {
            return None;
        }
        Some(message::state(&state.conference.jid(muc_prefix), waiting))
    }

    /// The client unsubscribed: unlike a broken connection, the visitor's place is not kept.
    pub(super) fn leave_permanently(self) {
        if let Self::Visitor { ticket, .. } = self {
            ticket.leave_permanently();
        }
    }
}

impl Subscription {
    pub(super) fn new(subscribe: &Subscribe, version: Version, topic: Topic) -> Self {
        let mut header_bytes = line("destination", &subscribe.destination, version);
        header_bytes.append(&mut line("subscription", &subscribe.id, version));
        Self {
            header_bytes: header_bytes.into(),
            wants_ack: subscribe.wants_ack,
            topic,
        }
    }

    /// Whether it has this id. `version` is the session's.
    pub(super) fn has_id(&self, id: &str, version: Version) -> bool {
        // The line before it has ended: no header holds a bare line break.
        let line = [b"\n", &*line("subscription", id, version)].concat();
        self.header_bytes.ends_with(&line)
    }

    pub(super) fn matches_destination(&self, destination: &str, version: Version) -> bool {
        self.header_bytes
            .starts_with(&line("destination", destination, version))
    }

    /// A MESSAGE frame with this number and this JSON body.
    pub(super) fn message(&self, number: u32, json: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.header_bytes.len() + OTHER_HEADERS + json.len());
        frame.extend_from_slice(Command::Message.as_str().as_bytes());
        frame.push(b'\n');
        frame.extend_from_slice(&self.header_bytes);
        frame.extend_from_slice(b"message-id:");
        let number = number.to_string();
        frame.extend_from_slice(number.as_bytes());
        frame.extend_from_slice(b"\ncontent-type:application/json\n");
        if self.wants_ack {
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
        let counter = super::super::limits::LimitCounter::default();
        let topic = Topic::State(Box::new(StateSubscription {
            conference: Conference::from_names("room", None, "meet.example.com").unwrap(),
            last_sent: None,
            next_update_at: Instant::now(),
            _limit: counter.add(TokenKey([0; 16]), 1).unwrap(),
        }));
        let subscribe = Subscribe {
            destination: destination.to_owned(),
            id: id.to_owned(),
            wants_ack: true,
            token: None,
        };
        Subscription::new(&subscribe, version, topic)
    }

    #[test]
    fn message_is_encoded_as_the_frame_would_be() {
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
    fn subscription_is_found_by_its_whole_id_or_destination() {
        for version in Version::ALL {
            let found = subscription("/topic/a", "x\\subscription:1", version);
            assert!(found.has_id("x\\subscription:1", version), "{version:?}");
            for other in ["1", "subscription:1", "", "x", "x\\subscription:11"] {
                assert!(!found.has_id(other, version), "{version:?} {other}");
            }
            assert!(found.matches_destination("/topic/a", version));
            for other in ["/topic/", "/topic/ab", ""] {
                assert!(
                    !found.matches_destination(other, version),
                    "{version:?} {other}"
                );
            }
        }
    }
}
