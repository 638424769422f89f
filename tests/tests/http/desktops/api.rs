//! The API as clients of every kind use it.

use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, StatusCode, Version};
use serde_json::{Value, json};
use testkit::http::{Call, exchange};
use testkit::prelude::*;

use super::{File, PASSWORD, body, client, desktop, log_in, user};
use crate::command_line::run;
use crate::support::{ask_desktop, assert_error, assert_opens, get, logged};

fn file_of(host: &Host<Vec<u8>>) -> File {
    File::new(&json!({
        "desktops": [desktop("a", host)],
        "users": [user("ana", &["a"])],
    }))
}

#[tokio::test]
async fn a_desktop_may_be_a_socket_below_an_allowed_directory() {
    let host = Host::echo().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("7.sock");
    let _front = Front::unix(&socket, host.addr()).unwrap();
    let mut listed = desktop("a", &host);
    listed["address"] = json!(format!("unix:{}", socket.display()));
    let file = File::new(&json!({"desktops": [listed], "users": [user("ana", &["a"])]}));

    let allowed = vec![directory.path().to_str().unwrap()];
    let gateway = file.gateway().set("AllowedSockets", allowed);
    let gateway = gateway.spawn().await.unwrap();
    let given = client(&gateway, "ana").desktop().await.unwrap();
    assert_opens(&gateway.tls(), &given.token).await;
    let shown = format!("host=unix:{}", socket.display());
    logged(&gateway, &["channel open", &shown]).await;

    let strict = file.gateway().spawn().await.unwrap();
    let refused = log_in(&strict.tls(), "ana", PASSWORD).await;
    assert_ne!(body(&refused)["status"], "OK");
    logged(&strict, &["no ticket for this desktop", "AllowedSockets"]).await;
}

#[tokio::test]
async fn clients_of_all_kinds_are_understood() {
    let host = Host::echo().await.unwrap();
    let file = file_of(&host);
    let gateway = file.gateway().plain().spawn().await.unwrap();
    let asked = json!({"hwaddress": "x", "username": "ana", "password": PASSWORD, "desktop": ""});
    // The flexVDI client, those for mobile devices, browsers, and what nginx makes of them.
    for (kind, is_old) in [
        ("text/json", false),
        ("application/json", false),
        ("application/x-www-form-urlencoded; charset=UTF-8", false),
        ("text/json", true),
    ] {
        let endpoint = gateway.plain();
        let call = Call::post(&endpoint, "/vdi/desktop", asked.to_string());
        let mut call = call
            .header("Content-Type", kind)
            .header("Host", "vdi.example");
        if is_old {
            call = call.http10().header("Connection", "close");
        }
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        if is_old {
            assert_eq!(answer.version(), Version::HTTP_10);
        }
        let answer = body(&answer);
        assert_eq!(answer["status"], "OK", "{kind}");
        assert_eq!(answer["spice_address"], "vdi.example");
        assert_opens(&endpoint, answer["spice_port"].as_str().unwrap()).await;
    }
    // Without a name for the gateway it is the address that was connected to.
    let request = format!(
        "POST /vdi/desktop HTTP/1.0\r\nContent-Length: {}\r\n\r\n{asked}",
        asked.to_string().len()
    );
    let (answer, _) = exchange(&gateway.plain(), request.as_bytes())
        .await
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.contains(r#""spice_address":"127.0.0.1""#),
        "{answer}"
    );
}

