//! Finds unknown keys, sections and variables, and suggests the known ones.

use std::collections::{BTreeMap, BTreeSet};

use strsim::levenshtein;
use toml::de::{DeTable, DeValue};

use super::ENVIRONMENT_PREFIX;
use super::error::ConfigIssue;

/// The keys that exist.
#[derive(Default)]
pub(super) struct Known {
    /// By their present names.
    pub(super) keys: BTreeSet<&'static str>,
    /// The earlier name of a key, by its present one.
    pub(super) aliases: BTreeMap<&'static str, &'static str>,
}

/// `server.listen` → `USHER_SERVER__LISTEN`.
pub(super) fn variable_name(key: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        key.to_ascii_uppercase().replace('.', "__")
    )
}

/// The line of a byte, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// The candidate that `name` most probably stands for, if one is near enough.
pub(super) fn nearest<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let name = plain(name);
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (levenshtein(&name, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

impl Known {
    /// Everything in the file and the environment that is not known.
    pub(super) fn unknown(
        &self,
        text: &str,
        root: &DeTable<'_>,
        environment: &BTreeMap<String, String>,
    ) -> Vec<ConfigIssue> {
        let mut issues = Vec::new();
        self.search_table(text, "", root, &mut issues);
        issues.extend(
            environment
                .keys()
                .filter_map(|name| self.search_variable(name)),
        );
        issues
    }

    fn is_known(&self, key: &str) -> bool {
        self.keys.contains(key) || self.aliases.values().any(|alias| *alias == key)
    }

    fn search_table(
        &self,
        text: &str,
        section: &str,
        table: &DeTable<'_>,
        issues: &mut Vec<ConfigIssue>,
    ) {
        for (name, value) in table {
            let key = join(section, name.get_ref());
            if self.is_known(&key) {
                continue;
            }
            let is_section = self.keys.iter().any(|known| is_below(&key, known));
            let (message, hint) = match value.get_ref() {
                DeValue::Table(inner) if is_section => {
                    self.search_table(text, &key, inner, issues);
                    continue;
                }
                other if is_section => (
                    format!("is of type {}, but a section is required", other.type_str()),
                    format!("Write [{key}] on a line of its own and its keys below it."),
                ),
                DeValue::Table(_) => (
                    "is an unknown section".to_owned(),
                    self.suggest(section, name.get_ref()),
                ),
                _ => (
                    "is an unknown key".to_owned(),
                    self.suggest(section, name.get_ref()),
                ),
            };
            issues.push(ConfigIssue {
                key,
                line: Some(line_of(text, name.span().start)),
                message,
                hint,
            });
        }
    }

    fn suggest(&self, section: &str, name: &str) -> String {
        let keys = self.keys.iter();
        let siblings: BTreeSet<&str> = keys.filter_map(|known| below(section, known)).collect();
        if let Some(near) = nearest(name, siblings.iter().copied()) {
            return format!("Did you mean \"{}\"?", join(section, near));
        }
        let mut keys = self.keys.iter();
        if let Some(namesake) = keys.find(|known| known.rsplit('.').next() == Some(name)) {
            return format!("Did you mean \"{namesake}\"? Write each key in its own section.");
        }
        let all: Vec<&str> = siblings.into_iter().collect();
        format!("Remove it. Known here: {}.", all.join(", "))
    }

    fn search_variable(&self, variable: &str) -> Option<ConfigIssue> {
        // A variable without the two underscores may belong to another program.
        let ours = variable.strip_prefix(ENVIRONMENT_PREFIX)?.contains("__");
        let keys = self.keys.iter().chain(self.aliases.values());
        let names: Vec<String> = keys.map(|key| variable_name(key)).collect();
        if !ours || names.iter().any(|name| name == variable) {
            return None;
        }
        let near = nearest(variable, names.iter().map(String::as_str));
        Some(ConfigIssue {
            key: variable.to_owned(),
            line: None,
            message: "is a variable for an unknown key".to_owned(),
            hint: near.map_or_else(
                || "Remove it: no key has that name.".to_owned(),
                |name| format!("Did you mean {name}?"),
            ),
        })
    }
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

/// Whether `known` is a key somewhere below `section`.
fn is_below(section: &str, known: &str) -> bool {
    known
        .strip_prefix(section)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The next part of `known` below `section`: a key of it, or a section in it.
fn below<'k>(section: &str, known: &'k str) -> Option<&'k str> {
    let rest = if section.is_empty() {
        known
    } else {
        known.strip_prefix(section)?.strip_prefix('.')?
    };
    rest.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_name_finds_the_known_one() {
        let names = ["listen", "shutdown_grace", "max_connections"];
        assert_eq!(nearest("lisen", names), Some("listen"));
        assert_eq!(nearest("Shutdown-Grace", names), Some("shutdown_grace"));
        assert_eq!(nearest("max_conections", names), Some("max_connections"));
        assert_eq!(nearest("colour", names), None);
    }
}
