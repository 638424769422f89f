//! The byte stream of a tunnel: what the data paths must have in common, as for channels with
//! frames.
//!
//! Every test takes a [`setup::Setup`]; `on_every_tunnel` makes one test of it for each data path.

/// Runs the named functions on every data path that moves tunnels.
macro_rules! on_every_tunnel {
    ($($test:ident)*) => {
        on_path!(relay_tls, crate::tunnel::setup::RELAY_TLS, $($test)*);
        on_path!(relay_plain, crate::tunnel::setup::RELAY_PLAIN, $($test)*);
        on_path_as_root!(sockmap, crate::tunnel::setup::SOCKMAP, $($test)*);
    };
}

/// The same for functions that make a network of their own.
macro_rules! on_every_tunnel_as_root {
    ($($test:ident)*) => {
        on_path_as_root!(relay_tls, crate::tunnel::setup::RELAY_TLS, $($test)*);
        on_path_as_root!(relay_plain, crate::tunnel::setup::RELAY_PLAIN, $($test)*);
        on_path_as_root!(sockmap, crate::tunnel::setup::SOCKMAP, $($test)*);
    };
}

mod asleep;
mod bytes;
mod ends;
mod kernel;
mod lines;
mod overlap;
mod pressure;
mod random;
mod setup;
