//! What cannot be produced from outside: full buffers and timers.

use std::io::ErrorKind;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connection::UNSENT_MAX;
use super::limits::ConnectionLimits;
use super::timer::WRITE_TIMEOUT;
use super::*;
use crate::auth::Verifier;
use crate::auth::keys::KeySet;
use crate::config::Config;
use crate::queue::Queue;
use crate::store::Store;

/// More than a timer may be late.
const SLACK: Duration = Duration::from_secs(1);

async fn context(dir: &TempDir) -> Arc<SessionContext> {
    let url = format!("sqlite:{}", dir.path().join("usher.db").display());
    let store = Store::open(&url, "meet.example.com").await.unwrap();
    let mut config = Config::default();
    // Longer than any test.
    config.queue.connect_timeout = Duration::from_secs(3600);
    config.queue.reconnect_grace = Duration::ZERO;
    Arc::new(SessionContext {
        queue: Queue::new(store, config.queue.clone(), "conference"),
        verifier: Verifier::new(KeySet::new(), Arc::default(), "meet.example.com"),
        settings: Arc::new(config.queue),
        xmpp: Arc::new(config.xmpp),
        limits: ConnectionLimits::default(),
        timers: Arc::default(),
    })
}

/// A session, and the client's end of its connection.
async fn session(context: &Arc<SessionContext>) -> (Arc<Session>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (Session::begin(stream, &[], context, None), client)
}

async fn writable(session: &Session) {
    poll_fn(|context| {
        session
            .state()
            .connection
            .stream()
            .poll_write_ready(context)
    })
    .await
    .unwrap();
}

/// Fills the socket's buffer.
fn fill(session: &Session) {
    let full = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let state = session.state();
    let stream = state.connection.stream();
    while stream.try_write(&[0; 65_536]).map_err(full).is_ok() {}
}

#[tokio::test]
async fn slow_reader_is_dropped_after_write_timeout() {
    let dir = TempDir::new().unwrap();
    let context = context(&dir).await;
    let (session, _client) = session(&context).await;
    writable(&session).await;
    // Not earlier: the database takes time that a paused clock does not know of.
    tokio::time::pause();
    let running = tokio::spawn(Arc::clone(&session).run());
    let stop = CancellationToken::new();
    let timers = Arc::clone(&context.timers);
    let stopped = stop.clone();
    let wheel = tokio::spawn(async move { timers.run(stopped).await });
    tokio::task::yield_now().await;
    fill(&session);
    let started_at = Instant::now();
    // As the queue's tasks do while the session's task waits for bytes.
    session.send(&mut session.state(), OpCode::Data(Data::Text), b"\n");
    assert!(session.state().is_blocked());
    assert_eq!(running.await.unwrap(), CloseReason::Slow);
    let took = started_at.elapsed();
    assert!(
        took >= WRITE_TIMEOUT && took < WRITE_TIMEOUT + SLACK,
        "{took:?}"
    );
    stop.cancel();
    wheel.await.unwrap();
}

#[tokio::test]
async fn timer_leaves_a_closing_session_to_its_task() {
    let dir = TempDir::new().unwrap();
    let context = context(&dir).await;
    let (session, _client) = session(&context).await;
    let now = Instant::now();
    let slot = {
        let mut state = session.state();
        session.arm_timer(&mut state);
        state.protocol.close();
        state.slot
    };
    assert_ne!(slot, Slot::NEVER);
    // CONNECT is overdue, and nothing can be sent any more: another timer would run forever.
    session.on_timer(slot, now + Duration::from_secs(7200));
    assert_eq!(session.state().slot, Slot::NEVER);
}

#[tokio::test]
async fn unsent_bytes_of_a_slow_reader_are_bounded() {
    let dir = TempDir::new().unwrap();
    let context = context(&dir).await;
    let (session, _client) = session(&context).await;
    writable(&session).await;
    fill(&session);
    let mut state = session.state();
    let mut most = 0;
    while state.close.is_none() {
        session.send(&mut state, OpCode::Data(Data::Text), &[b'x'; 8000]);
        most = most.max(state.connection.unsent_bytes());
    }
    assert!(most > UNSENT_MAX / 2 && most <= UNSENT_MAX, "{most}");
    let close = state.close.as_deref();
    assert!(
        matches!(close, Some(CloseAction::Abort(CloseReason::Slow))),
        "{close:?}"
    );
}

/// A task is allocated in steps of 128 bytes, and each visitor has one.
#[test]
fn visitors_are_small() {
    assert!(size_of::<Event>() <= 32, "{}", size_of::<Event>());
    assert!(size_of::<Session>() <= 208, "{}", size_of::<Session>());
}
