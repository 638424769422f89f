//! Hosts that are reached by Unix sockets: which ones may be, and what comes of others.

use std::os::unix::fs::symlink;
use std::path::Path;

use http::StatusCode;
use testkit::flexvdi::FlexVdiClient;
use testkit::prelude::*;

use crate::support::{
    ask_desktop, assert_error, assert_opens, logged, port_gateway, port_token, refused,
};

/// A manager whose desktop is at this socket, and a gateway that may reach those in `allowed`.
async fn stage(socket: &Path, allowed: &[&Path]) -> (Manager, Gateway) {
    let desktop = DesktopAnswer::at(&format!("unix:{}", socket.display()), 5900);
    let manager = Manager::spawn(desktop).await.unwrap();
    let gateway = Gateway::builder().manager(&manager);
    let allowed: Vec<_> = allowed.iter().map(|path| path.to_str().unwrap()).collect();
    let gateway = gateway.set("AllowedSockets", allowed).spawn().await;
    (manager, gateway.unwrap())
}

#[tokio::test]
async fn a_port_is_a_socket_where_the_spice_host_says_so() {
    let host = Host::echo().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = port_token(&host);
    let _front = Front::unix(&dir.path().join(&token), host.addr()).unwrap();
    let template = format!("unix:{}/%p", dir.path().display());
    let gateway = port_gateway().set("SpiceHost", template);
    let gateway = gateway.spawn().await.unwrap();
    assert_opens(&gateway.tls(), &token).await;
    let response = refused(&gateway.tls(), "1").await;
    assert_error(&response, StatusCode::BAD_GATEWAY);
    logged(&gateway, &["host not reached", "No such file"]).await;
}

#[tokio::test]
async fn a_ticket_leads_to_a_socket_below_an_allowed_directory() {
    let host = Host::echo().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("7.sock");
    let _front = Front::unix(&socket, host.addr()).unwrap();
    // No range of ports concerns it.
    let (_manager, gateway) = stage(&socket, &[dir.path()]).await;
    let desktop = FlexVdiClient::new(&gateway.tls()).desktop().await.unwrap();
    let mut channel = ws::echo_channel(&gateway.tls(), &desktop.token)
        .await
        .unwrap();
    channel.echo(b"through a socket").await.unwrap();
    let shown = format!("host=unix:{}", socket.display());
    logged(&gateway, &["desktop assigned", &shown]).await;
    logged(&gateway, &["channel open", &shown, "path=\"relay\""]).await;
}

#[tokio::test]
async fn a_socket_that_is_not_allowed_gets_no_ticket() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::echo().await.unwrap();
    let socket = dir.path().join("a.sock");
    let _front = Front::unix(&socket, host.addr()).unwrap();
    let other = tempfile::tempdir().unwrap();
    for allowed in [&[][..], &[other.path()]] {
        let (_manager, gateway) = stage(&socket, allowed).await;
        let answer = ask_desktop(&gateway.tls()).send().await.unwrap();
        assert_error(&answer, StatusCode::BAD_GATEWAY);
        logged(&gateway, &["no ticket for this desktop", "AllowedSockets"]).await;
    }
    assert_eq!(host.accepted(), 0);
}

#[tokio::test]
async fn the_spice_hosts_own_sockets_are_for_ports_and_not_for_tickets() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("5900");
    let manager = DesktopAnswer::at(&format!("unix:{}", socket.display()), 5900);
    let manager = Manager::spawn(manager).await.unwrap();
    let gateway = Gateway::builder()
        .manager(&manager)
        .set("SpiceHost", format!("unix:{}/%p", dir.path().display()));
    let gateway = gateway.spawn().await.unwrap();
    let answer = ask_desktop(&gateway.tls()).send().await.unwrap();
    assert_error(&answer, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_link_that_leads_out_of_the_directory_is_403() {
    let host = Host::echo().await.unwrap();
    let (allowed, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outside = other.path().join("a.sock");
    let _front = Front::unix(&outside, host.addr()).unwrap();
    let link = allowed.path().join("a.sock");
    symlink(&outside, &link).unwrap();
    let (_manager, gateway) = stage(&link, &[allowed.path()]).await;
    let desktop = FlexVdiClient::new(&gateway.tls()).desktop().await.unwrap();
    let response = refused(&gateway.tls(), &desktop.token).await;
    assert_error(&response, StatusCode::FORBIDDEN);
    logged(&gateway, &["host not reached", "AllowedSockets"]).await;
    assert_eq!(host.accepted(), 0);
    // Whatever stands there instead later on counts.
    std::fs::remove_file(&link).unwrap();
    let _front = Front::unix(&link, host.addr()).unwrap();
    assert_opens(&gateway.tls(), &desktop.token).await;
}

#[tokio::test]
async fn what_is_no_socket_is_502() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (_manager, gateway) = stage(&file, &[dir.path()]).await;
    let desktop = FlexVdiClient::new(&gateway.tls()).desktop().await.unwrap();
    let response = refused(&gateway.tls(), &desktop.token).await;
    assert_error(&response, StatusCode::BAD_GATEWAY);
    logged(&gateway, &["host not reached", "it is no socket"]).await;
}

#[tokio::test]
async fn a_socket_with_a_full_queue_is_waited_for_as_long_as_a_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full");
    // Nobody accepts, and one connection fills a queue of none.
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let listener = listener.unwrap();
    let address = socket2::SockAddr::unix(&path).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let gateway = port_gateway()
        .set("SpiceHost", format!("unix:{}", path.display()))
        .set("ConnectTimeout", 1);
    let gateway = gateway.spawn().await.unwrap();
    let response = refused(&gateway.tls(), "5900").await;
    assert_error(&response, StatusCode::GATEWAY_TIMEOUT);
}
