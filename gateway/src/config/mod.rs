//! The configuration: one JSON object, compatible with the flexVDI Gateway's file.
//!
//! Every key is optional. [`Config`] holds values that were checked ("parsed, not validated");
//! [`Sources`] are the places that it is read from.

mod acme;
mod changes;
mod check;
mod client_tls;
mod congestion_control;
mod entry;
mod environment;
mod file;
mod keys;
mod load;
mod origin;
mod report;
mod schema;
mod sources;
mod table;
mod text;
mod value;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;

pub use acme::Acme;
pub use changes::{Change, Changes, keys_that_need_a_restart};
pub use check::WEB_CLIENT_PATHS;
pub use client_tls::{ClientCertificates, TlsProfile};
pub use congestion_control::CongestionControl;
pub use file::drop_in_directory;
pub use keys::effective_json;
pub use load::{Loaded, load};
pub use origin::Origin;
pub use report::{ConfigError, Fault, Problem, Warning};
pub use schema::schema;
pub use sources::{Assignment, AssignmentError, Sources};
pub use table::table;
use value::Choice;

use crate::certificate_subject::Subject;
use crate::channel_type::ChannelType;
use crate::host::Host;
use crate::socket_path::SocketPath;
use crate::spice_host::SpiceHost;
use crate::web_origin::WebOrigin;
use gateway_datapath::probe::Extent;

/// Where the gateway looks for its configuration unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/flexvdi/flexvdi-gateway.conf";

