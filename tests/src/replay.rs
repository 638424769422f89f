//! Recorded Spice sessions played again, by a host and by clients: the sizes, directions and
//! pauses are those of the recording, the bytes are patterns that both ends verify.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::host::Host;
use crate::net::{PATIENCE, within};
use crate::pattern::Pattern;
use crate::spice::{ChannelType, link_message, linked_channel, read_link};

/// A session of one client: its channels.
#[derive(Clone, Debug)]
pub struct Recording {
    channels: Vec<ChannelRecording>,
}

/// What went over one channel.
#[derive(Clone, Debug)]
pub struct ChannelRecording {
    /// What it carries.
    pub channel_type: ChannelType,
    /// Its number among the channels of its type.
    pub channel_id: u8,
    /// What was sent, oldest first; it begins with the client's link message.
    pub entries: Vec<Entry>,
}

/// Bytes that one side sent at once.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "(Direction, usize, f64)")]
pub struct Entry {
    /// Who sent them.
    pub direction: Direction,
    /// How many.
    pub bytes: usize,
    /// How long after the entry before.
    pub pause: Duration,
}

impl From<(Direction, usize, f64)> for Entry {
    fn from((direction, bytes, milliseconds): (Direction, usize, f64)) -> Self {
        Self {
            direction,
            bytes,
            pause: Duration::from_secs_f64(milliseconds.max(0.0) / 1000.0),
        }
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Direction {
    /// Client to host.
    #[serde(rename = "c2s")]
    Uplink,
    /// Host to client.
    #[serde(rename = "s2c")]
    Downlink,
}

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// This many times as fast as it was recorded.
    Times(f64),
    /// Without pauses.
    Unlimited,
}

impl Speed {
    fn pause(self, recorded: Duration) -> Duration {
        match self {
            Self::Times(factor) => recorded.div_f64(factor),
            Self::Unlimited => Duration::ZERO,
        }
    }
}

/// What was played on one channel, all of it verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    /// The channel.
    pub channel_type: ChannelType,
    /// Bytes from the client, its link message included.
    pub uplink: u64,
    /// Bytes from the host.
    pub downlink: u64,
}

impl Recording {
    /// The recorded session that comes with this crate: main, display, inputs, cursor and
    /// playback of a desktop with a scrolling terminal, typing and an animation. Its display
    /// channel was kept up to second 31 only, the start of the animation: 11 of 44 MB.
    pub fn load() -> Result<Arc<Self>> {
        Self::parse(include_str!("../data/spice-traffic.json")).map(Arc::new)
    }

    /// Reads a recording from JSON: `channels` has the entries of each channel, named as in
    /// `main:0`.
    pub fn parse(json: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            channels: Map<String, Value>,
        }
        let file: File = serde_json::from_str(json).context("reading a recording")?;
        let channels = file.channels.into_iter().map(|(name, entries)| {
            ChannelRecording::parse(&name, entries)
                .with_context(|| format!("recorded channel {name}"))
        });
        Ok(Self {
            channels: channels.collect::<Result<_>>()?,
        })
    }

    /// All channels.
    pub fn channels(&self) -> &[ChannelRecording] {
        &self.channels
    }

    /// The first channel of this type.
    pub fn channel(&self, channel_type: ChannelType) -> Result<&ChannelRecording> {
        self.channels
            .iter()
            .find(|channel| channel.channel_type == channel_type)
            .with_context(|| format!("no {channel_type} channel was recorded"))
    }

    /// A host that plays its side on every connection, for the channel that the link message
    /// names. The outcomes are those of the channels.
    pub async fn host(self: &Arc<Self>, speed: Speed) -> Result<Host<Played>> {
        let recording = self.clone();
        Host::spawn(move |stream| {
            let recording = recording.clone();
            async move { recording.play_host(stream, speed).await }
        })
        .await
    }

    /// Plays the host's side of one connection, until the client ends it.
    pub async fn play_host(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        speed: Speed,
    ) -> Result<Played> {
        let link = within("link message", read_link(&mut stream)).await??;
        let (channel_type, _) = linked_channel(&link).context("a channel that no client opens")?;
        let channel = self.channel(channel_type)?;
        let expected = channel.link_message();
        ensure!(link == expected, "another link message than was sent");
        let played = Player::new(Direction::Downlink, channel_type, speed)
            .play(&mut stream, channel)
            .await?;
        expect_end(&mut stream).await?;
        stream.shutdown().await.context("ending a channel")?;
        Ok(played)
    }
}

impl ChannelRecording {
    fn parse(name: &str, entries: Value) -> Result<Self> {
        let (kind, id) = name.split_once(':').context("no channel id")?;
        let channel = Self {
            channel_type: ChannelType::from_name(kind).context("an unknown type")?,
            channel_id: id.parse()?,
            entries: serde_json::from_value(entries)?,
        };
        let link = channel.link_message().len();
        match channel.entries.first() {
            Some(first) if first.direction == Direction::Uplink && first.bytes == link => {
                Ok(channel)
            }
            _ => bail!("it does not begin with a link message of {link} bytes"),
        }
    }

    /// The client's first message.
    pub fn link_message(&self) -> Vec<u8> {
        link_message(self.channel_type, self.channel_id)
    }

    /// How long the channel was open.
    pub fn duration(&self) -> Duration {
        self.entries.iter().map(|entry| entry.pause).sum()
    }

