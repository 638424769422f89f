//! A client's connection whose TLS records the kernel makes and opens.

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tracing::warn;

use super::keys::{Key, Suite};
use super::sockopt::{self, Direction};
use super::update::Updater;
use crate::tls::{Content, Control, Event, RecordError, Role};
use crate::{ClientLeg, Pipe};

// RFC 8446, sections 5.1 and 6
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
/// Refuses another handshake (RFC 5246, section 7.2.2).
const NO_RENEGOTIATION: u8 = 100;
/// Message type `key_update`, its length, and the answer `update_not_requested` (RFC 8446,
/// section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// What may be sent with a used-up key, in bytes: the rest of a frame, and what ends the channel.
const SLACK: u64 = 1 << 20;

/// Room in the send buffer, in bytes, in which what the kernel still has to send is certainly
/// taken: it holds back at most one record of 16 KiB (`tls_push_sg` in `net/tls/tls_main.c`).
const ROOM: u32 = 64 * 1024;
/// Time between two looks at the send buffer.
const LOOK: Duration = Duration::from_millis(5);

/// An established connection in the hands of the kernel.
pub struct KtlsStream {
    pub(super) tcp: Arc<TcpStream>,
    pub(super) suite: Suite,
    /// Length in bytes from which payload is spliced, if any is.
    pub(super) splice_from: Option<usize>,
    /// Plaintext of records that were opened before.
    pub(super) early: Vec<u8>,
    /// Bytes sent with this key, and how many should be.
    pub(super) sent: u64,
    pub(super) limit: u64,
    /// Where the kernel takes new keys.
    pub(super) updater: Option<Box<Updater>>,
    /// The client asked for a new key before our next data, or the key is used up.
    pub(super) owes_key_update: bool,
    pub(super) control: Control,
    pub(super) read_end: Option<ReadEnd>,
    /// An alert was sent, behind which nothing may come.
    pub(super) write_closed: bool,
    /// A wait for room in the send buffer.
    look: Option<Pin<Box<Sleep>>>,
    /// A wait for an error of the socket.
    trouble: Option<Trouble>,
}

type Trouble = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

#[derive(Clone, Copy)]
pub(super) enum ReadEnd {
    /// By `close_notify`.
    Closed,
    /// Without.
    Cut,
    /// The kernel cannot open what follows; all that will still be noticed is the client's FIN.
    Deaf,
}

impl KtlsStream {
    pub(super) fn new(
        tcp: TcpStream,
        suite: Suite,
        splice_from: Option<usize>,
        early: Vec<u8>,
    ) -> Self {
        Self {
            tcp: Arc::new(tcp),
            suite,
            splice_from,
            early,
            sent: 0,
            limit: suite.limit(),
            updater: None,
            owes_key_update: false,
            control: Control::default(),
            read_end: None,
            write_closed: false,
            look: None,
            trouble: None,
        }
    }

    /// Goes on with what came before the kernel had the keys.
    pub(super) fn with_control(self, control: Control) -> Self {
        Self { control, ..self }
    }

    /// Lets keys be changed, and ours be used up after so many bytes.
    pub(super) fn with_updates(self, updater: Option<Box<Updater>>, limit: Option<u64>) -> Self {
        Self {
            updater,
            limit: limit.unwrap_or(self.limit),
            ..self
        }
    }

    /// Which suite its records have.
    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    /// How many bytes may be sent with its key.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The socket, to be asked and not to be read.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The socket, as one more descriptor.
    pub(crate) fn socket(&self) -> io::Result<std::net::TcpStream> {
        Ok(self.tcp.as_fd().try_clone_to_owned()?.into())
    }

    /// Number of the next record that is sent.
    pub(crate) fn next_record(&self) -> io::Result<u64> {
        sockopt::next_record(&*self.tcp, self.suite.info_len())
    }

    /// Replaces a key by one that the other side knows as well.
    pub(crate) fn replace(&self, direction: Direction, key: &Key) -> io::Result<()> {
        sockopt::set_key(&*self.tcp, direction, key.info())
    }

