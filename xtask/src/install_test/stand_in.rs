//! Packages without files that stand for those of Rocky Linux 8: they have the names, and provide
//! what the packages of that system provide of what the gateway asks for. Those of Rocky Linux 9
//! provide the same and more.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;
use testkit::command::run_bounded;

use crate::steps::Steps;

/// The packages that the gateway's rpm leads to.
pub(super) const NAMES: [&str; 4] = ["bash", "glibc", "shadow-utils", "systemd"];

const LIMIT: Duration = Duration::from_mins(2);

/// The versions of symbols in glibc 2.28, by library; for x86-64, then for 64-bit ARM.
type Symbols = &'static [(&'static str, &'static [&'static str])];
const GLIBC: [Symbols; 2] = [
    &[
        (
            "libc.so.6",
            &[
                "2.2.5", "2.2.6", "2.3", "2.3.2", "2.3.3", "2.3.4", "2.4", "2.5", "2.6", "2.7",
                "2.8", "2.9", "2.10", "2.11", "2.12", "2.13", "2.14", "2.15", "2.16", "2.17",
                "2.18", "2.22", "2.23", "2.24", "2.25", "2.26", "2.27", "2.28",
            ],
        ),
        (
            "libm.so.6",
            &[
                "2.2.5", "2.4", "2.15", "2.18", "2.23", "2.24", "2.25", "2.26", "2.27", "2.28",
            ],
        ),
        (
            "libpthread.so.0",
            &[
                "2.2.5", "2.2.6", "2.3.2", "2.3.3", "2.3.4", "2.4", "2.11", "2.12", "2.18", "2.28",
            ],
        ),
        ("libdl.so.2", &["2.2.5", "2.3.3", "2.3.4"]),
        ("librt.so.1", &["2.2.5", "2.3.3", "2.3.4", "2.4", "2.7"]),
        ("libutil.so.1", &["2.2.5"]),
        ("ld-linux-x86-64.so.2", &["2.2.5", "2.3", "2.4"]),
    ],
    &[
        (
            "libc.so.6",
            &[
                "2.17", "2.18", "2.22", "2.23", "2.24", "2.25", "2.26", "2.27", "2.28",
            ],
        ),
        (
            "libm.so.6",
            &[
                "2.17", "2.18", "2.23", "2.24", "2.25", "2.26", "2.27", "2.28",
            ],
        ),
        ("libpthread.so.0", &["2.17", "2.18", "2.28"]),
        ("libdl.so.2", &["2.17"]),
        ("librt.so.1", &["2.17"]),
        ("libutil.so.1", &["2.17"]),
        ("ld-linux-aarch64.so.1", &["2.17"]),
    ],
];

/// Makes them, and a repository of them.
pub(super) fn make(steps: &mut Steps, folder: &Path) -> Result<()> {
    steps.begin("Stand-ins for Rocky Linux's packages");
    fs::create_dir_all(folder)?;
    let work = TempDir::with_prefix("flexvdi-gateway-stand-in-")?;
    for (name, version, provides) in [
        ("bash", "4.4.20", "Provides: /bin/sh\n".to_owned()),
        ("glibc", "2.28", glibc()),
        ("libgcc", "8.5.0", libgcc()),
        ("shadow-utils", "4.6", String::new()),
        ("systemd", "239", String::new()),
    ] {
        let spec = work.path().join(format!("{name}.spec"));
        let text = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: Stand-in\nLicense: MIT\n\
             {provides}\n%description\nStand-in\n\n%files\n"
        );
        fs::write(&spec, text)?;
        let mut build = Command::new("rpmbuild");
        build.arg("-bb");
        for (name, value) in [("_topdir", work.path()), ("_rpmdir", folder)] {
            build
                .arg("--define")
                .arg(format!("{name} {}", value.display()));
        }
        build.arg(spec);
        run_bounded(build, LIMIT)?;
    }
    let mut create = Command::new("createrepo_c");
    create.args(["--quiet", "--no-database"]).arg(folder);
    run_bounded(create, LIMIT)?;
    steps.done(NAMES.join(", "));
    Ok(())
}

/// What libgcc provides, which only binaries ask for that were linked without zig.
fn libgcc() -> String {
    let versions = ["", "GCC_3.0", "GCC_3.3", "GCC_4.2.0"];
    versions
        .map(|version| format!("Provides: libgcc_s.so.1({version})(64bit)\n"))
        .concat()
}

/// What glibc 2.28 provides.
fn glibc() -> String {
    let symbols = GLIBC[usize::from(cfg!(target_arch = "aarch64"))];
    let mut provides = "Provides: rtld(GNU_HASH)\n".to_owned();
    for (library, versions) in symbols {
        let _ = writeln!(provides, "Provides: {library}()(64bit)");
        for version in *versions {
            let _ = writeln!(provides, "Provides: {library}(GLIBC_{version})(64bit)");
        }
    }
    provides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibc_provides_its_own_version_and_nothing_newer() {
        let provides = glibc();
        assert!(provides.contains("libc.so.6(GLIBC_2.28)(64bit)"));
        assert!(!provides.contains("GLIBC_2.29"));
    }
}
