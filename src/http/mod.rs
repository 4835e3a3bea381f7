//! The routes. Each resource has a file with its own `routes()`; this one has their sum and what they share.

mod bookings;
mod caller;
mod conferences;
mod connections;
mod decisions;
mod error;
mod error_body;
mod form;
pub mod health;
mod ops;
mod outbox;
mod page;
mod precondition;
mod prosody;
mod queue;
mod request;
mod reservations;
pub mod server;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter;
use warp::filters::BoxedFilter;

use crate::auth::service_token::ServiceAuth;
use crate::config::Config;
use crate::prosody::Prosody;
use crate::reservation::Reservations;
use crate::session::SessionContext;
use crate::session::runtime::SessionRuntime;
use error::{Response, recover};
use health::{AcceptLoopHealth, StoreHealth};
use reservations::ClockSkew;

/// What the routes share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration as it was at the start: the keys that need a restart.
    pub config: Config,
    /// The reservations.
    pub reservations: Reservations,
    /// The rooms that usher's modules for Prosody report.
    pub prosody: Prosody,
    /// Authorizes callers; replaced by a reload.
    pub service_auth: ArcSwap<ServiceAuth>,
    /// What sessions share, the queue among it; replaced by a reload.
    pub sessions: ArcSwap<SessionContext>,
    /// `server.max_connections`, or fewer where the system allows fewer open files.
    pub max_connections: usize,
    /// The threads of the sessions.
    pub session_runtime: SessionRuntime,
    /// Whether connections are accepted.
    pub accept_loop: AcceptLoopHealth,
    /// The connections and sessions, counted, so that a stop can wait for them.
    pub connections: TaskTracker,
    /// Ends the accept loop and all sessions.
    pub stop: CancellationToken,
    store_health: StoreHealth,
    clock_skew: ClockSkew,
}

impl Shared {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        config: Config,
        reservations: Reservations,
        prosody: Prosody,
        service_auth: ServiceAuth,
        sessions: SessionContext,
        session_runtime: SessionRuntime,
        max_connections: usize,
    ) -> Self {
        Self {
            config,
            reservations,
            prosody,
            service_auth: ArcSwap::from_pointee(service_auth),
            sessions: ArcSwap::from_pointee(sessions),
            max_connections,
            session_runtime,
            accept_loop: AcceptLoopHealth::default(),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
            store_health: StoreHealth::default(),
            clock_skew: ClockSkew::default(),
        }
    }
}

/// The connection a request came on.
#[derive(Clone, Debug)]
struct Connection {
    /// The other end of the TCP connection.
    peer: SocketAddr,
    /// Its permit among `server.max_connections`; an upgraded connection keeps it.
    permit: Arc<OwnedSemaphorePermit>,
}

impl Connection {
    /// How many more connections there may be.
    fn available(&self) -> usize {
        self.permit.semaphore().available_permits()
    }
}

/// Every route, and the one answer to a request that no route accepts.
pub(crate) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let resources = [
        queue::routes(shared),
        bookings::routes(shared),
        decisions::routes(shared),
        outbox::routes(shared),
        ops::routes(shared),
        prosody::routes(shared),
        conferences::routes(shared),
    ];
    resources
        .into_iter()
        .fold(reservations::routes(shared), either)
        .recover(recover)
        .unify()
        .boxed()
}

/// The first of two routes that accepts a request. Boxed: each request clones all routes before its own, and a box
/// is cloned in one step.
fn either(
    one: BoxedFilter<(Response,)>,
    other: BoxedFilter<(Response,)>,
) -> BoxedFilter<(Response,)> {
    one.or(other).unify().boxed()
}

/// Hands a handler what it shares with others.
fn with(shared: &Arc<Shared>) -> BoxedFilter<(Arc<Shared>,)> {
    let shared = Arc::clone(shared);
    warp::any().map(move || Arc::clone(&shared)).boxed()
}
