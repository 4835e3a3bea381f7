//! The accept loop: it bounds the number of connections and their time-outs, and ends them on shutdown.
//!
//! warp's own server lacks four things: time-outs, bounds on connections, `//conference` as `/conference` (a prefix
//! that ends in a slash is a common error in Prosody's configuration), and `TCP_NODELAY`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use warp::http::header::UPGRADE;
use warp::http::uri::PathAndQuery;
use warp::http::{Method, Uri};

use super::connections::Connections;
use super::error_body::WithErrorBodies;
use super::{Connection, Shared};
use crate::http::health::AcceptLoopHealth;

/// How long a connection that was accepted just before a shutdown may take to its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Largest request head: a token of 16 KiB is the largest that is verified, and real ones are far smaller.
const HEAD_MAX: usize = 16 * 1024;
/// No more connections than this are reserved for requests.
const RESERVED_MAX: usize = 100;
/// Pause after a failed accept, mostly for lack of file descriptors: other connections must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How many of `max_connections` are reserved for requests: visitors must not block Prosody and the operator.
#[must_use]
pub fn reserved_for_requests(max_connections: usize) -> usize {
    (max_connections / 20).min(RESERVED_MAX)
}

/// Serves on `listener` until `shared.stop`; then requests that are under way finish. The caller waits for them through
/// `shared.connections`. A connection's permit is released when it ends, or, after an upgrade, when its session ends.
pub async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let service = warp::service(super::routes(&shared));
    let (health, stop) = (&shared.accept_loop, &shared.stop);
    let open = track(&shared);
    let permits = Arc::new(Semaphore::new(shared.max_connections));
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = stop.cancelled() => return,
            // The dropped accept starts again: no connection is lost.
            () = health.tick() => continue,
            accepted = accept(&listener, &permits, &open, health) => accepted,
        };
        let Some(tracked) = open.add(peer.ip(), is_limited(peer, &shared)) else {
            continue;
        };
        let service = TowerToHyperService::new(service.clone());
        let stop = stop.clone();
        shared.connections.spawn(async move {
            let permit = Arc::new(permit);
            let from = Connection { peer, permit };
            let first_request = CancellationToken::new();
            let first_request_seen = first_request.clone();
            let requests = tracked.requests();
            let service = service_fn(move |mut request| {
                first_request_seen.cancel();
                normalize_path(&mut request);
                head_as_get(&mut request);
                request.extensions_mut().insert(from.clone());
                requests.during(service.call(request))
            });
            let stream = TokioIo::new(WithErrorBodies::new(tracked.watch(stream)));
            // A client may end its side after the request, and waits for the answer.
            let connection = hyper::server::conn::http1::Builder::new()
                .half_close(true)
                .max_buf_size(HEAD_MAX)
                .serve_connection(stream, service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let served = async {
                tokio::select! {
                    outcome = connection.as_mut() => return outcome,
                    () = stop.cancelled() => {}
                }
                // A request may be on its way, and its client expects an answer.
                tokio::select! {
                    outcome = connection.as_mut() => return outcome,
                    () = first_request.cancelled() => {}
                    () = tokio::time::sleep(FIRST_REQUEST) => {}
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            };
            tokio::select! {
                outcome = served => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "a connection broke");
                    }
                }
                () = tracked.ended() => {}
            }
        });
    }
}

/// The tracked connections, whose time-outs are checked until the stop.
fn track(shared: &Shared) -> Arc<Connections> {
    let max_per_address = shared.config.server.max_per_address;
    let open = Arc::new(Connections::new(shared.max_connections, max_per_address));
    let (checked, stop) = (Arc::clone(&open), shared.stop.clone());
    tokio::spawn(async move { checked.check_loop(stop).await });
    open
}

/// Whether the connections of this address are limited. The loopback and proxies stand for many clients.
fn is_limited(peer: SocketAddr, shared: &Shared) -> bool {
    let address = peer.ip().to_canonical();
    !address.is_loopback() && !shared.config.queue.is_trusted_proxy(address)
}

/// Waits until there is room for one more connection. Ones that do nothing make room for it before it arrives.
async fn room(permits: &Arc<Semaphore>, open: &Connections) -> OwnedSemaphorePermit {
    loop {
        if open.has_room()
            && let Ok(permit) = Arc::clone(permits).try_acquire_owned()
        {
            return permit;
        }
        open.make_room();
        open.changed().await;
    }
}

/// The next connection, once there is room for it; until then it waits in the kernel's backlog.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    open: &Connections,
    health: &AcceptLoopHealth,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = room(permits, open).await;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                health.record_accept(Ok(()));
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was refused");
                }
                return (stream, peer, permit);
            }
            // The service goes on after every kind of error.
            Err(error) => {
                health.record_accept(Err(&error));
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Collapses repeated slashes and drops a trailing one: `//conference` becomes `/conference`.
fn normalize_path<B>(request: &mut hyper::Request<B>) {
    let path = request.uri().path();
    if !path.contains("//") && (path == "/" || !path.ends_with('/')) {
        return;
    }
    let mut single: String = path
        .split('/')
        .filter(|part| !part.is_empty())
        .flat_map(|part| ["/", part])
        .collect();
    if single.is_empty() {
        single.push('/');
    }
    if let Some(query) = request.uri().query() {
        single = format!("{single}?{query}");
    }
    let mut parts = request.uri().clone().into_parts();
    if let Ok(path) = single.parse::<PathAndQuery>() {
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// HEAD is answered like GET (RFC 9110, section 9.3.2); hyper leaves out the body. A handshake is no such request.
fn head_as_get<B>(request: &mut hyper::Request<B>) {
    if request.method() == Method::HEAD && !request.headers().contains_key(UPGRADE) {
        *request.method_mut() = Method::GET;
    }
}

#[cfg(test)]
mod tests {
    use super::normalize_path;

    #[test]
    fn slashes_are_taken_once() {
        for (sent, meant) in [
            ("//conference", "/conference"),
            ("/conference/", "/conference"),
            ("//conference//7.0?a=b//c", "/conference/7.0?a=b//c"),
            ("/", "/"),
            ("//", "/"),
            ("/a/b", "/a/b"),
        ] {
            let mut request = hyper::Request::builder().uri(sent).body(()).unwrap();
            normalize_path(&mut request);
            assert_eq!(request.uri().to_string(), meant, "{sent}");
        }
    }
}
