use proptest::prelude::*;

use super::super::room_name::tests::{jitsi_room_name, names};
use super::super::room_name::typed;
use super::*;

const DOMAIN: &str = "meet.example.com";

fn node(node: &str) -> Conference {
    Conference::from_node(node, DOMAIN).unwrap()
}

fn jid(jid: &str) -> Result<Conference, ConferenceError> {
    Conference::from_jid(jid, "conference", DOMAIN)
}

#[test]
fn a_booking_and_the_node_of_prosody_are_one_conference() {
    let booked = Conference::from_names("Été 2026", None, DOMAIN).unwrap();
    assert_eq!(booked, node("%c3%a9t%c3%a9%202026"));
    assert_eq!(booked.room(), "%c3%a9t%c3%a9%202026");
    assert_eq!(booked.display_name(), "été 2026");
}

#[test]
fn a_name_that_normalization_changes_twice_matches_its_node() {
    let booked = Conference::from_names("J\u{30c}", None, DOMAIN).unwrap();
    assert_eq!(booked, node("j%cc%8c"));
    assert_eq!(booked, node("%c7%b0"));
}

#[test]
fn all_spellings_of_a_tenants_room_are_one_key() {
    let key = node("[blue]room");
    assert_eq!(key.tenant(), Some("blue"));
    assert_eq!(key.room(), "room");
    assert_eq!(key.domain(), DOMAIN);
    assert_eq!(key.node(), "[blue]room");
    assert_eq!(
        key.jid("conference"),
        "room@conference.blue.meet.example.com"
    );
    for spelling in [
        "room@conference.blue.meet.example.com",
        "[blue]room@conference.meet.example.com",
        "[blue]room@conference.blue.meet.example.com",
        "ROOM@Conference.Blue.Meet.Example.com",
    ] {
        assert_eq!(jid(spelling).unwrap(), key, "{spelling}");
    }
    for (room, tenant) in [
        ("Room", Some("Blue")),
        ("R&oom!", Some("Blue")),
        ("[Blue]Room", None),
        ("[Blue]Room", Some("")),
        ("[blue]room", Some("BLUE")),
    ] {
        assert_eq!(Conference::from_names(room, tenant, DOMAIN).unwrap(), key);
    }
    assert_ne!(key, node("room"));
    assert_ne!(key, node("[green]room"));
}

#[test]
fn a_room_without_tenant_has_the_short_spellings() {
    let key = node("room");
    assert_eq!(key.tenant(), None);
    assert_eq!(key.node(), "room");
    assert_eq!(key.jid("muc"), "room@muc.meet.example.com");
    assert_eq!(jid("room@conference.meet.example.com").unwrap(), key);
}

#[test]
fn an_unclosed_bracket_is_part_of_the_name() {
    let key = node("[room");
    assert_eq!(key.room(), "%5broom");
    assert_eq!(key.tenant(), None);
    assert_eq!(key.display_name(), "[room");
}

#[test]
fn an_escaped_bracket_is_part_of_the_name() {
    let key = node("%5bblue%5droom");
    assert_eq!((key.tenant(), key.room()), (None, "%5bblue%5droom"));
    assert_eq!(node(&key.node()), key);
}

#[test]
fn conferences_elsewhere_are_foreign() {
    for foreign in [
        "room@conference.example.com",
        "room@conference.evilmeet.example.com",
        "room@conference.meet.example.com.evil.org",
        "room@breakout.meet.example.com",
        "room@meet.example.com",
        "room@conferencemeet.example.com",
        "room@conference..com",
    ] {
        assert!(
            matches!(jid(foreign), Err(ConferenceError::Foreign { .. })),
            "{foreign}: {:?}",
            jid(foreign)
        );
    }
    assert_eq!(
        jid("room@x.org").unwrap_err().to_string(),
        "\"room@x.org\" is not a room of conference.meet.example.com; use room@conference.meet.example.com"
    );
}

#[test]
fn other_addresses_are_rejected() {
    for other in [
        "",
        "room",
        "@conference.meet.example.com",
        "room@",
        "a@b@conference.meet.example.com",
        "room@conference.meet.example.com/nick",
        "a/b@conference.meet.example.com",
    ] {
        assert_eq!(jid(other), Err(ConferenceError::NotARoomJid(other.into())));
    }
    let endless = format!("room@{}", "a".repeat(5000));
    let message = jid(&endless).unwrap_err().to_string();
    assert!(message.len() < 200, "{message}");
}

