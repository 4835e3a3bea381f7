//! Lua patterns, as Prosody matches the claim `room` of a token with `context.room.regex`: not regular expressions
//! (Lua 5.4 reference manual, 6.4.1).
//!
//! Jitsi lower-cases the pattern, matches it anywhere in the room's name, and compares the first capture, or without
//! one the whole match, with the name.

/// The longest pattern that Jitsi accepts, in characters.
const PATTERN_MAX: usize = 128;
/// How many quantifiers it may have.
const QUANTIFIERS_MAX: usize = 3;
/// How many captures Lua allows.
const CAPTURES_MAX: usize = 32;
/// How many steps one match may take: some milliseconds. Real patterns for room names take some hundred.
const STEPS_MAX: u32 = 200_000;

/// A pattern for the names of rooms.
#[derive(Clone, Debug)]
pub(super) struct RoomPattern(Box<[u8]>);

/// A pattern that Lua would report as malformed, or one that takes too many steps: nothing matches.
#[derive(Debug)]
struct NoMatch;

type Result<T> = std::result::Result<T, NoMatch>;

#[derive(Clone, Copy, Debug)]
enum Capture {
    Open { start: usize },
    Closed { start: usize, end: usize },
    Position { start: usize },
}

struct Matcher<'a> {
    pattern: &'a [u8],
    name: &'a [u8],
    captures: Vec<Capture>,
    steps: u32,
}

impl RoomPattern {
    /// The pattern of a token; `None` if it is beyond the bounds.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let is_bounded = pattern.chars().count() <= PATTERN_MAX
            && quantifiers(pattern.as_bytes()) <= QUANTIFIERS_MAX;
        is_bounded.then(|| Self(pattern.to_ascii_lowercase().into_bytes().into()))
    }

    /// Whether the pattern is for the room with this canonical name.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let (is_anchored, pattern) = match self.0.split_first() {
            Some((b'^', rest)) => (true, rest),
            _ => (false, &*self.0),
        };
        let mut matcher = Matcher {
            pattern,
            name,
            captures: Vec::new(),
            steps: STEPS_MAX,
        };
        for start in 0..=name.len() {
            matcher.captures.clear();
            match matcher.match_at(start, 0) {
                Ok(Some(end)) => return matcher.captured(start, end).is_some_and(|it| it == name),
                Ok(None) if !is_anchored => {}
                Ok(None) | Err(NoMatch) => return false,
            }
        }
        false
    }
}

/// The number of items that are followed by `*`, `+`, `-` or `?`.
fn quantifiers(pattern: &[u8]) -> usize {
    let mut at = usize::from(pattern.first() == Some(&b'^'));
    let mut found = 0;
    while at < pattern.len() {
        if matches!(pattern[at], b'(' | b')') {
            at += 1;
            continue;
        }
        // What is malformed is refused when it is matched.
        at = item_end(pattern, at).unwrap_or(pattern.len());
        if matches!(pattern.get(at), Some(b'*' | b'+' | b'-' | b'?')) {
            found += 1;
            at += 1;
        }
    }
    found
}

/// Where the single-character item that begins at `at` ends.
fn item_end(pattern: &[u8], at: usize) -> Result<usize> {
    match pattern.get(at).ok_or(NoMatch)? {
        b'%' => match pattern.get(at + 1) {
            Some(_) => Ok(at + 2),
            None => Err(NoMatch),
        },
        b'[' => {
            let mut at = at + 1 + usize::from(pattern.get(at + 1) == Some(&b'^'));
            // A bracket right after the beginning is a member of the set.
            loop {
                let byte = *pattern.get(at).ok_or(NoMatch)?;
                at += 1;
                if byte == b'%' {
                    // An escape, whatever follows.
                    at += 1;
                }
                if pattern.get(at).ok_or(NoMatch)? == &b']' {
                    return Ok(at + 1);
                }
            }
        }
        _ => Ok(at + 1),
    }
}

