//! A pool of gateways that share a key, behind a balancer that knows no affinity.

use std::collections::HashSet;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::{GatewayBuilder, gateway_binary};
use testkit::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::haproxy::{LOG, haproxy};
use crate::process::Proxy;
use crate::scene::PUBLIC_NAME;
use crate::template::adapt;

const DOCUMENTED: &str = include_str!("../../../docs/proxies/haproxy-pool.cfg");
const SESSIONS: usize = 100;
/// Sessions that are under way at a time.
const AT_A_TIME: usize = 8;

/// Two gateways with one key, before the same manager and host.
pub(crate) struct Pool {
    pub(crate) host: Host<Vec<u8>>,
    pub(crate) gateways: [Gateway; 2],
    _manager: Manager,
    _keys: TempDir,
}

impl Pool {
    /// With gateways that are configured further.
    pub(crate) async fn new(configure: impl Fn(GatewayBuilder) -> GatewayBuilder) -> Result<Self> {
        let keys = TempDir::with_prefix("testkit-pool-")?;
        let file = keys.path().join("pool.keys");
        let made = Command::new(gateway_binary()?)
            .arg("pool-key")
            .arg(&file)
            .stderr(Stdio::null())
            .status();
        ensure!(within("flexvdi-gateway pool-key", made).await??.success());
        let host = Host::echo().await?;
        let manager = Manager::spawn(DesktopAnswer::new(host.addr())).await?;
        let member = || {
            let builder = Gateway::builder().manager(&manager);
            configure(builder.set("PoolKeyFile", file.to_string_lossy().as_ref())).spawn()
        };
        let gateways = [member().await?, member().await?];
        Ok(Self {
            host,
            gateways,
            _manager: manager,
            _keys: keys,
        })
    }

    /// The lines of both logs that hold this text.
    pub(crate) async fn logged(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for gateway in &self.gateways {
            lines.extend(gateway.log().await);
        }
        lines.retain(|line| line.contains(text));
        lines
    }
}

/// The documented balancer in front of a pool, with a last change to its file.
pub(crate) async fn balanced(pool: &Pool, change: impl Fn(String) -> String) -> Result<Proxy> {
    let members = pool.gateways.each_ref().map(|g| g.tls_addr().to_string());
    haproxy(|setup| {
        let config = adapt(
            DOCUMENTED,
            &[
                LOG,
                ("bind :::443 v4v6", &format!("bind {}", setup.addr)),
                ("10.0.0.11:443", &members[0]),
                ("10.0.0.12:443", &members[1]),
            ],
        )?;
        Ok(change(config))
    })
    .await
}

/// One user: asks for a desktop and opens all its channels, each of which must carry bytes.
pub(crate) async fn session(endpoint: Endpoint) -> Result<String> {
    let client = FlexVdiClient::new(&endpoint).host(PUBLIC_NAME);
    let desktop = client.desktop().await?;
    let kinds = ChannelType::PLAIN_VM.map(|kind| (kind, 0));
    let mut channels = client.channels(&desktop, &kinds).await?;
    for (channel, (kind, id)) in channels.iter_mut().zip(kinds) {
        let link = link_message(kind, id);
        let mut echoed = vec![0; link.len()];
        within("echoed bytes", channel.read_exact(&mut echoed)).await??;
        ensure!(echoed == link);
    }
    Ok(desktop.token)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn any_gateway_serves_any_channel() -> Result<()> {
    let pool = Pool::new(|gateway| gateway.set("ProxyProtocol", vec!["127.0.0.1"])).await?;
    let proxy = balanced(&pool, |text| text).await?;
    let mut running = JoinSet::new();
    let mut tickets = Vec::new();
    for _ in 0..SESSIONS {
        if running.len() == AT_A_TIME {
            tickets.push(running.join_next().await.context("a session")???);
        }
        running.spawn(session(proxy.tls()));
    }
    while let Some(done) = running.join_next().await {
        tickets.push(done??);
    }

    let per_session = ChannelType::PLAIN_VM.len();
    assert_eq!(pool.host.accepted(), SESSIONS * per_session);
    assert!(pool.logged("WebSocket refused").await.is_empty());
    let opened = pool.logged("channel open").await;
    assert_eq!(opened.len(), SESSIONS * per_session);
    // Both took their part, and most sessions had channels in both.
    let session_of = |line: &str| {
        let words = line.split_whitespace();
        let mut sessions = words.filter_map(|word| word.strip_prefix("session="));
        sessions.next().unwrap_or_default().to_owned()
    };
    let of = async |gateway: &Gateway| -> HashSet<String> {
        let lines = gateway.log().await;
        let opened = lines.iter().filter(|line| line.contains("channel open"));
        opened.map(|line| session_of(line)).collect()
    };
    let [first, second] = &pool.gateways;
    let (first, second) = (of(first).await, of(second).await);
    let shared = first.intersection(&second).count();
    assert!(shared > SESSIONS / 2, "{shared} sessions in both gateways");
    assert_eq!(first.union(&second).count(), SESSIONS);

    let log = pool.logged("").await;
    for ticket in tickets {
        assert!(log.iter().all(|line| !line.contains(&ticket)));
    }
    Ok(())
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_gateway_with_another_key_refuses() -> Result<()> {
    let (ours, theirs) = (Pool::new(|g| g).await?, Pool::new(|g| g).await?);
    let endpoint = ours.gateways[0].tls();
    let ticket = FlexVdiClient::new(&endpoint).desktop().await?.token;
    assert_eq!(ticket.len(), 55);
    let refused = ws::Connect::new(&theirs.gateways[0].tls(), &ticket).open();
    assert_eq!(refused.await?.refused()?.status(), 403);
    let taken = ws::Connect::new(&ours.gateways[1].tls(), &ticket).open();
    taken.await?.opened()?;
    Ok(())
}
