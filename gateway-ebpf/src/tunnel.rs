//! What either leg of a tunnel sends: to the other leg as it is, or to userspace while too much is
//! waiting.
//!
//! There are no frames, so nothing changes the length of a segment but what `segment` cuts off.
//! What waits is counted up to where TCP has sent it: the target's send buffer has room for all
//! that may wait, so that the kernel's worker is not held up. What passes lies in the same queue
//! of a socket (`sk_psock.ingress_skb`) as what it is to send, and would wait behind that.

use core::ptr;

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use gateway_common::layout::{BROKEN, Gate, MISPLACED, MOST_UNACKNOWLEDGED, PASSED};

use crate::channel::{Channel, Counters};
use crate::maps::TARGETS;
use crate::segment::cut_repeated;
use crate::tcp::{Sent, next_unread};

/// Most bytes that wait to be read, see [`gateway_common::layout::MOST_PASSED`].
#[unsafe(no_mangle)]
static MOST_PASSED: u64 = 0;

#[inline(always)]
fn most_passed() -> u64 {
    // SAFETY: a constant that the gateway set before it loaded the program.
    unsafe { ptr::read_volatile(&raw const MOST_PASSED) }
}

/// Sends a segment of one leg to the other.
#[stream_verdict]
pub fn tunnel_verdict(context: SkBuffContext) -> u32 {
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
    // The process has read of this socket before, and perhaps a part of this segment.
    if state.next().is_none()
        && let Some(next) = next_unread(&context)
    {
        state.set_next(next);
    }
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
    if gate.forwarded != state.passed() {
        return pass(&channel, gate, len);
    }
    let Some(sent) = Sent::of_target(channel.cookie) else {
        state.add_host_dropped(len);
        channel.tell(BROKEN);
        return SK_DROP;
    };
    let Some(end) = end_with(state, gate, sent, len) else {
        return pass(&channel, gate, len);
    };
    state.set_end(end);
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

/// Leaves a segment to userspace, if that has read enough of those before.
#[inline(always)]
fn pass(channel: &Channel, gate: Gate, len: u32) -> u32 {
    let state = channel.state();
    if state.passed().saturating_sub(gate.taken) > most_passed() {
        state.add_host_dropped(len);
        channel.tell(BROKEN);
        return SK_DROP;
    }
    if state.set_redirecting(false) {
        state.add_stops(1);
    }
    state.add_passed(len);
    state.add_passes(1);
    channel.tell(PASSED);
    SK_PASS
}

/// The number of the byte behind a segment, if it is redirected; `None`: it has to pass.
#[inline(always)]
fn end_with(state: Counters, gate: Gate, sent: Sent, len: u32) -> Option<u32> {
    let end = if state.is_redirecting() {
        state.end()
    } else {
        // Nothing is on its way, and all that userspace forwarded was written.
        sent.written
    };
    let end = end.wrapping_add(len);
    let fits = u64::from(end.wrapping_sub(sent.sent)) <= gate.limit
        && u64::from(end.wrapping_sub(sent.acknowledged)) <= u64::from(MOST_UNACKNOWLEDGED);
    fits.then_some(end)
}
