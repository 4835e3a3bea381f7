//! Configurations that are refused, and warnings.

use super::*;

#[test]
fn text_that_is_not_toml_is_reported_once_per_line() {
    let issues =
        bad("[server]\nlisten = 127.0.0.1:8060\n\n[queue]\npath = \"/a\"\npath = \"/b\"\n");
    assert_eq!(issues.len(), 2, "{issues:#?}");
    contains(&issues[0], "", Some(2), "not TOML", "in quotes");
    contains(&issues[1], "", Some(6), "duplicate key", "each key once");

    let text = "a = [x, y]\nb = z\n";
    let (_, errors) = toml::de::DeTable::parse_recoverable(text);
    assert!(errors.len() > 2, "{errors:#?}");
    let lines: Vec<_> = bad(text).iter().map(|issue| issue.line).collect();
    assert_eq!(lines, [Some(1), Some(2)]);
}

/// A value that its key refuses | the message contains | the hint contains
const REFUSED: &str = r#"
server.listen = 8060 | integer, but a string | quotes
server.listen = "abc" | "abc" is not | "127.0.0.1:8060"
server.shutdown_grace = "11m" | out of range | "0s" to "10m"
server.max_connections = 0 | 0 is out of range | from 1 to 1000000
server.max_per_address = 0 | 0 is out of range | from 1 to 1000000
log.format = "xml" | "xml" is not one | "auto"
log.level = 2020-01-01 | type datetime | quotes
database.url = "usher.db" | not the URL | "sqlite:usher.db"
xmpp.domain = "a b" | not a host name | no space
xmpp.domain_file = "nowhere" | cannot be read | Create the file
xmpp.muc_prefix = "conference." | not a host name | "conference"
xmpp.public_url = "meet.example.com" | not the URL of a web server | https://
auth.secret = "" | is empty | Give it a value
auth.secret_file = "" | is empty | Give it a value
auth.secret_algorithm = "RS256" | "RS256" is not one | "HS256" or "HS384"
auth.public_keys = [] | a table | { name = "value" }
auth.public_keys.a-b = 5 | a string | quotes
auth.public_keys_dir = "nowhere" | cannot be read | Create
auth.key_server = "https://a/b?c=" | contains a "?" | Remove
auth.jwks_url = "file:///etc/passwd" | not the URL | https://
auth.key_cache = "0s" | out of range | "1s" to "7d"
auth.accepted_issuers = "jitsi" | a list | ["a", "b"]
auth.accepted_issuers = [] | no token | ["jitsi"], or ["*"]
auth.accepted_issuers = [5] | a string | quotes
auth.accepted_audiences = ["a", ""] | is empty | remove it
auth.verify_domain = "yes" | true or false | true or false
auth.leeway = "11m" | out of range | "0s" to "10m"
auth.service.tokens = ["a b"] | a space | letters and digits
auth.service.tokens_file = 5 | a string | quotes
auth.service.issuers = ["*"] | act as a service | Write the issuers
reservations.backend = "cloud" | "cloud" | "local" or "upstream"
reservations.backend = "upstream" | reservations.upstream.url is not set | write "local"
reservations.policy = "shut" | "shut" | "open" or "booked"
reservations.default_duration = "999ms" | out of range | "1s" to "30d"
reservations.early_start = "25h" | out of range | "0s" to "1d"
reservations.start_policy = "me" | "me" | "anyone" or "owner"
reservations.starters = "me" | "me" | "anyone" or "owner"
reservations.time_zone = "Berlin" | not the name | "Europe/Berlin"
reservations.decision_retention = "0s" | out of range | "1s" to "3650d"
reservations.decisions_max = 99999999999999999999 | out of range | from 1 to 100000000
reservations.upstream.url = "x" | not the URL | https://
reservations.upstream.timeout = "0s" | out of range | "1ms" to "10m"
reservations.upstream.deadline = "0s" | out of range | "1ms" to "10m"
reservations.upstream.retry_count = 101 | out of range | from 0 to 100
reservations.upstream.retry_delay = "0s" | out of range | "1ms" to "10m"
reservations.upstream.retry_status = [] | is empty | retry_count = 0
reservations.upstream.retry_status = [500, 200] | neither a status | "500..599"
reservations.upstream.headers.a = "b\n" | its value | one line
reservations.upstream.forward_identity = 1 | true or false | quotes
reservations.upstream.ca_file = "none.pem" | cannot be read | Create the file
reservations.upstream.on_failure = "shrug" | "shrug" | "deny" or "allow"
reservations.upstream.failures_max = 0 | out of range | from 1 to 1000
reservations.upstream.probe_interval = "0s" | out of range | "1ms" to "10m"
reservations.upstream.outbox_retention = "366d" | out of range | "1s" to "365d"
reservations.upstream.outbox_max = 0 | out of range | from 1 to 10000000
queue.path = "/conference" | belongs to another part | "/waiting-queue"
queue.state_interval = 15 | 15 has no unit | "15ms" or "15s"
queue.state_interval = "0s" | out of range | "1ms" to "1h"
queue.release_per_second = -1 | -1 is out of range | from 0 to 100000
queue.live_ttl = "31d" | out of range | "1ms" to "30d"
queue.heart_beat = "999ms" | out of range | "1s" to "10m"
queue.client_heart_beat = "999ms" | too short | "0s" for none
queue.connect_timeout = "2m" | out of range | "1ms" to "1m"
queue.reconnect_grace = "11m" | out of range | "0s" to "10m"
queue.max_per_token = 0 | out of range | from 1 to 10000000
queue.max_per_address = 0 | out of range | from 1 to 10000000
queue.trusted_proxies = ["proxy"] | not an IP address | 192.0.2.7
prosody.absent_after = "0s" | out of range | "1s" to "1h"
prosody.without_lobby = "shut" | "shut" | "open" or "refuse"
server.shutdown_grase = "1s" | unknown key | Did you mean "server.shutdown_grace"?
auth.service.issuer = [] | unknown key | Did you mean "auth.service.issuers"?
server.secret_file = "x" | unknown key | Did you mean "auth.secret_file"?
log.colour = true | unknown key | Known here: format, level.
sever = {} | unknown section | Did you mean "server"?
metrics = {} | unknown section | auth, database, log
reservations.upsteam = {} | unknown section | "reservations.upstream"
queue = 5 | is of type integer, but a section | [queue]
auth.service = "x" | is of type string, but a section | [auth.service]
"#;

