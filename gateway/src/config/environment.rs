//! Environment variables that give keys their values.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::entry::Entry;
use super::keys::KEYS;
use super::origin::Origin;
use super::report::{Fault, Problem, most_alike};

/// What the names of the variables begin with.
pub(super) const PREFIX: &str = "FLEXVDI_GATEWAY_";

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    pub(super) entries: Vec<Entry>,
    /// What is wrong with other variables of these names.
    pub(super) faults: Vec<Fault>,
}

impl Environment {
    /// Takes those among the variables that begin with [`PREFIX`].
    pub(super) fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut variables: Vec<_> = variables
            .into_iter()
            .filter(|(name, _)| name.as_bytes().starts_with(PREFIX.as_bytes()))
            .collect();
        variables.sort_unstable();
        let mut environment = Self::default();
        for (name, value) in variables {
            environment.take(name.to_string_lossy().into_owned(), &value);
        }
        environment
    }

    fn take(&mut self, name: String, value: &OsString) {
        let word = &name[PREFIX.len()..];
        if is_of_an_orchestrator(word) {
            return;
        }
        let Some(key) = KEYS.iter().find(|key| key.variable() == word) else {
            let known = KEYS.iter().map(|key| (key.variable(), key.variable()));
            let suggestion = most_alike(word, known);
            self.faults.push(Fault::Variable { name, suggestion });
            return;
        };
        let origin = Origin::Variable(name);
        match value.to_str() {
            Some(text) => self.entries.push(Entry::of_text(origin, key, text)),
            None => self.faults.push(Fault::Value {
                origin,
                problem: Problem {
                    key: key.name,
                    expected: "UTF-8".to_owned(),
                    found: "something else".to_owned(),
                },
            }),
        }
    }
}

/// Whether this is what Kubernetes, or a link of Docker, tells every container of a service that is
/// called `flexvdi-gateway`: `SERVICE_HOST`, `SERVICE_PORT_HTTPS`, `PORT`, `PORT_443_TCP_ADDR`. No key
/// is called like that.
fn is_of_an_orchestrator(word: &str) -> bool {
    let is_number = |text: &str| {
        text.bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_digit())
    };
    ["SERVICE_HOST", "SERVICE_PORT", "PORT", "NAME"].contains(&word)
        || word.starts_with("SERVICE_PORT_")
        || word.strip_prefix("PORT_").is_some_and(is_number)
        || word.starts_with("ENV_")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::ffi::OsStringExt;

    use serde_json::json;

    use super::*;
    use crate::config::key::Key;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter();
        Environment::of(variables.map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn variables_have_the_names_of_their_keys() {
        let names: HashSet<_> = KEYS.iter().map(Key::variable).collect();
        assert_eq!(names.len(), KEYS.len());
        for (name, variable) in [
            ("ManagerIP", "MANAGER_IP"),
            ("ManagerCAFile", "MANAGER_CA_FILE"),
            ("HostTLS", "HOST_TLS"),
            ("TicketURLCAFile", "TICKET_URL_CA_FILE"),
            ("SslPort", "SSL_PORT"),
            ("MaxConnectionsPerAddress", "MAX_CONNECTIONS_PER_ADDRESS"),
        ] {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            assert_eq!(key.variable(), variable);
        }
        // What is left out must never be a key.
        for key in KEYS {
            assert!(!is_of_an_orchestrator(&key.variable()), "{}", key.name);
        }
    }

    #[test]
    fn only_variables_with_the_prefix_count() {
        let environment = environment(&[
            ("FLEXVDI_GATEWAY_SSL_PORT", "8443"),
            ("FLEXVDI_GATEWAY_MANAGER_IP", "manager.example.com"),
            ("SSL_PORT", "1"),
            ("FLEXVDI_MANAGER_IP", "1"),
            ("FLEXVDI_GATEWAY", "1"),
        ]);
        assert_eq!(environment.faults.len(), 0);
        let entries = environment.entries.iter();
        let entries: Vec<_> = entries
            .map(|entry| (&*entry.name, entry.value.clone(), entry.origin.to_string()))
            .collect();
        assert_eq!(
            entries,
            [
                (
                    "ManagerIP",
                    json!("manager.example.com"),
                    "FLEXVDI_GATEWAY_MANAGER_IP".to_owned()
                ),
                (
                    "SslPort",
                    json!(8443),
                    "FLEXVDI_GATEWAY_SSL_PORT".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_variable_of_no_key_is_told_with_the_nearest_and_without_its_value() {
        let faults = environment(&[
            ("FLEXVDI_GATEWAY_MANGER_IP", "secret"),
            ("FLEXVDI_GATEWAY_ManagerIP", "secret"),
            ("FLEXVDI_GATEWAY_PASSWORD", "secret"),
            ("FLEXVDI_GATEWAY_", "secret"),
        ])
        .faults;
        let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let mean = "there is no such key; did you mean FLEXVDI_GATEWAY_MANAGER_IP?";
        assert_eq!(
            told,
            [
                "FLEXVDI_GATEWAY_: there is no such key".to_owned(),
                format!("FLEXVDI_GATEWAY_MANGER_IP: {mean}"),
                format!("FLEXVDI_GATEWAY_ManagerIP: {mean}"),
                "FLEXVDI_GATEWAY_PASSWORD: there is no such key".to_owned(),
            ]
        );
    }

    #[test]
    fn what_is_no_text_is_told() {
        let name = OsString::from("FLEXVDI_GATEWAY_CERT_FILE");
        let variables = [
            (name, OsString::from_vec(b"/\xff".to_vec())),
            (
                OsString::from_vec(b"FLEXVDI_GATEWAY_\xff".to_vec()),
                OsString::new(),
            ),
        ];
        let faults = Environment::of(variables).faults;
        let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "FLEXVDI_GATEWAY_CERT_FILE: CertFile: expected UTF-8, found something else",
                "FLEXVDI_GATEWAY_\u{fffd}: there is no such key",
            ]
        );
    }

    #[test]
    fn what_an_orchestrator_tells_of_a_service_is_left_alone() {
        let environment = environment(&[
            ("FLEXVDI_GATEWAY_SERVICE_HOST", "10.96.0.7"),
            ("FLEXVDI_GATEWAY_SERVICE_PORT", "443"),
            ("FLEXVDI_GATEWAY_SERVICE_PORT_HTTPS", "443"),
            ("FLEXVDI_GATEWAY_PORT", "tcp://10.96.0.7:443"),
            ("FLEXVDI_GATEWAY_PORT_443_TCP", "tcp://10.96.0.7:443"),
            ("FLEXVDI_GATEWAY_PORT_443_TCP_PROTO", "tcp"),
            ("FLEXVDI_GATEWAY_PORT_443_TCP_ADDR", "10.96.0.7"),
        ]);
        assert!(environment.entries.is_empty() && environment.faults.is_empty());
    }
}
