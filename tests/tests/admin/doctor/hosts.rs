//! Hosts that are tried.

use serde_json::{Value, json};
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Installation;

/// An installation with a file of desktops at these addresses.
async fn with_desktops(addresses: &[String]) -> Installation {
    let mut installation = Installation::new().await;
    let desktop = |(at, address): (usize, &String)| json!({"id": format!("d{at}"), "name": "x", "address": address});
    let desktops: Vec<Value> = addresses.iter().enumerate().map(desktop).collect();
    let file = json!({"desktops": desktops, "users": [], "terminals": []});
    let path = installation.write("desktops.json", file.to_string());
    installation.set("Desktops", path);
    installation.set("ManagerIP", "");
    for (key, port) in [("FirstSpicePort", 1), ("LastSpicePort", 65_535)] {
        installation.set(key, port);
    }
    installation
}

fn refused() -> String {
    format!("127.0.0.1:{}", testkit::net::free_port().unwrap())
}

#[tokio::test]
async fn desktops_of_the_file_are_tried() {
    let host = Host::echo().await.unwrap();
    let installation = with_desktops(&[host.addr().to_string()]).await;
    let found = installation.look().await;
    assert!(found.troubles.is_empty(), "{}", found.text);
    assert_eq!(host.accepted(), 1);
    // One that is off is no fault of the gateway, all of them might be.
    let addresses = [host.addr().to_string(), refused()];
    let installation = with_desktops(&addresses).await;
    installation
        .finds("warning", "hosts ", "desktop \"d1\" (127.0.0.1:")
        .await;
    let installation = with_desktops(&[refused()]).await;
    installation
        .finds("error", "hosts ", "Connection refused")
        .await;
}

#[tokio::test]
async fn of_many_desktops_some_are_tried() {
    let host = Host::echo().await.unwrap();
    let addresses = vec![host.addr().to_string(); 100];
    let installation = with_desktops(&addresses).await;
    let found = installation.look().await;
    assert!(found.troubles.is_empty(), "{}", found.text);
    assert!(host.accepted() <= 16, "{}", host.accepted());
    assert!(
        found.text.contains("that were tried answer"),
        "{}",
        found.text
    );
}

/// A host that says this to everybody, and nothing more.
async fn host_that_says(text: &'static [u8]) -> Host {
    let host = Host::spawn(move |mut stream: TcpStream| async move {
        stream.write_all(text).await?;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        Ok(())
    });
    host.await.unwrap()
}

#[tokio::test]
async fn hosts_that_do_not_serve_are_told() {
    let secured = b"REDQ\x02\0\0\0\x02\0\0\0\xb2\0\0\0\x05\0\0\0";
    for (said, told) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "is no Spice server"),
        (b"", "does not answer a Spice client"),
        (secured, "lets only clients with TLS in"),
    ] {
        let host = host_that_says(said).await;
        let installation = with_desktops(&[host.addr().to_string()]).await;
        installation.finds("error", "hosts ", told).await;
    }
}

#[tokio::test]
async fn rules_and_certificates_count_as_for_channels() {
    let host = Host::echo().await.unwrap();
    let address = host.addr().to_string();
    let mut installation = with_desktops(std::slice::from_ref(&address)).await;
    installation.set("DeniedHosts", json!(["127.0.0.1"]));
    installation
        .finds("error", "hosts ", "AllowedHosts, DeniedHosts")
        .await;
    let mut installation = with_desktops(&[address]).await;
    let ca = installation.cert.ca_path();
    installation.set("HostTLS", true);
    installation.set("HostCAFile", ca.to_str().unwrap());
    installation.finds("error", "hosts ", "TLS: ").await;
}

#[tokio::test]
async fn a_desktop_that_is_wrong_in_the_file_is_told() {
    let mut installation = Installation::new().await;
    let path = installation.write("desktops.json", r#"{"desktops": [{"id": "a"}]}"#);
    installation.set("Desktops", path);
    installation.set("ManagerIP", "");
    let found = installation.look().await;
    let of_file = |line: &String| line.starts_with("error    desktops ");
    assert!(!found.troubles.is_empty(), "{}", found.text);
    assert!(found.troubles.iter().all(of_file), "{}", found.text);
}
