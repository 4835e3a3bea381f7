//! The connections that are not WebSockets: their number by address and in total, and their time-outs.
//!
//! No client may keep others out with connections that do nothing. One that is silent ends after [`HEAD_TIMEOUT`], an
//! idle one after [`IDLE_TIMEOUT`], one whose client does not read after [`WRITE_TIMEOUT`]. If there are too many of
//! them, the one that has done nothing for the longest time makes room for the next.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::session::bounds::{self, Bound};
use crate::session::limits::{ClientAddress, LimitCounter, LimitGuard};

/// How long the head of a request may take to arrive.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept without a request.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may leave an answer unread.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the time-outs are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A check that is this much late: the process stood still, and all time-outs begin again.
const STANDSTILL: Duration = Duration::from_secs(3);
/// A request that lasts longer is a stream or a long poll, and counts as a session: it takes no room from requests.
const STREAM: Duration = Duration::from_secs(12);
/// How long a connection without a request is safe from making room: a client in a crowd may need it for its request.
const SAFE: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    max_per_address: u32,
    addresses: LimitCounter<ClientAddress>,
    open: Mutex<Open>,
    /// How many are streams.
    streams: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    last_id: u64,
    /// The one that makes room, until it has ended.
    ending: u64,
    /// In the order of their arrival.
    by_id: BTreeMap<u64, Arc<Activity>>,
    /// Those of former connections. Allocated and freed beside what each visitor keeps, they were measured to leave holes
    /// of a tenth of that.
    spare: Vec<Arc<Activity>>,
}

/// What a connection does.
#[derive(Debug)]
struct Activity {
    now: Mutex<Now>,
    has_to_end: AtomicBool,
    end: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    peer: IpAddr,
    phase: Phase,
    since: Instant,
    unread_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The head of a request arrives, or should.
    Head,
    /// A request is handled.
    Request,
    /// The last request was answered.
    Idle,
}

/// A connection; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    connections: Arc<Connections>,
    id: u64,
    activity: Arc<Activity>,
    _address: Option<LimitGuard<ClientAddress>>,
}

impl Connections {
    /// At most an eighth of `max_connections` are no WebSockets: visitors keep the rest.
    pub(super) fn new(max_connections: usize, max_per_address: u32) -> Self {
        Self {
            max: (max_connections / 8).max(MAX_AT_LEAST).min(max_connections),
            max_per_address,
            addresses: LimitCounter::default(),
            open: Mutex::default(),
            streams: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there may be one more.
    pub(super) fn has_room(&self) -> bool {
        let requests = self.open().by_id.len();
        requests.saturating_sub(self.streams.load(Ordering::Relaxed)) < self.max
    }

    /// Waits until a connection ends, or some milliseconds: WebSockets end elsewhere.
    pub(super) async fn changed(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(50), self.changed.notified()).await;
    }

    /// Ends the connection that has done nothing for the longest time, unless one is ending already.
    pub(super) fn make_room(&self) {
        let mut open = self.open();
        if open.by_id.contains_key(&open.ending) {
            return;
        }
        let now = Instant::now();
        let mut all = open.by_id.iter();
        let Some((id, activity)) = all.find(|(_, activity)| activity.is_removable(now)) else {
            return;
        };
        bounds::met(Bound::Requests, Some(activity.end()));
        open.ending = *id;
    }

    /// Counts a connection of `peer`, whose address is limited if `is_limited`. `None` at the limit.
    pub(super) fn add(self: &Arc<Self>, peer: IpAddr, is_limited: bool) -> Option<Tracked> {
        let address = if is_limited {
            let Some(guard) = self.addresses.add(peer.into(), self.max_per_address) else {
                bounds::met(Bound::RequestsOfAddress, Some(peer));
                return None;
            };
            Some(guard)
        } else {
            None
        };
        let mut open = self.open();
        let spare = open.spare.pop();
        let activity = match spare.filter(|spare| Arc::strong_count(spare) == 1) {
            Some(spare) => spare,
            None => Arc::new(Activity::new(peer)),
        };
        activity.begin(peer);
        open.last_id += 1;
        let id = open.last_id;
        open.by_id.insert(id, Arc::clone(&activity));
        Some(Tracked {
            connections: Arc::clone(self),
            id,
            activity,
            _address: address,
        })
    }

    /// Ends connections whose time is over, until `stop`.
    pub(super) async fn check_loop(&self, stop: CancellationToken) {
        let mut tick = interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut resumed) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            if now.duration_since(last) > STANDSTILL {
                resumed = now;
            }
            last = now;
            let open = self.open();
            let streams = open.by_id.values().filter(|it| it.check(now, resumed));
            self.streams.store(streams.count(), Ordering::Relaxed);
        }
    }
}

