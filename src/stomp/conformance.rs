//! That the tests which `tests/conformance/stomp.md` names exist.

use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("../../tests/conformance/stomp.md");

/// All the Rust of a directory, one file after the other.
fn sources(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The last cell of each row that is not a head.
fn cells() -> impl Iterator<Item = &'static str> {
    TABLE
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"))
        .filter_map(|line| line.trim_end_matches([' ', '|']).rsplit(" | ").next())
        .filter(|cell| *cell != "Test")
}

#[test]
fn every_test_in_the_conformance_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);

    let (mut rows, mut found, mut missing) = (0, 0, Vec::new());
    for cell in cells() {
        rows += 1;
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {cell}");
        for name in names {
            if code.contains(&format!("fn {name}(")) {
                found += 1;
            } else {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    assert!(rows > 50 && found > 50, "{rows} rows, {found} tests");
}
