//! Faults of the kernel's TLS that strangers may reach, and that no probe may try: they damage the
//! kernel's memory. Only the version tells.
//!
//! A vendor that keeps to a version and corrects it by itself is not told apart, so its kernels are
//! refused, too: a desktop on `relay` lacks nothing.

use anyhow::bail;

use crate::kernel_release::{Release, parse, running};

struct Fault {
    name: &'static str,
    what: &'static str,
    /// The first release of each series that is kept up and has the correction.
    corrected: &'static [Release],
    /// The first release of all later series.
    since: Release,
}

/// With the versions that the kernel's own CVE records name as not affected.
const FAULTS: [Fault; 2] = [
    Fault {
        name: "CVE-2026-23240",
        what: "memory may be used after a connection has ended",
        corrected: &[(6, 12, 75), (6, 18, 16), (6, 19, 6)],
        since: (7, 0, 0),
    },
    Fault {
        name: "CVE-2026-64047",
        what: "the list of a record's pieces may be damaged while it is sealed",
        corrected: &[
            (5, 10, 258),
            (5, 15, 209),
            (6, 1, 175),
            (6, 6, 142),
            (6, 12, 92),
            (6, 18, 34),
            (7, 0, 11),
        ],
        since: (7, 1, 0),
    },
];

impl Fault {
    fn is_in(&self, release: Release) -> bool {
        let (major, minor, _) = release;
        let is_corrected = |&corrected: &Release| {
            (corrected.0, corrected.1) == (major, minor) && release >= corrected
        };
        release < self.since && !self.corrected.iter().any(is_corrected)
    }
}

/// Fails with the reason if this kernel has a fault that is known.
pub(crate) fn refuse_faulty() -> anyhow::Result<()> {
    refuse(&running())
}

fn refuse(release: &str) -> anyhow::Result<()> {
    let Some(parsed) = parse(release) else {
        bail!("nothing is known of the kernel TLS of Linux {release}");
    };
    match FAULTS.iter().find(|fault| fault.is_in(parsed)) {
        Some(Fault { name, what, .. }) => {
            bail!("the kernel TLS of Linux {release} is known to be faulty ({name}): {what}")
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_refused_until_their_series_is_corrected() {
        for release in [
            "5.14.0-611.el9.x86_64",
            "6.1.0-57-cloud-amd64",
            "6.1.192",
            "6.12.74+deb12-amd64",
            "6.12.91",
            "6.14.11",
            "6.18.33",
            "6.19.14",
            "7.0.10",
        ] {
            let refused = refuse(release).unwrap_err().to_string();
            assert!(refused.contains(release), "{refused}");
            assert!(refused.contains("CVE-2026-"), "{refused}");
        }
        for release in [
            "6.12.92",
            "6.12.117+deb12-cloud-amd64",
            "6.18.34-1",
            "7.0.11",
            "7.1-rc2",
            "7.3.4+deb13-cloud-amd64",
            "10.0",
        ] {
            assert!(refuse(release).is_ok(), "{release}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for release in ["", "next", "6", "6.x"] {
            assert!(refuse(release).is_err(), "{release}");
        }
    }
}
