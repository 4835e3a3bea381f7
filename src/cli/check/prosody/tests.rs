//! What is found in a report of `mod_usher_check`. tests/package runs it in a real Prosody.

use serde_json::{Value, json};

use super::super::finding::State;
use super::*;

/// A sound report with some members changed.
fn report(changes: Value) -> Report {
    let mut report = json!({
        "served": true,
        "version": "13.0.1",
        "modules": ["usher_reservations", "usher_queue", "muc_lobby_rooms", "persistent_lobby"],
        "muc_modules": ["muc"],
        "usher_url": ["http://127.0.0.1:8060"],
        "component_admins_as_room_owners": true,
        "token": { "place": "none" },
        "header": { "place": "none" },
    });
    for (name, value) in changes.as_object().unwrap() {
        report[name] = value.clone();
    }
    serde_json::from_value(report).unwrap()
}

/// The findings that are not ok: what about, and the state.
fn found(changes: Value) -> Vec<(String, State)> {
    let findings = configured::findings(&report(changes), &Config::default());
    let findings = findings.into_iter().filter(|finding| !finding.is_ok());
    findings
        .inspect(|finding| assert!(finding.hint.is_some(), "{finding}"))
        .map(|finding| (finding.about, finding.state))
        .collect()
}

fn only(about: &str, state: State) -> Vec<(String, State)> {
    vec![(about.to_owned(), state)]
}

#[test]
fn each_combination_that_does_not_fit_is_a_finding() {
    let lobby = ["muc_lobby_rooms", "persistent_lobby"];
    let with = |modules: &[&str]| json!({ "modules": ([&lobby[..], modules].concat()) });
    assert_eq!(found(json!({})), []);
    for (changes, about, state) in [
        (
            with(&["usher_reservations", "reservations", "usher_queue"]),
            "Prosody's reservations",
            State::Failed,
        ),
        (
            with(&["usher_reservations"]),
            "Prosody's usher_queue",
            State::Note,
        ),
        (
            json!({ "modules": ["usher_reservations", "usher_queue", "muc_lobby_rooms"] }),
            "lobby",
            State::Note,
        ),
        (
            with(&["usher_reservations", "usher_queue", "time_restricted"]),
            "meeting timer",
            State::Note,
        ),
        (
            json!({ "muc_modules": ["muc", "time_restricted"] }),
            "meeting timer",
            State::Note,
        ),
        (
            json!({ "component_admins_as_room_owners": false }),
            "Prosody's room owners",
            State::Failed,
        ),
        (
            json!({ "usher_url": ["http://127.0.0.1:9", "http://127.0.0.1:10"] }),
            "Prosody's address of usher",
            State::Failed,
        ),
        (
            json!({ "app_secret": true }),
            "Prosody's app_secret",
            State::Note,
        ),
    ] {
        assert_eq!(found(changes.clone()), only(about, state), "{changes}");
    }
    let older = json!({ "component_admins_as_room_owners": false, "version": "0.12.3" });
    assert_eq!(found(older), []);
}

#[test]
fn queue_without_reservations_is_sound_and_neither_is_not() {
    for changes in [
        json!({ "modules": ["usher_queue"] }),
        json!({ "modules": [], "visitors_queue_service": true }),
    ] {
        assert_eq!(found(changes), []);
    }
    let neither = found(json!({ "modules": [] }));
    assert_eq!(neither[0], ("Prosody".to_owned(), State::Failed));
}

#[test]
fn limit_of_occupants_with_the_stock_module_needs_three_options() {
    let stock = |changes: Value| {
        let mut all = json!({
            "modules": ["reservations", "usher_queue", "muc_lobby_rooms", "persistent_lobby"],
            "reservations_api_prefix": "http://127.0.0.1:8060/",
            "reservations_enable_max_occupants": true,
            "muc_modules": ["muc", "muc_max_occupants"],
            "muc_max_occupants": 100,
        });
        for (name, value) in changes.as_object().unwrap() {
            all[name] = value.clone();
        }
        found(all)
    };
    assert_eq!(stock(json!({})), []);
    for changes in [
        json!({ "reservations_enable_max_occupants": false }),
        json!({ "muc_modules": ["muc"] }),
        json!({ "muc_max_occupants": null }),
        json!({ "muc_max_occupants": -1 }),
    ] {
        assert_eq!(stock(changes), only("max_occupants", State::Note));
    }
}

#[test]
fn domain_that_prosody_does_not_have_is_an_error_if_it_has_another() {
    let hosts = |names: &[&str]| {
        names
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
    };
    let finding = not_served(
        &hosts(&["auth.meet.example.org", "localhost", "meet.example.org"]),
        "meet.example.orgg",
    );
    assert_eq!(finding.state, State::Failed);
    assert!(
        finding
            .hint
            .as_ref()
            .unwrap()
            .contains("\"meet.example.org\""),
        "{finding}"
    );
    assert!(!finding.message.contains("auth."), "{finding}");
    let finding = not_served(&hosts(&["localhost"]), "meet.example.org");
    assert_eq!(finding.state, State::NotInstalled);
}

#[tokio::test]
async fn modules_that_prosody_loaded_before_an_upgrade_are_reported() {
    let config = Config::default();
    let listed = "-- meet.example.com\n    usher_queue\n    usher_reservations\n";
    let new = report(json!({ "module_version": "0.2.0" }));
    let finding = old_modules(&new, listed, &config, None).await.unwrap();
    assert_eq!(finding.state, State::Note);
    assert!(finding.message.contains("0.1"), "{finding}");
    assert!(finding.hint.unwrap().contains("systemctl restart prosody"));
    let all = format!("{listed}    usher_client\n");
    assert_eq!(old_modules(&new, &all, &config, None).await, None);
    assert_eq!(old_modules(&new, "    muc\n", &config, None).await, None);
    let old = report(json!({}));
    assert_eq!(old_modules(&old, listed, &config, None).await, None);
}

#[test]
fn the_token_is_never_shown() {
    let report = report(json!({ "token": { "place": "inline", "value": "8675309" } }));
    assert!(!format!("{report:?}").contains("8675309"));
}

#[test]
fn restart_does_not_depend_on_prosodys_advice() {
    assert!(!restart("meet.example.com").contains("check config"));
}
