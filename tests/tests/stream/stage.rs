//! A running gateway with a host behind it, and what its log and its descriptors say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::prelude::*;
use tokio::net::TcpStream;

use crate::channel::{Channel, open, target};

/// What stands before a host, with the files that it needs.
#[expect(dead_code, reason = "it only has to be there")]
pub(crate) enum Before {
    Tls(Front, TestCert),
    Unix(Front, TempDir),
}

/// A running gateway and a host behind it.
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) endpoint: Endpoint,
    pub(crate) host: Host<TcpStream>,
    path: &'static str,
    /// Before the first channel.
    open_fds: usize,
    /// What the gateway reaches the host by, and where that lies.
    _front: Option<Before>,
}

impl Stage {
    /// With a gateway that has no channel yet; `path` is the data path by its name.
    pub(crate) fn new(
        gateway: Gateway,
        endpoint: Endpoint,
        host: Host<TcpStream>,
        path: &'static str,
        front: Option<Before>,
    ) -> Result<Self> {
        let open_fds = gateway.open_fds_but_pipes()?;
        Ok(Self {
            gateway,
            endpoint,
            host,
            path,
            open_fds,
            _front: front,
        })
    }

    /// Opens a channel to the stage's host, whose link message has arrived there.
    pub(crate) async fn open(&self) -> Result<Channel> {
        let channel = open(&self.endpoint, &self.host, &target(&self.host)).await?;
        self.expect_path().await?;
        Ok(channel)
    }

    /// Checks that the first channel took the data path that is to be tested.
    pub(crate) async fn expect_path(&self) -> Result<()> {
        self.expect_path_in(&self.wait_for_log("channel open").await?)
    }

    /// The same, where the log says something about a channel.
    pub(crate) fn expect_path_in(&self, line: &str) -> Result<()> {
        let path = format!("path=\"{}\"", self.path);
        ensure!(
            line.contains(&path),
            "{line:?} names another data path: see its log; without the eBPF programs run \
             `cargo xtask build-ebpf && cargo build -p gateway`; for kernel TLS \
             `cargo xtask vm-test`"
        );
        Ok(())
    }

    /// Whether clients may change their TLS keys: kernels before 6.14 take none but the first.
    pub(crate) async fn follows_new_keys(&self) -> bool {
        let is_ktls = |line: &String| line.contains("data path") && line.contains("path=\"ktls\"");
        let finding = self.gateway.log().await.into_iter().find(is_ktls);
        self.path == "relay" || finding.is_some_and(|line| line.contains("new keys"))
    }

    /// Waits for a line of the log with this text.
    pub(crate) async fn wait_for_log(&self, text: &str) -> Result<String> {
        let has_text = |line: &str| line.contains(text);
        self.gateway.wait_for_log(has_text, PATIENCE).await
    }

    /// Waits for a line of the log that says that a channel has ended for this reason.
    pub(crate) async fn expect_reason(&self, reason: &str) -> Result<()> {
        self.closing_line(reason).await.map(drop)
    }

    /// The same, and gives back the line.
    pub(crate) async fn closing_line(&self, reason: &str) -> Result<String> {
        let is_wanted = |line: &str| line.contains("channel closed") && line.contains(reason);
        let line = self.gateway.wait_for_log(is_wanted, PATIENCE).await;
        line.with_context(|| format!("no channel ended for the reason {reason:?}"))
    }

    /// Waits until the gateway has no more descriptors open than before the first channel.
    pub(crate) async fn expect_no_channel(&self) -> Result<()> {
        within("closing of all descriptors", async {
            while self.gateway.open_fds_but_pipes()? > self.open_fds {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        })
        .await?
    }
}

/// Tells a test that failed what the gateway had to say; of others the output is not shown.
impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(status) = self.gateway.ended() {
            println!("the gateway has ended: {status}");
        }
        println!("log of the gateway, its end:\n{}", self.gateway.log_tail());
    }
}
