//! Kernels in Debian's archive.

use std::path::{Path, PathBuf};

use anyhow::Result;
use testkit::command::run_bounded;
use testkit::packages;

use super::class::{KernelPackage, Source};
use crate::apt::{self, Apt, Archive, QUERY_LIMIT};

/// The suite with the newest kernels for a release of Debian.
const SUITES: [(Archive, &str); 1] = [(Archive::Debian, "trixie-backports")];

/// All kernels for virtual machines that the configured archive has; empty when apt has no lists
/// of packages.
pub(crate) fn kernels() -> Result<Vec<KernelPackage>> {
    let apt = Apt::default();
    let found = kernels_of(&apt, Source::Configured)?;
    if !found.is_empty() {
        return Ok(found);
    }
    packages::update_lists()?;
    kernels_of(&apt, Source::Configured)
}

/// Those of Debian's backports, which the machine need not have configured: lists and
/// configuration are in `folder`.
pub(crate) fn backports(folder: &Path) -> Result<Vec<KernelPackage>> {
    let apt = Apt::of_suites(folder, &SUITES)?;
    apt.refresh()?;
    kernels_of(&apt, Source::Backports)
}

/// Downloads a package into a folder that has no other one, with the packages that its kernel has
/// been divided into; gives back their files.
///
/// Lists of packages that are too old are fetched again, where the machine's own are concerned
/// only when root runs this. `lists` is the folder of [`backports`].
pub(crate) fn download(
    package: &KernelPackage,
    folder: &Path,
    lists: &Path,
) -> Result<Vec<PathBuf>> {
    let apt = match package.source {
        Source::Configured => Apt::default(),
        Source::Backports => Apt::of_suites(lists, &SUITES)?,
    };
    let first = download_all(&apt, package, folder);
    let updated = || match package.source {
        Source::Configured => packages::update_lists(),
        Source::Backports => apt.update(),
    };
    if first.is_ok() || updated().is_err() {
        return first;
    }
    download_all(&apt, package, folder)
}

fn kernels_of(apt: &Apt, source: Source) -> Result<Vec<KernelPackage>> {
    let mut query = apt.command("apt-cache");
    query.args(["pkgnames", "linux-image-"]);
    let names = run_bounded(query, QUERY_LIMIT)?;
    let names: Vec<_> = names
        .lines()
        .filter(|name| KernelPackage::is_kernel(name))
        .collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = apt.command("apt-cache");
    query.arg("show").args(names);
    Ok(parse_records(&run_bounded(query, QUERY_LIMIT)?, source))
}

fn download_all(apt: &Apt, package: &KernelPackage, folder: &Path) -> Result<Vec<PathBuf>> {
    let KernelPackage { name, version, .. } = package;
    let download = |name: &str| apt.download(&format!("{name}={version}"), &folder.join(name));
    let first = download(name)?;
    let needed = apt::field(&first, "Depends")?;
    let mut files = vec![first];
    for part in parts(&needed) {
        files.push(download(part)?);
    }
    Ok(files)
}

/// Names of the packages that have a kernel's files, among what its package depends on; none
/// where it has them itself.
fn parts(depends: &str) -> impl Iterator<Item = &str> {
    let kinds = ["linux-base-", "linux-binary-", "linux-modules-"];
    let names = depends
        .split(',')
        .filter_map(|one| one.split_whitespace().next());
    names.filter(move |name| kinds.iter().any(|kind| name.starts_with(kind)))
}

/// The kernels among records of `apt-cache show` that can be downloaded.
fn parse_records(text: &str, source: Source) -> Vec<KernelPackage> {
    let field = |record: &str, name: &str| {
        let mut lines = record.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(str::to_owned)
    };
    text.split("\n\n")
        // A package that is only installed has no file in the archive.
        .filter(|record| field(record, "Filename").is_some())
        .filter_map(|record| {
            Some(KernelPackage {
                name: field(record, "Package")?,
                version: field(record, "Version")?,
                source,
            })
        })
        .filter(|package| KernelPackage::is_kernel(&package.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let text = "Package: linux-image-6.1.0-56-cloud-amd64\nSource: linux-signed-amd64\n\
                    Version: 6.1.192-2\nDescription: Linux\n a line\nFilename: pool/a.deb\n\n\
                    Package: linux-image-6.1.0-47-cloud-amd64\nStatus: install ok installed\n\
                    Version: 6.1.170-3\n\n\
                    Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\nFilename: pool/b.deb\n";
        let expected = KernelPackage {
            name: "linux-image-6.1.0-56-cloud-amd64".to_owned(),
            version: "6.1.192-2".to_owned(),
            source: Source::Configured,
        };
        assert_eq!(parse_records(text, Source::Configured), [expected]);
        assert_eq!(parse_records("", Source::Configured), []);
    }

    #[test]
    fn parts_of_a_kernel_are_found() {
        let depends = "dracut | linux-initramfs-tool, linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), \
                       linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), \
                       linux-modules-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)\n";
        let expected = [
            "linux-base-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
        ];
        assert!(parts(depends).eq(expected));
        assert_eq!(
            parts("kmod, linux-base (>= 4.3~), initramfs-tools").count(),
            0
        );
    }
}
