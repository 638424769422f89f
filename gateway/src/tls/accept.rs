//! The handshake, made by rustls.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::secrets::{Capture, Captured};
use super::stream::{Received, TlsStream};
use crate::buffer::Buffer;

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

/// Makes the server's side of a handshake.
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
        }
        match step? {
            Step::Again | Step::Transmit => {}
            Step::Read => {
                let mut buffer = received.buffer.take().unwrap_or_else(Buffer::take);
                let len = tcp.read(&mut buffer[received.end..]).await?;
                received.buffer = Some(buffer);
                received.end += len;
                if len == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
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
    Read,
    Done,
}

fn step(
    connection: &mut UnbufferedServerConnection,
    received: &mut Received,
    outgoing: &mut Vec<u8>,
) -> Result<Step, rustls::Error> {
    let raw = match &mut received.buffer {
        Some(buffer) => &mut buffer[..received.end],
        None => &mut [],
    };
    let UnbufferedStatus { mut discard, state } = connection.process_tls_records(raw);
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, outgoing);
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Transmit)
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                received.plaintext.extend_from_slice(record.payload);
            }
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Read),
        // 0-RTT is off; all else is a client that leaves.
        Ok(_) => Err(rustls::Error::HandshakeNotComplete),
        Err(error) => Err(error),
    };
    received.discard(discard);
    if step.is_err() {
        // What is left to be sent is the alert.
        while let Ok(ConnectionState::EncodeTlsData(data)) =
            connection.process_tls_records(&mut []).state
        {
            encode(data, outgoing);
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
