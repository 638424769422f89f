//! What several topics need.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::Value;
use testkit::flexvdi::{Desktop, FlexVdiClient};
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::prelude::*;
use testkit::ws::{Connect, Frame, RawClient};

/// A gateway in front of a manager that gives everyone the same desktop, on a host that echoes.
pub(crate) struct Stage {
    pub(crate) host: Host<Vec<u8>>,
    pub(crate) manager: Manager,
    pub(crate) gateway: Gateway,
}

impl Stage {
    /// With the gateway's own defaults.
    pub(crate) async fn new() -> Self {
        Self::with(|gateway| gateway).await
    }

    /// With a gateway that is configured further.
    pub(crate) async fn with(configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let host = Host::echo().await.unwrap();
        let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
            .await
            .unwrap();
        let gateway = configure(Gateway::builder().manager(&manager));
        let gateway = gateway.spawn().await.unwrap();
        Self {
            host,
            manager,
            gateway,
        }
    }

    /// The desktop that a client of the TLS port is given.
    pub(crate) async fn desktop(&self) -> Desktop {
        let client = FlexVdiClient::new(&self.gateway.tls());
        client.desktop().await.unwrap()
    }

    /// A new ticket.
    pub(crate) async fn ticket(&self) -> String {
        self.desktop().await.token
    }
}

/// A gateway without hijacking and without manager.
pub(crate) fn port_gateway() -> GatewayBuilder {
    Gateway::builder().set("HijackAll", false)
}

/// The port of a host as a token.
pub(crate) fn port_token<T: Send + 'static>(host: &Host<T>) -> String {
    host.addr().port().to_string()
}

/// Checks that a token opens a channel to a host that echoes, and leaves it.
pub(crate) async fn assert_opens(endpoint: &Endpoint, token: &str) {
    drop(ws::echo_channel(endpoint, token).await.unwrap());
}

/// Checks that a token opens no channel of this type.
pub(crate) async fn assert_not_allowed(endpoint: &Endpoint, token: &str, kind: ChannelType) {
    let target = format!("/?ver=2&token={token}");
    let mut client = RawClient::open(endpoint, &target).await.unwrap();
    let link = Frame::binary(link_message(kind, 0));
    client.send_frame(&link).await.unwrap();
    client.expect_close(1008).await.unwrap();
}

/// The answer to a handshake that is refused.
pub(crate) async fn refused(endpoint: &Endpoint, token: &str) -> Response<Bytes> {
    let outcome = Connect::new(endpoint, token).open().await.unwrap();
    outcome.refused().unwrap()
}

/// The answer to a handshake with a wrong token, which must be 403.
pub(crate) async fn refused_token(endpoint: &Endpoint, token: &str) {
    assert_error(&refused(endpoint, token).await, StatusCode::FORBIDDEN);
}

/// The answer to a `GET`.
pub(crate) async fn get(endpoint: &Endpoint, target: &str) -> Response<Bytes> {
    Call::get(endpoint, target).send().await.unwrap()
}

/// Asks for a desktop.
pub(crate) fn ask_desktop(endpoint: &Endpoint) -> Call {
    Call::post(endpoint, "/vdi/desktop", r#"{"username":"user"}"#)
}

/// Checks that an answer is an error in the shape that clients show, and returns its message.
pub(crate) fn assert_error(response: &Response<Bytes>, status: StatusCode) -> String {
    let body = String::from_utf8_lossy(response.body());
    assert_eq!(response.status(), status, "{body}");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    let value: Value = serde_json::from_str(&body).unwrap();
    let members = value.as_object().unwrap();
    assert_eq!(members.len(), 2, "{body}");
    assert_eq!(members["status"], "Error");
    let message = members["message"].as_str().unwrap();
    assert!(!message.is_empty());
    message.to_owned()
}

/// For how many seconds an answer tells its client to wait: at most a minute.
pub(crate) fn retry_after(response: &Response<Bytes>) -> u64 {
    let seconds = response.headers()[RETRY_AFTER].to_str().unwrap();
    let seconds = seconds.parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    seconds
}

/// Waits for a line of the log that holds all of these texts.
pub(crate) async fn logged(gateway: &Gateway, texts: &[&str]) -> String {
    let has_all = |line: &str| texts.iter().all(|text| line.contains(text));
    gateway.wait_for_log(has_all, PATIENCE).await.unwrap()
}

/// Lets a time of the configuration pass, which nothing announces, and a little more.
pub(crate) async fn outlast(time: Duration) {
    tokio::time::sleep(time + Duration::from_millis(100)).await;
}
