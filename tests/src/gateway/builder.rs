//! Configuration and start of a gateway.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::Gateway;
use super::log::ProcessLog;
use crate::cert::TestCert;
use crate::command::find_program;
use crate::manager::Manager;
use crate::net::free_port;

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
            config.extend(self.config);
            write_config(&config_path, &config)?;
        }

        let mut child = command(&binary, self.open_files)?
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
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let stderr = child.stderr.take().context("standard error is piped")?;

        let mut gateway = Gateway {
            child,
            log: ProcessLog::collect(stderr),
            asked_for_log: tokio::sync::Mutex::default(),
            tls: None,
            plain: None,
            config_path,
            cert,
            _dir: dir,
        };
        gateway.wait_until_ready().await?;
        Ok(gateway)
    }
}

/// Runs the binary, with a limit on open files or without.
fn command(binary: &Path, open_files: Option<u64>) -> Result<Command> {
    let Some(limit) = open_files else {
        return Ok(Command::new(binary));
    };
    // It becomes the gateway itself: the process id stays.
    let prlimit = find_program("prlimit");
    let mut command =
        Command::new(prlimit.context("no prlimit: run `apt-get install -y util-linux`")?);
    command.arg(format!("--nofile={limit}:{limit}")).arg(binary);
    Ok(command)
}

/// The gateway's binary: `FLEXVDI_GATEWAY_BIN`, or the one that cargo built into the directory
/// from which the running program comes.
pub fn gateway_binary() -> Result<PathBuf> {
    const NAME: &str = "flexvdi-gateway";
    if let Some(path) = std::env::var_os("FLEXVDI_GATEWAY_BIN") {
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
        "RuntimeDir": dir.join("run"),
    });
    match defaults {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
