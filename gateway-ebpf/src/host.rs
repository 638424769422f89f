//! What a host sends: to the bridge as it is, or to userspace while too much is waiting.
//!
//! Segments are redirected unmodified, because `tcp_eat_skb` (net/ipv4/tcp_bpf.c) takes the
//! length that it finds afterwards for what it has read from the source.

use core::ptr;

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use gateway_common::layout::{ANY_SEGMENT, BROKEN, PASSED};

use crate::channel::Channel;
use crate::maps::TARGETS;

/// Most bytes that wait before a bridge. `sk_psock.ingress_skb`, where they wait, has no limit
/// of its own.
#[unsafe(no_mangle)]
static QUEUE_LIMIT: u64 = 0;

/// Longest segment that is redirected, see [`gateway_common::layout::SEGMENT_LIMIT`].
#[unsafe(no_mangle)]
static SEGMENT_LIMIT: u64 = ANY_SEGMENT;

#[inline(always)]
pub fn segment_limit() -> u64 {
    // SAFETY: a constant that the gateway set before it loaded the program.
    unsafe { ptr::read_volatile(&raw const SEGMENT_LIMIT) }
}

/// Sends a segment of the host on.
#[stream_verdict]
pub fn host_verdict(context: SkBuffContext) -> u32 {
    let len = context.len();
    // A FIN by itself; redirected it would be taken for a broken target.
    if len == 0 {
        return SK_DROP;
    }
    let Some(channel) = Channel::of(&context) else {
        return SK_PASS;
    };
    let Some(forwarded) = channel.gate() else {
        return SK_PASS;
    };
    let state = channel.state();
    // SAFETY: a constant that the gateway set before it loaded the program.
    let limit = unsafe { ptr::read_volatile(&raw const QUEUE_LIMIT) };
    // Once one segment passed all must until userspace has forwarded them: order is kept.
    let is_open = forwarded == state.passed();
    let is_long = u64::from(len) > segment_limit();
    if !is_open || is_long || state.waiting() + u64::from(len) > limit {
        if state.set_redirecting(false) {
            state.add_stops(1);
        }
        state.add_passed(len);
        state.add_passes(1);
        channel.tell(PASSED);
        return SK_PASS;
    }
    if state.set_redirecting(true) {
        state.add_resumes(1);
    }
    state.add_redirected(len);
    state.add_messages(1);
    let verdict = TARGETS.redirect_skb(&context, channel.cookie, 0) as u32;
    if verdict != SK_PASS {
        state.add_host_dropped(len);
        channel.tell(BROKEN);
    }
    verdict
}
