//! The line that tells how far a run is.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

use super::statistics::{count, float};

/// How far a run is; told on standard error.
pub(crate) struct Progress {
    steps: u64,
    done: u64,
    began: Instant,
    is_terminal: bool,
}

impl Progress {
    /// A run of this many measurements.
    pub(crate) fn new(steps: usize) -> Self {
        Self {
            steps: steps as u64,
            done: 0,
            began: Instant::now(),
            is_terminal: stderr().is_terminal(),
        }
    }

    /// Tells what is measured next.
    pub(crate) fn step(&mut self, what: &str) {
        let share = float(self.done) / float(self.steps.max(1));
        self.done += 1;
        if !self.is_terminal {
            return;
        }
        let elapsed = self.began.elapsed().as_secs_f64();
        let left = if share > 0.02 {
            format!(", about {} s left", count(elapsed / share - elapsed))
        } else {
            String::new()
        };
        eprint!("\r\x1b[K[{:3} %{left}] {what}", count(share * 100.0));
        // A progress line that cannot be written is no reason to stop.
        let _ = stderr().flush();
    }

    /// Tells something that shall stay.
    pub(crate) fn say(&self, text: &str) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
        eprintln!("{text}");
    }
}
