//! Who shows a ticket, and why it opens nothing.

use std::net::IpAddr;

use crate::limits::Subscriber;

/// Who shows a ticket.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The ticket, or something else.
    pub token: &'a str,
    /// Address of the client.
    pub client: IpAddr,
    /// Who is counted for a ticket that was made elsewhere.
    pub owner: Option<Subscriber>,
    /// Whether a signature is to be checked, which costs more than a look-up.
    pub may_be_new: bool,
}

/// Why a ticket opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedeemError {
    /// It is not known here: it has expired, was made elsewhere, or never.
    #[error("wrong or expired ticket")]
    Wrong,
    /// It is known, or was sealed for this pool, and nobody else need be asked about it: it has
    /// expired, or is not this client's.
    #[error("ticket that is good for nothing here")]
    Denied,
    /// It would begin a desktop session, see [`super::Tickets::set_closed`].
    #[error("no new desktop sessions")]
    Closed,
    /// It is good for one desktop session, of which no more can be remembered.
    #[error("too many signed tickets with jti are remembered until they expire")]
    Full,
}
