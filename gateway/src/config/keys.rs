//! The keys of the file: the one list that says of each what it means, in what form it is written,
//! which field of [`Config`] it becomes, what it is by default, and when a change of it applies.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::acme::{Acme, AcmeOrEmpty};
use super::client_tls::{ClientCertificates, TlsProfile};
use super::congestion_control::{Algorithm, CongestionControl};
use super::hosts::{self, Address, HostOrEmpty, Network};
use super::key::{Key, keys};
use super::text::{
    CertificateSubject, Directory, FilePath, HttpsUrl, Name, Origin, PathPrefix, SocketDirectory,
    UriPath,
};
use super::value::{List, Number, OneOf, OrEmpty, OrZero, Port, Seconds, Switch};
use super::{DataPath, ForwardedHeader, HostProxyProtocol};
use crate::certificate_subject::Subject;
use crate::channel_type::ChannelType;
use crate::host::Host;
use crate::socket_path::SocketPath;
use crate::spice_host::SpiceHost;
use crate::web_origin::WebOrigin;

/// More connections than a process may have open files.
const MAX_CONNECTIONS: u64 = 1_000_000;

/// A member of files that tells editors where their schema is, and means nothing to the gateway.
pub(super) const SCHEMA_MEMBER: &str = "$schema";

const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

