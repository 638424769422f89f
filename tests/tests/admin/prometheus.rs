//! The metrics as Prometheus itself sees them, and the dashboard that is made of them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::http::Call;
use testkit::net::free_port;
use testkit::packages::{self, Package};
use testkit::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::{Stage, get};

const DASHBOARD: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/grafana/flexvdi-gateway.json"
);

const ALERTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/prometheus/flexvdi-gateway.rules.yml"
);

/// A gateway on which everything that has a label has happened once.
async fn busy() -> (Stage, testkit::ws::Channel) {
    let stage = Stage::new().await;
    let token = stage.desktop().await.token;
    let channel = stage.channel(&token, ChannelType::Main).await;
    drop(stage.channel(&token, ChannelType::Display).await);
    let endpoint = stage.gateway.tls();
    let wrong = testkit::ws::Connect::new(&endpoint, "wrong").open().await;
    wrong.unwrap().refused().unwrap();
    let closed = |line: &str| line.contains("channel closed");
    let waited = stage.gateway.wait_for_log(closed, PATIENCE);
    waited.await.unwrap();
    (stage, channel)
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn promtool_finds_no_fault() {
    packages::ensure(&[Package::Prometheus]).unwrap();
    let (stage, _channel) = busy().await;
    let text = stage.shown("/metrics").await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).await.unwrap();
    drop(stdin);
    let output = within("promtool", promtool.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

/// Every expression of the dashboard's panels.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(expression)) = members.get("expr") {
                found.push(expression.clone());
            }
            members.values().for_each(|value| expressions(value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(DASHBOARD).unwrap();
    let mut found = Vec::new();
    expressions(&serde_json::from_str(&text).unwrap(), &mut found);
    assert!(found.len() > 10);
    found
}

/// Every expression of the alerts, each of which begins on the line behind `expr: |`.
fn alerts() -> Vec<String> {
    let text = std::fs::read_to_string(ALERTS).unwrap();
    let parts = text.split("expr: |").skip(1);
    let found: Vec<_> = parts
        .map(|part| part.split("for:").next().unwrap().trim().to_owned())
        .collect();
    assert_eq!(found.len(), text.matches("- alert:").count());
    found
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn promtool_finds_no_fault_with_the_alerts() {
    packages::ensure(&[Package::Prometheus]).unwrap();
    let output = Command::new("promtool")
        .args(["check", "rules", ALERTS])
        .output();
    let output = within("promtool", output).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaints}");
    let found = format!("{} rules found", alerts().len());
    assert!(said.contains(&found), "{said}");
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn dashboard_and_alerts_name_only_what_exists() {
    let (stage, _channel) = busy().await;
    let text = stage.shown("/metrics").await;
    let known: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let mut named = 0;
    for expression in dashboard().into_iter().chain(alerts()) {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words {
            if !word.starts_with("flexvdi_gateway_") && !word.starts_with("process_") {
                continue;
            }
            let exists = known.contains(word)
                || word
                    .strip_suffix("_bucket")
                    .is_some_and(|name| known.contains(name));
            assert!(exists, "{word} in {expression}");
            named += 1;
        }
    }
    assert!(named > 10);
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn prometheus_scrapes_it_and_answers_what_dashboard_and_alerts_ask() {
    packages::ensure(&[Package::Prometheus]).unwrap();
    let (stage, _channel) = busy().await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("prometheus.yml");
    let target = stage.admin.addr().to_string();
    // JSON is YAML.
    let scrape = json!({
        "global": { "scrape_interval": "1s" },
        "scrape_configs": [
            { "job_name": "flexvdi-gateway", "static_configs": [{ "targets": [target] }] },
        ],
    });
    std::fs::write(&config, scrape.to_string()).unwrap();
    let port = free_port().unwrap();
    let _prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.path().join("data").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let prometheus = Endpoint::plain(([127, 0, 0, 1], port).into());
    let sessions = within("a scrape", async {
        loop {
            if let Some(value) = query(&prometheus, "flexvdi_gateway_sessions").await
                && let Some(found) = value["data"]["result"][0]["value"][1].as_str()
            {
                return found.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(sessions.await.unwrap(), "1");
    for expression in dashboard().into_iter().chain(alerts()) {
        let expression = expression
            .replace("$__rate_interval", "5s")
            .replace("$instance", ".*");
        let answer = query(&prometheus, &expression).await.unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
    let targets = get(&prometheus, "/api/v1/targets").await;
    let targets: Value = serde_json::from_slice(targets.body()).unwrap();
    let target = &targets["data"]["activeTargets"][0];
    assert_eq!(target["health"], "up", "{target}");
}

/// Prometheus' answer to a query; `None`: it does not listen yet.
async fn query(prometheus: &Endpoint, expression: &str) -> Option<Value> {
    let mut body = String::from("query=");
    for byte in expression.bytes() {
        write!(body, "%{byte:02X}").unwrap();
    }
    let call = Call::post(prometheus, "/api/v1/query", body);
    let form = "application/x-www-form-urlencoded";
    let response = call.header("content-type", form).send().await.ok()?;
    serde_json::from_slice(response.body()).ok()
}
