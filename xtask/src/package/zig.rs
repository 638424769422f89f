//! A build for systems whose C library is older than this machine's, or whose processor is another.
//!
//! zig knows which symbols every version of glibc has, for each processor, and links to one that
//! need not be here; cargo-zigbuild makes it cargo's linker, and the compiler of aws-lc.
//! cargo-auditable adds the list of what is inside. All are fetched once, into the target folder.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::command::run_bounded;
use testkit::packages::{self, Package};

use super::binary::Glibc;
use crate::architecture::Architecture;
use crate::cargo;
use crate::steps::Steps;
use crate::toolchain::{self, Toolchain};
use crate::tools::{self, AUDITABLE, ZIGBUILD};

/// The oldest C library that the packages are for: that of Red Hat Enterprise Linux 8.
pub(super) const OLDEST: Glibc = Glibc(2, 28);

const ZIG_VERSION: &str = "0.17.1";
/// How long the download of zig may take, which has 100 MB.
const FETCH_LIMIT: Duration = Duration::from_mins(10);
const QUERY_LIMIT: Duration = Duration::from_mins(1);

/// zig, cargo-zigbuild and cargo-auditable, ready for use.
pub(super) struct Zig {
    zig: PathBuf,
    /// Where the other two are.
    programs: [PathBuf; 2],
}

impl Zig {
    /// Finds them, or fetches them.
    pub(super) fn ensure(steps: &Steps) -> Result<Self> {
        let found = zig(steps, &tools::folder()?).and_then(|zig| {
            let programs = [ZIGBUILD.ensure(steps)?, AUDITABLE.ensure(steps)?];
            Ok(Self { zig, programs })
        });
        found.with_context(|| {
            format!(
                "no tools to build for glibc {OLDEST}; with --native the packages are built for \
                 this machine and its glibc and later ones instead"
            )
        })
    }

    /// Builds the gateway with a profile of cargo, its output shown. The list of what is inside is
    /// part of the program.
    pub(super) fn build(
        &self,
        steps: &Steps,
        profile: &str,
        architecture: Architecture,
    ) -> Result<()> {
        let [_, auditable] = &self.programs;
        let target = architecture.target();
        let caches = self.zig.with_file_name("cache");
        let mut build = Command::new(auditable.join(AUDITABLE.name));
        build
            .args(["auditable", "zigbuild", "--locked", "-p", "gateway"])
            .args(["--profile", profile])
            .args(["--target", &format!("{target}.{OLDEST}")])
            .current_dir(cargo::workspace())
            .env("CARGO_ZIGBUILD_ZIG_PATH", &self.zig)
            .env("CARGO_ZIGBUILD_CACHE_DIR", &caches)
            .env("ZIG_GLOBAL_CACHE_DIR", &caches)
            .env("ZIG_LOCAL_CACHE_DIR", &caches)
            .env_remove("RUSTFLAGS");
        tools::find_first(&mut build, &self.programs)?;
        let mut library = None;
        if !has_library(&target)? {
            let toolchain = Toolchain::ensure(|text| steps.note(text))?;
            steps.note(format!(
                "cargo's compiler has no library for {target}: {toolchain} builds it from source"
            ));
            toolchain.give_to(&mut build);
            build.args(["-Z", "build-std=std,panic_unwind"]);
            library = Some(toolchain.library().to_owned());
        }
        let flags = toolchain::remapped(library.as_deref())?;
        build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        let status = build.status().context("starting cargo auditable")?;
        ensure!(status.success(), "cargo auditable zigbuild: {status}");
        Ok(())
    }
}

/// Whether cargo's compiler has the library of a target.
fn has_library(target: &str) -> Result<bool> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut query = Command::new(rustc);
    query.args(["--print", "target-libdir", "--target", target]);
    query.current_dir(cargo::workspace());
    let folder = run_bounded(query, QUERY_LIMIT)?;
    Ok(Path::new(folder.trim()).is_dir())
}

/// The compiler, as `PyPI` has it.
fn zig(steps: &Steps, tools: &Path) -> Result<PathBuf> {
    let folder = tools.join(format!("zig-{ZIG_VERSION}"));
    let zig = folder.join("zig");
    if tools::answers(&zig, "version", ZIG_VERSION) {
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
        tools::answers(&zig, "version", ZIG_VERSION),
        "{} was fetched and is not zig {ZIG_VERSION}",
        zig.display()
    );
    Ok(zig)
}
