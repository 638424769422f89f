//! Installations whose gateway runs.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::prelude::*;

use super::{Found, Installation, run};
use crate::support::get;

struct Running {
    installation: Installation,
    gateway: Gateway,
}

impl Running {
    async fn new() -> Self {
        let mut installation = Installation::new().await;
        let gateway = installation.start(|gateway| gateway).await;
        Self {
            installation,
            gateway,
        }
    }

    async fn look(&self) -> Found {
        run(self.installation.command_for(self.gateway.config_path())).await
    }

    async fn finds(&self, result: &str, check: &str, text: &str) {
        self.look().await.is(result, check, text);
    }
}

#[tokio::test]
async fn a_sound_gateway_that_runs_gives_no_warning() {
    let running = Running::new().await;
    let found = running.look().await;
    assert!(found.troubles.is_empty(), "{}", found.text);
    assert_eq!(found.output.status.code(), Some(0), "{}", found.text);
    assert!(
        found.text.ends_with("\n0 errors, 0 warnings\n"),
        "{}",
        found.text
    );
    let pid = running.gateway.pid();
    for line in [
        format!("process {pid}, up for "),
        format!(
            "{} (SslPort) held by the gateway",
            running.gateway.tls_addr().port()
        ),
        "ok       failures       nothing fails often".to_owned(),
        "ok       configuration  ".to_owned(),
    ] {
        assert!(found.text.contains(&line), "{line} in {}", found.text);
    }
    // In the other form there is the same.
    let mut command = running
        .installation
        .command_for(running.gateway.config_path());
    command.arg("--json");
    let found = run(command).await;
    let report: Value = serde_json::from_slice(&found.output.stdout).unwrap();
    assert_eq!(
        (&report["errors"], &report["warnings"]),
        (&json!(0), &json!(0))
    );
    let checks = report["checks"].as_array().unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["check"] == "gateway" && check["result"] == "ok")
    );
}

#[tokio::test]
async fn what_is_in_the_file_and_not_in_effect_is_told() {
    let running = Running::new().await;
    running
        .gateway
        .change_config(&[("KeepAlive", json!(33))])
        .unwrap();
    let told = "other values than those in effect: KeepAlive. The gateway goes on with the old \
                ones. systemctl reload";
    running.finds("warning", "gateway ", told).await;
    running
        .gateway
        .change_config(&[("WorkerThreads", json!(3))])
        .unwrap();
    let told = "KeepAlive, WorkerThreads. The gateway goes on with the old ones. systemctl restart";
    running.finds("warning", "gateway ", told).await;
}

#[tokio::test]
async fn a_certificate_that_was_not_taken_is_told() {
    let mut installation = Installation::new().await;
    installation.set("CertificatePoll", 0);
    let gateway = installation.start(|gateway| gateway).await;
    let renewed = super::sound_cert().life(std::time::Duration::from_secs(8_640_000));
    installation
        .cert
        .replace_files(&renewed.build().unwrap())
        .unwrap();
    installation.protect_key();
    let running = Running {
        installation,
        gateway,
    };
    let told = "has another certificate than the one in use";
    running.finds("warning", "gateway ", told).await;
}

#[tokio::test]
async fn a_gateway_that_drains_is_told() {
    let running = Running::new().await;
    running.gateway.output(&["drain"]).await.unwrap();
    running
        .finds("warning", "gateway ", "the gateway drains")
        .await;
}

#[tokio::test]
async fn what_fails_often_is_told_with_its_cause() {
    let running = Running::new().await;
    for number in 0..6 {
        let token = format!("wrong-token-{number}");
        let opened = ws::Connect::new(&running.gateway.tls(), &token)
            .open()
            .await;
        let refused = opened.unwrap().refused().unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    }
    running
        .finds(
            "warning",
            "failures ",
            "6 channels_refused_total{token} of 6",
        )
        .await;
}

#[tokio::test]
async fn the_port_of_administrators_does_not_tell_values() {
    let mut installation = Installation::new().await;
    let port = testkit::net::free_port().unwrap();
    let gateway = installation
        .start(|gateway| gateway.set("AdminPort", port))
        .await;
    let admin = Endpoint::plain(([127, 0, 0, 1], port).into());
    let response = get(&admin, "/configuration").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    drop(gateway);
}