/// Whether a byte belongs to the class `%x`.
fn is_in_class(byte: u8, class: u8) -> bool {
    let is_in = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'g' => byte.is_ascii_graphic(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 0x0b,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_in != class.is_ascii_uppercase()
}

/// Whether a byte belongs to a set, given with its brackets.
fn is_in_set(byte: u8, set: &[u8]) -> bool {
    let members = &set[1..set.len() - 1];
    let (is_negated, members) = match members.split_first() {
        Some((b'^', rest)) => (true, rest),
        _ => (false, members),
    };
    let mut at = 0;
    while at < members.len() {
        let member = members[at];
        if member == b'%' && at + 1 < members.len() {
            if is_in_class(byte, members[at + 1]) {
                return !is_negated;
            }
            at += 2;
        } else if members.get(at + 1) == Some(&b'-') && at + 2 < members.len() {
            if (member..=members[at + 2]).contains(&byte) {
                return !is_negated;
            }
            at += 3;
        } else {
            if member == byte {
                return !is_negated;
            }
            at += 1;
        }
    }
    is_negated
}

impl Matcher<'_> {
    /// Matches the pattern from `at` on with the name from `start` on; returns where the match ends.
    fn match_at(&mut self, mut start: usize, mut at: usize) -> Result<Option<usize>> {
        loop {
            self.steps = self.steps.checked_sub(1).ok_or(NoMatch)?;
            let Some(&byte) = self.pattern.get(at) else {
                return Ok(Some(start));
            };
            match (byte, self.pattern.get(at + 1)) {
                (b'(', Some(b')')) => {
                    return self.open(Capture::Position { start }, start, at + 2);
                }
                (b'(', _) => return self.open(Capture::Open { start }, start, at + 1),
                (b')', _) => return self.close(start, at + 1),
                (b'$', None) => return Ok((start == self.name.len()).then_some(start)),
                (b'%', Some(b'b')) => match self.balanced(start, at + 2)? {
                    Some(end) => (start, at) = (end, at + 4),
                    None => return Ok(None),
                },
                (b'%', Some(b'f')) => {
                    if self.pattern.get(at + 2) != Some(&b'[') {
                        return Err(NoMatch);
                    }
                    let end = item_end(self.pattern, at + 2)?;
                    if !self.is_frontier(start, &self.pattern[at + 2..end]) {
                        return Ok(None);
                    }
                    at = end;
                }
                (b'%', Some(digit)) if digit.is_ascii_digit() => {
                    match self.back_reference(start, *digit)? {
                        Some(end) => (start, at) = (end, at + 2),
                        None => return Ok(None),
                    }
                }
                _ => {
                    let end = item_end(self.pattern, at)?;
                    match self.pattern.get(end) {
                        Some(b'?') => {
                            if self.is_single(start, at, end)
                                && let Some(found) = self.match_at(start + 1, end + 1)?
                            {
                                return Ok(Some(found));
                            }
                            at = end + 1;
                        }
                        Some(b'+') => {
                            return match self.is_single(start, at, end) {
                                true => self.longest(start + 1, at, end),
                                false => Ok(None),
                            };
                        }
                        Some(b'*') => return self.longest(start, at, end),
                        Some(b'-') => return self.shortest(start, at, end),
                        _ if self.is_single(start, at, end) => (start, at) = (start + 1, end),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    /// Whether the item `at..end` matches the byte at `start`.
    fn is_single(&self, start: usize, at: usize, end: usize) -> bool {
        let Some(&byte) = self.name.get(start) else {
            return false;
        };
        match self.pattern[at] {
            b'.' => true,
            b'%' => is_in_class(byte, self.pattern[at + 1]),
            b'[' => is_in_set(byte, &self.pattern[at..end]),
            literal => literal == byte,
        }
    }

    /// `*` and `+`: as many as possible first.
    fn longest(&mut self, start: usize, at: usize, end: usize) -> Result<Option<usize>> {
        let mut count = 0;
        while self.is_single(start + count, at, end) {
            count += 1;
        }
        for taken in (0..=count).rev() {
            if let Some(found) = self.match_at(start + taken, end + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// `-`: as few as possible first.
    fn shortest(&mut self, mut start: usize, at: usize, end: usize) -> Result<Option<usize>> {
        loop {
            if let Some(found) = self.match_at(start, end + 1)? {
                return Ok(Some(found));
            }
            if !self.is_single(start, at, end) {
                return Ok(None);
            }
            start += 1;
        }
    }

    fn open(&mut self, capture: Capture, start: usize, at: usize) -> Result<Option<usize>> {
        if self.captures.len() == CAPTURES_MAX {
            return Err(NoMatch);
        }
        let depth = self.captures.len();
        self.captures.push(capture);
        let found = self.match_at(start, at)?;
        if found.is_none() {
            self.captures.truncate(depth);
        }
        Ok(found)
    }

    fn close(&mut self, end: usize, at: usize) -> Result<Option<usize>> {
        let is_open = |capture: &Capture| matches!(capture, Capture::Open { .. });
        let index = self.captures.iter().rposition(is_open).ok_or(NoMatch)?;
        let open = self.captures[index];
        if let Capture::Open { start } = open {
            self.captures[index] = Capture::Closed { start, end };
        }
        let found = self.match_at(end, at)?;
        if found.is_none() {
            self.captures[index] = open;
        }
        Ok(found)
    }

    /// `%bxy`: from an x to the y that balances it.
    fn balanced(&self, start: usize, at: usize) -> Result<Option<usize>> {
        let (Some(&open), Some(&close)) = (self.pattern.get(at), self.pattern.get(at + 1)) else {
            return Err(NoMatch);
        };
        if self.name.get(start) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1;
        for (at, &byte) in self.name.iter().enumerate().skip(start + 1) {
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at + 1));
                }
            } else if byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: the byte before is not in the set, and this one is. The ends of the name count as `\0`.
    fn is_frontier(&self, start: usize, set: &[u8]) -> bool {
        let byte = |at: Option<usize>| at.and_then(|at| self.name.get(at)).copied().unwrap_or(0);
        !is_in_set(byte(start.checked_sub(1)), set) && is_in_set(byte(Some(start)), set)
    }

    /// `%1` to `%9`: what an earlier capture matched.
    fn back_reference(&self, start: usize, digit: u8) -> Result<Option<usize>> {
        let index = digit.checked_sub(b'1').ok_or(NoMatch)?;
        match self.captures.get(usize::from(index)) {
            Some(&Capture::Closed { start: from, end }) => {
                let captured = &self.name[from..end];
                let found = self.name[start..].starts_with(captured);
                Ok(found.then(|| start + captured.len()))
            }
            // Lua compares a position as a text of an impossible length.
            Some(Capture::Position { .. }) => Ok(None),
            Some(Capture::Open { .. }) | None => Err(NoMatch),
        }
    }

    /// What `string.match` returns first: the first capture, or the whole match.
    fn captured(&self, start: usize, end: usize) -> Option<Vec<u8>> {
        match self.captures.first() {
            None => Some(self.name[start..end].to_vec()),
            Some(&Capture::Closed { start, end }) => Some(self.name[start..end].to_vec()),
            Some(&Capture::Position { start }) => Some((start + 1).to_string().into_bytes()),
            Some(Capture::Open { .. }) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;

    /// Matches each line's pattern and name, both in hexadecimal, as Jitsi does.
    const LUA: &str = r#"
        local function text(hex)
            return (hex:gsub("..", function (byte) return string.char(tonumber(byte, 16)); end));
        end
        for line in io.lines() do
            local pattern, name = line:match("^x(%x*) x(%x*)$");
            pattern, name = text(pattern):lower(), text(name);
            local ok, found = pcall(string.match, name, pattern);
            print(ok and found and string.lower(found) == name and "1" or "0");
        end
    "#;

    fn matches(pattern: &str, name: &str) -> bool {
        RoomPattern::new(pattern).is_some_and(|it| it.matches(name))
    }

    #[test]
    fn a_pattern_matches_as_in_lua() {
        for (pattern, name, expected) in [
            ("^meeting%-%d+$", "meeting-17", true),
            ("^meeting%-%d+$", "meeting-x", false),
            ("meeting%-%d+", "meeting-17", true),
            ("meeting%-%d", "meeting-17", false),
            ("^MEETING%-%d+$", "meeting-17", true),
            (".*", "%c3%a9", true),
            ("^(team%-.-)$", "team-red", true),
            // The capture is compared, not the match.
            ("^team%-(.*)$", "team-red", false),
            ("()", "1", true),
            ("%f[%w]%w+", "room", true),
            ("(.)%1", "aa", false),
            ("((.)%2)", "aa", true),
            ("%b()", "(a(b))", true),
            ("[]]", "]", true),
            ("[^]]", "]", false),
            ("[a-c]+", "abc", true),
            ("[%a-]+", "a-b", true),
            ("a|b", "a", false),
            ("\\d+", "17", false),
            ("", "room", false),
            ("(", "(", false),
            ("[", "[", false),
            ("%", "%", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_beyond_the_bounds_matches_nothing() {
        assert!(matches(&"a".repeat(128), &"a".repeat(128)));
        assert!(!matches(&"a".repeat(129), &"a".repeat(129)));
        assert!(matches("a*b*c*", "abc"));
        assert!(!matches("a*b*c*d*", "abcd"));
        // Escaped, in a set, or without an item before it, none is a quantifier.
        assert!(matches("%*%+%-%?", "*+-?"));
        assert!(matches("[*+?-]+", "*+-?"));
    }

    #[test]
    fn a_pattern_that_takes_too_long_matches_nothing() {
        let name = "a".repeat(1023);
        assert!(!matches(".-.-.-b", &name));
        assert!(matches(".*", &name));
    }

    #[test]
    fn patterns_match_as_the_real_lua_does() {
        let pattern = proptest::string::string_regex(
            r"\^?([a-c.]|%[adsuwxp]|%[ADW]|\[\^?[a-c%\]d0-9-]{1,4}\]|[()*+?%\[\]-]|[*+?-]|%b[a-c]c|%f\[[ab%w]{1,3}\]|%1|\(\)|\([abc.]\)|1){0,8}\$?",
        );
        let name = proptest::string::string_regex(r"[abc]{0,6}|[-abc12.%]{0,5}|1");
        let pairs = (pattern.unwrap(), name.unwrap());
        let mut runner = TestRunner::deterministic();
        let hex = |text: &str| {
            text.bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let pairs: Vec<_> = (0..20_000)
            .map(|_| pairs.new_tree(&mut runner).unwrap().current())
            .filter(|(pattern, _)| quantifiers(pattern.as_bytes()) <= QUANTIFIERS_MAX)
            .collect();
        let child = Command::new("lua5.4")
            .args(["-e", LUA])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        // Without Lua, the table above is the test.
        let Ok(mut child) = child else { return };
        let mut input = child.stdin.take().unwrap();
        let lines: String = pairs
            .iter()
            .map(|(pattern, name)| format!("x{} x{}\n", hex(pattern), hex(name)))
            .collect();
        let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        let results = String::from_utf8(output.stdout).unwrap();
        let results: Vec<_> = results.lines().collect();
        assert_eq!(results.len(), pairs.len());
        let mut matched = 0;
        for ((pattern, name), result) in pairs.iter().zip(results) {
            matched += usize::from(result == "1");
            assert_eq!(
                matches(pattern, name),
                result == "1",
                "{pattern:?} {name:?}"
            );
        }
        assert!(matched > 300, "only {matched} pairs match");
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in any::<String>(), name in "[ -~]{0,20}") {
            let _ = matches(&pattern, &name);
        }
    }
}
