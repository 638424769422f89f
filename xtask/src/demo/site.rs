//! The gateway of the demo, whose desktop and user stand in a file.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use tempfile::TempDir;
use testkit::cert::TestCert;
use testkit::flexvdi::{self, FlexVdiClient};
use testkit::gateway::Gateway;
use testkit::packages::SPICE_HTML5;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Desktop;
use super::programs::Programs;
use crate::steps::Steps;

/// Who logs in.
pub(super) const USER: &str = "demo";
/// With which password.
pub(super) const PASSWORD: &str = "demo";
/// The name by which clients know the gateway; the file only speaks of 127.0.0.1.
pub(super) const NAME: &str = "localhost";

/// A gateway with one desktop and one user.
pub(super) struct Site {
    pub(super) gateway: Gateway,
    /// Password of the desktop's Spice server.
    spice_password: String,
    _folder: TempDir,
}

impl Site {
    pub(super) async fn start(
        steps: &mut Steps,
        desktop: &Desktop,
        programs: &Programs,
        binary: PathBuf,
    ) -> Result<Self> {
        steps.begin("Gateway: a file with one desktop and one user, and no manager");
        let folder = tempfile::tempdir().context("a folder for the file with desktops")?;
        let file = folder.path().join("desktops.json");
        let (address, spice_password) = desktop.place();
        let mut listed =
            json!({"id": "vm", "name": "Virtual machine", "address": address.to_string()});
        if !spice_password.is_empty() {
            listed["password"] = json!(spice_password);
        }
        let hash = hash_password(&binary).await?;
        let content = json!({
            "desktops": [listed],
            "users": [{"name": USER, "password": hash, "desktops": ["vm"]}],
        });
        std::fs::write(&file, "").context("the file with desktops")?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        std::fs::write(&file, content.to_string()).context("writing the desktops")?;

        let mut gateway = Gateway::builder()
            .set("Desktops", file.to_string_lossy())
            .set("AllowedHosts", vec!["127.0.0.0/8"])
            .set("MaxConnections", 100)
            .cert(TestCert::builder().chain().build()?)
            .plain()
            .binary(binary);
        if programs.page {
            gateway = gateway.set("WebClient", SPICE_HTML5);
        }
        let site = Self {
            gateway: gateway.spawn().await?,
            spice_password: spice_password.to_owned(),
            _folder: folder,
        };
        steps.done(format!("listens for TLS on {}", site.gateway.tls_addr()));
        Ok(site)
    }

    /// Its address for people.
    pub(super) fn address(&self) -> String {
        format!("{NAME}:{}", self.gateway.tls_addr().port())
    }

    /// A client of the user.
    pub(super) fn client(&self) -> FlexVdiClient {
        FlexVdiClient::new(&self.gateway.tls())
            .host(&self.address())
            .login(USER, PASSWORD)
    }

    /// Fails unless a client was told of the gateway and a ticket, not of the desktop's host.
    pub(super) fn check(&self, given: &flexvdi::Desktop) -> Result<()> {
        ensure!(
            given.address == NAME,
            "spice_address is {:?}",
            given.address
        );
        ensure!(given.use_ws, "use_ws is not true");
        ensure!(
            given.token.parse::<u16>().is_err(),
            "spice_port is a port, not a ticket"
        );
        ensure!(
            given.password == self.spice_password,
            "spice_password is not that of the file"
        );
        Ok(())
    }

    /// What a client did, with the gateway's log behind the reason of a failure.
    pub(super) fn with_log<T>(&self, did: Result<T>) -> Result<T> {
        did.map_err(|error| anyhow!("{error:#}\nThe gateway's log:\n{}", self.gateway.log_tail()))
    }

    /// Warnings and errors that the gateway logged.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let is_complaint = |line: &String| {
            line.split_whitespace()
                .any(|word| matches!(word, "WARN" | "ERROR"))
        };
        let lines = self.gateway.log().await;
        lines.into_iter().filter(is_complaint).collect()
    }
}

/// Has the gateway make the hash, as administrators do.
async fn hash_password(binary: &Path) -> Result<String> {
    let mut command = Command::new(binary);
    command
        .arg("password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))?;
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    stdin.write_all(PASSWORD.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "flexvdi-gateway password: {}",
        output.status
    );
    let hash = String::from_utf8(output.stdout).context("the hash of a password")?;
    Ok(hash.trim().to_owned())
}
