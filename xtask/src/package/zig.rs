//! A build for systems whose C library is older than this machine's.
//!
//! zig knows which symbols every version of glibc has, and links to one that need not be here;
//! cargo-zigbuild makes it cargo's linker, and the compiler of aws-lc. Both are fetched once, into
//! the target folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::command::{run_bounded, target_dir};
use testkit::packages::{self, Package};

use super::binary::Glibc;
use crate::cargo;
use crate::steps::Steps;

/// The oldest C library that the packages are for: that of Red Hat Enterprise Linux 8.
pub(super) const OLDEST: Glibc = Glibc(2, 28);

const ZIG_VERSION: &str = "0.17.1";
const ZIGBUILD_VERSION: &str = "0.24.1";
/// How long the download of zig may take, which has 100 MB.
const FETCH_LIMIT: Duration = Duration::from_mins(10);
/// How long cargo-zigbuild may take to be built.
const BUILD_LIMIT: Duration = Duration::from_mins(15);
const QUERY_LIMIT: Duration = Duration::from_mins(1);

/// The target triple of this machine with glibc.
pub(super) fn target() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// zig and cargo-zigbuild, ready for use.
pub(super) struct Zig {
    zig: PathBuf,
    zigbuild: PathBuf,
}

impl Zig {
    /// Finds both, or fetches them.
    pub(super) fn ensure(steps: &Steps) -> Result<Self> {
        let tools = target_dir().join("tools");
        fs::create_dir_all(&tools).with_context(|| format!("making {}", tools.display()))?;
        let tools = fs::canonicalize(tools)?;
        let found = zig(steps, &tools).and_then(|zig| {
            let zigbuild = zigbuild(steps, &tools)?;
            Ok(Self { zig, zigbuild })
        });
        found.with_context(|| {
            format!(
                "no tools to build for glibc {OLDEST}; with --native the packages are built for \
                 this machine's glibc and later ones instead"
            )
        })
    }

    /// Builds the gateway with a profile of cargo, its output shown.
    pub(super) fn build(&self, profile: &str) -> Result<()> {
        let target = format!("{}.{OLDEST}", target());
        let caches = self.zig.with_file_name("cache");
        let status = Command::new(&self.zigbuild)
            .args(["zigbuild", "-p", "gateway", "--profile", profile])
            .args(["--target", &target])
            .current_dir(cargo::workspace())
            .env("CARGO_ZIGBUILD_ZIG_PATH", &self.zig)
            .env("CARGO_ZIGBUILD_CACHE_DIR", &caches)
            .env("ZIG_GLOBAL_CACHE_DIR", &caches)
            .env("ZIG_LOCAL_CACHE_DIR", &caches)
            .status()
            .with_context(|| format!("starting {}", self.zigbuild.display()))?;
        ensure!(status.success(), "cargo zigbuild: {status}");
        Ok(())
    }
}

/// The compiler, as `PyPI` has it.
fn zig(steps: &Steps, tools: &Path) -> Result<PathBuf> {
    let folder = tools.join(format!("zig-{ZIG_VERSION}"));
    let zig = folder.join("zig");
    if answers(&zig, "version", ZIG_VERSION) {
        return Ok(zig);
    }
    packages::ensure(&[Package::PythonVenv])?;
    steps.note(format!("fetching zig {ZIG_VERSION} (ziglang of PyPI)"));
    let mut python = Command::new("python3");
    python.args(["-m", "venv", "--clear"]).arg(&folder);
    run_bounded(python, FETCH_LIMIT)?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-cache-dir"]);
    pip.arg(format!("ziglang=={ZIG_VERSION}"));
    run_bounded(pip, FETCH_LIMIT)?;
    let mut asked = Command::new(folder.join("bin/python"));
    asked.args(["-c", "import ziglang; print(ziglang.__path__[0])"]);
    let package = run_bounded(asked, QUERY_LIMIT)?;
    // Where it is found again without Python.
    std::os::unix::fs::symlink(Path::new(package.trim()).join("zig"), &zig)?;
    ensure!(
        answers(&zig, "version", ZIG_VERSION),
        "{} was fetched and is not zig {ZIG_VERSION}",
        zig.display()
    );
    Ok(zig)
}

fn zigbuild(steps: &Steps, tools: &Path) -> Result<PathBuf> {
    let folder = tools.join("cargo-zigbuild");
    let program = folder.join("bin/cargo-zigbuild");
    if answers(&program, "--version", ZIGBUILD_VERSION) {
        return Ok(program);
    }
    steps.note(format!(
        "building cargo-zigbuild {ZIGBUILD_VERSION}, which takes some minutes"
    ));
    let mut install = cargo::command(&["install", "--locked", "--quiet", "--force"]);
    install.args(["cargo-zigbuild", "--version", ZIGBUILD_VERSION, "--root"]);
    install.arg(&folder);
    run_bounded(install, BUILD_LIMIT)?;
    Ok(program)
}

/// Whether a program is there and has this version.
fn answers(program: &Path, question: &str, version: &str) -> bool {
    let mut asked = Command::new(program);
    asked.arg(question);
    let answer = run_bounded(asked, QUERY_LIMIT);
    answer.is_ok_and(|answer| answer.split_whitespace().any(|word| word == version))
}
