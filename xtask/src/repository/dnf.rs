//! A repository as `dnf` reads it: a folder for each architecture.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use testkit::command::run_bounded;

use super::{Key, PUBLIC_KEY, add};
use crate::cargo::workspace;
use crate::git;

const LIMIT: Duration = Duration::from_mins(5);

/// Makes it in an empty folder.
pub(super) fn make(tree: &Path, packages: &[PathBuf], key: Option<&Key>) -> Result<()> {
    let time = git::time_of_commit().or_else(|_| now())?;
    let mut folders = BTreeSet::new();
    for package in packages {
        let folder = tree.join(architecture(package)?);
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

/// What is between the last two dots of `NAME-VERSION-RELEASE.ARCHITECTURE.rpm`.
fn architecture(package: &Path) -> Result<String> {
    let name = package.file_stem().and_then(|name| name.to_str());
    let found = name.and_then(|name| name.rsplit_once('.'));
    let (_, architecture) =
        found.with_context(|| format!("{} names no architecture", package.display()))?;
    Ok(architecture.to_owned())
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_is_in_the_name() {
        let of = |name: &str| architecture(Path::new(name)).ok();
        let package = "/x.y/flexvdi-gateway-1.2-1.aarch64.rpm";
        assert_eq!(of(package).as_deref(), Some("aarch64"));
        assert_eq!(of("package.rpm"), None);
    }
}
