use super::*;
use crate::domain::booking::UnknownStartPolicy;
use reader::Reader;
use std::collections::BTreeSet;
use std::fs;
use tempfile::TempDir;

/// The annotated file at the root of the project.
const ANNOTATED: &str = include_str!("../../config.toml");

fn parse_in(dir: &Path, text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = env
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    Config::parse(text, "config.toml", dir, env)
}

fn good(text: &str) -> Config {
    parse_in(Path::new(""), text, &[]).unwrap()
}

fn good_env(text: &str, env: &[(&str, &str)]) -> Config {
    parse_in(Path::new(""), text, env).unwrap()
}

fn bad_env(text: &str, env: &[(&str, &str)]) -> Vec<Mistake> {
    let error = parse_in(Path::new(""), text, env).unwrap_err();
    assert_eq!(error.source_name, "config.toml");
    error.mistakes
}

fn bad(text: &str) -> Vec<Mistake> {
    bad_env(text, &[])
}

/// The only mistake in a text.
fn only(text: &str) -> Mistake {
    let mut mistakes = bad(text);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes.remove(0)
}

#[track_caller]
fn says(mistake: &Mistake, key: &str, line: Option<usize>, problem: &str, remedy: &str) {
    assert_eq!(mistake.key, key);
    assert_eq!(mistake.line, line, "{mistake}");
    assert!(mistake.problem.contains(problem), "{mistake}");
    assert!(mistake.remedy.contains(remedy), "{mistake}");
}

/// Each text has exactly one mistake, at this key, whose problem and remedy hold these words.
#[track_caller]
fn each_says(cases: &[(&str, &str, &str, &str)]) {
    assert!(!cases.is_empty());
    for (text, key, problem, remedy) in cases {
        let line = text.lines().count();
        says(&only(text), key, Some(line), problem, remedy);
    }
}

fn schema() -> BTreeSet<&'static str> {
    let environment = BTreeMap::new();
    let mut read = Reader::empty("", &environment, Path::new(""));
    sections::config(&mut read);
    read.known()
}

fn debug(config: &Config) -> String {
    format!("{config:#?}")
}

// The annotated file

#[test]
fn annotated_file_as_shipped_is_the_defaults() {
    assert_eq!(debug(&good(ANNOTATED)), debug(&Config::embedded()));
}

#[test]
fn defaults_in_the_annotated_file_are_the_embedded_ones() {
    let mut taken = 0;
    let mut all = String::new();
    for line in ANNOTATED.lines() {
        let default = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        if default.is_some() {
            taken += 1;
        }
        all.push_str(default.unwrap_or(line));
        all.push('\n');
    }
    // Nine keys have no default.
    assert_eq!(taken, schema().len() - 9);
    assert_eq!(debug(&good(&all)), debug(&Config::embedded()));
}

#[test]
fn a_changed_default_in_the_annotated_file_would_be_noticed() {
    let changed = ANNOTATED.replace("#leeway = \"10s\"", "leeway = \"11s\"");
    assert_ne!(debug(&good(&changed)), debug(&Config::embedded()));
}

#[test]
fn annotated_file_and_schema_have_the_same_keys() {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in ANNOTATED.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
        }
        let line = line.trim_start_matches('#').trim_start();
        if let Some((name, _)) = line.split_once(" = ")
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            assert!(
                keys.insert(format!("{section}.{name}")),
                "{section}.{name} twice"
            );
        }
    }
    let schema: BTreeSet<String> = schema().into_iter().map(str::to_owned).collect();
    assert!(schema.len() > 30);
    assert_eq!(keys, schema);
}

// Values

#[test]
fn nothing_configured_gives_the_documented_defaults() {
    let config = Config::embedded();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8060");
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(5));
    assert_eq!(config.server.max_connections, 19_000);
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.database.url, "sqlite:usher.db");
    assert_eq!(config.xmpp.domain, "meet.example.com");
    assert_eq!(config.xmpp.muc_prefix, "conference");
    assert!(!config.auth.any_key());
    assert_eq!(config.auth.accepted_issuers, ["jitsi"]);
    assert_eq!(config.auth.accepted_audiences, ["jitsi"]);
    assert!(config.auth.verify_domain);
    assert_eq!(config.auth.leeway, Duration::from_secs(10));
    assert!(config.auth.key_server.is_none() && config.auth.jwks_url.is_none());
    assert_eq!(config.auth.key_cache, Duration::from_secs(3_600));
    assert!(config.auth.service.tokens.is_empty());
    assert_eq!(config.auth.service.issuers, ["jitsi"]);
    assert_eq!(config.reservations.backend, Backend::Local);
    assert_eq!(config.reservations.policy, PolicyKind::Open);
    assert_eq!(
        config.reservations.default_duration,
        Duration::from_secs(21_600)
    );
    assert_eq!(config.reservations.early_start, Duration::from_secs(600));
    assert_eq!(config.reservations.start_policy, StartPolicy::Anyone);
    assert_eq!(config.reservations.time_zone, Tz::UTC);
    assert_eq!(
        config.reservations.decision_retention,
        Duration::from_secs(2_592_000)
    );
    assert_eq!(config.reservations.decisions_max, 100_000);
    assert!(config.reservations.upstream.is_none());
    assert_eq!(config.queue.path, "/waiting-queue");
    assert_eq!(config.queue.state_interval, Duration::from_secs(15));
    assert_eq!(config.queue.release_per_second, 0);
    assert_eq!(config.queue.live_ttl, Duration::from_secs(86_400));
    assert!(config.notices().is_empty());
}

