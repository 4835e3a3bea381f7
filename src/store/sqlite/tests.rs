//! Databases of earlier versions open, and the file of a URL.

use chrono::DateTime;

use super::super::{BookingFilter, DecisionFilter, Store};
use super::*;
use crate::domain::conference::Conference;

/// The schemas of databases that are in use: the SHA-384 of each migration. Every such database refuses a changed
/// one ("was previously applied but has been modified"): a change requires a new file.
const FROZEN: [(i64, &str); 4] = [
    (
        1,
        "41026836aa2253baf52b64751e962dee7e7156ee8b1e0c032fb7b0502ff0332321d55d6ade2c43fd69c390b83da10239",
    ),
    (
        2,
        "46da9ffdc96e4c7edf1cca08a86bfe15dae2b09d9899e2a8326d395912294145d0a674fa79d0c76bbf62fe2168edbefa",
    ),
    (
        3,
        "b729a44ce60af92cf68cf7d362fd076233cc80db7ce6359d26f779aaf5bb59a608db3e7144aee068aec0df3d1c302f4e",
    ),
    (
        4,
        "ca21a8c0194f1b801927a6f99ce5fee87aed6aeb8f8fb10c70e7c1ce20aa6dd1105e210c82b5a246ad72f0dca07ab7cd",
    ),
];

/// Content for the tables and columns that each of them adds.
const CONTENT: [&str; 4] = [
    "INSERT INTO booking (room, tenant, title, starts_at, ends_at, lobby, waiting_queue, created_at, changed_at)
        VALUES ('standup', '', 'Stand-up', 1000, 9000, 0, 1, 1000, 1000);
    INSERT INTO allocation (id, room, tenant, name, mail_owner, booking_id, starts_at, ends_at, lobby, waiting_queue, created_at)
        VALUES (42, 'standup', '', 'standup', '', 1, 1000, 2000, 0, 1, 1000);
    INSERT INTO decision (decided_at, room, tenant, mail_owner, outcome, reason, sentence, allocation_id)
        VALUES (1000, 'standup', '', '', 'allowed', 'booked', 'It is booked.', 42);",
    "INSERT INTO live (room, tenant, live_since, live_until) VALUES ('standup', '', 1500, 9000);
    UPDATE booking SET auto_live = 5;",
    "INSERT INTO upstream_conference (upstream_id, room, tenant, name, mail_owner, waiting_queue, ends_at)
        VALUES ('a7', 'standup', '', 'standup', '', 1, 9000);
    INSERT INTO outbox (upstream_id, room, tenant, accepted_at, attempts, next_at)
        VALUES ('a7', 'standup', '', 1000, 2, 3000);",
    "INSERT INTO place (number, room, tenant, token) VALUES (1, 'standup', '', x'00112233445566778899aabbccddeeff');",
];

#[test]
fn migrations_of_existing_databases_are_unchanged() {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let found: Vec<_> = MIGRATIONS
        .iter()
        .map(|one| (one.version, hex(&one.checksum)))
        .collect();
    for (version, checksum) in FROZEN {
        assert!(
            found.contains(&(version, checksum.to_owned())),
            "{version}: {found:?}"
        );
    }
}

/// Creates a database of the schema `version` with content.
async fn create_database(version: i64, url: &str) {
    let options = SqliteConnectOptions::from_str(url).unwrap();
    let database = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options.create_if_missing(true))
        .await
        .unwrap();
    MIGRATIONS.run_to(version, &database).await.unwrap();
    for ((since, _), content) in FROZEN.iter().zip(CONTENT) {
        if *since <= version {
            sqlx::raw_sql(content).execute(&database).await.unwrap();
        }
    }
    database.close().await;
}

