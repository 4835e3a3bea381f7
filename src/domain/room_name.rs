//! Room names as Jitsi Meet rewrites them (its `getBackendSafeRoomName`) before they become part of a JID:
//! percent-decoded, NFKC, lower-case, percent-encoded, lower-case.

use unicode_normalization::UnicodeNormalization;

use crate::text::{percent_decode, percent_encode};

/// The longest part of a JID before the `@`, in bytes (RFC 7622, section 3.3).
pub const MAX_NODE_BYTES: usize = 1023;

/// Longer input is never a spelling of a legal node: escapes and decomposed letters shrink to no less than
/// about a third.
const MAX_INPUT_BYTES: usize = 4 * MAX_NODE_BYTES;

/// The most rounds of normalization. No known text requires more than two.
const MAX_ROUNDS: usize = 8;

/// What Jitsi Meet takes out of each part of an address before anything else (its `base/util/uri.ts`).
const TAKEN_OUT: &str = ":?#[]@!$&'()*+,;=<>/\"";

/// The beginning of the names of the rooms in which jicofo checks its bridges.
const HEALTH_CHECK: &str = "__jicofo-health-check";

/// Why a text is not a room name. The messages hold nothing of the name but one character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// There is no name, or only blanks where a person wrote it.
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
    /// Jitsi Meet leaves an apostrophe as it is, and XMPP forbids it (RFC 7622, section 3.3.1): Prosody never
    /// has such a room.
    #[error("the room name holds an apostrophe ('), which XMPP does not allow; leave it out")]
    Apostrophe,
    /// Jitsi Meet reads what precedes a slash as the tenant, and ends the name at `?` and `#`.
    #[error(
        "the room name holds {0:?}, where Jitsi Meet ends the room's name in an address; leave it out, and give a tenant as tenant"
    )]
    Separator(char),
    /// Nothing is left of the name.
    #[error(
        "the room name has only punctuation that Jitsi Meet takes out of a room's name; use letters or digits"
    )]
    OnlyPunctuation,
    /// A browser resolves `.` and `..` in an address.
    #[error(
        "the room name is a path of dots, which a browser takes out of an address; choose another name"
    )]
    Dots,
}

impl RoomNameError {
    pub(super) const TOO_LONG: Self = Self::TooLong {
        max: MAX_NODE_BYTES,
    };
}

/// The name that Jitsi Meet asks for if a user types this one as the end of an address: without the punctuation that
/// it takes out. A percent-escape stays, so `R&D` becomes `RD`, and `R%26D` remains.
///
/// # Errors
/// [`RoomNameError::Separator`], [`RoomNameError::OnlyPunctuation`] and [`RoomNameError::Dots`].
pub(super) fn typed(name: &str) -> Result<String, RoomNameError> {
    if let Some(slash) = name.chars().find(|c| matches!(c, '/' | '\\')) {
        return Err(RoomNameError::Separator(slash));
    }
    // At the end of a name they do no harm: "What's next?"
    if let Some((at, c)) = name.char_indices().find(|(_, c)| matches!(c, '?' | '#'))
        && !name[at..].chars().all(is_taken_out)
    {
        return Err(RoomNameError::Separator(c));
    }
    let kept: String = name.chars().filter(|c| !is_taken_out(*c)).collect();
    match kept.as_str() {
        "" if name.is_empty() => Err(RoomNameError::Empty),
        "" => Err(RoomNameError::OnlyPunctuation),
        "." | ".." => Err(RoomNameError::Dots),
        _ => Ok(kept),
    }
}

/// Whether this canonical name is of a room in which jicofo checks its bridges.
pub(super) fn is_health_check(room: &str) -> bool {
    room.starts_with(HEALTH_CHECK)
}

/// Whether Jitsi Meet takes this character out of an address unless it is escaped.
pub(super) fn is_taken_out(c: char) -> bool {
    TAKEN_OUT.contains(c)
}

/// The canonical name: the same for every spelling of a room's name.
///
/// Jitsi Meet applies its rule once, which can leave letters that a second round would join: "J̌" has no
/// composed capital, so its canonical name `j%cc%8c` has the canonical name `%c7%b0` in turn. Here both become
/// `%c7%b0`, so that a booking matches its node.
///
/// A name with a malformed escape, or with escapes that are not UTF-8, is not decoded at all.
///
/// # Errors
/// Any [`RoomNameError`].
pub(super) fn canonicalize(name: &str) -> Result<String, RoomNameError> {
    if name.is_empty() {
        return Err(RoomNameError::Empty);
    }
    if name.len() > MAX_INPUT_BYTES {
        return Err(RoomNameError::TOO_LONG);
    }
    let name = match percent_decode(name.as_bytes()) {
        Some(decoded) => normalize(&decoded),
        None => normalize(name),
    };
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        return Err(RoomNameError::Control(control));
    }
    if name.contains('\'') {
        return Err(RoomNameError::Apostrophe);
    }
    Ok(percent_encode(&name))
}

/// NFKC and lower case, repeated until the text no longer changes.
pub(crate) fn normalize(text: &str) -> String {
    let mut normalized = normalize_once(text);
    for _ in 1..MAX_ROUNDS {
        let again = normalize_once(&normalized);
        if again == normalized {
            break;
        }
        normalized = again;
    }
    normalized
}

/// NFKC; in names of people the case counts.
pub(super) fn nfkc(text: &str) -> String {
    text.nfkc().collect()
}

fn normalize_once(text: &str) -> String {
    // Most names are ASCII, which NFKC leaves alone.
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkc().collect::<String>().to_lowercase()
}

#[cfg(test)]
pub(super) mod tests;
