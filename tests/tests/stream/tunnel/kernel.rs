//! What tunnels on `sockmap` leave in the kernel, and how much of it they take: in a network
//! namespace, so that nobody else's sockets are counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures_util::future::try_join_all;
use testkit::namespace;
use testkit::pattern::{DOWNLINK, UPLINK};
use testkit::prelude::*;
use tokio::io::AsyncWriteExt;

use super::setup::{SOCKMAP, open, read_exactly};
use crate::bpf_maps;
use crate::kernel::kernel_memory;
use crate::pressure::standstill;

fn entries_of(tunnels: usize) -> BTreeMap<String, usize> {
    let each = [
        ("BRIDGES", 0),
        ("HOSTS", 0),
        ("INJECTORS", 0),
        ("ROUTES", 2),
        ("TARGETS", 2),
        ("TUNNELS", 2),
    ];
    let entries = each.map(|(name, each)| (name.to_owned(), each * tunnels));
    BTreeMap::from(entries)
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn many_tunnels_leave_nothing_behind() -> Result<()> {
    const TUNNELS: usize = 200;
    namespace::run(|| async {
        let stage = SOCKMAP.start().await?;
        let pid = stage.gateway.pid();
        let sockets = namespace::sockets()?;
        ensure!(bpf_maps::entries(pid)? == entries_of(0));
        let ticket = stage.ticket(stage.host.addr()).await?;
        let mut tunnels = Vec::new();
        for index in 0..TUNNELS {
            let mut ends = open(&stage.endpoint, &ticket, &stage.host).await?;
            ends.downlink(1_000).await?;
            ends.uplink(1_000).await?;
            if index % 4 == 0 {
                // Something passes.
                let _ = ends.host.try_write(&DOWNLINK.bytes(1_000, 500_000))?;
            }
            tunnels.push(ends);
        }
        let mut entries = bpf_maps::entries(pid)?;
        // A direction in which something waits may not be in the kernel's hands for now.
        let redirected = entries.insert("TUNNELS".to_owned(), 2 * TUNNELS);
        ensure!(
            redirected.is_some_and(|redirected| redirected >= TUNNELS),
            "{redirected:?}"
        );
        ensure!(entries == entries_of(TUNNELS), "{entries:?}");
        for (index, ends) in tunnels.into_iter().enumerate() {
            match index % 3 {
                0 => ends.client.reset()?,
                1 => testkit::net::reset(&ends.host)?,
                _ => {}
            }
        }
        stage.expect_no_tunnel().await?;
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

const STALLED: usize = 24;
/// What each side sends, in bytes.
const OFFERED: u64 = 8 << 20;
const QUEUE_LIMIT: u64 = 1 << 20;
/// Most that a buffer of a TCP socket may hold by itself, in bytes.
const TCP_BUFFER: u64 = 256 * 1024;
/// What may be on the way both ways: `QueueLimit` and the buffers of four TCP sockets each, and a
/// quarter more for borders that do not meet; less than half of what is offered.
const BOUND: u64 = 2 * STALLED as u64 * (QUEUE_LIMIT + 4 * TCP_BUFFER) / 4 * 5;

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn stalled_tunnels_bound_the_kernels_memory() -> Result<()> {
    namespace::run(|| async {
        namespace::limit_tcp_buffers(TCP_BUFFER / 2, TCP_BUFFER)?;
        let stage = SOCKMAP.start_with(|gateway| gateway.set("QueueLimit", QUEUE_LIMIT));
        let stage = stage.await?;
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for _ in 0..STALLED {
            let ends = stage.open().await?;
            let (reader, writer) = tokio::io::split(ends.client);
            let (host_reader, host_writer) = tokio::io::split(ends.host);
            readers.push((reader, host_reader));
            writers.push((writer, host_writer));
        }
        let before = kernel_memory()?;
        let sent = &AtomicU64::new(0);
        let send = try_join_all(writers.iter_mut().map(|(client, host)| async move {
            let up = async {
                for at in (0..OFFERED).step_by(65_536) {
                    client.write_all(&UPLINK.bytes(at, 65_536)).await?;
                    sent.fetch_add(65_536, Ordering::Relaxed);
                    // The others must find their turn although this never waits.
                    tokio::task::yield_now().await;
                }
                anyhow::Ok(())
            };
            let down = async {
                for at in (0..OFFERED).step_by(65_536) {
                    host.write_all(&DOWNLINK.bytes(at, 65_536)).await?;
                    sent.fetch_add(65_536, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                anyhow::Ok(())
            };
            tokio::try_join!(up, down)
        }));
        let observe = async {
            let stalled = standstill(sent).await?;
            let growth = kernel_memory()?.saturating_sub(before);
            println!(
                "{STALLED} stalled tunnels: {} KiB taken of at most {}, the kernel grew by {} KiB",
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
            let read = readers.iter_mut().map(|(client, host)| async move {
                tokio::try_join!(
                    read_exactly(client, DOWNLINK, 0, OFFERED),
                    read_exactly(host, UPLINK, 0, OFFERED)
                )
            });
            try_join_all(read).await?;
            anyhow::Ok(())
        };
        if let Err(error) = tokio::try_join!(send, observe) {
            bail!(error);
        }
        drop((readers, writers));
        stage.expect_no_tunnel().await
    })
}
