//! What each frame of a client asks for, and whether it may.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;
use tracing::Span;
use tungstenite::protocol::frame::coding::CloseCode;

use super::destination::Destination;
use super::limits::LimitGuard;
use super::subscription::{Subscription, Topic, Watch};
use super::{Session, SessionContext, State};
use crate::auth::grant::Grant;
use crate::auth::{Expiry, TokenError};
use crate::clock;
use crate::metrics;
use crate::queue::{SubscriberRef, TokenKey};
use crate::stomp::negotiate::{HeartBeat, HeartBeatOffer, VERSIONS, heart_beat, version};
use crate::stomp::{Command, Frame, Version};

/// How many subscriptions a session may have. Clients have one; the sample has two.
const SUBSCRIPTIONS_MAX: usize = 8;
/// Longest subscription id that is kept, in bytes.
const ID_MAX: usize = 256;
/// Longest heart-beat interval that a client's being there is judged by.
const EXPECT_MAX: Duration = Duration::from_secs(60);
/// What an `Authorization` header begins with, in any case.
const SCHEME: &str = "bearer ";

/// What a client did wrong.
#[derive(Debug)]
pub(super) struct Fault {
    /// The header `message` of the ERROR frame: what is wrong, and the remedy.
    pub(super) message: String,
    /// How the WebSocket closes.
    pub(super) code: CloseCode,
    /// A further header of the ERROR frame.
    pub(super) header: Option<(&'static str, &'static str)>,
    /// The receipt that the frame at fault asked for.
    pub(super) receipt: Option<String>,
    /// What it is counted as.
    pub(super) reason: &'static str,
}

impl Fault {
    /// The client breaks the protocol.
    pub(super) fn protocol(message: String) -> Self {
        Self {
            message,
            code: CloseCode::Protocol,
            header: None,
            receipt: None,
            reason: "protocol",
        }
    }

    /// The client may not do this.
    pub(super) fn policy(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: CloseCode::Policy,
            header: None,
            receipt: None,
            reason: "not_allowed",
        }
    }

    /// LimitGuard as something else.
    pub(super) fn because(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }
}

/// Who is at the other end.
#[derive(Debug)]
pub(super) struct Client {
    /// Their address, counted; `None` for the loopback.
    caller: Option<LimitGuard<IpAddr>>,
    bearer: Option<Box<Bearer>>,
}

#[derive(Debug)]
struct Bearer {
    grant: Grant,
    key: TokenKey,
    expiry: Expiry,
    greeted: bool,
}

impl Client {
    pub(super) fn new(caller: Option<LimitGuard<IpAddr>>) -> Self {
        Self {
            caller,
            bearer: None,
        }
    }

    fn address(&self) -> Option<IpAddr> {
        self.caller.as_ref().map(LimitGuard::key)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.bearer.is_some()
    }

    /// Takes note that a frame came; says whether CONNECT came before it.
    fn greets(&mut self) -> bool {
        let Some(bearer) = &mut self.bearer else {
            return false;
        };
        bearer.greeted = true;
        true
    }

    /// Whether a frame other than the one that began the session was taken: CONNECT gets no receipt.
    pub(super) fn has_greeted(&self) -> bool {
        self.bearer.as_ref().is_some_and(|bearer| bearer.greeted)
    }
}

impl Session {
    pub(super) async fn handle(self: &Arc<Self>, frame: Frame) -> Result<(), Fault> {
        if !self.state().client.greets() {
            return match frame.command {
                Command::Connect | Command::Stomp => self.connect(&frame).await,
                _ => Err(Fault::protocol("the first frame must be CONNECT".into())),
            };
        }
        match frame.command {
            Command::Subscribe => self.subscribe(&frame).await,
            Command::Unsubscribe => self.state().unsubscribe(&frame),
            Command::Ack | Command::Nack => acknowledge(&frame, self.state().version),
            Command::Disconnect => Ok(()),
            Command::Connect | Command::Stomp => Err(Fault::protocol(
                "the session has begun already; CONNECT comes once".into(),
            )),
            Command::Send => Err(Fault::policy(
                "clients send no messages here; only subscribe",
            )),
            Command::Begin | Command::Commit | Command::Abort => Err(Fault::policy(
                "there are no transactions here, as clients send nothing",
            )),
            Command::Connected | Command::Message | Command::Receipt | Command::Error => Err(
                Fault::protocol(format!("{} is for servers to send", frame.command)),
            ),
        }
    }