/// More are freed.
const SPARE_MAX: usize = 128;
/// With fewer connections in all, all of them may be for requests.
const MAX_AT_LEAST: usize = 100;

impl Now {
    fn new(peer: IpAddr) -> Self {
        Self {
            peer,
            phase: Phase::Head,
            since: Instant::now(),
            unread_since: None,
        }
    }
}

impl Activity {
    fn new(peer: IpAddr) -> Self {
        Self {
            now: Mutex::new(Now::new(peer)),
            has_to_end: AtomicBool::new(false),
            end: Notify::new(),
        }
    }

    /// Begins that of a new connection.
    fn begin(&self, peer: IpAddr) {
        *self.now() = Now::new(peer);
        self.has_to_end.store(false, Ordering::Release);
    }

    /// Makes the connection end; returns its peer.
    fn end(&self) -> IpAddr {
        self.has_to_end.store(true, Ordering::Release);
        self.end.notify_waiters();
        self.now().peer
    }

    fn has_to_end(&self) -> bool {
        self.has_to_end.load(Ordering::Acquire)
    }

    async fn ended(&self) {
        let end = self.end.notified();
        if !self.has_to_end() {
            end.await;
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let mut now = self.now();
        now.phase = phase;
        now.since = Instant::now();
    }

    fn is_removable(&self, now: Instant) -> bool {
        let activity = *self.now();
        match activity.phase {
            Phase::Request => false,
            // A client that reads its answer is not idle.
            Phase::Idle if activity.unread_since.is_none() => true,
            Phase::Idle | Phase::Head => now.saturating_duration_since(activity.since) >= SAFE,
        }
    }

    /// Ends it if its time is over. Returns whether it is a stream.
    fn check(&self, now: Instant, resumed: Instant) -> bool {
        let activity = *self.now();
        let lasts = |since: Instant| now.saturating_duration_since(since.max(resumed));
        let unread = activity.unread_since.map(lasts);
        let met = if unread.is_some_and(|unread| unread >= WRITE_TIMEOUT) {
            Some(Bound::Write)
        } else if activity.phase == Phase::Head && lasts(activity.since) >= HEAD_TIMEOUT {
            Some(Bound::Head)
        } else if activity.phase == Phase::Idle && lasts(activity.since) >= IDLE_TIMEOUT {
            // Clients keep connections for further requests: that is no abuse.
            self.end();
            None
        } else {
            None
        };
        if let Some(bound) = met.filter(|_| !self.has_to_end()) {
            bounds::met(bound, Some(self.end()));
        }
        activity.phase == Phase::Request && lasts(activity.since) >= STREAM
    }
}

impl Tracked {
    /// The stream, watched.
    pub(super) fn watch(&self, stream: TcpStream) -> WatchedStream {
        WatchedStream {
            stream,
            activity: Arc::clone(&self.activity),
        }
    }

    /// Where the handling of its requests is recorded.
    pub(super) fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.activity))
    }

    /// Waits until the connection has to end.
    pub(super) async fn ended(&self) {
        self.activity.ended().await;
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        let activity = open.by_id.remove(&self.id);
        if open.spare.len() < SPARE_MAX {
            open.spare.extend(activity);
        }
        drop(open);
        self.connections.changed.notify_one();
    }
}

