//! Messages with file descriptors over a Unix stream socket (unix(7), `SCM_RIGHTS`).
//!
//! A message is its length and the number of its descriptors, four bytes each, big-endian, then
//! JSON. The descriptors come with its first byte.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::message::Message;

/// Most descriptors of a message (`SCM_MAX_FD` in include/net/scm.h).
pub(super) const MAX_DESCRIPTORS: usize = 253;
const HEADER: usize = 8;
/// Longest message in bytes, far above what a batch of channels or all tickets can be.
const MAX_MESSAGE: usize = 256 << 20;
/// Longest wait for an answer that the other side can give at once.
const PROMPT: Duration = Duration::from_secs(10);

pub(super) struct Connection {
    stream: UnixStream,
    /// Bytes that were received and not yet taken; they may be secret.
    received: Zeroizing<Vec<u8>>,
    descriptors: VecDeque<OwnedFd>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Zeroizing::default(),
            descriptors: VecDeque::new(),
        }
    }

    /// Sends a message, within a time that is generous for a peer that lives.
    pub(super) async fn send(
        &mut self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let sent = tokio::time::timeout(PROMPT, self.send_slowly(message, descriptors)).await;
        sent.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .with_context(|| format!("cannot send {}", message.name()))
    }

    async fn send_slowly(
        &mut self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let body = Zeroizing::new(serde_json::to_vec(message)?);
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&u32::try_from(body.len())?.to_be_bytes());
        header[4..].copy_from_slice(&u32::try_from(descriptors.len())?.to_be_bytes());
        let sent = loop {
            self.stream.writable().await?;
            let send = || send_with(&self.stream, &header, descriptors);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => break sent?,
            }
        };
        self.stream.write_all(&header[sent..]).await?;
        self.stream.write_all(&body).await?;
        Ok(())
    }

    /// The next message, which must come soon; not cancel safe.
    pub(super) async fn receive_soon(&mut self) -> Result<(Message, Vec<OwnedFd>)> {
        match tokio::time::timeout(PROMPT, self.receive()).await {
            Ok(received) => received?.context("the other process has ended the hand-over"),
            Err(_) => bail!("the other process does not answer"),
        }
    }

    /// The next message; `None` at the end of the stream. Cancel safe: what has come in part
    /// stays for the next call.
    pub(super) async fn receive(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>> {
        loop {
            if let [Some(length), Some(count)] = [self.number_at(0), self.number_at(4)] {
                ensure!(length <= MAX_MESSAGE, "a message of {length} bytes");
                ensure!(
                    count <= MAX_DESCRIPTORS,
                    "a message with {count} descriptors"
                );
                let end = HEADER + length;
                if self.received.len() >= end {
                    ensure!(count <= self.descriptors.len(), "descriptors are missing");
                    // The text is not repeated: it may hold secrets.
                    let message = serde_json::from_slice(&self.received[HEADER..end])
                        .map_err(|_| anyhow::anyhow!("a message that cannot be understood"))?;
                    self.received.drain(..end);
                    return Ok(Some((message, self.descriptors.drain(..count).collect())));
                }
            }
            if self.fill().await? == 0 {
                ensure!(self.received.is_empty(), "a message was cut off");
                return Ok(None);
            }
            // Those of a next message may have come already.
            let most = 2 * MAX_DESCRIPTORS;
            ensure!(self.descriptors.len() <= most, "too many descriptors");
        }
    }

    /// The number of four bytes at this place of the header.
    fn number_at(&self, at: usize) -> Option<usize> {
        let bytes = self.received.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_be_bytes(*bytes)).ok()
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = Zeroizing::new(vec![0; 64 * 1024]);
        loop {
            self.stream.readable().await?;
            let receive = || receive_with(&self.stream, &mut bytes, &mut self.descriptors);
            match self.stream.try_io(Interest::READABLE, receive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => {
                    let len = received?;
                    self.received.extend_from_slice(&bytes[..len]);
                    return Ok(len);
                }
            }
        }
    }
}

pub(super) fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        flags,
    )?)
}

pub(super) fn receive_with(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_says_or_takes_nothing_is_given_up() {
        let (near, _silent) = UnixStream::pair().unwrap();
        let mut near = Connection::new(near);
        let error = near.receive_soon().await.err().unwrap();
        assert!(error.to_string().contains("does not answer"), "{error}");
        let long = Message::Taken(vec![u64::MAX; 1_000_000]);
        let error = near.send(&long, &[]).await.unwrap_err();
        assert!(error.to_string().contains("cannot send"), "{error}");
    }

    #[tokio::test]
    async fn messages_keep_their_descriptors_however_they_come() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Connection::new(near), Connection::new(far));
        let send = async {
            for round in 0..20_u64 {
                let pipes: Vec<_> = (0..round % 4)
                    .map(|_| rustix::pipe::pipe().unwrap())
                    .collect();
                for (index, (_, writer)) in pipes.iter().enumerate() {
                    let mut writer = File::from(writer.try_clone().unwrap());
                    writer.write_all(&[u8::try_from(index).unwrap()]).unwrap();
                }
                let readers: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_fd()).collect();
                // Some far longer than a socket's buffer.
                let ids = vec![round; 100_000 * usize::from(round % 3 == 0)];
                near.send(&Message::Taken(ids), &readers).await.unwrap();
            }
            drop(near);
        };
        let receive = async {
            for round in 0..20_u64 {
                let (message, descriptors) = far.receive_soon().await.unwrap();
                let Message::Taken(ids) = message else {
                    panic!("{}", message.name());
                };
                assert!(ids.iter().all(|id| *id == round));
                assert_eq!(descriptors.len() as u64, round % 4);
                for (index, descriptor) in descriptors.into_iter().enumerate() {
                    let mut byte = [0];
                    File::from(descriptor).read_exact(&mut byte).unwrap();
                    assert_eq!(usize::from(byte[0]), index);
                }
            }
            assert!(far.receive().await.unwrap().is_none());
        };
        tokio::join!(send, receive);
    }
}
