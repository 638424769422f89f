//! The version stands in a few files that no build writes.

use anyhow::{Context, Result};

use super::read;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files that name the image.
const FILES: [&str; 3] = [
    "docs/containers.md",
    "packaging/compose/compose.yaml",
    "packaging/kubernetes/deployment.yaml",
];

#[test]
fn files_that_name_the_image_name_this_version() -> Result<()> {
    for path in FILES {
        let text = read(path)?;
        let named = text.split("flexvdi-gateway:").skip(1);
        let versions = named.filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let mut count = 0;
        for rest in versions {
            let is_part = |c: char| c.is_ascii_alphanumeric() || ".-~+".contains(c);
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            assert_eq!(&rest[..end], VERSION, "{path}");
            count += 1;
        }
        assert!(count > 0, "{path} names no image");
    }
    let text = read("packaging/kubernetes/kustomization.yaml")?;
    let tag = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("newTag: "));
    assert_eq!(tag.context("no newTag")?, VERSION);
    Ok(())
}

#[test]
fn the_changelog_has_a_section_of_this_version() -> Result<()> {
    let changelog = read("CHANGELOG.md")?;
    let heading = format!("## [{VERSION}] - ");
    assert!(changelog.lines().any(|line| line.starts_with(&heading)));
    Ok(())
}
