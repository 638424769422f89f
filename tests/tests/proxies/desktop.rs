//! Real Spice clients behind nginx, whose channels the kernel moves.

use anyhow::{Result, ensure};
use testkit::adapter::Adapter;
use testkit::browser;
use testkit::flexvdi::FlexVdiClient;
use testkit::packages::{self, Package};
use testkit::picture::Picture;
use testkit::prelude::*;
use testkit::qemu::SpiceVm;
use testkit::screenshot;
use testkit::ws::Connect;

use crate::nginx;
use crate::process::Proxy;

const PASSWORD: &str = "only for Spice";

/// A virtual machine behind a manager, a gateway with `sockmap`, and nginx in front.
struct Site {
    picture: Picture,
    proxy: Proxy,
    gateway: Gateway,
    _manager: Manager,
    _vm: SpiceVm,
    _files: tempfile::TempDir,
}

impl Site {
    async fn start() -> Result<Self> {
        packages::ensure(&[Package::Qemu, Package::SpiceScreenshot, Package::SpiceHtml5])?;
        let vm = SpiceVm::start(Some(PASSWORD)).await?;
        let picture = vm.picture().await?;
        let files = browser::manager_files()?;
        let manager = Manager::builder().files(files.path()).spawn().await?;
        manager.set_desktop(DesktopAnswer::new(vm.address()).password(PASSWORD));
        let gateway = Gateway::builder()
            .manager(&manager)
            .plain()
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("DataPath", "sockmap")
            .spawn()
            .await?;
        let backend = gateway.plain_addr().to_string();
        let patience = "proxy_read_timeout 1d";
        let proxy = nginx::documented(&backend, &TestCert::new()?, patience).await?;
        Ok(Self {
            picture,
            proxy,
            gateway,
            _manager: manager,
            _vm: vm,
            _files: files,
        })
    }

    /// All channels so far, at least `least` of them, must have been moved by the kernel.
    async fn check_paths(&self, least: usize) -> Result<()> {
        let log = self.gateway.log().await;
        let is_open = |line: &&String| line.contains("channel open");
        let (moved, others): (Vec<&String>, Vec<&String>) = log
            .iter()
            .filter(is_open)
            .partition(|line| line.contains("path=\"sockmap\""));
        ensure!(
            others.is_empty(),
            "another data path; without the eBPF programs run `cargo xtask build-ebpf && cargo \
             build -p gateway`: {others:?}"
        );
        ensure!(moved.len() >= least, "{} channels", moved.len());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_client_takes_its_picture_through_the_kernel() -> Result<()> {
    let site = Site::start().await?;
    let endpoint = site.proxy.tls();
    let desktop = FlexVdiClient::new(&endpoint).desktop().await?;
    let connect = move || Connect::new(&endpoint, &desktop.token);
    let adapter = Adapter::start(connect).await?;
    let seen = screenshot::take(adapter.addr(), Some(PASSWORD)).await;
    let traffic = adapter.finished().await?;
    ensure!(traffic.faults.is_empty(), "{traffic:?}");
    ensure!(
        seen?.differing_pixels(&site.picture) == 0,
        "another picture"
    );
    site.check_paths(2).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_browser_shows_the_desktop_through_the_kernel() -> Result<()> {
    browser::ensure_installed()?;
    let site = Site::start().await?;
    let endpoint = site.proxy.tls();
    let desktop = FlexVdiClient::new(&endpoint).desktop().await?;
    let report = browser::open(site.proxy.addr(), &desktop, Some(&site.picture)).await?;
    ensure!(
        report.picture.differing_pixels(&site.picture) == 0,
        "{report:?}"
    );
    // main, display, inputs and cursor
    site.check_paths(4).await
}
