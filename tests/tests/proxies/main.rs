//! Real reverse proxies in front of the gateway, set up as the documentation says, and the
//! documentation itself.

mod apache;
mod desktop;
mod haproxy;
mod leaving;
mod nginx;
mod pool;
mod process;
mod proxy_protocol;
mod scene;
mod template;
