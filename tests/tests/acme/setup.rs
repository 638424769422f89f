//! `flexvdi-gateway setup` with an authority: from nothing to a certificate and a desktop.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use http::Response;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::gateway_binary;
use testkit::manager::full;
use testkit::prelude::*;
use testkit::terminal::Terminal;
use tokio::process::Command;

use crate::support::{IN_USE, NAME, Scene, logged};

/// A folder for everything that is written.
struct Place(TempDir);

impl Place {
    /// With a file of the user's password.
    fn new() -> Self {
        let place = Self(TempDir::with_prefix("testkit-setup-").unwrap());
        std::fs::write(place.path("password"), "user secret\n").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The options but for those of the certificate.
    fn options<T: Send + 'static>(&self, host: &Host<T>) -> Vec<String> {
        let mut options = vec![
            format!("--name={NAME},127.0.0.1"),
            format!("--desktop={}", host.addr()),
            "--user=ana".to_owned(),
        ];
        for (option, name) in [
            ("--desktops", "desktops.json"),
            ("--password-file", "password"),
        ] {
            options.push(format!("{option}={}", self.text(name)));
        }
        options
    }

    async fn setup(&self, options: &[String]) -> Output {
        let ended = Command::new(gateway_binary().unwrap())
            .arg("--config")
            .arg(self.path("gateway.conf"))
            .args(["setup", "--yes"])
            .args(options)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        within("the end of setup", ended).await.unwrap().unwrap()
    }

    fn written(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        Path::new(&self.path(name)).exists()
    }

    /// Starts the gateway with what was written, but for the port that the authority checks.
    async fn gateway(&self, port: u16) -> Gateway {
        let text = std::fs::read_to_string(self.path("gateway.conf")).unwrap();
        let mut builder = Gateway::builder().config_text(text);
        for set in [
            "ListenAddress=127.0.0.1".to_owned(),
            format!("SslPort={port}"),
            "FirstSpicePort=1".to_owned(),
            "LastSpicePort=65535".to_owned(),
            format!("RuntimeDir={}", self.text("run")),
            format!("StateDirectory={}", self.text("state")),
        ] {
            builder = builder.arg("--set").arg(set);
        }
        builder.spawn().await.unwrap()
    }
}

/// The options for a certificate from this authority.
fn of_authority(scene: &Scene) -> Vec<String> {
    let settings = scene.pebble.settings(&[]);
    let text = |member: &str| settings[member].as_str().unwrap();
    vec![
        "--acme".to_owned(),
        "--acme-agree-to-terms".to_owned(),
        "--acme-contact=admin@example.com".to_owned(),
        format!("--acme-directory={}", text("Directory")),
        format!("--acme-directory-ca={}", text("DirectoryCAFile")),
    ]
}

fn code_and_errors(ended: &Output) -> (Option<i32>, String) {
    let errors = String::from_utf8_lossy(&ended.stderr);
    (ended.status.code(), errors.into_owned())
}

#[tokio::test]
async fn two_commands_lead_from_nothing_to_a_certificate_and_a_desktop() {
    let (scene, place) = (Scene::new().await, Place::new());
    let host = Host::echo().await.unwrap();
    let options = [place.options(&host), of_authority(&scene)].concat();
    let ended = place.setup(&options).await;
    let (code, errors) = code_and_errors(&ended);
    assert_eq!(code, Some(0), "{errors}");
    // The address stays a name by which clients may come.
    assert!(errors.contains("not be for 127.0.0.1"), "{errors}");
    assert!(!errors.contains("cannot be reached"), "{errors}");
    let said = String::from_utf8_lossy(&ended.stdout);
    for text in [
        "port 443 of each name",
        "mailto:admin@example.com",
        "status",
    ] {
        assert!(said.contains(text), "{said}");
    }
    assert_eq!(
        place.written("gateway.conf")["Acme"],
        scene.pebble.settings(&[NAME])
    );

    let gateway = place.gateway(scene.port).await;
    logged(&gateway, &[IN_USE]).await;
    // Clients that trust the authority and nobody else.
    let clients = scene.clients(&gateway).await;
    let client = FlexVdiClient::new(&clients).login("ana", "user secret");
    let desktop = client.desktop().await.unwrap();
    let mut channel = client.open(&desktop).await.unwrap();
    channel
        .echo(&link_message(ChannelType::Main, 0))
        .await
        .unwrap();
}