    async fn connect(&self, frame: &Frame) -> Result<(), Fault> {
        let refused =
            |error: crate::stomp::negotiate::NegotiateError| Fault::protocol(error.to_string());
        let version = version(frame.header("accept-version")).map_err(|error| Fault {
            header: Some(("version", VERSIONS)),
            ..refused(error)
        })?;
        let offer = HeartBeatOffer {
            send: self.gate.heart_beat,
            want: self.gate.heart_beat,
        };
        // 1.0 knows no heart-beats: its clients may send the header all the same, stompjs does, and never beat.
        let promised = frame
            .header("heart-beat")
            .filter(|_| version > Version::V10);
        let beats = heart_beat(promised, offer).map_err(refused)?;
        let Some(token) = token_of(frame)? else {
            return Err(Fault::policy(
                "a token is needed; send CONNECT with the header Authorization, Bearer and the token",
            ));
        };
        let bearer = self.bearer(token).await?;
        // Jitsi Meet's client gives up after a few refusals at CONNECT; at SUBSCRIBE it comes back for ever.
        if !bearer.grant.allows_anything() {
            return Err(Fault::policy(
                "the token lets its bearer neither wait nor watch; it takes a room, sub, and context.user.role of visitor or context.user.moderator of true",
            ));
        }
        let mut connected = Frame::new(Command::Connected).with("version", version.as_str());
        if version > Version::V10 {
            connected = connected.with("heart-beat", offer.to_string());
        }
        let mut session = [0; 8];
        // Not a secret: a number that tells sessions apart, zero where there is no chance at all.
        let _ = aws_lc_rs::rand::fill(&mut session);
        connected = connected.with("session", format!("{:016x}", u64::from_be_bytes(session)));
        let server = concat!("usher/", env!("CARGO_PKG_VERSION"));

        let mut state = self.state();
        state.client.bearer = Some(Box::new(bearer));
        state.heard_at = Instant::now();
        state.version = version;
        // Who promises a sign of life once an hour is asked for one, like who promises none.
        state.beats = HeartBeat {
            expect: beats.expect.filter(|expect| *expect <= EXPECT_MAX),
            ..beats
        };
        self.send_frame(&mut state, &connected.with("server", server));
        Ok(())
    }

    /// Checks a token, and says what it allows.
    async fn bearer(&self, token: &str) -> Result<Bearer, Fault> {
        let verified = self
            .gate
            .verifier
            .verify(token, clock::now())
            .await
            .map_err(|error| refused(&error))?;
        let mut key = [0; 16];
        key.copy_from_slice(&digest(&SHA256, token.as_bytes()).as_ref()[..16]);
        Ok(Bearer {
            grant: verified.grant().clone(),
            key: TokenKey(key),
            expiry: verified.expiry(),
            greeted: false,
        })
    }

