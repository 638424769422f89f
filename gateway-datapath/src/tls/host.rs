//! A connection to a server as a host leg: its plaintext is read into several places at once.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::stream::TlsStream;
use crate::HostLeg;

impl HostLeg for TlsStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tcp().as_fd())
    }

    /// The end of the connection is the end of the stream, with `close_notify` or without: Spice
    /// servers close it without, and what Spice sends tells its own length. A record that has come
    /// in part is an error.
    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        for slice in room {
            let mut space = ReadBuf::new(slice);
            if total > 0 {
                self.give_in_hand(&mut space);
            } else {
                match Pin::new(&mut *self).poll_read(context, &mut space) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) if self.has_ended(&error) => return Poll::Ready(Ok(0)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let (len, is_full) = (space.filled().len(), space.remaining() == 0);
            total += len;
            if !is_full {
                break;
            }
        }
        Poll::Ready(Ok(total))
    }

    fn is_tls(&self) -> bool {
        true
    }

    fn set_low_water(&self, bytes: usize) {
        self.tcp().set_low_water(bytes);
    }
}

impl TlsStream {
    /// Whether an error of reading is the end between two records.
    fn has_ended(&self, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::UnexpectedEof && !self.has_received()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::version::{TLS12, TLS13};
    use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream as Server;

    use super::*;
    use crate::tls::{Role, TlsState, client_config, connect};

    /// A host, which sends session tickets as servers do, and the gateway's side.
    async fn pair(version: &'static SupportedProtocolVersion) -> (Server<TcpStream>, TlsStream) {
        let identity = rcgen::generate_simple_self_signed(["host.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(identity.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(identity.cert.der().clone()).unwrap();
        let verifier: Arc<dyn ServerCertVerifier> =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (far, _) = listener.accept().await.unwrap();
        let name = ServerName::try_from("host.test").unwrap();
        let (server, client) = tokio::join!(
            TlsAcceptor::from(Arc::new(config)).accept(far),
            connect(near.unwrap(), Arc::new(client_config(verifier)), name),
        );
        (server.unwrap(), client.unwrap())
    }

    /// Reads once into slices of these lengths.
    async fn read_room(stream: &mut TlsStream, lengths: &[usize]) -> io::Result<Vec<u8>> {
        let mut buffers: Vec<_> = lengths.iter().map(|len| vec![0; *len]).collect();
        let mut room: Vec<_> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let read = std::future::poll_fn(|context| stream.poll_read_room(context, &mut room));
        let len = read.await?;
        let mut bytes = buffers.concat();
        bytes.truncate(len);
        Ok(bytes)
    }

    /// Has a message go each way, the longer one in several records.
    async fn exchange(server: &mut Server<TcpStream>, stream: &mut TlsStream, fill: u8) {
        let sent = vec![fill; 100_000];
        let (written, received) = tokio::join!(
            async {
                server.write_all(&sent).await?;
                server.flush().await
            },
            async {
                let mut received = Vec::new();
                while received.len() < sent.len() {
                    received.extend(read_room(stream, &[1, 16_000, 40_000]).await.unwrap());
                }
                received
            }
        );
        written.unwrap();
        assert_eq!(received, sent);
        stream.write_all(&sent[..1_000]).await.unwrap();
        stream.flush().await.unwrap();
        let mut received = vec![0; 1_000];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(received, sent[..1_000]);
    }

    fn resumed(stream: TlsStream) -> TlsStream {
        let state = serde_json::to_string(&stream.state().unwrap()).unwrap();
        let state: TlsState = serde_json::from_str(&state).unwrap();
        TlsStream::resume(stream.into_parts().tcp, state, Role::Client).unwrap()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_from_one_process_to_the_next() {
        for version in [&TLS12, &TLS13] {
            let (mut server, mut stream) = pair(version).await;
            for fill in 0..4 {
                exchange(&mut server, &mut stream, fill).await;
                stream = resumed(stream);
            }
        }
    }

    #[tokio::test]
    async fn a_host_may_change_its_key_and_ask_for_another() {
        let (mut server, mut stream) = pair(&TLS13).await;
        for fill in 0..4 {
            // With the request that ours be changed, too.
            server.get_mut().1.refresh_traffic_keys().unwrap();
            exchange(&mut server, &mut stream, fill).await;
            stream = resumed(stream);
        }
    }

    #[tokio::test]
    async fn several_records_are_read_at_once() {
        let (mut server, mut stream) = pair(&TLS13).await;
        for message in [&b"0123"[..], b"4567", b"89"] {
            server.write_all(message).await.unwrap();
            server.flush().await.unwrap();
        }
        let mut wire = [0; 1_000];
        // The bytes of all three, and of the session tickets before them.
        let len = 3 * 22 + 10;
        while stream.tcp().peek(&mut wire).await.unwrap() < len {
            tokio::task::yield_now().await;
        }
        let mut received = Vec::new();
        while received.len() < 10 {
            received.extend(read_room(&mut stream, &[3, 100]).await.unwrap());
        }
        assert_eq!(received, b"0123456789");
    }

    #[tokio::test]
    async fn a_host_may_end_with_close_notify_and_without() {
        for notified in [true, false] {
            let (mut server, mut stream) = pair(&TLS13).await;
            server.write_all(b"last").await.unwrap();
            server.flush().await.unwrap();
            if notified {
                server.shutdown().await.unwrap();
            } else {
                drop(server.into_inner().0);
            }
            assert_eq!(read_room(&mut stream, &[8]).await.unwrap(), b"last");
            assert_eq!(read_room(&mut stream, &[8]).await.unwrap(), b"");
        }
    }

    #[tokio::test]
    async fn a_record_that_comes_in_part_is_no_end() {
        let (server, mut stream) = pair(&TLS13).await;
        let mut tcp = server.into_inner().0;
        tcp.write_all(&[23, 3, 3, 0, 100, 7]).await.unwrap();
        drop(tcp);
        let error = read_room(&mut stream, &[8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_is_no_record_is_a_fault() {
        let (server, mut stream) = pair(&TLS13).await;
        let mut tcp = server.into_inner().0;
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let error = read_room(&mut stream, &[8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
