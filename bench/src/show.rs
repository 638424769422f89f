//! The host's side of a show: messages with the time in them, as fast as the socket takes them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::message::{HEADER, Header, INPUT, input_number, now};
use crate::block::{DOWNLINK, LONGEST};

/// How much each show's socket has taken, for whoever knows the show's key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shows(Arc<Mutex<BTreeMap<u64, Arc<AtomicU64>>>>);

impl Shows {
    /// How many bytes of a show its socket has taken so far; 0 before it has begun.
    pub(crate) fn bytes(&self, key: u64) -> u64 {
        self.counter(key).load(Ordering::Relaxed)
    }

    /// Sends messages of this size until the client ends the channel.
    pub(crate) async fn run(&self, stream: &mut TcpStream, message: usize, key: u64) -> Result<()> {
        ensure!(
            (HEADER..=LONGEST).contains(&message),
            "messages of {message} bytes"
        );
        let counter = self.counter(key);
        let answered = AtomicU64::new(0);
        let (reader, writer) = stream.split();
        // Both end with the channel, however that is ended.
        tokio::select! {
            _ = receive(reader, &answered) => {}
            _ = send(writer, message, &counter, &answered) => {}
        }
        Ok(())
    }

    fn counter(&self, key: u64) -> Arc<AtomicU64> {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counters.entry(key).or_default())
    }
}

async fn receive(mut reader: ReadHalf<'_>, answered: &AtomicU64) -> io::Result<()> {
    loop {
        let mut bytes = [0; INPUT];
        reader.read_exact(&mut bytes).await?;
        answered.store(input_number(bytes), Ordering::Relaxed);
    }
}

async fn send(
    mut writer: WriteHalf<'_>,
    message: usize,
    counter: &AtomicU64,
    answered: &AtomicU64,
) -> io::Result<()> {
    let mut bytes = DOWNLINK.piece(0, message).to_vec();
    let mut offset = 0;
    loop {
        // What waits for room is not written yet, so it has no time yet.
        writer.writable().await?;
        let header = Header {
            offset,
            written: now(),
            answered: answered.load(Ordering::Relaxed),
        };
        bytes[..HEADER].copy_from_slice(&header.encode());
        let first = match writer.try_write(&bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        counter.fetch_add(first as u64, Ordering::Relaxed);
        writer.write_all(&bytes[first..]).await?;
        counter.fetch_add((message - first) as u64, Ordering::Relaxed);
        offset += message as u64;
    }
}
