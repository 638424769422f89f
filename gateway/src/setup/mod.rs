//! `flexvdi-gateway setup`: asks what a first configuration needs, or takes it from options, and
//! writes it. Files that are there already stay as they are.

mod answers;
mod asking;
mod certificate;
mod configuration;
mod first_desktop;
mod from_authority;
mod options;
mod placing;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Assignment, Sources, drop_in_directory};
use crate::prepared::Prepared;
use answers::Answers;
pub(crate) use answers::Missing;
use asking::Terminal;
pub(crate) use options::Options;
use options::absolute;
use placing::{NewFile, Owner, place};

/// The file beside a configuration file that is there already.
const DROP_IN: &str = "50-setup.conf";

/// Where the new configuration goes.
struct Destination {
    path: PathBuf,
    /// Whether the configuration file itself is there, and stays in effect but for these keys.
    overrides: bool,
}

impl Destination {
    /// The configuration file, or a file beside it where there is one. Fails where that is there
    /// too.
    fn find(config: &Path) -> anyhow::Result<Self> {
        let config = absolute(config)?;
        let overrides = config.symlink_metadata().is_ok();
        let path = if overrides {
            drop_in_directory(&config).join(DROP_IN)
        } else {
            config
        };
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} exists already, from an earlier setup: change it, or move it away to begin anew",
                path.display()
            );
        }
        Ok(Self { path, overrides })
    }
}

/// Asks on the terminal for what the options do not say, and writes everything; or nothing, if it
/// does not get that far.
///
/// `config` is the configuration file. The configuration is checked together with the rest of what
/// is in effect: `variables` of the environment, and what the command line sets.
///
/// Fails with [`Missing`] when there is nobody to ask.
pub(crate) fn run(
    options: Options,
    config: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    arguments: Vec<Assignment>,
) -> anyhow::Result<()> {
    let destination = Destination::find(config)?;
    let folder = absolute(config)?;
    let folder = folder.parent().unwrap_or(Path::new("/"));
    let owner = Owner::of_group(&options.group);
    let terminal = Terminal::new(options.yes);
    let answers = Answers::collect(options, terminal, folder)?;
    let mut files = Vec::new();
    answers.certificate.add_files(&answers.names, &mut files)?;
    answers.desktops.add_files(&mut files)?;
    let configuration = configuration::members(&answers, destination.overrides);
    files.push(NewFile::public(
        destination.path,
        format!("{configuration:#}\n"),
    ));

    // From here on there is little to wait for, and a half of it is worse than a late end.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot start the runtime")?;
    let _held = runtime.block_on(async { hold_signals() })?;
    let placed = place(&files, &owner)?;
    let sources = Sources::new(config.to_owned(), variables, arguments);
    let prepared = match Prepared::read(sources) {
        Ok(prepared) => prepared,
        // What was placed goes with `placed`.
        Err(error) => {
            bail!("nothing was written, because the configuration would be wrong:\n{error}")
        }
    };
    placed.keep();
    report::print_end(
        &files,
        &owner,
        &answers,
        &prepared,
        destination.overrides,
        config,
    )
}

/// Signals that would end the process do nothing from now on.
fn hold_signals() -> anyhow::Result<Vec<tokio::signal::unix::Signal>> {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    let held = kinds.map(signal).into_iter().collect::<Result<Vec<_>, _>>();
    held.context("cannot hold signals back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gateway.conf");
        let found = Destination::find(&config).unwrap();
        assert_eq!((&found.path, found.overrides), (&config, false));
        std::fs::write(&config, "{}").unwrap();
        let found = Destination::find(&config).unwrap();
        let beside = folder.path().join("gateway.conf.d/50-setup.conf");
        assert_eq!((&found.path, found.overrides), (&beside, true));
        std::fs::create_dir(beside.parent().unwrap()).unwrap();
        // A link that leads nowhere is something, too.
        std::os::unix::fs::symlink("nowhere", &beside).unwrap();
        let told = Destination::find(&config).err().unwrap().to_string();
        assert!(told.contains("50-setup.conf exists already"), "{told}");
    }
}
