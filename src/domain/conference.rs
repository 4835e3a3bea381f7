//! The conference: room, tenant and domain; every spelling of it, and the one key they share.
//!
//! Jitsi Meet rewrites what a person typed before it becomes a MUC node ([`canonical_room_name`]), and
//! Prosody writes the room of a tenant in two ways: `room@conference.tenant.domain` to clients,
//! `[tenant]room@conference.domain` inside. All of them lead to one [`Conference`] here, and nothing
//! else in the crate takes room names apart.

use crate::text::{escape_for_message, is_unsafe_for_display};
use unicode_normalization::UnicodeNormalization;

/// The longest part of a JID before the `@`, in bytes (RFC 7622, section 3.3).
pub const MAX_NODE_BYTES: usize = 1023;

/// Longer input can't be a spelling of a legal node: escapes and decomposed letters shrink to no
/// less than about a third.
const MAX_INPUT_BYTES: usize = 4 * MAX_NODE_BYTES;

/// How often a name is folded before giving up on its coming to rest. Two rounds are the most any
/// known text takes.
const MAX_FOLDS: usize = 8;

/// A conference: the one key for a room, its tenant and its domain, however they were written.
///
/// The room is Jitsi Meet's canonical name, repeated until it no longer changes. Once is nearly
/// always enough, but lower-casing can leave letters that normalisation would join: "J̌" has no
/// composed capital, so its canonical name `j%cc%8c` has the canonical name `%c7%b0` in turn. Both
/// are `%c7%b0` here, so a booking and a node always meet. For such a name [`Conference::node`]
/// differs from what Prosody sent: answers that must echo a name echo the request, not the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conference {
    room: String,
    tenant: Option<String>,
    domain: String,
}

/// Why a text names no conference of ours. The messages are for the person who wrote the name;
/// they hold no control characters and only the beginning of a long name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConferenceError {
    /// There is no room name, or only blanks where a person wrote it.
    #[error("the room name is empty; give the name that ends the meeting's address")]
    Empty,
    /// The name, encoded and with its tenant, is longer than XMPP allows.
    #[error("the room name is too long: encoded it may take {max} bytes; choose a shorter one")]
    TooLong {
        /// The most bytes a node may have.
        max: usize,
    },
    /// The name holds a control character, plain or percent-encoded.
    #[error("the room name holds the control character U+{:04X}; leave it out", u32::from(*.0))]
    Control(char),
    /// The name holds an apostrophe, which Jitsi Meet leaves as it is and XMPP forbids (RFC 7622,
    /// section 3.3.1): Prosody never has such a room.
    #[error("the room name holds an apostrophe ('), which XMPP does not allow; leave it out")]
    Apostrophe,
    /// The tenant is empty or holds a character that can't be part of a subdomain.
    #[error(
        "\"{0}\" is not a tenant: it is one part of a domain name, without dots, blanks, slashes, brackets or @"
    )]
    BadTenant(String),
    /// The tenant was given twice, differently.
    #[error(
        "the room name says tenant \"{named}\" but the tenant given is \"{given}\"; give one of them only"
    )]
    TenantsDiffer {
        /// The tenant within the room's name.
        named: String,
        /// The tenant beside it.
        given: String,
    },
    /// A well-formed JID that belongs to another deployment, or to another service of this one.
    #[error("\"{jid}\" is not a room of {expected}; use room@{expected}")]
    Foreign {
        /// What was given.
        jid: String,
        /// Where rooms are here: `conference.` and the domain.
        expected: String,
    },
    /// The text isn't the bare JID of a room.
    #[error("\"{0}\" is not the address of a room; write it as room@conference.meet.example.com")]
    NotARoomJid(String),
}

impl Conference {
    /// The conference of a MUC node as Prosody sends it: `room` or `[tenant]room`.
    ///
    /// # Errors
    /// Any [`ConferenceError`] about room names and tenants.
    pub fn from_node(node: &str, domain: &str) -> Result<Self, ConferenceError> {
        let (bracket, room) = split_bracket(node)?;
        Self::assemble(room, bracket.map(canonical_tenant).transpose()?, domain)
    }

    /// The conference a person means: any spelling of the room's name, perhaps with the tenant in
    /// brackets before it, and perhaps a tenant beside it. An empty `tenant` counts as none. Blanks
    /// are part of a name, as in Jitsi Meet, but a name of nothing else is [`ConferenceError::Empty`].
    ///
    /// # Errors
    /// Any [`ConferenceError`] about room names and tenants.
    pub fn from_names(
        room: &str,
        tenant: Option<&str>,
        domain: &str,
    ) -> Result<Self, ConferenceError> {
        let (bracket, room) = split_bracket(room)?;
        if room.trim().is_empty() {
            return Err(ConferenceError::Empty);
        }
        let given = tenant.filter(|tenant| !tenant.is_empty());
        Self::assemble(room, resolve_tenant(bracket, given)?, domain)
    }

