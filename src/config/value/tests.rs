use serde::de::DeserializeOwned;
use toml::de::DeValue;

use super::super::input::Input;
use super::*;

/// The result for a value as the file writes it.
pub(in super::super) fn decoded<T: DeserializeOwned>(toml: &str) -> Result<T, Invalid> {
    let value = DeValue::parse(toml).unwrap().into_inner();
    Input::Toml(value).decode()
}

/// Each value is rejected; the message and the hint contain these words.
#[track_caller]
pub(in super::super) fn rejects<T: DeserializeOwned>(cases: &[(&str, &str, &str)]) {
    for (toml, message, hint) in cases {
        let Err(invalid) = decoded::<T>(toml) else {
            panic!("{toml} was accepted");
        };
        assert!(invalid.message.contains(message), "{toml}: {invalid}");
        assert!(invalid.hint.contains(hint), "{toml}: {invalid}");
    }
}

#[test]
fn text_is_not_empty() {
    rejects::<Text>(&[
        ("''", "is empty", "Give it a value"),
        ("' '", "is empty", "Give it a value"),
        ("5", "type integer, but a string", "quotes"),
    ]);
}

#[test]
fn number_is_within_its_range() {
    assert_eq!(decoded::<Number<1, 9>>("9"), Ok(Number(9)));
    assert_eq!(decoded::<Number<0, 9_000>>("1_000"), Ok(Number(1_000)));
    assert_eq!(decoded::<Number<0, 99>>("0x10"), Ok(Number(16)));
    rejects::<Number<1, 9>>(&[
        ("0", "0 is out of range", "from 1 to 9"),
        ("10", "10 is out of range", "from 1 to 9"),
        ("-1", "-1 is out of range", "from 1 to 9"),
        (
            "99999999999999999999",
            "99999999999999999999 is out",
            "to 9",
        ),
        ("'9'", "type string, but a whole number", "without quotes"),
        ("1.5", "type float, but a whole number", "digits"),
    ]);
}

#[test]
fn duration_has_units_that_add_up() {
    for (text, milliseconds) in [
        ("250ms", 250),
        ("15s", 15_000),
        ("10m", 600_000),
        ("6h", 21_600_000),
        ("30d", 2_592_000_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("0s", 0),
    ] {
        let time = decoded::<Time<0, { 30 * DAY }>>(&format!("{text:?}"));
        assert_eq!(
            time,
            Ok(Time(Duration::from_millis(milliseconds))),
            "{text}"
        );
    }
}

#[test]
fn value_that_is_no_duration_gets_the_units_suggested() {
    rejects::<Time<0, DAY>>(&[
        (
            "15",
            "15 has no unit",
            "Write a unit: \"15ms\" or \"15s\" or \"15m\" or \"15h\".",
        ),
        ("'30'", "30 has no unit", "\"30m\"."),
        ("86400001", "has no unit", "units ms, s, m, h or d"),
        ("'0'", "0 has no unit", "\"0s\""),
        ("true", "boolean, but a duration", "\"15s\""),
        (
            "'15 parsecs'",
            "\"15 parsecs\" is not a duration",
            "ms, s, m, h or d: \"15s\"",
        ),
    ]);
    for text in [
        "",
        "s",
        "-5s",
        "1h30",
        "15S",
        "5M",
        "1w",
        "5min",
        "99999999999999999999s",
        "18446744073709551615d",
        "１５s",
    ] {
        rejects::<Time<0, DAY>>(&[(&format!("{text:?}"), "is not a duration", "units")]);
    }
}

#[test]
fn number_without_a_unit_gets_only_units_within_the_range_suggested() {
    let Err(invalid) = decoded::<Time<SECOND, { 30 * DAY }>>("6") else {
        panic!("6 was accepted");
    };
    assert_eq!(
        invalid.hint,
        "Write a unit: \"6s\" or \"6m\" or \"6h\" or \"6d\"."
    );
}

#[test]
fn duration_is_within_its_range() {
    rejects::<Time<MILLISECOND, HOUR>>(&[
        ("'0s'", "\"0s\" is out of range", "from \"1ms\" to \"1h\""),
        (
            "'61m'",
            "\"1h 1m\" is out of range",
            "from \"1ms\" to \"1h\"",
        ),
    ]);
    rejects::<Time<SECOND, { 3_650 * DAY }>>(&[("'999ms'", "999ms", "from \"1s\" to \"3650d\"")]);
    rejects::<Time<0, { 10 * MINUTE }>>(&[("'11m'", "11m", "from \"0s\" to \"10m\"")]);
    rejects::<Time<1_500, DAY>>(&[("'0s'", "out of range", "from \"1500ms\" to \"1d\"")]);
}

#[test]
fn url_is_one_of_a_web_server_without_a_password() {
    let cases = [
        ("'keys.example.com'", "not the URL", "https://"),
        ("'file:///etc/passwd'", "not the URL", "https://"),
        ("'https://'", "not the URL", "https://"),
        ("'https://a b'", "not the URL", "https://"),
        ("'https://[::'", "not the URL", "https://"),
        (
            "'https://a:8675309@c'",
            "contains a user name or a password",
            "Remove it",
        ),
        ("''", "is empty", "Give it a value"),
    ];
    rejects::<WebUrl>(&cases);
    rejects::<BaseUrl>(&cases);
    rejects::<BaseUrl>(&[(
        "'https://a/b?c='",
        "contains a \"?\"",
        "Remove that character",
    )]);
    for (toml, ..) in cases {
        let invalid = decoded::<WebUrl>(toml).unwrap_err();
        assert!(!invalid.to_string().contains("8675309"), "{invalid}");
    }
    let url = decoded::<WebUrl>("'https://login.example.com/keys/?tenant=7'").unwrap();
    assert_eq!(url.0, "https://login.example.com/keys/?tenant=7");
    let url = decoded::<BaseUrl>("'https://keys.example.com/asap/'").unwrap();
    assert_eq!(url.0, "https://keys.example.com/asap");
}

#[test]
fn only_http_to_other_machines_is_plaintext_remote() {
    for (url, expected) in [
        ("http://keys.example.com/", true),
        ("http://10.0.0.1/asap", true),
        ("http://localhost.example.com", true),
        ("https://keys.example.com", false),
        ("http://127.0.0.1:8000/asap", false),
        ("http://[::1]:8000", false),
        ("http://localhost", false),
    ] {
        assert_eq!(is_plaintext_remote(url), expected, "{url}");
    }
}
