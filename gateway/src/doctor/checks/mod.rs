//! The checks. A new one is a file here, and its line in [`ALL`].

mod authorities;
mod certificate;
mod clock;
mod configuration;
mod data_path;
mod descriptors;
mod desktops;
mod external_name;
mod failures;
mod files;
mod gateway;
mod hosts;
mod manager;
mod memory;
mod pool;
mod portal;
mod ports;
mod proxies;
mod service;
mod unit;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::finding::Finding;
use super::report::{Line, Report};
use super::scene::Scene;
use crate::background::OWN;

/// All of them, in the order in which they are reported: a trouble comes before what follows from it.
const ALL: &[Check] = &[
    configuration::CHECK,
    files::CHECK,
    certificate::CHECK,
    authorities::CHECK,
    desktops::CHECK,
    pool::CHECK,
    external_name::CHECK,
    proxies::CHECK,
    ports::CHECK,
    descriptors::CHECK,
    memory::CHECK,
    data_path::CHECK,
    manager::CHECK,
    clock::CHECK,
    portal::CHECK,
    hosts::CHECK,
    unit::CHECK,
    service::CHECK,
    gateway::CHECK,
    failures::CHECK,
];

/// What follows from a file with mistakes that the configuration is, or names.
const NOT_TAKEN: &str = "The gateway does not start with it, and a running one keeps what it has";

/// Longest time for a check that says nothing else.
const LIMIT: Duration = Duration::from_secs(10);

/// Something that is looked at.
pub(super) struct Check {
    name: &'static str,
    /// Longest time for all of it.
    limit: Duration,
    /// It makes sense without a configuration that could be read.
    needs_no_configuration: bool,
    work: Work,
}

type Waiting = Pin<Box<dyn Future<Output = Vec<Finding>> + Send>>;

#[derive(Clone, Copy)]
enum Work {
    /// Reads files, for which it blocks a thread.
    Blocking(fn(&Scene) -> Vec<Finding>),
    /// Asks others.
    Waiting(fn(Arc<Scene>) -> Waiting),
}

impl Check {
    /// One that reads files.
    const fn blocking(name: &'static str, work: fn(&Scene) -> Vec<Finding>) -> Self {
        Self::new(name, Work::Blocking(work))
    }

    /// One that asks others.
    const fn waiting(name: &'static str, work: fn(Arc<Scene>) -> Waiting) -> Self {
        Self::new(name, Work::Waiting(work))
    }

    const fn new(name: &'static str, work: Work) -> Self {
        Self {
            name,
            limit: LIMIT,
            needs_no_configuration: false,
            work,
        }
    }

    /// It makes sense without a configuration that could be read.
    const fn always(mut self) -> Self {
        self.needs_no_configuration = true;
        self
    }

    /// At most this long.
    const fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn run(&self, scene: Arc<Scene>) -> Vec<Finding> {
        if !self.needs_no_configuration && !scene.is_configured() {
            let reason = "not looked at, as the configuration cannot be used";
            return vec![Finding::skipped(reason)];
        }
        let work = async {
            match self.work {
                Work::Waiting(work) => work(scene).await,
                Work::Blocking(work) => {
                    let done = OWN.run(self.limit, move || work(&scene)).await;
                    done.unwrap_or_else(|error| vec![Finding::skipped(error.to_string())])
                }
            }
        };
        timeout(self.limit, work).await.unwrap_or_else(|_| {
            vec![Finding::warning(
                format!("not finished within {} s", self.limit.as_secs()),
                "A disk, a name server or a peer does not answer, and the gateway would wait for \
                 it too.",
                "Look what hangs.",
            )]
        })
    }
}

/// Runs all checks at the same time.
pub(super) async fn run(scene: &Arc<Scene>) -> Report {
    let mut running = JoinSet::new();
    for (at, check) in ALL.iter().enumerate() {
        let scene = Arc::clone(scene);
        running.spawn(async move { (at, check.run(scene).await) });
    }
    let mut found = vec![Vec::new(); ALL.len()];
    while let Some(ended) = running.join_next().await {
        // One that panics is missing from the report: the others are worth more than none.
        if let Ok((at, findings)) = ended {
            found[at] = findings;
        }
    }
    let lines = ALL.iter().zip(found).flat_map(|(check, findings)| {
        let findings = if findings.is_empty() {
            vec![Finding::skipped("the check failed; please report this")]
        } else {
            findings
        };
        let line = |finding| Line {
            check: check.name,
            finding,
        };
        findings.into_iter().map(line)
    });
    Report::new(lines.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_check_is_documented() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/troubleshooting.md");
        let document = std::fs::read_to_string(path).unwrap();
        let names: HashSet<_> = ALL.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            assert!(document.contains(&format!("\n| `{name}` | ")), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_left() {
        const HANGS: Check = Check::waiting("x", |_| Box::pin(std::future::pending())).always();
        let scene = Arc::new(Scene::of_nothing());
        let findings = HANGS.run(scene).await;
        assert_eq!(findings.len(), 1);
        assert!(findings[0].found.contains("not finished within 10 s"));
    }

    #[tokio::test]
    async fn without_a_configuration_nothing_is_judged_by_its_defaults() {
        const CHECK: Check = Check::blocking("x", |_| panic!("it is run"));
        let scene = Arc::new(Scene::of_nothing());
        let findings = CHECK.run(scene).await;
        assert!(findings[0].found.starts_with("not looked at"));
    }
}
