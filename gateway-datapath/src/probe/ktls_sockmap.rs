//! Whether the data path `ktls-sockmap` works: bytes that the programs redirect into kernel TLS
//! arrive, also through a send buffer that is full.

use anyhow::Context;
use socket2::SockRef;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::ktls::{keys, open};
use super::round_trip;
use crate::ktls::{BeginError, Suite, begin};
use crate::sockmap::{self, Sockmap};
use crate::{Carrier, Framing};

/// Small enough for bytes to pass through userspace too.
const QUEUED: usize = 128 * 1024;
/// Buffers between the gateway and the client, in bytes: together much less than is sent.
const BUFFER: usize = 32_768;
/// After that time they are full.
const LATE: Duration = Duration::from_millis(20);

/// `suite` is one that the kernel carries; `None`: there is none.
pub(super) async fn probe(suite: Option<Suite>, programs: &Path) -> anyhow::Result<()> {
    let suite = suite.context("needs ktls, which does not work here")?;
    sockmap::may_have_tls()?;
    let sockmap = Sockmap::take_or_load(programs, 1, QUEUED)?;
    round_trip::run_protected(
        |client, client_leg, host_leg| {
            SockRef::from(&client_leg).set_send_buffer_size(BUFFER)?;
            SockRef::from(&client).set_recv_buffer_size(BUFFER)?;
            let [one, other] = keys(suite)?;
            let far = open(client, &other, &one)?;
            let socket = client_leg.as_fd().try_clone_to_owned()?.into();
            let protect = || {
                begin(client_leg, &one, &other, None)
                    .map_err(|error| (BeginError::Kernel(error), Ok(())))
            };
            let link = sockmap.enter_tls(&socket, host_leg, protect);
            let link = link.map_err(|(refusal, _)| refusal);
            let link = link.context("a socket in a sockmap gets no TLS keys")?;
            Ok((far, Carrier::KtlsSockmap(Arc::new(link))))
        },
        Framing::WebSocket,
        LATE,
    )
    .await
}
