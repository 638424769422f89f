//! `dnf` installs from the tree into a root of its own, where stand-ins for the packages of Rocky
//! Linux have what it asks for.

use anyhow::{Result, ensure};

use super::{ADDRESS, stand_in};
use crate::demo::installed::Machine;
use crate::steps::Steps;

const ROOT: &str = "/tmp/dnf-root";

/// As the documents say it; with another's key it is refused.
pub(super) fn install(steps: &mut Steps, machine: &Machine) -> Result<()> {
    steps.begin("dnf: a repository that another's key signed");
    machine.shell("mkdir -p /tmp/repos")?;
    let sample = "/mnt/dnf/flexvdi-gateway.repo";
    let place = "/tmp/repos/flexvdi-gateway.repo";
    machine.shell(&format!(
        "sed -e 's|https://packages.example.com|http://{ADDRESS}|' \
         -e 's|^gpgkey=.*|gpgkey=http://{ADDRESS}/other.asc|' {sample} > {place}"
    ))?;
    let base = format!("[base]\nname=Stand-ins\nbaseurl=http://{ADDRESS}/base\ngpgcheck=0\n");
    machine.write("/tmp/repos/base.repo", base.as_bytes())?;
    ensure!(
        dnf(machine, &["install", "flexvdi-gateway"]).is_err(),
        "dnf installed from it all the same"
    );
    steps.done("refused");

    steps.begin("dnf: install");
    machine.shell(&format!("rm -rf {ROOT} /tmp/dnf-cache"))?;
    machine.shell(&format!(
        "sed 's|https://packages.example.com|http://{ADDRESS}|' {sample} > {place}"
    ))?;
    dnf(machine, &["install", "flexvdi-gateway"])?;
    let installed = machine.run(&["rpm", "--root", ROOT, "--query", "--all"])?;
    for name in stand_in::NAMES {
        ensure!(
            installed.lines().any(|line| line.starts_with(name)),
            "{name} was not installed for it:\n{installed}"
        );
    }
    let files = ["--nodeps", "--noscripts", "--nouser", "--nogroup"];
    let verify = [
        &["rpm", "--root", ROOT, "--verify"],
        &files[..],
        &["flexvdi-gateway"],
    ];
    machine.run(&verify.concat())?;
    let says = machine.run(&[&format!("{ROOT}/usr/sbin/flexvdi-gateway"), "--version"])?;
    steps.done(format!(
        "{says} is installed with what it asks for, and verified"
    ));
    Ok(())
}

fn dnf(machine: &Machine, arguments: &[&str]) -> Result<String> {
    let root = format!("--installroot={ROOT}");
    let options = [
        "dnf",
        "--assumeyes",
        "--quiet",
        &root,
        "--releasever=9",
        "--setopt=reposdir=/tmp/repos",
        "--setopt=cachedir=/tmp/dnf-cache",
        "--setopt=proxy=",
        // The stand-ins have no shell.
        "--setopt=tsflags=noscripts",
    ];
    machine.run(&[&options[..], arguments].concat())
}
