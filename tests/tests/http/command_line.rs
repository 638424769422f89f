//! The command line: `check`, exit codes and help.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use testkit::gateway::gateway_binary;
use testkit::prelude::*;
use tokio::net::TcpListener;
use tokio::process::Command;

/// What a process that ended left behind.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Runs the gateway until it ends by itself.
pub(crate) async fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    run_in(&[], args).await
}

/// The same with these environment variables.
pub(crate) async fn run_in<S: AsRef<std::ffi::OsStr>>(
    environment: &[(&str, &str)],
    args: impl IntoIterator<Item = S>,
) -> Ended {
    let child = Command::new(gateway_binary().unwrap())
        .args(args)
        .envs(environment.iter().copied())
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = within("end of the gateway", child.wait_with_output()).await;
    let output = output.unwrap().unwrap();
    Ended {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory for a configuration file, and a certificate that it may name.
pub(crate) struct Files {
    pub(crate) dir: TempDir,
    pub(crate) cert: TestCert,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::with_prefix("testkit-config-").unwrap(),
            cert: TestCert::new().unwrap(),
        }
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A configuration that is right but for these values.
    pub(crate) fn config(&self, values: &Value) -> PathBuf {
        let mut config = json!({
            "CertFile": self.cert.cert_path(),
            "KeyFile": self.cert.key_path(),
            // One gateway at a time has it, and tests run side by side.
            "RuntimeDir": self.dir.path().join("run"),
        });
        let members = config.as_object_mut().unwrap();
        members.extend(values.as_object().unwrap().clone());
        self.write("gateway.conf", config.to_string())
    }
}

pub(crate) async fn check(config: &Path) -> Ended {
    run([Path::new("check"), Path::new("--config"), config]).await
}

#[tokio::test]
async fn check_prints_what_is_in_effect() {
    let files = Files::new();
    let config = files.config(&json!({
        "ManagerIP": "manager.example",
        "KeepAlive": 30,
        "TrustedProxies": ["10.0.0.0/8"],
    }));
    let ended = check(&config).await;
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let shown: Map<String, Value> = serde_json::from_str(&ended.stdout).unwrap();
    for (key, value) in [
        ("ManagerIP", json!("manager.example")),
        ("KeepAlive", json!(30)),
        ("TrustedProxies", json!(["10.0.0.0/8"])),
        ("CertFile", json!(files.cert.cert_path())),
        ("SslPort", json!(443)),
        ("HijackAll", json!(true)),
        ("FirstSpicePort", json!(5900)),
        ("LastSpicePort", json!(25900)),
        ("TicketTimeout", json!(120)),
        ("MaxConnections", json!(20_000)),
        ("Debug", json!(false)),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    // What is shown is a configuration file itself.
    let again = check(&files.write("again.conf", &ended.stdout)).await;
    assert_eq!((again.code(), again.stdout), (Some(0), ended.stdout));
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let files = Files::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let values = json!({"ListenAddress": "127.0.0.1", "SslPort": port});
    let ended = run([Path::new("--config"), &files.config(&values)]).await;
    assert_eq!(ended.code(), Some(1));
    let expected = format!("cannot listen on port {port} (SslPort): Address already in use");
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    // The check opens no port.
    assert_eq!(check(&files.config(&values)).await.code(), Some(0));
}

#[tokio::test]
async fn the_command_line_explains_itself() {
    let help = run(["--help"]).await;
    assert_eq!(help.code(), Some(0));
    for text in ["--config", "check", "/etc/flexvdi/flexvdi-gateway.conf"] {
        assert!(help.stdout.contains(text), "{}", help.stdout);
    }
    let version = run(["--version"]).await;
    assert!(
        version.stdout.starts_with("flexvdi-gateway "),
        "{}",
        version.stdout
    );
    assert_eq!(run(["--no-such-option"]).await.code(), Some(2));
}

#[tokio::test]
async fn the_schema_of_the_configuration_is_printed() {
    let shipped = include_str!("../../../packaging/flexvdi-gateway.schema.json");
    let shipped: Value = serde_json::from_str(shipped).unwrap();
    for arguments in [&["schema"][..], &["schema", "configuration"]] {
        let ended = run(arguments).await;
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
        let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(printed, shipped);
    }
    // A file may name it.
    let files = Files::new();
    let schema = "/usr/share/doc/flexvdi-gateway/flexvdi-gateway.schema.json";
    let checked = check(&files.config(&json!({ "$schema": schema }))).await;
    assert_eq!((checked.code(), checked.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_pools_keys_are_made_added_and_checked() {
    let files = Files::new();
    let printed = run(["pool-key"]).await;
    assert_eq!((printed.code(), printed.stderr.as_str()), (Some(0), ""));
    let keys = files.write("printed.keys", &printed.stdout);
    let config = |path: &Path| files.config(&json!({ "PoolKeyFile": path }));
    let checked = check(&config(&keys)).await;
    assert_eq!(checked.code(), Some(0));
    // What the shell made of it, everybody may read.
    assert!(checked.stderr.contains("warning: PoolKeyFile: "));
    let secret = printed.stdout.rsplit("key ").next().unwrap().trim();
    assert_eq!(secret.len(), 43);
    for shown in [checked.stdout, checked.stderr] {
        assert!(!shown.contains(secret));
    }

    let made = files.dir.path().join("made.keys");
    for count in 1..=2 {
        let ended = run([Path::new("pool-key"), &made]).await;
        assert_eq!((ended.code(), ended.stdout.as_str()), (Some(0), ""));
        let text = std::fs::read_to_string(&made).unwrap();
        assert_eq!(text.matches("\nkey ").count(), count);
        let checked = check(&config(&made)).await;
        assert_eq!((checked.code(), checked.stderr.as_str()), (Some(0), ""));
    }

    let wrong = files.write("wrong.keys", printed.stdout.replace("key ", "kex "));
    let ended = check(&config(&wrong)).await;
    assert_eq!(ended.code(), Some(78));
    assert!(ended.stderr.contains("PoolKeyFile"), "{}", ended.stderr);
    assert!(!ended.stderr.contains(secret));
    let missing = check(&config(Path::new("/nonexistent"))).await;
    assert_eq!(missing.code(), Some(78));
    let ended = run([Path::new("pool-key"), &wrong]).await;
    assert_eq!(ended.code(), Some(1));
}

#[tokio::test]
async fn a_portals_keys_are_checked() {
    let files = Files::new();
    let portal = testkit::portal::Portal::new().unwrap();
    let config = |path: &Path| files.config(&json!({ "TicketPublicKeys": path }));
    let checked = check(&config(&portal.file())).await;
    assert_eq!((checked.code(), checked.stderr.as_str()), (Some(0), ""));
    let mode = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(portal.file(), mode).unwrap();
    let checked = check(&config(&portal.file())).await;
    assert_eq!(checked.code(), Some(0));
    assert!(checked.stderr.contains("warning: TicketPublicKeys: "));
    for text in ["nonsense", r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#] {
        let ended = check(&config(&files.write("wrong", text))).await;
        assert_eq!(ended.code(), Some(78));
        assert!(
            ended.stderr.contains("wrong: TicketPublicKeys: "),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("c2Vj"));
    }
    assert_eq!(
        check(&config(Path::new("/nonexistent"))).await.code(),
        Some(78)
    );
}
