//! Maps that programs and the gateway share.

use aya_ebpf::macros::map;
use aya_ebpf::maps::SockMap;

/// Sockets that bytes are redirected to, by channel slot; no program runs on them.
///
/// The gateway sets the size when it loads the object.
#[map]
pub static TARGETS: SockMap = SockMap::with_max_entries(1, 0);
