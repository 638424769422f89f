//! What the data path `sockmap` leaves in the kernel, and how much of it it takes: in a network
//! namespace, so that nobody else's sockets are counted.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use testkit::namespace;
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::prelude::*;

use crate::bpf_maps;
use crate::channel::{Channel, open, target};
use crate::patterns::read_downlink;
use crate::pressure::{
    CHANNELS, close_thousand, open_thousand, raise_descriptor_limit, standstill,
};
use crate::setup::SOCKMAP;

/// Sockets of a channel in each map.
const OF_A_CHANNEL: [(&str, usize); 5] = [
    ("BRIDGES", 1),
    ("HOSTS", 1),
    ("INJECTORS", 1),
    ("ROUTES", 3),
    ("TARGETS", 3),
];

fn entries_of(channels: usize) -> BTreeMap<String, usize> {
    let entries = OF_A_CHANNEL.map(|(name, each)| (name.to_owned(), each * channels));
    BTreeMap::from(entries)
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn a_thousand_channels_leave_nothing_behind() -> Result<()> {
    raise_descriptor_limit()?;
    namespace::run(|| async {
        let stage = SOCKMAP.start().await?;
        let pid = stage.gateway.pid();
        let host = Host::echo().await?;
        let sockets = namespace::sockets()?;
        ensure!(bpf_maps::entries(pid)? == entries_of(0));

        let clients = open_thousand(&stage, &host).await?;
        let entries = bpf_maps::entries(pid)?;
        ensure!(entries == entries_of(CHANNELS), "{entries:?}");

        close_thousand(clients).await?;
        stage.expect_no_channel().await?;
        let left = async {
            loop {
                let (entries, now) = (bpf_maps::entries(pid)?, namespace::sockets()?);
                if entries == entries_of(0) && now <= sockets {
                    return anyhow::Ok(());
                }
                println!("{now} sockets of {sockets}, {entries:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within("empty maps and no more sockets than before", left).await?
    })
}

const STALLED: usize = 36;
/// What each host sends, in bytes.
const OFFERED: u64 = 8 << 20;
const QUEUE_LIMIT: u64 = 1 << 20;
/// Most that a buffer of a TCP socket may hold, in bytes.
const TCP_BUFFER: u64 = 256 * 1024;
/// What may be on the way to all clients: `QueueLimit` and the buffers of four TCP sockets each,
/// and a quarter more for borders that do not meet; less than half of what is offered.
const BOUND: u64 = STALLED as u64 * (QUEUE_LIMIT + 4 * TCP_BUFFER) / 4 * 5;

/// Memory that the kernel cannot give back, and that of TCP sockets, in bytes.
fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"));
    let slab = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let slab: u64 = slab.context("no SUnreclaim")?.parse()?;
    Ok(slab * 1024 + namespace::tcp_memory()?)
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn stalled_clients_bound_the_kernels_memory() -> Result<()> {
    namespace::run(|| async {
        namespace::limit_tcp_buffers(TCP_BUFFER / 2, TCP_BUFFER)?;
        let configure =
            |gateway: testkit::gateway::GatewayBuilder| gateway.set("QueueLimit", QUEUE_LIMIT);
        let stage = SOCKMAP.start_with(configure).await?;
        let (mut clients, mut hosts) = (Vec::new(), Vec::new());
        for _ in 0..STALLED {
            let Channel { client, host, .. } =
                open(&stage.endpoint, &stage.host, &target(&stage.host)).await?;
            clients.push(client);
            hosts.push(host);
        }
        let line = stage.wait_for_log("channel open").await?;
        ensure!(line.contains("path=\"sockmap\""), "{line}");

        let before = kernel_memory()?;
        let sent = &AtomicU64::new(0);
        let send = try_join_all(hosts.iter_mut().map(|host| async move {
            for at in (0..OFFERED).step_by(65_536) {
                write_pattern(host, DOWNLINK, at, 65_536).await?;
                sent.fetch_add(65_536, Ordering::Relaxed);
                // The others must find their turn although this never waits.
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        }));
        let observe = async {
            let stalled = standstill(sent).await?;
            let growth = kernel_memory()?.saturating_sub(before);
            println!(
                "{STALLED} stalled clients: {} KiB taken of at most {}, the kernel grew by {} KiB",
                stalled / 1024,
                BOUND / 1024,
                growth / 1024
            );
            ensure!(
                stalled <= BOUND,
                "{stalled} bytes were taken without a reader"
            );
            // What the kernel charges for a buffer is up to twice what is in it.
            ensure!(growth <= 2 * BOUND, "the kernel grew by {growth} bytes");
            let read = clients
                .iter_mut()
                .map(|client| read_downlink(client, 0, OFFERED));
            try_join_all(read).await?;
            anyhow::Ok(())
        };
        if let Err(error) = tokio::try_join!(send, observe) {
            bail!(error);
        }
        drop((clients, hosts));
        stage.expect_no_channel().await
    })
}
