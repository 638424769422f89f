//! Programs that the commands use and nobody else on the machine: built once, by version, into
//! cargo's target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use testkit::command::{run_bounded, target_dir};

use crate::cargo;
use crate::steps::Steps;

/// How long a program may take to be built.
const BUILD_LIMIT: Duration = Duration::from_mins(30);
const QUERY_LIMIT: Duration = Duration::from_mins(1);

/// A program of crates.io.
pub(crate) struct Tool {
    /// Its crate.
    pub(crate) name: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
}

/// What tells auditors which libraries are inside a program.
pub(crate) const AUDITABLE: Tool = Tool {
    name: "cargo-auditable",
    version: "0.7.7",
};
/// What writes bills of materials.
pub(crate) const CYCLONEDX: Tool = Tool {
    name: "cargo-cyclonedx",
    version: "0.5.9",
};
/// What makes zig cargo's linker.
pub(crate) const ZIGBUILD: Tool = Tool {
    name: "cargo-zigbuild",
    version: "0.24.1",
};

impl Tool {
    /// Finds it, or builds it; gives back the folder that it lies in.
    pub(crate) fn ensure(&self, steps: &Steps) -> Result<PathBuf> {
        let folder = folder()?.join(self.name);
        if self.is_in(&folder) {
            return Ok(folder.join("bin"));
        }
        steps.note(format!(
            "building {} {}, which takes some minutes",
            self.name, self.version
        ));
        let mut install = cargo::command(&["install", "--locked", "--quiet", "--force"]);
        install.args([self.name, "--version", self.version, "--root"]);
        install.arg(&folder);
        run_bounded(install, BUILD_LIMIT)?;
        Ok(folder.join("bin"))
    }

    /// Whether cargo has installed this version there: not every such program tells its own.
    fn is_in(&self, folder: &Path) -> bool {
        let installed = fs::read_to_string(folder.join(".crates.toml")).unwrap_or_default();
        let entry = format!("\"{} {} ", self.name, self.version);
        installed.contains(&entry) && folder.join("bin").join(self.name).is_file()
    }
}

/// Where they are.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = target_dir().join("tools");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(fs::canonicalize(folder)?)
}

/// Has a command find these folders' programs before all others.
pub(crate) fn find_first(command: &mut Command, folders: &[PathBuf]) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = folders.iter().cloned().chain(env::split_paths(&path));
    command.env("PATH", env::join_paths(all)?);
    Ok(())
}

/// Whether a program is there and has this version.
pub(crate) fn answers(program: &Path, question: &str, version: &str) -> bool {
    let mut asked = Command::new(program);
    asked.arg(question);
    let answer = run_bounded(asked, QUERY_LIMIT);
    answer.is_ok_and(|answer| answer.split_whitespace().any(|word| word == version))
}
