//! `flexvdi-gateway setup`: with questions, with options, and what it leaves when it fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::command::find_program;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::gateway_binary;
use testkit::prelude::*;
use testkit::terminal::{CTRL_C, Terminal};
use tokio::process::Command;

use crate::command_line::{Ended, run};
use crate::support::assert_opens;

/// A group that every Debian has.
const GROUP: &str = "daemon";

/// A folder for everything that is written.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::with_prefix("testkit-setup-").unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn config(&self) -> PathBuf {
        self.path("gateway.conf")
    }

    fn write(&self, name: &str, content: &str) -> String {
        fs::write(self.path(name), content).unwrap();
        self.text(name)
    }

    /// What is in it, by name.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    async fn setup(&self, options: &[&str]) -> Ended {
        let config = self.config();
        let command = ["--config", config.to_str().unwrap(), "setup"];
        run([&command[..], options].concat()).await
    }

    async fn check(&self) -> Ended {
        run(["check", "--config", self.config().to_str().unwrap()]).await
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A setup on a terminal.
fn start(place: &Place, options: &[&str]) -> Terminal {
    let line = format!(
        "{} --config {} setup {}",
        gateway_binary().unwrap().display(),
        place.config().display(),
        options.join(" ")
    );
    Terminal::start(&line).unwrap()
}

/// A gateway with the configuration that was written, but on a free port.
async fn gateway(place: &Place) -> Gateway {
    let text = fs::read_to_string(place.config()).unwrap();
    let sets = [
        "ListenAddress=127.0.0.1".to_owned(),
        "SslPort=0".to_owned(),
        "FirstSpicePort=1".to_owned(),
        "LastSpicePort=65535".to_owned(),
        format!("RuntimeDir={}", place.text("run")),
    ];
    let mut builder = Gateway::builder().config_text(text);
    for set in sets {
        builder = builder.arg("--set").arg(set);
    }
    builder.spawn().await.unwrap()
}

#[tokio::test]
async fn wrong_answers_on_a_terminal_are_asked_for_again() {
    let place = Place::new();
    let host = Host::echo().await.unwrap();
    let address = host.addr().to_string();
    let mut asking = start(&place, &["--group", GROUP]);
    // Each answer, and what is said to it if it is wrong.
    for (question, answer, complaint) in [
        (
            "Names and addresses",
            "https://localhost",
            "neither an IP address nor a DNS name",
        ),
        ("Names and addresses", "localhost, 127.0.0.1", ""),
        ("Number [1]: ", "3", "expected a number from 1 to 2"),
        ("Number [1]: ", "", ""),
        ("File of desktops", "", ""),
        (
            "HOST:PORT [127.0.0.1:5900]: ",
            "127.0.0.1",
            "expected HOST:PORT",
        ),
        ("HOST:PORT [127.0.0.1:5900]: ", &address, ""),
        ("Password of that Spice server", "spice secret", ""),
        ("Name of the first user", "", ""),
        ("Name of the first user: ", "ana", ""),
        ("Password for ana: ", "user secret", ""),
        ("Again: ", "another", "not the same"),
        ("Password for ana: ", "user secret", ""),
        ("Again: ", "user secret", ""),
        // Files that are not there yet.
        ("Number [1]: ", "1", ""),
        ("certificate and its chain", "", "No such file"),
    ] {
        asking.answer(question, answer).await.unwrap();
        if !complaint.is_empty() {
            asking.asks(complaint).await.unwrap();
        }
    }
    asking.type_in(CTRL_C).await.unwrap();
    let (code, said) = asking.end().await.unwrap();
    assert_ne!(code, Some(0), "{said}");
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[tokio::test]
async fn answers_on_a_terminal_lead_to_a_desktop() {
    let place = Place::new();
    let host = Host::echo().await.unwrap();
    let address = host.addr().to_string();
    let options = [
        "--group",
        GROUP,
        "--name",
        "localhost,127.0.0.1",
        "--desktop",
        &address,
    ];
    let desktops = place.text("desktops.json");
    let mut asking = start(&place, &[&options[..], &["--desktops", &desktops]].concat());
    let answers = [
        ("Name of the first user: ", "ana"),
        ("Password for ana: ", "user secret"),
        ("Again: ", "user secret"),
        ("Number [1]: ", "2"),
    ];
    asking.answer_all(&answers).await.unwrap();
    if Path::new(testkit::packages::SPICE_HTML5).is_dir() {
        asking
            .answer("Show browsers a page", "perhaps")
            .await
            .unwrap();
        asking.asks("expected yes or no").await.unwrap();
        asking.answer("Show browsers a page", "n").await.unwrap();
    }
    let (code, said) = asking.end().await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("The configuration is right"), "{said}");
    assert!(said.contains("The certificate signs itself"), "{said}");
    assert!(!said.contains("user secret"), "{said}");
    assert_eq!(
        place.names(),
        [
            "desktops.json",
            "gateway.conf",
            "gateway.key",
            "gateway.pem"
        ]
    );
    assert_eq!(
        place.json("gateway.conf"),
        json!({
            "ExternalName": "localhost",
            "Desktops": desktops,
            "AllowedHosts": ["127.0.0.1"],
            "CertFile": place.text("gateway.pem"),
            "KeyFile": place.text("gateway.key"),
            "KeepAlive": 30,
        })
    );
    let checked = place.check().await;
    assert_eq!((checked.code(), checked.stderr.as_str()), (Some(0), ""));

    let gateway = gateway(&place).await;
    let client = FlexVdiClient::new(&gateway.tls()).login("ana", "user secret");
    let desktop = client.desktop().await.unwrap();
    assert_eq!((&*desktop.address, &*desktop.password), ("localhost", ""));
    assert_opens(&gateway.tls(), &desktop.token).await;
}

#[tokio::test]
async fn options_are_enough_and_files_that_are_there_stay() {
    let place = Place::new();
    let cert = TestCert::new().unwrap();
    let (cert_path, key_path) = (cert.cert_path(), cert.key_path());
    let before = r#"{"ManagerIP": "old.example", "BanTime": 7}"#;
    place.write("gateway.conf", before);
    let password = place.write("password", "user secret\n");
    let spice_password = place.write("spice", "spice secret\n");
    let desktops = place.text("desktops.json");
    let options = [
        "--yes",
        "--name=localhost",
        "--desktop=127.0.0.1:5900",
        "--user=ana",
        "--desktops",
        &desktops,
        "--password-file",
        &password,
        "--spice-password-file",
        &spice_password,
        "--cert",
        cert_path.to_str().unwrap(),
        "--key",
        key_path.to_str().unwrap(),
        "--group",
        GROUP,
    ];
    let ended = place.setup(&options).await;
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("gateway.conf.d/50-setup.conf"));
    assert!(!ended.stdout.contains("secret"), "{}", ended.stdout);
    assert_eq!(fs::read_to_string(place.config()).unwrap(), before);
    let written = place.json("desktops.json");
    assert_eq!(written["desktops"][0]["password"], "spice secret");
    // Of root's files the service's group may read what others may not.
    let secret = if testkit::packages::is_root() {
        0o640
    } else {
        0o600
    };
    assert_eq!(mode(&place.path("desktops.json")), secret);
    assert_eq!(mode(&place.path("gateway.conf.d/50-setup.conf")), 0o644);
    let checked = place.check().await;
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
    let effective: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(
        (
            &effective["ManagerIP"],
            &effective["BanTime"],
            &effective["KeepAlive"]
        ),
        (&json!(""), &json!(7), &json!(30))
    );

    // Once more there is nothing to do.
    let names = place.names();
    let ended = place.setup(&options).await;
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.stderr.contains("50-setup.conf exists already"),
        "{}",
        ended.stderr
    );
    assert_eq!(place.names(), names);
}

