//! Hosts that are ready to use.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::{Host, LOOPBACK, Record};
use crate::net::{reset, within};
use crate::pattern::{DOWNLINK, UPLINK, write_pattern};
use crate::spice::read_link;

/// Most bytes of a connection that a host records which sends them back: tests move gigabytes
/// through some.
pub const MOST_ECHOED: usize = 1 << 20;

/// How a host ends a connection after what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN at once; it reads on until the peer's end.
    Fin,
    /// RST at once.
    Reset,
    /// FIN only after the peer's end.
    Hold,
}

/// What a verifying host received in good order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The link message.
    pub link: Vec<u8>,
    /// Bytes of the uplink's pattern after it.
    pub bytes: u64,
}

impl Host<Vec<u8>> {
    /// Returns every byte to its sender and ends when that did. The outcome is what came, of which
    /// [`MOST_ECHOED`] bytes are recorded.
    pub async fn echo() -> Result<Self> {
        Self::start(LOOPBACK.into(), |stream, record| {
            receive(stream, record, true)
        })
        .await
    }

    /// Sends nothing and ends when the sender did. The outcome is what came.
    pub async fn record() -> Result<Self> {
        Self::start(LOOPBACK.into(), |stream, record| {
            receive(stream, record, false)
        })
        .await
    }

    /// What each connection brought so far, in the order of their acceptance.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.borrow().clone()
    }

    /// Waits until `wanted` accepts what [`Host::received`] returns, and returns it.
    pub async fn wait_for(&self, wanted: impl Fn(&[Vec<u8>]) -> bool) -> Result<Vec<Vec<u8>>> {
        let mut received = self.received.clone();
        let found = received.wait_for(|received| wanted(received));
        let found = within("bytes at the host", found).await?;
        Ok(found.context("the host ended")?.clone())
    }
}

impl Host<Verified> {
    /// Reads the link message, then verifies that all that comes is the pattern [`UPLINK`].
    pub async fn verify() -> Result<Self> {
        Self::send(0, End::Hold).await
    }

    /// Reads the link message, sends `bytes` bytes of the pattern [`DOWNLINK`] and ends as told.
    /// Meanwhile it verifies that all that comes is the pattern [`UPLINK`].
    pub async fn send(bytes: u64, end: End) -> Result<Self> {
        Self::start(LOOPBACK.into(), move |stream, _record| async move {
            let mut stream = stream;
            let link = within("link message", read_link(&mut stream)).await??;
            let (reader, mut writer) = stream.into_split();
            let send = async {
                write_pattern(&mut writer, DOWNLINK, 0, bytes).await?;
                if end == End::Fin {
                    writer.shutdown().await?;
                }
                Ok(())
            };
            if end == End::Reset {
                send.await?;
                reset(writer.as_ref())?;
                // Dropped it would send a FIN before.
                writer.forget();
                return Ok(Verified { link, bytes: 0 });
            }
            let ((), bytes) = tokio::try_join!(send, verify_to_end(reader))?;
            Ok(Verified { link, bytes })
        })
        .await
    }
}

async fn receive(mut stream: TcpStream, record: Record, echo: bool) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    let mut received = 0;
    loop {
        let length = stream.read(&mut buffer).await.context("reading")?;
        if length == 0 {
            break;
        }
        if echo {
            let room = MOST_ECHOED.saturating_sub(received);
            record.append(&buffer[..length.min(room)]);
            stream
                .write_all(&buffer[..length])
                .await
                .context("writing")?;
        } else {
            record.append(&buffer[..length]);
        }
        received += length;
    }
    stream.shutdown().await?;
    Ok(record.bytes())
}

async fn verify_to_end(mut reader: OwnedReadHalf) -> Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let length = reader.read(&mut buffer).await.context("reading")?;
        if length == 0 {
            return Ok(bytes);
        }
        UPLINK.check(bytes, &buffer[..length])?;
        bytes += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{StreamEnd, read_to_end};
    use crate::spice::{ChannelType, link_message};

    async fn connect<T: Send + 'static>(host: &Host<T>) -> TcpStream {
        TcpStream::connect(host.addr()).await.unwrap()
    }

    #[tokio::test]
    async fn echo_returns_and_records() {
        let host = Host::echo().await.unwrap();
        let mut stream = connect(&host).await;
        stream.write_all(b"hello").await.unwrap();
        host.wait_for(|all| all == [b"hello"]).await.unwrap();
        stream.shutdown().await.unwrap();
        let (bytes, end) = read_to_end(&mut stream).await.unwrap();
        assert_eq!((bytes.as_slice(), end), (&b"hello"[..], StreamEnd::Closed));
        assert_eq!(host.outcome().await.unwrap(), b"hello");
        assert_eq!(host.accepted(), 1);
    }

    #[tokio::test]
    async fn both_directions_are_verified() {
        let host = Host::send(300_000, End::Fin).await.unwrap();
        let mut stream = connect(&host).await;
        let link = link_message(ChannelType::Main, 0);
        stream.write_all(&link).await.unwrap();
        write_pattern(&mut stream, UPLINK, 0, 1000).await.unwrap();
        stream.shutdown().await.unwrap();
        let (bytes, _) = read_to_end(&mut stream).await.unwrap();
        assert_eq!(bytes.len(), 300_000);
        DOWNLINK.check(0, &bytes).unwrap();
        let verified = Verified { link, bytes: 1000 };
        assert_eq!(host.outcome().await.unwrap(), verified);
    }

    #[tokio::test]
    async fn a_wrong_byte_is_reported() {
        let host = Host::verify().await.unwrap();
        let mut stream = connect(&host).await;
        let link = link_message(ChannelType::Main, 0);
        stream.write_all(&link).await.unwrap();
        stream.write_all(&UPLINK.bytes(1, 10)).await.unwrap();
        assert!(host.outcome().await.is_err());
    }

    #[tokio::test]
    async fn a_reset_is_one() {
        let host = Host::send(0, End::Reset).await.unwrap();
        let mut stream = connect(&host).await;
        let link = link_message(ChannelType::Main, 0);
        stream.write_all(&link).await.unwrap();
        let (_, end) = read_to_end(&mut stream).await.unwrap();
        assert_eq!(end, StreamEnd::Reset);
    }

    #[tokio::test]
    async fn unresponsive_hosts_leave_connects_pending() {
        let host = crate::host::Unresponsive::new().await.unwrap();
        let connect = TcpStream::connect(host.addr().unwrap());
        let limit = std::time::Duration::from_millis(300);
        assert!(tokio::time::timeout(limit, connect).await.is_err());
    }
}
