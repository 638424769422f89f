//! Some of the hosts: are they reached, and do they speak Spice?

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::Check;
use crate::background::OWN;
use crate::channel::{ConnectError, Trial, TrialError};
use crate::config::Config;
use crate::desktops::DesktopsFile;
use crate::grant::Grant;
use crate::host::Host;
use crate::prepared::HostCa;
use crate::spice_host::SpiceHost;
use crate::target::Target;

pub(super) const CHECK: Check =
    Check::waiting("hosts", |scene| Box::pin(look(scene))).within(Duration::from_secs(15));

/// Most of them that are tried.
const MOST: usize = 16;
/// Longest time for each: once to connect, and once for the answer.
const LIMIT: Duration = Duration::from_secs(2);

/// A host, and what is known of it.
struct Sample {
    /// As people know it.
    name: String,
    grant: Grant,
    /// A desktop is known to be on this port, unless it is off.
    is_desktop: bool,
}

async fn look(scene: Arc<Scene>) -> Vec<Finding> {
    let config = Arc::clone(&scene.config);
    let read = OWN
        .run(LIMIT, move || (samples(&config), authorities(&config)))
        .await;
    let (samples, authorities) = match read {
        Ok((Ok(samples), Ok(authorities))) => (samples, authorities),
        Ok((Err(reason), _) | (_, Err(reason))) => return vec![Finding::skipped(reason)],
        Err(error) => return vec![Finding::skipped(error.to_string())],
    };
    if samples.is_empty() {
        return vec![Finding::skipped(
            "none is known before somebody asks for a desktop; hosts in AllowedHosts by address \
             would be tried",
        )];
    }
    let trial = Trial::new(&scene.config, authorities.authorities.as_ref(), LIMIT);
    let count = samples.len();
    let mut running = JoinSet::new();
    for (at, sample) in samples.into_iter().enumerate() {
        let trial = trial.clone();
        running.spawn(async move {
            let tried = trial.run(&sample.grant).await;
            (at, sample, tried)
        });
    }
    let mut tried = running.join_all().await;
    tried.sort_by_key(|(at, ..)| *at);
    let failed = tried
        .iter()
        .filter(|(_, sample, tried)| sample.is_trouble(tried))
        .count();
    let troubles = tried.iter().filter_map(|(_, sample, tried)| {
        let error = tried.as_ref().err().filter(|_| sample.is_trouble(tried))?;
        Some(sample.trouble(error, failed == count))
    });
    let troubles: Vec<_> = troubles.collect();
    let answered = tried.iter().filter(|(.., tried)| tried.is_ok()).count();
    or_ok(troubles, || match count - answered {
        0 if count == 1 => "the one that was tried answers".to_owned(),
        0 => format!("all {count} that were tried answer"),
        silent => format!(
            "{answered} of {count} that were tried answer; {silent} of AllowedHosts are there, \
             without a desktop on FirstSpicePort"
        ),
    })
}

fn authorities(config: &Config) -> Result<HostCa, String> {
    HostCa::from_file(HostCa::file(config).as_ref()).map_err(|error| error.to_string())
}

/// Desktops of the file, spread over all of it; else the hosts that the configuration names.
fn samples(config: &Config) -> Result<Vec<Sample>, String> {
    if let Some(path) = &config.desktops {
        let file = DesktopsFile::read(path, config.pool_key_file.is_some());
        let file = file.map_err(|_| "the file of desktops cannot be used".to_owned())?;
        let grants = file.inventory.grants();
        let step = grants.len().div_ceil(MOST).max(1);
        let samples = grants.step_by(step).map(|(id, grant)| Sample {
            name: format!("desktop {id:?} ({})", grant.target),
            grant: grant.clone(),
            is_desktop: true,
        });
        return Ok(samples.collect());
    }
    let port = config.first_spice_port;
    if !config.hijack_all {
        return Ok(match &config.spice_host {
            host @ SpiceHost::Host(_) => vec![Sample::at(host.target(port))],
            SpiceHost::Sockets(_) => Vec::new(),
        });
    }
    let single = config.allowed_hosts.iter();
    let single = single.filter(|network| network.prefix_len() == network.max_prefix_len());
    let hosts = single.filter_map(|network| Host::try_from(network.addr()).ok());
    Ok(hosts
        .take(MOST)
        .map(|host| Sample::at(Target::new(host, port)))
        .collect())
}

