//! What the process asks of the system, and tells it: the socket to listen on, the files it may open, the
//! signals that stop and reload it, systemd.

use std::io;
use std::net::SocketAddr;

use sd_notify::NotifyState;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// Notifies systemd that usher serves.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Says that the configuration is being read again; [`notify_ready`] says that it was.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "there is no monotonic clock"),
    }
}

/// Notifies systemd that usher stops.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Notifies systemd's watchdog that usher is alive.
pub fn notify_watchdog() {
    notify(&[NotifyState::Watchdog]);
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
pub enum ProcessSignal {
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
    pub async fn next(&mut self) -> ProcessSignal {
        tokio::select! {
            _ = self.terminate.recv() => ProcessSignal::Stop,
            _ = self.interrupt.recv() => ProcessSignal::Stop,
            _ = self.hang_up.recv() => ProcessSignal::Reload,
        }
    }

    /// Waits for one that stops.
    pub async fn stop(&mut self) {
        while self.next().await != ProcessSignal::Stop {}
    }
}
