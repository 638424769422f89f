//! Which clients are served, and which hosts are reached.

use http::StatusCode;
use testkit::http::{Call, exchange};
use testkit::prelude::*;
use testkit::ws::{Connect, Frame, RawClient};

use crate::support::{
    Stage, ask_desktop, assert_error, get, logged, outlast, port_gateway, port_token, refused,
    refused_token,
};

#[tokio::test]
async fn a_client_that_is_denied_gets_no_answer() {
    let stage = Stage::with(|gateway| {
        gateway
            .plain()
            .set("AllowedClients", vec!["127.0.0.0/24"])
            .set("DeniedClients", vec!["127.0.0.7"])
    })
    .await;
    for endpoint in [stage.gateway.tls(), stage.gateway.plain()] {
        assert_eq!(get(&endpoint, "/x").await.status(), StatusCode::NOT_FOUND);
        for denied in [[127, 0, 0, 7], [127, 0, 1, 1]] {
            let endpoint = endpoint.clone().from_source(denied.into());
            Call::get(&endpoint, "/x").send().await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn behind_a_proxy_the_client_counts() {
    let stage = Stage::with(|gateway| {
        gateway
            .plain()
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("AllowedClients", vec!["192.0.2.0/24"])
    })
    .await;
    let plain = stage.gateway.plain();
    let ask = |client: &str| ask_desktop(&plain).header("X-Forwarded-For", client).send();
    assert_eq!(ask("192.0.2.7").await.unwrap().status(), StatusCode::OK);
    let denied = ask("198.51.100.7").await.unwrap();
    assert_error(&denied, StatusCode::FORBIDDEN);
    logged(
        &stage.gateway,
        &["client is not allowed", "client=198.51.100.7"],
    )
    .await;
    let channel = Connect::new(&plain, "x").header("X-Forwarded-For", "198.51.100.7");
    let refused = channel.open().await.unwrap().refused().unwrap();
    assert_eq!(
        assert_error(&refused, StatusCode::FORBIDDEN),
        "clients of this address are not served"
    );
}

/// A request behind a proxy that passes on what a client wrote, byte for byte.
async fn told(stage: &Stage, value: &[u8]) -> String {
    let head = b"GET /vdi/ HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nX-Forwarded-For: ";
    let request = [head, value, b"\r\n\r\n"].concat();
    let (answer, _) = exchange(&stage.gateway.plain(), &request).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_client_that_its_proxy_does_not_name_is_not_let_through() {
    for (key, networks) in [
        ("DeniedClients", vec!["203.0.113.0/24"]),
        ("AllowedClients", vec!["0.0.0.0/0", "::/0"]),
    ] {
        let stage = Stage::with(|gateway| {
            gateway
                .plain()
                .set("TrustedProxies", vec!["127.0.0.1"])
                .set(key, networks)
        })
        .await;
        for value in [
            &b"\x80"[..],
            b"",
            b"198.51.100.9, unknown",
            b"198.51.100.9,",
            b"198.51.100.9, \x80",
        ] {
            let answer = told(&stage, value).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{value:?}: {answer}");
        }
        assert_eq!(stage.manager.requests().len(), 0);
        let line = logged(&stage.gateway, &["client is not allowed"]).await;
        assert!(line.contains("client=0.0.0.0"), "{line}");
        let answer = told(&stage, b"\x80, 198.51.100.9").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
}

#[tokio::test]
async fn clients_that_their_proxy_does_not_name_are_counted_together() {
    let stage = Stage::with(|gateway| {
        gateway
            .plain()
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("MaxChannelsPerAddress", 1)
    })
    .await;
    let ticket = stage.ticket().await;
    let plain = stage.gateway.plain();
    let open = |client: &str| {
        let connect = Connect::new(&plain, &ticket).header("X-Forwarded-For", client);
        connect.open()
    };
    let _first = open("unknown").await.unwrap().opened().unwrap();
    let second = open("198.51.100.9, _hidden").await.unwrap();
    assert_error(&second.refused().unwrap(), StatusCode::TOO_MANY_REQUESTS);
    open("198.51.100.9").await.unwrap().opened().unwrap();
}

#[tokio::test]
async fn no_spelling_of_the_gateways_own_host_gets_a_ticket() {
    let host = Host::echo().await.unwrap();
    for address in [
        "x@127.0.0.1",
        "0.0.0.0",
        "::",
        "[::ffff:0.0.0.0]",
        "::ffff:127.0.0.1",
        "0x7f000001",
        "2130706433",
        "127.1",
        "[::1%lo]",
    ] {
        let desktop = DesktopAnswer::at(address, host.addr().port());
        let manager = Manager::spawn(desktop).await.unwrap();
        let gateway = Gateway::builder()
            .manager(&manager)
            .set("DeniedHosts", vec!["127.0.0.0/8", "::1"])
            .spawn()
            .await
            .unwrap();
        let answer = ask_desktop(&gateway.tls()).send().await.unwrap();
        assert_error(&answer, StatusCode::BAD_GATEWAY);
        assert_eq!(host.accepted(), 0, "{address}");
    }
}

#[tokio::test]
async fn a_host_that_is_denied_gets_no_ticket() {
    let stage = Stage::with(|gateway| {
        gateway
            .set("AllowedHosts", vec!["127.0.0.0/8"])
            .set("DeniedHosts", vec!["127.0.0.1"])
    })
    .await;
    let answer = ask_desktop(&stage.gateway.tls()).send().await.unwrap();
    assert_error(&answer, StatusCode::BAD_GATEWAY);
    assert_eq!(stage.host.accepted(), 0);
}

#[tokio::test]
async fn a_ban_ends_when_it_should() {
    let stage = Stage::with(|gateway| gateway.set("BadTokenLimit", 1).set("BanTime", 1)).await;
    let endpoint = stage.gateway.tls();
    refused_token(&endpoint, "guess").await;
    logged(&stage.gateway, &["too many wrong tokens", "seconds=1"]).await;
    let answer = refused(&endpoint, "guess").await;
    assert_error(&answer, StatusCode::TOO_MANY_REQUESTS);
    outlast(std::time::Duration::from_secs(1)).await;
    refused_token(&endpoint, "guess").await;
}

#[tokio::test]
async fn channels_that_may_not_pass_are_closed_before_the_host_hears_of_them() {
    let gateway = port_gateway()
        .set("AllowedChannels", vec!["main", "display"])
        .spawn()
        .await
        .unwrap();
    let host = Host::record().await.unwrap();
    let target = format!("/?ver=2&token={}", port_token(&host));
    for (kind, passes) in [
        (ChannelType::Main, true),
        (ChannelType::UsbRedir, false),
        (ChannelType::Display, true),
        (ChannelType::Record, false),
    ] {
        let mut client = RawClient::open(&gateway.tls(), &target).await.unwrap();
        let link = link_message(kind, 0);
        client
            .send_frame(&Frame::binary(link.clone()))
            .await
            .unwrap();
        if passes {
            client.send_frame(&Frame::close(1000)).await.unwrap();
            client.expect_close(1000).await.unwrap();
            drop(client);
            assert_eq!(host.outcome().await.unwrap(), link, "{kind}");
        } else {
            client.expect_close(1008).await.unwrap();
            drop(client);
            assert_eq!(host.outcome().await.unwrap(), b"", "{kind}");
            let reason = format!("{kind} channels are not allowed");
            logged(&gateway, &["channel closed", &reason]).await;
        }
    }
}
