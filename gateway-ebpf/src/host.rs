//! What a host sends: to the bridge as it is, or to userspace while too much is waiting.
//!
//! Segments are redirected without a header, because `tcp_eat_skb` (net/ipv4/tcp_bpf.c) takes the
//! length that it finds afterwards for what it has read from the source.
//!
//! What has come before is cut off first, so that this length is right. TCP queues a segment whole
//! of which a part came before (`tcp_data_queue` and `tcp_ofo_queue`, net/ipv4/tcp_input.c), and
//! `tcp_read_skb` (net/ipv4/tcp.c) hands all of it to a program; only processes get each byte
//! once.

use core::ptr;

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use gateway_common::layout::{ANY_SEGMENT, BROKEN, MISPLACED, PASSED};

use crate::channel::{Channel, Counters};
use crate::maps::TARGETS;

/// Most bytes that one call of `sk_skb_adjust_room` cuts off (net/core/filter.c).
const MOST_AT_ONCE: u32 = 4_095;
/// How often it is called for a segment: together more than the longest has, of 512 KiB
/// (`GRO_MAX_SIZE`, include/linux/netdevice.h).
const MOST_CUTS: u32 = 130;

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

/// Cuts off what came before, and returns how many bytes are left.
///
/// `None`: the segment does not follow the ones before, or not by as much as it says, and what is
/// right cannot be known.
#[inline(always)]
fn cut_repeated(context: &SkBuffContext, state: Counters, len: u32) -> Option<u32> {
    // SAFETY: the context that the kernel gave to the program. The first two numbers are `seq`
    // and `end_seq` of `struct tcp_skb_cb` (include/net/tcp.h).
    let [seq, end_seq, ..] = unsafe { (*context.skb.skb).cb };
    // A FIN counts as a byte.
    let is_whole = end_seq.wrapping_sub(seq).wrapping_sub(len) <= 1;
    let repeated = state.next().unwrap_or(seq).wrapping_sub(seq);
    // A hole is a number above all lengths.
    if !is_whole || repeated > len {
        return None;
    }
    state.set_next(seq.wrapping_add(len));
    if repeated > 0 {
        let mut left = repeated;
        for _ in 0..MOST_CUTS {
            let cut = left.min(MOST_AT_ONCE);
            if cut == 0 {
                break;
            }
            context.skb.adjust_room(-(cut as i32), 0, 0).ok()?;
            left -= cut;
        }
        if left > 0 {
            return None;
        }
        state.add_repeated(repeated);
    }
    Some(len - repeated)
}
