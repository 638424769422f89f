//! `cargo xtask vm-test`: tests inside virtual machines with other kernels.

mod archive;
mod bench;
mod build;
mod class;
mod cpio;
mod initramfs;
mod kernel;
mod linked;
mod modules;
mod paths;
mod qemu;
mod verdict;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use testkit::command::run_bounded;
use testkit::packages::{self, Package};

use crate::build_ebpf;
use crate::steps::Steps;
pub use bench::{Bench, bench};
use build::Programs;
use class::{CLASSES, Class};
use initramfs::Plan;
use kernel::{Kernel, Store};
use qemu::Qemu;
use verdict::Verdict;

/// What is run when nothing is asked for.
const TESTS: [&str; 3] = ["unit", "tls", "stream"];
/// What is left out unless there are arguments for the tests; docs/vm-tests.md says why.
const SKIPPED: [&str; 6] = [
    "random_runs",
    "random_endings",
    "a_thousand_channels_at_once",
    "a_gibibyte_is_spliced",
    "a_gibibyte_arrives",
    "lag::sockmap::little_waits_for_a_client_on_a_slow_line",
];
/// What `cargo xtask test` runs: an older and a current kernel, and some tests that move bytes.
const QUICK_TEST: &str = "stream";
/// Of each line the first class that can be had.
const QUICK_CLASSES: [&[&str]; 2] = [&["6.1"], &["6.12-ktls-sockmap", "6.12"]];
const QUICK_FILTERS: [&str; 6] = [
    "bulk_downlink_between_small_messages",
    "fragments_with_controls_between",
    "host_messages_of_every_size",
    "what_a_host_sent_before_its_end_arrives",
    "a_reset_of_the_host_is_told",
    "clients_that_stall_and_vanish_do_no_harm",
];
/// Four minutes are usual without KVM on two processors.
const QUICK_LIMIT: Duration = Duration::from_mins(15);
const HELP_LIMIT: Duration = Duration::from_secs(30);

/// What is run inside which virtual machines.
#[derive(Args)]
pub(crate) struct Options {
    /// Class of kernels, as `--list` names it; may be given several times. Default: all that can
    /// be had.
    #[arg(long = "kernel", value_name = "CLASS")]
    kernels: Vec<String>,
    /// Show the classes of kernels and which kernel stands for each now.
    #[arg(long)]
    list: bool,
    /// An integration test, or `unit` for the unit tests of gateway-datapath; may be
    /// given several times. Default: unit, tls and stream.
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// How long the tests may take in one virtual machine, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    time_limit: u64,
    /// Arguments of each test executable, as `cargo test` takes them after `--`; without any, the
    /// heaviest tests are left out.
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// Runs the tests in one virtual machine after the other; fails when one of them does.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    let names = options.kernels.iter().map(String::as_str);
    let classes = names.map(Class::named).collect::<Result<Vec<_>>>()?;
    if options.list {
        return list(&Store::open(&CLASSES)?);
    }
    let tests = if options.tests.is_empty() {
        TESTS.map(str::to_owned).to_vec()
    } else {
        options.tests.clone()
    };
    let is_whole = options.tests.is_empty() && options.arguments.is_empty();
    let arguments = if options.arguments.is_empty() {
        let skips = SKIPPED.iter().flat_map(|name| ["--skip", name]);
        skips.map(str::to_owned).collect()
    } else {
        options.arguments.clone()
    };
    let by_name = !classes.is_empty();
    let wanted = if by_name { classes } else { CLASSES.to_vec() };
    let selection = Selection {
        classes: wanted.into_iter().map(|class| vec![class]).collect(),
        all_classes: by_name,
        tests,
        arguments,
        each_path_tested: is_whole,
        limit: Duration::from_secs(options.time_limit),
    };
    run_selection(steps, &selection)?;
    steps.summary();
    Ok(())
}

/// Runs a few tests with an older and a current kernel, as far as they can be had; fails when
/// neither can, and when one refuses a data path that its class carries.
pub(crate) fn run_quick(steps: &mut Steps) -> Result<()> {
    let named = |names: &[&str]| names.iter().map(|name| Class::named(name)).collect();
    let selection = Selection {
        classes: QUICK_CLASSES
            .into_iter()
            .map(named)
            .collect::<Result<_>>()?,
        all_classes: false,
        each_path_tested: true,
        tests: vec![QUICK_TEST.to_owned()],
        arguments: QUICK_FILTERS.map(str::to_owned).to_vec(),
        limit: QUICK_LIMIT,
    };
    run_selection(steps, &selection)
}

fn list(store: &Store) -> Result<()> {
    for class in CLASSES {
        let kernel = match store.resolve(&class) {
            Some(package) => {
                let kept = if store.is_kept(&package) {
                    ", fetched"
                } else {
                    ""
                };
                format!("{} {}{kept}", package.name, package.version)
            }
            None => "cannot be had".to_owned(),
        };
        println!("{:<18} {}\n{:18} {kernel}", class.name, class.meaning, "");
    }
    match &store.problem {
        Some(problem) => bail!("the archive cannot be asked: {problem:#}"),
        None => Ok(()),
    }
}

