//! Ports: are they free, or the running gateway's?

use std::net::IpAddr;

use super::super::account::Account;
use super::super::finding::{Finding, or_ok};
use super::super::listeners::{self, Listener, is_here};
use super::super::scene::Scene;
use super::Check;
use crate::config::Config;

pub(super) const CHECK: Check = Check::blocking("ports", look);

/// A port that the gateway opens.
pub(super) struct Port {
    key: &'static str,
    address_key: &'static str,
    address: Option<IpAddr>,
    pub(super) number: u16,
    /// What does not work without it.
    pub(super) why: &'static str,
}

/// Who has a port.
enum Held {
    Free,
    /// By the gateway, or by systemd for it.
    Ours,
    Trouble(Finding),
}

fn look(scene: &Scene) -> Vec<Finding> {
    let listeners = match listeners::all() {
        Ok(listeners) => listeners,
        Err(error) => {
            return vec![Finding::skipped(format!(
                "it is not known who listens: {error}"
            ))];
        }
    };
    let (mut ours, mut free, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
    for port in ports(&scene.config) {
        let shown = format!("{} ({})", port.number, port.key);
        match port.held(scene, &listeners) {
            Held::Ours => ours.push(shown),
            Held::Free => free.push(shown),
            Held::Trouble(trouble) => troubles.push(trouble),
        }
    }
    or_ok(troubles, || {
        let mut parts = Vec::new();
        if !ours.is_empty() {
            parts.push(format!("{} held by the gateway", ours.join(", ")));
        }
        if !free.is_empty() {
            parts.push(format!("{} free", free.join(", ")));
        }
        parts.join("; ")
    })
}

/// All that the configuration names.
pub(super) fn ports(config: &Config) -> Vec<Port> {
    let port = |key, address_key, address, number| Port {
        key,
        address_key,
        address,
        number,
        why: "The gateway does not start without its ports",
    };
    let tls = port(
        "SslPort",
        "ListenAddress",
        config.listen_address,
        config.ssl_port,
    );
    let plain = config.plain_port.map(|number| {
        port(
            "PlainPort",
            "PlainAddress",
            Some(config.plain_address),
            number,
        )
    });
    let admin = config.admin_port.map(|number| {
        port(
            "AdminPort",
            "AdminAddress",
            Some(config.admin_address),
            number,
        )
    });
    // Open while an authority checks names only.
    let http = config.acme.as_ref().and_then(|acme| acme.http_port);
    let http = http.map(|number| Port {
        why: "The authority of Acme cannot check names, so there is no certificate",
        ..port(
            "HttpPort of Acme",
            "ListenAddress",
            config.listen_address,
            number,
        )
    });
    let all = [Some(tls), plain, admin, http];
    all.into_iter().flatten().collect()
}

impl Port {
    fn held(&self, scene: &Scene, listeners: &[Listener]) -> Held {
        if let Some(address) = self.address
            && !is_here(address)
        {
            return Held::Trouble(Finding::error(
                format!(
                    "{address} ({}) is no address of this machine",
                    self.address_key
                ),
                self.why,
                format!(
                    "Correct {}, or set up the address; `ip address` lists them",
                    self.address_key
                ),
            ));
        }
        let mut listeners = listeners.iter();
        // The system chooses one for 0.
        let wanted =
            |listener: &&Listener| self.number != 0 && listener.has(self.address, self.number);
        let Some(listener) = listeners.find(wanted) else {
            return Held::Free;
        };
        let holders = listener.holders();
        // Systemd has it open where a socket unit does.
        let is_ours = |pid| Some(pid) == scene.pid() || pid == 1;
        if holders.iter().any(|holder| is_ours(holder.pid)) {
            return Held::Ours;
        }
        let Some(holder) = holders.first() else {
            return self.of_unknown(listener, &scene.account, scene.pid().is_some());
        };
        Held::Trouble(Finding::error(
            format!("port {} ({}) is held by {holder}", self.number, self.key),
            self.why,
            format!("Stop that program, or choose another {}", self.key),
        ))
    }

    fn of_unknown(&self, listener: &Listener, account: &Account, is_running: bool) -> Held {
        let (number, key, user) = (self.number, self.key, listener.user());
        let found = format!("port {number} ({key}) is held by a process of the user {user}");
        // The socket of a service belongs to its user, or to root who has opened it.
        if listener.uid == account.uid && !is_running {
            let found = format!("{found}, perhaps the gateway; run this as root to see more");
            return Held::Trouble(Finding::skipped(found));
        }
        if is_running {
            return Held::Ours;
        }
        let remedy = format!("ss -ltnp 'sport = :{number}', as root, shows which it is");
        Held::Trouble(Finding::error(found, self.why, remedy))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn scene(address: &str, port: u16) -> Scene {
        Scene::with(Config {
            listen_address: Some(address.parse().unwrap()),
            ssl_port: port,
            ..Config::default()
        })
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = look(&scene("127.0.0.1", port)).remove(0);
        let pid = std::process::id();
        assert!(
            taken
                .found
                .starts_with(&format!("port {port} (SslPort) is held by"))
        );
        assert!(
            taken.found.ends_with(&format!("(process {pid})")),
            "{taken:?}"
        );
        drop(listener);
        let free = look(&scene("127.0.0.1", port));
        assert_eq!(free, [Finding::ok(format!("{port} (SslPort) free"))]);
    }

    #[test]
    fn an_address_of_others_is_told() {
        let found = look(&scene("192.0.2.1", 443)).remove(0).found;
        assert_eq!(
            found,
            "192.0.2.1 (ListenAddress) is no address of this machine"
        );
    }
}
