//! Finds keys, sections and variables that nobody asked for, and what they were meant to be.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::ENVIRONMENT_PREFIX;
use super::mistake::{Mistake, nearest};
use super::reader::{line_of, type_of, variable_name};

/// Compares what is there with the keys that are known.
pub(super) fn find(
    text: &str,
    root: &DeTable<'_>,
    environment: &BTreeMap<String, String>,
    known: &BTreeSet<&'static str>,
) -> Vec<Mistake> {
    let mut search = Search {
        text,
        known,
        mistakes: Vec::new(),
    };
    search.table("", root);
    for variable in environment.keys() {
        search.variable(variable);
    }
    search.mistakes
}

struct Search<'s> {
    text: &'s str,
    known: &'s BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

impl Search<'_> {
    fn table(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = join(section, name.get_ref());
            if self.known.contains(key.as_str()) {
                continue;
            }
            let is_section = self.known.iter().any(|known| within(&key, known));
            let (problem, remedy) = match value.get_ref() {
                DeValue::Table(inner) if is_section => {
                    self.table(&key, inner);
                    continue;
                }
                other if is_section => (
                    format!("is {}, but a section is needed", type_of(other)),
                    format!("Write [{key}] on a line of its own and its keys below it."),
                ),
                DeValue::Table(_) => (
                    "is an unknown section".to_owned(),
                    self.remedy(section, name.get_ref()),
                ),
                _ => (
                    "is an unknown key".to_owned(),
                    self.remedy(section, name.get_ref()),
                ),
            };
            self.mistakes.push(Mistake {
                key,
                line: Some(line_of(self.text, name.span().start)),
                problem,
                remedy,
            });
        }
    }

    fn remedy(&self, section: &str, name: &str) -> String {
        let siblings: BTreeSet<&str> = self
            .known
            .iter()
            .filter_map(|known| below(section, known))
            .collect();
        if let Some(near) = nearest(name, siblings.iter().copied()) {
            return format!("Did you mean \"{}\"?", join(section, near));
        }
        let mut known = self.known.iter();
        if let Some(namesake) = known.find(|known| known.rsplit('.').next() == Some(name)) {
            return format!("Did you mean \"{namesake}\"? Each key stands in its own section.");
        }
        let all: Vec<&str> = siblings.into_iter().collect();
        format!("Remove it; what can stand here: {}.", all.join(", "))
    }

    fn variable(&mut self, variable: &str) {
        // Without the two underscores it may be somebody else's.
        let ours = variable
            .strip_prefix(ENVIRONMENT_PREFIX)
            .is_some_and(|rest| rest.contains("__"));
        let names: Vec<String> = self.known.iter().map(|key| variable_name(key)).collect();
        if !ours || names.iter().any(|name| name == variable) {
            return;
        }
        let near = nearest(variable, names.iter().map(String::as_str));
        self.mistakes.push(Mistake {
            key: variable.to_owned(),
            line: None,
            problem: "is a variable for an unknown key".to_owned(),
            remedy: near.map_or_else(
                || "Remove it: no key has that name.".to_owned(),
                |name| format!("Did you mean {name}?"),
            ),
        });
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
fn within(section: &str, known: &str) -> bool {
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
