//! What README.md and docs/ print: commands run, links lead somewhere, and the reference page lists the keys.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, free_address, usher};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

/// README.md and the pages of docs/, relative to the project's root.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from("README.md")];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name();
        if name.to_string_lossy().ends_with(".md") {
            pages.push(Path::new("docs").join(name));
        }
    }
    pages
}

/// The lines of the page's shell blocks that begin with `curl` or `usher`, in order.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let ours = |line: &&str| line.starts_with("curl ") || line.starts_with("usher ");
        commands.extend(block.lines().filter(ours).map(str::to_owned));
    }
    commands
}

/// Runs the commands of one page against a usher that has only its defaults.
fn run(commands: &[String]) {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let child = usher(dir.path())
        .env("USHER_SERVER__LISTEN", address.to_string())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process::running(child, address);
    let binary = Path::new(env!("CARGO_BIN_EXE_usher")).parent().unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", binary.display());
    for command in commands {
        let here = command.replace("127.0.0.1:8060", &address.to_string());
        let here = here.replace("sudo usher", "usher");
        let output = Command::new("bash")
            .args(["-c", &here])
            .current_dir(dir.path())
            .env_clear()
            .env("PATH", &path)
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {stdout}{stderr}");
        if command.starts_with("curl ") && !stdout.is_empty() {
            let body: Value = serde_json::from_str(&stdout).unwrap();
            assert!(body.get("message").is_none(), "{command}: {stdout}");
        }
    }
    drop(process);
}

#[test]
fn commands_of_each_page_run_as_printed_and_in_order() {
    let mut pages_with_commands = Vec::new();
    for page in pages() {
        let commands = commands(&read(&page.display().to_string()));
        if !commands.is_empty() {
            run(&commands);
            pages_with_commands.push(page);
        }
    }
    assert!(pages_with_commands.len() >= 5, "{pages_with_commands:?}");
}

#[test]
fn relative_links_lead_to_files() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page.display().to_string());
        let folder = root().join(page.parent().unwrap());
        for target in text.split("](").skip(1) {
            let target = target.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            let file = folder.join(target);
            assert!(file.exists(), "{}: {target}", page.display());
        }
    }
    assert!(links > 20, "only {links} links");
}

/// The architecture page names a file as `src/x.rs`, and an item in it as `src/x.rs`: `name`.
#[test]
fn the_architecture_page_names_files_and_items_that_exist() {
    let page = read("docs/architecture.md");
    let named =
        Regex::new("`((?:src|tests|prosody-plugins)/[^`]*)`(?:: `([a-zA-Z_:]+)`)?").unwrap();
    let mut files = 0;
    for found in named.captures_iter(&page) {
        files += 1;
        let file = &found[1];
        assert!(root().join(file).exists(), "{file} does not exist");
        let Some(item) = found.get(2) else { continue };
        let name = item.as_str().rsplit("::").next().unwrap();
        let text = read(file);
        let definition = format!(r"(fn|struct|enum|trait) {name}(?-u:\b)");
        let defined = Regex::new(&definition).unwrap().is_match(&text);
        assert!(defined, "{file} does not define {name}");
    }
    assert!(files > 15, "only {files} files");
}

#[test]
fn the_readme_stays_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; use docs/");
}

/// By `section.key`: the default as it is written, `None` for a key without one.
type Keys = BTreeMap<String, Option<String>>;

/// A comment line `#key = default` or `# key = example` below `[section]`.
fn keys_of_the_example() -> Keys {
    let mut keys = Keys::new();
    let mut section = String::new();
    for line in read("config.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        }
        let Some((key, value)) = line
            .strip_prefix('#')
            .and_then(|line| line.split_once(" = "))
        else {
            continue;
        };
        let name = key.trim_start();
        if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            let default = (name == key).then(|| value.to_owned());
            keys.insert(format!("{section}.{name}"), default);
        }
    }
    keys
}

/// A row "| `key` | `default` | …" below "## [section]".
fn keys_of_the_reference() -> Keys {
    let mut keys = Keys::new();
    let mut section = String::new();
    for line in read("docs/configuration.md").lines() {
        if let Some(name) = line.strip_prefix("## [") {
            section = name.trim_end_matches(']').to_owned();
        }
        let cells: Vec<_> = line.split(" | ").collect();
        let Some(key) = cells[0].strip_prefix("| `") else {
            continue;
        };
        let default = (cells[1] != "none").then(|| cells[1].trim_matches('`').to_owned());
        keys.insert(format!("{section}.{}", key.trim_end_matches('`')), default);
    }
    keys
}

#[test]
fn the_reference_page_has_the_keys_and_defaults_of_the_example() {
    let example = keys_of_the_example();
    assert!(example.len() > 50, "{example:?}");
    assert_eq!(example, keys_of_the_reference());
}
