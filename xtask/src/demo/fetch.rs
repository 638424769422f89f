//! A real Spice client takes a screenshot through the gateway.

use anyhow::{Context, Result, ensure};
use testkit::adapter::{Adapter, Traffic};
use testkit::net::Endpoint;
use testkit::picture::Picture;
use testkit::tls::TlsClient;
use testkit::ws::Connect;
use testkit::{flexvdi, screenshot};

use super::comparison::compare;
use crate::steps::Steps;

/// Fetches the picture with the desktop's ticket, saves it and compares it with `expected`.
pub(super) async fn run(
    steps: &mut Steps,
    gateway: &Endpoint,
    desktop: flexvdi::Desktop,
    expected: &Picture,
) -> Result<()> {
    steps.begin("flexVDI client: spicy-screenshot, through one WebSocket per channel");
    let endpoint = gateway.clone().with_tls(TlsClient::new().resuming());
    let host = format!("{}:{}", desktop.address, endpoint.addr().port());
    let token = desktop.token;
    let connect = move || Connect::new(&endpoint, &token).header("Host", &host);
    let adapter = Adapter::start(connect).await?;
    let seen = screenshot::take(adapter.addr(), Some(&desktop.password)).await;
    let traffic = adapter.finished().await?;
    let seen = seen.with_context(|| format!("the gateway: {}", traffic.faults.join("; ")))?;
    ensure!(
        traffic.faults.is_empty(),
        "the gateway: {}",
        traffic.faults.join("; ")
    );
    steps.note(moved(&traffic));
    steps.done(compare(&seen, expected, "desktop.png")?);
    Ok(())
}

fn moved(traffic: &Traffic) -> String {
    format!(
        "{} WebSockets moved {} bytes to the host and {} bytes to the client in {} messages, \
         the largest of {} bytes",
        traffic.websockets,
        traffic.uplink_bytes,
        traffic.downlink_bytes,
        traffic.downlink_messages,
        traffic.largest_downlink_message,
    )
}
