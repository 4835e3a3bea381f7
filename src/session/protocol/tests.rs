use std::sync::Arc;

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::auth::keys::KeySet;
use crate::auth::{self, Verifier};
use crate::clock;
use crate::config::Config;
use crate::queue::TokenKey;
use crate::session::commands::ID_MAX;
use crate::session::connected::SUBSCRIPTIONS_MAX;
use crate::session::destination::{Destination, DestinationError};
use crate::session::limits::LimitCounter;
use crate::session::subscription::StateSubscription;
use crate::stomp::DecodeError;
use crate::stomp::negotiate::NegotiateError;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ROOM: &str = "room@conference.meet.example.com";

/// A machine, and all that it sends.
struct Machine {
    protocol: Protocol,
    config: Config,
    /// The claims that every token is verified to.
    claims: Value,
    sent: Vec<Frame>,
    joined: Vec<Destination>,
    is_disconnected: bool,
}

impl Machine {
    fn new(claims: Value) -> Self {
        Self {
            protocol: Protocol::default(),
            config: Config::default(),
            claims,
            sent: Vec::new(),
            joined: Vec::new(),
            is_disconnected: false,
        }
    }

    /// A machine after CONNECT.
    async fn connected(claims: Value, version: &str) -> Self {
        let mut machine = Self::new(claims);
        machine.receive(&connect(version, "")).await.unwrap();
        assert_eq!(machine.sent[0].command, Command::Connected);
        machine.sent.clear();
        machine
    }

    /// Handles a message, performs the actions, and joins everything as a watcher would: without a queue.
    async fn receive(&mut self, text: &str) -> Result<(), Refusal> {
        let config = self.config.clone();
        let env = Env {
            queue: &config.queue,
            xmpp: &config.xmpp,
            now: clock::now(),
        };
        let mut input = text.as_bytes();
        while let Some(mut action) = self.protocol.receive(&mut input, &env)? {
            if let Action::Verify(verification) = action {
                let client = self.authenticate(verification.token()).await;
                action = self.protocol.verified(verification, client, &env)?;
            }
            match action {
                Action::Done => {}
                Action::Send(frame) => self.sent.push(frame),
                Action::Join(destination, join) => {
                    let receipt = self.protocol.subscribed(join, topic(&destination));
                    self.joined.push(destination);
                    self.sent.extend(receipt);
                }
                Action::Disconnect(receipt) => {
                    self.sent.extend(receipt);
                    self.is_disconnected = true;
                    return Ok(());
                }
                Action::Verify(_) => panic!("verified twice"),
            }
        }
        Ok(())
    }

    async fn authenticate(&self, token: &str) -> Result<Authenticated, TokenError> {
        if token != "good" {
            return Err(TokenError::Malformed);
        }
        let keys = KeySet::new().with_secret(SECRET).unwrap();
        let token = auth::sign(SECRET, &self.claims, None).unwrap();
        let config = Arc::new(self.config.auth.clone());
        let verifier = Verifier::new(keys, config, "meet.example.com");
        let verified = verifier.verify(&token, clock::now()).await?;
        Ok(Authenticated {
            grant: verified.grant().clone(),
            key: TokenKey([7; 16]),
            expiry: verified.expiry(),
        })
    }

    async fn refused(&mut self, text: &str) -> SessionError {
        let refusal = self.receive(text).await.unwrap_err();
        let code = refusal.error.close_code();
        assert!(matches!(code, CloseCode::Protocol | CloseCode::Policy));
        refusal.error
    }
}

fn topic(destination: &Destination) -> Topic {
    let (Destination::Visitor(conference) | Destination::State(conference)) = destination;
    Topic::State(Box::new(StateSubscription {
        conference: conference.clone(),
        last_sent: None,
        next_update_at: Instant::now(),
        _limit: LimitCounter::default().add(TokenKey([7; 16]), 1).unwrap(),
    }))
}

fn connect(version: &str, more: &str) -> String {
    format!("CONNECT\naccept-version:{version}\nAuthorization:Bearer good\n{more}\n\0")
}

