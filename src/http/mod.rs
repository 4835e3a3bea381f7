//! The front door: the sum of all routes, and what every request passes on its way in.

mod bookings;
mod error;
mod field;
pub mod health;
mod ops;
mod queue;
mod reservations;
pub mod server;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use warp::filters::BoxedFilter;
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode};
use warp::{Filter, Rejection, Stream};

use crate::auth::service_token::{AuthError, ServiceAuth};
use crate::clock;
use crate::http::health::AcceptLoopHealth;
use crate::reservation::Reservations;
use arc_swap::ArcSwap;
use error::{ApiError, Response, recover, settle};
use field::{FieldError, Form, Members};
use ops::Readiness;
use queue::Connection;
pub use queue::Door;
use reservations::Clocks;

/// Largest body that is read; a booking is under a kilobyte.
const BODY_MAX: usize = 64 * 1024;
/// Of a larger body so much is thrown away before the answer: a client that is still sending would
/// otherwise see a broken connection instead of the answer.
const DRAIN_MAX: usize = 4 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const READ: &[Method] = &[Method::GET];
const CREATE: &[Method] = &[Method::POST];
const READ_END: &[Method] = &[Method::GET, Method::DELETE];
const READ_CREATE: &[Method] = &[Method::GET, Method::POST];
const READ_CHANGE_END: &[Method] = &[Method::GET, Method::PUT, Method::PATCH, Method::DELETE];

/// What the routes work with.
#[derive(Clone, Debug)]
pub struct Api {
    /// The reservations.
    pub reservations: Reservations,
    /// Who may call.
    pub guard: Arc<ArcSwap<ServiceAuth>>,
    /// The XMPP domain that room names belong to.
    pub domain: Arc<str>,
    /// The queue.
    pub door: Door,
    /// `queue.path`.
    pub queue_path: Arc<str>,
    /// How the accept loop is.
    pub pulse: AcceptLoopHealth,
    /// `server.max_connections`.
    pub max_connections: usize,
}

/// A request that was let in.
#[derive(Debug)]
struct Call {
    method: Method,
    headers: HeaderMap,
    query: String,
    body: Bytes,
    now: DateTime<Utc>,
}

impl Call {
    /// The body, as a form.
    fn form(&self, wanted: &str) -> Result<Form, ApiError> {
        if !error::is_type(&self.headers, "application/x-www-form-urlencoded") {
            return Err(ApiError::wrong_type(wanted));
        }
        Ok(Form::parse(&self.body)?)
    }

    /// The body, as a JSON object.
    fn members(&self) -> Result<Members, ApiError> {
        if !error::is_type(&self.headers, "application/json") {
            return Err(ApiError::wrong_type("application/json"));
        }
        Ok(Members::parse(&self.body)?)
    }

    fn query(&self) -> Result<Form, FieldError> {
        Form::parse(self.query.as_bytes())
    }
}

