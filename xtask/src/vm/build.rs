//! Builds what runs inside: programs that need no file of the system but themselves.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testkit::command::target_dir;

use super::foreign::Foreign;
use crate::cargo;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const GATEWAY: &str = "flexvdi-gateway";
const INIT: &str = "vm-init";
const BENCH: &str = "vm-bench";
/// What the tests run that is not built here: a client, and what starts a gateway as another user.
const FOREIGN: [&str; 3] = ["openssl", "setpriv", "prlimit"];
/// Profile of the tests, and of what is measured.
const TEST_PROFILE: &str = "vm";
const BENCH_PROFILE: &str = "release";
/// The name by which the data paths' unit tests are chosen; they are no test target for cargo.
const UNIT: &str = "unit";
/// The packages that are built; always the same ones, for others would have features of their own
/// and so build everything again.
const PACKAGES: [&str; 6] = [
    "--package",
    "gateway",
    "--package",
    "gateway-datapath",
    "--package",
    "tests",
];

/// Static programs, but for the clients.
pub(crate) struct Programs {
    /// The first process of the virtual machine.
    pub(crate) init: PathBuf,
    /// The gateway.
    pub(crate) gateway: PathBuf,
    /// Names and test executables, in the order in which they were asked for; or the one that
    /// measures.
    pub(crate) tests: Vec<(String, PathBuf)>,
    /// Other programs that the tests run.
    pub(crate) clients: Vec<Foreign>,
}

/// Builds the named tests, which are integration tests or `unit`, and what they need.
pub(crate) fn build(tests: &[String]) -> Result<Programs> {
    let mut arguments = vec!["build", "--bin", GATEWAY, "--bin", INIT];
    for test in tests.iter().filter(|test| *test != UNIT) {
        arguments.extend(["--test", test]);
    }
    let mut artifacts = run(&arguments, TEST_PROFILE)?;
    if tests.iter().any(|test| test == UNIT) {
        artifacts.extend(run(&["test", "--no-run", "--lib"], TEST_PROFILE)?);
    }
    let find = |kind: &str, name: &str| find(&artifacts, kind, name);
    let find_test = |name: &String| {
        let path = if name == UNIT {
            find("lib", "gateway_datapath")?
        } else {
            find("test", name)?
        };
        Ok((name.clone(), path))
    };
    Ok(Programs {
        init: find("bin", INIT)?,
        gateway: find("bin", GATEWAY)?,
        tests: tests.iter().map(find_test).collect::<Result<_>>()?,
        clients: FOREIGN
            .map(Foreign::find)
            .into_iter()
            .collect::<Result<_>>()?,
    })
}

/// Builds what drives the gateway's data paths, and the gateway as it is released.
pub(crate) fn build_bench() -> Result<Programs> {
    let bins = [GATEWAY, INIT, BENCH];
    let arguments = bins.iter().flat_map(|bin| ["--bin", bin]);
    let arguments: Vec<_> = std::iter::once("build").chain(arguments).collect();
    let artifacts = run(&arguments, BENCH_PROFILE)?;
    Ok(Programs {
        init: find(&artifacts, "bin", INIT)?,
        gateway: find(&artifacts, "bin", GATEWAY)?,
        tests: vec![(BENCH.to_owned(), find(&artifacts, "bin", BENCH)?)],
        clients: Vec::new(),
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

/// Runs cargo with a target directory of its own, so that other flags do not make it build
/// everything again.
fn run(arguments: &[&str], profile: &str) -> Result<Vec<Artifact>> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machines are x86-64 ones, so is the machine that builds for them"
    );
    let mut command: Command = cargo::command(arguments);
    command
        .args(PACKAGES)
        .args(["--profile", profile, "--target", TARGET, "--quiet"])
        .args(["--message-format", "json-render-diagnostics"])
        .arg("--target-dir")
        .arg(target_dir().canonicalize()?.join("vm/build"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stderr(Stdio::inherit());
    let output = command.output().context("starting cargo")?;
    ensure!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        output.status
    );
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
