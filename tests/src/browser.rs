//! spice-html5 in headless Chromium, driven by playwright-core: the browser's way to a desktop.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::command::find_program;
use crate::packages::{self, Package, SPICE_HTML5};
use crate::picture::Picture;

/// How long the browser may take to show the picture.
const PICTURE_LIMIT: Duration = Duration::from_mins(1);
/// How much longer it may take to start and to end.
const BROWSER_LIMIT: Duration = Duration::from_mins(1);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser/spice.mjs");
const LOGIN_PAGE: &str = include_str!("../browser/index.html");
/// What the script leaves in its folder: the pixels of the canvas.
const PIXELS: &str = "pixels";

/// A desktop as spice-html5 is told of it.
pub struct Html5Desktop<'a> {
    /// Address of `spice_auto.html`; its scheme decides between `ws` and `wss`.
    pub page: &'a str,
    /// The WebSocket's host, an IPv6 literal in brackets.
    pub host: &'a str,
    /// The WebSocket's port.
    pub port: u16,
    /// The WebSocket's path and query, with the token.
    pub path: &'a str,
    /// The Spice password; empty when there is none.
    pub password: &'a str,
}

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

/// Opens the desktop and waits until it shows `expected`, or any picture that stays when there
/// is none to expect.
///
/// After a minute it gives back what is shown then, for the caller to compare. Fails when
/// nothing is shown, with what the page said.
pub async fn open(desktop: &Html5Desktop<'_>, expected: Option<&Picture>) -> Result<Html5Report> {
    let folder = tempfile::tempdir().context("a folder for the browser")?;
    let job = prepare(desktop, expected, &folder).await?;
    let output = timeout(PICTURE_LIMIT + BROWSER_LIMIT, run_script(&job))
        .await
        .context("the browser did not come to an end")??;
    let answer: Answer = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "the browser's script: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )
    })?;
    if let Some(error) = answer.error {
        bail!("the browser: {error}");
    }
    let pixels = fs::read(folder.path().join(PIXELS))
        .await
        .context("reading the canvas")?;
    Ok(Html5Report {
        picture: Picture::from_rgba(answer.width, answer.height, &pixels)?,
        sockets: answer.sockets,
        received: answer.received,
        sent: answer.sent,
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<String>,
    width: u32,
    height: u32,
    sockets: u64,
    received: u64,
    sent: u64,
}

async fn prepare(
    desktop: &Html5Desktop<'_>,
    expected: Option<&Picture>,
    folder: &TempDir,
) -> Result<Vec<u8>> {
    let profile = folder.path().join("profile");
    fs::create_dir(&profile)
        .await
        .context("a folder for the browser's profile")?;
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
    let chromium = find_program("chromium").context("no chromium on this machine")?;
    let job = json!({
        "playwright": packages::ensure_playwright()?,
        "chromium": chromium,
        "profile": profile,
        "page": desktop.page,
        "query": {
            "host": desktop.host,
            "port": desktop.port.to_string(),
            "path": desktop.path,
            "password": desktop.password,
        },
        "expected": expected,
        "pixels": folder.path().join(PIXELS),
        "seconds": PICTURE_LIMIT.as_secs(),
    });
    Ok(serde_json::to_vec(&job)?)
}

async fn run_script(job: &[u8]) -> Result<std::process::Output> {
    let mut node = Command::new("node")
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting node")?;
    let mut stdin = node.stdin.take().context("node's standard input")?;
    stdin
        .write_all(job)
        .await
        .context("telling node what to do")?;
    drop(stdin);
    node.wait_with_output().await.context("waiting for node")
}
