//! Values of labels: for each reason that is counted one. What is counted says itself which one it
//! is, so that a reason without a value does not compile.

use gateway_datapath::labels;

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
    /// Why a WebSocket or a tunnel is refused before its host is asked.
    pub enum ChannelRefusal {
        /// Wrong, expired or missing.
        Token => "token",
        /// `BadTokenLimit`.
        TooManyWrongTokens => "too many wrong tokens",
        /// No handshake as RFC 6455 has it.
        Handshake => "handshake",
        /// No CONNECT as RFC 9110 has it.
        Request => "request",
        /// CONNECT without credentials, to which clients may have to be asked.
        NoCredentials => "no credentials",
        /// `Connect`, or `HijackAll` false.
        ConnectOff => "connect off",
        /// `AllowedOrigins`.
        Origin => "origin",
        /// No new desktop sessions.
        Draining => "draining",
        /// The portal did not say whether the token is good, or is asked about too many tokens of
        /// the address.
        Portal => "portal",
        /// `MaxSessionsPerAddress`.
        TooManySessions => "too many sessions",
        /// `MaxChannelsPerAddress`.
        TooManyChannels => "too many channels",
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
    /// The channel's type (`main`, `display`, ...), or `none` before the client has told it.
    pub kind: &'static str,
}

impl Carried {
    /// A channel that has said nothing yet.
    pub(crate) const NOT_YET: Self = Self {
        path: "none",
        kind: "none",
    };
}
