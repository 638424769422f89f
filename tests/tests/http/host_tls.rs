//! Hosts with TLS: which certificates are accepted, and what comes of others.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use testkit::gateway::GatewayBuilder;
use testkit::net::free_port;
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, copy, split};
use tokio_rustls::TlsAcceptor;

use crate::support::{assert_error, assert_opens, get, logged, port_gateway, port_token, refused};

/// Where hosts have TLS in these tests.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 4));

/// A host that echoes, behind TLS with this certificate.
struct Secured {
    host: Host<Vec<u8>>,
    token: String,
    _front: Front,
}

impl Secured {
    async fn start(cert: &TestCert) -> Self {
        let host = Host::echo().await.unwrap();
        let config = cert.server_config().unwrap();
        let front = Front::tls(ADDRESS, config, host.addr()).await.unwrap();
        Self {
            token: port_token(&host),
            host,
            _front: front,
        }
    }
}

/// A gateway that trusts the authority of this certificate.
fn trusting(cert: &TestCert) -> GatewayBuilder {
    port_gateway()
        .set("SpiceHost", ADDRESS.to_string())
        .set("HostTLS", true)
        .set("HostCAFile", cert.ca_path().to_str().unwrap())
}

fn cert() -> testkit::cert::TestCertBuilder {
    TestCert::builder().names([ADDRESS.to_string()])
}

/// A channel to this host is refused with this status, for this reason.
async fn assert_refused(gateway: &Gateway, secured: &Secured, status: StatusCode, reason: &str) {
    assert_error(&refused(&gateway.tls(), &secured.token).await, status);
    logged(gateway, &["host not reached", reason]).await;
    assert_eq!(secured.host.accepted(), 0, "the host was told something");
}

#[tokio::test]
async fn a_host_whose_authority_is_trusted_is_reached() {
    for cert in [cert(), cert().rsa(), cert().rsa().chain()] {
        let cert = cert.build().unwrap();
        let secured = Secured::start(&cert).await;
        let gateway = trusting(&cert).spawn().await.unwrap();
        assert_opens(&gateway.tls(), &secured.token).await;
    }
}

