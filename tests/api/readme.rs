//! What the README prints works as printed.

use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, free_address, usher};

/// The lines of the README's shell blocks that begin with a command of ours or with curl, in order.
fn lines() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let mut blocks = readme.split("```sh\n").skip(1);
    let mut lines = Vec::new();
    for block in &mut blocks {
        let block = block.split("```").next().unwrap_or_default();
        let ours = |line: &&str| line.starts_with("curl ") || line.starts_with("usher ");
        lines.extend(block.lines().filter(ours).map(str::to_owned));
    }
    lines
}

#[test]
fn its_lines_work_as_printed_and_in_order() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let child = usher(dir.path())
        .env("USHER_SERVER__LISTEN", address.to_string())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process::running(child, address);
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_usher"))
        .parent()
        .unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", binary.display());
    let lines = lines();
    assert!(lines.len() >= 9, "{lines:?}");
    for line in lines {
        let here = line.replace("127.0.0.1:8060", &address.to_string());
        let output = Command::new("bash")
            .args(["-c", &here])
            .current_dir(dir.path())
            .env_clear()
            .env("PATH", &path)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {told}{complaint}");
        if line.starts_with("curl ") && !told.is_empty() {
            let body: Value = serde_json::from_str(&told).unwrap();
            assert!(body.get("message").is_none(), "{line}: {told}");
        }
    }
    drop(process);
}

#[test]
fn its_table_has_every_key_of_the_configuration() {
    let readme = include_str!("../../README.md");
    let keys = include_str!("../../config.toml")
        .lines()
        .filter_map(|line| {
            let key = line.strip_prefix('#')?.split_once(" = ")?.0;
            key.chars()
                .all(|c| c.is_ascii_lowercase() || c == '_')
                .then_some(key)
        });
    let keys: Vec<_> = keys.collect();
    assert!(keys.len() > 20, "{keys:?}");
    for key in keys {
        assert!(
            readme.contains(&format!("{key}`")),
            "{key} is not in the README"
        );
    }
}
