//! Why a WebSocket or a tunnel is refused before its host is asked: the one list that says of each
//! reason how it is counted, logged and answered.

use std::time::Duration;

use http::StatusCode;

use gateway_datapath::labels;

/// Why there is no desktop, for those who see it on their screens; the log has the reason.
pub const NO_DESKTOP: &str =
    "Your desktop cannot be reached at the moment. Please contact your administrator.";
/// The same, where waiting may help.
pub const TOO_MANY_DESKTOPS: &str =
    "Too many desktops are being opened at the moment. Please try again later.";
/// The same, while the gateway drains.
pub const NO_NEW_DESKTOPS: &str =
    "No new desktops are opened here at the moment. Please try again later.";

labels! {
    /// The kinds of [`Refusal`] that are counted.
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

/// Why a WebSocket or a tunnel is refused. Its text is for the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Wrong, expired or missing token.
    #[error("wrong or expired token")]
    Token,
    /// A signed token for one desktop session, of which no more can be remembered.
    #[error("too many signed tokens with jti are remembered")]
    Full,
    /// Too many wrong tokens from this address.
    #[error("too many wrong tokens from this address")]
    TooManyWrongTokens {
        /// When the address may try again.
        retry_after: Duration,
    },
    /// A handshake of another version of WebSocket.
    #[error("only WebSocket version 13 is spoken here")]
    WebSocketVersion,
    /// A request with a token that asks for no WebSocket.
    #[error("this address serves WebSockets only")]
    NoUpgrade,
    /// A handshake with this wrong.
    #[error("malformed WebSocket handshake: {0}")]
    MalformedHandshake(&'static str),
    /// CONNECT with this wrong.
    #[error("malformed CONNECT: {0}")]
    MalformedConnect(&'static str),
    /// CONNECT without credentials, so that the client has to send some.
    #[error("CONNECT without Basic credentials")]
    NoCredentials,
    /// CONNECT where none is served.
    #[error("this gateway opens no tunnels: Connect, HijackAll")]
    ConnectOff,
    /// A web page that may not come here.
    #[error("web page of another origin: AllowedOrigins")]
    Origin,
    /// It would begin a desktop session while the gateway drains.
    #[error("draining")]
    Draining,
    /// The portal did not say whether the token is good.
    #[error("the portal did not say what the token stands for")]
    Portal,
    /// The portal is being asked about so many tokens of this address already.
    #[error("the portal is being asked about too many tokens of this address")]
    Questions,
    /// It would be one more desktop session than `MaxSessionsPerAddress`.
    #[error("too many desktop sessions of this address")]
    TooManySessions,
    /// It would be one more channel than `MaxChannelsPerAddress`.
    #[error("too many channels of this address")]
    TooManyChannels,
}

/// What follows from a [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consequence {
    /// The kind of reason, by which it is counted.
    pub counted: ChannelRefusal,
    /// Whether the log has it.
    pub logged: Logged,
    /// What the client is answered.
    pub status: StatusCode,
    /// Its message to the client; `None`: the reason itself.
    pub message: Option<&'static str>,
    /// What the answer says besides.
    pub with: With,
}

/// Whether the log has a line for each refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// Always.
    Info,
    /// With `Debug` only.
    Debug,
    /// Never.
    Not,
}

/// What an answer says besides status and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// Nothing.
    Nothing,
    /// Which version of WebSocket would do (RFC 6455, section 4.2.2).
    WebSocketVersion,
    /// Which credentials would do (RFC 9110, section 15.5.8).
    Challenge,
    /// Which methods would do (RFC 9110, section 15.5.6).
    Methods(&'static str),
    /// When to come again (RFC 9110, section 10.2.3).
    RetryAfter(Duration),
}

impl Refusal {
    /// What follows from it.
    pub fn consequence(self) -> Consequence {
        use ChannelRefusal as Counted;
        match self {
            Self::Token => Consequence::new(Counted::Token, StatusCode::FORBIDDEN),
            Self::Full => Consequence::new(Counted::Token, StatusCode::SERVICE_UNAVAILABLE)
                .message(TOO_MANY_DESKTOPS),
            // A line for each would let whoever guesses write the log.
            Self::TooManyWrongTokens { retry_after } => {
                Consequence::new(Counted::TooManyWrongTokens, StatusCode::TOO_MANY_REQUESTS)
                    .with(With::RetryAfter(retry_after))
                    .logged(Logged::Not)
            }
            Self::WebSocketVersion | Self::NoUpgrade => {
                Consequence::new(Counted::Handshake, StatusCode::UPGRADE_REQUIRED)
                    .with(With::WebSocketVersion)
                    .logged(Logged::Debug)
            }
            Self::MalformedHandshake(_) => {
                Consequence::new(Counted::Handshake, StatusCode::BAD_REQUEST).logged(Logged::Debug)
            }
            Self::MalformedConnect(_) => {
                Consequence::new(Counted::Request, StatusCode::BAD_REQUEST).logged(Logged::Debug)
            }
            // The way in which some clients ask whether they need credentials.
            Self::NoCredentials => Consequence::new(
                Counted::NoCredentials,
                StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            )
            .with(With::Challenge)
            .logged(Logged::Debug),
            Self::ConnectOff => {
                Consequence::new(Counted::ConnectOff, StatusCode::METHOD_NOT_ALLOWED)
                    .message("method not allowed")
                    .with(With::Methods("GET"))
                    .logged(Logged::Debug)
            }
            Self::Origin => Consequence::new(Counted::Origin, StatusCode::FORBIDDEN)
                .message("web pages of this origin may not come here"),
            Self::Draining => Consequence::new(Counted::Draining, StatusCode::SERVICE_UNAVAILABLE)
                .message(NO_NEW_DESKTOPS),
            // Why the portal does not say is logged once, not for each of its clients.
            Self::Portal => Consequence::new(Counted::Portal, StatusCode::SERVICE_UNAVAILABLE)
                .message(NO_DESKTOP)
                .logged(Logged::Debug),
            Self::Questions => Consequence::new(Counted::Portal, StatusCode::TOO_MANY_REQUESTS)
                .with(With::RetryAfter(Duration::ZERO))
                .logged(Logged::Debug),
            Self::TooManySessions => {
                Consequence::new(Counted::TooManySessions, StatusCode::TOO_MANY_REQUESTS)
            }
            Self::TooManyChannels => {
                Consequence::new(Counted::TooManyChannels, StatusCode::TOO_MANY_REQUESTS)
            }
        }
    }
}

impl Consequence {
    /// Counted and answered so; logged always, with the reason as the message.
    const fn new(counted: ChannelRefusal, status: StatusCode) -> Self {
        Self {
            counted,
            logged: Logged::Info,
            status,
            message: None,
            with: With::Nothing,
        }
    }

    const fn message(mut self, message: &'static str) -> Self {
        self.message = Some(message);
        self
    }

    const fn with(mut self, with: With) -> Self {
        self.with = with;
        self
    }

    const fn logged(mut self, logged: Logged) -> Self {
        self.logged = logged;
        self
    }
}
