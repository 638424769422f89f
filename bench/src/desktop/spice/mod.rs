//! A Spice client that decodes no picture: it links the channels main, display and inputs, presses
//! keys and says where the server draws.

mod channel;
mod link;
mod message;

use anyhow::Result;
use testkit::spice::ChannelType;

use super::xorg::Xorg;
use crate::wan::stage::Stage;
use channel::SpiceChannel;
use message::Message;

/// Messages of the channel main.
const MAIN_INIT: u16 = 103;
const ATTACH_CHANNELS: u16 = 104;
/// Messages of the channel inputs, and its first.
const KEY_DOWN: u16 = 101;
const KEY_UP: u16 = 102;
const INPUTS_INIT: u16 = 101;
/// The key A of a PC's keyboard (scan code set 1), and what it sends when it is released.
const KEY: u32 = 0x1e;
const RELEASED: u32 = 0x80;
/// Messages of the channel display: the client's first, the server's drawing commands from
/// `SPICE_MSG_DISPLAY_DRAW_FILL` to `DRAW_ALPHA_BLEND`, and those that show a video.
const DISPLAY_INIT: u16 = 101;
const DRAW_FILL: u16 = 302;
const DRAW_ALPHA_BLEND: u16 = 313;
const STREAM_DATA: u16 = 123;
const STREAM_DATA_SIZED: u16 = 316;
/// Sizes of caches as spice-gtk has them on usual machines: of pictures in pixels, of the
/// dictionary in pixels.
const CACHE_PIXELS: u64 = 20 << 20;
const DICTIONARY_PIXELS: u32 = 4 << 20;

/// A client with its channels.
pub(super) struct SpiceClient {
    main: SpiceChannel,
    display: SpiceChannel,
    inputs: SpiceChannel,
}

/// What a message on the display channel draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    /// Left, top, right, bottom, the latter two excluded; none: part of a video.
    pub(super) place: Option<[u32; 4]>,
    /// Length of the message, in bytes.
    pub(super) length: usize,
}

impl SpiceClient {
    /// Opens the channels in a client's usual order.
    pub(super) async fn open(stage: &Stage<'_, Xorg>) -> Result<Self> {
        let link = async |kind, session| {
            let channel = stage.connect().await?;
            SpiceChannel::link(channel, kind, session, stage.peer.expect_path()).await
        };
        let mut main = link(ChannelType::Main, 0).await?;
        // It comes when the server has measured the line.
        let session = main.expect(MAIN_INIT).await?.word(0)?;
        main.send(ATTACH_CHANNELS, &[]).await?;
        let mut display = link(ChannelType::Display, session).await?;
        display.send(DISPLAY_INIT, &display_init()).await?;
        let mut inputs = link(ChannelType::Inputs, session).await?;
        inputs.expect(INPUTS_INIT).await?;
        Ok(Self {
            main,
            display,
            inputs,
        })
    }

    /// Presses a key and releases it.
    pub(super) async fn press(&mut self) -> Result<()> {
        self.inputs.send(KEY_DOWN, &KEY.to_le_bytes()).await?;
        let released = KEY | RELEASED;
        self.inputs.send(KEY_UP, &released.to_le_bytes()).await
    }

    /// Waits until something has come on any channel; says how many bytes of the display channel.
    /// May be given up without loss.
    pub(super) async fn receive(&mut self) -> Result<usize> {
        tokio::select! {
            length = self.display.receive() => length,
            length = self.main.receive() => length.map(|_| 0),
            length = self.inputs.receive() => length.map(|_| 0),
        }
    }

    /// What was drawn since.
    pub(super) async fn drawn(&mut self) -> Result<Vec<Drawn>> {
        self.main.take().await?;
        self.inputs.take().await?;
        let messages = self.display.take().await?;
        messages.iter().filter_map(drawn).collect()
    }
}

/// `SpiceMsgcDisplayInit`: numbers and sizes of the client's cache and dictionary.
fn display_init() -> Vec<u8> {
    let mut body = vec![1];
    body.extend(CACHE_PIXELS.to_le_bytes());
    body.push(1);
    body.extend(DICTIONARY_PIXELS.to_le_bytes());
    body
}

/// What a message draws; none: nothing. A drawing command begins with the number of the surface,
/// then top, left, bottom and right (`SpiceMsgDisplayBase`).
fn drawn(message: &Message) -> Option<Result<Drawn>> {
    let length = message.length;
    match message.kind {
        STREAM_DATA | STREAM_DATA_SIZED => Some(Ok(Drawn {
            place: None,
            length,
        })),
        DRAW_FILL..=DRAW_ALPHA_BLEND => {
            let place = || {
                let [top, left, bottom, right] = [4, 8, 12, 16].map(|at| message.word(at));
                Ok([left?, top?, right?, bottom?])
            };
            Some(place().map(|place| Drawn {
                place: Some(place),
                length,
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::message::{Messages, encode};
    use super::*;

    fn seen(kind: u16, words: &[u32]) -> Option<Result<Drawn>> {
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut whole = Vec::new();
        Messages::default().take(&encode(kind, &body), &mut whole);
        drawn(&whole[0])
    }

    #[test]
    fn drawing_commands_say_where_they_draw() {
        let fill = seen(DRAW_FILL, &[0, 600, 8, 624, 108, 0]).unwrap().unwrap();
        assert_eq!(fill.place, Some([8, 600, 108, 624]));
        assert_eq!(fill.length, 24);
        let video = seen(STREAM_DATA, &[1]).unwrap().unwrap();
        assert_eq!((video.place, video.length), (None, 4));
        assert!(seen(DRAW_FILL, &[0, 600]).unwrap().is_err());
        assert!(seen(103, &[]).is_none());
    }
}
