//! `cargo xtask repository`: trees of files that `apt-get` and `dnf` install from, to be served by
//! any web server.

mod apt;
mod dnf;
mod key;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use testkit::packages::{self, Package};

use crate::steps::Steps;

pub(crate) use key::Key;

/// The file with the public key, beside what it signs.
pub(crate) const PUBLIC_KEY: &str = "flexvdi-gateway.asc";

/// What repositories are made with.
pub(crate) const TOOLS: [Package; 2] = [Package::AptUtils, Package::Createrepo];

/// Of what, and where.
#[derive(Args)]
pub(crate) struct Options {
    /// Folder with the packages, of one or several versions and architectures.
    packages: PathBuf,
    /// Folder that gets the trees `apt` and `dnf`; what is there of them is replaced.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Sign with this key of gpg; without it nothing is signed.
    #[arg(long, value_name = "ID")]
    gpg_key: Option<String>,
}

/// Makes both trees.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    let key = options.gpg_key.as_deref().map(Key::find).transpose()?;
    make(steps, &options.packages, &options.to, key.as_ref())
}

/// Makes the trees of all packages that lie in a folder.
pub(crate) fn make(steps: &mut Steps, packages: &Path, to: &Path, key: Option<&Key>) -> Result<()> {
    packages::ensure(&TOOLS)?;
    let debs = files(packages, "deb")?;
    let rpms = files(packages, "rpm")?;
    ensure!(
        !debs.is_empty() || !rpms.is_empty(),
        "{} holds neither debs nor rpms",
        packages.display()
    );
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    if !debs.is_empty() {
        steps.begin("Repository for apt");
        let tree = empty(to, "apt")?;
        apt::make(&tree, &debs, key)?;
        steps.done(outcome(&tree, debs.len(), key));
    }
    if !rpms.is_empty() {
        steps.begin("Repository for dnf");
        let tree = empty(to, "dnf")?;
        dnf::make(&tree, &rpms, key)?;
        steps.done(outcome(&tree, rpms.len(), key));
    }
    Ok(())
}

fn outcome(tree: &Path, packages: usize, key: Option<&Key>) -> String {
    let signed = key.map_or_else(|| "UNSIGNED".to_owned(), |key| format!("signed by {key}"));
    format!("{}, {packages} packages, {signed}", tree.display())
}

/// What is behind the last separator in a package's name, before its ending.
fn architecture(package: &Path, separator: char) -> Result<String> {
    let name = package.file_stem().and_then(|name| name.to_str());
    let found = name.and_then(|name| name.rsplit_once(separator));
    let (_, architecture) =
        found.with_context(|| format!("{} names no architecture", package.display()))?;
    Ok(architecture.to_owned())
}

/// The files of a kind that lie in the folder itself, in the order of their names.
pub(crate) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|is| is == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A folder without anything in it.
fn empty(parent: &Path, name: &str) -> Result<PathBuf> {
    let folder = parent.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

/// Puts a package into a folder, which is made if need be.
pub(crate) fn add(folder: &Path, package: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let to = folder.join(package.file_name().context("a package has a name")?);
    fs::copy(package, &to).with_context(|| format!("copying {}", package.display()))?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_is_in_the_name() {
        let of = |name: &str, separator| architecture(Path::new(name), separator).ok();
        let deb = "/x_y/flexvdi-gateway_1.2_arm64.deb";
        assert_eq!(of(deb, '_').as_deref(), Some("arm64"));
        assert_eq!(of("flexvdi-gateway.deb", '_'), None);
        let rpm = "/x.y/flexvdi-gateway-1.2-1.aarch64.rpm";
        assert_eq!(of(rpm, '.').as_deref(), Some("aarch64"));
        assert_eq!(of("package.rpm", '.'), None);
    }
}
