//! The whole way of a flexVDI desktop client: it asks the manager for a desktop, repeats and
//! chooses as it is told, and opens its channels.

use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;

use ::http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE};
use ::http::{Response, StatusCode};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;

use crate::http::Call;
use crate::net::{Endpoint, within};
use crate::spice::{ChannelType, link_message};
use crate::ws::{Channel, Connect};

/// A client of one user.
#[must_use]
#[derive(Clone)]
pub struct FlexVdiClient {
    endpoint: Endpoint,
    host: Option<String>,
    username: String,
    password: String,
    desktop: Option<String>,
    pending_pause: Duration,
}

/// The desktop that the client was given.
#[derive(Clone)]
pub struct Desktop {
    /// Host of the channels: the gateway's name or the Spice server's.
    pub address: String,
    /// The token of the channels: a ticket or a port.
    pub token: String,
    /// Password for the Spice server; empty when it wants none.
    pub password: String,
    /// Whether the channels are WebSockets.
    pub use_ws: bool,
    /// The whole answer.
    pub answer: Map<String, Value>,
}

impl std::fmt::Debug for Desktop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desktop")
            .field("address", &self.address)
            .field("use_ws", &self.use_ws)
            .finish_non_exhaustive()
    }
}

impl FlexVdiClient {
    /// A client that knows the gateway, or the manager, by this address.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: endpoint.clone(),
            host: None,
            username: "user".to_owned(),
            password: "password".to_owned(),
            desktop: None,
            pending_pause: Duration::from_millis(3600),
        }
    }

    /// Knows it by this name, sent as `Host`, while it connects to the same address.
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Logs in as this user.
    pub fn login(mut self, username: &str, password: &str) -> Self {
        username.clone_into(&mut self.username);
        password.clone_into(&mut self.password);
        self
    }

    /// Chooses the desktop of this key instead of the first, when it has the choice.
    pub fn choose(mut self, key: &str) -> Self {
        self.desktop = Some(key.to_owned());
        self
    }

    /// Repeats after this pause instead of 3.6 s, when the desktop is being started.
    pub fn pending_pause(mut self, pause: Duration) -> Self {
        self.pending_pause = pause;
        self
    }

    /// Asks how users log in: `auth_mode`.
    pub async fn auth_mode(&self) -> Result<String> {
        let answer = self
            .post("/vdi/authmode", &json!({"hwaddress": HARDWARE_ADDRESS}))
            .await?;
        ensure!(answer["status"] == "OK", "/vdi/authmode did not answer OK");
        text(&answer, "auth_mode")
    }

    /// Asks how to log in, then for a desktop until it is there. The error of a refusal holds
    /// the manager's message.
    pub async fn desktop(&self) -> Result<Desktop> {
        const MOST_REQUESTS: usize = 100;
        let kiosk = self.auth_mode().await? == "kiosk";
        let (username, password) = if kiosk {
            ("", "")
        } else {
            (self.username.as_str(), self.password.as_str())
        };
        let mut chosen = String::new();
        for _ in 0..MOST_REQUESTS {
            let request = json!({
                "hwaddress": HARDWARE_ADDRESS,
                "username": username,
                "password": password,
                "desktop": chosen,
            });
            let answer = self.post("/vdi/desktop", &request).await?;
            match answer.get("status").and_then(Value::as_str) {
                Some("OK") => return Desktop::from_answer(answer),
                Some("Pending") => tokio::time::sleep(self.pending_pause).await,
                Some("SelectDesktop") => chosen = self.select(&text(&answer, "message")?)?,
                Some("Error") => bail!("the manager refused: {}", text(&answer, "message")?),
                status => bail!("an answer with the status {status:?}"),
            }
        }
        bail!("no desktop after {MOST_REQUESTS} requests")
    }

    /// Opens these channels, one WebSocket each, and sends their link messages.
    pub async fn channels(
        &self,
        desktop: &Desktop,
        channels: &[(ChannelType, u8)],
    ) -> Result<Vec<Channel>> {
        ensure!(desktop.use_ws, "the answer wants no WebSockets");
        let mut opened = Vec::with_capacity(channels.len());
        for (channel_type, channel_id) in channels {
            let mut channel = self.open(desktop).await?;
            let link = link_message(*channel_type, *channel_id);
            within("sending a link message", async {
                channel.write_all(&link).await?;
                channel.flush().await
            })
            .await??;
            opened.push(channel);
        }
        Ok(opened)
    }

    /// Opens one WebSocket for a channel of this desktop and sends nothing yet.
    pub async fn open(&self, desktop: &Desktop) -> Result<Channel> {
        let port = self.endpoint.addr().port();
        let (endpoint, host) = match desktop.address.parse::<IpAddr>() {
            Ok(ip) => {
                let addr = (ip, port).into();
                (self.endpoint.clone().with_addr(addr), format!("{addr}"))
            }
            // The tests' names need not resolve: it is the gateway that was asked, or nothing.
            Err(_) => (self.endpoint.clone(), format!("{}:{port}", desktop.address)),
        };
        let socket = Connect::new(&endpoint, &desktop.token)
            .header("Host", &host)
            .open()
            .await?
            .opened()?;
        Ok(Channel::new(socket))
    }

    /// One request, over a connection of its own.
    async fn post(&self, target: &str, body: &Value) -> Result<Map<String, Value>> {
        let mut call = Call::post(&self.endpoint, target, body.to_string())
            .header(CONTENT_TYPE.as_str(), "text/json")
            .header(CONNECTION.as_str(), "Keep-Alive")
            .header(ACCEPT_ENCODING.as_str(), "gzip, deflate");
        if let Some(host) = &self.host {
            call = call.header("Host", host);
        }
        let response = call
            .send()
            .await
            .with_context(|| format!("POST {target}"))?;
        ensure!(
            response.status() == StatusCode::OK,
            "POST {target} was answered with {}",
            response.status()
        );
        serde_json::from_slice(&decoded(&response)?)
            .with_context(|| format!("the answer to POST {target} is no JSON object"))
    }

    /// The key to choose out of a message such as `{"key":"name"}`.
    fn select(&self, message: &str) -> Result<String> {
        let choice: Map<String, Value> =
            serde_json::from_str(message).context("the desktops to choose from")?;
        match &self.desktop {
            Some(key) => Ok(key.clone()),
            None => choice
                .keys()
                .next()
                .cloned()
                .context("no desktop to choose"),
        }
    }
}

