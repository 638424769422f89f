//! The messages of a hand-over, spoken by the tests.

use std::path::Path;

use serde_json::{Value, json};
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Version of the messages.
pub(crate) const VERSION: u32 = 5;

/// One side of a hand-over that speaks the messages itself.
pub(crate) struct Pretender(UnixStream);

impl Pretender {
    /// The predecessor of whoever connects.
    pub(crate) fn of_successor(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// A successor of the gateway in this directory.
    pub(crate) async fn connect(dir: &Path) -> Self {
        Self(
            UnixStream::connect(dir.join("handover.sock"))
                .await
                .unwrap(),
        )
    }

    /// Sends a message without descriptors.
    pub(crate) async fn say(&mut self, message: &Value) {
        let body = message.to_string();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let header = [length, [0; 4]].concat();
        self.0.write_all(&header).await.unwrap();
        self.0.write_all(body.as_bytes()).await.unwrap();
    }

    /// The name of the next message.
    pub(crate) async fn hear(&mut self) -> String {
        match self.next().await {
            Value::String(name) => name,
            Value::Object(message) => message.keys().next().unwrap().clone(),
            other => panic!("{other}"),
        }
    }

    /// The next message. Descriptors that come with it are closed by the system.
    pub(crate) async fn next(&mut self) -> Value {
        let length = within("a message", self.0.read_u32())
            .await
            .unwrap()
            .unwrap();
        self.0.read_u32().await.unwrap();
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Whether the other side ends without a further word.
    pub(crate) async fn has_ended(&mut self) -> bool {
        let read = within("the other side's end", self.0.read(&mut [0])).await;
        matches!(read.unwrap(), Ok(0))
    }

    /// Goes on until it was given what belongs to no channel, which is returned: the gateway is
    /// open to nobody any more.
    pub(crate) async fn is_given_the_estate(&mut self) -> Value {
        self.say(&json!({"Hello": {"version": VERSION}})).await;
        assert_eq!(self.hear().await, "Welcome");
        self.say(&json!("Ready")).await;
        let estate = self.next().await;
        assert!(estate["Estate"].is_object(), "{estate}");
        estate
    }

    /// Goes on until it was given channels; the numbers that are to be said to be taken.
    pub(crate) async fn is_given_channels(&mut self) -> Vec<u64> {
        self.is_given_the_estate().await;
        self.say(&json!("Serving")).await;
        let mut given = self.next().await;
        // eBPF programs of channels come first.
        while given["Set"].is_object() {
            given = self.next().await;
        }
        let channels = given["Channels"].as_array().unwrap().iter();
        channels
            .map(|state| state["id"].as_u64().unwrap())
            .collect()
    }
}