/// Every route, and the one answer to what none of them takes.
pub fn routes(api: Api) -> BoxedFilter<(Response,)> {
    let Api {
        reservations,
        guard,
        domain,
        door,
        queue_path,
        pulse,
        max_connections,
    } = api;
    let open = |methods| endpoint(methods, None);
    let guarded = |methods| endpoint(methods, Some((guard.clone(), StatusCode::UNAUTHORIZED)));
    let with = |reservations: &Reservations| {
        let reservations = reservations.clone();
        warp::any().map(move || reservations.clone())
    };
    let here = |domain: &Arc<str>| {
        let domain = Arc::clone(domain);
        warp::any().map(move || Arc::clone(&domain))
    };
    let at_door = {
        let door = door.clone();
        warp::any().map(move || door.clone())
    };
    let readiness = Arc::new(Readiness::new(
        reservations.clone(),
        pulse,
        door.stop.clone(),
    ));

    let clocks = Arc::<Clocks>::default();
    let create = warp::path!("conference")
        .and(guarded(CREATE))
        .and(with(&reservations))
        .and(at_door.clone())
        .and(here(&domain))
        .and(warp::any().map(move || Arc::clone(&clocks)))
        .then(
            async |call, reservations, door: Door, domain: Arc<str>, clocks: Arc<Clocks>| {
                let gate = door.gate.load_full();
                let queue = &gate.queue;
                settle(reservations::create(call, reservations, queue, &domain, &clocks).await)
            },
        );
    let conference = warp::path!("conference" / String)
        .and(guarded(READ_END))
        .and(with(&reservations))
        .and(at_door)
        .then(async |id, call, reservations, door: Door| {
            let gate = door.gate.load_full();
            settle(reservations::one(id, call, reservations, &gate.queue).await)
        });
    let bookings = warp::path!("api" / "v1" / "bookings")
        .and(guarded(READ_CREATE))
        .and(with(&reservations))
        .and(here(&domain))
        .then(async |call, reservations, domain: Arc<str>| {
            settle(bookings::all(call, reservations, &domain).await)
        });
    let booking = warp::path!("api" / "v1" / "bookings" / String)
        .and(guarded(READ_CHANGE_END))
        .and(with(&reservations))
        .and(here(&domain))
        .then(async |id, call, reservations, domain: Arc<str>| {
            settle(bookings::one(id, call, reservations, &domain).await)
        });
    let decisions = warp::path!("api" / "v1" / "decisions")
        .and(guarded(READ))
        .and(with(&reservations))
        .then(async |call, reservations| settle(ops::decisions(call, reservations).await));
    let outbox = warp::path!("api" / "v1" / "outbox")
        .and(guarded(READ))
        .and(with(&reservations))
        .then(async |call, reservations| settle(ops::outbox(call, reservations).await));
    let health = warp::path!("health").and(open(READ)).map(|_| ops::health());
    let metrics = warp::path!("metrics")
        .and(metrics_guard(&guard))
        .and(with(&reservations))
        .then({
            let door = door.clone();
            move |reservations| {
                let door = door.clone();
                async move { ops::metrics(reservations, &door, max_connections).await }
            }
        });
    let version = warp::path!("about" / "version")
        .and(open(READ))
        .map(|_| ops::version());
    let ready = warp::path!("ready")
        .or(warp::path!("about" / "health"))
        .unify()
        .and(open(READ))
        .then(move |call| {
            let readiness = Arc::clone(&readiness);
            async move { ops::ready(call, &readiness).await }
        });

    let queue = queue_routes(&queue_path, &door, &guard, &reservations);

    // Boxed: each request clones all that it may not be for, and a box is cloned in one step.
    create
        .boxed()
        .or(queue)
        .unify()
        .or(conference.boxed())
        .unify()
        .or(bookings.boxed())
        .unify()
        .or(booking.boxed())
        .unify()
        .or(decisions.boxed())
        .unify()
        .or(outbox.boxed())
        .unify()
        .or(health.boxed())
        .unify()
        .or(metrics.boxed())
        .unify()
        .or(version.boxed())
        .unify()
        .or(ready.boxed())
        .unify()
        .recover(recover)
        .unify()
        .boxed()
}

/// The routes under `queue.path`.
fn queue_routes(
    path: &str,
    door: &Door,
    guard: &Arc<ArcSwap<ServiceAuth>>,
    reservations: &Reservations,
) -> BoxedFilter<(Response,)> {
    let base = path
        .split('/')
        .filter(|part| !part.is_empty())
        .fold(warp::any().boxed(), |base, part| {
            base.and(warp::path(part.to_owned())).boxed()
        });
    let door = {
        let door = door.clone();
        warp::any().map(move || door.clone())
    };
    // A user's token is a good one, and may not do this.
    let guarded = |methods| endpoint(methods, Some((guard.clone(), StatusCode::FORBIDDEN)));
    let reservations = reservations.clone();

    // The path doesn't matter to a session: the destination decides what role it takes.
    let topic = warp::path("visitor")
        .or(warp::path("state"))
        .unify()
        .or(warp::path("moderator"))
        .unify();
    let end = warp::path!("websocket").or(warp::path::end()).unify();
    let open = base
        .clone()
        .and(topic)
        .and(end)
        .and(endpoint(READ, None))
        .and(warp::ext::optional())
        .and(warp::ext::optional())
        .and(door.clone())
        .map(|call, upgrade, connection, door| {
            settle(websocket::open(&call, upgrade, connection, door))
        });
    let go = base
        .clone()
        .and(warp::path!("golive"))
        .and(guarded(CREATE))
        .and(door.clone())
        .then(async |call, door| settle(queue::set_live(call, &door, true).await));
    let end = base
        .clone()
        .and(warp::path!("endlive"))
        .and(guarded(CREATE))
        .and(door.clone())
        .then(async |call, door| settle(queue::set_live(call, &door, false).await));
    let list = base
        .and(warp::path!("conferences"))
        .and(guarded(READ))
        .and(door)
        .then(move |call, door: Door| {
            let reservations = reservations.clone();
            async move { settle(queue::conferences(call, &door, &reservations).await) }
        });
    open.boxed()
        .or(go.boxed())
        .unify()
        .or(end.boxed())
        .unify()
        .or(list.boxed())
        .unify()
        .boxed()
}

