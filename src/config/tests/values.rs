//! Values of the file and the environment, and their replacement at a reload.

use std::time::Duration;

use chrono_tz::Tz;

use super::*;
use crate::domain::booking::{StartPolicy, UnknownStartPolicy};
use crate::domain::policy::PolicyKind;
use crate::domain::secret::Secret;

#[test]
fn values_of_the_file_replace_the_defaults() {
    let config = good(
        r#"
        [server]
        listen = "[::1]:0"
        shutdown_grace = "0s"
        max_connections = 1_000
        [log]
        format = "json"
        level = "debug"
        [xmpp]
        domain = "Meet.XN--bcher-kva.Example"
        [auth]
        secret = "0123456789abcdef0123456789abcdef"
        jwks_url = "https://login.example.com/keys/?tenant=7"
        key_cache = "5m"
        accepted_issuers = ["*"]
        verify_domain = false
        leeway = "0s"
        service.issuers = []
        [reservations]
        policy = "booked"
        start_policy = "owner"
        default_duration = "1s"
        early_start = "0s"
        decision_retention = "1h"
        time_zone = "Europe/Berlin"
        [queue]
        path = "/a/b"
        release_per_second = 50
        trusted_proxies = ["192.0.2.7", "172.16.0.0/12"]
        "#,
    );
    assert_eq!(config.server.listen.to_string(), "[::1]:0");
    assert_eq!(config.server.shutdown_grace, Duration::ZERO);
    assert_eq!(config.server.max_connections, 1_000);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.xmpp.domain, "meet.xn--bcher-kva.example");
    assert!(config.auth.any_key());
    let jwks_url = config.auth.jwks_url.as_deref();
    assert_eq!(jwks_url, Some("https://login.example.com/keys/?tenant=7"));
    assert_eq!(config.auth.key_cache, Duration::from_secs(300));
    assert_eq!(config.auth.accepted_issuers, ["*"]);
    assert!(!config.auth.verify_domain);
    assert_eq!(config.auth.leeway, Duration::ZERO);
    assert!(config.auth.service.issuers.is_empty());
    assert_eq!(config.reservations.policy, PolicyKind::Booked);
    assert_eq!(config.reservations.start_policy, StartPolicy::Owner);
    assert_eq!(config.reservations.default_duration, Duration::from_secs(1));
    assert_eq!(config.reservations.early_start, Duration::ZERO);
    let retention = config.reservations.decision_retention;
    assert_eq!(retention, Duration::from_secs(3_600));
    assert_eq!(config.reservations.time_zone, Tz::Europe__Berlin);
    assert_eq!(config.queue.path, "/a/b");
    assert_eq!(config.queue.release_per_second, 50);
    let proxies = config.queue.trusted_proxies.iter().map(ToString::to_string);
    assert!(proxies.eq(["192.0.2.7/32", "172.16.0.0/12"]));
}

#[test]
fn earlier_names_of_keys_keep_their_meaning() {
    let text = "[reservations]\nstarters = \"owner\"\ndecisions_kept = \"1h\"\n\
                [reservations.upstream]\nurl = \"http://[::1]:9\"\noutbox_kept = \"2h\"";
    let reservations = good(text).reservations;
    assert_eq!(reservations.start_policy, StartPolicy::Owner);
    assert_eq!(reservations.decision_retention, Duration::from_secs(3_600));
    let upstream = reservations.upstream.unwrap();
    assert_eq!(upstream.outbox_retention, Duration::from_secs(7_200));

    // A variable of either name has precedence over the file.
    for variable in [
        "USHER_RESERVATIONS__STARTERS",
        "USHER_RESERVATIONS__START_POLICY",
    ] {
        for key in ["starters", "start_policy"] {
            let text = format!("reservations.{key} = \"owner\"");
            let config = good_env(&text, &[(variable, "anyone")]);
            assert_eq!(config.reservations.start_policy, StartPolicy::Anyone);
        }
    }
    let issue = only(bad("[reservations]\nstarters = \"me\""));
    contains(
        &issue,
        "reservations.starters",
        Some(2),
        "\"me\"",
        "\"owner\"",
    );
}

#[test]
fn both_names_of_a_key_are_refused() {
    let issue = only(bad(
        "[reservations]\nstarters = \"owner\"\nstart_policy = \"owner\"",
    ));
    let new = "reservations.start_policy";
    contains(
        &issue,
        "reservations.starters",
        Some(2),
        new,
        "Keep reservations.start_policy.",
    );
    let both = [
        ("USHER_RESERVATIONS__STARTERS", "owner"),
        ("USHER_RESERVATIONS__START_POLICY", "owner"),
    ];
    let issue = only(bad_env("", &both));
    let new = "USHER_RESERVATIONS__START_POLICY";
    contains(&issue, "USHER_RESERVATIONS__STARTERS", None, new, new);
}

#[test]
fn upstream_exists_once_its_url_is_set() {
    let config = good(
        r#"
        [reservations.upstream]
        url = "https://bookings.example.com/api/"
        retry_status = [502, 500, "520..522", 502]
        retry_count = 0
        headers = { Authorization = "Bearer very-secret" }
        "#,
    );
    let upstream = config.reservations.upstream.as_ref().unwrap();
    assert_eq!(upstream.url, "https://bookings.example.com/api");
    assert_eq!(upstream.retry_status, [500, 502, 520, 521, 522]);
    assert_eq!(upstream.retry_count, 0);
    let header = upstream.headers["Authorization"].expose();
    assert_eq!(header, "Bearer very-secret");
    assert!(!debug(&config).contains("very-secret"));
    assert_eq!(
        config.warnings(),
        ["reservations.upstream has no effect while reservations.backend is \"local\""]
    );
}

