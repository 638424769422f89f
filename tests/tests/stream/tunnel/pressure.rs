//! Peers that take nothing: what the gateway and the kernel hold stays bounded, and no direction
//! waits for the other.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use testkit::pattern::{DOWNLINK, Pattern, UPLINK};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::setup::Ends;
use crate::patterns::read_exactly;
use crate::pressure::{DRAINED, OFFERED, check_stall, standstill};
use crate::setup::Setup;

on_every_tunnel! {
    a_side_is_not_read_while_the_other_takes_nothing
    a_direction_goes_on_while_the_other_one_stands_still
}

const PIECE: usize = 65_536;

/// Sends all that is offered, which must not be taken.
async fn flood(
    stream: &mut (impl AsyncWrite + Unpin),
    pattern: Pattern,
    sent: &AtomicU64,
) -> Result<()> {
    while sent.load(Ordering::Relaxed) < OFFERED {
        let bytes = pattern.bytes(sent.load(Ordering::Relaxed), PIECE);
        stream.write_all(&bytes).await?;
        sent.fetch_add(PIECE as u64, Ordering::Relaxed);
        // The observer must find its turn although this never waits.
        tokio::task::yield_now().await;
    }
    bail!("the whole of {OFFERED} bytes was taken without a reader")
}

async fn a_side_is_not_read_while_the_other_takes_nothing(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let endpoint = stage.endpoint.clone().receive_buffer(65_536);
    for pattern in [DOWNLINK, UPLINK] {
        let Ends { client, host, .. } = stage.open_tunnel_at(&endpoint).await?;
        let (mut client_reader, mut client_writer) = tokio::io::split(client);
        let (mut host_reader, mut host_writer) = host.into_split();
        let before = stage.gateway.memory()?.own;
        let sent = AtomicU64::new(0);
        let send = async {
            if pattern == DOWNLINK {
                flood(&mut host_writer, pattern, &sent).await
            } else {
                flood(&mut client_writer, pattern, &sent).await
            }
        };
        let observe = async {
            let stalled = standstill(&sent).await?;
            check_stall(&stage, "slow reader", stalled, before)?;
            if pattern == DOWNLINK {
                read_exactly(&mut client_reader, pattern, 0, DRAINED).await?;
            } else {
                read_exactly(&mut host_reader, pattern, 0, DRAINED).await?;
            }
            check_stall(&stage, "drained reader", stalled, before)
        };
        tokio::select! {
            sent = send => sent,
            observed = observe => observed,
        }?;
        client_reader.unsplit(client_writer).reset()?;
    }
    stage.expect_no_channel().await
}

/// Both directions are full. Then one peer reads while the other one still reads nothing.
async fn a_direction_goes_on_while_the_other_one_stands_still(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for reads_first in [UPLINK, DOWNLINK] {
        let Ends { client, host, .. } = stage.open_tunnel().await?;
        let (mut client_reader, mut client_writer) = tokio::io::split(client);
        let (mut host_reader, mut host_writer) = host.into_split();
        let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
        let observe = async {
            standstill(&up).await?;
            standstill(&down).await?;
            if reads_first == UPLINK {
                read_exactly(&mut host_reader, UPLINK, 0, DRAINED).await?;
                read_exactly(&mut client_reader, DOWNLINK, 0, DRAINED).await
            } else {
                read_exactly(&mut client_reader, DOWNLINK, 0, DRAINED).await?;
                read_exactly(&mut host_reader, UPLINK, 0, DRAINED).await
            }
        };
        tokio::select! {
            sent = flood(&mut client_writer, UPLINK, &up) => sent,
            sent = flood(&mut host_writer, DOWNLINK, &down) => sent,
            observed = observe => observed,
        }?;
        client_reader.unsplit(client_writer).reset()?;
    }
    stage.expect_no_channel().await
}
