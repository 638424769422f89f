//! What is in front of the gateway, and whether its word is taken as it should be.

use ipnet::IpNet;

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::Check;
use crate::config::{Config, ForwardedHeader};

pub(super) const CHECK: Check = Check::blocking("proxies", look);

fn look(scene: &Scene) -> Vec<Finding> {
    let config = &scene.config;
    let mut troubles = Vec::new();
    for (key, networks) in [
        ("TrustedProxies", &config.trusted_proxies),
        ("ProxyProtocol", &config.proxy_protocol),
    ] {
        if let Some(any) = networks.iter().find(|network| network.prefix_len() == 0) {
            troubles.push(Finding::warning(
                format!("{key} has {any}, which is everybody"),
                "Every client can claim to be any other, so limits, bans and the log mean nothing",
                "Name the addresses of your proxies only",
            ));
        }
    }
    troubles.extend(unknown_proxy(config));
    troubles.extend(unnamed(config));
    or_ok(troubles, || {
        if config.trusted_proxies.is_empty() && config.proxy_protocol.is_empty() {
            "none; clients come directly".to_owned()
        } else {
            let listed = |networks: &[IpNet]| {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                networks.join(", ")
            };
            let by_header = listed(&config.trusted_proxies);
            let by_protocol = listed(&config.proxy_protocol);
            format!("TrustedProxies: [{by_header}], ProxyProtocol: [{by_protocol}]")
        }
    })
}

fn unknown_proxy(config: &Config) -> Option<Finding> {
    let port = config.plain_port?;
    let nobody = config.trusted_proxies.is_empty() && config.proxy_protocol.is_empty();
    nobody.then(|| {
        Finding::warning(
            format!("PlainPort is {port}, and TrustedProxies is empty"),
            "All clients of a reverse proxy count as one: they share limits and bans, and the log \
             shows the proxy's address",
            "Put the proxy's address into TrustedProxies, and have it send X-Forwarded-For",
        )
    })
}

fn unnamed(config: &Config) -> Option<Finding> {
    if config.trusted_proxies.is_empty() || config.external_name.is_some() || !config.hijack_all {
        return None;
    }
    let header = match config.forwarded_header {
        ForwardedHeader::XForwarded => "X-Forwarded-Host",
        ForwardedHeader::Forwarded => "host= in Forwarded",
    };
    Some(Finding::warning(
        "TrustedProxies is set, and ExternalName is empty",
        format!(
            "Clients are sent for their desktop to the name that the proxy tells ({header}, else \
             Host); many proxies put an inner name there, which clients cannot reach"
        ),
        "Set ExternalName to the name by which clients know the proxy",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_oddity_is_told_once() {
        let networks = |text: &str| vec![text.parse().unwrap()];
        let found = |config: Config| look(&Scene::with(config));
        let default = found(Config::default());
        assert_eq!(default, [Finding::ok("none; clients come directly")]);
        let named = || Config {
            external_name: Some("a.example".parse().unwrap()),
            ..Config::default()
        };
        for (config, told) in [
            (
                Config {
                    trusted_proxies: networks("10.0.0.1/32"),
                    ..Config::default()
                },
                "TrustedProxies is set, and ExternalName is empty",
            ),
            (
                Config {
                    trusted_proxies: networks("0.0.0.0/0"),
                    ..named()
                },
                "TrustedProxies has 0.0.0.0/0, which is everybody",
            ),
            (
                Config {
                    proxy_protocol: networks("::/0"),
                    ..named()
                },
                "ProxyProtocol has ::/0, which is everybody",
            ),
            (
                Config {
                    plain_port: Some(8080),
                    ..named()
                },
                "PlainPort is 8080, and TrustedProxies is empty",
            ),
        ] {
            let found = found(config);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].found, told);
        }
        let sound = Config {
            plain_port: Some(8080),
            trusted_proxies: networks("10.0.0.1/32"),
            ..named()
        };
        assert_eq!(found(sound).len(), 1);
    }
}
