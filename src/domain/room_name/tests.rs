use proptest::prelude::*;

use super::*;

/// Names and what Jitsi Meet makes of them, as Node.js computes it.
const VECTORS: &[(&str, &str)] = &[
    ("room1", "room1"),
    ("Room1", "room1"),
    ("Town Hall", "town%20hall"),
    ("town%20hall", "town%20hall"),
    ("town+hall", "town%2bhall"),
    ("Café", "caf%c3%a9"),
    ("Cafe\u{301}", "caf%c3%a9"),
    ("caf%C3%A9", "caf%c3%a9"),
    ("Été 2026", "%c3%a9t%c3%a9%202026"),
    ("%C3%89t%C3%A9%202026", "%c3%a9t%c3%a9%202026"),
    ("100%", "100%25"),
    ("100%25", "100%25"),
    ("100% Été", "100%25%20%c3%a9t%c3%a9"),
    ("%zz%41", "%25zz%2541"),
    ("%c3", "%25c3"),
    ("%ed%a0%80", "%25ed%25a0%2580"),
    ("%41b", "ab"),
    ("%2541", "%2541"),
    ("-_.!~*'()", "-_.!~*'()"),
    ("a/b@c:d", "a%2fb%40c%3ad"),
    ("[t]room", "%5bt%5droom"),
    (
        "ΟΔΥΣΣΕΥΣ",
        "%ce%bf%ce%b4%cf%85%cf%83%cf%83%ce%b5%cf%85%cf%82",
    ),
    ("İstanbul", "i%cc%87stanbul"),
    ("STRAẞE", "stra%c3%9fe"),
    ("ﬁle①", "file1"),
    ("ＦＵＬＬ", "full"),
    ("会議室", "%e4%bc%9a%e8%ad%b0%e5%ae%a4"),
    ("🎉 Party", "%f0%9f%8e%89%20party"),
    ("J\u{30c}", "j%cc%8c"),
    ("", ""),
];

/// One round of the rule, as Jitsi Meet's web client applies it.
pub(in crate::domain) fn jitsi_room_name(name: &str) -> String {
    let decoded = percent_decode(name.as_bytes());
    percent_encode(&normalize_once(decoded.as_deref().unwrap_or(name)))
}

#[test]
fn names_are_rewritten_as_jitsi_meet_does() {
    for (name, canonical) in VECTORS {
        assert_eq!(jitsi_room_name(name), *canonical, "{name}");
    }
}

/// Any characters, with escapes, good and bad, and letters with unusual lower case or composition.
pub(in crate::domain) fn names() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_map(String::from),
        "[ -~]",
        "%[0-9a-fA-F]{2}",
        any::<char>().prop_map(|c| percent_encode(&c.to_string())),
        prop::sample::select(vec![
            "%",
            "%4",
            "[a]",
            "[",
            "]",
            "J\u{30c}",
            "\u{3a3}",
            "\u{130}",
            "\u{345}",
            "\u{301}",
            "H\u{331}",
            "T\u{308}",
            "W\u{30a}",
            "Y\u{30a}",
            "\u{1fbc}",
            "\u{fdfa}",
            "\u{1100}\u{1161}",
        ])
        .prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn canonical_names_are_legal(name in names()) {
        let encoded = jitsi_room_name(&name);
        prop_assert!(encoded.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.!~*'()%".contains(&b)
        }), "{}", encoded);
    }

    #[test]
    fn a_canonical_name_is_its_own_canonical_name(name in names()) {
        if let Ok(key) = canonicalize(&name) {
            prop_assert_eq!(&jitsi_room_name(&key), &key);
            prop_assert_eq!(canonicalize(&key), Ok(key));
        }
    }
}

/// Every character that normalization changes, alone and before a mark.
#[test]
fn two_rounds_of_normalization_are_enough() {
    let changed =
        ('\0'..'\u{20000}').filter(|c| normalize_once(c.encode_utf8(&mut [0; 4])) != c.to_string());
    let mut checked = 0;
    for c in changed {
        for mark in [
            "", "\u{301}", "\u{307}", "\u{30c}", "\u{331}", "\u{308}", "\u{30a}", "\u{345}",
        ] {
            let twice = normalize_once(&normalize_once(&format!("{c}{mark}")));
            assert_eq!(normalize_once(&twice), twice, "{c:?}{mark:?}");
            checked += 1;
        }
    }
    assert!(checked > 8 * 1400, "{checked}");
}
