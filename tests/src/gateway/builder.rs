//! Configuration and start of a gateway.

use std::ffi::OsString;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::Gateway;
use super::log::ProcessLog;
use crate::cert::TestCert;
use crate::command::find_program;
use crate::manager::Manager;
use crate::namespace::Namespace;
use crate::net::free_port;
use crate::network::{self, Network};

/// A gateway to be started. Its configuration begins with what tests need: free ports of
/// 127.0.0.1, a certificate of its own, any Spice port.
#[must_use]
#[derive(Debug)]
pub struct GatewayBuilder {
    config: Map<String, Value>,
    config_text: Option<String>,
    cert: Option<TestCert>,
    plain: bool,
    binary: Option<PathBuf>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    open_files: Option<u64>,
    tasks: Option<u64>,
    user: Option<u32>,
    namespace: Option<Namespace>,
}

impl GatewayBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: Map::new(),
            config_text: None,
            cert: None,
            plain: false,
            binary: None,
            args: Vec::new(),
            env: Vec::new(),
            open_files: None,
            tasks: None,
            user: None,
            namespace: None,
        }
    }

    /// Sets a key of the configuration file.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.insert(key.to_owned(), value.into());
        self
    }

    /// Writes exactly this as the configuration file, whatever else was set.
    pub fn config_text(mut self, text: impl Into<String>) -> Self {
        self.config_text = Some(text.into());
        self
    }

    /// Uses this manager.
    pub fn manager(self, manager: &Manager) -> Self {
        self.set("ManagerIP", manager.addr().ip().to_string())
            .set("ManagerPort", manager.addr().port())
    }

    /// Opens a plaintext port too.
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Shows this certificate instead of a self-signed EC one.
    pub fn cert(mut self, cert: TestCert) -> Self {
        self.cert = Some(cert);
        self
    }

    /// Starts this binary instead of the one that [`gateway_binary`] finds.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Adds an argument of the command line.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Lets it have at most this many file descriptors, from the start on.
    pub fn open_files(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Lets it have at most this many tasks (processes and threads), from the start on. The limit
    /// is one for each user, and none for root, so it runs as a user of its own, unless
    /// [`GatewayBuilder::user`] names one; only root can start it like this.
    pub fn tasks(mut self, limit: u64) -> Self {
        self.tasks = Some(limit);
        self
    }

    /// Runs it as this user; only root can start it like this. It may read all files, but writes
    /// only where the user may.
    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// Starts it where the network has its gateway, with the network's host behind it.
    pub fn in_network(mut self, network: &Network) -> Self {
        self.namespace = Some(network.gateway.clone());
        self.set("ListenAddress", network::GATEWAY.to_string())
            .set("PlainAddress", network::GATEWAY.to_string())
            .set("SpiceHost", network::HOST.to_string())
    }

    /// Starts it and waits until it listens. The error of one that does not start holds its
    /// log.
    pub async fn spawn(self) -> Result<Gateway> {
        let binary = self.binary.map_or_else(gateway_binary, Ok)?;
        let dir = TempDir::with_prefix("testkit-gateway-")?;
        let cert = self.cert.map_or_else(TestCert::new, Ok)?;
        let config_path = dir.path().join("flexvdi-gateway.conf");
        if let Some(text) = &self.config_text {
            std::fs::write(&config_path, text)?;
        } else {
            let mut config = default_config(&cert, dir.path());
            if self.plain {
                config.insert("PlainPort".to_owned(), free_port()?.into());
            }
            if self.config.contains_key("Acme") {
                config.retain(|key, _| key != "CertFile" && key != "KeyFile");
            }
            config.extend(self.config);
            write_config(&config_path, &config)?;
        }

        let user = self.user.or_else(|| self.tasks.map(|_| unused_user()));
        if let Some(user) = user {
            chown(dir.path(), Some(user), Some(user)).context("run the tests as root")?;
        }
        let limits = [("nofile", self.open_files), ("nproc", self.tasks)];
        let mut command = command(&binary, limits, user)?;
        command
            .arg("--config")
            .arg(&config_path)
            .args(&self.args)
            // What systemd may have set for whoever runs the tests is not meant for the gateway.
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let spawned = match &self.namespace {
            Some(namespace) => namespace.enter(|| command.spawn())?,
            None => command.spawn(),
        };
        let mut child = spawned.with_context(|| format!("starting {}", binary.display()))?;
        let stderr = child.stderr.take().context("standard error is piped")?;

        let mut gateway = Gateway {
            child,
            log: ProcessLog::collect(stderr),
            asked_for_log: tokio::sync::Mutex::default(),
            tls: None,
            plain: None,
            config_path,
            cert,
            user,
            tasks: self.tasks,
            _dir: dir,
        };
        gateway.wait_until_ready().await?;
        Ok(gateway)
    }
}

