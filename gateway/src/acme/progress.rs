//! How it goes with certificates of an authority, for administrators.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Certificates that the gateway gets by itself. Nothing in it is secret; times are in seconds
/// since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeStatus {
    /// The names that certificates are ordered for.
    pub domains: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// When a certificate was last ordered by this process; `null`: not yet.
    pub last_attempt: Option<u64>,
    /// What went wrong then; `null`: nothing.
    pub last_error: Option<String>,
    /// How often in a row there was no certificate.
    pub failures: u32,
    /// When the next one is ordered; `null`: another process does that, or it is being ordered.
    pub next_attempt: Option<u64>,
}

/// The [`AcmeStatus`] at this moment, if certificates are ordered at all.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Option<AcmeStatus>>);

impl Progress {
    /// How it goes; `None`: the gateway orders none.
    pub fn now(&self) -> Option<AcmeStatus> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn off(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut AcmeStatus)) {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(status.get_or_insert_default());
    }
}

/// In seconds since the Unix epoch.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
