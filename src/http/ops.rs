//! For operators: health, readiness, version, metrics.

use std::sync::Arc;

use serde_json::json;
use warp::filters::BoxedFilter;
use warp::http::header::{AUTHORIZATION, CONTENT_TYPE};
use warp::http::{HeaderMap, Method, StatusCode};
use warp::{Filter, Rejection, Reply};

use super::caller::caller;
use super::error::{ApiError, Response, json};
use super::request::{Access, READ, authorize, request, service};
use super::{Connection, Shared, either, with};
use crate::auth::service_token::Caller;
use crate::clock;
use crate::domain::scope::Scope;
use crate::metrics::{self, Snapshot};

/// `/health`, `/ready`, `/about/*` and `/metrics`. All but the last are not authenticated: load balancers ask them,
/// and they reveal nothing of conferences or users.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let open = || request(shared, READ, Access::Open);
    let health = warp::path!("health").and(open()).map(|_| health());
    let version = warp::path!("about" / "version")
        .and(open())
        .map(|_| version());
    let ready = warp::path!("ready")
        .or(warp::path!("about" / "health"))
        .unify()
        .and(open())
        .and(with(shared))
        .then(async |_, shared: Arc<Shared>| ready(&shared).await);
    let metrics = warp::path!("metrics")
        .and(metrics_access(shared))
        .and(with(shared))
        .then(async |shared: Arc<Shared>| metrics(&shared).await);
    [version.boxed(), ready.boxed(), metrics.boxed()]
        .into_iter()
        .fold(health.boxed(), either)
}

/// `GET /health`: the process is alive.
fn health() -> Response {
    json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /about/version`, as Jitsi's own services have it.
fn version() -> Response {
    let body = json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") });
    json(StatusCode::OK, &body)
}

/// `GET /ready`, and `/about/health`, where Jitsi's services have it: whether the store is writable,
/// connections are accepted, and no shutdown is under way; otherwise the reasons.
async fn ready(shared: &Shared) -> Response {
    let mut reasons = Vec::new();
    if shared.stop.is_cancelled() {
        reasons.push(("draining", "usher is shutting down.".to_owned()));
    }
    if let Err(message) = shared.accept_loop.check() {
        reasons.push(("listener", message));
    }
    let store = &shared.store_health;
    if let Err(message) = store.check(&shared.reservations, clock::now()).await {
        reasons.push(("store", message));
    }
    let list: Vec<_> = reasons
        .iter()
        .map(|(check, message)| json!({ "check": check, "message": message }))
        .collect();
    let Some((_, message)) = reasons.first() else {
        let body = json!({ "status": "ready", "reasons": list });
        return json(StatusCode::OK, &body);
    };
    let body = json!({
        "status": "not ready", "message": message, "code": "not_ready", "reasons": list,
    });
    json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// Who may read `/metrics`: as with Jitsi's services, a program of this machine without a token; every other caller
/// with a service token.
fn metrics_access(shared: &Arc<Shared>) -> BoxedFilter<()> {
    let shared = Arc::clone(shared);
    let check = move |method: Method, headers: HeaderMap, connection: Option<Connection>| {
        let shared = Arc::clone(&shared);
        async move {
            if method != Method::GET {
                return Err(warp::reject::custom(ApiError::wrong_method(READ)));
            }
            let is_local = connection.is_some_and(|it| it.peer.ip().to_canonical().is_loopback());
            let is_local = is_local && caller(&headers) == Caller::Local;
            if is_local && !headers.contains_key(AUTHORIZATION) {
                return Ok::<_, Rejection>(());
            }
            let auth = shared.service_auth.load_full();
            let required = service(&[Scope::Metrics]).required(&method);
            authorize(&auth, &headers, required, clock::now()).await
        }
    };
    warp::method()
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional())
        .and_then(check)
        .untuple_one()
        .boxed()
}

/// `GET /metrics`.
async fn metrics(shared: &Shared) -> Response {
    // Only the number is used. While it can't be read, the last one stays.
    if let Ok((_, pending)) = shared.reservations.outbox(0, 0).await {
        metrics::set_outbox_pending(pending);
    }
    let (visitors, live) = shared.sessions.load().queue.count();
    let text = metrics::render(Snapshot {
        visitors,
        live,
        connections: shared.connections.len(),
        connections_max: shared.max_connections,
    });
    warp::reply::with_header(text, CONTENT_TYPE, metrics::CONTENT_TYPE).into_response()
}
