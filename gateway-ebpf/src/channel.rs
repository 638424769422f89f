//! What the programs know of the channel whose bytes they see.

use core::ptr;

use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::programs::SkBuffContext;
use gateway_common::layout::{Event, Gate, NEXT_IS_KNOWN, Route, State};

use crate::maps::{EVENTS, GATES, ROUTES, STATES};

/// The channel that a socket belongs to.
pub struct Channel {
    /// Cookie of the socket that names what is seen: its target has the same key.
    pub cookie: u64,
    pub route: Route,
    state: *mut State,
}

impl Channel {
    /// `None`: the socket belongs to no channel, or to none any more.
    #[inline(always)]
    pub fn of(context: &SkBuffContext) -> Option<Self> {
        // SAFETY: the helper takes the context that the kernel gave to the program.
        Self::with(unsafe { bpf_get_socket_cookie(context.skb.skb.cast()) })
    }

    /// The channel to which the socket with this cookie belongs.
    #[inline(always)]
    pub fn with(cookie: u64) -> Option<Self> {
        // SAFETY: userspace writes a route once, before the sockets enter their maps.
        let route = *unsafe { ROUTES.get(cookie) }?;
        let state = STATES.get_ptr_mut(route.slot)?;
        Some(Self {
            cookie,
            route,
            state,
        })
    }

    #[inline(always)]
    pub fn state(&self) -> Counters {
        Counters(self.state)
    }

    /// What userspace says now.
    #[inline(always)]
    pub fn gate(&self) -> Option<Gate> {
        let gate = GATES.get_ptr(self.route.slot)?;
        // SAFETY: aligned numbers in a map's value, which userspace writes meanwhile, each whole.
        unsafe {
            Some(Gate {
                forwarded: ptr::read_volatile(&raw const (*gate).forwarded),
                limit: ptr::read_volatile(&raw const (*gate).limit),
            })
        }
    }

    /// Tells userspace; it is woken unless it is already about to look.
    #[inline(always)]
    pub fn tell(&self, kind: u64) {
        let event = Event {
            host: self.route.host,
            kind,
        };
        // A ring that is full has woken userspace before, which then looks at every channel.
        let _ = EVENTS.output::<Event>(event, 0);
    }
}

/// The numbers of a channel, see [`State`] for who writes which.
#[derive(Clone, Copy)]
pub struct Counters(*mut State);

macro_rules! counters {
    ($($name:ident $add:ident)*) => {$(
        #[inline(always)]
        pub fn $name(self) -> u64 {
            // SAFETY: an aligned number in a map's value, which other programs may be writing.
            unsafe { ptr::read_volatile(&raw const (*self.0).$name) }
        }

        #[inline(always)]
        pub fn $add(self, by: u32) {
            let sum = self.$name() + u64::from(by);
            // SAFETY: as above; this program is the only one that writes it.
            unsafe { ptr::write_volatile(&raw mut (*self.0).$name, sum) }
        }
    )*};
}

impl Counters {
    counters! {
        redirected add_redirected
        passed add_passed
        messages add_messages
        passes add_passes
        stops add_stops
        resumes add_resumes
        host_dropped add_host_dropped
        framed add_framed
        headers add_headers
        frames add_frames
        bridge_dropped add_bridge_dropped
        injected add_injected
        returned add_returned
        injector_dropped add_injector_dropped
        repeated add_repeated
        misplaced add_misplaced
    }

    /// TCP's number of the host's next byte; `None` before the first segment.
    #[inline(always)]
    pub fn next(self) -> Option<u32> {
        // SAFETY: an aligned number in a map's value; only the host leg's program uses it.
        let next = unsafe { ptr::read_volatile(&raw const (*self.0).next) };
        (next & NEXT_IS_KNOWN != 0).then_some(next as u32)
    }

    #[inline(always)]
    pub fn set_next(self, next: u32) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*self.0).next, NEXT_IS_KNOWN | u64::from(next)) }
    }

    /// Bytes that wait before the bridge.
    #[inline(always)]
    pub fn waiting(self) -> u64 {
        // Read first: it must not overtake the others.
        let framed = self.framed();
        (self.redirected() + self.returned()).wrapping_sub(framed)
    }

    /// Takes bytes back that were counted as redirected.
    #[inline(always)]
    pub fn take_back_redirected(self, len: u32) {
        let rest = self.redirected().wrapping_sub(u64::from(len));
        // SAFETY: an aligned number in a map's value; only the host leg's program writes it.
        unsafe { ptr::write_volatile(&raw mut (*self.0).redirected, rest) }
    }

    /// Notes whether bytes of the host are redirected from now on; true if that is a change.
    #[inline(always)]
    pub fn set_redirecting(self, redirecting: bool) -> bool {
        // SAFETY: an aligned number in a map's value; only the host leg's program uses it.
        unsafe {
            let cell = &raw mut (*self.0).redirecting;
            let changed = ptr::read_volatile(cell) != redirecting as u64;
            ptr::write_volatile(cell, redirecting as u64);
            changed
        }
    }
}
