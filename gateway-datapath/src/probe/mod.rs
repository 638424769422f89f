//! What this kernel carries: each data path is tried with real bytes on loopback.
//!
//! Version numbers do not tell: distributions take changes over, and privileges differ.

mod ktls;
mod ktls_sockmap;
mod relay;
pub(crate) mod round_trip;
mod sockmap;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::DataPath;
use super::ktls::Support;

/// What was found out about one data path.
#[derive(Clone, Debug, Serialize)]
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
    /// What was found out about its parts, where some may work and others not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// The same for the data path `ktls`.
    #[serde(skip)]
    pub support: Option<Support>,
}

/// What was found out about a part of a data path.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Which one: a version and cipher of TLS, `splice`, or a kind of host.
    pub name: &'static str,
    /// It carried the probe's bytes, all of them and in order.
    pub works: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which data paths are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All but `ktls-sockmap`: kernels that carry that one have faults in it, so it is tried only
    /// for those who ask.
    Usual,
    /// All.
    All,
}

impl DataPath {
    /// Which paths are tried before it is used.
    pub const fn tried(self) -> Extent {
        match self {
            Self::KtlsSockmap => Extent::All,
            Self::Auto | Self::Relay | Self::Sockmap | Self::Ktls => Extent::Usual,
        }
    }
}

/// Tries data paths, for some milliseconds each. Must be called in a runtime. `programs` is where
/// somebody may have loaded eBPF programs for this process.
pub async fn run(extent: Extent, programs: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let begun = Instant::now();
    findings.push(Finding::new("relay", begun, relay::probe().await));
    let begun = Instant::now();
    let sockmap = sockmap::probe(programs).await;
    let (outcome, parts) = match sockmap {
        Ok(parts) => (Ok(()), parts),
        Err(error) => (Err(error), Vec::new()),
    };
    findings.push(Finding {
        parts,
        ..Finding::new("sockmap", begun, outcome)
    });
    let begun = Instant::now();
    let ktls = ktls::probe().await;
    let suite = ktls.suite();
    findings.push(ktls.finding(begun));
    if extent == Extent::All {
        let begun = Instant::now();
        let ktls_sockmap = ktls_sockmap::probe(suite, programs).await;
        findings.push(Finding::new("ktls-sockmap", begun, ktls_sockmap));
    }
    findings
}

/// Whether a data path was found to work.
pub fn works(findings: &[Finding], path: &str) -> bool {
    let works = |finding: &Finding| finding.path == path && finding.works;
    findings.iter().any(works)
}

/// What was found of `ktls`; nothing where it does not work.
pub fn support(findings: &[Finding]) -> Support {
    let found = findings.iter().find_map(|finding| finding.support.clone());
    found.unwrap_or_default()
}

impl Part {
    fn new(name: &'static str, outcome: anyhow::Result<()>) -> Self {
        Self {
            name,
            works: outcome.is_ok(),
            reason: outcome.err().map(|error| format!("{error:#}")),
        }
    }
}

impl Finding {
    fn new(path: &'static str, begun: Instant, outcome: anyhow::Result<()>) -> Self {
        Self {
            path,
            works: outcome.is_ok(),
            reason: outcome.err().map(|error| format!("{error:#}")),
            microseconds: microseconds(begun.elapsed()),
            parts: Vec::new(),
            support: None,
        }
    }

    /// Names of the parts that work, for a person.
    pub fn working_parts(&self) -> String {
        let working = self.parts.iter().filter(|part| part.works);
        working.map(|part| part.name).collect::<Vec<_>>().join(", ")
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Width of the first column.
const NAME: usize = 12;

/// The findings as a table for people.
pub fn table(findings: &[Finding]) -> String {
    let mut text = format!("{:<NAME$} works  reason\n", "path");
    for finding in findings {
        text.push_str(&line(
            finding.path,
            NAME,
            finding.works,
            finding.reason.as_deref(),
        ));
        for part in &finding.parts {
            let name = format!("  {}", part.name);
            text.push_str(&line(&name, 27, part.works, part.reason.as_deref()));
        }
    }
    text
}

fn line(name: &str, width: usize, works: bool, reason: Option<&str>) -> String {
    let works = if works { "yes" } else { "no" };
    let reason = reason.unwrap_or_default();
    let line = format!("{name:<width$} {works:<6} {reason}");
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_relay_always_works() {
        let findings = run(Extent::All, Path::new("/nowhere")).await;
        assert!(findings[0].works, "{findings:?}");
        assert_eq!(findings[1].works, findings[1].reason.is_none());
        assert!(table(&findings).starts_with("path         works  reason\nrelay        yes\n"));
    }
}
