//! Processors that images are for.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use oci_spec::image::Arch;

/// A processor, by the name that both Debian and images have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// That of this machine.
    pub(super) fn own() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The name in an image's description.
    pub(super) fn of_image(self) -> Arch {
        match self {
            Self::Amd64 => Arch::Amd64,
            Self::Arm64 => Arch::ARM64,
        }
    }

    /// Fails unless this is a program for it: `e_machine` of elf(5).
    pub(super) fn check(self, program: &[u8]) -> Result<()> {
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
