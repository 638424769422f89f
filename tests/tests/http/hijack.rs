//! What becomes of the manager's answers to `POST /vdi/desktop`.

use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, ETAG};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::manager::{RawEnd, RawManager, gzip};
use testkit::prelude::*;
use testkit::ws::RawClient;

use crate::support::{ask_desktop, assert_error, get, logged};

const UNCHANGED: &str = "the manager's answer is forwarded unchanged";
const WITHHELD: &str = "manager's answer is withheld";
const MIB: usize = 1 << 20;

/// The answer of a manager that was seen with real clients, in a layout that no serializer makes.
pub(crate) const DESKTOP: &str = r#"{ "inactivity_timeout" : 0, "spice_port": "5901",
    "spice_password":"p\u00e4ss\/word", "status": "OK" , "big": 12345678901234567890123,
    "nested": {"b":  [1.0, null], "a": "\ud83d\ude00"}, "use_ws": "true",
    "spice_address":"127.0.0.1", "usb_redirection": false }"#;

/// What a client gets of [`DESKTOP`], with this address and port, which are JSON texts.
fn rewritten(address: &str, port: &str) -> String {
    [
        r#"{"inactivity_timeout":0,"spice_port":"#,
        port,
        r#","spice_password":"p\u00e4ss\/word","status":"OK","big":12345678901234567890123,"#,
        r#""nested":{"b":  [1.0, null], "a": "\ud83d\ude00"},"use_ws":true,"spice_address":"#,
        address,
        r#","usb_redirection":false}"#,
    ]
    .concat()
}

/// The flexVDI client's request, byte for byte.
pub(crate) fn client_request(host: &str) -> String {
    let body = r#"{"hwaddress": "52:54:00:12:34:56", "username": "user", "password": "secret", "desktop": ""}"#;
    format!(
        "POST /vdi/desktop HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/json\r\n\
         Content-Length: {}\r\nAccept-Encoding: gzip, deflate\r\nConnection: Keep-Alive\r\n\r\n{body}",
        body.len()
    )
}

