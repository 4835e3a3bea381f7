//! A STOMP client for the tests: frames as text over a WebSocket, put together and taken apart by hand, so
//! that what a client may get wrong can be got wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::{Usher, now};

/// The shared secret of the tests' deployments.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Longest wait for anything that is to come.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long nothing must come for it to count as nothing.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// The claims of a visitor of `room`.
pub(crate) fn visitor(room: &str) -> Value {
    claims(room, json!({ "user": { "role": "visitor" } }))
}

/// The claims of a moderator of `room`.
pub(crate) fn moderator(room: &str) -> Value {
    claims(room, json!({ "user": { "moderator": true } }))
}

/// The claims of Prosody and jigasi.
pub(crate) fn service() -> Value {
    let now = now().timestamp();
    json!({ "iss": "jitsi", "aud": "jitsi", "iat": now, "nbf": now, "exp": now + 600 })
}

pub(crate) fn claims(room: &str, context: Value) -> Value {
    let mut claims = service();
    claims["room"] = room.into();
    claims["sub"] = "meet.example.com".into();
    claims["context"] = context;
    claims
}

pub(crate) fn sign(claims: &Value) -> String {
    usher::auth::sign(SECRET, claims, Some("usher")).unwrap()
}

pub(crate) fn visitor_topic(room: &str) -> String {
    format!("/secured/conference/visitor/topic.{room}@conference.meet.example.com")
}

pub(crate) fn state_topic(room: &str) -> String {
    format!("/secured/conference/state/topic.{room}@conference.meet.example.com")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Frame {
    fn parse(text: &str) -> Self {
        let text = text.strip_suffix('\0').expect("a frame ends in NUL");
        let (head, body) = text.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let command = lines.next().unwrap().to_owned();
        let mut headers = BTreeMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            headers.entry(name.to_owned()).or_insert(value.to_owned());
        }
        Self {
            command,
            headers,
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) beats: usize,
}

/// What comes from the server, other than heart-beats.
#[derive(Debug)]
pub(crate) enum Incoming {
    Frame(Frame),
    Closed(Option<CloseFrame>),
}

impl Client {
    /// A WebSocket, and nothing said yet.
    pub(crate) async fn dial(
        usher: &Usher,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let url = format!("ws://{}{path}", usher.address);
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = connect_async(request).await?;
        Ok(Self { socket, beats: 0 })
    }

    pub(crate) async fn open(usher: &Usher) -> Self {
        Self::dial(usher, "/waiting-queue/visitor/websocket", &[])
            .await
            .unwrap()
    }

    /// A session of somebody with these claims.
    pub(crate) async fn connect(usher: &Usher, claims: &Value) -> Self {
        let mut client = Self::open(usher).await;
        let connected = client
            .connect_with(&format!("Bearer {}", sign(claims)), "")
            .await;
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
        client
    }

    /// Sends CONNECT with a token and further headers, and takes what comes back.
    pub(crate) async fn connect_with(&mut self, authorization: &str, more: &str) -> Frame {
        self.send(&format!(
            "CONNECT\naccept-version:1.2,1.1,1.0\nheart-beat:0,0\nAuthorization:{authorization}\n{more}\n\0"
        ))
        .await;
        self.frame().await
    }

    /// Waits for a conference, as somebody who has a visitor's token for it.
    pub(crate) async fn wait(usher: &Usher, room: &str) -> Self {
        Self::wait_as(usher, &visitor(room)).await
    }

    /// Waits for the room that the claims are for.
    pub(crate) async fn wait_as(usher: &Usher, claims: &Value) -> Self {
        let mut client = Self::connect(usher, claims).await;
        let topic = visitor_topic(claims["room"].as_str().unwrap());
        client.subscribe("1", &topic).await;
        client
    }

    /// Subscribes, and waits until that has been heard.
    pub(crate) async fn subscribe(&mut self, id: &str, destination: &str) {
        self.send(&format!(
            "SUBSCRIBE\nid:{id}\ndestination:{destination}\nreceipt:r{id}\n\n\0"
        ))
        .await;
        let receipt = self.frame().await;
        assert_eq!(receipt.command, "RECEIPT", "{receipt:?}");
        assert_eq!(receipt.header("receipt-id"), format!("r{id}"));
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket
            .send(Message::binary(bytes.to_vec()))
            .await
            .unwrap();
    }

    /// Sends without expecting that it arrives.
    pub(crate) async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message).await
    }

    pub(crate) async fn next(&mut self) -> Incoming {
        timeout(PATIENCE, self.read()).await.expect("nothing came")
    }

    async fn read(&mut self) -> Incoming {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) if text.as_str() == "\n" => self.beats += 1,
                Some(Ok(Message::Text(text))) => return Incoming::Frame(Frame::parse(&text)),
                Some(Ok(Message::Close(frame))) => return Incoming::Closed(frame),
                Some(Ok(Message::Binary(_))) => {
                    panic!("the server sends text only: jigasi reads nothing else")
                }
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Incoming::Closed(None),
            }
        }
    }

    pub(crate) async fn frame(&mut self) -> Frame {
        match self.next().await {
            Incoming::Frame(frame) => frame,
            Incoming::Closed(reason) => panic!("closed instead of a frame: {reason:?}"),
        }
    }

    /// The message that releases a visitor.
    pub(crate) async fn released(&mut self) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame.command, "MESSAGE", "{frame:?}");
        assert_eq!(frame.header("content-type"), "application/json");
        let body = frame.json();
        assert_eq!(body["status"], "live");
        assert!(body["randomDelayMs"].is_u64(), "{body}");
        body
    }

    /// The number of waiting visitors in a message to a moderator.
    pub(crate) async fn count(&mut self) -> u64 {
        let frame = self.frame().await;
        assert_eq!(frame.command, "MESSAGE", "{frame:?}");
        frame.json()["visitorsWaiting"].as_u64().unwrap()
    }

    /// Asserts that no frame arrives within [`QUIET`].
    pub(crate) async fn receives_nothing(&mut self) {
        if let Ok(received) = timeout(QUIET, self.read()).await {
            panic!("received {received:?}");
        }
    }

    /// The ERROR frame and the code of the close after it.
    pub(crate) async fn refused(&mut self) -> (Frame, Option<u16>) {
        let error = self.frame().await;
        assert_eq!(error.command, "ERROR", "{error:?}");
        assert!(!error.header("message").is_empty());
        match self.next().await {
            Incoming::Closed(frame) => (error, frame.map(|frame| frame.code.into())),
            Incoming::Frame(frame) => panic!("a frame after ERROR: {frame:?}"),
        }
    }

    /// Hangs up without a word.
    pub(crate) fn vanish(self) {
        drop(self);
    }

    /// Leaves as a browser does.
    pub(crate) async fn close(mut self) {
        let _ = self.socket.close(None).await;
        let _ = timeout(PATIENCE, async {
            while let Some(Ok(_)) = self.socket.next().await {}
        })
        .await;
    }
}
