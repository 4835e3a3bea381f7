//! The queue's door: WebSockets for those who wait and watch, and going live and ending live for Prosody.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use tracing::field::Empty;
use tungstenite::handshake::derive_accept_key;
use warp::http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Call;
use super::field::FieldError;
use super::reply::{self, Problem, Response};
use crate::conference::{Conference, ConferenceError};
use crate::current::Current;
use crate::queue::{Queue, Status};
use crate::reservation::{Reservations, timestamp};
use crate::session::{Gate, Session};
use crate::stomp::negotiate::subprotocol;

/// Longest wait for the connection after the handshake was answered.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// The connection a request came on.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The other end of the TCP connection.
    pub(super) peer: SocketAddr,
    /// Its place among the connections there may be; an upgraded one keeps it.
    pub(super) place: Arc<OwnedSemaphorePermit>,
}

/// What the queue's routes work with.
#[derive(Clone, Debug)]
pub struct Door {
    /// What sessions share.
    pub gate: Current<Gate>,
    /// Where sessions are counted, to wait for them in the end.
    pub sessions: TaskTracker,
    /// Ends all sessions.
    pub stop: CancellationToken,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpAddr]>,
}

/// `GET {path}/visitor/websocket` and the like: answers the handshake, and runs a session on what follows.
/// Not guarded: the token comes with the CONNECT frame.
pub(super) fn open(
    call: &Call,
    upgrade: Option<OnUpgrade>,
    connection: Option<Connection>,
    door: Door,
) -> Result<Response, Problem> {
    let accept = accept_key(&call.headers)?;
    let (Some(upgrade), Some(connection)) = (upgrade, connection) else {
        return Err(Problem::upgrade_required());
    };
    if door.stop.is_cancelled() {
        let message = "usher restarts; come back in a moment.";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let address = client_address(&call.headers, connection.peer.ip(), &door.trusted_proxies);
    let sessions = door.sessions.clone();
    // In a box, which is gone before the session begins: what waits should be small.
    let beginning = Box::pin(begin(upgrade, door.gate.get(), address));
    sessions.spawn(async move {
        let place = connection.place;
        if let Some(session) = beginning.await {
            let span = tracing::debug_span!("session", peer = %connection.peer, conference = Empty);
            let run = async {
                let end = session.run().await;
                tracing::debug!(?end, "a session ended");
            };
            run.instrument(span).await;
        }
        drop(place);
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(version) = subprotocol(&listed(&call.headers, &SEC_WEBSOCKET_PROTOCOL)) {
        let name = HeaderValue::from_static(version.subprotocol());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(response)
}

/// The session on what follows the handshake.
async fn begin(
    upgrade: OnUpgrade,
    gate: Arc<Gate>,
    address: Option<IpAddr>,
) -> Option<Arc<Session>> {
    let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await else {
        tracing::debug!("a handshake was not followed by a connection");
        return None;
    };
    // The buffer that comes with the socket pins 8 KiB; what is in it, if anything, is copied.
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some(Session::begin(
        parts.io.into_inner(),
        &parts.read_buf,
        &gate,
        address,
    ))
}

/// Checks the client's half of the handshake (RFC 6455, section 4.2.1), and answers its key.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let says = |name: &HeaderName, word: &str| {
        listed(headers, name)
            .split(',')
            .any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if !says(&UPGRADE, "websocket") || !says(&CONNECTION, "upgrade") {
        return Err(Problem::upgrade_required());
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(Problem::upgrade_required());
    }
    if !headers.contains_key(HOST) {
        let message = "A handshake needs the header Host.";
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key.as_bytes()))
        .ok_or_else(|| {
            let message = "Sec-WebSocket-Key must be sixteen bytes in base64.";
            Problem::new(StatusCode::BAD_REQUEST, message)
        })?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Problem::upgrade_required())
}

/// Whether this is sixteen bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/');
    key.len() == 24 && key[..22].iter().all(is_digit) && key.ends_with(b"==")
}

/// A header that may be given several times, as one list.
fn listed(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    values.join(",")
}

