//! The order of the rooms in `src`, which the map in `lib.rs` shows: a room depends only on rooms above it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::house::{is_test, source_files};

/// The rooms from the ground up. A room may use the rooms before it.
const ORDER: &[&str] = &[
    "text",
    "error_chain",
    "domain",
    "stomp",
    "clock",
    "backoff",
    "metrics",
    "batch",
    "config",
    "auth",
    "store",
    "reservation",
    "queue",
    "prosody",
    "session",
    "lifecycle",
    "http",
    "service",
    "cli",
];

/// A source file: its path below `src`, without `.rs` and `/mod`, and its code without tests and comments.
struct Source {
    module: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let files = source_files().into_iter().filter_map(|(path, text)| {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        (!is_test(&path) && module != "lib" && module != "main").then(|| Source {
            module: module.to_owned(),
            code: production(&text),
        })
    });
    files.collect()
}

/// The code before the module of tests, without comments.
fn production(text: &str) -> String {
    let lines = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// The first segments of the paths that begin with `prefix`; a group in braces has several.
fn used(code: &str, prefix: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| is_name(c) || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 && c == ',' {
                    found.insert(std::mem::take(&mut name));
                } else if depth == 0 {
                    name.push(c);
                }
            }
            found.insert(name);
        } else {
            found.insert(rest.chars().take_while(|c| is_name(*c)).collect());
        }
    }
    let first = |name: String| name.trim().chars().take_while(|c| is_name(*c)).collect();
    found.into_iter().map(first).collect()
}

fn rank(room: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == room)
}

#[test]
fn rooms_depend_only_on_rooms_above_them() {
    let mut arrows = 0;
    for Source { module, code } in sources() {
        let room = module.split('/').next().unwrap();
        let own = rank(room).unwrap_or_else(|| panic!("{room} is missing in the order"));
        let mut rooms = used(&code, "crate::");
        rooms.extend(used(&code, "usher::"));
        for other in rooms.iter().filter(|other| *other != room) {
            // Names of the crate's root are the facade's; only the binary uses them.
            let Some(above) = rank(other) else {
                assert!(room == "cli", "{module} uses crate::{other}");
                continue;
            };
            assert!(
                above < own,
                "{module} uses {other}, which is a room below it"
            );
            arrows += 1;
        }
    }
    assert!(arrows > 50, "only {arrows} dependencies were found");
}

#[test]
fn the_map_in_lib_rs_is_this_order() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let rows = map.lines().filter(|line| line.starts_with("//! | "));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let named: Vec<&str> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(named, ORDER);
}

/// Files of one room that use each other (`use super::sibling`), as a graph.
fn siblings() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let names: BTreeSet<String> = sources.iter().map(|it| it.module.clone()).collect();
    let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
    for Source { module, code } in &sources {
        let arrows = graph.entry(module.clone()).or_default();
        let Some((parent, _)) = module.rsplit_once('/') else {
            continue;
        };
        let near = used(code, "super::").into_iter();
        let near = near.map(|name| format!("{parent}/{name}"));
        let far = used(code, &format!("crate::{}::", parent.replace('/', "::"))).into_iter();
        let far = far.map(|name| format!("{parent}/{name}"));
        arrows.extend(
            near.chain(far)
                .filter(|it| it != module && names.contains(it)),
        );
    }
    graph
}

#[test]
fn no_files_of_a_room_use_each_other_in_a_circle() {
    let mut graph = siblings();
    assert!(graph.values().any(|arrows| !arrows.is_empty()));
    loop {
        let leaves: Vec<String> = graph
            .iter()
            .filter(|(_, arrows)| arrows.iter().all(|to| !graph.contains_key(to)))
            .map(|(module, _)| module.clone())
            .collect();
        if leaves.is_empty() {
            break;
        }
        for leaf in leaves {
            graph.remove(&leaf);
        }
    }
    assert!(graph.is_empty(), "these files form circles: {graph:?}");
}