#[test]
fn values_of_the_file_replace_the_defaults() {
    let config = good(
        r#"
        [server]
        listen = "[::1]:0"
        max_connections = 1_000
        [log]
        format = "json"
        level = "debug"
        [xmpp]
        domain = "Meet.XN--bcher-kva.Example"
        [auth]
        secret = "0123456789abcdef0123456789abcdef"
        accepted_issuers = ["*"]
        verify_domain = false
        leeway = "0s"
        service.issuers = []
        [reservations]
        policy = "booked"
        starters = "owner"
        default_duration = "1s"
        time_zone = "Europe/Berlin"
        [queue]
        path = "/a/b"
        release_per_second = 50
        "#,
    );
    assert_eq!(config.server.listen.to_string(), "[::1]:0");
    assert_eq!(config.server.max_connections, 1_000);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.xmpp.domain, "meet.xn--bcher-kva.example");
    assert!(config.auth.any_key());
    assert_eq!(config.auth.accepted_issuers, ["*"]);
    assert!(!config.auth.verify_domain);
    assert_eq!(config.auth.leeway, Duration::ZERO);
    assert!(config.auth.service.issuers.is_empty());
    assert_eq!(config.reservations.policy, PolicyKind::Booked);
    assert_eq!(config.reservations.start_policy, StartPolicy::Owner);
    assert_eq!(config.reservations.default_duration, Duration::from_secs(1));
    assert_eq!(config.reservations.time_zone, Tz::Europe__Berlin);
    assert_eq!(config.queue.path, "/a/b");
    assert_eq!(config.queue.release_per_second, 50);
}

