//! Fields of JSON bodies and forms: what is read, and how wrong ones are named.

use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    name: Option<String>,
    mail_owner: Option<String>,
    empty: Option<String>,
    room: Option<String>,
    #[serde(deserialize_with = "nullable")]
    title: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    owner: Option<Option<String>>,
    lobby: Option<bool>,
    max_occupants: Option<Count>,
    start: Option<Time>,
}

fn json(body: &str) -> Result<Sample, Vec<FieldError>> {
    Fields::from_json(body.as_bytes())?.finish()
}

fn form(raw: &str) -> Result<Sample, Vec<FieldError>> {
    Fields::from_form(raw.as_bytes())?.finish()
}

fn invalid(field: &str, message: &str) -> FieldError {
    FieldError::Invalid {
        field: field.into(),
        message: message.into(),
    }
}

#[test]
fn a_form_is_decoded_and_an_empty_value_is_absent() {
    let form = form("name=caf%25c3%25a9+x&mail_owner=a%40b&empty=").unwrap();
    assert_eq!(form.name.as_deref(), Some("caf%c3%a9 x"));
    assert_eq!(form.mail_owner.as_deref(), Some("a@b"));
    assert_eq!(form.empty, None);
    assert_eq!(form.room, None);
}

#[test]
fn a_broken_escape_names_its_field() {
    for raw in [
        "name=%",
        "name=%4",
        "name=%zz",
        "name=%c3",
        "name=%ff",
        "name=a%c3%28",
    ] {
        let errors = form(&format!("room=b&{raw}")).unwrap_err();
        assert_eq!(errors, [FieldError::Escape("name".into())], "{raw}");
    }
}

#[test]
fn a_duplicate_field_of_a_form_is_refused_by_name() {
    let errors = form("name=a&name=a").unwrap_err();
    assert_eq!(errors, [FieldError::Duplicate("name".into())]);
    let errors = form("name=&name=a").unwrap_err();
    assert_eq!(errors, [FieldError::Duplicate("name".into())]);
    let fields = Fields::<Sample>::from_form(b"name=a&name=a").unwrap();
    assert!(fields.ignore_unknown_duplicates(&["room"]).finish().is_ok());
}

#[test]
fn a_duplicate_member_is_refused_by_name() {
    for (body, name) in [
        (r#"{"room": "a", "room": "b"}"#, "room"),
        (r#"{"room": "a", "title": null, "title": null}"#, "title"),
        (r#"{"room": "a", "title": "x", "title": 7}"#, "title"),
    ] {
        let errors = json(body).unwrap_err();
        assert_eq!(errors, [FieldError::Duplicate(name.into())], "{body}");
    }
}

#[test]
fn a_duplicate_is_refused_whatever_else_is_wrong() {
    for (body, count) in [
        (r#"{"lobby": "x", "lobby": true}"#, 1),
        (
            r#"{"lobby": "x", "lobby": true, "room": "a", "room": "b"}"#,
            2,
        ),
        (r#"{"strat": 1, "strat": 2}"#, 1),
    ] {
        assert_eq!(json(body).unwrap_err().len(), count, "{body}");
    }
    assert_eq!(form("lobby=x&lobby=true").unwrap_err().len(), 1);
}

#[test]
fn an_empty_unknown_field_is_refused() {
    for raw in ["strat=", "strat", "strat=&name=a"] {
        let errors = form(raw).unwrap_err();
        assert_eq!(errors, [FieldError::Unknown("strat".into())], "{raw}");
    }
}

#[test]
fn a_limited_number_of_errors_is_named() {
    let members: Vec<_> = (0..5000).map(|n| format!("\"unknown{n}\": 1")).collect();
    let errors = json(&format!("{{{}}}", members.join(","))).unwrap_err();
    assert_eq!(errors.len(), ERRORS_MAX);
}

#[test]
fn numbers_beyond_the_range_saturate() {
    for number in ["5000000000", "5e9", "1e300", "18446744073709551615"] {
        let sample = json(&format!("{{\"max_occupants\": {number}}}")).unwrap();
        assert_eq!(sample.max_occupants.unwrap().0, u32::MAX, "{number}");
    }
}

#[test]
fn numbers_without_a_fraction_are_whole() {
    for (number, whole) in [
        ("25", 25),
        ("25.0", 25),
        ("2.5e1", 25),
        ("0.0", 0),
        ("-0.0", 0),
    ] {
        let sample = json(&format!("{{\"max_occupants\": {number}}}")).unwrap();
        assert_eq!(sample.max_occupants.unwrap().0, whole, "{number}");
    }
    for number in ["25.5", "-1", "-1.0", "\"25\"", "true", "[25]"] {
        let errors = json(&format!("{{\"max_occupants\": {number}}}")).unwrap_err();
        assert_eq!(
            errors,
            [invalid("max_occupants", "must be a whole number")],
            "{number}"
        );
    }
}

#[test]
fn null_clears_and_absence_leaves() {
    let sample = json(r#"{"title": null}"#).unwrap();
    assert_eq!((sample.title, sample.owner), (Some(None), None));
}

#[test]
fn all_wrong_members_are_named_at_once() {
    let body = r#"{"lobby": "yes", "max_occupants": 1.5, "title": 3, "start": "noon", "strat": 1, "a\n": 2, "room": "x"}"#;
    let mut errors = json(body).unwrap_err();
    errors.sort_by_key(|error| error.field().map(str::to_owned));
    let time = timestamp::parse_zoned("noon").unwrap_err().to_string();
    let expected = [
        FieldError::Unknown("a\\n".into()),
        invalid("lobby", "must be true or false"),
        invalid("max_occupants", "must be a whole number"),
        invalid("start", &time),
        FieldError::Unknown("strat".into()),
        invalid("title", "must be a string"),
    ];
    assert_eq!(errors, expected);
}

#[test]
fn a_check_adds_to_the_errors_of_other_fields_but_not_of_its_own() {
    let mut fields = Fields::<Sample>::from_json(br#"{"room": 7, "lobby": 7}"#).unwrap();
    let missing = fields.check(|it| it.room.clone().ok_or(FieldError::Missing("room")));
    assert_eq!(missing, None);
    let missing = fields.check(|it| it.name.clone().ok_or(FieldError::Missing("name")));
    assert_eq!(missing, None);
    let errors = fields.finish().unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors.contains(&FieldError::Missing("name")));
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in ["[1]", "[]", "[\"a\"]", "7", "null", "\"room\""] {
        assert_eq!(json(body).unwrap_err(), [FieldError::NotAnObject], "{body}");
    }
    for body in ["{} {}", "{", "{\"room\": 1"] {
        let errors = json(body).unwrap_err();
        assert!(matches!(errors[..], [FieldError::NotJson(_)]), "{body}");
    }
}
