//! Thousands of clients in several worker processes.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::report::Latencies;
use super::worker::{self, Client, Kind, Reply, Request, now_micros};

/// Clients per process: below the usual limits of open files, and two processes for 15,000 clients, since the
/// server has two threads.
const PER_WORKER: usize = 8_000;
/// Clients per request to a worker.
const PER_REQUEST: usize = 1_000;

struct Worker {
    child: Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    /// Number of clients of this worker.
    clients: usize,
}

/// All clients of a run. They are distributed to the workers in turn, so that an action on a part of them
/// involves all processes.
pub(crate) struct Clients {
    workers: Vec<Worker>,
    size: usize,
}

impl Clients {
    /// Starts the processes and sends them the clients. No client connects yet.
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        let count = clients.len().div_ceil(PER_WORKER).max(1);
        let size = clients.len();
        let mut all = Self {
            workers: (0..count).map(Worker::start).collect(),
            size,
        };
        let mut shares = vec![Vec::new(); count];
        for (n, client) in clients.into_iter().enumerate() {
            shares[n % count].push(client);
        }
        for (worker, share) in all.workers.iter_mut().zip(shares) {
            worker.clients = share.len();
            for part in share.chunks(PER_REQUEST) {
                worker.send(&Request::Add(part.to_vec()));
                worker.expect_done();
            }
        }
        all
    }

    /// Plain TCP connections.
    pub(crate) fn plain(address: SocketAddr, size: usize) -> Self {
        let client = Client {
            kind: Kind::Waiting,
            address,
            path: None,
            frames: Vec::new(),
        };
        Self::new(vec![client; size])
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Connects clients until the first `size` are connected.
    pub(crate) fn connect_up_to(&mut self, size: usize) {
        let workers = self.workers.len();
        for (n, worker) in self.workers.iter_mut().enumerate() {
            let count = size.saturating_sub(n).div_ceil(workers);
            worker.send(&Request::Connect {
                count: count.min(worker.clients),
            });
        }
        self.expect_all_done();
    }

    pub(crate) fn connect_all(&mut self) {
        self.connect_up_to(self.size);
    }

    /// Runs an action that sends a message to all waiting clients. Returns the latencies of the deliveries and
    /// the size of the message.
    pub(crate) fn measure_delivery(&mut self, action: impl FnOnce()) -> (Latencies, usize) {
        self.send_to_all(&Request::ResetDeliveries);
        self.expect_all_done();
        let start = now_micros();
        action();
        self.send_to_all(&Request::AwaitDeliveries);
        let (mut times, mut size) = (Vec::new(), 0);
        for worker in &mut self.workers {
            match worker.reply() {
                Reply::Deliveries { at, bytes } => {
                    times.extend(at.iter().map(|at| at.saturating_sub(start)));
                    size = size.max(bytes);
                }
                other => panic!("{other:?}"),
            }
        }
        let times = times.into_iter().map(Duration::from_micros).collect();
        (Latencies::of(times), size)
    }

    /// Disconnects all clients and gives the server a second to notice it.
    pub(crate) fn disconnect_all(&mut self) {
        self.disconnect_some(1, 0, false);
        std::thread::sleep(Duration::from_secs(1));
    }

    /// Disconnects every `nth` client of each process, with a reset or a close.
    pub(crate) fn disconnect_some(&mut self, nth: usize, first: usize, reset: bool) {
        self.send_to_all(&Request::Disconnect { nth, first, reset });
        self.expect_all_done();
    }

    /// Clients that do not read request more responses than the buffers hold.
    pub(crate) fn flood(&mut self) {
        self.send_to_all(&Request::Flood);
        self.expect_all_done();
    }

    /// Number of messages and last body of each watching client.
    pub(crate) fn updates(&mut self) -> Vec<(usize, String)> {
        self.send_to_all(&Request::Updates);
        let replies = self.workers.iter_mut().map(Worker::reply);
        replies
            .flat_map(|reply| match reply {
                Reply::Updates(updates) => updates,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn send_to_all(&mut self, request: &Request) {
        for worker in &mut self.workers {
            worker.send(request);
        }
    }

    fn expect_all_done(&mut self) {
        for worker in &mut self.workers {
            worker.expect_done();
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
            requests: child.stdin.take(),
            replies: BufReader::new(child.stdout.take().unwrap()),
            child,
            clients: 0,
        }
    }

    fn send(&mut self, request: &Request) {
        let line = serde_json::to_string(request).unwrap();
        writeln!(self.requests.as_mut().unwrap(), "{line}").unwrap();
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn expect_done(&mut self) {
        match self.reply() {
            Reply::Done => {}
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker exits when its input ends. A worker that hangs is killed.
        drop(self.requests.take());
        std::thread::sleep(Duration::from_millis(50));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
