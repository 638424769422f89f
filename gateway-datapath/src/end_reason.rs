//! Why channels end: what is counted, what the log says and what the client is told, in one place
//! for all stages of a channel's life.

use std::fmt;
use std::io::ErrorKind;

use crate::labels;
use crate::websocket::close::CloseCode;
use crate::websocket::decode::Violation;
use crate::websocket::encode;

labels! {
    /// Kinds of reasons, by which the ends of channels are counted.
    pub enum EndKind {
        /// By the client, in order.
        ClientEnded => "client ended",
        /// Its connection broke, or it did not take its answer.
        ClientLost => "client lost",
        /// It does not answer Pings.
        ClientSilent => "client silent",
        /// It broke the rules of WebSockets.
        Violation => "violation",
        /// It changed its TLS key, which the kernel cannot follow.
        ClientKey => "client changed its key",
        /// There is no next TLS key.
        KeyUsedUp => "key used up",
        /// It did not say in time what the channel is.
        NoLinkMessage => "no link message",
        /// It does not speak Spice.
        NotSpice => "not spice",
        /// Channels of its type may not pass.
        ChannelNotAllowed => "channel not allowed",
        /// By the host, in order.
        HostEnded => "host ended",
        /// Its connection broke.
        HostLost => "host lost",
        /// It could not be connected once the client had begun.
        HostNotReached => "host not reached",
        /// It did not answer the link message.
        HostSilent => "host silent",
        /// The system has no room for the channel.
        Resources => "resources",
        /// An administrator ended the desktop session.
        Kicked => "kicked",
        /// The time for draining was over.
        Drained => "drained",
        /// The gateway is being stopped.
        GatewayStopped => "gateway stopped",
    }
}

/// Why a channel is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The gateway is being stopped.
    Shutdown,
    /// Somebody ended this desktop session by hand.
    Kicked,
    /// The time that draining may take is over.
    Drained,
    /// The client's system has answered nothing for `ClientTimeout`.
    NoAnswer,
}

/// Which event ended a channel: the first one, whatever followed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client was gone before it got its 101 or 200.
    AnswerLost,
    /// The client did not take its 101 or 200 in `LinkTimeout`.
    AnswerNotTaken,
    /// The client sent more behind its request than any that waits for the answer.
    TooEarly,
    /// The client has not said in `LinkTimeout` what the channel is.
    NoLinkMessage,
    /// The client's first bytes are neither a Spice link message nor TLS where the host has a port
    /// for it.
    NotSpice,
    /// The client's link message names a type of channel, this one, that may not pass.
    ChannelNotAllowed(&'static str),
    /// The kernel took one of the channel's sockets over in part.
    Resources(ErrorKind),
    /// The client sent a Close frame with this code.
    ClientClose(Option<u16>),
    /// The client ended its TCP stream without a Close frame, as the flexVDI client does, or there
    /// are no frames.
    ClientEnd,
    /// The client's connection broke.
    ClientLost(ErrorKind),
    /// Nothing came from the client for three intervals of Pings.
    ClientSilent,
    /// The client broke the framing rules.
    Violation(Violation),
    /// The client changed its TLS key, and the kernel takes no new one.
    ClientKey,
    /// As much was sent with the TLS key as is safe, and the kernel takes no new one.
    KeyUsedUp,
    /// The host was not connected once the client had begun.
    HostNotReached,
    /// The host ended its stream.
    HostEnd,
    /// The host's connection broke.
    HostLost(ErrorKind),
    /// What the host sent came to the kernel's program with a hole, or with lengths that cannot be.
    HostTorn,
    /// What the host sent breaks the rules of TLS, or its key is used up.
    HostTls,
    /// The host has not sent a byte in `LinkTimeout` after the client's link message.
    HostSilent,
    /// The gateway was asked to end the channel.
    Asked(StopCause),
}

/// What the client is told.
enum CloseAnswer {
    /// Nothing: it has gone, or another event will say more.
    Nothing,
    /// What it said itself.
    Echo(Option<u16>),
    Code(CloseCode),
}

impl EndReason {
    /// What a reason means for others than its channel.
    fn consequences(self) -> (EndKind, CloseAnswer) {
        use CloseAnswer::{Code, Echo, Nothing};
        match self {
            Self::TooEarly => (EndKind::Violation, Code(CloseCode::PolicyViolation)),
            Self::NoLinkMessage => (EndKind::NoLinkMessage, Code(CloseCode::PolicyViolation)),
            Self::NotSpice => (EndKind::NotSpice, Code(CloseCode::PolicyViolation)),
            Self::ChannelNotAllowed(_) => {
                (EndKind::ChannelNotAllowed, Code(CloseCode::PolicyViolation))
            }
            Self::Resources(_) => (EndKind::Resources, Nothing),
            Self::ClientClose(code) => (EndKind::ClientEnded, Echo(code)),
            Self::ClientEnd => (EndKind::ClientEnded, Nothing),
            Self::AnswerLost | Self::AnswerNotTaken | Self::ClientLost(_) => {
                (EndKind::ClientLost, Nothing)
            }
            Self::ClientSilent => (EndKind::ClientSilent, Code(CloseCode::GoingAway)),
            Self::Violation(violation) => (EndKind::Violation, Code(violation.close_code())),
            Self::ClientKey => (EndKind::ClientKey, Code(CloseCode::GoingAway)),
            Self::KeyUsedUp => (EndKind::KeyUsedUp, Code(CloseCode::GoingAway)),
            Self::HostEnd => (EndKind::HostEnded, Code(CloseCode::Normal)),
            Self::HostLost(_) | Self::HostTorn | Self::HostTls => {
                (EndKind::HostLost, Code(CloseCode::InternalError))
            }
            Self::HostNotReached => (EndKind::HostNotReached, Code(CloseCode::InternalError)),
            Self::HostSilent => (EndKind::HostSilent, Code(CloseCode::InternalError)),
            Self::Asked(StopCause::Shutdown) => {
                (EndKind::GatewayStopped, Code(CloseCode::GoingAway))
            }
            Self::Asked(StopCause::Kicked) => (EndKind::Kicked, Code(CloseCode::GoingAway)),
            Self::Asked(StopCause::Drained) => (EndKind::Drained, Code(CloseCode::GoingAway)),
            Self::Asked(StopCause::NoAnswer) => (EndKind::ClientLost, Nothing),
        }
    }

