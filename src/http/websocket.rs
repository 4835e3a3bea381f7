//! The WebSocket endpoint of the queue: the opening handshake (RFC 6455, section 4.2), the connection limits, and the
//! start of the session.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;
use tracing::field::Empty;
use tungstenite::handshake::derive_accept_key;
use warp::http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::connections::WatchedStream;
use super::error::{ApiError, Response};
use super::error_body::WithErrorBodies;
use super::request::Request;
use super::server::reserved_for_requests;
use super::{Connection, Shared};
use crate::config;
use crate::session::bounds::{self, Bound};
use crate::session::limits::{ClientAddress, LimitGuard};
use crate::session::{Session, SessionContext};
use crate::stomp::negotiate::subprotocol;

/// Longest wait for the connection after the answer to the handshake.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// The address of every client whose address cannot be parsed.
const UNKNOWN_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// `GET {path}/visitor/websocket` and the other paths: answers the handshake and starts the session. It requires no
/// token: the CONNECT frame carries it.
pub(super) fn open(
    request: &Request,
    upgrade: Option<OnUpgrade>,
    connection: Option<Connection>,
    shared: &Shared,
) -> Result<Response, ApiError> {
    let accept = accept_key(&request.headers)?;
    let (Some(upgrade), Some(connection)) = (upgrade, connection) else {
        return Err(ApiError::upgrade_required());
    };
    // Also during shutdown: the session then closes at once. Jitsi Meet's client counts a refused handshake as an
    // error, but not a close.
    if connection.available() < reserved_for_requests(shared.max_connections) {
        bounds::met(Bound::Sessions, None);
        let message = "All connections for visitors are in use; try again later, or raise server.max_connections.";
        return Err(ApiError::connection_limit(
            StatusCode::SERVICE_UNAVAILABLE,
            message,
        ));
    }
    let context = shared.sessions.load_full();
    let address = client_address(&request.headers, connection.peer.ip(), &shared.config.queue);
    let client_address = address
        .map(|address| count_connection(address, &context))
        .transpose()?;
    let sessions = shared.connections.clone();
    let runtime = shared.session_runtime.handle().clone();
    // A task of its own, which ends when the session begins: the session's task stays small.
    shared.connections.spawn(async move {
        let Connection { peer, permit } = connection;
        if let Some(session) = begin(upgrade, context, client_address).await {
            let span = tracing::debug_span!("session", %peer, conference = Empty);
            sessions.spawn_on(run(session, permit).instrument(span), &runtime);
        }
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(version) = subprotocol(&header_list(&request.headers, &SEC_WEBSOCKET_PROTOCOL)) {
        let name = HeaderValue::from_static(version.subprotocol());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(response)
}

/// Runs a session to its end, and then releases its connection permit.
async fn run(session: Arc<Session>, permit: Arc<OwnedSemaphorePermit>) {
    let end = session.run().await;
    tracing::debug!(?end, "a session ended");
    drop(permit);
}

/// Starts the session on the upgraded connection. Its socket stays registered with the runtime of the requests: moving it
/// was measured to cost a sixth more memory for each visitor.
async fn begin(
    upgrade: OnUpgrade,
    context: Arc<SessionContext>,
    client_address: Option<LimitGuard<ClientAddress>>,
) -> Option<Arc<Session>> {
    let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await else {
        tracing::debug!("no connection followed the handshake");
        return None;
    };
    // hyper's read buffer holds 8 KiB: the bytes in it, if any, are copied.
    let parts = upgraded
        .downcast::<TokioIo<WithErrorBodies<WatchedStream>>>()
        .ok()?;
    let stream = parts.io.into_inner().into_inner().into_inner();
    let received = &parts.read_buf;
    Some(Session::begin(stream, received, &context, client_address))
}

/// Counts one more connection from this address, within `queue.max_per_address`.
fn count_connection(
    address: IpAddr,
    context: &SessionContext,
) -> Result<LimitGuard<ClientAddress>, ApiError> {
    let connections = &context.limits.connections;
    connections.add(address.into(), context.settings.max_per_address).ok_or_else(|| {
        bounds::met(Bound::SessionsOfAddress, Some(address));
        let message = "Too many connections are open from this address already; try again later, or raise queue.max_per_address.";
        ApiError::connection_limit(StatusCode::TOO_MANY_REQUESTS, message)
    })
}

/// Verifies the client's handshake (RFC 6455, section 4.2.1) and computes `Sec-WebSocket-Accept`.
///
/// `tungstenite`'s `create_response` is not used: it accepts a request without `Host` and any key.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, ApiError> {
    let has_token = |name: &HeaderName, token: &str| {
        header_list(headers, name)
            .split(',')
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    };
    if !has_token(&UPGRADE, "websocket") || !has_token(&CONNECTION, "upgrade") {
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
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message).with_code("invalid_handshake"));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key.as_bytes()))
        .ok_or_else(|| {
            let message = "Sec-WebSocket-Key must be sixteen bytes in base64.";
            ApiError::new(StatusCode::BAD_REQUEST, message).with_code("invalid_handshake")
        })?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| ApiError::upgrade_required())
}

