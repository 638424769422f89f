//! nginx.

use std::net::SocketAddr;

use anyhow::Result;
use testkit::flexvdi::FlexVdiClient;
use testkit::host::End;
use testkit::packages::{NGINX_STREAM_MODULE, Package};
use testkit::prelude::*;
use testkit::tunnel::Tunnel;

use crate::process::{Proxy, Setup, program};
use crate::scene::{PROXY_PATIENCE, PUBLIC_NAME, Scene};
use crate::template::adapt;

const DOCUMENTED: &str = include_str!("../../../docs/proxies/nginx.conf");
const DOCUMENTED_POOL: &str = include_str!("../../../docs/proxies/nginx-pool.conf");
const DOCUMENTED_STREAM: &str = include_str!("../../../docs/proxies/nginx-stream.conf");

/// Starts nginx with the site that `site` makes, which may name the certificate by `cert`.
async fn nginx(cert: &TestCert, site: impl Fn(&Setup<'_>) -> Result<String>) -> Result<Proxy> {
    let certificate = format!(
        "ssl_certificate {}; ssl_certificate_key {};",
        cert.cert_path().display(),
        cert.key_path().display()
    );
    Proxy::start(Package::Nginx, |setup| {
        setup.write("site.conf", &site(setup)?)?;
        // What Debian's own nginx.conf says, in a folder that needs no rights.
        let main = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;\n\
             events {{}}\n\
             http {{\n\
                 client_body_temp_path client; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
                 uwsgi_temp_path uwsgi; scgi_temp_path scgi; access_log off;\n\
                 {certificate}\n\
                 include site.conf;\n\
             }}\n"
        );
        let config = setup.write("nginx.conf", &main)?;
        let mut command = program("nginx")?;
        command
            .args(["-e", "stderr", "-c", &config, "-p"])
            .arg(setup.dir);
        Ok(command)
    })
    .await
}

/// Starts nginx with the documented relay of bytes in front of a gateway.
async fn relay(backend: &str, cert: &TestCert) -> Result<Proxy> {
    Proxy::start(Package::NginxStream, |setup| {
        let relay = adapt(
            DOCUMENTED_STREAM,
            &[
                ("listen [::]:443 ssl;", ""),
                ("listen 443 ssl;", &format!("listen {} ssl;", setup.addr)),
                ("127.0.0.1:8080", backend),
                (
                    "/etc/ssl/certs/vdi.example.com.pem",
                    &cert.cert_path().display().to_string(),
                ),
                (
                    "/etc/ssl/private/vdi.example.com.key",
                    &cert.key_path().display().to_string(),
                ),
            ],
        )?;
        let main = format!(
            "load_module {NGINX_STREAM_MODULE};\n\
             daemon off; master_process off; pid nginx.pid; error_log stderr;\n\
             events {{}}\n{relay}"
        );
        let config = setup.write("nginx.conf", &main)?;
        let mut command = program("nginx")?;
        command
            .args(["-e", "stderr", "-c", &config, "-p"])
            .arg(setup.dir);
        Ok(command)
    })
    .await
}

/// WebSockets and tunnels of one session, of the client that nginx names.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn the_documented_relay_works_for_clients_of_every_kind() -> Result<()> {
    let configure = |gateway: testkit::gateway::GatewayBuilder| {
        gateway
            .set("TrustedProxies", Vec::<String>::new())
            .set("ProxyProtocol", vec!["127.0.0.1"])
    };
    let scene = Scene::new(End::Hold, configure).await?;
    let cert = TestCert::new()?;
    let proxy = relay(&scene.backend(), &cert).await?;
    let client_address = "127.0.0.7".parse()?;
    let endpoint = proxy.tls().from_source(client_address);
    let client = FlexVdiClient::new(&endpoint).host(PUBLIC_NAME);
    let desktop = client.desktop().await?;
    assert_eq!(desktop.address, PUBLIC_NAME);
    let channel = client.open(&desktop).await?;
    scene.data_flows(channel, ChannelType::Main).await?;
    let tunnel = Tunnel::new(&endpoint, &desktop.token).stream().await?;
    scene.data_flows_in(tunnel, ChannelType::Display).await?;
    scene.log_has("desktop assigned", client_address).await?;
    scene.log_has("kind=\"display\"", client_address).await
}

