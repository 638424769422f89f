//! The server's side of a handshake, against rustls by itself: for the same bytes of a client, cut
//! anywhere, both refuse for the same reason, or both wait for more.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use gateway::config::Config;
use gateway::tls::Identity;
use gateway_datapath::tls::{HandshakeError, accept};
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

use crate::input::{Input, pieces};

/// What a handshake came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Established,
    /// The client has ended its stream too early.
    Ended,
    Refused(String),
}

/// One byte that says where to cut, then what the client sends before it ends its stream.
pub fn run(bytes: &[u8]) {
    thread_local! {
        static SERVER: Arc<ServerConfig> = identity().0.tls;
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
    }
    let mut input = Input::new(bytes);
    let seed = input.byte();
    let bytes = input.rest();
    let server = SERVER.with(Arc::clone);
    let expected = rustls_alone(Arc::clone(&server), bytes);
    let own = RUNTIME.with(|runtime| runtime.block_on(own(server, bytes, seed)));
    assert_eq!(own, expected);
}

/// A server with a certificate of its own, and that certificate.
pub(crate) fn identity() -> (Identity, CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()])
        .and_then(|parameters| parameters.self_signed(&key))
        .expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("both.pem");
    std::fs::write(&path, key.serialize_pem() + &certificate.pem()).expect("a file");
    let config = Config {
        cert_file: path.clone(),
        key_file: path,
        ..Config::default()
    };
    let identity = Identity::read(&config).expect("a good pair");
    (identity, certificate.der().clone())
}

async fn own(server: Arc<ServerConfig>, bytes: &[u8], seed: u8) -> Outcome {
    let (mut client, accepted) = pair().expect("loopback");
    for piece in pieces(bytes, seed) {
        client.write_all(piece).expect("buffers are large enough");
    }
    client.shutdown(Shutdown::Write).expect("it is open");
    accepted.set_nonblocking(true).expect("a socket");
    let accepted = tokio::net::TcpStream::from_std(accepted).expect("a socket");
    match accept(accepted, server).await {
        Ok(_) => Outcome::Established,
        Err(HandshakeError::Tls(error)) => {
            // The client is told why, by an alert that is the last record.
            client.set_nonblocking(true).expect("a socket");
            let mut answer = Vec::new();
            // The connection may be reset behind it: not all that came was read.
            let _ = client.read_to_end(&mut answer);
            Outcome::Refused(error.to_string())
        }
        Err(HandshakeError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Outcome::Ended
        }
        Err(HandshakeError::Io(error)) => panic!("{error}"),
    }
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    client.set_nodelay(true)?;
    Ok((client, listener.accept()?.0))
}

fn rustls_alone(server: Arc<ServerConfig>, mut bytes: &[u8]) -> Outcome {
    let mut connection = ServerConnection::new(server).expect("a good configuration");
    while !bytes.is_empty() {
        if connection.read_tls(&mut bytes).is_err() {
            return Outcome::Refused(String::new());
        }
        if let Err(error) = connection.process_new_packets() {
            return Outcome::Refused(error.to_string());
        }
        if !connection.is_handshaking() {
            return Outcome::Established;
        }
    }
    Outcome::Ended
}
