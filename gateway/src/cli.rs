//! The command line.

mod doctor;
mod health;
mod probe;
mod ticket;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tokio::runtime::Runtime;
use tracing::{info, warn};

use crate::admin::client::{self, Show};
use crate::background::{self, EXIT_NO_THREADS, NoThreads};
use crate::config::{self, Assignment, Config, DataPath, Sources};
use crate::documents::Document;
use crate::handover::next;
use crate::output::{EXIT_CLOSED, complain, is_closed, print, print_line};
use crate::pool::{self, PoolKeys};
use crate::prepared::Prepared;
use crate::runtime_dir::{Owner, RuntimeDir, RuntimeDirError};
use crate::session::SessionId;
use crate::{capabilities, desktops, load_ebpf, log, measured, server, setup};
use gateway_datapath::ktls::module;

use doctor::DoctorArguments;
use health::HealthArguments;
use probe::ProbeArguments;
use ticket::TicketArguments;

/// `EX_CONFIG` of sysexits.h: something is wrong with the configuration.
const EXIT_CONFIG: u8 = 78;

/// How long work that blocks may go on once everything else has ended.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Gateway for virtual desktops: one public TLS port in front of a manager and many Spice hosts.
#[derive(Debug, Parser)]
#[command(name = "flexvdi-gateway", version)]
struct Arguments {
    /// Configuration file: one JSON object. Files named *.conf in the directory FILE.d, then
    /// environment variables named `FLEXVDI_GATEWAY_...`, override its keys.
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Override a key of the configuration, whatever files and environment say. VALUE is JSON; a
    /// string may stand there without quotation marks. May be given several times.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway. This is the default command.
    Run {
        /// Take over ports and sessions from the gateway that runs with the same `RuntimeDir`.
        /// No session ends. If there is no such gateway, start as usual.
        #[arg(long)]
        take_over: bool,
    },
    /// Check the configuration and the files that it names, and print the value of every key.
    Check {
        /// Print a table that also says where each value comes from, instead of JSON.
        #[arg(long)]
        sources: bool,
    },
    /// Create a key for `PoolKeyFile`, which the gateways of a pool share.
    PoolKey {
        /// File to which the key is added in the last place, where it opens tickets but does not
        /// seal them yet. The file is created if it is missing. Without FILE, a new one is printed.
        file: Option<PathBuf>,
    },
    /// Read a password, from the terminal or standard input, and print its hash for `Desktops`.
    Password,
    /// Write a first configuration, with a certificate, a desktop and a user if you have none yet.
    /// Asks what the options do not say. Files that are there stay as they are: where there is a
    /// configuration already, a file beside it overrides its keys.
    Setup(Box<setup::Options>),
    /// Print the JSON schema of a file, for editors.
    Schema {
        /// Of which file.
        #[arg(default_value = "configuration")]
        file: Schema,
    },
    /// Find out, with real bytes over loopback, which data paths this kernel supports.
    Probe(ProbeArguments),
    /// Ask for a gateway's health: exit code 0 if clients should be sent to it, otherwise 1.
    Health(HealthArguments),
    /// Find out why an installation does not work: one line for each check. Nothing is changed.
    Doctor(Box<DoctorArguments>),
    /// As root, load the eBPF programs of the data path `sockmap` for a gateway that may not.
    LoadEbpf {
        /// The gateway's user, by name or number: nobody else may use the programs.
        #[arg(long, value_name = "USER", default_value = "flexvdi-gateway")]
        user: String,
    },
    /// Print what the packages ship about the command line.
    #[command(hide = true)]
    Document {
        /// Which of them.
        document: Document,
    },
    /// Tell whether this program goes on with what a gateway has left in this version.
    #[command(hide = true, name = next::COMMAND)]
    CanTakeOver {
        /// Version of what is written down.
        version: u32,
        /// Agreement between the eBPF programs of channels and their gateway, if there are any.
        agreement: Option<u32>,
    },
    #[command(flatten)]
    Ask(Ask),
}

/// Files that there is a schema of.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Schema {
    /// The configuration, and files beside it.
    Configuration,
    /// The file that `Desktops` names.
    Desktops,
}

