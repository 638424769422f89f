//! What a host on a Unix socket sends: one binary frame for the client of each piece, without a
//! bridge.
//!
//! The program runs in the host's own call of the system, once for each piece that it queues
//! (`unix_stream_sendmsg`, net/unix/af_unix.c): when the host's end shows, every piece was seen.
//! A piece stays charged to the host's send buffer until the client's TCP has taken it
//! (`sock_wfree`, net/core/sock.c). So a client that takes nothing stops its host, and nothing has
//! to pass through userspace.

use core::ptr;

use aya_ebpf::bindings::sk_action::SK_DROP;
use aya_ebpf::helpers::generated::bpf_skc_to_unix_sock;
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use gateway_common::layout::{CLOSED, HELD_UP, PASSED, UNKNOWN_OFFSET};

use crate::channel::Channel;
use crate::framed::send_framed;

/// Where the kernel keeps a socket's peer (`unix_sock.peer`), see
/// [`gateway_common::layout::PEER_OFFSET`].
#[unsafe(no_mangle)]
static PEER_OFFSET: u64 = UNKNOWN_OFFSET;
/// Where it keeps a socket's cookie (`sock.__sk_common.skc_cookie`).
#[unsafe(no_mangle)]
static COOKIE_OFFSET: u64 = UNKNOWN_OFFSET;
/// Where it keeps the bytes that are charged to a socket's send buffer (`sock.sk_wmem_alloc`).
#[unsafe(no_mangle)]
static CHARGED_OFFSET: u64 = UNKNOWN_OFFSET;

/// Frames a piece for the client, unless nothing more of the host is wanted.
#[stream_verdict]
pub fn unix_host_verdict(context: SkBuffContext) -> u32 {
    let len = context.len();
    if len == 0 {
        return SK_DROP;
    }
    let Some(Host { leg, charged }) = Host::of(&context) else {
        return SK_DROP;
    };
    let Some(channel) = Channel::with(leg) else {
        return SK_DROP;
    };
    let state = channel.state();
    // Counted before the gate is looked at: userspace, which closes it, then waits until nothing
    // is under way.
    state.add_redirected(len);
    let gate = channel.gate();
    let Some(gate) = gate.filter(|gate| gate.forwarded != CLOSED) else {
        state.take_back_redirected(len);
        state.add_passed(len);
        state.add_passes(1);
        channel.tell(PASSED);
        return SK_DROP;
    };
    state.add_messages(1);
    if u64::from(charged) > gate.limit {
        channel.tell(HELD_UP);
    }
    send_framed(&context, &channel, len)
}

/// What the kernel tells of the socket that sends a piece.
struct Host {
    /// Cookie of the host leg, which receives it.
    leg: u64,
    /// Bytes of the host's send buffer that are in use.
    charged: u32,
}

impl Host {
    /// `None`: the sender is no Unix socket, which cannot be.
    #[inline(always)]
    fn of(context: &SkBuffContext) -> Option<Self> {
        let [peer, cookie, charged] = offsets()?;
        // SAFETY: a field of the context that the kernel gave to the program.
        let sender = unsafe { (*context.skb.skb).__bindgen_anon_2.sk };
        if sender.is_null() {
            return None;
        }
        // SAFETY: the helper takes a socket, and looks whether it is a Unix one.
        let sender = unsafe { bpf_skc_to_unix_sock(sender.cast()) };
        if sender.is_null() {
            return None;
        }
        // SAFETY: the kernel's type information says what lies there. The verifier checks it, and
        // the kernel makes zeros of what cannot be read. The peer cannot change while its sender
        // sends.
        unsafe {
            let peer: *const u8 = ptr::read_volatile(sender.byte_add(peer).cast());
            Some(Self {
                leg: ptr::read_volatile(peer.byte_add(cookie).cast()),
                charged: ptr::read_volatile(sender.byte_add(charged).cast()),
            })
        }
    }
}

/// `None`: they are not known on this kernel.
#[inline(always)]
fn offsets() -> Option<[usize; 3]> {
    // SAFETY: constants that the gateway set before it loaded the program.
    let offsets = unsafe {
        [
            &raw const PEER_OFFSET,
            &raw const COOKIE_OFFSET,
            &raw const CHARGED_OFFSET,
        ]
        .map(|offset| ptr::read_volatile(offset))
    };
    if offsets.contains(&UNKNOWN_OFFSET) {
        return None;
    }
    Some(offsets.map(|offset| offset as usize))
}