keys! {
    /// IP address or name of the manager; empty: no manager behind this gateway.
    "ManagerIP": HostOrEmpty, AtOnce =>
        manager_ip: String = String::new();
    /// TCP port of the manager, HTTPS.
    "ManagerPort": Port<1>, AtOnce =>
        manager_port: u16 = 443;
    /// PEM file with the authorities that may sign the manager's certificate;
    /// `None` accepts any certificate.
    "ManagerCAFile": OrEmpty<FilePath>, AtOnce =>
        manager_ca_file: Option<PathBuf> = None;
    /// Seconds in the file; longest wait for the head of the manager's answer.
    "ManagerTimeout": Seconds, AtOnce =>
        manager_timeout: Duration = seconds(30);
    /// Path prefixes that are passed to the manager; each begins and ends with a slash.
    "ManagerPaths": List<PathPrefix>, AtOnce =>
        manager_paths: Vec<String> = vec!["/vdi/".to_owned()];
    /// JSON file with desktops, users and terminals, from which the gateway answers in place of a
    /// manager; `None` (an empty string): it does not.
    "Desktops": OrEmpty<FilePath>, AtOnce =>
        desktops: Option<PathBuf> = None;

    /// Address of the TLS port; `None` (an empty string): all addresses, IPv6 and IPv4.
    "ListenAddress": OrEmpty<Address>, AtRestart =>
        listen_address: Option<IpAddr> = None;
    /// The public TLS port.
    "SslPort": Port<0>, AtRestart =>
        ssl_port: u16 = 443;
    /// PEM file with the certificate and its chain.
    "CertFile": FilePath, AtOnce =>
        cert_file: PathBuf = PathBuf::from("/etc/ssl/certs/flexvdi-agent");
    /// PEM file with the private key; may be the same file.
    "KeyFile": FilePath, AtOnce =>
        key_file: PathBuf = PathBuf::from("/etc/ssl/certs/flexvdi-agent");
    /// Certificates that the gateway gets by itself, in place of the two files; `None` (an empty
    /// string): it does not.
    "Acme": AcmeOrEmpty, AtOnce =>
        acme: Option<Acme> = None;
    /// Which versions of TLS clients may speak.
    "TlsProfile": OneOf<TlsProfile>, AtOnce =>
        tls_profile: TlsProfile = TlsProfile::Intermediate;
    /// PEM file with the authorities that sign certificates of clients; `None` (an
    /// empty string): clients are not asked for any.
    "ClientCAFile": OrEmpty<FilePath>, AtOnce =>
        client_ca_file: Option<PathBuf> = None;
    /// Whether they must have one.
    "ClientCertificates": OneOf<ClientCertificates>, AtOnce =>
        client_certificates: ClientCertificates = ClientCertificates::Required;
    /// PEM file with lists of those that are revoked; `None` (an empty string):
    /// none is.
    "ClientCRLFile": OrEmpty<FilePath>, AtOnce =>
        client_crl_file: Option<PathBuf> = None;
    /// Seconds in the file; how often the files of certificate, key and the authorities of manager
    /// and hosts are looked at; `None` (0): never.
    "CertificatePoll": OrZero<Seconds>, AtOnce =>
        certificate_poll: Option<Duration> = Some(seconds(10));
    /// Address of the plaintext port for reverse proxies.
    "PlainAddress": Address, AtRestart =>
        plain_address: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// Plaintext port for reverse proxies; `None` (0 in the file): off.
    "PlainPort": OrZero<Port<1>>, AtRestart =>
        plain_port: Option<u16> = None;
    /// Networks whose `X-Forwarded-*` headers are believed.
    "TrustedProxies": List<Network>, AtOnce =>
        trusted_proxies: Vec<IpNet> = Vec::new();
    /// In which headers those proxies tell whom they speak for.
    "ForwardedHeader": OneOf<ForwardedHeader>, AtOnce =>
        forwarded_header: ForwardedHeader = ForwardedHeader::XForwarded;
    /// Networks whose connections begin with a header of the PROXY protocol.
    "ProxyProtocol": List<Network>, AtRestart =>
        proxy_protocol: Vec<IpNet> = Vec::new();
    /// Name or address under which clients reach the gateway; `None` (an empty string): the
    /// `Host` of each request.
    "ExternalName": OrEmpty<hosts::Host>, AtOnce =>
        external_name: Option<Host> = None;
    /// Directory of spice-html5, with which browsers are shown a page that logs in and opens the
    /// desktop; `None` (an empty string): no such page.
    "WebClient": OrEmpty<Directory>, AtOnce =>
        web_client: Option<PathBuf> = None;

    /// Whether answers of the manager get the gateway's name and a ticket instead of the host's
    /// address and port.
    "HijackAll": Switch, AtOnce =>
        hijack_all: bool = true;
    /// Whether Spice clients without WebSockets may use the gateway as an HTTP proxy, with tickets.
    "Connect": Switch, AtOnce =>
        connect: bool = true;
    /// First Spice port that may be connected to.
    "FirstSpicePort": Port<1>, AtOnce =>
        first_spice_port: u16 = 5900;
    /// Last Spice port that may be connected to.
    "LastSpicePort": Port<1>, AtOnce =>
        last_spice_port: u16 = 25900;
    /// The host, or its Unix sockets, that plain ports as tokens mean (`HijackAll` false).
    "SpiceHost": hosts::SpiceHost, AtOnce =>
        spice_host: SpiceHost = SpiceHost::Host(Host::LOCALHOST);
    /// Networks that hosts must belong to; empty: any.
    "AllowedHosts": List<Network>, AtOnce =>
        allowed_hosts: Vec<IpNet> = Vec::new();
    /// Networks that hosts must not belong to; goes before the former.
    "DeniedHosts": List<Network>, AtOnce =>
        denied_hosts: Vec<IpNet> = Vec::new();
    /// Directories below which hosts may be Unix sockets; empty: none, those of `SpiceHost` apart.
    "AllowedSockets": List<SocketDirectory>, AtOnce =>
        allowed_sockets: Vec<SocketPath> = Vec::new();
    /// Types of channels that may pass; empty: all.
    "AllowedChannels": List<OneOf<ChannelType>>, AtOnce =>
        allowed_channels: Vec<ChannelType> = Vec::new();
    /// Whether the Spice ports of hosts are TLS ports.
    "HostTLS": Switch, AtOnce =>
        host_tls: bool = false;
    /// PEM file with the authorities that may sign hosts' certificates.
    "HostCAFile": OrEmpty<FilePath>, AtOnce =>
        host_ca_file: Option<PathBuf> = None;
    /// Subject that every host's certificate must have; `None` (an empty string): it must be valid
    /// for the host's name or address.
    "HostSubject": OrEmpty<CertificateSubject>, AtOnce =>
        host_subject: Option<Subject> = None;
    /// What TCP connections to hosts begin with.
    "HostProxyProtocol": OneOf<HostProxyProtocol>, AtOnce =>
        host_proxy_protocol: HostProxyProtocol = HostProxyProtocol::Off;
    /// Seconds in the file; life of a ticket that was never used.
    "TicketTimeout": Seconds, AtOnce =>
        ticket_timeout: Duration = seconds(120);
    /// Seconds in the file; life of a ticket after the last channel of its session closed.
    "ReconnectTimeout": Seconds, AtOnce =>
        reconnect_timeout: Duration = seconds(300);
    /// File with the keys that the gateways of a pool share; `None` (an empty string): tickets are
    /// good for this gateway only.
    "PoolKeyFile": OrEmpty<FilePath>, AtOnce =>
        pool_key_file: Option<PathBuf> = None;
    /// File with the public keys of those who sign tickets; `None` (an empty string): nobody.
    "TicketPublicKeys": OrEmpty<FilePath>, AtOnce =>
        ticket_public_keys: Option<PathBuf> = None;
    /// The `aud` that signed tickets have; `None` (an empty string): none.
    "TicketAudience": OrEmpty<Name>, AtOnce =>
        ticket_audience: Option<String> = None;
    /// Seconds in the file; how far ahead the `exp` of signed tickets may lie.
    "TicketMaxLife": Seconds, AtOnce =>
        ticket_max_life: Duration = seconds(86_400);
    /// Where to ask what a token stands for; `None` (an empty string): nowhere.
    "TicketURL": OrEmpty<HttpsUrl>, AtOnce =>
        ticket_url: Option<Uri> = None;
    /// PEM file with the authorities that may sign that server's certificate.
    "TicketURLCAFile": FilePath, AtOnce =>
        ticket_url_ca_file: PathBuf = PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    /// Seconds in the file; longest wait for an answer.
    "TicketURLTimeout": Seconds, AtOnce =>
        ticket_url_timeout: Duration = seconds(5);

    /// How channels are moved.
    "DataPath": OneOf<DataPath>, IfLoaded =>
        data_path: DataPath = DataPath::Auto;
    /// Bytes that must come from the host at a time for `ktls` to splice them, of which 65,532 are
    /// the most that ever do; `None` (0): nothing is spliced.
    "SpliceFrom": OrZero<Number<usize, 1, 1_073_741_824>>, AtRestart =>
        splice_from: Option<usize> = None;
    /// Most bytes of a channel that wait in the kernel for its client, where the kernel moves
    /// them; what fits into the sockets comes on top.
    "QueueLimit": Number<usize, 131_072, 1_073_741_824>, AtRestart =>
        queue_limit: usize = 1 << 20;

    /// Who decides how fast the kernel sends to clients.
    "CongestionControl": Algorithm, AtOnce =>
        congestion_control: CongestionControl = CongestionControl::Auto;
    /// Seconds in the file; interval of Pings to clients that answer them. `None` (0): none.
    "KeepAlive": OrZero<Seconds>, AtOnce =>
        keep_alive: Option<Duration> = None;
    /// Seconds in the file; how long the system of a channel's client may answer nothing that it
    /// is sent. `None` (0): as long as the kernel lets it.
    "ClientTimeout": OrZero<Seconds>, AtOnce =>
        client_timeout: Option<Duration> = Some(seconds(60));
    /// Seconds in the file; longest TLS handshake.
    "HandshakeTimeout": Seconds, AtOnce =>
        handshake_timeout: Duration = seconds(10);
    /// Seconds in the file; longest wait for the head of a request.
    "HeaderTimeout": Seconds, AtOnce =>
        header_timeout: Duration = seconds(15);
    /// Seconds in the file; longest connect to a host, its name's resolution included.
    "ConnectTimeout": Seconds, AtOnce =>
        connect_timeout: Duration = seconds(10);
    /// Seconds in the file; longest wait for a channel's Spice link message.
    "LinkTimeout": Seconds, AtOnce =>
        link_timeout: Duration = seconds(10);
    /// Seconds in the file; longest wait for the peers at the end of a channel.
    "CloseTimeout": Seconds, AtOnce =>
        close_timeout: Duration = seconds(5);
    /// Seconds in the file; longest wait for the channels to end after SIGTERM.
    "ShutdownTimeout": Seconds, AtOnce =>
        shutdown_timeout: Duration = seconds(10);

    /// Address of the port for administrators.
    "AdminAddress": Address, AtRestart =>
        admin_address: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// Port for administrators: metrics, health and a page; `None` (0 in the file): off.
    "AdminPort": OrZero<Port<1>>, AtRestart =>
        admin_port: Option<u16> = None;
    /// Further names by which the port for administrators may be asked.
    "AdminHosts": List<hosts::Host>, AtOnce =>
        admin_hosts: Vec<Host> = Vec::new();
    /// Directory of the gateway's own sockets, for the command line.
    "RuntimeDir": FilePath, AtRestart =>
        runtime_dir: PathBuf = PathBuf::from("/run/flexvdi-gateway");
    /// Directory for what the gateway has to keep: with `Acme`, the account and the certificate.
    "StateDirectory": Directory, AtOnce =>
        state_directory: PathBuf = PathBuf::from("/var/lib/flexvdi-gateway");
    /// Directory of eBPF programs that root has loaded for the gateway.
    "EbpfDir": Directory, AtRestart =>
        ebpf_dir: PathBuf = PathBuf::from("/run/flexvdi-gateway-ebpf");
    /// Path of the public ports that tells whether the gateway is healthy; `None` (an empty
    /// string): none.
    "HealthPath": OrEmpty<UriPath>, AtOnce =>
        health_path: Option<String> = Some("/healthz".to_owned());
    /// Whether a gateway whose manager cannot be reached is unhealthy.
    "HealthChecksManager": Switch, AtOnce =>
        health_checks_manager: bool = false;
    /// Seconds in the file; how long a gateway that begins to drain still gives desktops, while
    /// balancers are told already. `None` (0): it refuses new desktop sessions at once.
    "DrainDelay": OrZero<Seconds>, AtOnce =>
        drain_delay: Option<Duration> = None;
    /// Seconds in the file; how long desktop sessions may go on while the gateway drains. `None`
    /// (0): as long as they like.
    "DrainTimeout": OrZero<Seconds>, AtOnce =>
        drain_timeout: Option<Duration> = None;
    /// Whether SIGTERM drains first, and stops the gateway once no desktop session is open.
    "DrainOnStop": Switch, AtOnce =>
        drain_on_stop: bool = false;

    /// Most connections of clients at a time.
    "MaxConnections": Number<usize, 1, MAX_CONNECTIONS>, AtOnce =>
        max_connections: usize = 20_000;
    /// Most connections of one client address at a time, trusted proxies excepted; `None` (0):
    /// no limit.
    "MaxConnectionsPerAddress": OrZero<Number<usize, 1, MAX_CONNECTIONS>>, AtOnce =>
        max_connections_per_address: Option<usize> = Some(2_000);
    /// Most desktop sessions of one client address; `None` (0): any number.
    "MaxSessionsPerAddress": OrZero<Number<usize, 1, MAX_CONNECTIONS>>, AtOnce =>
        max_sessions_per_address: Option<usize> = None;
    /// Most channels of one client address; `None` (0): any number.
    "MaxChannelsPerAddress": OrZero<Number<usize, 1, MAX_CONNECTIONS>>, AtOnce =>
        max_channels_per_address: Option<usize> = None;
    /// Wrong tokens per minute and client address before further channels are refused
    /// unseen; `None` (0): no limit.
    "BadTokenLimit": OrZero<Number<u32, 1, 1_000_000>>, AtOnce =>
        bad_token_limit: Option<u32> = Some(30);
    /// Seconds in the file; how long an address is refused after so many.
    "BanTime": Seconds, AtOnce =>
        ban_time: Duration = seconds(60);
    /// Networks that clients must belong to; empty: any.
    "AllowedClients": List<Network>, AtOnce =>
        allowed_clients: Vec<IpNet> = Vec::new();
    /// Networks that clients must not belong to; goes before the former.
    "DeniedClients": List<Network>, AtOnce =>
        denied_clients: Vec<IpNet> = Vec::new();
    /// Web pages of these origins may open WebSockets, besides the gateway's own; with tickets as
    /// tokens, an empty list lets all.
    "AllowedOrigins": List<Origin>, AtOnce =>
        allowed_origins: Vec<WebOrigin> = Vec::new();
    /// Longest head of a request, in bytes; at least 8,192.
    "MaxHeaderSize": Number<usize, 8_192, 1_048_576>, AtOnce =>
        max_header_size: usize = 16_384;
    /// Longest request target, in bytes.
    // The parser of request targets takes no longer ones.
    "MaxUriSize": Number<usize, 64, 65_534>, AtOnce =>
        max_uri_size: usize = 4_096;
    /// Threads that serve clients; `None` (0): one per core.
    "WorkerThreads": OrZero<Number<usize, 1, 1_024>>, AtRestart =>
        worker_threads: Option<usize> = None;
    /// File of the access log; `None` (an empty string): none.
    "AccessLog": OrEmpty<FilePath>, AtRestart =>
        access_log: Option<PathBuf> = None;
    /// Whether the log tells more.
    "Debug": Switch, AtOnce =>
        debug: bool = false;
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
