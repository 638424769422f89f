//! Takes out of the report what must not leave the machine: secrets, and who the clients are.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use regex_lite::{Captures, Regex};
use serde_json::{Map, Value};

use super::archive::Entry;
use super::patterns::{Patterns, without_value};
use super::pseudonyms::Pseudonyms;
use super::random::REMOVED;
use super::sources::{Form, Source};
use crate::config::{Config, effective_json};

/// Members that have the address of a client.
const ADDRESSES: [&str; 2] = ["client", "peer"];
/// Members that name a person or a person's device.
const NAMES: [&str; 2] = ["user", "terminal"];
/// Members that say where hosts are, which is no secret of clients.
const HOSTS: [&str; 1] = ["host"];
/// Members that must never be shown, whatever they hold.
const SECRETS: [&str; 9] = [
    "password",
    "spice_password",
    "ticket",
    "token",
    "secret",
    "key",
    "cookie",
    "authorization",
    "hash",
];
/// Keys whose networks are those of clients, not of the installation.
const CLIENT_NETWORKS: [&str; 2] = ["AllowedClients", "DeniedClients"];
/// Settings of units that hold secrets, and the rest of whose line is none of ours.
const UNIT_SECRETS: [&str; 6] = [
    "Environment",
    "SetCredential",
    "SetCredentialEncrypted",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "PassEnvironment",
];

/// Takes it out of all parts of a report.
pub(super) struct Redactor {
    patterns: Patterns,
    fields: Regex,
    v4: Regex,
    v6: Regex,
    /// Addresses of the installation, which stay.
    own: HashSet<IpAddr>,
    /// `None`: those of clients stay too.
    clients: Option<Who>,
}

/// Who the clients are.
struct Who {
    addresses: Pseudonyms,
    names: HashMap<&'static str, Pseudonyms>,
}

impl Redactor {
    /// For an installation with this configuration.
    pub(super) fn new(config: &Config, with_addresses: bool) -> Self {
        let regex =
            |pattern| Regex::new(pattern).unwrap_or_else(|_| unreachable!("a test compiles it"));
        let mut redactor = Self {
            patterns: Patterns::default(),
            fields: regex(r#"\b(client|peer|user|terminal|host)=("(?:[^"\\]|\\.)*"|[^\s"]+)"#),
            v4: regex(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"),
            v6: regex(r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"),
            own: HashSet::new(),
            clients: (!with_addresses).then(|| Who {
                addresses: Pseudonyms::new("client"),
                names: NAMES.map(|kind| (kind, Pseudonyms::new(kind))).into(),
            }),
        };
        let values = effective_json(config);
        for (key, value) in values.as_object().into_iter().flatten() {
            if !CLIENT_NETWORKS.contains(&key.as_str()) {
                redactor.keep(&value.to_string());
            }
        }
        redactor
    }

    /// The parts as they may be shown.
    pub(super) fn all(mut self, sources: Vec<Source>) -> Vec<Entry> {
        for source in &sources {
            self.learn(source);
        }
        let mut entries = Vec::with_capacity(sources.len());
        for source in sources {
            let text = match source.form {
                Form::Text => self.text(&source.text),
                Form::Json => match serde_json::from_str(&source.text) {
                    Ok(value) => pretty(&self.value("", value)),
                    Err(_) => self.text(&source.text),
                },
                Form::JsonLines => {
                    let lines = source.text.lines().map(|line| self.json_line(line));
                    lines.collect::<Vec<_>>().join("\n") + "\n"
                }
                Form::Unit => self.text(&without_environment(&source.text)),
            };
            let name = source.name;
            entries.push(Entry { name, text });
        }
        entries
    }

    /// Finds out which addresses are hosts' before the first client is looked at.
    fn learn(&mut self, source: &Source) {
        match source.form {
            Form::Json => {
                if let Ok(value) = serde_json::from_str(&source.text) {
                    self.learn_hosts(&value);
                }
            }
            Form::JsonLines => {
                for value in source
                    .text
                    .lines()
                    .filter_map(|line| serde_json::from_str(line).ok())
                {
                    self.learn_hosts(&value);
                }
            }
            Form::Text => {
                let found = self.fields.captures_iter(&source.text);
                let hosts = found.filter(|found| HOSTS.contains(&&found[1]));
                let hosts: Vec<_> = hosts.map(|found| found[2].to_owned()).collect();
                for host in hosts {
                    self.keep(&host);
                }
                if source.is_own {
                    self.keep(&source.text);
                }
            }
            Form::Unit => {}
        }
    }

    fn learn_hosts(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match value {
                        Value::String(text) if HOSTS.contains(&key.as_str()) => self.keep(text),
                        _ => self.learn_hosts(value),
                    }
                }
            }
            Value::Array(elements) => elements
                .iter()
                .for_each(|element| self.learn_hosts(element)),
            _ => {}
        }
    }

