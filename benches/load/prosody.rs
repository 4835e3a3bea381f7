//! usher's modules for Prosody, simulated: how soon a change reaches a long poll, and many rooms that go live together in
//! the batches that four Prosody servers would send.

use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::Run;
use super::conferences::{ROUNDS, SERVERS, VISITORS_EACH, rooms_with_visitors};
use super::http::HttpClient;
use super::report::{Latencies, progress};
use super::server::Server;

/// Number of measured changes of bookings.
const CHANGES: usize = 100;
/// Number of bookings that go live automatically, one per second.
const AUTO_LIVE: i64 = 10;
/// A change reaches the room within this time at the median.
const TARGET_MS: f64 = 300.0;

/// The modules in one Prosody server.
struct Modules {
    http: HttpClient,
    instance: String,
    seq: u64,
}

impl Modules {
    fn new(server: &Server, instance: &str) -> Self {
        Self {
            http: HttpClient::new(server.address),
            instance: instance.to_owned(),
            seq: 0,
        }
    }

    fn post(&mut self, all: bool, rooms: &[Value]) -> Value {
        self.seq += 1;
        let message = json!({
            "protocol": 1, "shim": "bench", "instance": self.instance, "seq": self.seq, "all": all,
            "features": ["reservations", "queue", "metadata", "lobby"], "rooms": rooms,
        });
        let path = "/api/v1/prosody/events";
        let json = "application/json";
        self.http.send("POST", path, json, &message.to_string());
        let (status, body) = self.http.response();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn poll(&mut self, after: u64) -> Value {
        let path = format!(
            "/api/v1/prosody/rooms?instance={}&after={after}",
            self.instance
        );
        let (status, body) = self.http.get(&path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn jid(room: &str) -> String {
    format!("{room}@conference.meet.example.com")
}

fn report(room: &str, occupants: u32) -> Value {
    json!({ "room": jid(room), "occupied": occupants > 0, "occupants": occupants })
}

fn now() -> DateTime<Utc> {
    DateTime::from(SystemTime::now())
}

/// The two measurements.
pub(crate) fn prosody(run: &mut Run) {
    progress("  a changed booking");
    let changed = changed_bookings();
    progress("  bookings that go live automatically");
    let automatic = auto_live();
    let report = &mut run.report;
    report.row(
        "a changed booking, from the request to the long poll: median; 99 %; last",
        &changed.to_string(),
    );
    report.at_most(
        "a changed booking reaches the long poll, median",
        changed.median_ms,
        TARGET_MS,
        "ms",
    );
    report.at_most(
        "auto_live reaches the long poll, median",
        automatic.median_ms,
        TARGET_MS,
        "ms",
    );
    report.record(
        "prosody_changes",
        json!({ "changed_ms": changed.json(), "auto_live_ms": automatic.json() }),
    );
    rooms_go_live(run);
}

fn book(http: &mut HttpClient, booking: &Value) -> i64 {
    let path = "/api/v1/bookings";
    http.send("POST", path, "application/json", &booking.to_string());
    let (status, body) = http.response();
    assert_eq!(status, 201, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["id"].as_i64().unwrap()
}

/// From the request that changes a booking to the answer of the long poll.
fn changed_bookings() -> Latencies {
    let server = Server::start();
    let mut http = HttpClient::new(server.address);
    let start = now() - TimeDelta::minutes(1);
    let end = start + TimeDelta::hours(2);
    let booking = json!({ "room": "room", "start": start, "end": end });
    let id = book(&mut http, &booking);
    Modules::new(&server, "one").post(true, &[report("room", 1)]);
    let mut modules = Modules::new(&server, "one");
    let (sender, answers) = mpsc::channel();
    let poller = std::thread::spawn(move || {
        let mut after = 0;
        for _ in 0..CHANGES {
            let answer = modules.poll(after);
            sender.send(Instant::now()).unwrap();
            after = answer["revision"].as_u64().unwrap();
        }
    });
    let mut times = Vec::new();
    for n in 0..CHANGES {
        // Until the next poll waits.
        std::thread::sleep(Duration::from_millis(20));
        let change = json!({ "max_occupants": n + 2 }).to_string();
        let sent = Instant::now();
        http.send(
            "PATCH",
            &format!("/api/v1/bookings/{id}"),
            "application/json",
            &change,
        );
        let (status, body) = http.response();
        assert_eq!(status, 200, "{body}");
        times.push(answers.recv().unwrap() - sent);
    }
    poller.join().unwrap();
    Latencies::of(times)
}

/// From the time of `auto_live` to the answer of the long poll.
fn auto_live() -> Latencies {
    let server = Server::start();
    let mut http = HttpClient::new(server.address);
    let first = DateTime::from_timestamp(now().timestamp() + 3, 0).unwrap();
    let rooms: Vec<_> = (0..AUTO_LIVE).map(|n| format!("room{n}")).collect();
    for (n, room) in (0..).zip(&rooms) {
        let start = first + TimeDelta::seconds(n) - TimeDelta::minutes(1);
        let end = start + TimeDelta::hours(2);
        let booking = json!({
            "room": room, "start": start, "end": end, "waiting_queue": true, "auto_live": 1,
        });
        book(&mut http, &booking);
    }
    let mut modules = Modules::new(&server, "one");
    let reports: Vec<_> = rooms.iter().map(|room| report(room, 1)).collect();
    let answer = modules.post(true, &reports);
    let directives = answer["rooms"].as_array().unwrap();
    assert!(directives.iter().all(|it| it["live"] == false), "{answer}");
    let mut after = 0;
    let mut times = Vec::new();
    while times.len() < rooms.len() {
        let answer = modules.poll(after);
        let at = now();
        for _ in answer["rooms"].as_array().unwrap() {
            let due = first + TimeDelta::seconds(i64::try_from(times.len()).unwrap());
            times.push((at - due).to_std().unwrap_or_default());
        }
        after = answer["revision"].as_u64().unwrap();
    }
    Latencies::of(times)
}

/// Conferences of 15 visitors that go live together.
fn rooms_go_live(run: &mut Run) {
    let server = Server::start();
    let (rooms, mut clients) = rooms_with_visitors(run, &server);
    let count = rooms.len();
    let mut prosodys: Vec<_> = (0..SERVERS)
        .map(|n| Modules::new(&server, &format!("prosody{n}")))
        .collect();
    let mut runs = Vec::new();
    for n in 0..ROUNDS {
        progress(format!(
            "  {count} rooms go live in batches, {} of {ROUNDS}",
            n + 1
        ));
        report_all(&mut prosodys, &rooms, Some(0));
        clients.connect_all();
        let (latencies, _) =
            clients.measure_delivery(|| report_all(&mut prosodys, &rooms, Some(1)));
        runs.push(latencies);
        report_all(&mut prosodys, &rooms, None);
        clients.disconnect_all();
    }
    let delivery = Latencies::median(runs);
    let report = &mut run.report;
    report.row(
        &format!("{count} conferences of {VISITORS_EACH} go live, reported by {SERVERS} Prosody servers in one batch each (simulated): delivery median; 99 %; last"),
        &delivery.to_string(),
    );
    report.record(
        "prosody_batches",
        json!({ "conferences": count, "told_ms": delivery.json() }),
    );
}

/// Each server reports its share of the rooms in one POST; without a number of occupants, that it has none of them.
fn report_all(prosodys: &mut [Modules], rooms: &[String], occupants: Option<u32>) {
    let share = rooms.len().div_ceil(SERVERS);
    std::thread::scope(|scope| {
        for (modules, rooms) in prosodys.iter_mut().zip(rooms.chunks(share)) {
            scope.spawn(move || {
                let reports: Vec<_> = match occupants {
                    Some(occupants) => rooms.iter().map(|room| report(room, occupants)).collect(),
                    None => Vec::new(),
                };
                modules.post(occupants.is_none(), &reports);
            });
        }
    });
}
