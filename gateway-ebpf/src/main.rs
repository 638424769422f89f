//! The gateway's eBPF programs, one file each.
#![no_std]
#![no_main]

mod injector;
mod maps;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses programs that could get here.
    loop {}
}

/// The verifier's helpers for sockmaps are open to programs under this licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
