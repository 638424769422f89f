//! Which kernels are wanted, by what they can do rather than by versions that come and go.

use std::cmp::Ordering;

use anyhow::{Context, Result};

/// A kind of kernel; the newest that the archive has stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What it is good for.
    pub(crate) meaning: &'static str,
    series: (u32, u32),
    /// Only versions before this patch level.
    before: Option<u32>,
    /// Modules of tests for data paths that these kernels refuse, or on which nobody relies
    /// there; docs/datapaths.md says why.
    pub(crate) refused: &'static [&'static str],
}

/// All classes. The patch levels are those with commit 460e6486617c, "tls: reject the combination
/// of TLS and sockmap".
pub(crate) const CLASSES: [Class; 4] = [
    Class {
        name: "6.1",
        meaning: "newest 6.1",
        series: (6, 1),
        before: None,
        refused: &["ktls_sockmap"],
    },
    Class {
        name: "6.12",
        meaning: "newest 6.12",
        series: (6, 12),
        before: None,
        refused: &["ktls_sockmap"],
    },
    Class {
        name: "6.1-ktls-sockmap",
        meaning: "newest 6.1 before 6.1.190, so with kTLS and sockmap on one socket",
        series: (6, 1),
        before: Some(190),
        refused: &["ktls_sockmap"],
    },
    Class {
        name: "6.12-ktls-sockmap",
        meaning: "newest 6.12 before 6.12.111, so with kTLS and sockmap on one socket",
        series: (6, 12),
        before: Some(111),
        refused: &[],
    },
];

impl Class {
    /// The class of this name; the error names all there are.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = CLASSES.iter().find(|class| class.name == name);
        found.copied().with_context(|| {
            let names: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
            format!(
                "there is no class of kernels {name:?}, but {}",
                names.join(", ")
            )
        })
    }

    /// Whether this kernel belongs to it.
    fn has(&self, version: &Version) -> bool {
        let (major, minor, patch) = version.kernel;
        (major, minor) == self.series && self.before.is_none_or(|before| patch < before)
    }

    /// The newest of these packages that belongs to it first.
    pub(crate) fn choose(&self, packages: &[KernelPackage]) -> Vec<KernelPackage> {
        let mut chosen: Vec<_> = packages
            .iter()
            .filter(|package| Version::parse(&package.version).is_some_and(|v| self.has(&v)))
            .cloned()
            .collect();
        chosen.sort_by(newest_first);
        chosen
    }
}

/// A package of Debian's archive with a kernel for virtual machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelPackage {
    /// As in `linux-image-6.1.0-56-cloud-amd64`.
    pub(crate) name: String,
    /// The package's version, as in `6.1.192-2`.
    pub(crate) version: String,
}

impl KernelPackage {
    /// Whether a package of this name has a kernel for virtual machines and says its version.
    pub(crate) fn is_kernel(name: &str) -> bool {
        let flavour = name.strip_prefix("linux-image-").and_then(|rest| {
            rest.strip_suffix("-cloud-amd64")
                .or_else(|| rest.strip_suffix("-cloud-amd64-unsigned"))
        });
        // Those of meta-packages, as `6.12`, have no patch level.
        flavour.is_some_and(|version| {
            version.matches('.').count() >= 2 && version.starts_with(|c: char| c.is_ascii_digit())
        })
    }
}

fn newest_first(one: &KernelPackage, other: &KernelPackage) -> Ordering {
    // Of both kinds of the same kernel the signed one is what machines run.
    let key = |package: &KernelPackage| {
        let signed = !package.name.ends_with("-unsigned");
        (Version::parse(&package.version), signed)
    };
    key(other).cmp(&key(one))
}

/// What of a package's version orders kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    /// Major, minor, patch level.
    kernel: (u32, u32, u32),
    /// Debian's own number for what it has changed.
    revision: u32,
}

impl Version {
    /// Reads `6.12.117-1~deb12u1`; `None` for anything that is not a kernel's version.
    fn parse(text: &str) -> Option<Self> {
        let (kernel, revision) = text.split_once('-')?;
        let mut numbers = kernel.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let kernel = (next()?, next()?, next()?);
        let digits = revision.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self {
            kernel,
            revision: digits.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> KernelPackage {
        KernelPackage {
            name: format!("linux-image-{name}"),
            version: version.to_owned(),
        }
    }

    #[test]
    fn the_newest_of_a_class_is_first() {
        let packages = [
            package("6.1.0-47-cloud-amd64", "6.1.170-3"),
            package("6.1.0-56-cloud-amd64-unsigned", "6.1.192-2"),
            package("6.1.0-56-cloud-amd64", "6.1.192-2"),
            package("6.1.0-55-cloud-amd64", "6.1.192-1"),
            package("6.1.0-53-cloud-amd64", "6.1.187-1"),
            package("6.12.107+deb12-cloud-amd64", "6.12.107-1~deb12u1"),
            package("6.12.95+deb12-cloud-amd64", "6.12.95-1~deb12u1"),
            package("6.12.111+deb12-cloud-amd64", "6.12.111-1~deb12u1"),
        ];
        let first = |class: &str| {
            let chosen = Class::named(class).unwrap().choose(&packages);
            chosen.first().map(|package| package.name.clone())
        };
        let name = |name: &str| Some(format!("linux-image-{name}"));
        assert_eq!(first("6.1"), name("6.1.0-56-cloud-amd64"));
        assert_eq!(first("6.12"), name("6.12.111+deb12-cloud-amd64"));
        assert_eq!(first("6.1-ktls-sockmap"), name("6.1.0-53-cloud-amd64"));
        assert_eq!(
            first("6.12-ktls-sockmap"),
            name("6.12.107+deb12-cloud-amd64")
        );
        assert!(
            Class::named("6.1")
                .unwrap()
                .choose(&packages[5..])
                .is_empty()
        );
    }

    #[test]
    fn unknown_classes_are_refused_with_the_known_ones() {
        let problem = Class::named("6.2").unwrap_err().to_string();
        assert!(problem.contains("6.12-ktls-sockmap"), "{problem}");
    }

    #[test]
    fn kernels_are_told_from_other_packages() {
        assert!(KernelPackage::is_kernel("linux-image-6.1.0-56-cloud-amd64"));
        assert!(KernelPackage::is_kernel(
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned"
        ));
        for other in [
            "linux-image-6.12-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-56-amd64",
        ] {
            assert!(!KernelPackage::is_kernel(other), "{other}");
        }
    }
}
