//! Whole configurations. What a single value may be is tested beside its type.

use std::collections::BTreeSet;
use std::fs;

use tempfile::TempDir;

use super::*;

mod files;
mod issues;
mod values;

/// The annotated file at the root of the project.
const ANNOTATED: &str = include_str!("../../../config.toml");
/// The reference page.
const REFERENCE: &str = include_str!("../../../docs/configuration.md");
const LONG: &str = "0123456789abcdef0123456789abcdef";

fn parse_in(dir: &Path, text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = env
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    Config::parse(text, "config.toml", dir, env)
}

fn good(text: &str) -> Config {
    good_env(text, &[])
}

fn good_env(text: &str, env: &[(&str, &str)]) -> Config {
    parse_in(Path::new(""), text, env).unwrap()
}

fn bad_env(text: &str, env: &[(&str, &str)]) -> Vec<ConfigIssue> {
    let error = parse_in(Path::new(""), text, env).unwrap_err();
    assert_eq!(error.source_name, "config.toml");
    error.issues
}

fn bad(text: &str) -> Vec<ConfigIssue> {
    bad_env(text, &[])
}

#[track_caller]
fn only(issues: Vec<ConfigIssue>) -> ConfigIssue {
    assert_eq!(issues.len(), 1, "{issues:#?}");
    issues.into_iter().next().unwrap()
}

#[track_caller]
fn contains(issue: &ConfigIssue, key: &str, line: Option<usize>, message: &str, hint: &str) {
    assert_eq!(issue.key, key);
    assert_eq!(issue.line, line, "{issue}");
    assert!(issue.message.contains(message), "{issue}");
    assert!(issue.hint.contains(hint), "{issue}");
}

/// Each line is a `key = value | words of the message | words of the hint`; the value is the only mistake.
#[track_caller]
fn each_is_refused(dir: &Path, table: &str) {
    for row in table.lines().filter(|row| !row.is_empty()) {
        let cells: Vec<_> = row.split(" | ").collect();
        let (key, _) = cells[0].split_once(" = ").unwrap();
        let text = format!("\n{}", cells[0]);
        let issue = only(parse_in(dir, &text, &[]).unwrap_err().issues);
        contains(&issue, key, Some(2), cells[1], cells[2]);
    }
}

fn schema() -> unknown::Known {
    let environment = BTreeMap::new();
    let mut read = Reader::new("", &environment, Path::new("")).unwrap();
    Config::read(&mut read);
    read.known()
}

fn debug(config: &Config) -> String {
    format!("{config:#?}")
}

fn write(dir: &TempDir, name: &str, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn annotated_file_as_shipped_is_the_defaults() {
    assert_eq!(debug(&good(ANNOTATED)), debug(&Config::default()));
    assert_eq!(debug(&good("")), debug(&Config::default()));
}

#[test]
fn defaults_in_the_annotated_file_are_the_built_in_ones() {
    let mut shown = 0;
    let mut all = String::new();
    for line in ANNOTATED.lines() {
        let default = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        shown += usize::from(default.is_some());
        all.push_str(default.unwrap_or(line));
        all.push('\n');
    }
    // Ten keys have no default.
    assert_eq!(shown, schema().keys.len() - 10);
    // The URL of a reservation system has none, so the defaults of its section need one.
    let url = "[reservations.upstream]\nurl = \"http://[::1]:9\"\n";
    let with_url = all.replace("[reservations.upstream]\n", url);
    assert_eq!(debug(&good(&with_url)), debug(&good(url)));
    assert_eq!(debug(&good(&all)), debug(&Config::default()));
}

#[test]
fn changed_default_in_the_annotated_file_is_noticed() {
    let changed = ANNOTATED.replace("#leeway = \"10s\"", "leeway = \"11s\"");
    assert_ne!(debug(&good(&changed)), debug(&Config::default()));
}

#[test]
fn annotated_file_and_schema_have_the_same_keys() {
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in ANNOTATED.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
        }
        let line = line.trim_start_matches('#').trim_start();
        if let Some((name, _)) = line.split_once(" = ")
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            let key = format!("{section}.{name}");
            assert!(keys.insert(key.clone()), "{key} twice");
        }
    }
    let schema = schema();
    assert!(schema.keys.len() > 30);
    assert!(keys.iter().eq(schema.keys.iter()), "{keys:?}");
    for (key, earlier) in &schema.aliases {
        let (_, earlier) = earlier.rsplit_once('.').unwrap();
        for page in [ANNOTATED, REFERENCE] {
            assert!(
                page.contains(earlier),
                "the earlier name of {key} is not mentioned"
            );
        }
    }
}

#[test]
fn reference_page_has_the_keys_and_reports_which_of_them_a_reload_applies() {
    let mut fixed = Fixed::default();
    Config::default().keep_fixed(&mut Config::default(), &mut fixed);
    let is_fixed = |key: &str| {
        let key = key.trim_end_matches("_file");
        let mut fixed = fixed.keys.iter();
        fixed.any(|it| {
            key.strip_prefix(it)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix("## [") {
            section = name.trim_end_matches(']');
        }
        let cells: Vec<_> = line.split(" | ").collect();
        if let Some(name) = cells[0].strip_prefix("| `") {
            let key = format!("{section}.{}", name.trim_end_matches('`'));
            let reload = if is_fixed(&key) { "no" } else { "yes" };
            assert_eq!(cells[2], reload, "{key}");
            keys.insert(key);
        }
    }
    assert!(keys.iter().eq(schema().keys.iter()), "{keys:?}");
}
