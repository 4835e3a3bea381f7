use serde_json::json;

use super::*;

const EXPECTED: Expected<'_> = Expected {
    name: Some("[tenant]Room"),
    mail_owner: "alice@meet.example.com",
    id: None,
};

fn valid() -> Value {
    json!({
        "id": 7,
        "name": "[tenant]room",
        "mail_owner": "bob@example.com",
        "start_time": "2026-12-01T14:00:00.000Z",
        "duration": 3600,
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut body = valid();
    body[field] = value;
    body
}

fn without(field: &str) -> Value {
    let mut body = valid();
    body.as_object_mut().unwrap().remove(field);
    body
}

fn read(body: &Value) -> Result<Reservation, ResponseError> {
    conference(body.to_string().as_bytes(), EXPECTED)
}

#[test]
fn conference_is_read() {
    let reservation = read(&valid()).unwrap();
    assert_eq!(reservation.id.to_string(), "7");
    assert_eq!(
        reservation.name, "[tenant]Room",
        "echoed as Prosody wrote it"
    );
    assert_eq!(reservation.mail_owner, "bob@example.com");
    assert_eq!(
        timestamp::format(reservation.start),
        "2026-12-01T14:00:00.000Z"
    );
    assert_eq!(reservation.end - reservation.start, TimeDelta::hours(1));
    let options = reservation.options;
    assert!(options.max_occupants.is_none() && options.password.is_none());
    assert!(!options.lobby && !options.waiting_queue);
}

#[test]
fn repairable_fields_are_repaired() {
    let is = |body: Value, what: fn(&Reservation) -> String, expected: &str| {
        assert_eq!(what(&read(&body).unwrap()), expected, "{body}");
    };
    for body in [
        without("mail_owner"),
        with("mail_owner", json!(null)),
        with("mail_owner", json!(7)),
    ] {
        is(body, |g| g.mail_owner.clone(), EXPECTED.mail_owner);
    }
    for body in [without("name"), with("name", json!(null))] {
        is(body, |g| g.name.clone(), "[tenant]Room");
    }
    for duration in [json!("120"), json!(120.9), json!(" 120 "), json!("120.0")] {
        let lasts = |g: &Reservation| (g.end - g.start).num_seconds().to_string();
        is(with("duration", duration), lasts, "120");
    }
    let start = |g: &Reservation| timestamp::format(g.start);
    for text in ["2026-12-01T15:00:00+01:00", "2026-12-01 14:00:00"] {
        is(
            with("start_time", json!(text)),
            start,
            "2026-12-01T14:00:00.000Z",
        );
    }
    let occupants = |g: &Reservation| format!("{:?}", g.options.max_occupants);
    is(with("max_occupants", json!(null)), occupants, "None");
    is(with("max_occupants", json!("5")), occupants, "Some(5)");
    is(with("max_occupants", json!(5.0)), occupants, "Some(5)");
    let password = |g: &Reservation| {
        g.options
            .password
            .as_ref()
            .map_or("none".into(), |p| p.expose().to_owned())
    };
    is(with("password", json!(null)), password, "none");
    is(with("password", json!("")), password, "none");
    is(with("password", json!(1234)), password, "1234");
    is(with("password", json!(1234.0)), password, "1234");
    for (value, on) in [
        (json!(null), "false"),
        (json!("true"), "true"),
        (json!(1), "true"),
        (json!(1.0), "true"),
        (json!(0), "false"),
        (json!(0.0), "false"),
        (json!("false"), "false"),
    ] {
        is(with("lobby", value), |g| g.options.lobby.to_string(), on);
    }
}

#[test]
fn field_that_is_not_repairable_is_named() {
    for (body, field) in [
        (without("id"), "id is missing"),
        (with("id", json!(null)), "id is missing"),
        (with("id", json!("a/b")), "id is not"),
        (with("id", json!(7.5)), "id is not"),
        (with("name", json!("room")), "name is another room's"),
        (with("name", json!(["[tenant]room"])), "name is not"),
        (without("start_time"), "start_time is missing"),
        (with("start_time", json!(null)), "start_time is missing"),
        (
            with("start_time", json!(1_796_133_601)),
            "start_time is not",
        ),
        (with("start_time", json!("tomorrow")), "start_time: "),
        (without("duration"), "duration is missing"),
        (with("duration", json!("long")), "duration is not"),
        (with("duration", json!("NaN")), "duration is not"),
        (with("duration", json!(0)), "duration is not"),
        (with("duration", json!(-5)), "duration is not"),
        (with("duration", json!(1e300)), "duration is not"),
        (with("duration", json!(1e12)), "duration is not"),
        (with("max_occupants", json!(0)), "max_occupants is not"),
        (with("max_occupants", json!(-1)), "max_occupants is not"),
        (with("max_occupants", json!("many")), "max_occupants is not"),
        (with("max_occupants", json!([])), "max_occupants is not"),
        (with("lobby", json!("perhaps")), "lobby is not"),
        (with("password", json!(["a"])), "password is not"),
        (with("password", json!("a\u{0}b")), "password is not"),
        (
            with("waiting_queue", json!("perhaps")),
            "waiting_queue is not",
        ),
        (json!([valid()]), "not a JSON object"),
        (json!("yes"), "not a JSON object"),
    ] {
        let error = read(&body).unwrap_err().to_string();
        assert!(error.contains(field), "{body}: {error}");
    }
    for invalid in ["", "<html>", "{\"id\": 7", "\u{0}"] {
        assert_eq!(
            conference(invalid.as_bytes(), EXPECTED).unwrap_err(),
            ResponseError::NotAnObject
        );
    }
}

#[test]
fn conference_requested_by_id_may_omit_it() {
    let id = UpstreamId::from_text("a1").unwrap();
    let expected = Expected {
        name: None,
        mail_owner: "",
        id: Some(&id),
    };
    let read = |body: Value| conference(body.to_string().as_bytes(), expected);
    let reservation = read(without("id")).unwrap();
    assert_eq!(
        (reservation.id.to_string(), reservation.name.as_str()),
        ("a1".to_owned(), "[tenant]room")
    );
    assert_eq!(
        read(without("name")).unwrap_err(),
        ResponseError::Missing("name")
    );
}

#[test]
fn conflict_has_an_id() {
    let read = |body: Value| conflict(body.to_string().as_bytes());
    assert_eq!(read(json!({ "conflict_id": 7 })).unwrap().to_string(), "7");
    assert_eq!(
        read(json!({ "conflict_id": "a" })).unwrap().to_string(),
        "a"
    );
    let missing = Err(ResponseError::Missing("conflict_id"));
    assert_eq!(read(json!({ "conflict_id": null })), missing);
    assert_eq!(read(json!({ "id": 7 })), missing);
    assert!(read(json!({ "conflict_id": [7] })).is_err());
    assert_eq!(conflict(b"running"), Err(ResponseError::NotAnObject));
}

#[test]
fn message_is_cleaned_and_truncated() {
    let of = |body: &str| message(403, body.as_bytes(), "Room");
    assert_eq!(of(r#"{"message": " Ask Bob.\n\u0007"}"#), "Ask Bob.");
    let long = format!(r#"{{"message": "{}"}}"#, "é".repeat(5_000));
    assert_eq!(of(&long).chars().count(), MESSAGE_MAX);
}

#[test]
fn missing_or_invalid_message_is_replaced() {
    for body in [
        "",
        "no",
        "{}",
        "[]",
        r#"{"message": null}"#,
        r#"{"message": ""}"#,
        r#"{"message": ["a", "b"]}"#,
        r#"{"message": {"de": "nein"}}"#,
        r#"{"message": 7}"#,
    ] {
        let text = message(403, body.as_bytes(), "Board Room");
        assert!(
            text.contains("\"Board Room\"") && text.contains("403"),
            "{body}: {text}"
        );
    }
    for (status, hint) in [
        (401, "headers"),
        (404, "url"),
        (405, "url"),
        (429, "minute"),
    ] {
        assert!(message(status, b"", "Room").contains(hint), "{status}");
    }
}

#[test]
fn status_202_requires_waiting_queue() {
    assert!(is_queued(br#"{"waiting_queue": true}"#));
    assert!(!is_queued(br#"{"waiting_queue": 1}"#));
    assert!(!is_queued(b""));
}

#[test]
fn password_is_not_in_debug_output() {
    let reservation = read(&with("password", json!("hunter2"))).unwrap();
    assert!(!format!("{reservation:?}").contains("hunter2"));
}
