//! The state of a session after CONNECT: what each further frame does.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::action::{Authenticated, Env, Join, Pending};
use super::commands::{Connect, Subscribe, Unsubscribe, check_ack};
use super::destination::Destination;
use super::error::SessionError;
use super::subscription::{Subscription, Topic};
use crate::auth::TokenError;
use crate::config;
use crate::domain::conference::Conference;
use crate::stomp::negotiate::HeartBeat;
use crate::stomp::{Command, Frame, Version};

/// Most subscriptions of a session. Clients have one; the documented sample has two.
pub(super) const SUBSCRIPTIONS_MAX: usize = 8;

/// What follows from a frame, apart from its receipt.
pub(super) enum Step {
    Done,
    Verify(Pending),
    Join(Destination, Join),
    Disconnect,
}

/// A session after CONNECT.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) version: Version,
    /// A WebSocket ping was sent and nothing received since.
    pub(super) is_pinged: bool,
    client: Authenticated,
    heart_beat: Intervals,
    subscriptions: Vec<Subscription>,
    last_subscription: u32,
    last_message: u32,
}

/// The heart-beats in milliseconds, zero for none: 24 bytes less for each visitor. An interval is at most a day.
#[derive(Debug)]
struct Intervals {
    send: u32,
    expect: u32,
}

impl Intervals {
    fn new(heart_beat: HeartBeat) -> Self {
        let millis = |interval: Option<Duration>| {
            let millis = interval.unwrap_or_default().as_millis();
            u32::try_from(millis).unwrap_or(u32::MAX)
        };
        Self {
            send: millis(heart_beat.send),
            expect: millis(heart_beat.expect),
        }
    }

    fn get(&self) -> HeartBeat {
        let interval = |millis: u32| (millis > 0).then(|| Duration::from_millis(millis.into()));
        HeartBeat {
            send: interval(self.send),
            expect: interval(self.expect),
        }
    }
}

impl Connected {
    pub(super) fn heart_beat(&self) -> HeartBeat {
        self.heart_beat.get()
    }

    pub(super) fn new(connect: Connect, client: Authenticated) -> Self {
        Self {
            version: connect.version,
            is_pinged: false,
            client,
            heart_beat: Intervals::new(connect.heart_beat),
            subscriptions: Vec::new(),
            last_subscription: 0,
            last_message: 0,
        }
    }

    pub(super) fn handle_frame(
        &mut self,
        frame: &Frame,
        env: &Env<'_>,
    ) -> Result<Step, SessionError> {
        match frame.command {
            Command::Subscribe => {
                let subscribe = Subscribe::parse(frame, self.version)?;
                match subscribe.token {
                    Some(_) => Ok(Step::Verify(Pending::Subscribe(subscribe))),
                    None => {
                        let (destination, join) = self.authorize(subscribe, None, env)?;
                        Ok(Step::Join(destination, join))
                    }
                }
            }
            Command::Unsubscribe => self.unsubscribe(&Unsubscribe::parse(frame, self.version)?),
            Command::Ack | Command::Nack => {
                check_ack(frame, self.version)?;
                Ok(Step::Done)
            }
            Command::Disconnect => Ok(Step::Disconnect),
            Command::Connect | Command::Stomp => Err(SessionError::ConnectRepeated),
            Command::Send => Err(SessionError::SendNotAllowed),
            Command::Begin | Command::Commit | Command::Abort => Err(SessionError::NoTransactions),
            Command::Connected | Command::Message | Command::Receipt | Command::Error => {
                Err(SessionError::ServerCommand(frame.command))
            }
        }
    }