fn subscribe(id: &str, more: &str) -> String {
    let destination = format!("/secured/conference/visitor/topic.{ROOM}");
    format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\n{more}\n\0")
}

fn watch(id: &str) -> String {
    format!("SUBSCRIBE\nid:{id}\ndestination:/secured/conference/state/topic.{ROOM}\n\n\0")
}

fn claims(user: &Value) -> Value {
    let now = clock::now().timestamp();
    json!({
        "iss": "jitsi", "aud": "jitsi", "exp": now + 600, "room": "room", "sub": "meet.example.com",
        "context": { "user": user },
    })
}

fn visitor() -> Value {
    claims(&json!({ "role": "visitor" }))
}

fn moderator() -> Value {
    claims(&json!({ "moderator": true }))
}

#[tokio::test]
async fn connect_is_answered_with_version_heart_beats_session_and_server() {
    for (version, heart_beat) in [
        ("1.0", None),
        ("1.1", Some("10000,75000")),
        ("1.2", Some("10000,75000")),
    ] {
        let mut machine = Machine::new(visitor());
        // CONNECT gets no receipt.
        machine
            .receive(&connect(version, "receipt:r\n"))
            .await
            .unwrap();
        assert_eq!(machine.sent.len(), 1);
        let connected = &machine.sent[0];
        assert_eq!(connected.command, Command::Connected);
        assert_eq!(connected.header("version"), Some(version));
        assert_eq!(connected.header("heart-beat"), heart_beat);
        assert!(connected.header("server").unwrap().starts_with("usher/"));
        assert_eq!(connected.header("session").unwrap().len(), 16);
    }
}

#[tokio::test]
async fn stomp_frame_begins_a_session_as_connect_does() {
    let mut machine = Machine::new(visitor());
    let stomp = connect("1.2", "").replacen("CONNECT", "STOMP", 1);
    machine.receive(&stomp).await.unwrap();
    assert_eq!(machine.sent[0].command, Command::Connected);
}

#[tokio::test]
async fn frames_behind_connect_wait_for_the_verification_and_use_its_version() {
    let mut machine = Machine::new(visitor());
    // In 1.0 a backslash is itself; since 1.1 an undefined escape is an error.
    let message = |version| format!("{}{}", connect(version, ""), subscribe("a\\tb", ""));
    machine.receive(&message("1.0")).await.unwrap();
    assert_eq!(machine.joined.len(), 1);
    let mut machine = Machine::new(visitor());
    let refusal = machine.receive(&message("1.1")).await.unwrap_err();
    assert!(matches!(
        refusal.error,
        SessionError::Decode(DecodeError::UndefinedEscape { .. })
    ));
}

#[tokio::test]
async fn state_follows_the_verification_of_a_token() {
    let config = Config::default();
    let env = Env {
        queue: &config.queue,
        xmpp: &config.xmpp,
        now: clock::now(),
    };
    let machine = Machine::new(visitor());
    let mut protocol = Protocol::default();
    assert!(!protocol.is_verifying() && protocol.version().is_none());
    let text = connect("1.2", "");
    let action = protocol.receive(&mut text.as_bytes(), &env).unwrap();
    let Some(Action::Verify(verification)) = action else {
        panic!("{action:?}");
    };
    assert!(protocol.is_verifying() && protocol.version().is_none());
    let client = machine.authenticate("good").await;
    protocol.verified(verification, client, &env).unwrap();
    assert!(!protocol.is_verifying());
    assert_eq!(protocol.version(), Some(Version::V12));
    let text = subscribe("1", "Authorization:Bearer good\n");
    let action = protocol.receive(&mut text.as_bytes(), &env).unwrap();
    assert!(matches!(action, Some(Action::Verify(_))), "{action:?}");
    assert!(protocol.is_verifying() && protocol.version().is_some());
    protocol.close();
    assert!(protocol.is_closed() && !protocol.is_verifying());
}

#[tokio::test]
async fn other_frames_than_connect_are_refused_at_the_start() {
    for frame in [&subscribe("1", ""), "DISCONNECT\n\n\0", "SEND\n\n\0"] {
        let error = Machine::new(visitor()).refused(frame).await;
        assert_eq!(error, SessionError::ConnectExpected, "{frame:?}");
    }
}

