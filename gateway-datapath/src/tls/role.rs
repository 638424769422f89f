//! Which side of a connection is ours.

/// Our side of a connection: after the handshake both differ in whose secret is whose, and in what
/// the peer may send besides data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer is a server.
    Client,
    /// The peer is a client.
    Server,
}
