//! Keys and values of the maps, and what userspace puts at the end of a datagram.
//!
//! A socket is known by its cookie (`SO_COOKIE`), a number that the kernel gives to no second
//! socket: what comes late, for a channel that has gone, finds nothing, whoever took its place.

/// Number of the agreement between programs and gateway: what is in the maps and in datagrams, and
/// what both do with it. A gateway goes on with channels of programs that another version has
/// loaded only where this is the same.
pub const AGREEMENT: u32 = 1;

/// Name of the host legs' map, a `SockHash` by cookie; `host_verdict` runs on its sockets.
pub const HOSTS: &str = "HOSTS";
/// Name of the map of legs to hosts on Unix sockets, a `SockHash` by cookie; `unix_host_verdict`
/// runs on its sockets.
pub const UNIX_HOSTS: &str = "UNIX_HOSTS";
/// Name of the map of the bridges' receiving ends; `bridge_verdict` runs on them.
pub const BRIDGES: &str = "BRIDGES";
/// Name of the map of the injectors' receiving ends; `injector_verdict` runs on them.
pub const INJECTORS: &str = "INJECTORS";
/// Name of the map that tells where the bytes of a socket go: key is the cookie of the host leg,
/// of a bridge's or an injector's sending end, value the socket that takes them. No program runs
/// on those.
pub const TARGETS: &str = "TARGETS";
/// Name of the map from a cookie to its [`Route`].
pub const ROUTES: &str = "ROUTES";
/// Name of the array of [`State`].
pub const STATES: &str = "STATES";
/// Name of the array of [`Gate`]s, one for each channel.
pub const GATES: &str = "GATES";
/// Name of the ring of [`Event`]s.
pub const EVENTS: &str = "EVENTS";

/// Name of the array whose only entry says what the programs can do on this kernel: whoever has
/// loaded them has found out.
pub const ABILITIES: &str = "ABILITIES";
/// They move hosts on Unix sockets; one bit of the abilities.
pub const MOVES_UNIX_HOSTS: u64 = 1;

/// Name of the global that says how long a segment may be to be redirected, in bytes:
/// [`ANY_SEGMENT`] or [`SMALL_SEGMENT`].
pub const SEGMENT_LIMIT: &str = "SEGMENT_LIMIT";
/// The kernel's `sk_skb_adjust_room` can be used, which makes room for the header of any frame.
pub const ANY_SEGMENT: u64 = u64::MAX;
/// It cannot: headers go where `bpf_skb_change_head` makes room, which refuses more than
/// `SKB_MAX_ALLOC` (net/core/filter.c), four pages less what the kernel needs of them.
pub const SMALL_SEGMENT: u64 = MAX_DATAGRAM as u64;

/// Name of the global that says how long a piece may be to leave its bridge in one block of
/// memory with its header, in bytes.
///
/// Until kernel commit 76d727ae02b5 `__skb_send_sock` (net/core/skbuff.c) sends what a piece has
/// in its linear part, where the header is, without `MSG_MORE`, so that it becomes a segment of
/// its own.
pub const LINEAR_LIMIT: &str = "LINEAR_LIMIT";
/// Name of the global that says where the kernel keeps a Unix socket's peer, in bytes from the
/// socket's start, as its type information tells it; or [`UNKNOWN_OFFSET`].
pub const PEER_OFFSET: &str = "PEER_OFFSET";
/// The same of a socket's cookie.
pub const COOKIE_OFFSET: &str = "COOKIE_OFFSET";
/// The same of the bytes that are charged to a socket's send buffer.
pub const CHARGED_OFFSET: &str = "CHARGED_OFFSET";
/// No offset of a structure of the kernel: programs cannot know whose bytes they see.
pub const UNKNOWN_OFFSET: u64 = u64::MAX;

/// A gate that equals no number of passed bytes: all bytes of the host pass to userspace.
pub const CLOSED: u64 = u64::MAX;

