//! What a release is made of: a commit, tagged with the version, whose changelog has it.

use std::fmt;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::cargo::workspace;
use crate::git;

/// The version of the workspace.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The source, as git knows it.
pub(super) struct Source {
    commit: String,
    tags: Vec<String>,
    /// Files that are not as they were committed.
    changed: Vec<String>,
    changelog: String,
    /// The day of the commit.
    day: String,
}

impl Source {
    /// Reads what is checked out.
    pub(super) fn read() -> Result<Self> {
        let path = workspace().join("CHANGELOG.md");
        let time = UNIX_EPOCH + Duration::from_secs(git::time_of_commit()?);
        let day = humantime::format_rfc3339_seconds(time).to_string();
        Ok(Self {
            commit: git::revision()?,
            tags: git::tags()?,
            changed: git::changed()?,
            changelog: fs::read_to_string(&path)
                .with_context(|| format!("reading {}", path.display()))?,
            day: day.chars().take("2026-01-01".len()).collect(),
        })
    }

    /// Fails unless it is what everybody gets who asks for this version.
    pub(super) fn check(&self) -> Result<()> {
        let tag = format!("v{VERSION}");
        ensure!(
            self.is_clean(),
            "these files are not committed: {}. A release is made of a commit; \
             --allow-untagged makes one for trying",
            self.changed.join(", ")
        );
        ensure!(
            self.tags.contains(&tag),
            "the commit that is checked out has no tag {tag}. `git tag --sign {tag}` makes it; \
             --allow-untagged makes a release for trying"
        );
        check_changelog(&self.changelog, VERSION, &self.day)
    }

    /// Whether nothing was changed since the commit.
    pub(super) fn is_clean(&self) -> bool {
        self.changed.is_empty()
    }

    pub(super) fn commit(&self) -> &str {
        &self.commit
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {}", self.commit)?;
        if !self.tags.is_empty() {
            write!(f, ", tag {}", self.tags.join(", "))?;
        }
        if !self.is_clean() {
            write!(f, ", with {} files that were changed", self.changed.len())?;
        }
        Ok(())
    }
}

/// Fails unless the version has a section, of the day of the commit, that says something.
fn check_changelog(changelog: &str, version: &str, day: &str) -> Result<()> {
    let heading = format!("## [{version}] - {day}");
    let begin = format!("## [{version}]");
    let found = changelog.lines().find(|line| line.starts_with(&begin));
    let found = found.with_context(|| {
        format!("CHANGELOG.md has no section for this version, which begins with {heading:?}")
    })?;
    ensure!(
        found == heading,
        "CHANGELOG.md: the section for this version begins with {found:?}, and the commit is of \
         another day: {heading:?}"
    );
    let mut lines = changelog.lines().skip_while(|line| *line != found).skip(1);
    let says = lines
        .by_ref()
        .take_while(|line| !line.starts_with("## "))
        .any(|line| line.starts_with("- "));
    ensure!(says, "CHANGELOG.md says nothing of version {version}");
    let open = changelog
        .lines()
        .skip_while(|line| *line != "## [Unreleased]")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .any(|line| line.starts_with("- "));
    ensure!(
        !open,
        "CHANGELOG.md has entries under \"Unreleased\", which belong to version {version}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_has_to_be_ready() {
        let told = |changelog: &str| {
            let checked = check_changelog(changelog, "0.2.0", "2026-11-30");
            checked
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        let good = "# C\n\n## [Unreleased]\n\n## [0.2.0] - 2026-11-30\n\n### Added\n\n- It.\n";
        assert_eq!(told(good), "");
        for (from, to, expected) in [
            ("2026-11-30", "2026-11-29", "another day"),
            ("0.2.0", "0.2.1", "no section"),
            ("- It.", "", "says nothing"),
            ("[Unreleased]\n", "[Unreleased]\n- More.\n", "Unreleased"),
        ] {
            let text = told(&good.replace(from, to));
            assert!(text.contains(expected), "{text}");
        }
    }
}
