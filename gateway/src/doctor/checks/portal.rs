//! The portal that says what tokens stand for: is it reached and trusted? It is asked nothing.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::super::contact::Contact;
use super::super::finding::Finding;
use super::super::scene::Scene;
use super::Check;
use crate::prepared::PortalTls;

pub(super) const CHECK: Check =
    Check::waiting("portal", |scene| Box::pin(look(scene))).within(Duration::from_secs(20));

const WHY: &str = "Clients with tokens of the portal get 503";

async fn look(scene: Arc<Scene>) -> Vec<Finding> {
    let config = &scene.config;
    let authority = config.ticket_url.as_ref().and_then(Uri::authority);
    let Some(authority) = authority else {
        return vec![Finding::ok("none is configured")];
    };
    let file = PortalTls::file(config);
    let tls = match PortalTls::from_file(file.as_ref()) {
        Ok(PortalTls {
            config: Some(tls), ..
        }) => tls,
        Ok(_) => return vec![Finding::ok("none is configured")],
        Err(error) => return vec![Finding::skipped(error.to_string())],
    };
    let port = authority.port_u16().unwrap_or(443);
    let place = format!("{}:{port}", authority.host());
    let trouble = |found: String, remedy: &str| vec![Finding::error(found, WHY, remedy)];
    match Contact::with(authority.host(), port, None, tls).await {
        Contact::Answered(answer) => vec![Finding::ok(format!(
            "{place} ({}) is reached and trusted after {} ms",
            answer.address,
            answer.took.as_millis()
        ))],
        Contact::NotResolved(reason) => trouble(
            format!(
                "the name in TicketURL, {}, does not resolve: {reason}",
                authority.host()
            ),
            "Correct TicketURL, or the name servers in /etc/resolv.conf",
        ),
        Contact::NotTrusted(reason) => trouble(
            format!("{place}: no TLS: {reason}"),
            "TicketURLCAFile must have the authority of the portal's certificate",
        ),
        Contact::NotConnected(reason) | Contact::NoHttp(reason) | Contact::NotAsked(reason) => {
            trouble(
                format!("{place} is not reached: {reason}"),
                "Start the portal, correct TicketURL, or look for a firewall in between",
            )
        }
    }
}
