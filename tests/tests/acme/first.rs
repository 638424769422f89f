//! The first certificate.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use serde_json::json;
use testkit::http::Call;
use testkit::manager::{Body, ManagerRequest, full};
use testkit::net::free_port;
use testkit::prelude::*;
use testkit::tls::TlsClient;
use tokio::net::TcpStream;

use crate::support::{
    GIVEN, IN_USE, NAME, ORDERING, Relay, Scene, gateway, logged, pass_on, settings, shown,
};

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

/// A client that offers only these protocols and asks for this name.
fn client(name: &str, protocols: &[&str]) -> TlsClient {
    let tls = TlsClient::unchecked().server_name(name).unwrap();
    tls.alpn(protocols)
}

/// Whether it gets an answer.
async fn agrees(gateway: &Gateway, name: &str, protocols: &[&str]) -> bool {
    let endpoint = gateway.tls().with_tls(client(name, protocols));
    endpoint.connect().await.is_ok()
}

#[tokio::test]
async fn names_are_only_checked_while_the_authority_is_awaited_and_only_those() {
    let (relay, scene) = Relay::new().await;
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
    let checking = allowed(client(NAME, &["acme-tls/1"]));
    let mut checked = checking.connect().await.unwrap();
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
    tokio::select! {
        _ = logged(&gateway, &[IN_USE]) => {}
        () = relay.relay_all() => {}
    }
    assert!(!agrees(&gateway, NAME, &["acme-tls/1"]).await);
    assert!(checking.connect().await.is_err());
}

/// What pebble says of a nonce that it does not take.
fn bad_nonce() -> Response<Body> {
    let problem = json!({
        "type": "urn:ietf:params:acme:error:badNonce",
        "detail": "JWS has an invalid anti-replay nonce",
    });
    let mut answer = Response::new(full(problem.to_string()));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer
}

#[tokio::test]
async fn bad_nonces_are_tried_again() {
    let scene = Scene::new().await;
    let (pebble, signed) = (scene.pebble.addr(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&signed);
    // Each request is refused at first.
    let handler = move |request: ManagerRequest| {
        let is_signed = !request.body.is_empty();
        let is_refused = is_signed && counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        async move {
            if is_refused {
                return bad_nonce();
            }
            pass_on(&request, pebble).await.map(full)
        }
    };
    let authority = Manager::with_handler(handler).await.unwrap();
    let gateway = gateway(scene.port).set("Acme", settings(&authority));
    let gateway = gateway.spawn().await.unwrap();
    logged(&gateway, &[IN_USE]).await;
    assert_eq!(gateway.count_logged(ORDERING).await, 1);
    // An account, an order, a check, its end and the certificate.
    assert!(signed.load(Ordering::Relaxed) >= 10);
}
