//! `cargo xtask test`: everything that must hold before a change lands.

use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result, ensure};
use testkit::browser;
use testkit::command::run_bounded;
use testkit::packages::{self, Package};

use crate::build_ebpf;
use crate::cargo;
use crate::demo::{self, installed};
use crate::fuzz;
use crate::image;
use crate::soak;
use crate::steps::Steps;
use crate::vm;

const DENY_VERSION: &str = "0.20.2";
/// How long the database of advisories may take to arrive.
const DATABASE_LIMIT: Duration = Duration::from_mins(2);
/// How many tests of one program run at once ("The rustc book", "Tests").
const TEST_THREADS: &str = "RUST_TEST_THREADS";
const VERSION_LIMIT: Duration = Duration::from_mins(1);

/// Runs every check in turn; stops at the first that fails.
pub(crate) fn run(steps: &mut Steps) -> Result<()> {
    steps.begin("Programs that the tests use");
    packages::ensure(&Package::ALL)?;
    browser::ensure_installed()?;
    steps.done("all installed");

    cargo_step(
        steps,
        "Format",
        &["fmt", "--all", "--check", "--", "--color", "never"],
    )?;
    cargo_step(
        steps,
        "Lints",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    build_ebpf::run(steps, &build_ebpf::Options::default())?;
    let advisories = dependencies(steps)?;
    // Not `cargo build`: tests want features of some libraries besides, and with them everything
    // would be built once more.
    cargo_step(steps, "Build", &["test", "--workspace", "--no-run"])?;
    tests(steps)?;
    demo::run_quick(steps)?;
    fuzz::run_quick(steps)?;
    soak::run_quick(steps)?;
    installed::run(steps, false)?;
    image::trial::run(steps)?;
    vm::run_quick(steps)?;

    steps.summary();
    if !advisories {
        println!("    ! security advisories were NOT checked: their database is out of reach");
    }
    Ok(())
}

fn cargo_step(steps: &mut Steps, title: &str, arguments: &[&str]) -> Result<()> {
    steps.begin(format!("{title}: cargo {}", arguments.join(" ")));
    cargo::run(arguments)?;
    steps.done("passed");
    Ok(())
}

/// Runs all tests, more at once than there are processors: most of their time they wait, for
/// a peer or for a limit to be reached.
fn tests(steps: &mut Steps) -> Result<()> {
    let arguments = ["test", "--workspace", "--no-fail-fast"];
    let mut command = cargo::command(&arguments);
    // A number that somebody has chosen stays.
    if env::var_os(TEST_THREADS).is_none() {
        let processors = thread::available_parallelism().context("counting processors")?;
        command.env(TEST_THREADS, (2 * processors.get() + 1).to_string());
    }
    let line = format!("cargo {}", arguments.join(" "));
    steps.begin(format!("Tests: {line}"));
    let status = command.status().context("starting cargo")?;
    ensure!(status.success(), "{line}: {status}");
    steps.done("passed");
    Ok(())
}

/// Checks licences, sources and bans; gives back whether advisories were checked too.
fn dependencies(steps: &mut Steps) -> Result<bool> {
    steps.begin("Dependencies: cargo deny check");
    if run_bounded(cargo::command(&["deny", "--version"]), VERSION_LIMIT).is_err() {
        steps.note(format!(
            "installing cargo-deny {DENY_VERSION}, which takes some minutes"
        ));
        cargo::run(&[
            "install",
            "--locked",
            "--quiet",
            "cargo-deny",
            "--version",
            DENY_VERSION,
        ])?;
    }
    let fetched = run_bounded(cargo::command(&["deny", "fetch", "db"]), DATABASE_LIMIT).is_ok();
    if fetched {
        cargo::run(&["deny", "check", "--hide-inclusion-graph"])?;
        steps.done("licences, sources, bans and advisories are fine");
    } else {
        steps.note("advisories are NOT checked: their database is out of reach");
        let checks = ["bans", "licenses", "sources"];
        cargo::run(&[&["deny", "check", "--hide-inclusion-graph"], &checks[..]].concat())?;
        steps.done("licences, sources and bans are fine");
    }
    Ok(fetched)
}
