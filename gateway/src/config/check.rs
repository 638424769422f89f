//! Checks of values against each other.

use std::net::IpAddr;

use super::report::Problem;
use super::{Config, acme};
use crate::channel_type::ChannelType;

/// Where the client for browsers has its files, besides its page at `/`.
pub const WEB_CLIENT_PATHS: &str = "/webclient/";

/// Room for `/?ver=2&token=` and a pool's ticket of a host with the longest name, or a token that is
/// signed with RSA of 2,048 bits and has short claims.
const MIN_LONG_URI: usize = 640;

/// Adds to the problems found so far.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    check_spice_ports(config, problems);
    check_listening_ports(config, problems);
    check_pool(config, problems);
    check_signed(config, problems);
    check_channels(config, problems);
    check_desktops(config, problems);
    check_web_client(config, problems);
    check_host_tls(config, problems);
    acme::check(config, problems);
    check_client_tls(config, problems);
}

/// There is one who says which desktop it is, and clients reach it through this gateway.
fn check_desktops(config: &Config, problems: &mut Vec<Problem>) {
    let Some(path) = &config.desktops else {
        return;
    };
    let mut wrong = |key, expected: &str| {
        if are_right(problems, &["Desktops", key]) {
            problems.push(Problem {
                key: "Desktops",
                expected: expected.to_owned(),
                found: format!("{:?}", path.display().to_string()),
            });
        }
    };
    if !config.manager_ip.is_empty() {
        wrong(
            "ManagerIP",
            "\"\", as ManagerIP names a manager that is asked for desktops",
        );
    }
    let is_reached = |prefix: &String| "/vdi/desktop".starts_with(prefix.as_str());
    if !config.manager_paths.iter().any(is_reached) {
        wrong(
            "ManagerPaths",
            "\"\", as ManagerPaths has no \"/vdi/\", where clients ask",
        );
    }
    if !config.hijack_all {
        wrong(
            "HijackAll",
            "\"\", as HijackAll is false and the gateway makes no tickets",
        );
    }
}

fn check_spice_ports(config: &Config, problems: &mut Vec<Problem>) {
    let (first, last) = (config.first_spice_port, config.last_spice_port);
    if first > last && are_right(problems, &["FirstSpicePort", "LastSpicePort"]) {
        problems.push(Problem {
            key: "FirstSpicePort",
            expected: format!("a port not above LastSpicePort ({last})"),
            found: first.to_string(),
        });
    }
}

fn check_listening_ports(config: &Config, problems: &mut Vec<Problem>) {
    let keys = ["ListenAddress", "SslPort", "PlainAddress", "PlainPort"];
    let overlap = config
        .listen_address
        .is_none_or(|address| overlap(address, config.plain_address));
    if let Some(port) = config.plain_port
        && port == config.ssl_port
        && overlap
        && are_right(problems, &keys)
    {
        problems.push(Problem {
            key: "PlainPort",
            expected: "another port than SslPort on the same address".to_owned(),
            found: port.to_string(),
        });
    }
}

fn check_pool(config: &Config, problems: &mut Vec<Problem>) {
    if config.pool_key_file.is_some()
        && config.max_uri_size < MIN_LONG_URI
        && are_right(problems, &["PoolKeyFile", "MaxUriSize"])
    {
        problems.push(Problem {
            key: "MaxUriSize",
            expected: format!("at least {MIN_LONG_URI}, as tickets of a pool are long"),
            found: config.max_uri_size.to_string(),
        });
    }
}

fn check_signed(config: &Config, problems: &mut Vec<Problem>) {
    if config.ticket_public_keys.is_some()
        && config.max_uri_size < MIN_LONG_URI
        && are_right(problems, &["TicketPublicKeys", "MaxUriSize"])
    {
        problems.push(Problem {
            key: "MaxUriSize",
            expected: format!("at least {MIN_LONG_URI}, as signed tickets are long"),
            found: config.max_uri_size.to_string(),
        });
    }
}

fn check_channels(config: &Config, problems: &mut Vec<Problem>) {
    let allowed = &config.allowed_channels;
    if !allowed.is_empty()
        && !allowed.contains(&ChannelType::MAIN)
        && are_right(problems, &["AllowedChannels"])
    {
        problems.push(Problem {
            key: "AllowedChannels",
            expected: "\"main\" among them, without which there is no desktop session".to_owned(),
            found: "a list without it".to_owned(),
        });
    }
}

