//! The keys of the file: the one list that says which field each belongs to and in what form.

use serde_json::{Map, Value};

use super::acme::AcmeOrEmpty;
use super::congestion_control::Algorithm;
use super::text::{
    Address, CertificateSubject, Directory, FilePath, Host, HostOrEmpty, HttpsUrl, Name, Network,
    Origin, PathPrefix, SocketDirectory, SpiceHost, UriPath,
};
use super::value::{Form, List, Mismatch, Number, OneOf, OrEmpty, OrZero, Port, Seconds, Switch};
use super::{ClientCertificates, Config, DataPath, ForwardedHeader, HostProxyProtocol, TlsProfile};
use crate::channel_type::ChannelType;

/// More connections than a process may have open files.
const MAX_CONNECTIONS: u64 = 1_000_000;

/// A member of files that tells editors where their schema is, and means nothing to the gateway.
pub(super) const SCHEMA_MEMBER: &str = "$schema";

/// A key of the file.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The words of its name with `_` between them.
    field: &'static str,
    /// Whether its values are strings, so that nothing else can be meant.
    pub(super) takes_text: bool,
    /// Reads a value from the file into the field.
    pub(super) set: fn(&mut Config, &Value) -> Result<(), Mismatch>,
    /// Writes the field as the file has it.
    pub(super) write: fn(&Config) -> Value,
    /// What its values look like, as a JSON schema.
    pub(super) schema: fn() -> Value,
}

impl Key {
    /// Its environment variable, without the prefix: `MANAGER_CA_FILE`.
    pub(super) fn variable(&self) -> String {
        self.field.to_uppercase()
    }
}

macro_rules! keys {
    ($($name:literal => $field:ident: $form:ty,)*) => {
        /// Every key, in the order in which they are shown.
        pub(super) const KEYS: &[Key] = &[$(
            Key {
                name: $name,
                field: stringify!($field),
                takes_text: <$form>::TAKES_TEXT,
                set: |config, value| {
                    config.$field = <$form>::read(value)?;
                    Ok(())
                },
                write: |config| <$form>::write(&config.$field),
                schema: <$form>::schema,
            },
        )*];

        // Fails to compile when a field has no key.
        const _: fn(&Config) = |config| {
            let Config { $($field: _,)* } = config;
        };
    };
}

