//! The ways in which an established channel's bytes move.
//!
//! A data path knows two byte streams and the rule that frames one of them; nothing of HTTP,
//! tickets or configuration files.

mod answers;
mod bounds;
pub mod buffer;
mod carrier;
mod carrier_state;
mod choice;
mod client_stream;
pub mod congestion;
mod data_path;
pub mod encoded;
pub mod end_reason;
mod ending;
mod framing;
mod host_stream;
mod inbound;
mod kernel_count;
mod kernel_release;
pub mod ktls;
pub mod label;
mod legs;
pub mod measure;
mod moderation;
pub mod os;
mod outbound;
mod pipe;
pub mod probe;
mod queues;
mod received_socket;
pub mod relay;
mod rest;
pub mod sockmap;
mod sockopt;
pub mod state_error;
pub mod supervise;
pub mod tcp_info;
mod tcp_stats;
pub mod tls;
pub mod websocket;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use answers::Answers;
pub use carrier::Carrier;
pub use carrier_state::{CarrierState, ChannelSockets};
pub use choice::Paths;
pub use client_stream::{ClientState, ClientStream};
pub use data_path::DataPath;
pub use framing::Framing;
pub use host_stream::{HostState, HostStream};
pub use inbound::{Inbound, InboundState};
pub use legs::{ClientLeg, HostLeg};
pub use pipe::Pipe;
pub use queues::{Looked, Queues};
pub use rest::{Rest, RestState};
pub use tcp_stats::{Sent, TcpStats};

use crate::end_reason::EndReason;
use answers::AnswerLook;
use kernel_count::KernelCount;
use queues::QueueLook;

/// Time limits of a moving channel.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Interval of Pings; `None`: the client is not to be pinged.
    pub ping_interval: Option<Duration>,
    /// Longest time without progress once one side has ended.
    pub close_timeout: Duration,
}

/// Bytes of payload that a channel has moved, readable while it moves.
#[derive(Debug, Default)]
pub struct Counters {
    uplink: AtomicU64,
    downlink: AtomicU64,
    kernel_downlink: KernelCount,
    spliced: AtomicU64,
    queues: QueueLook,
    client: AnswerLook,
}

impl Counters {
    /// Goes on counting from these numbers: bytes of payload to the host, to the client, and how
    /// many of the latter did not enter the process.
    pub fn starting_at(uplink: u64, downlink: u64, spliced: u64) -> Self {
        Self {
            uplink: uplink.into(),
            downlink: downlink.into(),
            spliced: spliced.into(),
            ..Self::default()
        }
    }

    /// Bytes of payload handed to the host.
    pub fn uplink(&self) -> u64 {
        self.uplink.load(Ordering::Relaxed)
    }

    /// Bytes of payload handed to the client. Where the kernel counts them, this asks it.
    pub fn downlink(&self) -> u64 {
        self.kernel_downlink
            .with(|moved| moved + self.downlink.load(Ordering::Relaxed))
    }

    /// Bytes of the downlink that did not enter the process.
    pub fn spliced(&self) -> u64 {
        self.spliced.load(Ordering::Relaxed)
    }

    /// What waits, and how both connections fare; `None` before and after the channel moves. This
    /// asks the kernel, a few times for each channel.
    pub fn look(&self) -> Option<Looked> {
        self.queues.look()
    }

    /// What had been sent to the client by the last [`Counters::look`], or by the channel's end;
    /// never less than at an earlier call. Asks nobody.
    pub fn sent(&self) -> Sent {
        self.queues.sent()
    }

    /// What is known of the answers of the client's system, for which the kernel is asked; `None`
    /// while the channel does not move.
    pub fn client_answers(&self) -> Option<Answers> {
        self.client.now()
    }

    /// Counts bytes of payload that were handed to the host.
    pub fn add_uplink(&self, bytes: usize) {
        self.uplink.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add_downlink(&self, bytes: usize) {
        self.downlink.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add_spliced(&self, bytes: usize) {
        self.spliced.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Has the kernel's count of the downlink added until the result is dropped, and its last
    /// value kept then.
    fn count_in_kernel(
        &self,
        downlink: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> CountedInKernel<'_> {
        self.kernel_downlink.attach(downlink);
        CountedInKernel(self)
    }
}

/// While this lives the kernel counts a channel's downlink.
struct CountedInKernel<'a>(&'a Counters);

impl Drop for CountedInKernel<'_> {
    fn drop(&mut self) {
        let Counters {
            downlink,
            kernel_downlink,
            ..
        } = self.0;
        kernel_downlink.settle(|moved| {
            downlink.fetch_add(moved, Ordering::Relaxed);
        });
    }
}

/// What a moving channel is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// To end for this reason, with the Close that tells of it.
    Stop(EndReason),
    /// To stand still, so that somebody else can go on with its streams.
    Freeze,
}

/// How a channel's move came to its end here.
#[derive(Debug)]
pub enum Outcome {
    /// Both sides have ended.
    Ended(EndReason),
    /// The channel stands still, with this on its way.
    Frozen(Box<Rest>),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_kernels_count_is_read_when_asked_for_and_kept_at_the_end() {
        let counters = Counters::default();
        counters.add_downlink(5);
        let kernel = Arc::new(AtomicU64::new(10));
        let count = Arc::clone(&kernel);
        let counted = counters.count_in_kernel(move || count.load(Ordering::Relaxed));
        assert_eq!(counters.downlink(), 15);
        kernel.store(100, Ordering::Relaxed);
        assert_eq!(counters.downlink(), 105);
        drop(counted);
        kernel.store(0, Ordering::Relaxed);
        assert_eq!(counters.downlink(), 105);
        assert_eq!(Arc::strong_count(&kernel), 1);
    }
}
