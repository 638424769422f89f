//! Places that a configuration comes from besides its file: files beside it, the environment and
//! `--set`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::gateway::Signal;

use crate::command_line::{Ended, Files, run_in};
use crate::reload::hang_up;
use crate::service::Notified;
use crate::support::{logged, port_gateway};

const SSL_PORT: (&str, &str) = ("FLEXVDI_GATEWAY_SSL_PORT", "8443");

/// A file in the directory beside the configuration file.
fn drop_in(config: &Path, name: &str, content: &Value) -> PathBuf {
    let directory = PathBuf::from(format!("{}.d", config.display()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

async fn check(config: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let config = config.to_str().unwrap();
    let arguments = [&["check", "--config", config], arguments].concat();
    run_in(environment, arguments).await
}

/// The words of a key's line in the table of `check --sources`.
fn line<'a>(ended: &'a Ended, key: &str) -> Vec<&'a str> {
    let mut lines = ended.stdout.lines().map(str::split_whitespace);
    let line = lines.find(|line| line.clone().next() == Some(key));
    line.unwrap().collect()
}

#[tokio::test]
async fn each_value_is_told_with_its_source() {
    let files = Files::new();
    let config = files.config(&json!({"SslPort": 1, "BanTime": 1, "KeepAlive": 1}));
    let beside = drop_in(
        &config,
        "50-site.conf",
        &json!({"KeepAlive": 2, "BanTime": 2}),
    );
    let arguments = ["--set", "BanTime=3", "--set", "ManagerIP=manager.example"];
    let told = check(
        &config,
        &[SSL_PORT],
        &[&arguments[..], &["--sources"]].concat(),
    )
    .await;
    assert_eq!((told.code(), told.stderr.as_str()), (Some(0), ""));
    let config_name = config.to_str().unwrap();
    let cert = format!("{:?}", files.cert.cert_path());
    for expected in [
        ["CertFile", &cert, config_name],
        ["KeepAlive", "2", beside.to_str().unwrap()],
        ["SslPort", "8443", "FLEXVDI_GATEWAY_SSL_PORT"],
        ["BanTime", "3", "--set"],
        ["ManagerIP", "\"manager.example\"", "--set"],
        ["CloseTimeout", "5", "default"],
    ] {
        assert_eq!(line(&told, expected[0]), expected);
    }
    // Without the table it is a configuration file, with the same values.
    let shown = check(&config, &[SSL_PORT], &arguments).await;
    let values: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(
        (&values["KeepAlive"], &values["SslPort"], &values["BanTime"]),
        (&json!(2), &json!(8443), &json!(3))
    );
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place() {
    let files = Files::new();
    let config = files.config(&json!({}));
    let wrong = drop_in(&config, "a.conf", &json!({"KeepAlive": -1}));
    let environment = [
        ("FLEXVDI_GATEWAY_SSL_PORT", "https"),
        ("FLEXVDI_GATEWAY_MANGER_IP", "hunter2"),
        ("FLEXVDI_GATEWAY_SERVICE_HOST", "10.96.0.7"),
    ];
    let told = check(&config, &environment, &["--set", "HijackAll=no"]).await;
    assert_eq!((told.code(), told.stdout.as_str()), (Some(78), ""));
    for expected in [
        format!("{}: KeepAlive: expected whole seconds", wrong.display()),
        "FLEXVDI_GATEWAY_SSL_PORT: SslPort: expected a port number".to_owned(),
        "FLEXVDI_GATEWAY_MANGER_IP: there is no such key; did you mean \
         FLEXVDI_GATEWAY_MANAGER_IP?"
            .to_owned(),
        "--set: HijackAll: expected true or false, found \"no\"".to_owned(),
    ] {
        assert!(told.stderr.contains(&expected), "{}", told.stderr);
    }
    assert_eq!(told.stderr.lines().count(), 4, "{}", told.stderr);
    assert!(!told.stderr.contains("hunter2"));

    std::fs::write(&wrong, "{\n\"KeepAlive\": }").unwrap();
    let told = check(&config, &[], &[]).await;
    assert_eq!(told.code(), Some(78));
    let expected = format!("{}: line 2, column 14: ", wrong.display());
    assert!(told.stderr.contains(&expected), "{}", told.stderr);
}

#[tokio::test]
async fn arguments_that_set_nothing_are_a_wrong_command_line() {
    let files = Files::new();
    let config = files.config(&json!({}));
    for (argument, expected) in [
        (
            "SSLPort=1",
            "there is no key \"SSLPort\"; did you mean SslPort?",
        ),
        ("SslPort", "expected KEY=VALUE, such as SslPort=8443"),
    ] {
        let told = check(&config, &[], &["--set", argument]).await;
        assert_eq!(told.code(), Some(2));
        assert!(told.stderr.contains(expected), "{}", told.stderr);
    }
    // On both sides of the command's name, one side would be lost.
    let arguments = ["--set", "BanTime=1", "check", "--set", "KeepAlive=2"];
    let told = run_in(&[], arguments).await;
    assert_eq!(told.code(), Some(2), "{}", told.stderr);
    assert!(told.stderr.contains("--set"), "{}", told.stderr);
}

#[tokio::test]
async fn a_file_may_be_missing_where_something_else_says_what_to_do() {
    let files = Files::new();
    let config = files.dir.path().join("missing.conf");
    let told = check(&config, &[], &[]).await;
    assert_eq!(told.code(), Some(78));
    assert!(told.stderr.contains("missing.conf: No such file"));

    let cert = files.cert.cert_path().display().to_string();
    let key = format!("KeyFile={}", files.cert.key_path().display());
    let run_dir = format!("RuntimeDir={}", files.dir.path().join("run").display());
    let environment = [("FLEXVDI_GATEWAY_CERT_FILE", &*cert)];
    let arguments = ["--set", &key, "--set", &run_dir];
    let told = check(&config, &environment, &arguments).await;
    assert_eq!((told.code(), told.stderr.as_str()), (Some(0), ""));

    drop_in(
        &config,
        "a.conf",
        &json!({"KeyFile": files.cert.key_path(), "CertFile": cert}),
    );
    let told = check(&config, &[], &[]).await;
    assert_eq!((told.code(), told.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_reload_sees_files_that_are_new_changed_and_gone() {
    let gateway = port_gateway()
        .set("KeepAlive", 1)
        .env("FLEXVDI_GATEWAY_BAN_TIME", "40")
        .arg("--set")
        .arg("MaxUriSize=1000")
        .spawn()
        .await
        .unwrap();
    let config = gateway.config_path();
    // What the environment and the command line say stays.
    let content = |keep_alive| json!({"KeepAlive": keep_alive, "BanTime": 50, "MaxUriSize": 2000, "CloseTimeout": 7});
    drop_in(config, "a.conf", &content(2));
    let told = hang_up(&gateway).await;
    assert!(
        told.contains("changed=\"KeepAlive 1 -> 2; CloseTimeout 5 -> 7\""),
        "{told}"
    );
    let path = drop_in(config, "a.conf", &content(3));
    let told = hang_up(&gateway).await;
    assert!(told.contains("changed=\"KeepAlive 2 -> 3\""), "{told}");

    let other = drop_in(config, "b.conf", &json!({"KeepAlive": "never"}));
    let told = hang_up(&gateway).await;
    let place = format!("{}: KeepAlive: expected", other.display());
    assert!(
        told.contains("ERROR not reloaded") && told.contains(&place),
        "{told}"
    );
    std::fs::remove_file(other).unwrap();
    std::fs::remove_file(path).unwrap();
    let told = hang_up(&gateway).await;
    assert!(
        told.contains("changed=\"KeepAlive 3 -> 1; CloseTimeout 7 -> 5\""),
        "{told}"
    );

    // A configuration file that is gone is a mistake, whatever else there is.
    std::fs::remove_file(config).unwrap();
    let told = hang_up(&gateway).await;
    assert!(told.contains("No such file"), "{told}");
}

#[tokio::test]
async fn commands_find_the_gateway_by_the_same_rules() {
    let files = Files::new();
    let directory = files.dir.path().join("elsewhere").display().to_string();
    let gateway = port_gateway()
        .env("FLEXVDI_GATEWAY_RUNTIME_DIR", &directory)
        .spawn()
        .await
        .unwrap();
    let config = gateway.config_path().to_str().unwrap();
    let status = ["--config", config, "status"];
    let told = run_in(&[], status).await;
    assert_eq!(told.code(), Some(1), "{}", told.stdout);
    let environment = [("FLEXVDI_GATEWAY_RUNTIME_DIR", &*directory)];
    let told = run_in(&environment, status).await;
    assert_eq!(told.code(), Some(0), "{}", told.stderr);
    let set = format!("RuntimeDir={directory}");
    let told = run_in(&[], ["--config", config, "status", "--set", &set]).await;
    assert_eq!(told.code(), Some(0), "{}", told.stderr);
    drop_in(
        gateway.config_path(),
        "a.conf",
        &json!({"RuntimeDir": directory}),
    );
    let told = run_in(&[], status).await;
    assert_eq!(told.code(), Some(0), "{}", told.stderr);
}

/// The program that is started next is asked whether it can start, with the same arguments.
#[tokio::test]
async fn the_next_process_reads_the_same() {
    let files = Files::new();
    let manager = Notified::new();
    let mut gateway = port_gateway()
        .set("CertFile", "/nonexistent/certificate")
        .set("KeyFile", "/nonexistent/key")
        .env("NOTIFY_SOCKET", &manager.path)
        .env("FLEXVDI_GATEWAY_KEY_FILE", files.cert.key_path())
        .arg("--set")
        .arg(format!("CertFile={}", files.cert.cert_path().display()))
        .spawn()
        .await
        .unwrap();
    gateway.signal(Signal::USR2).unwrap();
    // It can, so the channels are handed to the service manager, whose stand-in keeps nothing.
    let told = logged(&gateway, &["they cannot be kept for the next process"]).await;
    assert!(
        told.contains("the service manager does not answer"),
        "{told}"
    );
    assert!(gateway.wait().await.unwrap().success());
}
