//! `cargo xtask emulated-test`: tests with a gateway for another processor, which an emulator runs.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use clap::Args;
use testkit::command::{target_dir, write_program};

use crate::architecture::Architecture;
use crate::cargo;
use crate::package::Binary;
use crate::steps::Steps;

/// What is run.
#[derive(Args)]
pub(crate) struct Options {
    /// Processor that the gateway was built for, by `cargo xtask package --arch NAME`.
    #[arg(long, value_name = "NAME", default_value = "arm64")]
    arch: Architecture,
    /// Profile of cargo with which it was built.
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// Only tests whose names have this in them.
    filter: Option<String>,
}

/// The files of tests.
const FILES: [&str; 2] = ["http", "stream"];

/// Tests that cannot pass under an emulator, by what is in their names, and why.
const IMPOSSIBLE: [(&str, &str); 3] = [
    ("sockmap", NO_BPF),
    ("bpf_maps", NO_BPF),
    ("loaded_programs", NO_BPF),
];
const NO_BPF: &str = "the emulator does not know the system call bpf";

/// Runs the tests of `tests/tests/http`, and those of `tests/tests/stream` for `relay`.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    steps.begin(format!(
        "Gateway for {}, with an emulator",
        options.arch.name()
    ));
    let binary = Binary::of_target(steps, &options.profile, options.arch).with_context(|| {
        format!(
            "run `cargo xtask package --arch {}` first",
            options.arch.name()
        )
    })?;
    let emulator = binary
        .emulator()
        .context("this machine runs it without an emulator: `cargo xtask test` does")?;
    let version = binary.version()?;
    let script = target_dir().join(format!("flexvdi-gateway-{}", options.arch.name()));
    write_program(&script, &emulator.script(binary.path()))?;
    let script = fs::canonicalize(&script)?;
    steps.done(format!("it runs, and says that it is {version}"));

    for (test, reason) in IMPOSSIBLE {
        steps.note(format!("not run: {test}: {reason}"));
    }
    let mut failed = BTreeMap::new();
    for file in FILES {
        steps.begin(format!("Tests: {file}"));
        let mut test = cargo::command(&["test", "-p", "tests", "--test", file, "--no-fail-fast"]);
        test.arg("--").args(&options.filter);
        for (name, _) in IMPOSSIBLE {
            test.args(["--skip", name]);
        }
        test.env("TESTKIT_GATEWAY_BIN", &script);
        let status = test.status().context("starting cargo test")?;
        if !status.success() {
            failed.insert(file, status);
        }
        steps.done(if status.success() { "passed" } else { "FAILED" });
    }
    ensure!(failed.is_empty(), "tests failed: {failed:?}");
    Ok(())
}
