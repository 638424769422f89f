//! `spicy-screenshot`, a real Spice client that needs no display.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::picture::Picture;

const LIMIT: Duration = Duration::from_secs(30);

/// Connects to a Spice server and saves the first picture that it is shown.
///
/// The program has no other way to take the password than its command line.
///
/// Fails with what the program said when it ends without a picture, and after half a minute.
pub async fn take(server: SocketAddr, password: Option<&str>) -> Result<Picture> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    take_from(&["-h", &host, "-p", &port], password).await
}

/// The same from a Unix socket.
pub async fn take_at_socket(path: &Path, password: Option<&str>) -> Result<Picture> {
    let uri = format!("--uri=spice+unix://{}", path.display());
    take_from(&[&uri], password).await
}

async fn take_from(server: &[&str], password: Option<&str>) -> Result<Picture> {
    let folder = tempfile::tempdir().context("a folder for the screenshot")?;
    let file = folder.path().join("screenshot.ppm");
    let mut command = Command::new("spicy-screenshot");
    command
        .args(server)
        .arg("-o")
        .arg(&file)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(password) = password {
        command.args(["-w", password]);
    }
    let server = server.join(" ");
    let output = timeout(LIMIT, command.output())
        .await
        .with_context(|| format!("spicy-screenshot had no picture of {server} in {LIMIT:?}"))?
        .context("starting spicy-screenshot")?;
    ensure!(
        output.status.success(),
        "spicy-screenshot of {server}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let ppm = tokio::fs::read(&file)
        .await
        .context("reading the screenshot")?;
    Picture::from_ppm(&ppm)
}
