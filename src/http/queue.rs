//! The queue's door: WebSockets for those who wait and watch, and going live and ending live for Prosody.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
use super::error::{self, ApiError, Response};
use super::field::FieldError;
use crate::domain::conference::{Conference, ConferenceError};
use crate::domain::timestamp;
use crate::queue::{Queue, Status};
use crate::reservation::Reservations;
use crate::session::limits::LimitGuard;
use crate::session::{Session, SessionContext};
use crate::stomp::negotiate::subprotocol;
use arc_swap::ArcSwap;

/// Longest wait for the connection after the handshake was answered.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// The address of all whose address can't be read.
const UNREADABLE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The connection a request came on.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The other end of the TCP connection.
    pub(super) peer: SocketAddr,
    /// Its place among the connections there may be; an upgraded one keeps it.
    pub(super) place: Arc<OwnedSemaphorePermit>,
}

impl Connection {
    /// How many more there may be.
    fn places_left(&self) -> usize {
        self.place.semaphore().available_permits()
    }
}

/// What the queue's routes work with.
#[derive(Clone, Debug)]
pub struct Door {
    /// What sessions share.
    pub gate: Arc<ArcSwap<SessionContext>>,
    /// Where sessions are counted, to wait for them in the end.
    pub sessions: TaskTracker,
    /// Ends all sessions.
    pub stop: CancellationToken,
    /// How many places among the connections are for requests alone.
    pub kept_places: usize,
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
) -> Result<Response, ApiError> {
    let accept = accept_key(&call.headers)?;
    let (Some(upgrade), Some(connection)) = (upgrade, connection) else {
        return Err(ApiError::upgrade_required());
    };
    // Also while usher stops: the session ends at once then, with a close, which Jitsi Meet's client does not take
    // for an error, as it does a refusal.
    if connection.places_left() < door.kept_places {
        let message = "All places for those who wait are taken; try again later, or raise server.max_connections.";
        return Err(ApiError::turned_away(
            StatusCode::SERVICE_UNAVAILABLE,
            message,
        ));
    }
    let gate = door.gate.load_full();
    let address = client_address(&call.headers, connection.peer.ip(), &door.trusted_proxies);
    let caller = address.map(|address| admit(address, &gate)).transpose()?;
    let sessions = door.sessions.clone();
    // A task of its own, which is gone once the session begins: what waits should be small.
    door.sessions.spawn(async move {
        let Connection { peer, place } = connection;
        if let Some(session) = begin(upgrade, gate, caller).await {
            let span = tracing::debug_span!("session", %peer, conference = Empty);
            sessions.spawn(run(session, place).instrument(span));
        }
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

/// Runs a session to its end; its connection keeps its place as long.
async fn run(session: Arc<Session>, place: Arc<OwnedSemaphorePermit>) {
    let end = session.run().await;
    tracing::debug!(?end, "a session ended");
    drop(place);
}

/// The session on what follows the handshake.
async fn begin(
    upgrade: OnUpgrade,
    gate: Arc<SessionContext>,
    caller: Option<LimitGuard<IpAddr>>,
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
        caller,
    ))
}

/// Counts a connection from this address, if there may be one more.
fn admit(address: IpAddr, gate: &SessionContext) -> Result<LimitGuard<IpAddr>, ApiError> {
    let connections = &gate.tallies.connections;
    connections.add(address, gate.max_per_address).ok_or_else(|| {
        let message = "Too many connections are open from this address already; try again later, or raise queue.max_per_address.";
        ApiError::turned_away(StatusCode::TOO_MANY_REQUESTS, message)
    })
}

/// Checks the client's half of the handshake (RFC 6455, section 4.2.1), and answers its key.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, ApiError> {
    let says = |name: &HeaderName, word: &str| {
        listed(headers, name)
            .split(',')
            .any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if !says(&UPGRADE, "websocket") || !says(&CONNECTION, "upgrade") {
        return Err(ApiError::upgrade_required());
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(ApiError::upgrade_required());
    }
    if !headers.contains_key(HOST) {
        let message = "A handshake needs the header Host.";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key.as_bytes()))
        .ok_or_else(|| {
            let message = "Sec-WebSocket-Key must be sixteen bytes in base64.";
            ApiError::new(StatusCode::BAD_REQUEST, message)
        })?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| ApiError::upgrade_required())
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
/// the loopback, where nginx is, and others who speak for many. Those of whom a proxy writes what can't be read
/// count as one address, 0.0.0.0: else whoever gets that written would be nobody, and never be counted.
fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpAddr]) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.contains(&address.to_canonical());
    let mut address = peer.to_canonical();
    if is_trusted(&address) {
        let forwarded = listed(headers, &HeaderName::from_static("x-forwarded-for"));
        let hops = forwarded.rsplit(',').map(str::trim);
        for hop in hops.filter(|hop| !hop.is_empty()) {
            address = hop_address(hop).unwrap_or(UNREADABLE);
            if !is_trusted(&address) {
                break;
            }
        }
    }
    (!address.is_loopback()).then_some(address)
}

