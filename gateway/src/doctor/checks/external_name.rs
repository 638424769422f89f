//! The name by which clients know the gateway.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::finding::Finding;
use super::super::listeners::is_here;
use super::super::scene::Scene;
use super::Check;
use crate::background::{HOSTS, resolve};

pub(super) const CHECK: Check = Check::waiting("name", |scene| Box::pin(look(scene)));

/// Longest wait for a thread that asks the system's resolver.
const WAIT: Duration = Duration::from_secs(5);

async fn look(scene: Arc<Scene>) -> Vec<Finding> {
    let config = &scene.config;
    let Some(name) = &config.external_name else {
        return vec![Finding::ok(
            "ExternalName is empty: clients are sent to the name by which they have asked",
        )];
    };
    let found = resolve(&HOSTS, &name.to_string(), config.ssl_port, WAIT).await;
    let addresses: Vec<IpAddr> = match found {
        Ok(found) => found.into_iter().map(|address| address.ip()).collect(),
        Err(error) => {
            return vec![Finding::error(
                format!("ExternalName, {name}, does not resolve here: {error}"),
                "Clients are sent to that name for their desktop. If it resolves for them, all is \
                 well",
                "Correct ExternalName, or add the name to your DNS",
            )];
        }
    };
    let listed: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let listed = listed.join(", ");
    if addresses.iter().any(|address| is_here(*address)) {
        return vec![Finding::ok(format!("{name} is this machine ({listed})"))];
    }
    vec![Finding::warning(
        format!("ExternalName, {name}, is {listed}, and none of these addresses is this machine's"),
        "With NAT, a proxy or a balancer in front that is as it should be. Otherwise clients are \
         sent elsewhere for their desktop",
        "If nothing is in front of the gateway, correct ExternalName or the DNS",
    )]
}
