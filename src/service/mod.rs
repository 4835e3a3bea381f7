//! The service as a whole: started, reloaded, stopped.

pub mod build;
mod health;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::service_token::ServiceAuth;
use crate::config::Config;
use crate::http::health::AcceptLoopHealth;
use crate::http::{self, Api, Door};
use crate::metrics;
use crate::queue::Queue;
use crate::reservation::Reservations;
use crate::session::SessionContext;
use crate::session::limits::ConnectionLimits;
use crate::session::timer_wheel::TimerWheel;
use arc_swap::ArcSwap;
pub use build::ServeError;
use build::{open_store, queue_settings, reservations, secret, service_auth, session_context};
pub use health::Liveness;

/// A service that runs. It goes on when this is dropped; [`Service::stop`] ends it.
#[derive(Debug)]
pub struct Service {
    config: Config,
    /// Whether only this machine can reach the socket, whatever the configuration says of another.
    on_loopback: bool,
    reservations: Reservations,
    queue: Queue,
    guard: Arc<ArcSwap<ServiceAuth>>,
    gate: Arc<ArcSwap<SessionContext>>,
    tallies: ConnectionLimits,
    rounds: Arc<TimerWheel>,
    pulse: AcceptLoopHealth,
    stop: CancellationToken,
    connections: TaskTracker,
    loops: TaskTracker,
}

/// Serves on `listener` as `config` says, until `shutdown` is ready and what is under way has ended,
/// or `server.shutdown_grace` has passed.
///
/// # Errors
///
/// [`ServeError`] if it can't start. Once it serves, nothing ends it but `shutdown`.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let service = Service::start(listener, config).await?;
    shutdown.await;
    service.stop().await;
    Ok(())
}

impl Service {
    /// Begins to serve on `listener` as `config` says.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if it can't.
    pub async fn start(listener: TcpListener, config: Config) -> Result<Self, ServeError> {
        metrics::init();
        let store = open_store(&config).await?;
        let reservations = reservations(&config, store.clone())?;
        let queue = Queue::new(store, queue_settings(&config));
        // Nobody is refused for want of an order.
        if let Err(error) = queue.restore_places().await {
            tracing::warn!(%error, "the order of those who waited is lost");
        }
        // Nobody is told of a conference that is live that it isn't.
        let pause = queue.sync_now().await;
        let mut guard = service_auth(&config, secret(&config)?.as_ref())?;
        let address = listener.local_addr().unwrap_or(config.server.listen);
        let on_loopback = address.ip().to_canonical().is_loopback();
        guard.open &= on_loopback;
        tracing::info!(%address, domain = config.xmpp.domain, "usher serves");
        if guard.open {
            tracing::warn!(
                "no service token is configured: callers on this machine are let in without one; set auth.service.tokens to close this"
            );
        }
        let (tallies, rounds) = (ConnectionLimits::default(), Arc::new(TimerWheel::default()));
        let gate = session_context(
            &config,
            queue.clone(),
            &guard,
            tallies.clone(),
            Arc::clone(&rounds),
        );
        let service = Self {
            on_loopback,
            reservations,
            queue,
            guard: Arc::new(ArcSwap::from_pointee(guard)),
            gate: Arc::new(ArcSwap::from_pointee(gate)),
            tallies,
            rounds,
            pulse: AcceptLoopHealth::default(),
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
            loops: TaskTracker::new(),
            config,
        };
        service.spawn_background_tasks(pause);
        service.spawn_http_server(listener);
        Ok(service)
    }

    fn spawn_background_tasks(&self, pause: Duration) {
        let (keeper, stopped) = (self.reservations.clone(), self.stop.clone());
        self.loops.spawn(async move { keeper.run(stopped).await });
        let (keeper, stopped) = (self.queue.clone(), self.stop.clone());
        self.loops
            .spawn(async move { keeper.run(pause, stopped).await });
        let (rounds, stopped) = (Arc::clone(&self.rounds), self.stop.clone());
        self.loops.spawn(async move { rounds.go(stopped).await });
    }

    fn spawn_http_server(&self, listener: TcpListener) {
        let config = &self.config;
        let limit = config.server.max_connections;
        let door = Door {
            gate: self.gate.clone(),
            sessions: self.connections.clone(),
            stop: self.stop.clone(),
            kept_places: http::server::kept_for_requests(limit),
            trusted_proxies: config.queue.trusted_proxies.as_slice().into(),
        };
        let api = Api {
            reservations: self.reservations.clone(),
            guard: self.guard.clone(),
            domain: config.xmpp.domain.as_str().into(),
            door,
            queue_path: config.queue.path.as_str().into(),
            pulse: self.pulse.clone(),
            max_connections: limit,
        };
        let (stop, connections) = (self.stop.clone(), self.connections.clone());
        self.loops
            .spawn(http::server::run(listener, api, limit, stop, connections));
    }

    /// Takes over what can change without a restart: tokens and keys, and the limits of the queue. Names
    /// the keys of the configuration that changed and can't. Sessions that are open go on as they began.
    ///
    /// # Errors
    ///
    /// [`ServeError`] for a key that can't be used; nothing was changed then.
    pub fn reload(&mut self, config: Config) -> Result<Vec<&'static str>, ServeError> {
        let mut guard = service_auth(&config, secret(&config)?.as_ref())?;
        guard.open &= self.on_loopback;
        let (now, then) = (&config.auth, &self.config.auth);
        if (&now.key_server, &now.jwks_url, now.key_cache)
            == (&then.key_server, &then.jwks_url, then.key_cache)
        {
            // Keys that were fetched stay: their server may be down just now.
            guard.verifier = guard.verifier.fetching_as(&self.guard.load_full().verifier);
        }
        let left = self.config.needs_restart(&config);
        let config = self.config.reloaded(config);
        guard.rules.domain = config.xmpp.domain.as_str().into();
        let (tallies, rounds) = (self.tallies.clone(), Arc::clone(&self.rounds));
        self.queue.reload(queue_settings(&config));
        let gate = session_context(&config, self.queue.clone(), &guard, tallies, rounds);
        self.gate.store(Arc::new(gate));
        self.guard.store(Arc::new(guard));
        self.config = config;
        Ok(left)
    }

    /// What tells whether it lives.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        Liveness::new(self.reservations.clone(), self.pulse.clone())
    }

    /// Stops: takes no more connections, lets those under way end, for `server.shutdown_grace` at most.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.stop.cancel();
        self.loops.close();
        self.connections.close();
        let drained = async { tokio::join!(self.loops.wait(), self.connections.wait()) };
        let grace = self.config.server.shutdown_grace;
        if timeout(grace, drained).await.is_err() {
            tracing::warn!(
                left = self.connections.len(),
                "server.shutdown_grace has passed; leaving anyway"
            );
        }
        match self.queue.save_places().await {
            Ok(0) => {}
            Ok(places) => tracing::info!(places, "the order of those who wait is kept"),
            Err(error) => tracing::warn!(%error, "the order of those who wait is lost"),
        }
        self.reservations.close().await;
    }
}
