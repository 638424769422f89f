//! What a client and a host of a random run do.

use std::time::Duration;

use testkit::rng::Rng;

/// How a client ends, after all that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientEnd {
    /// Close frame with a code or without; then it waits for the answer.
    Close(Option<u16>),
    /// End of stream without Close frame; then it reads to the other end.
    Fin,
    /// The same, but only when all that the host sends has come.
    FinAfterAll,
    /// It waits for the other side's Close, and answers it.
    AfterHost,
    /// An unmasked frame; then it reads to the end.
    Violate,
    /// Its connection breaks.
    Vanish,
}

/// How a host ends, after all that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostEnd {
    /// End of stream; it reads on to the other end.
    Fin,
    /// The same, but only when all that the client sends has come.
    FinAfterAll,
    /// The same, but only after the other side's end.
    AfterClient,
    /// Its connection breaks.
    Vanish,
}

/// What both peers of one channel do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Sizes of the client's data frames, in bytes of payload.
    pub(crate) up: Vec<usize>,
    pub(crate) client_end: ClientEnd,
    /// Sizes of the host's writes, in bytes.
    pub(crate) down: Vec<usize>,
    pub(crate) host_end: HostEnd,
    /// Makes all further choices.
    pub(crate) seed: u64,
    /// Longest pause of a peer in milliseconds; 0: they only yield.
    pub(crate) pause: u64,
}

impl Plan {
    /// A plan with about `volume` bytes in each direction at most.
    pub(crate) fn new(rng: &mut Rng, volume: usize) -> Self {
        let sizes = |rng: &mut Rng| {
            let mut left = rng.below(volume + 1);
            let mut sizes = Vec::new();
            for _ in 0..rng.below(24) {
                let limit = rng.pick(&[2, 130, 5_000, 70_000, 150_000]);
                // The last ones may be short of bytes, and empty ones are wanted too.
                let size = rng.below(limit.min(volume / 4 + 2)).min(left);
                left -= size;
                sizes.push(size);
            }
            sizes
        };
        let (up, down) = (sizes(rng), sizes(rng));
        let client_end = rng.pick(&[
            ClientEnd::Close(Some(1000)),
            ClientEnd::Close(Some(1001)),
            ClientEnd::Close(None),
            ClientEnd::Fin,
            ClientEnd::FinAfterAll,
            ClientEnd::AfterHost,
            ClientEnd::AfterHost,
            ClientEnd::Violate,
            ClientEnd::Vanish,
        ]);
        let host_end = match rng.below(6) {
            0 => HostEnd::Vanish,
            // One of both has to end by itself.
            1 | 2 if client_end != ClientEnd::AfterHost => HostEnd::AfterClient,
            3 => HostEnd::Fin,
            _ => HostEnd::FinAfterAll,
        };
        Self {
            up,
            client_end,
            down,
            host_end,
            seed: rng.next(),
            pause: 0,
        }
    }

    pub(crate) fn client_vanishes(&self) -> bool {
        self.client_end == ClientEnd::Vanish
    }

    pub(crate) fn host_vanishes(&self) -> bool {
        self.host_end == HostEnd::Vanish
    }

    /// The client's Close is the first sign of an end that it gives, and has this code.
    pub(crate) fn client_closes_with(&self, code: Option<u16>) -> bool {
        self.client_end == ClientEnd::Close(code)
    }

    /// The client ends its stream by itself, without a Close.
    pub(crate) fn client_ends(&self) -> bool {
        matches!(self.client_end, ClientEnd::Fin | ClientEnd::FinAfterAll)
    }

    pub(crate) fn client_violates(&self) -> bool {
        self.client_end == ClientEnd::Violate
    }

    /// The host ends its stream by itself.
    pub(crate) fn host_ends(&self) -> bool {
        matches!(self.host_end, HostEnd::Fin | HostEnd::FinAfterAll)
    }

    pub(crate) fn up_total(&self) -> u64 {
        self.up.iter().sum::<usize>() as u64
    }

    pub(crate) fn down_total(&self) -> u64 {
        self.down.iter().sum::<usize>() as u64
    }

    /// A pause now and then.
    pub(crate) async fn pause(&self, rng: &mut Rng) {
        if !rng.once_in(4) {
            return;
        }
        for _ in 0..rng.below(4) {
            tokio::task::yield_now().await;
        }
        if self.pause > 0 && rng.once_in(8) {
            let pause = rng.next() % self.pause;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}