#[tokio::test]
async fn requests_that_nobody_makes_are_refused() {
    let host = Host::echo().await.unwrap();
    let file = file_of(&host);
    let gateway = file.gateway().set("Debug", true);
    let gateway = gateway.spawn().await.unwrap();
    let endpoint = gateway.tls();
    let post = async |path: &str, body: &str| {
        let call = Call::post(&endpoint, path, body.to_owned());
        call.send().await.unwrap()
    };
    let not_found = get(&endpoint, "/vdi/other").await;
    assert_error(&not_found, StatusCode::NOT_FOUND);
    assert_error(&post("/vdi/", "{}").await, StatusCode::NOT_FOUND);
    for path in ["/vdi/desktop", "/vdi/authmode"] {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS] {
            let is_head = method == Method::HEAD;
            let answer = Call::new(&endpoint, method, path).send().await.unwrap();
            assert_eq!(answer.headers()[ALLOW], "POST");
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(answer.body().is_empty(), is_head);
        }
    }
    let long = json!({"username": "a".repeat(9_000)}).to_string();
    let quotation = r#"{"hwaddress": "", "username": "ana", "password": "a"b", "desktop": ""}"#;
    for (text, status, message) in [
        (long.as_str(), StatusCode::PAYLOAD_TOO_LARGE, "too long"),
        (quotation, StatusCode::BAD_REQUEST, "quotation marks"),
        ("", StatusCode::BAD_REQUEST, "cannot be read"),
        ("[1]", StatusCode::BAD_REQUEST, "cannot be read"),
        (
            r#"{"username": 1}"#,
            StatusCode::BAD_REQUEST,
            "cannot be read",
        ),
    ] {
        let told = assert_error(&post("/vdi/desktop", text).await, status);
        assert!(told.contains(message), "{told}");
        // In JSON, clients would say that access is denied.
        let plain = post("/vdi/authmode", text).await;
        assert_eq!(plain.status(), status);
        assert!(serde_json::from_slice::<Value>(plain.body()).is_err());
    }
    logged(&gateway, &["request for a desktop refused", "reason="]).await;
    client(&gateway, "ana").desktop().await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_drains_gives_no_desktop() {
    let host = Host::echo().await.unwrap();
    let file = file_of(&host);
    let gateway = file.gateway().spawn().await.unwrap();
    let endpoint = gateway.tls();
    let before = client(&gateway, "ana").desktop().await.unwrap();
    let config = gateway.config_path().to_str().unwrap();
    assert_eq!(run(["--config", config, "drain"]).await.code(), Some(0));
    let answer = log_in(&endpoint, "ana", PASSWORD).await;
    let message = assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    assert!(message.contains("No new desktops"), "{message}");
    assert_eq!(
        get(&endpoint, "/healthz").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        client(&gateway, "ana").auth_mode().await.unwrap(),
        "active_directory"
    );
    assert_opens(&endpoint, &before.token).await;
    assert_eq!(run(["--config", config, "undrain"]).await.code(), Some(0));
    client(&gateway, "ana").desktop().await.unwrap();
}

#[tokio::test]
async fn pages_of_other_sites_may_not_log_in_to_desktops_of_the_file() {
    let host = Host::echo().await.unwrap();
    let file = file_of(&host);
    let gateway = file
        .gateway()
        .set("AllowedOrigins", vec!["https://portal.example"])
        .spawn()
        .await
        .unwrap();
    let endpoint = gateway.tls();
    let ask = async |call: Call, origin: &str| {
        let call = call.header("Sec-Fetch-Site", "cross-site");
        call.header("Origin", origin).send().await.unwrap()
    };
    for call in [
        ask_desktop(&endpoint),
        Call::post(&endpoint, "/vdi/authmode", "{}"),
    ] {
        let foreign = ask(call, "https://evil.example").await;
        assert_error(&foreign, StatusCode::FORBIDDEN);
    }
    let listed = Call::post(&endpoint, "/vdi/authmode", "{}");
    let listed = ask(listed, "https://portal.example").await;
    assert_eq!(listed.status(), StatusCode::OK);
}

#[tokio::test]
async fn there_is_no_manager_whose_health_could_be_asked_for() {
    let host = Host::echo().await.unwrap();
    let file = file_of(&host);
    let gateway = file.gateway().set("HealthChecksManager", true);
    let gateway = gateway.spawn().await.unwrap();
    assert_eq!(
        get(&gateway.tls(), "/healthz").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_desktop_outside_the_allowed_hosts_and_ports_is_not_given() {
    let host = Host::echo().await.unwrap();
    let (file, port) = (file_of(&host), host.addr().port());
    for (key, value) in [
        ("AllowedHosts", json!(["192.0.2.0/24"])),
        ("LastSpicePort", json!(port - 1)),
    ] {
        let gateway = file.gateway().set(key, value);
        let gateway = gateway.set("FirstSpicePort", 1).spawn().await.unwrap();
        let answer = log_in(&gateway.tls(), "ana", PASSWORD).await;
        let message = assert_error(&answer, StatusCode::BAD_GATEWAY);
        assert!(!message.contains("127.0.0.1"), "{message}");
        logged(&gateway, &["no ticket for this desktop", key]).await;
    }
}
