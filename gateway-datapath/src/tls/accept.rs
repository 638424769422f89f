//! The handshake, made by rustls.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ResolvesServerCert, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::ending;
use super::received::Received;
use super::secrets::{Capture, Captured};
use super::stream::TlsStream;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The connection broke or ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client and the gateway do not agree; the client was sent an alert.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Settings of a server whose connections [`accept`] can take over from rustls: TLS 1.2 and 1.3,
/// and keys that are given out.
pub fn server_config(certificates: Arc<dyn ResolvesServerCert>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider carries TLS 1.2 and 1.3"))
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Capture);
    config
}

/// Makes the server's side of a handshake. The settings must be those of [`server_config`], as far
/// as it makes them.
///
/// rustls is shown one record at a time, and none behind the client's Finished: it would take a
/// key update that came along with it, while the connection goes on with the first keys.
pub async fn accept(
    mut tcp: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<TlsStream, AcceptError> {
    let mut connection = UnbufferedServerConnection::new(config)?;
    let mut received = Received::default();
    let mut outgoing = Vec::new();
    let mut captured = Captured::default();
    loop {
        let step = step(&mut connection, &mut received, &mut outgoing);
        if let Some(secrets) = Capture::take() {
            captured = secrets;
        }
        let transmits = matches!(step, Ok(Step::Transmit) | Err(_));
        if transmits && !outgoing.is_empty() {
            tcp.write_all(&outgoing).await?;
            outgoing.clear();
            if step.is_err() {
                ending::end(&mut tcp).await;
            }
        }
        match step? {
            Step::Again | Step::Transmit => {}
            Step::NextRecord => {
                while !received.show_next() {
                    received.read(&mut tcp).await?;
                }
            }
            Step::Done => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                let version = kernel.protocol_version();
                return Ok(TlsStream::new(tcp, &secrets, version, captured, received)?);
            }
        }
    }
}

/// What the handshake needs next.
enum Step {
    Again,
    Transmit,
    NextRecord,
    Done,
}

fn step(
    connection: &mut UnbufferedServerConnection,
    received: &mut Received,
    outgoing: &mut Vec<u8>,
) -> Result<Step, rustls::Error> {
    let UnbufferedStatus { discard, state } = connection.process_tls_records(received.shown());
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, outgoing);
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Transmit)
        }
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::NextRecord),
        // 0-RTT is off; all else is a client that leaves.
        Ok(_) => Err(rustls::Error::HandshakeNotComplete),
        Err(error) => Err(error),
    };
    received.discard(discard);
    if step.is_err() {
        // What is left to be sent is the alert. rustls gives it out before it looks at records,
        // and must not look at the faulty one again.
        while connection.wants_write() {
            match connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing),
                _ => break,
            }
        }
    }
    step
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
        outgoing.resize(start + needed.required_size, 0);
        // Cannot fail: the room is as large as was asked for.
        let _ = data.encode(&mut outgoing[start..]);
    }
}
