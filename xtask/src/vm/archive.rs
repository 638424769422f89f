//! Debian's archive, as the machine's apt is configured to see it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::command::run_bounded;
use testkit::packages;

use super::class::KernelPackage;

const QUERY_LIMIT: Duration = Duration::from_mins(1);
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(10);

/// All kernels for virtual machines that it has; empty when apt has no lists of packages.
pub(crate) fn kernels() -> Result<Vec<KernelPackage>> {
    let found = known_kernels()?;
    if !found.is_empty() {
        return Ok(found);
    }
    packages::update_lists()?;
    known_kernels()
}

fn known_kernels() -> Result<Vec<KernelPackage>> {
    let mut query = Command::new("apt-cache");
    query.args(["pkgnames", "linux-image-"]);
    let names = run_bounded(query, QUERY_LIMIT)?;
    let names: Vec<_> = names
        .lines()
        .filter(|name| KernelPackage::is_kernel(name))
        .collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = Command::new("apt-cache");
    query.arg("show").args(names);
    Ok(parse_records(&run_bounded(query, QUERY_LIMIT)?))
}

/// The kernels among records of `apt-cache show` that can be downloaded.
fn parse_records(text: &str) -> Vec<KernelPackage> {
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
            })
        })
        .filter(|package| KernelPackage::is_kernel(&package.name))
        .collect()
}

/// Downloads a package into a folder that has no other one; gives back its file.
///
/// Lists of packages that are too old are fetched again when root runs this.
pub(crate) fn download(package: &KernelPackage, folder: &Path) -> Result<PathBuf> {
    let first = try_download(package, folder);
    if first.is_ok() || packages::update_lists().is_err() {
        return first;
    }
    try_download(package, folder)
}

fn try_download(package: &KernelPackage, folder: &Path) -> Result<PathBuf> {
    let KernelPackage { name, version } = package;
    let mut download = Command::new("apt-get");
    download
        // Its own user may not write into the folder.
        .args(["-o", "APT::Sandbox::User=root", "download"])
        .arg(format!("{name}={version}"))
        .current_dir(folder);
    run_bounded(download, DOWNLOAD_LIMIT)
        .with_context(|| format!("downloading {name} {version}"))?;
    deb_in(folder)?.with_context(|| format!("apt-get left no file of {name} behind"))
}

fn deb_in(folder: &Path) -> Result<Option<PathBuf>> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
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
        };
        assert_eq!(parse_records(text), [expected]);
        assert_eq!(parse_records(""), []);
    }
}
