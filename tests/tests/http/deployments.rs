//! The deployments that must work, from the login to the last byte of a recorded session.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use http::StatusCode;
use testkit::flexvdi::{Desktop, FlexVdiClient};
use testkit::prelude::*;
use testkit::replay::{Played, Recording, Speed};
use testkit::ws::Connect;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::{assert_error, assert_opens, port_gateway, refused_token};

/// A host that plays a recorded session, and the client that plays the other side.
struct Session {
    recording: Arc<Recording>,
    host: Host<Played>,
}

impl Session {
    async fn new() -> Self {
        let recording = Recording::load().unwrap();
        let host = recording.host(Speed::Unlimited).await.unwrap();
        Self { recording, host }
    }

    /// Where the manager is to say that the desktop is.
    fn desktop(&self) -> DesktopAnswer {
        DesktopAnswer::new(self.host.addr())
    }

    /// Plays all channels of a desktop at the same time; both sides check every byte.
    async fn play(&self, client: &FlexVdiClient, desktop: &Desktop) {
        let mut playing = JoinSet::new();
        let count = self.recording.channels().len();
        for index in 0..count {
            let channel = client.open(desktop).await.unwrap();
            let recording = self.recording.clone();
            playing.spawn(async move {
                let recorded = &recording.channels()[index];
                recorded.play_client(channel, Speed::Unlimited).await
            });
        }
        let mut sent = 0;
        for played in playing.join_all().await {
            sent += played.unwrap().downlink;
        }
        let mut served = 0;
        for _ in 0..count {
            served += self.host.outcome().await.unwrap().downlink;
        }
        assert_eq!(sent, served);
        assert!(sent > 1_000_000, "the recording is a whole session");
    }
}

#[tokio::test]
async fn one_gateway_per_host_without_hijacking() {
    let session = Session::new().await;
    let manager = Manager::spawn(session.desktop()).await.unwrap();
    let gateway = port_gateway().manager(&manager).spawn().await.unwrap();
    let client = FlexVdiClient::new(&gateway.tls());
    let desktop = client.desktop().await.unwrap();
    assert_eq!(desktop.token, session.host.addr().port().to_string());
    session.play(&client, &desktop).await;
    assert_eq!(gateway.count_logged("channel open").await, 5);
}

#[tokio::test]
async fn a_balancer_for_the_first_connection_only() {
    let session = Session::new().await;
    // The hosts have the same port at addresses of their own, as clients keep to the port.
    let on_other_host = session.desktop().with("spice_address", "127.0.0.3");
    let manager = Manager::spawn(on_other_host).await.unwrap();
    let first = port_gateway().manager(&manager).spawn().await.unwrap();
    let second = port_gateway()
        .set("ListenAddress", "127.0.0.3")
        .set("SslPort", first.tls_addr().port())
        .spawn()
        .await
        .unwrap();
    let client = FlexVdiClient::new(&first.tls()).host("vdi.example");
    let desktop = client.desktop().await.unwrap();
    assert_eq!(desktop.address, "127.0.0.3");
    session.play(&client, &desktop).await;
    assert_eq!(first.count_logged("channel open").await, 0);
    assert_eq!(second.count_logged("channel open").await, 5);
}

#[tokio::test]
async fn one_gateway_for_all_hijacking() {
    let (one, other) = (Session::new().await, Session::new().await);
    let manager = Manager::spawn(one.desktop()).await.unwrap();
    let gateway = Gateway::builder().manager(&manager).spawn().await.unwrap();
    let client = FlexVdiClient::new(&gateway.tls()).host("vdi.example");
    let first = client.desktop().await.unwrap();
    manager.set_desktop(other.desktop());
    let second = client.desktop().await.unwrap();
    for desktop in [&first, &second] {
        assert_eq!(desktop.address, "vdi.example");
    }
    tokio::join!(one.play(&client, &first), other.play(&client, &second));
}

#[tokio::test]
async fn a_pool_where_each_client_keeps_its_gateway() {
    let session = Session::new().await;
    let manager = Manager::spawn(session.desktop()).await.unwrap();
    let pool = [
        Gateway::builder().manager(&manager).spawn().await.unwrap(),
        Gateway::builder().manager(&manager).spawn().await.unwrap(),
    ];
    let members = [pool[0].tls_addr(), pool[1].tls_addr()];
    let balancer = Host::spawn(move |client| async move { balance(client, members).await });
    let balancer = balancer.await.unwrap();

    let mut desktops = Vec::new();
    for source in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let endpoint = Endpoint::tls(balancer.addr()).from_source(source.into());
        let client = FlexVdiClient::new(&endpoint).host("vdi.example");
        let desktop = client.desktop().await.unwrap();
        session.play(&client, &desktop).await;
        desktops.push(desktop);
    }
    for gateway in &pool {
        assert_eq!(gateway.count_logged("channel open").await, 5);
    }
    // What the affinity is for: a ticket is good at the gateway that made it.
    refused_token(&pool[0].tls(), &desktops[1].token).await;
}

/// Passes a client's connections to the same member always.
async fn balance(mut client: TcpStream, members: [SocketAddr; 2]) -> Result<()> {
    let IpAddr::V4(address) = client.peer_addr()?.ip() else {
        anyhow::bail!("a client without IPv4 address");
    };
    // 127.0.0.1 has the first one, 127.0.0.2 the second.
    let member = members[usize::from(address.octets()[3]) - 1];
    let mut gateway = TcpStream::connect(member).await?;
    copy_bidirectional(&mut client, &mut gateway).await?;
    Ok(())
}

