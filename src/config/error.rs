//! What is wrong with a configuration, where, and what to do.

use std::fmt;

use super::ENVIRONMENT_PREFIX;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigIssue {
    /// The key (`server.listen`) or the environment variable (`USHER_SERVER__LISTEN`) with the mistake;
    /// empty if the issue is about the whole file, as when it cannot be read.
    pub key: String,
    /// The line in the file, from 1; none for a variable.
    pub line: Option<usize>,
    /// What is wrong, without a full stop. Never contains a secret.
    pub message: String,
    /// What to do: one sentence or a few.
    pub hint: String,
}

impl ConfigIssue {
    /// Key, message and hint without the line.
    fn sentence(&self) -> String {
        let Self {
            key, message, hint, ..
        } = self;
        if key.is_empty() {
            format!("{message}. {hint}")
        } else {
            format!("{key}: {message}. {hint}")
        }
    }

    fn is_about_a_variable(&self) -> bool {
        self.line.is_none() && self.key.starts_with(ENVIRONMENT_PREFIX)
    }
}

impl fmt::Display for ConfigIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.sentence())
    }
}

/// All issues of a configuration in the order of the file; those of the environment come last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the configuration was read from: a path as it was given.
    pub source_name: String,
    /// The issues: at least one.
    pub issues: Vec<ConfigIssue>,
}

impl fmt::Display for ConfigError {
    /// One issue per line, in the form that editors recognize: `config.toml:12: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let sentence = issue.sentence();
            match issue.line {
                Some(line) => write!(f, "{}:{line}: {sentence}", self.source_name)?,
                None if issue.is_about_a_variable() => f.write_str(&sentence)?,
                None => write!(f, "{}: {sentence}", self.source_name)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(key: &str, line: Option<usize>) -> ConfigIssue {
        ConfigIssue {
            key: key.to_owned(),
            line,
            message: "\"abc\" is not an address".to_owned(),
            hint: "Write it as \"127.0.0.1:8060\".".to_owned(),
        }
    }

    #[test]
    fn error_lists_every_issue_on_a_line_with_its_place() {
        let error = ConfigError {
            source_name: "config.toml".to_owned(),
            issues: vec![
                issue("server.listen", Some(12)),
                issue("USHER_SERVER__LISTEN", None),
                issue("", None),
            ],
        };
        let sentence = "\"abc\" is not an address. Write it as \"127.0.0.1:8060\".";
        assert_eq!(
            error.to_string(),
            format!(
                "config.toml:12: server.listen: {sentence}\n\
                 USHER_SERVER__LISTEN: {sentence}\n\
                 config.toml: {sentence}"
            )
        );
        assert_eq!(
            error.issues[0].to_string(),
            format!("line 12: server.listen: {sentence}")
        );
    }
}
