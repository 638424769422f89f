//! The gateway's binary: what it tells of itself, what it is linked to, and on which systems it
//! runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::command::{run_bounded, target_dir};

use crate::architecture::Architecture;
use crate::emulator::Emulator;
use crate::steps::Steps;

/// How long any program that looks at the binary may take.
const LIMIT: Duration = Duration::from_mins(1);
const STRIP_LIMIT: Duration = Duration::from_mins(2);

/// Systems and their version of glibc, the oldest first.
const SYSTEMS: [(Glibc, &str); 6] = [
    (Glibc(2, 28), "RHEL 8"),
    (Glibc(2, 31), "Debian 11"),
    (Glibc(2, 34), "RHEL 9"),
    (Glibc(2, 36), "Debian 12"),
    (Glibc(2, 39), "RHEL 10"),
    (Glibc(2, 41), "Debian 13"),
];

/// A version of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Glibc(pub(super) u32, pub(super) u32);

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The profile of cargo that is quick to build and not for use.
pub(super) const TEST_PROFILE: &str = "dev";

/// A built gateway.
pub(crate) struct Binary {
    path: PathBuf,
    profile: String,
    architecture: Architecture,
    /// What runs it, if this machine's processor does not.
    emulator: Option<Emulator>,
}

impl Binary {
    /// The one that cargo built with this profile for this machine.
    pub(super) fn native(profile: &str) -> Result<Self> {
        Self::find(profile, "", Architecture::or_own(None)?, None)
    }

    /// The one that cargo built with this profile for a target.
    pub(crate) fn of_target(
        steps: &Steps,
        profile: &str,
        architecture: Architecture,
    ) -> Result<Self> {
        let is_own = Architecture::own() == Some(architecture);
        let emulator = (!is_own).then(|| Emulator::ensure(steps, architecture));
        let target = architecture.target();
        Self::find(profile, &target, architecture, emulator.transpose()?)
    }

    fn find(
        profile: &str,
        target: &str,
        architecture: Architecture,
        emulator: Option<Emulator>,
    ) -> Result<Self> {
        let folder = if profile == TEST_PROFILE {
            "debug"
        } else {
            profile
        };
        let built = target_dir().join(target);
        let path = built.join(folder).join("flexvdi-gateway");
        ensure!(path.is_file(), "there is no {}", path.display());
        Ok(Self {
            path: path.canonicalize()?,
            profile: profile.to_owned(),
            architecture,
            emulator,
        })
    }

    /// Whether nobody will use it but tests.
    pub(super) fn is_for_tests(&self) -> bool {
        self.profile == TEST_PROFILE
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it is for.
    pub(crate) fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// What runs it, if this machine's processor does not.
    pub(crate) fn emulator(&self) -> Option<&Emulator> {
        self.emulator.as_ref()
    }

    /// Writes it without what only debuggers read, which is most of it.
    pub(super) fn strip(&self, to: &Path) -> Result<()> {
        let mut strip = self.architecture.binutils("strip")?;
        strip.args(["--strip-unneeded", "--remove-section=.comment", "-o"]);
        strip.arg(to).arg(&self.path);
        run_bounded(strip, STRIP_LIMIT)?;
        Ok(())
    }

    /// The libraries that it is linked to, such as `libc.so.6`.
    pub(super) fn libraries(&self) -> Result<Vec<String>> {
        let mut objdump = self.architecture.binutils("objdump")?;
        objdump.arg("-p").arg(&self.path);
        let headers = run_bounded(objdump, LIMIT)?;
        let names = headers.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("NEEDED")).then(|| words.next().map(str::to_owned))?
        });
        Ok(names.collect())
    }

    /// Its version, as it says itself.
    pub(crate) fn version(&self) -> Result<String> {
        let said = self.run(&["--version"])?;
        let version = said.split_whitespace().last();
        Ok(version.context("the gateway tells no version")?.to_owned())
    }

    /// A text about its command line that packages ship.
    pub(crate) fn document(&self, name: &str) -> Result<String> {
        self.run(&["document", name])
    }

    /// The oldest glibc that has all it needs.
    pub(super) fn glibc(&self) -> Result<Glibc> {
        let mut objdump = self.architecture.binutils("objdump")?;
        objdump.arg("-T").arg(&self.path);
        let needed = newest_glibc(&run_bounded(objdump, LIMIT)?);
        needed.context("it needs no glibc at all")
    }

    /// The same, with who has it.
    pub(super) fn where_it_runs(&self) -> Result<String> {
        let needed = self.glibc()?;
        let runs = |wanted: bool| {
            let names: Vec<_> = SYSTEMS
                .iter()
                .filter(|(has, _)| (needed <= *has) == wanted)
                .map(|(_, name)| *name)
                .collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        Ok(format!(
            "needs glibc {needed}: new enough in {}; too old in {}",
            runs(true),
            runs(false)
        ))
    }

    /// What it prints when it is run with these arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = match &self.emulator {
            Some(emulator) => emulator.command(&self.path),
            None => Command::new(&self.path),
        };
        command.args(arguments);
        run_bounded(command, LIMIT)
    }
}

/// The newest version among the symbols `GLIBC_x.y` of objdump's list.
fn newest_glibc(symbols: &str) -> Option<Glibc> {
    symbols
        .split(|c: char| c.is_whitespace() || c == '(' || c == ')')
        .filter_map(|word| {
            let mut numbers = word.strip_prefix("GLIBC_")?.split('.');
            Some(Glibc(
                numbers.next()?.parse().ok()?,
                numbers.next()?.parse().ok()?,
            ))
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let symbols = "\
0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.2.5) getenv
0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.34) pthread_create
0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.9)  epoll_create1
0000000000000000      DF *UND*\t0000000000000000 (GCC_3.0)    _Unwind_Resume
0000000000000000  w   D  *UND*\t0000000000000000  Base        __gmon_start__";
        assert_eq!(newest_glibc(symbols), Some(Glibc(2, 34)));
        assert_eq!(newest_glibc("no symbols"), None);
    }
}
