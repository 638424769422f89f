//! Renewed certificates.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use rustls::HandshakeKind;
use serde_json::json;
use testkit::gateway::Signal;
use testkit::manager::full;
use testkit::prelude::*;
use testkit::tls::TlsClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::{answer, answers, assert_shows, change, hang_up, shown};
use crate::support::{assert_error, get, logged, port_gateway, port_token};

/// A gateway that looks at its files each second.
async fn watching() -> Gateway {
    port_gateway()
        .set("CertificatePoll", 1)
        .spawn()
        .await
        .unwrap()
}

/// A gateway that looks at its files when it is told only.
async fn told() -> Gateway {
    port_gateway()
        .set("CertificatePoll", 0)
        .spawn()
        .await
        .unwrap()
}

/// The rounds that channels have made, and how far they are to go.
#[derive(Default)]
struct Rounds {
    /// Of each channel.
    made: Vec<AtomicUsize>,
    enough: AtomicBool,
    progress: Notify,
}

impl Rounds {
    /// Waits until every channel has made some more.
    async fn more(&self, rounds: usize) {
        let made = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let goals: Vec<_> = self.made.iter().map(|c| made(c) + rounds).collect();
        let all = async {
            while !self
                .made
                .iter()
                .zip(&goals)
                .all(|(c, goal)| made(c) >= *goal)
            {
                self.progress.notified().await;
            }
        };
        within("progress of all channels", all).await.unwrap();
    }