    /// What a record means; a kernel tells its content type.
    ///
    /// A key update must come in one record: where the kernel takes new keys it opens nothing
    /// behind a record that begins like one (`tls_check_pending_rekey` in `net/tls/tls_sw.c`).
    fn on_record(&mut self, kind: u8, plaintext: &[u8]) -> io::Result<()> {
        let is_tls_13 = self.suite.is_tls_13();
        let event = Content::from_wire(kind).and_then(|content| {
            self.control
                .on_record(Role::Server, is_tls_13, content, plaintext)
        });
        match event {
            Ok(Event::Data | Event::Nothing) => {}
            Ok(Event::Closed) => self.read_end = Some(ReadEnd::Closed),
            Ok(Event::KeyUpdate { is_requested }) => self.on_key_update(is_requested)?,
            // A client that is not told now is not told at all; it goes on as it was.
            Ok(Event::Renegotiation) => {
                let refusal = [WARNING, NO_RENEGOTIATION];
                let _ = sockopt::send_record(&*self.tcp, ALERT, &refusal);
            }
            Err(fault) => return Err(self.fail(fault)),
        }
        Ok(())
    }

    /// The client has changed its key.
    fn on_key_update(&mut self, is_answer_wanted: bool) -> io::Result<()> {
        if let Some(updater) = &mut self.updater {
            match updater.receive(&self.tcp) {
                Ok(()) => {
                    self.owes_key_update |= is_answer_wanted;
                    return Ok(());
                }
                Err(error) => warn!(%error, "the kernel refused a new TLS key"),
            }
        }
        self.read_end = Some(ReadEnd::Deaf);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What the kernel's error means for the connection.
    fn on_error(&mut self, error: io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(libc::EKEYEXPIRED) => {
                self.read_end = Some(ReadEnd::Deaf);
                io::ErrorKind::Unsupported.into()
            }
            Some(libc::EBADMSG) => self.fail(RecordError::BadMac),
            Some(libc::EMSGSIZE) => self.fail(RecordError::Overflow),
            Some(libc::EINVAL) => self.fail(RecordError::Unexpected),
            _ => error,
        }
    }

    /// Whether more may be sent with this key, and at all.
    fn check_writable(&mut self) -> io::Result<()> {
        if self.write_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.sent >= self.limit.saturating_add(SLACK) {
            return Err(self.fail(RecordError::KeyExhausted));
        }
        Ok(())
    }

