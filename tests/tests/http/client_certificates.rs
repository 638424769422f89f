//! Certificates of clients: who gets in, and who is told of it.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use http::{HeaderMap, Response, StatusCode};
use rustls::HandshakeKind;
use serde_json::{Value, json};
use testkit::client_cert::{ClientAuthority, ClientCert};
use testkit::command::find_program;
use testkit::gateway::{GatewayBuilder, Signal};
use testkit::http::{Call, HttpConnection};
use testkit::prelude::*;
use testkit::tls::TlsClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::reload::change;
use crate::support::{assert_opens, logged};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

/// The stand-in for a manager has nothing at the path that is asked for.
const ANSWERED: StatusCode = StatusCode::NOT_FOUND;

/// Peers of a gateway that asks its clients for certificates.
struct Scene {
    authority: ClientAuthority,
    manager: Manager,
    host: Host<Vec<u8>>,
    log: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let host = Host::echo().await.unwrap();
        let answer = DesktopAnswer::new(host.addr());
        Self {
            authority: ClientAuthority::new("test clients").unwrap(),
            manager: Manager::spawn(answer).await.unwrap(),
            host,
            log: tempfile::tempdir().unwrap(),
        }
    }

    fn gateway(&self) -> GatewayBuilder {
        let log = self.log.path().join("access.log");
        Gateway::builder()
            .manager(&self.manager)
            .set("AccessLog", log.to_str().unwrap())
            .set("ClientCAFile", path(&self.authority.path()))
    }

    /// What the manager was told of the last request.
    fn told(&self) -> HeaderMap {
        self.manager.requests().pop().unwrap().headers
    }

    /// The lines of the access log about this event.
    fn events(&self, event: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log.path().join("access.log")).unwrap();
        let lines = text
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines.filter(|line| line["event"] == event).collect()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn versions() -> [TlsClient; 2] {
    [TlsClient::tls12(), TlsClient::tls13()]
}

/// Asks the manager for something, with headers that a client may invent.
async fn ask(endpoint: &Endpoint) -> Result<Response<bytes::Bytes>> {
    let call = Call::get(endpoint, "/vdi/x")
        .header("X-SSL-Client-Verify", "SUCCESS")
        .header("X-SSL-Client-S-DN", "CN=root")
        .header("X-Forwarded-Client-Cert", "Hash=00");
    call.send().await
}

async fn gets_in(endpoint: &Endpoint) {
    let response = ask(endpoint).await.unwrap();
    assert_eq!(response.status(), ANSWERED);
}

async fn is_refused(endpoint: &Endpoint) {
    assert!(ask(endpoint).await.is_err());
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let scene = Scene::new().await;
    let alice = scene.authority.sign("alice").unwrap();
    let mut gateway = scene.gateway().spawn().await.unwrap();
    for client in versions() {
        let endpoint = gateway.tls().with_tls(client.presenting(&alice));
        gets_in(&endpoint).await;
        let told = scene.told();
        for (name, value) in [
            ("x-ssl-client-verify", Some("SUCCESS")),
            ("x-ssl-client-s-dn", Some("CN=alice,O=Example")),
            ("x-ssl-client-i-dn", Some("CN=test clients")),
            ("x-ssl-client-serial", Some(&*alice.serial())),
            ("x-ssl-client-san", Some("email:alice@example.com")),
            ("x-forwarded-client-cert", None),
        ] {
            assert_eq!(header(&told, name), value, "{name}");
        }
        let client = testkit::flexvdi::FlexVdiClient::new(&endpoint);
        let desktop = client.desktop().await.unwrap();
        assert_opens(&endpoint, &desktop.token).await;
    }
    assert!(gateway.terminate().await.unwrap().success());
    for event in ["request", "channel-open", "channel-closed"] {
        let lines = scene.events(event);
        assert!(lines.len() >= 2, "{event}");
        for line in lines {
            let certificate = json!({
                "subject": "CN=alice,O=Example",
                "issuer": "CN=test clients",
                "serial": alice.serial(),
                "names": ["email:alice@example.com"],
            });
            assert_eq!(line["certificate"], certificate, "{line}");
        }
    }
    assert_eq!(scene.host.accepted(), 2);
}

