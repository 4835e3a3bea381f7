//! A long time of everything at once: visitors come and go, some in order and some not, conferences go live,
//! some don't read. Memory is looked at each minute, with everybody waiting.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Run;
use super::crowd::Crowd;
use super::report::{mib, progress};
use super::server::{ROOM, Server};
use super::tokens::{Signer, people, visitors};
use super::waiting::REST;
use super::worker::Kind;

const MINUTE: Duration = Duration::from_secs(60);
/// One in so many doesn't read.
const DEAF: usize = 100;

pub(crate) fn soak(run: &mut Run) {
    let count = run.visitors / 3;
    let server = Server::start();
    let mut everybody = people(
        server.address,
        ROOM,
        count / DEAF,
        &Signer::Shared,
        Kind::Deaf,
    );
    everybody.extend(visitors(server.address, ROOM, count, &Signer::Shared));
    let mut crowd = Crowd::new(everybody);
    let mut dice = Dice(0x9e37_79b9);
    // The first minute makes what is kept for good: pages of the database, buffers, threads.
    let mut rss = Vec::new();
    let mut go_lives = 0;
    for minute in 0..=run.minutes {
        let begun = Instant::now();
        while begun.elapsed() < MINUTE {
            crowd.come();
            for _ in 0..dice.below(6) {
                let nth = 2 + dice.below(20);
                crowd.leave_some(nth, dice.below(nth), dice.below(2) == 0);
                std::thread::sleep(Duration::from_millis(dice.below(500) as u64));
                crowd.come();
            }
            crowd.stuff();
            crowd.told(|| server.go_live());
            go_lives += 1;
            server.end_live();
            crowd.leave();
        }
        crowd.come();
        assert!(server.counts(crowd.size()), "not all wait");
        std::thread::sleep(REST);
        let now = server.usage().rss_bytes;
        progress(format!("  minute {minute}: {} MiB", mib(now)));
        rss.push(now);
        // The deaf were dropped, or will be; they come anew.
        crowd.leave();
    }
    let (first, last) = (rss[0], rss[rss.len() - 1]);
    let growth = 100.0 * (last as f64 / first as f64 - 1.0);
    let list: Vec<_> = rss.iter().map(|bytes| mib(*bytes)).collect();
    run.report.row(
        &format!(
            "soak of {} minutes, {count} visitors, {go_lives} go-lives: memory at each minute",
            run.minutes
        ),
        &format!("{} MiB", list.join(", ")),
    );
    run.report.at_most(
        "growth over the soak, after its first minute",
        growth,
        5.0,
        "%",
    );
    run.report.keep(
        "soak",
        json!({ "visitors": count, "go_lives": go_lives, "rss": rss, "growth_percent": growth }),
    );
}

/// Random enough, and the same each time.
struct Dice(u32);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound
    }
}
