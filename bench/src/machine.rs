//! What the figures were measured on.

use std::fs;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// A machine, as its kernel describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// Processors that programs may use.
    pub(crate) cores: usize,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// Version of the kernel.
    pub(crate) kernel: String,
    /// Name and version of the distribution.
    pub(crate) system: String,
    /// Whether it is a virtual one.
    pub(crate) is_virtual: bool,
}

impl Machine {
    /// This machine.
    pub(crate) fn this() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kib: u64 = value(&meminfo, "MemTotal", ':')
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap_or_default();
        Ok(Self {
            cpu: value(&cpuinfo, "model name", ':').unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: kib / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            system: value(&release, "PRETTY_NAME", '=').unwrap_or_else(|| "unknown".to_owned()),
            is_virtual: value(&cpuinfo, "flags", ':')
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        })
    }
}

fn value(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_name() {
        let text = "model\t\t: 1\nmodel name\t: A CPU\nflags : fpu hypervisor\n";
        assert_eq!(value(text, "model name", ':').as_deref(), Some("A CPU"));
        assert_eq!(value("A=\"b c\"\n", "A", '=').as_deref(), Some("b c"));
        assert_eq!(value(text, "vendor", ':'), None);
        assert!(Machine::this().unwrap().cores > 0);
    }
}