/// Everything an administrator can set. The key in the file is the field's name in Pascal case
/// unless its comment says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `ManagerIP`: IP address or name of the manager; empty: no manager behind this gateway.
    pub manager_ip: String,
    /// TCP port of the manager, HTTPS.
    pub manager_port: u16,
    /// `ManagerCAFile`: PEM file with the authorities that may sign the manager's certificate;
    /// `None` accepts any certificate.
    pub manager_ca_file: Option<PathBuf>,
    /// Seconds in the file; longest wait for the head of the manager's answer.
    pub manager_timeout: Duration,
    /// Path prefixes that are passed to the manager; each begins and ends with a slash.
    pub manager_paths: Vec<String>,
    /// JSON file with desktops, users and terminals, from which the gateway answers in place of a
    /// manager; `None` (an empty string): it does not.
    pub desktops: Option<PathBuf>,

    /// Address of the TLS port; `None` (an empty string): all addresses, IPv6 and IPv4.
    pub listen_address: Option<IpAddr>,
    /// The public TLS port.
    pub ssl_port: u16,
    /// PEM file with the certificate and its chain.
    pub cert_file: PathBuf,
    /// PEM file with the private key; may be the same file.
    pub key_file: PathBuf,
    /// Certificates that the gateway gets by itself, in place of the two files; `None` (an empty
    /// string): it does not.
    pub acme: Option<Acme>,
    /// Which versions of TLS clients may speak.
    pub tls_profile: TlsProfile,
    /// `ClientCAFile`: PEM file with the authorities that sign certificates of clients; `None` (an
    /// empty string): clients are not asked for any.
    pub client_ca_file: Option<PathBuf>,
    /// Whether they must have one.
    pub client_certificates: ClientCertificates,
    /// `ClientCRLFile`: PEM file with lists of those that are revoked; `None` (an empty string):
    /// none is.
    pub client_crl_file: Option<PathBuf>,
    /// Seconds in the file; how often the files of certificate, key and the authorities of manager
    /// and hosts are looked at; `None` (0): never.
    pub certificate_poll: Option<Duration>,
    /// Address of the plaintext port for reverse proxies.
    pub plain_address: IpAddr,
    /// Plaintext port for reverse proxies; `None` (0 in the file): off.
    pub plain_port: Option<u16>,
    /// Networks whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// In which headers those proxies tell whom they speak for.
    pub forwarded_header: ForwardedHeader,
    /// Networks whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// Name or address under which clients reach the gateway; `None` (an empty string): the
    /// `Host` of each request.
    pub external_name: Option<Host>,
    /// Directory of spice-html5, with which browsers are shown a page that logs in and opens the
    /// desktop; `None` (an empty string): no such page.
    pub web_client: Option<PathBuf>,

    /// Whether answers of the manager get the gateway's name and a ticket instead of the host's
    /// address and port.
    pub hijack_all: bool,
    /// Whether Spice clients without WebSockets may use the gateway as an HTTP proxy, with tickets.
    pub connect: bool,
    /// First Spice port that may be connected to.
    pub first_spice_port: u16,
    /// Last Spice port that may be connected to.
    pub last_spice_port: u16,
    /// The host, or its Unix sockets, that plain ports as tokens mean (`HijackAll` false).
    pub spice_host: SpiceHost,
    /// Networks that hosts must belong to; empty: any.
    pub allowed_hosts: Vec<IpNet>,
    /// Networks that hosts must not belong to; goes before the former.
    pub denied_hosts: Vec<IpNet>,
    /// Directories below which hosts may be Unix sockets; empty: none, those of `SpiceHost` apart.
    pub allowed_sockets: Vec<SocketPath>,
    /// Types of channels that may pass; empty: all.
    pub allowed_channels: Vec<ChannelType>,
    /// `HostTLS`: whether the Spice ports of hosts are TLS ports.
    pub host_tls: bool,
    /// `HostCAFile`: PEM file with the authorities that may sign hosts' certificates.
    pub host_ca_file: Option<PathBuf>,
    /// Subject that every host's certificate must have; `None` (an empty string): it must be valid
    /// for the host's name or address.
    pub host_subject: Option<Subject>,
    /// What TCP connections to hosts begin with.
    pub host_proxy_protocol: HostProxyProtocol,
    /// Seconds in the file; life of a ticket that was never used.
    pub ticket_timeout: Duration,
    /// Seconds in the file; life of a ticket after the last channel of its session closed.
    pub reconnect_timeout: Duration,
    /// File with the keys that the gateways of a pool share; `None` (an empty string): tickets are
    /// good for this gateway only.
    pub pool_key_file: Option<PathBuf>,
    /// File with the public keys of those who sign tickets; `None` (an empty string): nobody.
    pub ticket_public_keys: Option<PathBuf>,
    /// The `aud` that signed tickets have; `None` (an empty string): none.
    pub ticket_audience: Option<String>,
    /// `TicketURL`: where to ask what a token stands for; `None` (an empty string): nowhere.
    pub ticket_url: Option<Uri>,
    /// `TicketURLCAFile`: PEM file with the authorities that may sign that server's certificate.
    pub ticket_url_ca_file: PathBuf,
    /// `TicketURLTimeout`, seconds in the file; longest wait for an answer.
    pub ticket_url_timeout: Duration,
    /// Seconds in the file; how far ahead the `exp` of signed tickets may lie.
    pub ticket_max_life: Duration,

    /// How channels are moved.
    pub data_path: DataPath,
    /// Bytes that must come from the host at a time for `ktls` to splice them; 65,532 are the most
    /// that ever do.
    pub splice_from: usize,
    /// Most bytes of a channel that wait in the kernel for its client, where the kernel moves
    /// them; what fits into the sockets comes on top.
    pub queue_limit: usize,

    /// Who decides how fast the kernel sends to clients.
    pub congestion_control: CongestionControl,
    /// Seconds in the file; interval of Pings to clients that answer them. `None` (0): none.
    pub keep_alive: Option<Duration>,
    /// Seconds in the file; how long the system of a channel's client may answer nothing that it
    /// is sent. `None` (0): as long as the kernel lets it.
    pub client_timeout: Option<Duration>,
    /// Seconds in the file; longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Seconds in the file; longest wait for the head of a request.
    pub header_timeout: Duration,
    /// Seconds in the file; longest connect to a host, its name's resolution included.
    pub connect_timeout: Duration,
    /// Seconds in the file; longest wait for a channel's Spice link message.
    pub link_timeout: Duration,
    /// Seconds in the file; longest wait for the peers at the end of a channel.
    pub close_timeout: Duration,
    /// Seconds in the file; longest wait for the channels to end after SIGTERM.
    pub shutdown_timeout: Duration,

    /// Address of the port for administrators.
    pub admin_address: IpAddr,
    /// Port for administrators: metrics, health and a page; `None` (0 in the file): off.
    pub admin_port: Option<u16>,
    /// Further names by which the port for administrators may be asked.
    pub admin_hosts: Vec<Host>,
    /// Directory of the gateway's own sockets, for the command line.
    pub runtime_dir: PathBuf,
    /// Directory for what the gateway has to keep: with `Acme`, the account and the certificate.
    pub state_directory: PathBuf,
    /// Directory of eBPF programs that root has loaded for the gateway.
    pub ebpf_dir: PathBuf,
    /// Path of the public ports that tells whether the gateway is healthy; `None` (an empty
    /// string): none.
    pub health_path: Option<String>,
    /// Whether a gateway whose manager cannot be reached is unhealthy.
    pub health_checks_manager: bool,
    /// Seconds in the file; how long a gateway that begins to drain still gives desktops, while
    /// balancers are told already. `None` (0): it refuses new desktop sessions at once.
    pub drain_delay: Option<Duration>,
    /// Seconds in the file; how long desktop sessions may go on while the gateway drains. `None`
    /// (0): as long as they like.
    pub drain_timeout: Option<Duration>,
    /// Whether SIGTERM drains first, and stops the gateway once no desktop session is open.
    pub drain_on_stop: bool,

    /// Most connections of clients at a time.
    pub max_connections: usize,
    /// Most connections of one client address at a time, trusted proxies excepted; `None` (0):
    /// no limit.
    pub max_connections_per_address: Option<usize>,
    /// Most desktop sessions of one client address; `None` (0): any number.
    pub max_sessions_per_address: Option<usize>,
    /// Most channels of one client address; `None` (0): any number.
    pub max_channels_per_address: Option<usize>,
    /// Wrong tokens per minute and client address before further channels are refused
    /// unseen; `None` (0): no limit.
    pub bad_token_limit: Option<u32>,
    /// Seconds in the file; how long an address is refused after so many.
    pub ban_time: Duration,
    /// Networks that clients must belong to; empty: any.
    pub allowed_clients: Vec<IpNet>,
    /// Networks that clients must not belong to; goes before the former.
    pub denied_clients: Vec<IpNet>,
    /// Web pages of these origins may open WebSockets, besides the gateway's own; with tickets as
    /// tokens, an empty list lets all.
    pub allowed_origins: Vec<WebOrigin>,
    /// Longest head of a request, in bytes; at least 8,192.
    pub max_header_size: usize,
    /// Longest request target, in bytes.
    pub max_uri_size: usize,
    /// Threads that serve clients; `None` (0): one per core.
    pub worker_threads: Option<usize>,
    /// File of the access log; `None` (an empty string): none.
    pub access_log: Option<PathBuf>,
    /// Whether the log tells more.
    pub debug: bool,
}

