//! Phrases that no text of the project uses: they are hard to read for readers whose second language is English.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

const PHRASES: [&str; 8] = [
    "be it",
    "were it",
    "for want of",
    "anew",
    "at the stroke of",
    "in the same breath",
    "so many",
    "as long again",
];

const PLACES: [&str; 6] = [
    "src",
    "prosody-plugins",
    "packaging",
    "docs",
    "README.md",
    "config.toml",
];

fn files(path: PathBuf, into: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        return into.push(path);
    }
    for entry in fs::read_dir(path).unwrap() {
        files(entry.unwrap().path(), into);
    }
}

/// The text in lower case on one line, without the marks of comments at the beginning of its lines.
fn flattened(text: &str) -> String {
    let mark = Regex::new(r"(?m)^[ \t]*(//[/!]?|#|--)[ \t]*").unwrap();
    let text = mark.replace_all(text, "");
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// Each use of a phrase in `text`, with some of what is around it.
fn uses(text: &str) -> Vec<String> {
    let flat = flattened(text);
    let phrases = Regex::new(&format!(r"(?-u:\b)({})(?-u:\b)", PHRASES.join("|"))).unwrap();
    let context = |start: usize, end: usize| {
        let before = flat[..start].char_indices().rev().nth(30);
        let after = flat[end..].char_indices().nth(30);
        let from = before.map_or(0, |(at, _)| at);
        flat[from..after.map_or(flat.len(), |(at, _)| end + at)].to_owned()
    };
    phrases
        .find_iter(&flat)
        .map(|found| context(found.start(), found.end()))
        .collect()
}

#[test]
fn phrases_are_found_across_lines_and_only_as_words() {
    assert_eq!(uses("/// used for as\n/// long again, no longer").len(), 1);
    assert_eq!(uses("# Be\n# it so. Planew. So man yes.").len(), 1);
    assert!(uses("maybe it, sewer anewed, ten so manyfold").is_empty());
}

#[test]
fn no_text_uses_a_phrase_of_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for place in PLACES {
        files(root.join(place), &mut all);
    }
    assert!(all.len() > 100, "only {} files", all.len());
    let mut found = Vec::new();
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap().display().to_string();
        found.extend(uses(&text).into_iter().map(|it| format!("{name}: …{it}…")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
