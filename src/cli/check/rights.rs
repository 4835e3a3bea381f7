//! Whether the user that runs the service can read its files and write its database. Root, which runs the check, can read
//! everything.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use usher::config::{Config, Source};
use usher::store::sqlite;

use super::finding::Finding;
use super::program;

const ABOUT: &str = "files";
/// The user that the package creates.
const PACKAGE_USER: &str = "usher";
/// Prints the first file that fails the test, which is its first argument.
const SCRIPT: &str = r#"
test=$1; shift
for file; do [ "$test" "$file" ] || { printf '%s' "$file"; exit; }; done
"#;

/// The findings for the user of the service. A check that is not run by root reports unreadable files itself.
pub(super) async fn findings(config: &Config, source: &Source) -> Vec<Finding> {
    let Some(user) = service_user().await else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = config.files().cloned().collect();
    if let Source::File(file) = source {
        files.push(file.clone());
    }
    let count = files.len();
    let mut findings = Vec::new();
    if let Some(file) = first_without(&user, "-r", &files).await {
        let message = format!("the user {user}, as which usher runs, can't read {file}");
        let hint = format!("chown {user} {file}, and let {user} enter the directories above it");
        findings.push(Finding::failed(ABOUT, message).hint(hint));
    }
    if let Some(file) = first_without(&user, "-w", &written(config)).await {
        let message = format!("the user {user}, as which usher runs, can't write to {file}");
        let hint = format!("chown {user} {file}, and let {user} enter the directories above it");
        findings.push(Finding::failed(ABOUT, message).hint(hint));
    }
    if findings.is_empty() {
        let message = format!(
            "{user} can read the {count} files of the configuration and write the database"
        );
        findings.push(Finding::ok(ABOUT, message));
    }
    findings
}

/// The user of the service, if it is another than the one that runs the check and root runs it.
async fn service_user() -> Option<String> {
    let is_root = Path::new("/proc/self").metadata().ok()?.uid() == 0;
    if !is_root {
        return None;
    }
    let user = match of_unit().await {
        Some(user) => user,
        None => PACKAGE_USER.to_owned(),
    };
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let entry = format!("{user}:");
    let exists = users.lines().any(|line| line.starts_with(&entry));
    (exists && user != "root").then_some(user)
}

/// `User=` of the unit. Without systemd there is none.
async fn of_unit() -> Option<String> {
    let systemctl = program::find("systemctl")?;
    let arguments = ["show", "--property=User", "--value", "usher.service"];
    let user = program::output(&systemctl, &arguments).await.ok()?;
    let user = user.trim();
    (!user.is_empty()).then(|| user.to_owned())
}

/// What usher writes to: the database, and its directory, for SQLite keeps more files there.
fn written(config: &Config) -> Vec<PathBuf> {
    let Some(database) = sqlite::file_of(&config.database.url) else {
        return Vec::new();
    };
    let directory = database.parent().filter(|it| !it.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(".")).to_owned();
    let mut paths = vec![directory];
    if database.exists() {
        paths.push(database);
    }
    // A missing directory is reported with the database.
    paths.retain(|path| path.exists());
    paths
}

/// The first of the files that the user has no such right to.
async fn first_without(user: &str, right: &str, files: &[PathBuf]) -> Option<String> {
    let runuser = program::find("runuser")?;
    let names: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let mut arguments = vec!["-u", user, "--", "sh", "-c", SCRIPT, "sh", right];
    arguments.extend(names.iter().map(String::as_str));
    let first = program::output(&runuser, &arguments).await.ok()?;
    (!first.is_empty()).then_some(first)
}
