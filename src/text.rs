//! Escaping, truncating and percent coding of text.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// How many characters of a foreign text a message repeats.
const MAX_MESSAGE_CHARS: usize = 64;

/// The characters that JavaScript's `encodeURIComponent` escapes.
const URI_COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Escapes and truncates a foreign text for use in a message or a header.
pub(crate) fn escape_for_message(text: &str) -> String {
    let mut escaped = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MAX_MESSAGE_CHARS {
            escaped.push('…');
            break;
        }
        if is_unsafe_for_display(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A text without the byte order mark that some editors write at its beginning.
#[must_use]
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A text for a terminal: characters that could change what it shows are escaped; line breaks stay.
#[must_use]
pub fn escape_for_terminal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_unsafe_for_display(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The same for a JSON text, by JSON's own escapes.
#[must_use]
pub fn escape_json_for_terminal(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unsafe_for_display(c) {
            // All of these characters have four digits.
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a character can break a message: control characters, line and paragraph separators, and the marks
/// that change the writing direction.
pub(crate) fn is_unsafe_for_display(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JavaScript's `decodeURIComponent`; `None` where that throws: an incomplete escape, or bytes that are not
/// UTF-8.
pub(crate) fn percent_decode(text: &[u8]) -> Option<String> {
    let is_escape = |at: usize| {
        let digits = text.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let mut percents = text.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    if !percents.all(|(at, _)| is_escape(at)) {
        return None;
    }
    let decoded = percent_encoding::percent_decode(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// JavaScript's `encodeURIComponent`, in lower case.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = utf8_percent_encode(text, URI_COMPONENT).to_string();
    encoded.make_ascii_lowercase();
    encoded
}

/// Escapes the punctuation that [`percent_encode`] leaves as it is, but Jitsi Meet takes out of an address.
pub(crate) fn encode_punctuation(encoded: &str) -> String {
    const PUNCTUATION: &AsciiSet = &AsciiSet::EMPTY
        .add(b'!')
        .add(b'*')
        .add(b'\'')
        .add(b'(')
        .add(b')');
    utf8_percent_encode(encoded, PUNCTUATION).to_string()
}

/// A text without control characters, of at most `max` bytes: a display name may have any characters, and must not cause
/// a refusal.
pub(crate) fn without_controls(text: &str, max: usize) -> String {
    let mut clean = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if clean.len() + c.len_utf8() > max {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn incomplete_escapes_and_invalid_utf8_are_not_decoded() {
        for text in [
            "%",
            "%4",
            "%zz",
            "%%41",
            "a%c3",
            "%ff",
            "%c3%28",
            "%ed%a0%80",
        ] {
            assert_eq!(percent_decode(text.as_bytes()), None, "{text}");
        }
        assert_eq!(percent_decode(b"a+%c3%A9%2541").as_deref(), Some("a+é%41"));
    }

    #[test]
    fn marks_of_direction_and_control_characters_are_escaped_for_a_terminal() {
        let text = "a\u{202e}b\u{1b}[2Jc\u{2066}\n\u{fc}";
        assert_eq!(
            escape_for_terminal(text),
            "a\\u{202e}b\\u{1b}[2Jc\\u{2066}\n\u{fc}"
        );
        let json = serde_json::to_string(text).unwrap();
        let escaped = escape_json_for_terminal(&json);
        assert!(!escaped.contains('\u{202e}'), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    proptest! {
        #[test]
        fn encoded_text_decodes_to_its_lower_case(text in any::<String>()) {
            let lower = text.to_ascii_lowercase();
            prop_assert_eq!(percent_decode(percent_encode(&text).as_bytes()), Some(lower));
        }
    }
}
