//! All places that a configuration comes from: a file, files beside it, the environment and the
//! command line, in this order. Later ones override keys of earlier ones.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::entry::Entry;
use super::environment::Environment;
use super::file::{drop_ins, entries};
use super::key::Key;
use super::keys::find;
use super::load::{Loaded, interpret};
use super::origin::Origin;
use super::report::{ConfigError, nearest};
use super::value::quote;

/// Where a configuration comes from. The environment and the command line are those of the start;
/// files are read again each time.
#[derive(Clone, Debug)]
pub struct Sources {
    file: PathBuf,
    /// Whether the file may be missing if there is something else.
    is_optional: bool,
    environment: Environment,
    arguments: Vec<Assignment>,
}

impl Sources {
    /// A file and those beside it; nothing else.
    pub fn of_file(file: &Path) -> Self {
        Self::new(file.to_owned(), [], Vec::new())
    }

    /// A file and those beside it, the keys among these environment variables, and what the command
    /// line sets.
    pub fn new(
        file: PathBuf,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        arguments: Vec<Assignment>,
    ) -> Self {
        Self {
            file,
            is_optional: true,
            environment: Environment::of(variables),
            arguments,
        }
    }

    /// The configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What another process of the same program has to be started with, to read the same; the
    /// environment goes to it by itself.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["--config".into(), self.file.clone().into()];
        for assignment in &self.arguments {
            arguments.extend(["--set".into(), assignment.to_string().into()]);
        }
        arguments
    }

    /// Reads everything. Keys that no place gives keep their defaults.
    ///
    /// Fails when a file cannot be read or is not one JSON object, and when there are wrong values
    /// or variables, which are then told all at once. A file that is missing is no error if there is
    /// something else that says anything.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let beside = drop_ins(&self.file)?;
        let says_more = !beside.is_empty()
            || !self.environment.entries.is_empty()
            || !self.environment.faults.is_empty()
            || !self.arguments.is_empty();
        let (mut all, has_file) = match entries(&self.file) {
            Ok(found) => (found, true),
            Err(ConfigError::Read { reason, .. })
                if self.is_optional && says_more && reason.kind() == io::ErrorKind::NotFound =>
            {
                (Vec::new(), false)
            }
            Err(error) => return Err(error),
        };
        for path in beside {
            all.extend(entries(&path)?);
        }
        all.extend(self.environment.entries.iter().cloned());
        all.extend(self.arguments.iter().map(Assignment::entry));
        let faults = self.environment.faults.clone();
        interpret(all, faults, &self.file, has_file)
    }

    /// The same once the file was there: from then on it must be, because a file that is gone is a
    /// mistake and not the wish to have all defaults back.
    #[must_use]
    pub fn after(mut self, loaded: &Loaded) -> Self {
        self.is_optional &= !loaded.has_file;
        self
    }
}

/// `KEY=VALUE` of the command line.
#[derive(Clone)]
pub struct Assignment {
    key: &'static Key,
    /// JSON, or a string without quotation marks.
    value: String,
}