    async fn subscribe(self: &Arc<Self>, frame: &Frame) -> Result<(), Fault> {
        // The documented sample repeats the token here; then this one counts.
        let own = match token_of(frame)? {
            Some(token) => Some(self.bearer(token).await?),
            None => None,
        };
        let mut state = self.state();
        state.seats += 1;
        let destination = required(frame, "destination")?;
        let id = match frame.header("id") {
            Some(id) if id.len() > ID_MAX => {
                return Err(Fault::policy(format!(
                    "the id is too long; it may have {ID_MAX} bytes"
                )));
            }
            Some(id) => id,
            // Without ids, 1.0 tells subscriptions apart by their destination.
            None if state.version == Version::V10 => destination,
            None => return Err(missing(frame, "id")),
        };
        if state
            .subscriptions
            .iter()
            .any(|subscription| subscription.has_id(id, state.version))
        {
            return Err(Fault::policy(
                "there is a subscription with this id already; choose another id",
            ));
        }
        if state.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(Fault::policy(format!(
                "there are too many subscriptions; a session may have {SUBSCRIPTIONS_MAX}"
            )));
        }
        let acknowledged = match frame.header("ack") {
            None | Some("auto") => false,
            Some("client" | "client-individual") => true,
            Some(_) => {
                return Err(Fault::protocol(
                    "ack is neither auto, client nor client-individual; leave it out".into(),
                ));
            }
        };
        let gate = &self.gate;
        let parsed = Destination::parse(destination, &gate.muc_prefix, &gate.domain)
            .map_err(|error| Fault::policy(error.to_string()).because("destination"))?;
        let Some(bearer) = own.as_ref().or(state.client.bearer.as_deref()) else {
            return Err(Fault::policy("a token is needed"));
        };
        // It was good at CONNECT, which may be long ago.
        if bearer.expiry.has_passed(clock::now()) {
            return Err(refused(&TokenError::Expired));
        }
        if state.waits_for(&parsed) {
            return Err(Fault::policy(
                "this session waits for this conference already; one subscription is enough",
            ));
        }
        let subscriber: Weak<Self> = Arc::downgrade(self);
        let seat = SubscriberRef {
            subscriber,
            subscription: state.seats,
        };
        // The connection itself counts for its first place.
        let further = state.client.address().filter(|_| state.has_place());
        let topic = topic(parsed, bearer, further, seat, gate)?;
        // Nearly everybody has one.
        state.subscriptions.reserve_exact(1);
        let subscription = Subscription::new(destination, id, state.version, acknowledged, topic);
        state.subscriptions.push(subscription);
        Ok(())
    }
}

/// A token that won't do.
fn refused(error: &TokenError) -> Fault {
    metrics::token_refused("queue", error.code());
    if error.is_temporary() {
        // No ERROR: Jitsi's client gives up after a few, and may come back a moment later.
        return Fault {
            code: CloseCode::Again,
            ..Fault::policy("the token could not be checked").because("key_server")
        };
    }
    Fault::policy(format!("the token is refused: {error}")).because("token")
}

/// Nothing is ever sent again, so there is nothing to remember about it.
fn acknowledge(frame: &Frame, version: Version) -> Result<(), Fault> {
    let needed: &[&str] = match (version, frame.command) {
        (Version::V10, Command::Nack) => {
            return Err(Fault::protocol("STOMP 1.0 has no NACK".into()));
        }
        (Version::V10, _) => &["message-id"],
        (Version::V11, _) => &["message-id", "subscription"],
        (Version::V12, _) => &["id"],
    };
    for name in needed {
        required(frame, name)?;
    }
    Ok(())
}

