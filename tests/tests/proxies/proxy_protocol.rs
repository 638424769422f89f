//! The PROXY protocol, as real balancers speak it and as nobody should, in and out.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::GatewayBuilder;
use testkit::host::read_link;
use testkit::http::Call;
use testkit::net::{StreamEnd, read_to_end};
use testkit::packages::Package;
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::haproxy::{LOG, haproxy};
use crate::pool::{Pool, balanced, session};
use crate::process::{Proxy, program};
use crate::scene::PUBLIC_NAME;
use crate::template::adapt;

/// A client whose address is not the balancer's.
const CLIENT: [u8; 4] = [127, 0, 0, 7];
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A session of a client at [`CLIENT`]: both gateways must know its address, and count its wrong
/// tokens as its own.
async fn is_known_behind(pool: &Pool, proxy: &Proxy) -> Result<()> {
    let endpoint = proxy.tls().from_source(CLIENT.into());
    session(endpoint.clone()).await?;
    for number in 0..4 {
        ws::Connect::new(&endpoint, &format!("guess-{number}"))
            .open()
            .await?
            .refused()?;
    }
    let mut lines = pool.logged("desktop assigned").await;
    lines.extend(pool.logged("channel open").await);
    lines.extend(pool.logged("too many wrong tokens").await);
    ensure!(lines.len() > ChannelType::PLAIN_VM.len(), "{lines:?}");
    for line in lines {
        ensure!(line.contains("client=127.0.0.7"), "{line}");
    }
    // Others behind the same balancer are not punished.
    session(proxy.tls().from_source([127, 0, 0, 8].into())).await?;
    Ok(())
}

