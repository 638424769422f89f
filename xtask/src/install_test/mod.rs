//! `cargo xtask install-test`: `apt-get` and `dnf` install from the repositories, over HTTP, on a
//! machine of their own.

mod apt;
mod dnf;
mod stand_in;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use tempfile::TempDir;
use testkit::command::target_dir;
use testkit::packages::{self, Package};

use crate::demo::installed::Machine;
use crate::repository::{self, Key};
use crate::steps::Steps;

/// Where the trees are served, and nobody else is reached: the machine has a network of its own.
const ADDRESS: &str = "127.0.0.1:8000";

/// What is to be installed.
#[derive(Args)]
pub(crate) struct Options {
    /// Folder with the packages; that of `cargo xtask package` when not given.
    packages: Option<PathBuf>,
}

/// Makes signed trees and installs from them; trees that were changed afterwards are refused.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    packages::ensure(&[
        Package::Systemd,
        Package::Gnupg,
        Package::Rpm,
        Package::Dnf,
        Package::PythonVenv,
    ])?;
    let packages = options
        .packages
        .clone()
        .unwrap_or_else(|| target_dir().join("packages"));
    let served = TempDir::with_prefix("flexvdi-gateway-served-")?;
    // The signatures go into copies.
    let signed = served.path().join("packages");
    let mut found = repository::files(&packages, "deb")?;
    found.extend(repository::files(&packages, "rpm")?);
    ensure!(
        !found.is_empty(),
        "{} holds no packages: run `cargo xtask package` first",
        packages.display()
    );
    for package in &found {
        repository::add(&signed, package)?;
    }
    let key = Key::for_test()?;
    key.sign_rpms(&signed)?;
    repository::make(steps, &signed, served.path(), Some(&key))?;
    let other = Key::for_test()?;
    other.write_public(&served.path().join("other.asc"))?;
    stand_in::make(steps, &served.path().join("base"))?;

    steps.begin("Machine with a server of HTTP");
    let machine = Machine::boot(served.path())?;
    machine.run(&[
        "systemd-run",
        "--quiet",
        "--unit=repositories",
        "/usr/bin/python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        "/mnt",
        "8000",
    ])?;
    let helper = format!(
        "until /usr/lib/apt/apt-helper -o Acquire::http::Proxy::127.0.0.1=DIRECT \
         download-file http://{ADDRESS}/other.asc /tmp/other.asc; \
         do sleep 0.1; done"
    );
    machine.shell(&helper)?;
    steps.done(format!("serves on {ADDRESS}"));

    apt::install(steps, &machine, served.path())?;
    dnf::install(steps, &machine)
}