    /// Changes our key where the client asked for it or the key is used up. That may be in the
    /// middle of a frame: records do not know of frames.
    fn poll_update_key(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_due = self.owes_key_update || self.sent >= self.limit;
        if !is_due || self.updater.is_none() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_record(context, HANDSHAKE, &KEY_UPDATE))?;
        self.owes_key_update = false;
        self.sent = 0;
        if let Some(updater) = &mut self.updater
            && let Err(error) = updater.transmit(&self.tcp)
        {
            // Nothing that is sent from now on can be read.
            self.write_closed = true;
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a record that is no data.
    fn poll_record(
        &mut self,
        context: &mut Context<'_>,
        kind: u8,
        plaintext: &[u8],
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_write_ready(context))?;
            let send = || sockopt::send_record(&*self.tcp, kind, plaintext);
            match self.tcp.try_io(Interest::WRITABLE, send) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ready when there is something to read, or an error: of a record that it does not take the
    /// kernel tells as an error of the socket only (`tls_strp_abort_strp` in
    /// `net/tls/tls_strp.c`), which is no readiness to be read.
    fn poll_receivable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Interest>> {
        if let Poll::Ready(ready) = self.tcp.poll_read_ready(context) {
            return Poll::Ready(ready.map(|()| Interest::READABLE));
        }
        let tcp = &self.tcp;
        let trouble = self.trouble.get_or_insert_with(|| {
            let tcp = Arc::clone(tcp);
            Box::pin(async move { tcp.ready(Interest::ERROR).await.map(drop) })
        });
        let outcome = ready!(trouble.as_mut().poll(context));
        self.trouble = None;
        // The runtime knows no combination of both.
        Poll::Ready(outcome.map(|()| Interest::ERROR))
    }

    /// The client's FIN or RST.
    fn poll_client_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(context))?;
            let wanted = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            let mut polled = [PollFd::new(&*self.tcp, wanted)];
            if poll(&mut polled, Some(&Timespec::default()))? > 0 {
                return Poll::Ready(Ok(()));
            }
            // What is there stays there, so readiness is waited for anew.
            let _ = self.tcp.try_io(Interest::READABLE, || {
                io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())
            });
        }
    }

    /// Sends something as soon as the socket has room.
    fn poll_sending(
        &mut self,
        context: &mut Context<'_>,
        mut send: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.check_writable()?;
        ready!(self.poll_update_key(context))?;
        loop {
            ready!(self.tcp.poll_write_ready(context))?;
            match self.tcp.try_io(Interest::WRITABLE, || send(&self.tcp)) {
                Ok(len) => {
                    self.sent = self.sent.saturating_add(len as u64);
                    return Poll::Ready(Ok(len));
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Tells the client what is wrong, as far as its socket takes it at once.
    fn fail(&mut self, fault: RecordError) -> io::Error {
        if let Some(alert) = fault.alert().filter(|_| !self.write_closed) {
            // The kernel sends nothing while an error of the socket was not taken.
            let _ = self.tcp.take_error();
            // The connection has failed; whether the alert arrives changes nothing.
            let _ = sockopt::send_record(&*self.tcp, ALERT, &[FATAL, alert]);
        }
        self.write_closed = true;
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }

    /// Waits until everything that the kernel holds back goes out with the next record: a FIN
    /// would cut it off.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(look) = &mut self.look {
                ready!(look.as_mut().poll(context));
                self.look = None;
            }
            if sockopt::send_room(&*self.tcp)?.is_none_or(|room| room >= ROOM) {
                return Poll::Ready(Ok(()));
            }
            self.look = Some(Box::pin(tokio::time::sleep(LOOK)));
        }
    }

    fn poll_close_notify(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_room(context))?;
        self.poll_record(context, ALERT, &[WARNING, CLOSE_NOTIFY])
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl AsyncRead for KtlsStream {
    /// The end of the stream without `close_notify` is `UnexpectedEof`.
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let len = this.early.len().min(target.remaining());
            target.put_slice(&this.early[..len]);
            this.early.drain(..len);
            return Poll::Ready(Ok(()));
        }
        if target.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.read_end {
                Some(ReadEnd::Closed) => return Poll::Ready(Ok(())),
                Some(ReadEnd::Cut) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Some(ReadEnd::Deaf) => return this.poll_client_end(context),
                None => {}
            }
            let interest = ready!(this.poll_receivable(context))?;
            let space = target.initialize_unfilled();
            // Readiness is over only when the kernel says so: a short read ends at a record.
            let receive = || sockopt::receive(&*this.tcp, space);
            match this.tcp.try_io(interest, receive) {
                Ok(received) => match (received.kind, received.len) {
                    (None, 0) => this.read_end = Some(ReadEnd::Cut),
                    (Some(APPLICATION_DATA), len) => {
                        let record = &target.initialize_unfilled()[..len];
                        this.on_record(APPLICATION_DATA, record)?;
                        if len > 0 {
                            target.advance(len);
                            return Poll::Ready(Ok(()));
                        }
                    }
                    (kind, len) => {
                        let record = &target.initialize_unfilled()[..len];
                        this.on_record(kind.unwrap_or_default(), record)?;
                    }
                },
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(this.on_error(error))),
            }
        }
    }
}

impl AsyncWrite for KtlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        plaintext: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        this.poll_sending(context, |tcp| Ok(send(tcp, plaintext, flags)?))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.write_closed {
            ready!(this.poll_close_notify(context))?;
            this.write_closed = true;
        }
        let shut = SockRef::from(&*this.tcp).shutdown(Shutdown::Write);
        Poll::Ready(shut)
    }
}

impl ClientLeg for KtlsStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tcp().as_fd())
    }

    fn splice_from(&self) -> Option<usize> {
        self.splice_from
    }

    fn poll_read_piped(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        if !self.early.is_empty() || self.read_end.is_some() {
            return Poll::Ready(Ok(None));
        }
        loop {
            let interest = ready!(self.poll_receivable(context))?;
            match self.tcp.try_io(interest, || pipe.fill(&*self.tcp, most)) {
                // An end is told apart, by an alert or without, where records are read.
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(len) => return Poll::Ready(Ok(Some(len))),
                Err(error) if is_transient(&error) => {}
                // The next record is no data, which `tls_sw_splice_read` (net/tls/tls_sw.c) leaves
                // where it is.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(self.on_error(error))),
            }
        }
    }

    fn is_worn(&self) -> bool {
        self.sent >= self.limit && self.updater.is_none()
    }

    fn poll_send_header(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The kernel holds the record open for what follows.
        let flags = SendFlags::MORE | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        self.poll_sending(context, |tcp| Ok(send(tcp, bytes, flags)?))
    }

    fn poll_send_piped(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        self.poll_sending(context, |tcp| pipe.drain(tcp))
    }
}
