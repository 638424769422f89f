//! Clients whose tickets are worth nothing: guessed, or kept for too long.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use testkit::flexvdi::FlexVdiClient;
use testkit::prelude::*;
use testkit::ws::Connect;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::stage::{Refusals, Stage, TICKET_LIFE};

/// Where they come from: wrong tickets are counted for each address.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
/// One that nobody was given.
const GUESSED: &str = "AAAAAAAAAAAAAAAA";
/// Between two guesses: few enough that they are not too many.
const BETWEEN_GUESSES: Duration = Duration::from_secs(3);
/// For how long a ticket is kept that is then too old.
const KEPT: Duration = TICKET_LIFE.saturating_add(Duration::from_secs(2));

/// How many tickets were refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) guessed: u64,
    pub(super) expired: u64,
}

/// The strangers.
pub(super) type Strangers = JoinSet<Result<Refused>>;

pub(super) fn start(stage: &Stage, ending: &watch::Receiver<bool>) -> Strangers {
    let mut strangers = JoinSet::new();
    let [tls, plain] = stage.endpoints().map(|endpoint| Stranger {
        endpoint: endpoint.from_source(SOURCE),
        refusals: stage.refusals.clone(),
        ending: ending.clone(),
    });
    strangers.spawn(async move { tls.guess().await.context("a ticket that was guessed") });
    strangers.spawn(async move { plain.wait().await.context("a ticket that is too old") });
    strangers
}

struct Stranger {
    endpoint: Endpoint,
    refusals: Refusals,
    ending: watch::Receiver<bool>,
}

impl Stranger {
    async fn guess(mut self) -> Result<Refused> {
        let mut refused = Refused::default();
        while !self.ends_within(BETWEEN_GUESSES).await {
            refused.guessed += u64::from(self.is_refused(GUESSED).await?);
        }
        Ok(refused)
    }

    async fn wait(mut self) -> Result<Refused> {
        let mut refused = Refused::default();
        loop {
            let desktop = FlexVdiClient::new(&self.endpoint);
            let desktop = self.refusals.bear(desktop.desktop()).await?;
            if self.ends_within(KEPT).await {
                return Ok(refused);
            }
            if let Some(desktop) = desktop {
                refused.expired += u64::from(self.is_refused(&desktop.token).await?);
            }
        }
    }

    async fn ends_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.ending.wait_for(|ends| *ends))
            .await
            .is_ok()
    }

    /// Whether the ticket was refused for what it is; false: new clients might be refused anyway.
    async fn is_refused(&self, ticket: &str) -> Result<bool> {
        let attempt = async {
            let answer = Connect::new(&self.endpoint, ticket).open().await?;
            let answer = answer.refused()?;
            let reason = String::from_utf8_lossy(answer.body()).into_owned();
            ensure!(
                answer.status() == StatusCode::FORBIDDEN && reason.contains("token"),
                "answered with {}: {reason}",
                answer.status()
            );
            Ok(())
        };
        Ok(self.refusals.bear(attempt).await?.is_some())
    }
}
