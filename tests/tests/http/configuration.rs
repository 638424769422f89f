//! The configuration file, from what is right in it to what is told of what is wrong.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::prelude::*;
use tokio::net::TcpListener;

use crate::command_line::{Files, check, run};
use crate::support::{assert_opens, logged};

/// Runs and checks a wrong configuration: both say the same, on standard error, with code 78.
async fn refusal(config: &Path) -> String {
    let (running, checked) = tokio::join!(
        run([Path::new("--config"), config]),
        run([Path::new("--config"), config, Path::new("check")])
    );
    for ended in [&running, &checked] {
        assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
    assert_eq!(running.stderr, checked.stderr);
    running.stderr
}

#[tokio::test]
async fn wrong_values_are_told_with_file_key_and_expectation() {
    let files = Files::new();
    // Whoever opened a socket before would fail with another message and code.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    for (key, value, expected) in [
        (
            "SslPort",
            json!("443"),
            "a port number from 0 to 65535, found \"443\"",
        ),
        (
            "SslPort",
            json!(65_536),
            "a port number from 0 to 65535, found 65536",
        ),
        (
            "ManagerIP",
            json!(null),
            "a host name or IP address, or \"\", found null",
        ),
        ("ManagerIP", json!("https://manager"), "without a scheme"),
        ("ManagerIP", json!("manager:443"), "without a port"),
        ("HijackAll", json!("true"), "true or false, found \"true\""),
        (
            "KeepAlive",
            json!(-1),
            "whole seconds from 1 to 31536000, or 0, found -1",
        ),
        ("KeepAlive", json!(1.5), "found 1.5"),
        (
            "CongestionControl",
            json!("bbr cubic"),
            "\"auto\", \"system\" or the kernel's name of an algorithm, such as \"bbr\", of at \
             most 15 characters, found \"bbr cubic\"",
        ),
        (
            "TrustedProxies",
            json!("10.0.0.0/8"),
            "found \"10.0.0.0/8\"",
        ),
        (
            "TrustedProxies",
            json!(["10.0.0.0/33"]),
            "a network such as \"10.0.0.0/8\"",
        ),
        (
            "ListenAddress",
            json!("localhost"),
            "an IP address, or \"\", found \"localhost\"",
        ),
        (
            "ManagerPaths",
            json!(["vdi"]),
            "a path that begins and ends with \"/\"",
        ),
        ("MaxHeaderSize", json!(100), "a whole number from 8192 to"),
        (
            "PlainPort",
            json!(port),
            "another port than SslPort on the same address",
        ),
        (
            "FirstSpicePort",
            json!(30_000),
            "a port not above LastSpicePort (25900), found 30000",
        ),
    ] {
        let mut values = json!({"SslPort": port, "ListenAddress": "127.0.0.1"});
        values[key] = value;
        let config = files.config(&values);
        let told = refusal(&config).await;
        let start = format!("flexvdi-gateway: {}: {key}: expected ", config.display());
        assert!(
            told.starts_with(&start) && told.contains(expected),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[tokio::test]
async fn all_wrong_values_are_told_at_once() {
    let files = Files::new();
    let config = files.config(&json!({"SslPort": true, "Debug": 1, "KeepAlive": "x"}));
    let told = refusal(&config).await;
    assert_eq!(told.lines().count(), 3, "{told}");
    for key in ["SslPort", "Debug", "KeepAlive"] {
        let line = format!("{}: {key}: expected ", config.display());
        assert!(told.contains(&line), "{told}");
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_told_with_its_place() {
    let files = Files::new();
    for (content, expected) in [
        ("{\"SslPort\": 443,\n  \"Debug\": }", "line 2, column 12: "),
        ("{\"SslPort\": 443", "line 1, column 15: "),
        ("", "line 1, column 0: "),
        ("SslPort=443", "line 1, column 1: "),
        ("[1]", "expected a JSON object"),
    ] {
        let config = files.write("gateway.conf", content);
        let told = refusal(&config).await;
        let path = config.display().to_string();
        assert!(told.contains(&path) && told.contains(expected), "{told}");
    }
    let missing = files.dir.path().join("missing.conf");
    let told = refusal(&missing).await;
    assert!(told.contains("missing.conf: No such file"), "{told}");
    let told = refusal(files.dir.path()).await;
    assert!(told.contains("directory"), "{told}");
}

#[tokio::test]
async fn wrong_files_are_told_with_their_key_and_not_their_content() {
    let files = Files::new();
    let other = TestCert::new().unwrap();
    let text = files.write("text", "c2VjcmV0LXRleHQ=\n");
    let broken = "-----BEGIN secret-text\nc2VjcmV0LXRleHQ=\n-----END CERTIFICATE-----\n";
    let broken = files.write("broken", broken);
    let cut = "-----BEGIN CERTIFICATE-----\nc2VjcmV0LXRleHQ=\n";
    let cut = files.write("cut", cut);
    let not_der = "-----BEGIN CERTIFICATE-----\nc2VjcmV0LXRleHQ=\n-----END CERTIFICATE-----\n";
    let not_der = files.write("not_der", not_der);
    let missing = files.dir.path().join("missing");
    for (key, path, expected) in [
        (
            "CertFile",
            &missing,
            "a PEM file with a certificate: No such file",
        ),
        (
            "CertFile",
            &text,
            "a PEM file with a certificate: it has none",
        ),
        (
            "CertFile",
            &broken,
            "a PEM file with a certificate: it is not well-formed",
        ),
        (
            "CertFile",
            &cut,
            "a PEM file with a certificate: it is not well-formed",
        ),
        (
            "CertFile",
            &files.cert.key_path(),
            "a PEM file with a certificate: it has none",
        ),
        (
            "KeyFile",
            &missing,
            "a PEM file with a private key: No such file",
        ),
        (
            "KeyFile",
            &text,
            "a PEM file with a private key: it has none",
        ),
        (
            "KeyFile",
            &broken,
            "a PEM file with a private key: it is not well-formed",
        ),
        (
            "KeyFile",
            &files.cert.cert_path(),
            "a PEM file with a private key: it has none",
        ),
        (
            "KeyFile",
            &other.key_path(),
            "the key of the certificate in",
        ),
        (
            "ManagerCAFile",
            &missing,
            "a PEM file with certificates: No such file",
        ),
        (
            "ManagerCAFile",
            &text,
            "a PEM file with certificates: it has none",
        ),
        (
            "ManagerCAFile",
            &broken,
            "a PEM file with certificates: it is not well-formed",
        ),
        ("ManagerCAFile", &not_der, "a PEM file with certificates: "),
        (
            "ManagerCAFile",
            &files.cert.key_path(),
            "a PEM file with certificates: it has none",
        ),
    ] {
        let told = refusal(&files.config(&json!({key: path}))).await;
        let start = format!(
            "flexvdi-gateway: {}: {key}: expected {expected}",
            path.display()
        );
        assert!(told.starts_with(&start), "{told}");
        assert!(
            !told.contains("secret") && !told.contains("c2VjcmV0"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn what_is_odd_is_a_warning_only() {
    let files = Files::new();
    let path = |path: PathBuf| path.display().to_string();
    let text = format!(
        "\u{feff}{{\"CertFile\": {:?}, \"KeyFile\": {:?}, \"SslPort\": 1, \"SslPort\": 2,
            \"KeepAlve\": 30, \"HijackALL\": true, \"Password\": \"hunter2\"}}",
        path(files.cert.cert_path()),
        path(files.cert.key_path())
    );
    let ended = check(&files.write("gateway.conf", text)).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    for warning in [
        "warning: key \"SslPort\" is given more than once; the last one counts",
        "warning: unknown key \"KeepAlve\" ignored; did you mean \"KeepAlive\"?",
        "warning: unknown key \"HijackALL\" ignored; did you mean \"HijackAll\"?",
        "warning: unknown key \"Password\" ignored\n",
    ] {
        assert!(ended.stderr.contains(warning), "{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("hunter2"));
    let shown: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(shown["SslPort"], 2);
}

#[tokio::test]
async fn warnings_are_logged_at_the_start() {
    let gateway = Gateway::builder()
        .set("MaxConections", 5)
        .spawn()
        .await
        .unwrap();
    logged(
        &gateway,
        &[
            "WARN",
            "unknown key \"MaxConections\"",
            "\"MaxConnections\"?",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_old_gateways_file_works() {
    let files = Files::new();
    let host = Host::echo().await.unwrap();
    let port = host.addr().port();
    let text = json!({
        "ManagerIP": "",
        "SslPort": 0,
        "FirstSpicePort": port,
        "LastSpicePort": port,
        "CertFile": files.cert.combined_path(),
        "KeyFile": files.cert.combined_path(),
        "HijackAll": false,
        "KeepAlive": 0,
        "Debug": false,
        // The old one knows none; the default may be in use on the machine that runs the tests.
        "RuntimeDir": files.dir.path().join("run"),
    });
    let gateway = Gateway::builder().config_text(text.to_string());
    let gateway = gateway.spawn().await.unwrap();
    assert!(
        gateway
            .log()
            .await
            .iter()
            .all(|line| !line.contains("unknown key"))
    );
    // Without ListenAddress it listens on all addresses.
    let port = gateway.tls_addr().port();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut address: std::net::SocketAddr = address.parse().unwrap();
        address.set_port(port);
        assert_opens(&Endpoint::tls(address), &host.addr().port().to_string()).await;
    }
}
