//! What whoever gets a desktop may do with it.

use std::net::IpAddr;

use gateway::host_tls::CertificateDigest;
use http::StatusCode;
use serde_json::{Value, json};
use testkit::host::link_message;
use testkit::prelude::*;
use testkit::ws::{Frame, RawClient};

use super::{File, client, desktop, user};
use crate::command_line::{Files, run};
use crate::support::{assert_error, assert_opens, logged, refused};

/// Where hosts have TLS in these tests.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 5));

fn file(desktop: &Value) -> File {
    File::new(&json!({"desktops": [desktop], "users": [user("ana", &["a"])]}))
}

async fn token(gateway: &Gateway) -> String {
    client(gateway, "ana").desktop().await.unwrap().token
}

#[tokio::test]
async fn a_desktop_with_channels_lets_no_others_pass() {
    let host = Host::record().await.unwrap();
    let mut desktop = desktop("a", &host);
    desktop["channels"] = json!(["main", "record"]);
    let file = file(&desktop);
    // Neither permits what the other does not.
    let gateway = file
        .gateway()
        .set("AllowedChannels", vec!["main", "display"]);
    let gateway = gateway.spawn().await.unwrap();
    let target = format!("/?ver=2&token={}", token(&gateway).await);
    for (kind, code) in [
        (ChannelType::Main, 1000),
        (ChannelType::Record, 1008),
        (ChannelType::Display, 1008),
    ] {
        let mut client = RawClient::open(&gateway.tls(), &target).await.unwrap();
        let link = Frame::binary(link_message(kind, 0));
        client.send_frame(&link).await.unwrap();
        if code == 1000 {
            client.send_frame(&Frame::close(code)).await.unwrap();
        }
        client.expect_close(code).await.unwrap();
        drop(client);
        let received = host.outcome().await.unwrap();
        assert_eq!(received.is_empty(), code == 1008, "{kind}");
    }
}

#[tokio::test]
async fn a_pinned_host_is_reached_and_another_is_502() {
    let certs = [(); 2].map(|()| {
        let names = [ADDRESS.to_string()];
        TestCert::builder().names(names).build().unwrap()
    });
    let host = Host::echo().await.unwrap();
    let config = certs[0].server_config().unwrap();
    let _front = Front::tls(ADDRESS, config, host.addr()).await.unwrap();
    let content = |cert: &TestCert| {
        let fingerprint = CertificateDigest::of(cert.leaf()).to_string();
        let desktop = json!({
            "id": "a",
            "address": format!("{ADDRESS}:{}", host.addr().port()),
            "tls": {"fingerprint": fingerprint},
        });
        json!({"desktops": [desktop], "users": [user("ana", &["a"])]})
    };
    let file = File::new(&content(&certs[0]));
    let gateway = file.gateway().set("CertificatePoll", 1);
    let gateway = gateway.spawn().await.unwrap();
    assert_opens(&gateway.tls(), &token(&gateway).await).await;
    let accepted = host.accepted();
    file.write(&content(&certs[1]).to_string());
    logged(&gateway, &["INFO reloaded", "desktops of the file"]).await;
    let response = refused(&gateway.tls(), &token(&gateway).await).await;
    assert_error(&response, StatusCode::BAD_GATEWAY);
    logged(&gateway, &["host not reached", "TLS: "]).await;
    assert_eq!(host.accepted(), accepted, "the host was told something");
}

#[tokio::test]
async fn authorities_of_a_desktop_are_read_from_a_file_beside_it_and_may_change() {
    let certs = [(); 2].map(|()| {
        let names = [ADDRESS.to_string()];
        TestCert::builder().names(names).build().unwrap()
    });
    let host = Host::echo().await.unwrap();
    let config = certs[0].server_config().unwrap();
    let _front = Front::tls(ADDRESS, config, host.addr()).await.unwrap();
    let address = format!("{ADDRESS}:{}", host.addr().port());
    let tls = json!({"ca_file": "ca.pem", "subject": "CN=gateway under test"});
    let file = file(&json!({"id": "a", "address": address, "tls": tls}));
    let authorities = file.path().with_file_name("ca.pem");
    std::fs::copy(certs[1].ca_path(), &authorities).unwrap();
    let gateway = file.gateway().set("CertificatePoll", 1);
    let gateway = gateway.spawn().await.unwrap();
    let response = refused(&gateway.tls(), &token(&gateway).await).await;
    assert_error(&response, StatusCode::BAD_GATEWAY);
    logged(&gateway, &["host not reached", "TLS: "]).await;
    std::fs::copy(certs[0].ca_path(), &authorities).unwrap();
    logged(&gateway, &["INFO reloaded", "desktops of the file"]).await;
    assert_opens(&gateway.tls(), &token(&gateway).await).await;
}

#[tokio::test]
async fn a_port_for_tls_is_told_and_must_be_permitted() {
    let host = Host::echo().await.unwrap();
    let mut desktop = desktop("a", &host);
    for (tls_port, is_good) in [(host.addr().port(), true), (443, false)] {
        desktop["tls_port"] = json!(tls_port);
        let file = file(&desktop);
        let gateway = file.gateway().set("FirstSpicePort", 1_024);
        let gateway = gateway.spawn().await.unwrap();
        let answer = super::log_in(&gateway.tls(), "ana", super::PASSWORD).await;
        if is_good {
            assert_eq!(super::body(&answer)["spice_tls_port"], tls_port);
        } else {
            assert_error(&answer, StatusCode::BAD_GATEWAY);
            logged(&gateway, &["no ticket for this desktop", "FirstSpicePort"]).await;
        }
    }
}

#[tokio::test]
async fn check_tells_of_a_desktop_that_a_pool_has_no_ticket_for() {
    let files = Files::new();
    let authorities = std::fs::read(files.cert.ca_path()).unwrap();
    files.write("ca.pem", authorities);
    let desktop = json!({"id": "a", "address": "h:5900", "tls": {"ca_file": "ca.pem"}});
    let content = json!({ "desktops": [desktop] }).to_string();
    let desktops = files.write("desktops.json", content);
    let keys = files.write("keys", gateway::pool::new_file().unwrap());
    for (keys, code) in [(json!(""), 0), (json!(keys), 78)] {
        let config = json!({
            "CertFile": files.cert.cert_path(), "KeyFile": files.cert.key_path(),
            "RuntimeDir": files.dir.path().join("run"), "Desktops": desktops, "PoolKeyFile": keys,
        });
        let path = files.write("conf", config.to_string());
        let ended = run(["--config", path.to_str().unwrap(), "check"]).await;
        assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
        let told = "desktops.json: desktops[0].tls: a ticket of a pool (PoolKeyFile) has no room";
        assert_eq!(ended.stderr.contains(told), code == 78, "{}", ended.stderr);
    }
}
