//! A second build in another folder, whose files must have the bytes of the first.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::command::run_bounded;

use super::Build;
use super::checksums::names;
use crate::cargo::{self, WORKSPACE};
use crate::steps::Steps;
use crate::tools;

/// What marks a folder as one for caches (<https://bford.info/cachedir/>).
const CACHE: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";
const CLONE_LIMIT: Duration = Duration::from_mins(5);

/// Fails unless a build of the commit, in a folder of its own, gives the same files.
pub(super) fn verify(
    steps: &mut Steps,
    build: &Build<'_>,
    commit: &str,
    first: &Path,
) -> Result<()> {
    steps.begin("The same again, in another folder");
    let work = TempDir::with_prefix("flexvdi-gateway-release-")?;
    let (source, target) = (work.path().join("source"), work.path().join("target"));
    let mut clone = Command::new("git");
    clone.args(["clone", "--quiet", "--no-checkout"]);
    clone.arg(cargo::workspace().canonicalize()?).arg(&source);
    run_bounded(clone, CLONE_LIMIT)?;
    let mut checkout = Command::new("git");
    checkout.arg("-C").arg(&source);
    checkout.args(["checkout", "--quiet", "--detach", commit]);
    run_bounded(checkout, CLONE_LIMIT)?;
    // The programs that build are the same, and not part of what is compared.
    fs::create_dir(&target)?;
    // By it the gateway's build finds the eBPF programs; cargo writes it only into folders that it
    // makes itself.
    fs::write(target.join("CACHEDIR.TAG"), CACHE)?;
    std::os::unix::fs::symlink(tools::folder()?, target.join("tools"))?;

    let second = work.path().join("second");
    let mut again = Command::new(env::current_exe()?);
    again.arg("release-again");
    again.args(["--profile", build.profile]);
    for architecture in build.architectures {
        again.args(["--arch", architecture.name()]);
    }
    again.arg("--to").arg(&second);
    again
        .env(WORKSPACE, &source)
        .env("CARGO_TARGET_DIR", &target);
    let status = again.status().context("starting the second build")?;
    ensure!(status.success(), "the second build: {status}");
    let files = compare(first, &second)?;
    steps.done(format!("{files} files have the same bytes"));
    Ok(())
}

/// Fails unless both folders have the same files; gives back how many.
fn compare(first: &Path, second: &Path) -> Result<usize> {
    let (names, others) = (names(first)?, names(second)?);
    ensure!(
        names == others,
        "the second build has other files: {} and {}",
        names.join(", "),
        others.join(", ")
    );
    let differs = |name: &String| -> Result<bool> {
        Ok(fs::read(first.join(name))? != fs::read(second.join(name))?)
    };
    let mut different = Vec::new();
    for name in &names {
        if differs(name)? {
            different.push(name.as_str());
        }
    }
    ensure!(
        different.is_empty(),
        "these files have other bytes in the second build: {}",
        different.join(", ")
    );
    Ok(names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let [a, b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for folder in [&a, &b] {
            fs::write(folder.path().join("same"), "1").unwrap();
            fs::write(folder.path().join("other"), "1").unwrap();
        }
        assert_eq!(compare(a.path(), b.path()).unwrap(), 2);
        fs::write(b.path().join("other"), "2").unwrap();
        let told = compare(a.path(), b.path()).unwrap_err().to_string();
        assert!(told.ends_with("second build: other"), "{told}");
        fs::remove_file(b.path().join("other")).unwrap();
        let told = compare(a.path(), b.path()).unwrap_err().to_string();
        assert!(told.contains("other files"), "{told}");
    }
}
