//! `flexvdi-gateway doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{exit, loaded_or_default, run_to_the_end, runtime};
use crate::capabilities;
use crate::config::{Config, Sources};
use crate::doctor::{self, Severity};
use crate::output::complain;

/// `doctor` found something odd, and nothing that does not work.
const EXIT_WARNINGS: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write a report for those who help: what was found, values, status, metrics, versions, units
    /// and logs, without secrets. FILE ends in .tar.zst and must not exist.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Leave addresses of clients and names of users in that report.
    #[arg(long, requires = "bundle")]
    with_addresses: bool,
    /// The unit of systemd: its name, or the path of its file. Default: that of the running gateway,
    /// or flexvdi-gateway.
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// The user as whom the gateway runs. Default: as the running one does, or as the unit says.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

impl DoctorArguments {
    pub(super) fn run(self, sources: Sources) -> ExitCode {
        let wanted = doctor::Wanted {
            sources,
            unit: self.unit,
            user: self.user,
        };
        let show = doctor::Show {
            json: self.json,
            bundle: self.bundle,
            with_addresses: self.with_addresses,
        };
        let run = || {
            // Nothing that it reads of others should do more harm than that takes.
            let config = loaded_or_default(&wanted.sources);
            if let Err(error) = capabilities::keep_only(capabilities::of_doctor(&config)) {
                complain(&format!("warning: cannot give up capabilities: {error:#}"));
            }
            let runtime = runtime(&Config::default(), 0)?;
            run_to_the_end(runtime, doctor::run(&wanted, &show))
        };
        match run() {
            Ok(Severity::Error) => ExitCode::FAILURE,
            Ok(Severity::Warning) => ExitCode::from(EXIT_WARNINGS),
            Ok(Severity::Ok | Severity::Skipped) => ExitCode::SUCCESS,
            Err(error) => exit(Err(error)),
        }
    }
}
