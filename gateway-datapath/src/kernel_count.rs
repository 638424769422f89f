//! A count that the kernel keeps while a channel moves, read only when somebody asks.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Read = Box<dyn Fn() -> u64 + Send + Sync>;

/// Reads the kernel's count of one channel, as long as there is a channel.
#[derive(Default)]
pub(super) struct KernelCount(Mutex<Option<Read>>);

impl KernelCount {
    /// Counts by `read` from now on.
    pub(super) fn attach(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        *self.lock() = Some(Box::new(read));
    }

    /// Gives `with` the count by now, or 0 when the kernel keeps none; no [`Self::settle`]
    /// happens meanwhile.
    pub(super) fn with<T>(&self, with: impl FnOnce(u64) -> T) -> T {
        let read = self.lock();
        with(read.as_ref().map_or(0, |read| read()))
    }

    /// Gives `keep` the last count, and 0 to everybody from then on.
    pub(super) fn settle(&self, keep: impl FnOnce(u64)) {
        let mut read = self.lock();
        if let Some(read) = read.take() {
            keep(read());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Read>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KernelCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|count| f.debug_tuple("KernelCount").field(&count).finish())
    }
}