/// An address in `X-Forwarded-For`: alone, with a port as some proxies write it, or in brackets.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse().map(|socket: SocketAddr| socket.ip()).ok();
    let in_brackets = || {
        let inner = hop.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse().map(IpAddr::V6).ok()
    };
    let found = hop.parse().ok().or_else(with_port).or_else(in_brackets)?;
    Some(IpAddr::to_canonical(&found))
}

/// `POST {path}/golive` and `POST {path}/endlive`.
pub(super) async fn set_live(call: Call, door: &Door, live: bool) -> Result<Response, ApiError> {
    let mut members = call.members()?;
    let jid = members
        .text("conference")?
        .flatten()
        .ok_or(FieldError::Missing("conference"))?;
    let gate = door.gate.load_full();
    let conference = conference(&jid, &gate)?;
    if live {
        gate.queue.go_live(&conference, call.now).await?;
    } else {
        gate.queue.end_live(&conference).await?;
    }
    let body = json!({ "conference": conference.jid(&gate.muc_prefix), "live": live });
    Ok(error::json(StatusCode::OK, &body))
}

/// `GET {path}/conferences`: who waits and who is live; with `?conference=`, of that one alone.
pub(super) async fn conferences(
    call: Call,
    door: &Door,
    reservations: &Reservations,
) -> Result<Response, ApiError> {
    let query = call.query()?;
    query.only(&["conference"])?;
    let gate = door.gate.load_full();
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
    Ok(error::json(StatusCode::OK, &json!({ "conferences": list })))
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

fn conference(jid: &str, gate: &SessionContext) -> Result<Conference, ApiError> {
    Conference::from_jid(jid, &gate.muc_prefix, &gate.rules.domain).map_err(|error| {
        let status = match error {
            ConferenceError::Foreign { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::new(status, format!("conference: {error}"))
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
        assert_eq!(address(&["", " , "], "::1"), None);
    }

    #[test]
    fn an_address_may_have_a_port_or_brackets() {
        for hop in ["203.0.113.9:4711", "[::ffff:203.0.113.9]:4711"] {
            assert_eq!(address(&[hop], "127.0.0.1"), Some("203.0.113.9".into()));
        }
        for hop in ["[2001:db8::9]:4711", "[2001:db8::9]"] {
            assert_eq!(address(&[hop], "127.0.0.1"), Some("2001:db8::9".into()));
        }
    }

    #[test]
    fn those_whose_address_cannot_be_read_are_one() {
        for hop in ["unknown", "_hidden", "[203.0.113.9]", "203.0.113.9:port"] {
            let seen = address(&["198.51.100.1", hop], "::1");
            assert_eq!(seen, Some("0.0.0.0".into()), "{hop}");
        }
    }
}