/// A manager's answer; `headers` are lines with their ends.
pub(crate) fn answer(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A gateway before a manager that answers with exactly these bytes.
pub(crate) async fn stage(
    answer: impl Into<Vec<u8>>,
    configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
) -> (RawManager, Gateway) {
    let manager = RawManager::reply(answer, RawEnd::Close).await.unwrap();
    let gateway = Gateway::builder()
        .set("ManagerIP", "127.0.0.1")
        .set("ManagerPort", manager.addr().port());
    let gateway = configure(gateway).spawn().await.unwrap();
    (manager, gateway)
}

/// Sends a request and reads an answer with `Content-Length`.
pub(crate) async fn exchange(
    endpoint: &Endpoint,
    request: &str,
) -> (StatusCode, HeaderMap, String) {
    let mut client = RawClient::connect(endpoint).await.unwrap();
    client.send_raw(request.as_bytes()).await.unwrap();
    let head = client.read_head().await.unwrap();
    let length = head.headers[CONTENT_LENGTH].to_str().unwrap();
    let body = client.read_exact(length.parse().unwrap()).await.unwrap();
    (head.status, head.headers, String::from_utf8(body).unwrap())
}

/// The address and port of a hijacked answer.
pub(crate) fn address_and_ticket(body: &str) -> (String, String) {
    let value: Value = serde_json::from_str(body).unwrap();
    assert_eq!(value["status"], "OK", "{body}");
    let text = |name: &str| value[name].as_str().unwrap().to_owned();
    (text("spice_address"), text("spice_port"))
}

#[tokio::test]
async fn only_address_port_and_use_ws_change() {
    let (manager, gateway) = stage(
        answer("X-Manager: 1\r\nETag: \"x\"\r\n", DESKTOP.as_bytes()),
        |g| g,
    )
    .await;
    let request = client_request("vdi.example");
    let (status, headers, body) = exchange(&gateway.tls(), &request).await;
    let (_, ticket) = address_and_ticket(&body);
    assert_ne!(ticket, "5901");
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body, rewritten("\"vdi.example\"", &format!("\"{ticket}\"")));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-manager"], "1");
    assert!(!headers.contains_key(ETAG), "it names other bytes");
    assert!(!headers.contains_key(CONNECTION), "that was the manager's");
    let line = logged(&gateway, &["desktop assigned", "host=127.0.0.1:5901"]).await;
    assert!(
        line.contains("session=s1") && line.contains("client=127.0.0.1"),
        "{line}"
    );

    let asked = String::from_utf8(manager.requests().remove(0)).unwrap();
    let (head, sent) = asked.split_once("\r\n\r\n").unwrap();
    assert!(request.ends_with(sent) && !sent.is_empty());
    assert!(head.starts_with("POST /vdi/desktop HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("\r\naccept-encoding: identity"), "{head}");
    assert!(!head.contains("gzip"), "{head}");
}

#[tokio::test]
async fn without_hijacking_only_use_ws_changes() {
    let hijack_not = |gateway: GatewayBuilder| gateway.set("HijackAll", false);
    let (_manager, gateway) = stage(answer("", DESKTOP.as_bytes()), hijack_not).await;
    let (_, _, body) = exchange(&gateway.tls(), &client_request("vdi.example")).await;
    assert_eq!(body, rewritten("\"127.0.0.1\"", "\"5901\""));
}

#[tokio::test]
async fn use_ws_is_added_where_it_is_missing() {
    let desktop = r#"{"status":"OK","spice_address":"127.0.0.1","spice_port":"5901"}"#;
    for (hijack, expected) in [
        (
            false,
            r#"{"status":"OK","spice_address":"127.0.0.1","spice_port":"5901","use_ws":true}"#,
        ),
        (
            true,
            r#"{"status":"OK","spice_address":"gw","spice_port":"TICKET","use_ws":true}"#,
        ),
    ] {
        let configure = |gateway: GatewayBuilder| gateway.set("HijackAll", hijack);
        let (_manager, gateway) = stage(answer("", desktop.as_bytes()), configure).await;
        let (_, _, body) = exchange(&gateway.tls(), &client_request("gw")).await;
        let (_, ticket) = address_and_ticket(&body);
        let expected = if hijack {
            expected.replace("TICKET", &ticket)
        } else {
            expected.to_owned()
        };
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn other_answers_pass_as_they_are() {
    for body in [
        r#"{ "status": "Pending", "message": "Starting the desktop" }"#,
        r#"{"status":"SelectDesktop", "message": "{\"one\":\"First\",\"two\":\"Second\"}"}"#,
        r#"{"message":"Wrong user or password" , "status":"Error","spice_port":"5900"}"#,
    ] {
        for hijack in [true, false] {
            let configure = |gateway: GatewayBuilder| gateway.set("HijackAll", hijack);
            let (_manager, gateway) = stage(answer("", body.as_bytes()), configure).await;
            let (status, _, got) = exchange(&gateway.tls(), &client_request("gw")).await;
            assert_eq!((status, got.as_str()), (StatusCode::OK, body));
            assert_eq!(gateway.count_logged(UNCHANGED).await, 0);
        }
    }
}

#[tokio::test]
async fn other_requests_are_not_looked_into() {
    let (manager, gateway) = stage(answer("", DESKTOP.as_bytes()), |g| g).await;
    let endpoint = gateway.tls();
    let calls = [
        Call::post(&endpoint, "/vdi/authmode", "{}"),
        Call::post(&endpoint, "/vdi/desktops", "{}"),
    ];
    for call in calls {
        let call = call
            .header("Accept-Encoding", "gzip")
            .header("Connection", "close");
        assert_eq!(call.send().await.unwrap().body(), DESKTOP);
    }
    for request in manager.requests() {
        let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
        assert!(request.contains("accept-encoding: gzip"), "{request}");
    }
}

#[tokio::test]
async fn compressed_answers_are_changed_too() {
    let compressed = answer("Content-Encoding: gzip\r\n", &gzip(DESKTOP.as_bytes()));
    let (_manager, gateway) = stage(compressed, |g| g).await;
    let (_, headers, body) = exchange(&gateway.tls(), &client_request("gw")).await;
    let (_, ticket) = address_and_ticket(&body);
    assert_eq!(body, rewritten("\"gw\"", &format!("\"{ticket}\"")));
    assert!(!headers.contains_key(CONTENT_ENCODING));
}

#[tokio::test]
async fn chunked_answers_are_changed_too() {
    let (start, end) = DESKTOP.split_at(100);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{start}\r\n{:x}\r\n{end}\r\n0\r\n\r\n",
        start.len(),
        end.len()
    );
    let (_manager, gateway) = stage(chunked, |g| g).await;
    let (_, _, body) = exchange(&gateway.tls(), &client_request("gw")).await;
    assert_eq!(address_and_ticket(&body).0, "gw");
}

#[tokio::test]
async fn every_spelling_and_method_of_a_request_for_a_desktop_is_one() {
    let (manager, gateway) = stage(answer("", DESKTOP.as_bytes()), |g| g).await;
    let endpoint = gateway.tls();
    for call in [
        Call::post(&endpoint, "/vdi/%64esktop", "{}"),
        Call::post(&endpoint, "/%76di/deskto%70/", "{}"),
        Call::get(&endpoint, "/vdi/desktop"),
    ] {
        let response = call.send().await.unwrap();
        let body = std::str::from_utf8(response.body()).unwrap();
        assert_eq!(address_and_ticket(body).1.len(), 16);
    }
    for request in manager.requests() {
        let request = String::from_utf8(request).unwrap();
        assert!(request.contains(" /vdi/desktop"), "{request}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_changed_is_withheld() {
    let cut_json = &DESKTOP.as_bytes()[..DESKTOP.len() / 2];
    let cut_gzip = gzip(DESKTOP.as_bytes());
    let cut_gzip = &cut_gzip[..cut_gzip.len() - 10];
    let bomb = gzip(&vec![b' '; MIB + 1]);
    let gzip_header = "Content-Encoding: gzip\r\n";
    for (headers, body, reason) in [
        ("", &b"<html>Bad gateway</html>"[..], "not JSON"),
        ("", &b"[\"status\", \"OK\"]"[..], "not a JSON object"),
        ("", &b""[..], "not JSON"),
        ("", cut_json, "not JSON"),
        (gzip_header, cut_gzip, "not valid gzip"),
        (gzip_header, DESKTOP.as_bytes(), "not valid gzip"),
        (gzip_header, &bomb, "longer than 1048576 bytes"),
        (
            "Content-Encoding: br\r\n",
            &b"\x0b\x02\x80{}\x03"[..],
            "content coding \\\"br\\\"",
        ),
        (
            "",
            &br#"{"status":"OK","spice_port":"5900"}"#[..],
            "spice_address",
        ),
        (
            "",
            &br#"{"status":"OK","spice_address":"h","spice_port":0}"#[..],
            "spice_port",
        ),
    ] {
        let (_manager, gateway) = stage(answer(headers, body), |g| g).await;
        let call = ask_desktop(&gateway.tls());
        let response = call.send().await.unwrap();
        // What is empty shows nothing.
        let told = if body.is_empty() {
            assert_eq!(response.status(), StatusCode::OK, "{reason}");
            UNCHANGED
        } else {
            let message = assert_error(&response, StatusCode::BAD_GATEWAY);
            assert!(message.contains("Your desktop"), "{message}");
            WITHHELD
        };
        let line = logged(&gateway, &["WARN", told]).await;
        assert!(
            line.contains(reason) || line.contains(&reason.replace('\\', "")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn answers_are_changed_up_to_a_mebibyte() {
    let padded = |length: usize| {
        let start = r#"{"status":"OK","spice_address":"127.0.0.1","spice_port":"5901","x":""#;
        format!("{start}{}\"}}", "x".repeat(length - start.len() - 2))
    };
    for (length, changed) in [(MIB, true), (MIB + 1, false), (3 * MIB, false)] {
        let body = padded(length);
        let chunked = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        );
        for answer in [answer("", body.as_bytes()), chunked.into_bytes()] {
            let (_manager, gateway) = stage(answer, |g| g).await;
            let response = ask_desktop(&gateway.tls()).send().await.unwrap();
            if changed {
                let text = std::str::from_utf8(response.body()).unwrap();
                assert_eq!(address_and_ticket(text).1.len(), 16);
            } else {
                assert_error(&response, StatusCode::BAD_GATEWAY);
                logged(&gateway, &["WARN", WITHHELD, "longer than 1048576"]).await;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_off_on_its_way_is_502() {
    let whole = answer("", DESKTOP.as_bytes());
    let cut = &whole[..whole.len() - 10];
    let manager = RawManager::reply(cut, RawEnd::Close).await.unwrap();
    let gateway = Gateway::builder()
        .set("ManagerIP", "127.0.0.1")
        .set("ManagerPort", manager.addr().port())
        .spawn()
        .await
        .unwrap();
    let response = ask_desktop(&gateway.tls()).send().await.unwrap();
    assert_error(&response, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn the_managers_own_errors_pass() {
    let error = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops";
    let (_manager, gateway) = stage(error, |g| g).await;
    let response = ask_desktop(&gateway.tls()).send().await.unwrap();
    assert_eq!(
        (response.status(), response.body().as_ref()),
        (StatusCode::INTERNAL_SERVER_ERROR, &b"oops"[..])
    );
}

#[tokio::test]
async fn desktops_out_of_reach_are_errors() {
    let narrow = |gateway: GatewayBuilder| gateway.set("LastSpicePort", 5900);
    let elsewhere =
        |gateway: GatewayBuilder| gateway.set("AllowedHosts", vec!["10.0.0.0/8", "::1"]);
    let (_manager, narrow) = stage(answer("", DESKTOP.as_bytes()), narrow).await;
    let (_manager2, elsewhere) = stage(answer("", DESKTOP.as_bytes()), elsewhere).await;
    for (gateway, reason) in [(narrow, "LastSpicePort"), (elsewhere, "AllowedHosts")] {
        let response = ask_desktop(&gateway.tls()).send().await.unwrap();
        let message = assert_error(&response, StatusCode::BAD_GATEWAY);
        assert!(message.contains("your administrator"), "{message}");
        assert!(
            !message.contains("5901") && !message.contains("127.0.0.1"),
            "{message}"
        );
        logged(
            &gateway,
            &["WARN", "no ticket", "host=127.0.0.1:5901", reason],
        )
        .await;
    }
}

#[tokio::test]
async fn tickets_are_short_url_safe_and_new_each_time() {
    let (_manager, gateway) = stage(answer("", DESKTOP.as_bytes()), |g| g).await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let (_, _, body) = exchange(&gateway.tls(), &client_request("gw")).await;
        let (_, ticket) = address_and_ticket(&body);
        let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!(
            ticket.len() == 16 && ticket.bytes().all(url_safe),
            "{ticket}"
        );
        assert!(seen.insert(ticket));
    }
    assert_error(&get(&gateway.tls(), "/").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_final_slash_makes_no_other_request() {
    let (_manager, gateway) = stage(answer("", DESKTOP.as_bytes()), |g| g).await;
    let call = Call::post(&gateway.tls(), "/vdi/desktop/?lang=es", "{}");
    let response = call
        .header(ACCEPT_ENCODING.as_str(), "gzip")
        .send()
        .await
        .unwrap();
    let body = std::str::from_utf8(response.body()).unwrap();
    assert_eq!(address_and_ticket(body).1.len(), 16);
}

#[tokio::test]
async fn without_hijacking_answers_that_cannot_be_changed_pass() {
    let hijack_not = |gateway: GatewayBuilder| gateway.set("HijackAll", false);
    let page = b"<html>";
    let (_manager, gateway) = stage(answer("", page), hijack_not).await;
    let response = ask_desktop(&gateway.tls()).send().await.unwrap();
    assert_eq!(
        (response.status(), response.body().as_ref()),
        (StatusCode::OK, &page[..])
    );
    logged(&gateway, &["WARN", UNCHANGED, "not JSON"]).await;
}