/// What is run inside which virtual machines, all defaults filled in.
struct Selection {
    /// The first of each that can be had.
    classes: Vec<Vec<Class>>,
    /// Whether each of them must be had; else one is enough.
    all_classes: bool,
    /// Whether each data path that a class carries must have passed a test.
    each_path_tested: bool,
    tests: Vec<String>,
    arguments: Vec<String>,
    limit: Duration,
}

/// Runs a selection, with steps of its own.
fn run_selection(steps: &mut Steps, selection: &Selection) -> Result<()> {
    steps.begin("Programs: QEMU, depmod, xz and openssl");
    let needed = [Package::Qemu, Package::Kmod, Package::Xz, Package::Openssl];
    packages::ensure(&needed)?;
    steps.done("installed");

    steps.begin("Kernels of Debian's archive");
    let kernels = kernels(steps, selection)?;
    steps.done("unpacked");

    build_ebpf::run(steps, &build_ebpf::Options::default())?;
    steps.begin(format!(
        "Programs for the virtual machines: the gateway, and the tests {}",
        selection.tests.join(", ")
    ));
    let programs = build::build(&selection.tests)?;
    let probe = has_probe(&programs.gateway.program)?;
    if !probe {
        steps.note("this gateway has no subcommand probe, so it is not run");
    }
    steps.done("built");

    let mut qemu = Qemu::new();
    let mut failures = Vec::new();
    let mut table = Vec::new();
    for (class, kernel) in &kernels {
        let title = format!(
            "{}: {} {}",
            class.name, kernel.package.name, kernel.package.version
        );
        steps.begin(format!("Virtual machine {title}"));
        let outcome = run_one(&mut qemu, class, kernel, &programs, probe, selection);
        let outcome = outcome.and_then(|(heard, outcome)| {
            if probe {
                table.push((title, heard.paths().lines()));
            }
            let tested = selection.each_path_tested;
            let check = || heard.paths().check(class.carries, tested);
            outcome.and_then(|()| if probe { check() } else { Ok(()) })
        });
        match outcome {
            Ok(()) => steps.done(format!("passed ({})", qemu.accelerator())),
            // The others are worth knowing too.
            Err(problem) => {
                steps.note(format!("FAILED: {problem:#}"));
                failures.push(class.name);
            }
        }
    }
    print_table(&table);
    ensure!(
        failures.is_empty(),
        "failed with these kernels: {}",
        failures.join(", ")
    );
    Ok(())
}

/// For each kernel what is known of its data paths.
fn print_table(kernels: &[(String, Vec<String>)]) {
    println!("\nData paths");
    for (kernel, lines) in kernels {
        println!("    {kernel}");
        for line in lines {
            println!("        {line}");
        }
    }
}

/// The kernels of a selection.
fn kernels(steps: &Steps, selection: &Selection) -> Result<Vec<(Class, Kernel)>> {
    let store = Store::open(&selection.classes.concat())?;
    if let Some(problem) = &store.problem {
        steps.note(format!("the archive cannot be asked: {problem:#}"));
    }
    let mut kernels = Vec::new();
    let mut last = None;
    for alternatives in &selection.classes {
        for class in alternatives {
            match store.kernel(class) {
                Ok(kernel) => {
                    let package = &kernel.package;
                    steps.note(format!(
                        "{}: {} {}",
                        class.name, package.name, package.version
                    ));
                    kernels.push((class.clone(), kernel));
                    break;
                }
                Err(problem) if !selection.all_classes => {
                    steps.note(format!("{} cannot be had: {problem:#}", class.name));
                    last = Some(problem);
                }
                Err(problem) => return Err(problem),
            }
        }
    }
    if kernels.is_empty() {
        return Err(last.context("there are classes")?).context("no kernel can be had");
    }
    Ok(kernels)
}

fn run_one(
    qemu: &mut Qemu,
    class: &Class,
    kernel: &Kernel,
    programs: &Programs,
    probe: bool,
    selection: &Selection,
) -> Result<(Verdict, Result<()>)> {
    let mut arguments = selection.arguments.clone();
    for (module, path) in paths::MODULES {
        if !class.carries.contains(&path) {
            arguments.extend(["--skip".to_owned(), format!("{module}::")]);
        }
    }
    let plan = Plan {
        programs,
        probe,
        arguments: &arguments,
        seconds: selection.limit.as_secs(),
    };
    let initramfs = initramfs::write(&plan, &kernel.modules()?)?;
    let prefix = format!("      {}", class.name);
    qemu.run(&kernel.image, &initramfs, &prefix, selection.limit)
}

/// Whether this gateway can tell which data paths a kernel carries.
fn has_probe(gateway: &Path) -> Result<bool> {
    let mut help = Command::new(gateway);
    help.arg("--help");
    Ok(lists_probe(&run_bounded(help, HELP_LIMIT)?))
}

fn lists_probe(help: &str) -> bool {
    help.lines()
        .any(|line| line.split_whitespace().next() == Some("probe"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_found_among_the_subcommands() {
        assert!(lists_probe(
            "Commands:\n  check  Reads\n  probe  Finds out\n"
        ));
        assert!(!lists_probe(
            "Commands:\n  check  Reads what a probe sees\n"
        ));
    }
}
