//! The configuration that a setup writes.

use serde_json::{Map, Value, json};

use super::answers::{Answers, Source};
use super::certificate::Certificate;
use crate::config::Config;
use crate::target::Target;

/// Seconds between Pings: short enough for balancers and home routers, which forget what is silent
/// for a minute.
const KEEP_ALIVE: u64 = 30;

/// The keys with their values. Those that `overrides` another file say as well what is not to be.
pub(super) fn members(answers: &Answers, overrides: bool) -> Value {
    let mut members = Map::new();
    let mut set = |key: &str, value: Value| members.insert(key.to_owned(), value);
    if let Some(name) = answers.names.first() {
        set("ExternalName", json!(name.to_string()));
    }
    match &answers.desktops {
        Source::Manager(manager, authorities) => {
            let usual = Config::default().manager_port;
            let port = manager.port.unwrap_or(usual);
            set("ManagerIP", json!(manager.host.to_string()));
            if overrides || port != usual {
                set("ManagerPort", json!(port));
            }
            match authorities {
                Some(path) => set("ManagerCAFile", json!(path)),
                None if overrides => set("ManagerCAFile", json!("")),
                None => None,
            };
            if overrides {
                set("Desktops", json!(""));
            }
        }
        Source::File(path, first) => {
            if overrides {
                set("ManagerIP", json!(""));
            }
            set("Desktops", json!(path));
            // Nothing else can be reached by a mistake in that file.
            match first.as_ref().map(|first| &first.address) {
                Some(Target::Tcp { host, .. }) if let Some(address) = host.address() => {
                    set("AllowedHosts", json!([address.to_string()]));
                }
                Some(Target::Unix(path)) => {
                    if let Some(folder) = path.as_path().parent() {
                        set("AllowedSockets", json!([folder]));
                    }
                }
                _ => {}
            }
        }
    }
    match &answers.certificate {
        Certificate::Files(files) => {
            set("CertFile", json!(files.cert));
            set("KeyFile", json!(files.key));
            if overrides {
                set("Acme", json!(""));
            }
        }
        Certificate::Authority(authority) => {
            set("Acme", authority.value.clone());
            if overrides {
                // Beside Acme nothing but these may stand.
                let usual = Config::default();
                set("CertFile", json!(usual.cert_file));
                set("KeyFile", json!(usual.key_file));
            }
        }
    }
    if let Some(directory) = &answers.web_client {
        set("WebClient", json!(directory));
    }
    set("KeepAlive", json!(KEEP_ALIVE));
    members.into()
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Files;
    use super::super::first_desktop::FirstDesktop;
    use super::*;
    use crate::secret::Secret;

    fn answers(desktops: Source) -> Answers {
        Answers {
            names: vec!["vdi.example.com".parse().unwrap()],
            desktops,
            certificate: Certificate::Files(Files {
                cert: "/c".into(),
                key: "/k".into(),
                is_new: false,
            }),
            web_client: None,
        }
    }

    fn file(address: &str) -> Source {
        let first = FirstDesktop {
            address: address.parse().unwrap(),
            spice_password: Secret::default(),
            user: "ana".to_owned(),
            password: Secret::default(),
        };
        Source::File("/d.json".into(), Some(first))
    }

    #[test]
    fn a_file_of_its_own_says_only_what_differs_from_the_defaults() {
        let manager = Source::Manager("m.example".parse().unwrap(), None);
        assert_eq!(
            members(&answers(manager), false),
            json!({"ExternalName": "vdi.example.com", "ManagerIP": "m.example",
                   "CertFile": "/c", "KeyFile": "/k", "KeepAlive": 30})
        );
        assert_eq!(
            members(&answers(file("127.0.0.1:5900")), false),
            json!({"ExternalName": "vdi.example.com", "Desktops": "/d.json",
                   "AllowedHosts": ["127.0.0.1"],
                   "CertFile": "/c", "KeyFile": "/k", "KeepAlive": 30})
        );
        let socket = members(&answers(file("unix:/run/spice/7.sock")), false);
        assert_eq!(socket["AllowedSockets"], json!(["/run/spice"]));
        let named = members(&answers(file("host.example:5900")), false);
        assert_eq!(named.get("AllowedHosts"), None);
    }

    #[test]
    fn one_that_overrides_another_says_what_is_not_to_be() {
        let manager = Source::Manager("m.example:8443".parse().unwrap(), Some("/ca".into()));
        let written = members(&answers(manager), true);
        assert_eq!(
            (
                &written["Desktops"],
                &written["ManagerPort"],
                &written["ManagerCAFile"]
            ),
            (&json!(""), &json!(8443), &json!("/ca"))
        );
        assert_eq!(written["Acme"], "");
        let written = members(&answers(file("127.0.0.1:5900")), true);
        assert_eq!(written["ManagerIP"], "");
    }
}
