//! A long run with mixed load: visitors connect and disconnect (with a close or a reset), conferences go live,
//! some clients do not read. Memory is measured each minute while all visitors wait.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Run;
use super::clients::Clients;
use super::report::{mib, progress};
use super::server::{ROOM, Server};
use super::tokens::{Signer, clients_of_kind, visitors};
use super::waiting::REST;
use super::worker::Kind;

const MINUTE: Duration = Duration::from_secs(60);
/// One client in this number does not read.
const NOT_READING_SHARE: usize = 100;

pub(crate) fn soak(run: &mut Run) {
    let count = run.visitors / 3;
    let server = Server::start();
    let mut all = clients_of_kind(
        server.address,
        ROOM,
        count / NOT_READING_SHARE,
        &Signer::SharedSecret,
        Kind::NotReading,
    );
    all.extend(visitors(server.address, ROOM, count, &Signer::SharedSecret));
    let mut clients = Clients::new(all);
    let mut random = Random(0x9e37_79b9);
    // Permanent memory (database pages, buffers, threads) is allocated in the first minute.
    let mut rss = Vec::new();
    let mut go_lives = 0;
    for minute in 0..=run.minutes {
        let start = Instant::now();
        while start.elapsed() < MINUTE {
            clients.connect_all();
            for _ in 0..random.below(6) {
                let nth = 2 + random.below(20);
                clients.disconnect_some(nth, random.below(nth), random.below(2) == 0);
                std::thread::sleep(Duration::from_millis(random.below(500) as u64));
                clients.connect_all();
            }
            clients.flood();
            clients.measure_delivery(|| server.go_live());
            go_lives += 1;
            server.end_live();
            clients.disconnect_all();
        }
        clients.connect_all();
        assert!(
            server.wait_for_waiting(clients.size()),
            "not all visitors wait"
        );
        std::thread::sleep(REST);
        let now = server.usage().rss_bytes;
        progress(format!("  minute {minute}: {} MiB", mib(now)));
        rss.push(now);
        // The server drops clients that do not read; the next iteration connects them again.
        clients.disconnect_all();
    }
    let (first, last) = (rss[0], rss[rss.len() - 1]);
    let growth = 100.0 * (last as f64 / first as f64 - 1.0);
    let list: Vec<_> = rss.iter().map(|bytes| mib(*bytes)).collect();
    run.report.row(
        &format!(
            "soak of {} minutes, {count} visitors, {go_lives} go-lives: memory in each minute",
            run.minutes
        ),
        &format!("{} MiB", list.join(", ")),
    );
    run.report.at_most(
        "memory growth over the soak, after its first minute",
        growth,
        5.0,
        "%",
    );
    run.report.record(
        "soak",
        json!({ "visitors": count, "go_lives": go_lives, "rss": rss, "growth_percent": growth }),
    );
}

/// A pseudo-random generator with a fixed seed.
struct Random(u32);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound
    }
}
