//! Whether the data path `ktls` works: the kernel protects bytes of each suite on loopback, and
//! takes them through a pipe.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::round_trip::{self, pair};
use super::{Finding, Part};
use crate::ktls::{self, Direction, Key, KtlsStream, Suite, Support, begin};
use crate::{Carrier, Framing};

/// Longest probe of one part.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are sent with a suite: several records, and a part of one.
const LENGTH: usize = 100_003;
/// Buffers between the gateway and the client of the spliced channel, in bytes: together much
/// less than is sent.
const BUFFER: usize = 32_768;
/// After that time they are full.
const LATE: Duration = Duration::from_millis(3);
/// Keys of the probe; nothing secret is protected with them.
const KEYS: [u8; 2] = [0x5a, 0xa5];
const NEW_KEY: u8 = 0x3c;
const REFUSED: &str = "the kernel takes no TLS keys (module tls)";
/// Numbers of the first records, as after a handshake.
const SEQUENCES: [u64; 2] = [3, 255];

/// What was found out.
#[derive(Default)]
pub(super) struct Report {
    /// Why nothing was tried.
    problem: Option<anyhow::Error>,
    parts: Vec<Part>,
    support: Support,
}

impl Report {
    /// A suite that works.
    pub(super) fn suite(&self) -> Option<Suite> {
        self.support.suites.first().copied()
    }

    /// The path works when one suite does; the reason is that of the first one.
    pub(super) fn finding(mut self, begun: Instant) -> Finding {
        if !self.support.suites.is_empty() {
            let finding = Finding::new("ktls", begun, Ok(()));
            return Finding {
                parts: self.parts,
                support: Some(self.support),
                ..finding
            };
        }
        let first = self.parts.first_mut().and_then(|part| part.reason.take());
        let problem = self
            .problem
            .unwrap_or_else(|| anyhow!(first.unwrap_or_default()));
        Finding::new("ktls", begun, Err(problem))
    }
}

pub(super) async fn probe() -> Report {
    let mut report = Report::default();
    if let Err(problem) = ask().await {
        report.problem = Some(problem);
        return report;
    }
    for suite in Suite::ALL {
        if report.add(suite.name(), carry(suite)).await {
            report.support.suites.push(suite);
        }
    }
    if let Some(suite) = report.support.suites.first().copied() {
        report.support.splice = report.add("splice", splice(suite)).await;
        report.support.new_keys = report.add("new keys", renew(suite)).await;
    }
    report
}

impl Report {
    async fn add(
        &mut self,
        name: &'static str,
        attempt: impl Future<Output = anyhow::Result<()>>,
    ) -> bool {
        let outcome = timeout(LIMIT, attempt)
            .await
            .unwrap_or_else(|_| Err(anyhow!("bytes did not arrive in time")));
        let part = Part::new(name, outcome);
        let works = part.works;
        self.parts.push(part);
        works
    }
}

/// Whether the kernel knows TLS, if need be by a module that is loaded for it, and may be relied on.
async fn ask() -> anyhow::Result<()> {
    find().await?;
    ktls::refuse_faulty()
}

async fn find() -> anyhow::Result<()> {
    let (near, _far) = pair().await?;
    match ktls::ask(&near) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        asked => return asked.context("the kernel refuses TLS on a socket"),
    }
    let none = "the kernel has no TLS";
    // Blocks only in a process that may load modules, which none may that has clients.
    let loading = spawn_blocking(ktls::module::load);
    timeout(LIMIT, loading)
        .await
        .context(none)?
        .context(none)?
        .context(none)?;
    ktls::ask(&near).context(none)
}

/// Sends bytes each way and an orderly end.
async fn carry(suite: Suite) -> anyhow::Result<()> {
    let (near, far) = pair().await?;
    let (near, far) = protect(suite, near, far, None)?;
    tokio::try_join!(exchange(near), exchange(far))?;
    Ok(())
}

/// Moves a channel and a tunnel through pipes, whose client begins to read when the gateway's send
/// buffer is full: some kernels then drop bytes in silence.
async fn splice(suite: Suite) -> anyhow::Result<()> {
    for framing in [Framing::WebSocket, Framing::Raw] {
        splice_framed(suite, framing).await?;
    }
    Ok(())
}

async fn splice_framed(suite: Suite, framing: Framing) -> anyhow::Result<()> {
    let carry = |client, client_leg, host_leg| {
        SockRef::from(&client_leg).set_send_buffer_size(BUFFER)?;
        SockRef::from(&client).set_recv_buffer_size(BUFFER)?;
        let (near, far) = protect(suite, client_leg, client, Some(0))?;
        Ok((far, Carrier::Ktls(Box::new(near), host_leg)))
    };
    round_trip::run_protected(carry, framing, LATE).await
}

/// Changes the key of one direction, and sends bytes each way.
async fn renew(suite: Suite) -> anyhow::Result<()> {
    let (near, far) = pair().await?;
    let (near, far) = protect(suite, near, far, None)?;
    let key = vec![NEW_KEY; suite.key_len()];
    let key =
        Key::from_parts(suite, &key, [NEW_KEY; 12], 0).context("a key of the wrong length")?;
    let refused = "the kernel takes one key only";
    near.replace(Direction::Transmit, &key).context(refused)?;
    far.replace(Direction::Receive, &key).context(refused)?;
    tokio::try_join!(exchange(near), exchange(far))?;
    Ok(())
}

/// The same keys on both ends of a connection, without a handshake.
fn protect(
    suite: Suite,
    near: TcpStream,
    far: TcpStream,
    splice_from: Option<usize>,
) -> anyhow::Result<(KtlsStream, KtlsStream)> {
    let [one, other] = keys(suite)?;
    let near = begin(near, &one, &other, splice_from).context(REFUSED)?;
    let far = open(far, &other, &one)?;
    Ok((near, far))
}

/// The keys of both directions.
pub(super) fn keys(suite: Suite) -> anyhow::Result<[Key; 2]> {
    let [one, other] = [0, 1].map(|index| {
        let key = vec![KEYS[index]; suite.key_len()];
        Key::from_parts(suite, &key, [KEYS[index]; 12], SEQUENCES[index])
    });
    let (one, other) = one.zip(other).context("keys of the wrong length")?;
    Ok([one, other])
}

/// The client's end of a connection.
pub(super) fn open(client: TcpStream, own: &Key, theirs: &Key) -> anyhow::Result<KtlsStream> {
    begin(client, own, theirs, None).context(REFUSED)
}

async fn exchange(stream: KtlsStream) -> anyhow::Result<()> {
    let sent: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let mut received = Vec::with_capacity(LENGTH);
    let read = reader.read_to_end(&mut received);
    let ((), len) = tokio::try_join!(write, read)?;
    ensure!(
        len == LENGTH && received == sent,
        "other bytes arrived than were sent"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
    async fn every_suite_works() {
        let report = probe().await;
        assert_eq!(report.support.suites, Suite::ALL);
        assert!(report.support.splice, "{:?}", report.parts);
    }

    #[tokio::test]
    async fn without_a_suite_that_works_there_is_a_reason() {
        let finding = probe().await.finding(Instant::now());
        assert_eq!(finding.works, finding.support.is_some());
        if !finding.works {
            assert!(finding.reason.is_some_and(|reason| !reason.is_empty()));
        }
    }
}
