//! The documents say what is so: what can be linked, configured, counted, logged and returned is
//! compared with them.

mod access_log;
mod exit_codes;
mod keys;
mod links;
mod log;
mod metrics;
mod proxies;
mod source;
mod version;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file, by its path from the top of the repository.
fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}

/// All files with this extension below a folder, but for what is built or fetched.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && name != ".git" {
                found.extend(files(&path, extension)?);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The contents of the fenced blocks in this language; empty: in none.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<(&str, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut block) {
            (Some(begun), None) => block = Some((begun, String::new())),
            (Some(_), Some(_)) => found.extend(block.take()),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    let wanted = found.into_iter().filter(|(begun, _)| *begun == language);
    wanted.map(|(_, text)| text).collect()
}

/// The cells of each row whose first cell begins with code.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(str::trim).collect()
        })
        .collect()
}