#[test]
fn statuses_can_be_one_range() {
    let url = "[reservations.upstream]\nurl = \"http://[::1]:9\"\n";
    for (text, count) in [
        ("", 100),
        ("retry_status = \"500..509\"", 10),
        ("retry_status = 503", 1),
    ] {
        let config = good(&format!("{url}{text}"));
        assert_eq!(
            config.reservations.upstream.unwrap().retry_status.len(),
            count
        );
    }
}

#[test]
fn start_policy_is_written_the_same_everywhere() {
    for (policy, name) in [
        (StartPolicy::Anyone, "anyone"),
        (StartPolicy::Owner, "owner"),
    ] {
        assert_eq!(policy.to_string(), name);
        assert_eq!(name.parse(), Ok(policy));
        let json = format!("\"{name}\"");
        assert_eq!(serde_json::to_string(&policy).unwrap(), json);
        assert_eq!(serde_json::from_str::<StartPolicy>(&json).unwrap(), policy);
    }
    assert_eq!("Owner".parse::<StartPolicy>(), Err(UnknownStartPolicy));
}

#[test]
fn secret_is_never_printed() {
    let secret = Secret::new("swordfish".to_owned());
    assert_eq!(format!("{secret:?}"), "***");
    assert_eq!(secret.expose(), "swordfish");
    let config = good("[auth]\nsecret = \"swordfish\"\nservice.tokens = [\"tunafish\"]");
    assert!(!debug(&config).contains("fish"));
}

#[test]
fn variable_overrides_the_file() {
    let config = good_env(
        "[server]\nlisten = \"127.0.0.1:1\"\n[queue]\nstate_interval = 5",
        &[
            ("USHER_SERVER__LISTEN", "127.0.0.1:2"),
            ("USHER_QUEUE__STATE_INTERVAL", "7s"),
            ("USHER_AUTH__VERIFY_DOMAIN", "false"),
            ("USHER_SERVER__MAX_CONNECTIONS", " 12 "),
            ("USHER_XMPP__DOMAIN", "12345"),
            ("USHER_AUTH__ACCEPTED_ISSUERS", "a, b,"),
            ("USHER_AUTH__ACCEPTED_AUDIENCES", "[\"a,b\"]"),
            (
                "USHER_AUTH__SERVICE__TOKENS",
                "0123456789abcdef,123456789abcdef0",
            ),
            ("USHER_LOG__LEVEL", "warn"),
            ("USHER_RESERVATIONS__UPSTREAM__URL", "http://localhost:1"),
            (
                "USHER_RESERVATIONS__UPSTREAM__HEADERS",
                "{ X-Key = \"abc\" }",
            ),
            ("USHER_RESERVATIONS__UPSTREAM__RETRY_STATUS", "500,502..504"),
        ],
    );
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.queue.state_interval, Duration::from_secs(7));
    assert!(!config.auth.verify_domain);
    assert_eq!(config.server.max_connections, 12);
    assert_eq!(config.xmpp.domain, "12345");
    assert_eq!(config.auth.accepted_issuers, ["a", "b"]);
    assert_eq!(config.auth.accepted_audiences, ["a,b"]);
    assert_eq!(config.auth.service.tokens.len(), 2);
    assert_eq!(config.log.level, LogLevel::Warn);
    let upstream = config.reservations.upstream.unwrap();
    assert_eq!(upstream.headers["X-Key"].expose(), "abc");
    assert_eq!(upstream.retry_status, [500, 502, 503, 504]);
}

#[test]
fn variables_of_other_programs_are_ignored() {
    let others = [
        ("USHER_HOME", "x"),
        ("PATH__X", "x"),
        ("USHERS__X", "x"),
        ("usher_server__x", "x"),
    ];
    assert_eq!(debug(&good_env("", &others)), debug(&Config::default()));
}
#[test]
fn reload_keeps_and_reports_the_keys_that_require_a_restart() {
    let old = Config::default();
    let new = good(
        "server.listen = \"127.0.0.1:9\"\nserver.max_connections = 7\nxmpp.domain = \"other.example.com\"\n\
         log.format = \"json\"\nreservations.policy = \"booked\"\nqueue.path = \"/other\"\n\
         log.level = \"debug\"\nqueue.max_per_token = 3\nauth.service.issuers = [\"other\"]\n",
    );
    let expected = [
        "server.listen",
        "server.max_connections",
        "log.format",
        "xmpp.domain",
        "reservations",
        "queue.path",
    ];
    let (now, changed) = old.reload(new.clone());
    assert_eq!(changed, expected);
    assert_eq!(now.server, old.server);
    assert_eq!(now.reservations, old.reservations);
    assert!(old.reload(now.clone()).1.is_empty());
    assert_eq!(
        now.reload(new).1,
        expected,
        "reported again at the next reload"
    );
    assert_eq!(now.queue.max_per_token, 3);
    assert_eq!(now.auth.service.issuers, ["other"]);
    assert_eq!(now.log.level, LogLevel::Debug);
}

#[test]
fn changed_header_of_the_upstream_is_reported_at_a_reload() {
    let with = |secret: &str| {
        good(&format!(
            "[reservations]\nbackend = \"upstream\"\n[reservations.upstream]\nurl = \"http://127.0.0.1:9\"\nheaders = {{ x = \"{secret}\" }}\n"
        ))
    };
    assert_eq!(with("one").reload(with("two")).1, ["reservations"]);
    assert!(with("one").reload(with("one")).1.is_empty());
}