    /// Sends pieces of a pattern to a host that echoes and checks what comes back; returns how
    /// many bytes were right.
    async fn run(self: Arc<Self>, number: usize, mut channel: ws::Channel) -> u64 {
        const PIECE: usize = 3_000;
        let pattern = Pattern::new(number as u64);
        let mut at = 0;
        let mut received = vec![0; PIECE];
        while !self.enough.load(Ordering::Relaxed) {
            channel.write_all(&pattern.bytes(at, PIECE)).await.unwrap();
            channel.flush().await.unwrap();
            channel.read_exact(&mut received).await.unwrap();
            pattern.check(at, &received).unwrap();
            at += PIECE as u64;
            self.made[number].fetch_add(1, Ordering::Relaxed);
            self.progress.notify_one();
        }
        channel.shutdown().await.unwrap();
        at
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_channels_do_not_notice_a_new_certificate() {
    const CHANNELS: usize = 200;
    let host = Host::echo().await.unwrap();
    let gateway = told().await;
    let rounds = Arc::new(Rounds {
        made: (0..CHANNELS).map(|_| AtomicUsize::new(0)).collect(),
        ..Rounds::default()
    });
    let mut channels = Vec::new();
    for number in 0..CHANNELS {
        let channel = ws::echo_channel(&gateway.tls(), &port_token(&host))
            .await
            .unwrap();
        channels.push(tokio::spawn(rounds.clone().run(number, channel)));
    }
    rounds.more(2).await;
    let mut last = TestCert::new().unwrap();
    for _ in 0..3 {
        let renewed = TestCert::new().unwrap();
        gateway.cert().replace_files(&renewed).unwrap();
        hang_up(&gateway).await;
        assert_shows(&gateway, &renewed).await;
        change(
            &gateway,
            &[(
                "KeepAlive",
                json!(1 + gateway.count_logged("reloaded").await),
            )],
        )
        .await;
        rounds.more(2).await;
        last = renewed;
    }
    assert_eq!(gateway.count_logged("channel closed").await, 0);
    rounds.enough.store(true, Ordering::Relaxed);
    for channel in channels {
        let moved = within("end of a channel", channel).await.unwrap().unwrap();
        assert!(moved > 0);
    }
    assert_shows(&gateway, &last).await;
}

#[tokio::test]
async fn sessions_that_began_under_the_old_certificate_are_not_resumed() {
    for client in [TlsClient::tls12(), TlsClient::tls13()] {
        let gateway = told().await;
        let old = gateway.cert().leaf().clone();
        let endpoint = gateway.tls().with_tls(client.resuming());
        assert_eq!(shown(&endpoint).await, (old.clone(), HandshakeKind::Full));
        // A reload without a new certificate leaves sessions as they are.
        hang_up(&gateway).await;
        let resumed = (old, HandshakeKind::Resumed);
        assert_eq!(shown(&endpoint).await, resumed);

        let renewed = TestCert::new().unwrap();
        gateway.cert().replace_files(&renewed).unwrap();
        hang_up(&gateway).await;
        let new = renewed.leaf().clone();
        assert_eq!(shown(&endpoint).await, (new.clone(), HandshakeKind::Full));
        assert_eq!(shown(&endpoint).await, (new, HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn swapped_symlinks_are_noticed_and_names_and_end_told() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let put = |cert: &TestCert| {
        let fresh = dir.path().join("fresh");
        symlink(cert.cert_path().parent().unwrap(), &fresh).unwrap();
        std::fs::rename(&fresh, &live).unwrap();
    };
    let old = TestCert::new().unwrap();
    put(&old);
    let path = |name: &str| live.join(name).to_str().unwrap().to_owned();
    let gateway = port_gateway()
        .set("CertFile", path("cert.pem"))
        .set("KeyFile", path("key.pem"))
        .set("CertificatePoll", 1)
        .spawn()
        .await
        .unwrap();
    assert_shows(&gateway, &old).await;
    logged(
        &gateway,
        &[
            "INFO",
            "TLS",
            "certificate=localhost, 127.0.0.1, ::1 until ",
        ],
    )
    .await;
    let renewed = TestCert::builder().names(["vdi.example", "192.0.2.7"]);
    let renewed = renewed.build().unwrap();
    put(&renewed);
    let told = answer(&gateway, 0).await;
    let expected = "reloaded changed=\"certificate vdi.example, 192.0.2.7 until 4096-01-01\"";
    assert!(told.contains(expected), "{told}");
    assert_shows(&gateway, &renewed).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
}

#[tokio::test]
async fn a_pair_that_does_not_match_waits_until_it_does() {
    let gateway = watching().await;
    let cert = gateway.cert();
    let old = cert.leaf().clone();
    let renewed = TestCert::new().unwrap();
    copy(&renewed.cert_path(), &cert.cert_path());
    // Told once, although it is looked at each second.
    let told = answer(&gateway, 0).await;
    assert!(told.contains("ERROR not reloaded"), "{told}");
    assert!(
        told.contains("KeyFile: expected the key of the certificate in"),
        "{told}"
    );
    assert_eq!(shown(&gateway.tls()).await.0, old);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(answers(&gateway).await, 1, "{}", gateway.log_tail());

    copy(&renewed.key_path(), &cert.key_path());
    let told = answer(&gateway, 1).await;
    assert!(
        told.contains("INFO reloaded changed=\"certificate "),
        "{told}"
    );
    assert_shows(&gateway, &renewed).await;
}

#[tokio::test]
async fn broken_files_are_refused_and_the_old_ones_kept() {
    let gateway = told().await;
    let cert = gateway.cert();
    let old = cert.leaf().clone();
    let (cert_path, key_path) = (cert.cert_path(), cert.key_path());
    let broken = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n";
    let (chain, key) = (
        std::fs::read(&cert_path).unwrap(),
        std::fs::read(&key_path).unwrap(),
    );
    for (path, content, reason) in [
        (
            &cert_path,
            broken,
            "CertFile: expected a PEM file with a certificate: it is not",
        ),
        (
            &cert_path,
            "",
            "CertFile: expected a PEM file with a certificate: it has none",
        ),
        (
            &key_path,
            "",
            "KeyFile: expected a PEM file with a private key: it has none",
        ),
    ] {
        std::fs::write(path, content).unwrap();
        // What else has changed waits as well.
        gateway.change_config(&[("MaxUriSize", json!(64))]).unwrap();
        let told = hang_up(&gateway).await;
        let place = path.display().to_string();
        assert!(told.contains("ERROR not reloaded"), "{told}");
        assert!(told.contains(&place) && told.contains(reason), "{told}");
        assert_eq!(shown(&gateway.tls()).await.0, old);
        let long = format!("/{}", "x".repeat(100));
        assert_eq!(
            get(&gateway.tls(), &long).await.status(),
            StatusCode::NOT_FOUND
        );
        std::fs::write(&cert_path, &chain).unwrap();
        std::fs::write(&key_path, &key).unwrap();
    }
    std::fs::remove_file(&key_path).unwrap();
    let told = hang_up(&gateway).await;
    assert!(told.contains("No such file"), "{told}");
    std::fs::write(&key_path, &key).unwrap();
    let told = hang_up(&gateway).await;
    assert!(
        told.contains("reloaded changed=\"MaxUriSize 4096 -> 64\""),
        "{told}"
    );
    let secret = String::from_utf8(key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    assert_eq!(gateway.count_logged(secret).await, 0);
    assert_eq!(gateway.count_logged("c2VjcmV0").await, 0);
}

#[tokio::test]
async fn other_files_can_be_named() {
    let gateway = told().await;
    let other = TestCert::builder().rsa().chain().build().unwrap();
    let told = change(
        &gateway,
        &[
            ("CertFile", json!(other.combined_path())),
            ("KeyFile", json!(other.combined_path())),
        ],
    )
    .await;
    assert!(told.contains("CertFile ") && told.contains("certificate localhost"));
    assert_shows(&gateway, &other).await;
}

#[tokio::test]
async fn the_managers_authorities_are_looked_at_too() {
    let manager = Manager::with_handler(|_| async { http::Response::new(full("ok")) });
    let manager = manager.await.unwrap();
    let authorities = tempfile::NamedTempFile::new().unwrap();
    let other = TestCert::new().unwrap();
    copy(&other.ca_path(), authorities.path());
    let gateway = Gateway::builder()
        .manager(&manager)
        .set("ManagerCAFile", authorities.path().to_str().unwrap())
        .set("CertificatePoll", 1)
        .spawn()
        .await
        .unwrap();
    let refused = get(&gateway.tls(), "/vdi/x").await;
    assert_error(&refused, StatusCode::BAD_GATEWAY);
    copy(&manager.cert().ca_path(), authorities.path());
    let told = answer(&gateway, 0).await;
    assert!(
        told.contains("changed=\"authorities of the manager\""),
        "{told}"
    );
    assert_eq!(get(&gateway.tls(), "/vdi/x").await.body(), "ok");

    // A certificate is not held up by what is wrong with the authorities.
    std::fs::write(authorities.path(), "none").unwrap();
    let renewed = TestCert::new().unwrap();
    gateway.cert().replace_files(&renewed).unwrap();
    logged(&gateway, &["INFO reloaded", "certificate localhost"]).await;
    logged(
        &gateway,
        &["ERROR not reloaded", "ManagerCAFile: expected a PEM"],
    )
    .await;
    assert_eq!(get(&gateway.tls(), "/vdi/x").await.body(), "ok");
}

#[tokio::test]
async fn the_end_of_the_certificate_is_told_before() {
    let day = Duration::from_secs(86_400);
    let ending = |days: u32| {
        TestCert::builder()
            .life(day * days + day / 2)
            .build()
            .unwrap()
    };
    let gateway = port_gateway().cert(ending(5)).spawn().await.unwrap();
    let warned = "the certificate ends soon";
    logged(&gateway, &["WARN", warned, "days=5"]).await;
    gateway.cert().replace_files(&ending(3)).unwrap();
    gateway.signal(Signal::HUP).unwrap();
    logged(&gateway, &["WARN", warned, "days=3"]).await;
    gateway.cert().replace_files(&ending(15)).unwrap();
    hang_up(&gateway).await;
    hang_up(&gateway).await;
    assert_eq!(gateway.count_logged(warned).await, 2);
}

/// What the log says of a certificate that is kept although the files hold another one.
const KEPT: &str = "the certificate in use is kept while it is valid";

#[tokio::test]
async fn an_expired_certificate_does_not_replace_a_valid_one() {
    let gateway = watching().await;
    let ended = TestCert::builder().ended(Duration::from_secs(7_200));
    let valid = gateway.cert().leaf().clone();
    gateway
        .cert()
        .replace_files(&ended.build().unwrap())
        .unwrap();
    let told = logged(
        &gateway,
        &["WARN", KEPT, "has expired; it was valid until "],
    )
    .await;
    assert!(told.contains("in_use=localhost"), "{told}");
    // It is looked at each second, and told once.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(gateway.count_logged(KEPT).await, 1);
    assert_eq!(shown(&gateway.tls()).await.0, valid);
    // Whoever asks is told, and gets the rest.
    let told = change(&gateway, &[("KeepAlive", json!(7))]).await;
    assert!(told.contains("changed=\"KeepAlive 0 -> 7\""), "{told}");
    assert_eq!(gateway.count_logged(KEPT).await, 2);
    assert_eq!(shown(&gateway.tls()).await.0, valid);

    let renewed = TestCert::new().unwrap();
    gateway.cert().replace_files(&renewed).unwrap();
    answer(&gateway, 1).await;
    assert_shows(&gateway, &renewed).await;
}

#[tokio::test]
async fn an_expired_certificate_is_taken_once_the_other_has_ended() {
    let short = TestCert::builder().life(Duration::from_secs(12));
    let gateway = port_gateway().set("CertificatePoll", 1);
    let gateway = gateway.cert(short.build().unwrap()).spawn().await.unwrap();
    let ended = TestCert::builder().ended(Duration::from_secs(7_200));
    let ended = ended.build().unwrap();
    gateway.cert().replace_files(&ended).unwrap();
    logged(&gateway, &["WARN", KEPT]).await;
    let told = answer(&gateway, 0).await;
    assert!(told.contains("reloaded changed=\"certificate "), "{told}");
    assert_shows(&gateway, &ended).await;
    logged(&gateway, &["WARN", "the certificate has expired", "since="]).await;
}
