//! usher as a gateway to another reservation system, whose responses each test scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Usher, all, in_seconds, now};
use crate::keys::check;
use crate::scripted::{Reply, Request, Scripted, conference};

/// A configuration with this upstream and short pauses.
fn gateway_to(server: &Scripted, extra: &str) -> String {
    format!(
        "reservations.backend = \"upstream\"\n[reservations.upstream]\nurl = \"http://{}/api/\"\nretry_delay = \"1ms\"\n{extra}",
        server.address
    )
}

async fn upstream_with(status: u16, body: Value) -> Scripted {
    Scripted::start(move |_| Reply::Json(status, body.clone())).await
}

async fn outbox(usher: &Usher) -> Value {
    usher.get("/api/v1/outbox").await.body
}

/// Waits until the outbox is empty.
async fn wait_until_delivered(usher: &Usher) {
    let waiting = async {
        while outbox(usher).await["pending"] != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(waited.is_ok(), "{}", outbox(usher).await);
}

#[tokio::test]
async fn request_has_the_fields_of_prosody_and_the_configured_headers() {
    let mut body = conference(7, "room1");
    body["password"] = "sesame".into();
    body["max_occupants"] = "5".into();
    body["unknown"] = json!({ "null": null });
    let server = upstream_with(201, body).await;
    let extra = "headers = { Authorization = \"Bearer upstream\" }";
    let usher = Usher::start(&gateway_to(&server, extra)).await;
    let form = "start_time=2026-11-21T22%3a21%3a26.000Z&name=room1&mail_owner=abc%40meet.example.com&user_email=a%40b";
    let answer = usher.post_form(form).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    assert_eq!(answer.id(), 7);
    assert_eq!(answer.body["mail_owner"], "owner@example.com");
    assert_eq!(answer.body["max_occupants"], 5);
    assert_eq!(answer.body["password"], "sesame");
    assert_eq!(answer.body.as_object().unwrap().len(), 7, "{}", answer.body);
    let request = server.requests().remove(0);
    assert_eq!(request.line(), "POST /api/conference");
    assert_eq!(request.header("authorization"), Some("Bearer upstream"));
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(
        request.body,
        "name=room1&start_time=2026-11-21T22%3A21%3A26.000Z&mail_owner=abc%40meet.example.com"
    );
    let decision = usher.decisions("room=room1").await.remove(0);
    assert_eq!(decision["outcome"], "allowed");
    assert!(
        decision["sentence"]
            .as_str()
            .unwrap()
            .contains("conference 7")
    );
}

#[tokio::test]
async fn identity_is_forwarded_if_configured() {
    let server = upstream_with(201, conference(7, "room1")).await;
    let usher = Usher::start(&gateway_to(&server, "forward_identity = true")).await;
    let identity = [
        ("user_id", "u-17"),
        ("user_email", "alice@example.com"),
        ("moderator", "true"),
        ("role", "visitor"),
    ];
    usher.open_as("room1", &identity).await;
    let body = server.requests().remove(0).body;
    for field in [
        "user_id=u-17",
        "user_email=alice%40example.com",
        "moderator=true",
        "role=visitor",
    ] {
        assert!(body.contains(field), "{body}");
    }
}

#[tokio::test]
async fn conflict_is_resolved_to_the_running_conference() {
    for (id, path) in [(json!(7), "7"), (json!("a-7"), "a-7"), (json!(7.0), "7")] {
        let sent = id.clone();
        let server = Scripted::start(move |request| match request.method.as_str() {
            "POST" => Reply::Json(409, json!({ "conflict_id": sent.clone() })),
            _ => Reply::Json(200, conference(sent.clone(), "ROOM1")),
        })
        .await;
        let usher = Usher::start(&gateway_to(&server, "")).await;
        let answer = usher.open("room1").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(answer.body["name"], "room1");
        let get = format!("GET /api/conference/{path}");
        assert_eq!(server.lines(), ["POST /api/conference", &get]);
        assert_eq!(answer.body["id"].is_string(), id.is_string());
    }
}

#[tokio::test]
async fn conflict_without_a_running_conference_is_an_error() {
    for (conflict, status) in [
        (json!({ "conflict_id": 7 }), 404),
        (json!({ "conflict_id": null }), 200),
        (json!({ "conflict_id": 7 }), 302),
    ] {
        let server = Scripted::start(move |request| match request.method.as_str() {
            "POST" => Reply::Json(409, conflict.clone()),
            _ => Reply::Json(status, json!({})),
        })
        .await;
        let usher = Usher::start(&gateway_to(&server, "")).await;
        usher.open("room1").await.refused(502);
    }
}

#[tokio::test]
async fn refusal_keeps_its_status_and_message() {
    for status in [400, 401, 403, 404, 410, 418, 422, 429] {
        let server = upstream_with(status, json!({ "message": "Ask Bob." })).await;
        let usher = Usher::start(&gateway_to(&server, "")).await;
        assert_eq!(usher.open("room1").await.refused(status), "Ask Bob.");
        assert_eq!(server.lines().len(), 1, "{status} is not retried");
        let decision = usher.decisions("").await.remove(0);
        assert_eq!(decision["outcome"], "refused");
        assert_eq!(decision["sentence"], "Ask Bob.");
        server.set_script(|_| Reply::Json(403, json!({ "message": ["no"] })));
        let invalid = usher.open("room1").await;
        assert!(
            invalid.refused(403).contains("\"room1\""),
            "{}",
            invalid.body
        );
    }
}

#[tokio::test]
async fn response_that_is_not_repairable_is_an_error_with_the_field() {
    let mut no_duration = conference(7, "room1");
    no_duration["duration"] = Value::Null;
    let bodies = [
        (201, no_duration.to_string(), "duration is missing"),
        (201, conference(7, "room2").to_string(), "another room"),
        (201, "<html>".into(), "not a JSON object"),
        (201, String::new(), "not a JSON object"),
        (201, "x".repeat(100_000), "too long"),
        (302, String::new(), "status is 302"),
        (204, String::new(), "status is 204"),
        (202, "{}".into(), "status is 202"),
    ];
    for (status, body, message) in bodies {
        let server = Scripted::start(move |_| Reply::Raw(status, body.clone())).await;
        let usher = Usher::start(&gateway_to(&server, "on_failure = \"allow\"")).await;
        let answer = usher.open("room1").await;
        assert!(answer.refused(502).contains(message), "{}", answer.body);
        assert_eq!(server.lines().len(), 1);
        let decision = usher.decisions("").await.remove(0);
        assert_eq!(decision["outcome"], "failed");
        assert!(decision["sentence"].as_str().unwrap().contains(message));
    }
}

#[tokio::test]
async fn failures_are_retried_and_the_last_one_is_reported() {
    let server = upstream_with(500, json!({})).await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    assert!(usher.open("room1").await.refused(502).contains("500"));
    assert_eq!(server.lines().len(), 4);
    let count = AtomicUsize::new(0);
    server.set_script(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::HangUp,
        1 => Reply::Json(503, json!({})),
        _ => Reply::Json(201, conference(7, "room1")),
    });
    assert_eq!(usher.open("room1").await.status, StatusCode::CREATED);
    assert_eq!(server.lines().len(), 7);
}

