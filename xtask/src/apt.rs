//! Debian's archive: as this machine's apt sees it, or with lists of packages of our own.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::command::run_bounded;

pub(crate) const QUERY_LIMIT: Duration = Duration::from_mins(1);
pub(crate) const DOWNLOAD_LIMIT: Duration = Duration::from_mins(10);

/// What Debian's lists of packages are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Folder of the lists of packages, and a file there that is as old as they are.
const LISTS: &str = "lists";
const STAMP: &str = "fetched";
/// Packages come and go: lists that are older are fetched again.
const FRESH: Duration = Duration::from_hours(24);

/// Part of Debian that has a mirror of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Archive {
    /// Releases, updates and backports.
    Debian,
    /// Corrections of security faults.
    Security,
}

impl Archive {
    fn label(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::Security => "Debian-Security",
        }
    }

    /// Where this machine has it from.
    fn mirror(self) -> Result<String> {
        let label = self.label();
        let mut query = Command::new("apt-get");
        query.args(["indextargets", "--format", "$(SITE)"]);
        query.args(["Created-By: Packages", "Origin: Debian"]);
        query.arg(format!("Label: {label}"));
        let sites = run_bounded(query, QUERY_LIMIT)?;
        let first = sites.lines().next().map(str::to_owned);
        first.with_context(|| format!("apt has no mirror of {label}"))
    }
}

/// apt with a configuration; the machine's own by default.
#[derive(Default)]
pub(crate) struct Apt {
    options: Vec<String>,
    /// Where it has lists of its own.
    lists: Option<PathBuf>,
}

impl Apt {
    /// With these suites of the mirrors that are configured, whether the machine has them
    /// configured or not; touches nothing outside of `folder`.
    pub(crate) fn of_suites(folder: &Path, suites: &[(Archive, &str)]) -> Result<Self> {
        fs::create_dir_all(folder.join(LISTS).join("partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let folder = folder.canonicalize()?;
        let sources = folder.join("sources.list");
        let mut lines = String::new();
        for (archive, suite) in suites {
            let mirror = archive.mirror()?;
            writeln!(lines, "deb [signed-by={KEYRING}] {mirror} {suite} main")?;
        }
        fs::write(&sources, lines).with_context(|| format!("writing {}", sources.display()))?;
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        let options = vec![
            option("Dir::Etc::SourceList", &sources),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::State::Lists", &folder.join(LISTS)),
            option("Dir::Cache", &folder.join("cache")),
        ];
        Ok(Self {
            options,
            lists: Some(folder.join(LISTS)),
        })
    }

    /// For packages of this architecture, in Debian's name, and no other one's.
    pub(crate) fn of_architecture(mut self, architecture: &str) -> Self {
        for option in ["APT::Architecture", "APT::Architectures"] {
            self.options.push(format!("{option}={architecture}"));
        }
        self
    }

    /// One of apt's programs.
    pub(crate) fn command(&self, program: &str) -> Command {
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

    /// `apt-get` with its first argument.
    pub(crate) fn get(&self, what: &str) -> Command {
        let mut command = self.command("apt-get");
        command.arg(what);
        command
    }

    /// Fetches lists of its own again when they are old.
    pub(crate) fn refresh(&self) -> Result<()> {
        match &self.lists {
            Some(lists) if !is_fresh(lists) => self.update(),
            _ => Ok(()),
        }
    }

    /// Fetches the lists of packages.
    pub(crate) fn update(&self) -> Result<()> {
        run_bounded(self.get("update"), DOWNLOAD_LIMIT)?;
        match &self.lists {
            Some(lists) => {
                fs::write(lists.join(STAMP), "").context("marking the lists of packages")
            }
            None => Ok(()),
        }
    }

    /// The same into a folder of the package's own, where it is kept for the next time as long as
    /// it is the newest one.
    pub(crate) fn download_once(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let mut query = self.get("download");
        query.args(["--print-uris", package]);
        let told = run_bounded(query, QUERY_LIMIT)?;
        // An address in quotes, the file's name, its size, its digest.
        let newest = told.split_whitespace().nth(1).unwrap_or_default();
        for entry in folder.read_dir()? {
            let entry = entry?;
            if entry.file_name() != newest {
                fs::remove_file(entry.path()).context("removing an older package")?;
            }
        }
        self.download(package, folder)
    }

    /// Downloads a package, such as `libc6` or `libc6=2.36-9`, into a folder that has no other one.
    pub(crate) fn download(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let mut download = self.get("download");
        download.arg(package).current_dir(folder);
        run_bounded(download, DOWNLOAD_LIMIT)
            .with_context(|| format!("downloading {}", package.replace('=', " ")))?;
        deb_in(folder)?.with_context(|| format!("apt-get left no file of {package} behind"))
    }
}

/// A field of a package's description; empty: it has none of that name.
pub(crate) fn field(package: &Path, name: &str) -> Result<String> {
    described(package, &[name])
}

/// The whole of a package's description.
pub(crate) fn control(package: &Path) -> Result<String> {
    described(package, &[])
}

fn described(package: &Path, fields: &[&str]) -> Result<String> {
    let mut query = Command::new("dpkg-deb");
    query.arg("--field").arg(package).args(fields);
    Ok(run_bounded(query, QUERY_LIMIT)?.trim().to_owned())
}

/// Whether lists of packages need not be fetched again.
fn is_fresh(lists: &Path) -> bool {
    let age = || lists.join(STAMP).metadata()?.modified();
    age().is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
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
