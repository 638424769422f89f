//! What was done and seen, and whether it is as it must be.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::faults::Fault;
use super::killed::{Outcome, Whose};
use super::stage::{Held, Stage};
use super::steady::Steady;
use super::strangers::{Refused, Strangers};
use super::visitors::{Visitors, Visits};

/// What the allocator may keep for later, in bytes.
const KEPT: u64 = 64 << 20;
/// Losses that are told one by one.
const TOLD: usize = 10;

/// Figures of a run.
#[derive(Default)]
pub(super) struct Account {
    faults: BTreeMap<&'static str, usize>,
    most_memory: u64,
    steady: u64,
    bytes: u64,
    visits: Visits,
    refused: Refused,
    killed: BTreeMap<(Whose, Outcome), usize>,
    lost: Vec<String>,
    processes: u64,
    /// Predecessors that stayed for channels which could not be handed over.
    lingered: usize,
    /// Channels that processes have opened, and ended with a reason.
    opened: u64,
    reasons: BTreeMap<String, u64>,
    without_reason: u64,
}

impl Account {
    pub(super) fn injected(&mut self, fault: Fault) {
        *self.faults.entry(fault.name()).or_default() += 1;
    }

    pub(super) fn count(&self, fault: Fault) -> usize {
        self.faults.get(fault.name()).copied().unwrap_or_default()
    }

    pub(super) fn count_all(&self) -> usize {
        self.faults.values().sum()
    }

    pub(super) fn killed(&mut self, whose: Whose, outcome: Outcome) {
        *self.killed.entry((whose, outcome)).or_default() += 1;
    }

    /// Looks at what there is between two faults.
    pub(super) async fn seen(&mut self, stage: &mut Stage) -> Result<()> {
        self.most_memory = self.most_memory.max(stage.held()?.rss);
        for log in stage.left().await? {
            self.lingered += 1;
            self.process(&log);
        }
        Ok(())
    }

    pub(super) async fn strangers(&mut self, mut strangers: Strangers) -> Result<()> {
        while let Some(refused) = strangers.join_next().await {
            match refused? {
                Ok(refused) => {
                    self.refused.guessed += refused.guessed;
                    self.refused.expired += refused.expired;
                }
                Err(error) => self.lost.push(format!("{error:#}")),
            }
        }
        Ok(())
    }

    /// Waits for the end of the channels that were to live.
    pub(super) async fn steady(&mut self, mut steady: Steady) -> Result<()> {
        while let Some(moved) = steady.join_next().await {
            match moved? {
                Ok(bytes) => {
                    self.steady += 1;
                    self.bytes += bytes;
                }
                Err(error) => self.lost.push(format!("{error:#}")),
            }
        }
        Ok(())
    }

    pub(super) async fn visitors(&mut self, mut visitors: Visitors) -> Result<()> {
        while let Some(visits) = visitors.join_next().await {
            match visits? {
                Ok(visits) => {
                    let sum = &mut self.visits;
                    sum.channels += visits.channels;
                    sum.bytes += visits.bytes;
                    sum.requests += visits.requests;
                    sum.refused += visits.refused;
                    sum.resets += visits.resets;
                }
                Err(error) => self.lost.push(format!("{error:#}")),
            }
        }
        Ok(())
    }

    /// Reads the whole log of a process that has ended.
    pub(super) fn process(&mut self, log: &[String]) {
        self.processes += 1;
        for line in log {
            if line.contains("channel open") {
                self.opened += 1;
            } else if line.contains("channel closed") {
                let reason = line.split_once("reason=\"").and_then(|(_, rest)| {
                    let (reason, _) = rest.split_once('"')?;
                    (!reason.is_empty()).then_some(reason)
                });
                match reason {
                    Some(reason) => *self.reasons.entry(reason.to_owned()).or_default() += 1,
                    None => self.without_reason += 1,
                }
            } else if line.contains("panicked") {
                self.lost.push(line.clone());
            }
        }
    }

    /// Ends the gateway.
    pub(super) async fn close(&mut self, stage: Stage) -> Result<()> {
        self.lingered += stage.lingering.len();
        for log in stage.strike().await? {
            self.process(&log);
        }
        Ok(())
    }

    /// The faults, for a person.
    pub(super) fn faults(&self) -> String {
        let counts: Vec<_> = self
            .faults
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        counts.join(", ")
    }

    /// The figures, for a person.
    pub(super) fn lines(&self) -> Vec<String> {
        let Visits {
            channels,
            bytes,
            requests,
            refused,
            resets,
        } = self.visits;
        let reasons: Vec<_> = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let killed: Vec<_> = self
            .killed
            .iter()
            .map(|((whose, outcome), count)| format!("{whose:?}: {} {count}", outcome.name()))
            .collect();
        let Refused { guessed, expired } = self.refused;
        let mut lines = vec![
            format!(
                "channels that lived to the end: {}, bytes verified: {}",
                self.steady, self.bytes
            ),
            format!(
                "channels of visitors: {channels}, bytes verified: {bytes}, reset: {resets}, requests: {requests}, refused while descriptors were short or limits low: {refused}"
            ),
            format!("tickets refused: guessed {guessed}, too old {expired}"),
            format!("faults: {}", self.faults()),
            format!("killed in the middle: {}", killed.join(", ")),
            format!(
                "processes: {}, of which {} stayed for channels that were not handed over",
                self.processes, self.lingered
            ),
            format!(
                "channels opened: {}, ends: {}",
                self.opened,
                reasons.join(", ")
            ),
            format!("most memory: {} MiB", self.most_memory >> 20),
            format!("lost: {}", self.lost.len()),
        ];
        lines.extend(self.lost.iter().take(TOLD).cloned());
        lines
    }

    /// Fails unless everything is as it must be.
    pub(super) fn verdict(&self, before: &Held, after: &Held) -> Result<()> {
        ensure!(self.lost.is_empty(), "lost: {}", self.lost.len());
        let ended: u64 = self.reasons.values().sum();
        ensure!(
            self.without_reason == 0,
            "{} ends without a reason",
            self.without_reason
        );
        ensure!(
            ended == self.opened,
            "{} channels were opened, {ended} have ended",
            self.opened
        );
        ensure!(
            after.descriptors <= before.descriptors,
            "descriptors are kept: {before} before, {after} after"
        );
        ensure!(
            after.rss <= before.rss + KEPT,
            "memory is kept: {before} before, {after} after"
        );
        Ok(())
    }
}
