//! Requests whose bodies come late: what counts is what holds once they are there.

use serde_json::{Value, json};
use testkit::net::{Connection, read_to_end};
use testkit::prelude::*;
use tokio::io::AsyncWriteExt;

use super::{File, PASSWORD, desktop, user};
use crate::command_line::run;
use crate::reload::change;
use crate::support::logged;

fn content(host: &Host<Vec<u8>>, users: &[Value]) -> Value {
    json!({"desktops": [desktop("a", host)], "users": users})
}

/// A login whose last byte does not come yet; the gateway has begun to read it.
struct Held {
    connection: Connection,
    last: String,
}

impl Held {
    async fn begin(gateway: &Gateway) -> Self {
        let mut body = json!({"username": "ana", "password": PASSWORD}).to_string();
        let length = body.len();
        let last = body.split_off(length - 1);
        let mut connection = gateway.plain().connect().await.unwrap();
        let request = format!(
            "POST /vdi/desktop HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        logged(gateway, &["desktop asked for"]).await;
        Self { connection, last }
    }

    async fn finish(mut self) -> String {
        self.connection
            .write_all(self.last.as_bytes())
            .await
            .unwrap();
        let (answer, _) = read_to_end(&mut self.connection).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

#[tokio::test]
async fn a_user_who_is_removed_while_the_request_comes_is_not_let_in() {
    let host = Host::echo().await.unwrap();
    let file = File::new(&content(&host, &[user("ana", &["a"])]));
    let gateway = file.gateway().plain().set("Debug", true);
    let gateway = gateway.spawn().await.unwrap();
    let held = Held::begin(&gateway).await;
    file.write(&content(&host, &[]).to_string());
    change(&gateway, &[]).await;
    let answer = held.finish().await;
    assert!(answer.contains("Wrong user or password."), "{answer}");
}

#[tokio::test]
async fn what_was_begun_before_a_drain_gives_no_desktop_in_it() {
    let host = Host::echo().await.unwrap();
    let file = File::new(&content(&host, &[user("ana", &["a"])]));
    let gateway = file.gateway().plain().set("Debug", true);
    let gateway = gateway.spawn().await.unwrap();
    let held = Held::begin(&gateway).await;
    let config = gateway.config_path().to_str().unwrap();
    assert_eq!(run(["--config", config, "drain"]).await.code(), Some(0));
    let answer = held.finish().await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("No new desktops"), "{answer}");
}
