//! What the manager answers to those who ask for a desktop.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};

/// An answer with `status` `OK`: where the desktop is. Its members are sent in the order in
/// which they were put in.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub struct DesktopAnswer(Map<String, Value>);

impl DesktopAnswer {
    /// A desktop at this address, with the members that real managers send.
    pub fn new(host: SocketAddr) -> Self {
        Self::at(&host.ip().to_string(), host.port())
    }

    /// A desktop at this host, given by name or address.
    pub fn at(host: &str, port: u16) -> Self {
        Self(Map::new())
            .with("status", "OK")
            .with("spice_address", host)
            .with("spice_port", port.to_string())
            .with("spice_password", "spice-password")
            .with("inactivity_timeout", 0)
            .with("usb_redirection", true)
    }

    /// An answer of exactly these members.
    pub fn of(members: Map<String, Value>) -> Self {
        Self(members)
    }

    /// Sets a member; a new one comes last.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The password for the Spice server.
    pub fn password(self, password: &str) -> Self {
        self.with("spice_password", password)
    }

    /// The whole answer.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

/// One scripted answer to `/vdi/desktop`.
#[derive(Clone, Debug)]
pub enum Reply {
    /// `Pending`: the desktop is being started.
    Pending,
    /// `Error` with this message.
    Error(String),
    /// `OK` with this desktop.
    Desktop(DesktopAnswer),
    /// Anything else.
    Json(Value),
}

/// The state behind `/vdi/authmode` and `/vdi/desktop`.
#[derive(Debug)]
pub(super) struct DesktopService {
    pub(super) auth_mode: String,
    pub(super) desktop: DesktopAnswer,
    pub(super) credentials: Option<(String, String)>,
    pub(super) choice: Map<String, Value>,
    pub(super) script: VecDeque<Reply>,
}

impl Default for DesktopService {
    fn default() -> Self {
        Self {
            auth_mode: "active_directory".to_owned(),
            desktop: DesktopAnswer::at("127.0.0.1", 5900),
            credentials: None,
            choice: Map::new(),
            script: VecDeque::new(),
        }
    }
}

impl DesktopService {
    /// The answer to a request with this body.
    pub(super) fn reply(&mut self, asked: &Value) -> Value {
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        if let Some(reply) = self.script.pop_front() {
            return match reply {
                Reply::Pending => json!({"status": "Pending", "message": "Starting the desktop"}),
                Reply::Error(message) => error(&message),
                Reply::Desktop(desktop) => desktop.to_json(),
                Reply::Json(value) => value,
            };
        }
        if let Some((username, password)) = &self.credentials
            && (text("username") != username || text("password") != password)
        {
            return error("Wrong user or password");
        }
        if self.choice.is_empty() || self.choice.contains_key(text("desktop")) {
            self.desktop.to_json()
        } else if text("desktop").is_empty() {
            let choice = Value::Object(self.choice.clone()).to_string();
            json!({"status": "SelectDesktop", "message": choice})
        } else {
            error("There is no such desktop")
        }
    }
}

fn error(message: &str) -> Value {
    json!({"status": "Error", "message": message})
}