/// Runs the binary with these limits, as this user. Each program on the way becomes the next one:
/// the process id stays.
fn command(binary: &Path, limits: [(&str, Option<u64>); 2], user: Option<u32>) -> Result<Command> {
    let given = limits
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit?)));
    let given: Vec<_> = given
        .map(|(name, limit)| format!("--{name}={limit}:{limit}"))
        .collect();
    let mut command = match user {
        Some(user) => {
            // The binary and the files may lie where only root goes.
            let mut command = run_as(user, &["dac_read_search"])?;
            command.arg(util("prlimit")?);
            command
        }
        None if given.is_empty() => return Ok(Command::new(binary)),
        None => std::process::Command::new(util("prlimit")?),
    };
    command.args(given).arg(binary);
    Ok(command.into())
}

/// The start of a command that runs the program in its arguments as this user, with these
/// capabilities.
pub(super) fn run_as(user: u32, capabilities: &[&str]) -> Result<std::process::Command> {
    let mut command = std::process::Command::new(util("setpriv")?);
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .arg("--clear-groups");
    for capability in capabilities {
        command
            .arg(format!("--inh-caps=+{capability}"))
            .arg(format!("--ambient-caps=+{capability}"));
    }
    Ok(command)
}

/// A program of util-linux.
pub(super) fn util(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| format!("no {name}: run `apt-get install -y util-linux`"))
}

/// A user that most likely nobody else is, below 65536: namespaces of containers have no others.
pub fn unused_user() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const USERS: u32 = 40_000;
    let begin = std::process::id().wrapping_mul(16);
    FIRST + begin.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)) % USERS
}

/// The gateway's binary: `TESTKIT_GATEWAY_BIN`, or the one that cargo built into the directory
/// from which the running program comes.
pub fn gateway_binary() -> Result<PathBuf> {
    const NAME: &str = "flexvdi-gateway";
    if let Some(path) = std::env::var_os("TESTKIT_GATEWAY_BIN") {
        return Ok(path.into());
    }
    let program = std::env::current_exe().context("finding the running program")?;
    // Programs lie in the profile's directory itself, tests in `deps` below it.
    let found = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(NAME))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "there is no {NAME} beside {}: run `cargo build -p gateway`",
            program.display()
        ),
    }
}

/// Writes a configuration file, replacing it at once.
pub(super) fn write_config(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, serde_json::to_vec_pretty(config)?)?;
    std::fs::rename(&fresh, path).with_context(|| format!("writing {}", path.display()))
}

fn default_config(cert: &TestCert, dir: &Path) -> Map<String, Value> {
    let defaults = json!({
        "ListenAddress": "127.0.0.1",
        "SslPort": 0,
        "CertFile": cert.cert_path(),
        "KeyFile": cert.key_path(),
        "FirstSpicePort": 1,
        "LastSpicePort": 65535,
        // Hosts of tests often say nothing for long.
        "LinkTimeout": 600,
        "RuntimeDir": dir.join("run"),
        "StateDirectory": dir.join("state"),
        // Nothing that somebody has loaded on this machine.
        "EbpfDir": dir.join("ebpf"),
    });
    match defaults {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
