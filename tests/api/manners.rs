//! HTTP manners of the bookings API: versions, repetitions, changes, numbers, times and codes.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, TOKEN, Usher, all, in_seconds};
use crate::scripted::{Reply, Scripted};

const PATH: &str = "/api/v1/bookings";

fn booking(room: &str, more: Value) -> Value {
    let mut body = json!({ "room": room, "start": in_seconds(60), "end": in_seconds(3600) });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

/// A request with one header, and a body if there is one.
async fn send(
    usher: &Usher,
    (method, path): (Method, &str),
    (name, value): (&'static str, &str),
    body: Option<&Value>,
) -> Answer {
    let request = usher.request(method, path);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    Answer::of(request.header(name, value)).await
}

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn change_of_a_stale_booking_is_refused() {
    let usher = Usher::start("").await;
    let made = usher
        .json(Method::POST, PATH, &booking("room", json!({})))
        .await;
    let path = format!("{PATH}/{}", made.id());
    let first = etag(&made);
    assert_eq!(etag(&usher.get(&path).await), first);
    let title = json!({ "title": "one" });
    let change = async |tag: &str| {
        let target = (Method::PATCH, path.as_str());
        send(&usher, target, ("If-Match", tag), Some(&title)).await
    };
    let changed = change(&first).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let second = etag(&changed);
    assert_ne!(first, second);
    for stale in [&first, "\"nonsense\"", "", &format!("W/{second}")] {
        let refused = change(stale).await;
        refused.refused(412);
        assert_eq!(refused.body["code"], "stale");
        assert_eq!(etag(&refused), second);
    }
    let put = (Method::PUT, path.as_str());
    let whole = booking("room", json!({}));
    send(&usher, put.clone(), ("If-Match", &first), Some(&whole))
        .await
        .refused(412);
    let delete = (Method::DELETE, path.as_str());
    send(&usher, delete.clone(), ("If-Match", &first), None)
        .await
        .refused(412);
    assert_eq!(usher.get(&path).await.body["title"], "one");
    let replaced = send(&usher, put, ("If-Match", "*"), Some(&whole)).await;
    assert_eq!(replaced.status, StatusCode::OK);
    let both = format!("{second}, {}", etag(&replaced));
    let gone = send(&usher, delete.clone(), ("If-Match", &both), None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    send(&usher, delete, ("If-Match", &both), None)
        .await
        .refused(404);
}

#[tokio::test]
async fn of_changes_at_the_same_time_with_one_tag_one_succeeds() {
    let usher = Usher::start("").await;
    let made = usher
        .json(Method::POST, PATH, &booking("room", json!({})))
        .await;
    let (path, tag) = (format!("{PATH}/{}", made.id()), etag(&made));
    let answers = all(20, |n| {
        let (usher, path, tag) = (&usher, path.as_str(), tag.as_str());
        async move {
            let title = json!({ "title": format!("title {n}") });
            send(
                usher,
                (Method::PATCH, path),
                ("If-Match", tag),
                Some(&title),
            )
            .await
        }
    })
    .await;
    let changed = answers
        .iter()
        .filter(|it| it.status == StatusCode::OK)
        .count();
    let stale = answers
        .iter()
        .filter(|it| it.status == StatusCode::PRECONDITION_FAILED)
        .count();
    assert_eq!((changed, stale), (1, 19));
}

#[tokio::test]
async fn booking_that_the_client_has_is_not_sent_again() {
    let usher = Usher::start("").await;
    let made = usher
        .json(Method::POST, PATH, &booking("room", json!({})))
        .await;
    let (path, tag) = (format!("{PATH}/{}", made.id()), etag(&made));
    let get = (Method::GET, path.as_str());
    let same = send(&usher, get.clone(), ("If-None-Match", &tag), None).await;
    assert_eq!(
        (same.status, same.body.is_null()),
        (StatusCode::NOT_MODIFIED, true)
    );
    assert_eq!(etag(&same), tag);
    usher
        .json(Method::PATCH, &path, &json!({ "password": "changed" }))
        .await;
    let other = send(&usher, get, ("If-None-Match", &tag), None).await;
    assert_eq!(other.status, StatusCode::OK);
}

#[tokio::test]
async fn repeated_request_makes_one_booking() {
    let usher = Usher::start("").await;
    let body = booking("room", json!({}));
    let post = async |key: &str, body: &Value| {
        let target = (Method::POST, PATH);
        send(&usher, target, ("Idempotency-Key", key), Some(body)).await
    };
    let answers = all(10, |_| post("key-1", &body)).await;
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        assert_eq!(answer.body, answers[0].body);
        assert_eq!(answer.headers["location"], answers[0].headers["location"]);
    }
    let id = answers[0].id();
    assert_eq!(
        usher.get(PATH).await.body["bookings"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // Another request needs another key.
    let other = post("key-1", &booking("other", json!({}))).await;
    other.refused(422);
    assert_eq!(other.body["code"], "idempotency_key_reused");
    post("key-2", &body).await.refused(409);
    // A refused request may be repeated with its key.
    let dir = usher.stop().await;
    let usher = Usher::start_in(dir, "").await;
    let post = async |key: &str, body: &Value| {
        let target = (Method::POST, PATH);
        send(&usher, target, ("Idempotency-Key", key), Some(body)).await
    };
    assert_eq!(post("key-1", &body).await.id(), id);
    usher.delete(&format!("{PATH}/{id}")).await;
    let used = post("key-1", &body).await;
    assert!(used.refused(409).contains(&id.to_string()));
    assert_eq!(used.body["code"], "idempotency_key_used");
    assert_eq!(post("key-2", &body).await.status, StatusCode::CREATED);
    for key in ["", " ", &"k".repeat(256), "schlüssel"] {
        post(key, &body).await.refused(400);
    }
}

#[tokio::test]
async fn merge_patch_changes_a_booking() {
    let usher = Usher::start("").await;
    let title = json!({ "title": "t", "owner": "o", "lobby": true, "password": "p" });
    let made = usher.book(&booking("room", title)).await;
    let path = format!("{PATH}/{}", made["id"]);
    let patch = async |kind: &str, body: &str| {
        let request = usher.request(Method::PATCH, &path).body(body.to_owned());
        Answer::of(request.header("Content-Type", kind)).await
    };
    let kind = "application/merge-patch+json";
    let changed = patch(
        kind,
        r#"{"title": null, "lobby": null, "max_occupants": 7}"#,
    )
    .await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    assert!(changed.body.get("title").is_none());
    assert_eq!(changed.body["lobby"], false);
    assert_eq!(changed.body["max_occupants"], 7);
    assert_eq!(changed.body["owner"], "o");
    assert_eq!(changed.body["password_set"], true);
    let charset = patch(&format!("{kind}; charset=utf-8"), "{}").await;
    assert_eq!(charset.status, StatusCode::OK);
    for field in ["room", "start"] {
        for kind in [kind, "application/json"] {
            let answer = patch(kind, &format!("{{\"{field}\": null}}")).await;
            let message = answer.refused(400);
            assert!(
                message.starts_with(&format!("{field}: can't be cleared")),
                "{message}"
            );
            assert_eq!(answer.body["fields"][0]["code"], "not_clearable");
        }
    }
    for other in ["text/plain", "application/json-patch+json"] {
        let answer = patch(other, "{}").await;
        answer.refused(415);
        let accepted = answer.headers["accept-patch"].to_str().unwrap();
        assert!(accepted.contains(kind), "{accepted}");
    }
    // A merge patch is for PATCH alone.
    for method in [Method::PUT, Method::POST] {
        let target = if method == Method::PUT {
            path.as_str()
        } else {
            PATH
        };
        let request = usher.request(method, target).body("{}");
        Answer::of(request.header("Content-Type", kind))
            .await
            .refused(415);
    }
}

#[tokio::test]
async fn numbers_without_a_fraction_are_whole() {
    let usher = Usher::start("").await;
    let more = json!({ "max_occupants": 25.0, "waiting_queue": true, "auto_live": 5.0 });
    let made = usher.book(&booking("room", more)).await;
    assert_eq!(
        (&made["max_occupants"], &made["auto_live"]),
        (&json!(25), &json!(5))
    );
    for number in [json!(25.5), json!(-1.0), json!("25"), json!(0.0)] {
        let body = booking("other", json!({ "max_occupants": number }));
        let answer = usher.json(Method::POST, PATH, &body).await;
        assert!(
            answer.refused(400).starts_with("max_occupants: "),
            "{number}"
        );
    }
}

#[tokio::test]
async fn local_times_are_of_the_bookings_time_zone() {
    let usher = Usher::start("").await;
    let body = json!({
        "room": "room", "time_zone": "Europe/Berlin",
        "start": "2040-12-03T14:00", "end": "2040-12-03 15:30:00",
    });
    let made = usher.book(&body).await;
    assert_eq!(made["start"], "2040-12-03T13:00:00.000Z");
    assert_eq!(made["end"], "2040-12-03T14:30:00.000Z");
    assert_eq!(made["time_zone"], "Europe/Berlin");
    let path = format!("{PATH}/{}", made["id"]);
    assert_eq!(usher.get(&path).await.body, made);
    let change = async |body: Value| usher.json(Method::PATCH, &path, &body).await;
    // The booking's own zone counts where none is given.
    let later = change(json!({ "end": "2040-12-03T16:00" })).await;
    assert_eq!(later.body["end"], "2040-12-03T15:00:00.000Z");
    let other = change(json!({ "end": "2040-12-03T16:00", "time_zone": "Asia/Kolkata" })).await;
    other.refused(400);
    let other = change(json!({ "end": "2040-12-03T20:00", "time_zone": "Asia/Kolkata" })).await;
    assert_eq!(other.body["end"], "2040-12-03T14:30:00.000Z");
    assert_eq!(other.body["start"], made["start"]);
    assert_eq!(other.body["time_zone"], "Asia/Kolkata");
    let zoned = change(json!({ "end": "2040-12-03T16:00+01:00" })).await;
    assert_eq!(zoned.body["end"], "2040-12-03T15:00:00.000Z");
    let cleared = change(json!({ "time_zone": null })).await;
    assert!(cleared.body.get("time_zone").is_none(), "{}", cleared.body);
    let missing = change(json!({ "end": "2040-12-03T16:00" })).await;
    assert!(
        missing
            .refused(400)
            .starts_with("end: the time has no zone")
    );
    for zone in ["Europe/Bonn", "CEST", "", "+01:00"] {
        let answer = change(json!({ "time_zone": zone })).await;
        let message = answer.refused(400);
        assert!(
            message.starts_with("time_zone: must be the IANA name"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn local_time_at_a_change_of_clocks_is_refused_with_both_readings() {
    let usher = Usher::start("").await;
    for (local, readings) in [
        (
            "2040-10-28T02:30",
            ["2040-10-28T02:30:00+02:00", "2040-10-28T02:30:00+01:00"],
        ),
        (
            "2040-03-25T02:30",
            ["2040-03-25T01:30:00+01:00", "2040-03-25T03:30:00+02:00"],
        ),
    ] {
        let body = json!({ "room": "room", "start": local, "time_zone": "Europe/Berlin" });
        let answer = usher.json(Method::POST, PATH, &body).await;
        let message = answer.refused(400);
        assert!(message.starts_with("start: "), "{message}");
        for reading in readings {
            assert!(message.contains(reading), "{message}");
        }
        assert_eq!(answer.body["fields"][0]["code"], "invalid_time");
    }
}

#[tokio::test]
async fn booking_without_an_end_says_that_it_is_permanent() {
    let usher = Usher::start("").await;
    let made = usher.book(&json!({ "room": "lounge" })).await;
    assert_eq!((made.get("end"), &made["permanent"]), (None, &json!(true)));
    let path = format!("{PATH}/{}", made["id"]);
    let ended = usher
        .json(Method::PATCH, &path, &json!({ "end": in_seconds(600) }))
        .await;
    assert_eq!(ended.body["permanent"], false);
    let again = usher
        .json(Method::PATCH, &path, &json!({ "end": null }))
        .await;
    assert_eq!(
        (again.body.get("end"), &again.body["permanent"]),
        (None, &json!(true))
    );
    assert_eq!(usher.get(PATH).await.body["bookings"][0]["permanent"], true);
}

#[tokio::test]
async fn booking_can_not_go_live_after_its_end() {
    let usher = Usher::start("").await;
    let queue = |minutes: u32| json!({ "waiting_queue": true, "auto_live": minutes });
    for minutes in [59, 60, 1440] {
        let answer = usher
            .json(Method::POST, PATH, &booking("room", queue(minutes)))
            .await;
        let message = answer.refused(400);
        assert!(message.starts_with("auto_live: "), "{message}");
        assert_eq!(answer.body["code"], "invalid_auto_live");
    }
    let made = usher.book(&booking("room", queue(58))).await;
    let path = format!("{PATH}/{}", made["id"]);
    let sooner = usher
        .json(Method::PATCH, &path, &json!({ "end": in_seconds(1800) }))
        .await;
    assert!(sooner.refused(400).starts_with("auto_live: "));
    usher
        .book(&json!({ "room": "lounge", "waiting_queue": true, "auto_live": 1440 }))
        .await;
}

#[tokio::test]
async fn leap_second_of_prosody_is_the_second_after_it() {
    let usher = Usher::start("").await;
    let form = "name=room&start_time=2026-06-30T23%3A59%3A60.000Z&mail_owner=a%40b";
    let answer = usher.post_form(form).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    let body =
        json!({ "room": "later", "start": "2040-06-30T23:59:60Z", "end": "2040-07-01T01:00:60Z" });
    let made = usher.book(&body).await;
    assert_eq!(made["start"], "2040-07-01T00:00:00.000Z");
    assert_eq!(made["end"], "2040-07-01T01:01:00.000Z");
}

/// The status and the body of the answer to bytes that need not be HTTP.
async fn raw(usher: &Usher, bytes: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(usher.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(15), read).await;
    read.expect("the connection stays open").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    // The last answer of the connection.
    let last = &answer[answer.rfind("HTTP/1.1 ").unwrap()..];
    let (head, body) = last.split_once("\r\n\r\n").unwrap();
    let length = format!("content-length: {}", body.len());
    assert!(head.lines().any(|line| line == length), "{last}");
    (
        head[9..12].parse().unwrap(),
        serde_json::from_str(body).unwrap(),
    )
}

#[tokio::test]
async fn request_that_is_no_http_gets_a_message() {
    let usher = Usher::start("").await;
    let cookie = "x".repeat(40_000);
    for (request, status, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "malformed_request"),
        (
            "GET /health HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
            400,
            "malformed_request",
        ),
        (
            "GET /health HTTP/9.9\r\n\r\n".to_owned(),
            400,
            "malformed_request",
        ),
        (
            // The end of the head is still to come.
            format!("GET /health HTTP/1.1\r\nCookie: {cookie}"),
            431,
            "headers_too_large",
        ),
        (
            "GET /health HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n".to_owned(),
            400,
            "malformed_request",
        ),
    ] {
        let (found, body) = raw(&usher, request.as_bytes()).await;
        assert_eq!(
            (found, body["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
        assert!(body["message"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn every_error_has_a_code_beside_its_message() {
    let usher = Usher::start("reservations.policy = \"booked\"").await;
    let made = usher.book(&booking("taken", json!({}))).await;
    let one = format!("{PATH}/{}", made["id"]);
    let json_of =
        async |method: Method, path: &str, body: Value| usher.json(method, path, &body).await;
    let bare = async |method: Method, path: &str, token: &str| {
        let request = usher.client.request(method, usher.url(path));
        Answer::of(request.bearer_auth(token)).await
    };
    for (answer, status, code) in [
        (usher.get("/nowhere").await, 404, "no_such_path"),
        (usher.get("/conference/7").await, 404, "not_found"),
        (
            usher.get(&format!("{PATH}/77")).await,
            404,
            "no_such_booking",
        ),
        (
            usher.get(&format!("{PATH}/x")).await,
            404,
            "no_such_booking",
        ),
        (usher.open("free").await, 403, "not_booked"),
        (
            bare(Method::PATCH, PATH, TOKEN).await,
            405,
            "method_not_allowed",
        ),
        (bare(Method::POST, PATH, TOKEN).await, 400, "not_json"),
        (
            bare(Method::GET, PATH, "wrong").await,
            401,
            "token_not_configured",
        ),
        (
            bare(Method::GET, PATH, "a.b.c").await,
            401,
            "token_malformed",
        ),
        (usher.post_form("name=%").await, 400, "invalid_fields"),
        (
            json_of(Method::POST, PATH, json!([])).await,
            400,
            "not_an_object",
        ),
        (
            json_of(Method::POST, PATH, json!({})).await,
            400,
            "invalid_fields",
        ),
        (
            json_of(Method::POST, PATH, booking("taken", json!({}))).await,
            409,
            "overlap",
        ),
        (
            json_of(Method::PATCH, &one, json!({ "end": in_seconds(-60) })).await,
            400,
            "end_before_start",
        ),
        (
            json_of(Method::PATCH, &one, json!({ "title": " " })).await,
            400,
            "not_plain",
        ),
        (
            json_of(Method::POST, "/conference", json!({})).await,
            415,
            "unsupported_media_type",
        ),
        (
            usher.get("/waiting-queue/visitor").await,
            426,
            "upgrade_required",
        ),
        (
            json_of(
                Method::POST,
                "/waiting-queue/golive",
                json!({ "conference": "a@b" }),
            )
            .await,
            403,
            "foreign_conference",
        ),
        (
            json_of(Method::POST, PATH, json!({ "room": "x".repeat(100_000) })).await,
            413,
            "body_too_large",
        ),
    ] {
        answer.refused(status);
        assert_eq!(answer.body["code"], code, "{}", answer.body);
    }
    let server = Scripted::start(|_| Reply::Json(403, json!({ "message": "Not today." }))).await;
    let gateway = Usher::start(&format!(
        "reservations.backend = \"upstream\"\nreservations.upstream.url = \"http://{}\"",
        server.address
    ))
    .await;
    let refused = gateway.open("room").await;
    assert_eq!(
        (refused.refused(403), &refused.body["code"]),
        ("Not today.", &json!("upstream"))
    );
    let elsewhere = gateway
        .json(Method::POST, PATH, &booking("room", json!({})))
        .await;
    elsewhere.refused(403);
    assert_eq!(elsewhere.body["code"], "bookings_elsewhere");
}

/// The head and the body of the answer.
async fn exchange(usher: &Usher, method: &str, path: &str) -> (Vec<String>, String) {
    let mut stream = TcpStream::connect(usher.address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(15), read).await;
    read.expect("the connection stays open").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let is_stable =
        |line: &&str| !line.starts_with("date:") && !line.starts_with("content-length:");
    let lines = head.lines().filter(is_stable).map(str::to_owned).collect();
    (lines, body.to_owned())
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body() {
    let usher = Usher::start("").await;
    for path in [
        "/health",
        "/ready",
        "/about/version",
        "/about/health",
        "/metrics",
        "/conference/7",
        "/api/v1/bookings",
        "/api/v1/bookings/7",
        "/api/v1/decisions",
        "/api/v1/conferences",
        "/nowhere",
        // Takes POST only.
        "/conference",
    ] {
        let (get, get_body) = exchange(&usher, "GET", path).await;
        let (head, head_body) = exchange(&usher, "HEAD", path).await;
        assert_eq!(get, head, "{path}");
        assert!(!get_body.is_empty(), "{path}");
        assert_eq!(head_body, "", "{path}");
    }
    let (head, _) = exchange(&usher, "HEAD", "/health").await;
    assert_eq!(head[0], "HTTP/1.1 200 OK");
}
