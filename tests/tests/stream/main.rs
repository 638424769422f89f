//! The byte stream of a channel, against the real binary over real sockets: what the data paths
//! must have in common, whatever moves the bytes.
//!
//! Every test takes a [`setup::Setup`], which says how a gateway with a certain data path is
//! started and reached; [`on_every_path`] makes one test of it for each of them.

/// Makes a module with one test per named function for one data path.
macro_rules! on_path {
    ($path:ident, $setup:ident, $($test:ident)*) => {
        mod $path {
            $(
                #[tokio::test]
                async fn $test() -> anyhow::Result<()> {
                    super::$test(crate::setup::$setup).await
                }
            )*
        }
    };
}

/// The same where only root may do what the tests need.
macro_rules! on_path_as_root {
    ($path:ident, $setup:ident, $($test:ident)*) => {
        mod $path {
            $(
                #[tokio::test]
                #[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
                async fn $test() -> anyhow::Result<()> {
                    super::$test(crate::setup::$setup).await
                }
            )*
        }
    };
}

/// The same for a data path that few kernels carry; those in virtual machines do.
macro_rules! on_ktls {
    ($path:ident, $setup:ident, $($test:ident)*) => {
        mod $path {
            $(
                #[tokio::test]
                #[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
                async fn $test() -> anyhow::Result<()> {
                    super::$test(crate::setup::$setup).await
                }
            )*
        }
    };
}

/// Runs the named functions on every data path.
macro_rules! on_every_path {
    ($($test:ident)*) => {
        on_path!(relay_tls, RELAY_TLS, $($test)*);
        on_path!(relay_plain, RELAY_PLAIN, $($test)*);
        on_path_as_root!(sockmap, SOCKMAP, $($test)*);
        on_ktls!(ktls, KTLS, $($test)*);
        on_ktls!(ktls_sockmap, KTLS_SOCKMAP, $($test)*);
    };
}

/// The same for functions that make a network of their own.
macro_rules! on_every_path_as_root {
    ($($test:ident)*) => {
        on_path_as_root!(relay_tls, RELAY_TLS, $($test)*);
        on_path_as_root!(relay_plain, RELAY_PLAIN, $($test)*);
        on_path_as_root!(sockmap, SOCKMAP, $($test)*);
        on_ktls!(ktls, KTLS, $($test)*);
        on_ktls!(ktls_sockmap, KTLS_SOCKMAP, $($test)*);
    };
}

/// Runs the named functions with hosts of every kind but the usual one, on the paths that they
/// take.
macro_rules! on_every_host {
    ($($test:ident)*) => {
        on_path!(tls_host, TLS_HOST, $($test)*);
        on_path!(unix_host, UNIX_HOST, $($test)*);
        on_path_as_root!(sockmap_unix_host, SOCKMAP_UNIX_HOST, $($test)*);
    };
}

/// Runs the named functions on every data path, and with hosts of every kind those that stand before
/// the semicolon.
macro_rules! on_every_path_and_host {
    ($($everywhere:ident)*; $($path:ident)*) => {
        on_every_path!($($everywhere)* $($path)*);
        on_every_host!($($everywhere)*);
    };
}

mod bpf_maps;
mod channel;
mod conformance;
mod controls;
mod desktop;
mod endings;
mod felt;
mod host_legs;
mod host_proxy;
mod kernel;
mod ktls;
mod ktls_sockmap;
mod lag;
mod left_hosts;
mod lines;
mod loaded_programs;
mod lost_clients;
mod measured;
mod metrics;
mod openssl;
mod overlap;
mod patterns;
mod peers;
mod plan;
mod pressure;
mod randomised;
mod setup;
mod silent_hosts;
mod slow_endings;
mod sockmap;
mod stage;
mod tunnel;
mod tunnels;
mod unix_hosts;
mod unsteady;
mod verdict;
mod violations;
