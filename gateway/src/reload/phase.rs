//! Where a reload stands, for whoever waits for it.

use std::sync::Arc;

/// Who is told.
pub(super) type Observer = Arc<dyn Fn(Phase) + Send + Sync>;

/// Where a reload that SIGHUP asked for stands; for a service manager that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Files are about to be read.
    Begun,
    /// What they hold is in effect or was refused.
    Ended,
}

/// A reload that has begun: its end is told however it ends.
pub(super) struct Observed(Observer);

impl Observed {
    pub(super) fn begin(observer: &Observer) -> Self {
        observer(Phase::Begun);
        Self(Arc::clone(observer))
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        (self.0)(Phase::Ended);
    }
}
