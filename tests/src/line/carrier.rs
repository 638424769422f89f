//! The thread that carries packets between two devices.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Quality;
use super::course::Course;
use super::priority::go_first;

/// The longest packet, in bytes.
const LONGEST: usize = 65_535;
/// How many packets of one device are read before others have their turn.
const BATCH: usize = 64;

/// A running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Carrier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// From each device to the other.
    courses: Mutex<[Course; 2]>,
    wake: OwnedFd,
    is_over: AtomicBool,
}

impl Carrier {
    /// Begins to carry packets.
    pub(super) fn start(devices: [File; 2], quality: Quality, seed: u64) -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let course = |direction| Course::new(quality, seed.wrapping_mul(2) + direction);
        let shared = Arc::new(Shared {
            courses: Mutex::new([course(0), course(1)]),
            wake: wake.context("an eventfd")?,
            is_over: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("line".to_owned())
            .spawn(move || {
                // Where that is not allowed, `Stats::late` tells what came of it.
                let _ = go_first();
                if let Err(error) = own.carry(devices) {
                    // Whoever waits for packets fails; this says why.
                    eprintln!("the emulated line broke: {error:#}");
                }
            })
            .context("the thread of a line")?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Reads or changes what happens to packets.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut [Course; 2]) -> T) -> T {
        let changed = change(&mut self.shared.courses());
        self.shared.wake();
        changed
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn courses(&self) -> MutexGuard<'_, [Course; 2]> {
        self.courses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // One that cannot be written to wakes already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn carry(&self, mut devices: [File; 2]) -> Result<()> {
        let mut space = vec![0; LONGEST];
        while !self.is_over.load(Ordering::Acquire) {
            let next = self.deliver(&mut devices);
            let [first, second, woken] = self.wait(&devices, next)?;
            if woken {
                // It says only that there is something to look at.
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            for (index, ready) in [(0, first), (1, second)] {
                if ready {
                    self.collect(&mut devices[index], index, &mut space)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what has arrived; says when the next packet does.
    fn deliver(&self, devices: &mut [File; 2]) -> Option<Instant> {
        let mut courses = self.courses();
        for (index, course) in courses.iter_mut().enumerate() {
            while let Some(packet) = course.take(Instant::now()) {
                // A kernel that does not take a packet has lost it.
                let _ = devices[1 - index].write(&packet);
            }
        }
        courses.iter().filter_map(Course::next_due).min()
    }

    /// Waits until a device has packets, somebody wakes, or it is time.
    fn wait(&self, devices: &[File; 2], until: Option<Instant>) -> Result<[bool; 3]> {
        let timeout = until.map(|until| {
            let time = until.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            }
        });
        let mut polled = [
            PollFd::new(&devices[0], PollFlags::IN),
            PollFd::new(&devices[1], PollFlags::IN),
            PollFd::new(&self.wake, PollFlags::IN),
        ];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for packets"),
        }
        Ok(polled.map(|fd| !fd.revents().is_empty()))
    }

    /// Reads what a device's side has sent.
    fn collect(&self, device: &mut File, index: usize, space: &mut [u8]) -> Result<()> {
        let mut courses = self.courses();
        for _ in 0..BATCH {
            match device.read(space) {
                Ok(length) => courses[index].accept(&space[..length], Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading a packet"),
            }
        }
        Ok(())
    }
}
