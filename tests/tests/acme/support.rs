//! What several topics need.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use testkit::gateway::GatewayBuilder;
use testkit::net::free_port;
use testkit::pebble::{Pebble, PebbleBuilder};
use testkit::prelude::*;
use testkit::tls::TlsClient;

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