keys! {
    "ManagerIP" => manager_ip: HostOrEmpty,
    "ManagerPort" => manager_port: Port<1>,
    "ManagerCAFile" => manager_ca_file: OrEmpty<FilePath>,
    "ManagerTimeout" => manager_timeout: Seconds,
    "ManagerPaths" => manager_paths: List<PathPrefix>,
    "Desktops" => desktops: OrEmpty<FilePath>,

    "ListenAddress" => listen_address: OrEmpty<Address>,
    "SslPort" => ssl_port: Port<0>,
    "CertFile" => cert_file: FilePath,
    "KeyFile" => key_file: FilePath,
    "Acme" => acme: AcmeOrEmpty,
    "TlsProfile" => tls_profile: OneOf<TlsProfile>,
    "ClientCAFile" => client_ca_file: OrEmpty<FilePath>,
    "ClientCertificates" => client_certificates: OneOf<ClientCertificates>,
    "ClientCRLFile" => client_crl_file: OrEmpty<FilePath>,
    "CertificatePoll" => certificate_poll: OrZero<Seconds>,
    "PlainAddress" => plain_address: Address,
    "PlainPort" => plain_port: OrZero<Port<1>>,
    "TrustedProxies" => trusted_proxies: List<Network>,
    "ForwardedHeader" => forwarded_header: OneOf<ForwardedHeader>,
    "ProxyProtocol" => proxy_protocol: List<Network>,
    "ExternalName" => external_name: OrEmpty<Host>,
    "WebClient" => web_client: OrEmpty<Directory>,

    "HijackAll" => hijack_all: Switch,
    "Connect" => connect: Switch,
    "FirstSpicePort" => first_spice_port: Port<1>,
    "LastSpicePort" => last_spice_port: Port<1>,
    "SpiceHost" => spice_host: SpiceHost,
    "AllowedHosts" => allowed_hosts: List<Network>,
    "DeniedHosts" => denied_hosts: List<Network>,
    "AllowedSockets" => allowed_sockets: List<SocketDirectory>,
    "AllowedChannels" => allowed_channels: List<OneOf<ChannelType>>,
    "HostTLS" => host_tls: Switch,
    "HostCAFile" => host_ca_file: OrEmpty<FilePath>,
    "HostSubject" => host_subject: OrEmpty<CertificateSubject>,
    "HostProxyProtocol" => host_proxy_protocol: OneOf<HostProxyProtocol>,
    "TicketTimeout" => ticket_timeout: Seconds,
    "ReconnectTimeout" => reconnect_timeout: Seconds,
    "PoolKeyFile" => pool_key_file: OrEmpty<FilePath>,
    "TicketPublicKeys" => ticket_public_keys: OrEmpty<FilePath>,
    "TicketAudience" => ticket_audience: OrEmpty<Name>,
    "TicketMaxLife" => ticket_max_life: Seconds,
    "TicketURL" => ticket_url: OrEmpty<HttpsUrl>,
    "TicketURLCAFile" => ticket_url_ca_file: FilePath,
    "TicketURLTimeout" => ticket_url_timeout: Seconds,

    "DataPath" => data_path: OneOf<DataPath>,
    "SpliceFrom" => splice_from: Number<usize, 0, 1_073_741_824>,
    "QueueLimit" => queue_limit: Number<usize, 131_072, 1_073_741_824>,

    "CongestionControl" => congestion_control: Algorithm,
    "KeepAlive" => keep_alive: OrZero<Seconds>,
    "ClientTimeout" => client_timeout: OrZero<Seconds>,
    "HandshakeTimeout" => handshake_timeout: Seconds,
    "HeaderTimeout" => header_timeout: Seconds,
    "ConnectTimeout" => connect_timeout: Seconds,
    "LinkTimeout" => link_timeout: Seconds,
    "CloseTimeout" => close_timeout: Seconds,
    "ShutdownTimeout" => shutdown_timeout: Seconds,

    "AdminAddress" => admin_address: Address,
    "AdminPort" => admin_port: OrZero<Port<1>>,
    "AdminHosts" => admin_hosts: List<Host>,
    "RuntimeDir" => runtime_dir: FilePath,
    "StateDirectory" => state_directory: Directory,
    "EbpfDir" => ebpf_dir: Directory,
    "HealthPath" => health_path: OrEmpty<UriPath>,
    "HealthChecksManager" => health_checks_manager: Switch,
    "DrainDelay" => drain_delay: OrZero<Seconds>,
    "DrainTimeout" => drain_timeout: OrZero<Seconds>,
    "DrainOnStop" => drain_on_stop: Switch,

    "MaxConnections" => max_connections: Number<usize, 1, MAX_CONNECTIONS>,
    "MaxConnectionsPerAddress" =>
        max_connections_per_address: OrZero<Number<usize, 1, MAX_CONNECTIONS>>,
    "MaxSessionsPerAddress" =>
        max_sessions_per_address: OrZero<Number<usize, 1, MAX_CONNECTIONS>>,
    "MaxChannelsPerAddress" =>
        max_channels_per_address: OrZero<Number<usize, 1, MAX_CONNECTIONS>>,
    "BadTokenLimit" => bad_token_limit: OrZero<Number<u32, 1, 1_000_000>>,
    "BanTime" => ban_time: Seconds,
    "AllowedClients" => allowed_clients: List<Network>,
    "DeniedClients" => denied_clients: List<Network>,
    "AllowedOrigins" => allowed_origins: List<Origin>,
    "MaxHeaderSize" => max_header_size: Number<usize, 8_192, 1_048_576>,
    // The parser of request targets takes no longer ones.
    "MaxUriSize" => max_uri_size: Number<usize, 64, 65_534>,
    "WorkerThreads" => worker_threads: OrZero<Number<usize, 1, 1_024>>,
    "AccessLog" => access_log: OrEmpty<FilePath>,
    "Debug" => debug: Switch,
}

/// The key of this name, upper and lower case distinguished.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The value of every key, defaults included, in the form of the file: a file with this content
/// loads as an equal configuration.
///
/// No value is secret; a key that holds a secret would have to be left out here.
pub fn effective_json(config: &Config) -> Value {
    KEYS.iter()
        .map(|key| (key.name.to_owned(), (key.write)(config)))
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), KEYS.len());
    }

    #[test]
    fn shows_every_key_in_order_with_its_default() {
        let shown = effective_json(&Config::default());
        let shown = shown.as_object().unwrap();
        assert!(shown.keys().eq(KEYS.iter().map(|key| key.name)));
        assert_eq!(shown["ManagerIP"], "");
        assert_eq!(shown["ManagerCAFile"], "");
        assert_eq!(shown["ManagerPaths"], serde_json::json!(["/vdi/"]));
        assert_eq!(shown["ListenAddress"], "");
        assert_eq!(shown["SslPort"], 443);
        assert_eq!(shown["CertFile"], "/etc/ssl/certs/flexvdi-agent");
        assert_eq!(shown["PlainPort"], 0);
        assert_eq!(shown["TrustedProxies"], serde_json::json!([]));
        assert_eq!(shown["ExternalName"], "");
        assert_eq!(shown["HijackAll"], true);
        assert_eq!(shown["KeepAlive"], 0);
        assert_eq!(shown["ClientTimeout"], 60);
        assert_eq!(shown["TicketTimeout"], 120);
        assert_eq!(shown["WorkerThreads"], 0);
    }

    #[test]
    fn names_are_the_fields_in_pascal_case() {
        let fields = format!("{:?}", Config::default()).to_lowercase();
        for key in KEYS {
            let field = key.name.to_lowercase();
            assert!(fields.replace('_', "").contains(&format!(" {field}: ")));
        }
    }
}
