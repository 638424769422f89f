//! Clients that reach their desktop by CONNECT, as native Spice clients do through an HTTP proxy.

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use crate::net::{Connection, Endpoint};
use crate::ws::{Head, RawClient};

/// A host that is nowhere.
pub const NOWHERE: &str = "desktop.invalid:5900";

/// Basic credentials with this user name, as a value of `Proxy-Authorization`.
pub fn credentials(user_name: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user_name}:x")))
}

/// The request for a tunnel with a ticket, to a host that is nowhere.
pub fn request(ticket: &str) -> String {
    let line = format!("Proxy-Authorization: {}\r\n", credentials(ticket));
    connect(NOWHERE, "HTTP/1.0", &line)
}

fn connect(target: &str, version: &str, lines: &str) -> String {
    format!(
        "CONNECT {target} {version}\r\nHost: {target}\r\nProxy-Connection: keep-alive\r\n\
         User-Agent: GLib/2.74\r\n{lines}\r\n"
    )
}

/// A request for a tunnel, with the headers that spice-gtk sends.
#[must_use]
#[derive(Clone, Debug)]
pub struct Tunnel {
    endpoint: Endpoint,
    target: String,
    version: &'static str,
    credentials: Option<String>,
    lines: String,
}

impl Tunnel {
    /// With a ticket, to a host that is nowhere.
    pub fn new(endpoint: &Endpoint, ticket: &str) -> Self {
        Self {
            endpoint: endpoint.clone(),
            target: NOWHERE.to_owned(),
            version: "HTTP/1.0",
            credentials: Some(credentials(ticket)),
            lines: String::new(),
        }
    }

    /// To another host and port.
    pub fn to(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// Speaks HTTP/1.1.
    pub fn http11(mut self) -> Self {
        self.version = "HTTP/1.1";
        self
    }

    /// Says nothing of a ticket.
    pub fn without_credentials(mut self) -> Self {
        self.credentials = None;
        self
    }

    /// Sends another header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.lines.extend([name, ": ", value, "\r\n"]);
        self
    }

    /// The request as it is sent.
    pub fn request(&self) -> String {
        let credentials = self.credentials.as_ref();
        let credentials = credentials.map(|value| format!("Proxy-Authorization: {value}\r\n"));
        let lines = credentials.unwrap_or_default() + &self.lines;
        connect(&self.target, self.version, &lines)
    }

    /// Sends it, and reads the head of the answer.
    pub async fn send(self) -> Result<(RawClient, Head)> {
        let mut client = RawClient::connect(&self.endpoint).await?;
        client.send_raw(self.request().as_bytes()).await?;
        let head = client.read_head().await?;
        Ok((client, head))
    }

    /// Opens it: behind the head of the answer there are bytes of the host alone.
    pub async fn open(self) -> Result<RawClient> {
        let version = self.version;
        let (client, head) = self.send().await?;
        ensure!(
            head.status == StatusCode::OK,
            "CONNECT was answered with {}",
            head.status
        );
        let expected = format!("{version} 200 ");
        ensure!(
            head.raw.starts_with(expected.as_bytes()),
            "not {expected:?}, as clients expect it"
        );
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
            ensure!(!head.headers.contains_key(&name), "{name} in a tunnel");
        }
        Ok(client)
    }

    /// The same as a stream.
    pub async fn stream(self) -> Result<Connection> {
        self.open().await?.into_connection()
    }

    /// The status and the body of a refusal.
    pub async fn refused(self) -> Result<(Head, String)> {
        let (mut client, head) = self.send().await?;
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.map_or(Ok("0"), |length| length.to_str())?.parse()?;
        let body = client.read_exact(length).await?;
        Ok((head, String::from_utf8(body)?))
    }
}