/// Commands for the gateway that runs with this configuration.
#[derive(Debug, Subcommand)]
enum Ask {
    /// Show the running gateway's desktop sessions.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Refresh every two seconds, until Ctrl-C.
        #[arg(long)]
        watch: bool,
    },
    /// End a desktop session of the running gateway.
    Kick {
        /// Its number, such as s12, as `status` shows it.
        session: SessionId,
    },
    /// Make the running gateway refuse new desktop sessions. Open ones go on.
    Drain {
        /// End the sessions that are left after this time. 0: never. Default: `DrainTimeout`.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u32>,
        /// Return when no desktop session is open any more.
        #[arg(long)]
        wait: bool,
    },
    /// Make the running gateway accept new desktop sessions again.
    Undrain,
    /// Have the running gateway make a ticket for a desktop, or a file for virt-viewer.
    Ticket(Box<TicketArguments>),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    refuse_split(&arguments.set);
    let command = arguments
        .command
        .unwrap_or(Command::Run { take_over: false });
    if let Command::Setup(options) = command {
        return set_up(*options, &arguments.config, arguments.set);
    }
    let sources = Sources::new(arguments.config, std::env::vars_os(), arguments.set);
    match command {
        Command::Probe(probe) => return exit(probe.run(&sources)),
        Command::Health(health) => return health.run(&sources),
        Command::Document { document } => return exit(document.print(Arguments::command())),
        Command::Password => return exit(desktops::print_hash()),
        Command::Schema { file } => return exit(print_schema(file)),
        Command::PoolKey { file } => return exit(make_pool_key(file.as_deref())),
        Command::Doctor(doctor) => return doctor.run(sources),
        Command::LoadEbpf { user } => {
            return with_configuration(&sources, |config| load_ebpf::run(config, &user));
        }
        Command::Ask(ask) => return with_configuration(&sources, |config| ask.run(config)),
        Command::Run { .. }
        | Command::Check { .. }
        | Command::CanTakeOver { .. }
        | Command::Setup(_) => {}
    }
    let prepared = match Prepared::read(sources) {
        Ok(prepared) => prepared,
        Err(error) => return wrong_configuration(&*error),
    };
    let runtime_dir = &prepared.loaded.config.runtime_dir;
    let runtime_dir = match command {
        Command::Check { .. } | Command::Run { take_over: true } => {
            RuntimeDir::of_another_process(runtime_dir)
        }
        _ => RuntimeDir::new(runtime_dir, Owner::Own),
    };
    if let Err(error) = runtime_dir.check() {
        return wrong_configuration(&error);
    }
    exit(match command {
        Command::Run { take_over } => run(prepared, take_over),
        Command::CanTakeOver { version, agreement } if next::is_known(version, agreement) => Ok(()),
        Command::CanTakeOver { .. } => Err(anyhow::anyhow!("that version is not known")),
        Command::Check { sources: true } => show(&prepared, &config::table(&prepared.loaded)),
        _ => show(&prepared, &effective(&prepared.loaded.config)),
    })
}

/// What stands before the name of a command is lost to clap where the same option stands behind it
/// too. Ends the process then, as it does for a wrong command line.
fn refuse_split(taken: &[Assignment]) {
    let arguments = std::env::args_os().skip(1);
    let arguments = arguments.take_while(|argument| argument != "--");
    let is_set = |argument: &OsString| {
        let argument = argument.to_string_lossy();
        argument == "--set" || argument.starts_with("--set=")
    };
    if arguments.filter(is_set).count() > taken.len() {
        let what = "give all --set either before the command or behind it";
        Arguments::command()
            .error(ErrorKind::ArgumentConflict, what)
            .exit();
    }
}

fn set_up(options: setup::Options, config: &Path, set: Vec<Assignment>) -> ExitCode {
    let done = setup::run(options, config, std::env::vars_os(), set);
    if let Err(error) = &done
        && let Some(missing) = error.downcast_ref::<setup::Missing>()
    {
        Arguments::command()
            .error(ErrorKind::MissingRequiredArgument, missing)
            .exit();
    }
    exit(done)
}

/// Runs a command that reads the configuration, but none of the files that it names.
fn with_configuration(
    sources: &Sources,
    command: impl FnOnce(&Config) -> anyhow::Result<()>,
) -> ExitCode {
    match sources.load() {
        Ok(loaded) => exit(command(&loaded.config)),
        Err(error) => wrong_configuration(&error),
    }
}

/// The configuration, where a command works without one too.
fn loaded_or_default(sources: &Sources) -> Config {
    let loaded = sources.load();
    loaded.map_or_else(|_| Config::default(), |loaded| loaded.config)
}

fn wrong_configuration(error: &dyn std::error::Error) -> ExitCode {
    complain(&format!("flexvdi-gateway: {error}"));
    ExitCode::from(EXIT_CONFIG)
}

