//! The package for Red Hat's systems, looked into with rpm's own tools.

use anyhow::{Result, ensure};

use super::machine::Machine;
use crate::steps::Steps;

/// A folder of the machine that stands for a system without any package.
const ROOT: &str = "/tmp/rpm-root";

/// Checks what the package asks for, its scriptlets, and what it puts where.
pub(super) fn look_into(
    steps: &mut Steps,
    machine: &Machine,
    package: &str,
    glibc: &str,
) -> Result<()> {
    steps.begin("Package for Red Hat's systems: what it asks for, its scriptlets, its files");
    machine.run(&["rpm", "--checksig", "--nosignature", package])?;
    let requires = machine.run(&["rpm", "-qp", "--requires", package])?;
    let newest = requires.lines().filter_map(glibc_of).max();
    let wanted: Vec<_> = glibc.split('.').map(str::parse).collect::<Result<_, _>>()?;
    ensure!(
        newest.as_ref() == Some(&wanted),
        "the binary needs glibc {glibc}, the package asks for:\n{requires}"
    );
    for needed in ["shadow-utils", "systemd"] {
        ensure!(
            requires.lines().any(|line| line.trim() == needed),
            "{needed} is not asked for:\n{requires}"
        );
    }

    for tag in ["PREIN", "POSTIN", "PREUN", "POSTUN"] {
        let query = format!("%{{{tag}PROG}}\\n%{{{tag}}}\\n");
        let script = machine.run(&["rpm", "-qp", "--queryformat", &query, package])?;
        ensure!(script.starts_with("/bin/sh\n"), "{tag}: {script}");
        machine.write(
            "/tmp/scriptlet",
            script.replacen("/bin/sh", "#", 1).as_bytes(),
        )?;
        // The shell of Red Hat's systems is bash.
        machine.run(&["bash", "--posix", "-n", "/tmp/scriptlet"])?;
    }

    let kept = machine.run(&["rpm", "-qp", "--configfiles", package])?;
    for file in [
        "/etc/flexvdi/flexvdi-gateway.conf",
        "/etc/logrotate.d/flexvdi-gateway",
    ] {
        ensure!(kept.lines().any(|line| line == file), "{file}: {kept}");
    }
    // All into a folder with a database of its own; the scriptlets are for a whole system.
    let alone = [
        "rpm",
        "--root",
        ROOT,
        "--install",
        "--nodeps",
        "--noscripts",
        package,
    ];
    machine.run(&["mkdir", ROOT])?;
    machine.run(&alone)?;
    machine.run(&[
        "rpm",
        "--root",
        ROOT,
        "--verify",
        "--nodeps",
        "--noscripts",
        // Nobody of that name is in there.
        "--nouser",
        "--nogroup",
        "flexvdi-gateway",
    ])?;
    let version = machine.run(&[&format!("{ROOT}/usr/sbin/flexvdi-gateway"), "--version"])?;
    ensure!(version.starts_with("flexvdi-gateway "), "{version}");
    machine.run(&[
        "rpm",
        "--root",
        ROOT,
        "--erase",
        "--noscripts",
        "flexvdi-gateway",
    ])?;
    let left = machine.run(&["find", ROOT, "-name", "*flexvdi-gateway*"])?;
    ensure!(left.is_empty(), "left behind: {left}");
    steps.done(format!(
        "asks for glibc {glibc}; four scriptlets that bash reads; installs, verifies and goes"
    ));
    Ok(())
}

/// The version of `libc.so.6(GLIBC_2.28)(64bit)`.
fn glibc_of(requirement: &str) -> Option<Vec<u32>> {
    let (_, version) = requirement.split_once("(GLIBC_")?;
    let (version, _) = version.split_once(')')?;
    version
        .split('.')
        .map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_glibc_are_read() {
        let read = |text| glibc_of(text);
        assert_eq!(read("libc.so.6(GLIBC_2.2.5)(64bit)"), Some(vec![2, 2, 5]));
        assert!(read("libm.so.6(GLIBC_2.29)(64bit)") > read("libc.so.6(GLIBC_2.3.4)(64bit)"));
        assert_eq!(read("libc.so.6()(64bit)"), None);
        assert_eq!(read("libgcc_s.so.1(GCC_3.0)(64bit)"), None);
    }
}