/// Whether this is the base64 form of sixteen bytes.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/');
    key.len() == 24 && key[..22].iter().all(is_digit) && key.ends_with(b"==")
}

/// All values of a header, as one comma-separated list.
fn header_list(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    values.join(",")
}

/// The client address: the right-most `X-Forwarded-For` entry that is not a trusted proxy. `None` for the loopback,
/// where nginx is: it is never counted. Entries that cannot be parsed count as 0.0.0.0, so that they cannot bypass the
/// limit.
fn client_address(headers: &HeaderMap, peer: IpAddr, config: &config::Queue) -> Option<IpAddr> {
    let mut address = peer.to_canonical();
    if config.is_trusted_proxy(address) {
        let forwarded = header_list(headers, &HeaderName::from_static("x-forwarded-for"));
        let hops = forwarded.rsplit(',').map(str::trim);
        for hop in hops.filter(|hop| !hop.is_empty()) {
            address = hop_address(hop).unwrap_or(UNKNOWN_CLIENT);
            if !config.is_trusted_proxy(address) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(forwarded: &[&str], peer: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let proxies = ["127.0.0.1/32", "::1/128", "192.0.2.7/32", "172.16.0.0/12"];
        let config = config::Queue {
            trusted_proxies: proxies.map(|proxy| proxy.parse().unwrap()).to_vec(),
            ..config::Queue::default()
        };
        client_address(&headers, peer.parse().unwrap(), &config).map(|found| found.to_string())
    }

    #[test]
    fn client_address_is_the_last_one_added_by_a_trusted_proxy() {
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
    fn forwarded_header_of_an_untrusted_peer_is_ignored() {
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
    fn proxies_of_a_trusted_network_are_skipped() {
        assert_eq!(
            address(&["203.0.113.9, 172.31.255.254"], "172.18.0.3"),
            Some("203.0.113.9".into())
        );
        assert_eq!(
            address(&["203.0.113.9"], "172.32.0.1"),
            Some("172.32.0.1".into())
        );
        // Every hop is trusted: the first one is the client.
        assert_eq!(
            address(&["172.18.0.1"], "::ffff:172.18.0.3"),
            Some("172.18.0.1".into())
        );
    }

    #[test]
    fn loopback_has_no_client_address() {
        assert_eq!(address(&[], "127.0.0.1"), None);
        assert_eq!(address(&["127.0.0.1"], "127.0.0.1"), None);
        assert_eq!(address(&["", " , "], "::1"), None);
    }

    #[test]
    fn address_may_have_a_port_or_brackets() {
        for hop in ["203.0.113.9:4711", "[::ffff:203.0.113.9]:4711"] {
            assert_eq!(address(&[hop], "127.0.0.1"), Some("203.0.113.9".into()));
        }
        for hop in ["[2001:db8::9]:4711", "[2001:db8::9]"] {
            assert_eq!(address(&[hop], "127.0.0.1"), Some("2001:db8::9".into()));
        }
    }

    #[test]
    fn unparsable_addresses_count_as_one_client() {
        for hop in ["unknown", "_hidden", "[203.0.113.9]", "203.0.113.9:port"] {
            let seen = address(&["198.51.100.1", hop], "::1");
            assert_eq!(seen, Some("0.0.0.0".into()), "{hop}");
        }
    }
}
