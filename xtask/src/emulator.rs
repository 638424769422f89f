//! Runs programs for another processor: QEMU with the C library of Debian for that one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::command::run_bounded;
use testkit::packages::{self, Package};

use crate::apt::{Apt, Archive};
use crate::architecture::Architecture;
use crate::steps::Steps;
use crate::tools;

/// Its release is one that the emulator of Debian 12 can run.
const SUITES: [(Archive, &str); 1] = [(Archive::Debian, "bookworm")];
/// What programs made by Rust link to.
const LIBRARIES: [&str; 2] = ["libc6", "libgcc-s1"];
const UNPACK_LIMIT: Duration = Duration::from_mins(1);

/// An emulator, and what its programs see as `/lib`.
pub(crate) struct Emulator {
    program: PathBuf,
    root: PathBuf,
}

impl Emulator {
    /// Finds it, or fetches it.
    pub(crate) fn ensure(steps: &Steps, architecture: Architecture) -> Result<Self> {
        packages::ensure(&[Package::QemuUser])?;
        let name = architecture.of_rpm();
        let program = packages::qemu_user(name)
            .with_context(|| format!("there is no qemu-{name}: install qemu-user"))?;
        let root = tools::folder()?.join(format!("root-{}", architecture.name()));
        if !root.join("complete").is_file() {
            steps.note(format!(
                "fetching Debian's C library for {}",
                architecture.name()
            ));
            fetch(&root, architecture)?;
        }
        Ok(Self { program, root })
    }

    /// A command that runs this program.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-L").arg(&self.root).arg(program);
        command
    }

    /// A script that is the program with the emulator around it.
    pub(crate) fn script(&self, program: &Path) -> String {
        format!(
            "#!/bin/sh\nexec '{}' -L '{}' '{}' \"$@\"\n",
            self.program.display(),
            self.root.display(),
            program.display()
        )
    }
}

fn fetch(root: &Path, architecture: Architecture) -> Result<()> {
    let work = root.with_extension("apt");
    let apt = Apt::of_suites(&work, &SUITES)?.of_architecture(architecture.name());
    apt.update()
        .context("fetching Debian's lists of packages")?;
    for name in LIBRARIES {
        let package = apt.download_once(name, &work.join(name))?;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&package).arg(root);
        run_bounded(unpack, UNPACK_LIMIT)?;
    }
    fs::write(root.join("complete"), "").context("marking it as complete")
}
