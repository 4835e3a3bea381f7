//! What a crowd costs: `cargo bench --bench load [-- --visitors N]`.
//!
//! A crowd of visitors waits at a real usher, with a real token each, until their conference goes live.
//! Beside it, in the same run and with the same clients, the limit: a server that does nothing but write the
//! same bytes to as many plain TCP sockets. Ratios of the two mean something; the times alone belong to the
//! machine. The result is printed as a table, and written to `target/load.json`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that can't go on has nothing better to do, and a table to print"
)]

mod crowd;
mod limit;
mod server;

use serde_json::json;

use crowd::Crowd;
use server::Server;

/// Where the slope of memory per visitor begins: what the process needs by itself is paid by then.
const SLOPE_FROM: usize = 2_000;
const VISITORS: usize = 15_000;
const GO_LIVES: usize = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments
        .iter()
        .position(|argument| argument == limit::ARGUMENT)
    {
        return limit::serve(arguments[place + 1].parse().unwrap());
    }
    let visitors = arguments
        .iter()
        .position(|argument| argument == "--visitors")
        .map_or(VISITORS, |place| arguments[place + 1].parse().unwrap());
    assert!(
        visitors > SLOPE_FROM,
        "--visitors must be more than {SLOPE_FROM}"
    );
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(visitors));
}

async fn run(visitors: usize) {
    let server = Server::start();
    let mut crowd = Crowd::new(server.address);
    let at_start = server.usage();

    let set_up = std::time::Instant::now();
    crowd.grow_to(SLOPE_FROM).await;
    let at_slope = server.usage();
    crowd.grow_to(visitors).await;
    let full = server.usage();
    let set_up = set_up.elapsed();
    let grown = visitors - SLOPE_FROM;
    let per_visitor = full.rss_bytes.saturating_sub(at_slope.rss_bytes) / grown;
    let cpu_per_set_up = (full.cpu - at_slope.cpu).as_secs_f64() * 1e6 / grown as f64;

    let mut told = Vec::new();
    let mut message_bytes = 0;
    for _ in 0..GO_LIVES {
        let (times, bytes) = crowd.go_live(&server).await;
        told.push(Spread::of(times));
        message_bytes = bytes;
        server.end_live().await;
        // Each comes back, as browsers would, with the same token.
        crowd.leave().await;
        crowd.grow_to(visitors).await;
    }
    let after = server.usage();
    crowd.leave().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let emptied = server.usage();
    drop(server);

    let mut raw = Vec::new();
    for _ in 0..GO_LIVES {
        raw.push(Spread::of(limit::measure(visitors, message_bytes).await));
    }
    let (told, raw) = (Spread::median(told), Spread::median(raw));
    let ratio = told.last_ms / raw.last_ms;
    let growth = 100.0 * (after.rss_bytes as f64 / full.rss_bytes as f64 - 1.0);

    println!("| {visitors} visitors, one conference | |\n| --- | --- |");
    println!("| memory per waiting visitor | {per_visitor} bytes |");
    println!(
        "| memory at the start; with all; after {GO_LIVES} go-lives; after all have left | {}; {}; {}; {} MiB |",
        mib(at_start.rss_bytes),
        mib(full.rss_bytes),
        mib(after.rss_bytes),
        mib(emptied.rss_bytes)
    );
    println!("| growth over {GO_LIVES} go-lives and returns | {growth:.1} % |");
    println!("| server CPU per set-up, HS256 token checked | {cpu_per_set_up:.0} µs |");
    println!(
        "| set-ups a second, client on the same cores | {:.0} |",
        visitors as f64 / set_up.as_secs_f64()
    );
    println!(
        "| go-live until told: half; 99 %; the last | {:.0}; {:.0}; {:.0} ms |",
        told.half_ms, told.most_ms, told.last_ms
    );
    println!(
        "| the limit: the same bytes to as many plain sockets | {:.0}; {:.0}; {:.0} ms |",
        raw.half_ms, raw.most_ms, raw.last_ms
    );
    println!("| the last one told ÷ limit | {ratio:.2} |");
    let result = json!({
        "visitors": visitors,
        "bytes_per_visitor": per_visitor,
        "rss_start": at_start.rss_bytes, "rss_full": full.rss_bytes,
        "rss_after_go_lives": after.rss_bytes, "rss_emptied": emptied.rss_bytes,
        "cpu_us_per_set_up": cpu_per_set_up,
        "told_ms": told.json(), "limit_ms": raw.json(), "last_over_limit": ratio,
    });
    let target = std::path::Path::new(env!("CARGO_BIN_EXE_usher"))
        .ancestors()
        .nth(2)
        .unwrap();
    std::fs::write(target.join("load.json"), format!("{result:#}\n")).unwrap();
}

fn mib(bytes: usize) -> usize {
    bytes >> 20
}

/// How long it took until half, nearly all, and all were told.
#[derive(Clone, Copy, Debug)]
struct Spread {
    half_ms: f64,
    most_ms: f64,
    last_ms: f64,
}

impl Spread {
    fn of(mut times: Vec<std::time::Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() - 1) as f64 * share) as usize;
            times[place].as_secs_f64() * 1e3
        };
        Self {
            half_ms: at(0.5),
            most_ms: at(0.99),
            last_ms: at(1.0),
        }
    }

    /// The run in the middle, by its last.
    fn median(mut runs: Vec<Self>) -> Self {
        runs.sort_by(|a, b| a.last_ms.total_cmp(&b.last_ms));
        runs[runs.len() / 2]
    }

    fn json(self) -> serde_json::Value {
        json!({ "half": self.half_ms, "most": self.most_ms, "last": self.last_ms })
    }
}