#[tokio::test]
async fn a_host_whose_authority_is_not_trusted_is_502_and_counted() {
    let (theirs, ours) = (cert().build().unwrap(), cert().chain().build().unwrap());
    let secured = Secured::start(&theirs).await;
    let admin = free_port().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let gateway = trusting(&ours)
        .set("AdminPort", admin)
        .set("AccessLog", file.path().to_str().unwrap());
    let gateway = gateway.spawn().await.unwrap();
    let reason = "TLS: the host's certificate (CN=gateway under test) is signed by none of the \
                  trusted authorities";
    assert_refused(&gateway, &secured, StatusCode::BAD_GATEWAY, reason).await;
    let endpoint = Endpoint::plain(([127, 0, 0, 1], admin).into());
    let metrics = get(&endpoint, "/metrics").await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    let counted = "host_connect_failures_total{reason=\"tls\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    let is_told = || {
        let lines = std::fs::read_to_string(file.path()).unwrap();
        lines.contains("none of the trusted authorities") && lines.contains("\"status\":502")
    };
    within("the access log", async {
        while !is_told() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_host_must_have_the_name_or_the_subject() {
    let other = TestCert::builder().names(["host.example"]).build().unwrap();
    let secured = Secured::start(&other).await;
    let gateway = trusting(&other).spawn().await.unwrap();
    let reason = "the host's certificate is for host.example, and not for 127.0.0.4";
    assert_refused(&gateway, &secured, StatusCode::BAD_GATEWAY, reason).await;
    let gateway = trusting(&other).set("HostSubject", "CN=another");
    let gateway = gateway.spawn().await.unwrap();
    assert_refused(
        &gateway,
        &secured,
        StatusCode::BAD_GATEWAY,
        "the subject of",
    )
    .await;
    let gateway = trusting(&other).set("HostSubject", "CN=Gateway under test");
    let gateway = gateway.spawn().await.unwrap();
    assert_opens(&gateway.tls(), &secured.token).await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    let day = Duration::from_secs(86_400);
    let ended = cert().chain().ended(day).build().unwrap();
    let secured = Secured::start(&ended).await;
    let gateway = trusting(&ended).spawn().await.unwrap();
    let reason = "the host's certificate has expired";
    assert_refused(&gateway, &secured, StatusCode::BAD_GATEWAY, reason).await;
}

#[tokio::test]
async fn a_plain_port_is_no_tls_port() {
    let cert = cert().build().unwrap();
    // Ends as soon as it sees what is no link message, as Spice servers do.
    let host = Host::spawn_on((ADDRESS, 0).into(), |mut stream| async move {
        stream.read_u8().await?;
        Ok(())
    });
    let host = host.await.unwrap();
    let gateway = trusting(&cert).spawn().await.unwrap();
    let response = refused(&gateway.tls(), &port_token(&host)).await;
    assert_error(&response, StatusCode::BAD_GATEWAY);
    // A socket that is closed with unread bytes resets the connection.
    logged(&gateway, &["host not reached", "TLS: "]).await;
}

#[tokio::test]
async fn a_host_that_does_not_finish_its_handshake_is_504() {
    let cert = cert().build().unwrap();
    let host = Host::spawn_on((ADDRESS, 0).into(), |stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
        Ok(())
    });
    let host = host.await.unwrap();
    let gateway = trusting(&cert).set("ConnectTimeout", 1);
    let gateway = gateway.spawn().await.unwrap();
    let response = refused(&gateway.tls(), &port_token(&host)).await;
    assert_error(&response, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn new_authorities_are_taken_while_channels_go_on() {
    let (old, new) = (cert().build().unwrap(), cert().build().unwrap());
    let before = Secured::start(&old).await;
    let gateway = trusting(&old).set("CertificatePoll", 1);
    let gateway = gateway.spawn().await.unwrap();
    let mut channel = ws::echo_channel(&gateway.tls(), &before.token)
        .await
        .unwrap();
    let after = Secured::start(&new).await;
    assert_refused(&gateway, &after, StatusCode::BAD_GATEWAY, "TLS: ").await;
    std::fs::write(old.ca_path(), "no certificates").unwrap();
    logged(&gateway, &["not reloaded", "HostCAFile"]).await;
    channel.echo(b"meanwhile").await.unwrap();
    std::fs::copy(new.ca_path(), old.ca_path()).unwrap();
    logged(&gateway, &["reloaded", "authorities of the hosts"]).await;
    assert_opens(&gateway.tls(), &after.token).await;
    channel.echo(b"still here").await.unwrap();
    let response = refused(&gateway.tls(), &before.token).await;
    assert_error(&response, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn the_proxy_header_comes_before_the_handshake() {
    let cert = cert().build().unwrap();
    let acceptor = TlsAcceptor::from(cert.server_config().unwrap());
    let host = Host::spawn_on((ADDRESS, 0).into(), move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut header = Vec::new();
            while !header.ends_with(b"\r\n") {
                header.push(stream.read_u8().await?);
            }
            let (mut reader, mut writer) = split(acceptor.accept(stream).await?);
            copy(&mut reader, &mut writer).await?;
            Ok(String::from_utf8(header)?)
        }
    });
    let host = host.await.unwrap();
    let gateway = trusting(&cert).set("HostProxyProtocol", "v1");
    let gateway = gateway.spawn().await.unwrap();
    assert_opens(&gateway.tls(), &port_token(&host)).await;
    let header = host.outcome().await.unwrap();
    let expected = "PROXY TCP4 127.0.0.1 127.0.0.4 ";
    assert!(header.starts_with(expected), "{header}");
}

#[tokio::test]
async fn hosts_are_not_trusted_unseen() {
    let started = port_gateway().set("HostTLS", true).spawn().await;
    let error = format!("{:#}", started.map(drop).unwrap_err());
    assert!(error.contains("HostCAFile: expected the path"), "{error}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let gateway = port_gateway()
        .set("HostTLS", true)
        .set("HostCAFile", empty.path().to_str().unwrap());
    let error = format!("{:#}", gateway.spawn().await.map(drop).unwrap_err());
    assert!(error.contains("HostCAFile: expected a PEM file"), "{error}");
}