    /// The conference of a room's bare JID: `room@conference.domain`,
    /// `room@conference.tenant.domain` or `[tenant]room@conference.domain`, where `muc_prefix` is
    /// `conference`. Case does not matter.
    ///
    /// # Errors
    /// [`ConferenceError::NotARoomJid`] for what isn't a bare JID with a node,
    /// [`ConferenceError::Foreign`] for one outside `domain`, or any error about room names and
    /// tenants.
    pub fn from_jid(jid: &str, muc_prefix: &str, domain: &str) -> Result<Self, ConferenceError> {
        let (node, host) = jid
            .split_once('@')
            .filter(|(node, host)| !node.is_empty() && !host.is_empty())
            .filter(|(node, host)| !node.contains('/') && !host.contains(['@', '/']))
            .ok_or_else(|| ConferenceError::NotARoomJid(escape_for_message(jid)))?;
        if host.len() > MAX_NODE_BYTES {
            return Err(ConferenceError::NotARoomJid(escape_for_message(jid)));
        }
        let (host, domain) = (normalize(host), normalize(domain));
        let muc = normalize(muc_prefix);
        let foreign = || ConferenceError::Foreign {
            jid: escape_for_message(jid),
            expected: format!("{muc}.{domain}"),
        };
        let rest = host
            .strip_prefix(muc.as_str())
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or_else(foreign)?;
        let subdomain = if rest == domain {
            None
        } else {
            let tenant = rest
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'));
            Some(tenant.ok_or_else(foreign)?)
        };
        let (bracket, room) = split_bracket(node)?;
        Self::assemble(room, resolve_tenant(bracket, subdomain)?, &domain)
    }

    fn assemble(room: &str, tenant: Option<String>, domain: &str) -> Result<Self, ConferenceError> {
        let conference = Self {
            room: room_key(room)?,
            tenant,
            domain: normalize(domain),
        };
        if conference.node().len() > MAX_NODE_BYTES {
            return Err(ConferenceError::TooLong {
                max: MAX_NODE_BYTES,
            });
        }
        Ok(conference)
    }

    /// The room's canonical name: lower-case ASCII, percent-encoded.
    pub fn room(&self) -> &str {
        &self.room
    }

    /// The tenant, in lower case, if the conference has one.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The deployment's domain (`xmpp.domain`), in lower case.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The node of the real MUC room: `[tenant]room`, or `room` where there's no tenant.
    pub fn node(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("[{tenant}]{}", self.room),
            None => self.room.clone(),
        }
    }

    /// The room's JID as clients write it: `room@conference.tenant.domain`, or
    /// `room@conference.domain` where there's no tenant.
    pub fn jid(&self, muc_prefix: &str) -> String {
        let Self { room, domain, .. } = self;
        match &self.tenant {
            Some(tenant) => format!("{room}@{muc_prefix}.{tenant}.{domain}"),
            None => format!("{room}@{muc_prefix}.{domain}"),
        }
    }

    /// The room's name for a sentence: `été 2026` for `%c3%a9t%c3%a9%202026`. A name that would upset
    /// the sentence (control characters, a change of writing direction) stays encoded.
    pub fn display_name(&self) -> String {
        decode_uri_component(&self.room)
            .filter(|name| !name.chars().any(is_unsafe_for_display))
            .unwrap_or_else(|| self.room.clone())
    }
}

/// The room name as Jitsi Meet puts it into a JID (its `getBackendSafeRoomName`): percent-decoded,
/// NFKC, lower-case, percent-encoded, lower-case. A name with any malformed escape, or whose escapes
/// aren't UTF-8, isn't decoded at all.
///
/// This is one round, as the web client does it. [`Conference`] compares names after as many rounds as
/// they need to come to rest; see there.
pub fn canonical_room_name(name: &str) -> String {
    encode_uri_component(&normalize_once(&decoded(name)))
}

/// What a list is room_filter to by a room, a tenant, both or none, in any spelling: the canonical room, and
/// the canonical tenant. A room without a tenant is that room of every tenant.
///
/// # Errors
/// Any [`ConferenceError`] about room names and tenants.
pub fn room_filter(
    room: Option<&str>,
    tenant: Option<&str>,
) -> Result<(Option<String>, Option<String>), ConferenceError> {
    let Some(room) = room else {
        let tenant = tenant.filter(|tenant| !tenant.is_empty());
        return Ok((None, tenant.map(canonical_tenant).transpose()?));
    };
    let Conference { room, tenant, .. } = Conference::from_names(room, tenant, "")?;
    Ok((Some(room), tenant))
}