/// How channels are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// `"auto"`: as costs least, by the measurements in docs/data-paths.md.
    Auto,
    /// `"relay"`: through the process.
    Relay,
    /// `"sockmap"`: the downlink of plaintext client legs by eBPF.
    Sockmap,
    /// `"ktls"`: TLS records made and opened by the kernel, the downlink spliced.
    Ktls,
    /// `"ktls-sockmap"`: the downlink of TLS client legs by eBPF, into records made by the kernel.
    KtlsSockmap,
}

impl DataPath {
    /// Every choice.
    pub const ALL: [Self; 5] = [
        Self::Auto,
        Self::Relay,
        Self::Sockmap,
        Self::Ktls,
        Self::KtlsSockmap,
    ];

    /// Descriptors of a channel: a socket to the client, one to the host, and what the kernel
    /// needs besides.
    pub const fn descriptors(self) -> u64 {
        match self {
            Self::Auto | Self::Relay => 2,
            // While bytes are in hand, a pipe.
            Self::Ktls => 4,
            Self::Sockmap => 6,
            Self::KtlsSockmap => 7,
        }
    }

    /// Whether it needs eBPF programs.
    pub const fn has_programs(self) -> bool {
        matches!(self, Self::Sockmap | Self::KtlsSockmap)
    }

    /// Which paths are tried before it is used.
    pub const fn tried(self) -> Extent {
        match self {
            Self::KtlsSockmap => Extent::All,
            Self::Auto | Self::Relay | Self::Sockmap | Self::Ktls => Extent::Usual,
        }
    }

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Relay => "relay",
            Self::Sockmap => "sockmap",
            Self::Ktls => "ktls",
            Self::KtlsSockmap => "ktls-sockmap",
        }
    }
}

/// In which headers a trusted proxy tells whom it speaks for. The other one is not looked at, as
/// a proxy passes on what clients wrote there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `"X-Forwarded-For"`: with `X-Forwarded-Host` and `X-Forwarded-Proto`.
    XForwarded,
    /// `"Forwarded"`: RFC 7239.
    Forwarded,
}

impl Choice for DataPath {
    const ALL: &[Self] = &Self::ALL;

    fn name(self) -> &'static str {
        Self::name(self)
    }
}

impl Choice for ForwardedHeader {
    const ALL: &[Self] = &[Self::XForwarded, Self::Forwarded];

