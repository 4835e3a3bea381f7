//! The reservation API that Prosody calls.

use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use crate::harness::{Answer, TOKEN, Usher, all, in_seconds, now};

#[tokio::test]
async fn new_allocation_has_every_field_that_prosody_needs() {
    let usher = Usher::start("").await;
    let body =
        "start_time=2026-11-21T22%3a21%3a26.000Z&name=room1&mail_owner=abc%40meet.example.com";
    let answer = usher.post_form(body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.body["name"], "room1");
    assert_eq!(answer.body["mail_owner"], "abc@meet.example.com");
    let id = answer.id();
    assert!(id > 0 && id < 100_000_000_000_000);
    assert_eq!(answer.body["duration"], 6 * 3600);
    // Unset members are left out: null wedges the room in stock Prosody.
    assert_eq!(answer.body.as_object().unwrap().len(), 5, "{}", answer.body);
}

#[tokio::test]
async fn end_follows_the_clock_of_usher_not_the_request() {
    let usher = Usher::start("").await;
    for (room, start_time) in [("past", -86_400), ("future", 86_400)] {
        let start_time = in_seconds(start_time);
        let body = format!("name={room}&start_time={start_time}&mail_owner=");
        let answer = usher.post_form(body).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        let left = answer.end() - now();
        assert!(
            (left - TimeDelta::hours(6)).abs() < TimeDelta::seconds(5),
            "{left}"
        );
    }
}

#[tokio::test]
async fn mail_owner_is_always_a_string() {
    let usher = Usher::start("").await;
    for body in [
        "name=a&start_time=2026-11-21T22:21:26Z",
        "name=b&start_time=2026-11-21T22:21:26Z&mail_owner=",
    ] {
        let answer = usher.post_form(body).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.body["mail_owner"], "");
    }
}

#[tokio::test]
async fn name_is_returned_byte_for_byte() {
    let usher = Usher::start("").await;
    for (sent, node) in [
        ("caf%25c3%25a9", "caf%c3%a9"),
        ("%5btenant%5droom", "[tenant]room"),
        ("%c3%a9t%c3%a9%202026", "été 2026"),
        ("Room", "Room"),
    ] {
        let answer = usher
            .post_form(format!("name={sent}&start_time=2026-11-21T22:21:26Z"))
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{sent}");
        assert_eq!(answer.body["name"], node);
        let again = usher.get(&format!("/conference/{}", answer.id())).await;
        assert_eq!(again.body["name"], node);
    }
}

#[tokio::test]
async fn running_conference_is_a_conflict_with_its_id() {
    let usher = Usher::start("").await;
    let first = usher.open("room1").await;
    let second = usher.open("room1").await;
    assert_eq!(second.status, StatusCode::CONFLICT);
    assert_eq!(second.body["conflict_id"], first.id());
    let found = usher.get(&format!("/conference/{}", first.id())).await;
    assert_eq!(found.status, StatusCode::OK);
    assert_eq!(found.body, first.body);
}

#[tokio::test]
async fn id_is_accepted_in_every_spelling_that_lua_writes() {
    let usher = Usher::start("").await;
    let id = usher.open("room1").await.id();
    let scientific = format!("{:e}", id).replace('e', "e+0");
    for spelling in [
        format!("{id}"),
        format!("{id}.0"),
        format!("{id}.00"),
        scientific,
    ] {
        let found = usher.get(&format!("/conference/{spelling}")).await;
        assert_eq!(found.status, StatusCode::OK, "{spelling}");
        assert_eq!(found.id(), id);
    }
    for spelling in [
        "7.5",
        "abc",
        "-1",
        "0",
        "%00",
        "1e400",
        "..",
        &"9".repeat(400),
    ] {
        usher
            .get(&format!("/conference/{spelling}"))
            .await
            .refused(404);
        usher
            .delete(&format!("/conference/{spelling}"))
            .await
            .refused(404);
    }
}

#[tokio::test]
async fn ended_conference_can_be_opened_again() {
    let usher = Usher::start("").await;
    let first = usher.open("room1").await.id();
    assert_eq!(
        usher.delete(&format!("/conference/{first}.0")).await.status,
        StatusCode::NO_CONTENT
    );
    // A repetition is no error.
    assert_eq!(
        usher.delete(&format!("/conference/{first}.0")).await.status,
        StatusCode::NO_CONTENT
    );
    let over = usher.get(&format!("/conference/{first}")).await;
    assert!(over.refused(404).contains("its room was closed"));
    assert!(over.body["ended_at"].is_string());
    let second = usher.open("room1").await;
    assert_eq!(second.status, StatusCode::CREATED);
    assert_ne!(second.id(), first);
    usher.delete("/conference/1").await.refused(404);
}

