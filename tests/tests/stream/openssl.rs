//! `openssl s_client` as the client: a TLS that is not the gateway's own.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use testkit::command::find_program;
use testkit::pattern::{DOWNLINK, UPLINK};
use testkit::prelude::*;
use testkit::spice::read_link;
use testkit::ws::{Frame, Opcode, RawClient, handshake_request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Join, Lines, join};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::channel::target;
use crate::patterns::{expect_pong, expect_uplink_end, read_downlink, read_uplink};
use crate::setup::Setup;
use crate::stage::Stage;

on_path!(relay_tls, RELAY_TLS,
    every_suite
    new_keys_of_the_client
    a_session_is_resumed
);
on_ktls!(ktls, KTLS,
    every_suite
    new_keys_of_the_client
    a_session_is_resumed
);
on_ktls!(ktls_sockmap, KTLS_SOCKMAP,
    every_suite
    new_keys_of_the_client
    a_session_is_resumed
);

/// Each with the arguments that leave `s_client` no other choice; certificates of tests have
/// ECDSA keys.
const SUITES: [&[&str]; 6] = [
    &["-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    &["-ciphersuites", "TLS_AES_256_GCM_SHA384"],
    &["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
];

/// Bytes of frames that `s_client` reads at once, as long as they come one by one.
const ONE_READ: usize = 8_000;
/// Otherwise its pieces may begin with a letter that it takes for a command.
const NO_COMMANDS: &str = "-ign_eof";

/// A channel whose client is `s_client`.
struct Openssl {
    client: RawClient<Join<ChildStdout, ChildStdin>>,
    /// What it says of the connection.
    told: Lines<BufReader<ChildStderr>>,
    process: Child,
    host: TcpStream,
    up: u64,
    down: u64,
}

impl Openssl {
    async fn open<'a>(stage: &Stage, arguments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let program = find_program("openssl");
        let program = program.context("no openssl: run `apt-get install -y openssl`")?;
        // Brief: nothing but what came goes to the standard output, and commands are still read.
        let mut process = Command::new(program)
            .args(["s_client", "-brief", "-servername", "localhost"])
            .args(["-verify_return_error", "-CAfile"])
            .arg(stage.gateway.cert().ca_path())
            .args(["-connect", &stage.endpoint.addr().to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting openssl s_client")?;
        let output = process.stdout.take().context("no output")?;
        let input = process.stdin.take().context("no input")?;
        let errors = process.stderr.take().context("no errors")?;
        let mut client = RawClient::over(join(output, input));
        let address = stage.endpoint.addr().to_string();
        let request = handshake_request(&target(&stage.host), &address, "");
        client.send_raw(request.as_bytes()).await?;
        let mut told = BufReader::new(errors).lines();
        let head = match client.read_head().await {
            Ok(head) => head,
            Err(error) => {
                let mut said = Vec::new();
                while let Some(line) = within("what s_client says", told.next_line()).await?? {
                    said.push(line);
                }
                return Err(error.context(format!("s_client says {said:?}")));
            }
        };
        ensure!(head.status == StatusCode::SWITCHING_PROTOCOLS, "{head:?}");
        let link = link_message(ChannelType::Main, 0);
        client.send_frame(&Frame::binary(link.clone())).await?;
        let mut host = stage.host.outcome().await?;
        let received = within("link message", read_link(&mut host)).await??;
        ensure!(received == link, "another link message arrived");
        stage.expect_path().await?;
        Ok(Self {
            client,
            told,
            process,
            host,
            up: 0,
            down: 0,
        })
    }

    /// Whether the handshake was a whole one: a resumed one has no certificate. With `-state` it
    /// tells the messages of the handshake.
    async fn read_a_certificate(&mut self) -> Result<bool> {
        let mut has_certificate = false;
        let find = async {
            while let Some(line) = self.told.next_line().await? {
                has_certificate |= line.contains("read server certificate");
                if line.contains("CONNECTION ESTABLISHED") {
                    return Ok(());
                }
            }
            bail!("s_client tells of no connection")
        };
        within("what s_client says", find).await??;
        Ok(has_certificate)
    }

    /// Waits until it says this.
    async fn expect_told(&mut self, text: &str) -> Result<()> {
        let find = async {
            while let Some(line) = self.told.next_line().await? {
                if line.contains(text) {
                    return Ok(());
                }
            }
            bail!("s_client ended and did not say {text:?}")
        };
        within(text, find).await?
    }

    /// Messages of many lengths, both ways; those of the client up to `longest` bytes.
    async fn exchange(&mut self, longest: usize) -> Result<()> {
        for length in [1, 100, 4_096, 16_384, 16_385, 65_536, 300_000] {
            self.downlink(length).await?;
            self.uplink(length.min(longest)).await?;
        }
        let ping = Frame::new(Opcode::PING, "openssl");
        self.client.send_frame(&ping).await?;
        expect_pong(&self.client.read_frame().await?, b"openssl")
    }

    async fn downlink(&mut self, length: usize) -> Result<()> {
        let start = self.down;
        let bytes = DOWNLINK.bytes(start, length);
        let write = async { Ok(self.host.write_all(&bytes).await?) };
        let read = read_downlink(&mut self.client, start, length as u64);
        tokio::try_join!(write, read)?;
        self.down += length as u64;
        Ok(())
    }

    async fn uplink(&mut self, length: usize) -> Result<()> {
        let frame = Frame::binary(UPLINK.bytes(self.up, length));
        let read = read_uplink(&mut self.host, self.up, length as u64);
        tokio::try_join!(self.client.send_frame(&frame), read)?;
        self.up += length as u64;
        Ok(())
    }

    /// The host ends the channel; the client must see a whole end, that of TLS included.
    async fn end(mut self) -> Result<()> {
        self.host.shutdown().await?;
        self.client.expect_close(1000).await?;
        // Frames that came unasked, as those of a client's answer, are none.
        let mut rest = Vec::new();
        let output = self.client.connection_mut();
        within("end of s_client", output.read_to_end(&mut rest)).await??;
        ensure!(rest.is_empty(), "{rest:?} behind the Close");
        let status = within("s_client", self.process.wait()).await??;
        // It fails when a connection ends without close_notify.
        ensure!(status.success(), "s_client: {status}");
        expect_uplink_end(&mut self.host, self.up, self.up).await
    }
}

async fn every_suite(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for suite in SUITES {
        let check = async {
            let arguments = [suite, &[NO_COMMANDS]].concat();
            let mut channel = Openssl::open(&stage, arguments).await?;
            channel.exchange(usize::MAX).await?;
            channel.end().await
        };
        check.await.with_context(|| suite.join(" "))?;
    }
    stage.expect_no_channel().await
}

/// `K` and `k` are commands of `s_client`: it changes its key, and with `K` wants the gateway to
/// change its own, too.
async fn new_keys_of_the_client(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = Openssl::open(&stage, ["-tls1_3"]).await?;
    channel.exchange(ONE_READ).await?;
    for command in ["k\n", "K\n", "k\n"] {
        channel.client.send_raw(command.as_bytes()).await?;
        channel.expect_told("KEYUPDATE").await?;
        if !stage.follows_new_keys().await {
            // The kernel cannot take the next key.
            channel.client.send_frame(&Frame::binary("new key")).await?;
            channel.client.expect_close(1001).await?;
            drop(channel.client);
            let (rest, _) = testkit::net::read_to_end(&mut channel.host).await?;
            ensure!(rest.is_empty(), "the host received {rest:?}");
            drop(channel.host);
            stage.expect_reason("client changed its TLS key").await?;
            return stage.expect_no_channel().await;
        }
        channel.exchange(ONE_READ).await?;
    }
    channel.end().await?;
    stage.expect_no_channel().await
}

async fn a_session_is_resumed(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("session");
    let file = file.to_str().context("no UTF-8")?;
    for version in ["-tls1_3", "-tls1_2"] {
        let open = |session| Openssl::open(&stage, [version, NO_COMMANDS, "-state", session, file]);
        let mut first = open("-sess_out").await?;
        ensure!(first.read_a_certificate().await?, "{version}: no handshake");
        first.exchange(usize::MAX).await?;
        first.end().await?;
        let mut second = open("-sess_in").await?;
        ensure!(
            !second.read_a_certificate().await?,
            "{version}: not resumed"
        );
        second.exchange(usize::MAX).await?;
        second.end().await?;
    }
    stage.expect_no_channel().await
}
