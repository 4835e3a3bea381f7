//! What the process asks of the system, and tells it: the socket to listen on, the files it may open, the
//! signals that stop and reload it, systemd.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::Vitals;

/// Connections that the kernel holds for us. With the usual 128, a crowd that comes back at once loses
/// a second for each dropped handshake.
const BACKLOG: u32 = 4096;

/// Listens on `address`. Nothing slow comes before it: Jitsi's clients give up after some seconds of
/// refused connections.
///
/// # Errors
///
/// When the address can't be had: it is taken, or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The socket that systemd listens on for us (`LISTEN_FDS`), if there is one. It stays with systemd, so that
/// connections which are made while usher restarts wait for it.
///
/// # Errors
///
/// When what is handed over is not one TCP socket.
pub fn inherited() -> io::Result<Option<TcpListener>> {
    let mut handed = listenfd::ListenFd::from_env();
    if handed.len() > 1 {
        let message = format!(
            "{} sockets are handed over, and usher takes one",
            handed.len()
        );
        return Err(io::Error::other(message));
    }
    let Some(listener) = handed.take_tcp_listener(0)? else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Some)
}

/// Tells systemd, if it wants to know (`Type=notify`, see sd_notify(3)).
fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told how usher is");
    }
}

/// Says that usher serves.
pub fn tell_ready() {
    notify(&[NotifyState::Ready]);
}

/// Says that the configuration is being read again; [`tell_ready`] says that it was.
pub fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "there is no monotonic clock"),
    }
}

/// Says that usher stops.
pub fn tell_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells systemd's watchdog that usher lives, as long as it does, for ever. Does nothing where there is no
/// watchdog (`WatchdogSec`). Two signs of life fit into its time, so that one may be late.
pub async fn feed_watchdog(vitals: Vitals) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        match vitals.check().await {
            Ok(()) => notify(&[NotifyState::Watchdog]),
            Err(what) => tracing::error!("{what} hangs; systemd will restart usher"),
        }
        sleep(patience / 3).await;
    }
}

/// Files that are open beside the connections: the database, the log, calls to key servers.
const OTHER_FILES: u64 = 100;

/// Raises this process's limit of open files as far as it may, and says so where that is too low for
/// `connections`. A shell's limit is mostly 1024, and each waiting visitor is an open file.
pub fn raise_file_limit(connections: usize) {
    let wanted = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHER_FILES);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit < wanted => tracing::warn!(
            limit,
            connections,
            "the limit of open files is lower than server.max_connections; raise it (LimitNOFILE in systemd)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To stop.
    Stop,
    /// To read the configuration again.
    Reload,
}

/// SIGTERM (systemd, docker) and SIGINT (Ctrl-C) to stop, SIGHUP to read the configuration again.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Begins to catch the signals.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }

    /// Waits for one that stops.
    pub async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}

/// How often the accept loop shows that it runs.
const BEAT: Duration = Duration::from_secs(1);
/// A loop that was not seen for so long hangs: a busy machine's is late by less.
const BEAT_LOST: Duration = Duration::from_secs(15);

/// Whether connections are accepted: written by the accept loop, read by those who ask how it is.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Beat>>);

#[derive(Debug)]
struct Beat {
    seen: Instant,
    trouble: Option<String>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Beat {
            seen: Instant::now(),
            trouble: None,
        })))
    }
}

impl Pulse {
    fn get(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop runs. Waits until it has to show that again.
    pub async fn beat(&self) {
        self.get().seen = Instant::now();
        sleep(BEAT).await;
    }

    /// A connection was accepted, or could not be.
    pub fn accepted(&self, outcome: Result<(), &io::Error>) {
        self.get().trouble = outcome.err().map(ToString::to_string);
    }

    /// Whether the loop runs and accepts connections.
    ///
    /// # Errors
    ///
    /// What keeps it, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        if !self.is_alive() {
            return Err("The accept loop hangs; the log may say why.".into());
        }
        match &self.get().trouble {
            None => Ok(()),
            Some(error) => Err(format!(
                "Connections can't be accepted: {error}; raise LimitNOFILE or lower server.max_connections."
            )),
        }
    }

    /// Whether the loop runs, whatever it can do.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.get().seen.elapsed() < BEAT_LOST
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_not_seen_for_long_hangs() {
        let pulse = Pulse::default();
        pulse.beat().await;
        assert_eq!(pulse.check(), Ok(()));
        advance(BEAT_LOST).await;
        assert!(!pulse.is_alive());
        assert!(pulse.check().unwrap_err().contains("hangs"));
        pulse.beat().await;
        assert!(pulse.is_alive());
    }

    #[tokio::test]
    async fn a_failed_accept_is_trouble_until_one_succeeds_and_no_reason_to_be_restarted() {
        let pulse = Pulse::default();
        pulse.accepted(Err(&io::Error::other("too many open files")));
        let trouble = pulse.check().unwrap_err();
        assert!(trouble.contains("too many open files") && trouble.contains("LimitNOFILE"));
        assert!(pulse.is_alive());
        pulse.accepted(Ok(()));
        assert_eq!(pulse.check(), Ok(()));
    }
}
