//! Real Spice clients see through the gateway what they see without it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use testkit::adapter::Adapter;
use testkit::browser;
use testkit::cert::TestCert;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::{Gateway, GatewayBuilder};
use testkit::host::Host;
use testkit::manager::{DesktopAnswer, Manager};
use testkit::net::{Endpoint, PATIENCE};
use testkit::packages::{self, Package};
use testkit::picture::Picture;
use testkit::qemu::SpiceVm;
use testkit::screenshot;
use testkit::spice::{ChannelType, linked_channel, read_link};
use testkit::tls::TlsClient;
use testkit::ws::{Connect, LONGEST_SERVER_FRAME};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;

const PASSWORD: &str = "only for Spice";
/// More than a display channel's handshake, and far less than its first picture, in bytes.
const BEFORE_PICTURES: u64 = 1_000;

/// The message by which a Spice server measures a TCP connection, in bytes.
const PING: u64 = 256_018;

/// A virtual machine behind a manager behind a gateway.
struct Site {
    vm: SpiceVm,
    picture: Picture,
    manager: Manager,
    gateway: Gateway,
    _files: tempfile::TempDir,
}

impl Site {
    async fn start(configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Result<Self> {
        packages::ensure(&[Package::Qemu, Package::SpiceScreenshot, Package::SpiceHtml5])?;
        let vm = SpiceVm::start(Some(PASSWORD)).await?;
        let picture = vm.picture().await?;
        let files = browser::manager_files()?;
        let manager = Manager::builder().files(files.path()).spawn().await?;
        manager.set_desktop(DesktopAnswer::new(vm.address()).password(PASSWORD));
        let gateway = configure(Gateway::builder().manager(&manager))
            .spawn()
            .await?;
        Ok(Self {
            vm,
            picture,
            manager,
            gateway,
            _files: files,
        })
    }

    async fn check_screenshot(&self, endpoint: Endpoint, token: String) -> Result<()> {
        check_screenshot(endpoint, token, &self.picture, PING).await
    }
}

/// Lets `spicy-screenshot` see a desktop through WebSockets of this endpoint of the gateway, whose
/// host sends more than `least` bytes.
async fn check_screenshot(
    endpoint: Endpoint,
    token: String,
    picture: &Picture,
    least: u64,
) -> Result<()> {
    let connect = move || Connect::new(&endpoint, &token);
    let adapter = Adapter::start(connect).await?;
    let seen = screenshot::take(adapter.addr(), Some(PASSWORD)).await;
    let traffic = adapter.finished().await?;
    assert_eq!(traffic.faults, Vec::<String>::new());
    assert_eq!(seen?.differing_pixels(picture), 0);
    assert!(traffic.websockets >= 2, "{traffic:?}");
    assert!(traffic.downlink_bytes > least, "{traffic:?}");
    assert!(
        traffic.largest_downlink_message <= LONGEST_SERVER_FRAME,
        "{traffic:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_client_takes_its_picture_with_a_ticket_over_tls() {
    let site = Site::start(|gateway| gateway).await.unwrap();
    let desktop = FlexVdiClient::new(&site.gateway.tls())
        .desktop()
        .await
        .unwrap();
    let resuming = site.gateway.tls().with_tls(TlsClient::new().resuming());
    site.check_screenshot(resuming, desktop.token)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_client_takes_its_picture_with_a_ticket_over_plaintext() {
    let site = Site::start(GatewayBuilder::plain).await.unwrap();
    let desktop = FlexVdiClient::new(&site.gateway.plain())
        .desktop()
        .await
        .unwrap();
    site.check_screenshot(site.gateway.plain(), desktop.token)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_client_takes_its_picture_with_a_port_on_the_host_itself() {
    let site = Site::start(|gateway| gateway.set("HijackAll", false))
        .await
        .unwrap();
    let desktop = FlexVdiClient::new(&site.gateway.tls())
        .desktop()
        .await
        .unwrap();
    assert_eq!(desktop.token, site.vm.address().port().to_string());
    site.check_screenshot(site.gateway.tls(), desktop.token)
        .await
        .unwrap();
}

/// A client without WebSockets uses the gateway as an HTTP proxy, `proxy` but for the ticket.
async fn check_native(
    site: &Site,
    scheme: &str,
    gateway: SocketAddr,
    ca: Option<&Path>,
) -> Result<()> {
    let desktop = FlexVdiClient::new(&site.gateway.tls()).desktop().await?;
    let proxy = format!("{scheme}://{}:x@{gateway}", desktop.token);
    let seen = screenshot::take_through(&proxy, ca, Some(PASSWORD)).await?;
    assert_eq!(seen.differing_pixels(&site.picture), 0);
    let log = site.gateway.log().await;
    for kind in ["main", "display"] {
        let kind = format!("kind=\"{kind}\"");
        let is_open = |line: &String| line.contains("channel open") && line.contains(&kind);
        assert!(log.iter().any(is_open), "{kind}: {log:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_native_client_takes_its_picture_through_a_tunnel_over_plaintext() {
    let site = Site::start(GatewayBuilder::plain).await.unwrap();
    let gateway = site.gateway.plain_addr();
    check_native(&site, "http", gateway, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_native_client_takes_its_picture_through_a_tunnel_over_tls() {
    packages::ensure(&[Package::GlibNetworking]).unwrap();
    let cert = TestCert::builder().chain().build().unwrap();
    let ca = cert.ca_path();
    let site = Site::start(|gateway| gateway.cert(cert)).await.unwrap();
    let gateway = site.gateway.tls_addr();
    check_native(&site, "https", gateway, Some(&ca))
        .await
        .unwrap();
    // Without an authority that it trusts the client comes no further than to the handshake.
    let other = TestCert::builder().chain().build().unwrap();
    let ca = other.ca_path();
    let untrusted = check_native(&site, "https", gateway, Some(&ca));
    untrusted.await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_native_client_names_its_ticket_as_the_host() {
    let site = Site::start(GatewayBuilder::plain).await.unwrap();
    let made = site.gateway.host_name_ticket(site.vm.address()).await;
    let proxy = format!("http://{}", site.gateway.plain_addr());
    let host = format!("{}:5900", made.unwrap());
    let seen = screenshot::take_of(&host, &proxy, None, Some(PASSWORD)).await;
    assert_eq!(seen.unwrap().differing_pixels(&site.picture), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_native_client_with_a_wrong_ticket_sees_nothing() {
    let site = Site::start(GatewayBuilder::plain).await.unwrap();
    let proxy = format!("http://guess:x@{}", site.gateway.plain_addr());
    let seen = screenshot::take_through(&proxy, None, Some(PASSWORD)).await;
    seen.unwrap_err();
    let refused = |line: &str| line.contains("tunnel refused");
    site.gateway.wait_for_log(refused, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_client_takes_its_picture_from_a_unix_socket_of_qemu() {
    let gateway = take_picture_from_socket(|gateway| gateway, Gateway::tls).await;
    gateway.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn the_kernel_moves_what_qemu_sends_on_its_unix_socket() {
    let configure = |gateway: GatewayBuilder| gateway.plain().set("DataPath", "sockmap");
    let gateway = take_picture_from_socket(configure, Gateway::plain).await;
    let gateway = gateway.unwrap();
    let is_display =
        |line: &str| line.contains("channel open") && line.contains("kind=\"display\"");
    let open = gateway.wait_for_log(is_display, PATIENCE).await.unwrap();
    assert!(open.contains("path=\"sockmap\""), "{open}");
    assert!(open.contains("host=unix:"), "{open}");
    let is_closed = |line: &str| line.contains("channel closed");
    let closed = gateway.wait_for_log(is_closed, PATIENCE).await.unwrap();
    assert!(closed.contains(" 0 bytes dropped"), "{closed}");
}

/// A client sees through this port of a gateway what QEMU shows on a Unix socket.
async fn take_picture_from_socket(
    configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    port: impl Fn(&Gateway) -> Endpoint,
) -> Result<Gateway> {
    packages::ensure(&[Package::Qemu, Package::SpiceScreenshot])?;
    let vm = SpiceVm::start_on_socket(Some(PASSWORD)).await?;
    let picture = vm.picture().await?;
    let socket = vm.socket().context("no socket")?;
    let desktop = DesktopAnswer::at(&format!("unix:{}", socket.display()), 5900);
    let manager = Manager::builder().spawn().await?;
    manager.set_desktop(desktop.password(PASSWORD));
    let directory = socket.parent().and_then(Path::to_str);
    let builder = Gateway::builder()
        .manager(&manager)
        .set("AllowedSockets", vec![directory.context("no directory")?]);
    let gateway = configure(builder).spawn().await?;
    let endpoint = port(&gateway);
    let desktop = FlexVdiClient::new(&endpoint).desktop().await?;
    // Without the ping: the server measures no line where there is none.
    check_screenshot(endpoint, desktop.token, &picture, BEFORE_PICTURES).await?;
    Ok(gateway)
}

/// Makes an authority and a server's certificate with the commands of QEMU's and Spice's
/// instructions, in the files that QEMU wants.
async fn spice_certificates(folder: &Path) -> Result<()> {
    let run = async |arguments: &str| {
        let mut command = Command::new("openssl");
        command
            .args(arguments.split_whitespace())
            .current_dir(folder);
        let output = command.output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl {arguments}: {said}");
        Ok(())
    };
    run(
        "req -new -x509 -days 10 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca-cert.pem \
         -subj /C=IL/L=Raanana/O=Example/CN=authority",
    )
    .await?;
    run(
        "req -new -newkey rsa:2048 -nodes -keyout server-key.pem -out server.csr \
         -subj /C=IL/L=Raanana/O=Example/CN=server",
    )
    .await?;
    run(
        "x509 -req -days 10 -in server.csr -CA ca-cert.pem -CAkey ca-key.pem -set_serial 01 \
         -out server-cert.pem",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_client_takes_its_picture_from_a_tls_port_of_qemu() {
    packages::ensure(&[Package::Qemu, Package::SpiceScreenshot, Package::Openssl]).unwrap();
    let files = tempfile::tempdir().unwrap();
    spice_certificates(files.path()).await.unwrap();
    let vm = SpiceVm::start_with_tls(Some(PASSWORD), files.path());
    let vm = vm.await.unwrap();
    let picture = vm.picture().await.unwrap();
    let ca = files.path().join("ca-cert.pem");
    let gateway = Gateway::builder()
        .set("HijackAll", false)
        .set("HostTLS", true)
        .set("HostCAFile", ca.to_str().unwrap())
        .set("HostSubject", "C=IL,L=Raanana,O=Example,CN=server")
        .spawn()
        .await
        .unwrap();
    let token = vm.tls_port().unwrap().to_string();
    check_screenshot(gateway.tls(), token, &picture, PING)
        .await
        .unwrap();
    // The plain port beside it is none for this gateway.
    let plain = vm.address().port().to_string();
    let refused = Connect::new(&gateway.tls(), &plain).open().await.unwrap();
    assert_eq!(refused.refused().unwrap().status(), 502);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_browser_shows_the_desktop() {
    browser::ensure_installed().unwrap();
    let site = Site::start(|gateway| gateway).await.unwrap();
    let desktop = FlexVdiClient::new(&site.gateway.tls())
        .desktop()
        .await
        .unwrap();
    let report = browser::open(site.gateway.tls_addr(), &desktop, Some(&site.picture))
        .await
        .unwrap();
    assert_eq!(
        report.picture.differing_pixels(&site.picture),
        0,
        "{report:?}"
    );
    // main, display, inputs and cursor
    assert!(report.sockets >= 4, "{report:?}");
    let requests = site.manager.requests();
    assert!(
        requests
            .iter()
            .all(|request| !request.uri.to_string().contains(PASSWORD))
    );
}

/// Stands in front of a Spice server, and holds its pictures back until it is told to let them go.
async fn without_pictures(server: SocketAddr, released: watch::Receiver<bool>) -> Result<Host<()>> {
    Host::spawn(move |mut client| {
        let mut released = released.clone();
        async move {
            let link = read_link(&mut client).await?;
            let has_pictures = matches!(linked_channel(&link), Some((ChannelType::Display, _)));
            let mut host = TcpStream::connect(server).await?;
            host.write_all(&link).await?;
            let (mut from_client, mut to_client) = client.split();
            let (mut from_host, mut to_host) = host.split();
            let down = async {
                if has_pictures {
                    copy(&mut (&mut from_host).take(BEFORE_PICTURES), &mut to_client).await?;
                    released.wait_for(|released| *released).await?;
                }
                anyhow::Ok(copy(&mut from_host, &mut to_client).await?)
            };
            tokio::select! {
                up = copy(&mut from_client, &mut to_host) => drop(up?),
                down = down => drop(down?),
            }
            Ok(())
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_browser_does_not_notice_that_the_gateway_is_replaced() {
    browser::ensure_installed().unwrap();
    let site = Site::start(|gateway| gateway).await.unwrap();
    let (release, released) = watch::channel(false);
    let host = without_pictures(site.vm.address(), released).await.unwrap();
    site.manager
        .set_desktop(DesktopAnswer::new(host.addr()).password(PASSWORD));
    let desktop = FlexVdiClient::new(&site.gateway.tls())
        .desktop()
        .await
        .unwrap();
    let is_display = |line: &str, event: &str| line.contains(event) && line.contains("\"display\"");
    let replace = async {
        let opened = |line: &str| is_display(line, "channel open");
        site.gateway.wait_for_log(opened, PATIENCE).await.unwrap();
        let successor = Gateway::builder()
            .manager(&site.manager)
            .set("RuntimeDir", site.gateway.runtime_dir().to_str().unwrap())
            .arg("run")
            .arg("--take-over");
        let successor = successor.spawn().await.unwrap();
        let taken = |line: &str| line.contains("channels taken over");
        successor.wait_for_log(taken, PATIENCE).await.unwrap();
        release.send_replace(true);
        successor
    };
    let picture = browser::open(site.gateway.tls_addr(), &desktop, Some(&site.picture));
    let (report, successor) = tokio::join!(picture, replace);
    let report = report.unwrap();
    let differing = report.picture.differing_pixels(&site.picture);
    assert_eq!(differing, 0, "{report:?}");
    assert!(report.sockets >= 4, "{report:?}");
    let closed = |line: &str| is_display(line, "channel closed");
    successor.wait_for_log(closed, PATIENCE).await.unwrap();
    let has_ended = |line: &String| line.contains("channel closed");
    assert!(!site.gateway.log().await.iter().any(has_ended));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_client_takes_its_picture_of_a_desktop_of_the_file() {
    packages::ensure(&[Package::Qemu, Package::SpiceScreenshot]).unwrap();
    let vm = SpiceVm::start(Some(PASSWORD)).await.unwrap();
    let picture = vm.picture().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("desktops.json");
    let content = serde_json::json!({
        "desktops": [
            {"id": "vm", "name": "Virtual machine", "address": vm.address().to_string(), "password": PASSWORD},
            {"id": "other", "address": "192.0.2.1:5900"},
        ],
        "users": [{
            "name": "ana",
            // Of "password"; from src/test.c of argon2's reference implementation.
            "password": "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "desktops": ["other", "vm"],
        }],
    });
    std::fs::write(&file, content.to_string()).unwrap();
    let gateway = Gateway::builder().set("Desktops", file.to_str().unwrap());
    let gateway = gateway.spawn().await.unwrap();
    let endpoint = gateway.tls();
    let client = FlexVdiClient::new(&endpoint).login("ana", "password");
    let desktop = client.choose("vm").desktop().await.unwrap();
    let connect = move || Connect::new(&endpoint, &desktop.token);
    let adapter = Adapter::start(connect).await.unwrap();
    let seen = screenshot::take(adapter.addr(), Some(&desktop.password)).await;
    let traffic = adapter.finished().await.unwrap();
    assert_eq!(traffic.faults, Vec::<String>::new());
    assert_eq!(seen.unwrap().differing_pixels(&picture), 0);
}
