//! An established TLS connection as a stream of plaintext.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{ExtractedSecrets, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::control::{Control, Event};
use super::ending::Ending;
use super::queues::{Incoming, Outgoing};
use super::received::Received;
use super::record::{Content, MAX_OVERHEAD, MAX_PLAINTEXT, Opener, RecordError, Sealer};
use super::role::Role;
use super::secrets::{Captured, Protection, Secrets};
use crate::ClientLeg;
use crate::buffer::{Buffer, Layout};

const ALERT_WARNING: u8 = 1;
const ALERT_FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
/// Message type `key_update` and its length (RFC 8446, section 4.6.3).
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
/// The message whole, with its `request_update`.
const KEY_UPDATE_LEN: usize = KEY_UPDATE.len() + 1;
/// Level and description.
const ALERT_LEN: usize = 2;
const UPDATE_NOT_REQUESTED: u8 = 0;
/// Refuses another handshake (RFC 5246, section 7.2.2).
const NO_RENEGOTIATION: u8 = 100;

/// A connection with TLS ended here, from a client or to a host. Holds buffers only while bytes are
/// in hand.
pub struct TlsStream {
    pub(super) tcp: TcpStream,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) secrets: Secrets,
    pub(super) version: ProtocolVersion,
    pub(super) role: Role,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// Bytes of a protected frame that its owner has still to send: nothing may come between.
    pub(super) unsent: usize,
    /// The peer has sent `close_notify`.
    pub(super) read_closed: bool,
    /// We have sent `close_notify`.
    pub(super) write_closed: bool,
    /// The peer asked for a key update before our next data.
    pub(super) owes_key_update: bool,
    /// The peer asked for another handshake and was not yet refused.
    pub(super) owes_refusal: bool,
    pub(super) control: Control,
    /// What was wrong, and the wait until the client knows.
    pub(super) failed: Option<RecordError>,
    pub(super) ending: Option<Box<Ending>>,
}

impl TlsStream {
    pub(super) fn new(
        tcp: TcpStream,
        extracted: &ExtractedSecrets,
        version: ProtocolVersion,
        role: Role,
        captured: Captured,
        received: Received,
    ) -> io::Result<Self> {
        let secrets = Secrets::new(extracted, version, role, captured).map_err(broken)?;
        let (tx, rx) = (extracted.tx.0, extracted.rx.0);
        Ok(Self {
            tcp,
            sealer: Sealer::new(&secrets.transmit().map_err(broken)?, tx, version)
                .map_err(broken)?,
            opener: Opener::new(&secrets.receive().map_err(broken)?, rx, version)
                .map_err(broken)?,
            secrets,
            version,
            role,
            incoming: Incoming {
                buffer: received.buffer,
                start: received.start,
                end: received.end,
                ..Incoming::default()
            },
            outgoing: Outgoing::default(),
            unsent: 0,
            read_closed: false,
            write_closed: false,
            owes_key_update: false,
            owes_refusal: false,
            control: Control::default(),
            failed: None,
            ending: None,
        })
    }

    /// Opens all whole records that were read, and gives out the keys for all that follow, both
    /// ways; the plaintext waits for [`TlsStream::into_parts`] or to be read.
    pub(crate) fn settle(&mut self) -> Result<Settled, Busy> {
        loop {
            let incoming = &mut self.incoming;
            if let Some(buffer) = &incoming.buffer {
                let text = &buffer[incoming.plain_start..incoming.plain_end];
                incoming.early.extend_from_slice(text);
                incoming.plain_start = incoming.plain_end;
            }
            match self.open_next() {
                Ok(true) if !self.read_closed => {}
                Ok(_) => break,
                Err(fault) => {
                    self.incoming.fault = Some(fault);
                    return Err(Busy::Ending);
                }
            }
        }
        if self.read_closed || self.write_closed {
            return Err(Busy::Ending);
        }
        if self.incoming.start < self.incoming.end {
            return Err(Busy::PartialRecord);
        }
        let owes = self.owes_key_update || self.owes_refusal;
        if self.outgoing.buffer.is_some() || self.unsent > 0 || owes {
            return Err(Busy::Unsent);
        }
        let protections = self.secrets.transmit().and_then(|transmit| {
            let receive = self.secrets.receive()?;
            self.sealer.check(&transmit)?;
            self.opener.check(&receive)?;
            Ok((transmit, receive))
        });
        let (transmit, receive) = protections.map_err(|fault| {
            self.incoming.fault = Some(fault);
            Busy::Ending
        })?;
        Ok(Settled {
            version: self.version,
            transmit: (self.sealer.sequence(), transmit),
            receive: (self.opener.sequence(), receive),
        })
    }