/// Whose connection it is: the last address that a proxy of ours was told of by somebody else. `None` for
/// the loopback, where nginx is, and others who speak for many.
fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpAddr]) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.contains(&address.to_canonical());
    let mut address = peer.to_canonical();
    if is_trusted(&address) {
        let forwarded = listed(headers, &HeaderName::from_static("x-forwarded-for"));
        for hop in forwarded.rsplit(',') {
            // What can't be read was not written by a proxy that is to be trusted.
            let Ok(hop) = hop.trim().parse::<IpAddr>() else {
                break;
            };
            address = hop.to_canonical();
            if !is_trusted(&address) {
                break;
            }
        }
    }
    (!address.is_loopback()).then_some(address)
}

/// `POST {path}/golive` and `POST {path}/endlive`.
pub(super) async fn set_live(call: Call, door: &Door, live: bool) -> Result<Response, Problem> {
    let mut members = call.members()?;
    let jid = members
        .text("conference")?
        .flatten()
        .ok_or(FieldError::Missing("conference"))?;
    let gate = door.gate.get();
    let conference = conference(&jid, &gate)?;
    if live {
        gate.queue.go_live(&conference, call.now).await?;
    } else {
        gate.queue.end_live(&conference).await?;
    }
    let body = json!({ "conference": conference.jid(&gate.muc_prefix), "live": live });
    Ok(reply::json(StatusCode::OK, &body))
}

/// `GET {path}/conferences`: who waits and who is live; with `?conference=`, of that one alone.
pub(super) async fn conferences(
    call: Call,
    door: &Door,
    reservations: &Reservations,
) -> Result<Response, Problem> {
    let query = call.query()?;
    query.only(&["conference"])?;
    let gate = door.gate.get();
    let queue: &Queue = &gate.queue;
    let wanted = match query.get("conference")? {
        Some(jid) => vec![queue.status(&conference(jid, &gate)?)],
        None => queue.conferences(),
    };
    let mut list = Vec::with_capacity(wanted.len());
    for status in wanted {
        let waiting_queue = reservations.has_queue(&status.conference, call.now).await?;
        list.push(body(&status, waiting_queue, &gate.muc_prefix));
    }
    Ok(reply::json(StatusCode::OK, &json!({ "conferences": list })))
}

fn body(status: &Status, waiting_queue: bool, muc_prefix: &str) -> Value {
    let mut body = json!({
        "conference": status.conference.jid(muc_prefix),
        "live": status.live_since.is_some(),
        "visitorsWaiting": status.waiting,
        "waitingQueue": waiting_queue,
    });
    if let Some(since) = status.live_since {
        body["liveSince"] = timestamp::format(since).into();
    }
    body
}

fn conference(jid: &str, gate: &Gate) -> Result<Conference, Problem> {
    Conference::from_jid(jid, &gate.muc_prefix, &gate.rules.domain).map_err(|error| {
        let status = match error {
            ConferenceError::Foreign { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, format!("conference: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(forwarded: &[&str], peer: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted = ["127.0.0.1", "::1", "192.0.2.7"].map(|proxy| proxy.parse().unwrap());
        client_address(&headers, peer.parse().unwrap(), &trusted).map(|found| found.to_string())
    }

    #[test]
    fn the_address_is_the_last_that_a_trusted_proxy_was_told_of() {
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(address(&[], "198.51.100.1"), found("198.51.100.1"));
        assert_eq!(address(&["203.0.113.9"], "127.0.0.1"), found("203.0.113.9"));
        assert_eq!(
            address(&["10.9.9.9, 203.0.113.9, 192.0.2.7"], "::1"),
            found("203.0.113.9")
        );
        assert_eq!(
            address(&["10.9.9.9", "203.0.113.9"], "127.0.0.1"),
            found("203.0.113.9")
        );
        assert_eq!(
            address(&["::ffff:203.0.113.9"], "::ffff:127.0.0.1"),
            found("203.0.113.9")
        );
    }

    #[test]
    fn a_strangers_header_is_not_believed() {
        assert_eq!(
            address(&["127.0.0.1"], "198.51.100.1"),
            Some("198.51.100.1".into())
        );
        assert_eq!(
            address(&["127.0.0.1, 203.0.113.9"], "192.0.2.7"),
            Some("203.0.113.9".into())
        );
    }

    #[test]
    fn the_loopback_is_nobody() {
        assert_eq!(address(&[], "127.0.0.1"), None);
        assert_eq!(address(&["127.0.0.1"], "127.0.0.1"), None);
        assert_eq!(address(&["rubbish"], "::1"), None);
    }
}
