//! An authority that says itself when it wants certificates to be renewed (RFC 9773).

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};
use testkit::gateway::Signal;
use testkit::manager::{Body, ManagerRequest, full};
use testkit::prelude::*;
use tokio::sync::watch;

use crate::support::{IN_USE, ORDERING, Scene, gateway, logged, logged_again, pass_on, settings};

/// What an authority was asked.
#[derive(Default)]
struct Asked {
    /// The certificates of which it was asked when to renew them.
    certificates: Vec<String>,
    /// Those in whose place others were ordered.
    replaced: Vec<String>,
}

/// When a certificate is to be renewed: the first one should be since long, the next one much later.
fn window(certificate: &str, asked: &watch::Sender<Asked>) -> Response<Body> {
    asked.send_modify(|asked| asked.certificates.push(certificate.to_owned()));
    let is_first = asked.borrow().certificates[0] == certificate;
    let year = if is_first { 2020 } else { 2090 };
    let window = json!({"suggestedWindow": {
        "start": format!("{year}-01-01T00:00:00Z"), "end": format!("{year}-01-02T00:00:00Z"),
    }});
    let mut answer = Response::new(full(window.to_string()));
    answer
        .headers_mut()
        .insert("retry-after", "21600".parse().unwrap());
    answer
}

/// The certificate that an order is to replace.
fn replaces(request: &ManagerRequest) -> Option<String> {
    let signed: Value = serde_json::from_slice(&request.body).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap());
    let payload: Value = serde_json::from_slice(&payload.unwrap()).ok()?;
    payload["replaces"].as_str().map(ToOwned::to_owned)
}

/// Passes everything on to pebble, which does not know of this yet, and adds what it lacks.
async fn answer(
    request: ManagerRequest,
    pebble: SocketAddr,
    asked: Arc<watch::Sender<Asked>>,
) -> Response<Body> {
    let path = request.uri.path();
    if let Some(certificate) = path.strip_prefix("/renewal/") {
        return window(certificate, &asked);
    }
    let (mut parts, mut body) = pass_on(&request, pebble).await.into_parts();
    let mut value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if path == "/dir" {
        let host = request.header("host").unwrap();
        value["renewalInfo"] = json!(format!("https://{host}/renewal"));
        body = value.to_string().into();
    } else if let Some(replaces) = replaces(&request) {
        value["replaces"] = json!(replaces);
        body = value.to_string().into();
        asked.send_modify(|asked| asked.replaced.push(replaces));
    }
    parts.headers.remove("content-length");
    Response::from_parts(parts, full(body))
}

#[tokio::test]
async fn a_certificate_is_renewed_when_the_authority_wants_it() {
    let scene = Scene::new().await;
    let asked = Arc::<watch::Sender<Asked>>::default();
    let (pebble, noted) = (scene.pebble.addr(), Arc::clone(&asked));
    let handler = move |request| answer(request, pebble, Arc::clone(&noted));
    let authority = Manager::with_handler(handler).await.unwrap();
    let gateway = gateway(scene.port)
        .set("Acme", settings(&authority))
        .spawn()
        .await
        .unwrap();
    logged(&gateway, &[IN_USE]).await;
    assert!(asked.borrow().certificates.is_empty());
    // A reload asks at once.
    gateway.signal(Signal::HUP).unwrap();
    logged(
        &gateway,
        &[ORDERING, "the authority wants it to be renewed"],
    )
    .await;
    logged_again(&gateway, 1, IN_USE).await;
    // The next one is good for long, and nothing is ordered: another question shows that the answer
    // before was heeded.
    let mut questions = asked.subscribe();
    for count in [2, 3] {
        gateway.signal(Signal::HUP).unwrap();
        let question = questions.wait_for(|asked| asked.certificates.len() == count);
        within("a question", question).await.unwrap().unwrap();
    }
    assert_eq!(gateway.count_logged(ORDERING).await, 2);
    let asked = asked.borrow();
    assert_eq!(asked.replaced, asked.certificates[..1]);
    assert_ne!(asked.certificates[0], asked.certificates[1]);
    assert_eq!(asked.certificates[1], asked.certificates[2]);
}