impl State {
    /// Whether there is a place in any line.
    fn has_place(&self) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.any(|subscription| matches!(subscription.topic, Topic::Visitor { .. }))
    }

    /// Whether there is a place in the line that this destination leads to.
    fn waits_for(&self, destination: &Destination) -> bool {
        let Destination::Visitor(conference) = destination else {
            return false;
        };
        self.subscriptions.iter().any(|subscription| {
            matches!(&subscription.topic, Topic::Visitor { waiting, .. } if waiting.conference() == conference)
        })
    }

    fn unsubscribe(&mut self, frame: &Frame) -> Result<(), Fault> {
        let by_id = frame.header("id");
        let named = match (by_id, self.version) {
            (Some(id), _) => id,
            // 1.0 goes by the destination where there is no id, whether SUBSCRIBE had one or not.
            (None, Version::V10) => required(frame, "destination")?,
            (None, _) => return Err(missing(frame, "id")),
        };
        let version = self.version;
        let is_it = |subscription: &mut Subscription| match by_id {
            Some(_) => subscription.has_id(named, version),
            None => subscription.leads_to(named, version),
        };
        let mut any = false;
        for subscription in self.subscriptions.extract_if(.., is_it) {
            any = true;
            // Not a connection that broke: nobody comes back to this place.
            if let Topic::Visitor { waiting, .. } = subscription.topic {
                waiting.leave_permanently();
            }
        }
        match any {
            true => Ok(()),
            false => Err(Fault::policy(
                "there is no subscription with this id or destination",
            )),
        }
    }
}

fn topic(
    destination: Destination,
    bearer: &Bearer,
    further_place_of: Option<IpAddr>,
    seat: SubscriberRef,
    gate: &SessionContext,
) -> Result<Topic, Fault> {
    let grant = &bearer.grant;
    match destination {
        Destination::Visitor(conference) => {
            Span::current().record("conference", conference.node());
            if !grant.may_wait(&conference) {
                return Err(Fault::policy(match grant.is_for(&conference) {
                    true => {
                        "the token does not let its bearer wait; it takes context.user.role to be visitor"
                    }
                    false => {
                        "the token is for another conference; get one for this room and tenant"
                    }
                }));
            }
            let token = (!grant.is_service()).then_some(bearer.key);
            let further_place = further_place_of.map(|address| {
                let connections = &gate.tallies.connections;
                let counted = connections.add(address, gate.max_per_address);
                counted.map(Box::new).ok_or_else(|| {
                    Fault::policy("too many visitors wait from this address already; try again later, or raise queue.max_per_address").because("full")
                })
            });
            let number = seat.subscription;
            let further_place = further_place.transpose()?;
            let waiting = gate
                .queue
                .join(conference, token, seat)
                .map_err(|limit| Fault::policy(limit.to_string()).because("full"))?;
            Ok(Topic::Visitor {
                seat: number,
                waiting,
                told: false,
                _further_place: further_place,
            })
        }
        Destination::State(conference) => {
            Span::current().record("conference", conference.node());
            if !grant.may_watch(&conference) {
                return Err(Fault::policy(match grant.is_for(&conference) {
                    true => {
                        "only moderators may see how many wait; it takes context.user.moderator to be true"
                    }
                    false => {
                        "the token is for another conference; get one for this room and tenant"
                    }
                }));
            }
            let watchers = &gate.tallies.watchers;
            let counted = watchers.add(bearer.key, gate.max_per_token).ok_or_else(|| {
                Fault::policy("too many watch with this token already; use a token for each moderator, or raise queue.max_per_token").because("full")
            })?;
            Ok(Topic::State(Box::new(Watch {
                conference,
                _counted: counted,
                told: None,
                look_at: Instant::now(),
            })))
        }
    }
}

/// The token in a frame's `Authorization` header, in either case of its first letter.
fn token_of(frame: &Frame) -> Result<Option<&str>, Fault> {
    let header = frame
        .header("Authorization")
        .or_else(|| frame.header("authorization"));
    let Some(header) = header.map(str::trim).filter(|header| !header.is_empty()) else {
        return Ok(None);
    };
    match header.get(..SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => {
            Ok(Some(header[SCHEME.len()..].trim()))
        }
        _ => Err(Fault::policy(
            "Authorization must be Bearer, a blank and the token",
        )),
    }
}

fn required<'f>(frame: &'f Frame, name: &str) -> Result<&'f str, Fault> {
    frame.header(name).ok_or_else(|| missing(frame, name))
}

fn missing(frame: &Frame, name: &str) -> Fault {
    Fault::protocol(format!("{} needs the header {name}", frame.command))
}
