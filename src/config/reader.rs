//! Reads values by their keys from the environment and the file, and collects what is wrong with them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::ConfigIssue;
use super::files;
use super::input::{Input, Invalid};
use super::unknown::{Known, line_of, variable_name};
use super::value::Text;

/// Where a value was given: a key and its line, or a variable.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) key: String,
    pub(super) line: Option<usize>,
}

impl Origin {
    /// Values of the file always have a line.
    fn is_variable(&self) -> bool {
        self.line.is_none()
    }
}

/// A value and where it was given.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// A value that was given directly, or a file that contains it.
pub(super) enum Content<T> {
    Inline(Located<T>),
    File(Located<String>),
}

/// A configuration that is being read. After a mistake, reading continues with the default, so that all
/// mistakes are found at once.
pub(super) struct Reader<'t> {
    text: &'t str,
    root: DeTable<'t>,
    environment: &'t BTreeMap<String, String>,
    base_dir: PathBuf,
    known: Known,
    issues: Vec<ConfigIssue>,
    warnings: Vec<String>,
    files: Vec<PathBuf>,
}

impl<'t> Reader<'t> {
    /// # Errors
    ///
    /// For a text that is not TOML. The values of such a text are not read: guesses at them would only add
    /// wrong issues.
    pub(super) fn new(
        text: &'t str,
        environment: &'t BTreeMap<String, String>,
        base_dir: &Path,
    ) -> Result<Self, Vec<ConfigIssue>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(syntax_issues(text, &errors));
        }
        Ok(Self {
            text,
            root: root.into_inner(),
            environment,
            base_dir: base_dir.to_owned(),
            known: Known::default(),
            issues: Vec::new(),
            warnings: Vec::new(),
            files: Vec::new(),
        })
    }

    /// Adds an issue.
    pub(super) fn report(&mut self, origin: &Origin, Invalid { message, hint }: Invalid) {
        self.issues.push(ConfigIssue {
            key: origin.key.clone(),
            line: origin.line,
            message,
            hint,
        });
    }

    /// Whether a key, or an entry of its table, has an issue.
    pub(super) fn has_issue(&self, key: &str) -> bool {
        let variable = variable_name(key);
        self.issues.iter().any(|issue| {
            let named = issue.key.as_str();
            let rest = named.strip_prefix(key).or(named.strip_prefix(&variable));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The earlier name of a key keeps its meaning. Call it before the key is read.
    pub(super) fn alias(&mut self, key: &'static str, earlier: &'static str) {
        self.known.aliases.insert(key, earlier);
        if let (Some(new), Some(old)) = (self.origin_of(key), self.origin_of(earlier))
            && new.is_variable() == old.is_variable()
        {
            let message = format!("is set, and {} too, which is its new name", new.key);
            self.report(&old, Invalid::new(message, format!("Keep {}.", new.key)));
        }
    }

    /// Where a key is set, by either of its names; the environment has precedence.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        let origins = [
            self.origin_of(key),
            self.alias_of(key).and_then(|it| self.origin_of(it)),
        ];
        let set = origins.into_iter().flatten();
        set.min_by_key(|origin| !origin.is_variable())
    }

    fn alias_of(&self, key: &str) -> Option<&'static str> {
        self.known.aliases.get(key).copied()
    }

    fn origin_of(&self, key: &str) -> Option<Origin> {
        let variable = variable_name(key);
        if self.environment.contains_key(&variable) {
            return Some(Origin {
                key: variable,
                line: None,
            });
        }
        self.lookup(key).map(|value| Origin {
            key: key.to_owned(),
            line: Some(line_of(self.text, value.span().start)),
        })
    }

    fn lookup(&self, key: &str) -> Option<&Spanned<DeValue<'t>>> {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &self.root;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            table = table.get(part)?.get_ref().as_table()?;
        }
        table.get(name)
    }

    fn find(&mut self, key: &'static str) -> Option<Located<Input<'t>>> {
        self.known.keys.insert(key);
        let origin = self.origin(key)?;
        let value = if origin.is_variable() {
            Input::Variable(self.environment.get(&origin.key)?)
        } else {
            Input::Toml(self.lookup(&origin.key)?.get_ref().clone())
        };
        Some(Located { value, origin })
    }

    fn accept<T>(&mut self, result: Result<T, Invalid>, origin: Origin) -> Option<Located<T>> {
        match result {
            Ok(value) => Some(Located { value, origin }),
            Err(invalid) => {
                self.report(&origin, invalid);
                None
            }
        }
    }

    /// The value of a key; none if it is not set or has a mistake.
    pub(super) fn get<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Located<T>> {
        let Located { value, origin } = self.find(key)?;
        self.accept(value.decode(), origin)
    }

    /// Replaces a default by the value of its key, if it is set.
    pub(super) fn set<T, U>(&mut self, key: &'static str, default: &mut U)
    where
        T: DeserializeOwned + Into<U>,
    {
        if let Some(found) = self.get::<T>(key) {
            *default = found.value.into();
        }
    }

    /// The same for a list.
    pub(super) fn set_list<T, U>(&mut self, key: &'static str, default: &mut Vec<U>)
    where
        T: DeserializeOwned + Into<U>,
    {
        if let Some(list) = self.list::<T>(key) {
            *default = list.value.into_iter().map(|it| it.value.into()).collect();
        }
    }

    /// A path as it was given.
    pub(super) fn get_path(&mut self, key: &'static str) -> Option<Located<String>> {
        self.get::<Text>(key)
            .map(|Located { value, origin }| Located {
                value: value.into(),
                origin,
            })
    }

    /// The entries of a list, each with its own line and without those that have a mistake.
    pub(super) fn list<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
    ) -> Option<Located<Vec<Located<T>>>> {
        let Located { value, origin } = self.find(key)?;
        let Located { value, origin } = self.accept(value.list(), origin)?;
        Some(self.entries(value, origin))
    }

    /// The same; a value that is no list counts as the only entry of one.
    pub(super) fn list_or_one<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
    ) -> Option<Located<Vec<Located<T>>>> {
        let Located { value, origin } = self.find(key)?;
        let Located { value, origin } = self.accept(value.list_or_one(), origin)?;
        Some(self.entries(value, origin))
    }

    fn entries<T: DeserializeOwned>(
        &mut self,
        array: DeArray<'t>,
        origin: Origin,
    ) -> Located<Vec<Located<T>>> {
        let mut entries = Vec::new();
        for entry in array {
            let place = Origin {
                key: origin.key.clone(),
                line: self.line_within(&origin, entry.span().start),
            };
            entries.extend(self.accept(Input::Toml(entry.into_inner()).decode(), place));
        }
        Located {
            value: entries,
            origin,
        }
    }

    /// The entries of a table, each with its own key and without those that have a mistake.
    pub(super) fn table<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
    ) -> Vec<(String, Located<T>)> {
        let Some(Located { value, origin }) = self.find(key) else {
            return Vec::new();
        };
        let Some(Located { value, origin }) = self.accept(value.table(), origin) else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (name, entry) in value {
            let place = Origin {
                key: format!("{}.{}", origin.key, name.get_ref()),
                line: self.line_within(&origin, entry.span().start),
            };
            let found = self.accept(Input::Toml(entry.into_inner()).decode(), place);
            entries.extend(found.map(|found| (name.into_inner().into_owned(), found)));
        }
        entries
    }

    /// The line of an entry. The only entry of a value that is no list has no position of its own.
    fn line_within(&self, origin: &Origin, offset: usize) -> Option<usize> {
        let line = origin.line?;
        Some(line.max(line_of(self.text, offset)))
    }

    /// A value that has two keys: one for itself, one for the file that contains it. The environment has
    /// precedence; both in the same place are a mistake.
    pub(super) fn exclusive<T>(
        &mut self,
        inline: Option<Located<T>>,
        file: Option<Located<String>>,
    ) -> Option<Content<T>> {
        match (inline, file) {
            (Some(inline), Some(file)) => {
                match (inline.origin.is_variable(), file.origin.is_variable()) {
                    (true, false) => Some(Content::Inline(inline)),
                    (false, true) => Some(Content::File(file)),
                    _ => {
                        let message = format!("is set, and {} too", inline.origin.key);
                        let hint = "Keep one of the two; a secret is safer in the file.";
                        self.report(&file.origin, Invalid::new(message, hint));
                        None
                    }
                }
            }
            (Some(inline), None) => Some(Content::Inline(inline)),
            (None, file) => file.map(Content::File),
        }
    }

    /// A path of the configuration, relative to the directory of its file.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    /// The text of a file that contains secrets. No issue repeats it.
    pub(super) fn secret_file(&mut self, found: &Located<String>) -> Option<String> {
        let text = self.file(found)?;
        let path = self.path(&found.value);
        if files::is_world_readable(&path) {
            self.warnings.push(format!(
                "{}: every user of this machine can read {path}; to prevent it: chmod o= {path}",
                found.origin.key,
                path = path.display()
            ));
        }
        Some(text)
    }

    /// The text of a file.
    pub(super) fn file(&mut self, found: &Located<String>) -> Option<String> {
        let path = self.path(&found.value);
        let text = files::read_text(&path);
        self.readable(&found.origin, &path, text)
    }

    /// Reports a secret file that contains nothing.
    pub(super) fn report_empty_file(&mut self, found: &Located<String>, hint: impl Into<String>) {
        let path = self.path(&found.value);
        let invalid = Invalid::new(format!("{} is empty", path.display()), hint);
        self.report(&found.origin, invalid);
    }

    /// Adds a warning about a file.
    pub(super) fn warn(&mut self, found: &Located<String>, what: &str) {
        let path = self.path(&found.value);
        let key = &found.origin.key;
        self.warnings
            .push(format!("{key}: {} {what}", path.display()));
    }

    /// The path of a file that is read later.
    pub(super) fn readable_path(&mut self, found: &Located<String>) -> Option<PathBuf> {
        let path = self.path(&found.value);
        self.readable(&found.origin, &path, files::check_readable(&path))?;
        Some(path)
    }

    /// The result of reading a file; an error is reported.
    pub(super) fn readable<T>(
        &mut self,
        origin: &Origin,
        path: &Path,
        result: io::Result<T>,
    ) -> Option<T> {
        let unreadable = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::InvalidData => "Save the file as UTF-8 text, or correct the path.",
                io::ErrorKind::PermissionDenied => {
                    "Give usher's user the right to read it; run usher check with sudo."
                }
                _ => {
                    "Create the file or correct the path, and give usher's user the right to read it."
                }
            };
            Invalid::new(format!("{} cannot be read: {error}", path.display()), hint)
        };
        self.files.push(path.to_owned());
        result
            .map_err(|error| self.report(origin, unreadable(error)))
            .ok()
    }

    /// The files and directories that were opened.
    pub(super) fn files(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.files)
    }

    /// Searches for unknown keys; returns the issues in the order of the file, and warnings.
    pub(super) fn finish(mut self) -> (Vec<ConfigIssue>, Vec<String>) {
        let unknown = self.known.unknown(self.text, &self.root, self.environment);
        self.issues.extend(unknown);
        self.issues
            .sort_by_key(|issue| (issue.line.is_none(), issue.line));
        (self.issues, self.warnings)
    }

    /// The keys that were asked for.
    #[cfg(test)]
    pub(super) fn known(self) -> Known {
        self.known
    }
}

/// One issue per line: what follows the first error on a line is usually a consequence of it.
fn syntax_issues(text: &str, errors: &[toml::de::Error]) -> Vec<ConfigIssue> {
    let mut issues: Vec<ConfigIssue> = errors
        .iter()
        .map(|error| ConfigIssue {
            key: String::new(),
            line: Some(line_of(text, error.span().map_or(0, |span| span.start))),
            message: format!("this is not TOML: {}", error.message()),
            hint: "Write one key = value per line, each key once and text in quotes.".to_owned(),
        })
        .collect();
    issues.sort_by_key(|issue| issue.line);
    issues.dedup_by_key(|issue| issue.line);
    issues
}
