//! The name of the gateway in hijacked answers.

use testkit::gateway::GatewayBuilder;
use testkit::prelude::*;

use crate::hijack::{DESKTOP, address_and_ticket, answer, client_request, exchange, stage};
use crate::support::ask_desktop;

#[tokio::test]
async fn the_clients_name_for_the_gateway_comes_back() {
    let (_manager, gateway) = stage(answer("", DESKTOP.as_bytes()), |g| g).await;
    for (host, expected) in [
        ("vdi.example", "vdi.example"),
        ("vdi.example:8443", "vdi.example"),
        ("VDI.Example", "VDI.Example"),
        ("192.0.2.7:443", "192.0.2.7"),
        ("[2001:db8::7]:443", "[2001:db8::7]"),
        ("[2001:db8::7]", "[2001:db8::7]"),
        // No names: the address that the client connected to is one for sure.
        ("\"}<script>", "127.0.0.1"),
        ("user@vdi.example", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        let (_, _, body) = exchange(&gateway.tls(), &client_request(host)).await;
        assert_eq!(address_and_ticket(&body).0, expected, "{host}");
    }
    let old = "POST /vdi/desktop HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}";
    let (_, _, body) = exchange(&gateway.tls(), old).await;
    assert_eq!(address_and_ticket(&body).0, "127.0.0.1");
}

#[tokio::test]
async fn without_host_the_address_is_the_connections() {
    let all = |gateway: GatewayBuilder| gateway.set("ListenAddress", "");
    let (_manager, gateway) = stage(answer("", DESKTOP.as_bytes()), all).await;
    let port = gateway.tls_addr().port();
    let request = "POST /vdi/desktop HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}";
    for address in ["[::1]", "127.0.0.1", "127.0.0.9"] {
        let bare = address.trim_matches(['[', ']']);
        let endpoint = Endpoint::tls((bare.parse::<std::net::IpAddr>().unwrap(), port).into());
        let (_, _, body) = exchange(&endpoint, request).await;
        assert_eq!(address_and_ticket(&body).0, address);
    }
}

#[tokio::test]
async fn the_external_name_goes_before_all() {
    let named = |gateway: GatewayBuilder| {
        gateway
            .set("ExternalName", "public.example")
            .set("TrustedProxies", vec!["127.0.0.1"])
    };
    let (_manager, gateway) = stage(answer("", DESKTOP.as_bytes()), named).await;
    let call = ask_desktop(&gateway.tls()).header("X-Forwarded-Host", "proxy.example");
    let response = call.send().await.unwrap();
    let body = std::str::from_utf8(response.body()).unwrap();
    assert_eq!(address_and_ticket(body).0, "public.example");
}

#[tokio::test]
async fn ipv6_goes_out_in_brackets_wherever_it_comes_from() {
    for name in ["2001:db8::7", "[2001:db8::7]"] {
        let named = |gateway: GatewayBuilder| gateway.set("ExternalName", name);
        let (_manager, gateway) = stage(answer("", DESKTOP.as_bytes()), named).await;
        let (_, _, body) = exchange(&gateway.tls(), &client_request("gw")).await;
        assert_eq!(address_and_ticket(&body).0, "[2001:db8::7]");
    }
    let trusting = |gateway: GatewayBuilder| gateway.set("TrustedProxies", vec!["127.0.0.1"]);
    let (_manager, gateway) = stage(answer("", DESKTOP.as_bytes()), trusting).await;
    for (told, expected) in [
        ("[2001:db8::8]:443", "[2001:db8::8]"),
        ("user@vdi.example", "gw.example"),
        ("\"}<script>", "gw.example"),
    ] {
        let call = ask_desktop(&gateway.tls()).header("Host", "gw.example");
        let response = call.header("X-Forwarded-Host", told).send().await.unwrap();
        let body = std::str::from_utf8(response.body()).unwrap();
        assert_eq!(address_and_ticket(body).0, expected);
    }
}
