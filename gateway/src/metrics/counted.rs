//! Everything that is counted as it happens, and the values of its labels: for each reason that is
//! counted one. What is counted says itself which one it is, so that a reason without a value does
//! not compile.

use std::time::{Instant, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{ChannelTimes, Entered, Handshakes, Labelled, PREFIX, SECONDS};
use crate::refusal::ChannelRefusal;
use gateway_datapath::labels;

/// Everything that is counted as it happens.
pub struct Metrics {
    /// Connections that were accepted, by leg.
    pub connections: Labelled<Leg>,
    /// Connections that were closed before a TLS handshake or a request, by reason.
    pub connections_refused: Labelled<ConnectionRefusal>,
    /// Times of TLS handshakes that succeeded.
    pub tls_handshake: Histogram,
    /// The same by what they have agreed on.
    pub tls_handshakes: Handshakes,
    /// TLS handshakes that did not, by reason.
    pub tls_failures: Labelled<HandshakeFailure>,
    /// WebSockets and tunnels that were refused, by reason.
    pub channels_refused: Labelled<ChannelRefusal>,
    /// Times of connects to hosts that succeeded, names' resolution included.
    pub host_connect: Histogram,
    /// Connects to hosts that did not, by reason.
    pub host_failures: Labelled<HostFailure>,
    /// Desktop sessions that a ticket was given for.
    pub desktops_assigned: Counter,
    /// Answers of the manager that were turned into an error, by reason.
    pub desktops_refused: Labelled<DesktopRefusal>,
    /// Requests for the manager, by what became of them.
    pub manager_requests: Labelled<ManagerResult>,
    /// Questions to the portal, by what became of them.
    pub portal_requests: Labelled<PortalResult>,
    /// Logins to desktops of the file, by what became of them.
    pub logins: Labelled<LoginResult>,
    /// Attempts to get a certificate from the authority of `Acme`, by what became of them.
    pub acme_attempts: Labelled<AcmeResult>,
    /// Times of open channels, observed at a scrape.
    pub channel_times: ChannelTimes,
    pub(super) registry: Registry,
    pub(super) started: SystemTime,
    pub(super) up_since: Instant,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let mut entered = Entered(&mut registry);
        Self {
            connections: entered.add_labelled(
                "connections_accepted",
                "Connections of clients that were accepted",
                "leg",
            ),
            connections_refused: entered.add_labelled(
                "connections_refused",
                "Connections of clients that were closed before a TLS handshake or a request",
                "reason",
            ),
            tls_failures: entered.add_labelled(
                "tls_handshake_failures",
                "TLS handshakes that failed",
                "reason",
            ),
            channels_refused: entered.add_labelled(
                "channels_refused",
                "WebSockets and tunnels that were refused before a host was asked",
                "reason",
            ),
            host_failures: entered.add_labelled(
                "host_connect_failures",
                "Connects to hosts that failed",
                "reason",
            ),
            desktops_refused: entered.add_labelled(
                "desktops_refused",
                "Desktops that no ticket was given for",
                "reason",
            ),
            manager_requests: entered.add_labelled(
                "manager_requests",
                "Requests for the manager",
                "result",
            ),
            portal_requests: entered.add_labelled(
                "portal_requests",
                "Questions to the portal what a token stands for",
                "result",
            ),
            logins: entered.add_labelled("logins", "Logins to desktops of the file", "result"),
            acme_attempts: entered.add_labelled(
                "acme_attempts",
                "Attempts to get a certificate from the authority of Acme",
                "result",
            ),
            tls_handshakes: Handshakes::new(&mut entered),
            tls_handshake: entered.add(
                "tls_handshake_seconds",
                "Times of TLS handshakes that succeeded",
                Histogram::new(SECONDS),
            ),
            host_connect: entered.add(
                "host_connect_seconds",
                "Times of connects to hosts that succeeded",
                Histogram::new(SECONDS),
            ),
            desktops_assigned: entered.add(
                "desktops_assigned",
                "Desktops that a ticket was given for",
                Counter::default(),
            ),
            channel_times: ChannelTimes::new(&mut entered),
            registry,
            started: SystemTime::now(),
            up_since: Instant::now(),
        }
    }
}

