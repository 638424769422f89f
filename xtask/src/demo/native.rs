//! A native Spice client takes a screenshot, with the gateway as its HTTP proxy.

use anyhow::Result;
use testkit::packages;
use testkit::picture::Picture;
use testkit::screenshot;

use super::comparison::compare;
use super::site::Site;
use crate::steps::Steps;

/// Logs in, and fetches the picture with CONNECT. Without TLS if the client cannot do it, or nobody
/// but root could have it trust the gateway's certificate (`tls`).
pub(super) async fn run(
    steps: &mut Steps,
    site: &Site,
    tls: bool,
    expected: &Picture,
) -> Result<()> {
    let tls = tls && packages::is_root();
    let given = site.client().desktop().await?;
    let (scheme, gateway, ca) = if tls {
        let ca = site.gateway.cert().ca_path();
        ("https", site.gateway.tls_addr(), Some(ca))
    } else {
        ("http", site.gateway.plain_addr(), None)
    };
    steps.begin(format!(
        "Native client: spicy-screenshot, with {scheme}://TICKET:x@{gateway} as its proxy"
    ));
    let proxy = format!("{scheme}://{}:x@{gateway}", given.token);
    let seen = screenshot::take_through(&proxy, ca.as_deref(), Some(&given.password)).await;
    let seen = site.with_log(seen)?;
    steps.done(compare(&seen, expected, "native.png")?);
    Ok(())
}