#[test]
fn each_key_refuses_a_wrong_value_with_a_message_and_a_hint() {
    each_is_refused(Path::new(""), REFUSED);
    let refused = |key: &&&str| REFUSED.contains(&format!("\n{key} = "));
    let schema = schema();
    let untested: Vec<_> = schema.keys.iter().filter(|key| !refused(key)).collect();
    assert_eq!(untested, [&"reservations.upstream.headers"]);
}

#[test]
fn entry_of_a_list_or_table_is_reported_at_its_own_line() {
    for (text, key, line) in [
        (
            "[auth]\naccepted_issuers = [\"jitsi\",\n5]",
            "auth.accepted_issuers",
            3,
        ),
        ("[auth.public_keys]\n\"a/b\" = 5", "auth.public_keys.a/b", 2),
        (
            "[reservations.upstream]\nretry_status = [\n500,\ntrue]",
            "reservations.upstream.retry_status",
            4,
        ),
        (
            "[reservations.upstream.headers]\n\"a b\" = \"c\"",
            "reservations.upstream.headers.a b",
            2,
        ),
    ] {
        contains(&only(bad(text)), key, Some(line), "", "");
    }
}

#[test]
fn no_issue_repeats_a_secret() {
    for text in [
        "auth.secret = 8675309",
        "auth.service.tokens = [8675309]",
        "auth.service.tokens = 8675309",
        "auth.service.tokens = [\"8675309 \"]",
        "reservations.upstream.headers = { a = 8675309 }",
        "reservations.upstream.headers = { a = \"8675309\\n\" }",
        "reservations.upstream.url = \"https://me:8675309@example.com\"",
        "auth.key_server = \"https://me:8675309@example.com/\"",
        "database.url = \"postgres://me:8675309@localhost/usher\"",
    ] {
        let issue = only(bad(text));
        assert!(!issue.to_string().contains("8675309"), "{issue}");
    }
}

#[test]
fn all_issues_are_reported_at_once_in_the_order_of_the_file() {
    let issues = bad_env(
        "[queue]\nlive_ttl = 1\ntrusted_proxies = [\"a\",\n\"b\"]\n[server]\nlisten = \"x\"\nlissten = 1\n[auth]\nsecret = 1\n[logs]\n",
        &[("USHER_LOG__LEVEL", "loud"), ("USHER_LOG__LEVL", "info")],
    );
    let found: Vec<_> = issues.iter().map(|m| (m.key.as_str(), m.line)).collect();
    assert_eq!(
        found,
        [
            ("queue.live_ttl", Some(2)),
            ("queue.trusted_proxies", Some(3)),
            ("queue.trusted_proxies", Some(4)),
            ("server.listen", Some(6)),
            ("server.lissten", Some(7)),
            ("auth.secret", Some(9)),
            ("logs", Some(10)),
            ("USHER_LOG__LEVEL", None),
            ("USHER_LOG__LEVL", None),
        ]
    );
    let issues = bad("[auth]\naccepted_issuers = []\nsecret = 5");
    assert_eq!(issues.len(), 2, "{issues:#?}");
    only(bad("[auth]\naccepted_issuers = [5]"));
}

