//! What the process asks of the system: the socket to listen on, the files it may open, the signals that
//! stop it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

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

/// SIGTERM (systemd, docker) and SIGINT (Ctrl-C).
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
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
        })
    }

    /// Waits for either.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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
