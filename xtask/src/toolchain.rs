//! A compiler that can build for eBPF, and its linker: what is on this machine, or is installed.
//!
//! The target has no core library of its own, so a compiler is needed whose library's source is
//! there and that takes unstable options: rustup's nightly with rust-src, or
//! rustc-web of Debian 12 and 13. bpf-linker must be built with the LLVM whose bitcode that
//! compiler writes.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::command::{find_program, run_bounded};
use testkit::packages::{self, Package};

use crate::cargo;

/// The linker's version; a newer one may ask for a newer LLVM.
const LINKER_VERSION: &str = "0.13.0";
const QUERY_LIMIT: Duration = Duration::from_secs(30);
/// LLVM that the linker can be built with from Debian's packages.
const DEBIAN_LLVM: u32 = 22;

/// A compiler with the source of its library.
pub(super) struct Toolchain {
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
    pub(super) fn ensure(note: impl Fn(&str)) -> Result<Self> {
        let found = Self::nightly().or_else(Self::debian);
        let toolchain = if let Some(toolchain) = found {
            toolchain
        } else {
            note("installing Debian's rustc-web and the source of its library");
            packages::ensure(&[Package::RustcWeb]).context(
                "no compiler for eBPF. With rustup: rustup toolchain install nightly \
                 --component rust-src. On Debian 12 or 13 without it",
            )?;
            Self::debian().context("rustc-web was installed, but is not usable")?
        };
        toolchain.ensure_linker(note)?;
        Ok(toolchain)
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
    pub(super) fn library(&self) -> &Path {
        &self.library
    }

    /// Cargo with this compiler.
    pub(super) fn cargo(&self) -> Command {
        match self.kind {
            Kind::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                // Set when one cargo runs another; they name the stable ones.
                for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
                    command.env_remove(name);
                }
                command
            }
            Kind::Debian => {
                let mut command = cargo::command(&[]);
                command
                    .env("RUSTC", packages::DEBIAN_RUSTC)
                    // Debian's is a stable one; building a core library is not a stable thing.
                    .env("RUSTC_BOOTSTRAP", "1");
                command
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

    fn ensure_linker(&self, note: impl Fn(&str)) -> Result<()> {
        if find_program("bpf-linker").is_some() {
            return Ok(());
        }
        let llvm = self.llvm()?;
        if llvm != DEBIAN_LLVM {
            bail!(
                "bpf-linker is missing, and this compiler has LLVM {llvm}. Install that LLVM with \
                 its headers, then: LLVM_PREFIX=/usr/lib/llvm-{llvm} cargo install --locked \
                 bpf-linker --no-default-features --features llvm-{llvm}"
            );
        }
        note(&format!(
            "building bpf-linker {LINKER_VERSION}, which takes some minutes"
        ));
        packages::ensure(&[Package::Llvm])?;
        let feature = format!("llvm-{llvm}");
        let mut install = cargo::command(&[
            "install",
            "--locked",
            "--quiet",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--no-default-features",
            "--features",
            &feature,
        ]);
        install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
        let status = install.status().context("starting cargo install")?;
        if !status.success() {
            bail!("cargo install bpf-linker: {status}");
        }
        Ok(())
    }

    /// The major version of the LLVM that the compiler has.
    fn llvm(&self) -> Result<u32> {
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
        write!(f, "{name}, bpf-linker")
    }
}

/// Where cargo keeps the sources of dependencies.
pub(super) fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}