#[tokio::test]
async fn without_a_terminal_what_is_missing_is_told() {
    let place = Place::new();
    let ended = place.setup(&["--name", "vdi.example.com"]).await;
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(2), ""));
    for missing in [
        "--manager HOST or --desktops FILE",
        "--cert FILE with --key FILE",
    ] {
        assert!(ended.stderr.contains(missing), "{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("--name NAMES"), "{}", ended.stderr);
    let wrong = ["--name=a/b", "--manager=https://m", "--desktop=127.0.0.1"];
    for option in wrong {
        let ended = place.setup(&[option, "--desktops=d"]).await;
        assert_eq!(ended.code(), Some(2), "{option}");
    }
    assert!(place.names().is_empty());
}

#[tokio::test]
async fn what_would_be_wrong_is_not_written() {
    let place = Place::new();
    let (cert, other) = (TestCert::new().unwrap(), TestCert::new().unwrap());
    let (cert_path, key_path) = (cert.cert_path(), cert.key_path());
    let [cert_path, key_path, other] =
        [&cert_path, &key_path, &other.key_path()].map(|path| path.display().to_string());
    let manager = ["--yes", "--manager", "manager.example"];
    for (options, expected) in [
        (
            [
                "--name=vdi.example.com",
                "--cert",
                &cert_path,
                "--key",
                &key_path,
            ],
            "and not for vdi.example.com",
        ),
        (
            ["--name=localhost", "--cert", &cert_path, "--key", &other],
            "it is that of another one",
        ),
        (
            [
                "--name=localhost",
                "--cert",
                &cert_path,
                "--key",
                "/nonexistent",
            ],
            "No such file",
        ),
    ] {
        let ended = place.setup(&[&manager[..], &options].concat()).await;
        assert_eq!(ended.code(), Some(1));
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        assert!(place.names().is_empty());
    }

    // Together with what is there it is wrong.
    place.write("gateway.conf", r#"{"HijackAll": false}"#);
    let password = place.write("password", "secret");
    let desktops = place.text("new/desktops.json");
    let options = [
        "--yes",
        "--name=localhost",
        "--desktop=127.0.0.1:5900",
        "--user=ana",
        "--self-signed",
        "--desktops",
        &desktops,
        "--password-file",
        &password,
    ];
    let ended = place.setup(&options).await;
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.stderr.contains("nothing was written") && ended.stderr.contains("HijackAll is false"),
        "{}",
        ended.stderr
    );
    assert_eq!(place.names(), ["gateway.conf", "password"]);
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_full_disk_leaves_nothing_behind() {
    let place = Place::new();
    let line = format!(
        "mount -t tmpfs -o size=4k none {folder} || exit 99
         {gateway} --config {folder}/gateway.conf setup --yes --self-signed --name=localhost \
             --manager=manager.example
         code=$?
         ls -A {folder}
         exit $code",
        folder = place.0.path().display(),
        gateway = gateway_binary().unwrap().display(),
    );
    let unshare = find_program("unshare").expect("as root: apt-get install -y util-linux");
    let ended = Command::new(unshare)
        .args(["--mount", "sh", "-c", &line])
        .stdin(Stdio::null())
        .output();
    let ended = within("the end", ended).await.unwrap().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "");
}
