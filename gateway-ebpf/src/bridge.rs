//! What comes out of a bridge: one binary frame for the client of each piece.

use aya_ebpf::bindings::sk_action::SK_DROP;
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;

use crate::channel::Channel;
use crate::framed::send_framed;

/// Frames a piece for the client.
#[stream_verdict]
pub fn bridge_verdict(context: SkBuffContext) -> u32 {
    let len = context.len();
    if len == 0 {
        return SK_DROP;
    }
    match Channel::of(&context) {
        Some(channel) => send_framed(&context, &channel, len),
        None => SK_DROP,
    }
}