#[test]
fn upstream_is_there_once_its_url_is() {
    let config = good(
        r#"
        [reservations.upstream]
        url = "https://bookings.example.com/api/"
        retry_status = [502, 500, "520..522", 502]
        headers = { Authorization = "Bearer very-secret" }
        "#,
    );
    let upstream = config.reservations.upstream.as_ref().unwrap();
    assert_eq!(upstream.url, "https://bookings.example.com/api");
    assert_eq!(upstream.timeout, Duration::from_secs(20));
    assert_eq!(upstream.deadline, Duration::from_secs(18));
    assert_eq!(upstream.retry_count, 3);
    assert!(!upstream.forward_identity);
    assert!(upstream.ca_file.is_none());
    assert_eq!(upstream.on_failure, OnFailure::Deny);
    assert_eq!(upstream.failures_max, 3);
    assert_eq!(upstream.probe_interval, Duration::from_secs(10));
    assert_eq!(upstream.outbox_retention, Duration::from_secs(604_800));
    assert_eq!(upstream.outbox_max, 10_000);
    assert_eq!(upstream.retry_delay, Duration::from_secs(3));
    assert_eq!(upstream.retry_status, [500, 502, 520, 521, 522]);
    assert_eq!(
        upstream.headers["Authorization"].expose(),
        "Bearer very-secret"
    );
    assert!(!debug(&config).contains("very-secret"));
    assert_eq!(
        config.notices(),
        ["reservations.upstream does nothing while reservations.backend is \"local\""]
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
fn starters_are_written_the_same_everywhere() {
    for (starters, name) in [
        (StartPolicy::Anyone, "anyone"),
        (StartPolicy::Owner, "owner"),
    ] {
        assert_eq!(starters.to_string(), name);
        assert_eq!(name.parse(), Ok(starters));
        let json = format!("\"{name}\"");
        assert_eq!(serde_json::to_string(&starters).unwrap(), json);
        assert_eq!(
            serde_json::from_str::<StartPolicy>(&json).unwrap(),
            starters
        );
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

// Mistakes: what is written

#[test]
fn text_that_is_not_toml_is_named_with_its_line() {
    let mistakes =
        bad("[server]\nlisten = 127.0.0.1:8060\n\n[queue]\npath = \"/a\"\npath = \"/b\"\n");
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    says(&mistakes[0], "", Some(2), "not TOML", "in quotes");
    says(&mistakes[1], "", Some(6), "duplicate key", "each key once");
}

#[test]
fn line_that_is_not_toml_is_named_once() {
    let text = "a = [x, y]\nb = z\n";
    let (_, errors) = toml::de::DeTable::parse_recoverable(text);
    assert!(errors.len() > 2, "{errors:#?}");
    let lines: Vec<_> = bad(text).iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [Some(1), Some(2)]);
}

#[test]
fn unknown_key_is_named_with_its_line_and_a_suggestion() {
    each_says(&[
        (
            "[server]\nlisten = \"127.0.0.1:1\"\nshutdown_grase = \"1s\"",
            "server.shutdown_grase",
            "unknown key",
            "Did you mean \"server.shutdown_grace\"?",
        ),
        (
            "[auth.service]\nissuer = []",
            "auth.service.issuer",
            "unknown key",
            "Did you mean \"auth.service.issuers\"?",
        ),
        (
            "[server]\nsecret_file = \"x\"",
            "server.secret_file",
            "unknown key",
            "Did you mean \"auth.secret_file\"?",
        ),
        (
            "[log]\ncolour = true",
            "log.colour",
            "unknown key",
            "what can stand here: format, level.",
        ),
    ]);
}

#[test]
fn unknown_section_is_named_with_its_line_and_a_suggestion() {
    each_says(&[
        (
            "\n[sever]",
            "sever",
            "unknown section",
            "Did you mean \"server\"?",
        ),
        (
            "[metrics]",
            "metrics",
            "unknown section",
            "auth, database, log",
        ),
        (
            "[reservations]\n[reservations.upsteam]",
            "reservations.upsteam",
            "unknown section",
            "\"reservations.upstream\"",
        ),
        (
            "queue = 5",
            "queue",
            "is a whole number, but a section",
            "[queue]",
        ),
        (
            "[auth]\nservice = \"x\"",
            "auth.service",
            "is a string",
            "[auth.service]",
        ),
    ]);
}

#[test]
fn wrong_type_is_named_with_what_is_needed() {
    each_says(&[
        (
            "[server]\nlisten = 8060",
            "server.listen",
            "a whole number, but a string",
            "quotes",
        ),
        (
            "[server]\nmax_connections = \"9\"",
            "server.max_connections",
            "a string",
            "without quotes",
        ),
        (
            "[server]\nmax_connections = 1.5",
            "server.max_connections",
            "fraction",
            "digits",
        ),
        (
            "[server]\nshutdown_grace = true",
            "server.shutdown_grace",
            "duration",
            "\"5s\"",
        ),
        (
            "[auth]\nverify_domain = \"yes\"",
            "auth.verify_domain",
            "true or false",
            "true or false",
        ),
        (
            "[auth]\naccepted_issuers = \"jitsi\"",
            "auth.accepted_issuers",
            "a list",
            "[\"a\", \"b\"]",
        ),
        (
            "[auth]\naccepted_issuers = [\"jitsi\",\n5]",
            "auth.accepted_issuers",
            "a string",
            "quotes",
        ),
        (
            "[auth]\npublic_keys = []",
            "auth.public_keys",
            "a table",
            "{ name = \"value\" }",
        ),
        (
            "[auth.public_keys]\n\"a/b\" = 5",
            "auth.public_keys.a/b",
            "a string",
            "quotes",
        ),
        (
            "[log]\nlevel = 2020-01-01",
            "log.level",
            "a date or time",
            "quotes",
        ),
    ]);
}

#[test]
fn wrong_type_never_repeats_the_value() {
    for text in [
        "auth.secret = 8675309",
        "auth.secret = 8675309.5",
        "auth.service.tokens = [8675309]",
        "auth.service.tokens = 8675309",
        "reservations.upstream.headers = { a = 8675309 }",
        "reservations.upstream.url = \"https://me:8675309@example.com\"",
        "auth.key_server = \"https://me:8675309@example.com/\"",
        "database.url = \"postgres://me:8675309@localhost/usher\"",
        "database.url = \"mysql://me:8675309@localhost/usher\"",
        "auth.service.tokens = [\"8675309 \"]",
    ] {
        let mistake = only(text);
        assert!(!mistake.to_string().contains("8675309"), "{mistake}");
    }
}

#[test]
fn duration_without_its_unit_gets_one_suggested() {
    each_says(&[
        (
            "[queue]\nstate_interval = 15",
            "queue.state_interval",
            "15 has no unit",
            "Write a unit: \"15s\".",
        ),
        (
            "[queue]\nlive_ttl = \"15\"",
            "queue.live_ttl",
            "15 has no unit",
            "Write a unit: \"15s\".",
        ),
    ]);
}

#[test]
fn what_is_no_duration_is_told_the_units() {
    each_says(&[
        (
            "[queue]\nstate_interval = \"15 parsecs\"",
            "queue.state_interval",
            "\"15 parsecs\" is not a duration",
            "ms, s, m, h or d: \"15s\"",
        ),
        (
            "[queue]\nstate_interval = \"\"",
            "queue.state_interval",
            "is not a duration",
            "\"15s\"",
        ),
    ]);
}

#[test]
fn what_is_out_of_range_is_told_the_range() {
    each_says(&[
        (
            "[queue]\nstate_interval = \"0s\"",
            "queue.state_interval",
            "out of range",
            "from \"1ms\" to \"1h\"",
        ),
        (
            "[reservations]\ndefault_duration = \"999ms\"",
            "reservations.default_duration",
            "out of range",
            "from \"1s\" to \"30d\"",
        ),
        (
            "[reservations]\nearly_start = \"25h\"",
            "reservations.early_start",
            "out of range",
            "from \"0s\" to \"1d\"",
        ),
        (
            "[auth]\nleeway = \"11m\"",
            "auth.leeway",
            "out of range",
            "from \"0s\" to \"10m\"",
        ),
        (
            "[server]\nmax_connections = 0",
            "server.max_connections",
            "0 is out of range",
            "from 1 to 1000000",
        ),
        (
            "[queue]\nrelease_per_second = -1",
            "queue.release_per_second",
            "-1 is out of range",
            "from 0 to",
        ),
        (
            "[reservations]\ndecisions_max = 99999999999999999999",
            "reservations.decisions_max",
            "out of range",
            "from 1 to",
        ),
    ]);
}

#[test]
fn zero_is_allowed_where_it_makes_sense() {
    let config = good(
        "[server]\nshutdown_grace = \"0s\"\n[auth]\nleeway = \"0s\"\n\
         [reservations]\nearly_start = \"0s\"\nupstream.retry_count = 0",
    );
    assert_eq!(config.server.shutdown_grace, Duration::ZERO);
    assert_eq!(config.reservations.early_start, Duration::ZERO);
}

#[test]
fn what_is_none_of_the_choices_is_told_them() {
    each_says(&[
        (
            "[log]\nformat = \"xml\"",
            "log.format",
            "\"xml\" is not one",
            "\"auto\" or \"text\" or \"json\"",
        ),
        (
            "[log]\nlevel = \"loud\"",
            "log.level",
            "\"loud\" is not one",
            "\"error\" or \"warn\"",
        ),
        (
            "[reservations]\npolicy = \"shut\"",
            "reservations.policy",
            "\"shut\"",
            "\"open\" or \"booked\"",
        ),
        (
            "[reservations]\nstarters = \"me\"",
            "reservations.starters",
            "\"me\"",
            "\"anyone\" or \"owner\"",
        ),
        (
            "[reservations]\nbackend = \"cloud\"",
            "reservations.backend",
            "\"cloud\"",
            "\"local\" or \"upstream\"",
        ),
    ]);
}

#[test]
fn empty_values_are_refused() {
    each_says(&[
        (
            "[database]\nurl = \"\"",
            "database.url",
            "is empty",
            "Give it a value",
        ),
        (
            "[xmpp]\ndomain = \" \"",
            "xmpp.domain",
            "is empty",
            "Give it a value",
        ),
        (
            "[auth]\nsecret = \"\"",
            "auth.secret",
            "is empty",
            "Give it a value",
        ),
        (
            "[auth]\nsecret_file = \"\"",
            "auth.secret_file",
            "is empty",
            "Give it a value",
        ),
        (
            "[auth.service]\ntokens = [\"\"]",
            "auth.service.tokens",
            "is empty",
            "openssl",
        ),
        (
            "[auth]\naccepted_issuers = []",
            "auth.accepted_issuers",
            "no token",
            "[\"jitsi\"], or [\"*\"]",
        ),
        (
            "[auth]\naccepted_audiences = [\"a\", \"\"]",
            "auth.accepted_audiences",
            "empty entry",
            "Remove",
        ),
        (
            "[reservations.upstream]\nretry_status = []",
            "reservations.upstream.retry_status",
            "is empty",
            "retry_count = 0",
        ),
        (
            "[queue]\npath = \"\"",
            "queue.path",
            "is empty",
            "Give it a value",
        ),
    ]);
}

#[test]
fn every_mistake_is_found_in_one_go_and_in_the_order_of_the_file() {
    let mistakes = bad_env(
        "[queue]\nlive_ttl = 1\n[server]\nlisten = \"x\"\nlissten = 1\n[auth]\nsecret = 1\n[logs]\n",
        &[("USHER_LOG__LEVEL", "loud"), ("USHER_LOG__LEVL", "info")],
    );
    let found: Vec<_> = mistakes.iter().map(|m| (m.key.as_str(), m.line)).collect();
    assert_eq!(
        found,
        [
            ("queue.live_ttl", Some(2)),
            ("server.listen", Some(4)),
            ("server.lissten", Some(5)),
            ("auth.secret", Some(7)),
            ("logs", Some(8)),
            ("USHER_LOG__LEVEL", None),
            ("USHER_LOG__LEVL", None),
        ]
    );
}

// Mistakes: what it means

#[test]
fn listen_that_is_no_address_gets_the_nearest_one_suggested() {
    each_says(&[
        (
            "[server]\nlisten = \"abc\"",
            "server.listen",
            "\"abc\" is not",
            "\"127.0.0.1:8060\"",
        ),
        (
            "[server]\nlisten = \"localhost:9\"",
            "server.listen",
            "\"localhost:9\"",
            "\"127.0.0.1:9\"",
        ),
        (
            "[server]\nlisten = \":9\"",
            "server.listen",
            "\":9\"",
            "\"127.0.0.1:9\"",
        ),
        (
            "[server]\nlisten = \"8061\"",
            "server.listen",
            "\"8061\"",
            "\"127.0.0.1:8061\"",
        ),
        (
            "[server]\nlisten = \"::1\"",
            "server.listen",
            "\"::1\"",
            "\"[::1]:8060\"",
        ),
        (
            "[server]\nlisten = \"10.0.0.1\"",
            "server.listen",
            "\"10.0.0.1\"",
            "\"10.0.0.1:8060\"",
        ),
    ]);
}

#[test]
fn address_others_can_reach_needs_something_to_check_tokens_with() {
    for address in ["0.0.0.0:8060", "[::]:8060", "10.1.2.3:0"] {
        let text = format!("[server]\nlisten = \"{address}\"\n");
        let mistake = only(&text);
        let remedy = "Set auth.service.tokens (or tokens_file) or auth.secret (or secret_file)";
        says(
            &mistake,
            "server.listen",
            Some(2),
            "no service token can be checked",
            remedy,
        );
        for enough in [
            "[auth]\nsecret = \"0123456789abcdef\"",
            "[auth.service]\ntokens = [\"0123456789abcdef\"]",
            "[auth]\nkey_server = \"https://keys.example.com\"",
            "[auth]\njwks_url = \"https://login.example.com/jwks\"",
        ] {
            good(&format!("{text}{enough}"));
        }
    }
    for local in [
        "127.0.0.1:0",
        "127.8.8.8:1",
        "[::1]:8060",
        "[::ffff:127.0.0.1]:1",
    ] {
        good(&format!("[server]\nlisten = \"{local}\""));
    }
}

#[test]
fn key_with_a_mistake_is_not_called_missing_too() {
    let mistakes = bad("[server]\nlisten = \"0.0.0.0:1\"\n[auth]\nsecret_file = \"not/there\"");
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert_eq!(mistakes[0].key, "auth.secret_file");

    let env = [("USHER_AUTH__PUBLIC_KEYS", "{ k1 = \"none.pem\" }")];
    let mistakes = bad_env("[server]\nlisten = \"0.0.0.0:1\"", &env);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert_eq!(mistakes[0].key, "USHER_AUTH__PUBLIC_KEYS.k1");

    let mistakes = bad("[server]\nlisten = \"0.0.0.0:1\"\n[auth]\nleeway = \"1d\"");
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
}

#[test]
fn empty_list_is_a_mistake_beside_another_one() {
    let mistakes = bad("[auth]\naccepted_issuers = []\nsecret = 5");
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    let mistakes = bad("[auth]\naccepted_issuers = [5]");
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
}

#[test]
fn other_databases_than_sqlite_are_refused() {
    each_says(&[
        (
            "[database]\nurl = \"postgres://localhost/usher\"",
            "database.url",
            "this version only has SQLite",
            "\"sqlite:usher.db\"",
        ),
        (
            "[database]\nurl = \"postgresql:usher\"",
            "database.url",
            "this version only has SQLite",
            "\"sqlite:usher.db\"",
        ),
        (
            "[database]\nurl = \"usher.db\"",
            "database.url",
            "not the URL of a SQLite database",
            "\"sqlite:usher.db\"",
        ),
        (
            "[database]\nurl = \"sqlite:\"",
            "database.url",
            "names no file",
            "\"sqlite:usher.db\"",
        ),
    ]);
}

#[test]
fn upstream_backend_needs_a_url() {
    each_says(&[(
        "[reservations]\nbackend = \"upstream\"",
        "reservations.backend",
        "reservations.upstream.url is not set",
        "write \"local\"",
    )]);
    let config = good("[reservations]\nbackend = \"upstream\"\nupstream.url = \"http://[::1]:9\"");
    assert_eq!(config.reservations.backend, Backend::Upstream);
    assert!(config.notices().is_empty());
}

#[test]
fn an_upstream_in_the_clear_and_a_deadline_beyond_prosodys_are_noticed() {
    let upstream = "[reservations]\nbackend = \"upstream\"\nupstream.url";
    let notices = good(&format!(
        "{upstream} = \"http://bookings.example.com\"\nupstream.deadline = \"19s\""
    ))
    .notices();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[0].contains("use https") && notices[1].contains("20 s"));
}

#[test]
fn the_certificates_of_the_upstream_have_to_be_readable() {
    each_says(&[(
        "[reservations.upstream]\nca_file = \"none.pem\"",
        "reservations.upstream.ca_file",
        "cannot be read",
        "Create the file",
    )]);
}

#[test]
fn domain_is_a_host_name() {
    each_says(&[
        (
            "[xmpp]\ndomain = \"https://meet.example.com\"",
            "xmpp.domain",
            "not a host name",
            "no scheme",
        ),
        (
            "[xmpp]\ndomain = \"meet.example.com/\"",
            "xmpp.domain",
            "not a host name",
            "no slash",
        ),
        (
            "[xmpp]\ndomain = \"meet.example.com:443\"",
            "xmpp.domain",
            "not a host name",
            "no port",
        ),
        (
            "[xmpp]\ndomain = \"meet..com\"",
            "xmpp.domain",
            "not a host name",
            "\"meet.example.com\"",
        ),
        (
            "[xmpp]\ndomain = \"-meet.com\"",
            "xmpp.domain",
            "not a host name",
            "\"meet.example.com\"",
        ),
        (
            "[xmpp]\ndomain = \"büro.example\"",
            "xmpp.domain",
            "not a host name",
            "xn--",
        ),
        (
            "[xmpp]\nmuc_prefix = \"conference.\"",
            "xmpp.muc_prefix",
            "not a host name",
            "\"conference\"",
        ),
    ]);
}

#[test]
fn time_zone_has_an_iana_name() {
    each_says(&[
        (
            "[reservations]\ntime_zone = \"Berlin\"",
            "reservations.time_zone",
            "\"Berlin\" is not",
            "Did you mean \"Europe/Berlin\"?",
        ),
        (
            "[reservations]\ntime_zone = \"europe/berlin\"",
            "reservations.time_zone",
            "is not",
            "\"Europe/Berlin\"",
        ),
        (
            "[reservations]\ntime_zone = \"Europe/Berln\"",
            "reservations.time_zone",
            "is not",
            "\"Europe/Berlin\"",
        ),
        (
            "[reservations]\ntime_zone = \"two hours ahead\"",
            "reservations.time_zone",
            "is not",
            "IANA name, as \"Europe/Berlin\"",
        ),
    ]);
}

#[test]
fn queue_path_is_tidy_and_its_own() {
    each_says(&[
        (
            "[queue]\npath = \"/\"",
            "queue.path",
            "every path",
            "\"/waiting-queue\"",
        ),
        (
            "[queue]\npath = \"queue\"",
            "queue.path",
            "one slash",
            "Write \"/queue\".",
        ),
        (
            "[queue]\npath = \"/queue/\"",
            "queue.path",
            "one slash",
            "Write \"/queue\".",
        ),
        (
            "[queue]\npath = \"/a//b\"",
            "queue.path",
            "not a path",
            "single slashes",
        ),
        (
            "[queue]\npath = \"/../b\"",
            "queue.path",
            "not a path",
            "single slashes",
        ),
        (
            "[queue]\npath = \"/a?b\"",
            "queue.path",
            "not a path",
            "letters, digits",
        ),
        (
            "[queue]\npath = \"/conference\"",
            "queue.path",
            "belongs to another part",
            "\"/waiting-queue\"",
        ),
        (
            "[queue]\npath = \"/api/queue\"",
            "queue.path",
            "/api belongs",
            "\"/waiting-queue\"",
        ),
        (
            "[queue]\npath = \"/health\"",
            "queue.path",
            "/health belongs",
            "another path",
        ),
    ]);
}

#[test]
fn web_addresses_are_urls_without_passwords() {
    each_says(&[
        (
            "[auth]\nkey_server = \"keys.example.com\"",
            "auth.key_server",
            "not the URL",
            "https://",
        ),
        (
            "[auth]\nkey_server = \"https://\"",
            "auth.key_server",
            "not the URL",
            "https://",
        ),
        (
            "[auth]\nkey_server = \"https://a b\"",
            "auth.key_server",
            "not the URL",
            "https://",
        ),
        (
            "[auth]\nkey_server = \"https://a:b@c\"",
            "auth.key_server",
            "a password in it",
            "Take it out",
        ),
        (
            "[auth]\nkey_server = \"https://[::\"",
            "auth.key_server",
            "not the URL",
            "https://",
        ),
        (
            "[auth]\nkey_server = \"https://a/b?c=\"",
            "auth.key_server",
            "has a \"?\"",
            "up to there",
        ),
        (
            "[auth]\njwks_url = \"file:///etc/passwd\"",
            "auth.jwks_url",
            "not the URL",
            "https://",
        ),
        (
            "[auth]\nkey_cache = \"0s\"",
            "auth.key_cache",
            "out of range",
            "\"1s\" to \"7d\"",
        ),
    ]);
}

#[test]
fn key_set_has_its_url_to_the_letter() {
    for url in [
        "https://login.example.com/jwks/",
        "https://login.example.com/keys?tenant=7",
    ] {
        let auth = good(&format!("[auth]\njwks_url = \"{url}\"\nkey_cache = \"5m\"")).auth;
        assert_eq!(auth.jwks_url.as_deref(), Some(url));
        assert_eq!(auth.key_cache, Duration::from_secs(300));
        assert!(auth.any_key());
    }
}

#[test]
fn statuses_and_headers_of_the_upstream_are_checked() {
    let key = "reservations.upstream.retry_status";
    each_says(&[
        (
            "[reservations.upstream]\nretry_status = [200]",
            key,
            "neither a status",
            "\"500..599\"",
        ),
        (
            "[reservations.upstream]\nretry_status = \"599..500\"",
            key,
            "neither a status",
            "\"500..599\"",
        ),
        (
            "[reservations.upstream]\nretry_status = [\n500,\ntrue]",
            key,
            "neither a status",
            "\"500..599\"",
        ),
        (
            "[reservations.upstream]\nheaders = { \"a b\" = \"c\" }",
            "reservations.upstream.headers.a b",
            "its name",
            "Authorization",
        ),
        (
            "[reservations.upstream]\nheaders = { a = \"b\\n\" }",
            "reservations.upstream.headers.a",
            "its value",
            "one line",
        ),
    ]);
}

#[test]
fn service_tokens_fit_into_a_header_and_issuers_are_named() {
    each_says(&[
        (
            "[auth.service]\ntokens = [\"a b\"]",
            "auth.service.tokens",
            "an HTTP header can't carry",
            "letters and digits",
        ),
        (
            "[auth.service]\ntokens = [\"a\\u0007\"]",
            "auth.service.tokens",
            "an HTTP header can't carry",
            "letters and digits",
        ),
        (
            "[auth.service]\ntokens = [\"café\"]",
            "auth.service.tokens",
            "an HTTP header can't carry",
            "letters and digits",
        ),
        (
            "[auth.service]\nissuers = [\"*\"]",
            "auth.service.issuers",
            "act as a service",
            "Name the issuers",
        ),
    ]);
}

// Files

#[cfg(unix)]
fn write(dir: &TempDir, name: &str, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

const LONG: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn secrets_are_read_from_files_beside_the_configuration() {
    let dir = TempDir::new().unwrap();
    write(&dir, "secret", &format!(" {LONG} x \r\n"), 0o640);
    write(
        &dir,
        "tokens",
        &format!("# Prosody\n\n  {LONG}\n#\n{LONG}2\n"),
        0o600,
    );
    let text = "[auth]\nsecret_file = \"secret\"\nservice.tokens_file = \"tokens\"";
    let config = parse_in(dir.path(), text, &[]).unwrap();
    assert_eq!(
        config.auth.secret.as_ref().unwrap().expose(),
        format!(" {LONG} x ")
    );
    let tokens: Vec<_> = config
        .auth
        .service
        .tokens
        .iter()
        .map(Secret::expose)
        .collect();
    assert_eq!(tokens, [LONG.to_owned(), format!("{LONG}2")]);
    assert!(config.notices().is_empty());
}

#[test]
fn files_with_secrets_that_cannot_be_used_are_named_with_their_path() {
    let dir = TempDir::new().unwrap();
    write(&dir, "empty", " \n", 0o600);
    write(&dir, "comments", "# none yet\n\n", 0o600);
    write(&dir, "spaced", "good-token-0123456789\nnot good\n", 0o600);
    let in_dir = |text: &str| {
        let mut mistakes = parse_in(dir.path(), text, &[]).unwrap_err().mistakes;
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        mistakes.remove(0)
    };
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (secret, tokens) = ("auth.secret_file", "auth.service.tokens_file");
    for (text, key, problem, remedy) in [
        (
            "\nauth.secret_file = \"none\"",
            secret,
            format!("{} cannot be read", path("none")),
            "Create the file",
        ),
        (
            "\nauth.secret_file = \".\"",
            secret,
            "cannot be read".to_owned(),
            "correct the path",
        ),
        (
            "\nauth.secret_file = \"empty\"",
            secret,
            format!("{} is empty", path("empty")),
            "openssl rand",
        ),
        (
            "\nauth.service.tokens_file = \"none\"",
            tokens,
            "cannot be read".to_owned(),
            "Create the file",
        ),
        (
            "\nauth.service.tokens_file = \"comments\"",
            tokens,
            format!("{} is empty", path("comments")),
            "openssl rand",
        ),
        (
            "\nauth.service.tokens_file = \"spaced\"",
            tokens,
            format!("line 2 of {}", path("spaced")),
            "letters and digits",
        ),
        (
            "\nauth.public_keys.k1 = \"none.pem\"",
            "auth.public_keys.k1",
            format!("{} cannot be read", path("none.pem")),
            "Create the file",
        ),
        (
            "\nauth.public_keys.k1 = \".\"",
            "auth.public_keys.k1",
            "directory".to_owned(),
            "correct the path",
        ),
    ] {
        let mistake = in_dir(text);
        says(&mistake, key, Some(2), &problem, remedy);
        assert!(!mistake.to_string().contains("not good"));
    }
}

#[test]
fn too_large_a_file_is_not_read() {
    let dir = TempDir::new().unwrap();
    write(&dir, "huge", &"x".repeat(1024 * 1024 + 1), 0o600);
    let error = parse_in(dir.path(), "auth.secret_file = \"huge\"", &[]).unwrap_err();
    says(
        &error.mistakes[0],
        "auth.secret_file",
        Some(1),
        "larger than 1048576 bytes",
        "path",
    );
}

#[test]
fn secret_and_its_file_exclude_each_other() {
    let dir = TempDir::new().unwrap();
    write(&dir, "file", LONG, 0o600);
    for (text, key, other) in [
        (
            "[auth]\nsecret = \"a\"\nsecret_file = \"file\"",
            "auth.secret_file",
            "auth.secret too",
        ),
        (
            "[auth.service]\ntokens = [\"a\"]\ntokens_file = \"file\"",
            "auth.service.tokens_file",
            "auth.service.tokens too",
        ),
    ] {
        let error = parse_in(dir.path(), text, &[]).unwrap_err();
        assert_eq!(error.mistakes.len(), 1);
        says(
            &error.mistakes[0],
            key,
            Some(3),
            other,
            "Keep one of the two",
        );
    }
    parse_in(
        dir.path(),
        "[auth.service]\ntokens = []\ntokens_file = \"file\"",
        &[],
    )
    .unwrap();
}

#[test]
fn public_keys_are_found_beside_the_configuration() {
    let dir = TempDir::new().unwrap();
    write(&dir, "key.pem", "-----BEGIN PUBLIC KEY-----", 0o644);
    let text = "[auth.public_keys]\n\"jitsi/key 1\" = \"key.pem\"";
    let config = parse_in(dir.path(), text, &[]).unwrap();
    assert_eq!(
        config.auth.public_keys["jitsi/key 1"],
        dir.path().join("key.pem")
    );
    assert!(config.auth.any_key());
    assert!(config.notices().is_empty());
}

// The environment

#[test]
fn variable_wins_over_the_file() {
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
    let upstream = config.reservations.upstream.unwrap();
    assert_eq!(upstream.headers["X-Key"].expose(), "abc");
    assert_eq!(upstream.retry_status, [500, 502, 503, 504]);
}

#[test]
fn mistake_in_a_variable_names_the_variable() {
    for (name, value, problem, remedy) in [
        (
            "USHER_SERVER__LISTEN",
            "abc",
            "\"abc\" is not",
            "\"127.0.0.1:8060\"",
        ),
        (
            "USHER_SERVER__LISTEN",
            "0.0.0.0:1",
            "no service token",
            "Set auth.service.tokens",
        ),
        ("USHER_QUEUE__STATE_INTERVAL", "15", "15 has no unit", "15s"),
        (
            "USHER_SERVER__MAX_CONNECTIONS",
            "many",
            "not a whole number",
            "digits",
        ),
        (
            "USHER_SERVER__MAX_CONNECTIONS",
            "",
            "not a whole number",
            "digits",
        ),
        (
            "USHER_AUTH__VERIFY_DOMAIN",
            "yes",
            "neither true nor false",
            "true or false",
        ),
        (
            "USHER_AUTH__ACCEPTED_ISSUERS",
            "",
            "no token",
            "[\"jitsi\"]",
        ),
        ("USHER_AUTH__ACCEPTED_ISSUERS", "[a", "is not a list", "a,b"),
        (
            "USHER_AUTH__PUBLIC_KEYS",
            "k1=a",
            "is not a table",
            "{ name",
        ),
        ("USHER_AUTH__SECRET", "", "is empty", "Give it a value"),
        (
            "USHER_AUTH__SERVICE__TOKENS",
            "[8675309]",
            "a string",
            "quotes",
        ),
        (
            "USHER_SERVER__LISTN",
            "",
            "unknown key",
            "Did you mean USHER_SERVER__LISTEN?",
        ),
        ("USHER_AUTH__SERVICE", "x", "unknown key", "Remove it"),
        ("USHER_FROBNICATE__ALL", "x", "unknown key", "Remove it"),
    ] {
        let mistakes = bad_env("", &[(name, value)]);
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        says(&mistakes[0], name, None, problem, remedy);
        assert!(!mistakes[0].to_string().contains("8675309"));
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    let others = [
        ("USHER_HOME", "x"),
        ("PATH__X", "x"),
        ("USHERS__X", "x"),
        ("usher_server__x", "x"),
    ];
    assert_eq!(debug(&good_env("", &others)), debug(&Config::embedded()));
}

#[test]
fn secret_in_a_variable_overrides_the_file_it_is_kept_in_and_the_other_way_round() {
    let dir = TempDir::new().unwrap();
    write(&dir, "file", "from-the-file-0123", 0o600);
    let secret = |text: &str, env: &[(&str, &str)]| {
        let auth = parse_in(dir.path(), text, env).unwrap().auth;
        auth.secret.unwrap().expose().to_owned()
    };
    let (file, inline) = ("auth.secret_file = \"none\"", "auth.secret = \"inline\"");
    assert_eq!(secret(file, &[("USHER_AUTH__SECRET", "env")]), "env");
    assert_eq!(
        secret(inline, &[("USHER_AUTH__SECRET_FILE", "file")]),
        "from-the-file-0123"
    );
    assert_eq!(secret(inline, &[("USHER_AUTH__SECRET", "env")]), "env");

    let both = [
        ("USHER_AUTH__SECRET", "a"),
        ("USHER_AUTH__SECRET_FILE", "file"),
    ];
    let error = parse_in(dir.path(), "", &both).unwrap_err();
    says(
        &error.mistakes[0],
        "USHER_AUTH__SECRET_FILE",
        None,
        "USHER_AUTH__SECRET too",
        "Keep one",
    );

    let none = [("USHER_AUTH__SERVICE__TOKENS", "")];
    let text = "auth.service.tokens_file = \"file\"";
    let auth = parse_in(dir.path(), text, &none).unwrap().auth;
    assert!(auth.service.tokens.is_empty());
}

// Notices

#[test]
fn proxies_are_addresses() {
    let config = good("queue.trusted_proxies = [\"192.0.2.7\", \"2001:db8::7\"]");
    let proxies: Vec<_> = config
        .queue
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(proxies, ["192.0.2.7", "2001:db8::7"]);
    let mistake = only("queue.trusted_proxies = [\"proxy.example.com\"]");
    says(
        &mistake,
        "queue.trusted_proxies",
        Some(1),
        "not an IP address",
        "192.0.2.7",
    );
}

#[test]
fn keys_fetched_in_the_clear_are_noticed() {
    for (server, noticed) in [
        ("http://keys.example.com/", true),
        ("http://10.0.0.1/asap", true),
        ("http://localhost.example.com", true),
        ("https://keys.example.com", false),
        ("http://127.0.0.1:8000/asap", false),
        ("http://[::1]:8000", false),
        ("http://localhost", false),
    ] {
        let config = good(&format!(
            "[auth]\nkey_server = \"{server}\"\njwks_url = \"{server}\""
        ));
        let kept = config.auth.key_server.as_deref();
        assert_eq!(kept, Some(server.trim_end_matches('/')));
        let notices = config.notices();
        assert_eq!(notices.len(), if noticed { 2 } else { 0 }, "{notices:?}");
        for (notice, key) in notices.iter().zip(["auth.key_server", "auth.jwks_url"]) {
            assert!(
                notice.starts_with(key) && notice.contains("use https"),
                "{notice}"
            );
        }
    }
}

#[test]
fn short_and_widely_readable_secrets_are_noticed() {
    let dir = TempDir::new().unwrap();
    write(&dir, "secret", "swordfish", 0o644);
    let text = "auth.secret_file = \"secret\"\nauth.service.tokens = [\"tunafish\"]";
    let notices = parse_in(dir.path(), text, &[]).unwrap().notices();
    assert_eq!(notices.len(), 3, "{notices:?}");
    assert!(notices[0].contains("auth.secret_file: every user of this machine can read"));
    assert!(notices[1].contains("auth.secret is short"));
    assert!(notices[2].contains("auth.service.tokens is short"));
    assert!(!notices.concat().contains("fish"));
}

// Where it comes from

#[test]
fn named_file_is_read_and_named_as_the_source() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("other.toml");
    write(&dir, "key", LONG, 0o600);
    write(&dir, "other.toml", "[auth]\nsecret_file = \"key\"", 0o600);
    let (config, source) = Config::load(Some(&path)).unwrap();
    assert_eq!(config.auth.secret.unwrap().expose(), LONG);
    assert_eq!(source, Source::File(path.clone()));
    assert_eq!(source.to_string(), path.display().to_string());
    assert_eq!(Source::Embedded.to_string(), "the embedded defaults");
}

#[test]
fn named_file_has_to_exist_and_be_text() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("latin1.toml"), b"# caf\xe9\n").unwrap();
    for name in ["none.toml", "latin1.toml", "."] {
        let path = dir.path().join(name);
        let error = Config::load(Some(&path)).unwrap_err();
        assert_eq!(error.source_name, path.display().to_string());
        assert_eq!(error.mistakes.len(), 1);
        says(
            &error.mistakes[0],
            "",
            None,
            "cannot be read",
            "--config FILE",
        );
    }
}

#[test]
fn annotated_file_is_found_in_the_current_directory() {
    // Tests run at the root of the project, where config.toml is.
    let (_, source) = Config::load(None).unwrap();
    assert_eq!(source.to_string(), "./config.toml");
}

// What the package keeps in files of its own

#[test]
fn domain_can_stand_in_a_file_of_its_own() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("domain"), "Meet.Example.org\n").unwrap();
    let text = "xmpp.domain_file = \"domain\"";
    let config = parse_in(dir.path(), text, &[]).unwrap();
    assert_eq!(config.xmpp.domain, "meet.example.org");
    let env = [("USHER_XMPP__DOMAIN", "meet.example.net")];
    let config = parse_in(dir.path(), text, &env).unwrap();
    assert_eq!(config.xmpp.domain, "meet.example.net");

    fs::write(dir.path().join("domain"), "\n").unwrap();
    let error = parse_in(dir.path(), text, &[]).unwrap_err();
    says(
        &error.mistakes[0],
        "xmpp.domain_file",
        Some(1),
        "is not a host name",
        "Write it like",
    );
    let mistake = only("xmpp.domain_file = \"nowhere\"");
    says(
        &mistake,
        "xmpp.domain_file",
        Some(1),
        "cannot be read",
        "Create the file",
    );
    let mistake = only("[xmpp]\ndomain = \"a.example\"\ndomain_file = \"domain\"");
    says(
        &mistake,
        "xmpp.domain_file",
        Some(3),
        "is set, and xmpp.domain too",
        "Keep one",
    );
}

#[test]
fn public_keys_can_lie_in_a_directory_under_their_ids() {
    let dir = TempDir::new().unwrap();
    let text = "auth.public_keys_dir = \"keys\"";
    let error = parse_in(dir.path(), text, &[]).unwrap_err();
    says(
        &error.mistakes[0],
        "auth.public_keys_dir",
        Some(1),
        "cannot be read",
        "Create",
    );

    let keys = dir.path().join("keys");
    fs::create_dir(&keys).unwrap();
    assert!(
        parse_in(dir.path(), text, &[])
            .unwrap()
            .auth
            .public_keys
            .is_empty()
    );
    for name in ["jitsi.pem", "other.pem", "README", ".pem"] {
        fs::write(keys.join(name), "").unwrap();
    }
    let named = format!("{text}\nauth.public_keys = {{ other = \"keys/README\" }}");
    let found = parse_in(dir.path(), &named, &[]).unwrap().auth.public_keys;
    let found: Vec<_> = found
        .iter()
        .map(|(kid, path)| (kid.as_str(), path.clone()))
        .collect();
    let wanted = [
        ("jitsi", keys.join("jitsi.pem")),
        ("other", keys.join("README")),
    ];
    assert_eq!(found, wanted);
}