/// What is wrong with certificates, and what the log says of it.
fn refused_ones(scene: &Scene) -> Vec<(Option<ClientCert>, &'static str)> {
    let sign = |name| scene.authority.sign(name).unwrap();
    let past = SystemTime::now() - HOUR;
    let expired = scene.authority.sign_until("expired", past).unwrap();
    let stranger = ClientAuthority::new("somebody else").unwrap();
    let revoked = sign("revoked");
    scene
        .authority
        .revoke(&[&revoked], SystemTime::now() + DAY)
        .unwrap();
    vec![
        (None, "it has shown none"),
        (Some(expired), "it has expired"),
        (Some(revoked), "it is revoked"),
        (
            Some(stranger.sign("stranger").unwrap()),
            "no authority in ClientCAFile has signed it",
        ),
    ]
}

#[tokio::test]
async fn bad_certificates_are_refused_with_the_reason() {
    let scene = Scene::new().await;
    let refused = refused_ones(&scene);
    let list = scene.authority.path().with_file_name("crl.pem");
    let gateway = scene.gateway().set("ClientCRLFile", path(&list));
    let port = testkit::net::free_port().unwrap();
    let mut gateway = gateway
        .set("Debug", true)
        .set("AdminPort", port)
        .spawn()
        .await
        .unwrap();
    for client in versions() {
        for (certificate, reason) in &refused {
            let before = gateway.count_logged("client certificate refused").await;
            let client = match certificate {
                Some(certificate) => client.clone().presenting(certificate),
                None => client.clone(),
            };
            is_refused(&gateway.tls().with_tls(client)).await;
            let wanted = |line: &str| line.contains("client certificate refused");
            let line = gateway.wait_for_another(before, wanted, PATIENCE).await;
            let line = line.unwrap();
            assert!(line.contains(&format!("reason=\"{reason}\"")), "{line}");
            assert_eq!(line.contains("subject="), certificate.is_some(), "{line}");
        }
    }
    let alice = scene.authority.sign("alice").unwrap();
    gets_in(&gateway.tls().with_tls(TlsClient::new().presenting(&alice))).await;

    let admin = Endpoint::plain(([127, 0, 0, 1], port).into());
    let metrics = Call::get(&admin, "/metrics").send().await.unwrap();
    let metrics = String::from_utf8(metrics.body().to_vec()).unwrap();
    for line in [
        r#"flexvdi_gateway_tls_handshake_failures_total{reason="no certificate"} 2"#,
        r#"flexvdi_gateway_tls_handshake_failures_total{reason="certificate refused"} 6"#,
        r#"flexvdi_gateway_tls_handshake_failures_total{reason="failed"} 0"#,
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} in\n{metrics}"
        );
    }
    assert!(gateway.terminate().await.unwrap().success());
    let lines = scene.events("refused");
    assert_eq!(lines.len(), 8, "{lines:?}");
    let reason = "client certificate refused: it is revoked (CN=revoked,O=Example)";
    assert!(
        lines.iter().any(|line| line["reason"] == reason),
        "{lines:?}"
    );
}

#[tokio::test]
async fn certificates_may_be_optional() {
    let scene = Scene::new().await;
    let optional = scene.gateway().set("ClientCertificates", "optional");
    let gateway = optional.spawn().await.unwrap();
    let alice = scene.authority.sign("alice").unwrap();
    let stranger = ClientAuthority::new("somebody else").unwrap();
    let stranger = stranger.sign("alice").unwrap();
    for client in versions() {
        gets_in(&gateway.tls().with_tls(client.clone())).await;
        let told = scene.told();
        assert_eq!(header(&told, "x-ssl-client-verify"), Some("NONE"));
        assert_eq!(header(&told, "x-ssl-client-s-dn"), None);
        gets_in(&gateway.tls().with_tls(client.clone().presenting(&alice))).await;
        assert_eq!(
            header(&scene.told(), "x-ssl-client-verify"),
            Some("SUCCESS")
        );
        is_refused(&gateway.tls().with_tls(client.presenting(&stranger))).await;
    }
}