#[tokio::test]
async fn behind_a_reverse_proxy_hijacking() {
    let session = Session::new().await;
    let manager = Manager::spawn(session.desktop()).await.unwrap();
    let gateway = Gateway::builder()
        .manager(&manager)
        .plain()
        .set("TrustedProxies", vec!["127.0.0.1"])
        .spawn()
        .await
        .unwrap();
    let proxy = reverse_proxy(gateway.plain_addr()).await;
    // The client comes from elsewhere than the proxy.
    let endpoint = Endpoint::tls(proxy.addr()).from_source([127, 0, 0, 2].into());
    let client = FlexVdiClient::new(&endpoint).host("vdi.example:8443");
    let desktop = client.desktop().await.unwrap();
    assert_eq!(desktop.address, "vdi.example");
    session.play(&client, &desktop).await;

    let request = manager.requests().pop().unwrap();
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.2, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "vdi.example:8443"),
    ] {
        assert_eq!(request.header(name), Some(value));
    }
    assert_eq!(gateway.count_logged("channel open").await, 5);
    assert!(gateway.count_logged("client=127.0.0.2 host=").await >= 10);
}

#[tokio::test]
async fn behind_a_reverse_proxy_without_hijacking() {
    let session = Session::new().await;
    let manager = Manager::spawn(session.desktop()).await.unwrap();
    let gateway = port_gateway()
        .manager(&manager)
        .plain()
        .set("TrustedProxies", vec!["127.0.0.1"])
        .spawn()
        .await
        .unwrap();
    let proxy = reverse_proxy(gateway.plain_addr()).await;
    let client = FlexVdiClient::new(&Endpoint::tls(proxy.addr()));
    let desktop = client.desktop().await.unwrap();
    session.play(&client, &desktop).await;
}

/// Ends TLS, and tells `backend` who asked for what name; one request per connection.
async fn reverse_proxy(backend: SocketAddr) -> Host<()> {
    let cert = TestCert::new().unwrap();
    let acceptor = TlsAcceptor::from(cert.server_config().unwrap());
    let proxy = Host::spawn(move |client: TcpStream| {
        let acceptor = acceptor.clone();
        async move {
            let peer = client.peer_addr()?.ip();
            let mut client = acceptor.accept(client).await?;
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                client.read_buf(&mut request).await?;
            }
            let mut backend = TcpStream::connect(backend).await?;
            backend.write_all(&told(&request, peer)?).await?;
            // Clients that just leave TCP are an error here.
            let _ = copy_bidirectional(&mut client, &mut backend).await;
            Ok(())
        }
    });
    proxy.await.unwrap()
}

/// The request with the headers that a reverse proxy adds, and its own name as `Host`.
fn told(request: &[u8], peer: IpAddr) -> Result<Vec<u8>> {
    let text = String::from_utf8(request.to_vec())?;
    let host = text
        .lines()
        .find_map(|line| line.strip_prefix("Host: "))
        .context("a request without Host")?;
    let told = format!(
        "Host: backend.internal\r\nX-Forwarded-For: {peer}\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: {host}\r\n"
    );
    let own = format!("Host: {host}\r\n");
    Ok(text.replacen(&own, &told, 1).into_bytes())
}

#[tokio::test]
async fn a_gateway_without_manager_serves_its_host() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway().spawn().await.unwrap();
    let token = host.addr().port().to_string();
    assert_opens(&gateway.tls(), &token).await;
}

#[tokio::test]
async fn desktops_on_hosts_by_name_and_ipv6() {
    for (listen, name) in [
        ("127.0.0.1:0", "localhost"),
        ("[::1]:0", "::1"),
        ("[::1]:0", "[::1]"),
    ] {
        let greeting = Host::spawn_on(listen.parse().unwrap(), |mut stream| async move {
            stream.write_all(b"here").await?;
            stream.read_to_end(&mut Vec::new()).await?;
            Ok(())
        });
        let host = greeting.await.unwrap();
        let manager = Manager::spawn(DesktopAnswer::at(name, host.addr().port()));
        let manager = manager.await.unwrap();
        let gateway = Gateway::builder().manager(&manager).spawn().await.unwrap();
        let client = FlexVdiClient::new(&gateway.tls());
        let desktop = client.desktop().await.unwrap();
        let opened = client.channels(&desktop, &[(ChannelType::Main, 0)]).await;
        opened.unwrap()[0].expect(b"here").await.unwrap();
    }
}

#[tokio::test]
async fn a_name_may_not_lead_where_its_address_may_not() {
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::at("localhost", host.addr().port()));
    let manager = manager.await.unwrap();
    let gateway = Gateway::builder()
        .manager(&manager)
        .set("AllowedHosts", vec!["10.0.0.0/8"])
        .spawn()
        .await
        .unwrap();
    let desktop = FlexVdiClient::new(&gateway.tls()).desktop().await.unwrap();
    let outcome = Connect::new(&gateway.tls(), &desktop.token)
        .open()
        .await
        .unwrap();
    assert_error(&outcome.refused().unwrap(), StatusCode::FORBIDDEN);
    assert_eq!(host.accepted(), 0);
}
