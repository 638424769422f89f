//! The machine that a measurement is about.

use std::fs;

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// What processors do, by vendor, family, model and features. Unlike `/proc/cpuinfo` it can be read
/// where a unit hides what is not about processes (`ProcSubset=pid`).
const PROCESSOR: &str = "/sys/devices/system/cpu/modalias";
/// Which processors are in use, as in `0-3`.
const PROCESSORS: &str = "/sys/devices/system/cpu/online";
/// How much of the digest of the features is kept, in bytes.
const DIGEST: usize = 8;

/// A kernel and its processors: with others, paths cost something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release, as `uname -r` shows it.
    pub kernel: String,
    /// The processor: its model as the kernel names it for modules, and a digest of its features.
    pub processor: String,
    /// Which processors are in use, as in `0-3`.
    pub processors: String,
}

impl Machine {
    /// This one. Fails where the system does not tell.
    pub fn this() -> anyhow::Result<Self> {
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            kernel,
            processor: processor(&read(PROCESSOR)?)?,
            processors: read(PROCESSORS)?,
        })
    }

    /// What is different on `other`; `None`: nothing that matters.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let parts = [
            ("kernel", &self.kernel, &other.kernel),
            ("processor", &self.processor, &other.processor),
            ("processors", &self.processors, &other.processors),
        ];
        let (name, own, theirs) = parts.into_iter().find(|(_, own, theirs)| own != theirs)?;
        Some(format!("{name} {theirs}, now {own}"))
    }
}

fn read(path: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    ensure!(!text.trim().is_empty(), "{path} is empty");
    Ok(text.trim().to_owned())
}

/// As in `x86,ven0000fam0006mod008F/0123456789abcdef`.
fn processor(modalias: &str) -> anyhow::Result<String> {
    let known = modalias
        .strip_prefix("cpu:type:")
        .context("an unknown form of the processor")?;
    let (model, features) = known.split_once(":feature:").unwrap_or((known, ""));
    let digest = digest(&SHA256, features.as_bytes());
    let digest = digest
        .as_ref()
        .iter()
        .take(DIGEST)
        .map(|byte| format!("{byte:02x}"));
    Ok(format!("{model}/{}", digest.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_features_tell_processors_apart() {
        let one = processor("cpu:type:x86,ven0000fam0006mod008F:feature:,0000,0001").unwrap();
        let (model, digest) = one.split_once('/').unwrap();
        assert_eq!((model, digest.len()), ("x86,ven0000fam0006mod008F", 16));
        let other = processor("cpu:type:x86,ven0000fam0006mod008F:feature:,0000").unwrap();
        assert_ne!(one, other);
        assert!(processor("").is_err());
    }

    #[test]
    fn this_machine_is_itself() {
        let this = Machine::this().unwrap();
        assert_eq!(this.difference(&this.clone()), None);
        let other = Machine {
            kernel: "5.0".to_owned(),
            ..this.clone()
        };
        let expected = format!("kernel 5.0, now {}", this.kernel);
        assert_eq!(this.difference(&other), Some(expected));
    }
}