#[tokio::test]
async fn each_refusal_of_connect_has_its_error() {
    for (text, error) in [
        (
            "CONNECT\nAuthorization:Bearer bad\n\n\0",
            SessionError::Token(TokenError::Malformed),
        ),
        (
            "CONNECT\naccept-version:1.2\n\n\0",
            SessionError::TokenMissing,
        ),
        (
            "CONNECT\nAuthorization:Basic dTpw\n\n\0",
            SessionError::AuthorizationScheme,
        ),
        (
            "CONNECT\naccept-version:3.0\nAuthorization:Bearer good\n\n\0",
            SessionError::Negotiate(NegotiateError::NoCommonVersion),
        ),
        (
            "CONNECT\naccept-version:1.2\nheart-beat:x\nAuthorization:Bearer good\n\n\0",
            SessionError::Negotiate(NegotiateError::BadHeartBeat),
        ),
    ] {
        assert_eq!(
            Machine::new(visitor()).refused(text).await,
            error,
            "{text:?}"
        );
    }
    let without_role = claims(&json!({ "name": "neither visitor nor moderator" }));
    let error = Machine::new(without_role)
        .refused(&connect("1.2", ""))
        .await;
    assert_eq!(error, SessionError::NoAccess);
}

#[tokio::test]
async fn each_violation_after_connect_has_its_error() {
    let missing = |command, name| SessionError::MissingHeader { command, name };
    let long = subscribe(&"x".repeat(ID_MAX + 1), "");
    let no_id = subscribe("", "").replacen("id:\n", "", 1);
    let elsewhere = "SUBSCRIBE\nid:1\ndestination:/nowhere\n\n\0";
    for (text, error) in [
        ("CONNECT\n\n\0", SessionError::ConnectRepeated),
        ("STOMP\n\n\0", SessionError::ConnectRepeated),
        (
            "SEND\ndestination:/x\n\nhello\0",
            SessionError::SendNotAllowed,
        ),
        ("BEGIN\ntransaction:t\n\n\0", SessionError::NoTransactions),
        ("COMMIT\ntransaction:t\n\n\0", SessionError::NoTransactions),
        ("ABORT\ntransaction:t\n\n\0", SessionError::NoTransactions),
        (
            "CONNECTED\n\n\0",
            SessionError::ServerCommand(Command::Connected),
        ),
        (
            "MESSAGE\n\n\0",
            SessionError::ServerCommand(Command::Message),
        ),
        (
            "RECEIPT\n\n\0",
            SessionError::ServerCommand(Command::Receipt),
        ),
        ("ERROR\n\n\0", SessionError::ServerCommand(Command::Error)),
        (
            "SUBSCRIBE\nid:1\n\n\0",
            missing(Command::Subscribe, "destination"),
        ),
        (&no_id, missing(Command::Subscribe, "id")),
        (&long, SessionError::IdTooLong { max: ID_MAX }),
        (
            &subscribe("1", "ack:perhaps\n"),
            SessionError::UnknownAckMode,
        ),
        (
            elsewhere,
            SessionError::Destination(DestinationError::Unknown),
        ),
        (&watch("1"), SessionError::NotModerator),
        ("UNSUBSCRIBE\nid:9\n\n\0", SessionError::NotSubscribed),
        ("UNSUBSCRIBE\n\n\0", missing(Command::Unsubscribe, "id")),
        (
            &subscribe("1", "Authorization:Bearer bad\n"),
            SessionError::Token(TokenError::Malformed),
        ),
        (
            "HELLO\n\n\0",
            SessionError::Decode(DecodeError::UnknownCommand {
                command: "HELLO".into(),
            }),
        ),
    ] {
        let mut machine = Machine::connected(visitor(), "1.2").await;
        assert_eq!(machine.refused(text).await, error, "{text:?}");
    }
    let mut machine = Machine::connected(moderator(), "1.2").await;
    assert_eq!(
        machine.refused(&subscribe("1", "")).await,
        SessionError::NotVisitor
    );
    let mut other = visitor();
    other["room"] = "other".into();
    let mut machine = Machine::connected(other, "1.2").await;
    assert_eq!(
        machine.refused(&subscribe("1", "")).await,
        SessionError::OtherConference
    );
}

