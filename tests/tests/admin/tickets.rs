//! Tickets that are asked for at the socket: `POST /tickets` and `flexvdi-gateway ticket`.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::prelude::*;
use testkit::tunnel::Tunnel;
use testkit::ws::{Connect, Frame, RawClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::openapi::{assert_described, check, document};
use crate::support::{PASSWORD, Stage};

/// Sends a request to the socket; status, headers and body of the answer, which is one of those
/// that the document describes.
async fn ask(stage: &Stage, method: Method, body: &str) -> (StatusCode, HeaderMap, Value) {
    let asked = stage
        .gateway
        .ask_socket(method, "/tickets", body.to_owned());
    let (head, body) = asked.await.unwrap().into_parts();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_described(head.status, &body);
    (head.status, head.headers, body)
}

async fn post(stage: &Stage, order: &Value) -> (StatusCode, Value) {
    let (status, _, answer) = ask(stage, Method::POST, &order.to_string()).await;
    (status, answer)
}

fn order(stage: &Stage) -> Value {
    let address = stage.host.addr();
    json!({"host": address.ip().to_string(), "port": address.port()})
}

/// Ports below 1,024 are those of no desktop.
fn high_ports(gateway: GatewayBuilder) -> GatewayBuilder {
    gateway.set("FirstSpicePort", 1_024)
}

fn desktop(stage: &Stage) -> String {
    stage.host.addr().to_string()
}

#[tokio::test]
async fn a_ticket_from_the_socket_is_one_like_the_managers() {
    let stage = Stage::new().await;
    let mut order = order(&stage);
    order["client"] = json!("192.0.2.7");
    order["for_seconds"] = json!(7);
    let schema = &document()["components"]["schemas"]["Order"];
    assert_eq!(check(&document(), schema, &order), Ok(()));
    let (status, head, answer) = ask(&stage, Method::POST, &order.to_string()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(head["cache-control"], "no-store");
    assert_eq!(answer["expires_in"], 7);
    let ticket = answer["ticket"].as_str().unwrap();
    assert_eq!(answer["path"], format!("/?ver=2&token={ticket}"));

    let mut main = stage.channel(ticket, ChannelType::Main).await;
    let _display = stage.channel(ticket, ChannelType::Display).await;
    main.echo(b"bytes").await.unwrap();
    let session = answer["session"].as_str().unwrap();
    let status = stage.status().await;
    assert_eq!(status["sessions"][0]["session"], session);
    assert_eq!(
        status["sessions"][0]["channels"].as_array().unwrap().len(),
        2
    );

    let assigned = |line: &str| line.contains("desktop assigned");
    let line = stage
        .gateway
        .wait_for_log(assigned, PATIENCE)
        .await
        .unwrap();
    for word in [session, "client=192.0.2.7", &desktop(&stage)] {
        assert!(line.contains(word), "{word} in {line}");
    }
    let log = stage.gateway.log().await.join("\n");
    assert!(!log.contains(ticket));
    let metrics = stage.shown("/metrics").await;
    assert!(metrics.contains("flexvdi_gateway_desktops_assigned_total 1"));
}

#[tokio::test]
async fn a_ticket_lives_as_long_as_it_was_asked_for() {
    let stage = Stage::new().await;
    let mut order = order(&stage);
    assert_eq!(post(&stage, &order).await.1["expires_in"], 120);
    order["for_seconds"] = json!(1);
    let short = post(&stage, &order).await.1;
    order["for_seconds"] = json!(86_400);
    let long = post(&stage, &order).await.1;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let tls = stage.gateway.tls();
    let outcome = Connect::to(&tls, short["path"].as_str().unwrap())
        .open()
        .await;
    let refused = outcome.unwrap().refused().unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let outcome = Connect::to(&tls, long["path"].as_str().unwrap())
        .open()
        .await;
    outcome.unwrap().opened().unwrap();
}

#[tokio::test]
async fn what_cannot_be_had_is_said_and_makes_no_ticket() {
    let deny = |gateway: testkit::gateway::GatewayBuilder| {
        high_ports(gateway).set("DeniedHosts", vec!["10.0.0.0/8"])
    };
    let stage = Stage::with(deny).await;
    let long = format!(r#"{{"host": "{}", "port": 5900}}"#, "h".repeat(17 * 1024));
    for (order, status, told) in [
        ("", 400, "JSON"),
        ("[]", 400, "JSON"),
        (r#"{"host": "h"}"#, 400, "port"),
        (r#"{"host": "h", "port": 5900, "hots": "x"}"#, 400, "hots"),
        (r#"{"host": "h", "port": 70000}"#, 400, "70000"),
        (r#"{"host": "a b", "port": 5900}"#, 400, "host"),
        (r#"{"host": "0.0.0.0", "port": 5900}"#, 400, "host"),
        (
            r#"{"host": "h", "port": 5900, "client": "x"}"#,
            400,
            "IP address",
        ),
        (
            r#"{"host": "h", "port": 5900, "for_seconds": 0}"#,
            400,
            "1 to 86400",
        ),
        (
            r#"{"host": "h", "port": 5900, "for_seconds": 86401}"#,
            400,
            "1 to 86400",
        ),
        (
            r#"{"host": "h", "port": 5900, "for_seconds": -1}"#,
            400,
            "-1",
        ),
        (&long, 400, "16384 bytes"),
        (r#"{"host": "h", "port": 443}"#, 403, "FirstSpicePort"),
        (
            r#"{"host": "h", "port": 5900, "tls_port": 443}"#,
            403,
            "FirstSpicePort",
        ),
        (r#"{"host": "unix:/run/a.sock"}"#, 403, "AllowedSockets"),
        (r#"{"host": "10.0.0.7", "port": 5900}"#, 403, "DeniedHosts"),
        (
            r#"{"host": "::ffff:10.0.0.7", "port": 5900}"#,
            403,
            "DeniedHosts",
        ),
    ] {
        let (found, _, answer) = ask(&stage, Method::POST, order).await;
        let message = answer["message"].as_str().unwrap();
        assert_eq!(found.as_u16(), status, "{order}: {message}");
        assert!(message.contains(told), "{order}: {message}");
    }
    let (status, head, _) = ask(&stage, Method::GET, "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(head["allow"], "POST");
    assert_eq!(stage.status().await["tickets"], 0);
    let metrics = stage.shown("/metrics").await;
    for (reason, count) in [("port", 2), ("host", 3)] {
        let line = format!("desktops_refused_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_said_with_its_member() {
    let stage = Stage::new().await;
    for (order, told) in [
        (r#"{"host": "h", "port": 0}"#, "port: expected"),
        (r#"{"host": "h", "port": null}"#, "JSON"),
        (
            r#"{"host": "h", "port": 5900, "tls_port": 0}"#,
            "tls_port: expected",
        ),
        (
            r#"{"host": "h", "port": 5900, "channels": ["record"]}"#,
            "channels: expected \"main\"",
        ),
        (r#"{"host": "h", "port": 5900, "channels": null}"#, "JSON"),
        (
            r#"{"host": "h", "port": 5900, "channels": ["main"], "tls_port": 5901}"#,
            "inside TLS",
        ),
        (
            r#"{"host": "h", "port": 5900, "network": []}"#,
            "network: expected",
        ),
        (
            r#"{"host": "h", "port": 5900, "network": ["10.0.0.0/33"]}"#,
            "network: expected",
        ),
        (
            r#"{"host": "h", "port": 5900, "fingerprint": "0f"}"#,
            "fingerprint: expected 64",
        ),
        (
            r#"{"host": "unix:/run/a.sock", "port": 5900}"#,
            "a Unix socket has none",
        ),
        (r#"{"host": "unix:run"}"#, "host: "),
    ] {
        let (found, _, answer) = ask(&stage, Method::POST, order).await;
        let message = answer["message"].as_str().unwrap();
        assert_eq!(found, StatusCode::BAD_REQUEST, "{order}: {message}");
        assert!(message.contains(told), "{order}: {message}");
    }
    assert_eq!(stage.status().await["tickets"], 0);
}

#[tokio::test]
async fn the_port_for_administrators_makes_no_tickets() {
    let stage = Stage::new().await;
    let order = order(&stage).to_string();
    for call in [
        Call::post(&stage.admin, "/tickets", order),
        Call::get(&stage.admin, "/tickets"),
    ] {
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_described(answer.status(), &body);
    }
    assert_eq!(stage.status().await["tickets"], 0);
}

#[tokio::test]
async fn there_are_none_while_the_gateway_drains_or_without_hijacking() {
    let stage = Stage::new().await;
    stage.output(&["drain"]).await;
    let (status, answer) = post(&stage, &order(&stage)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    stage.output(&["undrain"]).await;
    assert_eq!(post(&stage, &order(&stage)).await.0, StatusCode::CREATED);

    let stage = Stage::with(|gateway| gateway.set("HijackAll", false)).await;
    let (status, answer) = post(&stage, &order(&stage)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(answer["message"].as_str().unwrap().contains("HijackAll"));
}

#[tokio::test]
async fn in_a_pool_no_ticket_lives_longer_than_the_others_expect() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, ::gateway::pool::new_file().unwrap()).unwrap();
    let stage = Stage::with(|gateway| gateway.set("PoolKeyFile", keys.to_str().unwrap())).await;
    let mut order = order(&stage);
    order["for_seconds"] = json!(121);
    let (status, answer) = post(&stage, &order).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("1 to 120"), "{message}");
    assert!(message.contains("pool"), "{message}");
    order["for_seconds"] = json!(120);
    order["network"] = json!("127.0.0.0/8");
    let (status, answer) = post(&stage, &order).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("a ticket of a pool has no room"),
        "{message}"
    );
    order.as_object_mut().unwrap().remove("network");
    order["host_name"] = json!(true);
    let (status, answer) = post(&stage, &order).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("too long for a host name"), "{message}");
    order["host_name"] = json!(false);
    order["for_seconds"] = json!(120);
    let (status, answer) = post(&stage, &order).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(answer["session"].as_str().unwrap().starts_with('p'));
    let ticket = answer["ticket"].as_str().unwrap();
    let mut main = stage.channel(ticket, ChannelType::Main).await;
    main.echo(b"bytes").await.unwrap();
}

#[tokio::test]
async fn a_ticket_can_be_a_host_name() {
    let stage = Stage::with(|gateway| gateway.set("ExternalName", "vdi.example.com")).await;
    let mut order = order(&stage);
    order["host_name"] = json!(true);
    let schema = &document()["components"]["schemas"]["Order"];
    assert_eq!(check(&document(), schema, &order), Ok(()));
    let (status, answer) = post(&stage, &order).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let desktop = desktop(&stage);
    let arguments = ["ticket", &desktop, "--host-name"];
    let printed = stage.output(&[&arguments[..], &["--json"]].concat()).await;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let file = stage
        .output(&[&arguments[..], &["--vv", "-"]].concat())
        .await;
    let of_file = file.lines().find_map(|line| line.strip_prefix("host="));
    assert!(file.contains("\nproxy=https://vdi.example.com:"), "{file}");
    let made = [&answer, &printed].map(|made| made["ticket"].as_str().unwrap());
    for ticket in [made[0], made[1], of_file.unwrap()] {
        let secret = ticket.strip_prefix("ticket-").unwrap();
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        assert!(
            secret.len() == 24 && secret.bytes().all(is_digit),
            "{ticket}"
        );
        let tunnel = Tunnel::new(&stage.gateway.tls(), "").without_credentials();
        let mut client = tunnel.to(&format!("{ticket}:5900")).open().await.unwrap();
        let link = link_message(ChannelType::Main, 0);
        client.send_raw(&link).await.unwrap();
        assert_eq!(client.read_exact(link.len()).await.unwrap(), link);
    }
    let tls = ["--vv", "-", "--tls-port", "5902"];
    let failed = stage.run(&[&arguments[..], &tls].concat()).await;
    let error = String::from_utf8(failed.stderr).unwrap();
    assert!(error.contains("--host-subject"), "{error}");
}

#[tokio::test]
async fn a_ticket_leads_to_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let allowed = folder.path().to_str().unwrap();
    let stage = Stage::with(|gateway| gateway.set("AllowedSockets", vec![allowed])).await;
    let socket = folder.path().join("7.sock");
    let _front = Front::unix(&socket, stage.host.addr()).unwrap();
    let host = format!("unix:{}", socket.display());
    let order = json!({ "host": host });
    let schema = &document()["components"]["schemas"]["Order"];
    assert_eq!(check(&document(), schema, &order), Ok(()));
    let (status, answer) = post(&stage, &order).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let ticket = answer["ticket"].as_str().unwrap();
    let mut main = stage.channel(ticket, ChannelType::Main).await;
    main.echo(b"bytes").await.unwrap();

    let printed = stage.output(&["ticket", &host, "--json"]).await;
    let answer: Value = serde_json::from_str(&printed).unwrap();
    let ticket = answer["ticket"].as_str().unwrap();
    let mut main = stage.channel(ticket, ChannelType::Main).await;
    main.echo(b"bytes").await.unwrap();
    let arguments = ["ticket", &host, "--vv", "-", "--gateway", "vdi.example.com"];
    let file = stage.output(&arguments).await;
    assert!(file.contains("\nhost=desktop\nport=5900\n"), "{file}");
    let failed = stage.run(&["ticket", "unix:/elsewhere/7.sock"]).await;
    let error = String::from_utf8(failed.stderr).unwrap();
    assert!(error.contains("AllowedSockets"), "{error}");
}

#[tokio::test]
async fn a_ticket_permits_what_was_asked_for_and_no_more() {
    let stage = Stage::with(high_ports).await;
    let endpoint = stage.gateway.tls();
    let desktop = desktop(&stage);
    let mut order = order(&stage);
    order["channels"] = json!(["main", "inputs"]);
    order["network"] = json!(["127.0.0.0/24", "192.0.2.7"]);
    let schema = &document()["components"]["schemas"]["Order"];
    assert_eq!(check(&document(), schema, &order), Ok(()));
    let (status, answer) = post(&stage, &order).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let options = ["--channels", "main,inputs", "--network", "127.0.0.0/24"];
    let options = [&["ticket", &desktop, "--json"][..], &options].concat();
    let printed = stage.output(&options).await;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    for answer in [answer, printed] {
        let path = answer["path"].as_str().unwrap();
        let elsewhere = endpoint.clone().from_source([127, 0, 1, 1].into());
        let outcome = Connect::to(&elsewhere, path).open().await.unwrap();
        assert_eq!(outcome.refused().unwrap().status(), StatusCode::FORBIDDEN);
        let mut client = RawClient::open(&endpoint, path).await.unwrap();
        let link = Frame::binary(link_message(ChannelType::Record, 0));
        client.send_frame(&link).await.unwrap();
        client.expect_close(1008).await.unwrap();
        let ticket = answer["ticket"].as_str().unwrap();
        let mut main = stage.channel(ticket, ChannelType::Main).await;
        main.echo(b"bytes").await.unwrap();
    }
    for (option, value, told) in [
        ("--channels", "record", "\"main\""),
        ("--channels", "main,x", "usbredir"),
        ("--channels", "", "usbredir"),
        ("--network", "x", "network: expected"),
        ("--tls-port", "0", "1..=65535"),
        ("--tls-port", "443", "FirstSpicePort"),
        ("--fingerprint", "x", "64 hexadecimal digits"),
        ("--ca", "x", "--vv"),
        ("--host-subject", "CN=x", "--tls-port"),
    ] {
        let output = stage.run(&["ticket", &desktop, option, value]).await;
        assert!(!output.status.success(), "{option} {value}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(told), "{option} {value}: {error}");
    }
}

#[tokio::test]
async fn a_ticket_can_pin_the_certificate_of_its_host() {
    let stage = Stage::with(high_ports).await;
    let certs = [(); 2].map(|()| TestCert::new().unwrap());
    let address = [127, 0, 0, 6].into();
    let config = certs[0].server_config().unwrap();
    let _front = Front::tls(address, config, stage.host.addr())
        .await
        .unwrap();
    let desktop = format!("{address}:{}", stage.host.addr().port());
    for (cert, is_accepted) in [(&certs[0], true), (&certs[1], false)] {
        let digest = ::gateway::host_tls::CertificateDigest::of(cert.leaf()).to_string();
        let arguments = ["ticket", &desktop, "--json", "--fingerprint", &digest];
        let answer: Value = serde_json::from_str(&stage.output(&arguments).await).unwrap();
        if is_accepted {
            let ticket = answer["ticket"].as_str().unwrap();
            let mut main = stage.channel(ticket, ChannelType::Main).await;
            main.echo(b"bytes").await.unwrap();
        } else {
            let path = answer["path"].as_str().unwrap();
            let outcome = Connect::to(&stage.gateway.tls(), path).open().await;
            let refused = outcome.unwrap().refused().unwrap();
            assert_eq!(refused.status(), StatusCode::BAD_GATEWAY);
        }
    }
}

#[tokio::test]
async fn a_file_for_a_native_client_can_have_it_speak_tls_with_the_host() {
    let stage = Stage::with(high_ports).await;
    let desktop = desktop(&stage);
    let tls = Host::echo().await.unwrap();
    let cert = TestCert::new().unwrap();
    let (ca, port) = (cert.ca_path(), tls.addr().port().to_string());
    let file = stage
        .output(&[
            "ticket",
            &desktop,
            "--vv",
            "-",
            "--gateway",
            "vdi.example.com",
            "--tls-port",
            &port,
            "--ca",
            ca.to_str().unwrap(),
            "--host-subject",
            "CN=host",
        ])
        .await;
    let expected = format!("\ntls-port={port}\nsecure-channels=all\nca=-----BEGIN CERTIFICATE");
    assert!(file.contains(&expected), "{file}");
    assert!(file.contains("\nhost-subject=CN=host\n"), "{file}");
    // What begins with TLS goes to that port.
    let proxy = file.split("proxy=https://").nth(1).unwrap();
    let ticket = proxy.split(':').next().unwrap();
    let hello = [22, 3, 1, 0, 4, 1, 0, 0, 0];
    let tunnel = Tunnel::new(&stage.gateway.tls(), ticket);
    let mut tunnel = tunnel.stream().await.unwrap();
    tunnel.write_all(&hello).await.unwrap();
    tunnel.flush().await.unwrap();
    let mut back = [0; 9];
    let read = within("an echo", tunnel.read_exact(&mut back)).await;
    read.unwrap().unwrap();
    assert_eq!((back, tls.accepted(), stage.host.accepted()), (hello, 1, 0));
}

#[tokio::test]
async fn the_command_prints_a_ticket_that_opens_the_desktop() {
    let stage = Stage::with(high_ports).await;
    let desktop = desktop(&stage);
    let json = stage
        .output(&["ticket", &desktop, "--for", "60", "--json"])
        .await;
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_described(StatusCode::CREATED, &answer);
    assert_eq!(answer["expires_in"], 60);
    let mut main = stage
        .channel(answer["ticket"].as_str().unwrap(), ChannelType::Main)
        .await;
    main.echo(b"bytes").await.unwrap();

    let text = stage.output(&["ticket", &desktop]).await;
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words[0], "ticket", "{text}");
    assert!(text.contains("expires in  120 s"), "{text}");
    let mut main = stage.channel(words[1], ChannelType::Main).await;
    main.echo(b"bytes").await.unwrap();

    for (arguments, told) in [
        (&["ticket", "127.0.0.1"][..], "HOST:PORT"),
        (&["ticket", "127.0.0.1:99"], "FirstSpicePort"),
        (&["ticket", &desktop, "--for", "0"], "for_seconds"),
        (&["ticket", &desktop, "--password-file", "x"], "--vv"),
        (&["ticket", &desktop, "--vv", "-"], "ExternalName"),
    ] {
        let output = stage.run(arguments).await;
        assert!(!output.status.success(), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn the_command_writes_a_file_for_a_native_client() {
    let stage =
        Stage::with(|gateway| high_ports(gateway).set("ExternalName", "vdi.example.com")).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let (password, file) = (password.to_str().unwrap(), folder.path().join("desktop.vv"));
    let (desktop, path) = (desktop(&stage), file.to_str().unwrap());
    let arguments = [
        "ticket",
        &desktop,
        "--vv",
        path,
        "--password-file",
        password,
    ];
    let said = stage.output(&arguments).await;
    assert!(said.contains("within 120 seconds"), "{said}");
    assert!(!said.contains(PASSWORD));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("{key} in {text}")).to_owned()
    };
    assert!(text.starts_with("[virt-viewer]\ntype=spice\n"), "{text}");
    assert_eq!(format!("{}:{}", value("host"), value("port")), desktop);
    assert_eq!(value("password"), PASSWORD);
    assert_eq!(value("delete-this-file"), "1");
    let (ticket, gateway) = {
        let proxy = value("proxy");
        let (user, gateway) = proxy
            .strip_prefix("https://")
            .unwrap()
            .split_once('@')
            .unwrap();
        (
            user.strip_suffix(":x").unwrap().to_owned(),
            gateway.to_owned(),
        )
    };
    let port = stage.gateway.tls_addr().port();
    // The configured port is 0 here, which means any.
    assert!(
        ["443".to_owned(), port.to_string()]
            .map(|port| format!("vdi.example.com:{port}"))
            .contains(&gateway),
        "{gateway}"
    );
    let mut main = stage.channel(&ticket, ChannelType::Main).await;
    main.echo(b"bytes").await.unwrap();

    // Another person's file is not written over, and nothing is left of what fails.
    let again = stage.run(&arguments).await;
    assert!(!again.status.success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let other = folder.path().join("other.vv");
    let failed = stage
        .run(&["ticket", "127.0.0.1:99", "--vv", other.to_str().unwrap()])
        .await;
    assert!(!failed.status.success());
    assert!(!other.exists());

    let gateway = ["--gateway", "[2001:db8::1]:8443"];
    let printed = stage
        .output(&[&["ticket", &desktop, "--vv", "-"][..], &gateway].concat())
        .await;
    assert!(printed.contains("@[2001:db8::1]:8443\n"), "{printed}");
    assert!(!printed.contains("password"), "{printed}");
}
