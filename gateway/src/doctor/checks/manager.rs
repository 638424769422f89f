//! The manager: is it reached, trusted, and does it answer?

use std::sync::Arc;
use std::time::Duration;

use super::super::contact::{Answer, Contact};
use super::super::finding::Finding;
use super::super::scene::Scene;
use super::Check;

pub(super) const CHECK: Check =
    Check::waiting("manager", |scene| Box::pin(look(scene))).within(Duration::from_secs(25));

const WHY: &str = "Nobody gets a desktop";

/// An answer that took longer than this is reported.
const SLOW: Duration = Duration::from_secs(2);

async fn look(scene: Arc<Scene>) -> Vec<Finding> {
    let config = &scene.config;
    if config.manager_ip.is_empty() {
        return vec![Finding::ok("none is configured")];
    }
    let place = format!("{}:{}", config.manager_ip, config.manager_port);
    match scene.manager().await {
        Contact::Answered(answer) => answered(&scene, &place, answer),
        Contact::NotAsked(reason) => vec![Finding::skipped(reason)],
        Contact::NotResolved(reason) => vec![Finding::error(
            format!(
                "the name in ManagerIP, {}, does not resolve: {reason}",
                config.manager_ip
            ),
            WHY,
            "Correct ManagerIP, or the name servers in /etc/resolv.conf",
        )],
        Contact::NotConnected(reason) => vec![Finding::error(
            format!("{place} is not reached: {reason}"),
            WHY,
            "Start the manager, correct ManagerIP and ManagerPort, or look for a firewall in \
             between",
        )],
        Contact::NotTrusted(reason) if config.manager_ca_file.is_some() => vec![Finding::error(
            format!("{place}: no TLS: {reason}"),
            WHY,
            "ManagerCAFile must have the authority of the manager's certificate, or that \
             certificate itself, and ManagerIP must be a name in it",
        )],
        Contact::NotTrusted(reason) => vec![Finding::error(
            format!("{place}: no TLS: {reason}"),
            WHY,
            "Is this the manager's HTTPS port? Correct ManagerPort",
        )],
        Contact::NoHttp(reason) => vec![Finding::error(
            format!("{place} does not answer as a web server does: {reason}"),
            WHY,
            "Is this the manager? Correct ManagerIP and ManagerPort",
        )],
    }
}

fn answered(scene: &Scene, place: &str, answer: &Answer) -> Vec<Finding> {
    let config = &scene.config;
    let status = answer.status.map_or(0, |status| status.as_u16());
    let milliseconds = answer.took.as_millis();
    let mut troubles = Vec::new();
    if status >= 500 {
        troubles.push(Finding::warning(
            format!("{place} answers with status {status}"),
            "The manager is there, and seems not to work",
            "Look into the manager's own log",
        ));
    }
    if answer.took > SLOW {
        troubles.push(Finding::warning(
            format!("{place} took {milliseconds} ms to answer"),
            "People wait so long at each step of a login",
            "Look at the manager's load, the name servers and the network",
        ));
    }
    if config.manager_ca_file.is_none() {
        troubles.push(Finding::warning(
            "ManagerCAFile is not set, so any certificate of the manager is accepted",
            "Somebody between gateway and manager can read passwords",
            "Set it to a file with the manager's authority, or its own certificate",
        ));
    }
    if !troubles.is_empty() {
        return troubles;
    }
    let address = answer.address;
    vec![Finding::ok(format!(
        "{place} ({address}) has answered with status {status} after {milliseconds} ms"
    ))]
}
