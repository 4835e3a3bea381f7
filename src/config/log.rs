//! `[log]`: log lines on standard error.

use serde::Deserialize;

use super::reader::Reader;
use super::reload::Fixed;

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The format of log lines.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `auto`: text; in systemd's journal with the level of each line and without the time, which the journal
    /// records itself.
    Auto,
    /// `text`: for people.
    Text,
    /// `json`: one object per line, for log collectors.
    Json,
}

/// The level of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `error`: usher cannot do its work.
    Error,
    /// `warn`: an operator should look into it.
    Warn,
    /// `info`: events: starts, stops, decisions.
    Info,
    /// `debug`: the reasons.
    Debug,
    /// `trace`: every step.
    Trace,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            level: LogLevel::Info,
        }
    }
}

impl Log {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let mut it = Self::default();
        read.set::<LogFormat, _>("log.format", &mut it.format);
        read.set::<LogLevel, _>("log.level", &mut it.level);
        it
    }

    pub(super) fn keep_fixed(&self, new: &mut Self, fixed: &mut Fixed) {
        fixed.keep("log.format", &self.format, &mut new.format);
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::rejects;
    use super::*;

    #[test]
    fn value_that_is_no_choice_gets_the_choices_listed() {
        rejects::<LogFormat>(&[
            (
                "'xml'",
                "\"xml\" is not one",
                "\"auto\" or \"text\" or \"json\"",
            ),
            ("5", "type integer, but a string", "quotes"),
        ]);
        rejects::<LogLevel>(&[("'loud'", "\"loud\" is not one", "\"error\" or \"warn\"")]);
    }
}