#[test]
fn a_tenant_is_one_part_of_a_domain_name() {
    for tenant in [
        "a.b",
        "a b",
        "a/b",
        "a@b",
        "[a",
        "a\n",
        "ａ．ｂ",
        "a%2eb",
        "<a>",
    ] {
        let error = Conference::from_names("room", Some(tenant), DOMAIN).unwrap_err();
        assert!(matches!(error, ConferenceError::BadTenant(_)), "{tenant}");
        assert!(!error.to_string().contains('\n'));
    }
    for jid_text in [
        "room@conference.a.b.meet.example.com",
        "room@conference..meet.example.com",
        "[]room@conference.meet.example.com",
    ] {
        let error = jid(jid_text).unwrap_err();
        assert!(matches!(error, ConferenceError::BadTenant(_)), "{jid_text}");
    }
    let magic = "[vpaas-magic-cookie-0123456789abcdef]room";
    assert_eq!(
        node(magic).tenant(),
        Some("vpaas-magic-cookie-0123456789abcdef")
    );
}

#[test]
fn two_different_tenants_are_rejected() {
    let error = Conference::from_names("[a]room", Some("b"), DOMAIN).unwrap_err();
    assert!(matches!(error, ConferenceError::TenantsDiffer { .. }));
    let error = jid("[a]room@conference.b.meet.example.com").unwrap_err();
    assert!(matches!(error, ConferenceError::TenantsDiffer { .. }));
}

#[test]
fn an_empty_name_is_rejected() {
    assert_eq!(
        Conference::from_node("", DOMAIN),
        Err(ConferenceError::RoomName(RoomNameError::Empty))
    );
    assert_eq!(
        Conference::from_node("[a]", DOMAIN),
        Err(ConferenceError::RoomName(RoomNameError::Empty))
    );
    assert_eq!(
        Conference::from_names(" \t", None, DOMAIN),
        Err(ConferenceError::RoomName(RoomNameError::Empty))
    );
}

#[test]
fn plain_and_escaped_control_characters_are_rejected() {
    for name in ["a\nb", "a%00b", "a%0Ab", "a\u{85}b", "%7f"] {
        assert!(
            matches!(
                Conference::from_names(name, None, DOMAIN),
                Err(ConferenceError::RoomName(RoomNameError::Control(_)))
            ),
            "{name:?}"
        );
    }
    assert_eq!(
        ConferenceError::from(RoomNameError::Control('\0')).to_string(),
        "the room name holds the control character U+0000; leave it out"
    );
}

#[test]
fn a_typed_name_is_the_one_that_jitsi_meet_asks_for() {
    for (typed, room) in [
        ("R&D", "rd"),
        ("R%26D", "r%26d"),
        ("Anna's room", "annas%20room"),
        ("What's next?", "whats%20next"),
        ("C#", "c"),
        ("Sales: Q3 (EU)", "sales%20q3%20eu"),
        ("[unclosed", "unclosed"),
        ("a%28b%29", "a(b)"),
        ("a&%26b", "a%26b"),
        ("100%&25", "100%25"),
        ("[blue]R&D", "rd"),
    ] {
        let booked = Conference::from_names(typed, None, DOMAIN).unwrap();
        assert_eq!(booked.room(), room, "{typed}");
    }
    // Prosody's nodes stay as they are.
    assert_eq!(node("r%26d").room(), "r%26d");
    assert_eq!(node("a(b)!").room(), "a(b)!");
}

#[test]
fn a_typed_name_that_jitsi_meet_would_cut_or_drop_is_rejected() {
    for (typed, error) in [
        ("a/b", RoomNameError::Separator('/')),
        ("a\\b", RoomNameError::Separator('\\')),
        ("a?b", RoomNameError::Separator('?')),
        ("a#b", RoomNameError::Separator('#')),
        ("!!!", RoomNameError::OnlyPunctuation),
        ("?", RoomNameError::OnlyPunctuation),
        (".", RoomNameError::Dots),
        ("!..", RoomNameError::Dots),
        ("%2e%2e", RoomNameError::Dots),
    ] {
        let result = Conference::from_names(typed, None, DOMAIN);
        assert_eq!(result, Err(error.into()), "{typed}");
    }
    for tenant in ["a+b", "a!", "(a)", "a;b", "a=b"] {
        let result = Conference::from_names("room", Some(tenant), DOMAIN);
        assert!(
            matches!(result, Err(ConferenceError::BadTenant(_))),
            "{tenant}"
        );
    }
}