impl Ask {
    fn run(self, config: &Config) -> anyhow::Result<()> {
        let directory = &config.runtime_dir;
        on_this_thread(async {
            match self {
                Self::Status { json, watch } => {
                    client::status(directory, Show { json, watch }).await
                }
                Self::Kick { session } => client::kick(directory, session).await,
                Self::Drain { timeout, wait } => client::drain(directory, timeout, wait).await,
                Self::Undrain => client::undrain(directory).await,
                Self::Ticket(arguments) => arguments.run(config).await,
            }
        })
    }
}

/// Runs what a command waits for.
fn on_this_thread(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(command);
    // A name server may take longer than the command waits for it.
    runtime.shutdown_background();
    done
}

fn print_schema(file: Schema) -> anyhow::Result<()> {
    let schema = match file {
        Schema::Configuration => config::schema(),
        Schema::Desktops => desktops::schema(),
    };
    print_line(&serde_json::to_string_pretty(&schema)?)
}

fn make_pool_key(file: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = file else {
        return print(pool::new_file()?);
    };
    let done = if pool::append_key(path)? {
        "key added; move it to the top once all gateways have it"
    } else {
        "created, with one key"
    };
    complain(&format!("{}: {done}", path.display()));
    Ok(())
}

fn exit(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed(&error) => ExitCode::from(EXIT_CLOSED),
        Err(error) if is_not_safe(&error) => wrong_configuration(&*error),
        Err(error) => {
            complain(&format!("flexvdi-gateway: {error:#}"));
            if error.is::<NoThreads>() {
                ExitCode::from(EXIT_NO_THREADS)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// The directory may have changed since it was checked.
fn is_not_safe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref();
    matches!(cause, Some(RuntimeDirError::NotSafe { .. }))
}

/// What is in effect, as a file that says the same.
fn effective(config: &Config) -> String {
    format!("{:#}\n", config::effective_json(config))
}

fn show(prepared: &Prepared, values: &str) -> anyhow::Result<()> {
    for warning in prepared.warnings() {
        complain(&format!("warning: {warning}"));
    }
    print(values)
}

fn run(prepared: Prepared, take_over: bool) -> anyhow::Result<()> {
    let config = &prepared.loaded.config;
    let paths = measured::data_paths(config);
    if paths
        .iter()
        .any(|path| matches!(path, DataPath::Ktls | DataPath::KtlsSockmap))
    {
        module::load_if_missing();
    }
    // The log and the runtime start threads, each with capabilities of its own.
    let given_up = capabilities::keep_only(capabilities::needed(config, take_over));
    let others = server::THREADS + usize::from(config.access_log.is_some());
    let runtime = runtime(config, others)?;
    let (verbosity, _writing) = log::init(config.debug)?;
    if let Err(reason) = given_up {
        let reason = format!("{reason:#}");
        warn!(
            reason,
            "cannot give up capabilities that the gateway does not need"
        );
    }
    info!(held = capabilities::held().join(" "), "capabilities");
    for warning in &prepared.loaded.warnings {
        warn!("{warning}");
    }
    if let Some(warning) = prepared.pool_keys.as_ref().and_then(PoolKeys::warning) {
        warn!("{warning}");
    }
    if let Some(warning) = prepared.signers.warning() {
        warn!("{warning}");
    }
    for warning in prepared.desktops_warnings() {
        warn!("{warning}");
    }
    if let Some(oddity) = &prepared.identity.oddity {
        warn!("{oddity}");
    }
    run_to_the_end(runtime, server::run(prepared, verbosity, take_over))
}

/// Does not wait at the end for what threads still do for nobody: a name server or a disk may take
/// its time, and cannot be cancelled.
fn run_to_the_end<T>(runtime: Runtime, running: impl Future<Output = T>) -> T {
    let ended = runtime.block_on(running);
    runtime.shutdown_timeout(END_LIMIT);
    ended
}

/// `others`: threads that are needed besides.
fn runtime(config: &Config, others: usize) -> anyhow::Result<Runtime> {
    let workers = config
        .worker_threads
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    background::runtime(workers.unwrap_or(1), others)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_thread_that_hangs_does_not_hold_the_end() {
        let (release, released) = channel::<()>();
        let runtime = runtime(&Config::default(), 0).unwrap();
        let ended = run_to_the_end(runtime, async {
            tokio::task::spawn_blocking(move || released.recv());
            7
        });
        assert_eq!(ended, 7);
        drop(release);
    }
}
