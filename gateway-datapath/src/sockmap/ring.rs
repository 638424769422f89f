//! The ring in which the programs tell of channels.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData, MapError, RingBuf};
use gateway_common::layout::Event;
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
    /// Returns whether others may have found no room: of those nobody is told. The ring is read
    /// until it is empty, so one that was full shows by how much is read.
    pub(super) async fn read(&mut self, mut tell: impl FnMut(Event)) -> io::Result<bool> {
        let Some(ring) = &mut self.reading else {
            return std::future::pending().await;
        };
        let mut ready = ring.readable_mut().await?;
        let mut taken = 0;
        while let Some(item) = ready.get_inner_mut().next() {
            taken += 1;
            if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&item) {
                tell(event);
            }
        }
        ready.clear_ready();
        Ok(taken >= self.room / 2)
    }
}