#[tokio::test]
async fn subscription_ids_are_unique_and_their_number_is_limited() {
    let mut machine = Machine::connected(moderator(), "1.2").await;
    for n in 0..SUBSCRIPTIONS_MAX {
        machine.receive(&watch(&n.to_string())).await.unwrap();
    }
    assert_eq!(machine.refused(&watch("0")).await, SessionError::IdInUse);
    let max = SUBSCRIPTIONS_MAX;
    let error = machine.refused(&watch("another")).await;
    assert_eq!(error, SessionError::TooManySubscriptions { max });
    machine.receive("UNSUBSCRIBE\nid:0\n\n\0").await.unwrap();
    machine.receive(&watch("another")).await.unwrap();
}

#[tokio::test]
async fn expired_token_cannot_subscribe() {
    let mut machine = Machine::connected(visitor(), "1.2").await;
    let config = machine.config.clone();
    let env = Env {
        queue: &config.queue,
        xmpp: &config.xmpp,
        now: clock::now() + chrono::TimeDelta::hours(1),
    };
    let text = subscribe("1", "receipt:r\n");
    let refusal = machine.protocol.receive(&mut text.as_bytes(), &env);
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.error, SessionError::Token(TokenError::Expired));
    assert_eq!(refusal.receipt.as_deref(), Some("r"));
}

#[tokio::test]
async fn token_of_subscribe_replaces_the_token_of_connect() {
    let mut machine = Machine::connected(moderator(), "1.2").await;
    machine.claims = visitor();
    let own = subscribe("1", "Authorization:bearer good\nreceipt:r\n");
    machine.receive(&own).await.unwrap();
    assert_eq!(machine.sent[0].header("receipt-id"), Some("r"));
    // Only for that subscription.
    assert_eq!(
        machine.refused(&subscribe("2", "")).await,
        SessionError::NotVisitor
    );
}

#[tokio::test]
async fn id_is_needed_since_1_1_and_1_0_uses_the_destination() {
    let no_id = subscribe("", "receipt:s\n").replacen("id:\n", "", 1);
    for version in ["1.1", "1.2"] {
        let mut machine = Machine::connected(visitor(), version).await;
        let error = machine.refused(&no_id).await;
        assert!(matches!(
            error,
            SessionError::MissingHeader { name: "id", .. }
        ));
    }
    let unsubscribe = format!(
        "UNSUBSCRIBE\ndestination:/secured/conference/visitor/topic.{ROOM}\nreceipt:u\n\n\0"
    );
    for text in [no_id, subscribe("1", "receipt:s\n")] {
        let mut machine = Machine::connected(visitor(), "1.0").await;
        machine.receive(&text).await.unwrap();
        machine.receive(&unsubscribe).await.unwrap();
        let receipts: Vec<_> = machine
            .sent
            .iter()
            .map(|it| it.header("receipt-id"))
            .collect();
        assert_eq!(receipts, [Some("s"), Some("u")]);
        assert_eq!(
            machine.refused(&unsubscribe).await,
            SessionError::NotSubscribed
        );
    }
}

