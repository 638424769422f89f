//! A compiler for targets whose library is not there, as none is for eBPF: it builds the library
//! from source. So its source must be there, and the compiler must take unstable options: rustup's
//! nightly with rust-src, or rustc-web of Debian 12 and 13.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::command::{find_program, run_bounded};
use testkit::packages::{self, Package};

use crate::cargo;

const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// A compiler with the source of its library.
pub(crate) struct Toolchain {
    kind: Kind,
    library: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// rustup's nightly with rust-src.
    Nightly,
    /// Debian's rustc-web with rust-web-src.
    Debian,
}

impl Toolchain {
    /// Finds one, or installs Debian's; `note` is told before that takes long. Blocks.
    pub(crate) fn ensure(note: impl Fn(&str)) -> Result<Self> {
        let found = Self::nightly().or_else(Self::debian);
        if let Some(toolchain) = found {
            return Ok(toolchain);
        }
        note("installing Debian's rustc-web and the source of its library");
        packages::ensure(&[Package::RustcWeb]).context(
            "no compiler with the source of its library. With rustup: rustup toolchain install \
             nightly --component rust-src. On Debian 12 or 13 without it",
        )?;
        Self::debian().context("rustc-web was installed, but is not usable")
    }

    fn nightly() -> Option<Self> {
        let mut query = Command::new(find_program("rustup")?);
        query.args(["run", "nightly", "rustc", "--print", "sysroot"]);
        Self::with_library(Kind::Nightly, run_bounded(query, QUERY_LIMIT).ok()?.trim())
    }

    fn debian() -> Option<Self> {
        let mut query = Command::new(packages::DEBIAN_RUSTC);
        query.args(["--print", "sysroot"]);
        let sysroot = run_bounded(query, QUERY_LIMIT).ok()?;
        Self::with_library(Kind::Debian, sysroot.trim())
    }

    fn with_library(kind: Kind, sysroot: &str) -> Option<Self> {
        let library = Path::new(sysroot).join("lib/rustlib/src/rust/library");
        let is_there = library.join("core/Cargo.toml").is_file();
        is_there.then_some(Self { kind, library })
    }

    /// The folder with the source of its library.
    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    /// Cargo with this compiler.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = match self.kind {
            Kind::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
            Kind::Debian => cargo::command(&[]),
        };
        self.give_to(&mut command);
        command
    }

    /// Has a command that runs cargo use this compiler.
    pub(crate) fn give_to(&self, command: &mut Command) {
        match self.kind {
            Kind::Nightly => {
                // Set when one cargo runs another; they name the stable ones.
                for name in ["CARGO", "RUSTC", "RUSTDOC"] {
                    command.env_remove(name);
                }
                command.env("RUSTUP_TOOLCHAIN", "nightly");
            }
            Kind::Debian => {
                command
                    .env("RUSTC", packages::DEBIAN_RUSTC)
                    // Debian's is a stable one; building a library is not a stable thing.
                    .env("RUSTC_BOOTSTRAP", "1");
            }
        }
    }

    fn rustc(&self) -> Command {
        match self.kind {
            Kind::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "rustc"]);
                command
            }
            Kind::Debian => Command::new(packages::DEBIAN_RUSTC),
        }
    }

    /// The major version of the LLVM that the compiler has.
    pub(crate) fn llvm(&self) -> Result<u32> {
        let mut query = self.rustc();
        query.arg("-vV");
        let text = run_bounded(query, QUERY_LIMIT)?;
        text.lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .and_then(|version| version.split('.').next()?.parse().ok())
            .context("rustc does not tell its LLVM")
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Nightly => "rustup's nightly",
            Kind::Debian => "Debian's rustc-web",
        };
        f.write_str(name)
    }
}

/// Options with which a compiler writes other names into what it makes for the folders that it
/// reads: nothing must tell where it was built, so that all who build it get the same. `library`
/// is the source of the compiler's library, if that is built too.
pub(crate) fn remapped(library: Option<&Path>) -> Result<Vec<String>> {
    let mut folders = vec![
        (cargo_home()?, "/cargo"),
        (cargo::workspace().canonicalize()?, "/flexvdi-gateway"),
    ];
    if let Some(library) = library {
        folders.push((library.canonicalize()?, "/library"));
        folders.push((library.to_owned(), "/library"));
    }
    let option = |(path, name): &(PathBuf, &str)| {
        let path = path.to_str().context("a path that is not UTF-8")?;
        Ok(format!("--remap-path-prefix={path}={name}"))
    };
    folders.iter().map(option).collect()
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}
