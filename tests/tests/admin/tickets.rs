//! Tickets that are asked for at the socket: `POST /tickets` and `flexvdi-gateway ticket`.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::prelude::*;
use testkit::ws::Connect;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::openapi::{assert_described, check, document};
use crate::support::{PASSWORD, Stage};

/// Sends a request to the socket, as a program in any language would; status, head and body of the
/// answer.
async fn ask(stage: &Stage, method: &str, body: &str) -> (StatusCode, String, Value) {
    let socket = stage.gateway.runtime_dir().join("admin.sock");
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} /tickets HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = within("an answer", stream.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_described(status, &body);
    (status, head.to_ascii_lowercase(), body)
}

async fn post(stage: &Stage, order: &Value) -> (StatusCode, Value) {
    let (status, _, answer) = ask(stage, "POST", &order.to_string()).await;
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
    let (status, head, answer) = ask(&stage, "POST", &order.to_string()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(head.contains("cache-control: no-store"), "{head}");
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
        (r#"{"host": "h", "port": 0}"#, 403, "FirstSpicePort"),
        (r#"{"host": "10.0.0.7", "port": 5900}"#, 403, "DeniedHosts"),
        (
            r#"{"host": "::ffff:10.0.0.7", "port": 5900}"#,
            403,
            "DeniedHosts",
        ),
    ] {
        let (found, _, answer) = ask(&stage, "POST", order).await;
        let message = answer["message"].as_str().unwrap();
        assert_eq!(found.as_u16(), status, "{order}: {message}");
        assert!(message.contains(told), "{order}: {message}");
    }
    let (status, head, _) = ask(&stage, "GET", "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(head.contains("allow: post"), "{head}");
    assert_eq!(stage.status().await["tickets"], 0);
    let metrics = stage.shown("/metrics").await;
    for (reason, count) in [("port", 2), ("host", 2)] {
        let line = format!("desktops_refused_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{metrics}");
    }
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
    let (status, answer) = post(&stage, &order).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(answer["session"].as_str().unwrap().starts_with('p'));
    let ticket = answer["ticket"].as_str().unwrap();
    let mut main = stage.channel(ticket, ChannelType::Main).await;
    main.echo(b"bytes").await.unwrap();
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
