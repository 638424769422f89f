//! A repository as `apt-get` reads it: one suite with one component.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use testkit::command::run_bounded;

use super::{Key, PUBLIC_KEY, add, architecture};
use crate::git;

const LIMIT: Duration = Duration::from_mins(5);
const SUITE: &str = "stable";
const COMPONENT: &str = "main";

/// Makes it in an empty folder.
pub(super) fn make(tree: &Path, packages: &[PathBuf], key: Option<&Key>) -> Result<()> {
    let mut architectures = BTreeSet::new();
    for package in packages {
        add(&tree.join("pool"), package)?;
        // `NAME_VERSION_ARCHITECTURE.deb`.
        architectures.insert(architecture(package, '_')?);
    }
    let suite = tree.join("dists").join(SUITE);
    for architecture in &architectures {
        let folder = suite.join(COMPONENT).join(format!("binary-{architecture}"));
        fs::create_dir_all(&folder)?;
        let mut list = ftparchive(tree);
        list.args(["--arch", architecture, "packages", "pool"]);
        let list = sorted(&run_bounded(list, LIMIT)?);
        fs::write(folder.join("Packages"), &list)?;
        let packed = fs::File::create(folder.join("Packages.gz"))?;
        let mut gzip = GzBuilder::new().mtime(0).write(packed, Compression::best());
        gzip.write_all(list.as_bytes())?;
        gzip.finish()?;
    }
    let mut release = ftparchive(tree);
    let architectures: Vec<_> = architectures.into_iter().collect();
    for (field, value) in [
        ("Origin", "flexvdi-gateway"),
        ("Label", "flexvdi-gateway"),
        ("Suite", SUITE),
        ("Codename", SUITE),
        ("Components", COMPONENT),
        ("Architectures", &architectures.join(" ")),
        ("Date", &date()?),
    ] {
        let option = format!("APT::FTPArchive::Release::{field}={value}");
        release.args(["-o", &option]);
    }
    release.arg("release").arg(&suite);
    let text = run_bounded(release, LIMIT)?;
    // Written afterwards: the list of a folder's files must not have the list itself.
    let path = suite.join("Release");
    fs::write(&path, text)?;
    if let Some(key) = key {
        key.sign_to(&path, &suite.join("Release.gpg"))?;
        key.sign_inside(&path, &suite.join("InRelease"))?;
        key.write_public(&tree.join(PUBLIC_KEY))?;
    }
    Ok(())
}

fn ftparchive(tree: &Path) -> Command {
    let mut command = Command::new("apt-ftparchive");
    // Without a database of its own, which would be a file in the tree.
    command.current_dir(tree).arg("--quiet");
    command
}

/// The entries in an order that does not depend on the file system.
fn sorted(list: &str) -> String {
    let mut entries: Vec<_> = list
        .split("\n\n")
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .collect();
    entries.sort_by_key(|entry| entry.lines().find(|line| line.starts_with("Filename:")));
    let mut list = entries.join("\n\n");
    list.push('\n');
    list
}

/// The time of the source, as such files have it.
fn date() -> Result<String> {
    let time = UNIX_EPOCH + Duration::from_secs(git::source_time()?);
    // With GMT, which every apt reads (RFC 9110, section 5.6.7).
    Ok(httpdate::fmt_http_date(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_by_file() {
        let list = "Package: a\nFilename: pool/b.deb\n\nPackage: b\nFilename: pool/a.deb\n\n";
        let expected = "Package: b\nFilename: pool/a.deb\n\nPackage: a\nFilename: pool/b.deb\n";
        assert_eq!(sorted(list), expected);
    }
}