    /// All addresses in this text stay.
    fn keep(&mut self, text: &str) {
        let found = [&self.v4, &self.v6]
            .into_iter()
            .flat_map(|regex| regex.find_iter(text));
        let found: Vec<_> = found.filter_map(|found| address(found.as_str())).collect();
        self.own.extend(found);
    }

    fn json_line(&mut self, line: &str) -> String {
        match serde_json::from_str(line) {
            Ok(value) => self.value("", value).to_string(),
            // Cut off at the beginning or the end.
            Err(_) => self.text(line),
        }
    }

    /// A value, by the name of the member that has it.
    fn value(&mut self, key: &str, value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let members = members.into_iter().map(|(key, value)| {
                    let value = self.value(&key, value);
                    (key, value)
                });
                Value::Object(members.collect::<Map<_, _>>())
            }
            Value::Array(elements) => {
                let elements = elements.into_iter().map(|element| self.value(key, element));
                Value::Array(elements.collect())
            }
            Value::String(text) => Value::String(self.member(key, &text)),
            other => other,
        }
    }

    fn member(&mut self, key: &str, text: &str) -> String {
        if SECRETS.contains(&key.to_ascii_lowercase().as_str()) {
            return REMOVED.to_owned();
        }
        if key == "TicketURL" {
            return without_path(text);
        }
        if CLIENT_NETWORKS.contains(&key) {
            return text.to_owned();
        }
        match self.who(key, text) {
            Some(pseudonym) => pseudonym,
            None => self.text(text),
        }
    }

    /// What stands for a client or a person; `None`: it is neither, or both are shown.
    fn who(&mut self, key: &str, text: &str) -> Option<String> {
        let who = self.clients.as_mut()?;
        if ADDRESSES.contains(&key) {
            let bare = text.parse::<std::net::SocketAddr>();
            let bare = bare.map_or_else(|_| text.to_owned(), |address| address.ip().to_string());
            return Some(who.addresses.of(&bare));
        }
        let names = who.names.get_mut(key)?;
        Some(names.of(text))
    }

    /// Any text: fields of the log, addresses, and whatever looks like a secret.
    fn text(&mut self, text: &str) -> String {
        let text = self.fields_of(text);
        let text = self.patterns.remove(&text);
        self.without_addresses(&text)
    }

    /// The fields of log lines, `name=value`.
    fn fields_of(&mut self, text: &str) -> String {
        let fields = self.fields.clone();
        let replaced = fields.replace_all(text, |found: &Captures<'_>| {
            let (key, value) = (&found[1], &found[2]);
            let bare = value.trim_matches('"');
            // The number of the user that listens on a Unix socket is nobody at a desktop.
            let is_number = bare.parse::<u32>().is_ok() && !value.starts_with('"');
            match self.who(key, bare) {
                Some(pseudonym) if !is_number => format!("{key}={pseudonym}"),
                _ => found[0].to_owned(),
            }
        });
        replaced.into_owned()
    }

    fn without_addresses(&mut self, text: &str) -> String {
        if self.clients.is_none() {
            return text.to_owned();
        }
        let mut text = text.to_owned();
        for regex in [self.v6.clone(), self.v4.clone()] {
            let replaced = regex.replace_all(&text, |found: &Captures<'_>| {
                let shown = &found[0];
                self.stranger(shown).unwrap_or_else(|| shown.to_owned())
            });
            text = replaced.into_owned();
        }
        text
    }

    /// What stands for an address that is none of the installation's.
    fn stranger(&mut self, text: &str) -> Option<String> {
        let found = address(text)?;
        if found.is_loopback() || found.is_unspecified() || self.own.contains(&found) {
            return None;
        }
        let who = self.clients.as_mut()?;
        Some(who.addresses.of(&found.to_string()))
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.trim_end_matches(['.', ':']).parse().ok()?;
    Some(address.to_canonical())
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A URL's path may be a secret: whoever knows it may ask.
fn without_path(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.split_once(['/', '?']) {
        Some((authority, path)) if !path.is_empty() => {
            format!("{scheme}://{authority}/{REMOVED}")
        }
        _ => url.to_owned(),
    }
}

/// A unit without the values of settings that hold secrets, however many lines they have.
fn without_environment(unit: &str) -> String {
    let mut shown = String::new();
    let mut is_in_secret = false;
    for line in unit.lines() {
        let secret = line
            .split_once('=')
            .filter(|(key, value)| UNIT_SECRETS.contains(&key.trim()) && !value.trim().is_empty());
        let goes_on = line.trim_end().ends_with('\\');
        if is_in_secret {
            shown.push_str(REMOVED);
            // Comments stand between the lines of a value, and do not end it.
            is_in_secret = goes_on || line.trim_start().starts_with(['#', ';']);
        } else if let Some((key, value)) = secret {
            let value = without_value(value.trim().trim_matches('"'));
            shown.extend([key, "=", &value]);
            is_in_secret = goes_on;
        } else {
            shown.push_str(line);
        }
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(form: Form, text: &str, with_addresses: bool) -> String {
        let config = Config {
            manager_ip: "10.0.0.2".to_owned(),
            ..Config::default()
        };
        let source = Source {
            name: "x".to_owned(),
            form,
            text: text.to_owned(),
            is_own: false,
        };
        let redactor = Redactor::new(&config, with_addresses);
        redactor.all(vec![source]).remove(0).text
    }

    #[test]
    fn clients_are_the_same_wherever_they_are_named() {
        let log = "WARN x client=192.0.2.7 user=\"anna b\" host=10.0.0.21:5903\n\
                   INFO y peer=[2001:db8::7]:99 reason=\"192.0.2.7 left, 10.0.0.21 and 10.0.0.2 not\"\n\
                   INFO channel open user=107 at 22:54:15\n";
        let expected = "WARN x client=client-1 user=user-1 host=10.0.0.21:5903\n\
                   INFO y peer=client-2 reason=\"client-1 left, 10.0.0.21 and 10.0.0.2 not\"\n\
                   INFO channel open user=107 at 22:54:15\n";
        assert_eq!(redacted(Form::Text, log, false), expected);
        assert_eq!(redacted(Form::Text, log, true), log);
    }

    #[test]
    fn members_are_known_by_their_names() {
        let line = r#"{"event":"login","client":"192.0.2.7","user":"anna","result":"user","n":1}"#;
        let expected = "{\"event\":\"login\",\"client\":\"client-1\",\"user\":\"user-1\",\
                        \"result\":\"user\",\"n\":1}\n";
        assert_eq!(redacted(Form::JsonLines, line, false), expected);
        let json =
            r#"{"TicketURL":"https://p.example/hook/geheim?a=b","password":"x","paths":["/a"]}"#;
        let shown = redacted(Form::Json, json, true);
        assert!(shown.contains("https://p.example/[removed]"), "{shown}");
        assert!(shown.contains("\"password\": \"[removed]\""), "{shown}");
        assert!(!shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn a_line_that_was_cut_off_shows_no_more_than_others() {
        let line = r#"ent":"refused","client":"198.51.100.4","token":"abc"}"#;
        let shown = redacted(Form::JsonLines, line, false);
        assert!(
            !shown.contains("198.51") && !shown.contains("abc"),
            "{shown}"
        );
    }

    #[test]
    fn units_show_no_environment() {
        let unit =
            "[Service]\nEnvironment=\"TOKEN=x y\"\nEnvironment=\nExecStart=/x --password=y\n";
        let expected = "[Service]\nEnvironment=TOKEN=[removed]\nEnvironment=\n\
                        ExecStart=/x --password=[removed]\n";
        assert_eq!(redacted(Form::Unit, unit, false), expected);
    }

    #[test]
    fn values_of_several_lines_and_credentials_are_removed_wholly() {
        let unit = "Environment=A=geheim \\\n# comment\n  B=geheim\nUser=x\n\
                    SetCredential=id:geheim geheim=\nExecStart=/x \\\n  --y\n";
        let expected = "Environment=A=[removed]\n[removed]\n[removed]\nUser=x\n\
                        SetCredential=[removed]\nExecStart=/x \\\n  --y\n";
        assert_eq!(redacted(Form::Unit, unit, false), expected);
    }
}
