//! Keys of a pool that are changed while its gateways run.

use http::StatusCode;
use serde_json::json;
use tempfile::TempDir;
use testkit::flexvdi::FlexVdiClient;
use testkit::prelude::*;

use super::hang_up;
use crate::support::{assert_error, assert_opens, logged, refused};

/// The line of a new key.
fn key() -> String {
    let file = ::gateway::pool::new_file().unwrap();
    let line = file.lines().find(|line| line.starts_with("key "));
    line.unwrap().to_owned()
}

/// A gateway of a pool, which has a file of its own.
struct Member {
    gateway: Gateway,
    folder: TempDir,
}

impl Member {
    async fn new(manager: &Manager, keys: &[&str]) -> Self {
        let folder = TempDir::with_prefix("testkit-pool-").unwrap();
        let path = folder.path().join("keys");
        write(&path, keys);
        let gateway = Gateway::builder()
            .manager(manager)
            .set("CertificatePoll", 1)
            .set("PoolKeyFile", path.to_str().unwrap());
        Self {
            gateway: gateway.spawn().await.unwrap(),
            folder,
        }
    }

    fn write(&self, keys: &[&str]) {
        write(&self.folder.path().join("keys"), keys);
    }

    async fn ticket(&self) -> String {
        let client = FlexVdiClient::new(&self.gateway.tls());
        client.desktop().await.unwrap().token
    }

    async fn opens(&self, ticket: &str) {
        assert_opens(&self.gateway.tls(), ticket).await;
    }

    async fn refuses(&self, ticket: &str) {
        let answer = refused(&self.gateway.tls(), ticket).await;
        assert_error(&answer, StatusCode::FORBIDDEN);
    }

    async fn taken(&self, count: usize) {
        let told = format!("keys of the pool, {count} of them");
        logged(&self.gateway, &["INFO reloaded", &told]).await;
    }
}

fn write(path: &std::path::Path, keys: &[&str]) {
    let text = format!("flexvdi-gateway-pool-keys 1\n{}\n", keys.join("\n"));
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_key_is_changed_without_losing_a_ticket() {
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let (old, new) = (key(), key());
    let first = Member::new(&manager, &[&old]).await;
    let second = Member::new(&manager, &[&old]).await;
    let before = [first.ticket().await, first.ticket().await];
    second.opens(&before[0]).await;

    // The first one seals with the new key already, which is too early for the second.
    first.write(&[&new, &old]);
    let line = hang_up(&first.gateway).await;
    assert!(line.contains("keys of the pool, 2 of them"), "{line}");
    assert!(!line.contains(&new[4..]), "{line}");
    let after = first.ticket().await;
    first.opens(&before[1]).await;
    second.refuses(&after).await;
    // It notices by itself.
    second.write(&[&old, &new]);
    second.taken(2).await;
    second.opens(&after).await;
    first.opens(&second.ticket().await).await;

    // What cannot be used changes nothing, whoever asks.
    first.write(&["key nonsense"]);
    let told = ["ERROR not reloaded", "PoolKeyFile", "line 2"];
    logged(&first.gateway, &told).await;
    let line = hang_up(&first.gateway).await;
    assert!(line.contains("ERROR not reloaded"), "{line}");
    second.opens(&first.ticket().await).await;
    let last_of_old = second.ticket().await;
    first.opens(&last_of_old).await;

    // The old key goes.
    let unused = second.ticket().await;
    second.write(&[&new]);
    second.taken(1).await;
    second.refuses(&unused).await;
    second.opens(&first.ticket().await).await;
}

#[tokio::test]
async fn a_gateway_joins_a_pool_and_leaves_it() {
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let key = key();
    let member = Member::new(&manager, &[&key]).await;
    let joining = Gateway::builder().manager(&manager).spawn().await.unwrap();
    let client = FlexVdiClient::new(&joining.tls());
    let own = client.desktop().await.unwrap().token;
    let path = member.folder.path().join("keys");
    joining
        .change_config(&[("PoolKeyFile", json!(path))])
        .unwrap();
    let line = hang_up(&joining).await;
    assert!(line.contains("keys of the pool, 1 of them"), "{line}");
    let shared = client.desktop().await.unwrap().token;
    member.opens(&shared).await;
    assert_opens(&joining.tls(), &own).await;
    joining
        .change_config(&[("PoolKeyFile", json!(""))])
        .unwrap();
    let line = hang_up(&joining).await;
    assert!(line.contains("keys of the pool, none"), "{line}");
    assert_opens(&joining.tls(), &client.desktop().await.unwrap().token).await;
    let answer = refused(&joining.tls(), &member.ticket().await).await;
    assert_error(&answer, StatusCode::FORBIDDEN);
}
