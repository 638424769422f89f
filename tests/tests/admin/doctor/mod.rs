//! `flexvdi-gateway doctor`.

mod broken;
mod bundle;
mod hosts;
mod running;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use testkit::gateway::{GatewayBuilder, gateway_binary};
use testkit::net::free_port;
use testkit::prelude::*;
use tokio::process::Command;

/// The package's unit.
const UNIT: &str = include_str!("../../../../packaging/systemd/flexvdi-gateway.service");
/// A directory that the unit would make.
const RUNTIME: &str = "testkit-doctor";

/// An installation in a folder, without a running gateway, in which nothing is wrong.
struct Installation {
    folder: TempDir,
    cert: TestCert,
    _manager: Manager,
    host: Host<Vec<u8>>,
    config: Map<String, Value>,
    /// What is added to the unit.
    unit: String,
}

/// What was found.
struct Found {
    output: Output,
    /// Lines that are neither `ok` nor `skipped`.
    troubles: Vec<String>,
    text: String,
}

impl Installation {
    async fn new() -> Self {
        Self::with_cert(sound_cert().build().unwrap()).await
    }

    /// The same with this certificate.
    async fn with_cert(cert: TestCert) -> Self {
        let host = Host::echo().await.unwrap();
        let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
            .await
            .unwrap();
        set_mode(manager.cert().ca_path().parent().unwrap(), 0o755);
        let config = sound_config(&cert, &manager, &host);
        let installation = Self {
            folder: TempDir::with_prefix("testkit-doctor-").unwrap(),
            cert,
            _manager: manager,
            host,
            config,
            unit: String::new(),
        };
        set_mode(installation.folder.path(), 0o755);
        installation.protect_key();
        installation
    }

    fn protect_key(&self) {
        let key = self.cert.key_path();
        set_mode(key.parent().unwrap(), 0o755);
        set_mode(&key, 0o600);
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config.insert(key.to_owned(), value.into());
    }

    /// A file beside the configuration, for its owner only.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config_path(&self) -> PathBuf {
        self.path("gateway.conf")
    }

    /// Writes configuration and unit, and gives the command that looks at them.
    fn command(&self) -> Command {
        let config = self.config_path();
        fs::write(&config, Value::from(self.config.clone()).to_string()).unwrap();
        self.command_for(&config)
    }

    /// Writes a unit that starts a gateway with this configuration, and gives the command that looks
    /// at both.
    fn command_for(&self, config: &Path) -> Command {
        let unit = self.path("gateway.service");
        let start = format!(
            "ExecStart=\nExecStart=/usr/sbin/flexvdi-gateway --config {}\n\
             RuntimeDirectory=\nRuntimeDirectory={RUNTIME}\nPrivateTmp=no\n",
            config.display()
        );
        fs::write(&unit, format!("{UNIT}\n[Service]\n{start}{}", self.unit)).unwrap();
        let mut command = doctor(config);
        command.arg("--unit").arg(unit);
        command
    }

    /// A gateway that runs with this installation's configuration, in which nothing is wrong.
    async fn start(&mut self, configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Gateway {
        let mut builder = Gateway::builder();
        for (key, value) in &self.config {
            if key != "RuntimeDir" {
                builder = builder.set(key, value.clone());
            }
        }
        let gateway = configure(builder).spawn().await.unwrap();
        let folder = gateway.config_path().parent().unwrap();
        self.unit = format!("ReadWritePaths={}\n", folder.display());
        gateway
    }

    /// Looks at it as the user who runs the tests.
    async fn look(&self) -> Found {
        let user = rustix::process::getuid().as_raw().to_string();
        let mut command = self.command();
        command.args(["--user", &user]);
        let mut found = run(command).await;
        // None runs here, which is told.
        let is_told =
            |line: &String| line.starts_with("warning  gateway ") && line.contains("none runs");
        let before = found.troubles.len();
        found.troubles.retain(|line| !is_told(line));
        assert_eq!(found.troubles.len() + 1, before, "{}", found.text);
        found
    }

    /// Looks at it, and finds this one trouble.
    async fn finds(&self, result: &str, check: &str, text: &str) {
        self.look().await.is(result, check, text);
    }
}

impl Found {
    /// There is this trouble and no other.
    fn is(&self, result: &str, check: &str, text: &str) {
        let told = &self.troubles;
        let begin = format!("{result:<8} {check} ");
        let is_it = told.len() == 1 && told[0].starts_with(&begin) && told[0].contains(text);
        assert!(is_it, "{begin}{text} in {}", self.text);
        let code = if result == "error" { 1 } else { 3 };
        assert_eq!(self.output.status.code(), Some(code), "{}", self.text);
    }
}

/// A certificate of an authority that nobody knows, for the name by which clients ask.
fn sound_cert() -> testkit::cert::TestCertBuilder {
    TestCert::builder().chain()
}

fn sound_config(cert: &TestCert, manager: &Manager, host: &Host<Vec<u8>>) -> Map<String, Value> {
    let config = json!({
        "CertFile": cert.cert_path(),
        "KeyFile": cert.key_path(),
        "ListenAddress": "127.0.0.1",
        "SslPort": free_port().unwrap(),
        "ExternalName": "localhost",
        "ManagerIP": "127.0.0.1",
        "ManagerPort": manager.addr().port(),
        "ManagerCAFile": manager.cert().ca_path(),
        "AllowedHosts": ["127.0.0.1"],
        "FirstSpicePort": host.addr().port(),
        "LastSpicePort": host.addr().port(),
        "MaxConnections": 100,
        "RuntimeDir": format!("/run/{RUNTIME}"),
    });
    let Value::Object(config) = config else {
        unreachable!("it is an object")
    };
    config
}

fn doctor(config: &Path) -> Command {
    let mut command = Command::new(gateway_binary().unwrap());
    command
        .arg("doctor")
        .arg("--config")
        .arg(config)
        .kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Found {
    let output = within("end of doctor", command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let is_trouble = |line: &&str| line.starts_with("error ") || line.starts_with("warning ");
    let troubles = text
        .lines()
        .filter(is_trouble)
        .map(ToOwned::to_owned)
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Found {
        output,
        troubles,
        text: text + &errors,
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
