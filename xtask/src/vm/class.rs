//! Which kernels are wanted, by what they can do rather than by versions that come and go.

use std::cmp::Ordering;
use std::ops::Range;

use anyhow::{Context, Result};

/// A kind of kernel; the newest that the archive has stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What it is good for.
    pub(crate) meaning: &'static str,
    /// Versions of its kernels: from this one on and before that one.
    versions: Range<Release>,
    /// Whether they are looked for among Debian's backports, too.
    pub(crate) backports: bool,
    /// Data paths that these kernels carry; docs/data-paths.md says why not all.
    pub(crate) carries: &'static [&'static str],
}

/// Major, minor, patch level.
type Release = (u32, u32, u32);

/// The TLS of these kernels has a fault for which the gateway refuses it.
const WITHOUT_TLS: &[&str] = &["relay", "sockmap"];
const USUAL: &[&str] = &["relay", "sockmap", "ktls"];
const ALL: &[&str] = &["relay", "sockmap", "ktls", "ktls-sockmap"];

/// All classes. The patch levels are those with commit 460e6486617c, "tls: reject the combination
/// of TLS and sockmap".
pub(crate) const CLASSES: [Class; 5] = [
    Class {
        name: "6.1",
        meaning: "newest 6.1",
        versions: (6, 1, 0)..(6, 2, 0),
        backports: false,
        carries: WITHOUT_TLS,
    },
    Class {
        name: "6.12",
        meaning: "newest 6.12",
        versions: (6, 12, 0)..(6, 13, 0),
        backports: false,
        carries: USUAL,
    },
    Class {
        name: "6.1-ktls-sockmap",
        meaning: "newest 6.1 before 6.1.190, so with kTLS and sockmap on one socket",
        versions: (6, 1, 0)..(6, 1, 190),
        backports: false,
        carries: WITHOUT_TLS,
    },
    Class {
        name: "6.12-ktls-sockmap",
        meaning: "newest 6.12 before 6.12.111, so with kTLS and sockmap on one socket",
        versions: (6, 12, 0)..(6, 12, 111),
        backports: false,
        carries: ALL,
    },
    Class {
        name: "new-keys",
        meaning: "newest of Debian's backports from 6.14 on, so kTLS takes new keys (KeyUpdate)",
        versions: (6, 14, 0)..(u32::MAX, 0, 0),
        backports: true,
        carries: USUAL,
    },
];

impl Class {
    /// The class of this name; the error names all there are.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = CLASSES.iter().find(|class| class.name == name);
        found.cloned().with_context(|| {
            let names: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
            format!(
                "there is no class of kernels {name:?}, but {}",
                names.join(", ")
            )
        })
    }

    /// Whether this kernel belongs to it.
    fn has(&self, version: &Version) -> bool {
        self.versions.contains(&version.kernel)
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

/// Where a package can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The archive as the machine's apt is configured to see it.
    Configured,
    /// Debian's backports.
    Backports,
}

/// A package of Debian's archive with a kernel for virtual machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelPackage {
    /// As in `linux-image-6.1.0-56-cloud-amd64`.
    pub(crate) name: String,
    /// The package's version, as in `6.1.192-2`.
    pub(crate) version: String,
    /// Where it can be had.
    pub(crate) source: Source,
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
    kernel: Release,
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
            source: Source::Configured,
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
            package("7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"),
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
        assert_eq!(first("new-keys"), name("7.3.4+deb13-cloud-amd64"));
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
