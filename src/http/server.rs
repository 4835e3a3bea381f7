//! The accept loop: it bounds the number of connections and their time-outs, and ends them on shutdown.
//!
//! warp's own server lacks four things: a time-out for slow request heads, a bound on connections, `//conference`
//! as `/conference` (a prefix that ends in a slash is a common error in Prosody's configuration), and `TCP_NODELAY`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use warp::http::Uri;
use warp::http::uri::PathAndQuery;

use super::{Connection, Shared};
use crate::http::health::AcceptLoopHealth;

/// How long a request's head may take to arrive, and an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection that was accepted just before a shutdown may take to its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Largest request head.
const HEAD_MAX: usize = 32 * 1024;
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
    let permits = Arc::new(Semaphore::new(shared.config.server.max_connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            // The dropped accept starts again: no connection is lost.
            () = health.tick() => continue,
            accepted = accept(&listener, &permits, health) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else {
            return;
        };
        let service = TowerToHyperService::new(service.clone());
        let stop = stop.clone();
        shared.connections.spawn(async move {
            let from = Connection {
                peer,
                permit: Arc::new(permit),
            };
            let first_request = CancellationToken::new();
            let first_request_seen = first_request.clone();
            let service = service_fn(move |mut request| {
                first_request_seen.cancel();
                normalize_path(&mut request);
                request.extensions_mut().insert(from.clone());
                service.call(request)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let outcome = tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = stop.cancelled() => {
                    // A request may be on its way, and its client expects an answer.
                    let outcome = tokio::select! {
                        outcome = connection.as_mut() => Some(outcome),
                        () = first_request.cancelled() => None,
                        () = tokio::time::sleep(FIRST_REQUEST) => None,
                    };
                    match outcome {
                        Some(outcome) => outcome,
                        None => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    }
                }
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
}

/// The next connection, once there is a permit for it; until then it waits in the kernel's backlog.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    health: &AcceptLoopHealth,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                health.record_accept(Ok(()));
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was refused");
                }
                return Some((stream, peer, permit));
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
