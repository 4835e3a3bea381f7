//! Runs the neighbours' own programs, which know best what their configuration means.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// Where they are installed: root's, and beyond a PATH that may have only half of these.
const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program of this machine.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let paths = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name));
    paths.into_iter().find(|path| path.is_file())
}

/// Its standard output, or the last line of what it complained about.
pub(super) async fn output(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let name = program.display();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = tokio::time::timeout(PATIENCE, command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = done
        .map_err(|_| format!("{name} doesn't come to an end"))?
        .map_err(|error| format!("{name} can't be run: {error}"))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&stderr);
    let mut said = stderr.lines().chain(stdout.lines());
    let last = said.rfind(|line| line.chars().any(char::is_alphanumeric));
    Err(last.unwrap_or("it doesn't say why").trim().to_owned())
}
