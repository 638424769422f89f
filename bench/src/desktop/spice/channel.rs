//! A channel to a Spice server, with what every client must do on each: acknowledge and answer
//! pings, as spice-gtk does.

use anyhow::{Result, ensure};
use testkit::spice::ChannelType;

use super::link;
use super::message::{Message, Messages, encode};
use crate::client::Channel;
use crate::excerpt::End;

/// Length of what the server says to a ticket, in bytes.
const LINK_RESULT: usize = 4;

/// Messages that servers send on every channel (`SPICE_MSG_*`).
const SET_ACK: u16 = 3;
const PING: u16 = 4;
/// Messages that clients send on every channel (`SPICE_MSGC_*`).
const ACK_SYNC: u16 = 1;
const ACK: u16 = 2;
const PONG: u16 = 3;

/// A linked channel.
pub(super) struct SpiceChannel {
    channel: Channel,
    messages: Messages,
    acks: Acks,
    whole: Vec<Message>,
}

impl SpiceChannel {
    /// Links a channel of this session; 0 begins one. `linked` is awaited once the link message
    /// is sent.
    pub(super) async fn link(
        mut channel: Channel,
        kind: ChannelType,
        session: u32,
        linked: impl Future<Output = Result<()>>,
    ) -> Result<Self> {
        channel.send(&link::message(kind, session)).await?;
        linked.await?;
        let mut came = Vec::new();
        let length = loop {
            match link::reply_length(&came)? {
                Some(length) if came.len() >= length => break length,
                _ => keep(&mut channel, &mut came).await?,
            }
        };
        let key = link::key(&came[..length])?.to_vec();
        let ticket = tokio::task::spawn_blocking(move || link::ticket(&key)).await??;
        channel.send(&ticket).await?;
        let end = length + LINK_RESULT;
        while came.len() < end {
            keep(&mut channel, &mut came).await?;
        }
        link::admitted(&came[length..end])?;
        let mut linked = Self {
            channel,
            messages: Messages::default(),
            acks: Acks::default(),
            whole: Vec::new(),
        };
        linked.messages.take(&came[end..], &mut linked.whole);
        Ok(linked)
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, kind: u16, body: &[u8]) -> Result<()> {
        self.channel.send(&encode(kind, body)).await
    }

    /// Waits until something has come and says how many bytes. May be given up without loss.
    pub(super) async fn receive(&mut self) -> Result<usize> {
        let Self {
            channel,
            messages,
            whole,
            ..
        } = self;
        let take = |bytes: &[u8]| {
            messages.take(bytes, whole);
            Ok(())
        };
        channel.receive(take).await
    }

    /// The messages that have come since, answered as far as every client answers them.
    pub(super) async fn take(&mut self) -> Result<Vec<Message>> {
        let whole = std::mem::take(&mut self.whole);
        for message in &whole {
            if self.acks.is_due() {
                self.send(ACK, &[]).await?;
            }
            match message.kind {
                SET_ACK => {
                    self.acks = Acks::new(message.word(4)?);
                    self.send(ACK_SYNC, message.bytes(0..4)?).await?;
                }
                PING => self.send(PONG, message.bytes(0..12)?).await?,
                _ => {}
            }
        }
        Ok(whole)
    }

    /// Waits for a message of this type.
    pub(super) async fn expect(&mut self, kind: u16) -> Result<Message> {
        loop {
            let mut whole = self.take().await?.into_iter();
            if let Some(message) = whole.find(|message| message.kind == kind) {
                // Nothing else is looked for before this one.
                return Ok(message);
            }
            self.receive().await?;
        }
    }
}

async fn keep(channel: &mut Channel, came: &mut Vec<u8>) -> Result<()> {
    let take = |bytes: &[u8]| {
        came.extend_from_slice(bytes);
        Ok(())
    };
    let length = channel.receive(take).await?;
    ensure!(length > 0, "the channel was ended while it was linked");
    Ok(())
}

/// When messages are acknowledged: one acknowledgement for each window of them.
#[derive(Debug, Default)]
struct Acks {
    window: u32,
    left: u32,
}

impl Acks {
    fn new(window: u32) -> Self {
        Self {
            window,
            left: window,
        }
    }

    /// Counts a message; whether it completes a window.
    fn is_due(&mut self) -> bool {
        let is_counted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        let is_due = is_counted && self.left == 0;
        if is_due {
            self.left = self.window;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_is_acknowledged_once() {
        let mut acks = Acks::new(3);
        let due: Vec<_> = (0..7).map(|_| acks.is_due()).collect();
        assert_eq!(due, [false, false, true, false, false, true, false]);
        assert!(!Acks::default().is_due());
    }
}
