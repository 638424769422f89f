//! The client for browsers: what is answered, to whom, and with which headers.

use std::fs;
use std::os::unix::fs::symlink;

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::browser;
use testkit::http::{Call, exchange};
use testkit::ws::Connect;

use crate::command_line::check;
use crate::reload::change;
use crate::support::{Stage, ask_desktop, assert_error, assert_opens, get, logged, port_gateway};

const MAIN: &str = "/webclient/spice-html5/main.js";

/// A directory that passes for spice-html5, with the path of the configuration.
fn spice_html5() -> (TempDir, Value) {
    let (directory, _) = browser::stub_spice_html5().unwrap();
    let path = json!(directory.path());
    (directory, path)
}

async fn stage(path: &Value) -> Stage {
    Stage::with(|gateway| gateway.plain().set("WebClient", path.clone())).await
}

#[tokio::test]
async fn without_the_key_there_is_no_page() {
    let stage = Stage::new().await;
    for path in ["/", "/webclient/login.js", MAIN] {
        let answer = get(&stage.gateway.tls(), path).await;
        assert_error(&answer, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn the_page_and_its_files_are_served_on_both_ports() {
    let (directory, path) = spice_html5();
    let stage = stage(&path).await;
    for endpoint in [stage.gateway.tls(), stage.gateway.plain()] {
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/?x=y", "text/html; charset=utf-8"),
            ("/webclient/login.js", "text/javascript; charset=utf-8"),
            ("/webclient/texts.js", "text/javascript; charset=utf-8"),
            ("/webclient/style.css", "text/css; charset=utf-8"),
            (MAIN, "text/javascript; charset=utf-8"),
        ] {
            let answer = get(&endpoint, path).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            let headers = answer.headers();
            assert_eq!(headers[CONTENT_TYPE], kind, "{path}");
            assert_eq!(headers[CACHE_CONTROL], "no-cache");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(headers[REFERRER_POLICY], "no-referrer");
            assert_eq!(headers["cross-origin-opener-policy"], "same-origin");
            assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
            assert!(headers.contains_key("permissions-policy"));
            assert!(!headers.contains_key("set-cookie"));
            assert!(!headers.contains_key("access-control-allow-origin"));
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            for part in [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "frame-ancestors 'none'",
                "base-uri 'none'",
                "form-action 'none'",
            ] {
                assert!(policy.split("; ").any(|found| found == part), "{policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
            let scheme = if endpoint.is_tls() { "wss" } else { "ws" };
            let connect = format!("connect-src 'self' {scheme}://{}", endpoint.addr());
            assert!(policy.ends_with(&connect), "{policy}");
        }
        let module = fs::read(directory.path().join("main.js")).unwrap();
        assert_eq!(get(&endpoint, MAIN).await.body(), &module);
    }
}

#[tokio::test]
async fn what_the_browser_has_is_not_sent_again() {
    let (_directory, path) = spice_html5();
    let stage = stage(&path).await;
    let tls = stage.gateway.tls();
    for path in ["/", MAIN] {
        let first = get(&tls, path).await;
        let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
        let again = Call::get(&tls, path).header(IF_NONE_MATCH.as_str(), &tag);
        let again = again.send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert!(again.body().is_empty());
        assert_eq!(again.headers()[ETAG], tag.as_str());
        let other = Call::get(&tls, path).header(IF_NONE_MATCH.as_str(), "\"other\"");
        assert_eq!(other.send().await.unwrap().body(), first.body());
    }
}

#[tokio::test]
async fn only_get_and_head_are_answered() {
    let (_directory, path) = spice_html5();
    let stage = stage(&path).await;
    let tls = stage.gateway.tls();
    for path in ["/", MAIN, "/webclient/none"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let answer = Call::new(&tls, method, path).send().await.unwrap();
            assert_error(&answer, StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(answer.headers()[ALLOW], "GET, HEAD");
        }
    }
    let length = get(&tls, MAIN).await.body().len().to_string();
    let head = Call::new(&tls, Method::HEAD, MAIN).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert!(head.body().is_empty());
    assert_eq!(head.headers()["content-length"], length.as_str());
}

#[tokio::test]
async fn nothing_outside_the_directory_is_served() {
    let (directory, path) = spice_html5();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.js");
    fs::write(&secret, "secret").unwrap();
    fs::write(directory.path().join(".hidden.js"), "secret").unwrap();
    fs::write(directory.path().join("page.html"), "secret").unwrap();
    fs::create_dir(directory.path().join("folder")).unwrap();
    symlink(&secret, directory.path().join("link.js")).unwrap();
    symlink(outside.path(), directory.path().join("linked")).unwrap();
    let stage = stage(&path).await;
    let secret = secret.to_str().unwrap();
    let name = outside.path().file_name().unwrap().to_str().unwrap();
    for below in [
        "link.js".to_owned(),
        "linked/secret.js".to_owned(),
        ".hidden.js".to_owned(),
        "page.html".to_owned(),
        "folder".to_owned(),
        "folder/".to_owned(),
        String::new(),
        "MAIN.JS".to_owned(),
        secret.to_owned(),
        secret.replace('/', "%2f"),
        format!("../{name}/secret.js"),
        format!("%2e%2e/{name}/secret.js"),
        format!("..%2f{name}%2fsecret.js"),
        format!("..\\{name}\\secret.js"),
        format!("folder/../../{name}/secret.js"),
        format!("%252e%252e/{name}/secret.js"),
        "main.js%00.css".to_owned(),
        "main.js/".to_owned(),
        "../login.js".to_owned(),
    ] {
        let request = format!(
            "GET /webclient/spice-html5/{below} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n"
        );
        let (answer, _) = exchange(&stage.gateway.tls(), request.as_bytes())
            .await
            .unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let is_refused = answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 400");
        assert!(
            is_refused && !answer.contains("secret"),
            "{below}: {answer}"
        );
    }
}

#[tokio::test]
async fn clients_that_are_no_browsers_notice_nothing() {
    let (_directory, path) = spice_html5();
    let stage = stage(&path).await;
    let tls = stage.gateway.tls();
    assert_opens(&tls, &stage.ticket().await).await;
    // A WebSocket at the path of the page.
    let wrong = Connect::new(&tls, "wrong").open().await.unwrap();
    assert_error(&wrong.refused().unwrap(), StatusCode::FORBIDDEN);
    let without_upgrade = get(&tls, "/?ver=2&token=x").await;
    assert_error(&without_upgrade, StatusCode::UPGRADE_REQUIRED);
    let upgrade = Call::get(&tls, "/").header("Upgrade", "websocket");
    let upgrade = upgrade
        .header("Connection", "upgrade")
        .send()
        .await
        .unwrap();
    assert!(upgrade.status().is_client_error(), "{}", upgrade.status());
    assert_error(&get(&tls, "/other").await, StatusCode::NOT_FOUND);
    assert_eq!(get(&tls, "/healthz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn rules_for_clients_hold_for_the_page() {
    let (_directory, path) = spice_html5();
    let stage = Stage::with(|gateway| {
        gateway
            .plain()
            .set("WebClient", path)
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("AllowedClients", vec!["192.0.2.0/24"])
    })
    .await;
    let plain = stage.gateway.plain();
    let ask = |client: &str| {
        Call::get(&plain, "/")
            .header("X-Forwarded-For", client)
            .send()
    };
    assert_eq!(ask("192.0.2.7").await.unwrap().status(), StatusCode::OK);
    let denied = ask("198.51.100.7").await.unwrap();
    assert_error(&denied, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn pages_of_other_sites_may_not_log_in() {
    let (_directory, path) = spice_html5();
    let stage = Stage::with(|gateway| {
        gateway
            .set("WebClient", path)
            .set("AllowedOrigins", vec!["https://portal.example"])
    })
    .await;
    let tls = stage.gateway.tls();
    let ask = |site: &str, origin: &str| {
        let call = ask_desktop(&tls).header("Sec-Fetch-Site", site);
        call.header("Origin", origin).send()
    };
    let foreign = ask("cross-site", "https://evil.example").await.unwrap();
    assert_error(&foreign, StatusCode::FORBIDDEN);
    assert!(stage.manager.requests().is_empty());
    logged(
        &stage.gateway,
        &["login by a web page of another site refused"],
    )
    .await;
    for (site, origin) in [
        ("same-origin", "https://gw"),
        ("cross-site", "https://portal.example"),
    ] {
        let answer = ask(site, origin).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{site} {origin}");
        let headers = answer.headers();
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
    // The page's own WebSockets pass, those of others do not.
    let ticket = stage.ticket().await;
    let connect = |origin: &str| {
        let connect = Connect::new(&tls, &ticket).header("Origin", origin);
        connect.open()
    };
    let foreign = connect("https://evil.example").await.unwrap();
    assert_error(&foreign.refused().unwrap(), StatusCode::FORBIDDEN);
    let own = format!("https://{}", tls.addr());
    connect(&own).await.unwrap().opened().unwrap();
}

#[tokio::test]
async fn without_the_client_logins_are_not_looked_at() {
    let stage = Stage::new().await;
    let tls = stage.gateway.tls();
    let call = ask_desktop(&tls).header("Sec-Fetch-Site", "cross-site");
    assert_eq!(call.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_reload_takes_another_directory_and_its_new_files() {
    let (directory, path) = spice_html5();
    let stage = Stage::new().await;
    let (gateway, tls) = (&stage.gateway, stage.gateway.tls());
    let told = change(gateway, &[("WebClient", path)]).await;
    assert!(told.contains("client for browsers"), "{told}");
    logged(gateway, &["INFO client for browsers", "files="]).await;
    let tag = get(&tls, MAIN).await.headers()[ETAG].clone();
    assert!(change(gateway, &[]).await.contains("changed=\"nothing\""));

    let newer = "/* newer */ function SpiceMainConn() {} export { SpiceMainConn };";
    fs::write(directory.path().join("main.js"), newer).unwrap();
    let told = change(gateway, &[]).await;
    assert!(told.contains("changed=\"client for browsers\""), "{told}");
    let answer = get(&tls, MAIN).await;
    assert_eq!(answer.body(), newer.as_bytes());
    assert_ne!(answer.headers()[ETAG], tag);

    fs::remove_file(directory.path().join("main.js")).unwrap();
    change(gateway, &[]).await;
    logged(
        gateway,
        &["WARN no client for browsers", "it has no spice-html5"],
    )
    .await;
    for path in ["/", MAIN] {
        let answer = get(&tls, path).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
    }
    assert_opens(&tls, &stage.ticket().await).await;

    change(gateway, &[("WebClient", json!(""))]).await;
    assert_error(&get(&tls, "/").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_directory_that_is_missing_keeps_nobody_else_out() {
    let stage = stage(&json!("/nonexistent/spice-html5")).await;
    let warning = ["WARN no client for browsers", "No such file or directory"];
    logged(&stage.gateway, &warning).await;
    let answer = get(&stage.gateway.tls(), "/").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_opens(&stage.gateway.tls(), &stage.ticket().await).await;
    let checked = check(stage.gateway.config_path()).await;
    assert_eq!(checked.code(), Some(0));
    let said = &checked.stderr;
    assert!(
        said.contains("warning: /nonexistent/spice-html5: WebClient: No such file"),
        "{said}"
    );
}

#[tokio::test]
async fn without_tickets_the_page_is_not_shown() {
    let (_directory, path) = spice_html5();
    let gateway = port_gateway().set("WebClient", path).spawn().await.unwrap();
    logged(
        &gateway,
        &["WARN no client for browsers", "it needs HijackAll"],
    )
    .await;
    let answer = get(&gateway.tls(), "/").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_access_log_names_the_pages() {
    let (directory, path) = spice_html5();
    let log = directory.path().join("access.log");
    let file = log.to_str().unwrap().to_owned();
    let stage = Stage::with(|gateway| gateway.set("WebClient", path).set("AccessLog", file)).await;
    let tls = stage.gateway.tls();
    get(&tls, "/?token=").await;
    get(&tls, "/?x=secret").await;
    get(&tls, MAIN).await;
    let mut gateway = stage.gateway;
    assert!(gateway.terminate().await.unwrap().success());
    let text = fs::read_to_string(log).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let paths: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["event"] == "request" && line["status"] == 200)
        .map(|line| line["path"].clone())
        .collect();
    assert_eq!(paths, [json!("/"), json!(MAIN)]);
}
