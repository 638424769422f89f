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
