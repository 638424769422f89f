//! Debian's archive, as the machine's apt is configured to see it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::command::run_bounded;
use testkit::packages;

use super::class::{KernelPackage, Source};

const QUERY_LIMIT: Duration = Duration::from_mins(1);
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(10);

/// The suite with the newest kernels for a release of Debian, and what it is signed with.
const SUITE: &str = "trixie-backports";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Folder of the lists of packages, and a file there that is as old as they are.
const LISTS: &str = "lists";
const STAMP: &str = "fetched";
/// Backports come and go: lists that are older are fetched again.
const FRESH: Duration = Duration::from_hours(24);

/// All kernels for virtual machines that the configured archive has; empty when apt has no lists
/// of packages.
pub(crate) fn kernels() -> Result<Vec<KernelPackage>> {
    let apt = Apt::default();
    let found = apt.kernels(Source::Configured)?;
    if !found.is_empty() {
        return Ok(found);
    }
    packages::update_lists()?;
    apt.kernels(Source::Configured)
}

/// Those of Debian's backports, which the machine need not have configured: lists and
/// configuration are in `folder`.
pub(crate) fn backports(folder: &Path) -> Result<Vec<KernelPackage>> {
    let apt = Apt::of_backports(folder)?;
    if !is_fresh(&folder.join(LISTS)) {
        run_bounded(apt.get("update"), DOWNLOAD_LIMIT)?;
        touch(&folder.join(LISTS))?;
    }
    apt.kernels(Source::Backports)
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
        Source::Backports => Apt::of_backports(lists)?,
    };
    let first = apt.download_all(package, folder);
    let updated = || match package.source {
        Source::Configured => packages::update_lists(),
        Source::Backports => run_bounded(apt.get("update"), DOWNLOAD_LIMIT).map(drop),
    };
    if first.is_ok() || updated().is_err() {
        return first;
    }
    apt.download_all(package, folder)
}

/// apt with a configuration.
#[derive(Default)]
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// With backports only, of the mirror that is configured; touches nothing outside of `folder`.
    fn of_backports(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join(LISTS).join("partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let folder = folder.canonicalize()?;
        let sources = folder.join("sources.list");
        let line = format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", mirror()?);
        fs::write(&sources, line).with_context(|| format!("writing {}", sources.display()))?;
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        let options = vec![
            option("Dir::Etc::SourceList", &sources),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::State::Lists", &folder.join(LISTS)),
            option("Dir::Cache", &folder.join("cache")),
        ];
        Ok(Self { options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // apt's own user may not write into a folder of ours.
        for option in ["APT::Sandbox::User=root", "APT::Update::Error-Mode=any"] {
            command.args(["-o", option]);
        }
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    fn get(&self, what: &str) -> Command {
        let mut command = self.command("apt-get");
        command.arg(what);
        command
    }

    fn kernels(&self, source: Source) -> Result<Vec<KernelPackage>> {
        let mut query = self.command("apt-cache");
        query.args(["pkgnames", "linux-image-"]);
        let names = run_bounded(query, QUERY_LIMIT)?;
        let names: Vec<_> = names
            .lines()
            .filter(|name| KernelPackage::is_kernel(name))
            .collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = self.command("apt-cache");
        query.arg("show").args(names);
        Ok(parse_records(&run_bounded(query, QUERY_LIMIT)?, source))
    }

    fn download_all(&self, package: &KernelPackage, folder: &Path) -> Result<Vec<PathBuf>> {
        let KernelPackage { name, version, .. } = package;
        let first = self.download(name, version, folder)?;
        let mut query = Command::new("dpkg-deb");
        query.arg("--field").arg(&first).arg("Depends");
        let needed = run_bounded(query, QUERY_LIMIT)?;
        let mut files = vec![first];
        for part in parts(&needed) {
            files.push(self.download(part, version, folder)?);
        }
        Ok(files)
    }

    fn download(&self, name: &str, version: &str, folder: &Path) -> Result<PathBuf> {
        let place = folder.join(name);
        fs::create_dir_all(&place)?;
        let mut download = self.get("download");
        download
            .arg(format!("{name}={version}"))
            .current_dir(&place);
        run_bounded(download, DOWNLOAD_LIMIT)
            .with_context(|| format!("downloading {name} {version}"))?;
        deb_in(&place)?.with_context(|| format!("apt-get left no file of {name} behind"))
    }
}

/// The mirror that this machine has Debian from.
fn mirror() -> Result<String> {
    let mut query = Command::new("apt-get");
    query.args(["indextargets", "--format", "$(SITE)"]);
    query.args(["Created-By: Packages", "Origin: Debian", "Label: Debian"]);
    let sites = run_bounded(query, QUERY_LIMIT)?;
    let first = sites.lines().next().map(str::to_owned);
    first.context("apt has no mirror of Debian")
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

/// Whether lists of packages need not be fetched again.
fn is_fresh(lists: &Path) -> bool {
    let age = || lists.join(STAMP).metadata()?.modified();
    age().is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
}

fn touch(lists: &Path) -> Result<()> {
    fs::write(lists.join(STAMP), "").context("marking the lists of packages")
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
