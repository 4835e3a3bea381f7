//! Runs the programs of nginx and Prosody that print their configuration.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// Where they are installed: a user's PATH may lack the directories of root.
const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// The longest run of a program.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A program of this machine.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let paths = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name));
    paths.into_iter().find(|path| path.is_file())
}

/// Its standard output, or the last line of its error messages.
pub(super) async fn output(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let name = program.display();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = tokio::time::timeout(TIMEOUT, command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = done
        .map_err(|_| format!("{name} did not end in time"))?
        .map_err(|error| format!("{name} can't be run: {error}"))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&stderr);
    let mut lines = stderr.lines().chain(stdout.lines());
    let last = lines.rfind(|line| line.chars().any(char::is_alphanumeric));
    Err(last.unwrap_or("without an error message").trim().to_owned())
}
