//! The one way for what userspace sends on a client leg that the kernel moves.
//!
//! Userspace writes datagrams `[bytes][u32 destination, native endian]` into a datagram socket
//! pair of the channel. Frames go to the client behind all that was redirected before, so that no
//! control frame lands in the middle of a data frame; bytes that had passed go behind all that
//! waits before the bridge.
//!
//! The destination stands last because taking something off the front needs
//! `sk_skb_adjust_room`, which not every kernel survives (see `bridge`).

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::helpers::generated::bpf_skb_change_tail;
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use gateway_common::layout::{BROKEN, DESTINATION_LEN, TO_BRIDGE};

use crate::channel::Channel;
use crate::maps::TARGETS;

/// Takes the destination off a datagram and sends the rest there.
///
/// Datagrams without content are dropped: the kernel takes an empty send for a broken target.
#[stream_verdict]
pub fn injector_verdict(context: SkBuffContext) -> u32 {
    let Some(len) = context.len().checked_sub(DESTINATION_LEN as u32) else {
        return SK_DROP;
    };
    let Some(channel) = Channel::of(&context) else {
        return SK_DROP;
    };
    let state = channel.state();
    if len == 0 {
        return SK_DROP;
    }
    let Ok(destination) = context.load::<u32>(len as usize) else {
        return SK_DROP;
    };
    // SAFETY: the helper takes the context that the kernel gave to the program.
    if unsafe { bpf_skb_change_tail(context.skb.skb, len, 0) } != 0 {
        state.add_injector_dropped(len);
        channel.tell(BROKEN);
        return SK_DROP;
    }
    let key = if destination == TO_BRIDGE {
        state.add_returned(len);
        channel.route.host
    } else {
        state.add_injected(len);
        channel.cookie
    };
    let verdict = TARGETS.redirect_skb(&context, key, 0) as u32;
    if verdict != SK_PASS {
        state.add_injector_dropped(len);
        channel.tell(BROKEN);
    }
    verdict
}
