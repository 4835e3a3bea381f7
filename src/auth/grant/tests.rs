use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DOMAIN: &str = "meet.example.com";

/// The grant of a token with these claims.
fn grant_by(config: &Auth, claims: Value) -> Grant {
    let mut all = json!({"iss": "jitsi"});
    let all = all.as_object_mut().unwrap();
    all.extend(claims.as_object().unwrap().clone());
    Grant::new(&Claims::read(all), config, &DOMAIN.into())
}

fn grant(claims: Value) -> Grant {
    grant_by(&Auth::default(), claims)
}

/// The grant of a token for a visitor and moderator.
fn for_room(room: &str, sub: &str, regex: bool) -> Grant {
    grant(json!({"room": room, "sub": sub, "context": {
        "user": {"role": "visitor", "moderator": true}, "room": {"regex": regex},
    }}))
}

fn conference(node: &str) -> Conference {
    Conference::from_node(node, DOMAIN).unwrap()
}

fn covers(grant: &Grant, node: &str) -> bool {
    let conference = conference(node);
    let covers = grant.is_for(&conference);
    assert_eq!(grant.may_wait(&conference), covers);
    assert_eq!(grant.may_watch(&conference), covers);
    covers
}

#[test]
fn visitors_wait_and_moderators_watch() {
    let room = conference("room");
    for (user, waits, watches) in [
        (json!({"role": "visitor"}), true, false),
        (json!({"moderator": true}), false, true),
        (json!({"moderator": "true"}), false, true),
        (json!({"role": "visitor", "moderator": true}), true, true),
        (
            json!({"role": "visitor", "moderator": "false"}),
            true,
            false,
        ),
        (json!({"role": "Visitor"}), false, false),
        (json!({"role": "moderator", "moderator": 1}), false, false),
        (json!({"affiliation": "owner"}), false, false),
        (json!(null), false, false),
    ] {
        let grant = grant(json!({"room": "room", "sub": DOMAIN, "context": {"user": user}}));
        assert_eq!(grant.may_wait(&room), waits, "{user}");
        assert_eq!(grant.may_watch(&room), watches, "{user}");
        assert!(grant.is_for(&room) && !grant.is_service());
    }
}

#[test]
fn a_service_token_has_no_user_claims() {
    let service = grant(json!({"nbf": 0, "iat": 0}));
    assert!(service.is_service());
    for node in ["room", "[blue]room"] {
        assert!(service.may_wait(&conference(node)));
        assert!(!service.may_watch(&conference(node)));
    }
    let elsewhere = Conference::from_node("room", "evil.org").unwrap();
    assert!(!service.may_wait(&elsewhere));
    for claims in [
        json!({"iss": "other"}),
        json!({"iss": "*"}),
        json!({"room": "*"}),
        json!({"room": null}),
        json!({"sub": "*"}),
        json!({"context": {}}),
        json!({"context": 1}),
    ] {
        let grant = grant(claims.clone());
        assert!(!grant.is_service(), "{claims}");
        assert!(!grant.may_wait(&conference("room")), "{claims}");
    }
}

#[test]
fn the_room_is_compared_by_its_canonical_name() {
    for claim in [
        "Été 2026",
        "été 2026",
        "%C3%89T%C3%89%202026",
        "%c3%a9t%c3%a9%202026",
    ] {
        let grant = for_room(claim, DOMAIN, false);
        assert!(covers(&grant, "%c3%a9t%c3%a9%202026"), "{claim}");
        assert!(!covers(&grant, "%c3%a9t%c3%a9%202027"), "{claim}");
    }
    assert!(covers(&for_room("Room", DOMAIN, false), "room"));
}

#[test]
fn the_tenant_is_compared_in_composed_letters() {
    for sub in [
        "mu\u{308}nchen",
        "m\u{fc}nchen",
        "M\u{dc}NCHEN",
        "MU\u{308}NCHEN",
    ] {
        let grant = for_room("room", sub, false);
        assert!(covers(&grant, "[m\u{fc}nchen]room"), "{sub}");
        assert!(covers(&grant, "[mu\u{308}nchen]room"), "{sub}");
        assert!(!covers(&grant, "[munchen]room"), "{sub}");
    }
}

#[test]
fn a_service_waits_with_the_scope_prosody() {
    for (scope, waits) in [
        ("prosody", true),
        ("operate", true),
        ("queue", false),
        ("", false),
    ] {
        let service = grant(json!({ "scope": scope }));
        assert!(service.is_service(), "{scope}");
        assert_eq!(service.may_wait(&conference("room")), waits, "{scope}");
        assert_eq!(service.allows_anything(), waits, "{scope}");
    }
}

#[test]
fn a_star_covers_any_room_but_not_any_tenant() {
    let grant = for_room("*", "blue", false);
    assert!(covers(&grant, "[blue]one") && covers(&grant, "[blue]two"));
    assert!(!covers(&grant, "[green]one") && !covers(&grant, "one"));
    let any = for_room("*", "*", false);
    assert!(covers(&any, "[green]one") && covers(&any, "one"));
    let foreign = Conference::from_node("one", "evil.org").unwrap();
    assert!(!any.is_for(&foreign) && !any.may_wait(&foreign) && !any.may_watch(&foreign));
}

#[test]
fn a_star_within_a_name_is_only_a_star() {
    let grant = for_room("roo*", DOMAIN, false);
    assert!(covers(&grant, "roo*") && !covers(&grant, "room"));
}

