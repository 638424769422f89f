//! `docs/limits.md` names the tests that reach each limit: they must be there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Folders with tests.
const SOURCES: [&str; 5] = [
    "gateway/src",
    "gateway/tests",
    "gateway-datapath/src",
    "gateway-datapath/tests",
    "tests/tests",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Names of all functions below a folder.
fn functions(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            functions(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let names = text.lines().filter_map(|line| {
                let line = line.trim_start();
                let name = line
                    .strip_prefix("async ")
                    .unwrap_or(line)
                    .strip_prefix("fn ")?;
                Some(name.split('(').next()?.to_owned())
            });
            found.extend(names);
        }
    }
    Ok(())
}

/// The cells of each row of the document's tables, without their heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_head = lines.peek().is_some_and(|next| next.starts_with("| ---"));
        if line.starts_with("| ") && !line.starts_with("| ---") && !is_head {
            let cells = line.trim_matches('|').split(" | ").map(str::trim);
            rows.push(cells.collect());
        }
    }
    rows
}

#[test]
fn every_limit_names_a_test_that_exists() {
    let mut functions_found = BTreeSet::new();
    for folder in SOURCES {
        functions(&repository().join(folder), &mut functions_found).unwrap();
    }
    let text = fs::read_to_string(repository().join("docs/limits.md")).unwrap();
    let rows = rows(&text);
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in rows {
        assert_eq!(row.len(), 5, "{row:?}");
        let tests = row[4];
        if let Some(why) = tests.strip_prefix("none: ") {
            assert!(why.len() > 10, "{row:?}");
            continue;
        }
        for name in tests.split(", ") {
            let name = name.trim_matches('`');
            assert!(functions_found.contains(name), "there is no test {name}");
        }
    }
}

#[test]
fn every_key_that_is_a_limit_is_there() {
    let document = fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    let text = fs::read_to_string(repository().join("docs/limits.md")).unwrap();
    let keys = document.lines().filter_map(|line| {
        let name = line.strip_prefix("| `")?.split('`').next()?;
        let is_limit = name.ends_with("Timeout")
            || name.ends_with("Limit")
            || (name.starts_with("Max") && !name.contains(' '));
        is_limit.then_some(name)
    });
    let mut count = 0;
    for key in keys {
        count += 1;
        assert!(text.contains(&format!("`{key}`")), "{key}");
    }
    assert!(count > 10, "{count} keys");
}
