//! The gateway's eBPF programs, one file each, and the maps that they share with the gateway.
//!
//! A channel's downlink: `host` takes what the host sends and queues it before the channel's
//! bridge, a pair of stream sockets; `bridge` frames what comes out of it for the client;
//! `unix_host` frames what a host on a Unix socket sends, without a bridge; `injector` lets
//! userspace add frames of its own to the client's queue.
#![no_std]
#![no_main]

mod bridge;
mod channel;
mod framed;
mod host;
mod injector;
mod maps;
mod unix_host;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses programs that could get here.
    loop {}
}

/// The verifier's helpers for sockmaps are open to programs under this licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
