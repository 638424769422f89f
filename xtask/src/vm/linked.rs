//! Programs for virtual machines, with the libraries that they are linked to.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::command::{find_program, run_bounded};

const LDD_LIMIT: Duration = Duration::from_secs(30);

/// A program and all files that it needs at its start.
pub(crate) struct Linked {
    pub(crate) program: PathBuf,
    /// Paths of the shared libraries and of the dynamic linker; empty for a static program.
    pub(crate) libraries: Vec<PathBuf>,
}

impl Linked {
    /// A program that is linked to shared libraries.
    pub(crate) fn new(program: PathBuf) -> Result<Self> {
        let mut ldd = Command::new("ldd");
        // The virtual machine has the usual folders only.
        ldd.arg(&program).env_remove("LD_LIBRARY_PATH");
        let libraries = parse(&run_bounded(ldd, LDD_LIMIT)?)?;
        Ok(Self { program, libraries })
    }

    /// A program that needs no other file.
    pub(crate) fn alone(program: PathBuf) -> Self {
        Self {
            program,
            libraries: Vec::new(),
        }
    }

    /// The program of this machine with this name.
    pub(crate) fn find(name: &str) -> Result<Self> {
        Self::new(find_program(name).with_context(|| format!("no program {name}"))?)
    }
}

/// The paths in the output of ldd(1): `NAME => PATH (ADDRESS)`, or the path alone for the dynamic
/// linker, or a name alone for what the kernel itself brings along.
fn parse(output: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in output.lines() {
        ensure!(!line.contains("not found"), "ldd says: {}", line.trim());
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        libraries.extend(path.map(PathBuf::from));
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found() {
        let output = "\tlinux-vdso.so.1 (0x00007fa0)\n\
            \tlibssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x00007fa0)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007fa0)\n";
        let paths = [
            "/lib/x86_64-linux-gnu/libssl.so.3",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse(output).unwrap(), paths.map(PathBuf::from));
        assert!(parse("\tlibssl.so.3 => not found\n").is_err());
    }
}
