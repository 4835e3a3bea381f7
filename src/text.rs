//! Escaping and truncating of foreign text.

/// How many characters of a foreign text an error message repeats.
const MAX_SHOWN_CHARS: usize = 64;

/// Foreign text, made safe for a message and for a header: escaped, and truncated when long.
pub(crate) fn escape_for_message(text: &str) -> String {
    let mut escaped = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MAX_SHOWN_CHARS {
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

/// Whether a character can break a message: control characters, line and paragraph separators, and the marks
/// that change the writing direction.
pub(crate) fn is_unsafe_for_display(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
