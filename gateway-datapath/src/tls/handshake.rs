//! What both sides of a handshake have in common: rustls makes it, one record at a time.

use std::io;

use rustls::ExtractedSecrets;
use rustls::ProtocolVersion;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::agreed::Agreed;
use super::ending;
use super::received::Received;
use super::role::Role;
use super::secrets::{Capture, Captured};
use super::stream::TlsStream;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke or ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Peer and gateway do not agree; the peer was sent an alert.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A side of rustls, which has no common name for both.
pub(super) trait Side {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether there is an alert to be sent.
    fn is_writing(&self) -> bool;

    /// What has been agreed on.
    fn agreed(&self) -> Agreed;

    /// Gives the keys out.
    fn into_keys(self) -> Result<(ExtractedSecrets, ProtocolVersion), rustls::Error>;
}

macro_rules! sides {
    ($($connection:ty, $data:ty;)*) => {$(
        impl Side for $connection {
            type Data = $data;

            fn process<'c, 'i>(
                &'c mut self,
                records: &'i mut [u8],
            ) -> UnbufferedStatus<'c, 'i, Self::Data> {
                self.process_tls_records(records)
            }

            fn is_writing(&self) -> bool {
                self.wants_write()
            }

            fn agreed(&self) -> Agreed {
                Agreed::of(self)
            }

            fn into_keys(self) -> Result<(ExtractedSecrets, ProtocolVersion), rustls::Error> {
                let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
                Ok((secrets, kernel.protocol_version()))
            }
        }
    )*};
}

sides! {
    UnbufferedServerConnection, rustls::server::ServerConnectionData;
    UnbufferedClientConnection, rustls::client::ClientConnectionData;
}

/// Makes our side of a handshake, and takes the connection over from rustls.
///
/// rustls is shown one record at a time, and none behind the peer's Finished: it would take a key
/// update that came along with it, while the connection goes on with the first keys.
///
/// The side is boxed: the task of a connection would hold it twice, as an argument too, until the
/// client has begun.
pub(super) async fn run(
    mut connection: Box<impl Side>,
    mut tcp: TcpStream,
    role: Role,
) -> Result<(TlsStream, Agreed), HandshakeError> {
    let mut received = Received::default();
    let mut outgoing = Vec::new();
    let mut captured = Captured::default();
    loop {
        let step = step(&mut *connection, &mut received, &mut outgoing);
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
                let agreed = connection.agreed();
                let (secrets, version) = (*connection).into_keys()?;
                let stream = TlsStream::new(tcp, &secrets, version, role, captured, received);
                return Ok((stream?, agreed));
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
    connection: &mut impl Side,
    received: &mut Received,
    outgoing: &mut Vec<u8>,
) -> Result<Step, rustls::Error> {
    let UnbufferedStatus { discard, state } = connection.process(received.shown());
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
        // 0-RTT is off; all else is a peer that leaves.
        Ok(_) => Err(rustls::Error::HandshakeNotComplete),
        Err(error) => Err(error),
    };
    received.discard(discard);
    if step.is_err() {
        // What is left to be sent is the alert. rustls gives it out before it looks at records,
        // and must not look at the faulty one again.
        while connection.is_writing() {
            match connection.process(&mut []).state {
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
