//! Data paths measured inside a virtual machine whose clock counts instructions.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testkit::command::run_bounded;
use testkit::packages::{self, Package};
use testkit::vm::{Finding, SUITE, TUNNELS};

use super::build;
use super::class::Class;
use super::initramfs::{self, Plan};
use super::kernel::Store;
use super::qemu::{INSTRUCTION, Qemu};
use crate::build_ebpf;
use crate::steps::Steps;

const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// What is measured, and with which kernel.
pub struct Bench<'a> {
    /// Class of kernels.
    pub class: &'a str,
    /// Values of the configuration key `DataPath`, each perhaps with another key and its value.
    pub paths: &'a [String],
    /// Cipher suite of the TLS legs, unless it is the usual one.
    pub suite: Option<&'a str>,
    /// Channels are tunnels instead of WebSockets.
    pub tunnels: bool,
    /// How often the machine is started; each start measures everything once.
    pub starts: usize,
    /// How long one start may take.
    pub limit: Duration,
}

/// What is measured of `ktls`: everything is spliced, what is long, nothing.
const KTLS: [&str; 3] = [
    "ktls:SpliceFrom=1",
    "ktls:SpliceFrom=4096",
    "ktls:SpliceFrom=0",
];

/// The kernel that stood for the class, and what each start has found out, with the costs in
/// instructions.
pub fn bench(steps: &mut Steps, bench: &Bench) -> Result<(String, Vec<Vec<Finding>>)> {
    steps.begin("Programs: QEMU, depmod and xz");
    packages::ensure(&[Package::Qemu, Package::Kmod, Package::Xz])?;
    steps.done("installed");

    let class = Class::named(bench.class)?;
    steps.begin(format!("Kernel of the class {}", class.name));
    let kernel = Store::open(std::slice::from_ref(&class))?.kernel(&class)?;
    let name = format!("{} {}", kernel.package.name, kernel.package.version);
    steps.done(&name);

    build_ebpf::run(steps, &build_ebpf::Options::default())?;
    steps.begin("Static programs: the gateway as it is released, and its driver");
    let programs = build::build_bench()?;
    steps.done("built");

    let mut arguments = if bench.paths.is_empty() {
        known_paths(&programs.gateway.program)?
    } else {
        bench.paths.to_vec()
    };
    arguments.extend(bench.suite.map(|suite| format!("{SUITE}{suite}")));
    arguments.extend(bench.tunnels.then(|| TUNNELS.to_owned()));
    let plan = Plan {
        programs: &programs,
        probe: true,
        arguments: &arguments,
        seconds: bench.limit.as_secs(),
    };
    let initramfs = initramfs::write(&plan, &kernel.modules()?)?;
    let mut qemu = Qemu::counting();
    let mut starts = Vec::new();
    for number in 1..=bench.starts {
        steps.begin(format!(
            "Virtual machine, start {number} of {}",
            bench.starts
        ));
        let prefix = format!("      {}", class.name);
        let (heard, outcome) = qemu.run(&kernel.image, &initramfs, &prefix, bench.limit)?;
        outcome?;
        let findings = heard.into_measured();
        let findings = findings.iter().map(|line| parse(line));
        let findings = findings.collect::<Result<Vec<Finding>>>()?;
        ensure!(!findings.is_empty(), "nothing was measured");
        steps.done(format!("{} ({})", findings.len(), qemu.accelerator()));
        starts.push(findings);
    }
    Ok((name, starts))
}

/// All data paths that this gateway knows, whether they work here or not.
fn known_paths(gateway: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Probed {
        path: String,
    }
    let mut probe = Command::new(gateway);
    probe.args(["probe", "--json"]);
    let findings = run_bounded(probe, PROBE_LIMIT)?;
    let findings: Vec<Probed> = serde_json::from_str(&findings).context("the probe's findings")?;
    let mut paths = Vec::new();
    for Probed { path } in findings {
        match path.as_str() {
            "ktls" => paths.extend(KTLS.map(str::to_owned)),
            _ => paths.push(path),
        }
    }
    Ok(paths)
}

fn parse(line: &str) -> Result<Finding> {
    let mut finding: Finding = serde_json::from_str(line).with_context(|| line.to_owned())?;
    if let Finding::Load(measured) = &mut finding {
        let cost = &mut measured.cost;
        for part in [&mut cost.machine, &mut cost.gateway, &mut cost.kernel] {
            *part /= INSTRUCTION;
        }
    }
    Ok(finding)
}
