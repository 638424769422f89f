//! spice-html5 in headless Chromium, driven by playwright-core: the browser's way to a desktop.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::command::find_program;
use crate::flexvdi::Desktop;
use crate::packages::{self, Package, SPICE_HTML5};
use crate::picture::Picture;

/// How long the browser may take to show the picture.
const PICTURE_LIMIT: Duration = Duration::from_mins(1);
/// How much longer it may take to start and to end.
const BROWSER_LIMIT: Duration = Duration::from_mins(1);
/// Where the scripts are.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser");
const LOGIN_PAGE: &str = include_str!("../browser/index.html");

/// What the browser did.
#[derive(Debug)]
pub struct Html5Report {
    /// What its canvas showed in the end.
    pub picture: Picture,
    /// WebSockets that it opened.
    pub sockets: u64,
    /// Bytes of payload that it received through them.
    pub received: u64,
    /// Bytes of payload that it sent through them.
    pub sent: u64,
}

/// Installs the browser and what drives it where they are missing; may block for minutes.
pub fn ensure_installed() -> Result<()> {
    packages::ensure(&[Package::Chromium, Package::SpiceHtml5])?;
    packages::ensure_playwright()?;
    Ok(())
}

/// A folder for [`Manager::files`](crate::manager::ManagerBuilder::files): spice-html5 in `html5`
/// and a page that logs in and opens the desktop with it.
pub fn manager_files() -> Result<TempDir> {
    let folder = tempfile::tempdir().context("a folder for the manager's files")?;
    std::os::unix::fs::symlink(SPICE_HTML5, folder.path().join("html5"))
        .context("linking spice-html5")?;
    std::fs::write(folder.path().join("index.html"), LOGIN_PAGE).context("the page for logins")?;
    Ok(folder)
}

/// A folder that a gateway takes for spice-html5 (`WebClient`), with the text of its `main.js`.
pub fn stub_spice_html5() -> Result<(TempDir, &'static str)> {
    const MODULE: &str = "function SpiceMainConn() {}\nexport { SpiceMainConn };\n";
    let folder = tempfile::tempdir().context("a folder for spice-html5")?;
    std::fs::write(folder.path().join("main.js"), MODULE).context("a module")?;
    Ok((folder, MODULE))
}

/// Opens the desktop that a manager gave through this gateway, with the page that such a manager
/// has, and waits until it shows `expected`, or any picture that stays when there is none to
/// expect.
///
/// After a minute it gives back what is shown then, for the caller to compare. Fails when
/// nothing is shown, with what the page said.
pub async fn open(
    gateway: SocketAddr,
    desktop: &Desktop,
    expected: Option<&Picture>,
) -> Result<Html5Report> {
    let folder = tempfile::tempdir().context("a folder for the pictures")?;
    let expected = match expected {
        Some(picture) => {
            let file = folder.path().join("expected");
            fs::write(&file, picture.to_rgba())
                .await
                .context("writing what is expected")?;
            Some(file)
        }
        None => None,
    };
    let pixels = folder.path().join("pixels");
    let job = json!({
        "page": format!("https://{gateway}/vdi/html5/spice_auto.html"),
        "query": {
            "host": gateway.ip().to_string(),
            "port": gateway.port().to_string(),
            "path": format!("/?ver=2&token={}", desktop.token),
            "password": desktop.password,
        },
        "expected": expected,
        "pixels": pixels,
    });
    let answer: Answer = run("spice.mjs", job, PICTURE_LIMIT).await?;
    let pixels = fs::read(pixels).await.context("reading the canvas")?;
    Ok(Html5Report {
        picture: Picture::from_rgba(answer.width, answer.height, &pixels)?,
        sockets: answer.sockets,
        received: answer.received,
        sent: answer.sent,
    })
}

#[derive(Deserialize)]
struct Answer {
    width: u32,
    height: u32,
    sockets: u64,
    received: u64,
    sent: u64,
}

/// Has a script of the folder `browser` do a job in headless Chromium, within `limit`; returns
/// what it tells.
///
/// Fails when it tells of an error.
pub async fn run<T>(script: &str, mut job: Value, limit: Duration) -> Result<T>
where
    T: DeserializeOwned,
{
    let profile = tempfile::tempdir().context("a folder for the browser's profile")?;
    job["playwright"] = json!(packages::ensure_playwright()?);
    job["chromium"] = json!(find_program("chromium").context("no chromium on this machine")?);
    job["profile"] = json!(profile.path());
    job["seconds"] = json!(limit.as_secs());
    let output = timeout(limit + BROWSER_LIMIT, run_node(script, &job))
        .await
        .context("the browser did not come to an end")??;
    let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("the browser's script: {}", error.trim())
    })?;
    if let Some(error) = answer.get("error") {
        bail!("the browser: {error}");
    }
    serde_json::from_value(answer).context("what the browser's script tells")
}

async fn run_node(script: &str, job: &Value) -> Result<Output> {
    let mut node = Command::new("node")
        .arg(Path::new(SCRIPTS).join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting node")?;
    let mut stdin = node.stdin.take().context("node's standard input")?;
    stdin
        .write_all(job.to_string().as_bytes())
        .await
        .context("telling node what to do")?;
    drop(stdin);
    node.wait_with_output().await.context("waiting for node")
}
