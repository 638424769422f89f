//! The page for browsers, in a real one.

use http::header::CONTENT_SECURITY_POLICY;
use serde_json::{Value, json};
use testkit::browser;
use testkit::prelude::*;

use crate::support::{Stage, get};

/// What the browser saw of the page in one way of looking at it.
async fn look(stage: &Stage, scheme: &str, scripts: bool) -> Value {
    let job = json!({
        "page": format!("http://{}/", stage.admin.addr()),
        "scheme": scheme,
        "scripts": scripts,
    });
    browser::run("status.mjs", job, PATIENCE).await.unwrap()
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
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
    let dark = look(&stage, "dark", true).await;
    let light = look(&stage, "light", false).await;
    for seen in [&dark, &light] {
        assert_eq!(seen["rows"].as_array().unwrap().len(), 1, "{seen}");
        let row = &seen["rows"][0];
        assert_eq!(row[0], "s1");
        assert_eq!(row[1], "127.0.0.1");
        assert_eq!(row[3], "main, display");
        assert_eq!(row[4], "relay");
        let cell = |column: usize| row[column].as_str().unwrap();
        assert!(cell(8).contains(" ms min "), "{seen}");
        assert!(
            cell(9).ends_with(" B") && cell(10).ends_with(" %"),
            "{seen}"
        );
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
