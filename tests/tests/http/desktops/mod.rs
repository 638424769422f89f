//! Desktops from a file, in place of a manager.

mod api;
mod file;
mod granted;
mod late;
mod login;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::prelude::*;

/// What [`HASH`] is a hash of.
const PASSWORD: &str = "password";
/// From src/test.c of argon2's reference implementation: little work.
const HASH: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
/// As much work as a hash may ask for.
const COSTLY: &str =
    "$argon2id$v=19$m=65536,t=10,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
/// What the stand-in for the flexVDI client sends.
const HARDWARE_ADDRESS: &str = "52:54:00:12:34:56";

/// The file, in a folder of its own.
struct File(TempDir);

impl File {
    fn new(content: &Value) -> Self {
        let file = Self(TempDir::with_prefix("testkit-desktops-").unwrap());
        file.write(&content.to_string());
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("desktops.json")
    }

    fn write(&self, content: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    /// A gateway with this file.
    fn gateway(&self) -> GatewayBuilder {
        Gateway::builder().set("Desktops", self.path().to_str().unwrap())
    }
}

/// A desktop on a host.
fn desktop<T: Send + 'static>(id: &str, host: &Host<T>) -> Value {
    json!({
        "id": id,
        "name": format!("Desktop {id}"),
        "address": host.addr().to_string(),
        "password": format!("spice of {id}"),
    })
}

/// A user whose password is [`PASSWORD`].
fn user(name: &str, desktops: &[&str]) -> Value {
    json!({"name": name, "password": HASH, "desktops": desktops})
}

fn client(gateway: &Gateway, user: &str) -> FlexVdiClient {
    FlexVdiClient::new(&gateway.tls()).login(user, PASSWORD)
}

/// Logs in, and gives the answer.
async fn log_in(endpoint: &Endpoint, user: &str, password: &str) -> Response<Bytes> {
    let asked = json!({"hwaddress": "02", "username": user, "password": password, "desktop": ""});
    let call = Call::post(endpoint, "/vdi/desktop", asked.to_string());
    call.send().await.unwrap()
}

fn body(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}