    /// Whether the subscription is allowed, by its own token if it has one.
    pub(super) fn authorize(
        &mut self,
        subscribe: Subscribe,
        own: Option<&Authenticated>,
        env: &Env<'_>,
    ) -> Result<(Destination, Join), SessionError> {
        let has_id = |known: &Subscription| known.has_id(&subscribe.id, self.version);
        if self.subscriptions.iter().any(has_id) {
            return Err(SessionError::IdInUse);
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let max = SUBSCRIPTIONS_MAX;
            return Err(SessionError::TooManySubscriptions { max });
        }
        let config::Xmpp {
            domain, muc_prefix, ..
        } = env.xmpp;
        let destination = Destination::parse(&subscribe.destination, muc_prefix, domain)?;
        let client = own.unwrap_or(&self.client);
        // CONNECT may be long ago.
        if client.expiry.has_passed(env.now) {
            return Err(SessionError::Token(TokenError::Expired));
        }
        let grant = &client.grant;
        let (conference, is_allowed, not_allowed) = match &destination {
            Destination::Visitor(it) => (it, grant.may_wait(it), SessionError::NotVisitor),
            Destination::State(it) => (it, grant.may_watch(it), SessionError::NotModerator),
        };
        Span::current().record("conference", conference.node());
        match (is_allowed, grant.is_for(conference)) {
            (true, _) => {}
            (false, true) => return Err(not_allowed),
            (false, false) => return Err(SessionError::OtherConference),
        }
        let (token, is_service) = (client.key, grant.is_service());
        let is_further_wait = self.waiting().next().is_some();
        let same_as = match &destination {
            Destination::Visitor(wanted) => self.waiting().find(|(_, it)| *it == wanted),
            Destination::State(_) => None,
        };
        let same_as = same_as.map(|(number, _)| number);
        self.last_subscription += 1;
        let join = Join {
            number: self.last_subscription,
            token,
            is_service,
            is_further_wait,
            same_as,
            subscribe,
            receipt: None,
        };
        Ok((destination, join))
    }

    /// The conferences that this session waits for, with the numbers of the subscriptions.
    fn waiting(&self) -> impl Iterator<Item = (u32, &Conference)> {
        let all = self.subscriptions.iter();
        all.filter_map(|subscription| match &subscription.topic {
            Topic::Visitor { number, ticket, .. } => Some((*number, ticket.conference())),
            Topic::Also { .. } | Topic::State(_) => None,
        })
    }

    /// The conference of the wait with this number, if its visitor was released.
    pub(super) fn released(&self, wanted: u32) -> Option<&Conference> {
        let mut all = self.subscriptions.iter();
        all.find_map(|subscription| match &subscription.topic {
            Topic::Visitor {
                number,
                ticket,
                is_released: true,
                ..
            } if *number == wanted => Some(ticket.conference()),
            _ => None,
        })
    }

    fn unsubscribe(&mut self, named: &Unsubscribe<'_>) -> Result<Step, SessionError> {
        let version = self.version;
        let is_named = |subscription: &mut Subscription| match named {
            Unsubscribe::Id(id) => subscription.has_id(id, version),
            Unsubscribe::Destination(to) => subscription.matches_destination(to, version),
        };
        let removed: Vec<_> = self.subscriptions.extract_if(.., is_named).collect();
        let any = !removed.is_empty();
        for mut subscription in removed {
            let mut others = self.subscriptions.iter_mut();
            if others.any(|other| subscription.topic.hand_over(&mut other.topic)) {
                continue;
            }
            // One wait of a session is counted by its connection: with the wait that is not counted on its own,
            // another becomes that one.
            if subscription.topic.take_limit().is_none() && subscription.topic.is_visitor() {
                let _ = self
                    .subscriptions
                    .iter_mut()
                    .find_map(|it| it.topic.take_limit());
            }
            subscription.topic.leave_permanently();
        }
        match any {
            true => Ok(Step::Done),
            false => Err(SessionError::NotSubscribed),
        }
    }

    pub(super) fn add(&mut self, subscribe: &Subscribe, topic: Topic) {
        // Most sessions have one subscription.
        self.subscriptions.reserve_exact(1);
        let subscription = Subscription::new(subscribe, self.version, topic);
        self.subscriptions.push(subscription);
    }

    pub(super) fn release(&mut self, number: u32, json: &[u8]) -> Option<Vec<u8>> {
        let mut all = self.subscriptions.iter_mut();
        let subscription = all.find_map(|it| it.topic.release(number).then_some(it))?;
        self.last_message += 1;
        Some(subscription.message(self.last_message, json))
    }

    pub(super) fn state_updates(
        &mut self,
        now: Instant,
        interval: Duration,
        count: impl Fn(&Conference) -> usize,
        muc_prefix: &str,
    ) -> Vec<Vec<u8>> {
        let mut updates = Vec::new();
        for subscription in &mut self.subscriptions {
            let Some(json) = subscription.topic.update(now, interval, &count, muc_prefix) else {
                continue;
            };
            self.last_message += 1;
            updates.push(subscription.message(self.last_message, &json));
        }
        updates
    }

    pub(super) fn next_state_update(&self) -> Option<Instant> {
        let all = self.subscriptions.iter();
        all.filter_map(|subscription| match &subscription.topic {
            Topic::State(state) => Some(state.next_update_at),
            Topic::Visitor { .. } | Topic::Also { .. } => None,
        })
        .min()
    }
}
