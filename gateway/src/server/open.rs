//! What other processes can come to, while the gateway is open to them.

use tracing::{info, warn};

use super::Running;
use super::predecessor::warn_of;
use crate::admin::{Admin, Doors};
use crate::handover::{Door, SuccessorConnection};
use crate::listen::Intake;
use crate::ports::Accepting;
use crate::runtime_dir::{Held, RuntimeDirError};

pub(super) struct Open {
    accepting: Accepting,
    doors: Option<Doors>,
    /// Where a successor announces itself.
    door: Option<Door>,
    /// Where the sockets of both lie; the last to go.
    directory: Option<Held>,
    /// Another process has the directory, which was this one's.
    awaits_directory: bool,
}

impl Open {
    /// Without the directory there is no more than the ports.
    pub(super) fn new(running: &Running, directory: Option<Held>) -> anyhow::Result<Self> {
        let ports = &running.ports;
        let sources = running.sources.clone();
        Ok(Self {
            accepting: ports.accept()?,
            doors: Some(Admin::open(
                directory.as_ref(),
                ports.sockets.admin()?,
                sources,
            )),
            door: directory.as_ref().and_then(door),
            directory,
            awaits_directory: false,
        })
    }

    /// The way back after a hand-over that failed. Clients are served at once; the directory may
    /// still be the failed successor's, which is waited for in [`Open::successor`].
    pub(super) fn again(running: &Running) -> anyhow::Result<Self> {
        let taken = running.directory.take();
        let awaits_directory = matches!(taken, Err(RuntimeDirError::InUse { .. }));
        if let Err(error) = &taken
            && !awaits_directory
        {
            warn_of(error);
        }
        Ok(Self {
            awaits_directory,
            ..Self::new(running, taken.ok())?
        })
    }

    /// Waits for a successor; cancel safe.
    pub(super) async fn successor(&mut self, running: &Running) -> SuccessorConnection {
        if self.awaits_directory {
            let taken = running.directory.take_once_free().await;
            self.awaits_directory = false;
            match taken {
                Ok(directory) => self.use_directory(running, directory),
                Err(error) => warn_of(&error),
            }
        }
        match &self.door {
            Some(door) => door.successor().await,
            None => std::future::pending().await,
        }
    }

    fn use_directory(&mut self, Running { ports, sources, .. }: &Running, directory: Held) {
        match ports.sockets.admin() {
            Ok(port) => {
                self.doors = Some(Admin::open(Some(&directory), port, sources.clone()));
            }
            Err(error) => {
                let reason = format!("{error:#}");
                warn!(reason, "no socket for the command line");
            }
        }
        self.door = door(&directory);
        info!(directory = %directory.path().display(), "RuntimeDir belongs to this gateway again");
        self.directory = Some(directory);
    }

    /// Whether no more connections are taken.
    pub(super) fn is_closed(&self) -> bool {
        self.accepting.is_closed()
    }

    pub(super) async fn close(&mut self, how: Intake) {
        self.doors = None;
        self.door = None;
        self.directory = None;
        self.accepting.close(how).await;
    }
}

fn door(directory: &Held) -> Option<Door> {
    let door = Door::open(directory).inspect_err(|error| {
        let directory = directory.path().display();
        warn!(%directory, %error, "no other gateway can take over from this one");
    });
    door.ok()
}
