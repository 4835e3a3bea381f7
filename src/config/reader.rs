//! Takes typed, named values out of TOML and the environment, and collects what is wrong with
//! them. What the values mean is none of its business: that is `sections`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::ENVIRONMENT_PREFIX;
use super::duration::{self, BadDuration};
use super::files;
use super::mistake::Mistake;
use super::strangers;

/// Where a value stands: its key and line, or its variable and no line.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: String,
    pub(super) line: Option<usize>,
}

impl Place {
    /// Values of the file always have a line.
    pub(super) fn in_environment(&self) -> bool {
        self.line.is_none()
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// How the text of a variable is to be understood: the file's values bring their type along.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    List,
    Table,
}

/// One configuration being read. Every getter returns a usable value (the default, after a
/// mistake), so that reading goes on and all mistakes are found in one go.
pub(super) struct Reader<'t> {
    text: &'t str,
    root: DeTable<'t>,
    environment: &'t BTreeMap<String, String>,
    base_dir: PathBuf,
    known: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
    remarks: Vec<String>,
}

impl<'t> Reader<'t> {
    /// A text that isn't TOML is not read any further: guesses at what its author meant would
    /// only add mistakes that are none.
    pub(super) fn new(
        text: &'t str,
        environment: &'t BTreeMap<String, String>,
        base_dir: &Path,
    ) -> Result<Self, Vec<Mistake>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(syntax_mistakes(text, &errors));
        }
        Ok(Self {
            root: root.into_inner(),
            ..Self::empty(text, environment, base_dir)
        })
    }

    pub(super) fn empty(
        text: &'t str,
        environment: &'t BTreeMap<String, String>,
        base_dir: &Path,
    ) -> Self {
        Self {
            text,
            root: DeTable::new(),
            environment,
            base_dir: base_dir.to_owned(),
            known: BTreeSet::new(),
            mistakes: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Notes a mistake at a place.
    pub(super) fn mistake(
        &mut self,
        place: &Place,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.mistakes.push(Mistake {
            key: place.key.clone(),
            line: place.line,
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    /// Whether anything is wrong with a key so far, or with an entry of its table.
    pub(super) fn has_mistakes_at(&self, key: &str) -> bool {
        let variable = variable_name(key);
        self.mistakes.iter().any(|mistake| {
            let named = mistake.key.as_str();
            let rest = named.strip_prefix(key).or(named.strip_prefix(&variable));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// Where a key is set, if it is.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        let variable = variable_name(key);
        if self.environment.contains_key(&variable) {
            return Some(Place {
                key: variable,
                line: None,
            });
        }
        self.lookup(key).map(|value| Place {
            key: key.to_owned(),
            line: Some(line_of(self.text, value.span().start)),
        })
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<Found<String>> {
        let Found { value, place } = self.find(key, Kind::Text)?;
        match value {
            DeValue::String(text) => Some(Found {
                value: text.into_owned(),
                place,
            }),
            other => {
                self.wrong_type(&place, &other, "a string", "Write it in quotes.");
                None
            }
        }
    }

    /// A text that may not be empty.
    pub(super) fn filled_text(&mut self, key: &'static str) -> Option<Found<String>> {
        let found = self.text(key)?;
        if found.value.trim().is_empty() {
            self.mistake(&found.place, "is empty", "Give it a value, or remove it.");
            return None;
        }
        Some(found)
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(Found { value, place }) = self.find(key, Kind::Flag) else {
            return default;
        };
        if let DeValue::Boolean(flag) = value {
            return flag;
        }
        let remedy = "Write true or false, without quotes.";
        self.wrong_type(&place, &value, "true or false", remedy);
        default
    }

    pub(super) fn number<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let Some(Found { value, place }) = self.find(key, Kind::Number) else {
            return default;
        };
        let DeValue::Integer(integer) = &value else {
            let remedy = "Write it in digits, without quotes.";
            self.wrong_type(&place, &value, "a whole number", remedy);
            return default;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number));
        number.unwrap_or_else(|| {
            self.mistake(
                &place,
                format!("{integer} is out of range"),
                format!("Choose from {} to {}.", range.start(), range.end()),
            );
            default
        })
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(Found { value, place }) = self.find(key, Kind::Text) else {
            return default;
        };
        let text = match &value {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(integer) => {
                self.no_unit(&place, &integer.to_string());
                return default;
            }
            other => {
                let remedy = format!("Write it as \"{}\".", duration::write(default));
                self.wrong_type(&place, other, "a duration", &remedy);
                return default;
            }
        };
        match duration::parse(text) {
            Ok(duration) if range.contains(&duration) => return duration,
            Ok(_) => {
                let (low, high) = (
                    duration::write(*range.start()),
                    duration::write(*range.end()),
                );
                self.mistake(
                    &place,
                    format!("{text:?} is out of range"),
                    format!("Choose from \"{low}\" to \"{high}\"."),
                );
            }
            Err(BadDuration::NoUnit) => self.no_unit(&place, text),
            Err(BadDuration::Unreadable) => self.mistake(
                &place,
                format!("{text:?} is not a duration"),
                format!(
                    "Write whole numbers with the units ms, s, m, h or d: \"{}\" or \"1h30m\".",
                    duration::write(default)
                ),
            ),
        }
        default
    }

    fn no_unit(&mut self, place: &Place, number: &str) {
        self.mistake(
            place,
            format!("{number} has no unit"),
            format!("Write a unit: \"{number}s\"."),
        );
    }

    /// One of a few named values.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        choices: &[(&'static str, T)],
    ) -> T {
        let Some(Found { value, place }) = self.text(key) else {
            return default;
        };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value) {
            return *choice;
        }
        let names: Vec<String> = choices.iter().map(|(n, _)| format!("{n:?}")).collect();
        self.mistake(
            &place,
            format!("{value:?} is not one of the choices"),
            format!("Write {}.", names.join(" or ")),
        );
        default
    }

    /// A list of texts, each with its own place.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Found<Vec<Found<String>>>> {
        let Found { value, place } = self.list(key)?;
        let mut texts = Vec::new();
        for Found { value, place } in value {
            match value {
                DeValue::String(text) => texts.push(Found {
                    value: text.into_owned(),
                    place,
                }),
                other => {
                    let wanted = "a string";
                    self.wrong_type(&place, &other, wanted, "Write each entry in quotes.");
                }
            }
        }
        Some(Found {
            value: texts,
            place,
        })
    }

    fn list(&mut self, key: &'static str) -> Option<Found<Vec<Found<DeValue<'t>>>>> {
        let Found { value, place } = self.find(key, Kind::List)?;
        let DeValue::Array(array) = value else {
            let remedy = "Write a list: [\"a\", \"b\"].";
            self.wrong_type(&place, &value, "a list", remedy);
            return None;
        };
        Some(self.entries(array, place))
    }

    /// A list of anything; what is no list counts as its only entry.
    pub(super) fn list_or_one(
        &mut self,
        key: &'static str,
    ) -> Option<Found<Vec<Found<DeValue<'t>>>>> {
        let Found { value, place } = self.find(key, Kind::List)?;
        if let DeValue::Array(array) = value {
            return Some(self.entries(array, place));
        }
        let only = Found {
            value,
            place: place.clone(),
        };
        Some(Found {
            value: vec![only],
            place,
        })
    }

    fn entries(&self, array: DeArray<'t>, place: Place) -> Found<Vec<Found<DeValue<'t>>>> {
        let entries = array.into_iter().map(|entry| Found {
            place: Place {
                key: place.key.clone(),
                line: place.line.map(|_| line_of(self.text, entry.span().start)),
            },
            value: entry.into_inner(),
        });
        Found {
            value: entries.collect(),
            place,
        }
    }

    /// A table of texts, whose names are free to choose.
    pub(super) fn table(&mut self, key: &'static str) -> Vec<(String, Found<String>)> {
        let Some(Found { value, place }) = self.find(key, Kind::Table) else {
            return Vec::new();
        };
        let DeValue::Table(table) = value else {
            let remedy = "Write a table: { name = \"value\" }.";
            self.wrong_type(&place, &value, "a table", remedy);
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (name, entry) in table {
            let name = name.into_inner().into_owned();
            let place = Place {
                key: format!("{}.{name}", place.key),
                line: place.line.map(|_| line_of(self.text, entry.span().start)),
            };
            match entry.into_inner() {
                DeValue::String(text) => entries.push((
                    name,
                    Found {
                        value: text.into_owned(),
                        place,
                    },
                )),
                other => self.wrong_type(&place, &other, "a string", "Write it in quotes."),
            }
        }
        entries
    }

    /// Resolves a path relative to the directory of the configuration file.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    /// The text of a file that holds secrets. Its contents never get into a mistake.
    pub(super) fn secret_file(&mut self, found: &Found<String>) -> Option<String> {
        let path = self.path(&found.value);
        match files::read_text(&path) {
            Ok(text) => {
                if files::open_to_everyone(&path) {
                    self.remarks.push(format!(
                        "{}: every user of this machine can read {}. Take that right away: chmod o= {}",
                        found.place.key,
                        path.display(),
                        path.display()
                    ));
                }
                Some(text)
            }
            Err(error) => {
                self.unreadable(&found.place, &path, &error);
                None
            }
        }
    }

    /// The text of a file that anybody may see.
    pub(super) fn file(&mut self, file: &str, place: &Place) -> Option<String> {
        let path = self.path(file);
        let text = files::read_text(&path);
        text.map_err(|error| self.unreadable(place, &path, &error))
            .ok()
    }

    /// Notes that a file can't be read.
    pub(super) fn unreadable(&mut self, place: &Place, path: &Path, error: &io::Error) {
        self.mistake(
            place,
            format!("{} cannot be read: {error}", path.display()),
            "Create the file, or correct the path, and let the user that usher runs as read it.",
        );
    }

    /// Looks for what nobody asked for; returns the mistakes in reading order, and remarks.
    pub(super) fn finish(mut self) -> (Vec<Mistake>, Vec<String>) {
        let strangers = strangers::find(self.text, &self.root, self.environment, &self.known);
        self.mistakes.extend(strangers);
        self.mistakes
            .sort_by_key(|mistake| (mistake.line.is_none(), mistake.line));
        (self.mistakes, self.remarks)
    }

    /// The keys that have been asked for: the schema.
    #[cfg(test)]
    pub(super) fn known(&self) -> BTreeSet<&'static str> {
        self.known.clone()
    }

    fn find(&mut self, key: &'static str, kind: Kind) -> Option<Found<DeValue<'t>>> {
        self.known.insert(key);
        let place = self.place(key)?;
        if !place.in_environment() {
            let value = self.lookup(key)?.get_ref().clone();
            return Some(Found { value, place });
        }
        let environment = self.environment;
        let text = environment.get(&place.key)?;
        if let Some(value) = interpret(text, kind) {
            return Some(Found { value, place });
        }
        // The text itself stays out of this: it may be a list of tokens.
        let (problem, remedy) = match kind {
            Kind::Text => ("is not a text", "Write it as it is."),
            Kind::Number => ("is not a whole number", "Write it in digits."),
            Kind::Flag => ("is neither true nor false", "Write true or false."),
            Kind::List => ("is not a list", "Write a,b or [\"a\", \"b\"]."),
            Kind::Table => ("is not a table", "Write { name = \"value\" }."),
        };
        self.mistake(&place, problem, remedy);
        None
    }

    fn lookup(&self, key: &str) -> Option<&Spanned<DeValue<'t>>> {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &self.root;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            table = table.get(part)?.get_ref().as_table()?;
        }
        table.get(name)
    }

    fn wrong_type(&mut self, place: &Place, value: &DeValue<'_>, wanted: &str, remedy: &str) {
        let is = type_of(value);
        self.mistake(place, format!("is {is}, but {wanted} is needed"), remedy);
    }
}

/// A value's type in plain words. The value itself stays unsaid: it may be a secret.
pub(super) fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `server.listen` → `USHER_SERVER__LISTEN`.
pub(super) fn variable_name(key: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        key.to_ascii_uppercase().replace('.', "__")
    )
}

fn interpret(text: &str, kind: Kind) -> Option<DeValue<'_>> {
    let trimmed = text.trim();
    match kind {
        Kind::Text => return Some(DeValue::String(text.into())),
        Kind::List if !trimmed.starts_with('[') => {
            let entries = trimmed
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty());
            let array: DeArray<'_> = entries
                .map(|entry| Spanned::new(0..0, DeValue::String(entry.into())))
                .collect();
            return Some(DeValue::Array(array));
        }
        Kind::Number | Kind::Flag | Kind::List | Kind::Table => {}
    }
    DeValue::parse(trimmed).ok().map(Spanned::into_inner)
}

/// One mistake a line: what follows the first on a line is mostly its echo.
fn syntax_mistakes(text: &str, errors: &[toml::de::Error]) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = errors
        .iter()
        .map(|error| Mistake {
            key: String::new(),
            line: Some(line_of(text, error.span().map_or(0, |span| span.start))),
            problem: format!("this is not TOML: {}", error.message()),
            remedy: "Write one key = value a line, each key once and text in quotes.".to_owned(),
        })
        .collect();
    mistakes.sort_by_key(|mistake| mistake.line);
    mistakes.dedup_by_key(|mistake| mistake.line);
    mistakes
}

/// The line of a byte, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}
