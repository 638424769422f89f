//! What the running gateway has refused or failed at most often, and what that points to.

use super::super::finding::{Finding, or_ok};
use super::super::samples::Sample;
use super::super::scene::Scene;
use super::Check;

pub(super) const CHECK: Check = Check::blocking("failures", look).always();

/// Fewer than this are no pattern.
const LEAST: f64 = 5.0;
/// Most that are reported.
const MOST: usize = 5;

/// Failures of one kind.
struct Kind {
    metric: &'static str,
    /// Counters of what went well.
    well: &'static [&'static str],
    /// Which part of all must fail for this to be reported.
    share: f64,
    /// Values of its label that say that something went wrong, and what to do.
    causes: &'static [(&'static str, &'static str)],
}

const KINDS: &[Kind] = &[
    Kind {
        metric: "host_connect_failures_total",
        well: &["host_connect_seconds_count"],
        share: 0.1,
        causes: &[
            (
                "timeout",
                "Hosts do not answer: a firewall in between, or hosts that are down",
            ),
            (
                "unreachable",
                "Names do not resolve or Spice ports are closed: start the desktops",
            ),
            (
                "not allowed",
                "Hosts are not in AllowedHosts, or in DeniedHosts",
            ),
            (
                "tls",
                "Certificates of hosts are not accepted: docs/deployments.md#tls-to-hosts",
            ),
            (
                "resources",
                "Descriptors, memory or threads are short: raise the unit's limits",
            ),
        ],
    },
    Kind {
        metric: "manager_requests_total",
        well: &[],
        share: 0.1,
        causes: &[
            (
                "timeout",
                "The manager is slow: look at its load, or raise ManagerTimeout",
            ),
            (
                "unreachable",
                "The manager is not reached or not trusted: see the check \"manager\"",
            ),
            (
                "resources",
                "Descriptors, memory or threads are short: raise the unit's limits",
            ),
            ("not configured", "Set ManagerIP or Desktops"),
        ],
    },
    Kind {
        metric: "portal_requests_total",
        well: &[],
        share: 0.1,
        causes: &[
            (
                "timeout",
                "The portal is slow: look at its load, or raise TicketURLTimeout",
            ),
            (
                "unreachable",
                "The portal is not reached or not trusted: see the check \"portal\"",
            ),
            (
                "answer",
                "The portal's answers are not understood: docs/tickets.md#asking-a-portal",
            ),
            ("paused", "The portal has failed before, and is left alone"),
        ],
    },
    Kind {
        metric: "desktops_refused_total",
        well: &["desktops_assigned_total"],
        share: 0.1,
        causes: &[
            (
                "answer",
                "The manager's answers cannot be changed: look for \"withheld\" in the log",
            ),
            (
                "port",
                "Spice ports are outside FirstSpicePort to LastSpicePort",
            ),
            (
                "host",
                "Hosts are not in AllowedHosts, or sockets not in AllowedSockets",
            ),
            (
                "tickets",
                "Too many tickets wait: somebody asks for desktops and opens none",
            ),
        ],
    },
    Kind {
        metric: "channels_refused_total",
        well: &["channels_opened_total"],
        share: 0.1,
        causes: &[
            (
                "token",
                "Tickets are unknown or expired: is a balancer in front without PoolKeyFile, or \
                 TicketTimeout too short?",
            ),
            (
                "too many wrong tokens",
                "Somebody tries tokens, or all clients of a proxy count as one",
            ),
            (
                "handshake",
                "Clients or a proxy in between make no sound WebSocket handshakes",
            ),
            (
                "origin",
                "Web pages of other sites open desktops: AllowedOrigins",
            ),
            (
                "connect off",
                "Native clients use CONNECT, which needs Connect and HijackAll",
            ),
            (
                "portal",
                "The portal does not say what tokens stand for: see the check \"portal\"",
            ),
            (
                "too many sessions",
                "MaxSessionsPerAddress is reached: do many people share an address?",
            ),
            (
                "too many channels",
                "MaxChannelsPerAddress is reached: do many people share an address?",
            ),
        ],
    },
    Kind {
        metric: "connections_refused_total",
        well: &["connections_accepted_total"],
        share: 0.1,
        causes: &[
            (
                "too many connections",
                "MaxConnections or MaxConnectionsPerAddress is reached",
            ),
            (
                "too many unfinished handshakes",
                "Somebody begins handshakes and does not end them",
            ),
            (
                "client not allowed",
                "Clients are outside AllowedClients, or in DeniedClients",
            ),
            (
                "no PROXY header",
                "The balancer in ProxyProtocol does not send its header",
            ),
        ],
    },
    Kind {
        metric: "tls_handshake_failures_total",
        well: &["tls_handshake_seconds_count"],
        share: 0.5,
        causes: &[
            (
                "failed",
                "Clients refuse the certificate, or speak no TLS 1.2 or 1.3: set Debug",
            ),
            (
                "no certificate",
                "Clients show no certificate, and ClientCertificates is \"required\"",
            ),
            (
                "certificate refused",
                "Certificates of clients are revoked, have ended or are none of ClientCAFile's",
            ),
            (
                "timeout",
                "Connections stay silent: a balancer's probes, or scanners",
            ),
        ],
    },
    Kind {
        metric: "channels_closed_total",
        well: &["channels_opened_total"],
        share: 0.1,
        causes: &[
            (
                "host silent",
                "What listens on the Spice ports does not answer: see the check \"hosts\"",
            ),
            (
                "host lost",
                "Connections to hosts break: look at hosts and network",
            ),
            ("not spice", "Clients do not begin as Spice does"),
            ("no link message", "Clients open channels and say nothing"),
            (
                "channel not allowed",
                "AllowedChannels or a ticket forbids what clients open",
            ),
            (
                "client silent",
                "Clients do not answer Pings: KeepAlive may be too short for them",
            ),
            (
                "client lost",
                "Lines of clients break, or a proxy cuts idle connections: set KeepAlive",
            ),
            (
                "resources",
                "Descriptors, memory or threads are short: raise the unit's limits",
            ),
        ],
    },
    Kind {
        metric: "logins_total",
        well: &[],
        share: 0.5,
        causes: &[
            (
                "wrong user or password",
                "Somebody tries passwords, or a client repeats an old one",
            ),
            (
                "unknown terminal",
                "Terminals are not in the file of desktops",
            ),
            ("too many wrong passwords", "Somebody tries passwords"),
            (
                "busy",
                "Passwords cannot be checked fast enough: too little processor time or memory",
            ),
        ],
    },
];

