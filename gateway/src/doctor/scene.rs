//! What the checks look at, gathered once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::account::{Account, NoSuchUser};
use super::contact::Contact;
use super::running::{NoAnswer, Running, process};
use super::systemctl::State;
use super::unit::{self, Unit};
use crate::background::OWN;
use crate::config::{Config, ConfigError, Loaded, Sources};
use gateway_datapath::probe;

/// Longest wait for the disk.
const LIMIT: Duration = Duration::from_secs(10);

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Where the configuration comes from.
    pub(crate) sources: Sources,
    /// The unit's name, or the path of its file; `None`: that of the running gateway, or the
    /// package's.
    pub(crate) unit: Option<String>,
    /// Name or number of the user as whom the gateway runs; `None`: as the running one, or as the
    /// unit says.
    pub(crate) user: Option<String>,
}

/// An installation.
pub(super) struct Scene {
    pub(super) path: PathBuf,
    pub(super) loaded: Result<Loaded, ConfigError>,
    /// What was loaded, else the defaults.
    pub(super) config: Arc<Config>,
    /// The user as whom the gateway runs or is to run.
    pub(super) account: Account,
    pub(super) unit: Option<Unit>,
    /// The unit that was to be looked at.
    pub(super) wanted_unit: Option<String>,
    /// What systemd says of it.
    pub(super) state: Option<State>,
    pub(super) running: Result<Running, NoAnswer>,
    manager: OnceCell<Contact>,
    paths: OnceCell<Vec<probe::Finding>>,
}

impl Scene {
    /// Looks around. Fails when there is no such user, or the disk does not answer.
    pub(super) async fn gather(wanted: &Wanted) -> anyhow::Result<Self> {
        let sources = wanted.sources.clone();
        let loaded = on_disk(move || sources.load()).await?;
        let config = Arc::new(match &loaded {
            Ok(loaded) => loaded.config.clone(),
            Err(_) => Config::default(),
        });
        let running = Running::ask(&config.runtime_dir).await;
        let pid = running.as_ref().ok().and_then(Running::pid);
        let wanted_unit = wanted.unit.clone();
        let unit = on_disk(move || find_unit(wanted_unit, pid)).await?;
        // A file that was named need not be what systemd has.
        let is_installed = !wanted.unit.as_ref().is_some_and(|unit| unit.contains('/'));
        let state = match &unit {
            Some(unit) if is_installed => State::of(&unit.name).await,
            _ => None,
        };
        let (user, of_unit) = (wanted.user.clone(), unit.clone());
        let account = on_disk(move || account(user.as_deref(), pid, of_unit.as_ref())).await??;
        Ok(Self {
            path: wanted.sources.file().to_owned(),
            loaded,
            config,
            account,
            unit,
            wanted_unit: wanted.unit.clone(),
            state,
            running,
            manager: OnceCell::new(),
            paths: OnceCell::new(),
        })
    }

    /// Whether there is a configuration by which things can be judged.
    pub(super) fn is_configured(&self) -> bool {
        self.loaded.is_ok()
    }

    /// The process of the running gateway.
    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().ok()?.pid()
    }

    /// What the manager has answered; it is asked once.
    pub(super) async fn manager(&self) -> &Contact {
        let config = Arc::clone(&self.config);
        self.manager.get_or_init(|| Contact::manager(config)).await
    }

    /// Which data paths work here, for this user; they are tried once.
    pub(super) async fn data_paths(&self) -> &[probe::Finding] {
        let config = &self.config;
        let tried = || probe::run(config.data_path.tried(), &config.ebpf_dir);
        self.paths.get_or_init(tried).await
    }

    /// Nothing is there.
    #[cfg(test)]
    pub(super) fn of_nothing() -> Self {
        Self {
            path: PathBuf::from("/nonexistent"),
            loaded: Sources::of_file(std::path::Path::new("/nonexistent")).load(),
            config: Arc::default(),
            account: Account::own(),
            unit: None,
            wanted_unit: None,
            state: None,
            running: Err(NoAnswer::NotRunning),
            manager: OnceCell::new(),
            paths: OnceCell::new(),
        }
    }

    /// The same with a configuration.
    #[cfg(test)]
    pub(super) fn with(config: Config) -> Self {
        Self {
            loaded: Ok(Loaded::of(config.clone())),
            config: Arc::new(config),
            ..Self::of_nothing()
        }
    }
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let done = timeout(LIMIT, OWN.run(LIMIT, work)).await;
    Ok(done.context("a disk or the system's list of users does not answer within 10 s")??)
}

fn find_unit(wanted: Option<String>, pid: Option<u32>) -> Option<Unit> {
    match wanted {
        Some(path) if path.contains('/') => Some(Unit::file(path.as_ref())),
        Some(name) => Unit::installed(&unit::full_name(&name)),
        None => {
            let of_process = pid.and_then(unit_of);
            Unit::installed(of_process.as_deref().unwrap_or(unit::USUAL_NAME))
        }
    }
}

/// The service that a process belongs to, by its control group.
fn unit_of(pid: u32) -> Option<String> {
    let groups = process(pid)?.cgroups().ok()?;
    groups.0.iter().find_map(|group| {
        let last = group.pathname.rsplit('/').next()?;
        last.ends_with(".service").then(|| last.to_owned())
    })
}

fn account(
    wanted: Option<&str>,
    pid: Option<u32>,
    unit: Option<&Unit>,
) -> Result<Account, NoSuchUser> {
    if let Some(name) = wanted {
        return Account::named(name);
    }
    let of_process = pid.and_then(process).and_then(|process| process.uid().ok());
    let of_unit = unit.map(|unit| unit.settings.value("User").unwrap_or("root"));
    let mut account = match (of_process, of_unit) {
        (Some(uid), _) => Account::numbered(uid),
        // Systemd makes a user of a dynamic one when the service starts.
        (None, Some(name)) => Account::named(name).unwrap_or_else(|_| Account::usual()),
        (None, None) => Account::usual(),
    };
    if let Some(unit) = unit {
        let given = unit.settings.words("AmbientCapabilities");
        let reads_all = ["CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"];
        account.reads_all |= reads_all.iter().any(|name| given.contains(name));
    }
    Ok(account)
}
