//! What this kernel carries: each data path is tried with real bytes on loopback.
//!
//! Version numbers do not tell: distributions take changes over, and privileges differ.

mod relay;
mod round_trip;
mod sockmap;

use std::time::{Duration, Instant};

use serde::Serialize;

/// What was found out about one data path.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Name of the data path.
    pub path: &'static str,
    /// It moved the probe's bytes, all of them and in order.
    pub works: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the probe took.
    pub microseconds: u64,
}

/// Tries every data path, for some milliseconds each. Must be called in a runtime.
pub async fn run() -> Vec<Finding> {
    let mut findings = Vec::new();
    let begun = Instant::now();
    findings.push(Finding::new("relay", begun, relay::probe().await));
    let begun = Instant::now();
    findings.push(Finding::new("sockmap", begun, sockmap::probe().await));
    findings
}

impl Finding {
    fn new(path: &'static str, begun: Instant, outcome: anyhow::Result<()>) -> Self {
        Self {
            path,
            works: outcome.is_ok(),
            reason: outcome.err().map(|error| format!("{error:#}")),
            microseconds: microseconds(begun.elapsed()),
        }
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The findings as a table for people.
pub fn table(findings: &[Finding]) -> String {
    let mut text = String::from("path      works  reason\n");
    for finding in findings {
        let works = if finding.works { "yes" } else { "no" };
        let reason = finding.reason.as_deref().unwrap_or_default();
        let line = format!("{:<9} {works:<6} {reason}", finding.path);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_relay_always_works() {
        let findings = run().await;
        assert!(findings[0].works, "{findings:?}");
        assert_eq!(findings[1].works, findings[1].reason.is_none());
        assert!(table(&findings).starts_with("path      works  reason\nrelay     yes\n"));
    }
}