fn check_web_client(config: &Config, problems: &mut Vec<Problem>) {
    if config.web_client.is_none() || !are_right(problems, &["WebClient"]) {
        return;
    }
    let takes =
        |prefix: &str| prefix.starts_with(WEB_CLIENT_PATHS) || WEB_CLIENT_PATHS.starts_with(prefix);
    if let Some(prefix) = config.manager_paths.iter().find(|prefix| takes(prefix))
        && are_right(problems, &["ManagerPaths"])
    {
        problems.push(Problem {
            key: "ManagerPaths",
            expected: format!("no path with anything of {WEB_CLIENT_PATHS}, which is WebClient's"),
            found: format!("{prefix:?}"),
        });
    }
    if let Some(path) = &config.health_path
        && path.starts_with(WEB_CLIENT_PATHS)
        && are_right(problems, &["HealthPath"])
    {
        problems.push(Problem {
            key: "HealthPath",
            expected: format!("a path outside {WEB_CLIENT_PATHS}, which is WebClient's"),
            found: format!("{path:?}"),
        });
    }
}

fn check_host_tls(config: &Config, problems: &mut Vec<Problem>) {
    if config.host_tls
        && config.host_ca_file.is_none()
        && are_right(problems, &["HostTLS", "HostCAFile"])
    {
        problems.push(Problem {
            key: "HostCAFile",
            expected: "the path of a PEM file with the authorities of hosts, as HostTLS is true"
                .to_owned(),
            found: "\"\"".to_owned(),
        });
    }
}

fn check_client_tls(config: &Config, problems: &mut Vec<Problem>) {
    if let (None, Some(list)) = (&config.client_ca_file, &config.client_crl_file)
        && are_right(problems, &["ClientCAFile", "ClientCRLFile"])
    {
        problems.push(Problem {
            key: "ClientCRLFile",
            expected: "\"\", as there is no ClientCAFile and clients are asked for no certificates"
                .to_owned(),
            found: format!("{:?}", list.display().to_string()),
        });
    }
}

/// Whether none of these keys was found wrong: a check of several values against each other
/// would blame the wrong one while a default stands in.
pub(super) fn are_right(problems: &[Problem], keys: &[&str]) -> bool {
    !problems.iter().any(|problem| keys.contains(&problem.key))
}

