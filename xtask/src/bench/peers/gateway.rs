//! The gateway itself, in its release build.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use testkit::cert::TestCert;
use testkit::command::target_dir;
use testkit::gateway::Gateway;

use crate::cargo;

/// Builds it as it is released.
pub(crate) fn build() -> Result<()> {
    cargo::run(&["build", "--release", "--quiet", "-p", "gateway"])?;
    let path = binary();
    ensure!(path.is_file(), "cargo left no {} behind", path.display());
    Ok(())
}

/// Its version.
pub(super) fn version() -> Result<String> {
    let mut command = std::process::Command::new(binary());
    command.arg("--version");
    let text = super::output(command)?;
    let version = text.split_whitespace().last().context("no version")?;
    Ok(version.to_owned())
}

/// Starts it without hijacking and without limits that load from one address would meet.
/// A data path is for its plaintext port, which is opened for it.
pub(super) async fn start(cert: &TestCert, plain: Option<&str>) -> Result<Gateway> {
    let path = |path: &Path| path.display().to_string();
    let builder = Gateway::builder()
        .binary(binary())
        .set("CertFile", path(&cert.cert_path()))
        .set("KeyFile", path(&cert.key_path()))
        .set("HijackAll", false)
        .set("BadTokenLimit", 0)
        .set("MaxConnectionsPerAddress", 0);
    match plain {
        Some(path) => builder.plain().set("DataPath", path),
        None => builder,
    }
    .spawn()
    .await
}

fn binary() -> std::path::PathBuf {
    target_dir().join("release/flexvdi-gateway")
}
