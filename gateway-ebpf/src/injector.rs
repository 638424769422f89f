//! The one road for what userspace sends on a client leg that the kernel moves.
//!
//! Userspace writes datagrams `[u32 slot, native endian][bytes]` into a datagram socket pair; the
//! bytes go to the slot's client behind all that was redirected before, so that no control
//! frame lands in the middle of a data frame.

use aya_ebpf::bindings::sk_action::SK_DROP;
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;

use crate::maps::TARGETS;

const SLOT: u32 = size_of::<u32>() as u32;

/// Takes the slot off a datagram and redirects the rest to the slot's client.
///
/// Datagrams without content are dropped: the kernel takes an empty send for a broken target.
#[stream_verdict]
pub fn injector(context: SkBuffContext) -> u32 {
    inject(&context).unwrap_or(SK_DROP)
}

fn inject(context: &SkBuffContext) -> Option<u32> {
    if context.len() <= SLOT {
        return None;
    }
    let slot: u32 = context.load(0).ok()?;
    context.skb.adjust_room(-(SLOT as i32), 0, 0).ok()?;
    // SAFETY: the map lives as long as the program, and the slot's range is checked by the helper.
    Some(unsafe { TARGETS.redirect_skb(context, slot, 0) } as u32)
}
