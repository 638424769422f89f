//! The gateway itself, in its release build.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::cert::TestCert;
use testkit::command::target_dir;
use testkit::gateway::{Gateway, GatewayBuilder, Signal};
use testkit::network::Network;
use tokio::task::AbortHandle;
use tokio::time::interval;

use xtask::cargo;

/// Builds it as it is released.
pub(crate) fn build() -> Result<()> {
    cargo::run(&["build", "--release", "--quiet", "-p", "gateway"])?;
    let path = binary();
    ensure!(path.is_file(), "cargo left no {} behind", path.display());
    Ok(())
}

/// Its version.
pub(super) fn version(program: Option<&Path>) -> Result<String> {
    let program = program.map_or_else(binary, Path::to_owned);
    let mut command = std::process::Command::new(program);
    command.arg("--version");
    let text = super::output(command)?;
    let version = text.split_whitespace().last().context("no version")?;
    Ok(version.to_owned())
}

/// How it is started.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// Open a plaintext port too.
    pub(crate) plain: bool,
    /// Its `DataPath`; none: its default.
    pub(crate) path: Option<&'a str>,
    /// Its program; none: the release build.
    pub(crate) binary: Option<&'a Path>,
    /// Where it is; none: on loopback.
    pub(crate) network: Option<&'a Network>,
    /// The host's Unix sockets as `SpiceHost` names them, for kinds that use those; none: its port.
    pub(crate) sockets: Option<&'a str>,
    /// Further keys of its configuration.
    pub(crate) keys: &'a [(String, Value)],
}

/// Fails where the kernel has no TLS.
pub(super) fn ensure_kernel_tls() -> Result<()> {
    // The file is there once the module is.
    ensure!(
        Path::new("/proc/net/tls_stat").exists(),
        "this kernel has no TLS, or its module is not loaded: `modprobe tls`"
    );
    Ok(())
}

/// Starts it without hijacking and without limits that load from one address would meet.
pub(super) async fn start(cert: &TestCert, setup: Setup<'_>) -> Result<Gateway> {
    let path = |path: &Path| path.display().to_string();
    let mut builder = builder()
        .set("CertFile", path(&cert.cert_path()))
        .set("KeyFile", path(&cert.key_path()));
    if let Some(binary) = setup.binary {
        builder = builder.binary(binary);
    }
    if setup.plain {
        builder = builder.plain();
    }
    if let Some(path) = setup.path {
        builder = builder.set("DataPath", path);
    }
    if let Some(network) = setup.network {
        builder = builder.in_network(network);
    }
    if let Some(sockets) = setup.sockets {
        builder = builder.set("SpiceHost", sockets);
    }
    for (key, value) in setup.keys {
        builder = builder.set(key, value.clone());
    }
    builder.spawn().await
}

fn builder() -> GatewayBuilder {
    Gateway::builder()
        .binary(binary())
        .set("HijackAll", false)
        .set("BadTokenLimit", 0)
        .set("MaxConnectionsPerAddress", 0)
}

/// Between two exchanges of the certificate.
const BETWEEN_RELOADS: Duration = Duration::from_millis(100);

/// A gateway whose certificate can be exchanged all the time.
pub(super) struct Reloading {
    pub(super) gateway: Arc<Gateway>,
    /// Where it finds certificate and key.
    file: PathBuf,
    /// Two certificates with their keys, of the same kind.
    texts: [String; 2],
    _folder: tempfile::TempDir,
}

impl Reloading {
    /// Starts it with this certificate.
    pub(super) async fn start(cert: &TestCert) -> Result<Self> {
        let other = TestCert::new()?;
        let text = |cert: &TestCert| -> Result<String> {
            let read = |path: &Path| fs::read_to_string(path).context("reading a certificate");
            Ok(read(&cert.key_path())? + &read(&cert.cert_path())?)
        };
        let texts = [text(cert)?, text(&other)?];
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("certificate.pem");
        fs::write(&file, &texts[0])?;
        let gateway = builder()
            .set("CertFile", file.display().to_string())
            .set("KeyFile", file.display().to_string())
            // Told only.
            .set("CertificatePoll", 0)
            .spawn()
            .await?;
        Ok(Self {
            gateway: Arc::new(gateway),
            file,
            texts,
            _folder: folder,
        })
    }

    /// Exchanges the certificate ten times a second until the result is dropped.
    pub(super) fn begin(&self) -> Reloads {
        let (gateway, file) = (Arc::clone(&self.gateway), self.file.clone());
        let texts = self.texts.clone();
        let task = tokio::spawn(async move {
            let mut due = interval(BETWEEN_RELOADS);
            let fresh = file.with_extension("new");
            for text in texts.iter().cycle() {
                due.tick().await;
                let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &file));
                if written.is_err() || gateway.signal(Signal::HUP).is_err() {
                    return;
                }
            }
        });
        Reloads(task.abort_handle())
    }
}

/// Certificates are exchanged while this lives.
pub(crate) struct Reloads(AbortHandle);

impl Drop for Reloads {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn binary() -> PathBuf {
    target_dir().join("release/flexvdi-gateway")
}
