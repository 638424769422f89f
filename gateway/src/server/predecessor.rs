//! Who had the gateway's directory before: nobody, or a gateway that runs.

use std::path::Path;

use tracing::warn;

use crate::handover::RunningPredecessor;
use crate::runtime_dir::{Held, Owner, RuntimeDir, RuntimeDirError};

/// From whom a gateway takes over.
pub(super) enum Predecessor {
    /// From nobody. The directory, unless it has to do without.
    None(Option<Held>),
    /// From a gateway that still has the directory.
    Running(RunningPredecessor),
}

/// Takes the directory; or, if that is wanted, announces this process to the gateway that has it,
/// where the command line has found nothing wrong with the directory.
pub(super) async fn find(
    path: &Path,
    take_over: bool,
) -> anyhow::Result<(RuntimeDir, Predecessor)> {
    if take_over {
        if let Some(predecessor) = RunningPredecessor::claim(path).await? {
            // Root may take over from a gateway in a directory of that gateway's user. Of one that
            // runs as root, the same was true before.
            let owner = match predecessor.user() {
                0 => Owner::Any,
                user => Owner::OwnOr(user),
            };
            let directory = RuntimeDir::new(path, owner);
            directory.check()?;
            return Ok((directory, Predecessor::Running(predecessor)));
        }
        warn!("there is no gateway to take over from: this one starts as usual");
    }
    let directory = RuntimeDir::new(path, Owner::Own);
    let held = or_without(directory.take())?;
    Ok((directory, Predecessor::None(held)))
}

/// A directory that cannot be had at all is a warning: the gateway works without.
pub(super) fn or_without(
    taken: Result<Held, RuntimeDirError>,
) -> Result<Option<Held>, RuntimeDirError> {
    match taken {
        Ok(held) => Ok(Some(held)),
        Err(error @ RuntimeDirError::Unusable { .. }) => {
            warn_of(&error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn warn_of(error: &RuntimeDirError) {
    warn!(
        %error,
        "no socket for the command line: status, kick, drain and ticket do not work, and no \
         other gateway can take over from this one"
    );
}