#[tokio::test]
async fn timeout_is_reported_and_not_retried() {
    let server = Scripted::start(|_| Reply::Nothing).await;
    let usher = Usher::start(&gateway_to(&server, "timeout = \"50ms\"")).await;
    usher.open("room1").await.refused(504);
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn request_ends_at_the_deadline() {
    let server = Scripted::start(|_| Reply::Nothing).await;
    let usher = Usher::start(&gateway_to(&server, "deadline = \"50ms\"")).await;
    usher.open("room1").await.refused(504);
}

#[tokio::test]
async fn simultaneous_requests_for_a_room_share_one_call() {
    let server = upstream_with(201, conference(7, "room1")).await;
    let usher = Arc::new(Usher::start(&gateway_to(&server, "")).await);
    server.hold.send(true).unwrap();
    let asking = tokio::spawn({
        let usher = Arc::clone(&usher);
        async move { all(20, |_| usher.open("room1")).await }
    });
    server.wait("POST /api/conference", 1).await;
    // Some may arrive too late to share it; the unit test of `single_flight` covers the exact rule.
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.hold.send(false).unwrap();
    let answers = asking.await.unwrap();
    assert!(answers.iter().all(|answer| answer.id() == 7));
    let calls = server.lines().len();
    assert!(calls < answers.len(), "{calls}");
    let created = answers.iter().filter(|a| a.status == StatusCode::CREATED);
    assert_eq!(created.count(), calls);
}

#[tokio::test]
async fn refusal_is_for_its_requester_only() {
    let server = Scripted::start(|request: &Request| {
        if request.body.contains("u-1") {
            Reply::Json(403, json!({ "message": "not you" }))
        } else {
            Reply::Json(201, conference(7, "room1"))
        }
    })
    .await;
    let usher = Arc::new(Usher::start(&gateway_to(&server, "forward_identity = true")).await);
    server.hold.send(true).unwrap();
    let ask = |id: &'static str| {
        let usher = Arc::clone(&usher);
        tokio::spawn(async move { usher.open_as("room1", &[("user_id", id)]).await })
    };
    let first = ask("u-1");
    server.wait("POST /api/conference", 1).await;
    let second = ask("u-2");
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.hold.send(false).unwrap();
    assert_eq!(first.await.unwrap().refused(403), "not you");
    assert_eq!(second.await.unwrap().id(), 7);
}

