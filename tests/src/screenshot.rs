//! `spicy-screenshot`, a real Spice client that needs no display.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::command::find_program;
use crate::packages::AUTHORITIES;
use crate::picture::Picture;
use crate::tunnel::NOWHERE;

const LIMIT: Duration = Duration::from_secs(30);
const PROGRAM: &str = "spicy-screenshot";

/// Connects to a Spice server and saves the first picture that it is shown.
///
/// The program has no other way to take the password than its command line.
///
/// Fails with what the program said when it ends without a picture, and after half a minute.
pub async fn take(server: SocketAddr, password: Option<&str>) -> Result<Picture> {
    let command = Command::new(PROGRAM);
    run(command, &at(&server.to_string())?, password).await
}

/// The same from a Unix socket.
pub async fn take_at_socket(path: &Path, password: Option<&str>) -> Result<Picture> {
    let uri = format!("--uri=spice+unix://{}", path.display());
    run(Command::new(PROGRAM), &[uri], password).await
}

/// The same through an HTTP proxy, to a host that is nowhere. `proxy` is its address with the
/// credentials, as in `https://TICKET:x@127.0.0.1:443`; the certificate of an `https` one must be
/// signed by the authority in the PEM file `ca`.
pub async fn take_through(
    proxy: &str,
    ca: Option<&Path>,
    password: Option<&str>,
) -> Result<Picture> {
    take_of(NOWHERE, proxy, ca, password).await
}

/// The same of this host and port.
///
/// `GLib` trusts the system's authorities alone, so they are replaced where only this client sees
/// it; only root may do that.
pub async fn take_of(
    server: &str,
    proxy: &str,
    ca: Option<&Path>,
    password: Option<&str>,
) -> Result<Picture> {
    let mut command = match ca {
        None => Command::new(PROGRAM),
        Some(ca) => {
            let unshare = find_program("unshare");
            let unshare = unshare.context("no unshare: run `apt-get install -y util-linux`")?;
            let mut command = Command::new(unshare);
            command
                .args(["--mount", "sh", "-ec"])
                .arg(r#"mount --bind "$CA" "$AUTHORITIES"; exec "$0" "$@""#)
                .arg(PROGRAM)
                .env("CA", ca)
                .env("AUTHORITIES", AUTHORITIES);
            command
        }
    };
    // Not in the arguments, which everybody can read.
    command.env("SPICE_PROXY", proxy);
    run(command, &at(server)?, password).await
}

/// The arguments that name a server, which is host and port.
fn at(server: &str) -> Result<[String; 4]> {
    let (host, port) = server.rsplit_once(':').context("host and port")?;
    Ok(["-h", host, "-p", port].map(str::to_owned))
}

/// Lets the command take a picture of the server that the arguments name.
async fn run(mut command: Command, server: &[String], password: Option<&str>) -> Result<Picture> {
    let folder = tempfile::tempdir().context("a folder for the screenshot")?;
    let file = folder.path().join("screenshot.ppm");
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