    fn name(self) -> &'static str {
        match self {
            Self::XForwarded => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
        }
    }
}

impl Choice for ChannelType {
    const ALL: &[Self] = Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

/// The header of the PROXY protocol that connections to hosts begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostProxyProtocol {
    /// `"off"`: none.
    Off,
    /// `"v1"`: the text.
    V1,
    /// `"v2"`: the binary form.
    V2,
}

impl Choice for HostProxyProtocol {
    const ALL: &[Self] = &[Self::Off, Self::V1, Self::V2];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            manager_ip: String::new(),
            manager_port: 443,
            manager_ca_file: None,
            manager_timeout: seconds(30),
            manager_paths: vec!["/vdi/".to_owned()],
            desktops: None,
            listen_address: None,
            ssl_port: 443,
            cert_file: PathBuf::from("/etc/ssl/certs/flexvdi-agent"),
            key_file: PathBuf::from("/etc/ssl/certs/flexvdi-agent"),
            acme: None,
            tls_profile: TlsProfile::Intermediate,
            client_ca_file: None,
            client_certificates: ClientCertificates::Required,
            client_crl_file: None,
            certificate_poll: Some(seconds(10)),
            plain_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            plain_port: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::XForwarded,
            proxy_protocol: Vec::new(),
            external_name: None,
            web_client: None,
            hijack_all: true,
            connect: true,
            first_spice_port: 5900,
            last_spice_port: 25900,
            spice_host: SpiceHost::Host(Host::LOCALHOST),
            allowed_hosts: Vec::new(),
            denied_hosts: Vec::new(),
            allowed_sockets: Vec::new(),
            allowed_channels: Vec::new(),
            host_tls: false,
            host_ca_file: None,
            host_subject: None,
            host_proxy_protocol: HostProxyProtocol::Off,
            ticket_timeout: seconds(120),
            reconnect_timeout: seconds(300),
            pool_key_file: None,
            ticket_public_keys: None,
            ticket_audience: None,
            ticket_url: None,
            ticket_url_ca_file: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            ticket_url_timeout: seconds(5),
            ticket_max_life: seconds(86_400),
            data_path: DataPath::Auto,
            // More than is moved at a time: see docs/data-paths.md, "ktls".
            splice_from: 65_536,
            queue_limit: 1 << 20,
            congestion_control: CongestionControl::Auto,
            keep_alive: None,
            client_timeout: Some(seconds(60)),
            handshake_timeout: seconds(10),
            header_timeout: seconds(15),
            connect_timeout: seconds(10),
            link_timeout: seconds(10),
            close_timeout: seconds(5),
            shutdown_timeout: seconds(10),
            admin_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            admin_port: None,
            admin_hosts: Vec::new(),
            runtime_dir: PathBuf::from("/run/flexvdi-gateway"),
            state_directory: PathBuf::from("/var/lib/flexvdi-gateway"),
            ebpf_dir: PathBuf::from("/run/flexvdi-gateway-ebpf"),
            health_path: Some("/healthz".to_owned()),
            health_checks_manager: false,
            drain_delay: None,
            drain_timeout: None,
            drain_on_stop: false,
            max_connections: 20_000,
            max_connections_per_address: Some(2_000),
            max_sessions_per_address: None,
            max_channels_per_address: None,
            bad_token_limit: Some(30),
            ban_time: seconds(60),
            allowed_clients: Vec::new(),
            denied_clients: Vec::new(),
            allowed_origins: Vec::new(),
            max_header_size: 16_384,
            max_uri_size: 4_096,
            worker_threads: None,
            access_log: None,
            debug: false,
        }
    }
}

impl Config {
    /// What the gateway keeps of the certificates that it gets by itself.
    pub fn acme_directory(&self) -> PathBuf {
        self.state_directory.join("acme")
    }

    /// Where the certificate is that clients are shown.
    pub fn certificate_file(&self) -> Cow<'_, Path> {
        match self.acme {
            Some(_) => self.acme_directory().join("certificate.pem").into(),
            None => Cow::from(&self.cert_file),
        }
    }

    /// Where its private key is; with `Acme` in the same file.
    pub fn certificate_key_file(&self) -> Cow<'_, Path> {
        match self.acme {
            Some(_) => self.certificate_file(),
            None => Cow::from(&self.key_file),
        }
    }

    /// Whether a Spice port lies in the configured range.
    pub fn allows_port(&self, port: u16) -> bool {
        (self.first_spice_port..=self.last_spice_port).contains(&port)
    }
}
