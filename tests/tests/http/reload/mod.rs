//! Changes while the gateway runs.

mod certificate;
mod configuration;
mod pool;

use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use testkit::gateway::Signal;
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Tells the gateway to read everything again; returns the line of the log that answers.
pub(crate) async fn hang_up(gateway: &Gateway) -> String {
    let before = answers(gateway).await;
    gateway.signal(Signal::HUP).unwrap();
    answer(gateway, before).await
}

/// Changes keys of the file, and tells the gateway, which must take them.
pub(crate) async fn change(gateway: &Gateway, keys: &[(&str, Value)]) -> String {
    gateway.change_config(keys).unwrap();
    let answer = hang_up(gateway).await;
    assert!(answer.contains("INFO reloaded changed="), "{answer}");
    answer
}

/// How many lines of the log answer a reload so far.
async fn answers(gateway: &Gateway) -> usize {
    let lines = gateway.log().await;
    lines.iter().filter(|line| is_answer(line)).count()
}

/// Waits for the first such line after these.
async fn answer(gateway: &Gateway, before: usize) -> String {
    gateway
        .wait_for_another(before, is_answer, PATIENCE)
        .await
        .unwrap()
}

fn is_answer(line: &str) -> bool {
    line.contains("INFO reloaded ") || line.contains("ERROR not reloaded")
}

/// Makes a handshake and asks for something, so that tickets have come too; returns the
/// certificate shown and whether a session was resumed.
async fn shown(endpoint: &Endpoint) -> (CertificateDer<'static>, HandshakeKind) {
    let mut connection = endpoint.connect().await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n";
    connection.write_all(request).await.unwrap();
    connection.flush().await.unwrap();
    let mut head = [0; 12];
    within("answer", connection.read_exact(&mut head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&head, b"HTTP/1.1 404");
    let tls = connection.tls().unwrap();
    let certificate = tls.peer_certificates().unwrap()[0].clone().into_owned();
    (certificate, tls.handshake_kind().unwrap())
}

/// Checks which certificate the gateway shows who has never been there.
pub(crate) async fn assert_shows(gateway: &Gateway, expected: &TestCert) {
    let (certificate, _) = shown(&gateway.tls()).await;
    assert_eq!(&certificate, expected.leaf());
}
