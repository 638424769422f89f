//! The server's side of RFC 6455: the handshake, and the frames of a moving stream.

pub mod close;
pub mod decode;
pub mod encode;
pub mod handshake;
mod mask;