/// Why a text is no [`Assignment`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// There is no `=` in it.
    #[error("expected KEY=VALUE, such as SslPort=8443")]
    NoValue,
    /// There is no such key.
    #[error("there is no key {key}{}", did_you_mean(*.suggestion))]
    UnknownKey {
        /// The key in quotation marks.
        key: String,
        /// The key that was perhaps meant.
        suggestion: Option<&'static str>,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

impl FromStr for Assignment {
    type Err = AssignmentError;

    fn from_str(text: &str) -> Result<Self, AssignmentError> {
        let (name, value) = text.split_once('=').ok_or(AssignmentError::NoValue)?;
        let key = find(name).ok_or_else(|| AssignmentError::UnknownKey {
            key: quote(name),
            suggestion: nearest(name),
        })?;
        Ok(Self {
            key,
            value: value.to_owned(),
        })
    }
}

impl Assignment {
    fn entry(&self) -> Entry {
        Entry::of_text(Origin::CommandLine, self.key, &self.value)
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key.name, self.value)
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::super::{drop_in_directory, effective_json};
    use super::*;

    /// A folder with a configuration file that need not be there.
    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("gateway.conf")
        }

        fn write(&self, content: &str) {
            fs::write(self.file(), content).unwrap();
        }

        fn drop_in(&self, name: &str, content: &str) {
            let directory = drop_in_directory(&self.file());
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(name), content).unwrap();
        }

        fn sources(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Sources {
            let variables = variables.iter();
            let variables = variables.map(|(name, value)| (name.into(), value.into()));
            let arguments = arguments.iter().map(|text| text.parse().unwrap());
            Sources::new(self.file(), variables, arguments.collect())
        }

        /// The error's text, the folder's name left out.
        fn error(&self, variables: &[(&str, &str)], arguments: &[&str]) -> String {
            let sources = self.sources(variables, arguments);
            let error = sources.load().unwrap_err().to_string();
            error.replace(&format!("{}/", self.0.path().display()), "")
        }
    }

    #[test]
    fn later_places_override_earlier_ones_key_by_key() {
        let place = Place::new();
        place.write(
            r#"{"SslPort": 1, "KeepAlive": 1, "AllowedHosts": ["10.0.0.0/8", "10.1.0.0/16"],
                "BanTime": 1, "MaxUriSize": 1000, "Debug": true}"#,
        );
        place.drop_in(
            "10.conf",
            r#"{"KeepAlive": 2, "AllowedHosts": ["192.0.2.0/24"], "BanTime": 2, "MaxUriSize": 2000}"#,
        );
        place.drop_in("20.conf", r#"{"BanTime": 3, "MaxUriSize": 3000}"#);
        let variables = [
            ("FLEXVDI_GATEWAY_BAN_TIME", "4"),
            ("FLEXVDI_GATEWAY_MAX_URI_SIZE", "4000"),
        ];
        let arguments = ["MaxUriSize=5000", "MaxUriSize=6000"];
        let loaded = place.sources(&variables, &arguments).load().unwrap();
        let shown = effective_json(&loaded.config);
        let beside = |name: &str| {
            let path = drop_in_directory(&place.file()).join(name);
            Origin::File(path)
        };
        for (key, value, origin) in [
            ("SslPort", json!(1), Origin::File(place.file())),
            ("Debug", json!(true), Origin::File(place.file())),
            ("KeepAlive", json!(2), beside("10.conf")),
            // A list takes the place of another one as a whole.
            ("AllowedHosts", json!(["192.0.2.0/24"]), beside("10.conf")),
            (
                "BanTime",
                json!(4),
                Origin::Variable("FLEXVDI_GATEWAY_BAN_TIME".to_owned()),
            ),
            ("MaxUriSize", json!(6000), Origin::CommandLine),
            ("CloseTimeout", json!(5), Origin::Default),
        ] {
            assert_eq!(shown[key], value, "{key}");
            assert_eq!(loaded.origin(key), &origin, "{key}");
        }
        assert_eq!(loaded.warnings, []);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_all_at_once() {
        let place = Place::new();
        place.write(r#"{"SslPort": "x", "FirstSpicePort": 7000}"#);
        place.drop_in("a.conf", r#"{"SslPort": 8443, "KeepAlive": -1}"#);
        place.drop_in("b.conf", r#"{"LastSpicePort": 6000}"#);
        let told = place.error(
            &[
                ("FLEXVDI_GATEWAY_BAN_TIME", "long"),
                ("FLEXVDI_GATEWAY_BANN_TIME", "1"),
            ],
            &["AllowedHosts=10.0.0.0/8"],
        );
        assert_eq!(
            told.lines().collect::<Vec<_>>(),
            [
                "FLEXVDI_GATEWAY_BANN_TIME: there is no such key; did you mean \
                 FLEXVDI_GATEWAY_BAN_TIME?",
                // Overridden, and wrong all the same.
                "gateway.conf: SslPort: expected a port number from 0 to 65535, found \"x\"",
                "gateway.conf.d/a.conf: KeepAlive: expected whole seconds from 1 to 31536000, \
                 or 0, found -1",
                "FLEXVDI_GATEWAY_BAN_TIME: BanTime: expected whole seconds from 1 to 31536000, \
                 found \"long\"",
                "--set: AllowedHosts: expected an array of strings, found \"10.0.0.0/8\"",
                "gateway.conf: FirstSpicePort: expected a port not above LastSpicePort (6000), \
                 found 7000",
            ]
        );
    }

    #[test]
    fn a_broken_file_beside_it_is_named_with_the_line() {
        let place = Place::new();
        place.write("{}");
        place.drop_in("a.conf", "{\n  \"SslPort\": 1,\n}");
        assert_eq!(
            place.error(&[], &[]),
            "gateway.conf.d/a.conf: line 3, column 1: trailing comma"
        );
    }

    #[test]
    fn oddities_of_files_beside_it_are_told_with_their_names() {
        let place = Place::new();
        place.write(r#"{"KeepAlife": 1, "$schema": "https://example.com/schema.json"}"#);
        place.drop_in("a.conf", r#"{"SslPort": 1, "SslPort": 2, "$schema": "s"}"#);
        let loaded = place.sources(&[], &[]).load().unwrap();
        let told: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        let beside = drop_in_directory(&place.file()).join("a.conf");
        assert_eq!(
            told,
            [
                "unknown key \"KeepAlife\" ignored; did you mean \"KeepAlive\"?".to_owned(),
                format!(
                    "{}: key \"SslPort\" is given more than once; the last one counts",
                    beside.display()
                ),
            ]
        );
    }

    #[test]
    fn a_missing_file_is_an_error_only_where_nothing_else_says_anything() {
        let place = Place::new();
        fs::create_dir(drop_in_directory(&place.file())).unwrap();
        assert_eq!(
            place.error(&[], &[]),
            "gateway.conf: No such file or directory (os error 2)"
        );
        let variable = ("FLEXVDI_GATEWAY_SSL_PORT", "1");
        for (variables, arguments) in [(&[variable][..], &[][..]), (&[], &["SslPort=1"])] {
            let loaded = place.sources(variables, arguments).load().unwrap();
            assert_eq!(loaded.config.ssl_port, 1);
        }
        place.drop_in("a.conf", r#"{"SslPort": 2}"#);
        let sources = place.sources(&[], &[]);
        let loaded = sources.load().unwrap();
        assert_eq!(loaded.config.ssl_port, 2);

        // One that was there must not go.
        let sources = sources.after(&loaded);
        place.write("{}");
        let loaded = sources.load().unwrap();
        let sources = sources.after(&loaded);
        fs::remove_file(place.file()).unwrap();
        assert!(matches!(sources.load(), Err(ConfigError::Read { .. })));
        // Anything else than its absence is an error in any case.
        fs::create_dir(place.file()).unwrap();
        assert!(place.error(&[variable], &[]).contains("Is a directory"));
    }

    #[test]
    fn another_process_is_given_the_same() {
        let place = Place::new();
        let arguments = ["SslPort=1", "HostSubject=O=a b,CN=c"];
        let sources = place.sources(&[("FLEXVDI_GATEWAY_DEBUG", "true")], &arguments);
        let file = place.file().into_os_string();
        let expected: [OsString; 6] = [
            "--config".into(),
            file,
            "--set".into(),
            "SslPort=1".into(),
            "--set".into(),
            "HostSubject=O=a b,CN=c".into(),
        ];
        assert_eq!(sources.arguments(), expected);
    }

    #[test]
    fn assignments_that_are_none_are_told() {
        for (text, told) in [
            ("SslPort", "expected KEY=VALUE, such as SslPort=8443"),
            ("", "expected KEY=VALUE, such as SslPort=8443"),
            (
                "SSLPort=1",
                "there is no key \"SSLPort\"; did you mean SslPort?",
            ),
            ("=1", "there is no key \"\""),
            ("$schema=x", "there is no key \"$schema\""),
            ("Password=secret", "there is no key \"Password\""),
        ] {
            let error = text.parse::<Assignment>().unwrap_err();
            assert_eq!(error.to_string(), told, "{text}");
        }
        // Nothing but the first sign of equality parts them.
        let assignment: Assignment = "TicketURL=https://p.example/?a=b".parse().unwrap();
        assert_eq!(assignment.to_string(), "TicketURL=https://p.example/?a=b");
    }
}
