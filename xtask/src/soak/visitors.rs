//! Clients that come and go, politely or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::http::Call;
use testkit::net::{Endpoint, reset};
use testkit::pattern::Pattern;
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::stage::{self, Refusals, Stage};
use super::steady::Choice;

/// Longest pause between two visits, in milliseconds.
const LONGEST_PAUSE: u64 = 60;
/// One of so many visitors comes over the line.
const AWAY: usize = 5;

/// What a visitor came to.
#[derive(Debug, Default)]
pub(super) struct Visits {
    pub(super) channels: u64,
    pub(super) bytes: u64,
    pub(super) requests: u64,
    /// Those who were refused while that was to be expected.
    pub(super) refused: u64,
    /// Connections ended by RST.
    pub(super) resets: u64,
}

/// The visitors.
pub(super) type Visitors = JoinSet<Result<Visits>>;

pub(super) fn start(stage: &Stage, count: usize, ending: &watch::Receiver<bool>) -> Visitors {
    let mut visitors = JoinSet::new();
    let (here, away) = (stage.endpoints(), stage.endpoints_away());
    let endpoints = |number| if number % AWAY == 0 { &away } else { &here };
    for number in 0..count {
        let visitor = Visitor {
            endpoint: endpoints(number)[number / 2 % 2].clone(),
            refusals: stage.refusals.clone(),
            verified: Arc::clone(&stage.verified),
            choice: Choice(number as u64 + 1_000_000),
            visits: Visits::default(),
        };
        let ending = ending.clone();
        visitors.spawn(async move {
            visitor
                .visit_on(ending)
                .await
                .with_context(|| format!("visitor {number}"))
        });
    }
    visitors
}

struct Visitor {
    endpoint: Endpoint,
    refusals: Refusals,
    verified: Arc<AtomicU64>,
    choice: Choice,
    visits: Visits,
}

impl Visitor {
    async fn visit_on(mut self, mut ending: watch::Receiver<bool>) -> Result<Visits> {
        while !*ending.borrow() {
            let refusals = self.refusals.clone();
            if refusals.bear(self.visit()).await?.is_none() {
                self.visits.refused += 1;
            }
            let pause = Duration::from_millis(self.choice.below(LONGEST_PAUSE)? as u64);
            let _ = tokio::time::timeout(pause, ending.wait_for(|ends| *ends)).await;
        }
        Ok(self.visits)
    }

    async fn visit(&mut self) -> Result<()> {
        match self.choice.below(6)? {
            0 => {
                // Any answer will do: the manager may hang.
                Call::get(&self.endpoint, "/vdi/page").send().await?;
                self.visits.requests += 1;
                return Ok(());
            }
            1 => {
                drop(self.endpoint.connect().await?);
                return Ok(());
            }
            _ => {}
        }
        let mut channel = stage::open(&self.endpoint).await?;
        self.visits.channels += 1;
        for _ in 0..self.choice.below(4)? {
            let length = self.choice.below(10_000)? + 1;
            let piece = Pattern::new(self.visits.channels).bytes(0, length);
            channel.echo(&piece).await?;
            self.visits.bytes += 2 * length as u64;
            self.verified
                .fetch_add(2 * length as u64, Ordering::Relaxed);
        }
        match self.choice.below(3)? {
            0 => {
                channel.shutdown().await?;
                within("a Close", channel.read_to_end(&mut Vec::new())).await??;
            }
            // As the flexVDI client does.
            1 => drop(channel),
            _ => {
                reset(channel.into_inner().get_ref().tcp())?;
                self.visits.resets += 1;
            }
        }
        Ok(())
    }
}