/// The documented site in front of a pool.
pub(crate) async fn pool(members: [SocketAddr; 2], cert: &TestCert) -> Result<Proxy> {
    nginx(cert, |setup| {
        let [first, second] = members.map(|member| member.to_string());
        let changes = [("10.0.0.11:8080", &*first), ("10.0.0.12:8080", &*second)];
        site(&adapt(DOCUMENTED_POOL, &changes)?, cert, setup)
    })
    .await
}

/// A documented site whose gateways are named already.
fn site(text: &str, cert: &TestCert, setup: &Setup<'_>) -> Result<String> {
    adapt(
        text,
        &[
            ("listen [::]:443 ssl;", ""),
            ("listen 443 ssl;", &format!("listen {} ssl;", setup.addr)),
            (
                "/etc/ssl/certs/vdi.example.com.pem",
                &cert.cert_path().display().to_string(),
            ),
            (
                "/etc/ssl/private/vdi.example.com.key",
                &cert.key_path().display().to_string(),
            ),
            (
                "/var/log/nginx/flexvdi-gateway.log",
                &setup.path("access.log"),
            ),
        ],
    )
}

/// The documented site in front of a gateway.
pub(crate) async fn documented(backend: &str, cert: &TestCert, patience: &str) -> Result<Proxy> {
    nginx(cert, |setup| {
        let changes = [
            ("127.0.0.1:8080", backend),
            ("proxy_read_timeout 1d", patience),
        ];
        site(&adapt(DOCUMENTED, &changes)?, cert, setup)
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
    let proxy = documented(&scene.backend(), &cert, "proxy_read_timeout 1d").await?;
    scene.works_through(&proxy).await?;
    // The form in which its requests for the manager come.
    let requests = scene.manager.requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert_eq!(request.header("via"), Some("1.0 flexvdi-gateway"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn the_hosts_end_is_told() -> Result<()> {
    let scene = Scene::new(End::Fin, |gateway| gateway).await?;
    let cert = TestCert::new()?;
    let proxy = documented(&scene.backend(), &cert, "proxy_read_timeout 1d").await?;
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
    let patience = format!("proxy_read_timeout {PROXY_PATIENCE}s");
    let proxy = documented(&scene.backend(), &cert, &patience).await?;
    scene.pings_keep_alive(&proxy).await
}

/// The rule that existing installations have: the gateway learns neither the public name nor the
/// client's address.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_rule_without_forwarded_headers_needs_external_name() -> Result<()> {
    let named =
        |gateway: testkit::gateway::GatewayBuilder| gateway.set("ExternalName", PUBLIC_NAME);
    let scene = Scene::new(End::Hold, named).await?;
    let cert = TestCert::new()?;
    let proxy = nginx(&cert, |setup| {
        Ok(format!(
            "upstream backend {{ server {}; }}\n\
             server {{\n\
                 listen {} ssl;\n\
                 location = / {{\n\
                     proxy_pass http://backend;\n\
                     proxy_http_version 1.1;\n\
                     proxy_set_header Upgrade $http_upgrade;\n\
                     proxy_set_header Connection \"upgrade\";\n\
                 }}\n\
                 location /vdi/ {{ proxy_pass http://backend; }}\n\
             }}\n",
            scene.backend(),
            setup.addr
        ))
    })
    .await?;

    let client = FlexVdiClient::new(&proxy.tls()).host(PUBLIC_NAME);
    let desktop = client.desktop().await?;
    assert_eq!(desktop.address, PUBLIC_NAME);
    let asked = scene.manager.requests();
    assert_eq!(asked[0].header("x-forwarded-host"), Some("backend"));
    let channel = client.open(&desktop).await?;
    scene.data_flows(channel, ChannelType::Display).await?;
    // Nobody says who the client is, and it is not taken for the proxy.
    scene.log_has("channel closed", "0.0.0.0".parse()?).await
}
