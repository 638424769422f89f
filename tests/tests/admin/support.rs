//! A gateway with its doors for administrators, and what is asked of them.

use std::net::SocketAddr;
use std::process::Output;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;
use testkit::flexvdi::{Desktop, FlexVdiClient};
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::net::free_port;
use testkit::prelude::*;
use testkit::ws::Channel;
use tokio::io::AsyncReadExt;

/// The Spice password of the only desktop, which nothing may show.
pub(crate) const PASSWORD: &str = "Spice-Passw0rd-of-the-test";

/// A gateway in front of a manager that gives everyone the same desktop, on a host that echoes.
pub(crate) struct Stage {
    pub(crate) host: Host<Vec<u8>>,
    pub(crate) _manager: Manager,
    pub(crate) gateway: Gateway,
    pub(crate) admin: Endpoint,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|gateway| gateway).await
    }

    pub(crate) async fn with(configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let host = Host::echo().await.unwrap();
        let answer = DesktopAnswer::new(host.addr()).password(PASSWORD);
        let manager = Manager::spawn(answer).await.unwrap();
        let port = free_port().unwrap();
        let gateway = Gateway::builder().manager(&manager).set("AdminPort", port);
        Self {
            host,
            _manager: manager,
            gateway: configure(gateway).spawn().await.unwrap(),
            admin: Endpoint::plain(SocketAddr::from(([127, 0, 0, 1], port))),
        }
    }

    pub(crate) async fn desktop(&self) -> Desktop {
        let client = FlexVdiClient::new(&self.gateway.tls());
        client.desktop().await.unwrap()
    }

    /// A channel whose echoed link message was read.
    pub(crate) async fn channel(&self, token: &str, kind: ChannelType) -> Channel {
        let link = link_message(kind, 0);
        let opened = ws::channel(&self.gateway.tls(), token, &link).await;
        let mut channel = opened.unwrap();
        channel.expect(&link).await.unwrap();
        channel
    }

    /// What a path of the port for administrators answers, which must be 200.
    pub(crate) async fn shown(&self, path: &str) -> String {
        let response = get(&self.admin, path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        String::from_utf8(response.body().to_vec()).unwrap()
    }

    pub(crate) async fn status(&self) -> Value {
        serde_json::from_str(&self.shown("/status").await).unwrap()
    }

    /// Runs a command of the gateway's binary with this gateway's configuration.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.gateway.run(arguments).await.unwrap()
    }

    /// The output of a command that must succeed.
    pub(crate) async fn output(&self, arguments: &[&str]) -> String {
        self.gateway.output(arguments).await.unwrap()
    }
}

pub(crate) async fn get(endpoint: &Endpoint, path: &str) -> Response<Bytes> {
    Call::get(endpoint, path).send().await.unwrap()
}

/// Waits until a channel ends, whose rest must be empty; its Close code.
pub(crate) async fn ended(channel: &mut Channel) -> Option<u16> {
    let mut rest = Vec::new();
    within("the channel's end", channel.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, b"");
    channel.close_code()
}
