//! The first certificate.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use testkit::http::Call;
use testkit::net::free_port;
use testkit::pebble::Pebble;
use testkit::prelude::*;
use testkit::tls::TlsClient;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{GIVEN, IN_USE, NAME, Scene, gateway, logged, shown};

#[tokio::test]
async fn it_comes_by_itself_while_the_port_is_open_already() {
    let scene = Scene::new().await;
    let state = tempfile::tempdir().unwrap();
    let gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    let text = "clients get a self-signed certificate until the authority of Acme has given one";
    logged(&gateway, &["WARN", text]).await;
    logged(&gateway, &["INFO", GIVEN, "certificate=gw.example until "]).await;
    logged(&gateway, &[IN_USE]).await;
    // Whole and with its chain, without which this client would not trust it.
    let clients = scene.clients(&gateway).await;
    let answer = Call::get(&clients, "/").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(scene.pebble.orders().unwrap(), 1);

    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let acme = state.path().join("acme");
    assert_eq!(mode(&acme), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&acme).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert!(names[0].starts_with("account-127.0.0.1_"), "{names:?}");
    assert_eq!(names[1..], ["certificate.pem", "lock"]);
    // No key gets into the log.
    let text = std::fs::read_to_string(acme.join("certificate.pem")).unwrap();
    let key = text.lines().nth(2).unwrap();
    assert!(key.len() > 40 && gateway.count_logged(key).await == 0);
}

#[tokio::test]
async fn a_port_for_http_is_open_only_while_the_authority_checks() {
    let http = free_port().unwrap();
    let scene = Scene::with(|pebble| pebble.http_port(http)).await;
    let mut settings = scene.pebble.settings(&[NAME, "other.example"]);
    settings["HttpPort"] = json!(http);
    // The TLS port is another one than the authority knows.
    let gateway = gateway(0).set("Acme", settings).spawn().await.unwrap();
    logged(&gateway, &[GIVEN, "other.example"]).await;
    let log = scene.pebble.log().unwrap();
    assert!(!log.contains("Attempting to validate w/ TLS"), "{log}");
    TcpStream::connect(("127.0.0.1", http)).await.unwrap_err();
    let told = "reloaded changed=\"certificate ";
    logged(&gateway, &[told]).await;
    shown(&scene.clients(&gateway).await).await;
}

/// A relay of bytes in front of the gateway, as the authority meets it; it says of each connection
/// that it came, and goes on when it is told to.
struct Relay {
    listener: TcpListener,
    to: (&'static str, u16),
}

impl Relay {
    async fn next(&self) -> TcpStream {
        let accepted = within("the authority", self.listener.accept()).await;
        accepted.unwrap().unwrap().0
    }

    fn go_on(&self, mut from: TcpStream) {
        let to = self.to;
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(to).await.unwrap();
            let _ = copy_bidirectional(&mut from, &mut stream).await;
        });
    }
}

/// Whether a client that offers only this protocol and asks for this name gets an answer.
async fn agrees(gateway: &Gateway, name: &str, protocols: &[&str]) -> bool {
    let tls = TlsClient::unchecked().server_name(name).unwrap();
    let tls = tls.alpn(protocols);
    gateway.tls().with_tls(tls).connect().await.is_ok()
}

#[tokio::test]
async fn names_are_only_checked_while_the_authority_is_awaited_and_only_those() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (seen, port) = (listener.local_addr().unwrap().port(), free_port().unwrap());
    let relay = Relay {
        listener,
        to: ("127.0.0.1", port),
    };
    let pebble = Pebble::builder(seen).start().await.unwrap();
    let scene = Scene { pebble, port };
    // The authority's own address is none of those that are allowed.
    let gateway = scene
        .gateway()
        .set("AllowedClients", json!(["127.0.0.2"]))
        .spawn()
        .await
        .unwrap();
    let allowed = |tls| {
        gateway
            .tls()
            .with_tls(tls)
            .from_source("127.0.0.2".parse().unwrap())
    };
    let authority = relay.next().await;

    // A name that is checked is answered with a certificate made for that, and nothing follows.
    let tls = TlsClient::unchecked()
        .server_name(NAME)
        .unwrap()
        .alpn(&["acme-tls/1"]);
    let mut checked = allowed(tls.clone()).connect().await.unwrap();
    let shown_now = checked.tls().unwrap().peer_certificates().unwrap()[0].clone();
    // id-pe-acmeIdentifier (RFC 8737, section 3), critical.
    let oid = [
        0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f, 0x01, 0x01, 0xff,
    ];
    assert!(shown_now.windows(oid.len()).any(|window| window == oid));
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut checked, &mut rest);
    within("the end", read).await.unwrap().unwrap();
    assert!(rest.is_empty());
    // From any address, as nobody knows from where an authority comes.
    assert!(agrees(&gateway, NAME, &["acme-tls/1"]).await);
    assert!(agrees(&gateway, "GW.example", &["acme-tls/1", "h2"]).await);
    assert!(!agrees(&gateway, "other.example", &["acme-tls/1"]).await);
    // Others are served as usual, those that are not allowed not at all.
    let usual = TlsClient::new()
        .server_name(NAME)
        .unwrap()
        .alpn(&["http/1.1", "acme-tls/1"]);
    let usual = allowed(usual);
    assert_ne!(shown(&usual).await, shown_now);
    let answer = Call::get(&usual, "/").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(!agrees(&gateway, NAME, &["http/1.1"]).await);
    assert!(!agrees(&gateway, NAME, &[]).await);

    relay.go_on(authority);
    let more = async {
        loop {
            relay.go_on(relay.next().await);
        }
    };
    tokio::select! {
        _ = logged(&gateway, &[IN_USE]) => {}
        () = more => {}
    }
    assert!(!agrees(&gateway, NAME, &["acme-tls/1"]).await);
    let tls = TlsClient::unchecked()
        .server_name(NAME)
        .unwrap()
        .alpn(&["acme-tls/1"]);
    assert!(allowed(tls).connect().await.is_err());
}

#[tokio::test]
async fn bad_nonces_are_tried_again() {
    let scene = Scene::with(|pebble| pebble.rejected_nonces(20)).await;
    let gateway = scene.gateway().spawn().await.unwrap();
    let given = async {
        // The gateway tries each request three times, and pebble refuses one in five: an order that
        // fails all the same is made again.
        logged(&gateway, &[IN_USE]).await
    };
    tokio::time::timeout(Duration::from_secs(60), given)
        .await
        .unwrap();
    let log = scene.pebble.log().unwrap();
    assert!(
        log.contains("JWS has an invalid anti-replay nonce") || log.contains("nonce"),
        "{log}"
    );
}