#[tokio::test]
async fn who_is_asked_is_told_the_terms_and_has_to_agree() {
    let (scene, place) = (Scene::new().await, Place::new());
    let host = Host::echo().await.unwrap();
    let settings = scene.pebble.settings(&[]);
    let line = format!(
        "{} --config {} setup {}",
        gateway_binary().unwrap().display(),
        place.text("gateway.conf"),
        place.options(&host).join(" ")
    );
    let text = |name: &str| settings[name].as_str().unwrap();
    let mut asking = Terminal::start(&line).unwrap();
    for answer in ["", "no", "yes"] {
        let answers = [
            ("Number [1]: ", "3"),
            ("Directory of the authority", text("Directory")),
            ("PEM file with who", text("DirectoryCAFile")),
            ("Address of mail", "admin@example.com"),
            ("Number [1]: ", "1"),
        ];
        asking.answer_all(&answers).await.unwrap();
        // pebble's own are no page.
        asking.asks("(those of 127.0.0.1)").await.unwrap();
        asking.answer("do you agree?", answer).await.unwrap();
        if answer.is_empty() {
            asking.asks("expected yes or no").await.unwrap();
            asking.answer("do you agree?", "no").await.unwrap();
        }
        if answer != "yes" {
            asking.asks("who do not agree to its terms").await.unwrap();
        }
    }
    if Path::new(testkit::packages::SPICE_HTML5).is_dir() {
        asking.answer("Show browsers a page", "no").await.unwrap();
    }
    let (code, said) = asking.end().await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        place.written("gateway.conf")["Acme"],
        scene.pebble.settings(&[NAME])
    );
}

#[tokio::test]
async fn what_cannot_work_is_told_and_not_written() {
    let (scene, place) = (Scene::new().await, Place::new());
    let host = Host::echo().await.unwrap();
    // Not an authority, and one that wants an account of its own.
    let page = Manager::with_handler(|_| async { Response::new(full("{}")) });
    let page = page.await.unwrap();
    let account = Manager::with_handler(|_| async {
        let directory = json!({
            "newNonce": "https://ca.example/n", "newAccount": "https://ca.example/a",
            "newOrder": "https://ca.example/o", "meta": {"externalAccountRequired": true},
        });
        Response::new(full(directory.to_string()))
    });
    let account = account.await.unwrap();
    let of = |manager: &Manager| {
        vec![
            "--acme".to_owned(),
            "--acme-agree-to-terms".to_owned(),
            format!("--acme-directory=https://{}/dir", manager.addr()),
            format!("--acme-directory-ca={}", manager.cert().ca_path().display()),
        ]
    };
    for (options, expected) in [
        (of(&page), "is no directory of an authority"),
        (of(&account), "externalAccountRequired"),
        (
            [
                of_authority(&scene),
                vec!["--acme-http-port=443".to_owned()],
            ]
            .concat(),
            "HttpPort to be another port than SslPort",
        ),
        (
            [
                of_authority(&scene),
                vec!["--acme-contact=nobody".to_owned()],
            ]
            .concat(),
            "Contact",
        ),
    ] {
        let ended = place.setup(&[place.options(&host), options].concat()).await;
        let (code, errors) = code_and_errors(&ended);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(expected), "{errors}");
        assert!(!place.has("gateway.conf") && !place.has("desktops.json"));
    }
}

#[tokio::test]
async fn an_authority_out_of_reach_is_told_and_the_rest_is_written() {
    let (mut scene, place) = (Scene::new().await, Place::new());
    let host = Host::echo().await.unwrap();
    // What the packages' configuration says of files is overridden.
    std::fs::write(
        place.path("gateway.conf"),
        json!({"CertFile": "/etc/flexvdi/gateway.pem", "KeyFile": "/etc/flexvdi/gateway.key"})
            .to_string(),
    )
    .unwrap();
    scene.pebble.stop().await.unwrap();
    let options = [place.options(&host), of_authority(&scene)].concat();
    let ended = place.setup(&options).await;
    let (code, errors) = code_and_errors(&ended);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        errors.contains("the authority cannot be reached"),
        "{errors}"
    );
    let written = place.written("gateway.conf.d/50-setup.conf");
    assert_eq!(written["Acme"], scene.pebble.settings(&[NAME]));
    let checked = Command::new(gateway_binary().unwrap())
        .args(["check", "--config"])
        .arg(place.path("gateway.conf"))
        .output();
    let checked = within("the end of check", checked).await.unwrap().unwrap();
    assert_eq!(code_and_errors(&checked).0, Some(0), "{checked:?}");
}
