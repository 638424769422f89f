//! Connections to HTTPS servers that the configuration names.

use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;

use crate::background::{MANAGER, Resolver};

/// Makes connections.
pub(crate) type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// Connections over HTTP/1.1. `tls` decides which certificate the server may have; `limit` is the
/// longest wait for a connection, half of it for the server's address.
pub(crate) fn connector(tls: ClientConfig, limit: Duration) -> Connector {
    let mut tcp = HttpConnector::new_with_resolver(Resolver::new(&MANAGER, limit / 2));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limit));
    HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .wrap_connector(tcp)
}
