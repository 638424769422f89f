//! What has come before of a segment is cut off.
//!
//! TCP queues a segment whole of which a part came before (`tcp_data_queue` and `tcp_ofo_queue`,
//! net/ipv4/tcp_input.c), and `tcp_read_skb` (net/ipv4/tcp.c) hands all of it to a program; only
//! processes get each byte once.

use aya_ebpf::programs::SkBuffContext;

use crate::channel::Counters;

/// Most bytes that one call of `sk_skb_adjust_room` cuts off (net/core/filter.c).
const MOST_AT_ONCE: u32 = 4_095;
/// How often it is called for a segment: together more than the longest has, of 512 KiB
/// (`GRO_MAX_SIZE`, include/linux/netdevice.h).
const MOST_CUTS: u32 = 130;

/// Cuts off what came before, and returns how many bytes are left.
///
/// `None`: the segment does not follow the ones before, or not by as much as it says, and what is
/// right cannot be known.
#[inline(always)]
pub fn cut_repeated(context: &SkBuffContext, state: Counters, len: u32) -> Option<u32> {
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
