//! A repository as `dnf` reads it: a folder for each architecture.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use testkit::command::run_bounded;

use super::{Key, PUBLIC_KEY, add, architecture};
use crate::cargo::workspace;
use crate::git;

const LIMIT: Duration = Duration::from_mins(5);

/// Makes it in an empty folder.
pub(super) fn make(tree: &Path, packages: &[PathBuf], key: Option<&Key>) -> Result<()> {
    let time = git::source_time()?;
    let mut folders = BTreeSet::new();
    for package in packages {
        // `NAME-VERSION-RELEASE.ARCHITECTURE.rpm`.
        let folder = tree.join(architecture(package, '.')?);
        let added = add(&folder, package)?;
        // The lists name the time of each file.
        fs::File::options()
            .write(true)
            .open(&added)?
            .set_modified(UNIX_EPOCH + Duration::from_secs(time))?;
        folders.insert(folder);
    }
    for folder in &folders {
        let mut create = Command::new("createrepo_c");
        create
            .args([
                "--quiet",
                "--no-database",
                "--simple-md-filenames",
                "--workers=1",
            ])
            // What every dnf reads.
            .arg("--general-compress-type=gz")
            .args([
                "--set-timestamp-to-revision",
                "--revision",
                &time.to_string(),
            ])
            .arg(folder);
        run_bounded(create, LIMIT)?;
        if let Some(key) = key {
            key.sign(&folder.join("repodata/repomd.xml"))?;
        }
    }
    let sample = workspace().join("packaging/rpm/flexvdi-gateway.repo");
    fs::copy(&sample, tree.join("flexvdi-gateway.repo"))
        .with_context(|| format!("copying {}", sample.display()))?;
    if let Some(key) = key {
        key.write_public(&tree.join(PUBLIC_KEY))?;
    }
    Ok(())
}
