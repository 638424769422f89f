//! A gateway leaves the others behind a balancer, and nobody who logs in is refused.

use anyhow::{Result, ensure};
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::prelude::*;

use crate::haproxy::{LOG, haproxy};
use crate::nginx;
use crate::pool::{Pool, balanced, session};
use crate::process::Proxy;
use crate::scene::PUBLIC_NAME;
use crate::template::adapt;

const DOCUMENTED_TCP: &str = include_str!("../../../docs/proxies/haproxy-tcp.cfg");
/// People who log in.
const LOGINS: u8 = 40;
/// What HAProxy says once it has noticed.
const NOTICED: &str = "Server flexvdi/gateway1 is DOWN";
/// Makes HAProxy log each check of a server, and what it says of the first one.
const TELL_CHECKS: &str = "option log-health-checks";
const CHECKED: &str = "Health check for server flexvdi/gateway1 succeeded";
/// Seconds in which a gateway that drains still gives desktops; longer than any machine needs for
/// [`LOGINS`].
const DRAIN_DELAY: u32 = 600;

fn introduced(gateway: GatewayBuilder) -> GatewayBuilder {
    let gateway = gateway.set("ProxyProtocol", vec!["127.0.0.1"]);
    gateway.set("DrainDelay", DRAIN_DELAY)
}

fn without_key(gateway: GatewayBuilder) -> GatewayBuilder {
    let gateway = gateway.set("PoolKeyFile", "");
    gateway.set("DrainDelay", DRAIN_DELAY)
}

/// The documented balancer for gateways that share no key.
async fn by_address(pool: &Pool) -> Result<Proxy> {
    let members = pool.gateways.each_ref().map(|g| g.tls_addr().to_string());
    haproxy(|setup| {
        adapt(
            DOCUMENTED_TCP,
            &[
                LOG,
                ("bind :::443 v4v6", &format!("bind {}", setup.addr)),
                ("10.0.0.11:443", &members[0]),
                ("10.0.0.12:443", &members[1]),
            ],
        )
    })
    .await
}

/// Each at an address of its own, with all channels of a desktop.
async fn all_log_in(proxy: &Proxy) -> Result<()> {
    for number in 1..=LOGINS {
        let endpoint = proxy.tls().from_source([127, 0, 0, number].into());
        session(endpoint.clone()).await?;
        // A session has an even number of connections, so that its first one would always meet the
        // same gateway.
        Call::get(&endpoint, "/").send().await?;
    }
    Ok(())
}

/// The first gateway drains: before the balancer has noticed, and afterwards.
async fn drains(pool: &Pool, proxy: &Proxy) -> Result<()> {
    let [leaving, other] = &pool.gateways;
    all_log_in(proxy).await?;
    let both = [leaving, other].map(|gateway| gateway.count_logged("desktop assigned"));
    let [first, second] = both;
    ensure!(first.await > 0 && second.await > 0, "only one took part");

    leaving.output(&["drain"]).await?;
    proxy.wait_for_log(NOTICED).await?;
    let before = leaving.count_logged("desktop assigned").await;
    all_log_in(proxy).await?;
    ensure!(leaving.count_logged("desktop assigned").await == before);
    leaving.output(&["undrain"]).await?;
    proxy.wait_for_log("Server flexvdi/gateway1 is UP").await?;
    all_log_in(proxy).await?;
    ensure!(leaving.count_logged("desktop assigned").await > before);
    Ok(())
}

/// The first gateway stops, and nobody has told the balancer.
async fn stops(pool: &mut Pool, proxy: &Proxy) -> Result<()> {
    all_log_in(proxy).await?;
    pool.gateways[0].terminate().await?;
    all_log_in(proxy).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn nobody_is_refused_when_a_gateway_of_a_pool_drains() -> Result<()> {
    let pool = Pool::new(introduced).await?;
    drains(&pool, &balanced(&pool, |text| text).await?).await
}

/// HAProxy has not noticed that the gateway drains; that it never does is the worst case.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn nobody_is_refused_before_the_balancer_has_noticed() -> Result<()> {
    let pool = Pool::new(introduced).await?;
    let seldom = |text: String| {
        let text = text.replace("inter 1s", "inter 1d");
        text.replace(
            "option httpchk",
            &format!("{TELL_CHECKS}\n    option httpchk"),
        )
    };
    let proxy = balanced(&pool, seldom).await?;
    // It asks once at its start.
    proxy.wait_for_log(CHECKED).await?;
    pool.gateways[0].output(&["drain"]).await?;
    all_log_in(&proxy).await?;
    let leaving = &pool.gateways[0];
    ensure!(leaving.count_logged("desktop assigned").await > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn nobody_is_refused_when_a_gateway_of_a_pool_has_stopped() -> Result<()> {
    let mut pool = Pool::new(introduced).await?;
    let proxy = balanced(&pool, |text| text).await?;
    stops(&mut pool, &proxy).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn nobody_is_refused_when_a_gateway_without_shared_key_drains() -> Result<()> {
    let pool = Pool::new(without_key).await?;
    let proxy = by_address(&pool).await?;
    drains(&pool, &proxy).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn nobody_is_refused_when_a_gateway_without_shared_key_has_stopped() -> Result<()> {
    let mut pool = Pool::new(without_key).await?;
    let proxy = by_address(&pool).await?;
    stops(&mut pool, &proxy).await
}

/// nginx asks nobody for their health, and passes on what one gateway refuses.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn nobody_is_refused_behind_nginx() -> Result<()> {
    let trusting = |gateway: GatewayBuilder| {
        let gateway = gateway.plain();
        gateway.set("TrustedProxies", vec!["127.0.0.1"])
    };
    let mut pool = Pool::new(trusting).await?;
    let cert = TestCert::new()?;
    let members = pool.gateways.each_ref().map(Gateway::plain_addr);
    let proxy = nginx::pool(members, &cert).await?;
    all_log_in(&proxy).await?;
    for gateway in &pool.gateways {
        ensure!(gateway.count_logged("desktop assigned").await > 0);
    }
    pool.gateways[0].output(&["drain"]).await?;
    all_log_in(&proxy).await?;
    ensure!(pool.gateways[0].count_logged("desktop refused").await > 0);
    pool.gateways[0].terminate().await?;
    all_log_in(&proxy).await?;
    let client = FlexVdiClient::new(&proxy.tls()).host(PUBLIC_NAME);
    ensure!(client.desktop().await?.address == PUBLIC_NAME);
    Ok(())
}
