//! The process and the operating system: the listening socket, the limit of open files, signals, systemd.

use std::io;
use std::net::SocketAddr;

use sd_notify::NotifyState;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Connections that the kernel queues. With the usual 128, a crowd that reconnects loses a second for each dropped
/// handshake.
const BACKLOG: u32 = 4096;

/// Listens on `address`. Call it before anything slow: Jitsi's clients give up after some seconds of refused
/// connections.
///
/// # Errors
///
/// When the address is in use, or is not an address of this machine.
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

/// The listening socket of systemd (`LISTEN_FDS`), if there is one. systemd keeps it open, so connections that are made
/// while usher restarts wait for it.
///
/// # Errors
///
/// When systemd passes something other than one TCP socket.
pub fn inherited_listener() -> io::Result<Option<TcpListener>> {
    let mut inherited = listenfd::ListenFd::from_env();
    if inherited.len() > 1 {
        let message = format!(
            "systemd passes {} sockets; usher accepts one",
            inherited.len()
        );
        return Err(io::Error::other(message));
    }
    let Some(listener) = inherited.take_tcp_listener(0)? else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Some)
}

/// Notifies systemd if the unit has `Type=notify` (see sd_notify(3)).
fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "sd_notify failed");
    }
}

/// Notifies systemd that the service is ready.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Notifies systemd that a reload began; [`notify_ready`] ends it.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => {
            tracing::warn!(%error, "no monotonic clock; systemd is not notified of the reload")
        }
    }
}

/// Notifies systemd that the service stops.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Notifies systemd's watchdog that the service is alive.
pub fn notify_watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// Open files other than connections: the database, the log, calls to key servers.
const OTHER_FILES: u64 = 100;

/// Raises the limit of open files as far as possible, and returns how many of `wanted` connections it allows. The limit
/// of a shell is mostly 1024, and each connection is an open file: with more connections than files, requests would
/// wait for each other.
pub fn connections_within_file_limit(wanted: usize) -> usize {
    let files = u64::try_from(wanted)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHER_FILES);
    let limit = match rlimit::increase_nofile_limit(files) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "failed to raise the limit of open files");
            return wanted;
        }
    };
    if limit >= files {
        return wanted;
    }
    // A very low limit leaves half of the files to the database and the rest.
    let allowed = limit - OTHER_FILES.min(limit / 2);
    let allowed = usize::try_from(allowed).unwrap_or(wanted).max(1);
    tracing::warn!(
        limit,
        max_connections = wanted,
        allowed,
        "the limit of open files is too low for server.max_connections, which is lowered; raise the limit (LimitNOFILE in systemd)"
    );
    allowed
}

/// The signal for a file that would exceed the size limit (`ulimit -f`, `LimitFSIZE`), the same on all systems of Linux.
const SIGXFSZ: i32 = 25;

/// Makes a write beyond the limit of file sizes an error, like one to a full disk. By default the kernel ends the
/// process.
///
/// # Errors
///
/// When the system refuses the handler.
pub fn ignore_file_size_signal() -> io::Result<()> {
    // tokio keeps its handler for the life of the process.
    signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

/// The request of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessSignal {
    /// Stop the service.
    Stop,
    /// Reload the configuration.
    Reload,
}

/// The signal handlers: SIGTERM (systemd, docker) and SIGINT (Ctrl-C) stop, SIGHUP reloads.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> ProcessSignal {
        tokio::select! {
            _ = self.terminate.recv() => ProcessSignal::Stop,
            _ = self.interrupt.recv() => ProcessSignal::Stop,
            _ = self.hang_up.recv() => ProcessSignal::Reload,
        }
    }

    /// Waits for a signal that stops the service.
    pub async fn wait_for_stop(&mut self) {
        while self.next().await != ProcessSignal::Stop {}
    }
}
