//! The cost of a go-live, and of the list of conferences, as the number of live conferences grows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Run;
use super::conferences::{CONNECTIONS, SERVERS, send_all};
use super::http::HttpClient;
use super::report::progress;
use super::server::{Server, set_live};

/// Numbers of live conferences at which a go-live is measured.
const FEW: usize = 1_000;
const MANY: usize = 60_000;
/// Number of conferences at which the list is measured.
const LISTED: usize = 20_000;
/// Measured go-lives; each is followed by its end.
const GO_LIVES: u32 = 300;
/// The longest measurement of go-lives.
const MEASURED: Duration = Duration::from_secs(30);
const LISTS: usize = 5;

pub(crate) fn live(run: &mut Run) {
    let server = Server::start();
    let mut connections: Vec<HttpClient> = (0..SERVERS * CONNECTIONS)
        .map(|_| HttpClient::new(server.address))
        .collect();
    let rooms: Vec<String> = (0..MANY).map(|n| format!("live{n:05}")).collect();
    let mut add = |range: std::ops::Range<usize>| {
        progress(format!("  {} conferences are live", range.end));
        send_all(&mut connections, &rooms[range], "golive");
    };
    add(0..FEW);
    let few = cpu_of_go_live(&server);
    add(FEW..LISTED);
    let listed = list(&server);
    add(LISTED..MANY);
    let many = cpu_of_go_live(&server);
    let report = &mut run.report;
    let label = |live: usize| format!("go-live and its end while {live} conferences are live, CPU");
    report.row(&label(FEW), &format!("{:.2} ms", few.as_secs_f64() * 1e3));
    report.row(&label(MANY), &format!("{:.2} ms", many.as_secs_f64() * 1e3));
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    report.at_most("CPU of a go-live, many ÷ few", ratio, 1.5, "");
    report.at_most(
        &format!("GET /waiting-queue/conferences with {LISTED} conferences"),
        listed.as_secs_f64() * 1e3,
        300.0,
        "ms",
    );
    report.record(
        "live",
        json!({
            "go_live_cpu_ms": { "few": few.as_secs_f64() * 1e3, "many": many.as_secs_f64() * 1e3 },
            "few": FEW, "many": MANY, "list_ms": listed.as_secs_f64() * 1e3, "listed": LISTED,
        }),
    );
}

/// CPU time of the server for one go-live and its end.
fn cpu_of_go_live(server: &Server) -> Duration {
    let mut client = HttpClient::new(server.address);
    let (start, before, mut count) = (Instant::now(), server.usage().cpu, 0);
    while count < GO_LIVES && start.elapsed() < MEASURED {
        set_live(&mut client, "golive", "measured");
        set_live(&mut client, "endlive", "measured");
        count += 1;
    }
    (server.usage().cpu - before) / count
}

/// The median of some requests for the whole list, which may have pages.
fn list(server: &Server) -> Duration {
    let mut client = HttpClient::new(server.address);
    let mut times: Vec<_> = (0..LISTS)
        .map(|_| {
            let start = Instant::now();
            let (status, body) = client.get("/waiting-queue/conferences");
            let took = start.elapsed();
            assert_eq!(status, 200, "{body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["conferences"].as_array().unwrap().len(), LISTED);
            took
        })
        .collect();
    times.sort();
    times[LISTS / 2]
}
