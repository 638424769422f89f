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

/// Why tests cannot pass under the emulator, QEMU 7.2 of Debian 12, and what is in their names.
const IMPOSSIBLE: [(&str, &[&str]); 6] = [
    (
        "it does not know the system call bpf",
        &[
            "sockmap",
            "bpf_maps",
            "loaded_programs",
            "unix_hosts::",
            "kernel::",
            "overlap::",
            "auto_follows_the_measurement",
            "counts_survive_another_data_path",
            "what_the_programs_count_stays_counted",
        ],
    ),
    (
        "it does not know the system call openat2, by which sockets below AllowedSockets are found",
        &[
            "a_desktop_may_be_a_socket_below_an_allowed_directory",
            "a_portals_ticket_leads_to_a_socket",
            "a_ticket_leads_to_a_socket_below_an_allowed_directory",
            "a_link_that_leads_out_of_the_directory_is_403",
            "what_is_no_socket_is_502",
        ],
    ),
    (
        "it has a thread of its own, which counts, and from which nothing can be taken",
        &[
            "capabilities::",
            "a_start_without_threads",
            "no_more_threads",
        ],
    ),
    (
        "it passes on only four bytes of TCP's options: neither TCP_INFO nor most names of \
         congestion controls",
        &[
            "felt::",
            "lost_clients::",
            "a_client_that_vanishes_is_given_up",
            "a_host_that_is_far_away_is_not_held_back",
            "a_slow_host_gets_what_its_client_sent_before_its_end",
            "by_default_it_is_bbr_where_the_kernel_has_it",
            "the_congestion_control_of_sockets_that_are_passed_in",
        ],
    ),
    (
        "its own memory counts as the gateway's",
        &[
            "silent_connections_cost_little",
            "memory_of_idle_tls_connections_goes_back",
        ],
    ),
    (
        "a gateway that starts its successor does so without it",
        &["the_next_process_reads_the_same"],
    ),
];

/// Runs the tests of `tests/tests/http`, and those of `tests/tests/stream` without `sockmap`.
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

    for (reason, tests) in IMPOSSIBLE {
        let tests = tests.join(", ");
        steps.note(format!(
            "not run, because of the emulator: {tests}: {reason}"
        ));
    }
    let mut failed = BTreeMap::new();
    for file in FILES {
        steps.begin(format!("Tests: {file}"));
        let mut test = cargo::command(&["test", "-p", "tests", "--test", file, "--no-fail-fast"]);
        test.arg("--").args(&options.filter);
        for name in IMPOSSIBLE.iter().flat_map(|(_, tests)| *tests) {
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
