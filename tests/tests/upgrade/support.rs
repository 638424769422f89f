//! What several topics need.

use std::path::Path;

use testkit::gateway::GatewayBuilder;
use testkit::pattern::UPLINK;
use testkit::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A gateway without hijacking and without manager, on both ports.
pub(crate) fn port_gateway() -> GatewayBuilder {
    Gateway::builder().set("HijackAll", false).plain()
}

/// A gateway that is to take over from `gateway`, configured further by `builder`.
pub(crate) async fn successor_of(gateway: &Gateway, builder: GatewayBuilder) -> Gateway {
    successor_in(&gateway.runtime_dir(), gateway, builder).await
}

/// The same where the first of all gateways has its sockets in this directory.
pub(crate) async fn successor_in(
    directory: &Path,
    gateway: &Gateway,
    builder: GatewayBuilder,
) -> Gateway {
    let plain = gateway.plain_addr().port();
    builder
        .set("RuntimeDir", directory.to_str().unwrap())
        .set("PlainPort", plain)
        .arg("run")
        .arg("--take-over")
        .spawn()
        .await
        .unwrap()
}

/// Has so many gateways follow one another while there is traffic, which none of them may end.
/// Returns the last one, and those that were before it.
pub(crate) async fn replace_in_turn(
    mut gateway: Gateway,
    upgrades: usize,
    configured: impl Fn() -> GatewayBuilder,
    traffic: &mut [Traffic],
) -> (Gateway, Vec<Gateway>) {
    // The directory goes with the first one.
    let directory = gateway.runtime_dir();
    let mut gone = Vec::new();
    for _ in 0..upgrades {
        let successor = successor_in(&directory, &gateway, configured()).await;
        assert!(gateway.wait().await.unwrap().success());
        let left = gateway.log().await;
        let closed = |line: &&String| line.contains("channel closed");
        assert_eq!(left.iter().find(closed), None);
        gone.push(std::mem::replace(&mut gateway, successor));
        all_go_on(traffic).await;
    }
    (gateway, gone)
}

/// Waits until one more hand-over has failed than the `before` that had, and shows that the traffic
/// goes on.
pub(crate) async fn expect_failure(gateway: &Gateway, before: usize, traffic: &mut [Traffic]) {
    let failed = |line: &str| line.contains("hand-over failed");
    gateway
        .wait_for_another(before, failed, PATIENCE)
        .await
        .unwrap();
    all_go_on(traffic).await;
}

/// Shows that the traffic goes on.
pub(crate) async fn all_go_on(traffic: &mut [Traffic]) {
    for traffic in traffic {
        traffic.goes_on().await;
    }
}

/// Ends the traffic, and shows that silent channels go on.
pub(crate) async fn finish(traffic: Vec<Traffic>, silent: &mut [ws::Channel]) {
    for traffic in traffic {
        assert!(traffic.finish().await > 0);
    }
    for channel in silent {
        channel.echo(b"still here").await.unwrap();
    }
}

/// Verified traffic in both directions that goes on until it is told to end.
pub(crate) struct Traffic {
    end: watch::Sender<bool>,
    sent: watch::Receiver<u64>,
    received: watch::Receiver<u64>,
    tasks: [JoinHandle<()>; 2],
}

impl Traffic {
    /// Over a channel to a host that echoes, in pieces of this many bytes.
    pub(crate) fn start(
        channel: impl AsyncRead + AsyncWrite + Send + 'static,
        piece: usize,
    ) -> Self {
        let (mut reader, mut writer) = tokio::io::split(channel);
        let (end, ending) = watch::channel(false);
        let (sender, sent) = watch::channel(0);
        let (counter, received) = watch::channel(0);
        let mut all_sent = sent.clone();
        let write = async move {
            let mut at = 0;
            while !*ending.borrow() {
                let bytes = UPLINK.bytes(at, piece);
                writer.write_all(&bytes).await.unwrap();
                writer.flush().await.unwrap();
                at += bytes.len() as u64;
                sender.send_replace(at);
                tokio::task::yield_now().await;
            }
        };
        let read = async move {
            let mut at = 0;
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let all = async { all_sent.wait_for(|sent| *sent < at).await.is_err() };
                let read = tokio::select! {
                    read = reader.read(&mut buffer) => Some(read.unwrap()),
                    // The writer has ended, and so has `sent`, which says how much is to come.
                    _ = all => None,
                };
                let len = match read {
                    Some(len) => len,
                    None if at == *all_sent.borrow() => return,
                    None => {
                        let rest = within("the rest", reader.read(&mut buffer)).await;
                        rest.unwrap().unwrap()
                    }
                };
                assert!(len > 0, "the channel has ended");
                UPLINK.check(at, &buffer[..len]).unwrap();
                at += len as u64;
                counter.send_replace(at);
            }
        };
        Self {
            end,
            sent,
            received,
            tasks: [tokio::spawn(write), tokio::spawn(read)],
        }
    }

    /// Waits until bytes have come that were sent after this call. However slow a busy machine is,
    /// some come from time to time.
    pub(crate) async fn goes_on(&mut self) {
        let mark = *self.sent.borrow() + 1;
        while *self.received.borrow_and_update() < mark {
            within("traffic", self.received.changed())
                .await
                .unwrap()
                .unwrap();
        }
    }

    /// Ends it, reads the rest, and says how many bytes went each way.
    pub(crate) async fn finish(mut self) -> u64 {
        self.end.send_replace(true);
        let [write, mut read] = self.tasks;
        within("end of what is sent", write).await.unwrap().unwrap();
        loop {
            tokio::select! {
                ended = &mut read => break ended.unwrap(),
                more = within("the rest", self.received.changed()) => {
                    // The reader may have ended, which shows in the other branch.
                    let _ = more.unwrap();
                }
            }
        }
        let received = *self.received.borrow();
        assert_eq!(received, *self.sent.borrow());
        received
    }
}