/// What a room's name is compared by, or why it can't be one.
fn room_key(name: &str) -> Result<String, ConferenceError> {
    if name.is_empty() {
        return Err(ConferenceError::Empty);
    }
    if name.len() > MAX_INPUT_BYTES {
        return Err(ConferenceError::TooLong {
            max: MAX_NODE_BYTES,
        });
    }
    let settled = normalize(&decoded(name));
    if let Some(control) = settled.chars().find(|c| c.is_control()) {
        return Err(ConferenceError::Control(control));
    }
    if settled.contains('\'') {
        return Err(ConferenceError::Apostrophe);
    }
    Ok(encode_uri_component(&settled))
}

/// What a tenant is compared by: lower case, and not encoded.
///
/// # Errors
/// [`ConferenceError::BadTenant`] for what can't be one.
pub fn canonical_tenant(tenant: &str) -> Result<String, ConferenceError> {
    let bad = || ConferenceError::BadTenant(escape_for_message(tenant));
    if tenant.len() > MAX_NODE_BYTES {
        return Err(bad());
    }
    let key = normalize(tenant);
    // The blanks, slashes and so on are what no domain name has; quotes and angle brackets also are
    // forbidden in the node that will hold the tenant.
    let illegal = |c: char| c.is_control() || c.is_whitespace() || ".[]/@%\\\"&':<>?#".contains(c);
    if key.is_empty() || key.contains(illegal) {
        return Err(bad());
    }
    Ok(key)
}

fn resolve_tenant(
    named: Option<&str>,
    given: Option<&str>,
) -> Result<Option<String>, ConferenceError> {
    let named = named.map(canonical_tenant).transpose()?;
    let given = given.map(canonical_tenant).transpose()?;
    match (named, given) {
        (Some(named), Some(given)) if named != given => Err(ConferenceError::TenantsDiffer {
            named: escape_for_message(&named),
            given: escape_for_message(&given),
        }),
        (named, given) => Ok(named.or(given)),
    }
}

/// `[tenant]room` apart. A bracket that is never closed is part of the room's name.
fn split_bracket(node: &str) -> Result<(Option<&str>, &str), ConferenceError> {
    let Some((tenant, room)) = node.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return Ok((None, node));
    };
    if room.is_empty() {
        return Err(ConferenceError::Empty);
    }
    Ok((Some(tenant), room))
}

fn normalize_once(text: &str) -> String {
    // As most names are; NFKC leaves it alone.
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkc().collect::<String>().to_lowercase()
}

/// Folded until it no longer changes, and so the same for everything that folds to it.
fn normalize(text: &str) -> String {
    let mut settled = normalize_once(text);
    for _ in 1..MAX_FOLDS {
        let again = normalize_once(&settled);
        if again == settled {
            break;
        }
        settled = again;
    }
    settled
}

fn decoded(name: &str) -> String {
    decode_uri_component(name).unwrap_or_else(|| name.to_owned())
}

