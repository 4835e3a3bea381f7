//! What can't be brought about from outside: full buffers and clocks.

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::timer::WRITE_TIMEOUT;
use super::*;
use crate::auth::keys::KeySet;
use crate::config::{self, Config};
use crate::store::Store;

/// More than the clock may be late by.
const SLACK: Duration = Duration::from_secs(1);

async fn gate(dir: &TempDir) -> Arc<SessionContext> {
    let url = format!("sqlite:{}", dir.path().join("usher.db").display());
    let store = Store::open(&url, "meet.example.com").await.unwrap();
    let config = config::Queue {
        reconnect_grace: Duration::ZERO,
        ..Config::default().queue
    };
    Arc::new(SessionContext {
        queue: Queue::new(store, config, "conference"),
        verifier: Verifier::new(KeySet::new(), Arc::default(), "meet.example.com"),
        domain: "meet.example.com".into(),
        state_interval: Duration::from_secs(15),
        heart_beat: Duration::from_secs(10),
        // Longer than any test: nothing but what it is about is due.
        connect_timeout: Duration::from_secs(3600),
        max_per_token: 10,
        max_per_address: 10,
        muc_prefix: "conference".into(),
        tallies: ConnectionLimits::default(),
        rounds: Arc::default(),
    })
}

/// A session, and the client's end of its connection.
async fn session(gate: &Arc<SessionContext>) -> (Arc<Session>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (Session::begin(stream, &[], gate, None), client)
}

/// Until the socket takes no more.
fn fill(session: &Session) {
    let full = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::WouldBlock);
    while session.stream.try_write(&[0; 65_536]).map_err(full).is_ok() {}
}

#[tokio::test]
async fn who_takes_nothing_is_dropped_after_the_write_timeout_whoever_sent_it() {
    let dir = TempDir::new().unwrap();
    let gate = gate(&dir).await;
    let (session, _deaf) = session(&gate).await;
    session.stream.writable().await.unwrap();
    // Not earlier: the database takes time that a paused clock does not know of.
    tokio::time::pause();
    let running = tokio::spawn(Arc::clone(&session).run());
    let stop = CancellationToken::new();
    let rounds = Arc::clone(&gate.rounds);
    let stopped = stop.clone();
    let clock = tokio::spawn(async move { rounds.go(stopped).await });
    tokio::task::yield_now().await;
    fill(&session);
    let begun = Instant::now();
    // As the queue's tasks do, while the session's own waits for something to read.
    session.send(&mut session.state(), OpCode::Data(Data::Text), b"\n");
    assert!(session.state().unsent.is_some());
    assert_eq!(running.await.unwrap(), End::Slow);
    let took = begun.elapsed();
    assert!(
        took >= WRITE_TIMEOUT && took < WRITE_TIMEOUT + SLACK,
        "{took:?}"
    );
    stop.cancel();
    clock.await.unwrap();
}

#[tokio::test]
async fn a_session_that_closes_is_left_to_its_task() {
    let dir = TempDir::new().unwrap();
    let gate = gate(&dir).await;
    let (session, _client) = session(&gate).await;
    let now = Instant::now();
    let slot = {
        let mut state = session.state();
        state.beats.send = Some(Duration::from_millis(1));
        session.schedule(&mut state);
        let close = OpCode::Control(Control::Close);
        session.send(&mut state, close, &[]);
        state.slot
    };
    assert_ne!(slot, Slot::NEVER);
    // A beat is due that can't be sent any more: to be looked at again at once would be for ever.
    session.look(slot, now + Duration::from_secs(1));
    assert_eq!(session.state().slot, Slot::NEVER);
}

#[tokio::test]
async fn what_is_kept_for_a_client_that_takes_nothing_is_bounded() {
    let dir = TempDir::new().unwrap();
    let gate = gate(&dir).await;
    let (session, _deaf) = session(&gate).await;
    session.stream.writable().await.unwrap();
    fill(&session);
    let mut state = session.state();
    let mut most = 0;
    while state.ending.is_none() {
        session.send(&mut state, OpCode::Data(Data::Text), &[b'x'; 8000]);
        most = most.max(state.unsent.as_ref().unwrap().bytes.len());
    }
    assert!(most > UNSENT_MAX / 2 && most <= UNSENT_MAX, "{most}");
    let ending = state.ending.as_deref();
    assert!(
        matches!(ending, Some(Ending::Gone(End::Slow))),
        "{ending:?}"
    );
}
