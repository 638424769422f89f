//! Apache httpd.

use std::fmt::Write;

use anyhow::{Context, Result};
use testkit::flexvdi::FlexVdiClient;
use testkit::host::End;
use testkit::packages::Package;
use testkit::prelude::*;

use crate::process::{Proxy, Setup, program};
use crate::scene::{PROXY_PATIENCE, PUBLIC_NAME, Scene};
use crate::template::adapt;

const DOCUMENTED: &str = include_str!("../../../docs/proxies/apache.conf");
/// Modules that Debian's Apache has without `a2enmod`, as far as they matter here.
const ALWAYS: [&str; 2] = ["mpm_event", "authz_core"];
/// Modules that `a2enmod ssl` brings along.
const BROUGHT: [&str; 1] = ["socache_shmcb"];

/// The modules that the documented file tells to enable.
fn documented_modules() -> Result<Vec<&'static str>> {
    let rest = DOCUMENTED.split_once("a2enmod ").context("a2enmod")?.1;
    let modules = rest.split_once(" && ").context("&& behind a2enmod")?.0;
    Ok(modules.split_whitespace().collect())
}

/// Starts Apache with these modules and the site that `site` makes.
async fn apache(modules: &[&str], site: impl Fn(&Setup<'_>) -> Result<String>) -> Result<Proxy> {
    let mut load = String::new();
    for name in ALWAYS.iter().chain(&BROUGHT).chain(modules) {
        let file = format!("/usr/lib/apache2/modules/mod_{name}.so");
        writeln!(load, "LoadModule {name}_module {file}")?;
    }
    Proxy::start(Package::Apache, |setup| {
        let site = site(setup)?;
        let main = format!(
            "{load}\
             ServerName localhost\n\
             DefaultRuntimeDir {dir}\n\
             PidFile {dir}/apache.pid\n\
             ErrorLog /dev/stderr\n\
             Listen {addr}\n\
             # Without effect unless root starts it.\n\
             User www-data\n\
             Group www-data\n\
             {site}",
            dir = setup.dir.display(),
            addr = setup.addr,
        );
        let config = setup.write("apache.conf", &main)?;
        let mut command = program("apache2")?;
        // One process that stays in the foreground.
        command.args(["-X", "-f", &config, "-d"]).arg(setup.dir);
        Ok(command)
    })
    .await
}

/// The documented site in front of a gateway.
async fn documented(scene: &Scene, cert: &TestCert, patience: &str) -> Result<Proxy> {
    apache(&documented_modules()?, |setup| {
        adapt(
            DOCUMENTED,
            &[
                ("*:443", &setup.addr.to_string()),
                ("127.0.0.1:8080", &scene.backend()),
                (
                    "/etc/ssl/certs/vdi.example.com.pem",
                    &cert.cert_path().display().to_string(),
                ),
                (
                    "/etc/ssl/private/vdi.example.com.key",
                    &cert.key_path().display().to_string(),
                ),
                (
                    "/var/log/apache2/flexvdi-gateway.log",
                    &setup.path("access.log"),
                ),
                ("timeout=86400", patience),
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
async fn the_documented_site_works() -> Result<()> {
    let scene = Scene::new(End::Hold, |gateway| gateway).await?;
    let cert = TestCert::new()?;
    let proxy = documented(&scene, &cert, "timeout=86400").await?;
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
    let proxy = documented(&scene, &cert, "timeout=86400").await?;
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
    // Of the two limits the longer one counts for a WebSocket.
    let patience = format!("timeout={PROXY_PATIENCE}\nTimeOut {PROXY_PATIENCE}");
    let proxy = documented(&scene, &cert, &patience).await?;
    scene.pings_keep_alive(&proxy).await
}

/// The rule of older installations, with `mod_proxy_wstunnel`.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn wstunnel_works() -> Result<()> {
    let scene = Scene::new(End::Hold, |gateway| gateway).await?;
    let cert = TestCert::new()?;
    let modules = ["proxy", "proxy_http", "proxy_wstunnel", "ssl"];
    let proxy = apache(&modules, |setup| {
        Ok(format!(
            "<VirtualHost {}>\n\
                 SSLEngine on\n\
                 SSLCertificateFile {}\n\
                 SSLCertificateKeyFile {}\n\
                 ProxyPass \"/vdi/\" \"http://{backend}/vdi/\"\n\
                 ProxyPass \"/\" \"ws://{backend}/\"\n\
             </VirtualHost>\n",
            setup.addr,
            cert.cert_path().display(),
            cert.key_path().display(),
            backend = scene.backend(),
        ))
    })
    .await?;
    let client = FlexVdiClient::new(&proxy.tls()).host(PUBLIC_NAME);
    let desktop = client.desktop().await?;
    // Told by X-Forwarded-Host: without ProxyPreserveHost, Host is the gateway's address.
    assert_eq!(desktop.address, PUBLIC_NAME);
    let channel = client.open(&desktop).await?;
    scene.data_flows(channel, ChannelType::Display).await
}
