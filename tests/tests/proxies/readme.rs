//! The README says what is so.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gateway::config::{Config, effective_json, load};
use serde_json::Value;
use tempfile::NamedTempFile;

const README: &str = include_str!("../../../README.md");

/// The text between a heading and the next one of the same level.
fn section(heading: &str) -> Result<&'static str> {
    let start = format!("\n## {heading}\n");
    let (_, rest) = README.split_once(&start).context("the heading")?;
    Ok(rest
        .split_once("\n## ")
        .map_or(rest, |(section, _)| section))
}

/// The contents of the fenced blocks in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("\n```{language}\n");
    README
        .split(&start)
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```")?.0))
        .collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_key_is_in_the_table_with_its_default() -> Result<()> {
    let mut documented = Vec::new();
    for line in section("Configuration")?.lines() {
        let Some(row) = line.strip_prefix("| `") else {
            continue;
        };
        let cells: Vec<_> = row.split(" | ").collect();
        let [key, default, unit, meaning] = cells[..] else {
            panic!("four cells, not: {line}");
        };
        assert!(!unit.is_empty() && meaning.len() > 2, "{line}");
        let default: Value = serde_json::from_str(default.trim_matches('`'))
            .with_context(|| format!("the default in: {line}"))?;
        documented.push((key.trim_end_matches('`').to_owned(), default));
    }
    let effective = effective_json(&Config::default());
    let keys = effective.as_object().context("an object")?;
    let real: Vec<_> = keys.clone().into_iter().collect();
    assert_eq!(documented, real);
    Ok(())
}

#[test]
fn every_example_is_a_good_configuration() -> Result<()> {
    let examples = blocks("json");
    // By hand, five deployments, reverse proxies.
    assert_eq!(examples.len(), 7);
    for example in examples {
        let mut file = NamedTempFile::new()?;
        file.write_all(example.as_bytes())?;
        let loaded = load(file.path())?;
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
    Ok(())
}

#[test]
fn the_proxies_files_are_shown_as_they_are() {
    for (language, files) in [
        (
            "nginx",
            &[include_str!("../../../docs/proxies/nginx.conf")][..],
        ),
        (
            "apache",
            &[include_str!("../../../docs/proxies/apache.conf")],
        ),
        (
            "haproxy",
            &[
                include_str!("../../../docs/proxies/haproxy.cfg"),
                include_str!("../../../docs/proxies/haproxy-tcp.cfg"),
                include_str!("../../../docs/proxies/haproxy-pool.cfg"),
            ],
        ),
    ] {
        assert_eq!(blocks(language), files);
    }
}

/// What can be linked to in a document.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim()))
}

#[test]
fn what_is_linked_exists() -> Result<()> {
    let targets = README
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0));
    let mut seen = 0;
    for target in targets {
        seen += 1;
        let (path, name) = target.split_once('#').unwrap_or((target, ""));
        let path = repository().join(if path.is_empty() { "README.md" } else { path });
        assert!(path.exists(), "{target}");
        if !name.is_empty() {
            let text = std::fs::read_to_string(path)?;
            assert!(anchors(&text).any(|anchor| anchor == name), "{target}");
        }
    }
    assert!(seen > 0);
    for line in section("Layout of the repository")?.lines() {
        if let Some((folder, _)) = line.split_once("/ ") {
            assert!(repository().join(folder).is_dir(), "{folder}");
        }
    }
    Ok(())
}

/// The name under which a heading is linked.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' => Some(c),
            _ => None,
        })
        .collect()
}
