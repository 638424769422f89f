//! Maps that programs and the gateway share; `gateway_common::layout` says what is in them.
//!
//! The gateway sets the sizes when it loads the object.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, RingBuf, SockHash};
use gateway_common::layout::{Event, Gate, Route, State};

#[map]
pub static HOSTS: SockHash<u64> = SockHash::with_max_entries(1, 0);
#[map]
pub static UNIX_HOSTS: SockHash<u64> = SockHash::with_max_entries(1, 0);
#[map]
pub static BRIDGES: SockHash<u64> = SockHash::with_max_entries(1, 0);
#[map]
pub static INJECTORS: SockHash<u64> = SockHash::with_max_entries(1, 0);
#[map]
pub static TARGETS: SockHash<u64> = SockHash::with_max_entries(1, 0);
#[map]
pub static ROUTES: HashMap<u64, Route> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
pub static STATES: Array<State> = Array::with_max_entries(1, 0);
#[map]
pub static GATES: Array<Gate> = Array::with_max_entries(1, 0);
/// An event that finds no room is lost, and a host that is held up causes no other one. Whoever reads
/// a ring that may have been full has every channel look.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(256 * size_of::<Event>() as u32 * 4, 0);
#[map]
pub static ABILITIES: Array<u64> = Array::with_max_entries(1, 0);
