//! The ring in which the programs tell of channels.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData, MapError, RingBuf};
use gateway_common::layout::Event;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::registered::register;
use super::turn::Turn;

/// Bytes that an event takes in the ring, with the kernel's own header (`BPF_RINGBUF_HDR_SZ`).
const RECORD: usize = 8 + size_of::<Event>();

/// The ring, which one process reads at a time.
pub(super) struct Ring {
    map: OwnedFd,
    /// How many events fill it.
    room: usize,
    /// `None`: no other process ever has it.
    turn: Option<Arc<Turn>>,
    reading: Option<AsyncFd<RingBuf<MapData>>>,
    /// Events read since the ring was last seen empty.
    in_a_row: usize,
}

impl Ring {
    pub(super) fn new(map: OwnedFd, turn: Option<Arc<Turn>>) -> Result<Self, MapError> {
        let bytes = MapData::from_fd(map.as_fd().try_clone_to_owned()?)?
            .info()?
            .max_entries();
        Ok(Self {
            map,
            room: usize::try_from(bytes).unwrap_or(usize::MAX) / RECORD,
            turn,
            reading: None,
            in_a_row: 0,
        })
    }

    /// Begins to read if it is this process's turn; whether it is. Must be called in a runtime.
    pub(super) fn begin(&mut self) -> io::Result<bool> {
        if self.reading.is_none() {
            if self.turn.as_ref().is_some_and(|turn| !turn.take()) {
                return Ok(false);
            }
            // Opened each time: a reader keeps in mind how far it has read.
            let map = MapData::from_fd(self.map.as_fd().try_clone_to_owned()?);
            let map = map.and_then(Map::from_map_data).and_then(RingBuf::try_from);
            let registered = register(map.map_err(io::Error::other)?, Interest::READABLE);
            self.reading = Some(registered.map_err(|(_, error)| error)?);
        }
        Ok(true)
    }

    /// Lets another process read.
    pub(super) fn end(&mut self) {
        if let Some(turn) = &self.turn {
            self.reading = None;
            turn.give_away();
        }
    }

    /// Waits for events, and takes all that have come. Cancel safe.
    ///
    /// Returns whether others may have found no room: of those nobody is told. What filled the
    /// ring is read in a row, so a ring that was full shows by how much is read.
    pub(super) async fn read(&mut self, mut tell: impl FnMut(Event)) -> io::Result<bool> {
        let Some(ring) = &mut self.reading else {
            return std::future::pending().await;
        };
        let mut ready = ring.readable_mut().await?;
        while let Some(item) = ready.get_inner_mut().next() {
            self.in_a_row += 1;
            if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&item) {
                tell(event);
            }
        }
        // Half is enough to be sure.
        let may_have_been_full = self.in_a_row >= self.room / 2;
        // Reading also stops at an event that another processor is still writing.
        if may_have_been_full || is_empty(ready.get_inner())? {
            self.in_a_row = 0;
        }
        ready.clear_ready();
        Ok(may_have_been_full)
    }
}

fn is_empty(ring: &impl AsFd) -> io::Result<bool> {
    let mut ring = [PollFd::new(ring, PollFlags::IN)];
    // A ring is readable while it holds anything (`ringbuf_map_poll_kern`, kernel/bpf/ringbuf.c).
    match poll(&mut ring, Some(&Timespec::default())) {
        Ok(readable) => Ok(readable == 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
