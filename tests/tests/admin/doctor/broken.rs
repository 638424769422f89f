//! Installations without a running gateway: a sound one, and each in which one thing is wrong.

use std::net::Ipv4Addr;
use std::time::Duration;

use http::header::DATE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use testkit::manager::full;
use testkit::prelude::*;
use tokio::net::TcpListener;

use super::{Installation, doctor, run, set_mode, sound_cert};

#[tokio::test]
async fn a_sound_installation_gives_no_warning() {
    let installation = Installation::new().await;
    let found = installation.look().await;
    assert!(found.troubles.is_empty(), "{}", found.text);
    for line in [
        "ok       manager        127.0.0.1:",
        "ok       hosts          the one that was tried answers",
        "ok       clock          like the manager's",
        "ok       name           localhost is this machine",
        "ok       desktops       not from a file",
    ] {
        assert!(found.text.contains(line), "{line} in {}", found.text);
    }
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_told_and_nothing_is_judged_by_defaults() {
    let mut installation = Installation::new().await;
    installation.set("KeepAlife", 30);
    let told = "unknown key \"KeepAlife\" ignored; did you mean \"KeepAlive\"?";
    installation.finds("warning", "configuration ", told).await;
    installation.config.remove("KeepAlife");
    installation.set("SslPort", "no port");
    let found = installation.look().await;
    found.is("error", "configuration ", "SslPort: expected");
    assert!(
        found.text.contains("skipped  certificate    not looked at"),
        "{}",
        found.text
    );

    let mut missing = doctor("/nonexistent/gateway.conf".as_ref());
    missing.arg("--json");
    let found = run(missing).await;
    assert_eq!(found.output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&found.output.stdout).unwrap();
    assert_eq!(report["errors"], 1);
    let first = &report["checks"][0];
    assert_eq!(
        (&first["check"], &first["result"]),
        (&json!("configuration"), &json!("error"))
    );
    assert!(first["do"].as_str().unwrap().contains("--config FILE"));
}

#[tokio::test]
async fn rights_of_files_are_judged_for_the_gateways_user() {
    let installation = Installation::new().await;
    let key = installation.cert.key_path();
    set_mode(&key, 0o644);
    installation
        .finds("warning", "files ", "others may read or change it")
        .await;
    set_mode(&key, 0o600);

    // A user who has nothing to do with these files.
    let mut command = installation.command();
    command.args(["--user", "54321"]);
    let found = run(command).await;
    let told: Vec<_> = found
        .troubles
        .iter()
        .filter(|line| line.contains(" files "))
        .collect();
    assert_eq!(told.len(), 1, "{}", found.text);
    assert!(told[0].starts_with("error "), "{}", found.text);
    assert!(
        told[0].contains("KeyFile: the user 54321 may not read"),
        "{}",
        found.text
    );
    assert!(told[0].contains("chmod g+r"), "{}", found.text);

    set_mode(key.parent().unwrap(), 0o700);
    let mut command = installation.command();
    command.args(["--user", "54321"]);
    let found = run(command).await;
    assert!(found.text.contains("has mode 700"), "{}", found.text);

    std::fs::remove_file(&key).unwrap();
    installation.finds("error", "files ", "KeyFile").await;
}

#[tokio::test]
async fn a_user_who_is_not_there_is_told() {
    let installation = Installation::new().await;
    let mut command = installation.command();
    command.args(["--user", "no-such-user"]);
    let found = run(command).await;
    assert_eq!(found.output.status.code(), Some(1));
    assert!(
        found.text.contains("there is no user \"no-such-user\""),
        "{}",
        found.text
    );
}

#[tokio::test]
async fn certificates_that_clients_refuse_are_told() {
    let day = Duration::from_secs(86_400);
    for (cert, result, told) in [
        (sound_cert().ended(day), "error", "has expired"),
        (
            sound_cert().life(day / 2 + 4 * day),
            "warning",
            "ends in 4 days",
        ),
        (
            sound_cert().names(["other.example"]),
            "error",
            "is for other.example, and not for ExternalName, localhost",
        ),
        (
            TestCert::builder(),
            "warning",
            "signed by nobody but itself",
        ),
    ] {
        let installation = Installation::with_cert(cert.build().unwrap()).await;
        installation.finds(result, "certificate ", told).await;
    }
    // Of a chain only the first.
    let installation = Installation::new().await;
    let path = installation.cert.cert_path();
    let text = std::fs::read_to_string(&path).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let (first, _) = text.split_once(end).unwrap();
    std::fs::write(&path, format!("{first}{end}")).unwrap();
    let told = "holds one certificate, and its issuer";
    installation.finds("warning", "certificate ", told).await;
    // Another's key.
    let other = TestCert::new().unwrap();
    std::fs::copy(other.key_path(), installation.cert.key_path()).unwrap();
    installation.protect_key();
    installation
        .finds(
            "error",
            "certificate ",
            "expected the key of the certificate",
        )
        .await;
}

#[tokio::test]
async fn a_certificate_that_the_gateway_gets_by_itself_is_looked_for_where_it_is_kept() {
    let mut installation = Installation::new().await;
    let state = installation.path("state");
    let kept = state.join("acme/certificate.pem");
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    installation.config.remove("CertFile");
    installation.config.remove("KeyFile");
    installation.set("StateDirectory", state.to_str().unwrap());
    let mut acme = json!({
        "Domains": ["gateway.example.com"],
        "DirectoryCAFile": installation.cert.ca_path(),
        "TermsAgreed": true,
    });
    installation.set("Acme", acme.clone());
    let found = installation.look().await;
    assert!(
        found.text.contains("(StateDirectory) read-only"),
        "{}",
        found.text
    );
    installation.unit = format!("ReadWritePaths={}\n", state.display());
    installation
        .finds("warning", "certificate ", "there is no certificate yet")
        .await;

    let own = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let (chain, key) = (installation.cert.cert_path(), installation.cert.key_path());
    std::fs::write(&kept, own(chain) + &own(key)).unwrap();
    let found = installation.look().await;
    assert!(found.troubles.is_empty(), "{}", found.text);
    std::fs::write(&kept, "junk").unwrap();
    installation
        .finds("warning", "certificate ", "it is ordered anew")
        .await;
    std::fs::remove_file(&kept).unwrap();

    acme["DirectoryCAFile"] = json!("/nonexistent/authorities.pem");
    installation.set("Acme", acme);
    let found = installation.look().await;
    let told = "error    files          DirectoryCAFile of Acme: /nonexistent/authorities.pem";
    assert!(found.text.contains(told), "{}", found.text);
}

#[tokio::test]
async fn files_of_others_that_cannot_be_used_are_told() {
    let mut installation = Installation::new().await;
    let junk = installation.write("junk", "junk");
    for (key, check) in [
        ("ManagerCAFile", "authorities "),
        ("HostCAFile", "authorities "),
        ("TicketPublicKeys", "authorities "),
        ("PoolKeyFile", "pool "),
        ("ClientCAFile", "certificate "),
    ] {
        let before = installation.config.get(key).cloned();
        installation.set(key, junk.clone());
        installation.finds("error", check, key).await;
        match before {
            Some(before) => installation.set(key, before),
            None => drop(installation.config.remove(key)),
        }
    }
    installation.set("ClientCAFile", "/nonexistent/clients.pem");
    installation.finds("error", "files ", "ClientCAFile").await;
    installation.config.remove("ClientCAFile");
    let keys = "flexvdi-gateway-pool-keys 1\nkey 0dpJqGm3cTz0Xo2nkH5fJ2zv1Qw8sYb4uR7eLxNcVaM\n";
    let keys = installation.write("pool.keys", keys);
    installation.set("PoolKeyFile", keys.clone());
    assert!(installation.look().await.troubles.is_empty());
    set_mode(keys.as_ref(), 0o644);
    let found = installation.look().await;
    found.is("warning", "pool ", "whoever has a key can make tickets");
    assert!(!found.text.contains("0dpJ"));
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_told() {
    for (name, result, told) in [
        (
            "nothing.invalid",
            "error",
            "nothing.invalid, does not resolve",
        ),
        (
            "192.0.2.1",
            "warning",
            "none of these addresses is this machine's",
        ),
    ] {
        let cert = sound_cert().names([name]).build().unwrap();
        let mut installation = Installation::with_cert(cert).await;
        installation.set("ExternalName", name);
        installation.finds(result, "name ", told).await;
    }
}

#[tokio::test]
async fn proxies_whose_word_is_taken_wrongly_are_told() {
    let mut installation = Installation::new().await;
    installation.set("TrustedProxies", json!(["0.0.0.0/0"]));
    installation
        .finds("warning", "proxies ", "which is everybody")
        .await;
}

#[tokio::test]
async fn ports_of_others_are_told() {
    let mut installation = Installation::new().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    installation.set("SslPort", port);
    let holder = format!("(process {})", std::process::id());
    let found = installation.look().await;
    found.is(
        "error",
        "ports ",
        &format!("port {port} (SslPort) is held by"),
    );
    assert!(found.text.contains(&holder), "{}", found.text);
    drop(taken);
    assert!(installation.look().await.troubles.is_empty());
    installation.set("ListenAddress", "192.0.2.1");
    installation
        .finds("error", "ports ", "is no address of this machine")
        .await;
}

#[tokio::test]
async fn units_that_lack_something_are_told() {
    let mut installation = Installation::new().await;
    installation.unit = "RestartKillSignal=SIGTERM\n".to_owned();
    installation
        .finds("warning", "unit ", "RestartKillSignal= is SIGTERM")
        .await;
    installation.unit = "LimitNOFILE=100\n".to_owned();
    installation
        .finds("warning", "descriptors ", "of 100 MaxConnections")
        .await;
}

#[tokio::test]
async fn a_manager_that_does_not_serve_is_told() {
    let mut installation = Installation::new().await;
    let other = TestCert::new().unwrap();
    let theirs = installation.config["ManagerCAFile"].clone();
    installation.set("ManagerCAFile", other.ca_path().to_str().unwrap());
    installation.finds("error", "manager ", "no TLS: ").await;
    installation.set("ManagerCAFile", "");
    installation
        .finds(
            "warning",
            "manager ",
            "any certificate of the manager is accepted",
        )
        .await;
    installation.set("ManagerCAFile", theirs);
    // A port where nobody listens, and one where somebody does who is no web server.
    let free = testkit::net::free_port().unwrap();
    installation.set("ManagerPort", free);
    installation
        .finds("error", "manager ", "is not reached: Connection refused")
        .await;
    installation.set("ManagerPort", installation.host.addr().port());
    installation.finds("error", "manager ", "no TLS: ").await;
    installation.set("ManagerIP", "nothing.invalid");
    installation
        .finds("error", "manager ", "nothing.invalid, does not resolve")
        .await;
}

#[tokio::test]
async fn a_manager_that_fails_and_one_with_another_time_are_told() {
    let failing = Manager::with_handler(|_| async {
        let mut response = Response::new(full("no"));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    });
    let behind = Manager::with_handler(|_| async {
        let mut response = Response::new(full("yes"));
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        response.headers_mut().insert(DATE, date);
        response
    });
    for (manager, check, told) in [
        (
            failing.await.unwrap(),
            "manager ",
            "answers with status 502",
        ),
        (behind.await.unwrap(), "clock ", "s ahead of the manager's"),
    ] {
        let mut installation = Installation::new().await;
        installation.set("ManagerPort", manager.addr().port());
        installation.set("ManagerCAFile", manager.cert().ca_path().to_str().unwrap());
        installation.finds("warning", check, told).await;
    }
}

#[tokio::test]
async fn a_portal_that_is_not_reached_or_trusted_is_told() {
    let mut installation = Installation::new().await;
    let portal = Manager::spawn(DesktopAnswer::new(installation.host.addr()))
        .await
        .unwrap();
    let url = format!("https://127.0.0.1:{}/tickets", portal.addr().port());
    installation.set("TicketURL", url);
    installation.set("TicketURLCAFile", portal.cert().ca_path().to_str().unwrap());
    let found = installation.look().await;
    assert!(found.troubles.is_empty(), "{}", found.text);
    assert!(
        found.text.contains("is reached and trusted"),
        "{}",
        found.text
    );
    assert!(portal.requests().is_empty(), "it was asked something");
    let other = TestCert::new().unwrap();
    installation.set("TicketURLCAFile", other.ca_path().to_str().unwrap());
    installation.finds("error", "portal ", "no TLS: ").await;
    let free = testkit::net::free_port().unwrap();
    installation.set("TicketURL", format!("https://127.0.0.1:{free}/"));
    installation
        .finds("error", "portal ", "is not reached: Connection refused")
        .await;
}