#[tokio::test]
async fn without_the_key_nobody_is_asked_and_nobody_invents_anything() {
    let scene = Scene::new().await;
    let gateway = Gateway::builder().manager(&scene.manager).plain();
    let gateway = gateway.spawn().await.unwrap();
    let alice = scene.authority.sign("alice").unwrap();
    let presenting = gateway.tls().with_tls(TlsClient::new().presenting(&alice));
    for endpoint in [gateway.tls(), gateway.plain(), presenting] {
        gets_in(&endpoint).await;
        let told = scene.told();
        let told = told.keys().find(|name| name.as_str().contains("client"));
        assert_eq!(told, None);
    }
    // A trusted proxy may have asked.
    change(&gateway, &[("TrustedProxies", json!(["127.0.0.1"]))]).await;
    gets_in(&gateway.plain()).await;
    assert_eq!(header(&scene.told(), "x-ssl-client-s-dn"), Some("CN=root"));
}

#[tokio::test]
async fn a_resumed_session_has_its_certificate_until_the_authorities_change() {
    let scene = Scene::new().await;
    let gateway = scene
        .gateway()
        .set("CertificatePoll", 0)
        .spawn()
        .await
        .unwrap();
    let alice = scene.authority.sign("alice").unwrap();
    // What TLS has agreed on, once the manager has answered; tickets come with the answer.
    let kind = async |endpoint: &Endpoint| {
        let mut connection = endpoint.connect().await.unwrap();
        let request = b"GET /vdi/x HTTP/1.1\r\nHost: gw\r\n\r\n";
        connection.write_all(request).await.unwrap();
        connection.flush().await.unwrap();
        let mut begin = [0; 12];
        connection.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 404");
        connection.tls().unwrap().handshake_kind()
    };
    let endpoints = versions().map(|client| {
        let client = client.presenting(&alice).resuming();
        gateway.tls().with_tls(client)
    });
    for endpoint in &endpoints {
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            assert_eq!(kind(endpoint).await, Some(expected));
            let told = scene.told();
            assert_eq!(
                header(&told, "x-ssl-client-s-dn"),
                Some("CN=alice,O=Example")
            );
        }
    }
    let other = ClientAuthority::new("new authority").unwrap();
    std::fs::copy(other.path(), scene.authority.path()).unwrap();
    gateway.signal(Signal::HUP).unwrap();
    logged(&gateway, &["reloaded", "certificate"]).await;
    for endpoint in &endpoints {
        is_refused(endpoint).await;
    }
    let bob = other.sign("bob").unwrap();
    gets_in(&gateway.tls().with_tls(TlsClient::new().presenting(&bob))).await;
}