/// JavaScript's `decodeURIComponent`; `None` where that throws.
fn decode_uri_component(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (hex_digit(rest.next()?)?, hex_digit(rest.next()?)?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// JavaScript's `encodeURIComponent`, in lower case.
fn encode_uri_component(text: &str) -> String {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            encoded.push(char::from(byte.to_ascii_lowercase()));
        } else {
            encoded.push('%');
            encoded.push(HEX[usize::from(byte >> 4)]);
            encoded.push(HEX[usize::from(byte & 15)]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOMAIN: &str = "meet.example.com";

    /// What Jitsi Meet's rule makes of a name; checked against node's own functions.
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

    fn node(node: &str) -> Conference {
        Conference::from_node(node, DOMAIN).unwrap()
    }

    fn jid(jid: &str) -> Result<Conference, ConferenceError> {
        Conference::from_jid(jid, "conference", DOMAIN)
    }

    #[test]
    fn names_are_rewritten_as_jitsi_meet_does() {
        for (name, canonical) in VECTORS {
            assert_eq!(canonical_room_name(name), *canonical, "{name}");
        }
    }

    #[test]
    fn a_booking_and_the_node_prosody_sends_are_one_conference() {
        let booked = Conference::from_names("Été 2026", None, DOMAIN).unwrap();
        assert_eq!(booked, node("%c3%a9t%c3%a9%202026"));
        assert_eq!(booked.room(), "%c3%a9t%c3%a9%202026");
        assert_eq!(booked.display_name(), "été 2026");
    }

    #[test]
    fn a_name_that_folding_changes_twice_still_meets_its_node() {
        let booked = Conference::from_names("J\u{30c}", None, DOMAIN).unwrap();
        assert_eq!(booked, node("j%cc%8c"));
        assert_eq!(booked, node("%c7%b0"));
    }

    #[test]
    fn every_spelling_of_a_tenants_room_is_one_key() {
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
    fn a_bracket_that_is_never_closed_is_part_of_the_name() {
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
    fn other_addresses_are_not_rooms() {
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
    fn tenants_are_one_part_of_a_domain_name() {
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
    fn two_different_tenants_are_refused() {
        let error = Conference::from_names("[a]room", Some("b"), DOMAIN).unwrap_err();
        assert!(matches!(error, ConferenceError::TenantsDiffer { .. }));
        let error = jid("[a]room@conference.b.meet.example.com").unwrap_err();
        assert!(matches!(error, ConferenceError::TenantsDiffer { .. }));
    }

    #[test]
    fn a_name_must_be_there() {
        assert_eq!(
            Conference::from_node("", DOMAIN),
            Err(ConferenceError::Empty)
        );
        assert_eq!(
            Conference::from_node("[a]", DOMAIN),
            Err(ConferenceError::Empty)
        );
        assert_eq!(
            Conference::from_names(" \t", None, DOMAIN),
            Err(ConferenceError::Empty)
        );
    }

    #[test]
    fn control_characters_are_refused_plain_or_escaped() {
        for name in ["a\nb", "a%00b", "a%0Ab", "a\u{85}b", "%7f"] {
            assert!(
                matches!(
                    Conference::from_names(name, None, DOMAIN),
                    Err(ConferenceError::Control(_))
                ),
                "{name:?}"
            );
        }
        assert_eq!(
            ConferenceError::Control('\0').to_string(),
            "the room name holds the control character U+0000; leave it out"
        );
    }

    #[test]
    fn an_apostrophe_never_reaches_prosody() {
        for name in ["Anna's room", "anna%27s", "anna＇s"] {
            assert_eq!(
                Conference::from_names(name, None, DOMAIN),
                Err(ConferenceError::Apostrophe)
            );
        }
    }

    #[test]
    fn names_end_where_xmpp_ends_them() {
        assert!(Conference::from_node(&"a".repeat(1023), DOMAIN).is_ok());
        let too_long = Err(ConferenceError::TooLong { max: 1023 });
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
    fn a_name_that_turns_the_writing_direction_is_shown_encoded() {
        assert_eq!(node("%e2%80%aeabc").display_name(), "%e2%80%aeabc");
        assert_eq!(node("%2500").display_name(), "%00");
    }

    /// Any characters, with escapes, good and bad, and letters that fold strangely.
    fn names() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            "[ -~]",
            "%[0-9a-fA-F]{2}",
            any::<char>().prop_map(|c| encode_uri_component(&c.to_string())),
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
            let canonical = canonical_room_name(&name);
            prop_assert!(canonical.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.!~*'()%".contains(&b)
            }), "{}", canonical);
        }

        #[test]
        fn what_is_encoded_can_be_decoded(name in names()) {
            let lower = name.to_ascii_lowercase();
            prop_assert_eq!(decode_uri_component(&encode_uri_component(&name)), Some(lower));
        }

        #[test]
        fn the_key_is_at_rest(name in names()) {
            if let Ok(key) = room_key(&name) {
                prop_assert_eq!(&canonical_room_name(&key), &key);
                prop_assert_eq!(room_key(&key), Ok(key));
            }
        }

        #[test]
        fn a_booking_meets_the_node_jitsi_meet_makes_of_it(name in names()) {
            prop_assume!(!name.starts_with('['));
            if let Ok(booked) = Conference::from_names(&name, None, DOMAIN) {
                prop_assert_eq!(Conference::from_node(&canonical_room_name(&name), DOMAIN), Ok(booked));
            }
        }

        #[test]
        fn every_spelling_of_a_conference_leads_back_to_it(
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

    /// Every character that folding changes, alone and before a mark.
    #[test]
    fn folding_comes_to_rest_within_two_rounds() {
        let changed = ('\0'..'\u{20000}')
            .filter(|c| normalize_once(c.encode_utf8(&mut [0; 4])) != c.to_string());
        let mut looked_at = 0;
        for c in changed {
            for mark in [
                "", "\u{301}", "\u{307}", "\u{30c}", "\u{331}", "\u{308}", "\u{30a}", "\u{345}",
            ] {
                let twice = normalize_once(&normalize_once(&format!("{c}{mark}")));
                assert_eq!(normalize_once(&twice), twice, "{c:?}{mark:?}");
                looked_at += 1;
            }
        }
        assert!(looked_at > 8 * 1400, "{looked_at}");
    }
}
