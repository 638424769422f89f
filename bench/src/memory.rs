//! How much memory a peer and the kernel hold.

use anyhow::Result;

use super::procfs;

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Of all the peer's processes, shared pages divided by their sharers.
    pub(crate) peer: u64,
    /// Of the kernel for all TCP sockets of this machine, both ends of each connection.
    pub(crate) sockets: u64,
}

impl Memory {
    /// What is held now.
    pub(crate) fn now(pid: u32) -> Result<Self> {
        Ok(Self {
            peer: of_tree(pid)?,
            sockets: procfs::socket_memory()?,
        })
    }

    /// The greater of both, each kind for itself.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            peer: self.peer.max(other.peer),
            sockets: self.sockets.max(other.sockets),
        }
    }
}

/// What the tree of processes below `root` holds, in bytes.
fn of_tree(root: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in procfs::tree(root)? {
        match procfs::proportional_memory(pid) {
            Ok(bytes) => sum += bytes,
            // A child may end at any moment; the peer itself must be there.
            Err(problem) if pid == root => return Err(problem),
            Err(_) => {}
        }
    }
    Ok(sum)
}
