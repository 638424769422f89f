//! Which requests the manager gets, and what clients are told when it gives no answer.

use http::{Method, StatusCode};
use testkit::gateway::GatewayBuilder;
use testkit::host::Unresponsive;
use testkit::http::{Call, exchange};
use testkit::manager::{RawEnd, RawManager};
use testkit::prelude::*;
use tokio::net::TcpSocket;

use crate::support::{Stage, ask_desktop, assert_error, get, logged};

const ANY_CERTIFICATE: &str = "ManagerCAFile is not set: any certificate of the manager";

fn behind(port: u16) -> GatewayBuilder {
    Gateway::builder()
        .set("ManagerIP", "127.0.0.1")
        .set("ManagerPort", port)
}

async fn authmode(gateway: &Gateway) -> http::Response<bytes::Bytes> {
    let call = Call::post(&gateway.tls(), "/vdi/authmode", "{}");
    call.send().await.unwrap()
}

/// Checks that an answer is no JSON, so that clients say "Failed to contact server".
fn assert_plain(response: &http::Response<bytes::Bytes>, status: StatusCode) {
    let body = String::from_utf8_lossy(response.body());
    assert_eq!(response.status(), status, "{body}");
    assert!(body.contains(' ') && serde_json::from_str::<serde_json::Value>(&body).is_err());
}

