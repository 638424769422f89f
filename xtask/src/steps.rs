//! What a person sees of a command: numbered steps, each with its end and its duration.

use std::fmt::Display;
use std::time::Instant;

/// The steps of a command, printed as they happen.
#[derive(Default)]
pub struct Steps {
    finished: Vec<Finished>,
    current: Option<(String, Instant)>,
}

struct Finished {
    title: String,
    seconds: f64,
}

impl Steps {
    /// Begins a step.
    pub fn begin(&mut self, title: impl Into<String>) {
        let title = title.into();
        println!("{:2}. {title}", self.finished.len() + 1);
        self.current = Some((title, Instant::now()));
    }

    /// Says something, below the step that runs.
    pub fn note(&self, text: impl Display) {
        let indent = if self.current.is_some() { "    " } else { "" };
        println!("{indent}- {text}");
    }

    /// Ends the step that runs well.
    pub fn done(&mut self, outcome: impl Display) {
        let Some((title, began)) = self.current.take() else {
            return;
        };
        let seconds = began.elapsed().as_secs_f64();
        println!("    \u{2713} {outcome} ({seconds:.1} s)");
        self.finished.push(Finished { title, seconds });
    }

    /// Says in which step the command failed, and why.
    pub fn failed(&self, error: &anyhow::Error) {
        match &self.current {
            Some((title, began)) => eprintln!(
                "    \u{2717} failed after {:.1} s: {title}\n      {}",
                began.elapsed().as_secs_f64(),
                format!("{error:#}").replace('\n', "\n      ")
            ),
            None => eprintln!("\u{2717} {error:#}"),
        }
    }

    /// Prints all finished steps with their durations.
    pub fn summary(&self) {
        println!("\nSummary");
        for step in &self.finished {
            println!("    \u{2713} {:>7.1} s  {}", step.seconds, step.title);
        }
    }
}
