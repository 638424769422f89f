//! Tickets and desktop sessions through an upgrade.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::{Value, json};
use testkit::flexvdi::FlexVdiClient;
use testkit::manager::{full, json_response};
use testkit::portal::Portal;
use testkit::prelude::*;
use testkit::ws::Connect;

use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

use crate::support::successor_of;

async fn sessions_of(gateway: &Gateway, text: &str) -> Vec<String> {
    let lines = gateway.log().await;
    let lines = lines.iter().filter(|line| line.contains(text));
    let word = |line: &String| {
        let mut words = line.split_whitespace();
        words
            .find(|word| word.starts_with("session="))
            .map(str::to_owned)
    };
    lines.filter_map(word).collect()
}

#[tokio::test]
async fn tickets_stay_good_for_the_same_session() {
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let configured = || Gateway::builder().manager(&manager).plain();
    let mut gateway = configured().spawn().await.unwrap();
    let client = FlexVdiClient::new(&gateway.tls());
    let used = client.desktop().await.unwrap().token;
    let unused = client.desktop().await.unwrap().token;
    let mut channel = ws::echo_channel(&gateway.tls(), &used).await.unwrap();
    let begun = sessions_of(&gateway, "channel open").await;
    let successor = successor_of(&gateway, configured()).await;
    assert!(gateway.wait().await.unwrap().success());
    let mut second = ws::echo_channel(&successor.tls(), &used).await.unwrap();
    channel.echo(b"first").await.unwrap();
    second.echo(b"second").await.unwrap();
    assert_eq!(sessions_of(&successor, "channel open").await, begun);
    drop((channel, second));
    // A client that comes back, and one that has waited until now.
    let mut again = ws::echo_channel(&successor.tls(), &used).await.unwrap();
    again.echo(b"again").await.unwrap();
    let mut late = ws::echo_channel(&successor.tls(), &unused).await.unwrap();
    late.echo(b"late").await.unwrap();
    let sessions = sessions_of(&successor, "channel open").await;
    assert_eq!(sessions[1], begun[0]);
    assert_ne!(sessions[2], begun[0]);
    // New ones have numbers of their own.
    let fresh = FlexVdiClient::new(&successor.tls())
        .desktop()
        .await
        .unwrap();
    let _fresh = ws::echo_channel(&successor.tls(), &fresh.token)
        .await
        .unwrap();
    let sessions = sessions_of(&successor, "channel open").await;
    assert!(!sessions[..3].contains(&sessions[3]), "{sessions:?}");
}

#[tokio::test]
async fn a_ticket_that_the_old_process_still_issues_is_good_at_once() {
    let host = Host::echo().await.unwrap();
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let desktop = DesktopAnswer::new(host.addr());
    let manager = {
        let (go, asked) = (Arc::clone(&go), Arc::clone(&asked));
        Manager::with_handler(move |request| {
            let (go, asked, desktop) = (Arc::clone(&go), Arc::clone(&asked), desktop.clone());
            async move {
                match request.uri.path() {
                    "/vdi/authmode" => {
                        json_response(&json!({"status": "OK", "auth_mode": "x"}), false)
                    }
                    "/vdi/desktop" => {
                        asked.notify_one();
                        go.notified().await;
                        json_response(&desktop.to_json(), false)
                    }
                    _ => Response::new(full("")),
                }
            }
        })
    };
    let manager = manager.await.unwrap();
    let configured = || Gateway::builder().manager(&manager).plain();
    let mut gateway = configured().spawn().await.unwrap();
    let endpoint = gateway.tls();
    let client = FlexVdiClient::new(&endpoint);
    let answer = tokio::spawn(async move { client.desktop().await });
    within("a request", asked.notified()).await.unwrap();
    let successor = successor_of(&gateway, configured()).await;
    go.notify_one();
    let token = answer.await.unwrap().unwrap().token;
    let mut channel = ws::echo_channel(&endpoint, &token).await.unwrap();
    channel.echo(b"at once").await.unwrap();
    assert_eq!(sessions_of(&successor, "channel open").await.len(), 1);
    assert!(gateway.wait().await.unwrap().success());
}

#[tokio::test]
async fn the_successor_shows_and_ends_what_it_took_over() {
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let port = testkit::net::free_port().unwrap();
    let configured = || {
        let gateway = Gateway::builder().manager(&manager).plain();
        gateway.set("AdminPort", port)
    };
    let mut gateway = configured().spawn().await.unwrap();
    let client = FlexVdiClient::new(&gateway.tls());
    let token = client.desktop().await.unwrap().token;
    let mut channel = ws::echo_channel(&gateway.tls(), &token).await.unwrap();
    let seen = |text: String| {
        let status: Value = serde_json::from_str(&text).unwrap();
        let session = &status["sessions"][0];
        (
            session["session"].clone(),
            session["channels"][0]["kind"].clone(),
            session["moved"]["up_bytes"].clone(),
        )
    };
    let before = seen(gateway.output(&["status", "--json"]).await.unwrap());
    assert_eq!(before.0, "s1");
    let successor = successor_of(&gateway, configured()).await;
    assert!(gateway.wait().await.unwrap().success());
    assert_eq!(
        seen(successor.output(&["status", "--json"]).await.unwrap()),
        before
    );
    assert_eq!(
        successor.output(&["kick", "s1"]).await.unwrap(),
        "s1: 1 channel closed\n"
    );
    assert_eq!(channel.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(channel.close_code(), Some(1001));
}

#[tokio::test]
async fn sessions_with_signed_tickets_go_on_and_none_begins_twice() {
    let (host, portal) = (Host::echo().await.unwrap(), Portal::new().unwrap());
    let file = portal.file();
    let configured = || {
        let gateway = Gateway::builder().plain().set("ReconnectTimeout", 1);
        gateway.set("TicketPublicKeys", file.to_str().unwrap())
    };
    let mut gateway = configured().spawn().await.unwrap();
    let token = |id: &str| portal.token(host.addr(), &json!({ "jti": id }));
    let (used, ended) = (token("used"), token("ended"));
    let mut channel = ws::echo_channel(&gateway.tls(), &used).await.unwrap();
    drop(ws::echo_channel(&gateway.tls(), &ended).await.unwrap());
    let is_closed = |line: &str| line.contains("channel closed");
    gateway.wait_for_log(is_closed, PATIENCE).await.unwrap();
    let begun = sessions_of(&gateway, "channel open").await;
    let successor = successor_of(&gateway, configured()).await;
    assert!(gateway.wait().await.unwrap().success());
    channel.echo(b"first").await.unwrap();
    let mut second = ws::echo_channel(&successor.tls(), &used).await.unwrap();
    second.echo(b"second").await.unwrap();
    assert_eq!(sessions_of(&successor, "channel open").await, begun[..1]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let refused = Connect::new(&successor.tls(), &ended).open().await.unwrap();
    assert_eq!(refused.refused().unwrap().status(), StatusCode::FORBIDDEN);
}