impl Desktop {
    fn from_answer(answer: Map<String, Value>) -> Result<Self> {
        Ok(Self {
            address: text(&answer, "spice_address")?,
            token: text(&answer, "spice_port")?,
            password: answer
                .get("spice_password")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            // Old gateways sent a string, and clients take it.
            use_ws: answer
                .get("use_ws")
                .is_some_and(|value| *value == true || *value == "true"),
            answer,
        })
    }
}

const HARDWARE_ADDRESS: &str = "52:54:00:12:34:56";

/// A member that must be a string.
fn text(answer: &Map<String, Value>, name: &str) -> Result<String> {
    let value = answer.get(name).and_then(Value::as_str);
    Ok(value
        .with_context(|| format!("{name} is missing or no string"))?
        .to_owned())
}

/// The body without the compression that its headers tell of.
fn decoded(response: &Response<Bytes>) -> Result<Vec<u8>> {
    let body = response.body();
    match response.headers().get(CONTENT_ENCODING) {
        None => Ok(body.to_vec()),
        Some(encoding) if encoding == "gzip" => {
            let mut plain = Vec::new();
            GzDecoder::new(body.as_ref())
                .read_to_end(&mut plain)
                .context("unpacking an answer")?;
            Ok(plain)
        }
        Some(encoding) => bail!("an answer with Content-Encoding {encoding:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{Compression, DesktopAnswer, Manager, Reply};

    async fn manager() -> (Manager, FlexVdiClient) {
        let desktop = DesktopAnswer::at("198.51.100.7", 5901).with("use_ws", true);
        let manager = Manager::spawn(desktop).await.unwrap();
        let client = FlexVdiClient::new(&Endpoint::tls(manager.addr()))
            .pending_pause(Duration::from_millis(1));
        (manager, client)
    }

    #[tokio::test]
    async fn a_desktop_is_asked_for_as_recorded() {
        let (manager, client) = manager().await;
        let desktop = client.host("vdi.example").desktop().await.unwrap();
        assert_eq!(desktop.address, "198.51.100.7");
        assert_eq!(desktop.token, "5901");
        assert!(desktop.use_ws);
        let names: Vec<_> = desktop.answer.keys().map(String::as_str).collect();
        assert_eq!(names[..3], ["status", "spice_address", "spice_port"]);

        let requests = manager.requests();
        assert_eq!(requests.len(), 2);
        assert_ne!(requests[0].peer, requests[1].peer);
        assert_eq!(requests[0].uri, "/vdi/authmode");
        let request = &requests[1];
        assert_eq!(
            (request.uri.path(), request.method.as_str()),
            ("/vdi/desktop", "POST")
        );
        for (name, value) in [
            ("host", Some("vdi.example")),
            ("content-type", Some("text/json")),
            ("connection", Some("Keep-Alive")),
            ("accept-encoding", Some("gzip, deflate")),
            ("user-agent", None),
        ] {
            assert_eq!(request.header(name), value, "{name}");
        }
        assert_eq!(request.json().unwrap()["username"], "user");
    }

    #[tokio::test]
    async fn pending_and_choice_are_followed() {
        let (manager, client) = manager().await;
        manager.script([Reply::Pending, Reply::Pending]);
        manager.offer_desktops(&[("one", "First"), ("two", "Second")]);
        client.clone().desktop().await.unwrap();
        let desktops = || -> Vec<Value> {
            let requests = manager.requests();
            let asked = requests
                .iter()
                .filter(|request| request.uri == "/vdi/desktop");
            asked
                .map(|request| request.json().unwrap()["desktop"].clone())
                .collect()
        };
        assert_eq!(desktops(), ["", "", "", "one"]);
        client.clone().choose("two").desktop().await.unwrap();
        assert_eq!(desktops()[4..], ["", "two"]);
        let error = client.choose("three").desktop().await.unwrap_err();
        assert!(error.to_string().contains("no such desktop"), "{error}");
    }

    #[tokio::test]
    async fn wrong_passwords_are_refused() {
        let (manager, client) = manager().await;
        manager.require_password("user", "right");
        let error = client.desktop().await.unwrap_err();
        assert!(
            error.to_string().contains("Wrong user or password"),
            "{error}"
        );
        client.login("user", "right").desktop().await.unwrap();
    }

    #[tokio::test]
    async fn kiosks_have_no_user() {
        let (manager, client) = manager().await;
        manager.set_auth_mode("kiosk");
        client.desktop().await.unwrap();
        let asked = manager.requests()[1].json().unwrap();
        assert_eq!(
            (&asked["username"], &asked["password"]),
            (&json!(""), &json!(""))
        );
    }

    #[tokio::test]
    async fn compressed_answers_are_understood() {
        let (manager, client) = manager().await;
        for compression in [Compression::IfAsked, Compression::Always] {
            manager.set_compression(compression);
            client.desktop().await.unwrap();
        }
        let asked = json!({"hwaddress": ""}).to_string();
        let endpoint = Endpoint::tls(manager.addr());
        for (compression, compressed) in
            [(Compression::IfAsked, false), (Compression::Always, true)]
        {
            manager.set_compression(compression);
            let call = Call::post(&endpoint, "/vdi/authmode", asked.clone());
            let response = call.send().await.unwrap();
            assert_eq!(
                response.headers().contains_key(CONTENT_ENCODING),
                compressed
            );
        }
    }
}