    /// The kind, by which it is counted.
    pub fn kind(self) -> EndKind {
        self.consequences().0
    }

    /// The Close frame that tells the client; `None`: there is none for this.
    pub fn close_frame(self) -> Option<Vec<u8>> {
        match self.consequences().1 {
            CloseAnswer::Nothing => None,
            CloseAnswer::Echo(code) => Some(encode::close_echo(code)),
            CloseAnswer::Code(code) => Some(encode::close(code)),
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnswerLost => f.write_str("client lost before its answer"),
            Self::AnswerNotTaken => f.write_str("client did not take its answer in time"),
            Self::TooEarly => f.write_str("client sent too much before its answer"),
            Self::NoLinkMessage => f.write_str("no Spice link message in time"),
            Self::NotSpice => f.write_str("client does not speak Spice"),
            Self::ChannelNotAllowed(kind) => write!(f, "{kind} channels are not allowed"),
            Self::Resources(kind) => write!(f, "sockets cannot be registered any more: {kind}"),
            Self::ClientClose(Some(code)) => write!(f, "client sent Close {code}"),
            Self::ClientClose(None) => f.write_str("client sent Close"),
            Self::ClientEnd => f.write_str("client disconnected"),
            Self::ClientLost(kind) => write!(f, "client lost: {kind}"),
            Self::ClientSilent => f.write_str("client did not answer Pings"),
            Self::Violation(violation) => write!(f, "client broke the protocol: {violation}"),
            Self::ClientKey => f.write_str("client changed its TLS key"),
            Self::KeyUsedUp => f.write_str("TLS key used up"),
            Self::HostNotReached => f.write_str("host not reached"),
            Self::HostEnd => f.write_str("host disconnected"),
            Self::HostLost(kind) => write!(f, "host lost: {kind}"),
            Self::HostTorn => f.write_str("host lost: its segments do not follow each other"),
            Self::HostTls => f.write_str("host lost: its TLS is broken"),
            Self::HostSilent => f.write_str("host did not answer the link message in time"),
            Self::Asked(StopCause::Shutdown) => f.write_str("gateway stopped"),
            Self::Asked(StopCause::Kicked) => f.write_str("ended by the administrator"),
            Self::Asked(StopCause::Drained) => f.write_str("the time for draining was over"),
            Self::Asked(StopCause::NoAnswer) => f.write_str("client lost: no answer in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Label;

    /// Counted by what ended it, and its client told the same.
    #[test]
    fn no_reason_is_taken_for_another() {
        let going_away = Some(vec![0x88, 2, 0x03, 0xe9]);
        let policy = Some(vec![0x88, 2, 0x03, 0xf0]);
        let internal = Some(vec![0x88, 2, 0x03, 0xf3]);
        let broken = ErrorKind::BrokenPipe;
        for (reason, kind, frame) in [
            (EndReason::AnswerNotTaken, "client lost", None),
            (EndReason::TooEarly, "violation", policy.clone()),
            (EndReason::NoLinkMessage, "no link message", policy.clone()),
            (EndReason::NotSpice, "not spice", policy.clone()),
            (
                EndReason::ChannelNotAllowed("record"),
                "channel not allowed",
                policy,
            ),
            (EndReason::Resources(ErrorKind::Other), "resources", None),
            (EndReason::ClientEnd, "client ended", None),
            (
                EndReason::ClientClose(None),
                "client ended",
                Some(vec![0x88, 0]),
            ),
            (
                EndReason::ClientKey,
                "client changed its key",
                going_away.clone(),
            ),
            (EndReason::KeyUsedUp, "key used up", going_away.clone()),
            (EndReason::HostLost(broken), "host lost", internal.clone()),
            (
                EndReason::HostNotReached,
                "host not reached",
                internal.clone(),
            ),
            (EndReason::HostTls, "host lost", internal.clone()),
            (EndReason::Asked(StopCause::NoAnswer), "client lost", None),
            (EndReason::HostSilent, "host silent", internal),
            (
                EndReason::Asked(StopCause::Kicked),
                "kicked",
                going_away.clone(),
            ),
            (
                EndReason::Asked(StopCause::Drained),
                "drained",
                going_away.clone(),
            ),
            (
                EndReason::Asked(StopCause::Shutdown),
                "gateway stopped",
                going_away,
            ),
        ] {
            assert_eq!(reason.kind().text(), kind, "{reason}");
            assert_eq!(reason.close_frame(), frame, "{reason}");
        }
    }
}