#[test]
fn the_subject_is_the_tenant_or_the_bare_domain() {
    let magic = "vpaas-magic-cookie-0123abcd";
    for (sub, node, covered) in [
        (DOMAIN, "room", true),
        ("Meet.Example.Com", "room", true),
        (DOMAIN, "[blue]room", false),
        ("blue", "[blue]room", true),
        ("BLUE", "[blue]room", true),
        ("blue", "room", false),
        ("blue", "[green]room", false),
        ("blue.meet.example.com", "[blue]room", false),
        ("", "room", false),
        (magic, &format!("[{magic}]room"), true),
        (
            "vpaas-magic-cookie-0123abce",
            &format!("[{magic}]room"),
            false,
        ),
    ] {
        assert_eq!(
            covers(&for_room("room", sub, false), node),
            covered,
            "{sub} {node}"
        );
    }
}

#[test]
fn without_verify_domain_the_subject_is_ignored() {
    let config = Auth {
        verify_domain: false,
        ..Auth::default()
    };
    let user = json!({"user": {"role": "visitor", "moderator": true}});
    for claims in [
        json!({"room": "room", "context": user}),
        json!({"room": "room", "sub": "green", "context": user}),
    ] {
        let grant = grant_by(&config, claims);
        assert!(covers(&grant, "room") && covers(&grant, "[blue]room"));
        assert!(!covers(&grant, "other"));
    }
}

#[test]
fn missing_claims_cover_nothing() {
    let user = json!({"user": {"role": "visitor", "moderator": true}});
    for claims in [
        json!({"context": user}),
        json!({"room": "room", "context": user}),
        json!({"sub": DOMAIN, "context": user}),
        json!({"sub": DOMAIN, "room": 5, "context": user}),
        json!({"sub": DOMAIN, "room": "", "context": user}),
    ] {
        assert!(!covers(&grant(claims.clone()), "room"), "{claims}");
    }
}

#[test]
fn a_tenant_in_the_room_claim_must_match() {
    let grant = for_room("[blue]room", "*", false);
    assert!(covers(&grant, "[blue]room"));
    assert!(!covers(&grant, "[green]room") && !covers(&grant, "room"));
}

#[test]
fn a_token_with_a_lua_pattern_is_for_the_rooms_that_match_it() {
    for (pattern, node, covered) in [
        ("^meeting%-%d+$", "meeting-17", true),
        ("^meeting%-%d+$", "[blue]meeting-17", false),
        ("^meeting%-%d+$", "meeting-x", false),
        ("room.*", "room1", true),
        ("room.*", "my-room1", false),
        ("a*b*c*d*", "abcd", false),
    ] {
        assert_eq!(
            covers(&for_room(pattern, DOMAIN, true), node),
            covered,
            "{pattern} {node}"
        );
    }
    assert!(covers(
        &for_room("^meeting%-%d+$", "blue", true),
        "[blue]meeting-17"
    ));
}

#[test]
fn a_pattern_is_a_name_unless_the_token_says_regex() {
    assert!(!covers(&for_room("room.*", DOMAIN, false), "room1"));
}

fn some_room() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{1,2}", "[A-C]é", "[ -&(-Z^-~]{1,3}"]
}

fn some_tenant() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(vec![
        "blue".to_owned(),
        "green".to_owned(),
    ]))
}

proptest! {
    #[test]
    fn no_token_grants_another_room_or_tenant(
        (room, other) in (some_room(), some_room()),
        (tenant, another) in (some_tenant(), some_tenant()),
    ) {
        prop_assume!(room != "*");
        let node = |room: &str, tenant: Option<&str>| match tenant {
            Some(tenant) => format!("[{tenant}]{room}"),
            None => room.to_owned(),
        };
        let own = Conference::from_node(&node(&room, tenant.as_deref()), DOMAIN);
        let asked = Conference::from_node(&node(&other, another.as_deref()), DOMAIN);
        if let (Ok(own), Ok(asked)) = (own, asked) {
            let grant = for_room(&room, tenant.as_deref().unwrap_or(DOMAIN), false);
            prop_assert!(covers(&grant, &own.node()));
            prop_assert_eq!(covers(&grant, &asked.node()), own == asked);
            // What Prosody considers equal is equal here, too.
            if room.to_lowercase() == asked.room() && own.tenant() == asked.tenant() {
                prop_assert!(covers(&grant, &asked.node()));
            }
        }
    }

    #[test]
    fn no_token_grants_another_role(
        room in prop::option::of(prop_oneof![Just("*".to_owned()), some_room()]),
        sub in prop::option::of(prop::sample::select(vec!["*", DOMAIN, "blue"])),
        role in prop::option::of("visitor|Visitor|moderator|[a-z]{0,3}"),
        moderator in prop::option::of(prop_oneof![
            Just(json!(true)), Just(json!("true")), Just(json!(false)), Just(json!(1)), Just(json!("yes")),
        ]),
        issuer in "jitsi|other",
        verify_domain: bool,
    ) {
        let mut claims = json!({"iss": issuer});
        if let Some(room) = room { claims["room"] = json!(room); }
        if let Some(sub) = sub { claims["sub"] = json!(sub); }
        if let Some(role) = &role { claims["context"]["user"]["role"] = json!(role); }
        if let Some(moderator) = &moderator { claims["context"]["user"]["moderator"] = moderator.clone(); }
        let no_user_claims = ["room", "sub", "context"].iter().all(|name| claims.get(name).is_none());
        let grant = grant_by(&Auth { verify_domain, ..Auth::default() }, claims);
        prop_assert_eq!(grant.is_service(), no_user_claims && issuer == "jitsi");
        for node in ["a", "[blue]b", "%c3%a9"] {
            let asked = conference(node);
            prop_assert!(!grant.may_wait(&asked) || grant.is_service() || role.as_deref() == Some("visitor"));
            prop_assert!(!grant.may_watch(&asked) || moderator == Some(json!(true)) || moderator == Some(json!("true")));
            prop_assert!(!grant.is_for(&Conference::from_node(node, "evil.org").unwrap()));
        }
    }
}
