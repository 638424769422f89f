//! One binary frame for the client of each piece that comes from an AF_UNIX stream socket.
//!
//! Headers are put here and not on a TCP socket because AF_UNIX has no sequence numbers that
//! would go wrong.
//!
//! `sk_skb_adjust_room` takes the socket of each piece for a TCP one and follows a pointer from
//! beyond the end of an AF_UNIX socket (`tls_sw_has_ctx_rx`, include/net/tls.h) until kernel
//! commit 44d0469f79bd, "bpf: Add sk_is_inet and IS_ICSK check in tls_sw_has_ctx_tx/rx". Kernels
//! that may be without it get their headers by `bpf_skb_change_head`, which knows no sockets.

use core::ptr;

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::helpers::generated::bpf_skb_change_head;
use aya_ebpf::programs::SkBuffContext;
use aya_log_ebpf::warn;
use gateway_common::frame::{self, FIN_BINARY, MAX_HEADER, MAX_PAYLOAD};
use gateway_common::layout::{ANY_SEGMENT, BROKEN};

use crate::channel::Channel;
use crate::host::segment_limit;
use crate::maps::TARGETS;

/// Longest piece that is made linear, see [`gateway_common::layout::LINEAR_LIMIT`].
#[unsafe(no_mangle)]
static LINEAR_LIMIT: u64 = 0;

#[inline(always)]
fn linear_limit() -> u64 {
    // SAFETY: a constant that the gateway set before it loaded the program.
    unsafe { ptr::read_volatile(&raw const LINEAR_LIMIT) }
}

/// Puts a header in front of a piece and sends it to the client; returns the program's verdict.
#[inline(always)]
pub fn send_framed(context: &SkBuffContext, channel: &Channel, len: u32) -> u32 {
    let state = channel.state();
    let Some(header) = put_header(context, len) else {
        warn!(context, "a piece of {} bytes could not be framed", len);
        state.add_bridge_dropped(len);
        channel.tell(BROKEN);
        return SK_DROP;
    };
    state.add_headers(header);
    state.add_frames(1);
    state.add_framed(len);
    let verdict = TARGETS.redirect_skb(context, channel.cookie, 0) as u32;
    if verdict != SK_PASS {
        state.add_bridge_dropped(len);
        channel.tell(BROKEN);
    }
    verdict
}

/// Returns the header's length; `None`: the kernel did not make room, or the piece is too long.
#[inline(always)]
fn put_header(context: &SkBuffContext, len: u32) -> Option<u32> {
    let payload = len as usize;
    // Pieces are as long as a send on AF_UNIX makes them, half of this.
    if payload > MAX_PAYLOAD {
        return None;
    }
    let mut header = [0; MAX_HEADER];
    let header_len = frame::write_header(&mut header, FIN_BINARY, payload);
    if u64::from(len) <= linear_limit() {
        // Without memory for that it stays as it is.
        let _ = context.skb.pull_data(len);
    }
    if segment_limit() == ANY_SEGMENT {
        context.skb.adjust_room(header_len as i32, 0, 0).ok()?;
    } else {
        // SAFETY: the helper takes the context that the kernel gave to the program.
        let changed = unsafe { bpf_skb_change_head(context.skb.skb, header_len as u32, 0) };
        (changed == 0).then_some(())?;
    }
    // The verifier wants to see each length as a constant.
    match header_len {
        2 => context.skb.store(0, &[header[0], header[1]], 0),
        4 => context
            .skb
            .store(0, &[header[0], header[1], header[2], header[3]], 0),
        _ => context.skb.store(0, &header, 0),
    }
    .ok()?;
    Some(header_len as u32)
}
