//! A ticket while a channel is open with it.

use std::sync::Arc;
use std::time::Instant;

use super::{Digest, Tickets};
use crate::grant::Grant;
use crate::session::SessionId;

/// One channel's hold on its ticket; ends when dropped.
pub struct Lease {
    /// What it permits.
    pub grant: Arc<Grant>,
    /// The desktop session that the channel belongs to.
    pub session: SessionId,
    pub(super) digest: Digest,
    pub(super) tickets: Arc<Tickets>,
}

impl Lease {
    /// What the ticket is recognised by.
    pub(crate) fn digest(&self) -> &[u8] {
        &self.digest
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tickets.close(&self.digest, Instant::now());
    }
}