#[tokio::test]
async fn ack_and_nack_need_the_headers_of_their_version() {
    let missing = |command, name| SessionError::MissingHeader { command, name };
    for (version, good, bad, error) in [
        (
            "1.0",
            "ACK\nmessage-id:1\n",
            "ACK\nid:1\n",
            missing(Command::Ack, "message-id"),
        ),
        (
            "1.1",
            "ACK\nmessage-id:1\nsubscription:1\n",
            "ACK\nmessage-id:1\n",
            missing(Command::Ack, "subscription"),
        ),
        (
            "1.1",
            "NACK\nmessage-id:1\nsubscription:1\n",
            "NACK\nid:1\n",
            missing(Command::Nack, "message-id"),
        ),
        (
            "1.2",
            "ACK\nid:1\n",
            "ACK\nmessage-id:1\nsubscription:1\n",
            missing(Command::Ack, "id"),
        ),
        (
            "1.2",
            "NACK\nid:1\n",
            "NACK\n",
            missing(Command::Nack, "id"),
        ),
        (
            "1.0",
            "ACK\nmessage-id:1\n",
            "NACK\nmessage-id:1\n",
            SessionError::NackInV10,
        ),
    ] {
        let mut machine = Machine::connected(visitor(), version).await;
        machine
            .receive(&format!("{good}receipt:a\n\n\0"))
            .await
            .unwrap();
        assert_eq!(machine.sent[0].header("receipt-id"), Some("a"));
        assert_eq!(
            machine.refused(&format!("{bad}\n\0")).await,
            error,
            "{version} {bad:?}"
        );
    }
}

#[tokio::test]
async fn every_frame_after_connect_gets_its_receipt_in_order() {
    let mut machine = Machine::connected(visitor(), "1.2").await;
    let first = subscribe("1", "receipt:0\n");
    let text = [
        first.as_str(),
        "ACK\nid:1\nreceipt:1\n\n\0",
        "NACK\nid:1\nreceipt:2\n\n\0",
        "ACK\nid:1\n\n\0",
        "UNSUBSCRIBE\nid:1\nreceipt:3\n\n\0",
        "DISCONNECT\nreceipt:4\n\n\0",
        // Not handled any more.
        "HELLO\n\n\0",
    ];
    machine.receive(&text.concat()).await.unwrap();
    assert!(machine.is_disconnected);
    let receipts: Vec<_> = machine
        .sent
        .iter()
        .map(|it| it.header("receipt-id"))
        .collect();
    assert_eq!(receipts, ["0", "1", "2", "3", "4"].map(Some));
    assert!(machine.sent.iter().all(|it| it.command == Command::Receipt));
}

#[tokio::test]
async fn frame_may_be_split_over_messages() {
    let mut machine = Machine::connected(visitor(), "1.2").await;
    let text = subscribe("1", "");
    assert!(machine.protocol.is_between_frames());
    for piece in text.as_bytes().chunks(7) {
        assert!(machine.joined.is_empty());
        machine
            .receive(std::str::from_utf8(piece).unwrap())
            .await
            .unwrap();
        assert_eq!(
            machine.protocol.is_between_frames(),
            !machine.joined.is_empty()
        );
    }
    assert_eq!(machine.joined.len(), 1);
}

#[tokio::test]
async fn moderator_receives_the_number_of_visitors_when_it_is_due_and_has_changed() {
    let mut machine = Machine::connected(moderator(), "1.2").await;
    machine.receive(&watch("1")).await.unwrap();
    let interval = Duration::from_secs(15);
    let mut updates = |now, waiting| {
        let count = |_: &Conference| waiting;
        let protocol = &mut machine.protocol;
        let sent = protocol.state_updates(now, interval, count, "conference");
        (sent.len(), protocol.next_state_update().unwrap())
    };
    let now = Instant::now();
    assert_eq!(updates(now, 3), (1, now + interval));
    // Not due; unchanged; changed.
    assert_eq!(updates(now + interval / 2, 4), (0, now + interval));
    assert_eq!(updates(now + interval, 3), (0, now + 2 * interval));
    assert_eq!(updates(now + 2 * interval, 4), (1, now + 3 * interval));
}

