//! Finds out why an installation does not work (`flexvdi-gateway doctor`).
//!
//! Everything is looked at as far as the user who asks may look, and nothing is changed. Each of
//! the [`checks`] is a file of its own.

mod account;
mod bundle;
mod checks;
mod contact;
mod finding;
mod listeners;
mod report;
mod running;
mod samples;
mod scene;
mod systemctl;
mod unit;

use std::path::PathBuf;
use std::sync::Arc;

use crate::output::{complain, print, print_line};
use bundle::Bundle;
pub(crate) use finding::Severity;
use scene::Scene;
pub(crate) use scene::Wanted;

/// How it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Show {
    /// JSON instead of lines.
    pub(crate) json: bool,
    /// Where to write a report for those who help.
    pub(crate) bundle: Option<PathBuf>,
    /// That report has the addresses and names of clients.
    pub(crate) with_addresses: bool,
}

/// Looks at an installation, and prints what was found; gives back the worst.
pub(crate) async fn run(wanted: &Wanted, show: &Show) -> anyhow::Result<Severity> {
    // What cannot be written is known before everything is looked at.
    let bundle = show.bundle.as_deref().map(Bundle::create).transpose()?;
    let scene = Arc::new(Scene::gather(wanted).await?);
    let report = checks::run(&scene).await;
    if show.json {
        print_line(&serde_json::to_string_pretty(&report)?)?;
    } else {
        print(report.text())?;
    }
    if let Some(bundle) = bundle {
        let path = bundle.path().to_owned();
        bundle.fill(&scene, &report, show.with_addresses).await?;
        complain(&format!("{}: written", path.display()));
    }
    Ok(report.worst())
}