#[tokio::test]
async fn lua_spelling_of_an_id_is_normalized() {
    let server = Scripted::start(|request| match request.method.as_str() {
        "DELETE" => Reply::Raw(204, String::new()),
        _ => Reply::Json(200, conference(7, "room1")),
    })
    .await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    usher.open("room1").await;
    assert_eq!(usher.get("/conference/7.0").await.id(), 7);
    assert_eq!(
        usher.delete("/conference/7.0").await.status,
        StatusCode::NO_CONTENT
    );
    server.wait("DELETE /api/conference/7", 1).await;
    wait_until_delivered(&usher).await;
    // A repeated DELETE succeeds and is not delivered again.
    assert_eq!(
        usher.delete("/conference/7.0").await.status,
        StatusCode::NO_CONTENT
    );
    let over = usher.get("/conference/7.0").await;
    over.refused(404);
    assert!(over.body["ended_at"].is_string());
    let lines = server.lines();
    let of = |method: &str| lines.iter().filter(|line| line.starts_with(method)).count();
    assert_eq!((of("GET"), of("DELETE")), (1, 1), "{lines:?}");
    usher.delete("/conference/a%2fb").await.refused(404);
    usher.get("/conference/..%2f").await.refused(404);
}

#[tokio::test]
async fn deletion_is_kept_across_a_restart_until_acknowledged() {
    let server = Scripted::start(|request| match request.method.as_str() {
        "DELETE" => Reply::Json(503, json!({})),
        _ => Reply::Json(201, conference("a1", "room1")),
    })
    .await;
    let config = gateway_to(&server, "").replace("1ms", "10m");
    let usher = Usher::start(&config).await;
    usher.open("room1").await;
    usher.delete("/conference/a1").await;
    server.wait("DELETE /api/conference/a1", 1).await;
    let waiting = outbox(&usher).await;
    assert_eq!(waiting["pending"], 1);
    assert_eq!(waiting["deletions"][0]["conference"], "a1");
    assert_eq!(waiting["deletions"][0]["room"], "room1");
    server.set_script(|_| Reply::Raw(204, String::new()));
    let usher = Usher::start_in(usher.stop().await, &config).await;
    server.wait("DELETE /api/conference/a1", 2).await;
    wait_until_delivered(&usher).await;
}

#[tokio::test]
async fn deletion_is_delivered_before_the_next_request_for_its_room() {
    let server = Scripted::start(|request| match request.method.as_str() {
        "DELETE" => Reply::HangUp,
        _ => Reply::Json(201, conference(7, "room1")),
    })
    .await;
    let usher = Usher::start(&gateway_to(&server, "").replace("1ms", "10m")).await;
    usher.open("room1").await;
    usher.delete("/conference/7").await;
    server.wait("DELETE /api/conference/7", 1).await;
    server.set_script(|request| match request.method.as_str() {
        "DELETE" => Reply::Raw(204, String::new()),
        _ => Reply::Json(201, conference(8, "room1")),
    });
    assert_eq!(usher.open("room1").await.id(), 8);
    let lines = server.lines();
    assert_eq!(
        &lines[lines.len() - 2..],
        ["DELETE /api/conference/7", "POST /api/conference"]
    );
    assert_eq!(outbox(&usher).await["pending"], 0);
}

#[tokio::test]
async fn deletion_of_a_conference_that_is_running_again_is_discarded() {
    let server = Scripted::start(|request| match request.method.as_str() {
        "DELETE" => Reply::Json(500, json!({})),
        "POST" => Reply::Json(409, json!({ "conflict_id": 7 })),
        _ => Reply::Json(200, conference(7, "room1")),
    })
    .await;
    let usher = Usher::start(&gateway_to(&server, "").replace("1ms", "10m")).await;
    usher.open("room1").await;
    usher.delete("/conference/7").await;
    server.wait("DELETE /api/conference/7", 1).await;
    assert_eq!(usher.open("room1").await.id(), 7);
    assert_eq!(outbox(&usher).await["pending"], 0);
    assert_eq!(usher.get("/conference/7").await.id(), 7);
}