#[tokio::test]
async fn liveness_follows_from_connect_and_its_heart_beats() {
    let timeout = Duration::from_secs(5);
    let mut machine = Machine::new(visitor());
    assert_eq!(
        machine.protocol.liveness(timeout),
        Liveness::Connect(timeout)
    );
    assert!(!machine.protocol.mark_active(), "not before CONNECT");
    machine
        .receive(&connect("1.2", "heart-beat:10000,20000\n"))
        .await
        .unwrap();
    let ten = Duration::from_secs(10);
    let expected = Liveness::HeartBeat {
        interval: machine.config.queue.client_heart_beat,
        is_pinged: false,
    };
    assert_eq!(machine.protocol.liveness(timeout), expected);
    assert_eq!(machine.protocol.send_interval(), Some(2 * ten));
    // No heart-beats, in 1.0 never, and ones that come too rarely to be of use.
    for (version, header) in [
        ("1.2", "heart-beat:0,0\n"),
        ("1.0", "heart-beat:1000,1000\n"),
        ("1.0", "heart-beat:rubbish\n"),
        ("1.2", "heart-beat:75001,0\n"),
    ] {
        let mut machine = Machine::new(visitor());
        machine.receive(&connect(version, header)).await.unwrap();
        let protocol = &mut machine.protocol;
        assert_eq!(protocol.send_interval(), None, "{header}");
        assert_eq!(
            protocol.liveness(timeout),
            Liveness::Ping { is_pinged: false }
        );
        protocol.mark_pinged();
        assert_eq!(
            protocol.liveness(timeout),
            Liveness::Ping { is_pinged: true }
        );
        assert!(protocol.mark_active());
        assert_eq!(
            protocol.liveness(timeout),
            Liveness::Ping { is_pinged: false }
        );
    }
}

#[test]
fn error_frame_says_why_and_names_the_receipt() {
    let refusal = |error, receipt: Option<&str>| Refusal {
        error,
        receipt: receipt.map(str::to_owned),
    };
    let frame = refusal(SessionError::SendNotAllowed, Some("r 7"))
        .frame()
        .unwrap();
    assert_eq!(frame.command, Command::Error);
    assert_eq!(frame.header("receipt-id"), Some("r 7"));
    assert_eq!(frame.header("content-type"), Some("text/plain"));
    let message = frame.header("message").unwrap();
    assert_eq!(message.as_bytes(), frame.body);
    assert!(message.contains("only subscribe"));
    let no_version = SessionError::Negotiate(NegotiateError::NoCommonVersion);
    let frame = refusal(no_version, None).frame().unwrap();
    assert_eq!(frame.header("version"), Some("1.0,1.1,1.2"));
    assert_eq!(frame.header("receipt-id"), None);
}

/// Jitsi Meet's client gives up after a few ERRORs, and the token may be good.
#[test]
fn key_server_that_fails_causes_a_close_without_an_error() {
    let kid = "k".to_owned();
    let error = SessionError::Token(TokenError::KeyServerUnavailable { kid });
    assert_eq!(
        (error.close_code(), error.code()),
        (CloseCode::Again, "key_server")
    );
    assert_eq!(Refusal::from(error).frame(), None);
}

#[test]
fn close_code_and_metric_follow_from_the_error() {
    use crate::session::websocket::ProtocolError;
    for (error, code, metric) in [
        (
            SessionError::WebSocket(ProtocolError::Unmasked),
            CloseCode::Protocol,
            "protocol",
        ),
        (
            SessionError::WebSocket(ProtocolError::NotUtf8),
            CloseCode::Invalid,
            "protocol",
        ),
        (
            SessionError::WebSocket(ProtocolError::TooLarge),
            CloseCode::Size,
            "too_large",
        ),
        (
            SessionError::Decode(DecodeError::NoNul),
            CloseCode::Protocol,
            "protocol",
        ),
        (
            SessionError::ConnectExpected,
            CloseCode::Protocol,
            "protocol",
        ),
        (SessionError::ConnectTimeout, CloseCode::Policy, "too_late"),
        (
            SessionError::SendNotAllowed,
            CloseCode::Policy,
            "not_allowed",
        ),
        (SessionError::NoAccess, CloseCode::Policy, "not_allowed"),
        (
            SessionError::Token(TokenError::Expired),
            CloseCode::Policy,
            "token",
        ),
        (
            DestinationError::Unknown.into(),
            CloseCode::Policy,
            "destination",
        ),
        (SessionError::AddressLimit, CloseCode::Policy, "full"),
        (SessionError::WatcherLimit, CloseCode::Policy, "full"),
        (crate::queue::LimitReached.into(), CloseCode::Policy, "full"),
    ] {
        assert_eq!(
            (error.close_code(), error.code()),
            (code, metric),
            "{error}"
        );
    }
}