    /// Plays the client's side over a stream on which nothing was sent yet, then ends it and
    /// waits for the host's end.
    pub async fn play_client(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        speed: Speed,
    ) -> Result<Played> {
        stream.write_all(&self.link_message()).await?;
        stream.flush().await?;
        let played = Player::new(Direction::Uplink, self.channel_type, speed)
            .play(&mut stream, self)
            .await?;
        stream.shutdown().await.context("ending a channel")?;
        expect_end(&mut stream).await?;
        Ok(played)
    }
}

/// One side of a channel. Both sides go through the entries in the same order, so each sends
/// only after all that came before in the recording has arrived.
struct Player {
    own: Direction,
    speed: Speed,
    channel_type: ChannelType,
    uplink: (Pattern, u64),
    downlink: (Pattern, u64),
}

impl Player {
    fn new(own: Direction, channel_type: ChannelType, speed: Speed) -> Self {
        // Channels differ, so that bytes of another one are seen.
        let number = u64::from(channel_type as u8);
        Self {
            own,
            speed,
            channel_type,
            uplink: (Pattern::new(0x100 + number), 0),
            downlink: (Pattern::new(0x200 + number), 0),
        }
    }

    /// Plays all entries after the link message.
    async fn play(
        mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        channel: &ChannelRecording,
    ) -> Result<Played> {
        let link = channel.link_message().len() as u64;
        // A schedule rather than sleeps one by one: short pauses would add up to longer ones.
        let mut due = Instant::now();
        let mut buffer = Vec::new();
        for (index, entry) in channel.entries.iter().enumerate().skip(1) {
            due += self.speed.pause(entry.pause);
            buffer.resize(entry.bytes, 0);
            self.step(stream, entry, due, &mut buffer)
                .await
                .with_context(|| format!("{} channel, entry {index}", self.channel_type))?;
        }
        Ok(Played {
            channel_type: self.channel_type,
            uplink: link + self.uplink.1,
            downlink: self.downlink.1,
        })
    }

    async fn step(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        entry: &Entry,
        due: Instant,
        bytes: &mut [u8],
    ) -> Result<()> {
        let (pattern, offset) = match entry.direction {
            Direction::Uplink => &mut self.uplink,
            Direction::Downlink => &mut self.downlink,
        };
        let limit = due.max(Instant::now()) + PATIENCE;
        if entry.direction == self.own {
            pattern.fill(*offset, bytes);
            tokio::time::sleep_until(due).await;
            let write = async {
                stream.write_all(bytes).await?;
                stream.flush().await
            };
            tokio::time::timeout_at(limit, write)
                .await
                .context("cannot send in time")?
                .context("sending")?;
        } else {
            tokio::time::timeout_at(limit, stream.read_exact(bytes))
                .await
                .context("nothing comes in time")?
                .context("receiving")?;
            pattern.check(*offset, bytes)?;
        }
        *offset += bytes.len() as u64;
        Ok(())
    }
}

async fn expect_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    let mut byte = [0];
    let length = within("end of a channel", stream.read(&mut byte))
        .await?
        .context("waiting for a channel's end")?;
    ensure!(length == 0, "bytes after the end of the recording");
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn whole_sessions_are_played() {
        let recording = Recording::load().unwrap();
        let host = recording.host(Speed::Unlimited).await.unwrap();
        let mut sent = 0;
        for channel in recording.channels() {
            let stream = TcpStream::connect(host.addr()).await.unwrap();
            let played = channel.play_client(stream, Speed::Unlimited).await.unwrap();
            assert_eq!(host.outcome().await.unwrap(), played);
            sent += played.downlink;
        }
        let recorded = recording.channels().iter().flat_map(|c| &c.entries);
        let recorded = recorded.filter(|entry| entry.direction == Direction::Downlink);
        assert_eq!(sent, recorded.map(|entry| entry.bytes as u64).sum::<u64>());
    }

    #[tokio::test]
    async fn pauses_are_kept() {
        let json = r#"{"channels": {"inputs:0": [
            ["c2s", 38, 0.0], ["s2c", 10, 600.0], ["c2s", 5, 400.0], ["s2c", 1, 0.1]]}}"#;
        let recording = Arc::new(Recording::parse(json).unwrap());
        let host = recording.host(Speed::Times(10.0)).await.unwrap();
        let channel = &recording.channels()[0];
        let stream = TcpStream::connect(host.addr()).await.unwrap();
        let start = Instant::now();
        let played = channel
            .play_client(stream, Speed::Times(10.0))
            .await
            .unwrap();
        assert!(start.elapsed() >= Duration::from_millis(99));
        assert_eq!((played.uplink, played.downlink), (43, 11));
    }

    #[tokio::test]
    async fn wrong_bytes_are_reported() {
        let recording = Recording::load().unwrap();
        let host = recording.host(Speed::Unlimited).await.unwrap();
        let mut stream = TcpStream::connect(host.addr()).await.unwrap();
        let link = recording.channel(ChannelType::Main).unwrap().link_message();
        stream.write_all(&link).await.unwrap();
        stream.write_all(&[0; 132]).await.unwrap();
        let error = host.outcome().await.unwrap_err();
        assert!(format!("{error:#}").contains("main channel"), "{error:#}");
    }

    #[test]
    fn recordings_must_begin_with_a_link_message() {
        let json = r#"{"channels": {"main:0": [["s2c", 42, 0.0]]}}"#;
        assert!(Recording::parse(json).is_err());
    }
}
