//! What becomes of headers on the way to the manager and back.

use http::header::{COOKIE, HeaderMap, SET_COOKIE};
use http::{Response, StatusCode};
use testkit::http::{Call, exchange};
use testkit::manager::{ManagerRequest, full};
use testkit::prelude::*;

use crate::reload::change;
use crate::support::assert_error;

/// The last request at the manager.
fn last(manager: &Manager) -> ManagerRequest {
    manager.requests().pop().unwrap()
}

async fn stage(trusted: &[&str]) -> (Manager, Gateway) {
    let manager = Manager::builder().spawn().await.unwrap();
    let gateway = Gateway::builder()
        .manager(&manager)
        .plain()
        .set("TrustedProxies", trusted.to_vec());
    let gateway = gateway.spawn().await.unwrap();
    (manager, gateway)
}

/// Asks for a desktop as a client of a proxy whose request has these headers.
async fn ask_through_proxy(gateway: &Gateway, headers: &[(&str, &str)]) {
    let body = r#"{"hwaddress":"","username":"user","password":"","desktop":""}"#;
    let mut call = Call::post(&gateway.plain(), "/vdi/desktop", body);
    for (name, value) in headers {
        call = call.header(name, value);
    }
    call.send().await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_tells_no_name_is_told_of_once() {
    const WARNING: &str = "a proxy does not tell the name that clients use";
    let outside = ("X-Forwarded-For", "203.0.113.5");
    let (_manager, gateway) = stage(&["127.0.0.0/8"]).await;
    ask_through_proxy(&gateway, &[outside, ("Host", "vdi.example.com")]).await;
    let told = ("X-Forwarded-Host", "vdi.example.com");
    ask_through_proxy(&gateway, &[outside, ("Host", "127.0.0.1:8080"), told]).await;
    assert_eq!(gateway.count_logged(WARNING).await, 0);

    // Nor does it matter while the gateway has a name of its own.
    change(&gateway, &[("ExternalName", "vdi.example.com".into())]).await;
    ask_through_proxy(&gateway, &[outside, ("Host", "127.0.0.1:8080")]).await;
    assert_eq!(gateway.count_logged(WARNING).await, 0);
    change(&gateway, &[("ExternalName", "".into())]).await;
    for host in ["127.0.0.1:8080", "flexvdi_gateway", "10.0.0.11"] {
        ask_through_proxy(&gateway, &[outside, ("Host", host)]).await;
    }
    assert_eq!(gateway.count_logged(WARNING).await, 1);
    let lines = gateway.log().await;
    let line = lines.iter().find(|line| line.contains(WARNING)).unwrap();
    assert!(line.contains("proxy=127.0.0.1") && line.contains("host=\"127.0.0.1\""));

    // Clients that are no proxy's name what they like.
    let (_manager, gateway) = stage(&[]).await;
    ask_through_proxy(&gateway, &[("Host", "127.0.0.1:8080")]).await;
    assert_eq!(gateway.count_logged(WARNING).await, 0);
}

fn forwarded(request: &ManagerRequest) -> [Option<&str>; 3] {
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].map(|name| request.header(name))
}