#[test]
fn address_that_other_machines_reach_requires_a_credential() {
    for address in ["0.0.0.0:8060", "[::]:8060", "10.1.2.3:0"] {
        let text = format!("[server]\nlisten = \"{address}\"\n");
        let hint = "Set auth.service.tokens (or tokens_file) or auth.secret (or secret_file)";
        let message = "no service token can be verified";
        contains(&only(bad(&text)), "server.listen", Some(2), message, hint);
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
fn credential_with_an_issue_is_not_reported_as_missing_too() {
    let issue = only(bad(
        "[server]\nlisten = \"0.0.0.0:1\"\n[auth]\nsecret_file = \"not/there\"",
    ));
    assert_eq!(issue.key, "auth.secret_file");

    let env = [("USHER_AUTH__PUBLIC_KEYS", "{ k1 = \"none.pem\" }")];
    let issue = only(bad_env("[server]\nlisten = \"0.0.0.0:1\"", &env));
    assert_eq!(issue.key, "USHER_AUTH__PUBLIC_KEYS.k1");

    let issues = bad("[server]\nlisten = \"0.0.0.0:1\"\n[auth]\nleeway = \"1d\"");
    assert_eq!(issues.len(), 2, "{issues:#?}");
}

#[test]
fn issue_of_a_variable_names_the_variable() {
    let table = r#"
USHER_SERVER__LISTEN=abc | "abc" is not | "127.0.0.1:8060"
USHER_SERVER__LISTEN=0.0.0.0:1 | no service token | Set auth.service.tokens
USHER_QUEUE__STATE_INTERVAL=15 | 15 has no unit | 15s
USHER_SERVER__MAX_CONNECTIONS=many | not a whole number | digits
USHER_AUTH__VERIFY_DOMAIN=yes | neither true nor false | true or false
USHER_AUTH__ACCEPTED_ISSUERS=[] | no token | ["jitsi"]
USHER_AUTH__ACCEPTED_ISSUERS=[a | is not a list | a,b
USHER_AUTH__PUBLIC_KEYS=k1=a | is not a table | { name
USHER_AUTH__SERVICE__TOKENS=[8675309] | a string | quotes
USHER_SERVER__LISTN=x | unknown key | Did you mean USHER_SERVER__LISTEN?
USHER_AUTH__SERVICE=x | unknown key | Remove it
USHER_FROBNICATE__ALL=x | unknown key | Remove it
"#;
    for row in table.lines().filter(|row| !row.is_empty()) {
        let cells: Vec<_> = row.split(" | ").collect();
        let (name, value) = cells[0].split_once('=').unwrap();
        let issue = only(bad_env("", &[(name, value)]));
        contains(&issue, name, None, cells[1], cells[2]);
        assert!(!issue.to_string().contains("8675309"));
    }
}

#[test]
fn empty_variable_of_every_key_counts_as_unset() {
    let file = "[reservations]\npolicy = \"booked\"\n[auth]\naccepted_issuers = [\"a\"]\nservice.tokens = [\"0123456789abcdef\"]";
    let expected = debug(&good(file));
    let schema = schema();
    for key in schema.keys.iter().chain(schema.aliases.values()) {
        let variable = unknown::variable_name(key);
        for empty in ["", " "] {
            assert_eq!(
                debug(&good_env(file, &[(&variable, empty)])),
                expected,
                "{variable}"
            );
        }
    }
    good_env("", &[("USHER_SERVER__LISTN", "")]);
}

#[test]
fn defaults_cause_no_warnings() {
    assert!(Config::default().warnings().is_empty());
    let config = good("[reservations]\nbackend = \"upstream\"\nupstream.url = \"http://[::1]:9\"");
    assert_eq!(config.reservations.backend, Backend::Upstream);
    assert!(config.warnings().is_empty());
}

#[test]
fn unencrypted_connection_causes_a_warning() {
    let server = "http://keys.example.com";
    let text = format!("[auth]\nkey_server = \"{server}/\"\njwks_url = \"{server}/\"");
    let config = good(&text);
    assert_eq!(config.auth.key_server.as_deref(), Some(server));
    let warnings = config.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, key) in warnings.iter().zip(["auth.key_server", "auth.jwks_url"]) {
        assert!(
            warning.starts_with(key) && warning.contains("use https"),
            "{warning}"
        );
    }
    assert!(good(&text.replace("http:", "https:")).warnings().is_empty());
}

#[test]
fn unencrypted_upstream_and_a_long_deadline_cause_warnings() {
    let warnings = good(
        "[reservations]\nbackend = \"upstream\"\nupstream.url = \"http://bookings.example.com\"\n\
         upstream.deadline = \"19s\"",
    )
    .warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("use https") && warnings[1].contains("20 s"));
}

#[test]
fn short_and_world_readable_secrets_cause_warnings() {
    let dir = TempDir::new().unwrap();
    write(&dir, "secret", "swordfish", 0o644);
    let text = "auth.secret_file = \"secret\"\nauth.service.tokens = [\"tunafish\"]";
    let warnings = parse_in(dir.path(), text, &[]).unwrap().warnings();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("auth.secret_file: every user of this machine can read"));
    assert!(warnings[1].contains("auth.secret is short"));
    assert!(warnings[2].contains("auth.service.tokens is short"));
    assert!(!warnings.concat().contains("fish"));
}
