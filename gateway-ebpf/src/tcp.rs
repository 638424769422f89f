//! Numbers of a TCP connection, read out of the kernel's own structure.
//!
//! Where they lie differs from kernel to kernel, which the gateway finds out (BTF) and writes into
//! the globals.

use core::ptr;

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{
    bpf_map_lookup_elem, bpf_sk_release, bpf_skc_to_tcp_sock,
};
use aya_ebpf::programs::SkBuffContext;

use crate::maps::TARGETS;

#[unsafe(no_mangle)]
static WRITE_SEQ: u64 = 0;
#[unsafe(no_mangle)]
static SND_NXT: u64 = 0;
#[unsafe(no_mangle)]
static SND_UNA: u64 = 0;
#[unsafe(no_mangle)]
static COPIED_SEQ: u64 = 0;

/// How far the sending side of a connection is, in TCP's numbers.
pub struct Sent {
    /// Of the byte behind all that was written.
    pub written: u32,
    /// Of the byte behind all that was sent.
    pub sent: u32,
    /// Of the byte behind all that was acknowledged.
    pub acknowledged: u32,
}

impl Sent {
    /// Of the socket that takes the bytes of the one with this cookie; `None`: there is none.
    #[inline(always)]
    pub fn of_target(cookie: u64) -> Option<Self> {
        // SAFETY: map and key are what the helper takes. The socket is given back below, on each
        // way, and not used after that.
        unsafe {
            let map = (&raw const TARGETS).cast_mut().cast::<c_void>();
            let socket = bpf_map_lookup_elem(map, (&raw const cookie).cast());
            if socket.is_null() {
                return None;
            }
            let tcp = bpf_skc_to_tcp_sock(socket).cast::<u8>();
            let sent = if tcp.is_null() {
                None
            } else {
                Some(Self {
                    written: number(tcp, &WRITE_SEQ),
                    sent: number(tcp, &SND_NXT),
                    acknowledged: number(tcp, &SND_UNA),
                })
            };
            bpf_sk_release(socket);
            sent
        }
    }
}

/// TCP's number of the next byte that a process would read of the socket that a segment came to;
/// `None`: it is no TCP socket.
#[inline(always)]
pub fn next_unread(context: &SkBuffContext) -> Option<u32> {
    // SAFETY: the context that the kernel gave to the program, which runs under the lock of the
    // socket that `sk` is.
    unsafe {
        let socket = (*context.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let tcp = bpf_skc_to_tcp_sock(socket.cast()).cast::<u8>();
        if tcp.is_null() {
            return None;
        }
        Some(number(tcp, &COPIED_SEQ))
    }
}

/// # Safety
///
/// `tcp` must be what `bpf_skc_to_tcp_sock` returned.
#[inline(always)]
unsafe fn number(tcp: *const u8, offset: &u64) -> u32 {
    // SAFETY: the offset of a number of 32 bits in that structure, which the verifier checks.
    unsafe { ptr::read_volatile(tcp.add(ptr::read_volatile(offset) as usize).cast()) }
}
