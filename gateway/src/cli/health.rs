//! `flexvdi-gateway health`.

use std::process::ExitCode;

use clap::Args;

use super::{exit, on_this_thread, with_configuration};
use crate::admin::health::{self, HealthUrl, Question};
use crate::config::Sources;

#[derive(Debug, Args)]
pub(super) struct HealthArguments {
    /// Only whether it answers: 0 also while it drains or does not reach the manager. For
    /// supervisors that restart what is not healthy.
    #[arg(long)]
    live: bool,
    /// Ask there instead of the gateway that runs with this configuration. The certificate is not
    /// verified.
    #[arg(long, value_name = "URL")]
    url: Option<HealthUrl>,
}

impl HealthArguments {
    /// Reads the configuration only for the gateway that runs with it.
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        let question = if self.live {
            Question::Live
        } else {
            Question::Ready
        };
        let asked = match self.url {
            Some(url) => on_this_thread(health::at(&url, question)),
            None => {
                return with_configuration(sources, |config| {
                    on_this_thread(health::of_running(&config.runtime_dir, question))
                });
            }
        };
        exit(asked)
    }
}
