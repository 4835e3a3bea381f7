//! nginx's configuration as nginx reads it: statements, what they include, and which location answers.

use std::iter::Peekable;
use std::str::Chars;

use regex::bytes::RegexBuilder;

/// A directive, and what is in its braces.
#[derive(Clone, Debug, Default)]
pub(super) struct Statement {
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Statement>,
}

impl Statement {
    pub(super) fn is(&self, name: &str) -> bool {
        self.words.first().is_some_and(|word| word == name)
    }
}

/// Includes within includes, before they count as going round in circles.
const INCLUDES_MAX: usize = 10;

/// The whole configuration from what `nginx -T` prints, which is one file after the other, each under its name.
pub(super) fn configuration(text: &str) -> Vec<Statement> {
    let mut files: Vec<(&str, String)> = vec![("", String::new())];
    for line in text.lines() {
        let name = line.strip_prefix("# configuration file ");
        match name.and_then(|rest| rest.strip_suffix(':')) {
            Some(name) => files.push((name, String::new())),
            None => {
                if let Some((_, text)) = files.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    // Without names, it is one file.
    if files.len() > 1 {
        files.remove(0);
    }
    let main = files.first().map_or("", |(name, _)| *name);
    let home = main.rsplit_once('/').map_or("", |(home, _)| home);
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, statements(text)))
        .collect();
    let main = files.first().map(|(_, main)| main.clone());
    with_includes(main.unwrap_or_default(), home, &files, INCLUDES_MAX)
}

/// These statements, with those of the files in the place of each `include`.
fn with_includes(
    block: Vec<Statement>,
    home: &str,
    files: &[(&str, Vec<Statement>)],
    left: usize,
) -> Vec<Statement> {
    let mut whole = Vec::with_capacity(block.len());
    for mut statement in block {
        if statement.is("include") && left > 0 {
            let named = statement.words.get(1).map_or("", String::as_str);
            let named = if named.starts_with('/') {
                named.to_owned()
            } else {
                format!("{home}/{named}")
            };
            let pattern = regex::escape(&named)
                .replace(r"\*", "[^/]*")
                .replace(r"\?", "[^/]");
            for (_, included) in files
                .iter()
                .filter(|(name, _)| matches(&format!("^{pattern}$"), false, name))
            {
                whole.extend(with_includes(included.clone(), home, files, left - 1));
            }
        } else {
            statement.block = with_includes(statement.block, home, files, left);
            whole.push(statement);
        }
    }
    whole
}

/// What a file tells nginx, as it reads it. Where the text is broken, which nginx' own would not be, the rest is left out.
fn statements(text: &str) -> Vec<Statement> {
    let mut open = vec![Statement::default()];
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter.is_whitespace() => {}
            '#' => while letters.next_if(|letter| *letter != '\n').is_some() {},
            '{' => open.push(Statement {
                words: std::mem::take(&mut words),
                block: Vec::new(),
            }),
            ';' | '}' => {
                let words = std::mem::take(&mut words);
                let mut done = (!words.is_empty()).then_some(Statement {
                    words,
                    block: Vec::new(),
                });
                if letter == '}' && open.len() > 1 {
                    done = open.pop();
                }
                if let (Some(around), Some(done)) = (open.last_mut(), done) {
                    around.block.push(done);
                }
            }
            _ => words.push(word(letter, &mut letters)),
        }
    }
    open.swap_remove(0).block
}

/// One word that begins with `first`: quoted, or up to a blank or the statement's end.
fn word(first: char, letters: &mut Peekable<Chars<'_>>) -> String {
    let quote = Some(first).filter(|first| matches!(first, '"' | '\''));
    let mut word = String::new();
    if quote.is_none() {
        word.push(first);
    }
    let mut before = first;
    while let Some(letter) = letters.peek().copied() {
        let ends = match quote {
            Some(quote) => letter == quote,
            None => {
                letter.is_whitespace()
                    || matches!(letter, ';' | '{' | '}') && !(letter == '{' && before == '$')
            }
        };
        if ends && before != '\\' {
            break;
        }
        letters.next();
        word.push(letter);
        before = letter;
        // The end of a variable's name, and of nothing else.
        if quote.is_none() && letter == '{' {
            while let Some(letter) = letters.next_if(|letter| *letter != '}') {
                word.push(letter);
            }
            word.extend(letters.next());
        }
    }
    if quote.is_some() {
        letters.next();
    }
    word
}

/// The servers that are named after the domain, else those that take whatever comes.
pub(super) fn servers_of<'s>(domain: &str, everything: &'s [Statement]) -> Vec<&'s Statement> {
    let all: Vec<&Statement> = everything
        .iter()
        .flat_map(|it| std::iter::once(it).chain(&it.block))
        .filter(|it| it.is("server") && it.words.len() == 1)
        .collect();
    let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<&Statement> {
        let named = |server: &&&Statement| {
            let mut names = server.block.iter().filter(|it| it.is("server_name"));
            names.any(|it| it.words.iter().skip(1).any(|name| wanted(name)))
        };
        all.iter().filter(named).copied().collect()
    };
    let by_name = of(&|name| {
        let parent = name.strip_prefix("*.").or(name.strip_prefix('.'));
        name == domain
            || name.strip_prefix('.') == Some(domain)
            || parent.is_some_and(|parent| domain.ends_with(&format!(".{parent}")))
    });
    if by_name.is_empty() {
        of(&|name| name == "_")
    } else {
        by_name
    }
}

/// The location that answers for a path, as nginx chooses: the exact one; else the longest beginning, if it is a
/// `^~`; else the first pattern; else that beginning.
pub(super) fn location<'s>(server: &'s Statement, path: &str) -> Option<&'s Statement> {
    let locations = server.block.iter().filter(|it| it.is("location"));
    let mut longest: Option<(&Statement, usize, bool)> = None;
    let mut pattern = None;
    for location in locations {
        let told = location.words.get(1..).unwrap_or_default().concat();
        let with = |sign| told.strip_prefix(sign);
        if let Some(exact) = with("=") {
            if exact == path {
                return Some(location);
            }
        } else if let Some(told) = with("~") {
            let (told, any_case) = told
                .strip_prefix('*')
                .map_or((told, false), |told| (told, true));
            pattern = pattern.or(matches(told, any_case, path).then_some(location));
        } else {
            let (beginning, for_good) =
                with("^~").map_or((told.as_str(), false), |told| (told, true));
            if path.starts_with(beginning)
                && longest.is_none_or(|(_, length, _)| length < beginning.len())
            {
                longest = Some((location, beginning.len(), for_good));
            }
        }
    }
    match longest {
        Some((location, _, true)) => Some(location),
        _ => pattern.or(longest.map(|(location, ..)| location)),
    }
}

/// A pattern that can't be read here, for it is in another dialect, is taken to match none.
fn matches(pattern: &str, any_case: bool, path: &str) -> bool {
    let pattern = RegexBuilder::new(pattern)
        .unicode(false)
        .case_insensitive(any_case)
        .build();
    pattern.is_ok_and(|pattern| pattern.is_match(path.as_bytes()))
}

/// What follows a directive's name in a block.
pub(super) fn directive<'t>(block: &'t [Statement], name: &str) -> Option<&'t str> {
    let statement = block.iter().find(|it| it.is(name))?;
    statement.words.get(1).map(String::as_str)
}