/// Records the handling of a connection's requests.
#[derive(Clone, Debug)]
pub(super) struct Requests(Arc<Activity>);

/// A request that is handled.
#[derive(Debug)]
struct Handling(Arc<Activity>);

impl Requests {
    fn begin(&self) -> Handling {
        self.0.enter(Phase::Request);
        Handling(Arc::clone(&self.0))
    }

    /// Handles a request, which begins now.
    pub(super) fn during<F: Future>(&self, request: F) -> impl Future<Output = F::Output> + use<F> {
        let handling = self.begin();
        async move {
            let answer = request.await;
            drop(handling);
            answer
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// A stream that records when its client sends and reads.
#[derive(Debug)]
pub(super) struct WatchedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl WatchedStream {
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn record_write<T>(&self, written: &Poll<io::Result<T>>) {
        let mut now = self.activity.now();
        if written.is_pending() {
            now.unread_since.get_or_insert_with(Instant::now);
            return;
        }
        now.unread_since = None;
        if now.phase == Phase::Idle {
            now.since = Instant::now();
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.activity.now().phase == Phase::Idle {
            self.activity.enter(Phase::Head);
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.record_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.record_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    fn ends(tracked: &Tracked) -> bool {
        tracked.activity.has_to_end()
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_own_limit_and_proxies_have_none() {
        let connections = Arc::new(Connections::new(1_000, 2));
        let first = connections.add(peer(1), true).unwrap();
        let _second = connections.add(peer(1), true).unwrap();
        assert!(connections.add(peer(1), true).is_none());
        let _other = connections.add(peer(2), true).unwrap();
        let _proxy = connections.add(peer(1), false).unwrap();
        drop(first);
        assert!(connections.add(peer(1), true).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_makes_room_before_a_silent_one_and_no_request_does() {
        let connections = Arc::new(Connections::new(3, 9));
        let add = || connections.add(peer(1), false).unwrap();
        let (busy, silent, idle) = (add(), add(), add());
        let _handling = busy.requests().begin();
        drop(idle.requests().begin());
        assert!(!connections.has_room());
        connections.make_room();
        assert!(ends(&idle) && !ends(&silent) && !ends(&busy));
        // One at a time.
        tokio::time::advance(SAFE).await;
        connections.make_room();
        assert!(!ends(&silent));
        drop(idle);
        assert!(connections.has_room());
        connections.make_room();
        assert!(ends(&silent));
        drop(silent);
        connections.make_room();
        assert!(!ends(&busy), "a request is not cut");
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_idle_connections_end_in_time_and_requests_do_not() {
        let connections = Arc::new(Connections::new(100, 9));
        let add = || connections.add(peer(1), false).unwrap();
        let (busy, silent, idle, unread) = (add(), add(), add(), add());
        let _handling = busy.requests().begin();
        drop(idle.requests().begin());
        drop(unread.requests().begin());
        unread.activity.now().unread_since = Some(Instant::now());
        let begin = Instant::now();
        let check = |tracked: &Tracked, seconds| {
            let at = begin + Duration::from_secs(seconds);
            let is_stream = tracked.activity.check(at, begin);
            assert_eq!(is_stream, tracked.id == busy.id && seconds >= 12);
            ends(tracked)
        };
        assert!(!check(&silent, 9) && check(&silent, 10));
        assert!(!check(&unread, 9) && check(&unread, 10));
        assert!(!check(&idle, 29) && check(&idle, 30));
        assert!(!check(&busy, 11) && !check(&busy, 3600));
        // While the process stood still, no time-out ran.
        let another = add();
        let resumed = begin + Duration::from_secs(60);
        another.activity.check(resumed, resumed);
        assert!(!ends(&another));
    }
}
