//! What balancers ask.

use http::StatusCode;
use testkit::prelude::*;

use crate::support::{Stage, get};

async fn answers(endpoint: &Endpoint, path: &str) -> (StatusCode, String) {
    let response = get(endpoint, path).await;
    let text = String::from_utf8_lossy(response.body()).into_owned();
    (response.status(), text)
}

#[tokio::test]
async fn every_port_answers_and_draining_is_unhealthy() {
    let stage = Stage::with(testkit::gateway::GatewayBuilder::plain).await;
    let ports = [
        stage.admin.clone(),
        stage.gateway.tls(),
        stage.gateway.plain(),
    ];
    for port in &ports {
        let healthy = (StatusCode::OK, "ok\n".to_owned());
        assert_eq!(answers(port, "/healthz").await, healthy);
    }
    stage.output(&["drain"]).await;
    for port in &ports {
        let unhealthy = (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
        assert_eq!(answers(port, "/healthz").await, unhealthy);
    }
    stage.output(&["undrain"]).await;
    assert_eq!(answers(&ports[1], "/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_path_can_be_another_or_none() {
    let stage = Stage::with(|gateway| gateway.set("HealthPath", "/up")).await;
    let public = stage.gateway.tls();
    assert_eq!(answers(&public, "/up").await.0, StatusCode::OK);
    assert_eq!(answers(&public, "/up?x=1").await.0, StatusCode::OK);
    assert_eq!(answers(&public, "/healthz").await.0, StatusCode::NOT_FOUND);
    let stage = Stage::with(|gateway| gateway.set("HealthPath", "")).await;
    let public = stage.gateway.tls();
    assert_eq!(answers(&public, "/healthz").await.0, StatusCode::NOT_FOUND);
    // The administrator's port keeps it.
    assert_eq!(answers(&stage.admin, "/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_manager_counts_only_where_it_should() {
    let nobody = testkit::net::free_port().unwrap();
    for (checks, status) in [
        (false, StatusCode::OK),
        (true, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let stage = Stage::with(|gateway| {
            gateway
                .set("ManagerPort", nobody)
                .set("HealthChecksManager", checks)
        })
        .await;
        assert_eq!(answers(&stage.gateway.tls(), "/healthz").await.0, status);
    }
    let stage = Stage::with(|gateway| gateway.set("HealthChecksManager", true)).await;
    let healthy = answers(&stage.gateway.tls(), "/healthz").await;
    assert_eq!(healthy.0, StatusCode::OK);
}

/// Exit code, and what was said, of `health`.
async fn told(stage: &Stage, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["health"], arguments].concat();
    let output = stage.run(&arguments).await;
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test]
async fn the_command_tells_by_its_exit_code() {
    let stage = Stage::with(testkit::gateway::GatewayBuilder::plain).await;
    let tls = format!("https://{}/healthz", stage.gateway.tls_addr());
    let plain = format!("http://{}/healthz", stage.gateway.plain_addr());
    let doors: [&[&str]; 3] = [&[], &["--url", &tls], &["--url", &plain]];
    for door in doors {
        assert_eq!(told(&stage, door).await, (Some(0), "ok\n".to_owned()));
    }
    stage.output(&["drain"]).await;
    for door in doors {
        let draining = "flexvdi-gateway: draining\n".to_owned();
        assert_eq!(told(&stage, door).await, (Some(1), draining));
        let live = [door, &["--live"]].concat();
        assert_eq!(
            told(&stage, &live).await,
            (Some(0), "draining\n".to_owned())
        );
    }
}

#[tokio::test]
async fn where_nobody_answers_nobody_is_alive() {
    let mut stage = Stage::new().await;
    let gone = format!("https://{}/healthz", stage.gateway.tls_addr());
    let elsewhere = format!("https://{}/nothing", stage.gateway.tls_addr());
    let (code, said) = told(&stage, &["--live", "--url", &elsewhere]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("404"), "{said}");
    // Plain text to a TLS port.
    let mistaken = gone.replace("https", "http");
    assert_eq!(
        told(&stage, &["--live", "--url", &mistaken]).await.0,
        Some(1)
    );
    assert!(stage.gateway.terminate().await.unwrap().success());
    let (code, said) = told(&stage, &["--live"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("admin.sock"), "{said}");
    let (code, said) = told(&stage, &["--live", "--url", &gone]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot connect"), "{said}");
    let (code, said) = told(&stage, &["--url", "gateway"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("expected an address such as"), "{said}");
}

#[tokio::test]
async fn the_address_needs_no_configuration() {
    let stage = Stage::new().await;
    let url = format!("https://{}/healthz", stage.gateway.tls_addr());
    std::fs::write(stage.gateway.config_path(), "no JSON").unwrap();
    assert_eq!(told(&stage, &["--url", &url]).await.0, Some(0));
    assert_eq!(told(&stage, &[]).await.0, Some(78));
}
