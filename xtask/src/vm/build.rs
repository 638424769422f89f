//! Builds the programs that run in virtual machines.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testkit::command::target_dir;

use super::linked::Linked;
use crate::cargo;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const GATEWAY: &str = "flexvdi-gateway";
const INIT: &str = "vm-init";
const BENCH: &str = "vm-bench";
/// What the tests run that is not built here: a client, what starts a gateway as another user, and
/// what makes and runs their scripts.
const OTHERS: [&str; 6] = ["openssl", "setpriv", "prlimit", "sh", "bash", "install"];
/// The name by which the data paths' unit tests are chosen; they are no test target for cargo.
const UNIT: &str = "unit";

/// The programs of a virtual machine.
pub(crate) struct Programs {
    /// The first process of the virtual machine.
    pub(crate) init: Linked,
    /// The gateway.
    pub(crate) gateway: Linked,
    /// Names and test executables, in the order in which they were asked for; or the one that
    /// measures.
    pub(crate) tests: Vec<(String, Linked)>,
    /// Other programs that the tests run.
    pub(crate) others: Vec<Linked>,
}

/// Builds the named tests, which are integration tests or `unit`, and what they need: the very
/// programs of `cargo test --workspace`, so whoever has run that has nothing left to build.
pub(crate) fn build(tests: &[String]) -> Result<Programs> {
    let mut arguments = vec!["build", "--workspace", "--bin", GATEWAY, "--bin", INIT];
    // Features of tests count as soon as a test is built, here the smallest.
    arguments.extend(["--test", "modules"]);
    for test in tests.iter().filter(|test| *test != UNIT) {
        arguments.extend(["--test", test]);
    }
    let mut artifacts = artifacts(cargo::command(&arguments))?;
    if tests.iter().any(|test| test == UNIT) {
        let arguments = ["test", "--workspace", "--no-run", "--lib"];
        artifacts.extend(self::artifacts(cargo::command(&arguments))?);
    }
    let find = |kind: &str, name: &str| Linked::new(find(&artifacts, kind, name)?);
    let find_test = |name: &String| {
        let program = if name == UNIT {
            find("lib", "gateway_datapath")?
        } else {
            find("test", name)?
        };
        Ok((name.clone(), program))
    };
    Ok(Programs {
        init: find("bin", INIT)?,
        gateway: find("bin", GATEWAY)?,
        tests: tests.iter().map(find_test).collect::<Result<_>>()?,
        others: OTHERS
            .map(Linked::find)
            .into_iter()
            .collect::<Result<_>>()?,
    })
}

/// Builds what drives the gateway's data paths, and the gateway as it is released, without shared
/// libraries.
pub(crate) fn build_bench() -> Result<Programs> {
    let mut command = cargo::command(&["build", "--profile", "release", "--target", TARGET]);
    command
        .args(["--package", "gateway"])
        .args(["--package", "gateway-datapath"])
        .args(["--package", "tests"])
        .args([GATEWAY, INIT, BENCH].iter().flat_map(|bin| ["--bin", bin]))
        // Its own folder, so that other flags do not make cargo build everything again.
        .arg("--target-dir")
        .arg(target_dir().canonicalize()?.join("vm/build"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    let artifacts = artifacts(command)?;
    let find = |name: &str| find(&artifacts, "bin", name).map(Linked::alone);
    Ok(Programs {
        init: find(INIT)?,
        gateway: find(GATEWAY)?,
        tests: vec![(BENCH.to_owned(), find(BENCH)?)],
        others: Vec::new(),
    })
}

fn find(artifacts: &[Artifact], kind: &str, name: &str) -> Result<PathBuf> {
    let found = artifacts.iter().find(|artifact| artifact.is(kind, name));
    let path = found.and_then(|artifact| artifact.executable.clone());
    path.with_context(|| format!("cargo built no {kind} {name}"))
}

/// What cargo says that it has built; one line of `--message-format json`.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Artifact {
    fn is(&self, kind: &str, name: &str) -> bool {
        self.target.name == name && self.target.kind.iter().any(|is| is == kind)
    }
}

/// Runs a cargo command that builds, and gives back the executables.
fn artifacts(mut command: Command) -> Result<Vec<Artifact>> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machines are x86-64 ones, so is the machine that builds for them"
    );
    command
        .args(["--quiet", "--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let output = command.output().context("starting cargo")?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// The executables among cargo's messages.
fn parse(messages: &str) -> Vec<Artifact> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter(|artifact| artifact.executable.is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found() {
        let messages = r#"{"reason":"build-script-executed","package_id":"x"}
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"gateway"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"stream"},"executable":"/t/stream-1"}
{"reason":"build-finished","success":true}"#;
        let found = parse(messages);
        assert_eq!(found.len(), 1);
        assert!(found[0].is("test", "stream"));
        assert!(!found[0].is("bin", "stream"));
    }
}
