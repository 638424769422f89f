//! One direction of a tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use gateway_common::layout::{CLOSED, Gate};

use crate::sockmap::load::SOME_PASSED;
use crate::sockmap::maps::Direction;
use crate::sockmap::watch::Signal;

/// One of a tunnel's two legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Host,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Host,
            Self::Host => Self::Client,
        }
    }
}

/// What one leg sends to the other, its target.
pub(super) struct Flow {
    /// The leg that sends, and the place in the maps.
    pub(super) direction: Direction,
    /// What has happened to the leg that sends.
    pub(super) signal: Arc<Signal>,
    /// Bytes that had been written to the target before.
    written_before: u64,
    /// Bytes that the process has written to it since.
    own: AtomicU64,
    /// What the gate says of forwarded bytes, and of those that were read.
    forwarded: AtomicU64,
    taken: AtomicU64,
    /// Most bytes that the target has not sent yet.
    limit: AtomicUsize,
    /// The process writes to the target, which has all that the kernel redirected before.
    is_ours: AtomicBool,
    /// Nothing more is redirected.
    stopped: AtomicBool,
    /// Nobody takes any more what is sent.
    unwanted: AtomicBool,
}

impl Flow {
    /// With its gate shut.
    pub(super) fn new(
        direction: Direction,
        signal: Arc<Signal>,
        written_before: u64,
        limit: usize,
    ) -> Self {
        Self {
            direction,
            signal,
            written_before,
            own: AtomicU64::new(0),
            forwarded: AtomicU64::new(CLOSED),
            taken: AtomicU64::new(0),
            limit: AtomicUsize::new(limit),
            is_ours: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            unwanted: AtomicBool::new(false),
        }
    }

    /// How many bytes have been written to the target once `redirected` ones are all there, since
    /// it was opened.
    pub(super) fn expected(&self, redirected: u64) -> u64 {
        self.written_before + self.own.load(Ordering::Acquire) + redirected
    }

    pub(super) fn add_own(&self, bytes: usize) {
        self.own.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// What the gate is to say.
    pub(super) fn gate(&self) -> Gate {
        Gate {
            forwarded: self.forwarded.load(Ordering::Relaxed),
            limit: self.limit() as u64,
            taken: self.taken.load(Ordering::Relaxed),
        }
    }

    pub(super) fn set_forwarded(&self, forwarded: u64) {
        self.forwarded.store(forwarded, Ordering::Relaxed);
    }

    pub(super) fn set_taken(&self, taken: u64) {
        self.taken.store(taken, Ordering::Relaxed);
    }

    /// Whether so many passed bytes are worth telling the program that they were read.
    pub(super) fn is_news(&self, taken: u64) -> bool {
        taken >= self.taken.load(Ordering::Relaxed) + SOME_PASSED
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_ours(&self) -> bool {
        self.is_ours.load(Ordering::Acquire)
    }

    pub(super) fn set_ours(&self, is_ours: bool) {
        self.is_ours.store(is_ours, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Acquire)
    }

    pub(super) fn note_unwanted(&self) {
        self.unwanted.store(true, Ordering::Release);
    }

    /// True: it was not stopped before.
    pub(super) fn note_stopped(&self) -> bool {
        !self.stopped.swap(true, Ordering::AcqRel)
    }
}