/// What `/metrics` asks: as Jitsi's services do, nothing of a caller on this machine, unless a proxy
/// speaks for another; of everybody else a service token.
fn metrics_guard(guard: &Arc<ArcSwap<ServiceAuth>>) -> BoxedFilter<()> {
    let guard = guard.clone();
    warp::method()
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional())
        .and_then(
            move |method: Method, headers: HeaderMap, connection: Option<Connection>| {
                let guard = guard.clone();
                async move {
                    if method != Method::GET {
                        return Err(warp::reject::custom(ApiError::wrong_method(READ)));
                    }
                    let here =
                        connection.is_some_and(|it| it.peer.ip().to_canonical().is_loopback());
                    if here && !is_proxied(&headers) && !headers.contains_key(AUTHORIZATION) {
                        return Ok(());
                    }
                    let admitted = authorize(&guard.load_full(), &headers, clock::now()).await;
                    let refused = |it| ApiError::refused(&it, StatusCode::UNAUTHORIZED);
                    admitted.map_err(|it| warp::reject::custom(refused(it)))
                }
            },
        )
        .untuple_one()
        .boxed()
}

async fn authorize(
    auth: &ServiceAuth,
    headers: &HeaderMap,
    now: DateTime<Utc>,
) -> Result<(), AuthError> {
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    auth.authorize(authorization, is_proxied(headers), now)
        .await
}

/// Whether a proxy forwarded the request.
fn is_proxied(headers: &HeaderMap) -> bool {
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip"];
    proxied.iter().any(|name| headers.contains_key(*name))
}

/// What every route asks after its path: the method, the service token where a guard stands, and only
/// then the body, within its bounds.
fn endpoint(
    methods: &'static [Method],
    guard: Option<(Arc<ArcSwap<ServiceAuth>>, StatusCode)>,
) -> BoxedFilter<(Call,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::header::headers_cloned())
        .and_then(move |method: Method, headers: HeaderMap| {
            let guard = guard.clone();
            async move {
                if !methods.contains(&method) {
                    return Err(warp::reject::custom(ApiError::wrong_method(methods)));
                }
                let now = clock::now();
                if let Some((guard, to_users)) = guard {
                    let admitted = authorize(&guard.load_full(), &headers, now).await;
                    let refused = |refusal| ApiError::refused(&refusal, to_users);
                    admitted.map_err(|refusal| warp::reject::custom(refused(refusal)))?;
                }
                Ok((method, headers, now))
            }
        })
        .and(query)
        .and(warp::body::stream())
        .and_then(async |(method, headers, now), query, body| {
            let body = read(body).await?;
            Ok::<_, Rejection>(Call {
                method,
                headers,
                query,
                body,
                now,
            })
        })
        .boxed()
}

/// Reads a body to its end, up to [`BODY_MAX`].
async fn read<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, Rejection> {
    let incomplete = || {
        let message = "The body did not arrive whole; send it again.";
        warp::reject::custom(ApiError::new(StatusCode::BAD_REQUEST, message))
    };
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::new();
    let mut length = 0;
    let reading = async {
        while let Some(chunk) = next(&mut body).await {
            let mut chunk = chunk.map_err(|_| incomplete())?;
            length += chunk.remaining();
            if length > DRAIN_MAX {
                break;
            }
            if length <= BODY_MAX {
                whole.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
            }
        }
        Ok::<_, Rejection>(())
    };
    tokio::time::timeout(BODY_TIMEOUT, reading)
        .await
        .map_err(|_| {
            let message = "The body did not arrive in time; send it again.";
            warp::reject::custom(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
        })??;
    if length > BODY_MAX {
        return Err(warp::reject::custom(ApiError::too_large(BODY_MAX)));
    }
    Ok(whole.freeze())
}

async fn next<S: Stream>(stream: &mut std::pin::Pin<&mut S>) -> Option<S::Item> {
    std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream;
    use warp::Reply;

    use super::*;

    /// The status that a body which can't be read is answered with.
    async fn refused(body: impl Stream<Item = Result<Bytes, warp::Error>>) -> StatusCode {
        let rejection = read(body).await.unwrap_err();
        let problem = rejection.find::<ApiError>().unwrap().clone();
        problem.into_response().status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_in_time_is_given_up() {
        assert_eq!(
            refused(stream::pending()).await,
            StatusCode::REQUEST_TIMEOUT
        );
    }

    #[tokio::test]
    async fn of_a_body_without_an_end_only_so_much_is_thrown_away() {
        const CHUNK: usize = 16 * 1024;
        let sent = AtomicUsize::new(0);
        let endless = stream::repeat_with(|| {
            sent.fetch_add(CHUNK, Ordering::Relaxed);
            Ok(Bytes::from_static(&[0; CHUNK]))
        });
        assert_eq!(refused(endless).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(sent.into_inner(), DRAIN_MAX + CHUNK);
    }
}