impl Sample {
    /// A host where desktops may be.
    fn at(target: Target) -> Self {
        Self {
            name: target.to_string(),
            grant: Grant::new(target),
            is_desktop: false,
        }
    }

    /// Without a desktop on that port, a host that refuses is as good as one that answers.
    fn is_trouble(&self, tried: &Result<(), TrialError>) -> bool {
        match tried {
            Ok(()) => false,
            Err(TrialError::Connect(ConnectError::Unreachable(error))) => {
                self.is_desktop || error.kind() != io::ErrorKind::ConnectionRefused
            }
            Err(_) => true,
        }
    }

    fn trouble(&self, error: &TrialError, are_all: bool) -> Finding {
        let found = format!("{}: {error}", self.name);
        let why = "Who is given it sees no desktop";
        let remedy = match error {
            TrialError::NeedsTls => "Set HostTLS and HostCAFile, or `tls` of the desktop",
            TrialError::Connect(ConnectError::Tls(_)) => {
                "docs/deployments.md#tls-to-hosts says which certificates are accepted"
            }
            TrialError::Connect(ConnectError::NotAllowed) => "Correct AllowedHosts and DeniedHosts",
            TrialError::Connect(ConnectError::SocketNotAllowed) => "Correct AllowedSockets",
            TrialError::NotSpice | TrialError::Silent | TrialError::Ended(_) => {
                "Is this the desktop's Spice port, and does it want TLS?"
            }
            TrialError::Connect(_) => {
                "Start the desktop, correct its address, or look for a firewall in between"
            }
        };
        let is_off = matches!(
            error,
            TrialError::Connect(ConnectError::Unreachable(_) | ConnectError::Timeout(_))
        );
        // One that is off is no fault of the gateway.
        if is_off && !are_all {
            Finding::warning(found, why, remedy)
        } else {
            Finding::error(found, why, remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_hosts_are_tried_and_not_too_many() {
        let names = |config: &Config| -> Vec<_> {
            let samples = samples(config).unwrap().into_iter();
            samples.map(|sample| sample.name).collect()
        };
        let networks = ["10.0.0.0/8", "10.0.0.1/32", "2001:db8::1/128"];
        let networks = networks.map(|text| text.parse().unwrap());
        let config = Config {
            allowed_hosts: networks.into(),
            ..Config::default()
        };
        assert_eq!(names(&config), ["10.0.0.1:5900", "[2001:db8::1]:5900"]);
        let many = (0..40).map(|last| format!("10.0.0.{last}/32").parse().unwrap());
        let config = Config {
            allowed_hosts: many.collect(),
            ..Config::default()
        };
        assert_eq!(names(&config).len(), MOST);
        let config = Config {
            hijack_all: false,
            ..Config::default()
        };
        assert_eq!(names(&config), ["127.0.0.1:5900"]);
        assert!(names(&Config::default()).is_empty());
    }

    #[test]
    fn only_a_refusal_says_that_a_host_without_a_desktop_is_there() {
        let target = Target::new("h".parse().unwrap(), 5900);
        let failed = |kind, text: &str| {
            let error = io::Error::new(kind, text.to_owned());
            Err(TrialError::Connect(ConnectError::Unreachable(error)))
        };
        let refused = failed(io::ErrorKind::ConnectionRefused, "in another language");
        let unknown = failed(io::ErrorKind::Other, "the name server refused");
        let host = Sample::at(target);
        assert!(!host.is_trouble(&refused));
        assert!(host.is_trouble(&unknown));
        let desktop = Sample {
            is_desktop: true,
            ..host
        };
        assert!(desktop.is_trouble(&refused));
    }
}
