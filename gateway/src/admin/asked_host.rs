//! Which names the administrators' port may be asked by.
//!
//! A web page of anybody can have its own name resolve to this port's address in an
//! administrator's browser (DNS rebinding), which then takes the port for the page's own server
//! and lets the page read all answers. Such requests give away the page's name in `Host`.

use http::StatusCode;
use http::header::HOST;
use http::request::Parts;
use rustix::system::uname;

use crate::authority::Authority;
use crate::host::{Host, HostError};
use crate::serving::Serving;

/// The name is none of the gateway's; answered with 421 (RFC 9110, section 15.5.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The gateway is not known by this name. Ask for it by an IP address, or add the name to \
     AdminHosts."
)]
pub(super) struct UnknownName;

impl UnknownName {
    pub(super) const STATUS: StatusCode = StatusCode::MISDIRECTED_REQUEST;
}

/// Looks at the name that a request asks for. One that says none is no browser's (HTTP/1.0).
pub(super) fn check(request: &Parts, serving: &Serving) -> Result<(), UnknownName> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let header = hosts.next().map(|host| host.to_str().unwrap_or_default());
    if hosts.next().is_some() {
        return Err(UnknownName);
    }
    // The authority of an absolute target goes before it (RFC 9112, section 3.2.2).
    let target = request.uri.authority().map(http::uri::Authority::as_str);
    let Some(asked) = target.or(header) else {
        return Ok(());
    };
    match asked.parse::<Authority>() {
        Ok(Authority { host, .. }) if is_known(&host, serving) => Ok(()),
        // An address all the same.
        Err(HostError::Unspecified | HostError::Scoped) => Ok(()),
        _ => Err(UnknownName),
    }
}

fn is_known(host: &Host, serving: &Serving) -> bool {
    if host.address().is_some() {
        return true;
    }
    let name = host.to_string();
    // Such as localhost, or that of a service among containers: no page comes from there.
    if !name.strip_suffix('.').unwrap_or(&name).contains('.') {
        return true;
    }
    let config = &serving.config;
    let configured = config.external_name.iter().chain(&config.admin_hosts);
    let certified = serving.identity.certificate.names.iter();
    let machine = uname().nodename().to_string_lossy().into_owned();
    configured
        .map(Host::to_string)
        .any(|known| is_same(host, &known))
        || certified.into_iter().any(|known| is_same(host, known))
        || is_same(host, &machine)
}

/// Whether a name is this one, which may be a certificate's.
fn is_same(host: &Host, known: &str) -> bool {
    host.is_certified_as(known.strip_suffix('.').unwrap_or(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_dns_does() {
        for (name, known) in [
            ("gw.example", "gw.example"),
            ("GW.example", "gw.Example"),
            ("gw.example", "gw.example."),
            ("a.example", "*.example"),
            ("a.gw.example", "*.GW.example"),
        ] {
            assert!(is_same(&name.parse().unwrap(), known), "{name} {known}");
        }
        for (name, known) in [
            ("gw.example", ""),
            ("gw.example", "example"),
            ("gw.example.evil", "gw.example"),
            ("evil-gw.example", "gw.example"),
            ("example.evil", "*.example"),
            ("a.b.example", "*.example"),
            ("example", "*.example"),
        ] {
            assert!(!is_same(&name.parse().unwrap(), known), "{name} {known}");
        }
    }
}
