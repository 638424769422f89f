//! An authority that says itself when it wants certificates to be renewed (RFC 9773).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};
use testkit::gateway::Signal;
use testkit::http::Call;
use testkit::manager::{Body, ManagerRequest, full};
use testkit::prelude::*;

use crate::support::{IN_USE, NAME, ORDERING, Scene, gateway, logged, logged_again};

/// What an authority was asked.
#[derive(Default)]
struct Asked {
    /// The certificates of which it was asked when to renew them.
    certificates: Vec<String>,
    /// Those in whose place others were ordered.
    replaced: Vec<String>,
}

/// Passes everything on to pebble, which does not know of this yet, and adds what it lacks: the
/// first certificate should be renewed long since, the next one much later.
async fn pass_on(
    request: ManagerRequest,
    pebble: SocketAddr,
    asked: Arc<Mutex<Asked>>,
) -> Response<Body> {
    let path = request.uri.path();
    let text = |name: &str| {
        request
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    let host = text("host").unwrap();
    if let Some(certificate) = path.strip_prefix("/renewal/") {
        let mut asked = asked.lock().unwrap();
        asked.certificates.push(certificate.to_owned());
        let year = if asked.certificates.first().unwrap() == certificate {
            2020
        } else {
            2090
        };
        let window = json!({"suggestedWindow": {
            "start": format!("{year}-01-01T00:00:00Z"), "end": format!("{year}-01-02T00:00:00Z"),
        }});
        let mut answer = Response::new(full(window.to_string()));
        answer
            .headers_mut()
            .insert("retry-after", "21600".parse().unwrap());
        return answer;
    }
    let mut replaces = None;
    if let Ok(signed) = serde_json::from_slice::<Value>(&request.body) {
        let payload = URL_SAFE_NO_PAD
            .decode(signed["payload"].as_str().unwrap())
            .unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap_or_default();
        replaces = payload["replaces"].as_str().map(ToOwned::to_owned);
    }
    asked.lock().unwrap().replaced.extend(replaces.clone());
    let endpoint = Endpoint::tls(pebble);
    let mut call = if request.body.is_empty() {
        Call::new(&endpoint, request.method.clone(), path)
    } else {
        Call::post(&endpoint, path, request.body.clone())
    };
    for name in ["host", "content-type", "user-agent"] {
        if let Some(value) = text(name) {
            call = call.header(name, value);
        }
    }
    let (mut parts, mut body) = call.send().await.unwrap().into_parts();
    let mut value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if path == "/dir" {
        value["renewalInfo"] = json!(format!("https://{host}/renewal"));
        body = value.to_string().into();
    } else if let Some(replaces) = replaces {
        value["replaces"] = json!(replaces);
        body = value.to_string().into();
    }
    parts.headers.remove("content-length");
    Response::from_parts(parts, full(body))
}

#[tokio::test]
async fn a_certificate_is_renewed_when_the_authority_wants_it() {
    let scene = Scene::new().await;
    let asked = Arc::<Mutex<Asked>>::default();
    let (pebble, noted) = (scene.pebble.addr(), Arc::clone(&asked));
    let handler = move |request| pass_on(request, pebble, Arc::clone(&noted));
    let authority = Manager::with_handler(handler).await.unwrap();
    let mut settings = scene.pebble.settings(&[NAME]);
    settings["Directory"] = json!(format!("https://{}/dir", authority.addr()));
    settings["DirectoryCAFile"] = json!(authority.cert().ca_path());
    let gateway = gateway(scene.port)
        .set("Acme", settings)
        .spawn()
        .await
        .unwrap();
    logged(&gateway, &[IN_USE]).await;
    assert!(asked.lock().unwrap().certificates.is_empty());
    // A reload asks at once.
    gateway.signal(Signal::HUP).unwrap();
    logged(
        &gateway,
        &[ORDERING, "the authority wants it to be renewed"],
    )
    .await;
    logged_again(&gateway, 1, IN_USE).await;
    // The next one is good for long, and nothing is ordered.
    gateway.signal(Signal::HUP).unwrap();
    let second = async {
        while asked.lock().unwrap().certificates.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    within("the second question", second).await.unwrap();
    assert_eq!(gateway.count_logged(ORDERING).await, 2);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.replaced, asked.certificates[..1]);
    assert_ne!(asked.certificates[0], asked.certificates[1]);
}
