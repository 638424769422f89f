//! What happens to the gateway and around it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::json;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::Signal;
use testkit::line::Quality;
use testkit::prelude::*;
use testkit::ws::Connect;
use tokio::io::AsyncWriteExt;

use super::account::Account;
use super::killed::{Whose, kill};
use super::stage::{self, Away, Stage, TASKS};
use super::steady::Choice;
use super::successor::{self, break_off};

/// For how long something hangs or is short.
const HANG: Duration = Duration::from_millis(1_500);
/// For a predecessor to end.
const LEAVE: Duration = Duration::from_secs(10);
/// Descriptors that are left when they are short.
const LEFT: usize = 6;
/// What the gateway may have otherwise, as far as this process may have as many.
const PLENTY: usize = 65_536;
/// Tasks that are too few for a start.
const FEW_TASKS: u64 = 10;
/// For how long the line is dead, and for how long it is bad.
const OUTAGE: Duration = Duration::from_secs(2);
const BAD_TIMES: Duration = Duration::from_secs(3);
/// Latest moment at which a process is killed, in milliseconds since the successor was started.
const LATEST_KILL: u64 = 1_000;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Reload,
    BrokenConfiguration,
    Certificate,
    HostHang,
    ManagerHang,
    TakeOver,
    TakeOverBrokenOff,
    NoDescriptors,
    NoTasks,
    Limits,
    LineDead,
    LineBad,
    SuccessorKilled,
    PredecessorKilled,
}

impl Fault {
    pub(super) const ALL: [Self; 14] = [
        Self::Reload,
        Self::TakeOverBrokenOff,
        Self::LineDead,
        Self::Certificate,
        Self::SuccessorKilled,
        Self::HostHang,
        Self::TakeOver,
        Self::NoTasks,
        Self::NoDescriptors,
        Self::Limits,
        Self::ManagerHang,
        Self::PredecessorKilled,
        Self::LineBad,
        Self::BrokenConfiguration,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reload => "configuration changed",
            Self::BrokenConfiguration => "configuration broken and mended",
            Self::Certificate => "certificate renewed",
            Self::HostHang => "hosts hang",
            Self::ManagerHang => "manager hangs",
            Self::TakeOver => "taken over",
            Self::TakeOverBrokenOff => "successor gone while it takes over",
            Self::NoDescriptors => "descriptors short",
            Self::NoTasks => "no more threads",
            Self::Limits => "limits of clients lowered and raised",
            Self::LineDead => "line dead",
            Self::LineBad => "line bad",
            Self::SuccessorKilled => "successor killed",
            Self::PredecessorKilled => "predecessor killed",
        }
    }

    /// Lets it happen, and its end.
    pub(super) async fn inject(self, stage: &mut Stage, account: &mut Account) -> Result<()> {
        match self {
            Self::Reload => {
                let keep_alive = json!(5 + account.count(self) % 2);
                stage.gateway.change_config(&[("KeepAlive", keep_alive)])?;
                reload(stage, "reloaded").await
            }
            Self::BrokenConfiguration => {
                stage
                    .gateway
                    .change_config(&[("KeepAlive", json!("often"))])?;
                reload(stage, "not reloaded").await?;
                stage.gateway.change_config(&[("KeepAlive", json!(5))])?;
                reload(stage, "reloaded").await
            }
            Self::Certificate => renew(stage).await,
            Self::HostHang => {
                stage.host_hangs.send_replace(true);
                tokio::time::sleep(HANG).await;
                stage.host_hangs.send_replace(false);
                Ok(())
            }
            Self::ManagerHang => {
                stage.manager_hangs.send_replace(true);
                tokio::time::sleep(HANG).await;
                stage.manager_hangs.send_replace(false);
                Ok(())
            }
            Self::TakeOver => {
                let successor = stage.successor().spawn().await?;
                let mut before = std::mem::replace(&mut stage.gateway, successor);
                match tokio::time::timeout(LEAVE, before.wait()).await {
                    Ok(status) => {
                        let status = status?;
                        ensure!(status.success(), "the predecessor ended with {status}");
                        account.process(&before.log().await);
                    }
                    // Channels that cannot be handed over go on where they are.
                    Err(_) => stage.lingering.push(before),
                }
                Ok(())
            }
            Self::TakeOverBrokenOff => {
                for reached in 0..successor::STAGES {
                    break_off(stage, reached).await?;
                }
                Ok(())
            }
            Self::NoDescriptors => no_descriptors(stage).await,
            Self::NoTasks => no_tasks(stage).await,
            Self::Limits => limits(stage).await,
            Self::LineDead => {
                stage.away.line.interrupt(OUTAGE).await;
                Ok(())
            }
            Self::LineBad => {
                let bad = Quality::new(Duration::from_millis(60), 8_000_000)
                    .losing(0.03, 2.0)
                    .varying(Duration::from_millis(10))
                    .doubling(0.01)
                    .reordering(0.02, Duration::from_millis(20));
                stage.away.line.set(bad);
                tokio::time::sleep(BAD_TIMES).await;
                stage.away.line.set(Away::usual());
                Ok(())
            }
            Self::SuccessorKilled => killed(stage, account, self, Whose::Successor).await,
            Self::PredecessorKilled => killed(stage, account, self, Whose::Predecessor).await,
        }
    }
}

