//! The targets, and their build.

use std::path::PathBuf;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use testkit::command::target_dir;

use crate::cargo;

/// A fuzz target.
pub(crate) struct Target {
    /// Its name, and that of its program.
    pub(crate) name: String,
}

impl Target {
    /// All targets, by name.
    pub(super) fn all() -> Result<Vec<Self>> {
        let folder = folder()?.join("fuzz_targets");
        let files =
            fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let paths: Vec<PathBuf> = files
            .map(|file| Ok(file?.path()))
            .collect::<io::Result<_>>()?;
        let mut names: Vec<String> = paths
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        Ok(names.into_iter().map(|name| Self { name }).collect())
    }

    pub(super) fn program(&self) -> Result<PathBuf> {
        Ok(target_dir().canonicalize()?.join("debug").join(&self.name))
    }

    /// Inputs that people made, and those that once were a crash.
    pub(super) fn seeds(&self) -> Result<PathBuf> {
        Ok(folder()?.join("seeds").join(&self.name))
    }

    /// Inputs that libFuzzer found worth keeping.
    pub(super) fn corpus(&self) -> Result<PathBuf> {
        self.own_folder("corpus")
    }

    /// Inputs at which the target failed.
    pub(super) fn crashes(&self) -> Result<PathBuf> {
        self.own_folder("crashes")
    }

    fn own_folder(&self, kind: &str) -> Result<PathBuf> {
        let folder = target_dir().canonicalize()?.join("fuzz").join(kind);
        let folder = folder.join(&self.name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }
}

/// Builds targets as `fuzz/instrument.sh` says, with what is built already of other crates.
pub(super) fn build(targets: &[Target]) -> Result<()> {
    let folder = folder()?;
    let mut command = cargo::command(&["build", "--quiet", "--manifest-path"]);
    command
        .arg(folder.join("Cargo.toml"))
        .args(targets.iter().flat_map(|target| ["--bin", &target.name]))
        .env("CARGO_TARGET_DIR", target_dir().canonicalize()?)
        .env("RUSTC_WRAPPER", folder.join("instrument.sh"));
    let status = command.status().context("starting cargo for the targets")?;
    ensure!(status.success(), "building the targets: {status}");
    Ok(())
}

fn folder() -> Result<PathBuf> {
    let folder = cargo::workspace().join("fuzz");
    folder
        .canonicalize()
        .with_context(|| format!("looking for {}", folder.display()))
}
