//! Links between documents, and to files.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use super::{files, repository};

/// Text without fenced blocks and code, in which nothing is a link or a heading.
fn prose(text: &str) -> String {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            // Every second part stands between backticks.
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    prose
}

/// The name under which a heading is linked.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect()
}

/// What can be linked to in a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let headings = text.lines().filter(|line| {
        in_block ^= line.trim_start().starts_with("```");
        !in_block && line.starts_with('#')
    });
    headings.map(anchor).collect()
}

/// The targets of all links of a document.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let links = text.split("](").skip(1);
    links.filter_map(|rest| Some(rest.split_once(')')?.0))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() -> Result<()> {
    let mut broken = Vec::new();
    let mut seen = 0;
    for document in files(&repository(), "md")? {
        let text = fs::read_to_string(&document)?;
        let folder = document.parent().context("a file lies in a folder")?;
        for target in targets(&prose(&text)) {
            if target.contains("://") {
                continue;
            }
            seen += 1;
            let (path, name) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() {
                document.clone()
            } else {
                folder.join(path)
            };
            let is_there = if name.is_empty() {
                file.exists()
            } else {
                let linked = fs::read_to_string(&file).unwrap_or_default();
                anchors(&linked).contains(name)
            };
            if !is_there {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 100, "{seen} links");
    Ok(())
}

#[test]
fn every_file_of_the_repository_that_is_named_exists() -> Result<()> {
    let mut missing = Vec::new();
    let mut seen = 0;
    for document in files(&repository(), "md")? {
        let text = fs::read_to_string(&document)?;
        // Every second part stands between backticks.
        let code = text
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        for path in code {
            let extension = path.rsplit_once('.').map(|(_, extension)| extension);
            let is_source = extension.is_some_and(|it| it == "rs" || it == "md");
            let folder = path.split_once('/').map(|(folder, _)| folder);
            if is_source && folder.is_some_and(|folder| repository().join(folder).is_dir()) {
                seen += 1;
                if !repository().join(path).exists() {
                    missing.push(format!("{}: {path}", document.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(seen > 10, "{seen} files");
    Ok(())
}

#[test]
fn every_document_is_in_the_index() -> Result<()> {
    let docs = repository().join("docs");
    let index = fs::read_to_string(docs.join("README.md"))?;
    let linked: BTreeSet<_> = targets(&index).collect();
    for document in files(&docs, "md")? {
        let name = document.strip_prefix(&docs)?.display().to_string();
        assert!(name == "README.md" || linked.contains(&*name), "{name}");
    }
    Ok(())
}

#[test]
fn the_layout_names_folders_that_exist() -> Result<()> {
    let text = super::read("CONTRIBUTING.md")?;
    let (_, layout) = text
        .split_once("## Layout of the repository")
        .context("the layout")?;
    let blocks = super::blocks(layout, "");
    let folders: Vec<_> = blocks
        .first()
        .context("a block")?
        .lines()
        .filter_map(|line| Some(line.split_once("/ ")?.0))
        .collect();
    assert!(folders.len() > 5, "{folders:?}");
    for folder in folders {
        assert!(repository().join(folder).is_dir(), "{folder}");
    }
    Ok(())
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    assert_eq!(
        anchor("## HAProxy, TLS passed through"),
        "haproxy-tls-passed-through"
    );
    assert_eq!(anchor("### How to add ..."), "how-to-add-");
    assert_eq!(
        prose("a `[b](c)` [d](e)\n```\n[f](g)\n```\n"),
        "a  [d](e)\n"
    );
}