labels! {
    /// Why a connection is closed before its TLS handshake or first request.
    pub enum ConnectionRefusal {
        /// `MaxConnections` or `MaxConnectionsPerAddress`.
        TooMany => "too many connections",
        /// The share of `MaxConnections` for unfinished handshakes.
        Unfinished => "too many unfinished handshakes",
        /// `AllowedClients` or `DeniedClients`.
        NotAllowed => "client not allowed",
        /// A balancer in `ProxyProtocol` sent no good header.
        ProxyHeader => "no PROXY header",
    }
}

labels! {
    /// Why a TLS handshake came to nothing.
    pub enum HandshakeFailure {
        /// What the client sent, or that it left.
        Failed => "failed",
        /// The client has shown no certificate, and must.
        NoCertificate => "no certificate",
        /// Its certificate is not good.
        CertificateRefused => "certificate refused",
        /// `HandshakeTimeout`.
        Timeout => "timeout",
    }
}

labels! {
    /// Why a host is not connected.
    pub enum HostFailure {
        /// `ConnectTimeout`.
        Timeout => "timeout",
        /// The name does not resolve, or the port is closed.
        Unreachable => "unreachable",
        /// `AllowedHosts`, `DeniedHosts` or `AllowedSockets`.
        NotAllowed => "not allowed",
        /// The TLS handshake fails, most often as the certificate is not accepted.
        Tls => "tls",
        /// No descriptor or memory.
        Resources => "resources",
    }
}

labels! {
    /// Why a desktop gets no ticket.
    pub enum DesktopRefusal {
        /// No new desktop sessions.
        Draining => "draining",
        /// The manager's answer cannot be changed.
        Answer => "answer",
        /// `FirstSpicePort` or `LastSpicePort`.
        Port => "port",
        /// `AllowedHosts` or `DeniedHosts`.
        Host => "host",
        /// Too many wait to be used.
        Tickets => "tickets",
    }
}

labels! {
    /// What became of a request for the manager.
    pub enum ManagerResult {
        /// It has answered, whatever.
        Answered => "answered",
        /// `ManagerTimeout`.
        Timeout => "timeout",
        /// The client did not go on with the request's body.
        ClientStalled => "client stalled",
        /// Not connected, or it broke off.
        Unreachable => "unreachable",
        /// No thread, descriptor or memory was left to ask it with.
        Resources => "resources",
        /// `ManagerIP` is empty.
        NotConfigured => "not configured",
    }
}

labels! {
    /// What became of a question to the portal.
    pub enum PortalResult {
        /// The token is good.
        Granted => "granted",
        /// It is not.
        Refused => "refused",
        /// `TicketURLTimeout`.
        Timeout => "timeout",
        /// Not connected, or it broke off.
        Unreachable => "unreachable",
        /// It does not say.
        Answer => "answer",
        /// Not asked, as it has failed before.
        Paused => "paused",
    }
}

labels! {
    /// What became of a login to a desktop of the file.
    pub enum LoginResult {
        /// A user with the right password.
        User => "user",
        /// A terminal that needs none.
        Terminal => "terminal",
        /// There is no such user, or the password is another one.
        Wrong => "wrong user or password",
        /// Neither a user nor a terminal that is known.
        UnknownTerminal => "unknown terminal",
        /// There were too many wrong passwords, so this one was not checked.
        TooMany => "too many wrong passwords",
        /// The terminal, or its address, was given desktops faster than anybody needs them.
        TooOften => "terminal too often",
        /// No thread or memory was left to check it.
        Busy => "busy",
    }
}

labels! {
    /// What became of an attempt to get a certificate from the authority of `Acme`.
    pub enum AcmeResult {
        /// There is a new certificate.
        Issued => "issued",
        /// The authority did not answer, or not in time.
        Unreachable => "unreachable",
        /// The authority wants to be left alone for a while.
        RateLimited => "rate limited",
        /// It could not see that the names lead here.
        NotValidated => "not validated",
        /// It does not want to.
        Refused => "refused",
        /// Something is wrong on this machine.
        Local => "local",
    }
}

labels! {
    /// How the clients of a port reach the gateway.
    pub enum Leg {
        /// TLS ends here.
        Tls => "tls",
        /// TLS ends at a reverse proxy in front of this port.
        Plain => "plain",
    }
}

/// What a channel carries, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Carried {
    /// Name of the data path, or `none` before one was taken.
    pub path: &'static str,
    /// The channel's type (`main`, `display`, ...), or `none` before the client has named it.
    pub kind: &'static str,
}

impl Carried {
    /// A channel that has said nothing yet.
    pub(crate) const NOT_YET: Self = Self {
        path: "none",
        kind: "none",
    };
}
