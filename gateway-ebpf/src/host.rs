//! What a host sends: to the bridge as it is, or to userspace while too much is waiting.
//!
//! Segments are redirected without a header, because `tcp_eat_skb` (net/ipv4/tcp_bpf.c) takes the
//! length that it finds afterwards for what it has read from the source.
//! What has come before is cut off first (`segment`), so that this length is right.

use core::ptr;

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use gateway_common::layout::{ANY_SEGMENT, BROKEN, MISPLACED, PASSED};

use crate::channel::Channel;
use crate::maps::TARGETS;
use crate::segment::cut_repeated;

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
    let Some(gate) = channel.gate() else {
        return SK_PASS;
    };
    let state = channel.state();
    let Some(len) = cut_repeated(&context, state, len) else {
        state.add_misplaced(1);
        state.add_host_dropped(len);
        channel.tell(MISPLACED);
        return SK_DROP;
    };
    // A FIN behind bytes that had all come before.
    if len == 0 {
        return SK_DROP;
    }
    // Once one segment passed all must until userspace has forwarded them: order is kept.
    let is_open = gate.forwarded == state.passed();
    let is_long = u64::from(len) > segment_limit();
    if !is_open || is_long || state.waiting() + u64::from(len) > gate.limit {
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
