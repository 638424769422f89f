//! A client that costs as little as a client can: what it sends was framed and protected before,
//! what comes is thrown away unread. Whether bytes are right is for the tests to say.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, recv};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{CipherSuite, ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use testkit::tls::AnyCertificate;
use testkit::tunnel;
use testkit::ws::{Frame, handshake_request};

/// Most that is thrown away at a time, in bytes; never written to.
const DISCARD: usize = 1 << 20;
/// Longer than any answer that is awaited, in bytes.
const ANSWER: usize = 4_096;
/// Header of a TLS record, in bytes.
const RECORD_HEADER: usize = 5;

/// A connection to the gateway, or right to a host.
pub(crate) struct Client {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    is_framed: bool,
}

impl Client {
    /// Connects to the gateway, with a WebSocket for this token.
    pub(crate) fn web_socket(
        gateway: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        token: &str,
    ) -> Result<Self> {
        let target = format!("/?ver=2&token={token}");
        let request = handshake_request(&target, "localhost", "");
        let client = Self::through_gateway(gateway, tls, true)?;
        client.opened(&request, "HTTP/1.1 101 ")
    }

    /// Connects to the gateway, with a tunnel for this ticket.
    pub(crate) fn tunnel(
        gateway: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        ticket: &str,
    ) -> Result<Self> {
        let request = tunnel::request(ticket);
        let client = Self::through_gateway(gateway, tls, false)?;
        client.opened(&request, "HTTP/1.0 200 ")
    }

    fn through_gateway(
        gateway: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        is_framed: bool,
    ) -> Result<Self> {
        let name = ServerName::try_from("localhost")?;
        let tls = tls
            .map(|config| ClientConnection::new(Arc::clone(config), name))
            .transpose()?;
        Self::connect(gateway, tls, is_framed)
    }

    /// Sends the request that opens a channel.
    fn opened(mut self, request: &str, expected: &str) -> Result<Self> {
        self.send(request.as_bytes())?;
        let head = self.receive_head()?;
        ensure!(
            head.starts_with(expected.as_bytes()),
            "the gateway answered: {}",
            String::from_utf8_lossy(&head)
        );
        Ok(self)
    }

    /// Connects to a host.
    pub(crate) fn direct(host: SocketAddr) -> Result<Self> {
        Self::connect(host, None, false)
    }

    fn connect(addr: SocketAddr, tls: Option<ClientConnection>, is_framed: bool) -> Result<Self> {
        let tcp = TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
        tcp.set_nodelay(true)?;
        Ok(Self {
            tcp,
            tls,
            is_framed,
        })
    }

    /// What the wire carries of a message.
    pub(crate) fn prepare(&mut self, message: &[u8]) -> Result<Vec<u8>> {
        let bytes = if self.is_framed {
            Frame::binary(message).encode()
        } else {
            message.to_vec()
        };
        self.protect(bytes)
    }

    fn protect(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let Some(tls) = &mut self.tls else {
            return Ok(bytes);
        };
        tls.writer().write_all(&bytes)?;
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records)?;
        }
        Ok(records)
    }

    /// Sends what was prepared.
    pub(crate) fn send_prepared(&self, wire: &[u8]) -> Result<()> {
        (&self.tcp).write_all(wire).context("sending")
    }

    /// Throws away all that comes until the end of the stream.
    pub(crate) fn discard_all(&self) -> Result<()> {
        let mut space = vec![0; DISCARD];
        loop {
            // TCP takes this as leave not to copy (man 7 tcp, MSG_TRUNC).
            let (_, length) = recv(&self.tcp, &mut space[..], RecvFlags::TRUNC)?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// Waits for the answer to one message, of which the payload has `payload` bytes.
    pub(crate) fn await_answer(&self, payload: usize) -> Result<()> {
        let mut answer = [0; ANSWER];
        let mut length = 0;
        while length < self.answer_length(&answer[..length], payload) {
            let read = (&self.tcp)
                .read(&mut answer[length..])
                .context("receiving")?;
            ensure!(read > 0, "the stream ended where an answer was due");
            length += read;
        }
        Ok(())
    }

    /// How long an answer is that begins so: a TLS record, or a frame with a short header.
    fn answer_length(&self, begin: &[u8], payload: usize) -> usize {
        match (&self.tls, begin) {
            (Some(_), [_, _, _, high, low, ..]) => {
                RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low]))
            }
            (Some(_), _) => RECORD_HEADER,
            (None, _) => payload + if self.is_framed { 2 } else { 0 },
        }
    }

    /// Ends the connection.
    pub(crate) fn close(self) {
        // It may have ended already.
        let _ = self.tcp.shutdown(Shutdown::Both);
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.tcp).write_all(bytes)?,
            None => self.tcp.write_all(bytes)?,
        }
        Ok(())
    }

    /// Reads the head of an answer and not a byte more.
    fn receive_head(&mut self) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < ANSWER, "the answer has no end");
            let mut byte = [0];
            match &mut self.tls {
                Some(tls) => rustls::Stream::new(tls, &mut self.tcp).read_exact(&mut byte)?,
                None => self.tcp.read_exact(&mut byte)?,
            }
            head.push(byte[0]);
        }
        Ok(head)
    }
}

/// TLS 1.3 with this cipher suite only; by default the one that the other benchmarks use.
pub(crate) fn tls(suite: Option<&str>) -> Result<Arc<ClientConfig>> {
    let wanted = suite.unwrap_or("TLS13_AES_128_GCM_SHA256");
    let mut provider = default_provider();
    let is_wanted = |suite: CipherSuite| suite.as_str() == Some(wanted);
    provider
        .cipher_suites
        .retain(|suite| is_wanted(suite.suite()));
    ensure!(
        !provider.cipher_suites.is_empty(),
        "there is no cipher suite {wanted}"
    );
    let provider = Arc::<CryptoProvider>::new(provider);
    let verifier = Arc::new(AnyCertificate::new(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
