//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;

use super::ENVIRONMENT_PREFIX;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key (`server.listen`) or the environment variable (`USHER_SERVER__LISTEN`) at fault;
    /// empty where the file as a whole is, as when it can't be read.
    pub key: String,
    /// The line in the file, from 1; none for a variable.
    pub line: Option<usize>,
    /// What is wrong, without a full stop. Never holds the value of a secret.
    pub problem: String,
    /// What to do about it: one sentence, or a few.
    pub remedy: String,
}

impl Mistake {
    /// Key, problem and remedy without the place.
    fn sentence(&self) -> String {
        let Self {
            key,
            problem,
            remedy,
            ..
        } = self;
        if key.is_empty() {
            format!("{problem}. {remedy}")
        } else {
            format!("{key}: {problem}. {remedy}")
        }
    }

    fn is_about_a_variable(&self) -> bool {
        self.line.is_none() && self.key.starts_with(ENVIRONMENT_PREFIX)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.sentence())
    }
}

/// Everything that is wrong with a configuration, in the order of the file; mistakes in the
/// environment come last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the configuration was read from: a path, as it was given.
    pub source_name: String,
    /// The mistakes: one at least.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    /// One mistake a line, in the form that editors can jump to: `config.toml:12: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let sentence = mistake.sentence();
            match mistake.line {
                Some(line) => write!(f, "{}:{line}: {sentence}", self.source_name)?,
                None if mistake.is_about_a_variable() => f.write_str(&sentence)?,
                None => write!(f, "{}: {sentence}", self.source_name)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The candidate that `name` was most probably meant to be, if any is near enough.
pub(super) fn nearest<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let name = plain(name);
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&name, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: how many letters to insert, drop or change.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(key: &str, line: Option<usize>) -> Mistake {
        Mistake {
            key: key.to_owned(),
            line,
            problem: "\"abc\" is not an address".to_owned(),
            remedy: "Write it as \"127.0.0.1:8060\".".to_owned(),
        }
    }

    #[test]
    fn error_lists_every_mistake_on_a_line_with_its_place() {
        let error = ConfigError {
            source_name: "config.toml".to_owned(),
            mistakes: vec![
                mistake("server.listen", Some(12)),
                mistake("USHER_SERVER__LISTEN", None),
                mistake("", None),
            ],
        };
        let said = "\"abc\" is not an address. Write it as \"127.0.0.1:8060\".";
        assert_eq!(
            error.to_string(),
            format!(
                "config.toml:12: server.listen: {said}\n\
                 USHER_SERVER__LISTEN: {said}\n\
                 config.toml: {said}"
            )
        );
        assert_eq!(
            error.mistakes[0].to_string(),
            format!("line 12: server.listen: {said}")
        );
    }

    #[test]
    fn slip_of_the_finger_finds_the_name_that_was_meant() {
        let names = ["listen", "shutdown_grace", "max_connections"];
        assert_eq!(nearest("lisen", names), Some("listen"));
        assert_eq!(nearest("Shutdown-Grace", names), Some("shutdown_grace"));
        assert_eq!(nearest("max_conections", names), Some("max_connections"));
        assert_eq!(nearest("colour", names), None);
    }
}