#[tokio::test]
async fn database_of_each_schema_opens_and_keeps_its_content() {
    let standup = Conference::from_names("standup", None, "meet.example.com").unwrap();
    let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
    let versions: Vec<i64> = MIGRATIONS.iter().map(|one| one.version).collect();
    assert!(versions.len() >= FROZEN.len());
    for version in versions {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("usher.db").display());
        create_database(version, &url).await;

        let store = Store::open(&url, "meet.example.com").await.unwrap();
        let filter = BookingFilter {
            limit: 10,
            ..BookingFilter::default()
        };
        let bookings = store.bookings(&filter).await.unwrap();
        assert_eq!(bookings.len(), 1);
        let draft = &bookings[0].draft;
        assert_eq!(
            (draft.title.as_deref(), draft.start),
            (Some("Stand-up"), at(1000))
        );
        assert_eq!(draft.auto_live, (version >= 2).then_some(5));
        let mut tx = store.begin().await.unwrap();
        let running = tx.unended(&standup).await.unwrap();
        assert_eq!(running.unwrap().id.get(), 42);
        drop(tx);
        let filter = DecisionFilter {
            limit: 10,
            ..DecisionFilter::default()
        };
        assert_eq!(store.decisions(&filter).await.unwrap().len(), 1);

        let live = store.live().await.unwrap();
        let since: Vec<_> = live
            .iter()
            .map(|live| (&live.conference, live.since))
            .collect();
        assert_eq!(
            since,
            if version >= 2 {
                vec![(&standup, at(1500))]
            } else {
                vec![]
            }
        );
        let runs = store.upstream_conference("a7").await.unwrap();
        assert_eq!(
            runs.map(|row| (row.conference, row.end)),
            (version >= 3).then(|| (standup.clone(), at(9000)))
        );
        let outbox = store.outbox(0, 10).await.unwrap();
        let waits: Vec<_> = outbox
            .iter()
            .map(|it| (it.conference_id.as_str(), it.attempts))
            .collect();
        assert_eq!(
            waits,
            if version >= 3 {
                vec![("a7", 2)]
            } else {
                vec![]
            }
        );
        let mut tx = store.begin().await.unwrap();
        let places = tx.take_places().await.unwrap();
        assert_eq!(places.len(), usize::from(version >= 4));
        assert!(
            places
                .iter()
                .all(|place| place.conference == standup && place.token[1] == 0x11)
        );
        tx.commit().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn owner_of_an_earlier_booking_is_found_in_every_spelling() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("usher.db").display());
    create_database(4, &url).await;
    let mut database = options(&url).unwrap().connect().await.unwrap();
    let owner = "UPDATE booking SET owner = ' Mu\u{308}ller@Example.com'";
    sqlx::query(owner).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    let store = Store::open(&url, "meet.example.com").await.unwrap();
    for (owner, found) in [
        ("m\u{fc}ller@example.com", 1),
        ("MU\u{308}LLER@EXAMPLE.COM", 1),
        ("muller@example.com", 0),
    ] {
        let filter = BookingFilter {
            owner: Some(owner.to_owned()),
            limit: 10,
            ..BookingFilter::default()
        };
        let bookings = store.bookings(&filter).await.unwrap();
        assert_eq!(bookings.len(), found, "{owner}");
        assert!(bookings.iter().all(|booking| booking.version == 1));
    }
    store.close().await;
}

#[test]
fn file_of_a_url_is_a_path_or_none_for_a_database_in_memory() {
    for (url, file) in [
        ("sqlite:usher.db", Some("usher.db")),
        (
            "sqlite:///var/lib/usher/usher.db?mode=rwc",
            Some("/var/lib/usher/usher.db"),
        ),
        ("sqlite:/var/a%20b.db", Some("/var/a b.db")),
        ("sqlite::memory:", None),
        ("sqlite://:memory:", None),
        ("sqlite::memory:?cache=shared", None),
        ("sqlite:usher.db?mode=memory", None),
        ("sqlite:", None),
        ("postgres://host/usher", None),
    ] {
        assert_eq!(file_of(url).as_deref(), file.map(Path::new), "{url}");
    }
}
