//! The ring in which the programs tell of channels.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData, RingBuf};
use gateway_common::layout::Event;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::registered::register;
use super::turn::Turn;

/// The ring, which one process reads at a time.
pub(super) struct Ring {
    map: OwnedFd,
    /// `None`: no other process ever has it.
    turn: Option<Arc<Turn>>,
    reading: Option<AsyncFd<RingBuf<MapData>>>,
}

impl Ring {
    pub(super) fn new(map: OwnedFd, turn: Option<Arc<Turn>>) -> Self {
        Self {
            map,
            turn,
            reading: None,
        }
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
    pub(super) async fn read(&mut self, mut tell: impl FnMut(Event)) -> io::Result<()> {
        let Some(ring) = &mut self.reading else {
            return std::future::pending().await;
        };
        let mut ready = ring.readable_mut().await?;
        while let Some(item) = ready.get_inner_mut().next() {
            if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&item) {
                tell(event);
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
