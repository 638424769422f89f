//! `apt-get` installs from the tree.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::ADDRESS;
use crate::demo::installed::Machine;
use crate::steps::Steps;

const KEY: &str = "/etc/apt/keyrings/flexvdi-gateway.asc";
/// Only the tree, without a proxy that the copied system may name.
const OPTIONS: [&str; 8] = [
    "-o",
    "Dir::Etc::SourceList=/dev/null",
    "-o",
    "Dir::Etc::SourceParts=/tmp/sources",
    "-o",
    "Acquire::http::Proxy::127.0.0.1=DIRECT",
    "-o",
    "Acquire::Retries=0",
];

/// As the documents say it; then from a tree whose package was changed.
pub(super) fn install(steps: &mut Steps, machine: &Machine, served: &Path) -> Result<()> {
    steps.begin("apt-get: a repository whose key is not known");
    machine.shell("mkdir -p /tmp/sources /etc/apt/keyrings && rm -f /etc/apt/keyrings/flexvdi*")?;
    let source = format!(
        "Types: deb\nURIs: http://{ADDRESS}/apt\nSuites: stable\nComponents: main\nSigned-By: {KEY}\n"
    );
    machine.write("/tmp/sources/flexvdi-gateway.sources", source.as_bytes())?;
    refused(update(machine), "NO_PUBKEY")?;
    ensure!(
        apt_get(machine, &["install", "flexvdi-gateway"]).is_err(),
        "apt-get installed from it all the same"
    );
    steps.done("refused");

    steps.begin("apt-get: the key, update, install");
    let url = format!("http://{ADDRESS}/apt/flexvdi-gateway.asc");
    let download = ["download-file", &url, KEY];
    machine.run(&[&["/usr/lib/apt/apt-helper"], &OPTIONS[..], &download].concat())?;
    update(machine)?;
    apt_get(machine, &["install", "flexvdi-gateway"])?;
    machine.run(&["dpkg", "--verify", "flexvdi-gateway"])?;
    let says = machine.run(&["flexvdi-gateway", "--version"])?;
    let policy =
        machine.run(&[&["apt-cache"], &OPTIONS[..], &["policy", "flexvdi-gateway"]].concat())?;
    ensure!(policy.contains(ADDRESS), "it came from elsewhere: {policy}");
    apt_get(machine, &["purge", "flexvdi-gateway"])?;
    steps.done(format!("{says} is installed, verified and gone again"));

    steps.begin("apt-get: a package that was changed in the repository");
    let pool = served.join("apt/pool");
    for entry in fs::read_dir(&pool)? {
        let path = entry?.path();
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("a package has bytes")? ^= 1;
        fs::write(&path, bytes)?;
    }
    machine.run(&["apt-get", "clean"])?;
    let installed = apt_get(machine, &["install", "flexvdi-gateway"]);
    refused(installed, "Unable to fetch some archives")?;
    steps.done("refused");
    Ok(())
}

/// Fails unless apt-get did, for this reason.
fn refused(outcome: Result<String>, reason: &str) -> Result<()> {
    match outcome {
        Ok(_) => bail!("apt-get took it all the same"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains(reason), "not for the reason {reason}: {text}");
            Ok(())
        }
    }
}

fn update(machine: &Machine) -> Result<String> {
    // Without this a repository that fails is a warning.
    apt_get(machine, &["-o", "APT::Update::Error-Mode=any", "update"])
}

fn apt_get(machine: &Machine, arguments: &[&str]) -> Result<String> {
    machine.run(&[&["apt-get", "-y"], &OPTIONS[..], arguments].concat())
}
