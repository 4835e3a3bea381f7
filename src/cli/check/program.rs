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

/// A path as a program understands it that enters another directory first.
pub(super) fn absolute(file: &Path) -> String {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    path.display().to_string()
}

fn cause(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim);
    let marked = lines.clone().find(|line| line.contains("[emerg]"));
    marked.or_else(|| lines.rfind(|line| line.chars().any(char::is_alphanumeric)))
}

/// Its standard output, or the line of its error messages that has the cause: nginx marks it, others print it last.
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
    Err(cause(&stderr)
        .or(cause(&stdout))
        .unwrap_or("without an error message")
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_the_marked_line_or_the_last_one() {
        let nginx = "nginx: [emerg] unknown directive \"x\" in /etc/nginx/nginx.conf:3\nnginx: configuration file /etc/nginx/nginx.conf test failed\n";
        assert_eq!(
            cause(nginx),
            Some("nginx: [emerg] unknown directive \"x\" in /etc/nginx/nginx.conf:3")
        );
        assert_eq!(cause("one\n two \n***\n"), Some("two"));
        assert_eq!(cause("\n"), None);
    }
}
