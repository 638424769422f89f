//! The access log: what is in it, and that it may be moved away.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::{GatewayBuilder, Signal};
use testkit::http::Call;
use testkit::prelude::*;
use tokio::io::AsyncWriteExt;

use crate::support::{Stage, ask_desktop, get, logged, refused, refused_token};

/// A folder for the file.
struct Log(TempDir);

impl Log {
    fn new() -> Self {
        Self(TempDir::with_prefix("testkit-access-").unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("access.log")
    }

    fn configure(&self, gateway: GatewayBuilder) -> GatewayBuilder {
        gateway.set("AccessLog", self.path().to_string_lossy().as_ref())
    }
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn parse(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test]
async fn a_session_is_told_from_request_to_end() {
    let log = Log::new();
    let mut stage = Stage::with(|gateway| log.configure(gateway)).await;
    let endpoint = stage.gateway.tls();
    let ticket = stage.ticket().await;
    let mut channel = ws::echo_channel(&endpoint, &ticket).await.unwrap();
    channel.echo(&[7; 1_000]).await.unwrap();
    channel.shutdown().await.unwrap();
    logged(&stage.gateway, &["channel closed"]).await;
    refused_token(&endpoint, "guess-token").await;
    get(&endpoint, "/vdi/x?password=query-secret").await;
    get(&endpoint, "/path-secret").await;
    assert!(stage.gateway.terminate().await.unwrap().success());

    let text = text(log.path());
    for secret in [&ticket[..], "guess-token", "query-secret", "path-secret"] {
        assert!(!text.contains(secret), "{secret} in:\n{text}");
    }
    let lines = parse(&text);
    let of = |event: &str| -> Vec<&Value> {
        let lines = lines.iter();
        lines.filter(|line| line["event"] == event).collect()
    };
    let requests = of("request");
    let desktop = requests
        .iter()
        .find(|r| r["path"] == "/vdi/desktop")
        .unwrap();
    let [assigned] = of("desktop-assigned")[..] else {
        panic!("{text}");
    };
    let ([open], [closed]) = (&of("channel-open")[..], &of("channel-closed")[..]) else {
        panic!("{text}");
    };
    // One number ties the manager's request to the session, the session's to its channels.
    assert_eq!(assigned["request"], desktop["request"]);
    let asked = stage.manager.requests();
    let told = asked
        .iter()
        .find(|r| r.uri.path() == "/vdi/desktop")
        .unwrap();
    assert_eq!(told.header("x-request-id"), desktop["request"].as_str());
    for channel in [open, closed] {
        assert_eq!(channel["session"], assigned["session"]);
        assert_eq!(channel["host"], stage.host.addr().to_string());
        assert_eq!(channel["channel"], "c1");
        assert_eq!(channel["kind"], "main");
        assert_eq!(channel["path"], "relay");
    }
    assert_eq!(open["request"], closed["request"]);
    assert_ne!(open["request"], desktop["request"]);
    assert!(closed["up"].as_u64().unwrap() > 1_000, "{closed}");
    assert_eq!(closed["up"], closed["down"]);
    assert!(closed["reason"].is_string() && closed["ms"].is_u64());
    assert_eq!(
        (&desktop["method"], &desktop["status"]),
        (&"POST".into(), &200.into())
    );
    assert!(desktop["bytes"].as_u64().unwrap() > 50, "{desktop}");
    assert_eq!(desktop["complete"], true);
    assert!(requests.iter().any(|r| r["path"] == "/vdi/x"));
    let own = requests.iter().find(|r| r.get("path").is_none()).unwrap();
    assert_eq!(own["status"], 404);
    let [refused] = of("refused")[..] else {
        panic!("{text}");
    };
    assert_eq!(refused["status"], 403);
    assert_eq!(refused["reason"], "wrong or expired token");
    for line in &lines {
        assert_eq!(line["client"], "127.0.0.1");
        assert!(line["request"].is_string() && line["time"].is_string());
    }
}

#[tokio::test]
async fn passwords_are_not_in_it() {
    let log = Log::new();
    let mut stage = Stage::with(|gateway| log.configure(gateway)).await;
    let desktop = DesktopAnswer::new(stage.host.addr()).password("spice-secret-1");
    stage.manager.set_desktop(desktop);
    stage.manager.require_password("user", "user-secret-2");
    let client = FlexVdiClient::new(&stage.gateway.tls());
    client
        .clone()
        .login("user", "wrong-secret-3")
        .desktop()
        .await
        .unwrap_err();
    client
        .login("user", "user-secret-2")
        .desktop()
        .await
        .unwrap();
    assert!(stage.gateway.terminate().await.unwrap().success());
    let text = text(log.path());
    assert_eq!(text.matches("desktop-assigned").count(), 1);
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_moved_file_is_made_again_at_the_signal() {
    let log = Log::new();
    let mut stage = Stage::with(|gateway| log.configure(gateway)).await;
    ask_desktop(&stage.gateway.tls()).send().await.unwrap();
    let moved = log.path().with_extension("log.1");
    std::fs::rename(log.path(), &moved).unwrap();
    stage.gateway.signal(Signal::USR1).unwrap();
    logged(&stage.gateway, &["access log reopened"]).await;
    ask_desktop(&stage.gateway.tls()).send().await.unwrap();
    assert!(stage.gateway.terminate().await.unwrap().success());
    let both = text(moved) + &text(log.path());
    assert_eq!(both.matches("desktop-assigned").count(), 2);
    assert!(text(log.path()).contains("desktop-assigned"));
}

#[tokio::test]
async fn without_one_the_signal_is_harmless() {
    let stage = Stage::new().await;
    stage.gateway.signal(Signal::USR1).unwrap();
    ask_desktop(&stage.gateway.tls()).send().await.unwrap();
}

#[tokio::test]
async fn a_proxys_number_is_taken_over() {
    let stage = Stage::with(|gateway| gateway.set("TrustedProxies", vec!["127.0.0.1"])).await;
    for (source, expected) in [([127, 0, 0, 1], true), ([127, 0, 0, 2], false)] {
        let endpoint = stage.gateway.tls().from_source(source.into());
        let call = Call::get(&endpoint, "/vdi/x").header("X-Request-Id", "of-the-proxy.1");
        call.send().await.unwrap();
        let requests = stage.manager.requests();
        let told = requests.last().unwrap().header("x-request-id").unwrap();
        assert_eq!(told == "of-the-proxy.1", expected, "{told}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_made_prevents_the_start() {
    let error = Gateway::builder()
        .set("AccessLog", "/nonexistent/access.log")
        .spawn()
        .await
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("/nonexistent/access.log (AccessLog)"),
        "{text}"
    );
}

/// A full disk loses lines and tells, and nothing else suffers.
#[tokio::test]
async fn a_file_that_takes_nothing_is_told() {
    let stage = Stage::with(|gateway| gateway.set("AccessLog", "/dev/full")).await;
    let ticket = stage.ticket().await;
    logged(&stage.gateway, &["WARN", "access log cannot be written"]).await;
    drop(
        ws::echo_channel(&stage.gateway.tls(), &ticket)
            .await
            .unwrap(),
    );
    refused(&stage.gateway.tls(), "guess").await;
}