fn values(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Vec<&str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn the_managers_request_is_the_clients() {
    let (manager, gateway) = stage(&[]).await;
    let call = Call::post(&gateway.tls(), "/vdi/authmode?a=b%20c&a", "{\"x\": 1}")
        .header("Host", "vdi.example:8443")
        .header("Content-Type", "text/json")
        .header("Accept-Encoding", "gzip, deflate")
        .header("Authorization", "Basic dTpw")
        .header("Cookie", "a=1")
        .header("Cookie", "b=2")
        .header("Via", "1.1 proxy");
    call.send().await.unwrap();
    let request = last(&manager);
    assert_eq!(request.uri, "/vdi/authmode?a=b%20c&a");
    assert_eq!(request.body, "{\"x\": 1}");
    for (name, value) in [
        ("host", manager.addr().to_string()),
        ("content-type", "text/json".to_owned()),
        ("content-length", "8".to_owned()),
        ("accept-encoding", "gzip, deflate".to_owned()),
        ("authorization", "Basic dTpw".to_owned()),
    ] {
        assert_eq!(request.header(name), Some(value.as_str()), "{name}");
    }
    assert_eq!(values(&request.headers, COOKIE), ["a=1", "b=2"]);
    assert_eq!(
        values(&request.headers, "via"),
        ["1.1 proxy", "1.1 flexvdi-gateway"]
    );
    assert_eq!(
        forwarded(&request),
        [Some("127.0.0.1"), Some("https"), Some("vdi.example:8443")]
    );
}

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_connection() {
    let manager = Manager::with_handler(|_| async {
        Response::builder()
            .header("Connection", "X-Hop")
            .header("X-Hop", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Authenticate", "Basic")
            .header("Upgrade", "h2c")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
            .header("Server", "manager")
            .header("X-Custom", "kept")
            .body(full("{}"))
            .unwrap()
    })
    .await
    .unwrap();
    let gateway = Gateway::builder().manager(&manager).spawn().await.unwrap();
    let call = Call::get(&gateway.tls(), "/vdi/")
        .header("Connection", "keep-alive, X-Hop,TE")
        .header("X-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy-Authorization", "Basic dTpw")
        .header("TE", "trailers")
        .header("Upgrade", "h2c")
        .header("X-Custom", "kept");
    let response = call.send().await.unwrap();

    let request = last(&manager);
    let hops = [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
    ];
    for name in hops
        .into_iter()
        .chain(["proxy-authenticate", "te", "upgrade"])
    {
        assert_eq!(request.header(name), None, "{name}");
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(request.header("x-custom"), Some("kept"));
    assert_eq!(response.headers()["x-custom"], "kept");
    assert_eq!(response.headers()["server"], "manager");
    assert_eq!(values(response.headers(), SET_COOKIE), ["a=1", "b=2"]);
    assert_eq!(response.body(), "{}");
}

#[tokio::test]
async fn strangers_cannot_say_where_they_come_from() {
    let (manager, gateway) = stage(&["127.0.0.2"]).await;
    for (endpoint, proto) in [(gateway.plain(), "http"), (gateway.tls(), "https")] {
        let call = Call::get(&endpoint, "/vdi/")
            .header("Host", "vdi.example")
            .header("X-Forwarded-For", "203.0.113.9")
            .header("X-Forwarded-Proto", "ftp")
            .header("X-Forwarded-Host", "evil.example");
        call.send().await.unwrap();
        assert_eq!(
            forwarded(&last(&manager)),
            [Some("127.0.0.1"), Some(proto), Some("vdi.example")]
        );
    }
}

#[tokio::test]
async fn trusted_proxies_can() {
    let (manager, gateway) = stage(&["127.0.0.2", "192.0.2.0/24"]).await;
    let proxy = gateway.plain().from_source([127, 0, 0, 2].into());
    let call = Call::get(&proxy, "/vdi/")
        .header("Host", "backend")
        .header("X-Forwarded-For", "203.0.113.9, 192.0.2.1")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "vdi.example:8443");
    call.send().await.unwrap();
    assert_eq!(
        forwarded(&last(&manager)),
        [
            Some("203.0.113.9, 192.0.2.1, 127.0.0.2"),
            Some("https"),
            Some("vdi.example:8443")
        ]
    );
    // One that says nothing, as nginx without further settings.
    let call = Call::get(&proxy, "/vdi/").header("Host", "backend");
    call.send().await.unwrap();
    assert_eq!(
        forwarded(&last(&manager)),
        [Some("unknown, 127.0.0.2"), Some("http"), Some("backend")]
    );
}

#[tokio::test]
async fn nothing_that_a_manager_may_believe_passes_unchecked() {
    let (manager, gateway) = stage(&["127.0.0.1"]).await;
    let names = [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Real-IP",
        "True-Client-IP",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-Host",
        "X-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Cluster-Client-IP",
        "X_Forwarded_For",
        "Content_Type",
        "Forwarded",
    ];
    let mut call = Call::get(&gateway.tls(), "/vdi/").header("X-Custom", "kept");
    for name in names {
        call = call.header(name, "1.2.3.4");
    }
    call.send().await.unwrap();
    let request = last(&manager);
    for name in names {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("x-custom"), Some("kept"));
}

#[tokio::test]
async fn a_transfer_coding_that_would_be_lost_is_501() {
    let (manager, gateway) = stage(&[]).await;
    let request = b"POST /vdi/authmode HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\
        Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let (answer, _) = exchange(&gateway.tls(), request).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 501 "));
    assert_eq!(manager.requests().len(), 0);
}

#[tokio::test]
async fn the_name_in_a_whole_uri_goes_before_host() {
    let (manager, gateway) = stage(&[]).await;
    let request = b"GET https://vdi.example/vdi/x?y HTTP/1.1\r\nHost: other\r\n\
        Connection: close\r\n\r\n";
    let (answer, _) = exchange(&gateway.tls(), request).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"));
    let request = last(&manager);
    assert_eq!(request.uri, "/vdi/x?y");
    assert_eq!(request.header("x-forwarded-host"), Some("vdi.example"));
}

#[tokio::test]
async fn only_old_clients_may_leave_host_out() {
    let (manager, gateway) = stage(&[]).await;
    let call = Call::get(&gateway.tls(), "/vdi/x").without_host();
    assert_error(&call.send().await.unwrap(), StatusCode::BAD_REQUEST);
    assert_eq!(manager.requests().len(), 0);
    let call = Call::post(&gateway.tls(), "/vdi/authmode", "{}").without_host();
    let response = call.http10().send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let manager_addr = manager.addr().to_string();
    let request = last(&manager);
    assert_eq!(request.header("host"), Some(manager_addr.as_str()));
    assert_eq!(
        forwarded(&request),
        [Some("127.0.0.1"), Some("https"), None]
    );
}
