//! `HostProxyProtocol`: what a host is told before the first byte of its client.

use anyhow::{Context, Result, ensure};
use testkit::prelude::*;
use testkit::spice::read_link;
use testkit::ws::{Frame, RawClient};
use tokio::io::AsyncReadExt;

use crate::channel::{Channel, target};
use crate::setup::Setup;

on_every_path! {
    a_host_is_told_address_and_port_of_its_client
}

async fn a_host_is_told_address_and_port_of_its_client(setup: Setup) -> Result<()> {
    let stage = setup
        .start_with(|gateway| gateway.set("HostProxyProtocol", "v1"))
        .await?;
    let mut client = RawClient::open(&stage.endpoint, &target(&stage.host)).await?;
    let own = client.connection().tcp().local_addr()?;
    let link = link_message(ChannelType::Main, 0);
    client.send_frame(&Frame::binary(link.clone())).await?;
    let mut host = stage.host.outcome().await?;
    let expected = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        own.port(),
        stage.host.addr().port()
    );
    let mut header = vec![0; expected.len()];
    within("the header", host.read_exact(&mut header)).await??;
    let header = String::from_utf8(header).context("text")?;
    ensure!(header == expected, "{header:?} instead of {expected:?}");
    let received = within("link message", read_link(&mut host)).await??;
    ensure!(received == link, "another link message arrived");
    let mut channel = Channel {
        client,
        host,
        up: 0,
        down: 0,
    };
    for length in [1, 1_000, 300_000] {
        channel.downlink(length).await?;
        channel.uplink(usize::try_from(length)?).await?;
    }
    stage.expect_path().await
}