#[tokio::test]
async fn full_outbox_refuses_deletions() {
    let server = upstream_with(503, json!({})).await;
    let usher = Usher::start(&gateway_to(&server, "outbox_max = 2")).await;
    for id in 1..=2 {
        let path = format!("/conference/{id}");
        assert_eq!(usher.delete(&path).await.status, StatusCode::NO_CONTENT);
    }
    usher.delete("/conference/3").await.refused(503);
    assert_eq!(
        usher.delete("/conference/1").await.status,
        204,
        "accepted already"
    );
    assert_eq!(outbox(&usher).await["pending"], 2);
    let page = usher.get("/api/v1/outbox?limit=1").await.body;
    let next = format!("/api/v1/outbox?after={}", page["next"]);
    let rest = usher.get(&next).await.body;
    assert_eq!(rest["deletions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn deletion_is_discarded_at_its_maximum_age_and_where_unsupported() {
    let server = upstream_with(503, json!({})).await;
    let usher = Usher::start(&gateway_to(&server, "outbox_retention = \"1s\"")).await;
    usher.delete("/conference/1").await;
    wait_until_delivered(&usher).await;
    server.set_script(|_| Reply::Json(405, json!({})));
    usher.delete("/conference/2").await;
    wait_until_delivered(&usher).await;
    let lines = server.lines();
    let of = |line: &str| lines.iter().filter(|one| *one == line).count();
    assert_eq!(of("DELETE /api/conference/2"), 1);
    assert!(of("DELETE /api/conference/1") >= 1);
}

#[tokio::test]
async fn circuit_breaker_opens_after_failures_and_closes_after_a_probe() {
    let server = upstream_with(500, json!({})).await;
    let extra = "failures_max = 2\nretry_count = 0\nprobe_interval = \"50ms\"";
    let usher = Usher::start(&gateway_to(&server, extra)).await;
    server.set_script(|request| match request.method.as_str() {
        "GET" => Reply::HangUp,
        _ => Reply::Json(500, json!({})),
    });
    usher.open("room1").await.refused(502);
    usher.open("room1").await.refused(502);
    usher.delete("/conference/9").await;
    let rejected = usher.open("room1").await;
    rejected.refused(503);
    assert!(rejected.headers.contains_key("retry-after"));
    usher.get("/conference/7").await.refused(503);
    let posts = |server: &Scripted| {
        let lines = server.lines();
        lines.iter().filter(|line| line.starts_with("POST")).count()
    };
    assert_eq!(posts(&server), 2);
    server.wait("GET /api/conference/0", 1).await;
    server.set_script(|request| match request.method.as_str() {
        "POST" => Reply::Json(201, conference(7, "room1")),
        _ => Reply::Json(404, json!({})),
    });
    // The immediate delivery shows that the circuit breaker is closed.
    server.wait("DELETE /api/conference/9", 1).await;
    wait_until_delivered(&usher).await;
    assert_eq!(usher.open("room1").await.id(), 7);
}

#[tokio::test]
async fn conferences_run_without_the_upstream_with_on_failure_allow() {
    let server = Scripted::start(|_| Reply::HangUp).await;
    let extra = "on_failure = \"allow\"\nretry_count = 0\nfailures_max = 2";
    let usher = Usher::start(&gateway_to(&server, extra)).await;
    let first = usher.open("room1").await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
    let left = first.end() - now();
    assert!((left - TimeDelta::hours(6)).abs() < TimeDelta::seconds(30));
    let id = first.body["id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(usher.open("room1").await.body["id"], id);
    }
    let path = format!("/conference/{id}");
    assert_eq!(usher.get(&path).await.body["id"], id);
    assert_eq!(usher.delete(&path).await.status, StatusCode::NO_CONTENT);
    usher.get(&path).await.refused(404);
    assert_eq!(
        outbox(&usher).await["pending"],
        0,
        "the upstream does not know it"
    );
    assert!(!server.lines().iter().any(|line| line.starts_with("DELETE")));
    assert_eq!(usher.decisions("").await[0]["reason"], "on_failure");
}

#[tokio::test]
async fn requests_that_share_a_fallback_are_answered_alike() {
    let server = Scripted::start(|_| Reply::HangUp).await;
    let extra = "on_failure = \"allow\"\nretry_count = 0\nfailures_max = 100";
    let usher = Arc::new(Usher::start(&gateway_to(&server, extra)).await);
    server.hold.send(true).unwrap();
    let requests = tokio::spawn({
        let usher = Arc::clone(&usher);
        async move { all(5, |_| usher.open("room1")).await }
    });
    server.wait("POST /api/conference", 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.hold.send(false).unwrap();
    let responses = requests.await.unwrap();
    for response in &responses {
        assert_eq!(response.status, StatusCode::CREATED, "{}", response.body);
        assert_eq!(response.body["id"], responses[0].body["id"]);
    }
}

#[tokio::test]
async fn conference_that_has_ended_is_refused() {
    let mut past = conference(7, "room1");
    past["start_time"] = in_seconds(-7200 - 60).into();
    let server = upstream_with(201, past).await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    assert!(usher.open("room1").await.refused(403).contains("ended at"));
}

#[tokio::test]
async fn live_state_ends_with_its_conference_before_the_answer() {
    const ROOM: &str = "room1@conference.meet.example.com";
    let count = AtomicUsize::new(0);
    let server = Scripted::start(move |request| match request.method.as_str() {
        "DELETE" => Reply::Raw(204, String::new()),
        _ => {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let mut body = conference(number + 1, "room1");
            body["waiting_queue"] = true.into();
            // The time of the second one is up soon.
            if number == 1 {
                body["duration"] = 1.into();
            }
            Reply::Json(201, body)
        }
    })
    .await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    assert_eq!(usher.open("room1").await.id(), 1);
    usher.go_live(ROOM).await;
    usher.delete("/conference/1").await;
    assert_eq!(usher.status(ROOM).await["live"], false);
    assert_eq!(usher.open("room1").await.id(), 2);
    usher.go_live(ROOM).await;
    assert_eq!(usher.status(ROOM).await["live"], true);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let opened = usher.open("room1").await;
    assert_eq!((opened.id(), opened.body.get("live")), (3, None));
    assert_eq!(usher.status(ROOM).await["live"], false);
}

#[tokio::test]
async fn visitor_waits_if_the_upstream_responds_202() {
    let server = upstream_with(202, json!({ "waiting_queue": true })).await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    let answer = usher.open("room1").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.body["waiting_queue"], true);
}

#[tokio::test]
async fn bookings_are_refused() {
    let server = upstream_with(404, json!({})).await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    let booking = json!({ "room": "room1" });
    let answer = usher.json(Method::POST, "/api/v1/bookings", &booking).await;
    assert!(answer.refused(403).contains("make them there"));
}

#[tokio::test]
async fn response_to_a_get_is_checked() {
    let server = upstream_with(200, conference(7, "room1")).await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    usher.open("room1").await;
    for (status, body, expected) in [
        (200, json!({}), 502),
        (200, conference(7, "room2"), 502),
        (404, json!({}), 404),
        (403, json!({}), 403),
        (302, json!({}), 502),
        (500, json!({}), 502),
    ] {
        server.set_script(move |_| Reply::Json(status, body.clone()));
        usher.get("/conference/7").await.refused(expected);
    }
}

#[tokio::test]
async fn check_reports_the_response_to_its_probe() {
    let json = json!({ "message": "unknown" }).to_string();
    for (status, body, code, message) in [
        (
            404,
            json.as_str(),
            0,
            "ok      reservation system: it answers",
        ),
        (404, "<html>", 0, "not in JSON"),
        (401, "", 1, "reservations.upstream.headers"),
        (302, "", 1, "it redirects usher"),
        (
            200,
            "{}",
            1,
            "is reservations.upstream.url the reservation API's?",
        ),
        (500, "", 1, "see its log"),
        (400, "", 0, "404 would be right"),
    ] {
        let body = body.to_owned();
        let server = Scripted::start(move |_| Reply::Raw(status, body.clone())).await;
        let (exit, output) = check(&gateway_to(&server, ""), &[]).await;
        assert_eq!(exit, Some(code), "{status}: {output}");
        assert!(output.contains(message), "{status}: {output}");
        assert_eq!(server.lines(), ["GET /api/conference/0"]);
    }
    let gone = Scripted::start(|_| Reply::HangUp).await;
    let config = gateway_to(&gone, "");
    drop(gone);
    let (exit, output) = check(&config, &[]).await;
    assert_eq!(exit, Some(1));
    assert!(output.contains("it cannot be reached"), "{output}");
}

#[tokio::test]
async fn file_without_certificates_is_reported() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, "nothing").unwrap();
    let config = format!(
        "reservations.backend = \"upstream\"\n[reservations.upstream]\nurl = \"https://127.0.0.1:1\"\nca_file = {file:?}"
    );
    let (exit, output) = check(&config, &[]).await;
    assert_eq!(exit, Some(1));
    assert!(output.contains("reservations.upstream.ca_file"), "{output}");
}