#[test]
fn tenants_in_all_spellings_are_one_tenant() {
    let key = node("[münchen]room");
    for tenant in ["München", "Mu\u{308}nchen", "m%c3%bcnchen", "mu%CC%88nchen"] {
        let spelled = Conference::from_names("room", Some(tenant), DOMAIN);
        assert_eq!(spelled, Ok(key.clone()), "{tenant}");
        assert_eq!(node(&format!("[{tenant}]room")), key, "{tenant}");
        let address = format!("room@conference.{tenant}.{DOMAIN}");
        assert_eq!(jid(&address), Ok(key.clone()), "{tenant}");
    }
}

#[test]
fn the_path_of_the_address_leads_back_to_the_room() {
    for (node_name, path) in [
        ("room", "/room"),
        ("caf%c3%a9", "/caf%c3%a9"),
        ("a(b)!*", "/a%28b%29%21%2A"),
        ("[blue]room", "/blue/room"),
        ("[münchen]room", "/m%c3%bcnchen/room"),
    ] {
        let key = node(node_name);
        assert_eq!(key.path(), path);
        let (_, typed) = path.rsplit_once('/').unwrap();
        let back = Conference::from_names(typed, key.tenant(), DOMAIN);
        assert_eq!(back, Ok(key));
    }
}

#[test]
fn health_check_rooms_are_known_by_their_beginning() {
    for name in [
        "__jicofo-health-check1",
        "__JICOFO-health-check",
        "[blue]__jicofo-health-check-7",
    ] {
        assert!(
            Conference::from_names(name, None, DOMAIN)
                .unwrap()
                .is_health_check(),
            "{name}"
        );
    }
    for name in [
        "_jicofo-health-check",
        "a__jicofo-health-check",
        "jicofo-health-check",
    ] {
        assert!(!node(name).is_health_check(), "{name}");
    }
}

#[test]
fn apostrophes_are_rejected() {
    for name in ["anna%27s", "anna＇s"] {
        assert_eq!(
            Conference::from_names(name, None, DOMAIN),
            Err(ConferenceError::RoomName(RoomNameError::Apostrophe))
        );
    }
}

#[test]
fn names_longer_than_xmpp_allows_are_rejected() {
    assert!(Conference::from_node(&"a".repeat(1023), DOMAIN).is_ok());
    let too_long = Err(RoomNameError::TOO_LONG.into());
    assert_eq!(Conference::from_node(&"a".repeat(1024), DOMAIN), too_long);
    assert_eq!(Conference::from_node(&"é".repeat(171), DOMAIN), too_long);
    assert_eq!(
        Conference::from_node(&"a".repeat(100_000), DOMAIN),
        too_long
    );
    let tenant = format!("[a]{}", "a".repeat(1021));
    assert_eq!(Conference::from_node(&tenant, DOMAIN), too_long);
    assert!(Conference::from_node(&"%41".repeat(1023), DOMAIN).is_ok());
}

#[test]
fn a_name_that_changes_the_writing_direction_is_displayed_encoded() {
    assert_eq!(node("%e2%80%aeabc").display_name(), "%e2%80%aeabc");
    assert_eq!(node("%2500").display_name(), "%00");
}

proptest! {
    #[test]
    fn a_booking_matches_the_node_of_jitsi_meet(name in names()) {
        prop_assume!(!name.starts_with('['));
        if let Ok(booked) = Conference::from_names(&name, None, DOMAIN) {
            let typed = typed(&name).unwrap();
            prop_assert_eq!(Conference::from_node(&jitsi_room_name(&typed), DOMAIN), Ok(booked));
        }
    }

    #[test]
    fn node_and_jid_parse_back_to_the_conference(
        room in names(),
        tenant in prop::option::of("[a-zA-Zé-]{1,9}"),
    ) {
        if let Ok(key) = Conference::from_names(&room, tenant.as_deref(), DOMAIN) {
            prop_assert_eq!(Conference::from_node(&key.node(), DOMAIN), Ok(key.clone()));
            prop_assert_eq!(jid(&key.jid("conference")), Ok(key.clone()));
            let inner = format!("{}@conference.{}", key.node(), DOMAIN);
            prop_assert_eq!(jid(&inner), Ok(key.clone()));
            prop_assert!(!key.display_name().chars().any(char::is_control));
        }
    }

    #[test]
    fn messages_never_hold_control_characters(name in names(), host in names()) {
        let text = format!("{name}@conference.{host}");
        for result in [
            Conference::from_names(&name, Some(&host), DOMAIN),
            jid(&text),
            jid(&name),
        ] {
            if let Err(error) = result {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