fn told_by_balancer(gateway: GatewayBuilder) -> GatewayBuilder {
    gateway
        .set("ProxyProtocol", vec!["127.0.0.1/32"])
        .set("BadTokenLimit", 2)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn the_documented_pool_tells_who_the_client_is() -> Result<()> {
    let pool = Pool::new(told_by_balancer).await?;
    let proxy = balanced(&pool, |text| text).await?;
    is_known_behind(&pool, &proxy).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn version_1_does_too() -> Result<()> {
    let pool = Pool::new(told_by_balancer).await?;
    let proxy = balanced(&pool, |text| text.replace("send-proxy-v2", "send-proxy")).await?;
    is_known_behind(&pool, &proxy).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn nginx_passing_tls_through_does_too() -> Result<()> {
    let pool = Pool::new(told_by_balancer).await?;
    let members = pool.gateways.each_ref().map(|g| g.tls_addr().to_string());
    let proxy = Proxy::start(Package::NginxStream, |setup| {
        let main = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
             daemon off; master_process off; pid nginx.pid; error_log stderr;\n\
             events {{}}\n\
             stream {{\n\
                 upstream gateways {{ server {}; server {}; }}\n\
                 server {{ listen {}; proxy_pass gateways; proxy_protocol on; }}\n\
             }}\n",
            members[0], members[1], setup.addr
        );
        let config = setup.write("nginx.conf", &main)?;
        let mut command = program("nginx")?;
        command
            .args(["-e", "stderr", "-c", &config, "-p"])
            .arg(setup.dir);
        Ok(command)
    })
    .await?;
    is_known_behind(&pool, &proxy).await
}

/// `HAProxy` ends TLS and tells of the client on the plaintext port.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn it_works_on_the_plaintext_port() -> Result<()> {
    let host = Host::echo().await?;
    let manager = Manager::spawn(DesktopAnswer::new(host.addr())).await?;
    let gateway = Gateway::builder()
        .manager(&manager)
        .plain()
        .set("ProxyProtocol", vec!["127.0.0.1"])
        .spawn()
        .await?;
    let cert = TestCert::new()?;
    let backend = format!("{} send-proxy-v2 check", gateway.plain_addr());
    let proxy = haproxy(|setup| {
        adapt(
            include_str!("../../../docs/proxies/haproxy.cfg"),
            &[
                LOG,
                ("bind :::443 v4v6", &format!("bind {}", setup.addr)),
                ("127.0.0.1:8080", &backend),
                (
                    "/etc/haproxy/vdi.example.com.pem",
                    &cert.combined_path().display().to_string(),
                ),
            ],
        )
    })
    .await?;
    session(proxy.tls().from_source(CLIENT.into())).await?;
    let lines = gateway.log().await;
    ensure!(lines.iter().any(|line| line.contains("channel open")));
    for line in lines.iter().filter(|line| line.contains(" client=")) {
        ensure!(line.contains("client=127.0.0.7"), "{line}");
    }
    Ok(())
}

async fn gateway_with_header() -> Result<Gateway> {
    Gateway::builder()
        .plain()
        .set("HijackAll", false)
        .set("ProxyProtocol", vec!["127.0.0.1"])
        .set("HandshakeTimeout", 1)
        .spawn()
        .await
}

/// What a connection that begins like this gets, and whether it is ended.
async fn ended(endpoint: &Endpoint, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = endpoint.connect_tcp().await?;
    // It may be closed before all is written.
    let _ = stream.write_all(bytes).await;
    let (answer, end) = read_to_end(&mut stream).await?;
    ensure!(
        matches!(end, StreamEnd::Closed | StreamEnd::Reset),
        "{end:?}"
    );
    Ok(answer)
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn no_header_or_a_malformed_one_ends_the_connection() -> Result<()> {
    let gateway = gateway_with_header().await?;
    let request = &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..];
    let huge = [V2_SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    for endpoint in [Endpoint::plain(gateway.tls_addr()), gateway.plain()] {
        for garbage in [
            request,
            &[0xff; 200],
            b"\x16\x03\x01\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n",
            &[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            &huge,
            // Never complete: given up after the time for it.
            b"PROXY TCP4 1.2",
        ] {
            let answer = ended(&endpoint, garbage).await?;
            ensure!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
        }
    }
    // Told, but not once for each.
    let told = |line: &&String| line.contains("no PROXY header from a peer in ProxyProtocol");
    let log = gateway.log().await;
    ensure!(log.iter().filter(told).count() == 1, "{log:?}");
    Ok(())
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn headers_may_come_in_pieces_and_with_what_follows() -> Result<()> {
    let gateway = gateway_with_header().await?;
    let request = b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let v2 = [
        V2_SIGNATURE,
        &[0x21, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 1, 0, 9, 1, 0xbb],
    ]
    .concat();
    let local = [V2_SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for header in [
        &b"PROXY TCP4 192.0.2.7 10.0.0.1 9 443\r\n"[..],
        b"PROXY UNKNOWN\r\n",
        &v2,
        &local,
    ] {
        let answer = ended(&gateway.plain(), &[header, request].concat()).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 404"), "{header:?}");
        let mut stream = gateway.plain().connect_tcp().await?;
        for byte in header {
            stream.write_all(&[*byte]).await?;
            tokio::task::yield_now().await;
        }
        stream.write_all(request).await?;
        let (answer, _) = read_to_end(&mut stream).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 404"), "{header:?}");
    }
    Ok(())
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn from_others_a_header_is_not_looked_for() -> Result<()> {
    let gateway = gateway_with_header().await?;
    let other: IpAddr = [127, 0, 0, 2].into();
    let request = &b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"[..];
    let header = &b"PROXY TCP4 192.0.2.7 10.0.0.1 9 443\r\n"[..];
    let plain = gateway.plain().from_source(other);
    ensure!(ended(&plain, request).await?.starts_with(b"HTTP/1.1 404"));
    let answer = ended(&plain, &[header, request].concat()).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 400"));
    // A client cannot lend itself an address.
    let tls = Endpoint::plain(gateway.tls_addr()).from_source(other);
    let answer = ended(&tls, header).await?;
    ensure!(!answer.starts_with(b"HTTP"));
    Ok(())
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn connections_are_counted_for_the_client() -> Result<()> {
    let gateway = Gateway::builder()
        .plain()
        .set("ProxyProtocol", vec!["127.0.0.1"])
        .set("MaxConnectionsPerAddress", 1)
        .spawn()
        .await?;
    let open = async |client: u8| -> Result<_> {
        let mut stream = gateway.plain().connect_tcp().await?;
        let text = format!("PROXY TCP4 192.0.2.{client} 10.0.0.1 9 443\r\n");
        stream.write_all(text.as_bytes()).await?;
        stream
            .write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            .await?;
        let mut first = [0; 12];
        let read = within("an answer", stream.read_exact(&mut first)).await?;
        Ok(read.is_ok().then_some(stream))
    };
    let first = open(1).await?.context("the first connection")?;
    ensure!(open(1).await?.is_none(), "a second one of the same client");
    let _second = open(2).await?.context("one of another client")?;
    drop(first);
    Ok(())
}

/// What a host receives before the first byte of Spice.
async fn announced(protocol: &str, length: Option<usize>) -> Result<Vec<u8>> {
    let host = Host::spawn(move |mut stream| async move {
        let mut header = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut header).await?;
        while length.is_none() && !header.ends_with(b"\r\n") {
            header.push(stream.read_u8().await?);
        }
        let link = read_link(&mut stream).await?;
        stream.write_all(&link).await?;
        anyhow::Ok(header)
    })
    .await?;
    let manager = Manager::spawn(DesktopAnswer::new(host.addr())).await?;
    let gateway = Gateway::builder()
        .manager(&manager)
        .set("HostProxyProtocol", protocol)
        .spawn()
        .await?;
    let endpoint = gateway.tls().from_source(CLIENT.into());
    let client = FlexVdiClient::new(&endpoint).host(PUBLIC_NAME);
    let desktop = client.desktop().await?;
    let mut channels = client.channels(&desktop, &[(ChannelType::Main, 0)]).await?;
    let link = link_message(ChannelType::Main, 0);
    let mut echoed = vec![0; link.len()];
    let channel = channels.first_mut().context("a channel")?;
    within("an echo", channel.read_exact(&mut echoed)).await??;
    ensure!(echoed == link);
    tokio::time::timeout(Duration::from_secs(10), host.outcome()).await?
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn hosts_are_told_who_their_client_is() -> Result<()> {
    let header = String::from_utf8(announced("v1", None).await?)?;
    ensure!(
        header.starts_with("PROXY TCP4 127.0.0.7 127.0.0.1 ") && !header.contains(" 0 "),
        "{header}"
    );
    let header = announced("v2", Some(28)).await?;
    ensure!(header.starts_with(V2_SIGNATURE));
    ensure!(header[12..24] == [0x21, 0x11, 0, 12, 127, 0, 0, 7, 127, 0, 0, 1]);
    Ok(())
}

/// Each reason of `connections_refused_total`, with its count.
async fn refused_connections(admin: &Endpoint) -> Result<Vec<(String, u64)>> {
    let metrics = Call::get(admin, "/metrics").send().await?;
    let text = String::from_utf8(metrics.body().to_vec())?;
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("flexvdi_gateway_connections_refused_total{reason=\"")?;
        let (reason, count) = rest.split_once("\"} ")?;
        Some((reason.to_owned(), count))
    });
    samples
        .map(|(reason, count)| Ok((reason, count.parse()?)))
        .collect()
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn what_is_refused_after_the_header_is_counted_by_its_reason() -> Result<()> {
    let admin = testkit::net::free_port()?;
    let gateway = Gateway::builder()
        .plain()
        .set("ProxyProtocol", vec!["127.0.0.1"])
        .set("HandshakeTimeout", 1)
        .set("MaxConnectionsPerAddress", 1)
        .set("DeniedClients", vec!["198.51.100.0/24"])
        .set("AdminPort", admin)
        .spawn()
        .await?;
    let admin = Endpoint::plain(([127, 0, 0, 1], admin).into());
    let named = |client: &str| format!("PROXY TCP4 {client} 10.0.0.1 9 443\r\n");
    let endpoint = gateway.plain();
    // One client that stays, and its request, so that it was counted.
    let mut held = endpoint.connect_tcp().await?;
    let request = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";
    held.write_all((named("192.0.2.7") + request).as_bytes())
        .await?;
    held.readable().await?;
    for (bytes, times) in [
        (named("192.0.2.7"), 1),
        (named("198.51.100.9"), 2),
        ("PROXY TCP9 none\r\n".to_owned(), 3),
        // A probe, which is no client.
        (String::new(), 1),
    ] {
        for _ in 0..times {
            let mut stream = endpoint.connect_tcp().await?;
            let _ = stream.write_all(bytes.as_bytes()).await;
            let _ = stream.shutdown().await;
            read_to_end(&mut stream).await?;
        }
    }
    let expected = [
        ("too many connections", 1),
        ("too many unfinished handshakes", 0),
        ("client not allowed", 2),
        ("no PROXY header", 3),
    ];
    let mut counted = refused_connections(&admin).await?;
    counted.sort();
    let mut expected = expected.map(|(reason, count)| (reason.to_owned(), count));
    expected.sort();
    ensure!(counted == expected, "{counted:?}");
    drop(held);
    Ok(())
}