/// Bytes at the end of each datagram to an injector: one of the two destinations, native endian.
pub const DESTINATION_LEN: usize = size_of::<u32>();
/// Longest datagram without its destination, in bytes: what `bpf_skb_change_tail` can shorten,
/// which has the same limit as [`SMALL_SEGMENT`].
pub const MAX_DATAGRAM: usize = 15 * 1024;
/// The datagram holds whole frames for the client.
pub const TO_CLIENT: u32 = 0;
/// The datagram holds bytes of the host that passed; they queue before the bridge, which frames
/// them.
pub const TO_BRIDGE: u32 = 1;

/// Which channel a socket belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Route {
    /// Cookie of the channel's host leg.
    pub host: u64,
    /// Index of its [`State`] and its gate.
    pub slot: u32,
    /// Zero.
    pub padding: u32,
}

/// What userspace tells the host leg's program.
///
/// Of a host on a Unix socket nothing passes: [`CLOSED`] in `forwarded` says that nothing more of
/// it is wanted, and `limit` how much may be charged to its send buffer before userspace is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Gate {
    /// How many passed bytes were forwarded, or [`CLOSED`]. The program redirects only while this
    /// equals [`State::passed`], so nothing overtakes passed bytes.
    pub forwarded: u64,
    /// Most bytes that wait before the bridge. `sk_psock.ingress_skb`, where they wait, has no
    /// limit of its own.
    pub limit: u64,
}

/// What the programs keep of a channel while it lives, in bytes unless said otherwise.
///
/// Every number is written by one program, which the kernel runs for one piece of a channel at a
/// time; so none needs an atomic addition, which costs more and which Rust's core library does
/// not have for this target. Only a host on a Unix socket that writes from several threads at once,
/// whose bytes have no order then, can make it run for two of its pieces: counts of its own channel
/// are wrong after that, and that channel may take `CloseTimeout` to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct State {
    /// Host: sent to the bridge; of one on a Unix socket, taken to be framed.
    pub redirected: u64,
    /// Host: left to userspace; of one on a Unix socket, dropped because nothing more was wanted.
    pub passed: u64,
    /// Host: how many segments were redirected.
    pub messages: u64,
    /// Host: how many segments passed.
    pub passes: u64,
    /// Host: how often redirecting stopped.
    pub stops: u64,
    /// Host: how often redirecting began, the first time included.
    pub resumes: u64,
    /// Host: 1 while the last segment was redirected.
    pub redirecting: u64,
    /// Host: lost, because there was no bridge.
    pub host_dropped: u64,
    /// Bridge: payload sent to the client.
    pub framed: u64,
    /// Bridge: headers of frames sent to the client.
    pub headers: u64,
    /// Bridge: how many frames were made.
    pub frames: u64,
    /// Bridge: lost, because it could not be framed or there was no client.
    pub bridge_dropped: u64,
    /// Injector: frames of userspace sent to the client, headers included.
    pub injected: u64,
    /// Injector: bytes that had passed and were sent to the bridge.
    pub returned: u64,
    /// Injector: lost, because there was no bridge or no client.
    pub injector_dropped: u64,
    /// Host: TCP's number of the next byte, with [`NEXT_IS_KNOWN`]; 0 before the first segment.
    pub next: u64,
    /// Host: bytes that had come before and were cut off.
    pub repeated: u64,
    /// Host: how many segments did not follow the one before; more than none: the channel is
    /// broken.
    pub misplaced: u64,
}

/// Tells a [`State::next`] that is known from one that is not.
pub const NEXT_IS_KNOWN: u64 = 1 << 32;

impl State {
    /// Bytes that wait before the bridge.
    pub const fn waiting(&self) -> u64 {
        (self.redirected + self.returned).wrapping_sub(self.framed)
    }

