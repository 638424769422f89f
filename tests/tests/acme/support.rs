//! What several topics need.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::manager::ManagerRequest;
use testkit::net::free_port;
use testkit::pebble::{Pebble, PebbleBuilder};
use testkit::prelude::*;
use testkit::tls::TlsClient;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// How often a gateway is asked for its status: it tells nobody that nothing is to be done.
const POLL: Duration = Duration::from_millis(100);

/// The name that certificates are for.
pub(crate) const NAME: &str = "gw.example";

/// What the log says of a new certificate, of one that is in use, and of one that does not come.
pub(crate) const GIVEN: &str = "the authority has given a certificate";
pub(crate) const IN_USE: &str = "INFO reloaded changed=\"certificate gw.example until ";
pub(crate) const ORDERING: &str = "ordering a certificate";
pub(crate) const FAILED: &str = "clients get no valid certificate; it is tried again";
pub(crate) const FAILED_TO_RENEW: &str = "there is no new certificate; it is tried again";

/// An authority and the port of a gateway that it checks.
pub(crate) struct Scene {
    pub(crate) pebble: Pebble,
    pub(crate) port: u16,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(|pebble| pebble).await
    }

    /// With an authority that behaves in another way.
    pub(crate) async fn with(change: impl FnOnce(PebbleBuilder) -> PebbleBuilder) -> Self {
        let port = free_port().unwrap();
        let pebble = change(Pebble::builder(port)).start().await.unwrap();
        Self { pebble, port }
    }

    /// A gateway that gets its certificate there.
    pub(crate) fn gateway(&self) -> GatewayBuilder {
        gateway(self.port).set("Acme", self.pebble.settings(&[NAME]))
    }

    /// The same, with this directory for what it keeps.
    pub(crate) fn gateway_in(&self, state: &Path) -> GatewayBuilder {
        self.gateway()
            .set("StateDirectory", state.to_str().unwrap())
    }

    /// Clients that trust the authority and nobody else.
    pub(crate) async fn clients(&self, gateway: &Gateway) -> Endpoint {
        let tls = TlsClient::trusting(&self.pebble.root().await.unwrap());
        let tls = tls.unwrap().server_name(NAME).unwrap();
        gateway.tls().with_tls(tls)
    }
}

/// A relay of bytes in front of the gateway, as the authority meets it; it says of each connection
/// that it came, and goes on when it is told to.
pub(crate) struct Relay {
    listener: TcpListener,
    to: u16,
}

impl Relay {
    /// One that has its own port checked, in front of a gateway.
    pub(crate) async fn new() -> (Self, Scene) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (seen, port) = (listener.local_addr().unwrap().port(), free_port().unwrap());
        let pebble = Pebble::builder(seen).start().await.unwrap();
        (Self { listener, to: port }, Scene { pebble, port })
    }

    pub(crate) async fn next(&self) -> TcpStream {
        let accepted = within("the authority", self.listener.accept()).await;
        accepted.unwrap().unwrap().0
    }

    pub(crate) fn go_on(&self, mut from: TcpStream) {
        let to = ("127.0.0.1", self.to);
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(to).await.unwrap();
            let _ = copy_bidirectional(&mut from, &mut stream).await;
        });
    }

    /// Relays every connection from now on, for ever.
    pub(crate) async fn relay_all(&self) {
        loop {
            let (from, _) = self.listener.accept().await.unwrap();
            self.go_on(from);
        }
    }
}

/// What stands under `Acme` in the configuration of a gateway whose authority is this stand-in.
pub(crate) fn settings(authority: &Manager) -> Value {
    json!({
        "Domains": [NAME],
        "Directory": format!("https://{}/dir", authority.addr()),
        "DirectoryCAFile": authority.cert().ca_path(),
        "TermsAgreed": true,
    })
}

/// Passes a request on to pebble, with the name by which the stand-in was asked, so that pebble
/// names the stand-in in its answers.
pub(crate) async fn pass_on(request: &ManagerRequest, pebble: SocketAddr) -> Response<Bytes> {
    let (endpoint, path) = (Endpoint::tls(pebble), request.uri.path());
    let mut call = if request.body.is_empty() {
        Call::new(&endpoint, request.method.clone(), path)
    } else {
        Call::post(&endpoint, path, request.body.clone())
    };
    for name in ["host", "content-type", "user-agent"] {
        if let Some(value) = request.header(name) {
            call = call.header(name, value);
        }
    }
    call.send().await.unwrap()
}

/// A gateway without hijacking on this port.
pub(crate) fn gateway(port: u16) -> GatewayBuilder {
    let gateway = Gateway::builder().set("HijackAll", false);
    // Nothing is to be noticed by chance.
    gateway.set("SslPort", port).set("CertificatePoll", 0)
}

/// The certificate that new clients are shown.
pub(crate) async fn shown(endpoint: &Endpoint) -> CertificateDer<'static> {
    let connection = endpoint.connect().await.unwrap();
    let certificates = connection.tls().unwrap().peer_certificates().unwrap();
    certificates[0].clone().into_owned()
}

/// Waits for a line of the log that holds all of these texts.
pub(crate) async fn logged(gateway: &Gateway, texts: &[&str]) -> String {
    let has_all = |line: &str| texts.iter().all(|text| line.contains(text));
    gateway.wait_for_log(has_all, PATIENCE).await.unwrap()
}

/// Waits for one more such line than these.
pub(crate) async fn logged_again(gateway: &Gateway, before: usize, text: &str) -> String {
    let has = |line: &str| line.contains(text);
    gateway
        .wait_for_another(before, has, PATIENCE)
        .await
        .unwrap()
}

/// Waits until a gateway that gets certificates for these names knows when it orders the next one.
pub(crate) async fn decided(gateway: &Gateway, names: &[&str]) {
    let decided = async {
        loop {
            let status = gateway.output(&["status", "--json"]).await.unwrap();
            let status: Value = serde_json::from_str(&status).unwrap();
            let acme = &status["acme"];
            if acme["domains"] == json!(names) && acme["next_attempt"].is_u64() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    within("the time of the next order", decided).await.unwrap();
}
