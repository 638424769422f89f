//! websocat, a WebSocket relay in Rust on tokio and OpenSSL.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::cert::TestCert;
use testkit::command::{find_program, run_bounded, target_dir};
use testkit::network::Network;

use super::program::{Place, Program};
use xtask::cargo;

const VERSION: &str = "1.14.0";
/// How long its build may take.
const BUILD_LIMIT: Duration = Duration::from_mins(20);
/// The password of a file that lives as long as the program.
const PASSWORD: &str = "bench";

/// Whether it is there; if not, [`install`] takes minutes.
pub(super) fn is_installed() -> bool {
    binary().is_file()
}

/// Builds it into the target directory.
pub(super) fn install() -> Result<()> {
    // Not --locked: with the versions that it was released with, it no longer compiles.
    let mut install = cargo::command(&["install", "websocat", "--version", VERSION, "--root"]);
    install.arg(folder());
    run_bounded(install, BUILD_LIMIT).with_context(|| {
        format!(
            "cannot be built; by hand: apt-get install -y libssl-dev pkg-config && \
             cargo install websocat --version {VERSION} --root target/bench-tools"
        )
    })?;
    Ok(())
}

/// Its version.
pub(super) fn version() -> String {
    VERSION.to_owned()
}

/// Starts it in front of the host.
pub(super) async fn start(
    cert: &TestCert,
    host: SocketAddr,
    network: Option<&Network>,
) -> Result<Program> {
    let place = Place::new(network)?;
    let identity = place.path("identity.p12");
    let mut convert = Command::new(find_program("openssl").context("no openssl")?);
    convert
        .args(["pkcs12", "-export", "-passout", &format!("pass:{PASSWORD}")])
        .arg("-in")
        .arg(cert.cert_path())
        .arg("-inkey")
        .arg(cert.key_path())
        .arg("-out")
        .arg(&identity);
    super::output(convert).context("a PKCS#12 file")?;
    let mut command = Command::new(binary());
    command
        .args(["--binary", "--exit-on-eof", "-q"])
        .arg(format!("--pkcs12-der={}", identity.display()))
        .arg(format!("--pkcs12-passwd={PASSWORD}"))
        .arg(format!("wss-listen:{}", place.addr))
        .arg(format!("tcp:{host}"));
    Program::start(command, place).await
}

fn folder() -> PathBuf {
    target_dir().join("bench-tools")
}

fn binary() -> PathBuf {
    folder().join("bin/websocat")
}
