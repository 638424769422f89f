//! A person with a browser: from the gateway's page to the desktop.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use testkit::browser;
use testkit::command::target_dir;
use testkit::picture::Picture;

use super::comparison::compare;
use super::site::{PASSWORD, Site, USER};
use crate::steps::Steps;

/// How long the browser may take from the login to the picture.
const LIMIT: Duration = Duration::from_mins(1);

/// What the script tells.
#[derive(Deserialize)]
struct Seen {
    told: [Size; 1],
    complaints: Vec<String>,
}

#[derive(Deserialize)]
struct Size {
    width: u32,
    height: u32,
}

/// Logs in on the page, waits for the desktop, and takes a screenshot of the browser.
pub(super) async fn run(steps: &mut Steps, site: &Site, expected: &Picture) -> Result<()> {
    let page = format!("https://{}/", site.address());
    steps.begin(format!("Browser: Chromium logs in at {page}"));
    let folder = target_dir().join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let screenshot = folder.join("browser.png");
    let scratch = tempfile::tempdir().context("a folder for the picture")?;
    let pixels = scratch.path().join("pixels");
    let job = json!({
        "page": page,
        "width": 1024,
        "steps": [
            ["fill", "#username", USER],
            ["fill", "#password", PASSWORD],
            ["press", "Enter"],
            ["picture", pixels],
            ["screenshot", screenshot],
        ],
    });
    let seen: Seen = site.with_log(browser::run("webclient.mjs", job, LIMIT).await)?;
    ensure!(
        seen.complaints.is_empty(),
        "the browser's console: {}",
        seen.complaints.join("; ")
    );
    let [Size { width, height }] = seen.told;
    let rgba = fs::read(&pixels).context("what the browser showed")?;
    let shown = Picture::from_rgba(width, height, &rgba)?;
    let screenshot = screenshot.canonicalize().unwrap_or(screenshot);
    steps.note(format!("what a person sees: {}", screenshot.display()));
    steps.done(compare(&shown, expected, "browser-desktop.png")?);
    Ok(())
}
