//! The configuration file itself, read as `check` reads it.

use std::io;

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::{Check, NOT_TAKEN};
use crate::config::ConfigError;

pub(super) const CHECK: Check = Check::blocking("configuration", look).always();

fn look(scene: &Scene) -> Vec<Finding> {
    let path = scene.path.display();
    let loaded = match &scene.loaded {
        Ok(loaded) => loaded,
        Err(ConfigError::Read { reason, .. })
            if reason.kind() == io::ErrorKind::PermissionDenied =>
        {
            let remedy = format!("Run this as root, or as the user {}", scene.account.name);
            let why = "Nothing can be judged without it";
            return vec![Finding::warning(format!("{path}: {reason}"), why, remedy)];
        }
        Err(ConfigError::Read { reason, .. }) => {
            let remedy = "Write one, or name it: --config FILE";
            return vec![Finding::error(
                format!("{path}: {reason}"),
                NOT_TAKEN,
                remedy,
            )];
        }
        Err(error) => {
            let text = error.to_string();
            let mistake = |line: &str| {
                Finding::error(
                    line,
                    NOT_TAKEN,
                    "docs/configuration.md has every key and its values",
                )
            };
            return text.lines().map(mistake).collect();
        }
    };
    let warnings = loaded.warnings.iter().map(|warning| {
        Finding::warning(
            format!("{path}: {warning}"),
            "What stands there is not in effect",
            "Correct or remove it",
        )
    });
    let mut troubles: Vec<_> = warnings.collect();
    let config = &loaded.config;
    if config.manager_ip.is_empty()
        && config.desktops.is_none()
        && config.ticket_public_keys.is_none()
        && config.ticket_url.is_none()
        && config.hijack_all
    {
        troubles.push(Finding::warning(
            "neither ManagerIP nor Desktops, TicketPublicKeys or TicketURL is set",
            "Clients that ask for a desktop get 503; only tickets made by `flexvdi-gateway ticket` \
             and POST /tickets open one",
            "Name the manager in ManagerIP, or a file of desktops in Desktops",
        ));
    }
    or_ok(troubles, || path.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn somebody_must_give_desktops() {
        let found = |config: Config| look(&Scene::with(config)).remove(0).found;
        let told = "neither ManagerIP nor Desktops, TicketPublicKeys or TicketURL is set";
        assert_eq!(found(Config::default()), told);
        let config = Config {
            manager_ip: "manager".to_owned(),
            ..Config::default()
        };
        assert_eq!(found(config), "/nonexistent");
        let config = Config {
            hijack_all: false,
            ..Config::default()
        };
        assert_eq!(found(config), "/nonexistent");
    }
}
