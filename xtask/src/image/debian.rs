//! What the gateway needs of a system, out of Debian's packages: the C library with its lookup of
//! names, authorities, and spice-html5.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::command::target_dir;

use super::tree::Tree;
use crate::apt::{self, Apt, Archive};
use crate::architecture::Architecture;
use crate::steps::Steps;

/// The release that everything is from, with its corrections.
const SUITES: [(Archive, &str); 3] = [
    (Archive::Debian, "trixie"),
    (Archive::Debian, "trixie-updates"),
    (Archive::Security, "trixie-security"),
];

/// What is taken of them is in [`is_wanted`].
const PACKAGES: [&str; 5] = [
    "base-files",
    "ca-certificates",
    "libc6",
    "libgcc-s1",
    "spice-html5",
];

/// The libraries that programs made by Rust link to, and what the C library loads for names. The
/// names of libraries that became part of `libc.so.6` stay for programs linked to older ones.
const LIBRARIES: [&str; 9] = [
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
];

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where the package has each authority in a file of its own.
const AUTHORITIES: &str = "usr/share/ca-certificates/";

/// How long a package may take to be unpacked.
const UNPACK_LIMIT: Duration = Duration::from_mins(1);

/// Part of a system.
pub(super) struct Debian {
    /// Its files.
    pub(super) tree: Tree,
    /// Its packages: name and version.
    pub(super) packages: Vec<(String, String)>,
}

impl Debian {
    /// Fetches it: the newest packages, whose lists are up to a day old.
    pub(super) fn fetch(steps: &Steps, architecture: Architecture) -> Result<Self> {
        let folder = target_dir().join("image/apt").join(architecture.name());
        let apt = Apt::of_suites(&folder, &SUITES)?.of_architecture(architecture.name());
        apt.refresh()
            .context("fetching Debian's lists of packages")?;
        let downloads = folder.join("packages");
        match Self::unpack_all(&apt, &downloads) {
            Err(error) => {
                steps.note(format!("fetching the lists of packages again: {error:#}"));
                apt.update()?;
                Self::unpack_all(&apt, &downloads)
            }
            done => done,
        }
    }

    /// The version of its C library, such as `2.41`.
    pub(super) fn glibc(&self) -> Result<&str> {
        let version = self.packages.iter().find(|(name, _)| name == "libc6");
        let (_, version) = version.context("there is no libc6")?;
        Ok(version.split_once('-').map_or(version, |(this, _)| this))
    }

    fn unpack_all(apt: &Apt, downloads: &Path) -> Result<Self> {
        let fetch = |name: &str| apt.download_once(name, &downloads.join(name));
        let mut all = Self {
            tree: Tree::default(),
            packages: Vec::new(),
        };
        for name in PACKAGES {
            let package = fetch(name)?;
            all.unpack(name, &package)?;
            if name == "libgcc-s1" {
                // That is where its licence is.
                let depends = apt::field(&package, "Depends")?;
                let base = licence_of_libgcc(&depends).context("libgcc-s1 without gcc-base")?;
                all.unpack(base, &fetch(base)?)?;
            }
        }
        Ok(all)
    }

    fn unpack(&mut self, name: &str, package: &Path) -> Result<()> {
        let files = Tree::from_tar(&fsys_tar(package)?, |path| is_wanted(name, path));
        let mut files = files.with_context(|| format!("unpacking {}", package.display()))?;
        ensure!(files.size() > 0, "nothing of {name} is of use");
        if name == "ca-certificates" {
            files = bundled(&files)?;
        }
        self.tree.add(files);
        // Where programs that look for known faults read what is inside.
        let control = apt::control(package)?;
        let status = format!("var/lib/dpkg/status.d/{name}");
        self.tree.file(&status, 0o644, format!("{control}\n"));
        let version = apt::field(package, "Version")?;
        self.packages.push((name.to_owned(), version));
        Ok(())
    }
}

/// The one file that Debian makes of all authorities when the package is installed.
fn bundled(package: &Tree) -> Result<Tree> {
    let mut bundle = Vec::new();
    let mut tree = Tree::default();
    for (path, content) in package.files() {
        if !path.starts_with(AUTHORITIES) {
            tree.file(path, 0o644, content);
            continue;
        }
        bundle.extend_from_slice(content);
        if !content.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    ensure!(!bundle.is_empty(), "Debian's package has no authorities");
    tree.file(BUNDLE, 0o644, bundle);
    Ok(tree)
}

/// Whether a file of a package belongs into the image.
fn is_wanted(package: &str, path: &str) -> bool {
    if path == format!("usr/share/doc/{package}/copyright")
        || path == format!("usr/share/doc/{package}")
    {
        return true;
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    match package {
        "base-files" => {
            ["bin", "lib", "lib64", "sbin", "etc/debian_version"].contains(&path)
                || name == "os-release"
                || path.starts_with("usr/share/common-licenses/")
        }
        "ca-certificates" => path.starts_with(AUTHORITIES) && name.strip_suffix(".crt").is_some(),
        "libc6" | "libgcc-s1" => LIBRARIES.contains(&name) || name.starts_with("ld-linux-"),
        "spice-html5" => path.starts_with("usr/share/spice-html5/"),
        _ => false,
    }
}

/// The package that libgcc-s1 shares a folder of documents with.
fn licence_of_libgcc(depends: &str) -> Option<&str> {
    let names = depends
        .split(", ")
        .filter_map(|one| one.split_whitespace().next());
    let mut bases = names.filter(|name| name.starts_with("gcc-") && name.ends_with("-base"));
    bases.next()
}

/// The files of a package, as one archive.
fn fsys_tar(package: &Path) -> Result<Vec<u8>> {
    let mut archive = tempfile::tempfile()?;
    let mut dpkg = Command::new("timeout");
    dpkg.arg(UNPACK_LIMIT.as_secs().to_string())
        .args(["dpkg-deb", "--fsys-tarfile"])
        .arg(package)
        .stdout(archive.try_clone()?);
    let status = dpkg.status().context("starting dpkg-deb")?;
    ensure!(
        status.success(),
        "{}: dpkg-deb: {status}",
        package.display()
    );
    read_all(&mut archive)
}

fn read_all(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_into_the_image() {
        for (package, path) in [
            ("libc6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
            ("libc6", "usr/lib64/ld-linux-x86-64.so.2"),
            ("libc6", "usr/lib/ld-linux-aarch64.so.1"),
            ("libc6", "usr/share/doc/libc6/copyright"),
            ("libgcc-s1", "usr/share/doc/libgcc-s1"),
            ("base-files", "lib64"),
            ("base-files", "etc/os-release"),
            ("ca-certificates", "usr/share/ca-certificates/mozilla/X.crt"),
        ] {
            assert!(is_wanted(package, path), "{path}");
        }
        for (package, path) in [
            ("libc6", "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so"),
            ("libc6", "usr/share/doc/libc6/NEWS.gz"),
            ("base-files", "etc/issue"),
            ("base-files", "root"),
            ("ca-certificates", "usr/sbin/update-ca-certificates"),
        ] {
            assert!(!is_wanted(package, path), "{path}");
        }
    }

    #[test]
    fn the_licence_of_libgcc_is_found() {
        let depends = "gcc-14-base (= 14.2.0-19), libc6 (>= 2.35)";
        assert_eq!(licence_of_libgcc(depends), Some("gcc-14-base"));
        assert_eq!(licence_of_libgcc("libc6 (>= 2.35)"), None);
    }
}