#[tokio::test]
async fn other_paths_are_not_the_managers() {
    let stage = Stage::new().await;
    let endpoint = stage.gateway.tls();
    for target in [
        "/",
        "/vdi",
        "/vdix/",
        "/VDI/authmode",
        "/index.html",
        "/?ver=2",
        "/x/vdi/authmode",
        "/vdi/../authmode",
        "/vdi/./authmode",
        "/vdi/%2e%2e/x",
        "/vdi/..%2fx",
        "/vdi/%2E%2E%5cx",
        "/vdi/a/../../x",
        "/vdi/..",
        "/vdi\\..\\x",
        "//vdi/authmode",
        "/vdi/..;/x",
        "/vdi/x;a=b",
        "/vdi//desktop",
        "/vdi/./desktop",
        "/vdi/Desktop",
        "/vdi/desktop.",
        "/vdi/desktop%2f",
        "/vdi/%2564esktop",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n");
        let (answer, _) = exchange(&endpoint, request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let refused = answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 ");
        assert!(refused, "{target}: {answer}");
    }
    assert_error(&get(&endpoint, "/").await, StatusCode::NOT_FOUND);
    assert_error(&get(&endpoint, "/vdi/../x").await, StatusCode::BAD_REQUEST);
    assert_eq!(stage.manager.requests().len(), 0);
}

#[tokio::test]
async fn its_paths_can_be_configured() {
    let paths = vec!["/vdi/", "/portal/"];
    let stage = Stage::with(|gateway| gateway.set("ManagerPaths", paths)).await;
    for target in ["/portal/a", "/vdi/b", "/other/c"] {
        get(&stage.gateway.tls(), target).await;
    }
    let asked = stage.manager.requests();
    let asked: Vec<_> = asked.iter().map(|request| request.uri.path()).collect();
    assert_eq!(asked, ["/portal/a", "/vdi/b"]);
}

#[tokio::test]
async fn usual_methods_pass_and_others_are_refused() {
    let stage = Stage::new().await;
    let endpoint = stage.gateway.tls();
    let usual = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    for method in usual {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let call = Call::new(&endpoint, method, "/vdi/x");
        assert_ne!(
            call.send().await.unwrap().status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
    assert_eq!(stage.manager.requests().len(), usual.len());
    for method in ["TRACE", "PROPFIND", "get"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let response = Call::new(&endpoint, method, "/vdi/x").send().await.unwrap();
        assert_error(&response, StatusCode::METHOD_NOT_ALLOWED);
        let allowed = response.headers()["allow"].to_str().unwrap();
        assert!(allowed.starts_with("GET, HEAD, POST"), "{allowed}");
    }
    assert_eq!(stage.manager.requests().len(), usual.len());
    let connect = b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n";
    let request = [
        &connect[..],
        b"GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n",
    ];
    let (answer, _) = exchange(&endpoint, &request.concat()).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
    // What follows a tunnel that is refused is no request.
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn a_manager_that_is_down_is_502() {
    // Bound, but not listening: nobody else can take the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let gateway = behind(port).spawn().await.unwrap();
    assert_plain(&authmode(&gateway).await, StatusCode::BAD_GATEWAY);
    let line = logged(&gateway, &["WARN", "no answer from the manager"]).await;
    assert!(
        line.contains("client=127.0.0.1") && line.contains("refused"),
        "{line}"
    );
    let response = ask_desktop(&gateway.tls()).send().await.unwrap();
    assert_error(&response, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_manager_that_speaks_no_http_is_502() {
    for (bytes, end) in [
        ("SSH-2.0-OpenSSH\r\n", RawEnd::Hold),
        ("", RawEnd::Close),
        ("HTTP/1.1 200 OK\r\nContent-", RawEnd::CutOff),
        ("", RawEnd::Reset),
    ] {
        let manager = RawManager::reply(bytes, end).await.unwrap();
        let gateway = behind(manager.addr().port()).spawn().await.unwrap();
        assert_plain(&authmode(&gateway).await, StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_502() {
    for head in [
        "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c",
        "200 OK\r\nTransfer-Encoding: gzip, chunked",
    ] {
        let answer = format!("HTTP/1.1 {head}\r\n\r\n0\r\n\r\n");
        let manager = RawManager::reply(answer, RawEnd::Close).await.unwrap();
        let gateway = behind(manager.addr().port()).spawn().await.unwrap();
        assert_plain(&authmode(&gateway).await, StatusCode::BAD_GATEWAY);
        let page = get(&gateway.tls(), "/vdi/x").await;
        assert_error(&page, StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn a_manager_that_does_not_answer_is_504() {
    let silent = RawManager::reply("", RawEnd::Hold).await.unwrap();
    let gateway = behind(silent.addr().port()).set("ManagerTimeout", 1);
    let gateway = gateway.spawn().await.unwrap();
    assert_plain(&authmode(&gateway).await, StatusCode::GATEWAY_TIMEOUT);
    logged(&gateway, &["WARN", "no answer from the manager", "in time"]).await;
}

#[tokio::test]
async fn a_desktop_answer_that_never_ends_is_504() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\": ";
    let stalled = RawManager::reply(answer, RawEnd::Hold).await.unwrap();
    let gateway = behind(stalled.addr().port()).set("ManagerTimeout", 1);
    let gateway = gateway.spawn().await.unwrap();
    let response = ask_desktop(&gateway.tls()).send().await.unwrap();
    assert_error(&response, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_manager_that_is_switched_off_is_504() {
    let off = Unresponsive::new().await.unwrap();
    let gateway = behind(off.addr().unwrap().port()).set("ConnectTimeout", 1);
    let gateway = gateway.spawn().await.unwrap();
    assert_plain(&authmode(&gateway).await, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn without_manager_its_paths_are_503() {
    let gateway = Gateway::builder().spawn().await.unwrap();
    logged(&gateway, &["INFO", "ManagerIP is empty"]).await;
    assert_plain(&authmode(&gateway).await, StatusCode::SERVICE_UNAVAILABLE);
    let desktop = ask_desktop(&gateway.tls()).send().await.unwrap();
    let message = assert_error(&desktop, StatusCode::SERVICE_UNAVAILABLE);
    assert!(message.contains("your administrator"), "{message}");
    assert_error(&get(&gateway.tls(), "/").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn it_is_reached_by_name_and_by_ipv6() {
    for (listen, name) in [
        ("127.0.0.1:0", "localhost"),
        ("[::1]:0", "::1"),
        ("[::1]:0", "[::1]"),
    ] {
        let manager = Manager::builder().addr(listen.parse().unwrap());
        let manager = manager.spawn().await.unwrap();
        let gateway = behind(manager.addr().port()).set("ManagerIP", name);
        let gateway = gateway.spawn().await.unwrap();
        assert_eq!(authmode(&gateway).await.status(), StatusCode::OK, "{name}");
        let host = manager.requests()[0].header("host").map(str::to_owned);
        let bare = name.trim_matches(['[', ']']);
        let name = if bare.contains(':') {
            format!("[{bare}]")
        } else {
            bare.to_owned()
        };
        assert_eq!(host, Some(format!("{name}:{}", manager.addr().port())));
    }
}

#[tokio::test]
async fn any_certificate_will_do_without_ca_file() {
    let stage = Stage::new().await;
    logged(&stage.gateway, &["WARN", ANY_CERTIFICATE]).await;
    assert_eq!(authmode(&stage.gateway).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_ca_file_decides_who_is_the_manager() {
    let cert = || TestCert::builder().chain();
    let (right, wrong) = (cert().build().unwrap(), cert().build().unwrap());
    let named = cert().names(["manager.example"]).build().unwrap();
    let (right_ca, named_ca) = (right.ca_path(), named.ca_path());
    // The files live as long as the managers that hold the certificates.
    let manager = Manager::builder().cert(right).spawn().await.unwrap();
    let other_name = Manager::builder().cert(named).spawn().await.unwrap();
    for (manager, ca_file, accepted) in [
        (&manager, right_ca, true),
        (&manager, wrong.ca_path(), false),
        (&other_name, named_ca, false),
    ] {
        let gateway = Gateway::builder()
            .manager(manager)
            .set("ManagerCAFile", ca_file.to_str().unwrap())
            .spawn()
            .await
            .unwrap();
        assert_eq!(gateway.count_logged(ANY_CERTIFICATE).await, 0);
        let response = authmode(&gateway).await;
        if accepted {
            assert_eq!(response.status(), StatusCode::OK);
        } else {
            assert_plain(&response, StatusCode::BAD_GATEWAY);
            logged(
                &gateway,
                &["WARN", "no answer from the manager", "certificate"],
            )
            .await;
        }
    }
    assert_eq!(other_name.requests().len(), 0);
    assert_eq!(manager.requests().len(), 1);
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_the_ca_file() {
    let manager = Manager::builder().spawn().await.unwrap();
    let gateway = Gateway::builder()
        .manager(&manager)
        .set(
            "ManagerCAFile",
            manager.cert().cert_path().to_str().unwrap(),
        )
        .spawn()
        .await
        .unwrap();
    assert_eq!(authmode(&gateway).await.status(), StatusCode::OK);
}
