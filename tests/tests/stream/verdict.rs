//! What the peers of a random run must have seen in the end.

use anyhow::{Context, Result, ensure};
use testkit::net::StreamEnd;
use testkit::pattern::Mismatch;
use testkit::ws::Frame;

use crate::plan::{ClientEnd, HostEnd, Plan};

/// What the client saw, unless it vanished.
#[derive(Debug, Default)]
pub(crate) struct ClientSaw {
    pub(crate) down: u64,
    /// The Close frame, if one came.
    pub(crate) close: Option<Frame>,
    pub(crate) end: Option<StreamEnd>,
}

/// What happens to a channel that its peers have not planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// Nothing.
    None,
    /// The gateway may end it with Close 1001.
    GatewayEnds,
    /// The connection to the client breaks.
    ClientBreaks,
    /// The connection to the host breaks.
    HostBreaks,
}

/// What both peers saw; `None` for one that vanished.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) client: Result<Option<ClientSaw>>,
    /// How much came before the end.
    pub(crate) host: Result<Option<u64>>,
}

impl Round {
    /// Checks that whoever could see the other's end has seen all that came before.
    pub(crate) fn check(self, plan: &Plan, disturbance: Disturbance) -> Result<()> {
        match self.client {
            Err(error) if disturbance == Disturbance::ClientBreaks => tolerate(error)?,
            Ok(_) if disturbance == Disturbance::ClientBreaks => {}
            client => {
                if let Some(saw) = client.context("client")? {
                    let checked = saw.check(plan, disturbance);
                    checked.with_context(|| format!("{saw:?}"))?;
                }
            }
        }
        match self.host {
            Err(error) if disturbance == Disturbance::HostBreaks => tolerate(error)?,
            Ok(_) if disturbance == Disturbance::HostBreaks => {}
            host => {
                if let Some(up) = host.context("host")? {
                    let total = plan.up_total();
                    let may_miss =
                        plan.client_vanishes() || disturbance == Disturbance::ClientBreaks;
                    ensure!(
                        up == total || may_miss && up < total,
                        "the host received {up} of {total} bytes"
                    );
                }
            }
        }
        Ok(())
    }
}

/// A peer whose connection broke may fail in any way but one: bytes must be right.
fn tolerate(error: anyhow::Error) -> Result<()> {
    let is_wrong = error.chain().any(<dyn std::error::Error>::is::<Mismatch>);
    if is_wrong { Err(error) } else { Ok(()) }
}

impl ClientSaw {
    fn check(&self, plan: &Plan, disturbance: Disturbance) -> Result<()> {
        let code = self.close.as_ref().context("no Close")?.close_code();
        ensure!(self.end == Some(StreamEnd::Closed), "no orderly end");
        if disturbance == Disturbance::GatewayEnds && code == Some(1001) {
            return Ok(());
        }
        let host_breaks =
            plan.host_end == HostEnd::Vanish || disturbance == Disturbance::HostBreaks;
        // The host's end may be faster than the client's.
        let of_host = match plan.host_end {
            // A broken connection may look like an ended one.
            _ if host_breaks => matches!(code, Some(1000 | 1011)),
            HostEnd::Fin | HostEnd::FinAfterAll => code == Some(1000),
            HostEnd::AfterClient | HostEnd::Vanish => false,
        };
        let of_client = match plan.client_end {
            ClientEnd::Close(own) => code == own,
            ClientEnd::Violate => code == Some(1002),
            // The host ends when the client did.
            ClientEnd::Fin | ClientEnd::FinAfterAll => {
                plan.host_end == HostEnd::AfterClient && code == Some(1000)
            }
            ClientEnd::AfterHost | ClientEnd::Vanish => false,
        };
        ensure!(of_host || of_client, "an unexpected code");
        let hears_all = plan.client_ends() || plan.client_end == ClientEnd::AfterHost;
        ensure!(
            self.down == plan.down_total() || host_breaks || !hears_all,
            "only a part of the host's {} bytes",
            plan.down_total()
        );
        Ok(())
    }
}