#[tokio::test]
async fn conference_is_over_at_its_end() {
    let usher = Usher::start("reservations.default_duration = \"1s\"").await;
    let first = usher.open("room1").await;
    let id = first.id();
    tokio::time::sleep((first.end() - now()).to_std().unwrap_or_default()).await;
    let over = usher.get(&format!("/conference/{id}")).await;
    let message = over.refused(404);
    assert!(
        message.contains("\"room1\"") && message.contains("its time was up at"),
        "{message}"
    );
    assert_eq!(usher.open("room1").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn concurrent_requests_for_one_room_make_one_conference() {
    let usher = Usher::start("").await;
    let answers: Vec<Answer> = all(100, |_| usher.open("room1")).await;
    let created: Vec<_> = answers
        .iter()
        .filter(|a| a.status == StatusCode::CREATED)
        .collect();
    assert_eq!(created.len(), 1);
    let conflicts = answers.iter().filter(|a| a.status == StatusCode::CONFLICT);
    let ids: Vec<_> = conflicts
        .map(|a| a.body["conflict_id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids, vec![created[0].id(); 99]);
    assert_eq!(usher.decisions("room=room1").await.len(), 100);
    let dir = usher.stop().await;
    let mut database = database(dir.path()).await;
    let rows = sqlx::query_scalar("SELECT COUNT(*) FROM allocation");
    let rows: i64 = rows.fetch_one(&mut database).await.unwrap();
    assert_eq!(rows, 1);
}

/// Another process's connection to the database of a service in `dir`.
async fn database(dir: &Path) -> SqliteConnection {
    let url = format!("sqlite:{}", dir.join("usher.db").display());
    SqliteConnection::connect(&url).await.unwrap()
}

#[tokio::test]
async fn answer_is_503_while_another_process_locks_the_database() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let usher = Usher::start_in(dir, "").await;
    assert_eq!(usher.get("/health").await.status, StatusCode::OK);
    let mut other = database(&path).await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let answer = usher.open("room1").await;
    assert!(answer.refused(503).contains("Try again"));
    assert_eq!(answer.headers["retry-after"], "5");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(usher.open("room1").await.status, StatusCode::CREATED);
    assert_eq!(usher.decisions("").await.len(), 1);
}

#[tokio::test]
async fn unreadable_row_of_one_room_fails_no_other_request() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let usher = Usher::start_in(dir, "").await;
    assert_eq!(usher.get("/health").await.status, StatusCode::OK);
    let mut other = database(&path).await;
    let unreadable = "INSERT INTO booking (room, tenant, starts_at, lobby, waiting_queue, starters, created_at, changed_at)
        VALUES ('corrupt', '', 1000, 0, 0, 'unknown', 1000, 1000)";
    for step in [unreadable, "BEGIN IMMEDIATE"] {
        sqlx::raw_sql(step).execute(&mut other).await.unwrap();
    }
    let later = async |wait: u64| tokio::time::sleep(Duration::from_millis(wait)).await;
    let rooms = ["corrupt", "second", "third"];
    // The first request waits for the database; the others arrive meanwhile and share its transaction.
    let others = async {
        later(300).await;
        let ask = async |n: usize| (rooms[n], usher.open(rooms[n]).await);
        all(rooms.len(), ask).await
    };
    let release = async {
        later(900).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    };
    let (first, others, ()) = tokio::join!(usher.open("first"), others, release);
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
    for (room, answer) in others {
        let expected = if room == "corrupt" { 500 } else { 201 };
        assert_eq!(answer.status, expected, "{room}: {}", answer.body);
    }
}

#[tokio::test]
async fn decisions_are_paged_newest_first() {
    let usher = Usher::start("").await;
    for n in 0..5 {
        usher.open(&format!("room{n}")).await;
        usher.open(&format!("[blue]room{n}")).await;
    }
    for (filter, tenant, expected) in [("", None, 10), ("&tenant=Blue", Some("blue"), 5)] {
        let (mut seen, mut query) = (Vec::new(), format!("limit=2{filter}"));
        loop {
            let page = usher.get(&format!("/api/v1/decisions?{query}")).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.body);
            let rows = page.body["decisions"].as_array().unwrap();
            assert!((1..=2).contains(&rows.len()), "{}", page.body);
            for row in rows.iter().filter(|_| tenant.is_some()) {
                assert_eq!(row["tenant"].as_str(), tenant);
            }
            seen.extend(rows.iter().map(|row| row["id"].as_i64().unwrap()));
            let Some(next) = page.body.get("next") else {
                break;
            };
            query = format!("limit=2{filter}&before={next}");
        }
        assert_eq!(seen.len(), expected);
        assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    }
    usher.get("/api/v1/decisions?before=x").await.refused(400);
}

#[tokio::test]
async fn identity_is_cleaned_and_truncated_in_the_log() {
    let usher = Usher::start("").await;
    let long = "é".repeat(3000);
    let identity = [("user_name", "Eve\n\u{1b}[31m"), ("user_id", &long)];
    let answer = usher.open_as("room1", &identity).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    let decision = &usher.decisions("").await[0];
    assert_eq!(decision["user_name"], "Eve[31m");
    // The longest bare JID has 2047 bytes, and no character is cut in two.
    assert_eq!(decision["user_id"], "é".repeat(1023));
}

#[tokio::test]
async fn double_slash_counts_as_one() {
    let usher = Usher::start("").await;
    let id = {
        let form = [("name", "room1"), ("start_time", "2026-11-21T22:21:26Z")];
        Answer::of(usher.request(Method::POST, "//conference").form(&form))
            .await
            .id()
    };
    assert_eq!(usher.get(&format!("//conference/{id}.0")).await.id(), id);
}

#[tokio::test]
async fn malformed_requests_name_the_field() {
    let usher = Usher::start("").await;
    let long = "x".repeat(2000);
    let good = "start_time=2026-11-21T22:21:26Z";
    let bad = [
        (format!("mail_owner=a&{good}"), "name"),
        (format!("name=&{good}"), "name"),
        (format!("name=a&name=b&{good}"), "name"),
        (format!("name={long}&{good}"), "name"),
        (format!("name=caf%zz&{good}"), "name"),
        (format!("name=%ff&{good}"), "name"),
        (format!("name=a%00b&{good}"), "name"),
        (format!("name=a%0ab&{good}"), "name"),
        (format!("name=[]room&{good}"), "name"),
        (
            format!("name=a&{good}&mail_owner={long}{long}"),
            "mail_owner",
        ),
        (
            format!("name=a&{good}&mail_owner=a&mail_owner=b"),
            "mail_owner",
        ),
        ("name=a".into(), "start_time"),
        ("name=a&start_time=".into(), "start_time"),
        ("name=a&start_time=tomorrow".into(), "start_time"),
        (
            "name=a&start_time=2026-13-21T22:21:26Z".into(),
            "start_time",
        ),
        (format!("name=a&{good}&{good}"), "start_time"),
        (String::new(), "name"),
    ];
    for (body, field) in bad {
        let answer = usher.post_form(body.clone()).await;
        let message = answer.refused(400);
        assert!(
            message.starts_with(&format!("{field}: ")),
            "{body}: {message}"
        );
    }
    assert!(usher.decisions("").await.is_empty());
}

#[tokio::test]
async fn dates_are_accepted_in_several_forms() {
    let usher = Usher::start("").await;
    let dates = [
        "2026-11-21T22:21:26.000Z",
        "2026-11-21T22:21:26Z",
        "2026-11-21T22:21:26.5Z",
        "2026-11-21T23:21:26.000%2b01",
        "2026-11-21T23:21:26.000%2b0100",
        "2026-11-21T23:21:26.000%2b01:00",
        "2026-11-21T21:21:26-01:00",
    ];
    for (n, date) in dates.iter().enumerate() {
        let answer = usher
            .post_form(format!("name=room{n}&start_time={date}"))
            .await;
        assert_eq!(
            answer.status,
            StatusCode::CREATED,
            "{date}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let usher = Usher::start("").await;
    let body = "name=a&start_time=2026-11-21T22:21:26Z&new=1&new=2&other=%41";
    assert_eq!(usher.post_form(body).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn body_of_wrong_type_or_size_is_refused() {
    let usher = Usher::start("").await;
    let json = usher
        .json(Method::POST, "/conference", &json!({ "name": "a" }))
        .await;
    assert!(
        json.refused(415)
            .contains("application/x-www-form-urlencoded")
    );
    let large = usher
        .post_form(format!("name=a&x={}", "x".repeat(1_000_000)))
        .await;
    large.refused(413);
    assert_eq!(usher.open("after").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn errors_of_the_framework_have_a_message() {
    let usher = Usher::start("").await;
    usher.get("/nowhere").await.refused(404);
    usher.get("/").await.refused(404);
    let wrong = usher.get("/conference").await;
    assert!(wrong.refused(405).contains("POST"));
    assert_eq!(wrong.headers["allow"], "POST");
    usher
        .json(Method::PATCH, "/conference/7", &json!({}))
        .await
        .refused(405);
    usher
        .json(Method::PUT, "/health", &json!({}))
        .await
        .refused(405);
}

#[tokio::test]
async fn requests_without_a_valid_service_token_are_refused() {
    let usher = Usher::start("").await;
    let request = || {
        usher
            .client
            .post(usher.url("/conference"))
            .form(&[("name", "a")])
    };
    let missing = Answer::of(request()).await;
    missing.refused(401);
    assert_eq!(missing.headers["www-authenticate"], "Bearer");
    for header in [
        "Bearer wrong",
        "Basic dTpw",
        "Bearer",
        "Bearer ",
        &format!("Bearer {}x", TOKEN),
    ] {
        let answer = Answer::of(request().header("Authorization", header)).await;
        answer.refused(401);
        assert!(!answer.body.to_string().contains(TOKEN));
    }
    for path in [
        "/conference/1",
        "/api/v1/bookings",
        "/api/v1/bookings/1",
        "/api/v1/decisions",
    ] {
        Answer::of(usher.client.get(usher.url(path)))
            .await
            .refused(401);
    }
    let lower = format!("bearer {}", TOKEN);
    let answer = Answer::of(request().header("Authorization", lower)).await;
    assert!(answer.refused(400).starts_with("start_time"));
}

#[tokio::test]
async fn service_jwt_is_accepted_and_user_jwt_is_refused() {
    let secret = "0123456789abcdef0123456789abcdef";
    let usher = Usher::start(&format!("auth.secret = \"{secret}\"")).await;
    let now = now().timestamp();
    let service =
        json!({ "iss": "jitsi", "aud": "jitsi", "iat": now, "nbf": now, "exp": now + 60 });
    let mut user = service.clone();
    user["room"] = "*".into();
    let mut expired = service.clone();
    expired["exp"] = (now - 3600).into();
    let get = |secret: &str, claims: &serde_json::Value| {
        let token = usher::auth::sign(secret, claims, Some("usher")).unwrap();
        Answer::of(
            usher
                .client
                .get(usher.url("/api/v1/bookings"))
                .bearer_auth(token),
        )
    };
    assert_eq!(get(secret, &service).await.status, StatusCode::OK);
    get(secret, &user).await.refused(401);
    get(secret, &expired).await.refused(401);
    get("another secret, also of thirty-two bytes", &service)
        .await
        .refused(401);
}

#[tokio::test]
async fn without_keys_local_callers_need_no_token_but_proxied_ones_do() {
    let dir = tempfile::TempDir::new().unwrap();
    let usher = Usher::start_in(dir, "auth.service.tokens = []").await;
    let open = || usher.client.get(usher.url("/api/v1/bookings"));
    assert_eq!(Answer::of(open()).await.status, StatusCode::OK);
    for name in [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "Forwarded",
        "Via",
        "CF-Connecting-IP",
        "True-Client-IP",
    ] {
        Answer::of(open().header(name, "192.0.2.1"))
            .await
            .refused(401);
        let metrics = usher.client.get(usher.url("/metrics"));
        Answer::of(metrics.header(name, "192.0.2.1"))
            .await
            .refused(401);
    }
    Answer::of(open().bearer_auth("wrong")).await.refused(401);
    let dir = usher.stop().await;
    assert!(dir.path().join("usher.secret").exists());
}

#[tokio::test]
async fn without_keys_pages_and_foreign_names_are_refused_with_a_reason() {
    let usher = Usher::start("auth.service.tokens = []").await;
    let port = usher.address.port();
    let foreign = format!("rebound.example:{port}");
    for (name, value, reason) in [
        ("Origin", "https://evil.example", "web pages"),
        ("Origin", "null", "web pages"),
        ("Sec-Fetch-Site", "cross-site", "web pages"),
        ("Sec-Fetch-Site", "same-site", "web pages"),
        ("Host", foreign.as_str(), "\"rebound.example:"),
        ("Host", "10.0.0.1", "\"10.0.0.1\""),
    ] {
        let form = [("name", "room"), ("start_time", "2026-11-21T22:21:26.000Z")];
        let post = usher.client.post(usher.url("/conference")).form(&form);
        let get = usher.client.get(usher.url("/api/v1/bookings"));
        for request in [post, get] {
            let answer = Answer::of(request.header(name, value)).await;
            let message = answer.refused(403);
            assert!(message.contains(reason), "{name}: {message}");
            assert!(message.contains("auth.service.tokens"), "{message}");
        }
        let metrics = usher.client.get(usher.url("/metrics"));
        Answer::of(metrics.header(name, value)).await.refused(403);
    }
    let own = format!("http://{}", usher.address);
    let page = usher.client.get(usher.url("/api/v1/bookings"));
    let page = page
        .header("Origin", own)
        .header("Sec-Fetch-Site", "same-origin");
    assert_eq!(Answer::of(page).await.status, StatusCode::OK);
    let decisions = Answer::of(usher.client.get(usher.url("/api/v1/decisions"))).await;
    assert_eq!(decisions.body["decisions"].as_array().unwrap().len(), 0);
}

/// With a token, the headers of a browser mean nothing: a portal's page may call usher by any name.
#[tokio::test]
async fn token_is_accepted_whatever_the_host_and_the_origin() {
    let usher = Usher::start("").await;
    let request = usher.request(Method::GET, "/api/v1/bookings");
    let request = request
        .header("Host", "usher.example.com")
        .header("Origin", "https://portal.example.com")
        .header("Sec-Fetch-Site", "cross-site");
    assert_eq!(Answer::of(request).await.status, StatusCode::OK);
}

#[tokio::test]
async fn allocations_survive_a_restart() {
    let usher = Usher::start("").await;
    let first = usher.open("room1").await;
    let usher = Usher::start_in(usher.stop().await, "").await;
    assert_eq!(
        usher.get(&format!("/conference/{}", first.id())).await.body,
        first.body
    );
    assert_eq!(usher.open("room1").await.body["conflict_id"], first.id());
}

#[tokio::test]
async fn rooms_of_different_tenants_are_different() {
    let usher = Usher::start("").await;
    assert_eq!(usher.open("room1").await.status, StatusCode::CREATED);
    assert_eq!(
        usher.open("[tenant]room1").await.status,
        StatusCode::CREATED
    );
    assert_eq!(usher.open("[other]room1").await.status, StatusCode::CREATED);
    assert_eq!(
        usher.open("[tenant]room1").await.status,
        StatusCode::CONFLICT
    );
}

#[tokio::test]
async fn health_version_and_readiness_need_no_token() {
    let usher = Usher::start("").await;
    for path in ["/health", "/about/health", "/ready"] {
        assert_eq!(
            Answer::of(usher.client.get(usher.url(path))).await.status,
            StatusCode::OK
        );
    }
    for path in ["/about/health", "/ready"] {
        let ready = Answer::of(usher.client.get(usher.url(path))).await;
        assert_eq!(ready.body, json!({ "status": "ready", "reasons": [] }));
    }
    let version = Answer::of(usher.client.get(usher.url("/about/version"))).await;
    assert_eq!(version.body["name"], "usher");
    assert_eq!(version.body["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn request_in_progress_is_answered_on_shutdown() {
    let usher = Usher::start("").await;
    let opening = usher
        .client
        .post(usher.url("/conference"))
        .bearer_auth(TOKEN);
    let opening = tokio::spawn(Answer::of(
        opening.form(&[("name", "a"), ("start_time", "2026-11-21T22:21:26Z")]),
    ));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let address = usher.address;
    let _ = usher.stop().await;
    // The request either came too late or received a complete answer.
    if let Ok(answer) = opening.await {
        assert_eq!(answer.status, StatusCode::CREATED);
    }
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