    /// Whether bytes were received that were not taken.
    pub(crate) fn has_received(&self) -> bool {
        self.incoming.buffer.is_some() || !self.incoming.early.is_empty()
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What goes on without this record layer, after [`TlsStream::settle`].
    pub(crate) fn into_parts(self) -> Parts {
        Parts {
            tcp: self.tcp,
            early: self.incoming.early,
            secrets: self.secrets,
            control: self.control,
        }
    }

    /// Gives out what is at hand, and reads nothing. What is wrong with it shows at the next read.
    pub(super) fn give_in_hand(&mut self, target: &mut ReadBuf<'_>) {
        loop {
            self.incoming.give(target);
            if target.remaining() == 0 || self.read_closed {
                return;
            }
            if self.incoming.has_plaintext() {
                continue;
            }
            match self.open_next() {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => {
                    self.incoming.fault = Some(fault);
                    return;
                }
            }
        }
    }

    /// Opens the next whole record, if there is one.
    fn open_next(&mut self) -> Result<bool, RecordError> {
        let incoming = &mut self.incoming;
        if let Some(fault) = incoming.fault.take() {
            return Err(fault);
        }
        let Some(buffer) = &mut incoming.buffer else {
            return Ok(false);
        };
        let bytes = &mut buffer[incoming.start..incoming.end];
        let Some(len) = self.opener.complete(bytes)? else {
            return Ok(false);
        };
        let opened = self.opener.open(&mut bytes[..len])?;
        let text = incoming.start + opened.start..incoming.start + opened.end;
        incoming.start += len;
        let is_tls_13 = self.version == ProtocolVersion::TLSv1_3;
        let plaintext = &buffer[text.clone()];
        match self
            .control
            .on_record(self.role, is_tls_13, opened.content, plaintext)?
        {
            Event::Data => {
                incoming.plain_start = text.start;
                incoming.plain_end = text.end;
            }
            Event::Nothing => {}
            Event::Closed => self.read_closed = true,
            Event::KeyUpdate { is_requested } => {
                let protection = self.secrets.update_receive()?;
                self.opener = Opener::new(&protection, 0, self.version)?;
                self.owes_key_update |= is_requested;
            }
            Event::Renegotiation => {
                self.owes_refusal = true;
                self.refuse_renegotiation_if_due()?;
                // Whoever writes next sends what the socket does not take now.
                self.outgoing.drain_at_once(&self.tcp);
            }
        }
        Ok(true)
    }

    /// Queues the refusal of another handshake, as soon as it does not cut through a frame.
    fn refuse_renegotiation_if_due(&mut self) -> Result<(), RecordError> {
        if self.owes_refusal
            && !self.write_closed
            && self.unsent == 0
            && self.outgoing.has_room(ALERT_LEN)
        {
            self.owes_refusal = false;
            self.seal(Content::Alert, &[ALERT_WARNING, NO_RENEGOTIATION])?;
        }
        Ok(())
    }

    /// Queues one record; there must be room for it.
    fn seal(&mut self, content: Content, plaintext: &[u8]) -> Result<(), RecordError> {
        let outgoing = &mut self.outgoing;
        let buffer = outgoing.buffer.get_or_insert_with(Buffer::take);
        let room = &mut buffer[outgoing.end..];
        let prefix = self.sealer.prefix();
        room[prefix..prefix + plaintext.len()].copy_from_slice(plaintext);
        outgoing.end += self.sealer.seal(content, room, plaintext.len())?;
        Ok(())
    }

    /// Queues what must come before our next data: the refusal of another handshake, and a new
    /// key where the client asked for it or the key is used up.
    fn settle_debts(&mut self) -> Result<(), RecordError> {
        self.refuse_renegotiation_if_due()?;
        if !self.owes_key_update && !self.sealer.is_worn() {
            return Ok(());
        }
        if self.version != ProtocolVersion::TLSv1_3 {
            return Err(RecordError::KeyExhausted);
        }
        let [a, b, c, d] = KEY_UPDATE;
        self.seal(Content::Handshake, &[a, b, c, d, UPDATE_NOT_REQUESTED])?;
        let protection = self.secrets.update_transmit()?;
        self.sealer = Sealer::new(&protection, 0, self.version)?;
        self.owes_key_update = false;
        Ok(())
    }

    /// Tells the client what is wrong; ready when it had the time to take notice.
    fn poll_fail(&mut self, context: &mut Context<'_>, fault: RecordError) -> Poll<io::Error> {
        if let Some(alert) = fault.alert()
            && !self.write_closed
            && self.unsent == 0
            && self.outgoing.has_room(ALERT_LEN)
            && self.seal(Content::Alert, &[ALERT_FATAL, alert]).is_ok()
        {
            self.ending = Some(Box::new(Ending::begin()));
        }
        self.write_closed = true;
        self.incoming = Incoming::default();
        self.failed = Some(fault);
        self.poll_failure(context)
            .map(|error| error.unwrap_or_else(|| broken(fault)))
    }

    /// Goes on with telling what is wrong; `None`: nothing is.
    fn poll_failure(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Error>> {
        let Some(fault) = self.failed else {
            return Poll::Ready(None);
        };
        if let Some(ending) = self.ending.as_deref_mut() {
            match self.outgoing.poll_drain(context, &mut self.tcp) {
                Poll::Pending => ready!(ending.poll_limit(context)),
                Poll::Ready(Ok(())) => ready!(ending.poll(context, &mut self.tcp)),
                Poll::Ready(Err(_)) => {}
            }
            self.ending = None;
        }
        Poll::Ready(Some(broken(fault)))
    }
}

/// All of a connection but what protects its records.
pub(crate) struct Parts {
    pub(crate) tcp: TcpStream,
    /// Plaintext that was received and not read.
    pub(crate) early: Vec<u8>,
    /// What makes new keys.
    pub(crate) secrets: Secrets,
    pub(crate) control: Control,
}

/// Keys and the numbers of the next records.
pub(crate) struct Settled {
    pub(crate) version: ProtocolVersion,
    pub(crate) transmit: (u64, Protection),
    pub(crate) receive: (u64, Protection),
}

/// Why the records cannot be left to anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// One side has ended its stream, or what it sent is no TLS.
    #[error("the TLS connection is ending")]
    Ending,
    /// A record was read only in part.
    #[error("a TLS record has come only in part")]
    PartialRecord,
    /// Something is still to be sent.
    #[error("TLS records wait to be sent")]
    Unsent,
}

pub(super) fn broken(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for TlsStream {
    /// The end of the stream without `close_notify` is `UnexpectedEof`.
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = ready!(this.poll_failure(context)) {
            return Poll::Ready(Err(error));
        }
        let mut gave = false;
        loop {
            gave |= this.incoming.give(target);
            if target.remaining() == 0 || this.read_closed {
                return Poll::Ready(Ok(()));
            }
            if this.incoming.has_plaintext() {
                continue;
            }
            match this.open_next() {
                Ok(true) => continue,
                Ok(false) if gave => return Poll::Ready(Ok(())),
                Ok(false) => {}
                // What came before the fault is delivered first.
                Err(error) if gave => {
                    this.incoming.fault = Some(error);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return this.poll_fail(context, error).map(Err),
            }
            if ready!(this.incoming.poll_fill(context, &mut this.tcp))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        plaintext: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(error) = ready!(this.poll_failure(context)) {
            return Poll::Ready(Err(error));
        }
        if this.write_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.outgoing.poll_drain(context, &mut this.tcp))?;
        let mut taken = 0;
        for chunk in plaintext.chunks(MAX_PLAINTEXT) {
            // Room for a key update and an alert in records of their own, too.
            let update = KEY_UPDATE_LEN + ALERT_LEN + 2 * MAX_OVERHEAD;
            if !this.outgoing.has_room(update + chunk.len()) {
                break;
            }
            let sealed = this
                .settle_debts()
                .and_then(|()| this.seal(Content::ApplicationData, chunk));
            if let Err(error) = sealed {
                return this.poll_fail(context, error).map(Err);
            }
            taken += chunk.len();
        }
        // What the socket does not take now waits; flushing or the next write goes on with it.
        if let Poll::Ready(Err(error)) = this.outgoing.poll_drain(context, &mut this.tcp) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.outgoing.poll_drain(context, &mut this.tcp)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.outgoing.poll_drain(context, &mut this.tcp))?;
        if !this.write_closed {
            this.write_closed = true;
            this.seal(Content::Alert, &[ALERT_WARNING, CLOSE_NOTIFY])
                .map_err(broken)?;
            ready!(this.outgoing.poll_drain(context, &mut this.tcp))?;
        }
        Pin::new(&mut this.tcp).poll_shutdown(context)
    }
}

impl ClientLeg for TlsStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tcp().as_fd())
    }

    fn layout(&self) -> Layout {
        Layout {
            prefix: self.sealer.prefix(),
            piece: MAX_PLAINTEXT,
            suffix: self.sealer.suffix(),
        }
    }

    fn poll_protect(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        skipped: usize,
        len: usize,
    ) -> Poll<io::Result<Range<usize>>> {
        if let Some(error) = ready!(self.poll_failure(context)) {
            return Poll::Ready(Err(error));
        }
        if self.write_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.outgoing.poll_drain(context, &mut self.tcp))?;
        if let Err(error) = self.settle_debts() {
            return self.poll_fail(context, error).map(Err);
        }
        ready!(self.outgoing.poll_drain(context, &mut self.tcp))?;
        let mut end = skipped;
        for (start, text) in self.layout().pieces(skipped, len) {
            debug_assert_eq!(start, end, "records follow one another");
            let room = &mut buffer[start..];
            match self.sealer.seal(Content::ApplicationData, room, text) {
                Ok(record) => end += record,
                Err(error) => return self.poll_fail(context, error).map(Err),
            }
        }
        self.unsent = end - skipped;
        Poll::Ready(Ok(skipped..end))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.tcp).poll_write(context, bytes))?;
        self.unsent = self.unsent.saturating_sub(sent);
        Poll::Ready(Ok(sent))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::server::WebPkiClientVerifier;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::tls::{self, Profile};

    async fn connect(
        version: &'static SupportedProtocolVersion,
    ) -> (tokio_rustls::client::TlsStream<TcpStream>, TlsStream) {
        let identity = rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(identity.signing_key.serialize_der().into());
        let chain = vec![identity.cert.der().clone()];
        let certified = CertifiedKey::from_der(chain, key, &provider).unwrap();
        let server = tls::server_config(
            Profile::Intermediate,
            WebPkiClientVerifier::no_client_auth(),
            Arc::new(SingleCertAndKey::from(certified)),
        );
        let mut roots = RootCertStore::empty();
        roots.add(identity.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let name = ServerName::try_from("gateway.test").unwrap();
        let (client, server) = tokio::join!(
            TlsConnector::from(Arc::new(client)).connect(name, near.unwrap()),
            tls::accept(far.unwrap().0, Arc::new(server))
        );
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn a_worn_key_is_changed_and_nothing_is_lost() {
        let (mut client, mut server) = connect(&TLS13).await;
        for round in 0..20_u8 {
            // Each round uses up the key that the one before brought.
            server.sealer.limit_to(1);
            server.write_all(&[round; 1_000]).await.unwrap();
            server.flush().await.unwrap();
            let mut received = [0; 1_000];
            client.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [round; 1_000]);
        }
    }

    #[tokio::test]
    async fn a_worn_key_of_tls_12_ends_the_connection() {
        let (mut client, mut server) = connect(&TLS12).await;
        server.write_all(b"first").await.unwrap();
        let mut received = [0; 5];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"first");
        server.sealer.limit_to(1);
        let error = server.write_all(b"second").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(client.read(&mut received).await.is_err());
    }

    #[tokio::test]
    async fn secrets_other_than_those_of_the_keys_are_given_to_nobody() {
        for direction in 0..2 {
            let (_client, mut server) = connect(&TLS13).await;
            assert!(server.state().is_some() && server.settle().is_ok());
            let next = if direction == 0 {
                server.secrets.update_transmit()
            } else {
                server.secrets.update_receive()
            };
            drop(next.unwrap());
            assert!(server.state().is_none());
            assert!(matches!(server.settle(), Err(Busy::Ending)));
            let error = server.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