#[tokio::test]
async fn a_list_of_revoked_certificates_is_in_effect_without_a_restart() {
    let scene = Scene::new().await;
    let (alice, bob) = (
        scene.authority.sign("alice").unwrap(),
        scene.authority.sign("bob").unwrap(),
    );
    let tomorrow = SystemTime::now() + DAY;
    let list = scene.authority.revoke(&[], tomorrow).unwrap();
    let gateway = scene
        .gateway()
        .set("ClientCRLFile", path(&list))
        .set("CertificatePoll", 1);
    let gateway = gateway.spawn().await.unwrap();
    let [of_alice, of_bob] =
        [&alice, &bob].map(|cert| gateway.tls().with_tls(TlsClient::new().presenting(cert)));
    gets_in(&of_alice).await;
    let mut open = HttpConnection::open(&of_alice).await.unwrap();

    scene.authority.revoke(&[&alice], tomorrow).unwrap();
    logged(&gateway, &["reloaded", "certificate"]).await;
    is_refused(&of_alice).await;
    gets_in(&of_bob).await;
    // What is open goes on.
    let call = Call::get(&of_alice, "/vdi/x").into_request();
    assert_eq!(open.send(call).await.unwrap().status(), ANSWERED);

    std::fs::write(&list, "no list").unwrap();
    logged(&gateway, &["not reloaded", "ClientCRLFile"]).await;
    gets_in(&of_bob).await;
    is_refused(&of_alice).await;

    // One that is out of date says nothing of anybody.
    let before = gateway.count_logged("reloaded changed").await;
    let past = SystemTime::now() - HOUR;
    scene.authority.revoke(&[], past).unwrap();
    let reloaded = |line: &str| line.contains("reloaded changed");
    gateway
        .wait_for_another(before, reloaded, PATIENCE)
        .await
        .unwrap();
    is_refused(&of_bob).await;
    logged(&gateway, &["client certificate refused", "out of date"]).await;
}

#[tokio::test]
async fn whether_certificates_are_required_changes_without_a_restart() {
    let scene = Scene::new().await;
    let gateway = scene.gateway().spawn().await.unwrap();
    is_refused(&gateway.tls()).await;
    change(&gateway, &[("ClientCertificates", json!("optional"))]).await;
    gets_in(&gateway.tls()).await;
    change(&gateway, &[("ClientCertificates", json!("required"))]).await;
    is_refused(&gateway.tls()).await;
    change(&gateway, &[("ClientCAFile", json!(""))]).await;
    gets_in(&gateway.tls()).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = std::fs::read_to_string(scene.authority.path()).unwrap();
    let ca = ca.as_str();
    let damaged = ca.replacen("MII", "MIJ", 1);
    for (key, value, expected) in [
        (
            "ClientCAFile",
            file("none", ""),
            "ClientCAFile: expected a PEM file with certificates",
        ),
        (
            "ClientCAFile",
            "/nonexistent".to_owned(),
            "/nonexistent: ClientCAFile",
        ),
        (
            "ClientCAFile",
            file("damaged", &damaged),
            "cannot be an authority",
        ),
        (
            "ClientCRLFile",
            file("list", ca),
            "ClientCRLFile: expected a PEM file with lists",
        ),
        (
            "ClientCertificates",
            "never".to_owned(),
            "ClientCertificates: expected",
        ),
    ] {
        let error = scene.gateway().set(key, value).spawn().await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{expected} in {error}");
    }
    let alone = Gateway::builder().set("ClientCRLFile", file("list", ca));
    let error = format!("{:#}", alone.spawn().await.unwrap_err());
    assert!(
        error.contains("ClientCRLFile: expected \"\", as there is no ClientCAFile"),
        "{error}"
    );
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn openssl_shows_its_certificate() {
    let openssl = find_program("openssl").expect("no openssl: run `apt-get install -y openssl`");
    let scene = Scene::new().await;
    let gateway = scene.gateway().spawn().await.unwrap();
    let alice = scene.authority.sign("alice").unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new(&openssl)
            .args(["s_client", "-quiet", version, "-connect"])
            .arg(gateway.tls_addr().to_string())
            .arg("-cert")
            .arg(alice.cert_path())
            .arg("-key")
            .arg(alice.key_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let request = b"GET /vdi/x HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
        let mut input = client.stdin.take().unwrap();
        input.write_all(request).await.unwrap();
        let output = within("openssl s_client", client.wait_with_output()).await;
        let output = output.unwrap().unwrap().stdout;
        assert!(output.starts_with(b"HTTP/1.1 404"), "{version}");
        drop(input);
        assert_eq!(
            header(&scene.told(), "x-ssl-client-s-dn"),
            Some("CN=alice,O=Example")
        );
    }
}
