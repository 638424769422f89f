//! `HAProxy`, ending TLS itself or passing it through.

use anyhow::Result;
use testkit::flexvdi::FlexVdiClient;
use testkit::host::End;
use testkit::packages::Package;
use testkit::prelude::*;

use crate::process::{Proxy, Setup, program};
use crate::scene::{PROXY_PATIENCE, PUBLIC_NAME, Scene};
use crate::template::adapt;

const DOCUMENTED: &str = include_str!("../../../docs/proxies/haproxy.cfg");
const DOCUMENTED_TCP: &str = include_str!("../../../docs/proxies/haproxy-tcp.cfg");
/// Lets the test read what goes to syslog.
pub(crate) const LOG: (&str, &str) = ("log /dev/log local0", "log stdout format raw local0");

pub(crate) async fn haproxy(config: impl Fn(&Setup<'_>) -> Result<String>) -> Result<Proxy> {
    Proxy::start(Package::Haproxy, |setup| {
        let config = setup.write("haproxy.cfg", &config(setup)?)?;
        let mut command = program("haproxy")?;
        // One process that stays in the foreground.
        command.args(["-db", "-f", &config]);
        Ok(command)
    })
    .await
}

/// The documented file that ends TLS, in front of a gateway.
async fn documented(scene: &Scene, cert: &TestCert, patience: &str) -> Result<Proxy> {
    haproxy(|setup| {
        adapt(
            DOCUMENTED,
            &[
                LOG,
                ("bind :::443 v4v6", &format!("bind {}", setup.addr)),
                ("127.0.0.1:8080", &scene.backend()),
                (
                    "/etc/haproxy/vdi.example.com.pem",
                    &cert.combined_path().display().to_string(),
                ),
                ("timeout tunnel 1d", patience),
            ],
        )
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn the_documented_file_works() -> Result<()> {
    let scene = Scene::new(End::Hold, |gateway| gateway).await?;
    let cert = TestCert::new()?;
    let proxy = documented(&scene, &cert, "timeout tunnel 1d").await?;
    scene.works_through(&proxy).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn the_hosts_end_is_told() -> Result<()> {
    let scene = Scene::new(End::Fin, |gateway| gateway).await?;
    let cert = TestCert::new()?;
    let proxy = documented(&scene, &cert, "timeout tunnel 1d").await?;
    scene.hosts_end_is_told(&proxy).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn pings_keep_an_idle_channel_open() -> Result<()> {
    let scene = Scene::new(End::Hold, |gateway| gateway.set("KeepAlive", 1)).await?;
    let cert = TestCert::new()?;
    let patience = format!("timeout tunnel {PROXY_PATIENCE}s");
    let proxy = documented(&scene, &cert, &patience).await?;
    scene.pings_keep_alive(&proxy).await
}

/// TLS goes through to a pool of gateways, of which each client stays with one.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn the_documented_pool_works() -> Result<()> {
    let pool = [
        Scene::new(End::Hold, |gateway| gateway).await?,
        Scene::new(End::Hold, |gateway| gateway).await?,
    ];
    let [first, second] = pool.each_ref().map(|s| s.gateway.tls_addr().to_string());
    let proxy = haproxy(|setup| {
        adapt(
            DOCUMENTED_TCP,
            &[
                LOG,
                ("bind :::443 v4v6", &format!("bind {}", setup.addr)),
                ("10.0.0.11:443", &first),
                ("10.0.0.12:443", &second),
            ],
        )
    })
    .await?;

    let mut used = [0; 2];
    for number in 1..=8 {
        let address = format!("127.0.0.{number}").parse()?;
        let endpoint = proxy.tls().from_source(address);
        let client = FlexVdiClient::new(&endpoint).host(PUBLIC_NAME);
        let asked = || pool.each_ref().map(|s| s.manager.requests().len());
        let before = asked();
        let desktop = client.desktop().await?;
        assert_eq!(desktop.address, PUBLIC_NAME);
        let chosen = usize::from(asked()[1] > before[1]);
        used[chosen] += 1;
        // Only the gateway that issued the ticket takes it.
        let channel = client.open(&desktop).await?;
        pool[chosen].data_flows(channel, ChannelType::Main).await?;
    }
    assert!(used.iter().all(|clients| *clients > 0), "{used:?}");
    Ok(())
}
