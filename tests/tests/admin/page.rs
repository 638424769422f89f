//! The page for browsers, in a real one.

use std::path::Path;
use std::process::Stdio;

use http::header::CONTENT_SECURITY_POLICY;
use serde_json::{Value, json};
use testkit::browser;
use testkit::command::find_program;
use testkit::packages;
use testkit::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::{Stage, get};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser/status.mjs");

/// What the browser saw of the page in one way of looking at it.
async fn look(stage: &Stage, scheme: &str, scripts: bool, folder: &Path) -> Value {
    let profile = tempfile::tempdir_in(folder).unwrap();
    let job = json!({
        "playwright": packages::ensure_playwright().unwrap(),
        "chromium": find_program("chromium").unwrap(),
        "profile": profile.path(),
        "page": format!("http://{}/", stage.admin.addr()),
        "seconds": PATIENCE.as_secs(),
        "scheme": scheme,
        "scripts": scripts,
    });
    let mut node = Command::new("node")
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = node.stdin.take().unwrap();
    stdin.write_all(job.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let ended = tokio::time::timeout(2 * PATIENCE, node.wait_with_output()).await;
    let seen: Value = serde_json::from_slice(&ended.unwrap().unwrap().stdout).unwrap();
    assert_eq!(seen["error"], Value::Null, "{seen}");
    seen
}

#[tokio::test]
async fn a_browser_shows_the_sessions_and_renews_them() {
    tokio::task::spawn_blocking(browser::ensure_installed)
        .await
        .unwrap()
        .unwrap();
    let stage = Stage::new().await;
    let token = stage.desktop().await.token;
    let mut main = stage.channel(&token, ChannelType::Main).await;
    let _display = stage.channel(&token, ChannelType::Display).await;
    main.echo(&[1; 4_000]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dark = look(&stage, "dark", true, folder.path()).await;
    let light = look(&stage, "light", false, folder.path()).await;
    for seen in [&dark, &light] {
        assert_eq!(seen["rows"].as_array().unwrap().len(), 1, "{seen}");
        let row = &seen["rows"][0];
        assert_eq!(row[0], "s1");
        assert_eq!(row[1], "127.0.0.1");
        assert_eq!(row[3], "main, display");
        assert_eq!(row[4], "relay");
        assert_eq!(seen["renewed"], true, "{seen}");
        assert_eq!(seen["complaints"], json!([]), "{seen}");
    }
    assert_ne!(dark["background"], light["background"]);
}

#[tokio::test]
async fn it_may_load_nothing_from_elsewhere() {
    let stage = Stage::new().await;
    let response = get(&stage.admin, "/").await;
    let policy = response.headers()[CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    let page = String::from_utf8_lossy(response.body());
    assert!(!page.contains("http://") && !page.contains("https://"));
    assert!(page.contains("No desktop session is open."));
}
