//! Visitors by the thousand, in as many processes as that takes.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::report::Spread;
use super::worker::{self, Kind, Order, Reply, Visitor, now_micros};

/// How many visitors one process holds: well below any limit of open files, and two processes for the
/// usual crowd, as the server has two threads.
const PER_WORKER: usize = 8_000;
/// Visitors handed over at a time.
const HANDED: usize = 1_000;

struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    /// How many may come to this one.
    prepared: usize,
}

/// Everybody who may come. Visitors are dealt to the workers in turn, so that whatever is done to a part of
/// them is done by all processes.
pub(crate) struct Crowd {
    workers: Vec<Worker>,
    size: usize,
}

impl Crowd {
    /// Makes the processes and tells them who may come; nobody does yet.
    pub(crate) fn new(visitors: Vec<Visitor>) -> Self {
        let count = visitors.len().div_ceil(PER_WORKER).max(1);
        let size = visitors.len();
        let mut crowd = Self {
            workers: (0..count).map(Worker::start).collect(),
            size,
        };
        let mut shares = vec![Vec::new(); count];
        for (n, visitor) in visitors.into_iter().enumerate() {
            shares[n % count].push(visitor);
        }
        for (worker, share) in crowd.workers.iter_mut().zip(shares) {
            worker.prepared = share.len();
            for some in share.chunks(HANDED) {
                worker.order(&Order::Prepare(some.to_vec()));
                worker.done();
            }
        }
        crowd
    }

    /// As many plain connections.
    pub(crate) fn plain(address: SocketAddr, size: usize) -> Self {
        let visitor = Visitor {
            kind: Kind::Waits,
            address,
            path: None,
            says: Vec::new(),
        };
        Self::new(vec![visitor; size])
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Lets visitors come until the first `size` are there.
    pub(crate) fn grow_to(&mut self, size: usize) {
        let count = self.workers.len();
        for (n, worker) in self.workers.iter_mut().enumerate() {
            let to = size.saturating_sub(n).div_ceil(count);
            worker.order(&Order::Come {
                to: to.min(worker.prepared),
            });
        }
        self.all_done();
    }

    pub(crate) fn come(&mut self) {
        self.grow_to(self.size);
    }

    /// Does something about which all are to be told; how long it took each, and how many bytes that was.
    pub(crate) fn told(&mut self, something: impl FnOnce()) -> (Spread, usize) {
        self.order(&Order::Listen);
        self.all_done();
        let begun = now_micros();
        something();
        self.order(&Order::Told);
        let (mut times, mut bytes) = (Vec::new(), 0);
        for worker in &mut self.workers {
            match worker.reply() {
                Reply::Told { at, bytes: some } => {
                    times.extend(at.iter().map(|at| at.saturating_sub(begun)));
                    bytes = bytes.max(some);
                }
                other => panic!("{other:?}"),
            }
        }
        let times = times.into_iter().map(Duration::from_micros).collect();
        (Spread::of(times), bytes)
    }

    /// Everybody leaves. The server has a moment to see it before they come back.
    pub(crate) fn leave(&mut self) {
        self.leave_some(1, 0, false);
        std::thread::sleep(Duration::from_secs(1));
    }

    /// Every `nth` of each process leaves, with a reset or in order.
    pub(crate) fn leave_some(&mut self, nth: usize, first: usize, reset: bool) {
        self.order(&Order::Leave { nth, first, reset });
        self.all_done();
    }

    /// The deaf ask for more than they will ever read.
    pub(crate) fn stuff(&mut self) {
        self.order(&Order::Stuff);
        self.all_done();
    }

    /// How many messages came, and what the last one said, of each who watches.
    pub(crate) fn watched(&mut self) -> Vec<(usize, String)> {
        self.order(&Order::Watched);
        let replies = self.workers.iter_mut().map(Worker::reply);
        replies
            .flat_map(|reply| match reply {
                Reply::Watched(watched) => watched,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn order(&mut self, order: &Order) {
        for worker in &mut self.workers {
            worker.order(order);
        }
    }

    fn all_done(&mut self) {
        for worker in &mut self.workers {
            worker.done();
        }
    }
}

impl Worker {
    fn start(number: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([worker::ARGUMENT, &number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            orders: child.stdin.take(),
            replies: BufReader::new(child.stdout.take().unwrap()),
            child,
            prepared: 0,
        }
    }

    fn order(&mut self, order: &Order) {
        let line = serde_json::to_string(order).unwrap();
        writeln!(self.orders.as_mut().unwrap(), "{line}").unwrap();
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn done(&mut self) {
        match self.reply() {
            Reply::Done => {}
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its orders is the end of it; a worker that hangs is not waited for.
        drop(self.orders.take());
        std::thread::sleep(Duration::from_millis(50));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
