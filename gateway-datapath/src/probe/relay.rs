//! Whether the data path `relay` works: it needs nothing but sockets.

use super::round_trip;
use crate::Carrier;
use crate::client_stream::ClientStream;

pub(super) async fn probe() -> anyhow::Result<()> {
    round_trip::run(|client, host| {
        let client = Box::new(ClientStream::Plain(client));
        Ok(Carrier::Relay(client, host.into()))
    })
    .await
}
