//! The command `probe`.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use gateway_datapath::measure::{Link, Path};
use gateway_datapath::probe::{self, Extent, Finding};
use serde_json::json;

use super::{loaded_or_default, runtime};
use crate::config::{Config, Sources};
use crate::measured::{self, Chosen, Record, RecordError};
use crate::output::{print, print_line};

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub(super) struct ProbeArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Measure the processor time of each data path that works, by moving the messages of desktops
    /// over Ethernet devices in network namespaces of their own, and keep the figures in
    /// `StateDirectory`, by which `"DataPath": "auto"` goes. Without root it measures over loopback,
    /// and `auto` stays with `relay`.
    #[arg(long)]
    measure: bool,
    /// How long the data paths are measured.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=3_600),
        requires = "measure"
    )]
    seconds: u64,
    /// Do nothing if this gateway has measured with this kernel and these processors already.
    #[arg(long, requires = "measure")]
    if_changed: bool,
    /// Measure the data path `ktls-sockmap` as well, which is for experiments.
    #[arg(long, requires = "measure")]
    ktls_sockmap: bool,
}

impl ProbeArguments {
    /// Needs no configuration, which only tells where things are and how long queues may be: the
    /// command tells of the machine.
    pub(super) fn run(&self, sources: &Sources) -> anyhow::Result<()> {
        let config = loaded_or_default(sources);
        if self.if_changed && is_measured(&config) {
            return Ok(());
        }
        if self.measure {
            // Where it cannot be raised, paths that need more say so.
            let _ = rlimit::increase_nofile_limit(rlimit::INFINITY);
        }
        let runtime = runtime(&Config::default(), 1)?;
        runtime.block_on(async {
            if self.measure {
                self.measure(&config).await
            } else {
                self.probe(&config).await
            }
        })
    }

    async fn probe(&self, config: &Config) -> anyhow::Result<()> {
        let findings = probe::run(Extent::All, &config.ebpf_dir).await;
        if self.json {
            return print_line(&serde_json::to_string_pretty(&findings)?);
        }
        print(probe::table(&findings))?;
        let kept = match Record::read(config) {
            Ok(record) => measured::table(&record),
            Err(RecordError::None) => String::new(),
            Err(error) => format!("{error}\n"),
        };
        let chosen = chosen(config, &findings);
        print(format!("\n{kept}auto: {}\n", chosen.told()))
    }

    async fn measure(&self, config: &Config) -> anyhow::Result<()> {
        let extent = if self.ktls_sockmap {
            Extent::All
        } else {
            Extent::Usual
        };
        let findings = probe::run(extent, &config.ebpf_dir).await;
        let time = Duration::from_secs(self.seconds);
        let record = measured::measure(config, &findings, time).await;
        let record = record.context("cannot measure")?;
        let path = Record::path(config);
        let kept = record.keep(config);
        let chosen = chosen(config, &findings);
        if self.json {
            let kept = kept.is_ok().then_some(&path);
            let report = json!({
                "paths": findings, "measurement": record, "kept": kept, "auto": chosen,
            });
            print_line(&serde_json::to_string_pretty(&report)?)?;
        } else {
            let (paths, figures) = (probe::table(&findings), measured::table(&record));
            print(format!("{paths}\n{figures}"))?;
            if kept.is_ok() {
                print(format!("auto: {}\n", chosen.told()))?;
            }
        }
        kept.with_context(|| format!("{} is not kept", path.display()))
    }
}

/// Whether what is kept is current and would not become better: root can measure over Ethernet.
fn is_measured(config: &Config) -> bool {
    Record::read(config).is_ok_and(|record| {
        let is_root = rustix::process::geteuid().is_root();
        record.is_current() && (record.measurement.link == Link::Ethernet || !is_root)
    })
}

/// What `auto` takes of what is kept.
fn chosen(config: &Config, findings: &[Finding]) -> Chosen {
    let works = |path: Path| probe::works(findings, path.name());
    Chosen::of(measured::kept(config), works)
}
