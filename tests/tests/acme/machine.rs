//! What may be wrong on the gateway's own machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use testkit::gateway::{Signal, unused_user};
use testkit::packages::{self, Package};

use crate::support::{FAILED, GIVEN, IN_USE, ORDERING, Relay, Scene, logged, shown};

#[tokio::test]
async fn an_account_that_is_damaged_is_set_aside() {
    let scene = Scene::new().await;
    for damage in ["", "{\"half\": ", "{\"directory\": \"https://127.0.0.1/\"}"] {
        let state = tempfile::tempdir().unwrap();
        let mut gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
        logged(&gateway, &[IN_USE]).await;
        assert!(gateway.terminate().await.unwrap().success());
        let account = account(state.path());
        std::fs::write(&account, damage).unwrap();
        std::fs::remove_file(state.path().join("acme/certificate.pem")).unwrap();
        let gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
        let text = "the account at the authority cannot be used: another one is registered";
        logged(&gateway, &["WARN", text, "it holds no account"]).await;
        logged(&gateway, &[IN_USE]).await;
        let aside = format!("{}.old", account.display());
        assert_eq!(std::fs::read_to_string(aside).unwrap(), damage);
    }
}

/// The file with the account.
fn account(state: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(state.join("acme")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let is_account = |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "json");
    paths.find(is_account).unwrap()
}

#[tokio::test]
async fn a_certificate_that_is_damaged_is_ordered_anew() {
    let scene = Scene::new().await;
    let state = tempfile::tempdir().unwrap();
    let mut gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    logged(&gateway, &[IN_USE]).await;
    assert!(gateway.terminate().await.unwrap().success());
    let file = state.path().join("acme/certificate.pem");
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    logged(
        &gateway,
        &["WARN", "Acme: expected a PEM file", "it is ordered anew"],
    )
    .await;
    logged(&gateway, &[IN_USE]).await;
    shown(&scene.clients(&gateway).await).await;
}

/// Mounts a file system of its own on a directory, until it is dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path());
        assert!(mount.status().unwrap().success(), "run the tests as root");
        Self(dir)
    }

    fn change(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(self.0.path());
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: mounts file systems")]
async fn nothing_is_ordered_that_cannot_be_kept() {
    let scene = Scene::new().await;
    // Full but for less than a certificate needs, and read-only.
    for (options, better, reason) in [
        (
            "size=16k,mode=700",
            "remount,size=1m",
            "No space left on device",
        ),
        ("ro,mode=700", "remount,rw", "Read-only file system"),
    ] {
        let mount = Mount::new(options);
        let orders = scene.pebble.orders().unwrap();
        let gateway = scene.gateway_in(mount.0.path()).spawn().await.unwrap();
        let told = logged(&gateway, &["ERROR", FAILED]).await;
        assert!(told.contains(reason), "{told}");
        assert!(told.contains("make room in StateDirectory"), "{told}");
        assert_eq!(scene.pebble.orders().unwrap(), orders);
        mount.change(better);
        gateway.signal(Signal::HUP).unwrap();
        logged(&gateway, &[IN_USE]).await;
    }
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: starts a gateway as another user")]
async fn a_directory_of_others_is_not_written_to() {
    let scene = Scene::new().await;
    let state = tempfile::tempdir().unwrap();
    let gateway = scene.gateway_in(state.path()).user(unused_user());
    let gateway = gateway.spawn().await.unwrap();
    let told = logged(&gateway, &["ERROR", FAILED]).await;
    assert!(told.contains("Permission denied"), "{told}");
    let open = tempfile::tempdir().unwrap();
    let acme = open.path().join("acme");
    std::fs::create_dir(&acme).unwrap();
    std::fs::set_permissions(&acme, std::fs::Permissions::from_mode(0o777)).unwrap();
    let gateway = scene
        .gateway_in(open.path())
        .set("SslPort", 0)
        .spawn()
        .await
        .unwrap();
    let told = logged(&gateway, &["ERROR", FAILED]).await;
    assert!(told.contains("its owner alone may write to"), "{told}");
    assert_eq!(scene.pebble.orders().unwrap(), 0);
}

#[tokio::test]
async fn sigterm_during_an_order_ends_the_gateway_and_the_next_one_gets_the_certificate() {
    let (relay, scene) = Relay::new().await;
    let state = tempfile::tempdir().unwrap();
    let mut gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    logged(&gateway, &["registered at the authority"]).await;
    // The authority has begun to check the name, and gets no further.
    let checking = relay.next().await;
    scene.pebble.signal(Signal::STOP).unwrap();
    assert_eq!(gateway.count_logged(GIVEN).await, 0);
    assert!(gateway.terminate().await.unwrap().success());
    drop(checking);
    scene.pebble.signal(Signal::CONT).unwrap();
    let gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    tokio::select! {
        _ = logged(&gateway, &[IN_USE]) => {}
        () = relay.relay_all() => {}
    }
    assert_eq!(gateway.count_logged("registered at the authority").await, 0);
    shown(&scene.clients(&gateway).await).await;
}

#[tokio::test]
async fn a_clock_that_is_far_ahead_orders_nothing() {
    tokio::task::spawn_blocking(|| packages::ensure(&[Package::Faketime]))
        .await
        .unwrap()
        .unwrap();
    let scene = Scene::new().await;
    let state = tempfile::tempdir().unwrap();
    let mut gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    logged(&gateway, &[IN_USE]).await;
    assert!(gateway.terminate().await.unwrap().success());
    let orders = scene.pebble.orders().unwrap();
    let ahead = scene
        .gateway_in(state.path())
        .env("LD_PRELOAD", libfaketime())
        .env("FAKETIME", "+400d")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let ahead = ahead.spawn().await.unwrap();
    let told = logged(&ahead, &["ERROR", FAILED]).await;
    assert!(
        told.contains("are 9600 hours apart; set the clock"),
        "{told}"
    );
    // Clients whose clocks are right still have a good certificate.
    shown(&scene.clients(&ahead).await).await;
    assert_eq!(ahead.count_logged(ORDERING).await, 1);
    assert_eq!(scene.pebble.orders().unwrap(), orders);
}

/// The library that tells a program another time.
fn libfaketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let mut paths = folders
        .flatten()
        .map(|it| it.path().join("faketime/libfaketimeMT.so.1"));
    paths
        .find(|path| path.is_file())
        .unwrap()
        .display()
        .to_string()
}

#[tokio::test]
async fn mistakes_in_the_configuration_are_told_by_check() {
    let scene = Scene::new().await;
    let mut settings = scene.pebble.settings(&["gw.example"]);
    settings["DirectoryCAFile"] = json!("/nowhere.pem");
    let told = crate::support::gateway(0)
        .set("Acme", settings)
        .spawn()
        .await;
    let told = told.unwrap_err().to_string();
    assert!(
        told.contains("/nowhere.pem: DirectoryCAFile of Acme: expected a PEM"),
        "{told}"
    );
    let gateway = scene.gateway().spawn().await.unwrap();
    let checked = gateway.output(&["check"]).await.unwrap();
    let printed: serde_json::Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(printed["Acme"]["Domains"], json!(["gw.example"]));
    assert_eq!(printed["Acme"]["HttpPort"], 0);
}
