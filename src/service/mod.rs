//! The service as a whole: start, reload, stop.

pub mod build;
mod health;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::config::{self, Config};
use crate::http::{self, Shared};
use crate::prosody::Prosody;
use crate::queue::Queue;
use crate::reservation::Reservations;
use crate::session::limits::ConnectionLimits;
use crate::session::runtime::SessionRuntime;
use crate::store::Store;
use crate::{clock, lifecycle, metrics};
pub use build::ServeError;
use build::{open_store_to_serve, secret, service_auth, session_context};
pub use health::Liveness;

/// A running service. It continues when this is dropped; [`Service::stop`] ends it.
#[derive(Debug)]
pub struct Service {
    config: Config,
    /// Whether the socket is reachable from this machine only. A socket of systemd may differ from `server.listen`.
    is_on_loopback: bool,
    shared: Arc<Shared>,
    queue: Queue,
    store: Store,
    background_tasks: TaskTracker,
}

/// Serves on `listener` until `shutdown` is ready, then until the open requests and sessions have ended or
/// `server.shutdown_grace` has passed.
///
/// # Errors
///
/// [`ServeError`] if the service can't start. After the start, only `shutdown` ends it.
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
    /// Starts the service on `listener`.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if a part can't be built.
    pub async fn start(listener: TcpListener, config: Config) -> Result<Self, ServeError> {
        metrics::init();
        let store = open_store_to_serve(&config).await?;
        let section = Arc::new(config.reservations.clone());
        let reservations = Reservations::new(store.clone(), section)?;
        let address = listener.local_addr().unwrap_or(config.server.listen);
        let is_on_loopback = address.ip().to_canonical().is_loopback();
        let mut auth = service_auth(&config, secret(&config)?.as_ref())?;
        auth.open &= is_on_loopback;
        let queue = Queue::new(store.clone(), config.queue.clone(), &config.xmpp.muc_prefix);
        let next_sync = load_queue(&queue).await;
        let prosody = Prosody::new(
            reservations.clone(),
            queue.clone(),
            config.prosody.clone(),
            config.xmpp.clone(),
            clock::now(),
        );
        prosody.restore().await;
        tracing::info!(%address, domain = config.xmpp.domain, "listening");
        if auth.open {
            tracing::warn!(
                "no service token is configured: callers on this machine need none; set auth.service.tokens to require one"
            );
        }
        let limits = ConnectionLimits::default();
        let sessions = session_context(&config, queue.clone(), &auth, limits, Arc::default());
        let runtime = SessionRuntime::start().map_err(ServeError::Threads)?;
        let max = lifecycle::connections_within_file_limit(config.server.max_connections);
        let shared = Shared::new(
            config.clone(),
            reservations,
            prosody,
            auth,
            sessions,
            runtime,
            max,
        );
        let service = Self {
            is_on_loopback,
            shared: Arc::new(shared),
            queue,
            store,
            background_tasks: TaskTracker::new(),
            config,
        };
        service.spawn_background_tasks(next_sync);
        service.spawn_http_server(listener);
        Ok(service)
    }

    fn spawn_background_tasks(&self, next_sync: Duration) {
        let tasks = &self.background_tasks;
        let (reservations, stop) = (self.shared.reservations.clone(), self.shared.stop.clone());
        tasks.spawn(async move { reservations.run(stop).await });
        let (queue, stop) = (self.queue.clone(), self.shared.stop.clone());
        tasks.spawn(async move { queue.run(next_sync, stop).await });
        let (store, stop) = (self.store.clone(), self.shared.stop.clone());
        tasks.spawn(async move { store.watch(stop).await });
        let (prosody, stop) = (self.shared.prosody.clone(), self.shared.stop.clone());
        tasks.spawn(async move { prosody.run(stop).await });
        let timers = Arc::clone(&self.shared.sessions.load().timers);
        let stop = self.shared.stop.clone();
        tasks.spawn(async move { timers.run(stop).await });
    }

    fn spawn_http_server(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.background_tasks
            .spawn(http::server::run(listener, shared));
    }

    /// Applies the keys that can change without a restart: tokens, keys, and the limits of the queue. Returns the
    /// changed keys that need a restart. Open sessions keep the configuration that they began with.
    ///
    /// # Errors
    ///
    /// [`ServeError`] for a key that can't be used; nothing has changed then.
    pub fn reload(&mut self, config: Config) -> Result<Vec<&'static str>, ServeError> {
        let (config, needs_restart) = self.config.reload(config);
        let mut auth = service_auth(&config, secret(&config)?.as_ref())?;
        auth.open &= self.is_on_loopback;
        if has_same_key_servers(&config.auth, &self.config.auth) {
            // Keep the fetched keys: their server may be down.
            let former = self.shared.service_auth.load();
            auth.verifier = auth.verifier.with_key_servers_of(&former.verifier);
        }
        self.queue.reload(config.queue.clone());
        let former = self.shared.sessions.load();
        let (limits, timers) = (former.limits.clone(), Arc::clone(&former.timers));
        let sessions = session_context(&config, self.queue.clone(), &auth, limits, timers);
        self.shared.sessions.store(Arc::new(sessions));
        self.shared.service_auth.store(Arc::new(auth));
        self.config = config;
        Ok(needs_restart)
    }

    /// The liveness check for systemd's watchdog.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        Liveness::new(
            self.shared.reservations.clone(),
            self.shared.accept_loop.clone(),
        )
    }

    /// Stops: accepts no more connections, and waits up to `server.shutdown_grace` for the open ones to end.
    pub async fn stop(self) {
        tracing::info!("stopping");
        let stopped_at = Instant::now();
        self.shared.stop.cancel();
        self.background_tasks.close();
        self.shared.connections.close();
        let drained =
            async { tokio::join!(self.background_tasks.wait(), self.shared.connections.wait()) };
        let grace = self.config.server.shutdown_grace;
        if timeout(grace, drained).await.is_err() {
            tracing::warn!(
                left = self.shared.connections.len(),
                "server.shutdown_grace has passed; closing the remaining connections"
            );
        }
        match self.queue.save_places(stopped_at).await {
            Ok(0) => {}
            Ok(places) => tracing::info!(places, "saved the order of the waiting visitors"),
            Err(error) => {
                tracing::warn!(%error, "failed to save the order of the waiting visitors");
            }
        }
        self.shared.reservations.close().await;
    }
}

/// Restores the order of the waiting visitors, and loads the live conferences before the first request. Returns the
/// time until the next synchronisation. Neither failure prevents the start.
async fn load_queue(queue: &Queue) -> Duration {
    if let Err(error) = queue.restore_places().await {
        tracing::warn!(%error, "failed to restore the order of the waiting visitors");
    }
    queue.sync_now().await
}

fn has_same_key_servers(one: &config::Auth, other: &config::Auth) -> bool {
    (&one.key_server, &one.jwks_url, one.key_cache)
        == (&other.key_server, &other.jwks_url, other.key_cache)
}
