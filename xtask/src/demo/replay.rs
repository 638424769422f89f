//! A client plays its side of a recorded session through the gateway.

use anyhow::{Context, Result, ensure};
use testkit::flexvdi::{Desktop, FlexVdiClient};
use testkit::host::Host;
use testkit::replay::{Played, Recording, Speed};

use crate::steps::Steps;

/// Plays all channels with the desktop's ticket; both ends verify every byte.
pub(super) async fn run(
    steps: &mut Steps,
    client: &FlexVdiClient,
    desktop: &Desktop,
    recording: &Recording,
    host: &Host<Played>,
) -> Result<()> {
    steps.begin("Client: the recorded session, through one WebSocket of the gateway per channel");
    let (mut uplink, mut downlink) = (0, 0);
    for channel in recording.channels() {
        let name = channel.channel_type;
        let stream = client.open(desktop).await?;
        let at_client = channel
            .play_client(stream, Speed::Unlimited)
            .await
            .with_context(|| format!("{name} channel, the client's end"))?;
        let at_host = host
            .outcome()
            .await
            .with_context(|| format!("{name} channel, the host's end"))?;
        ensure!(
            at_client == at_host,
            "{name} channel: {at_client:?}, but {at_host:?}"
        );
        steps.note(format!(
            "{name}: {} bytes up, {} down",
            at_client.uplink, at_client.downlink
        ));
        uplink += at_client.uplink;
        downlink += at_client.downlink;
    }
    steps.done(format!(
        "verified {uplink} bytes to the host and {downlink} bytes to the client"
    ));
    Ok(())
}
