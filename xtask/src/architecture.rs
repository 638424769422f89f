//! Processors that packages and images are for.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use oci_spec::image::Arch;
use testkit::packages::{self, Package};

/// A processor, by the name that both Debian and images have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// The one that is given, or that of this machine.
    pub(crate) fn or_own(given: Option<Self>) -> Result<Self> {
        given.or(Self::own()).context(
            "packages and images are for amd64 and arm64: on this machine, name one (--arch)",
        )
    }

    /// That of this machine.
    pub(crate) fn own() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its name among packages for Red Hat's systems, and in target triples.
    pub(crate) fn of_rpm(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// The target of Rust with glibc.
    pub(crate) fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.of_rpm())
    }

    /// One of binutils' programs, for programs of this architecture.
    pub(crate) fn binutils(self, program: &str) -> Result<Command> {
        packages::ensure(&[match self {
            Self::Amd64 => Package::BinutilsAmd64,
            Self::Arm64 => Package::BinutilsArm64,
        }])?;
        Ok(Command::new(format!(
            "{}-linux-gnu-{program}",
            self.of_rpm()
        )))
    }

    /// The name in an image's description.
    pub(crate) fn of_image(self) -> Arch {
        match self {
            Self::Amd64 => Arch::Amd64,
            Self::Arm64 => Arch::ARM64,
        }
    }

    /// Fails unless this is a program for it: `e_machine` of elf(5).
    pub(crate) fn check(self, program: &[u8]) -> Result<()> {
        const LITTLE_ENDIAN_64: &[u8] = b"\x7fELF\x02\x01";
        let machine = program.get(18..20).context("no program: too short")?;
        ensure!(
            program.starts_with(LITTLE_ENDIAN_64),
            "no 64-bit program for Linux"
        );
        let wanted: u16 = match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        };
        ensure!(
            machine == wanted.to_le_bytes(),
            "not a program for {}",
            self.name()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_processor() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let is = Architecture::own().unwrap();
        is.check(&own).unwrap();
        let other = match is {
            Architecture::Amd64 => Architecture::Arm64,
            Architecture::Arm64 => Architecture::Amd64,
        };
        assert!(other.check(&own).is_err());
        assert!(is.check(b"#!/bin/sh").is_err());
        assert!(is.check(&[0; 64]).is_err());
    }
}