/// Whether two sockets on these addresses would compete for a port.
pub(super) fn overlap(left: IpAddr, right: IpAddr) -> bool {
    let (left, right) = (left.to_canonical(), right.to_canonical());
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    left == right || covers(left, right) || covers(right, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &Config) -> Vec<String> {
        let mut problems = Vec::new();
        check(config, &mut problems);
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn the_default_is_right() {
        assert!(problems(&Config::default()).is_empty());
    }

    #[test]
    fn spice_ports_are_in_order() {
        let config = |first_spice_port, last_spice_port| Config {
            first_spice_port,
            last_spice_port,
            ..Config::default()
        };
        assert!(problems(&config(6000, 6000)).is_empty());
        assert_eq!(
            problems(&config(6001, 6000)),
            ["FirstSpicePort: expected a port not above LastSpicePort (6000), found 6001"]
        );
    }

    #[test]
    fn a_pools_tickets_have_room() {
        let config = |pool: Option<&str>, max_uri_size| Config {
            pool_key_file: pool.map(Into::into),
            max_uri_size,
            ..Config::default()
        };
        assert!(problems(&config(None, 64)).is_empty());
        assert!(problems(&config(Some("k"), 640)).is_empty());
        assert_eq!(
            problems(&config(Some("k"), 639)),
            ["MaxUriSize: expected at least 640, as tickets of a pool are long, found 639"]
        );
    }

    #[test]
    fn signed_tickets_have_room() {
        let config = |max_uri_size| Config {
            ticket_public_keys: Some("k".into()),
            max_uri_size,
            ..Config::default()
        };
        assert!(problems(&config(640)).is_empty());
        assert_eq!(
            problems(&config(639)),
            ["MaxUriSize: expected at least 640, as signed tickets are long, found 639"]
        );
    }

    #[test]
    fn desktops_come_from_one_place_and_with_tickets() {
        let config = |manager: &str, hijack_all| Config {
            desktops: Some("d.json".into()),
            manager_ip: manager.to_owned(),
            hijack_all,
            ..Config::default()
        };
        assert!(problems(&config("", true)).is_empty());
        assert_eq!(
            problems(&config("manager", true)),
            [
                "Desktops: expected \"\", as ManagerIP names a manager that is asked for desktops, \
                 found \"d.json\""
            ]
        );
        let nowhere = Config {
            manager_paths: vec!["/other/".to_owned()],
            ..config("", true)
        };
        assert_eq!(
            problems(&nowhere),
            [
                "Desktops: expected \"\", as ManagerPaths has no \"/vdi/\", where clients ask, \
                 found \"d.json\""
            ]
        );
        assert_eq!(
            problems(&config("", false)),
            [
                "Desktops: expected \"\", as HijackAll is false and the gateway makes no tickets, \
                 found \"d.json\""
            ]
        );
    }

    #[test]
    fn hosts_are_never_trusted_unseen() {
        let config = |host_tls, file: Option<&str>| Config {
            host_tls,
            host_ca_file: file.map(Into::into),
            ..Config::default()
        };
        assert!(problems(&config(true, Some("ca.pem"))).is_empty());
        assert!(problems(&config(false, Some("ca.pem"))).is_empty());
        assert_eq!(
            problems(&config(true, None)),
            [
                "HostCAFile: expected the path of a PEM file with the authorities of hosts, as \
                 HostTLS is true, found \"\""
            ]
        );
    }

    #[test]
    fn wrong_values_are_not_blamed_twice() {
        let wrong = Problem {
            key: "LastSpicePort",
            expected: "a port".to_owned(),
            found: "null".to_owned(),
        };
        let config = Config {
            first_spice_port: 30_000,
            ..Config::default()
        };
        let mut problems = vec![wrong.clone()];
        check(&config, &mut problems);
        assert_eq!(problems, [wrong]);
    }

    #[test]
    fn both_ports_differ_on_the_same_address() {
        let config = |listen: &str, plain: &str| Config {
            listen_address: (!listen.is_empty()).then(|| listen.parse().unwrap()),
            plain_address: plain.parse().unwrap(),
            plain_port: Some(443),
            ..Config::default()
        };
        for (listen, plain) in [
            ("", "127.0.0.1"),
            ("", "::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("::", "127.0.0.1"),
            ("::1", "::"),
        ] {
            assert_eq!(
                problems(&config(listen, plain)),
                ["PlainPort: expected another port than SslPort on the same address, found 443"],
                "{listen} {plain}"
            );
        }
        for (listen, plain) in [
            ("192.0.2.1", "127.0.0.1"),
            ("::1", "127.0.0.1"),
            ("0.0.0.0", "::1"),
            ("::1", "0.0.0.0"),
        ] {
            let config = config(listen, plain);
            assert!(problems(&config).is_empty(), "{listen} {plain}");
        }
    }

    #[test]
    fn the_client_for_browsers_shares_no_path() {
        let on = || Config {
            web_client: Some("/usr/share/spice-html5".into()),
            ..Config::default()
        };
        assert!(problems(&on()).is_empty());
        let with_paths = |paths: &[&str]| Config {
            manager_paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..on()
        };
        assert!(problems(&with_paths(&["/vdi/", "/web/"])).is_empty());
        for path in ["/", "/webclient/", "/webclient/x/"] {
            assert_eq!(
                problems(&with_paths(&["/vdi/", path])),
                [format!(
                    "ManagerPaths: expected no path with anything of /webclient/, which is \
                     WebClient's, found {path:?}"
                )]
            );
        }
        let health = Config {
            health_path: Some("/webclient/up".to_owned()),
            ..on()
        };
        assert_eq!(
            problems(&health),
            [
                "HealthPath: expected a path outside /webclient/, which is WebClient's, found \
                 \"/webclient/up\""
            ]
        );
        for config in [with_paths(&["/"]), health] {
            let off = Config {
                web_client: None,
                ..config
            };
            assert!(problems(&off).is_empty());
        }
    }
}
