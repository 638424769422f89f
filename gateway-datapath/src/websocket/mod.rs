//! The server's side of RFC 6455 once the handshake is over: the frames of a moving stream.

pub mod close;
pub mod decode;
pub mod encode;
mod mask;
