//! Makes a [`Config`] of what all places say, with everything that is wrong reported at once.

use std::collections::BTreeMap;
use std::path::Path;

use super::Config;
use super::check::check;
use super::entry::Entry;
use super::keys::{SCHEMA_MEMBER, find};
use super::origin::Origin;
use super::report::{ConfigError, Fault, Oddity, Warning, nearest};
use super::sources::Sources;

/// A configuration that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// What the administrator should know, in the order of the files.
    pub warnings: Vec<Warning>,
    /// Whether the configuration file itself was there.
    pub has_file: bool,
    /// Of the keys that have not their defaults from here: who gave them the values in effect.
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// One of which nobody knows where its values come from.
    #[cfg(test)]
    pub(crate) fn of(config: Config) -> Self {
        Self {
            config,
            warnings: Vec::new(),
            has_file: true,
            origins: BTreeMap::new(),
        }
    }

    /// Where the value of this key comes from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Reads a configuration from a file and those beside it, as [`Sources::load`] does.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    Sources::of_file(path).load()
}

/// Takes the entries in their order; `faults` are known already, and `path` is the configuration
/// file.
pub(super) fn interpret(
    entries: Vec<Entry>,
    mut faults: Vec<Fault>,
    path: &Path,
    has_file: bool,
) -> Result<Loaded, ConfigError> {
    let mut config = Config::default();
    let mut warnings = Vec::new();
    let mut problems = Vec::new();
    let mut origins = BTreeMap::new();
    for entry in entries {
        let Entry {
            origin,
            name,
            value,
            is_duplicate,
        } = entry;
        if name == SCHEMA_MEMBER && value.is_string() {
            continue;
        }
        let mut warn = |oddity| warnings.push(Warning::new(&origin, path, oddity));
        let Some(key) = find(&name) else {
            let suggestion = nearest(&name);
            warn(Oddity::UnknownKey {
                key: name,
                suggestion,
            });
            continue;
        };
        if is_duplicate {
            warn(Oddity::DuplicateKey { key: key.name });
        }
        if let Err(mismatch) = (key.set)(&mut config, &value) {
            let problem = mismatch.of(key.name);
            problems.push(problem.clone());
            let origin = origin.clone();
            faults.push(Fault::Value { origin, problem });
        }
        origins.insert(key.name, origin);
    }
    // The values against each other; wrong ones are known, and not blamed again.
    let wrong_alone = problems.len();
    check(&config, &mut problems);
    for problem in problems.drain(wrong_alone..) {
        let file = || Origin::File(path.to_owned());
        let origin = origins.get(problem.key).cloned();
        let origin = origin.unwrap_or_else(|| if has_file { file() } else { Origin::Default });
        faults.push(Fault::Value { origin, problem });
    }
    if !faults.is_empty() {
        return Err(ConfigError::Values { faults });
    }
    Ok(Loaded {
        config,
        warnings,
        has_file,
        origins,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tempfile::NamedTempFile;

    use super::super::effective_json;
    use super::super::keys::KEYS;
    use super::*;

    fn file(content: impl AsRef<[u8]>) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(content.as_ref()).unwrap();
        file
    }

    fn loaded(content: impl AsRef<[u8]>) -> Loaded {
        load(file(content).path()).unwrap()
    }

    /// The error's text, the file's name replaced by `conf`.
    fn error(content: impl AsRef<[u8]>) -> String {
        let file = file(content);
        let error = load(file.path()).unwrap_err().to_string();
        error.replace(file.path().to_str().unwrap(), "conf")
    }

    fn warnings(content: &str) -> Vec<String> {
        loaded(content)
            .warnings
            .iter()
            .map(Warning::to_string)
            .collect()
    }

    /// Values of every key, none of them the default, that may stand together in one file.
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub(in super::super) fn samples() -> Vec<(&'static str, Value)> {
        vec![
            ("ManagerIP", json!("[2001:db8::1]")),
            ("ManagerIP", json!("manager.example.com")),
            ("ManagerPort", json!(8443)),
            ("DataPath", json!("relay")),
            ("DataPath", json!("sockmap")),
            ("DataPath", json!("ktls")),
            ("DataPath", json!("ktls-sockmap")),
            ("SpliceFrom", json!(4_096)),
            ("QueueLimit", json!(131_072)),
            ("ManagerCAFile", json!("/etc/ssl/ca.pem")),
            ("ManagerTimeout", json!(31)),
            ("Desktops", json!("/etc/flexvdi/desktops.json")),
            ("ManagerPaths", json!([])),
            ("ManagerPaths", json!(["/vdi/", "/a/b/"])),
            ("ListenAddress", json!("::1")),
            ("ListenAddress", json!("192.0.2.1")),
            ("SslPort", json!(0)),
            ("SslPort", json!(8443)),
            ("CertFile", json!("/etc/ä.pem")),
            ("KeyFile", json!("/etc/key.pem")),
            ("Acme", acme()),
            ("TlsProfile", json!("modern")),
            ("ClientCAFile", json!("/etc/flexvdi/clients.pem")),
            ("ClientCertificates", json!("optional")),
            ("CertificatePoll", json!(11)),
            ("PlainAddress", json!("::1")),
            ("PlainAddress", json!("0.0.0.0")),
            ("PlainPort", json!(8080)),
            ("TrustedProxies", json!(["10.1.2.3/8", "::1"])),
            ("ForwardedHeader", json!("Forwarded")),
            ("ProxyProtocol", json!(["10.1.2.3", "fd00::/8"])),
            ("ExternalName", json!("gateway.example.com")),
            ("WebClient", json!("/usr/share/spice-html5")),
            ("HijackAll", json!(false)),
            ("Connect", json!(false)),
            ("FirstSpicePort", json!(1)),
            ("FirstSpicePort", json!(6000)),
            ("LastSpicePort", json!(6000)),
            ("LastSpicePort", json!(65535)),
            ("SpiceHost", json!("::1")),
            ("SpiceHost", json!("unix:/run/spice/%p.sock")),
            ("AllowedHosts", json!(["192.0.2.0/24"])),
            ("DeniedHosts", json!(["192.0.2.1"])),
            (
                "AllowedSockets",
                json!(["/run/spice", "/var/lib/libvirt/qemu"]),
            ),
            ("HostCAFile", json!("/etc/flexvdi/hosts.pem")),
            ("HostSubject", json!("C=IL,O=Red Hat\\, Inc,CN=my server")),
            ("HostProxyProtocol", json!("v1")),
            ("HostProxyProtocol", json!("v2")),
            ("TicketTimeout", json!(1)),
            ("ReconnectTimeout", json!(31_536_000)),
            ("PoolKeyFile", json!("/etc/flexvdi/pool.keys")),
            ("TicketPublicKeys", json!("/etc/flexvdi/portal.pem")),
            ("TicketAudience", json!("vdi.example.com")),
            ("TicketMaxLife", json!(600)),
            (
                "TicketURL",
                json!("https://portal.example.com:8443/what?a=b"),
            ),
            ("TicketURLCAFile", json!("/etc/flexvdi/portal-ca.pem")),
            ("TicketURLTimeout", json!(2)),
            ("CongestionControl", json!("system")),
            ("CongestionControl", json!("cubic")),
            ("KeepAlive", json!(50)),
            ("ClientTimeout", json!(0)),
            ("ClientTimeout", json!(90)),
            ("HandshakeTimeout", json!(11)),
            ("HeaderTimeout", json!(16)),
            ("ConnectTimeout", json!(11)),
            ("LinkTimeout", json!(11)),
            ("CloseTimeout", json!(6)),
            ("ShutdownTimeout", json!(11)),
            ("AdminAddress", json!("::1")),
            ("AdminPort", json!(9180)),
            ("AdminHosts", json!(["gw.example.com", "gw"])),
            ("RuntimeDir", json!("/run/other")),
            ("StateDirectory", json!("/var/lib/other")),
            ("EbpfDir", json!("/run/other-ebpf")),
            ("HealthPath", json!("")),
            ("HealthPath", json!("/up")),
            ("HealthChecksManager", json!(true)),
            ("DrainDelay", json!(5)),
            ("DrainTimeout", json!(3_600)),
            ("DrainOnStop", json!(true)),
            ("MaxConnections", json!(1)),
            ("MaxConnectionsPerAddress", json!(0)),
            ("MaxConnectionsPerAddress", json!(7)),
            ("MaxSessionsPerAddress", json!(20)),
            ("MaxChannelsPerAddress", json!(200)),
            ("BadTokenLimit", json!(0)),
            ("BadTokenLimit", json!(1)),
            ("BanTime", json!(600)),
            ("AllowedClients", json!(["192.0.2.0/24"])),
            ("AllowedOrigins", json!(["https://portal.example:8443"])),
            ("AllowedChannels", json!(["main", "display"])),
            ("DeniedClients", json!(["192.0.2.1", "2001:db8::/32"])),
            ("MaxHeaderSize", json!(8192)),
            ("MaxHeaderSize", json!(1_048_576)),
            ("MaxUriSize", json!(640)),
            ("WorkerThreads", json!(2)),
            ("AccessLog", json!("/var/log/flexvdi-gateway/access.log")),
            ("Debug", json!(true)),
        ]
    }

    fn acme() -> Value {
        json!({
            "Domains": ["gw.example.com"], "Contact": ["mailto:a@example.com"],
            "Directory": "https://ca.example.com/dir", "DirectoryCAFile": "/etc/ca.pem",
            "TermsAgreed": true, "HttpPort": 80,
        })
    }

    fn object(members: &[(&str, Value)]) -> String {
        let members: Vec<_> = members
            .iter()
            .map(|(key, value)| format!("{}: {value}", json!(key)))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    #[test]
    fn an_empty_object_is_the_default() {
        let loaded = loaded("{}");
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.warnings, []);
    }

    #[test]
    fn files_of_the_flexvdi_gateway_load() {
        let loaded = loaded(
            r#"{
                "ManagerIP": "10.0.0.1", "SslPort": 443, "FirstSpicePort": 5900,
                "LastSpicePort": 25900, "CertFile": "/etc/ssl/certs/flexvdi-agent",
                "KeyFile": "/etc/ssl/certs/flexvdi-agent", "HijackAll": true, "KeepAlive": 30,
                "Debug": false
            }"#,
        );
        assert_eq!(
            loaded.config,
            Config {
                manager_ip: "10.0.0.1".to_owned(),
                keep_alive: Some(Duration::from_secs(30)),
                ..Config::default()
            }
        );
        assert_eq!(loaded.warnings, []);
    }

    #[test]
    fn every_key_sets_its_own_field() {
        let defaults = effective_json(&Config::default());
        // Those are wrong without another: see `hosts_may_have_tls`, `clients_may_be_revoked`.
        let needs_another = |name| ["HostTLS", "ClientCRLFile"].contains(&name);
        for key in KEYS.iter().filter(|key| !needs_another(key.name)) {
            let mut samples = samples().into_iter().filter(|(name, _)| *name == key.name);
            let sample = samples.next().expect(key.name);
            let shown = effective_json(&loaded(object(&[sample])).config);
            for (name, value) in shown.as_object().unwrap() {
                assert_eq!(*value != defaults[name], name == key.name, "{name}");
            }
        }
    }

    #[test]
    fn clients_may_be_revoked() {
        let both = r#"{"ClientCAFile": "ca.pem", "ClientCRLFile": "crl.pem"}"#;
        let shown = effective_json(&loaded(both).config);
        assert_eq!(shown["ClientCRLFile"], "crl.pem");
        let error = error(r#"{"ClientCRLFile": "crl.pem"}"#);
        assert!(error.contains("there is no ClientCAFile"), "{error}");
    }

    #[test]
    fn hosts_may_have_tls() {
        let config = loaded(r#"{"HostTLS": true, "HostCAFile": "ca.pem"}"#).config;
        assert!(config.host_tls);
        let shown = effective_json(&config);
        assert_eq!(
            (&shown["HostTLS"], &shown["HostCAFile"]),
            (&json!(true), &json!("ca.pem"))
        );
        let error = error(r#"{"HostTLS": true, "HostSubject": "CN"}"#);
        assert!(error.contains("HostCAFile: expected the path"), "{error}");
        assert!(error.contains("attribute 1 has no"), "{error}");
    }

    #[test]
    fn values_reach_the_fields_that_mean_them() {
        let config = loaded(
            r#"{"SslPort": 1, "PlainPort": 2, "FirstSpicePort": 3, "LastSpicePort": 4,
                "ManagerPort": 5, "CertFile": "c", "KeyFile": "k", "PlainAddress": "::1",
                "ListenAddress": "::2", "ManagerIP": "[::3]", "ExternalName": "[::4]",
                "SpiceHost": "h", "WorkerThreads": 6, "BadTokenLimit": 0}"#,
        )
        .config;
        assert_eq!(
            config,
            Config {
                ssl_port: 1,
                plain_port: Some(2),
                first_spice_port: 3,
                last_spice_port: 4,
                manager_port: 5,
                cert_file: "c".into(),
                key_file: "k".into(),
                plain_address: "::1".parse().unwrap(),
                listen_address: Some("::2".parse().unwrap()),
                manager_ip: "::3".to_owned(),
                external_name: Some("::4".parse().unwrap()),
                spice_host: "h".parse().unwrap(),
                worker_threads: Some(6),
                bad_token_limit: None,
                ..Config::default()
            }
        );
    }

    /// Without those that must not be there together with `Desktops` or `Acme`.
    fn compatible(mut members: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
        if members.iter().any(|(name, _)| *name == "Desktops") {
            members.retain(|(name, _)| !["ManagerIP", "ManagerPaths", "HijackAll"].contains(name));
        }
        if members.iter().any(|(name, _)| *name == "Acme") {
            members.retain(|(name, _)| !["CertFile", "KeyFile"].contains(name));
        }
        members
    }

    proptest! {
        #[test]
        fn effective_values_load_as_the_same_configuration(
            members in prop::sample::subsequence(samples(), 0..=samples().len())
        ) {
            let first = loaded(object(&compatible(members))).config;
            let second = loaded(effective_json(&first).to_string());
            prop_assert_eq!(second.config, first);
            prop_assert_eq!(second.warnings, []);
        }

        #[test]
        fn any_content_is_loaded_or_refused(
            content in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            let _ = load(file(content).path());
        }
    }

    #[test]
    fn unknown_keys_are_ignored_with_the_nearest_known_one() {
        assert_eq!(
            warnings(
                r#"{"SSLPort": "secret", "Managerip": 1, "KeepAlife": 2, "Password": "secret",
                    "max_connections": 3, "": 4, "a\nb": 5}"#
            ),
            [
                r#"unknown key "SSLPort" ignored; did you mean "SslPort"?"#,
                r#"unknown key "Managerip" ignored; did you mean "ManagerIP"?"#,
                r#"unknown key "KeepAlife" ignored; did you mean "KeepAlive"?"#,
                r#"unknown key "Password" ignored"#,
                r#"unknown key "max_connections" ignored; did you mean "MaxConnections"?"#,
                r#"unknown key "" ignored"#,
                r#"unknown key "a\nb" ignored"#,
            ]
        );
    }

    #[test]
    fn of_duplicate_keys_the_last_counts() {
        let content = r#"{"SslPort": "wrong", "x": 1, "SslPort": 2, "x": 2, "SslPort": 3}"#;
        assert_eq!(loaded(content).config.ssl_port, 3);
        assert_eq!(
            warnings(content),
            [
                r#"key "SslPort" is given more than once; the last one counts"#,
                r#"unknown key "x" ignored"#,
            ]
        );
    }

    #[test]
    fn all_wrong_values_are_reported_at_once() {
        assert_eq!(
            error(
                r#"{"SslPort": "443x", "Debug": 1, "unknown": 1, "ManagerIP": "https://manager",
                    "ExternalName": "gateway:443", "KeepAlive": -1, "PlainPort": 70000,
                    "MaxHeaderSize": 8191, "TrustedProxies": ["10.0.0.0/8", "10.0.0.0/33"],
                    "ManagerPaths": ["/vdi"], "CertFile": "", "FirstSpicePort": 0,
                    "MaxConnections": 0, "CloseTimeout": 0, "MaxUriSize": 63, "KeyFile": null,
                    "ListenAddress": "::1", "PlainAddress": "::1"}"#
            ),
            [
                r#"conf: SslPort: expected a port number from 0 to 65535, found "443x""#,
                "conf: Debug: expected true or false, found 1",
                "conf: ManagerIP: expected a host name or IP address without a scheme \
                 (\"https://\"), or \"\", found \"https://manager\"",
                "conf: ExternalName: expected a host name or IP address without a port, \
                 or \"\", found \"gateway:443\"",
                "conf: KeepAlive: expected whole seconds from 1 to 31536000, or 0, found -1",
                "conf: PlainPort: expected a port number from 1 to 65535, or 0, found 70000",
                "conf: MaxHeaderSize: expected a whole number from 8192 to 1048576, found 8191",
                "conf: TrustedProxies: expected each element to be a network such as \
                 \"10.0.0.0/8\" or an IP address, found \"10.0.0.0/33\"",
                "conf: ManagerPaths: expected each element to be a path that begins and ends \
                 with \"/\", found \"/vdi\"",
                r#"conf: CertFile: expected the path of a file, found """#,
                "conf: FirstSpicePort: expected a port number from 1 to 65535, found 0",
                "conf: MaxConnections: expected a whole number from 1 to 1000000, found 0",
                "conf: CloseTimeout: expected whole seconds from 1 to 31536000, found 0",
                "conf: MaxUriSize: expected a whole number from 64 to 65534, found 63",
                "conf: KeyFile: expected the path of a file, found null",
            ]
            .join("\n")
        );
    }

    #[test]
    fn syntax_errors_say_where() {
        assert_eq!(
            error("{\n  \"SslPort\": 443,\n}"),
            "conf: line 3, column 1: trailing comma"
        );
        assert_eq!(
            error(""),
            "conf: line 1, column 0: EOF while parsing a value"
        );
        assert_eq!(
            error("{} {}"),
            "conf: line 1, column 4: trailing characters"
        );
        assert!(error(b"{\"CertFile\": \"\xff\"}").starts_with("conf: line 1, column "));
        assert!(error(format!("{{\"x\": {}", "[".repeat(100_000))).contains("recursion limit"));
        for other in ["[]", "\"text\"", "1", "null", "true"] {
            let error = error(other);
            assert!(error.starts_with("conf: line 1, column "), "{error}");
            assert!(error.ends_with(": expected a JSON object"), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(loaded("\u{feff}{\"SslPort\": 1}").config.ssl_port, 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nonexistent/gateway.conf")).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }));
        assert_eq!(
            error.to_string(),
            "/nonexistent/gateway.conf: No such file or directory (os error 2)"
        );
    }
}
