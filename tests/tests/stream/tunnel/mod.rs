//! The byte stream of a tunnel, as of channels with frames.
//!
//! Every test takes a [`crate::setup::Setup`]; `on_every_tunnel` makes one test of it for each port
//! and data path.

/// Runs the named functions for tunnels with TLS around them and without.
macro_rules! on_every_tunnel {
    ($($test:ident)*) => {
        on_path!(relay_tls, TUNNEL_TLS, $($test)*);
        on_path!(relay_plain, TUNNEL_PLAIN, $($test)*);
        on_ktls!(ktls, TUNNEL_KTLS, $($test)*);
    };
}

/// The same for functions that make a network of their own.
macro_rules! on_every_tunnel_as_root {
    ($($test:ident)*) => {
        on_path_as_root!(relay_tls, TUNNEL_TLS, $($test)*);
        on_path_as_root!(relay_plain, TUNNEL_PLAIN, $($test)*);
        on_ktls!(ktls, TUNNEL_KTLS, $($test)*);
    };
}

mod bytes;
mod ends;
mod lines;
mod pressure;
mod random;
pub(crate) mod setup;
