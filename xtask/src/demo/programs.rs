//! What the demo uses that comes from the system, installed where it is missing.

use testkit::browser;
use testkit::packages::{self, Package};

use crate::steps::Steps;

/// What there is for each client of the demo.
pub(super) struct Programs {
    /// Whether there are QEMU and a Spice client.
    pub(super) qemu: bool,
    /// Whether that client can use TLS to a proxy.
    pub(super) proxy_tls: bool,
    /// Whether the gateway can have its page for browsers.
    pub(super) page: bool,
    /// Whether there are a browser for it and what drives it.
    pub(super) browser: bool,
}

impl Programs {
    /// None: a recorded session is played by its own client.
    pub(super) const NONE: Self = Self {
        qemu: false,
        proxy_tls: false,
        page: false,
        browser: false,
    };

    /// Looks for all of them. What cannot be had is named, with the command that installs it.
    pub(super) fn ensure(steps: &mut Steps) -> Self {
        if !has_qemu(steps) {
            return Self::NONE;
        }
        steps.begin("Programs: Chromium, Node.js and spice-html5, and TLS for the Spice client");
        let proxy_tls = packages::ensure(&[Package::GlibNetworking]);
        let browser = packages::ensure(&[Package::Chromium, Package::SpiceHtml5, Package::Node])
            .and_then(|()| browser::ensure_installed());
        let missing: Vec<_> = [
            (&proxy_tls, "native clients without TLS only"),
            (&browser, "no browser"),
        ]
        .into_iter()
        .filter_map(|(had, without)| Some((had.as_ref().err()?, without)))
        .collect();
        for (problem, without) in &missing {
            steps.note(format!("{without}: {problem:#}"));
        }
        steps.done(if missing.is_empty() {
            "installed"
        } else {
            "not all of them are to be had; the demo goes on without"
        });
        Self {
            qemu: true,
            proxy_tls: proxy_tls.is_ok(),
            page: Package::SpiceHtml5.is_installed(),
            browser: browser.is_ok(),
        }
    }
}

/// Whether there are a Spice server and a Spice client.
pub(super) fn has_qemu(steps: &mut Steps) -> bool {
    steps.begin("Programs: QEMU with a Spice server, and the Spice client spicy-screenshot");
    match packages::ensure(&[Package::Qemu, Package::SpiceScreenshot]) {
        Ok(()) => {
            steps.done("installed");
            true
        }
        Err(problem) => {
            steps.done(format!(
                "not to be had, so a recorded session is played: {problem:#}"
            ));
            false
        }
    }
}