async fn no_descriptors(stage: &Stage) -> Result<()> {
    let refusing = stage.refusals.begin();
    let open = stage.gateway.open_fds()?;
    stage.gateway.limit_open_files(open + LEFT)?;
    tokio::time::sleep(HANG).await;
    stage.gateway.limit_open_files(PLENTY)?;
    // Those that wait to be accepted are served first.
    tokio::time::sleep(HANG).await;
    drop(refusing);
    Ok(())
}

/// Everything goes on, but for a successor that cannot start.
async fn no_tasks(stage: &Stage) -> Result<()> {
    stage.gateway.limit_tasks(0)?;
    for endpoint in stage.endpoints() {
        let mut channel = stage::open(&endpoint).await?;
        channel.echo(b"without further threads").await?;
        channel.shutdown().await?;
    }
    reload(stage, "reloaded").await?;
    let started = stage.successor().tasks(FEW_TASKS).spawn().await;
    let error = started.err().context("it starts without threads")?;
    ensure!(error.to_string().contains("exit status: 71"), error);
    tokio::time::sleep(HANG).await;
    stage.gateway.limit_tasks(TASKS)
}

/// Who has more than he may have keeps it, and is refused more.
async fn limits(stage: &Stage) -> Result<()> {
    const KEY: &str = "MaxChannelsPerAddress";
    let [endpoint, _] = stage.endpoints();
    let refusing = stage.refusals.begin();
    let ticket = FlexVdiClient::new(&endpoint).desktop().await?.token;
    stage.gateway.change_config(&[(KEY, json!(1))])?;
    reload(stage, "reloaded").await?;
    let answer = Connect::new(&endpoint, &ticket).open().await?.refused()?;
    let status = answer.status();
    ensure!(status == StatusCode::TOO_MANY_REQUESTS, "{status}");
    stage.gateway.change_config(&[(KEY, json!(0))])?;
    reload(stage, "reloaded").await?;
    drop(refusing);
    Ok(())
}

async fn killed(stage: &Stage, account: &mut Account, fault: Fault, whose: Whose) -> Result<()> {
    // Other moments each time, and the same in each run.
    let mut choice = Choice(account.count(fault) as u64);
    choice.below(1)?;
    let after = Duration::from_millis(choice.below(LATEST_KILL)? as u64);
    let outcome = kill(stage, whose, after).await?;
    account.killed(whose, outcome);
    Ok(())
}

/// Has the gateway read its configuration, and waits until it has said `outcome` once more.
async fn reload(stage: &Stage, outcome: &str) -> Result<()> {
    // "not reloaded" holds the word, too.
    let says = |line: &str| {
        line.contains(outcome) && (outcome != "reloaded" || !line.contains("not reloaded"))
    };
    let lines = stage.gateway.log().await;
    let before = lines.iter().filter(|line| says(line)).count();
    stage.gateway.signal(Signal::HUP)?;
    stage
        .gateway
        .wait_for_another(before, says, PATIENCE)
        .await?;
    Ok(())
}

/// Replaces certificate and key, and waits until clients are shown the new one.
async fn renew(stage: &Stage) -> Result<()> {
    let fresh = TestCert::new()?;
    stage.cert.replace_files(&fresh)?;
    let renewed = async {
        loop {
            let connection = stage.gateway.tls().connect().await?;
            let tls = connection.tls().context("a TLS connection")?;
            let shown = tls.peer_certificates().and_then(|chain| chain.first());
            if shown == Some(fresh.leaf()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    within("the new certificate", renewed).await?
}
