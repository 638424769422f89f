//! Real Spice clients see through the gateway what they see without it.

use anyhow::Result;
use testkit::adapter::Adapter;
use testkit::browser::{self, Html5Desktop};
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::{Gateway, GatewayBuilder};
use testkit::manager::{DesktopAnswer, Manager};
use testkit::net::Endpoint;
use testkit::packages::{self, Package};
use testkit::picture::Picture;
use testkit::qemu::SpiceVm;
use testkit::screenshot;
use testkit::tls::TlsClient;
use testkit::ws::{Connect, LONGEST_SERVER_FRAME};

const PASSWORD: &str = "only for Spice";

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

    /// Lets `spicy-screenshot` see the desktop through WebSockets of this endpoint of the gateway.
    async fn check_screenshot(&self, endpoint: Endpoint, token: String) -> Result<()> {
        let connect = move || Connect::new(&endpoint, &token);
        let adapter = Adapter::start(connect).await?;
        let seen = screenshot::take(adapter.addr(), Some(PASSWORD)).await;
        let traffic = adapter.finished().await?;
        assert_eq!(traffic.faults, Vec::<String>::new());
        assert_eq!(seen?.differing_pixels(&self.picture), 0);
        assert!(traffic.websockets >= 2, "{traffic:?}");
        assert!(traffic.downlink_bytes > 256_018, "{traffic:?}");
        assert!(
            traffic.largest_downlink_message <= LONGEST_SERVER_FRAME,
            "{traffic:?}"
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
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

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_desktop() {
    browser::ensure_installed().unwrap();
    let site = Site::start(|gateway| gateway).await.unwrap();
    let desktop = FlexVdiClient::new(&site.gateway.tls())
        .desktop()
        .await
        .unwrap();
    let addr = site.gateway.tls_addr();
    let shown = Html5Desktop {
        page: &format!("https://{addr}/vdi/html5/spice_auto.html"),
        host: &addr.ip().to_string(),
        port: addr.port(),
        path: &format!("/?ver=2&token={}", desktop.token),
        password: &desktop.password,
    };
    let report = browser::open(&shown, Some(&site.picture)).await.unwrap();
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