    /// The numbers of both channels added up; [`State::redirecting`] then says how many redirect.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            redirected: self.redirected + other.redirected,
            passed: self.passed + other.passed,
            messages: self.messages + other.messages,
            passes: self.passes + other.passes,
            stops: self.stops + other.stops,
            resumes: self.resumes + other.resumes,
            redirecting: self.redirecting + other.redirecting,
            host_dropped: self.host_dropped + other.host_dropped,
            framed: self.framed + other.framed,
            headers: self.headers + other.headers,
            frames: self.frames + other.frames,
            bridge_dropped: self.bridge_dropped + other.bridge_dropped,
            injected: self.injected + other.injected,
            returned: self.returned + other.returned,
            injector_dropped: self.injector_dropped + other.injector_dropped,
            next: 0,
            repeated: self.repeated + other.repeated,
            misplaced: self.misplaced + other.misplaced,
        }
    }

    /// Bytes sent to the client.
    pub const fn to_client(&self) -> u64 {
        self.framed + self.headers + self.injected
    }

    /// Bytes lost; more than none: the channel is broken.
    pub const fn dropped(&self) -> u64 {
        self.host_dropped + self.bridge_dropped + self.injector_dropped
    }
}

/// What userspace is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Event {
    /// Cookie of the channel's host leg.
    pub host: u64,
    /// [`PASSED`], [`BROKEN`] or [`MISPLACED`].
    pub kind: u64,
}

/// Bytes of the host wait for userspace.
pub const PASSED: u64 = 1;
/// Bytes were lost; the channel must end.
pub const BROKEN: u64 = 2;
/// A segment of the host does not follow the one before; the channel must end.
pub const MISPLACED: u64 = 16;
/// More than the gate's limit of a host on a Unix socket waits in its send buffer.
pub const HELD_UP: u64 = 32;

// Both sides are built by different compilers: what they share has no room for doubt.
const _: () = assert!(size_of::<Route>() == 16 && align_of::<Route>() == 8);
const _: () = assert!(size_of::<State>() == 144 && align_of::<State>() == 8);
const _: () = assert!(size_of::<Event>() == 16 && align_of::<Event>() == 8);

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    /// A gateway and the programs of another version understand each other while these are so.
    #[test]
    fn another_layout_is_another_agreement() {
        let route = [offset_of!(Route, host), offset_of!(Route, slot)];
        let gate = [offset_of!(Gate, forwarded), offset_of!(Gate, limit)];
        let event = [offset_of!(Event, host), offset_of!(Event, kind)];
        let state = [
            offset_of!(State, redirected),
            offset_of!(State, passed),
            offset_of!(State, messages),
            offset_of!(State, passes),
            offset_of!(State, stops),
            offset_of!(State, resumes),
            offset_of!(State, redirecting),
            offset_of!(State, host_dropped),
            offset_of!(State, framed),
            offset_of!(State, headers),
            offset_of!(State, frames),
            offset_of!(State, bridge_dropped),
            offset_of!(State, injected),
            offset_of!(State, returned),
            offset_of!(State, injector_dropped),
            offset_of!(State, next),
            offset_of!(State, repeated),
            offset_of!(State, misplaced),
        ];
        let in_order = |offsets: &[usize]| {
            let mut expected = (0..).step_by(8);
            offsets.iter().all(|at| Some(*at) == expected.next())
        };
        let as_agreed = in_order(&route) && in_order(&gate) && in_order(&event) && in_order(&state);
        let numbers = [PASSED, BROKEN, MISPLACED, HELD_UP, CLOSED];
        let destinations = [TO_CLIENT, TO_BRIDGE];
        assert!(
            as_agreed
                && numbers == [1, 2, 16, 32, u64::MAX]
                && destinations == [0, 1]
                && (DESTINATION_LEN, MAX_DATAGRAM) == (4, 15 * 1024)
                && size_of::<State>() == 144
                && AGREEMENT == 1,
            "what programs and gateway have agreed on has changed: raise AGREEMENT, then this"
        );
    }
}
