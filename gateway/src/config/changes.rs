//! What becomes of a configuration that is read while the gateway runs.

use std::fmt;

use serde_json::Value;

use super::key::{Applies, Key};
use super::keys::KEYS;
use super::{Config, DataPath};

/// Longest value in a message, in bytes.
const MAX_SHOWN: usize = 200;

/// The names of all keys whose change needs a restart, in the order of the file.
pub fn keys_that_need_a_restart() -> impl Iterator<Item = &'static str> {
    let keys = KEYS.iter().filter(|key| key.applies == Applies::AtRestart);
    keys.map(|key| key.name)
}

/// A configuration that takes another one's place in a running gateway.
#[derive(Debug)]
pub struct Changes {
    /// What is in effect from now on.
    pub config: Config,
    /// What is different in it.
    pub taken: Vec<Change>,
    /// What the file wants besides, and stays as it is until a restart.
    pub kept: Vec<Change>,
}

/// A key with two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: &'static str,
    /// What is or was in effect.
    pub old: Value,
    /// What the file says.
    pub new: Value,
}

impl Changes {
    /// Of a gateway that runs with `current` and has loaded the data path `loaded`.
    pub fn new(current: &Config, mut config: Config, loaded: DataPath) -> Self {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for key in KEYS {
            let change = Change {
                key: key.name,
                old: (key.write)(current),
                new: (key.write)(&config),
            };
            if change.old == change.new {
                continue;
            }
            if change.needs_restart(key, loaded) {
                (key.set)(&mut config, &change.old)
                    .unwrap_or_else(|_| unreachable!("what a key writes it reads"));
                kept.push(change);
            } else {
                taken.push(change);
            }
        }
        Self {
            config,
            taken,
            kept,
        }
    }
}

impl Change {
    fn needs_restart(&self, key: &Key, loaded: DataPath) -> bool {
        let without_loading = [DataPath::Auto, DataPath::Relay, loaded];
        match key.applies {
            Applies::AtOnce => false,
            Applies::AtRestart => true,
            Applies::IfLoaded => !without_loading.iter().any(|path| self.new == path.name()),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        write!(f, "{key} {} -> {}", short(old), short(new))
    }
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > MAX_SHOWN {
        text.truncate(text.floor_char_boundary(MAX_SHOWN));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use DataPath::{Auto, Relay, Sockmap};

    use super::*;

    #[test]
    fn the_document_names_what_needs_a_restart() {
        let names: Vec<_> = keys_that_need_a_restart()
            .map(|name| format!("`{name}`"))
            .collect();
        let sentence = format!("\nA change of {} needs a restart.", names.join(", "));
        let document = include_str!("../../../docs/configuration.md");
        assert!(
            document.contains(&sentence),
            "no {sentence:?} in docs/configuration.md"
        );
    }

    #[test]
    fn the_document_says_when_each_of_the_others_is_in_effect() {
        let document = include_str!("../../../docs/reload.md");
        let (_, tail) = document
            .split_once("## When a change is in effect")
            .unwrap();
        let rows: Vec<_> = tail
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        for key in KEYS {
            let quoted = format!("`{}`", key.name);
            let found = rows.iter().filter(|row| row.contains(&quoted)).count();
            let expected = usize::from(key.applies != Applies::AtRestart);
            assert_eq!(found, expected, "{} in docs/reload.md", key.name);
        }
    }

    #[test]
    fn takes_what_can_be_taken_and_names_the_rest() {
        let current = Config::default();
        let config = Config {
            ssl_port: 8443,
            keep_alive: Some(Duration::from_secs(30)),
            allowed_hosts: vec!["10.0.0.0/8".parse().unwrap()],
            ..Config::default()
        };
        let changes = Changes::new(&current, config.clone(), DataPath::Auto);
        assert_eq!(
            changes.config,
            Config {
                ssl_port: 443,
                ..config
            }
        );
        let shown = |changes: &[Change]| changes.iter().map(Change::to_string).collect::<Vec<_>>();
        assert_eq!(
            shown(&changes.taken),
            ["AllowedHosts [] -> [\"10.0.0.0/8\"]", "KeepAlive 0 -> 30"]
        );
        assert_eq!(shown(&changes.kept), ["SslPort 443 -> 8443"]);
    }

    #[test]
    fn a_data_path_needs_a_restart_unless_it_was_loaded() {
        let with = |data_path| Config {
            data_path,
            ..Config::default()
        };
        let needs_restart = |from, to, loaded| {
            let changes = Changes::new(&with(from), with(to), loaded);
            assert_eq!(changes.config.data_path == to, changes.kept.is_empty());
            !changes.kept.is_empty()
        };
        assert!(needs_restart(Auto, Sockmap, Auto));
        assert!(!needs_restart(Auto, Relay, Auto));
        assert!(!needs_restart(Sockmap, Relay, Sockmap));
        assert!(!needs_restart(Relay, Sockmap, Sockmap));
    }

    #[test]
    fn long_values_are_cut() {
        let change = Change {
            key: "ManagerIP",
            old: Value::from(""),
            new: Value::from("ä".repeat(1_000)),
        };
        assert!(change.to_string().len() < 240);
    }
}
