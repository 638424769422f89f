//! The processor's idle time, counted in instructions: a thread that runs whenever nothing else
//! can, and whose every turn costs the same.
//!
//! A halted processor would not do: with `-icount` its clock jumps to the next timer, and what
//! interrupts do meanwhile could not be told from the jump.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Turns of the idle thread.
static TURNS: AtomicU64 = AtomicU64::new(0);
/// Time in which the cost of a turn is found, and how often; the least is it.
const CALIBRATION: Duration = Duration::from_millis(100);
const CALIBRATIONS: usize = 5;

/// The running idle thread; it ends with the process.
pub(crate) struct Idle {
    /// What one turn takes of the clock, in nanoseconds.
    turn: f64,
}

impl Idle {
    /// Starts the thread; nothing else must be running.
    pub(crate) fn start() -> Result<Self> {
        let (told, ready) = std::sync::mpsc::channel();
        thread::Builder::new()
            .name("idle".to_owned())
            .spawn(move || {
                let prepared = give_way();
                let is_prepared = prepared.is_ok();
                if told.send(prepared).is_ok() && is_prepared {
                    turn_forever();
                }
            })
            .context("the idle thread")?;
        ready.recv().context("the idle thread")??;
        let mut turn = f64::INFINITY;
        for _ in 0..CALIBRATIONS {
            let (begun, turns) = (Instant::now(), turns());
            thread::sleep(CALIBRATION);
            let (took, turned) = (begun.elapsed(), self::turns() - turns);
            ensure!(turned > 0, "the idle thread does not run");
            turn = turn.min(took.as_secs_f64() * 1e9 / to_float(turned));
        }
        Ok(Self { turn })
    }

    /// What the processor has been idle so far, in nanoseconds of its clock.
    pub(crate) fn nanoseconds(&self) -> f64 {
        to_float(turns()) * self.turn
    }
}

fn turns() -> u64 {
    TURNS.load(Ordering::Relaxed)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn to_float(count: u64) -> f64 {
    count as f64
}

fn turn_forever() {
    let mut turns = 0;
    loop {
        turns += 1;
        TURNS.store(turns, Ordering::Relaxed);
    }
}

/// Lets every other thread of the machine run first, at once.
fn give_way() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "no safe crate sets a scheduling policy")]
    // SAFETY: the pointer is to `parameters`, which the call only reads.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    ensure!(
        result == 0,
        "SCHED_IDLE: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}
