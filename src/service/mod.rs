//! The service as a whole: started, reloaded, stopped.

pub mod build;
mod health;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::http::{self, Shared};
use crate::metrics;
use crate::queue::Queue;
use crate::session::limits::ConnectionLimits;
use crate::session::timer_wheel::TimerWheel;
pub use build::ServeError;
use build::{open_store, reservations, secret, service_auth, session_context};
pub use health::Liveness;

/// A service that runs. It goes on when this is dropped; [`Service::stop`] ends it.
#[derive(Debug)]
pub struct Service {
    config: Config,
    /// Whether only this machine can reach the socket, whatever the configuration says of another.
    on_loopback: bool,
    shared: Arc<Shared>,
    queue: Queue,
    tallies: ConnectionLimits,
    rounds: Arc<TimerWheel>,
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
        let queue = Queue::new(store, config.queue.clone(), &config.xmpp.muc_prefix);
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
            shared: Arc::new(Shared::new(config.clone(), reservations, guard, gate)),
            queue,
            tallies,
            rounds,
            loops: TaskTracker::new(),
            config,
        };
        service.spawn_background_tasks(pause);
        service.spawn_http_server(listener);
        Ok(service)
    }

    fn spawn_background_tasks(&self, pause: Duration) {
        let (keeper, stopped) = (self.shared.reservations.clone(), self.shared.stop.clone());
        self.loops.spawn(async move { keeper.run(stopped).await });
        let (keeper, stopped) = (self.queue.clone(), self.shared.stop.clone());
        self.loops
            .spawn(async move { keeper.run(pause, stopped).await });
        let (rounds, stopped) = (Arc::clone(&self.rounds), self.shared.stop.clone());
        self.loops.spawn(async move { rounds.go(stopped).await });
    }

    fn spawn_http_server(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.loops.spawn(http::server::run(listener, shared));
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
            guard.verifier = guard
                .verifier
                .with_key_servers_of(&self.shared.service_auth.load_full().verifier);
        }
        let (config, left) = self.config.reload(config);
        guard.rules.domain = config.xmpp.domain.as_str().into();
        let (tallies, rounds) = (self.tallies.clone(), Arc::clone(&self.rounds));
        self.queue.reload(config.queue.clone());
        let gate = session_context(&config, self.queue.clone(), &guard, tallies, rounds);
        self.shared.sessions.store(Arc::new(gate));
        self.shared.service_auth.store(Arc::new(guard));
        self.config = config;
        Ok(left)
    }

    /// What tells whether it lives.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        Liveness::new(
            self.shared.reservations.clone(),
            self.shared.accept_loop.clone(),
        )
    }

    /// Stops: takes no more connections, lets those under way end, for `server.shutdown_grace` at most.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.shared.stop.cancel();
        self.loops.close();
        self.shared.connections.close();
        let drained = async { tokio::join!(self.loops.wait(), self.shared.connections.wait()) };
        let grace = self.config.server.shutdown_grace;
        if timeout(grace, drained).await.is_err() {
            tracing::warn!(
                left = self.shared.connections.len(),
                "server.shutdown_grace has passed; leaving anyway"
            );
        }
        match self.queue.save_places().await {
            Ok(0) => {}
            Ok(places) => tracing::info!(places, "the order of those who wait is kept"),
            Err(error) => tracing::warn!(%error, "the order of those who wait is lost"),
        }
        self.shared.reservations.close().await;
    }
}