fn look(scene: &Scene) -> Vec<Finding> {
    match &scene.running {
        Ok(running) => judge(&running.samples()),
        Err(_) => vec![Finding::skipped("no running gateway can be asked")],
    }
}

fn judge(samples: &[Sample]) -> Vec<Finding> {
    let sum = |name: &str| {
        let of_name = samples.iter().filter(|sample| sample.name == name);
        of_name.map(|sample| sample.value).sum::<f64>()
    };
    let mut told = Vec::new();
    for kind in KINDS {
        let of_well = kind.well.iter().map(|name| sum(name)).sum::<f64>();
        // A channel that was closed was opened before.
        let all = if kind.metric == "channels_closed_total" {
            of_well
        } else {
            of_well + sum(kind.metric)
        };
        let of_kind = samples.iter().filter(|sample| sample.name == kind.metric);
        for sample in of_kind {
            let cause = kind.causes.iter().find(|(label, _)| *label == sample.label);
            if let Some((label, advice)) = cause
                && sample.value >= LEAST
                && sample.value >= all * kind.share
            {
                let found = format!("{} {}{{{label}}} of {all}", sample.value, kind.metric);
                told.push((sample.value, found, *advice));
            }
        }
    }
    told.sort_by(|(left, ..), (right, ..)| right.total_cmp(left));
    let findings = told.into_iter().take(MOST).map(|(_, found, advice)| {
        Finding::warning(
            found,
            advice,
            "The log names the clients and hosts that were concerned",
        )
    });
    or_ok(findings.collect(), || "nothing fails often".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Now;
    use crate::doctor::samples::parse;
    use crate::metrics::Metrics;

    fn sample(name: &str, label: &str, value: f64) -> Sample {
        Sample {
            name: name.to_owned(),
            label: label.to_owned(),
            value,
        }
    }

    #[test]
    fn only_a_pattern_is_told_the_worst_first() {
        let samples = |failed| {
            [
                sample("host_connect_seconds_count", "", 90.0),
                sample("host_connect_failures_total", "timeout", failed),
                sample("manager_requests_total", "answered", 10.0),
                sample("manager_requests_total", "unreachable", 30.0),
            ]
        };
        let found = judge(&samples(9.0));
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].found,
            "30 manager_requests_total{unreachable} of 40"
        );
        let found = judge(&samples(100.0));
        assert_eq!(
            found[0].found,
            "100 host_connect_failures_total{timeout} of 190"
        );
        assert_eq!(found.len(), 2);
        assert_eq!(judge(&[]), [Finding::ok("nothing fails often")]);
    }

    #[test]
    fn every_cause_is_one_that_the_gateway_counts() {
        let text = Metrics::default().encode(Now::default()).unwrap();
        let samples = parse(&text);
        let has = |name: &str, label: &str| {
            let mut samples = samples.iter();
            samples.any(|sample| sample.name == name && sample.label == label)
        };
        for kind in KINDS {
            for (label, _) in kind.causes {
                assert!(has(kind.metric, label), "{} {label}", kind.metric);
            }
        }
    }
}
